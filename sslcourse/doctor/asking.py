"""Ask a Python process of its own: what may be broken takes that process down, and not the doctor."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from json import loads
from typing import Any

from sslcourse.doctor.installs import ROOT

TELL = "import json, sys\ndef tell(value): print('\\n' + json.dumps(value), flush=True)\n"


@dataclass(frozen=True)
class Answer:
    """What a Python process of its own said: the value that it printed as JSON, or how it failed."""

    value: Any = None
    error: str = ""  # the last line of the traceback, or how the process ended
    everything: str = ""  # the whole of what it wrote to standard error


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
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    if done.returncode < 0:
        return Answer(error=f"the process was ended by signal {-done.returncode}", everything=done.stderr)
    if done.returncode:
        return Answer(error=lines[-1].strip() if lines else f"exit code {done.returncode}", everything=done.stderr)
    try:
        return Answer(loads(done.stdout.strip().splitlines()[-1]), everything=done.stderr)
    except (IndexError, ValueError):
        return Answer(error="its answer could not be read", everything=done.stderr)
