"""Image files, listed by split and class, become splits: read into memory where they fit there, streamed where not.

Whatever is made of photographs goes this way: a folder (folder.py), Imagenette and Oxford Flowers (photos.py), a Hugging
Face directory (huggingface.py). A file that can't be read is skipped and named in the warnings; an image that is also in
a measured split is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import torch

from sslcourse import device as devices
from sslcourse.console import shown
from sslcourse.data import cache as caches
from sslcourse.data import decode
from sslcourse.data.imageset import ImageSet
from sslcourse.data.options import LoadOptions
from sslcourse.data.splits import Note, Splits, complete, without
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError

VERSION = 1  # counts changes of the decoder: an older cached result is not used
FEW = 5  # labelled images of a class that are read in any case
STREAMED = Note("the images to pretrain on stay on disk and are decoded while training.", "unlabeled")
UNMEASURED = "there are no labels, so these images can be pretrained on, and nothing can be measured on them."
NAMED = 8  # files named in a note; the others are counted

Row = tuple[str, str, str]  # split, class ("" where there is none), name of a file


@dataclass
class Listing:
    """Image files by split and class.

    top      where they are
    name     what the set is called in messages;  spec: what it was asked for as
    files    for each split, (class, name of the file) in order; the class is "" where there is none
    classes  in the order of their labels, those of train
    groups   file -> what it belongs to (`Layout`); a file that isn't here belongs to nothing
    notes    how the splits came about;  warnings: what went wrong; one sentence each
    shelf    what the names of the files stand for
    """

    top: Path
    name: str
    spec: str
    files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    shelf: decode.Disk = decode.DISK

    @property
    def rows(self) -> list[Row]:
        return [(split, label, file) for split, files in self.files.items() for label, file in files]

    def within(self, file: str) -> str:
        """The name of a file relative to `top`, with / between its parts."""
        return file.removeprefix(os.path.join(self.top, "")).replace(os.sep, "/")


def load_listed(listing: Listing, options: LoadOptions) -> Splits:
    """The splits of listed image files, every image a square of `options.size` pixels.

    size   default: the images' own size when all are equally large squares of at most 96 pixels, otherwise 64
    cache  any change of a file's name, size or time reads all anew
    stream leaves the images to pretrain on where they are (`ImageFiles`), and reads the labelled ones alone

    Images in memory have the names of their files, relative to `listing.top`. Raises CourseError without a single readable file, for a class without one in train, val or test, and, where
    streaming is refused, for more images than fit into memory.
    """
    rows = listing.rows
    size = options.size or decode.common_size([file for _, _, file in rows], listing.shelf)
    most = decode.room(size)
    reader = _Reader(listing, size, options)
    if options.stream or (options.stream is None and most is not None and len(rows) > most):
        return _streamed(reader, rows, most)
    decode.require_memory(len(rows), size)
    return reader.read(rows)


@dataclass(frozen=True)
class _Reader:
    """Rows of a listing, as images in memory."""

    listing: Listing
    size: int
    options: LoadOptions

    def read(self, rows: list[Row]) -> Splits:
        """The splits that `rows` make."""
        listing, names = self.listing, [file for _, _, file in rows]
        found = self._decoded(names)
        kept = [rows[i] for i in found.files]
        skipped = [(names[i], reason) for i, reason in found.skipped]
        warnings = [*listing.warnings, *_warnings(listing, names, skipped, [names[i] for i in found.small])]
        if not kept:
            raise CourseError(
                f"none of the {len(names):,} image files in {shown(listing.top)} can be read: {_name(listing, skipped)}."
            )
        sets = _sets(listing, kept, torch.from_numpy(found.images))
        if listing.classes:
            _require_images_of_every_class(listing, sets)
            splits = complete(listing.spec, **sets, seed=self.options.seed, notes=listing.notes, warnings=warnings)
        else:
            notes, empty = (*listing.notes, UNMEASURED), sets["unlabeled"].select([])
            splits = Splits(sets["unlabeled"], empty, empty, empty, listing.spec, notes, tuple(warnings))
        return splits

    def _decoded(self, names: list[str]) -> decode.Decoded:
        """The decoded files, from the cache where they are unchanged."""
        listing = self.listing

        def make() -> caches.Arrays:
            found = decode.decode(names, self.size, self.options.progress, listing.shelf)
            remarks = {"skipped": found.skipped, "small": found.small}
            return {"images": found.images, "files": found.files, "remarks": caches.pack(remarks)}

        key = {
            "name": listing.name.partition(":")[0],
            "path": os.path.realpath(listing.top),
            "files": listing.shelf.stamp(names),
            "size": self.size,
            "version": f"{VERSION}, Pillow {PIL.__version__}",
        }
        arrays = caches.load_or_make(key, make) if self.options.cache else make()
        remarks = caches.unpack(arrays["remarks"])
        skipped = [(i, reason) for i, reason in remarks["skipped"]]
        return decode.Decoded(arrays["images"], arrays["files"], skipped, remarks["small"])


def _sets(listing: Listing, rows: list[Row], images: torch.Tensor) -> dict[str, ImageSet]:
    """One ImageSet per split; `rows` are the (split, class, file) of `images`, and each split is one run of rows."""
    split_of = np.array([split for split, _, _ in rows])
    number_of = {label: i for i, label in enumerate(listing.classes)}
    groups = _group_numbers(listing, rows)
    sets = {}
    for split in dict.fromkeys(split_of.tolist()):
        here = np.flatnonzero(split_of == split)
        part, first = images[here[0] : here[-1] + 1], {"name": listing.name}
        first["names"] = tuple(listing.within(rows[i][2]) for i in here)
        first["groups"] = None if groups is None else groups[torch.from_numpy(here)]
        if split == "unlabeled":
            sets[split] = ImageSet(part, **first)
        else:
            labels = torch.tensor([number_of[rows[i][1]] for i in here])
            sets[split] = ImageSet(part, labels, listing.classes, **first)
    return sets


def _group_numbers(listing: Listing, rows: list[Row]) -> torch.Tensor | None:
    """int64 (N,): a number for each group, the same in all splits, and one of its own for each other file."""
    if not listing.groups:
        return None
    keys = [("group", listing.groups[file]) if file in listing.groups else ("file", file) for _, _, file in rows]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([numbers[key] for key in keys])


def _require_images_of_every_class(listing: Listing, sets: dict[str, ImageSet]) -> None:
    for split in ("train", "val", "test"):
        if split not in listing.files:
            continue
        there = set(sets[split].require_labels().tolist()) if split in sets else set()
        for label, name in enumerate(listing.classes):
            if label not in there:
                raise CourseError(
                    f"class {name!r} in {shown(listing.top)} has no image in {split} that can be read; it needs some."
                )


# --- more than memory holds --------------------------------------------------------------------------------------


def _streamed(reader: _Reader, rows: list[Row], most: int | None) -> Splits:
    """The images to pretrain on as files, and the labelled ones in memory, or as many of each class as have room there."""
    listing, size = reader.listing, reader.size
    labelled = [row for row in rows if row[0] != "unlabeled"]
    unlabeled = [file for split, _, file in rows if split == "unlabeled"]
    notes = [STREAMED]
    if not labelled:
        empty = ImageSet(torch.empty(0, 3, size, size, dtype=torch.uint8), name=listing.name)
        notes = (*listing.notes, UNMEASURED, *notes)
        return Splits(_files(reader, unlabeled), empty, empty, empty, listing.spec, notes, tuple(listing.warnings))
    few = _thinned(labelled, most, reader.options.seed)
    splits = reader.read(few)
    file_of = {listing.within(file): file for _, _, file in few}
    measured = [file_of[name] for part in (splits.val, splits.test) for name in part.names or ()]
    candidates = unlabeled or [file for split, _, file in labelled if split == "train"]
    kept = _without_copies(candidates, measured, listing.shelf)
    warnings = list(splits.warnings)
    if unlabeled and len(kept) < len(candidates):
        warnings.append(f"{len(candidates) - len(kept):,} files left out of unlabeled, being also in val or test.")
    if len(few) < len(labelled):
        notes.append(f"of {len(labelled):,} labelled images, {len(few):,} are read: what memory has room for.")
    notes += without(splits.notes, "unlabeled") if unlabeled else splits.notes
    return dataclasses.replace(splits, unlabeled=_files(reader, kept), notes=tuple(notes), warnings=tuple(warnings))


def _files(reader: _Reader, names: list[str]) -> ImageFiles:
    return ImageFiles(names, reader.size, name=reader.listing.name, shelf=reader.listing.shelf)


def _thinned(rows: list[Row], most: int | None, seed: int) -> list[Row]:
    """At most about `most` rows, drawn by `seed`: the same share of each class in each split, and at least FEW of it."""
    if most is None or len(rows) <= most:
        return rows
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (split, label, _) in enumerate(rows):
        groups.setdefault((split, label), []).append(i)
    kept: set[int] = set()
    for (split, label), members in groups.items():
        generator = devices.generator(devices.derive_seed(seed, "thin", split, label))
        order = torch.randperm(len(members), generator=generator).tolist()
        kept.update(members[i] for i in order[: max(FEW, len(members) * most // len(rows))])
    return [rows[i] for i in sorted(kept)]


def _without_copies(candidates: list[str], measured: list[str], shelf: decode.Disk) -> list[str]:
    """`candidates` without the files in `measured` and without copies of them, byte by byte.

    A copy is as long as its original, so that few files have to be read. Another encoding of the same picture isn't found.
    """
    by_length: dict[int, set[bytes]] = {}
    for name in measured:
        by_length.setdefault(shelf.length(name), set()).add(_content(name, shelf))
    known = set(measured)

    def is_copy(name: str) -> bool:
        length = shelf.length(name)
        return length in by_length and _content(name, shelf) in by_length[length]

    return [name for name in candidates if name not in known and not is_copy(name)]


def _content(name: str, shelf: decode.Disk) -> bytes:
    """A digest of a file's bytes; one that can't be opened is like no other."""
    try:
        with decode.opened(shelf.file(name)) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, decode.Unreadable):
        return os.fsencode(name)


# --- what went wrong with single files ---------------------------------------------------------------------------


def _warnings(listing: Listing, names: Sequence[str], skipped: list[tuple[str, str]], small: list[str]) -> list[str]:
    """A sentence each."""
    lines = alike(listing.classes)
    if skipped:
        worry = " (more than half)" if 2 * len(skipped) > len(names) else ""
        lines.append(f"skipped {len(skipped):,} of {len(names):,} files{worry}: {_name(listing, skipped)}.")
    if small:
        named = _name(listing, [(name, "") for name in small])
        lines.append(f"images with a side of less than {decode.SMALL} pixels were enlarged: {len(small):,}, {named}.")
    return lines


def alike(classes: Sequence[str]) -> list[str]:
    """A sentence for classes whose names differ in capitals, spaces or the way a number is written, and may be one."""
    by_core: dict[object, list[str]] = {}
    for name in classes:
        core: object = " ".join(name.split()).casefold()
        with contextlib.suppress(ValueError):
            core = float(name.replace("_", "x"))  # Python's own spelling of large numbers is nobody's class
        by_core.setdefault(core, []).append(repr(name))
    pairs = [" and ".join(names) for names in by_core.values() if len(names) > 1]
    return [f"classes whose names are nearly the same, and that may be one: {'; '.join(pairs)}."] if pairs else []


def _name(listing: Listing, files: list[tuple[str, str]]) -> str:
    """The first few files, each with its reason, and how many more there are."""
    named = [shown(listing.within(name)) + (f" ({why})" if why else "") for name, why in files[:NAMED]]
    more = [f"and {len(files) - NAMED:,} more"] if len(files) > NAMED else []
    return ", ".join(named + more)
