"""Writing files so that a kill, a crash or a full disk leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from sslcourse.errors import CourseError


def write_atomically(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Write `content` to a temporary file beside `path`, flush it to the disk, and move it into place.

    With `keep`, the file that was at `path` is moved there first. Raises CourseError, and leaves what was there as it
    was, when the disk is full or the folder can't be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise CourseError(
            f"could not write {path} ({error.strerror or error}); what was there before is unharmed. "
            "Free some space or choose another folder, and go on with --resume."
        ) from None
