"""What the speed check times, in a process of its own: the course's training loop, a matrix product, reading JPEGs.

The only file of the doctor that needs torch; `speed.py` asks it, and judges.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslcourse import device as devices
from sslcourse import store, train
from sslcourse.data.decode import read_image

PHOTO = (500, 375)  # width and height in pixels, of about the size of an ImageNet photograph
READ_TO = 64  # pixels, the size that photographs are brought to by default


def measure(seconds: float, kinds: Sequence[str] = ("cpu",)) -> dict[str, Any]:
    """Time everything within about `seconds`; of the share of each kind of device, most goes to training.

    kinds    "cpu", and "cuda" or "mps" where they compute
    Returns `steps` (optimizer steps/s of rotation by device), `gflops` (float32, by device), `share` (of the time of its
    threads that the CPU gave to its product, in [0, 1]), `photos` (JPEGs/s on one core), `threads`, `vectors` (the instructions that torch uses), `batch`, `whole` (steps of the course's recipe),
    `multiprocessors` of a CUDA GPU, and `seconds` that all of it took.
    """
    begin, share = time.perf_counter(), seconds / len(kinds)
    steps = {kind: training_rate(torch.device(kind), 0.6 * share) for kind in kinds}
    wall, own = time.perf_counter(), time.process_time()
    gflops = {"cpu": product_rate(torch.device("cpu"), 0.25 * share)}
    got = (time.process_time() - own) / (time.perf_counter() - wall) / torch.get_num_threads()
    gflops |= {kind: product_rate(torch.device(kind), 0.25 * share) for kind in kinds if kind != "cpu"}
    return {
        "steps": steps,
        "gflops": gflops,
        "share": got,
        "photos": photo_rate(0.15 * seconds),
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "batch": store.recipe("rotation").config.batch_size,
        "whole": store.recipe("rotation").config.steps,
        "multiprocessors": torch.cuda.get_device_properties(0).multi_processor_count if "cuda" in kinds else None,
        "seconds": time.perf_counter() - begin,
    }


def training_rate(device: torch.device, seconds: float) -> float:
    """Steps per second of `train.pretrain` with the course's recipe for rotation, on random images: speed is the same."""
    generator = devices.generator(0)
    images = torch.randint(0, 256, (1024, 3, 32, 32), dtype=torch.uint8, generator=generator)  # (N, 3, H, W)
    recipe = store.recipe("rotation")
    task = recipe.build(images.shape[-1])

    def work(steps: int) -> None:
        few = dataclasses.replace(recipe.config, steps=steps, log_every=10**6)
        train.pretrain(task, images, few, device=device, progress=False)

    return rate(work, device, seconds)


def product_rate(device: torch.device, seconds: float) -> float:
    """10^9 floating-point operations per second of a float32 matrix product, each of its n^3 steps counted as two."""
    n = 1024 if device.type == "cpu" else 4096
    generator = devices.generator(0)
    left, right = (torch.rand(n, n, generator=generator).to(device) for _ in range(2))

    def work(times: int) -> None:
        for _ in range(times):
            left @ right

    return rate(work, device, seconds) * 2 * n**3 / 1e9


def photo_rate(seconds: float) -> float:
    """JPEG photographs per second that one core reads, decodes and brings to READ_TO pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (PHOTO[1] // 10, PHOTO[0] // 10, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(noise).resize(PHOTO, Image.Resampling.BICUBIC).save(path, quality=90)

        def work(times: int) -> None:
            for _ in range(times):
                read_image(path, READ_TO)

        return rate(work, torch.device("cpu"), seconds)


def rate(work: Callable[[int], None], device: torch.device, seconds: float, rounds: int = 5) -> float:
    """How often per second `work` does its work: the median over rounds that share what warming up left of `seconds`.

    However slow it is, one round is timed.
    """

    def clock(times: int) -> float:
        devices.synchronize(device)
        begin = time.perf_counter()
        work(times)
        devices.synchronize(device)
        return (time.perf_counter() - begin) / times

    end = time.perf_counter() + seconds
    work(1)  # memory is taken, and algorithms are chosen
    times = max(1, int((end - time.perf_counter()) / rounds / clock(1)))
    each = [clock(times)]
    while len(each) < rounds and time.perf_counter() + times * each[-1] < end:
        each.append(clock(times))
    return 1 / statistics.median(each)
