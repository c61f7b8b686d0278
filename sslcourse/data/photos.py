"""Photographs of other people, each a JPEG file of its own size: Imagenette and Oxford Flowers.

They are downloaded as sources.py says, opened by torchvision, and read or streamed as a folder is (listing.py).
"""

from __future__ import annotations

import os
from dataclasses import replace

from sslcourse.data import decode, sources
from sslcourse.data.fetch import Remote
from sslcourse.data.listing import Listing, load_listed
from sslcourse.data.options import LoadOptions
from sslcourse.data.sources import Source
from sslcourse.data.splits import Splits

IMAGES = {"imagenette": 13_394, "flowers": 8_189}
MEGABYTES = {160: 99, 320: 342, "full": 1557}  # of Imagenette's archives, by the shorter side of their images in pixels


def _imagenette(size: int) -> tuple[Source, dict[str, dict[str, str]]]:
    """The smallest archive whose images needn't be enlarged. Its validation images are what everyone measures on."""
    side = next((side for side in (160, 320) if size <= side), "full")
    archive = "full" if side == "full" else f"{side}px"
    place = "imagenette2" if side == "full" else f"imagenette2-{side}"

    def files(kind: type) -> list[Remote]:
        return [Remote(*kind._ARCHIVES[archive], f"{place}.tgz")]

    source = Source("imagenette", "Imagenette", place, MEGABYTES[side], files)
    return source, {"train": {"split": "train", "size": archive}, "test": {"split": "val", "size": archive}}


def _flowers(size: int) -> tuple[Source, dict[str, dict[str, str]]]:
    def files(kind: type) -> list[Remote]:
        return [
            Remote(kind._download_url_prefix + name, md5, f"flowers-102/{name}")
            for name, md5 in kind._file_dict.values()
        ]

    source = Source("flowers", "Flowers102", "flowers-102", 345, files)
    return source, {split: {"split": split} for split in ("train", "val", "test")}


PHOTOS = {"imagenette": _imagenette, "flowers": _flowers}


def load_photos(name: str, options: LoadOptions) -> Splits:
    """Imagenette (Howard, 2019: ten easy classes of ImageNet) or Oxford Flowers 102 (Nilsback and Zisserman, 2008).

    Flowers come in their official splits: ten images of each class in train and in val, the others in test.
    Imagenette's official validation images are test, and val is a tenth of its training images, by `seed`.

    The default of `size` is 64. Raises CourseError as `load_listed` does, without a copy and a network, and for a copy
    that isn't complete.
    """
    size = options.size or decode.DEFAULT
    source, parts = PHOTOS[name](size)
    listing = Listing(sources.folder() / source.place, name, name)
    for split, choice in parts.items():
        data = sources.opened(source, options.progress, loader=os.fspath, **choice)  # an item: (path, label)
        with sources.damage_named(source):
            classes = [kind if isinstance(kind, str) else kind[0] for kind in data.classes]
            listing.files[split] = [(classes[label], path) for path, label in (data[i] for i in range(len(data)))]
    listing.classes = tuple(classes)
    present = sum(os.path.isfile(path) for files in listing.files.values() for _, path in files)
    if present != IMAGES[name]:
        raise sources.damaged(source, f"{present:,} of {IMAGES[name]:,} images are there")
    return load_listed(listing, replace(options, size=size))
