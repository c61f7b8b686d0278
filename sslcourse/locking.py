"""One at a time: what two processes would write at once belongs to the first, and the second is told so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from sslcourse.errors import CourseError

HIDDEN = ".lock"  # in a folder; beside a file it is .NAME.lock


class Claimed(CourseError):
    """Another run is writing the same folder or file at this moment."""


class Unwritable(CourseError):
    """The folder can't be written, so that nothing in it can be claimed."""


@contextlib.contextmanager
def claimed(place: Path | str, *, file: bool = False, wait: bool = False) -> Iterator[Path]:
    """Within the block, `place` belongs to this process: a folder, or with `file` a file that others write whole.

    wait   for the process that has it to finish; otherwise it is refused at once (Claimed)

    The folder, or the one around the file, is made where there is none, and is gone afterwards when nothing was put into
    it. The system gives a lock back when its process dies, so that none is ever left over. Raises Unwritable where the
    folder can't be written.
    """
    place = Path(place)
    if file and place.is_dir():
        raise CourseError(f"{place} is a folder, and a file is to be written there; give it a name of its own.")
    folder = place.parent if file else place
    if folder.exists() and not folder.is_dir():
        raise CourseError(f"{folder} is a file; --out needs a folder.")
    made = not folder.exists()
    lock = filelock.FileLock(folder / (f".{place.name}{HIDDEN}" if file else HIDDEN))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=wait)
    except filelock.Timeout:
        raise Claimed(
            f"another run is writing {place} at this moment; wait until it has finished, or choose another name."
        ) from None
    except OSError as error:
        raise Unwritable(f"could not write to {folder} ({error.strerror or error}); choose another folder.") from None
    try:
        yield place
    finally:
        with contextlib.suppress(OSError):  # while it is held: the next one to ask makes a new file
            Path(lock.lock_file).unlink()
        lock.release()
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def claimed_files(*places: Path | None) -> Iterator[None]:
    """Within the block, these files that it writes belong to this process; None is no file. Asked before anything is
    computed, it says what would go wrong afterwards. Raises as `claimed` does, and CourseError for one file named twice.
    """
    asked = [place for place in places if place is not None]
    if len({place.absolute() for place in asked}) < len(asked):
        raise CourseError(f"{asked[0]} is to hold two things; give each a file of its own.")
    with contextlib.ExitStack() as held:
        for place in asked:
            held.enter_context(claimed(place, file=True))
        yield
