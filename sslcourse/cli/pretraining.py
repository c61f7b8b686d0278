"""`sslcourse pretrain`: a task, a data set and settings, put together and handed to the loop."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.errors import CourseError

if TYPE_CHECKING:
    from sslcourse.backbones import Backbone as Network
    from sslcourse.data.imageset import ImageSet
    from sslcourse.data.splits import Splits


@command(stopped=texts.pretraining_stopped)
def pretrain(
    task: options.Task,
    out: options.RunFolder,
    data: options.Spec = "world",
    backbone: options.Backbone = None,
    stem: options.NewStem = None,
    weights: options.Start = None,
    steps: options.Steps = 600,
    batch_size: options.BatchSize = 64,
    learning_rate: options.LearningRate = None,
    weight_decay: options.WeightDecay = None,
    option: options.TaskOption = [],  # noqa: B006
    seed: options.Seed = 0,
    labels: options.Labels = None,
    size: options.Size = None,
    device: options.Device = "auto",
    stream: options.Stream = None,
    resume: options.Resume = False,
    checkpoint_every: options.CheckpointEvery = 100,
    log_every: options.LogEvery = 20,
    compile: options.Compile = False,
    as_json: options.Json = False,
) -> None:
    """Pretrain a backbone on images without labels (clip and siglip: on those of the train split, with their captions)."""
    from sslcourse import device as devices
    from sslcourse import distributed, pretext, record, train

    kind = pretext.find(task)  # a wrong name is said before anything is loaded
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    recipe = kind.recipe | {name: value for name, value in rates.items() if value is not None}
    config = train.TrainConfig(
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        compile=compile,
        **recipe,
    )
    where = devices.pick_device(device)
    start = _start(weights, backbone, stem)
    splits = _splits(data, labels, size, stream, weights, start)
    network = start or _new(backbone or kind.arch, stem, splits, seed)
    model = pretext.build(task, network, **options.task_options(option, pretext.option_defaults(kind)))
    images = splits.train if kind.captioned else splits.unlabeled  # what is unlabeled has no captions either
    _say_what_is_used(images, splits.notes, where)
    history = train.pretrain(
        model,
        images,
        config,
        out=out,
        resume=resume or distributed.restarted(),
        device=where,
        notes=record.notes(data, labels),
    )
    if _speaks():
        result = {
            "task": task,
            "data": data,
            "backbone": network.arch,
            "images": len(images),
            "steps": steps,
            "device": str(where),
            "out": str(out),
            **history.last,
        }
        texts.show(result, texts.pretrained(result, labels, size), as_json)


def _start(path: Path | None, backbone: str | None, stem: str | None) -> Network | None:
    """The backbone that pretraining goes on from; None for a new one."""
    from sslcourse import backbones, weights

    if backbone is not None:
        backbones.refuse_unknown(backbone)
    if path is None:
        return None
    if backbone or stem:
        raise CourseError("--weights brings a whole network, its stem included; leave --backbone and --stem out.")
    found = weights.load(path)
    if found.arch not in backbones.names():
        raise CourseError(
            f"{path} holds a {found.arch} with the stem {found.stem}, and pretraining goes on from one of "
            f"{', '.join(backbones.names())}; measure this one with `sslcourse evaluate`."
        )
    return found


def _splits(
    data: str, labels: Path | None, size: int | None, stream: bool | None, weights: Path | None, start: Network | None
) -> Splits:
    """The images, in the size that was asked for, else in that of the run that is gone on from.

    They don't move with the seed: `evaluate` must see the same ones.
    """
    from sslcourse import record
    from sslcourse.data import load, spec

    if start is not None:
        asked = spec.parse(data).size if size is None else size
        size = record.settled(str(weights), record.of(start), image_size=asked).image_size
    return load(data, size=size, stream=stream, labels=labels)


def _new(arch: str, stem: str | None, splits: Splits, seed: int) -> Network:
    from sslcourse import backbones

    return backbones.build(arch, stem=stem, image_size=splits.size[1], seed=seed)


def _say_what_is_used(images: ImageSet, notes: Sequence[str], where: Any) -> None:
    """The device, how the images come there, and how the splits came about."""
    from sslcourse import device as devices
    from sslcourse.data import stream

    if _speaks():
        notices = (devices.report(where), stream.report(stream.source(images), where), *notes)
        print(*notices, sep="\n", file=sys.stderr)


def _speaks() -> bool:
    """Of the processes that torchrun started, one speaks."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
