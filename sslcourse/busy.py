"""Other programs on the same cores: how much of them they take, and how training makes room for them.

Threads that compute together wait for each other many times in a step. By default they spin while they wait, which is
the fastest way on an idle machine. Beside other programs a thread that spins holds the core which the thread that it
waits for would need, and training falls to a fraction of what is left. With OMP_WAIT_POLICY=passive a thread that waits
gives its core away; that costs an idle machine a fifth of its speed. The library of the threads reads the variable once,
when torch is imported, so the load at the start decides. Standard library only.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

POLICY = "OMP_WAIT_POLICY"
CHOSEN = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # whoever sets one of them has decided
STAT = Path("/proc/stat")
MOMENT = 0.2  # seconds of looking: twenty ticks of the system's clock for each core
MUCH = 0.5  # cores' worth of time beyond those that the threads leave free


def make_room() -> None:
    """Let the threads of this process, and of those that it starts, sleep while they wait, where others want their cores.

    Says so in one line on standard error. Does nothing where a person has decided, where a single thread computes,
    and once torch is imported.
    """
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN) or threads() == 1:
        return
    taken = taken_by_others()
    if taken is None or not is_much(taken):
        return
    os.environ[POLICY] = "passive"
    print(
        f"sslcourse: other programs take {taken:.1f} of {cores()} cores, so threads sleep while they wait "
        f"({POLICY}=passive); close them, and start again, to train faster.",
        file=sys.stderr,
    )


def is_much(taken: float) -> bool:
    """Whether so many cores' worth of time, taken by others, keeps a thread of ours from running."""
    return taken > cores() - threads() + MUCH


def taken_by_others(seconds: float = MOMENT) -> float | None:
    """How many cores' worth of time other programs take, of the cores that this process may use, in [0, cores()].

    Looks for `seconds` on Linux; elsewhere it is the system's average of the last minute, this process included. None
    where the system doesn't say (Windows).
    """
    before = _ticks()
    if before is None:
        return min(os.getloadavg()[0], cores()) if hasattr(os, "getloadavg") else None
    own = time.process_time()
    time.sleep(seconds)
    after, own = _ticks() or {}, time.process_time() - own
    shares = [_busy_share(before[core], after[core]) for core in before if core in after]
    return min(max(0.0, sum(shares) - own / seconds), cores())


def cores() -> int:
    """Cores that this process may use."""
    return len(_own_cores() or range(os.cpu_count() or 1))


def threads() -> int:
    """Threads that torch will compute with: what OMP_NUM_THREADS says, or one for each core."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdigit() and int(asked) else cores()


def _own_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _ticks() -> dict[int, tuple[int, int]] | None:
    """For each core that this process may use, the ticks so far in which it had nothing to do, and all; None without /proc.

    A core of a virtual machine that another machine took (`steal`) counts as busy: nobody here could have it.
    """
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found, own = {}, _own_cores()
    for name, *numbers in (line.split() for line in lines if line.startswith("cpu")):
        core = name.removeprefix("cpu")
        if core.isdigit() and (not own or int(core) in own):
            user, nice, system, idle, waiting, irq, softirq, steal, *_ = map(int, [*numbers, *"0000"])
            found[int(core)] = (idle + waiting, user + nice + system + idle + waiting + irq + softirq + steal)
    return found or None


def _busy_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    idle, every = after[0] - before[0], after[1] - before[1]
    return 1 - idle / every if every > 0 else 0.0
