"""Image files of any kind in, square uint8 RGB arrays out, and a reason for every file that can't be read.

What becomes of which file: EXIF orientation is applied; gray, palette and CMYK become RGB; 16 bits are scaled to 8, not
clipped; what is transparent is laid on white; of an animation the first frame counts. The centre square is cut out and
resized with antialiasing. Which formats are opened, Pillow decides, with all that is registered with it; those of CLOSED
aren't, whatever a file is called. Only regular files are opened: a pipe would keep its reader waiting for good.

Files are known by names, and a shelf has what a name stands for: `Disk`, where names are paths, or another with the same
three methods (see huggingface.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import sys
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from sslcourse.console import shown
from sslcourse.errors import CourseError

CLOSED = {
    "EPS",
    "PDF",
    "WMF",
    "MPEG",
    "BUFR",
    "GRIB",
    "HDF5",
}  # programs to run, videos, and what is known by name only
USUAL = (".jpg", ".png", ".webp", ".bmp", ".tif", ".gif")  # endings to name in a message
NATIVE = 96  # pixels; images that share one square size up to here keep it
DEFAULT = 64  # pixels; the size of all others
SMALL = 8  # pixels; an image with a shorter side holds less than one patch
BIG = 16_000_000  # pixels; images above are decoded one at a time, since each takes hundreds of megabytes
ORIENTATION = 0x0112  # the EXIF tag, and what makes an image upright again for each of its values but 1
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

File = Path | str | bytes  # the path of an image file, or what such a file holds

_one_big_image = threading.Lock()


class Unreadable(Exception):
    """Why a file can't be read, in a few words."""


@dataclass(frozen=True)
class Decoded:
    """images: uint8 (N, 3, size, size); files: int64 (N,), the file of each; skipped: (file, reason); small: files."""

    images: np.ndarray
    files: np.ndarray
    skipped: list[tuple[int, str]]
    small: list[int]


class Disk:
    """The shelf of files that lie in folders; their names are paths."""

    def file(self, name: str | Path) -> File:
        """What `read_image` opens."""
        return name

    def length(self, name: str | Path) -> int:
        """How many bytes the file has; -1 for one that isn't there."""
        return self._state(name)[0]

    def stamp(self, names: Sequence[str | Path]) -> str:
        """What changes when a name in the list, a file's length or its time does."""
        digest = hashlib.blake2b(digest_size=16)
        for name in names:
            length, time = self._state(name)
            digest.update(os.fsencode(name) + f"/{length}/{time}\n".encode())
        return digest.hexdigest()

    @staticmethod
    def _state(name: str | Path) -> tuple[int, int]:
        try:
            found = os.stat(name)
        except OSError:
            return -1, -1
        return found.st_size, found.st_mtime_ns


DISK = Disk()


def decode(names: Sequence[str | Path], size: int, progress: bool = True, shelf: Disk = DISK) -> Decoded:
    """All images that can be read, in the given order. Raises CourseError when they would not fit into memory."""
    require_memory(len(names), size)
    images = np.empty((len(names), 3, size, size), np.uint8)
    reasons: dict[int, str] = {}
    small: list[int] = []

    def read(part: range) -> int:
        for i in part:
            try:
                images[i], short_side = read_image(shelf.file(names[i]), size)
            except Unreadable as reason:
                reasons[i] = str(reason)
            else:
                if short_side < SMALL:
                    small.append(i)
        return len(part)

    parts = [range(i, min(i + 64, len(names))) for i in range(0, len(names), 64)]
    style = {"desc": "reading images", "leave": False, "delay": 1.0, "file": sys.stderr}
    bar = tqdm(total=len(names), disable=not progress, **style)
    pool = ThreadPoolExecutor(_workers(names, shelf))
    with bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is converted, or named as skipped, anyway
        try:
            for done in pool.map(read, parts):
                bar.update(done)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C doesn't wait for all the rest
    kept = np.array([i for i in range(len(names)) if i not in reasons], np.int64)
    images = images if len(kept) == len(names) else images[kept]
    return Decoded(images, kept, sorted(reasons.items()), sorted(small))


def _workers(names: Sequence[str | Path], shelf: Disk) -> int:
    """One thread for small files, where Python is most of the work; otherwise one per core, up to eight."""
    sample = [shelf.length(name) for name in names[:: max(1, len(names) // 20)]]
    return 1 if not sample or np.median(sample) < 20_000 else min(8, os.cpu_count() or 1)


def formats(ending: str = "") -> list[str]:
    """The formats that a file with this ending is opened as, under Pillow's names for them.

    Where a format has no signature (TGA), anything can be read as it: that takes its own ending.
    """
    Image.init()
    own = Image.registered_extensions().get(ending.lower())
    return [
        name for name, (_, accept) in Image.OPEN.items() if name not in CLOSED and (accept is not None or name == own)
    ]


def endings() -> frozenset[str]:
    """The endings of files that are taken for images, in small letters, with their dot."""
    Image.init()
    readable = Image.OPEN.keys() - CLOSED
    known = {ending for ending, name in Image.registered_extensions().items() if name in readable}
    return frozenset(known | {".mpo"} if "JPEG" in readable else known)  # of phones: JPEG, with a second one behind it


def identified(source: File, file: BinaryIO) -> Image.Image:
    """The image in an opened file, not decoded yet."""
    ending = "" if isinstance(source, bytes) else os.path.splitext(os.fspath(source))[1]
    return Image.open(file, formats=formats(ending))


def opened(file: File) -> BinaryIO:
    """The bytes of an image file, as a file to read. Raises Unreadable for a pipe, a socket or a device."""
    if isinstance(file, bytes):
        return io.BytesIO(file)
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise Unreadable("not a regular file")
    return open(file, "rb")


def read_image(source: File, size: int) -> tuple[np.ndarray, int]:
    """One image as uint8 (3, size, size), and the length of the shorter side in the file. Raises Unreadable."""
    try:
        with opened(source) as file:
            if file.seek(0, os.SEEK_END) == 0:
                raise Unreadable("empty file")
            file.seek(0)
            image = identified(source, file)
            short_side = min(image.size)
            big = image.width * image.height > BIG
            image.draft(None, (2 * size, 2 * size))  # JPEG: decode a half, quarter or eighth, where that is enough
            with _one_big_image if big else contextlib.nullcontext():
                square = _centre_square(_rgb(image), size)
            square = _upright(image, square)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        raise Unreadable(_reason(error)) from None
    return np.asarray(square).transpose(2, 0, 1), short_side


def _reason(error: Exception) -> str:
    match error:
        case PermissionError():
            return "no permission to read it"
        case FileNotFoundError():
            return "a link to nothing"
        case UnidentifiedImageError():
            return "not a JPEG, PNG or other image that Pillow reads"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels"
        case MemoryError():
            return "too large for memory"
    return f"damaged ({shown(str(error).splitlines()[0][:60])})" if str(error).strip() else "damaged"


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("32-bit values outside 0..65535, whose range is unknown")
        return _from_16_bits(values)
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise Unreadable("float values outside [0, 1], whose range is unknown")
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(values: np.ndarray) -> Image.Image:
    """Gray values 0..65535 as 8-bit RGB: 65535 becomes 255."""
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle, resized to size x size (bilinear, antialiased)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.crop(box) if side == size else image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _upright(image: Image.Image, square: Image.Image) -> Image.Image:
    """`square`, turned as the EXIF orientation of `image` says; a damaged EXIF block says nothing."""
    with contextlib.suppress(Exception):  # no such tag, no such value
        return square.transpose(UPRIGHT[image.getexif()[ORIENTATION]])
    return square


def common_size(names: Sequence[str | Path], shelf: Disk = DISK) -> int:
    """The size to use where none is asked for: the images' own, when all are square, equally large and at most NATIVE
    pixels wide, and DEFAULT otherwise. Of many files, some two hundred evenly spaced ones are looked at.
    """
    seen = set()
    for name in names[:: max(1, len(names) // 200)]:
        with contextlib.suppress(Exception), opened(source := shelf.file(name)) as file:
            seen.add(identified(source, file).size)
    width, height = seen.pop() if len(seen) == 1 else (0, 0)
    return width if width == height and SMALL <= width <= NATIVE else DEFAULT


def room(size: int) -> int | None:
    """How many images fit into the available memory, with the copy that splitting them makes; None: not known."""
    available = available_memory()
    return None if available is None else available // (2 * 3 * size**2)


def require_memory(count: int, size: int) -> None:
    """Raise CourseError when `count` images don't fit into memory."""
    most = room(size)
    if most is not None and count > most:
        needed, available = (2 * images * 3 * size**2 / 1e9 for images in (count, most))
        raise CourseError(
            f"{count:,} images at {size}x{size} pixels take {needed:.1f} GB of memory, and {available:.1f} GB "
            "are available; choose a smaller size or fewer images."
        )


def available_memory() -> int | None:
    """Bytes that can still be had: what Linux reports as available, elsewhere half of what is built in, if known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None
