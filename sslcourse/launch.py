"""A program in several processes of this machine, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from sslcourse.distributed import OWN_STORE
from sslcourse.errors import CourseError, real_number

TIMEOUT = 300.0  # seconds: processes that wait for each other wait for ever
GRACE = 40.0  # seconds; torchrun kills what hasn't ended within 30 of being told to


def torchrun(
    *command: str, processes: int = 2, threads: int = 1, options: Sequence[str] = (), timeout: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """Run a program in so many processes of this machine, each with so many threads; returns what they said.

    command   the program's path, or "-m" and a module, and its arguments; `options` are torchrun's own
    timeout   seconds after which all of them are stopped, as they are by an interrupt

    Raises CourseError where this PyTorch has no torch.distributed, where a process fails, and at the timeout.
    """
    timeout = real_number("the timeout in seconds", timeout)
    if not dist.is_available():
        raise CourseError("this PyTorch has no torch.distributed; install one that has.")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    home = str(Path(__file__).parents[1])  # a program elsewhere finds the course, installed or not
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    env = {"OMP_NUM_THREADS": str(threads), OWN_STORE: "1", "PYTHONPATH": path}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*launch, *options, *command], env=os.environ | env, **pipes) as launcher:
        try:
            out, err = launcher.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _stop(launcher)
            raise CourseError(
                f"the {processes} processes weren't done after {timeout:g} seconds, and were stopped; see whether one "
                "waits for what another never says, or give them longer with timeout=SECONDS."
            ) from None
        except BaseException:  # an interrupt, which reaches torchrun's processes only through torchrun
            _stop(launcher)
            raise
    if launcher.returncode:
        raise CourseError(f"the {processes} processes failed: {err.strip()[-2000:]}")
    return subprocess.CompletedProcess(launcher.args, launcher.returncode, out, err)


def _stop(launcher: subprocess.Popen) -> None:
    """End torchrun by the signal on which it ends its processes first: killed, it would leave them behind."""
    launcher.terminate()
    try:
        launcher.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        launcher.kill()
