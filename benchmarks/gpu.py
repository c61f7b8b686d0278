"""What has to be measured on a GPU: waits, bits, speed, compiling, and SimCLR on CIFAR-10 beside lightly's own training.

    python benchmarks/gpu.py --data folder:PATH --out RUN                 all of it
    python benchmarks/gpu.py waits bits speed --out RUN                   some parts
    python benchmarks/gpu.py simclr --data folder:PATH --out RUN --epochs 25 --minutes 4    in pieces: the same command goes on

waits    whether a step of each task makes the CPU wait for the GPU
bits     whether a seed gives each task the same weights twice, and after a stop in the middle
speed    images per second of the loop beside those of the bare step, for each task, batch 512 and 128
compile  the same for SimCLR, the loop compiled and the bare step not
simclr   ResNet-18, ours and lightly's (transform, network, head, loss and optimizer) for as many epochs on the same images, all of the
         training set: kNN, minutes and images per second of both. kNN as in lightly's benchmark: k = 200, temperature 0.1, features of
         the last stage, training images as the bank

lightly publishes for its own training (CIFAR-10, 200 epochs of batch 128, RTX A6000) a kNN of 0.847 after 97.7 minutes. That was
measured on the original pixels, as the best epoch on the test set; here it is the last epoch's, on whatever images are given.
Results go to RUN/gpu.json. Without a GPU this says so, goes through all of it in small on the processor, and exits 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from sslcourse import backbones, bench, evaluate, pretext, train
from sslcourse import device as devices
from sslcourse.data import load, world
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.pretext.base import PretextTask

PARTS = ("waits", "bits", "speed", "compile", "simclr")
NEIGHBOURS, TEMPERATURE = 200, 0.1
OPTIONS = {"temperature": 0.5, "hidden": 512, "dim": 128, "crop": 0.08, "jitter": 1.0}  # lightly's, without blur


@dataclass(frozen=True)
class Scale:
    """How large everything is: as on a GPU, or in small."""

    tasks: tuple[str, ...] = tuple(pretext.every_task())
    arch: str = "resnet18"
    batches: tuple[int, ...] = (512, 128)
    pictures: int = 4096  # of pocket world, for all but the training on CIFAR-10
    seconds: float = 3.0  # for each side of a comparison
    rounds: int = bench.ROUNDS
    workers: int | None = None  # lightly's: one for each core


SMALL = Scale(("moco", "rotation"), "resnet-tiny", batches=(4,), pictures=8, seconds=0.0, rounds=1, workers=0)


def make(name: str, scale: Scale) -> PretextTask:
    usual = pretext.find(name).arch
    return pretext.build(name, backbones.build(usual if usual in backbones.TRANSFORMERS else scale.arch))


# --- waits, bits, speed ------------------------------------------------------------------------------------------


def waits(name: str, images: ImageSet, where: torch.device, scale: Scale) -> str:
    """ "none", or what the loop waits for between two logged steps."""
    task, done, steps = make(name, scale), 0, 6
    moved = task.after_step

    def after_step(progress: float) -> None:
        nonlocal done
        moved(progress)
        done += 1  # the first step makes what is made once, and the last one is logged
        if where.type == "cuda":
            torch.cuda.set_sync_debug_mode("error" if 2 <= done < steps - 1 else "default")

    config = train.TrainConfig(steps=steps, batch_size=scale.batches[-1], log_every=steps)
    try:
        with mock.patch.object(task, "after_step", after_step):
            train.pretrain(task, images, config, device=where, progress=False)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        if where.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return "none"


class Halt(Exception):
    """Raised between two steps, to stop a training there."""


def bits(name: str, images: ImageSet, where: torch.device, scale: Scale) -> dict[str, bool]:
    """Whether a seed gives the same weights twice, and after a stop in the middle."""
    config = train.TrainConfig(steps=8, batch_size=scale.batches[-1], log_every=4, checkpoint_every=4)

    def trained(**more: Any) -> dict[str, Tensor]:
        task = make(name, scale)
        train.pretrain(task, images, config, device=where, progress=False, **more)
        return task.state_dict()

    def halt(record: dict[str, float]) -> None:
        if record["step"] > 4:
            raise Halt

    def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
        return all(torch.equal(first[name], second[name]) for name in first)

    whole = trained()
    with tempfile.TemporaryDirectory() as out:
        try:
            trained(out=out, on_log=halt)
        except Halt:
            pass
        return {"twice": equal(whole, trained()), "resumed": equal(whole, trained(out=out, resume=True))}


def speed(name: str, images: ImageSet, where: torch.device, scale: Scale, **options: Any) -> dict[str, Any]:
    """The loop beside the bare step, by batch size."""
    return {
        f"batch {batch}": bench.loop_against_bare_step(
            lambda: make(name, scale), images, where, scale.seconds, batch, scale.rounds, **options
        )
        for batch in scale.batches
    }


def compiled(images: ImageSet, where: torch.device, scale: Scale) -> dict[str, Any] | str:
    try:
        return speed("simclr", images, where, scale, compile=True)
    except CourseError as error:
        return f"not measured: {error}"


# --- SimCLR on CIFAR-10, ours and lightly's ----------------------------------------------------------------------


def whole_training_set(splits: Any) -> ImageSet:
    """All labelled images but the test set's: what the loader sets aside for validation, too."""
    parts = [part for part in (splits.train, splits.val) if part is not None]
    images, labels = (torch.cat(found) for found in ([p.images for p in parts], [p.require_labels() for p in parts]))
    return ImageSet(images, labels, classes=splits.classes, name=splits.train.name)


def settings(images: int, epochs: int, batch: int, seed: int) -> train.TrainConfig:
    """lightly's optimizer: SGD, rate 0.06 for 128 images and in proportion for more, cosine without warm-up."""
    steps = epochs * (images // batch)
    return train.TrainConfig(
        steps=steps, batch_size=batch, learning_rate=0.06 * batch / 128, weight_decay=5e-4, warmup=0.0, optimizer="sgd",
        seed=seed, log_every=min(100, steps), checkpoint_every=min(500, steps),
    )  # fmt: skip


def in_pieces(task: PretextTask, images: Tensor, config: train.TrainConfig, where: torch.device, out: Path, minutes: float) -> float | None:  # fmt: skip
    """Train, or go on training, for at most `minutes`. Seconds of training in all pieces when it is done, else None."""
    clock = out / "seconds.json"
    spent = json.loads(clock.read_text()) if clock.exists() else 0.0
    begin = time.perf_counter()

    def watch(record: dict[str, float]) -> None:
        if time.perf_counter() - begin > 60 * minutes and record["step"] < config.steps:
            raise Halt

    done = False
    try:
        train.pretrain(task, images, config, out=out, resume=True, on_log=watch, device=where)
        done = True
    except Halt:
        pass
    seconds = spent + time.perf_counter() - begin
    out.mkdir(parents=True, exist_ok=True)
    clock.write_text(json.dumps(seconds))
    return seconds if done else None


def knn(known: Tensor, asked: Tensor, bank: ImageSet, test: ImageSet) -> float:
    """Accuracy of weighted kNN on features (N, d) and (M, d) of the images of `bank` and `test`."""
    right = 0
    for queries, labels in zip(asked.split(1000), test.require_labels().split(1000), strict=True):
        scores = evaluate.knn_scores(
            known, bank.require_labels(), queries, classes=len(bank.classes), k=NEIGHBOURS, temperature=TEMPERATURE
        )
        right += int((scores.argmax(dim=1) == labels).sum())
    return right / len(asked)


def simclr(
    bank: ImageSet, test: ImageSet, where: torch.device, scale: Scale, out: Path, epochs: int, batch: int, seed: int,
    minutes: float,
) -> dict[str, Any] | None:  # fmt: skip
    """Both trainings, one after the other; None where one isn't done within `minutes`."""
    config, found = settings(len(bank), epochs, batch, seed), {}
    task = pretext.build(
        "simclr", backbones.build("resnet18", image_size=bank.size[0], seed=seed), **OPTIONS
    )  # as large in small: the kNN is of its stage
    seconds = in_pieces(task, bank.images, config, where, out / "ours", minutes)
    if seconds is None:
        return None
    known, asked = (evaluate.extract(task.backbone, part, stage=4, device=where) for part in (bank, test))
    images = config.steps * config.batch_size
    found["ours"] = _row(knn(known, asked, bank, test), seconds, images)
    try:
        import lightlys
    except ImportError as missing:
        found["lightly"] = f"not measured: {missing}; `make bench` installs it, or pip install 'sslcourse[bench]'"
        return found
    theirs = lightlys.Run(bank.images, epochs, batch, seed, where, out, scale.workers)
    if not theirs.go_on(minutes):
        return None
    known, asked = theirs.model.features(bank), theirs.model.features(test)
    found["lightly"] = _row(knn(known, asked, bank, test), theirs.seconds, images)
    return found


def _row(accuracy: float, seconds: float, images: int) -> dict[str, float]:
    return {"kNN": accuracy, "minutes": seconds / 60, "images/s": images / seconds}


# --- all of it ---------------------------------------------------------------------------------------------------


def measure(
    parts: tuple[str, ...], where: torch.device, scale: Scale, cifar: Callable[[], dict[str, Any] | None], say: Callable
) -> dict[str, Any]:
    """Every part, said as soon as it is known."""
    images = world.draw("unlabeled", scale.pictures, labels=True)  # with captions, for the tasks that need some
    found: dict[str, Any] = {"machine": devices.report(where)}
    one_by_one = {"waits": waits, "bits": bits, "speed": speed}
    for part in parts:
        if part in one_by_one:
            found[part] = {}
            for name in scale.tasks:
                found[part][name] = one_by_one[part](name, images, where, scale)
                say(f"{part:<8} {name:<16} {_text(found[part][name])}")
        else:
            found[part] = compiled(images, where, scale) if part == "compile" else cifar()
            say(f"{part:<8} {_text(found[part])}")
    return found


def _text(found: Any) -> str:
    if isinstance(found, dict) and "ratio" in found:
        return f"{found['ratio']:.2f} ({found['ours, images/s']:.0f} of {found['bare, images/s']:.0f} images/s)"
    if isinstance(found, dict):
        return "; ".join(f"{name} {_text(value)}" for name, value in found.items())
    if found is None:
        return "not done yet: run the same command again to go on"
    return f"{found:.3f}" if isinstance(found, float) else str(found)


def dry_run(parts: tuple[str, ...]) -> None:
    """All that a GPU would do, in small: two steps of the training, kNN of both sides, two tasks of the rest."""
    cpu, test = torch.device("cpu"), world.draw("test", 8)
    bank = whole_training_set(
        SimpleNamespace(train=world.draw("train", 8), val=world.draw("val", 8), classes=test.classes)
    )
    print(f"No CUDA GPU here ({devices.report('cpu')}): nothing was measured.")
    eager = mock.patch.object(torch, "compile", lambda module: module)  # a compiler takes a minute, where there is one
    with tempfile.TemporaryDirectory() as out, eager:
        found = measure(
            parts, cpu, SMALL, lambda: simclr(bank, test, cpu, SMALL, Path(out), epochs=1, batch=8, seed=0, minutes=1.0),
            print,
        )  # fmt: skip
    print(f"A dry run of {', '.join(part for part in PARTS if part in found)} went through; its numbers say nothing.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("gpu-run"))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of training, each side, in this piece; the same command goes on"
    )
    given = parser.parse_args()
    parts = tuple(given.parts) or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose of {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        return dry_run(parts)

    where, scale = devices.pick_device("cuda"), Scale()

    def cifar() -> dict[str, Any] | None:
        splits = load(given.data)
        bank = whole_training_set(splits)
        return simclr(
            bank, splits.test, where, scale, given.out, given.epochs, given.batch_size, given.seed, given.minutes
        )

    found = measure(parts, where, scale, cifar, lambda line: print(line, flush=True))
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "gpu.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | found, indent=1) + "\n")
    print(f"all of it is in {file}", file=sys.stderr)


if __name__ == "__main__":
    main()
