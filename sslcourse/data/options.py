"""How a data set is read, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sslcourse.errors import CourseError, whole_number

SIZES = (8, 512)  # pixels, the smallest and the largest that is accepted


@dataclass(frozen=True)
class LoadOptions:
    """Options of every loader; one that a source has no use for is not looked at.

    size     height and width of the images in pixels, from 8 to 512; None: each source's own
    seed     decides what pocket world shows, and which images become val or test where a source doesn't say
    cache    keep drawn and decoded images in the user's cache folder
    progress show progress bars
    stream   leave the images to pretrain on in their files, to be decoded meanwhile: True, False, or None for where they
             don't fit into memory
    labels   a CSV file with the classes of the files in a folder (labels.py)

    Raises CourseError for a size or a seed that is none.
    """

    size: int | None = None
    seed: int = 0
    cache: bool = True
    progress: bool = True
    stream: bool | None = None
    labels: Path | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            low, high = SIZES
            object.__setattr__(self, "size", whole_number("the size in pixels", self.size, low, high))
        object.__setattr__(self, "seed", whole_number("the seed", self.seed, 0, 2**63 - 1))
        for name, allowed in (("cache", (True, False)), ("progress", (True, False)), ("stream", (True, False, None))):
            if not any(getattr(self, name) is value for value in allowed):
                raise CourseError(f"{name} must be {' or '.join(map(str, allowed))}, and is {getattr(self, name)!r}.")
