"""A folder of your own images as a data set.

    PATH/CLASS/*.jpg                                 cut into train, val and test (3 : 1 : 1), class by class, by a seed
    PATH/train/CLASS/*.jpg, also val/ and test/      taken as they are; val or test, where missing, is cut from train
    PATH/unlabeled/*.jpg                             beside either of the two, or alone: images to pretrain on
    PATH/*.jpg                                       the same as unlabeled/, where there are no class folders

Files may lie in folders within a class folder. Hidden files are left out, and the order is that of the names. A file
that can't be read is skipped and named in the warnings; an image that is also in a measured split is dropped.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslcourse.data import decode
from sslcourse.data.listing import Listing, load_listed
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, suggest
from sslcourse.paths import typed

ROLES = {
    "train": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test",
    "unlabeled": "unlabeled", "unlabelled": "unlabeled",
}  # fmt: skip
NOT_OURS = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}
NOT_READ = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw")


@dataclass
class Folder(Listing):
    """What lies in a folder."""

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

    The options are those of `load_listed`. Raises CourseError as it does, and for a path that is no folder, a folder
    without images, with one class, or with splits whose classes differ.
    """
    listing = survey(typed(path))
    listing.spec = f"folder:{path}"
    return load_listed(listing, size=size, seed=seed, cache=cache, progress=progress, stream=stream)


def survey(top: Path) -> Folder:
    """Find the image files of a folder and the split and class of each. Raises CourseError as `load_folder` says."""
    _require_folder(top)
    listing = Folder(top, f"folder:{top.name}", f"folder:{top}")
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


def _take_splits(top: Path, classes_of: dict[str, dict[str, list[str]]], listing: Folder) -> None:
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
    listing.classes = tuple(sorted(train))


def _take_classes(top: Path, folders: dict[str, Path], classes: dict[str, list[str]], listing: Folder) -> None:
    classes = {name: files for name, files in classes.items() if files}
    _require_two_classes(top, list(classes), folders.get(next(iter(classes))))
    listing.files["train"] = _rows(classes)
    listing.classes = tuple(sorted(classes))


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


def _require_images(top: Path, listing: Folder) -> None:
    if listing.not_read:
        endings = Counter(os.path.splitext(path)[1].lower() for path in listing.not_read)
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(endings.items()))
        listing.notes.append(f"files of kinds that can't be read were left out: {kinds}; save them as JPEG or PNG.")
    if not listing.files:
        instead = f"; {listing.notes[-1]}" if listing.not_read else "."
        raise CourseError(
            f"{top} holds no images; needed are class folders with image files ({', '.join(decode.ENDINGS)}){instead}"
        )


def _inside(folder: Path, listing: Folder) -> tuple[list[Path], list[str]]:
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


def _walk(folder: Path, listing: Folder, above: tuple[str, ...] = ()) -> list[str]:
    """All image files in a folder and the folders in it. Links are followed, except to a folder that they lie in."""
    real = os.path.realpath(folder)
    if real in above or (above and above[0].startswith(real + os.sep)):
        return []
    folders, files = _inside(folder, listing)
    return files + [file for inner in folders for file in _walk(inner, listing, (*above, real))]


def _classes(folder: Path, listing: Folder) -> dict[str, list[str]]:
    """Class folders with at least one image file, and their files."""
    folders, _ = _inside(folder, listing)
    return {_text(inner.name): files for inner in folders if (files := _walk(inner, listing))}


def _text(name: str) -> str:
    """One spelling for a name that file systems may spell in two ways (an accented letter as one character or two)."""
    return unicodedata.normalize("NFC", name)


def pictures(top: str | Path) -> list[str]:
    """The paths of all picture files in a folder and the folders in it, relative to it, in the order of their names."""
    top = Path(top).expanduser()
    _require_folder(top)
    listing = Folder(top, str(top), str(top))
    return [os.path.relpath(file, top) for file in _walk(top, listing)]
