"""A class for every picture of a folder, or its features, for a hundred thousand as for ten: a batch in memory at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sslcourse import augment, files, locking
from sslcourse import device as devices
from sslcourse.backbones import LARGEST_IMAGE, Backbone
from sslcourse.classify import featurefile, pages
from sslcourse.classify.given import Given
from sslcourse.classify.measures import Answers
from sslcourse.classify.model import Model
from sslcourse.classify.table import GrowingTable, part_of
from sslcourse.console import shown
from sslcourse.data import decode, walk
from sslcourse.errors import CourseError, whole_number
from sslcourse.features import refuse_not_finite

BATCH = 256  # pictures decoded, looked at and written at a time
COLUMNS = ("path", "class", "probability", "problem")  # before those of the classes


@dataclass(frozen=True)
class Written:
    """How a file came about: pictures in all, those that were done already, (path, reason) of those that have no result, and
    a sentence on each kind of file that wasn't taken for a picture; where labels were given, what was said of the pictures
    that have one."""

    path: Path
    pictures: int
    kept: int
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    answers: Answers | None = None


def predict(
    model: Model,
    pictures: str | Path,
    table: str | Path,
    *,
    labels: str | Path | None = None,
    mistakes: str | Path | None = None,
    device: str | torch.device = "auto",
    batch_size: int = BATCH,
    progress: bool = True,
) -> Written:
    """Write a CSV with a row for every picture of a folder, in the order of their paths.

    Columns: path (relative to the folder), class, probability (of that class), problem (why a file has no class; its
    other columns are empty then), and a probability for each class, headed by "p: " and its name. An interrupted run goes
    on after its last whole row when it is started again with the same model, the same files and the same labels.

    labels     a CSV of paths and classes as `data.labels` reads it, or the folder itself, where it is sorted by classes: a
               column `label` says what is given, before the probabilities, and `Written.answers` what was right
    mistakes   a page to write of the pictures that were taken for another class

    Raises CourseError for a folder without pictures, where the table or the page can't be written or something else lies
    there, where another run is writing it, and as `Given.read` does.
    """
    top, table, device = Path(pictures), Path(table), devices.pick_device(device)
    names, notes = _pictures(top)
    given = None if labels is None else Given.read(Path(labels), top, names, model.classes)
    _refuse(table, mistakes, given)
    seen: list[list[str]] = []  # of each row all but the probabilities of the classes

    def rows(start: int) -> Iterator[list[list[str]]]:
        for some, reasons, images in read(top, names, model.image_size, start, batch_size, progress, "predicting"):
            found = _rows(model, some, reasons, images, device, given)
            seen.extend(row[: len(COLUMNS)] for row in found)
            yield found

    try:
        with locking.claimed_files(table, mistakes and Path(mistakes)):
            growing = GrowingTable(table, _header(model, given), _stamp(model, top, names, given))
            seen += [row[: len(COLUMNS)] for row in growing.kept]
            growing.write(rows)
            answers = None if given is None else given.answers(seen)
            if mistakes is not None:
                pages.wrong(mistakes, answers, pages.of_files([top / name for name in answers.names]), "the model")
    except OSError as error:
        raise CourseError(
            f"could not write {table} ({error.strerror or error}); the rows so far are kept beside it, and the same command "
            "goes on from there."
        ) from None
    problems = tuple((row[0], row[3]) for row in seen if row[3])
    return Written(table, len(names), len(growing.kept), problems, (*notes, *(given.notes if given else ())), answers)


def embed(
    backbone: Backbone,
    pictures: str | Path,
    out: str | Path,
    *,
    size: int,
    stage: int | str = "all",
    patches: bool = False,
    device: str | torch.device = "auto",
    batch_size: int = BATCH,
    progress: bool = True,
) -> Written:
    """Write the features of every picture of a folder to `out`, which `read_features` reads.

    out      a name that ends in .parquet for one table, or in .npy (nothing: the same) for NumPy's, with a .csv beside it
    size     of the pictures, in pixels;  stage: as in `Model`
    patches  the features of each place of the stage's map, (height, width, d) of a picture, in place of their mean (d,)

    Raises CourseError as `predict` does, and for patches of more than one stage.
    """
    out, device = Path(out), devices.pick_device(device)
    size = whole_number("the size in pixels", size, decode.SMALL, LARGEST_IMAGE)
    out = out if out.suffix else out.with_suffix(featurefile.NPY)
    look = _looking(backbone, stage, patches, device)
    top, problems = Path(pictures), []
    names, notes = _pictures(top)
    shape = look(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape[1:]
    about = {"stage": stage, "patches": patches, "image_size": size, "backbone": backbone.arch}
    with featurefile.writing(out, shape, names, about) as writer:
        for some, reasons, images in read(top, names, size, 0, batch_size, progress, "features"):
            rows = look(images) if len(images) else torch.zeros(0, *shape)
            refuse_not_finite(rows, f"the features of {shown(some[0])} and those after it")
            writer.add(some, reasons, rows)
            problems += [(some[i], reason) for i, reason in reasons.items()]
        if len(problems) == len(names):
            raise CourseError(f"none of the {len(names)} pictures in {top} can be read ({problems[0][1]}).")
    return Written(out, len(names), 0, tuple(problems), tuple(notes))


def _looking(backbone: Backbone, stage: int | str, patches: bool, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from uint8 images (n, 3, H, W) to float32 (n, d), or to (n, height, width, d) of patches."""
    head = nn.Identity()
    if not patches:
        return lambda images: Model(backbone, head, (), image_size=images.shape[-1], stage=stage).logits(
            images, device=device
        )
    if stage not in (1, 2, 3, 4) or isinstance(stage, bool):
        raise CourseError(f"patches are of one stage, 1 to 4, and {stage!r} was asked for.")

    @torch.no_grad()
    def look(images: Tensor) -> Tensor:
        with devices.on(device, backbone), devices.evaluating(backbone):
            maps = backbone.stages(augment.to_float(images.to(device)))[stage - 1]  # (n, d, height, width)
            return maps.permute(0, 2, 3, 1).float().cpu()

    return look


def read(
    top: Path, names: Sequence[str], size: int, start: int, batch_size: int, progress: bool, label: str
) -> Iterator[tuple[Sequence[str], dict[int, str], Tensor]]:
    """One batch of files after the other, from number `start` on: their names, the reason for each of them that can't be
    read (by its place in the batch), and uint8 (n, 3, size, size) of the others."""
    with tqdm(total=len(names), initial=start, desc=label, disable=not progress, leave=False, delay=1.0) as bar:
        for begin in range(start, len(names), batch_size):
            some = names[begin : begin + batch_size]
            found = decode.decode([top / name for name in some], size, progress=False)
            yield some, dict(found.skipped), torch.from_numpy(found.images)
            bar.update(len(some))


def _pictures(top: Path) -> tuple[list[str], list[str]]:
    names, notes = walk.pictures(top)
    if not names:
        raise CourseError(f"there are no pictures in {top} or the folders in it; give a folder that holds some.")
    return names, notes


def _refuse(table: Path, mistakes: str | Path | None, given: Given | None) -> None:
    """Raise CourseError where something else lies in the place of what is to be written, and for mistakes without labels."""
    files.refuse_foreign(table, lambda path: files.begins_with(path, ",".join(COLUMNS)), "a table of predictions")
    files.refuse_foreign(
        part_of(table), lambda path: files.begins_with(path, "# "), "rows of an interrupted prediction"
    )
    if mistakes is not None:
        if given is None:
            raise CourseError(
                "mistakes are known where labels are, and none were given; give labels, or no page of mistakes."
            )
        pages.refuse_foreign(mistakes)


def _header(model: Model, given: Given | None) -> list[str]:
    return [*COLUMNS, *(() if given is None else ("label",)), *(f"p: {name}" for name in model.classes)]


def _rows(
    model: Model,
    some: Sequence[str],
    reasons: dict[int, str],
    images: Tensor,
    device: torch.device,
    given: Given | None,
) -> list[list[str]]:
    """The rows of one batch of files, with the columns of `_header`."""
    logits = model.logits(images, device=device) if len(images) else torch.zeros(0, len(model.classes))
    shares = iter((logits / model.temperature).softmax(dim=1))  # each (C,)
    rows = [_row(name, reasons.get(i), shares, model.classes) for i, name in enumerate(some)]
    for row in rows if given is not None else ():
        row.insert(len(COLUMNS), given.label.get(row[0], ""))
    return rows


def _row(name: str, problem: str | None, shares: Iterator[Tensor], classes: Sequence[str]) -> list[str]:
    if problem is not None:
        return [name, "", "", problem, *[""] * len(classes)]
    share = next(shares)  # (C,)
    if not bool(share.isfinite().all()):
        return _row(name, "the classifier gives no finite numbers for it", shares, classes)
    best = int(share.argmax())
    return [name, classes[best], f"{share[best]:.6f}", "", *(f"{p:.6f}" for p in share.tolist())]


def _stamp(model: Model, top: Path, names: Sequence[str], given: Given | None) -> str:
    """What changes when the model, the list of pictures, the length or time of one of them, or a label does."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((model.classes, model.image_size, model.stage, model.temperature)).encode("utf-8", "replace"))
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    if given is not None:
        digest.update(repr(sorted(given.label.items())).encode("utf-8", "replace"))
    within = os.path.realpath(top)
    digest.update(decode.DISK.stamp([os.path.join(within, name) for name in names]).encode())
    return digest.hexdigest()
