"""A directory of Hugging Face's `datasets` as a data set.

PATH is what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote, or holds parquet files, as a data set downloaded
from the Hub does. The column of the type Image holds the images, that of the type ClassLabel the labels. The splits train,
validation, test and unlabeled are taken as they are; one data set without splits is train. Validation or test, where
missing, is cut from train, and images without labels are for pretraining.

Needs `datasets`, which the extra `ecosystem` installs. Nothing is fetched from the Hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcourse.console import shown
from sslcourse.data import decode
from sslcourse.data.layout import role_of
from sslcourse.data.listing import Listing, load_listed
from sslcourse.data.options import LoadOptions
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError
from sslcourse.paths import typed

SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves, of a DatasetDict and of a Dataset


def load_huggingface(path: str | Path, options: LoadOptions) -> Splits:
    """The splits of a Hugging Face directory (see above), every image a square of `options.size` pixels.

    Raises CourseError as `load_listed` does, without `datasets`, for a directory that it
    can't read, for none or several columns of images, for several of labels, and for splits whose classes differ.
    """
    listing = survey(typed(path), options.progress)
    listing.spec = f"huggingface:{shown(path)}"
    return load_listed(listing, options)


def survey(top: Path, progress: bool = True) -> Listing:
    """Find the images of a directory and the split and class of each. Raises CourseError as `load_huggingface` says."""
    notes: list[str] = []
    tables = _by_role(top, _opened(top, progress), notes)
    listing = Listing(top, f"huggingface:{top.name}", f"huggingface:{top}", notes=notes, shelf=_Rows(top, tables))
    for role, table in tables.items():
        _list(listing, role, table)
    unlabeled = listing.files.pop("unlabeled", None)
    if listing.files.get("train"):
        listing.classes = _classes(top, tables, listing.files)
    elif unlabeled:
        left_out = ", ".join(listing.files)
        listing.files = {}
        if left_out:
            notes.append(f"left out, there being no labels in train: {left_out}.")
    else:
        raise CourseError(f"{top} has no images to learn from; it needs some in a split called train or unlabeled.")
    if unlabeled:
        listing.files["unlabeled"] = unlabeled
    return listing


# --- tables and their columns ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """One split: rows of a column of images, and for each row its class, or "" where it has none."""

    rows: Any  # datasets.Dataset whose images are as they were encoded
    image: str
    labels: list[str]
    names: tuple[str, ...]  # of all classes, in the order of their labels


def _opened(top: Path, progress: bool) -> dict[str, Any]:
    """Split name -> datasets.Dataset."""
    try:
        import datasets
    except ImportError:
        raise CourseError(
            "huggingface: needs the package datasets, which isn't installed; install it with "
            "python -m pip install datasets, or use folder:PATH."
        ) from None
    if not top.is_dir():
        raise CourseError(
            f"there is no directory {top}; huggingface: takes one on this machine, as Dataset.save_to_disk writes it "
            "or as it is downloaded from the Hub."
        )
    saved = any((top / name).is_file() for name in SAVED)
    if not saved and not any(top.rglob("*.parquet")):
        raise CourseError(
            f"{top} holds neither what Dataset.save_to_disk writes nor parquet files; for a folder of images use "
            f"folder:{top}."
        )
    try:
        with _quiet(datasets, progress):
            found = datasets.load_from_disk(os.fspath(top)) if saved else datasets.load_dataset(os.fspath(top))
    except Exception as error:  # datasets lets through what its many readers raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CourseError(f"datasets can't read {top} ({reason[:120]}); save it again with save_to_disk.") from None
    return dict(found) if isinstance(found, dict) else {"train": found}


@contextlib.contextmanager
def _quiet(datasets: Any, progress: bool) -> Iterator[None]:
    """Without the progress bars of datasets, where none are wanted."""
    shown = not datasets.are_progress_bars_disabled()
    if not progress:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _by_role(top: Path, found: dict[str, Any], notes: list[str]) -> dict[str, _Table]:
    """The splits under our names: train, val, test, unlabeled."""
    tables: dict[str, _Table] = {}
    others = []
    for name, rows in found.items():
        role = role_of(str(name))
        if role in tables:
            raise CourseError(f"{top} has two splits for {role}, {name!r} among them; keep one of the two.")
        if role is None:
            others.append(str(name))
        else:
            tables[role] = _table(top, str(name), rows, notes)
    if not tables:
        raise CourseError(f"{top} has the splits {', '.join(others)}; it needs one called train or unlabeled.")
    if others:
        notes.append(f"splits that were left out: {', '.join(others)}.")
    return tables


def _table(top: Path, split: str, rows: Any, notes: list[str]) -> _Table:
    import datasets

    def columns(kind: type) -> list[str]:
        return [name for name, feature in rows.features.items() if isinstance(feature, kind)]

    images, labels = columns(datasets.Image), columns(datasets.ClassLabel)
    if len(images) != 1:
        count = (
            f"{len(images)} columns of the type Image ({', '.join(images)})"
            if images
            else "no column of the type Image"
        )
        way_out = "keep one with Dataset.remove_columns" if images else "make one with Dataset.cast_column"
        raise CourseError(f"{split} of {top} has {count}, where one is needed; {way_out}, and save it again.")
    if len(labels) > 1:
        raise CourseError(
            f"{split} of {top} has {len(labels)} columns of the type ClassLabel ({', '.join(labels)}), where one is "
            "needed; keep one with Dataset.remove_columns, and save it again."
        )
    others = [name for name in rows.column_names if name not in (*images, *labels)]
    rows = rows.with_format(None).cast_column(images[0], datasets.Image(decode=False))
    if not labels:
        if others and role_of(split) != "unlabeled":
            notes.append(
                f"{split} has no labels, since no column is of the type ClassLabel; "
                f"Dataset.class_encode_column makes one (of {', '.join(others)})."
            )
        return _Table(rows.select_columns(images), images[0], [""] * len(rows), ())
    names = tuple(rows.features[labels[0]].names)
    numbers = rows.data.column(labels[0]).to_pylist()  # -1 or None: kept secret, or unknown
    known = ["" if number is None or number < 0 else names[number] for number in numbers]
    return _Table(rows.select_columns(images), images[0], known, names)


def _list(listing: Listing, role: str, table: _Table) -> None:
    """Put the rows of a split into the listing: those without a label under unlabeled, or nowhere if they measure."""
    named = [(label, f"{role}/{i}") for i, label in enumerate(table.labels)]
    if role == "unlabeled":
        listing.files.setdefault(role, []).extend(("", name) for _, name in named)
        return
    labelled = [(label, name) for label, name in named if label]
    if labelled:
        listing.files[role] = labelled
    if len(labelled) == len(named):
        return
    if role == "train":
        listing.files["unlabeled"] = [("", name) for label, name in named if not label] + listing.files.get(
            "unlabeled", []
        )
        if labelled:
            listing.notes.append(
                f"images of train without a label, which are unlabeled here: {len(named) - len(labelled):,}."
            )
    else:
        listing.notes.append(f"images of {role} without a label, which were left out: {len(named) - len(labelled):,}.")


def _classes(top: Path, tables: dict[str, _Table], files: dict[str, list[tuple[str, str]]]) -> tuple[str, ...]:
    """The classes that train has images of, in the order of their labels."""
    names, used = tables["train"].names, {label for label, _ in files["train"]}
    for split, rows in files.items():
        if tables[split].names != names:
            raise CourseError(
                f"train and {split} of {top} have different class names; every split needs the same ones."
            )
        if alone := sorted({label for label, _ in rows} - used):
            raise CourseError(
                f"class {alone[0]!r} of {top} is in {split} but not in train; every split needs the same classes."
            )
    if len(used) < 2:
        raise CourseError(
            f"train of {top} has one class, {used.pop()!r}; measuring needs images of two classes or more."
        )
    return tuple(name for name in names if name in used)


class _Rows(decode.Disk):
    """The shelf of images in rows of tables; their names are SPLIT/ROW."""

    def __init__(self, top: Path, tables: dict[str, _Table]):
        import pyarrow.compute as arrow

        self.top = top
        self.tables = {split: (table.rows, table.image) for split, table in tables.items()}
        self.lengths = {
            split: arrow.binary_length(arrow.struct_field(rows.data.column(image), "bytes")).fill_null(-1).to_numpy()
            for split, (rows, image) in self.tables.items()
        }

    def file(self, name: str) -> decode.File:
        """The bytes in the row, or the path there; empty where there is neither."""
        split, _, row = name.partition("/")
        rows, image = self.tables[split]
        cell = rows[int(row)][image] or {}
        return cell.get("bytes") or cell.get("path") or b""

    def length(self, name: str) -> int:
        split, _, row = name.partition("/")
        return int(self.lengths[split][int(row)])

    def stamp(self, names: Sequence[str]) -> str:
        files = super().stamp(sorted(os.fspath(path) for path in self.top.rglob("*") if path.is_file()))
        return hashlib.blake2b("\n".join([files, *names]).encode(), digest_size=16).hexdigest()
