"""A table that grows while it is written, and goes on where it stopped.

What an interruption left stays until there is more of it, on a full disk too. Rows go to `NAME.part` beside the table,
behind a line with a stamp of what the rows depend on. When the last one is written, the rows without the stamp get the
table's name.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sslcourse import files

OPTIONS = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names of files may hold any byte


def part_of(path: Path) -> Path:
    """Where the rows of the table at `path` are until it is whole."""
    return path.with_name(f"{path.name}.part")


class GrowingTable:
    """The rows of a CSV at `path`, with the columns `header`; rows of another `stamp` are thrown away.

    kept   the rows that an interrupted run left, whole ones alone: a list of lists of text
    """

    def __init__(self, path: Path, header: Sequence[str], stamp: str):
        self.path, self.header, self.stamp = path, list(header), stamp
        self.part = part_of(path)
        self.kept: list[list[str]] = []
        with contextlib.suppress(OSError):
            self.kept = self._whole_rows(self.part.read_bytes().decode("utf-8", "surrogateescape"))

    def _whole_rows(self, text: str) -> list[list[str]]:
        first, _, rest = text.partition("\n")
        if first != f"# {self.stamp}":
            return []
        rows = csv.reader(io.StringIO(rest[: rest.rfind("\r\n") + 2], newline=""))
        return [row for row in rows if len(row) == len(self.header)][1:]

    def write(self, batches: Callable[[int], Iterable[Iterable[Sequence[str]]]]) -> None:
        """Write the rows that are missing: batches(n) gives them in parts, from row n on. Raises OSError."""
        with files.written(self.part) as begun, begun.open("w", **OPTIONS) as file:
            file.write(f"# {self.stamp}\n")
            csv.writer(file).writerows([self.header, *self.kept])
        with self.part.open("a", **OPTIONS) as file:
            writer = csv.writer(file)
            for rows in batches(len(self.kept)):
                writer.writerows(rows)
                file.flush()
        with files.written(self.path) as whole, self.part.open("rb") as source, whole.open("wb") as target:
            source.readline()
            while block := source.read(1 << 20):
                target.write(block)
        self.part.unlink()
