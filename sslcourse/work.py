"""A person's own copy of the course: what they write there never stands in the way of a new version.

    sslcourse-work/                in the home folder, or where SSLCOURSE_WORK says
        index.md                   made anew whenever the lab opens (overview.py)
        notebooks/ exercises/ ...  as in the course, so that links between them lead somewhere
        kept/                      what a new version or `reset` has taken the place of
        .sslcourse/                what was copied, and what the person predicted

Nothing is deleted. A file in which nothing was written is brought up to date, one in which something was stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from sslcourse import notebook as notebooks
from sslcourse.errors import CourseError
from sslcourse.files import reading, written
from sslcourse.locking import Unwritable, claimed
from sslcourse.paths import work_folder

COURSE = Path(__file__).resolve().parents[1]
SETTINGS = ".sslcourse"
DELIVERED = "delivered.json"
KEPT = "kept"
LESSONS = "notebooks/[0-9][0-9]_*.ipynb"
COPIED = (
    LESSONS,
    "exercises/*/*.ipynb",
    "solutions/*/*.ipynb",
    "docs/*.md",
    "docs/pretrain*",
    "docs/simclr*",
    "benchmarks/*",
    "*.md",
    "LICENSE",
    "CITATION.cff",
)


@dataclass
class Changes:
    """What bringing a copy up to date did, by the names of files in the course."""

    new: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)  # nothing was written in them
    kept: list[str] = field(default_factory=list)  # something was, and there is a new version


def begin(course: Path = COURSE, work: Path | None = None) -> tuple[Path, Changes]:
    """The folder to work in, up to date. Where SSLCOURSE_WORK names the course itself, that is the folder."""
    work = (work or work_folder()).absolute()
    if not lessons(course):
        raise CourseError(
            f"there is no lesson in {course}; the notebooks come with the repository: run this from a clone."
        )
    if work.exists() and work.samefile(course):
        return work, Changes()
    with _claimed(work):
        return work, _update(course, work)


def reset(number: str, course: Path = COURSE, work: Path | None = None) -> tuple[list[str], list[Path]]:
    """Lesson `number` and its exercise as they are in the course: (their names, where the earlier ones are kept)."""
    work, _ = begin(course, work)
    if work.samefile(course):
        raise CourseError(
            f"{work} is the course itself, which `git checkout` resets; SSLCOURSE_WORK names another folder."
        )
    path = lesson(number, course)
    names = [path, *_names(course, f"exercises/{Path(path).stem}/*.ipynb")]
    kept = []
    with _claimed(work):
        delivered = _delivered(work)
        for name in names:
            if _digest(_content(work / name)) != delivered[name]["is"]:
                kept.append(_keep(work / name, work))
            _deliver(name, course, work, delivered)
        _remember(work, delivered)
    return names, kept


def lessons(course: Path = COURSE) -> dict[str, str]:
    """{number: name of its notebook in the course}, in the order of the course."""
    found = {Path(name).name[:2]: name for name in _names(course, LESSONS)}
    return {number: found[number] for number in sorted(found, key=_place)}


def lesson(number: str, course: Path = COURSE) -> str:
    """The name of the notebook of a lesson, such as "notebooks/02_rotation_mathematics.ipynb" for "2"."""
    found = lessons(course)
    if number.zfill(2) not in found:
        raise CourseError(f"there is no lesson {number!r} in {course / 'notebooks'}; there are {', '.join(found)}.")
    return found[number.zfill(2)]


def begun(work: Path) -> set[str]:
    """Names of the files in which something was written or run since they were copied."""
    delivered = _delivered(work)
    return {
        name
        for name in delivered
        if (work / name).is_file() and _digest(_content(work / name)) != delivered[name]["is"]
    }


# --- bringing up to date --------------------------------------------------------------------------------------------


def _update(course: Path, work: Path) -> Changes:
    delivered, changes = _delivered(work), Changes()
    for pattern in COPIED:
        for name in _names(course, pattern):
            _rename_former(work / name)
            present, new = _content(work / name), _digest(_content(course / name))
            if present is None:
                changes.new.append(name)
            elif delivered.get(name, {}).get("from") == new:
                continue
            elif _is_written_in(present, name, course, delivered):
                changes.kept.append(name)
                continue
            else:
                changes.renewed.append(name)
                if name in delivered and _digest(present) != delivered[name]["is"]:  # it was run
                    _keep(work / name, work)
            _deliver(name, course, work, delivered)
    _remember(work, delivered)
    return changes


def _is_written_in(present: bytes, name: str, course: Path, delivered: dict[str, Any]) -> bool:
    """Whether a person wrote in their file. Running a notebook isn't writing: only the text of its cells counts."""
    before, new = delivered.get(name, {}), _copied(course / name)
    if _digest(present) in (before.get("is"), _digest(new)):
        return False
    wrote = _written(present)
    return wrote is None or wrote not in (before.get("wrote"), _written(new))


def _rename_former(path: Path) -> None:
    """An exercise had the name of its lesson, NN_name.ipynb, before it was called exercises_NN.ipynb."""
    former = path.with_name(f"{path.parent.name}.ipynb")
    if path.name.startswith("exercises_") and former.is_file() and not path.exists():
        former.rename(path)


def _deliver(name: str, course: Path, work: Path, delivered: dict[str, Any]) -> None:
    """Copy a file of the course, and note what it was."""
    content = _copied(course / name)
    _write(work / name, content)
    delivered[name] = {"from": _digest(_content(course / name)), "is": _digest(content), "wrote": _written(content)}


def _copied(path: Path) -> bytes:
    """What a file of the course is as a copy: the pictures of a notebook get words that a page shows."""
    content = _content(path)
    found = notebooks.read(content) if path.suffix == ".ipynb" else None
    return content if found is None else notebooks.write(notebooks.with_words(found))


def _keep(path: Path, work: Path) -> Path:
    """Move a file among those that are kept, under a name with today's date."""
    name = f"{path.stem}.{date.today().isoformat()}"
    places = (work / KEPT / f"{name}{again}{path.suffix}" for again in ("", *(f".{k}" for k in range(2, 1000))))
    place = next(place for place in places if not place.exists())
    place.parent.mkdir(exist_ok=True)
    shutil.move(path, place)
    return place


# --- files and what is known of them --------------------------------------------------------------------------------


@contextlib.contextmanager
def _claimed(work: Path) -> Iterator[None]:
    """The folder, for this process alone: of two that open at once, each would take the other's copies for written in."""
    if work.exists() and not work.is_dir():
        raise CourseError(
            f"{work} is a file, and your copies of the notebooks need a folder: name one in SSLCOURSE_WORK."
        )
    try:
        with claimed(work, wait=True):
            yield
    except (OSError, Unwritable) as error:
        why = getattr(error, "strerror", None) or error
        raise CourseError(
            f"your copies of the notebooks can't be written to {work} ({why}); make room there, or name another folder "
            "in SSLCOURSE_WORK."
        ) from None


def _names(course: Path, pattern: str) -> Iterator[str]:
    """Files of the course by a pattern, as names that are the same on every system; no hidden ones."""
    for path in sorted(course.glob(pattern)):
        name = path.relative_to(course)
        if path.is_file() and not any(part.startswith((".", "__")) for part in name.parts):
            yield name.as_posix()


def _place(number: str) -> float:
    """What lessons are sorted by: 21 stands after 18, since 19 and 20 had their numbers before it."""
    return 18.5 if number == "21" else int(number)


def _content(path: Path) -> bytes | None:
    if not path.exists():
        return None
    with reading(path):
        return path.read_bytes()


def _digest(content: bytes | None) -> str:
    return hashlib.sha256(content or b"").hexdigest()


def _written(content: bytes) -> str | None:
    """A digest of the cells of a notebook; None of what isn't one."""
    found = notebooks.read(content)
    return None if found is None else _digest(json.dumps(notebooks.sources(found)).encode())


def _delivered(work: Path) -> dict[str, Any]:
    """{name: digests of the course's file ("from"), of the copy ("is") and of its cells ("wrote")}."""
    try:
        known = json.loads(_content(work / SETTINGS / DELIVERED) or b"{}")
    except ValueError:  # then every file that differs from the course's is taken for written in
        return {}
    return known if isinstance(known, dict) else {}


def _remember(work: Path, delivered: dict[str, Any]) -> None:
    _write(work / SETTINGS / DELIVERED, json.dumps(delivered, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    with written(path) as temporary:
        temporary.write_bytes(content)
