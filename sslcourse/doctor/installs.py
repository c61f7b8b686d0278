"""What is installed, what the course needs, and the commands that bring the one to the other."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

ROOT = (
    Path(__file__).resolve().parent.parent.parent
)  # of a clone; elsewhere the folder that the package is installed in


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


# What to do.


def command(module: str) -> str:
    """A line to paste into a terminal that runs a module under this very Python."""
    python = f'"{sys.executable}"' if os.name == "nt" else shlex.quote(sys.executable)
    return f"    {python} -m {module}"


def setting(name: str, value: str) -> str:
    """A line to paste into a terminal that sets a variable for what is started there afterwards."""
    return f'    $env:{name} = "{value}"' if os.name == "nt" else f"    export {name}={value}"


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


def torch_for_this_driver() -> str:
    """The commands that choose among torch's builds by what the GPU's driver can do, in the newest version for it."""
    pair = " ".join(shlex.quote(str(n)) for n in requirements() or () if n.name in ("torch", "torchvision"))
    choose = f"uv pip install --python {shlex.quote(sys.executable)} --torch-backend auto {pair or 'torch torchvision'}"
    return "\n".join((command("pip uninstall -y torch torchvision"), command("pip install uv"), command(choose)))
