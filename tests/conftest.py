"""What every test runs under: no network, one thread, no screen, nothing written into the tree."""

import atexit
import os
import re
import runpy
import shutil
import signal
import tempfile
from pathlib import Path

# Before torch is imported: a worker is one of two on two cores, and one thread adds up in one order.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

# Nobody's own notebooks take part.
os.environ["SSLCOURSE_WORK"] = tempfile.mkdtemp(prefix="sslcourse-work-")
atexit.register(shutil.rmtree, os.environ["SSLCOURSE_WORK"], ignore_errors=True)

# A shell that starts a run in the background lets it ignore Ctrl-C, nohup lets it ignore SIGHUP, and every process that a
# test starts would as well.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

OFFLINE = Path(__file__).parent / "offline"
runpy.run_path(str(OFFLINE / "sitecustomize.py"))  # this process
paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
if str(OFFLINE) not in paths:  # and every process that a test starts
    os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *paths])

import sys  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "sslcourse-hypothesis")
# The same examples on every run; `pytest --hypothesis-profile explore` draws new ones.
hypothesis.settings.register_profile("course", database=None, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("explore", database=None, deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("course")


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """call("evaluate", "random", ...) -> (exit code, standard output, standard error), in this process."""
    from sslcourse import cli

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sslcourse", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of two classes that differ in colour, 30 images each, some wider than high."""
    return two_colours(tmp_path_factory.mktemp("photographs"), ("blue things", "red things"))


def two_colours(folder, names, count=30):
    """Pictures of two classes, by these names: `count` of each, some wider than high."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for c, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 120, (24, 24 + i % 3, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * c] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadscope`, the tests of one assignment go to one process, which runs its notebook once."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByAssignment(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "test_exercises.py" not in nodeid:
                return nodeid
            found = re.search(r"\[(exercises_\d\d)\]$", nodeid)
            return found.group(1) if found else "the tiny assignment"

    return ByAssignment(config, log)


@pytest.fixture(scope="module")
def chromium():
    """A browser, for the tests of pages."""
    import browser

    assert browser.chromium(), "no Chromium here: install the package chromium"
    with browser.browser() as started:
        yield started
