"""Speed, as ratios of two things timed side by side: absolute times depend on the machine, ratios much less.

Two sides take turns in short rounds, so that a machine that slows down slows both; a ratio is the median over rounds.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import backbones, busy, distributed, launch, pretext, train
from sslcourse import device as devices
from sslcourse.data import world
from sslcourse.data.imageset import ImageSet
from sslcourse.data.stream import ImageFiles
from sslcourse.pretext.base import PretextTask
from sslcourse.pretext.simclr import SimCLR

BATCH = 256
ROUNDS = 7


def run(*, seconds: float = 4.0, device: str = "auto") -> dict[str, Any]:
    """Every measurement; `seconds` is the time for each side of each comparison."""
    where = devices.pick_device(device)
    told = world.draw("unlabeled", 4096, labels=True)  # with captions, for the tasks that need some
    images = told.images
    tasks: dict[str, Callable[[], PretextTask]] = {
        name: (lambda name=name, task=task: pretext.build(name, backbones.build(task.arch)))
        for name, task in pretext.every_task().items()
    }
    tasks["rotation, one drawn"] = lambda: pretext.build("rotation", backbones.build(), all_rotations=False)
    results: dict[str, Any] = {"machine": devices.report(where), "batch": BATCH, "rounds": ROUNDS}
    with tqdm(total=len(tasks) + 6, desc="bench", leave=False, file=sys.stderr) as bar:
        results["loop / bare step"] = {}
        for name, make in tasks.items():
            results["loop / bare step"][name] = loop_against_bare_step(make, told, where, seconds)
            bar.update()
        results["streamed / bare step"] = {
            name: streaming(where, seconds, workers=workers)
            for name, workers in (("decoded in turn", 0), ("by a worker, ahead", 1))
        }
        bar.update()
        results["two processes / one"] = {
            f"{name}, {arch}, batch {batch}": two_processes(name, arch, seconds, batch=batch)
            for name, arch, batch in (
                ("rotation", "resnet-tiny", BATCH), ("simclr", "resnet-tiny", BATCH), ("simclr", "resnet18", 64),
            )
        }  # fmt: skip
        bar.update()
        results["looks for others / doesn't"] = {
            "on an idle machine": beside_others(0, seconds), "beside two endless loops": beside_others(2, seconds)
        }  # fmt: skip
        bar.update()
        results["against lightly"] = against_lightly(images, where, seconds)
        bar.update()
        results["pocket world, 14,000 images"] = world_times()
        bar.update()
        results["import"] = import_times()
        bar.update()
    return results


def loop_against_bare_step(
    make: Callable[[], PretextTask], images: ImageSet, where: torch.device, seconds: float, batch: int = BATCH,
    rounds: int = ROUNDS, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Images per second of `train.pretrain` over those of forward, backward and step on views that are ready.

    options  further fields of the loop's TrainConfig: compile=True compares it with the step that isn't compiled
    """
    task, bare_step = make().to(where), _bare_step(make(), images.select(slice(batch)), where)

    def loop(steps: int) -> float:
        return _seconds_of_steps(
            task, steps, where, lambda more: _pretrain(task, images, where, more, batch, **options)
        )

    return _side_by_side(loop, _repeated(bare_step), where, seconds, batch, rounds)


def _seconds_of_steps(task: PretextTask, steps: int, where: torch.device, run: Callable[[int], None]) -> float:
    """Seconds that `steps` steps of a run take, after its first: a round has few of them, and a run begins once."""
    usual, done, marks = task.after_step, 0, []

    def after_step(progress: float) -> None:
        nonlocal done
        usual(progress)
        done += 1
        if done == 1 or progress >= 1:  # beginning and end of a run stay outside
            devices.synchronize(where)
            marks.append(time.perf_counter())

    task.after_step = after_step
    try:
        run(steps + 1)
    finally:
        del task.after_step
    return marks[1] - marks[0]


def _bare_step(task: PretextTask, images: ImageSet, where: torch.device) -> Callable[[], None]:
    """Forward, backward and step on views of these images that are ready."""
    task.to(where, memory_format=devices.memory_format(where)).train()
    pixels, beside = images.images.to(where), (rows.to(where) for rows in task.beside(images))
    task.prepare(pixels)
    ready = task.views(pixels, devices.generator(0, where), *beside)
    optimizer = train.make_optimizer(task, train.TrainConfig(steps=1))

    def bare_step() -> None:
        with devices.autocast(where):
            loss, _ = task(*ready)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return bare_step


def _repeated(step: Callable[[], None]) -> Callable[[int], None]:
    def repeat(steps: int) -> None:
        for _ in range(steps):
            step()

    return repeat


def streaming(where: torch.device, seconds: float, *, workers: int, batch: int = 64) -> dict[str, float]:
    """Images per second of `train.pretrain` on JPEG files, streamed, over those of the bare step: ResNet-18 at 64x64.

    With torchvision's stem, whose step is the cheapest.

    The files are 256 x 192 pixels, some 20 KB each, decoded anew for every batch. The loop on them runs alone, long
    enough for what workers prepared to be used up.
    """

    def make() -> PretextTask:
        return pretext.build(
            "rotation", backbones.build("resnet18", stem="imagenet", image_size=64), all_rotations=False
        )

    with tempfile.TemporaryDirectory() as folder:
        files, task = ImageFiles(photographs(Path(folder), 512), 64, workers=workers), make()
        pairs = []
        for _ in range(3):
            other = _rate(_repeated(_bare_step(make(), files.sample(batch), where)), where, seconds, batch)
            ours = _rate(lambda steps: _pretrain(task, files, where, steps, batch), where, 2 * seconds, batch)
            pairs.append((ours, other))
    return _ratio(pairs)


def loader_and_network(
    paths: Sequence[Path], side: int, where: torch.device, *, steps: int = 20, batch: int = 32
) -> dict[str, float]:
    """Images per second of decoding and of learning, each alone, and of both, in turn and with a worker ahead.

    paths   image files, which are decoded to `side` pixels; what learns is SimCLR with the course's smallest ResNet
    steps   batches of each measurement; one before them isn't counted
    """
    alone, helped = (ImageFiles(paths, side, workers=workers) for workers in (0, 1))

    def numbers(step: int) -> Tensor:
        return torch.arange(step * batch, (step + 1) * batch) % len(paths)  # (batch,)

    def decoding(files: ImageFiles) -> float:
        with contextlib.closing(files.batches(numbers, 0, steps + 1)) as batches:
            next(batches)
            begin = time.perf_counter()
            for _ in range(steps):
                next(batches)
            return batch * steps / (time.perf_counter() - begin)

    def learning(images: Tensor | ImageFiles) -> float:
        task = pretext.build("simclr", backbones.build(seed=0)).to(where)
        seconds = _seconds_of_steps(task, steps, where, lambda more: _pretrain(task, images, where, more, batch))
        return batch * steps / seconds

    return {
        "decoding, all threads": decoding(alone),
        "decoding, one worker": decoding(helped),
        "network alone": learning(alone.take(range(len(alone))).images),
        "in turn": learning(alone),
        "decoded ahead": learning(helped),
    }


def photographs(
    folder: Path, count: int, kind: str = "jpg", size: tuple[int, int] = (192, 256), noise: float = 6.0
) -> list[Path]:
    """Pictures of pocket world as large as photographs, written into a folder; returns their paths.

    size    (height, width) in pixels
    noise   standard deviation in gray levels, as of a camera: with 6, JPEG files are as long as those of photographs
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    generator = devices.generator(0)
    paths = [folder / f"{i:04}.{kind}" for i in range(count)]
    for path, image in zip(paths, world.draw("unlabeled", count, size=64).images, strict=True):
        large = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear")[0]  # (3, height, width)
        noisy = (large + noise * torch.randn(large.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
        Image.fromarray(noisy.permute(1, 2, 0).numpy()).save(path, quality=90, compress_level=1)
    return paths


def two_processes(name: str, arch: str, seconds: float, *, batch: int = BATCH) -> dict[str, float]:
    """Images per second of two processes (gloo, one thread each) over those of one with two threads, same joint batch."""
    return _ratio([tuple(_processes(count, name, arch, seconds, batch) for count in (2, 1)) for _ in range(3)])


def _processes(count: int, name: str, arch: str, seconds: float, batch: int) -> float:
    """Images per second of `train.pretrain` in `count` processes that torchrun starts, two threads together."""
    command = "-m", "sslcourse.bench", name, arch, str(seconds), str(batch)
    limit = launch.TIMEOUT + 10 * seconds
    done = launch.torchrun(*command, processes=count, threads=2 // count, timeout=limit)
    return float(done.stdout.split()[-1])


def one_process(name: str, arch: str, seconds: float, batch: int) -> None:
    """What each of these processes does: train, and print the images per second of all together (rank 0)."""
    where, images = torch.device("cpu"), world.draw("unlabeled", 2048).images
    task = pretext.build(name, backbones.build(arch))
    _pretrain(task, images, where, 2, batch)
    begin = time.perf_counter()
    _pretrain(task, images, where, 3, batch)
    steps = torch.tensor(max(3, round(seconds / (time.perf_counter() - begin) * 3)))
    steps = int(distributed.mean(steps.float()))  # all must agree
    distributed.wait()
    begin = time.perf_counter()
    _pretrain(task, images, where, steps, batch)
    distributed.wait()
    if distributed.rank() == 0:
        print(batch * steps / (time.perf_counter() - begin))


def beside_others(count: int, seconds: float) -> dict[str, float]:
    """Images per second of a training that looks first whether other programs want its cores (`busy.make_room`), over
    those of one that doesn't, beside `count` programs that never stop computing. Rotation, two threads, 5 rounds."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        return _ratio([(_looking(True, seconds), _looking(False, seconds)) for _ in range(5)])
    finally:
        for other in others:
            other.kill()
            other.wait()


def _looking(looks: bool, seconds: float) -> float:
    """Images per second of a process of its own, which looks at the load before it imports torch, or doesn't."""
    look = "from sslcourse.busy import make_room; make_room(); " if looks else ""
    code = f"{look}from sslcourse.bench import one_process; one_process('rotation', 'resnet-tiny', {seconds}, {BATCH})"
    free = {name: value for name, value in os.environ.items() if name not in busy.CHOSEN}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=free, check=True)
    return float(done.stdout.split()[-1])


def _pretrain(
    task: PretextTask,
    images: ImageSet | Tensor | ImageFiles,
    where: torch.device,
    steps: int,
    batch: int,
    **options: Any,
) -> None:
    config = train.TrainConfig(steps=steps, batch_size=batch, log_every=10**6, **options)
    train.pretrain(task, images, config, device=where, progress=False)


def _rate(side: Callable[[int], Any], where: torch.device, seconds: float, batch: int) -> float:
    """Images per second of a side that is warm, over at least `seconds`; it starts once, and so does its clock."""
    side(2)
    devices.synchronize(where)
    begin = time.perf_counter()
    side(3)
    devices.synchronize(where)
    steps = max(10, round(seconds / (time.perf_counter() - begin) * 3))
    begin = time.perf_counter()
    side(steps)
    devices.synchronize(where)
    return batch * steps / (time.perf_counter() - begin)


def _ratio(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """The median ratio of (ours, other), in images per second."""
    return {
        "ratio": statistics.median(ours / other for ours, other in pairs),
        "ours, images/s": statistics.median(ours for ours, _ in pairs),
        "bare, images/s": statistics.median(other for _, other in pairs),
    }


def against_lightly(images: Tensor, where: torch.device, seconds: float) -> dict[str, Any]:
    """Our two views, and the loop on them, against lightly's SimCLRTransform in a DataLoader with two workers."""
    try:
        from lightly.transforms import SimCLRTransform
    except ImportError:
        return {"not measured": "lightly is not installed; `make bench` installs it, or pip install 'sslcourse[bench]'"}
    from torchvision.transforms.functional import to_pil_image

    pictures = [to_pil_image(image) for image in images]
    transform = SimCLRTransform(input_size=images.shape[-1], gaussian_blur=0.0, normalize=None)
    dataset = _Transformed(pictures, transform)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    stream = _endless(loader)
    task = (
        SimCLR(backbones.build(), crop=0.08, jitter=1.0).to(where, memory_format=devices.memory_format(where)).train()
    )
    optimizer = train.make_optimizer(task, train.TrainConfig(steps=1))
    generator = devices.generator(0, where)
    resident = images.to(where)

    def ours(steps: int) -> None:
        for _ in range(steps):
            task.views(resident[torch.randint(len(resident), (BATCH,))], generator)

    def other(steps: int) -> None:
        for _ in range(steps):
            next(stream)

    def their_loop(steps: int) -> None:
        for _ in range(steps):
            first, second = next(stream)
            with devices.autocast(where):
                loss, _ = task(first.to(where), second.to(where))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def our_loop(steps: int) -> None:
        config = train.TrainConfig(steps=steps, batch_size=BATCH, log_every=10**6)
        train.pretrain(task, images, config, device=where, progress=False)

    other(2)
    alone = _one_after_the_other(ours, other, where, seconds)
    loops = _one_after_the_other(our_loop, their_loop, where, seconds)
    return {"two views alone": alone, "training loop": loops}


class _Transformed(torch.utils.data.Dataset):
    def __init__(self, pictures: list, transform: Callable):
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> list[Tensor]:
        return self.transform(self.pictures[i])


def _endless(loader: torch.utils.data.DataLoader):
    while True:
        yield from loader


def _one_after_the_other(ours: Callable, other: Callable, where: torch.device, seconds: float) -> dict[str, float]:
    """For a side with worker processes, which work ahead while the other side runs: each side runs alone, long enough
    for what was ready to be used up (two workers hold four batches)."""
    rates = []
    for side in (other, ours):
        side(6)
        devices.synchronize(where)
        begin, steps = time.perf_counter(), 0
        while time.perf_counter() - begin < 2 * seconds or steps < 10:
            side(4)
            devices.synchronize(where)
            steps += 4
        rates.append(BATCH * steps / (time.perf_counter() - begin))
    return {"ratio": rates[1] / rates[0], "ours, images/s": rates[1], "theirs, images/s": rates[0]}


def _side_by_side(
    ours: Callable[[int], Any], other: Callable[[int], Any], where: torch.device, seconds: float, images: int,
    rounds: int = ROUNDS,
) -> dict[str, float]:  # fmt: skip
    """Ratio of speeds, ours over other, the median over `rounds`. Each side takes a number of steps, and may give the
    seconds that they took; otherwise those of the whole call count."""

    def clock(side: Callable[[int], Any], steps: int) -> float:
        devices.synchronize(where)
        begin = time.perf_counter()
        took = side(steps)
        devices.synchronize(where)
        return (took or time.perf_counter() - begin) / steps

    ours(3), other(3)
    steps = max(5, round(seconds / rounds / clock(other, 3)))
    pairs = [(clock(ours, steps), clock(other, steps)) for _ in range(rounds)]
    return {
        "ratio": statistics.median(t / o for o, t in pairs),
        "ours, images/s": images / statistics.median(o for o, _ in pairs),
        "bare, images/s": images / statistics.median(t for _, t in pairs),
    }


def world_times() -> dict[str, float]:
    """Seconds to draw 14,000 images of 32x32 from nothing, and to read them from the cache."""
    counts = {"unlabeled": 10_000, "train": 2_000, "val": 1_000, "test": 1_000}
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("SSLCOURSE_CACHE")
        os.environ["SSLCOURSE_CACHE"] = folder
        try:
            times = []
            for _ in range(2):
                begin = time.perf_counter()
                for name, count in counts.items():
                    world.split(name, count)
                times.append(time.perf_counter() - begin)
        finally:
            if before is None:
                del os.environ["SSLCOURSE_CACHE"]
            else:
                os.environ["SSLCOURSE_CACHE"] = before
    return {"drawn, s": times[0], "from the cache, s": times[1]}


def import_times() -> dict[str, float]:
    """Seconds that importing the package adds to `import torch, torchvision`, each in a fresh process, median of five."""

    def cost(statement: str) -> float:
        code = f"import time, torch, torchvision; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        runs = [
            float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
            for _ in range(5)
        ]
        return statistics.median(runs)

    return {
        "import sslcourse, s": cost("import sslcourse"),
        "and all that training needs, s": cost("from sslcourse import pretrain, load"),
        "and all that measuring needs, s": cost("import sslcourse.evaluate"),
    }


def text(results: dict[str, Any]) -> str:
    """The measurements as lines to read, with what the design asks for."""
    lines = [results["machine"], "", f"pretraining loop / bare step, batch {results['batch']} (at least 0.95):"]
    for name, row in results["loop / bare step"].items():
        lines.append(
            f"  {name:<22} {row['ratio']:.2f}   ({row['ours, images/s']:.0f} of {row['bare, images/s']:.0f} images/s)"
        )
    for title, asked in (("streamed / bare step", "ResNet-18 at 64x64, JPEG files (at least 0.9)"),
                         ("two processes / one", "gloo, two cores (at least 0.85)"),
                         ("looks for others / doesn't", "rotation (at least 0.98 idle, 2 beside others)")):  # fmt: skip
        lines.append(f"{title}, {asked}:")
        for name, row in results[title].items():
            lines.append(
                f"  {name:<22} {row['ratio']:.2f}   ({row['ours, images/s']:.0f} of {row['bare, images/s']:.0f} images/s)"
            )
    lines.append("against lightly's SimCLRTransform in a DataLoader with two workers (alone 15, in the loop 3):")
    for name, row in results["against lightly"].items():
        if name == "not measured":
            lines.append(f"  not measured: {row}")
        else:
            lines.append(
                f"  {name:<22} {row['ratio']:.1f}x  ({row['ours, images/s']:.0f} to {row['theirs, images/s']:.0f} images/s)"
            )
    for title, asked in (("pocket world, 14,000 images", "12 and 0.5"), ("import", "0.5")):
        lines.append(f"{title} (under {asked} s):")
        lines += [f"  {name:<34} {value:.2f}" for name, value in results[title].items()]
    return "\n".join(lines)


if __name__ == "__main__":  # under torchrun, from `two_processes`
    one_process(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
