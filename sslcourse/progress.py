"""A learner's progress: one file of JSON beside their notebooks, `.sslcourse/progress.json`.

    {"format": "sslcourse progress 1",
     "predictions": {"02/blossom": {"asked": "How much will the blossom cost?", "unit": "nats",
                                    "predicted": 1.4, "measured": 2.38}}}

A prediction is a number or one of the choices, as text; "measured" is missing until the cell that answers has run. Who
keeps something else beside it (what is solved, say) adds an entry of its own: what isn't known here stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sslcourse import paths
from sslcourse.errors import CourseError
from sslcourse.files import write_atomically

FORMAT = "sslcourse progress 1"


def file() -> Path:
    """Where the progress is kept: a person's own folder, which nobody empties for room, as a cache is."""
    return paths.work_folder() / ".sslcourse" / "progress.json"


def former_file() -> Path:
    """Where it was kept before."""
    return paths.cache_folder() / "progress.json"


def read() -> dict[str, Any]:
    """Everything that is kept; nothing yet where there is no file. Raises CourseError for a file that isn't ours."""
    path = file() if file().exists() else former_file()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"format": FORMAT, "predictions": {}}
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} can't be read as a learner's progress ({error}); move it away.") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CourseError(f"{path} isn't a learner's progress as this course keeps it; move it away.")
    return {"predictions": {}} | found


def keep(kind: str, name: str, **entry: Any) -> None:
    """Add to what is kept under this kind and name; entries that are there already and aren't given stay."""
    found = read()
    known = found.setdefault(kind, {})
    known[name] = known.get(name, {}) | entry
    write_atomically(file(), (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def predictions() -> dict[str, dict[str, Any]]:
    """{name: entry} of every prediction that was entered."""
    return read()["predictions"]
