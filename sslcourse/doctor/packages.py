"""Python and the packages that the course stands on, torch and torchvision above all."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from sslcourse.doctor.asking import ask
from sslcourse.doctor.finding import Finding, counted
from sslcourse.doctor.installs import again, command, install_torch, installed, locked, read_requirement, requirements

PYTHONS = ((3, 11), (3, 13))  # oldest and newest that the course supports
NMS = "operator torchvision::nms does not exist"


def check_python() -> Finding:
    version, where = sys.version_info[:2], f"{platform.python_version()}, {sys.executable}"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Finding("Python", "ok", where)
    oldest, newest = (f"{major}.{minor}" for major, minor in PYTHONS)
    advice = f"The course needs Python {oldest} to {newest}: install one and make the environment again with it."
    return Finding("Python", "problem", where, advice)


def check_packages() -> Finding:
    """What the course depends on, in a version that it can use. (Whether torch works is asked separately.)"""
    needed = requirements()
    if needed is None:
        return Finding("packages", "warning", "the list of what the course needs was not found", again())
    missing = [str(n) for n in needed if installed(n.name) is None]
    unfit = [
        f"{n} (found {installed(n.name)})" for n in needed if installed(n.name) and not n.allows(installed(n.name))
    ]
    if missing or unfit:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"too old or new: {', '.join(unfit)}"] * bool(
            unfit
        )
        return Finding("packages", "problem", "; ".join(parts), again())
    return Finding("packages", "ok", f"all {len(needed)} that the course needs")


def check_torch() -> Finding:
    answer = ask("import torch; v = torch.version; tell([torch.__version__, v.cuda, getattr(v, 'hip', None)])")
    if answer.value:
        version, cuda, rocm = answer.value
        built = f"for CUDA {cuda}" if cuda else f"for AMD's ROCm {rocm}" if rocm else "without CUDA"
        return Finding("torch", "ok", f"{version}, built {built}")
    if installed("torch") is None:
        return Finding("torch", "problem", "not installed", install_torch())
    return Finding("torch", "problem", f"{installed('torch')} can't be imported: {answer.error}", install_torch())


def check_torchvision() -> Finding:
    """Whether torchvision imports, and belongs to the torch that is beside it."""
    version, torch = installed("torchvision"), installed("torch")
    if version is None:
        return Finding("torchvision", "problem", "not installed", install_torch())
    needs = next(
        (n for n in (read_requirement(r) for r in metadata.requires("torchvision") or []) if n.name == "torch"), None
    )
    answer = ask("import torchvision; tell(torchvision.__version__)")
    if NMS in answer.everything:
        found = f"torchvision {version} does not belong to torch {torch}: its import fails with {NMS!r}"
        why = "One of the two is a build of another kind or version, such as a CPU-only torch beside the default torchvision."
        if torch and needs and not needs.allows(torch):
            why = f"This torchvision needs {needs}, and torch {torch} is installed."
        return Finding("torchvision", "problem", found, f"{why} Take both from one place.\n{install_torch()}")
    if not answer.value:
        return Finding("torchvision", "problem", f"{version} can't be imported: {answer.error}", install_torch())
    if torch and needs and not needs.allows(torch):
        found = f"{version} needs {needs}, and torch {torch} is installed"
        return Finding("torchvision", "problem", found, install_torch())
    return Finding("torchvision", "ok", f"{answer.value}, belongs to torch {torch}")


def check_lock() -> Finding:
    """In a clone: installed versions against requirements.lock. Other versions may work; these are the tested ones."""
    pins = locked()
    if not pins:
        return Finding("lock", "ok", "not a clone of the course, so there is none to compare with")
    differ = [
        f"{name} {installed(name)} (lock: {' or '.join(sorted(versions))})"
        for name, versions in sorted(pins.items())
        if installed(name) and installed(name).split("+")[0] not in versions
    ]
    if not differ:
        return Finding("lock", "ok", "installed versions are those of requirements.lock")
    shown = ", ".join(differ[:4]) + (f" and {len(differ) - 4} more" if len(differ) > 4 else "")
    pip = command("pip install --require-hashes -r requirements.lock")
    advice = f"The course may well run. It was tested with those of the lock; in the folder of the course:\n{pip}"
    return Finding("lock", "warning", f"{counted(len(differ), 'package')} of another version: {shown}", advice)
