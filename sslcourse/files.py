"""Writing files so that a kill, a crash or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from sslcourse.errors import CourseError


@contextlib.contextmanager
def written(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """A temporary file beside `path` for the block to fill; afterwards it is flushed to the disk and moved into place.

    With `keep`, the file that was at `path` is moved there first. The new file has the mode that the umask gives to any
    new file, so that others can read what they may. When the block raises, the temporary file is gone and `path` is as
    it was. Raises OSError where it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)  # from which the system takes the umask
    try:
        with os.fdopen(handle, "wb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        os.chmod(temporary, mode)  # a library that filled it may have put a file of its own in its place
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_atomically(path: Path, content: bytes, keep: Path | None = None, then: str = "") -> None:
    """Write `content` to `path`, whole or not at all. With `keep`, the file that was at `path` is moved there first.

    then  how whoever called goes on once there is space, for the error's last words

    Raises CourseError, and leaves what was there as it was, when the disk is full or the folder can't be written.
    """
    try:
        with written(path, keep) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise CourseError(
            f"could not write {path} ({error.strerror or error}); what was there before is unharmed. "
            f"Free some space or choose another place{then}."
        ) from None


def refuse_foreign(path: Path, ours: Callable[[Path], bool], what: str) -> None:
    """Raise CourseError where a file lies at `path` that isn't `what`, or can't be read: only what a command wrote is replaced.
    A folder can't be replaced at all.

    ours  whether the file that lies there is one
    """
    if path.is_dir():
        raise CourseError(f"{path} is a folder, and a file is to be written there; give it a name of its own.")
    with reading(path):
        foreign = path.is_file() and path.stat().st_size > 0 and not ours(path)
    if foreign:
        raise CourseError(f"{path} is there already and isn't {what}; choose another name, or move it away.")


def begins_with(path: Path, text: str) -> bool:
    """Whether a file begins with these characters, in UTF-8 with or without a mark of it."""
    with path.open("rb") as file:
        return file.read(len(text.encode()) + 3).removeprefix(b"\xef\xbb\xbf").startswith(text.encode())


def refuse_pipe(path: Path | str) -> None:
    """Raise CourseError for a pipe, a socket or a device, which might keep its reader waiting for good."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise CourseError(f"{path} is a pipe or a device, and reading it might never end; give a file.")


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """CourseError, in one sentence, for a file or folder that can't be read within the block, whatever the reason, and
    before it for a pipe."""
    refuse_pipe(path)
    try:
        yield
    except PermissionError:
        raise CourseError(
            f"{path} can't be read: it belongs to someone who hasn't allowed it; ask them for leave to read "
            "(chmod a+r on a file, a+rx on a folder), or give another one."
        ) from None
    except OSError as error:
        raise CourseError(f"{path} can't be read ({error.strerror or error}); give another one.") from None
