"""Ask NVIDIA's driver, through `nvidia-smi`, which GPUs there are and who uses them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

PLACES = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")  # the latter: Linux on Windows, where it is not on the path
FIELDS = (
    "uuid", "name", "driver_version", "memory.total", "memory.free", "mig.mode.current", "clocks.max.sm",
    "utilization.gpu", "compute_cap",
)  # fmt: skip
# The oldest driver for programs built for any version of a CUDA generation (NVIDIA, "Minor Version Compatibility").
OLDEST = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True)
class Card:
    """One GPU, as the driver sees it; what it doesn't say is None."""

    uuid: str
    name: str
    total: int | None  # bytes of memory
    free: int | None
    clock: int | None  # MHz of the multiprocessors, at most
    busy: int | None  # percent of the last moment
    capability: str | None  # such as 9.0
    mig: bool  # divided into instances (Multi-Instance GPU)


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver. `error` is why it doesn't answer; without `nvidia-smi` there is no Driver at all."""

    version: str = ""
    cuda: tuple[int, int] | None = None  # the newest that it knows
    cards: tuple[Card, ...] = ()
    instances: tuple[str, ...] = ()  # of divided GPUs
    users: tuple[tuple[str, str, int | None, str], ...] = ()  # process, its name, bytes, the GPU's uuid
    error: str = ""

    @property
    def works(self) -> bool:
        return bool(self.cards)


def ask_driver() -> Driver | None:
    """What the driver says, or None where it isn't installed."""
    program = next(filter(None, map(shutil.which, PLACES)), None)
    if program is None:
        return None
    code, output = smi(program)
    if code or "No devices were found" in output:
        return Driver(error=first_line(output) or f"nvidia-smi ended with exit code {code}")
    # "CUDA Version: 12.4", or "CUDA UMD Version: 13.1" of newer ones
    cuda = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+)\.(\d+)", output)
    fields = FIELDS
    code, rows = smi(program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    if code and "compute_cap" in rows:  # drivers before 510 don't know the word
        fields = FIELDS[:-1]
        code, rows = smi(program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    if code or not rows.strip():
        return Driver(error=first_line(rows) or "nvidia-smi lists no GPU")
    table = [dict(zip(fields, map(str.strip, row.split(",")), strict=False)) for row in rows.strip().splitlines()]
    return Driver(
        version=table[0].get("driver_version", ""),
        cuda=(int(cuda[1]), int(cuda[2])) if cuda else None,
        cards=tuple(card(row) for row in table),
        instances=tuple(re.findall(r"UUID:\s*(MIG-[^)\s]+)", smi(program, "-L")[1])),
        users=users(program),
    )


def card(row: dict[str, str]) -> Card:
    def whole(name: str, unit: int = 1) -> int | None:
        value = row.get(name, "")
        return int(value) * unit if value.isdigit() else None  # "[N/A]", "[Insufficient Permissions]"

    capability = row.get("compute_cap", "")
    return Card(
        uuid=row.get("uuid", ""),
        name=row.get("name", "an NVIDIA GPU"),
        total=whole("memory.total", 2**20),
        free=whole("memory.free", 2**20),
        clock=whole("clocks.max.sm"),
        busy=whole("utilization.gpu"),
        capability=capability if re.fullmatch(r"\d+\.\d+", capability) else None,
        mig=row.get("mig.mode.current") == "Enabled",
    )


def users(program: str) -> tuple[tuple[str, str, int | None, str], ...]:
    """Processes that compute on a GPU. In a container, those outside it can't be seen."""
    code, rows = smi(
        program, "--query-compute-apps=pid,process_name,used_memory,gpu_uuid", "--format=csv,noheader,nounits"
    )
    found = [[part.strip() for part in row.split(",")] for row in rows.splitlines()] if not code else []
    return tuple(
        (row[0], ",".join(row[1:-2]), int(row[-2]) * 2**20 if row[-2].isdigit() else None, row[-1])
        for row in found
        if len(row) >= 4 and row[0].isdigit()
    )


def smi(program: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output, of which errors are a part."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace", timeout=30)
    except subprocess.TimeoutExpired:
        return 1, "nvidia-smi does not answer within 30 seconds"
    except OSError as error:
        return 1, f"nvidia-smi could not be started ({error.strerror})"
    return done.returncode, done.stdout + done.stderr


def first_line(output: str) -> str:
    return next((line.strip() for line in output.splitlines() if line.strip()), "")
