"""Look at this machine and say what works, what doesn't, and what to do about it: `sslcourse doctor`.

Standard library only, and everything that may be broken is tried in a process of its own: this runs where torch is
missing, does not fit torchvision, or takes the whole interpreter down with it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from json import dumps, loads
from pathlib import Path
from typing import Any

PYTHONS = ((3, 11), (3, 13))  # oldest and newest that the course supports
ROOT = Path(__file__).resolve().parent.parent  # of a clone; elsewhere the folder that the package is installed in
NMS = "operator torchvision::nms does not exist"
MEMORY, DISK = 4 * 2**30, 2 * 2**30  # bytes that the lessons are comfortable with
MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says what to do, unless the status is "ok"."""

    name: str
    status: str  # "ok", "warning": the course runs, with something less; "problem": it doesn't
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Answer:
    """What a Python process of its own said: the value that it printed as JSON, or how it failed."""

    value: Any = None
    error: str = ""  # the last line of the traceback, or how the process ended
    everything: str = ""  # the whole of what it wrote to standard error


def run(json: bool = False) -> int:
    """Print every finding; 0 when nothing stands in the way of the course, otherwise 1."""
    if json:
        found = list(findings())
        print(
            dumps({"ok": healthy(found), "python": platform.python_version(), "findings": [asdict(f) for f in found]})
        )
        return 0 if healthy(found) else 1
    found, advice = [], set()
    for finding in findings():  # each as soon as it is known: importing torch may take a while
        found.append(finding)
        print(text(finding, repeated=finding.advice in advice), flush=True)
        advice.add(finding.advice)
    problems = sum(f.status == "problem" for f in found)
    warnings = sum(f.status == "warning" for f in found)
    print(f"\n{counted(problems, 'problem')}, {counted(warnings, 'warning')}.", end=" ")
    print("The course runs here." if healthy(found) else "Mend the problems, then run the doctor again.")
    return 0 if healthy(found) else 1


def findings() -> Iterator[Finding]:
    """Everything that is looked at, what others depend on first."""
    yield check_python()
    yield check_machine()
    yield check_packages()
    yield check_torch()
    yield check_torchvision()
    yield check_devices()
    yield check_figures()
    yield check_notebooks()
    yield check_classroom()
    yield check_cache()
    yield check_lock()


def healthy(found: list[Finding]) -> bool:
    return all(finding.status != "problem" for finding in found)


def text(finding: Finding, repeated: bool = False) -> str:
    """A finding as lines to read; what to do is not said twice."""
    lines = [f"{MARKS[finding.status]:<8} {finding.name:<12} {finding.found}"]
    advice = "What to do is said above." if repeated and finding.advice else finding.advice
    return "\n".join(lines + [f"{'':<22}{line}" for line in advice.splitlines()])


# The checks. Each returns one finding and raises nothing.


def check_python() -> Finding:
    version, where = sys.version_info[:2], f"{platform.python_version()}, {sys.executable}"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Finding("Python", "ok", where)
    oldest, newest = (f"{major}.{minor}" for major, minor in PYTHONS)
    advice = f"The course needs Python {oldest} to {newest}: install one and make the environment again with it."
    return Finding("Python", "problem", where, advice)


def check_machine() -> Finding:
    memory = total_memory()
    found = f"{platform.system()} {platform.machine()}, {counted(cores(), 'core')}"
    if memory is None:
        return Finding("machine", "ok", found)
    found += f", {memory / 2**30:.1f} GiB of memory"
    if memory >= MEMORY:
        return Finding("machine", "ok", found)
    advice = f"The lessons are comfortable with {MEMORY // 2**30} GiB: close other programs, and one notebook before the next."
    return Finding("machine", "warning", found, advice)


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
    answer = ask("import torch; tell([torch.__version__, torch.version.cuda])")
    if answer.value:
        version, cuda = answer.value
        return Finding("torch", "ok", f"{version}, {'built for CUDA ' + cuda if cuda else 'built without CUDA'}")
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


def check_devices() -> Finding:
    answer = ask(DEVICES)
    if not answer.value:
        return Finding("devices", "problem", f"could not be asked: {answer.error}", "Mend torch first.")
    best, usable, nvidia = answer.value[0], ", ".join(answer.value[1]), shutil.which("nvidia-smi")
    found = f"{best} (usable: {usable})"
    if "cuda" not in answer.value[1] and nvidia and driver_works():
        advice = (
            "This machine has an NVIDIA GPU, and this torch can't use it. The course runs on the CPU; for the GPU:\n"
        )
        return Finding("devices", "warning", found, advice + install_torch(cpu=False))
    return Finding("devices", "ok", found)


def check_figures() -> Finding:
    answer = ask(FIGURES)
    if not answer.value:
        return Finding("figures", "problem", f"matplotlib can't draw: {answer.error}", again())
    version, backend, font = answer.value
    if not font:
        advice = "Figures will miss letters: install matplotlib again, which brings the font DejaVu Sans."
        return Finding("figures", "warning", f"matplotlib {version} without its font", advice)
    return Finding("figures", "ok", f"matplotlib {version}, backend {backend}, font {font}")


def check_notebooks() -> Finding:
    """JupyterLab, widgets, and whether notebooks will run under this Python."""
    versions = {name: installed(name) for name in ("jupyterlab", "ipywidgets", "jupyterlab_widgets", "ipykernel")}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Finding("notebooks", "problem", f"missing: {', '.join(missing)}", again())
    answer = ask(KERNEL)
    if not answer.value:
        return Finding("notebooks", "problem", f"the kernel python3 was not found: {answer.error}", again())
    found = f"JupyterLab {versions['jupyterlab']}, ipywidgets {versions['ipywidgets']}"
    if not same_python(answer.value):
        advice = f"Notebooks would run under another Python. Register this one:\n{command('ipykernel install --sys-prefix --name python3')}"
        return Finding("notebooks", "warning", f"{found}, but the kernel python3 is {answer.value}", advice)
    return Finding("notebooks", "ok", f"{found}, kernel runs under this Python")


def check_classroom() -> Finding:
    version = installed("nbgrader")
    return Finding(
        "classroom", "ok", f"nbgrader {version}" if version else "nbgrader is not installed (only lecturers need it)"
    )


def check_cache() -> Finding:
    """Where drawn and decoded images are kept: writable, with room."""
    try:
        # As sslcourse.data.cache says, which imports packages that may be missing here.
        chosen = os.environ.get("SSLCOURSE_CACHE")
        if not chosen:
            from platformdirs import user_cache_dir

            chosen = user_cache_dir("sslcourse", appauthor=False)
    except ImportError:
        return Finding("cache", "warning", "its place is unknown without platformdirs", again())
    folder = Path(chosen).absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    elsewhere = "Images will be drawn again in each session; for a faster start set SSLCOURSE_CACHE to a folder"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding("cache", "warning", f"{folder} can't be written ({error.strerror})", f"{elsewhere} of your own.")
    found = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < DISK:
        return Finding("cache", "warning", found, f"{elsewhere} on a disk with {DISK // 2**30} GiB free.")
    return Finding("cache", "ok", found)


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


# What to do.


def command(module: str) -> str:
    """A line to paste into a terminal that runs a module under this very Python."""
    python = f'"{sys.executable}"' if os.name == "nt" else shlex.quote(sys.executable)
    return f"    {python} -m {module}"


def again() -> str:
    """How to install what the course needs."""
    if not (ROOT / "pyproject.toml").exists():
        return f"Install what is missing:\n{command('pip install --upgrade sslcourse')}"
    if same_python(str(ROOT / ".venv" / "bin" / "python")):
        return "Make the environment again, in the folder of the course:\n    make distclean setup"
    return f"Install what the course needs, in the folder of the course:\n{command('pip install -e .')}"


def install_torch(cpu: bool | None = None) -> str:
    """The commands that bring a matching pair of torch and torchvision, in the versions of the lock where there is one."""
    pins = locked()
    pair = " ".join(f"{p}=={next(iter(pins[p]))}" if p in pins else p for p in ("torch", "torchvision"))
    remove = command("pip uninstall -y torch torchvision")
    default = f"{remove}\n{command(f'pip install {pair}')}"
    if cpu is False:
        return default
    without_cuda = "\n".join(
        (remove, command("pip install uv"), command(f"uv pip install --python {shlex.quote(sys.executable)} --torch-backend cpu {pair}"))
    )  # fmt: skip
    return f"Default build (on Linux with CUDA libraries, some GB):\n{default}\nOr without CUDA:\n{without_cuda}"


# How to find out.

TELL = "import json, sys\ndef tell(value): print('\\n' + json.dumps(value), flush=True)\n"
DEVICES = """
import torch
from sslcourse import device
usable = [k for k, there in {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.items() if there]
tell([device.report(), [*usable, "cpu"]])
"""
FIGURES = """
import matplotlib, os
from matplotlib import font_manager, pyplot
from pathlib import Path
font = Path(font_manager.findfont("DejaVu Sans")).name
pyplot.figure().canvas.draw()
tell([matplotlib.__version__, matplotlib.get_backend(), font if "DejaVu" in font else None])
"""
KERNEL = """
from jupyter_client.kernelspec import KernelSpecManager
python = KernelSpecManager().get_kernel_spec("python3").argv[0]
tell(sys.executable if python in ("python", "python3") else python)
"""


def ask(code: str, seconds: float = 300) -> Answer:
    """Run code in a Python process of its own; it calls `tell(value)` with something that JSON can write."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", TELL + code], capture_output=True, text=True, errors="replace", timeout=seconds, env=environment
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {seconds:.0f} seconds")
    except OSError as error:
        return Answer(error=f"Python could not be started ({error.strerror})")
    said = [line for line in done.stderr.strip().splitlines() if line.strip()]
    if done.returncode < 0:
        return Answer(error=f"the process was ended by signal {-done.returncode}", everything=done.stderr)
    if done.returncode:
        return Answer(error=said[-1].strip() if said else f"exit code {done.returncode}", everything=done.stderr)
    try:
        return Answer(loads(done.stdout.strip().splitlines()[-1]), everything=done.stderr)
    except (IndexError, ValueError):
        return Answer(error="its answer could not be read", everything=done.stderr)


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, TypeError, KeyError):
        return None  # the latter two: a package whose installation was interrupted


@dataclass(frozen=True)
class Requirement:
    """A package and the versions of it that are allowed, such as torch >=2.8,<3."""

    name: str
    specifier: str

    def __str__(self) -> str:
        return self.name + self.specifier

    def allows(self, version: str) -> bool:
        """True, too, where nothing that compares versions is installed: what can't be told is no fault."""
        for home in ("packaging", "pip._vendor.packaging"):
            try:
                SpecifierSet = import_module(f"{home}.specifiers").SpecifierSet
                break
            except ImportError:
                continue
        else:
            return True
        return SpecifierSet(self.specifier).contains(version, prereleases=True)


def read_requirement(line: str) -> Requirement:
    """ "torch (>=2.14.0) ; extra == 'x'" to Requirement("torch", ">=2.14.0")."""
    name, rest = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?([^;]*)", line).groups()
    return Requirement(re.sub(r"[-_.]+", "-", name).lower(), re.sub(r"[()\s]", "", rest))


def requirements() -> list[Requirement] | None:
    """What the course depends on: from pyproject.toml in a clone, otherwise from the installed package."""
    if (ROOT / "pyproject.toml").exists():
        import tomllib  # from Python 3.11 on

        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [read_requirement(line) for line in project["dependencies"]]
    try:
        return [read_requirement(line) for line in metadata.requires("sslcourse") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return None


def locked() -> dict[str, set[str]]:
    """Package to the versions that requirements.lock pins (more than one where it depends on Python's version)."""
    pins: dict[str, set[str]] = {}
    try:
        lines = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    except OSError:
        return pins
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", lines, re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def same_python(other: str) -> bool:
    """Whether a path is this interpreter, in this environment (an environment's Python is a link to a shared one)."""
    here, there = Path(sys.executable).absolute(), Path(shutil.which(other) or other).absolute()
    return here.parent.resolve() == there.parent.resolve()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int | None:
    """Bytes of memory that this process may use, where the system says."""
    sizes = []
    try:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        pass  # Windows
    try:
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's limit; "max" means none
    except (OSError, ValueError):
        pass
    return min(sizes, default=None)


def driver_works() -> bool:
    """Whether NVIDIA's driver sees a GPU."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m sslcourse.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    sys.exit(run(json=parser.parse_args().json))
