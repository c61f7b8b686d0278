"""What the doctor found: one thing that was looked at, how it stands, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says what to do, unless the status is "ok"; `figures` are for programs."""

    name: str
    status: str  # "ok", "warning": the course runs, with something less; "problem": it doesn't
    found: str
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def healthy(found: list[Finding]) -> bool:
    return all(finding.status != "problem" for finding in found)


def text(finding: Finding, repeated: bool = False) -> str:
    """A finding as lines to read; what to do is not said twice."""
    lines = [f"{MARKS[finding.status]:<8} {finding.name:<12} {finding.found}"]
    advice = "What to do is said above." if repeated and finding.advice else finding.advice
    return "\n".join(lines + [f"{'':<22}{line}" for line in advice.splitlines()])


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def gib(size: float) -> str:
    """Bytes as GiB: one decimal below ten, none above."""
    return f"{size / 2**30:.1f}" if size < 10 * 2**30 else f"{size / 2**30:.0f}"
