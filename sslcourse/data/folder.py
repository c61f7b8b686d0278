"""A folder of your own images as a data set.

    PATH/CLASS/*.jpg                                 cut into train, val and test (3 : 1 : 1), class by class, by a seed
    PATH/train/CLASS/*.jpg, also val/ and test/      taken as they are; val or test, where missing, is cut from train
    PATH/unlabeled/*.jpg                             beside either of the two, or alone: images to pretrain on
    PATH/*.jpg                                       the same as unlabeled/, where there are no class folders
    PATH/*.jpg and a file of labels                  classes, and splits where it names some, as the file says (labels.py)

The other ways in which public data sets lie are in layout.py. Files may lie in folders within a class folder. Hidden files
are left out, and the order is that of the names. A file that can't be read is skipped and named in the warnings; an image
that is also in a measured split is dropped.
"""

from __future__ import annotations

import os
from pathlib import Path

from sslcourse.console import shown
from sslcourse.data import decode, layout
from sslcourse.data.labels import labelled, tables_in
from sslcourse.data.layout import MEASURED, Layout
from sslcourse.data.listing import Listing, load_listed
from sslcourse.data.options import LoadOptions
from sslcourse.data.splits import Splits
from sslcourse.data.walk import Passed, named, walk
from sslcourse.errors import CourseError, suggest
from sslcourse.paths import typed


def load_folder(path: str | Path, options: LoadOptions) -> Splits:
    """The splits of an image folder (see above), every image a square of `options.size` pixels.

    Raises CourseError as `load_listed` does, and for a path that is no folder, a folder without images, with one class,
    with splits whose classes differ, or laid out in a way that can't be understood.
    """
    listing = survey(typed(path), options.labels)
    listing.spec = f"folder:{shown(path)}"
    return load_listed(listing, options)


def survey(top: Path, labels: Path | None = None) -> Listing:
    """Find the image files of a folder and the split and class of each. Raises CourseError as `load_folder` says."""
    root, passed = walk(top)
    found = layout.read(root) if labels is None else labelled(root.everything(), top, labels)
    listing = Listing(top, f"folder:{shown(top.name)}", f"folder:{shown(top)}")
    listing.notes = [*dict.fromkeys(found.notes), *passed.notes()]
    listing.warnings = list(found.warnings)
    if labels is None and (tables := tables_in(top)):
        listing.notes.append(f"{named(tables)} lies here; --labels {shown(tables[0])} reads the classes from it.")
    if found.classes:
        _require_the_same_classes(top, found, labels)
        listing.classes = tuple(sorted(found.classes["train"]))
    for role in MEASURED:
        if role in found.classes:
            listing.files[role] = [
                (name, file) for name, files in sorted(found.classes[role].items()) for file in files
            ]
    listing.groups = found.groups
    if found.unlabeled:
        listing.files["unlabeled"] = [("", file) for file in found.unlabeled]
    _require_images(top, listing, passed)
    _drop_links(top, listing)
    return listing


def _require_the_same_classes(top: Path, found: Layout, labels: Path | None) -> None:
    """Raise CourseError unless train has two classes or more, and every split the same ones."""
    train = found.classes.get("train", {})
    if labels is not None and len(train) == 1:
        raise CourseError(
            f"{shown(labels)} has one class, {next(iter(train))!r}; measuring needs images of two classes or more, and "
            "pretraining without labels needs no file of labels."
        )
    if len(train) < 2:
        only = f"one class folder, {next(iter(train))!r}" if train else "no class in train"
        where = f"{shown(top)}/{found.named['train']}" if "train" in found.named else shown(top)
        raise CourseError(
            f"{where} has {only}; measuring needs images of two classes or more, and to pretrain without labels, put the "
            "images into a folder called unlabeled."
        )
    for role, classes in found.classes.items():
        for name in sorted(train.keys() ^ classes.keys()):
            has, lacks, known = (role, "train", train) if name in classes else ("train", role, classes)
            has, lacks = (f"{found.named[role]}/" if role in found.named else role for role in (has, lacks))
            raise CourseError(
                f"class {name!r} is in {has} but not in {lacks} of {shown(top)}{suggest(name, known)}; "
                "every split needs the same classes."
            )


def _require_images(top: Path, listing: Listing, passed: Passed) -> None:
    if not listing.files:
        unread = passed.notes()
        instead = f"; {' '.join(unread)}" if unread else "."
        raise CourseError(
            f"{shown(top)} holds no images; needed are class folders with image files ({', '.join(decode.USUAL)} and "
            f"others){instead}"
        )


# --- one file under two names ------------------------------------------------------------------------------------


def _drop_links(top: Path, listing: Listing) -> None:
    """Keep one of several names of the same file (links) within a split, and none where they are of two classes.

    Raises CourseError where nothing remains of a class. A file in two splits is found with all other copies (splits.py).
    """
    for split, rows in listing.files.items():
        names: dict[tuple[int, int], list[tuple[str, str]]] = {}
        for row in rows:
            names.setdefault(_identity(row[1]), []).append(row)
        if len(names) == len(rows):
            continue
        kept, contrary = [], []
        for same in names.values():
            (kept if len({label for label, _ in same}) == 1 else contrary).append(same[0])
        if gone := sorted({label for label, _ in rows} - {label for label, _ in kept}):
            raise CourseError(
                f"every file of class {gone[0]!r} in {shown(top)} is also in another class, by links; keep each file in "
                "one class folder."
            )
        again = len(rows) - sum(len(same) for same in names.values() if same[0] in contrary) - len(kept)
        where = "" if split == "train" else f" in {split}"
        if again:
            listing.warnings.append(f"links to files that are there already were left out{where}: {again:,}.")
        if contrary:
            paths = named(os.path.relpath(file, top) for _, file in contrary)
            listing.warnings.append(f"files that links put into two classes were left out{where}: {paths}.")
        listing.files[split] = kept


def _identity(path: str) -> tuple:
    """What all names of a file have in common."""
    try:
        found = os.stat(path)
    except OSError:
        return (path,)
    return (found.st_dev, found.st_ino) if found.st_ino else (path,)
