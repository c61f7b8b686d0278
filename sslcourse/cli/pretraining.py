"""`sslcourse pretrain`: a task, a data set and settings, put together and handed to the loop."""

from __future__ import annotations

import dataclasses
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
    from sslcourse.validation import Validation

STEPS = 600  # where neither steps nor epochs are said
UNKNOWN_STEPS = 10**12  # until the images are counted that epochs go over: no warm-up is longer
VALIDATE_EVERY = 50  # steps, where a signal is asked for and nobody says how often


@command(stopped=texts.pretraining_stopped)
def pretrain(
    task: options.Task,
    out: options.RunFolder,
    data: options.Spec = "world",
    backbone: options.Backbone = None,
    stem: options.NewStem = None,
    init: options.Start = None,
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    activation: options.Activation = None,
    normalize: options.Normalize = None,
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = 64,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    schedule: options.Schedule = None,
    warmup: options.Warmup = None,
    weight_decay: options.WeightDecay = None,
    option: options.TaskOption = [],  # noqa: B006
    seed: options.Seed = 0,
    labels: options.Labels = None,
    size: options.Size = None,
    device: options.Device = "auto",
    stream: options.Stream = None,
    resume: options.Resume = False,
    validate_every: options.ValidateEvery = None,
    signal: options.Signal = "retrieval",
    patience: options.Patience = None,
    tensorboard: options.TensorBoard = False,
    checkpoint_every: options.CheckpointEvery = 100,
    log_every: options.LogEvery = 20,
    compile: options.Compile = False,
    as_json: options.Json = False,
) -> None:
    """Pretrain a backbone on images without labels (clip and siglip: on those of the train split, with their captions)."""
    from sslcourse import device as devices
    from sslcourse import distributed, pretext, record, train

    kind = pretext.find(task)  # a wrong name is said before anything is loaded
    asked = {
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup": options.share_or_count(warmup, "--warmup"),
        "weight_decay": weight_decay,
    }
    recipe = kind.recipe | {name: value for name, value in asked.items() if value is not None}
    resume = resume or distributed.restarted()
    settled = train.TrainConfig(
        steps=_steps_before_images(steps, epochs, out if resume else None),
        batch_size=batch_size,
        seed=seed,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        compile=compile,
        **recipe,
    )
    where = devices.pick_device(device)
    hints = {"network": network, "prefix": prefix, "heads": heads, "activation": activation, "normalize": normalize}
    start = _start(init, backbone, stem, **hints)
    splits = _splits(data, labels, size, stream, init, start)
    images = splits.train if kind.captioned else splits.unlabeled  # what is unlabeled has no captions either
    config = _with_epochs(settled, epochs, len(images))
    network = start or _new(backbone or kind.arch, stem, splits, seed)
    model = pretext.build(task, network, **options.task_options(option, pretext.option_defaults(kind)))
    _say_what_is_used(images, splits.notes, where)
    validation = _validation(splits, config, validate_every, signal, patience)
    history = train.pretrain(
        model,
        images,
        config,
        out=out,
        resume=resume,
        device=where,
        notes=record.notes(data, labels),
        on_log=_events(out) if tensorboard else None,
        validation=validation,
    )
    if _speaks():
        result = {
            "task": task,
            "data": data,
            "backbone": network.arch,
            "images": len(images),
            "steps": config.steps,
            "device": str(where),
            "out": str(out),
            **history.last,
        }
        if validation is not None:
            result |= {"signal": signal, "best_step": validation.best_step(history.records)}
        texts.show(result, texts.pretrained(result, labels, size), as_json)


# --- how long ------------------------------------------------------------------------------------------------------


def _steps_before_images(steps: int | None, epochs: float | None, resumed: Path | None) -> int:
    """The number of steps that was asked for, or that a run that is gone on from is to have; epochs come later."""
    from sslcourse import checkpoint

    if steps is not None and epochs is not None:
        raise CourseError("--steps and --epochs both say how long to train; leave one out.")
    if epochs is not None:
        return UNKNOWN_STEPS
    if steps is not None:
        return steps
    return checkpoint.recorded_steps(resumed) or STEPS if resumed is not None else STEPS


def _with_epochs(config: Any, epochs: float | None, images: int) -> Any:
    """The configuration with as many steps as the epochs are, where some were asked for."""
    from sslcourse import train

    if epochs is None:
        return config
    return dataclasses.replace(config, steps=train.steps_of(epochs, images, config.batch_size))


# --- what it begins with -------------------------------------------------------------------------------------------


def _start(path: Path | None, backbone: str | None, stem: str | None, **hints: Any) -> Network | None:
    """The backbone that pretraining goes on from, read as `evaluate` reads it; None for a new one."""
    from sslcourse import backbones, weights

    if backbone is not None:
        backbones.refuse_unknown(backbone)
    if path is None:
        options.refuse_idle(hints, path, "--init")
        return None
    if backbone:
        raise CourseError("--init brings a whole network; leave --backbone out.")
    found = weights.load(path, stem=stem, **hints)
    if found.arch not in backbones.names():
        raise CourseError(
            f"{path} holds a {found.arch} with the stem {found.stem}, and pretraining goes on from one of "
            f"{', '.join(backbones.names())}; measure this one with `sslcourse evaluate`."
        )
    return found


def _splits(
    data: str, labels: Path | None, size: int | None, stream: bool | None, init: Path | None, start: Network | None
) -> Splits:
    """The images, in the size that was asked for, else in that of the run that is gone on from.

    They don't move with the seed: `evaluate` must see the same ones.
    """
    from sslcourse import record
    from sslcourse.data import load, spec

    if start is not None:
        asked = spec.parse(data).size if size is None else size
        size = record.settled(str(init), record.of(start), image_size=asked).image_size
    return load(data, size=size, stream=stream, labels=labels)


def _new(arch: str, stem: str | None, splits: Splits, seed: int) -> Network:
    from sslcourse import backbones

    return backbones.build(arch, stem=stem, image_size=splits.size[1], seed=seed)


# --- what is watched meanwhile -------------------------------------------------------------------------------------


def _validation(splits: Splits, config: Any, every: int | None, signal: str, patience: int | None) -> Validation | None:
    """What measures the backbone without labels, where that was asked for: on the pixels of val, where there are some."""
    from sslcourse.data.stream import ImageFiles
    from sslcourse.errors import one_of
    from sslcourse.validation import LEAST, SIGNALS, Validation

    one_of("signal", signal, SIGNALS)
    if every is None and patience is None:
        return None
    images = splits.val
    if len(images) < LEAST:
        unlabeled = splits.unlabeled
        images = unlabeled.sample() if isinstance(unlabeled, ImageFiles) else unlabeled
        texts.notices(
            ["validating on images that are also trained on, there being no others; any signal flatters then."]
        )
    return Validation(
        images,
        every=VALIDATE_EVERY if every is None else every,
        signal=signal,
        patience=patience,
        seed=config.seed,
    )


def _events(out: Path) -> Any:
    from sslcourse import events

    return events.writer(out) if _speaks() else None


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
