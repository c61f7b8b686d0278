"""What a backbone's file says of the run that made it: who goes on with it asks here, and says where it does otherwise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcourse.backbones import STAGES, Backbone
from sslcourse.console import say
from sslcourse.data import labels as tables
from sslcourse.data import spec
from sslcourse.data.decode import DEFAULT
from sslcourse.paths import typed

FLAGS = {"data": "--data", "labels": "--labels", "image_size": "--size"}  # how the command line asks for another one


@dataclass(frozen=True)
class Record:
    """What a run's folder knows, beside architecture, stem and preprocessing, which the backbone itself carries.

    None where the file doesn't say: files of an earlier version, and runs in Python on images without a specification.

    data        what it was pretrained on, as `load` takes it, with whole paths and without a size
    labels      the file of labels that was given beside a folder
    image_size  height and width of the images, in pixels
    stage       where features are read, as `evaluate.extract` takes it
    """

    data: str | None = None
    labels: str | None = None
    image_size: int | None = None
    stage: int | str | None = None


def of(backbone: Backbone) -> Record:
    """The record that came with a backbone; empty where there is none."""
    notes = backbone.notes if isinstance(backbone.notes, dict) else {}
    text = {name: notes[name] for name in ("spec", "labels") if isinstance(notes.get(name), str)}
    size, stage = notes.get("image_size"), notes.get("stage")
    known = next((one for one in STAGES if stage == one or stage == str(one)), None)
    return Record(text.get("spec"), text.get("labels"), size if isinstance(size, int) else None, known)


def stage_of(source: str, backbone: Backbone, asked: int | str | None = None) -> int | str:
    """Where features are read: at the stage that was asked for, else where the record says, else at all of them.

    One line on standard error says where the two differ; `source` is what the backbone is called in it. Raises CourseError
    for what is no stage of this backbone.
    """
    known = of(backbone).stage
    if asked is None:
        return known or "all"
    backbone.refuse_stage(asked)
    if known not in (None, asked):
        say(
            f"the features of {source} are read at --stage {known}, its record says; --stage {asked} is used, as asked."
        )
    return asked


def size_of(source: str, backbone: Backbone, settled: int | None) -> int:
    """The side in pixels of the images that a backbone is to see: what was settled, else what a vision transformer's
    positions are for, else DEFAULT, and a line on standard error that nothing says so."""
    side = own_size(backbone) if settled is None else settled
    if side is None:
        say(
            f"{source} doesn't say for images of which size it is; {DEFAULT} pixels are used, and --size takes another."
        )
    return DEFAULT if side is None else side


def own_size(backbone: Backbone) -> int | None:
    """The side in pixels of the images that a vision transformer's positions are for."""
    return getattr(backbone.trunk, "image_size", None)


def notes(data: str, labels: str | Path | None = None, stage: int | str = "all") -> dict[str, str]:
    """What a run on `data` writes beside its backbone, for `of` to read; `train.pretrain` adds the images' size."""
    found = {"spec": canonical(data), "stage": str(stage)}
    return found | ({"labels": _table(data, labels)} if labels is not None else {})


def _table(data: str | None, labels: str | Path) -> str:
    """The whole path of a table of labels, which may lie in the folder of the pictures."""
    parsed, table = spec.parse(data or "world"), typed(labels)
    return str((tables.beside(typed(parsed.path), table) if parsed.kind == "folder" else table).absolute())


def canonical(data: str) -> str:
    """A specification that means the same from every folder, without the size: "folder:photos" to "folder:/home/me/photos"."""
    parsed = dataclasses.replace(spec.parse(data), size=None)
    if parsed.path:
        return f"{parsed.kind}:{typed(parsed.path).absolute()}"
    usual = spec.Spec(parsed.kind)
    words = [word for word in (parsed.mode, parsed.domain) if word not in (usual.mode, usual.domain)]
    return f"{parsed.kind}:{','.join(words)}" if words else parsed.kind


def settled(source: str, known: Record, **asked: Any) -> Record:
    """What is used: what was asked for, and where nothing was, what the run did.

    source  what the run is called in the one line on standard error that says where the two differ
    asked   fields of Record; None where nothing was asked for
    """
    given = {name: value for name, value in asked.items() if value is not None}
    others = {name: getattr(known, name) for name in given if getattr(known, name) not in (None, given[name])}
    if others:
        was = " ".join(f"{FLAGS[name]} {value}" for name, value in others.items())
        now = " ".join(f"{FLAGS[name]} {given[name]}" for name in others)
        say(f"{source} was pretrained with {was}; {now} is used, as asked.")
    return dataclasses.replace(known, **given)


def say_other_size(backbone: Backbone, size: int) -> None:
    """One line on standard error where images of `size` pixels aren't of the size that a backbone was pretrained on."""
    known = of(backbone).image_size
    if known not in (None, size):
        say(f"this {backbone.arch} was pretrained on images of {known} pixels, and is measured on {size}, as asked.")


def settled_for_data(
    source: str, known: Record, data: str | None, labels: str | Path | None, size: int | None
) -> Record:
    """`settled` for what the command line takes: a specification, which may hold a size, a table of labels, and a size.

    The run's table goes with the run's data. Of another size, `say_other_size` tells when it is measured.
    """
    if labels is not None:
        known = settled(source, known, labels=_table(data or known.data, labels))
    if data is None:
        return dataclasses.replace(known, image_size=known.image_size if size is None else size)
    inside = spec.parse(data).size
    used = settled(source, dataclasses.replace(known, image_size=None), data=canonical(data))
    if labels is None and used.data != known.data:
        used = dataclasses.replace(used, labels=None)
    known_size = known.image_size if inside is None else None  # a size within the specification goes before the run's
    beside = known_size if size is None else size
    return dataclasses.replace(used, data=data, image_size=beside)
