"""A class for every picture of a folder, as a table that grows while it is written.

Rows go to `NAME.part` beside the table, some hundred at a time. When the last one is written the file gets its name. A
run that was interrupted goes on after the last whole row, provided that the model is the same; so a hundred thousand
photographs need no second start, and no more memory than one batch.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import device as devices
from sslcourse.classify.model import Model
from sslcourse.data import decode, folder
from sslcourse.errors import CourseError

BATCH = 256  # pictures decoded, predicted and written at a time


@dataclass(frozen=True)
class Predicted:
    """How a table came about: rows in all, those that were there already, and (path, reason) of what can't be read."""

    path: Path
    rows: int
    kept: int
    unreadable: tuple[tuple[str, str], ...]


def predict(
    model: Model,
    pictures: str | Path,
    table: str | Path,
    *,
    device: str | torch.device = "auto",
    batch_size: int = BATCH,
    progress: bool = True,
) -> Predicted:
    """Write a CSV with a row for every picture of a folder, in the order of their paths.

    Columns: path (relative to the folder), class, probability (of that class), problem (why a file can't be read; its
    other columns are empty then), and a probability for each class, headed by "p: " and its name. A table that is there
    already is replaced once the new one is whole. Raises CourseError for a folder without pictures, and where the table
    can't be written.
    """
    top, table = Path(pictures), Path(table)
    names = folder.pictures(top)
    if not names:
        raise CourseError(f"there are no pictures in {top} or the folders in it; give a folder that holds some.")
    part = table.with_name(f"{table.name}.part")
    header = ["path", "class", "probability", "problem", *(f"p: {name}" for name in model.classes)]
    stamp = _stamp(model, names)
    kept, unreadable = _resume(part, stamp, header, names)
    try:
        with part.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            if kept == 0:
                file.truncate(0)
                file.write(f"# {stamp}\n")
                writer.writerow(header)
            for rows in _rows(model, top, names, kept, devices.pick_device(device), batch_size, progress):
                unreadable += [(row[0], row[3]) for row in rows if row[3]]
                writer.writerows(rows)
                file.flush()
        _finish(part, table)
    except OSError as error:
        raise CourseError(
            f"could not write {table} ({error.strerror or error}); {part} holds the rows so far, and the same command "
            "goes on from there."
        ) from None
    return Predicted(table, len(names), kept, tuple(unreadable))


def _rows(
    model: Model, top: Path, names: Sequence[str], start: int, device: torch.device, batch_size: int, progress: bool
) -> Iterator[list[list[str]]]:
    """The rows of one batch of files after the other, from number `start` on."""
    with tqdm(total=len(names), initial=start, desc="predicting", disable=not progress, leave=False, delay=1.0) as bar:
        for begin in range(start, len(names), batch_size):
            some = names[begin : begin + batch_size]
            read = decode.decode([top / name for name in some], model.image_size, progress=False)
            problems = dict(read.skipped)
            images = torch.from_numpy(read.images)
            shares = iter(
                (model.logits(images, device=device) / model.temperature).softmax(dim=1) if len(images) else ()
            )
            yield [_row(name, problems.get(i), shares, model.classes) for i, name in enumerate(some)]
            bar.update(len(some))


def _row(name: str, problem: str | None, shares: Iterator[Tensor], classes: Sequence[str]) -> list[str]:
    if problem is not None:
        return [name, "", "", problem, *[""] * len(classes)]
    share = next(shares)  # (C,)
    best = int(share.argmax())
    return [name, classes[best], f"{share[best]:.6f}", "", *(f"{p:.6f}" for p in share.tolist())]


def _stamp(model: Model, names: Sequence[str]) -> str:
    """What changes when the model or the list of pictures does."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((model.classes, model.image_size, model.stage, model.temperature)).encode("utf-8", "replace"))
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for name in names:
        digest.update(os.fsencode(name) + b"\n")
    return digest.hexdigest()


def _resume(part: Path, stamp: str, header: list[str], names: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
    """How many whole rows a file of the same run holds, and those of its files that can't be read; cuts off the rest."""
    with contextlib.suppress(OSError):
        text = part.read_bytes().decode("utf-8", "surrogateescape")
        first, _, rest = text.partition("\n")
        if first == f"# {stamp}":
            whole = list(csv.reader(io.StringIO(rest[: rest.rfind("\r\n") + 2], newline="")))
            rows = [row for row in whole[1:] if len(row) == len(header)]
            count = next(
                (i for i, (row, name) in enumerate(zip(rows, names, strict=False)) if row[0] != name), len(rows)
            )
            rows = rows[: min(count, len(names))]
            buffer = io.StringIO(newline="")
            csv.writer(buffer).writerows([header, *rows])
            part.write_bytes(f"# {stamp}\n{buffer.getvalue()}".encode("utf-8", "surrogateescape"))
            return len(rows), [(row[0], row[3]) for row in rows if row[3]]
    return 0, []


def _finish(part: Path, table: Path) -> None:
    """The rows without the stamp, under the table's name."""
    whole = part.with_name(f"{part.name}.whole")
    with part.open("rb") as source, whole.open("wb") as target:
        source.readline()
        while block := source.read(1 << 20):
            target.write(block)
    os.replace(whole, table)
    part.unlink()
