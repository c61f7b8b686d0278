"""Every lesson's and every solution's cells run where there is a GPU: on the pretend device, trainings cut short."""

import hashlib
import os
from pathlib import Path

import pytest
import short_lessons
from course_notebooks import LESSONS, ROOT, SOLUTIONS

pytestmark = pytest.mark.devices

PASSED = "SSLCOURSE_PASSED"  # names a folder: a notebook that passed, and nothing has changed since, is passed over


def state(notebook: Path) -> str:
    """Digest of the notebook and of all code that it may run."""
    digest = hashlib.blake2b(notebook.read_bytes(), digest_size=10)
    for path in sorted(
        [*(ROOT / "sslcourse").rglob("*.py"), ROOT / "tests/pretend_device.py", Path(short_lessons.__file__)]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("notebook", [*LESSONS, *SOLUTIONS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_cell_runs_there(notebook, tmp_path_factory):
    mark = Path(os.environ[PASSED]) / f"{notebook.stem}-{state(notebook)}" if os.environ.get(PASSED) else None
    if mark is not None and mark.exists():
        pytest.skip("passed before")
    faults = short_lessons.faults(notebook, tmp_path_factory.getbasetemp())
    assert not faults, "\n".join(faults)
    if mark is not None:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
