"""Look at this machine and say what works, what doesn't, and what to do about it: `sslcourse doctor`.

Standard library only, and everything that may be broken is tried in a process of its own: this runs where torch is
missing, does not fit torchvision, or takes the whole interpreter down with it.

A file for each subject: `packages`, `gpu` (with `nvidia`), `machine` (with `system`), `speed` (with `clock`), `notebooks`.
Their checks return a Finding, or None where there is nothing to look at, and are kept apart by `look`.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from json import dumps
from typing import Any

from sslcourse.doctor import gpu, machine, notebooks, packages, speed
from sslcourse.doctor.finding import Finding, counted, healthy, text
from sslcourse.doctor.installs import ROOT
from sslcourse.doctor.nvidia import ask_driver
from sslcourse.doctor.packages import PYTHONS

__all__ = ["PYTHONS", "ROOT", "Finding", "findings", "healthy", "run", "text"]


def run(json: bool = False, quick: bool = False) -> int:
    """Print every finding; 0 when nothing stands in the way of the course, otherwise 1. `quick` leaves speed out."""
    if json:
        found = list(findings(quick))
        print(
            dumps({"ok": healthy(found), "python": platform.python_version(), "findings": [asdict(f) for f in found]})
        )
        return 0 if healthy(found) else 1
    if not quick and sys.stderr.isatty():
        print("Among others, ten seconds of measuring speed; --quick leaves them out.", file=sys.stderr)
    found, advice = [], set()
    for finding in findings(quick):  # each as soon as it is known: importing torch may take a while
        found.append(finding)
        print(text(finding, repeated=finding.advice in advice), flush=True)
        advice.add(finding.advice)
    problems = sum(f.status == "problem" for f in found)
    warnings = sum(f.status == "warning" for f in found)
    print(f"\n{counted(problems, 'problem')}, {counted(warnings, 'warning')}.", end=" ")
    print("The course runs here." if healthy(found) else "Mend the problems, then run the doctor again.")
    return 0 if healthy(found) else 1


def findings(quick: bool = True) -> Iterator[Finding]:
    """Everything that is looked at, what others depend on first; the speed check only where it isn't to be `quick`."""
    yield from look("Python", packages.check_python)
    yield from look("machine", machine.check_machine)
    yield from look("memory", machine.check_memory)
    yield from look("/dev/shm", machine.check_shared_memory)
    yield from look("open files", machine.check_open_files)
    yield from look("packages", packages.check_packages)
    yield from look("torch", packages.check_torch)
    yield from look("torchvision", packages.check_torchvision)
    driver, torch = ask_driver(), gpu.ask_torch()
    yield from look("driver", gpu.check_driver, driver, torch.value)
    yield from look("devices", gpu.check_devices, torch, driver)
    gpus = gpu.ask_gpus(torch.value)
    yield from look("GPU", gpu.check_gpus, gpus, torch.value)
    yield from look("GPU memory", gpu.check_gpu_memory, gpus, driver)
    yield from look("cores", machine.check_busy)
    yield from look("threads", machine.check_threads, torch.value)
    yield from look("figures", notebooks.check_figures)
    yield from look("notebooks", notebooks.check_notebooks)
    yield from look("classroom", notebooks.check_classroom)
    yield from look("control", notebooks.check_control)
    yield from look("cache", machine.check_cache)
    yield from look("lock", packages.check_lock)
    if not quick:
        yield from look("speed", speed.check_speed, torch.value, gpus.value if gpus else None, driver)


def look(name: str, check: Callable[..., Finding | list[Finding] | None], *arguments: Any) -> list[Finding]:
    """What a check found. Machines are of more kinds than we know: where a check fails itself, the others still run."""
    try:
        found = check(*arguments)
    except Exception as error:
        advice = "That is a mistake of the doctor, and says nothing about your machine: please report it."
        return [Finding(name, "warning", f"could not be looked at: {type(error).__name__}: {error}", advice)]
    return found if isinstance(found, list) else [found] if found else []
