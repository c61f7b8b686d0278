"""The machine under it all: cores and threads, memory and its limits, files and the disk."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from typing import Any

from sslcourse import busy
from sslcourse.doctor import system
from sslcourse.doctor.asking import ask
from sslcourse.doctor.finding import Finding, counted, gib
from sslcourse.doctor.installs import again, setting
from sslcourse.errors import CourseError

MEMORY, DISK = 4 * 2**30, 2 * 2**30  # bytes that the lessons are comfortable with
AVAILABLE = 2**30  # bytes that one lesson is comfortable with
SHARED = 256 * 2**20  # bytes of /dev/shm; Docker gives 64 MiB unless it is asked for more
FILES = {"Darwin": 256}  # open files that the system allows by itself
MANY = 4  # times as many cores as threads, or free memory elsewhere: worth a word
PSUTIL = "import psutil; m = psutil.virtual_memory(); tell([m.total, m.available])"


def check_machine() -> Finding:
    memory = system.total_memory()
    found = f"{platform.system()} {platform.machine()}, {counted(system.cores(), 'core')}"
    if memory is None:
        return Finding("machine", "ok", found)
    found += f", {memory / 2**30:.1f} GiB of memory"
    if memory >= MEMORY:
        return Finding("machine", "ok", found)
    advice = f"The lessons are comfortable with {MEMORY // 2**30} GiB: close other programs, and one notebook before the next."
    return Finding("machine", "warning", found, advice)


def check_memory() -> Finding:
    """How much of the memory is left, and whether a container allows less than the machine has."""
    total, available, limit = system.total_memory(), system.available_memory(), system.memory_limit()
    if available is None:
        total, available = ask(PSUTIL).value or (total, None)  # macOS, Windows
    if total is None or available is None:
        return Finding("memory", "ok", "how much is left is not known on this system")
    found = f"{gib(available)} of {gib(total)} GiB available"
    if limit is not None:
        found += f" (a limit of the container or job; the machine has {gib(system.physical_memory() or total)} GiB)"
    figures = {"available": available, "total": total, "limit": limit}
    if available >= AVAILABLE:
        return Finding("memory", "ok", found, figures=figures)
    advice = (
        f"A lesson is comfortable with {gib(AVAILABLE)} GiB, and may be ended by the system with less. Close other programs\n"
        "and notebooks (in JupyterLab: Kernel, Shut Down All Kernels)."
    )
    if limit is not None:
        advice += " Or give the container more:\n    docker run --memory=8g …      (Kubernetes: resources.limits.memory; Slurm: --mem=8G)"
    return Finding("memory", "warning", found, advice, figures)


def check_threads(facts: dict[str, Any] | None) -> Finding:
    """Threads that torch computes with against the cores that there are. `facts` is what torch said (`gpu.ask_torch`)."""
    if not facts:
        return Finding("threads", "ok", "not known until torch works")
    cores, limit, threads = system.cores(), system.core_limit(), facts["threads"]
    usable = max(1, min(cores, int(limit + 0.5) if limit else cores))
    chosen = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    found = f"torch computes with {threads} on {counted(cores, 'core')}"
    if limit and limit < cores:
        found += f", of which a container allows the time of {limit:g}"
    found += f" ({', '.join(chosen)})" * bool(chosen)
    if threads > usable:
        why = "More threads than cores get in each other's way."
        return Finding(
            "threads",
            "warning",
            found,
            f"{why} Before you start JupyterLab:\n{setting('OMP_NUM_THREADS', str(usable))}",
        )
    if threads * MANY <= usable:
        why = "Most cores stay idle. Before you start JupyterLab:"
        return Finding("threads", "warning", found, f"{why}\n{setting('OMP_NUM_THREADS', str(usable))}")
    return Finding("threads", "ok", found)


def check_busy() -> Finding:
    """Whether other programs want the cores that torch would compute on."""
    taken, cores = busy.taken_by_others(), busy.cores()
    if taken is None:
        return Finding("cores", "ok", "how busy they are is not known on this system")
    found = f"other programs take {taken:.1f} of {counted(cores, 'core')}"
    if not busy.is_much(taken):
        return Finding("cores", "ok", found, figures={"taken": taken})
    chosen = [f"{name}={os.environ[name]}" for name in busy.CHOSEN if name in os.environ]
    advice = "Training shares them, and is slower for it: see which programs they are with `top`, and close them.\n"
    if chosen:
        advice += f"How threads wait has been decided here: {', '.join(chosen)}."
    else:
        advice += (
            "`sslcourse lab` and the commands that train make room by themselves. Before you start JupyterLab in another way:\n"
            + setting(busy.POLICY, "passive")
        )
    return Finding("cores", "warning", found, advice, {"taken": taken})


def check_shared_memory() -> Finding | None:
    """Where worker processes of a DataLoader leave their tensors; None on systems without it."""
    folder = system.SYSTEM / "dev/shm"
    if platform.system() != "Linux" or not folder.exists():
        return None
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB of shared memory free"
    if usage.free >= SHARED:
        return Finding("/dev/shm", "ok", found)
    advice = (
        "The course's own loaders don't need it, but workers of another DataLoader that pass tensors stop with a bus error.\n"
        "There, use num_workers=0, or make room: "
    )
    if usage.total < SHARED:
        advice += (
            "start the container with more,\n"
            "    docker run --shm-size=2g …\n"
            "in Kubernetes mount an emptyDir with `medium: Memory` at /dev/shm."
        )
    else:
        advice += "see which files of ended programs are left, and remove them:\n    ls -l /dev/shm"
    return Finding("/dev/shm", "warning", found, advice)


def check_open_files() -> Finding | None:
    """How many files a process may have open; None on Windows, which has no such limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit for a process")
    found, enough = f"up to {soft} for a process", FILES.get(platform.system(), 1024)
    if soft >= enough:
        return Finding("open files", "ok", found)
    advice = "Loaders with many workers may stop with `Too many open files`. In the terminal, before you start JupyterLab:\n    ulimit -n 4096"
    if hard != resource.RLIM_INFINITY and hard < 4096:
        advice += (
            f"\nThe system allows you {hard} at most: ask its administrator (docker run --ulimit nofile=4096:4096 …)."
        )
    return Finding("open files", "warning", found, advice)


def check_cache() -> Finding:
    """Where drawn and decoded images are kept: writable, with room."""
    try:
        from sslcourse.paths import cache_folder  # imports a package that may be missing here
    except ImportError:
        return Finding("cache", "warning", "its place is unknown without platformdirs", again())
    elsewhere = "Images will be drawn again in each session; for a faster start set SSLCOURSE_CACHE to a folder"
    try:
        folder = cache_folder().absolute()
    except CourseError as error:
        return Finding("cache", "warning", str(error), f"{elsewhere} of your own.")
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding("cache", "warning", f"{folder} can't be written ({error.strerror})", f"{elsewhere} of your own.")
    found = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < DISK:
        return Finding("cache", "warning", found, f"{elsewhere} on a disk with {DISK // 2**30} GiB free.")
    return Finding("cache", "ok", found)
