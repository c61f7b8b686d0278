"""A folder of your own images as a data set.

    PATH/CLASS/*.jpg                                 cut into train, val and test (3 : 1 : 1), class by class, by a seed
    PATH/train/CLASS/*.jpg, also val/ and test/      taken as they are; val or test, where missing, is cut from train
    PATH/unlabeled/*.jpg                             beside either of the two, or alone: images to pretrain on
    PATH/*.jpg                                       the same as unlabeled/, where there are no class folders

Files may lie in folders within a class folder. Hidden files are left out, and the order is that of the names. A file
that can't be read is skipped and named in the warnings; an image that is also in a measured split is dropped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import torch

from sslcourse import device as devices
from sslcourse.data import cache as caches
from sslcourse.data import decode
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import NAMES, Splits, complete
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError, suggest

VERSION = 1  # counts changes of the decoder: an older cached result is not used
ROLES = {
    "train": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test",
    "unlabeled": "unlabeled", "unlabelled": "unlabeled",
}  # fmt: skip
NOT_OURS = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}
NOT_READ = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw")
FILE = "file"  # the factor that says, while splits are made, which row an image is
FEW = 5  # labelled images of a class that are read in any case
STREAMED = "the images to pretrain on stay on disk and are decoded while training."
UNMEASURED = "there are no class folders, so these images can be pretrained on, and nothing can be measured on them."
NAMED = 8  # files named in a note; the others are counted


Row = tuple[str, str, str]  # split, class ("" where there is none), path of a file


@dataclass
class Listing:
    """What lies in a folder: for each split, (class, path of the file) in order; the class is "" where there is none."""

    files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    not_read: set[str] = field(default_factory=set)  # photographs of kinds that no decoder here reads


def load_folder(
    path: str | Path,
    *,
    size: int | None = None,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
    stream: bool | None = None,
) -> Splits:
    """The splits of an image folder (see above), every image a square of `size` pixels.

    size   default: the images' own size when all are equally large squares of at most 96 pixels, otherwise 64
    cache  keep the decoded images in the user's cache folder; any change of a file's name, size or time reads all anew
    stream leave the images to pretrain on where they are (`ImageFiles`), and read the labelled ones alone: True, False,
           or None for where all together don't fit into memory

    Raises CourseError for a path that is no folder, a folder without images, with one class, with splits whose classes
    differ, without a single readable file, or, where streaming is refused, with more images than fit into memory.
    """
    top = Path(path).expanduser()
    listing = survey(top)
    rows = [(split, label, file) for split, files in listing.files.items() for label, file in files]
    paths = [file for _, _, file in rows]
    size = size or decode.common_size(paths)
    most = decode.room(size)
    if stream or (stream is None and most is not None and len(paths) > most):
        return _streamed(top, path, rows, listing, size, seed, most, cache, progress)
    splits, _ = _read(top, path, rows, listing, size, seed, cache, progress)
    return splits


def _read(
    top: Path, path: str | Path, rows: list[Row], listing: Listing, size: int, seed: int, cache: bool, progress: bool
) -> tuple[Splits, dict[str, list[str]]]:
    """Every image in memory, and the files that each split holds."""
    paths = [file for _, _, file in rows]
    found = _decoded(top, paths, size, cache, progress)

    kept = [rows[i] for i in found.files]
    skipped = [(paths[i], reason) for i, reason in found.skipped]
    warnings = _warnings(top, paths, skipped, [paths[i] for i in found.small])
    if not kept:
        raise CourseError(f"none of the {len(paths):,} image files in {top} can be read: {_name(top, skipped)}.")

    classes = tuple(dict.fromkeys(label for split, label, _ in rows if split == "train"))
    sets = _sets(f"folder:{top.name}", kept, torch.from_numpy(found.images), classes)
    notes = listing.notes
    if classes:
        _require_images_of_every_class(top, sets)
        splits = complete(f"folder:{path}", **sets, seed=seed, notes=notes, warnings=warnings)
    else:
        notes = (*notes, UNMEASURED)
        empty = sets["unlabeled"].select([])
        splits = Splits(sets["unlabeled"], empty, empty, empty, f"folder:{path}", tuple(notes), tuple(warnings))
    return _without_numbers(splits, kept)


def _without_numbers(splits: Splits, rows: list[Row]) -> tuple[Splits, dict[str, list[str]]]:
    """The splits without the factor that says which file an image came from, and those files."""
    parts = {name: getattr(splits, name) for name in NAMES}
    files = {name: [rows[i][2] for i in part.factors[FILE].tolist()] for name, part in parts.items() if part.factors}
    return dataclasses.replace(splits, **{k: dataclasses.replace(part, factors={}) for k, part in parts.items()}), files


# --- more than memory holds --------------------------------------------------------------------------------------


def _streamed(
    top: Path, path: str | Path, rows: list[Row], listing: Listing, size: int, seed: int, most: int | None, cache: bool,
    progress: bool,
) -> Splits:  # fmt: skip
    """The images to pretrain on as files, and the labelled ones in memory, or as many of each class as have room there."""
    labelled = [row for row in rows if row[0] != "unlabeled"]
    unlabeled = [file for split, _, file in rows if split == "unlabeled"]
    name, notes = f"folder:{top.name}", [STREAMED]
    if not labelled:
        empty = ImageSet(torch.empty(0, 3, size, size, dtype=torch.uint8), name=name)
        notes = (*listing.notes, UNMEASURED, *notes)
        return Splits(ImageFiles(unlabeled, size, name=name), empty, empty, empty, f"folder:{path}", notes)
    few = _thinned(labelled, most, seed)
    splits, files = _read(top, path, few, listing, size, seed, cache, progress)
    candidates = unlabeled or [file for split, _, file in labelled if split == "train"]
    kept = _without_copies(candidates, [*files["val"], *files["test"]])
    warnings = list(splits.warnings)
    if unlabeled and len(kept) < len(candidates):
        warnings.append(f"{len(candidates) - len(kept):,} files left out of unlabeled, being also in val or test.")
    if len(few) < len(labelled):
        notes.append(f"of {len(labelled):,} labelled images, {len(few):,} are read: what memory has room for.")
    if unlabeled:
        notes += [note for note in splits.notes if not note.startswith("unlabeled is ")]
    else:
        notes += splits.notes
    return dataclasses.replace(
        splits, unlabeled=ImageFiles(kept, size, name=name), notes=tuple(notes), warnings=tuple(warnings)
    )


def _thinned(rows: list[Row], most: int | None, seed: int) -> list[Row]:
    """At most about `most` rows, drawn by `seed`: the same share of each class in each split, and at least FEW of it."""
    if most is None or len(rows) <= most:
        return rows
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (split, label, _) in enumerate(rows):
        groups.setdefault((split, label), []).append(i)
    kept: set[int] = set()
    for (split, label), members in groups.items():
        dice = devices.generator(devices.derive_seed(seed, "thin", split, label))
        order = torch.randperm(len(members), generator=dice).tolist()
        kept.update(members[i] for i in order[: max(FEW, len(members) * most // len(rows))])
    return [rows[i] for i in sorted(kept)]


def _without_copies(candidates: list[str], measured: list[str]) -> list[str]:
    """`candidates` without the files in `measured` and without copies of them, byte by byte.

    A copy is as long as its original, so that few files have to be read. Another encoding of the same picture isn't found.
    """
    by_size: dict[int, set[bytes]] = {}
    for file in measured:
        by_size.setdefault(os.path.getsize(file), set()).add(_content(file))
    known = set(measured)
    return [
        file
        for file in candidates
        if file not in known and not ((size := _stamp(file)[0]) in by_size and _content(file) in by_size[size])
    ]


def _content(file: str) -> bytes:
    """A digest of a file's bytes; one that can't be opened is like no other."""
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return os.fsencode(file)


def survey(top: Path) -> Listing:
    """Find the image files of a folder and the split and class of each. Raises CourseError as `load_folder` says."""
    _require_folder(top)
    listing = Listing()
    folders, loose = _inside(top, listing)
    roles: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for folder in folders:
        role = ROLES.get(folder.name.lower())
        if role in roles:
            raise CourseError(f"{top} holds both {roles[role].name}/ and {folder.name}/; keep one of the two.")
        if role:
            roles[role] = folder
        else:
            others[_text(folder.name)] = folder
    classes_of = {role: _classes(roles[role], listing) for role in ("train", "val", "test") if role in roles}
    other_classes = {name: files for name, folder in others.items() if (files := _walk(folder, listing))}

    if classes_of.get("train"):
        _take_splits(top, classes_of, listing)
        if other_classes:
            listing.notes.append(f"folders beside train/ that were left out: {', '.join(other_classes)}.")
    elif nested := [role for role, classes in classes_of.items() if classes]:
        raise CourseError(
            f"{top} holds {nested[0]}/ but no class folders in train/; put them at {top / 'train'}/CLASS/."
        )
    elif other_classes:  # a class may be called `train` or `test`
        for role in classes_of:
            other_classes[_text(roles[role].name)] = _walk(roles[role], listing)
        _take_classes(top, others, other_classes, listing)
    elif any(_walk(roles[role], listing) for role in classes_of):
        names = " and ".join(f"{roles[role].name}/" for role in classes_of)
        raise CourseError(
            f"there are images but no class folders in {names} of {top}; sort them into CLASS/ folders there, "
            "or put them into unlabeled/ to pretrain without labels."
        )

    listing.notes = list(dict.fromkeys(listing.notes))  # some folders were walked twice
    unlabeled = _walk(roles["unlabeled"], listing) if "unlabeled" in roles else []
    if loose and listing.files:
        listing.notes.append(f"images outside of every class folder were left out: {len(loose):,}.")
    elif loose:
        unlabeled = [*loose, *unlabeled]
    if unlabeled:
        listing.files["unlabeled"] = [("", file) for file in unlabeled]
    _require_images(top, listing)
    return listing


def _take_splits(top: Path, classes_of: dict[str, dict[str, list[str]]], listing: Listing) -> None:
    train = classes_of["train"]
    _require_two_classes(top / "train", list(train), None)
    for split, classes in classes_of.items():
        if not classes:
            listing.notes.append(f"{split}/ holds no class folders with images, and was left out.")
            continue
        for name in sorted(train.keys() ^ classes.keys()):
            has, lacks, known = (split, "train", train) if name in classes else ("train", split, classes)
            raise CourseError(
                f"class folder {name!r} is in {has}/ but not in {lacks}/ of {top}{suggest(name, known)}; "
                "every split needs the same class folders."
            )
        listing.files[split] = _rows(classes)


def _take_classes(top: Path, folders: dict[str, Path], classes: dict[str, list[str]], listing: Listing) -> None:
    classes = {name: files for name, files in classes.items() if files}
    _require_two_classes(top, list(classes), folders.get(next(iter(classes))))
    listing.files["train"] = _rows(classes)


def _rows(classes: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, file) for name in sorted(classes) for file in classes[name]]


def _require_folder(top: Path) -> None:
    if not top.exists():
        near = suggest(top.name, [p.name for p in top.parent.iterdir() if p.is_dir()]) if top.parent.is_dir() else ""
        raise CourseError(f"there is no folder {top}{near}; folder: takes the path of a folder of images.")
    if not top.is_dir():
        raise CourseError(f"{top} is a file; folder: takes the path of a folder of images, such as {top.parent}.")
    if not os.access(top, os.R_OK | os.X_OK):
        raise CourseError(f"the folder {top} can't be opened: no permission to read it.")


def _require_two_classes(top: Path, names: Sequence[str], only: Path | None) -> None:
    if len(names) >= 2:
        return
    inner = [p.name for p in only.iterdir() if p.is_dir()] if only else []
    nested = f" (did you mean folder:{only}?)" if len(inner) > 1 or "train" in inner else ""
    raise CourseError(
        f"{top} has one class folder, {names[0]!r}{nested}; measuring needs images of two classes or more, and to "
        "pretrain without labels, put the images into a folder called unlabeled."
    )


def _require_images(top: Path, listing: Listing) -> None:
    if listing.not_read:
        endings = Counter(os.path.splitext(path)[1].lower() for path in listing.not_read)
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(endings.items()))
        listing.notes.append(f"files of kinds that can't be read were left out: {kinds}; save them as JPEG or PNG.")
    if not listing.files:
        instead = f"; {listing.notes[-1]}" if listing.not_read else "."
        raise CourseError(
            f"{top} holds no images; needed are class folders with image files ({', '.join(decode.ENDINGS)}){instead}"
        )


def _require_images_of_every_class(top: Path, sets: dict[str, ImageSet]) -> None:
    for split in ("train", "val", "test"):
        if split not in sets and split != "train":
            continue
        there = set(sets[split].require_labels().tolist())
        for label, name in enumerate(sets[split].classes):
            if label not in there:
                raise CourseError(f"class {name!r} in {top} has no image in {split} that can be read; it needs some.")


def _inside(folder: Path, listing: Listing) -> tuple[list[Path], list[str]]:
    """The folders and the image files in a folder, each in the order of their names; what is hidden is left out."""
    folders, files = [], []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: _text(entry.name))
    except OSError:
        listing.notes.append(f"the folder {folder} can't be opened, and was left out.")
        return [], []
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in NOT_OURS:
            continue
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif ending in decode.ENDINGS:
            files.append(entry.path)
        elif ending in NOT_READ:
            listing.not_read.add(entry.path)
    return folders, files


def _walk(folder: Path, listing: Listing, above: tuple[str, ...] = ()) -> list[str]:
    """All image files in a folder and the folders in it. Links are followed, except to a folder that they lie in."""
    real = os.path.realpath(folder)
    if real in above or (above and above[0].startswith(real + os.sep)):
        return []
    folders, files = _inside(folder, listing)
    return files + [file for inner in folders for file in _walk(inner, listing, (*above, real))]


def _classes(folder: Path, listing: Listing) -> dict[str, list[str]]:
    """Class folders with at least one image file, and their files."""
    folders, _ = _inside(folder, listing)
    return {_text(inner.name): files for inner in folders if (files := _walk(inner, listing))}


def _text(name: str) -> str:
    """One spelling for a name that file systems may spell in two ways (an accented letter as one character or two)."""
    return unicodedata.normalize("NFC", name)


def _decoded(top: Path, paths: list[str], size: int, cache: bool, progress: bool) -> decode.Decoded:
    """The decoded files, from the cache where they are unchanged."""

    def make() -> caches.Arrays:
        found = decode.decode(paths, size, progress)
        remarks = {"skipped": found.skipped, "small": found.small}
        return {"images": found.images, "files": found.files, "remarks": caches.pack(remarks)}

    if not cache:
        arrays = make()
    else:
        state = [(path, *_stamp(path)) for path in paths]
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
        version = f"{VERSION}, Pillow {PIL.__version__}"
        key = {"name": "folder", "path": os.path.realpath(top), "files": digest, "size": size, "version": version}
        arrays = caches.load_or_make(key, make)
    remarks = caches.unpack(arrays["remarks"])
    skipped = [(i, reason) for i, reason in remarks["skipped"]]
    return decode.Decoded(arrays["images"], arrays["files"], skipped, remarks["small"])


def _stamp(path: str) -> tuple[int, int]:
    """What changes when a file does: its size in bytes and its time in nanoseconds."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _sets(name: str, rows: list[Row], images: torch.Tensor, classes: tuple[str, ...]) -> dict[str, ImageSet]:
    """One ImageSet per split; `rows` are the (split, class, file) of `images`, and each split is one run of rows."""
    split_of = np.array([split for split, _, _ in rows])
    sets = {}
    for split in dict.fromkeys(split_of.tolist()):
        here = np.flatnonzero(split_of == split)
        part = images[here[0] : here[-1] + 1]
        number = {FILE: torch.from_numpy(here)}
        if split == "unlabeled":
            sets[split] = ImageSet(part, name=name, factors=number)
        else:
            labels = torch.tensor([classes.index(rows[i][1]) for i in here])
            sets[split] = ImageSet(part, labels, classes, name=name, factors=number)
    return sets


def _warnings(top: Path, paths: list[str], skipped: list[tuple[str, str]], small: list[str]) -> list[str]:
    """What went wrong with single files, in a sentence each."""
    lines = []
    if skipped:
        worry = " (more than half)" if 2 * len(skipped) > len(paths) else ""
        lines.append(f"skipped {len(skipped):,} of {len(paths):,} files{worry}: {_name(top, skipped)}.")
    if small:
        named = _name(top, [(path, "") for path in small])
        lines.append(f"images with a side of less than {decode.SMALL} pixels were enlarged: {len(small):,}, {named}.")
    return lines


def _name(top: Path, files: list[tuple[str, str]]) -> str:
    """The first few files, each with its reason, and how many more there are."""
    named = [os.path.relpath(path, top) + (f" ({why})" if why else "") for path, why in files[:NAMED]]
    more = [f"and {len(files) - NAMED:,} more"] if len(files) > NAMED else []
    return ", ".join(named + more)
