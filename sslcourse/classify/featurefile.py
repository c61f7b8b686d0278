"""Features of many pictures in a file, written a batch at a time and read back whole.

    NAME.npy and NAME.csv   NumPy's array float32 (N, ...), and a table of path, row and problem, a line for each picture
    NAME.parquet            one table of path, problem and features, a row for each picture, for pandas, Polars or DuckDB

A picture that can't be read has a problem, no row in the array, and no features in the Parquet table. A row's features
are (d,), or (height, width, d) for features of patches: Parquet holds them flat, and says their shape in the metadata of
its schema, as JSON under "sslcourse".
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sslcourse import files, locking
from sslcourse.console import shown
from sslcourse.errors import CourseError

PARQUET, NPY = ".parquet", ".npy"
COLUMNS = ("path", "row", "problem")  # of the table beside an array
KEY = b"sslcourse"  # of a Parquet schema's metadata


class Writer:
    """Takes one batch of pictures after the other. shape: of a picture's features."""

    def __init__(self, shape: Sequence[int]):
        self.shape = tuple(shape)

    def add(self, names: Sequence[str], reasons: Mapping[int, str], features: Tensor) -> None:
        """names of n pictures; why some can't be read, by their place among them; float32 (m, *shape) of the others."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what comes last."""


@contextlib.contextmanager
def writing(out: Path, shape: Sequence[int], names: Sequence[str], about: Mapping[str, Any]) -> Iterator[Writer]:
    """A writer of the file `out`, which is there, whole, when the block ends without an error.

    names  of all pictures that will come;  about: plain values for a Parquet file's metadata

    Raises CourseError for another ending than .npy and .parquet, where it can't be written or something else lies there,
    where another run is writing it, and for Parquet without pyarrow.
    """
    if out.suffix not in (PARQUET, NPY):
        raise CourseError(f"{out.name} ends in neither {PARQUET} nor {NPY}; give a name that ends in one of them.")
    if out.suffix == PARQUET:
        _refuse_unwritable_names(out, names)
        _arrow(out)
    for path in {out, out.with_suffix(".csv")} if out.suffix == NPY else {out}:
        files.refuse_foreign(path, _is_ours, "of features that `sslcourse embed` wrote")
    try:
        with locking.claimed(out, file=True), files.written(out) as temporary:
            if out.suffix == PARQUET:
                writer: Writer = _Parquet(temporary, shape, about)
                with contextlib.closing(writer):
                    yield writer
            else:
                with files.written(out.with_suffix(".csv")) as table, temporary.open("wb") as file:
                    writer = _Npy(file, shape)
                    yield writer
                    writer.close()
                    file.flush()
                    os.fsync(file.fileno())  # so that both get their names at once, or neither does
                    table.write_bytes(writer.table().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise CourseError(f"could not write {out} ({error.strerror or error}); choose another place.") from None


def read(path: str | Path) -> tuple[Tensor, tuple[str, ...]]:
    """Features float32 (N, ...) and the paths of their N pictures, from either kind of file.

    Raises CourseError for what isn't such a file, and where array and table don't belong together.
    """
    path = Path(path)
    files.refuse_pipe(path)
    try:
        features, names = _read_parquet(path) if path.suffix == PARQUET else _read_npy(path)
        features = torch.from_numpy(features)
    except CourseError:
        raise
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, MemoryError) as error:
        beside = "" if path.suffix == PARQUET else f" and {path.with_suffix('.csv').name} beside it"
        raise CourseError(
            f"{path}{beside} can't be read as features ({_reason(error)}); `sslcourse embed` writes them."
        ) from None
    if features.dim() < 2 or not features.numel() or features.is_complex():
        raise CourseError(
            f"{path} holds {features.dtype} of the shape {tuple(features.shape)}, and features are numbers with a row for each "
            "picture; embed again."
        )
    if len(features) != len(names):
        raise CourseError(f"{path} has {len(features)} rows and names {len(names)} pictures; embed again.")
    return features.float(), names


def _reason(error: Exception) -> str:
    """Why a file isn't one of features. NumPy's own words on foreign ones would have code in them run."""
    match error:
        case OSError(strerror=str(reason)):
            return reason
        case KeyError():
            return f"it has no {error}"
    return f"it is none, or damaged: {type(error).__name__}"


def _is_ours(path: Path) -> bool:
    """Whether a file is one that was written here: an array is, when the table beside it is."""
    if path.suffix == PARQUET:
        try:
            return KEY in (_arrow(path).parquet.read_schema(path).metadata or {})
        except (OSError, ValueError):
            return False
    table = path.with_suffix(".csv")
    return table.is_file() and files.begins_with(table, ",".join(COLUMNS))


# --- NumPy -------------------------------------------------------------------------------------------------------


class _Npy(Writer):
    """Rows go to the file as they come; the header, which says how many there are, is written once more at the end."""

    def __init__(self, file: IO[bytes], shape: Sequence[int]):
        super().__init__(shape)
        self.file, self.count = file, 0
        self.lines: list[list[str]] = []
        self._header()

    def add(self, names: Sequence[str], reasons: Mapping[int, str], features: Tensor) -> None:
        self.file.write(np.ascontiguousarray(features.numpy(), dtype=np.float32).tobytes())
        for i, name in enumerate(names):
            self.lines.append([name, "" if i in reasons else str(self.count), reasons.get(i, "")])
            self.count += i not in reasons

    def close(self) -> None:
        self.file.seek(0)
        self._header()  # NumPy leaves room for the first number to grow: it is as long as before

    def _header(self) -> None:
        about = {"descr": "<f4", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, about)

    def table(self) -> str:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *self.lines])
        return text.getvalue()


def _read_npy(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    features = np.load(path, allow_pickle=False)
    with path.with_suffix(".csv").open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        named = {int(row["row"]): row["path"] for row in csv.DictReader(file) if row["row"]}
    return features, tuple(named[row] for row in range(len(named)))  # a table program may have sorted the lines


# --- Parquet -----------------------------------------------------------------------------------------------------


def _arrow(path: Path) -> Any:
    """pyarrow with pyarrow.parquet. CourseError without it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise CourseError(
            f"{path.name} needs pyarrow, which isn't installed here; run `python -m pip install pyarrow`, or take a name "
            "that ends in .npy."
        ) from None
    return pyarrow


def _refuse_unwritable_names(out: Path, names: Sequence[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise CourseError(
                f"the name of {shown(name)} isn't UTF-8, which {out.name} needs; rename the file, or take a name that ends "
                "in .npy."
            ) from None


class _Parquet(Writer):
    def __init__(self, path: Path, shape: Sequence[int], about: Mapping[str, Any]):
        super().__init__(shape)
        self.arrow, self.width = _arrow(path), math.prod(shape)
        metadata = {KEY: json.dumps({"shape": list(shape), **about})}
        columns = {"path": self.arrow.string(), "problem": self.arrow.string()}
        columns["features"] = self.arrow.list_(self.arrow.float32(), self.width)
        self.schema = self.arrow.schema(list(columns.items()), metadata=metadata)
        self.writer = self.arrow.parquet.ParquetWriter(path, self.schema)

    def add(self, names: Sequence[str], reasons: Mapping[int, str], features: Tensor) -> None:
        rows = np.zeros((len(names), self.width), np.float32)
        missing = np.array([i in reasons for i in range(len(names))], dtype=bool)
        rows[~missing] = features.numpy().reshape(-1, self.width)
        column = self.arrow.FixedSizeListArray.from_arrays(
            self.arrow.array(rows.reshape(-1)), self.width, mask=self.arrow.array(missing)
        )
        problems = self.arrow.array([reasons.get(i, "") for i in range(len(names))])
        table = self.arrow.Table.from_arrays([self.arrow.array(list(names)), problems, column], schema=self.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        self.writer.close()


def _read_parquet(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    arrow = _arrow(path)
    table = arrow.parquet.read_table(path)  # its errors are ValueErrors, or OSErrors
    shape = json.loads((table.schema.metadata or {})[KEY])["shape"]
    column = table["features"].combine_chunks()
    rows = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, *shape)
    names = table["path"].filter(column.is_valid())
    return np.array(rows, dtype=np.float32), tuple(names.to_pylist())
