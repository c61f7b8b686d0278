"""A program in several processes of this machine, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from sslcourse.distributed import OWN_STORE
from sslcourse.errors import CourseError


def torchrun(
    *command: str, processes: int = 2, threads: int = 1, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in so many processes of this machine, each with so many threads; returns what they said.

    command   the program's path, or "-m" and a module, and its arguments; `options` are torchrun's own

    Raises CourseError where this PyTorch has no torch.distributed, and where a process fails.
    """
    if not dist.is_available():
        raise CourseError("this PyTorch has no torch.distributed; install one that has.")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    home = str(Path(__file__).parents[1])  # a program elsewhere finds the course, installed or not
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    env = {"OMP_NUM_THREADS": str(threads), OWN_STORE: "1", "PYTHONPATH": path}
    done = subprocess.run([*launch, *options, *command], env=os.environ | env, capture_output=True, text=True)
    if done.returncode:
        raise CourseError(f"the {processes} processes failed: {done.stderr.strip()[-2000:]}")
    return done
