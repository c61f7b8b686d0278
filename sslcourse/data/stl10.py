"""STL-10: 100,000 unlabeled photographs of 96x96 pixels, and 13,000 labelled ones, as bytes in three large files.

torchvision would hold all of a file in memory. Here single images are read out of it, so that they can be streamed as
files can (listing.py), and in memory take no more room than at the size that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sslcourse.data import cache as caches
from sslcourse.data import decode, sources
from sslcourse.data.fetch import Remote
from sslcourse.data.listing import Listing, load_listed
from sslcourse.data.options import LoadOptions
from sslcourse.data.sources import Source
from sslcourse.data.splits import Splits

SIDE = 96  # pixels
LENGTH = 3 * SIDE**2  # bytes of an image


def _files(kind: type) -> list[Remote]:
    return [Remote(kind.url, kind.tgz_md5, kind.filename)]


SOURCE = Source("stl10", "STL10", "stl10_binary", 2640, _files)


class _Pixels(decode.Disk):
    """The shelf of images that lie one after the other in a file; their names are SPLIT/NUMBER.

    An image is red, then green, then blue, each column by column.
    """

    def __init__(self, place: Path):
        self.place = place

    def path(self, split: str) -> Path:
        return self.place / f"{split}_X.bin"

    def file(self, name: str) -> bytes:
        """The image as a PPM file."""
        split, _, number = name.partition("/")
        pixels = np.fromfile(self.path(split), np.uint8, LENGTH, offset=int(number) * LENGTH)
        pixels = pixels.reshape(3, SIDE, SIDE).transpose(2, 1, 0)  # [channel, x, y] -> [y, x, channel]
        return f"P6 {SIDE} {SIDE} 255\n".encode() + pixels.tobytes()

    def length(self, name: str) -> int:
        return LENGTH

    def stamp(self, names: Sequence[str]) -> str:
        files = super().stamp([os.fspath(self.path(split)) for split in ("train", "test", "unlabeled")])
        return f"{files} {caches.checksum({'names': np.array([os.fsencode(name) for name in names])})}"


def load_stl10(name: str, options: LoadOptions) -> Splits:
    """STL-10 (Coates, Ng and Lee, 2011). Test and unlabeled are the official ones; val is a tenth of train, by `seed`.

    The default of `size` is 96. Raises CourseError as `load_listed` does, without a copy and a network, and for a damaged
    copy.
    """
    size = options.size or SIDE
    classes = tuple(sources.opened(SOURCE, options.progress, split="test").classes)
    shelf = _Pixels(sources.folder() / SOURCE.place)
    listing = Listing(shelf.place, name, name, classes=classes, shelf=shelf)
    with sources.damage_named(SOURCE):
        for split in ("train", "test"):
            labels = np.fromfile(shelf.place / f"{split}_y.bin", np.uint8) - 1  # 1..10 in the file
            listing.files[split] = [(classes[label], f"{split}/{i}") for i, label in enumerate(labels.tolist())]
        unlabeled = shelf.path("unlabeled").stat().st_size // LENGTH
    listing.files["unlabeled"] = [("", f"unlabeled/{i}") for i in range(unlabeled)]
    cache = options.cache and len(listing.rows) * 3 * size**2 < caches.LIMIT
    return load_listed(listing, replace(options, size=size, cache=cache))
