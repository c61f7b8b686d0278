"""Classes from a file beside a flat folder: a CSV with a path, a label and perhaps a split and a group in each row.

    path,label,split,patient
    IMG_0001.jpg,cat,train,7
    IMG_0002.jpg,dog,test,8

Pictures of one group (a patient, a scene, a burst of exposures) are never on both sides of a split or of a fold. The
first row may be missing; without it there are no groups. Values are separated by commas, semicolons or tabs, and may be
quoted. A path is that of the file within the folder, whole or its last part, with its ending or without; more may stand
before it, as in a path of another machine. Images that no row names, or whose label is empty, are unlabeled.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sslcourse.console import shown
from sslcourse.data.layout import Layout, role_of
from sslcourse.data.walk import named, spelled
from sslcourse.errors import CourseError
from sslcourse.files import reading

ENDINGS = (".csv", ".tsv")
PATHS = {
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_id",
    "image_path",
    "img",
    "id",
    "name",
}
LABELS = {"label", "labels", "class", "classes", "class_name", "category", "target", "species", "breed", "diagnosis"}
SPLITS = {"split", "subset", "set", "partition", "usage"}
GROUPS = {"group", "groups", "patient", "subject", "scene", "case", "burst", "sequence", "video", "individual"}
GROUPS |= {f"{name}{end}" for name in GROUPS for end in ("_id", "id", " id")}

UNKNOWN = {"nan", "na", "n/a", "null", "none", "?", "-"}  # as programs write a label that is missing
WINDOWS = "cp1252"  # the characters in which Excel writes plain CSV in Western Europe and the Americas

Cells = list[str]


@dataclass(frozen=True)
class _Columns:
    """Which cell of a row is which; `split` and `group` are None where there is none. `header` says whether the first row
    is one.
    """

    path: int
    label: int
    split: int | None
    group: int | None
    header: bool

    def unused(self, first: Cells) -> list[str]:
        """The names of the other columns."""
        used = (self.path, self.label, self.split, self.group)
        return [name for i, name in enumerate(first) if self.header and name.strip() and i not in used]

    def last(self) -> int:
        return max(self.path, self.label, self.split or 0, self.group or 0)


def tables_in(top: Path) -> list[str]:
    """The names of the CSV files that lie in a folder."""
    names = [name for name in os.listdir(top) if not name.startswith(".")]
    return sorted(name for name in names if name.lower().endswith(ENDINGS))


def beside(top: Path, table: Path) -> Path:
    """Where a table is: as it says, or, where nothing is there, in the folder of the pictures."""
    return table if table.exists() or table.is_absolute() else top / table


def labelled(files: Sequence[str], top: Path, table: Path) -> Layout:
    """The layout that a table gives to the files of a folder.

    files  paths within `top`
    table  the CSV file; one that isn't where it says is looked for in the folder

    Raises CourseError for a table that can't be read, whose columns can't be told apart, that names no file of the
    folder, or a split that isn't one.
    """
    table, index = beside(top, table), _Index(files, top)
    rows = _rows(_text(table), index)
    if not rows:
        raise CourseError(
            f"no row of {shown(table)} names an image of {shown(index.top.rstrip(os.sep))}; needed in each are the path "
            "of a file within it and a label, with a comma between them."
        )
    columns = _columns(table, rows, index)
    layout = _sorted_rows(table, rows[columns.header :], columns, index, files)
    layout.warnings += _doubts(table, rows, columns, layout)
    if unused := columns.unused(rows[0]):
        layout.notes.append(f"columns of {shown(table.name)} that were not used: {named(unused)}.")
    return layout


def with_label(files: Sequence[str], top: Path, table: Path) -> set[str]:
    """Those of the files to which a table gives a label; where it has one column, all that it names.

    Raises CourseError for a table that can't be read, or whose columns can't be told apart.
    """
    table, index = beside(top, table), _Index(files, top)
    rows = _rows(_text(table), index, least=1)
    if max(map(len, rows), default=0) < 2:
        return {file for row in rows if (file := index.find(row[0])) is not None}
    columns = _columns(table, rows, index)
    labelled = [row for row in rows[columns.header :] if len(row) > columns.label and row[columns.label].strip()]
    return {file for row in labelled if (file := index.find(row[columns.path])) is not None}


class _Index:
    """The files of a folder by every way in which a row may name them: by its whole path within the folder or the end of
    it, with anything before the whole path.

    A row of b/1.jpg is never about a/1.jpg.
    """

    def __init__(self, files: Sequence[str], top: Path):
        self.top = os.path.join(os.path.abspath(top), "")
        self.whole: dict[str, str | None] = {}  # None: several files
        self.ends: dict[str, str | None] = {}
        for file in files:
            path = self._plain(os.path.relpath(file, top))
            parts = path.split("/")
            self._add(self.whole, file, [path])
            self._add(self.ends, file, ["/".join(parts[i:]) for i in range(1, len(parts))])
        for file in files:  # what is spelled like this is meant even where another file is nearly spelled so
            self.whole[self._plain(os.path.relpath(file, top))] = file

    @staticmethod
    def _add(known: dict[str, str | None], file: str, ways: Sequence[str]) -> None:
        spellings = {*ways, *(os.path.splitext(way)[0] for way in ways)}
        for spelling in spellings | {one.lower() for one in spellings}:
            known[spelling] = file if known.setdefault(spelling, file) == file else None

    @staticmethod
    def _plain(name: str) -> str:
        return unicodedata.normalize("NFC", name.strip().replace("\\", "/"))

    def find(self, name: str) -> str | None:
        """The file that a cell names; None for no file and for several."""
        found, readable = self._found(name)[0], _readable(name)
        return found if found is not None or readable == name else self._found(readable)[0]

    def before(self, name: str) -> str:
        """What stands in a cell before the whole path of the file that it names."""
        return self._found(name)[1]

    def _found(self, name: str) -> tuple[str | None, str]:
        name = self._plain(name.strip().removeprefix(self.top))
        parts = [part for part in PurePosixPath(posixpath.normpath(name)).parts if part not in (".", "/", "//")]
        for i in range(len(parts)):
            way = "/".join(parts[i:])
            for known in (self.whole,) if i else (self.whole, self.ends):
                for spelling in (way, way.lower()):
                    if spelling in known:
                        return known[spelling], "/".join(parts[:i])
        return None, ""


# --- reading -----------------------------------------------------------------------------------------------------


def _text(table: Path) -> str:
    """What a table holds, whether it is UTF-8, with or without a mark at its beginning, or UTF-16 with one."""
    if table.exists() and not table.is_file():
        raise CourseError(f"{shown(table)} isn't a file; labels takes a CSV file with a path and a label in each row.")
    if not table.exists():
        raise CourseError(
            f"there is no file {shown(table)}; labels takes a CSV file with a path and a label in each row."
        )
    with reading(table):
        content = table.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    if b"\0" in content:
        raise CourseError(
            f"{shown(table)} isn't a text file; labels takes a CSV file with a path and a label in each row."
        )
    return content.decode("utf-8-sig", "surrogateescape")  # as names of files are


def _readable(cell: str) -> str:
    """A cell in whose bytes there is no UTF-8, as Windows means it."""
    kept = cell.encode("utf-8", "surrogateescape")
    try:
        return kept.decode()
    except UnicodeDecodeError:
        return kept.decode(WINDOWS, "replace")


def _rows(text: str, index: _Index, least: int = 2) -> list[Cells]:
    """The rows that aren't empty, read with the separator that names the most files; none where no file is named.

    least  how many cells a row has
    """

    def read(separator: str) -> list[Cells]:
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
        except csv.Error:
            return []
        return [row for row in rows if any(cell.strip() for cell in row)]

    def matches(rows: list[Cells]) -> int:
        return sum(len(row) >= least and any(index.find(cell) is not None for cell in row) for row in rows)

    found = max((read(separator) for separator in ",;\t"), key=matches)
    return found if matches(found) else []


def _columns(table: Path, rows: list[Cells], index: _Index) -> _Columns:
    """Which column holds what, from the names in the first row where it is a header."""
    width = max(len(row) for row in rows)
    found = [len({index.find(row[i]) for row in rows if len(row) > i} - {None}) for i in range(width)]
    path = found.index(max(found))
    first = [cell.strip().lower() for cell in rows[0]] + [""] * width
    known = PATHS | LABELS | SPLITS | GROUPS
    header = index.find(rows[0][path] if len(rows[0]) > path else "") is None and any(cell in known for cell in first)
    others = [i for i in range(width) if i != path]
    split = [i for i in others if (first[i] in SPLITS if header else _all_roles(rows, i, others))]
    rest = [i for i in others if i not in split[:1] and (not header or first[i])]
    label = [i for i in rest if header and first[i] in LABELS]
    label = label or [i for i in rest if not header or first[i] not in GROUPS] or rest
    if len(label) != 1:
        seen = named(rows[0]) if header else f"{width} columns"
        raise CourseError(
            f"the classes in {shown(table)} can't be told from its columns ({seen}); call the one that holds them label, "
            "in the first row."
        )
    group = [i for i in rest if header and first[i] in GROUPS and i != label[0]]
    if len(group) > 1:
        raise CourseError(
            f"{shown(table)} has several columns of what belongs together ({named([rows[0][i] for i in group])}); leave one "
            "of them."
        )
    return _Columns(path, label[0], split[0] if split else None, group[0] if group else None, header)


def _all_roles(rows: list[Cells], column: int, others: list[int]) -> bool:
    """Whether a column without a name holds splits: beside it there is another one, and nothing else is in it."""
    return len(others) > 1 and all(len(row) > column and role_of(row[column]) for row in rows)


# --- sorting -----------------------------------------------------------------------------------------------------


def _sorted_rows(table: Path, rows: list[Cells], columns: _Columns, index: _Index, files: Sequence[str]) -> Layout:
    """Files by split and class as the rows say, and what the rows got wrong as warnings."""
    layout = Layout(notes=[f"classes were read from {shown(table.name)}."])
    if columns.group is not None:
        layout.notes.append("images of one group in it are kept together, never on both sides of a split.")
    assigned: dict[str, tuple[str, str]] = {}  # file -> split, label
    unknown, again, contrary = [], set(), set()
    prefix = _prefix(rows, columns.path, index)
    for row in rows:
        cells = [*row, *[""] * (1 + columns.last() - len(row))]
        file = index.find(cells[columns.path])
        if prefix is not None and index.before(cells[columns.path]) not in ("", prefix):
            file = None
        here = (
            _split(table, "" if columns.split is None else cells[columns.split]),
            spelled(_readable(cells[columns.label]).strip()),
        )
        if file is None:
            unknown.append(cells[columns.path])
        elif file in assigned:
            again.add(file)
            if assigned[file] != here:
                contrary.add(file)
        else:
            assigned[file] = here
            if columns.group is not None and (group := _readable(cells[columns.group]).strip()):
                layout.groups[file] = group
    for file in files:
        split, label = assigned.get(file, ("train", ""))
        if file in contrary or (split in ("val", "test") and not label):
            continue
        if not label or split == "unlabeled":
            layout.unlabeled.append(file)
        else:
            layout.classes.setdefault(split, {}).setdefault(label, []).append(file)
    _warn(layout, table, unknown, again - contrary, contrary, index.top)
    if not layout.classes and not layout.unlabeled:
        raise CourseError(
            f"nothing of {shown(index.top)} is left: {' '.join(layout.warnings) or 'no row has a label.'}"
        )
    return layout


def _prefix(rows: list[Cells], path: int, index: _Index) -> str | None:
    """What stands before the paths of the rows that are meant, where a table is of several folders and one of them is
    called as this one: of train/1.jpg and test/1.jpg, in a folder train, the first."""
    prefixes = {index.before(row[path]) for row in rows if len(row) > path} - {""}
    own = [prefix for prefix in prefixes if prefix.split("/")[-1] == os.path.basename(index.top.rstrip(os.sep))]
    return own[0] if len(prefixes) > 1 and len(own) == 1 else None


def _doubts(table: Path, rows: list[Cells], columns: _Columns, layout: Layout) -> list[str]:
    """What a table says and may not mean, a sentence each."""
    name, doubts = shown(table.name), []
    missing = {label for classes in layout.classes.values() for label in classes if label.lower() in UNKNOWN}
    for label in sorted(missing):
        count = sum(len(classes.get(label, ())) for classes in layout.classes.values())
        doubts.append(
            f"{count:,} images are of a class {label!r} in {name}; if nobody knows it, leave the label empty."
        )
    longer = sum(len(row) > len(rows[0]) and any(cell.strip() for cell in row[len(rows[0]) :]) for row in rows)
    if columns.header and longer:
        doubts.append(
            f"rows of {name} with more values than its first row: {longer:,}; what is beyond was not used, and a value with a "
            "comma in it needs quotes."
        )
    return doubts


def _split(table: Path, cell: str) -> str:
    """The split that a cell names: train where it is empty."""
    role = role_of(cell) if cell.strip() else "train"
    if role is None:
        raise CourseError(
            f"{shown(cell)!r} in {shown(table)} isn't a split; use train, val, test or unlabeled, or leave it empty."
        )
    return role


def _warn(layout: Layout, table: Path, unknown: list[str], again: set[str], contrary: set[str], top: str) -> None:
    name = shown(table.name)
    if unknown:
        layout.warnings.append(f"rows of {name} that name no file, or several: {len(unknown):,}, {named(unknown)}.")
    for files, what in ((again, "more than once"), (contrary, "with different labels or splits, and left out")):
        if files:
            paths = named(sorted(os.path.relpath(file, top) for file in files))
            layout.warnings.append(f"files that {name} names {what}: {len(files):,}, {paths}.")
