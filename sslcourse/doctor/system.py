"""What the operating system says of itself, mostly as files under /proc, /sys and /dev: cores, memory, containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
NVIDIA, DISPLAY = "0x10de", "0x03"  # on the PCI bus: the maker, and the class of whatever computes pictures


def read(path: str) -> str | None:
    """The content of a file of the system, or None where there is none to read."""
    try:
        return (SYSTEM / path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def exists(path: str) -> bool:
    return (SYSTEM / path).exists()


def number(text: str | None) -> int | None:
    """ "1024" as 1024; "max", and whatever else is no number, as None."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nvidia_on_the_bus() -> bool:
    """Whether Linux sees an NVIDIA GPU, with a driver or without."""
    folders = (SYSTEM / "sys/bus/pci/devices").glob("*")
    return any(
        read(str(f / "vendor")) == NVIDIA and (read(str(f / "class")) or "").startswith(DISPLAY) for f in folders
    )


# Memory.


def physical_memory() -> int | None:
    """Bytes of the machine, where the system says."""
    found = meminfo("MemTotal")
    if found is not None:
        return found
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None  # Windows


def total_memory() -> int | None:
    """Bytes that this process may use: the machine's, or fewer in a container."""
    return min((size for size in (physical_memory(), memory_limit()) if size is not None), default=None)


def available_memory() -> int | None:
    """Bytes that can still be taken, without what can be given back at once (files kept in memory). Linux only."""
    free, limit, used = meminfo("MemAvailable"), memory_limit(), memory_used()
    if limit is not None and used is not None:
        free = min(max(0, limit - used), limit if free is None else free)
    return free


def meminfo(name: str) -> int | None:
    for line in (read("proc/meminfo") or "").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


# Limits of a container, or of any other control group: version 2, and version 1 (one hierarchy per controller).


def control_groups(controller: str) -> Iterator[str]:
    """The folders that may limit this process, its own first: of version 2, then of version 1."""
    for line in (read("proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = f"sys/fs/cgroup/{controller}"
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            yield "/".join([top, *parts[:depth]])
    yield from ("sys/fs/cgroup", f"sys/fs/cgroup/{controller}")  # in a container, its own group is mounted as the top


def memory_limit() -> int | None:
    """Bytes that a control group allows, the smallest of them; None without a limit."""
    limits = [
        number(read(f"{group}/{name}"))
        for group in control_groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    physical = physical_memory()
    return min((n for n in limits if n is not None and (physical is None or n < physical)), default=None)


def memory_used() -> int | None:
    """Bytes that count against the limit and can't be given back at once, of the group with the smallest limit."""
    for group in control_groups("memory"):
        limit = number(read(f"{group}/memory.max")) or number(read(f"{group}/memory.limit_in_bytes"))
        used = number(read(f"{group}/memory.current")) or number(read(f"{group}/memory.usage_in_bytes"))
        if limit is not None and limit == memory_limit() and used is not None:
            stat = dict(line.split()[:2] for line in (read(f"{group}/memory.stat") or "").splitlines() if " " in line)
            files = number(stat.get("total_inactive_file", stat.get("inactive_file"))) or 0
            return max(0, used - files)
    return None


def core_limit() -> float | None:
    """Cores' worth of time that a control group allows, such as 1.5; None without a limit."""
    limits = []
    for group in control_groups("cpu"):
        quota, period = [*(read(f"{group}/cpu.max") or "max").split(), "100000"][:2]
        limits.append((number(quota), number(period)))
        limits.append((number(read(f"{group}/cpu.cfs_quota_us")), number(read(f"{group}/cpu.cfs_period_us"))))
    return min((q / p for q, p in limits if q is not None and q > 0 and p), default=None)


def throttled() -> int:
    """How often, so far, a control group made this process wait since its share of time was used up."""
    counts = [
        number(line.split()[1])
        for group in control_groups("cpu")
        for line in (read(f"{group}/cpu.stat") or "").splitlines()
        if line.startswith("nr_throttled ")
    ]
    return max((n for n in counts if n is not None), default=0)
