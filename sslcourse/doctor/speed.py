"""Ten seconds of measuring, held against what a machine like this should do. Slowness is a warning at most."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from sslcourse.doctor import system
from sslcourse.doctor.asking import ask
from sslcourse.doctor.finding import Finding, counted
from sslcourse.doctor.installs import setting
from sslcourse.doctor.nvidia import Driver

SECONDS = 10.0
LESS = "The CPU does less than a third of what is expected."
SLOW = 1 / 3  # of what is expected; wide, since it was measured on one processor
SHARE = 0.8  # of its threads' time that a program alone gets
# Measured with `clock.measure(10)`, alone, on the machine of benchmarks/README.md: torch 2.14.1, one and two threads.
REFERENCE = "the reference, two cores of an AMD EPYC (Zen 4),"
STEPS = {1: 9.5, 2: 16.0}  # rotation, optimizer steps/s by threads; of more threads, no more is expected
GFLOPS = 90.0  # a float32 matrix product, 10^9 operations/s for each thread
THREADS = 16  # to so many, a product of 1024x1024 can be expected to grow with its threads
PHOTOS = 1200.0  # JPEGs/s on one core
# float32 units of one multiprocessor by compute capability (CUDA C++ Programming Guide, arithmetic throughput).
LANES = {(5, 0): 128, (5, 2): 128, (6, 0): 64, (6, 1): 128, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
LATER = 128  # from 8.6 on


def check_speed(
    facts: dict[str, Any] | None, gpus: dict[str, Any] | None, driver: Driver | None, seconds: float = SECONDS
) -> list[Finding]:
    """Training, arithmetic and reading, as three findings. `facts` and `gpus` are what torch said (`gpu.py`)."""
    if not facts:
        return [Finding("speed", "warning", "not measured, since torch doesn't work", "Mend torch first.")]
    computing = gpus and not any(g["error"] for g in gpus["gpus"])
    kinds = ["cpu", *(k for k in facts["usable"] if k != "cpu" and computing)]
    waits = system.throttled()
    answer = ask(
        f"from sslcourse.doctor import clock; tell(clock.measure({seconds}, {kinds}))", seconds=12 * seconds + 60
    )
    if not answer.value:
        advice = "The lessons may be slow here. Close other programs, and run the doctor again."
        return [Finding("speed", "warning", f"not measured: {answer.error}", advice)]
    why = reasons(answer.value, system.throttled() - waits)
    return [
        judge_training(answer.value, kinds, why),
        judge_arithmetic(answer.value, kinds, why, peak(answer.value, gpus, driver), busy(driver)),
        judge_reading(answer.value, why),
    ]


def judge_training(measured: dict[str, Any], kinds: Sequence[str], why: str) -> Finding:
    """Steps of the course's own pretraining, on the CPU against the reference, on a GPU against this CPU."""
    steps, few, best = measured["steps"], min(2, measured["threads"]), kinds[-1]
    expected = STEPS[few]
    found = f"pretraining on rotation, {measured['whole']} steps of {measured['batch']} pictures, would take about "
    found += f"{duration(measured['whole'] / steps[best])} on {best}: "
    found += ", ".join(f"{steps[kind]:.1f} steps/s on {kind}" for kind in reversed(kinds))
    found += f" with {counted(measured['threads'], 'thread')} ({REFERENCE} with {counted(few, 'thread')}: {expected:g};"
    found += f" measured for {measured['seconds']:.0f} s in all)"
    advice = []
    if steps["cpu"] < SLOW * expected:
        advice.append(f"{LESS} {why}")
    if steps[best] < steps["cpu"]:
        advice.append("Networks as small as the lessons' train faster on this CPU than on its GPU: use `--device cpu`.")
        if best == "cuda":
            advice.append(f"For the lessons, before you start JupyterLab:\n{setting('CUDA_VISIBLE_DEVICES', '-1')}")
    figures = {"measured": measured, "expected": {"cpu": expected}}
    return Finding("speed", "warning" if advice else "ok", found, "\n".join(advice), figures)


def judge_arithmetic(
    measured: dict[str, Any], kinds: Sequence[str], why: str, gpu_peak: float | None, others: int
) -> Finding:
    """Matrix products: the CPU against the reference, a CUDA GPU against its peak on paper."""
    threads, gflops = measured["threads"], measured["gflops"]
    expected = {"cpu": GFLOPS * min(threads, THREADS)} | ({"cuda": gpu_peak} if gpu_peak else {})
    parts, advice = [], []
    for kind in kinds:
        about = f"{counted(threads, 'thread')}, {measured['vectors']}" if kind == "cpu" else "float32"
        source = "what the reference does" if kind == "cpu" else "its peak on paper"
        against = f" ({source}: {expected[kind]:.0f})" if kind in expected else " (nothing to compare with)"
        parts.append(f"{kind}, {about}: {gflops[kind]:.0f} GFLOP/s{against}")
    if gflops["cpu"] < SLOW * expected["cpu"]:
        advice.append(f"{LESS} {why}")
    if gpu_peak and gflops["cuda"] < SLOW * gpu_peak:
        before = f", and was {others}% busy before the check" if others > 30 else ""
        advice.append(
            f"The GPU does less than a third of its peak{before}. See who else uses it, and whether heat or power slow it down:\n"
            "    nvidia-smi -q -d PERFORMANCE,POWER,UTILIZATION"
        )
    return Finding(
        "arithmetic", "warning" if advice else "ok", "; ".join(parts), "\n".join(advice), {"expected": expected}
    )


def judge_reading(measured: dict[str, Any], why: str) -> Finding:
    photos = measured["photos"]
    found = f"{photos:.0f} JPEG photographs/s on one core (what the reference does: {PHOTOS:.0f})"
    slow = photos < SLOW * PHOTOS
    advice = f"Reading your own pictures will be slow. {why}" if slow else ""
    return Finding("reading", "warning" if slow else "ok", found, advice, {"expected": PHOTOS})


# Why, and what to do.


def reasons(measured: dict[str, Any], waits: int) -> str:
    """What was seen that slows a machine down; otherwise what often does."""
    seen = []
    if measured["share"] < SHARE:
        got = f"Its threads got {measured['share']:.0%} of the time of their cores, other programs had the rest:"
        seen.append(f"{got} see which with `top`, and close them.")
    if waits > 0:
        seen.append(
            f"A container's limit made it wait {counted(waits, 'time')} meanwhile: give it more cores (docker run --cpus=2 …), or use fewer threads:\n"
            + setting("OMP_NUM_THREADS", str(max(1, round(system.core_limit() or 1))))
        )
    if measured["threads"] > system.cores():
        seen.append(
            f"torch computes with more threads than there are cores:\n{setting('OMP_NUM_THREADS', str(system.cores()))}"
        )
    if measured["vectors"] == "DEFAULT" and platform.machine() in ("x86_64", "AMD64"):
        seen.append("The CPU has no AVX2, or a virtual machine hides it (let it pass the host's CPU through).")
    usual = (
        "What often helps: close other programs, plug a laptop in, switch power saving off, and let a hot machine cool."
    )
    return "\n".join(seen or [usual]) + "\nIf it stays so, the lessons only take longer; `--steps` makes a run shorter."


def peak(measured: dict[str, Any], gpus: dict[str, Any] | None, driver: Driver | None) -> float | None:
    """float32 GFLOP/s of a CUDA GPU on paper: multiprocessors x units x clock, a multiply and an add each."""
    clock = next((c.clock for c in driver.cards if c.clock), None) if driver else None
    if not (measured["multiprocessors"] and clock and gpus and gpus["gpus"][0]["capability"]):
        return None
    lanes = LANES.get(tuple(gpus["gpus"][0]["capability"]), LATER)
    return measured["multiprocessors"] * lanes * 2 * clock / 1000


def busy(driver: Driver | None) -> int:
    """Percent that the first GPU was busy before the check."""
    return next((c.busy for c in driver.cards if c.busy is not None), 0) if driver else 0


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} minutes"
