"""A plugin for nbval: what a lesson prints is what is stored in it, number by number.

    python -m pytest -p tests.stored_outputs --nbval-lax --nbval-current-env notebooks/02_*.ipynb

nbval compares claims alone. This compares every other cell as well, after the run that is made anyway: printed lines and
tables have the same words, and their numbers are near the stored ones. Another processor trains another network, so a
number may be off by ABSOLUTE or by RELATIVE of itself, whichever is more, and one in points (signed, with one decimal, as
`tables.points` writes it) by as much of an accuracy, 3 points; a whole number, such as how many pictures there are, is
exact. Another definition of what is measured is another number, and is found. Tags of a cell widen this:

    tolerance-3      three times as far, and whole numbers may differ as much
    names-vary       what is named in a line, such as the worst class, may be another one
    of-this-machine  nothing is compared: the cell tells about the machine
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest

ABSOLUTE, RELATIVE = 0.03, 0.15
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)|\b(?:nan|inf)\b")
POINTS = re.compile(r"[-+−]\d+\.\d")
EXACTLY, MACHINE, NAMES = "nbval-check-output", "of-this-machine", "names-vary"
WIDER = re.compile(r"tolerance-(\d+)")
WIDGET = "application/vnd.jupyter.widget-view+json"


def printed(outputs: Iterable) -> list[str]:
    """Every line that a cell prints or shows as text: streams and tables, without progress bars, figures and widgets."""
    lines = []
    for output in outputs:
        if output.output_type == "stream":
            lines += output.text.splitlines() if output.name == "stdout" else []
        elif not any(kind.startswith("image/") or kind == WIDGET for kind in output.get("data", {})):
            lines += output.get("data", {}).get("text/plain", "").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("<Figure")]


def words_and_numbers(line: str) -> tuple[str, list[str]]:
    """A line's words, with # for every number, and its numbers."""
    return " ".join(NUMBER.sub(" # ", line).split()), NUMBER.findall(line)


def value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def near(stored: str, now: str, times: int = 0) -> bool:
    """Whether a printed number is near the stored one; `times` as far where a tag says so, 0 where none does."""
    a, b = value(stored), value(now)
    if not (math.isfinite(a) and math.isfinite(b)):
        return stored == now
    if not times and all(re.fullmatch(r"[-+−]?[\d,]+", number) for number in (stored, now)):
        return a == b
    absolute = 100 * ABSOLUTE if POINTS.fullmatch(stored) and POINTS.fullmatch(now) else ABSOLUTE
    return abs(a - b) <= max(times, 1) * max(absolute, RELATIVE * abs(a))


def differences(stored: list[str], now: list[str], times: int = 0, names_vary: bool = False) -> Iterator[str]:
    """A sentence for every line that isn't as it is stored. Lines of the same words may come in another order."""
    sides: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for side, lines in enumerate((stored, now)):
        for line in lines:
            words, numbers = words_and_numbers(line)
            sides[words][side].append((line, numbers))
    for before, after in sides.values():
        if len(before) != len(after):
            if not names_vary:
                yield f"stored {[line for line, _ in before]}, and now {[line for line, _ in after]}"
            continue
        for (old, wanted), (new, got) in zip(before, after, strict=True):
            if not all(near(a, b, times) for a, b in zip(wanted, got, strict=True)):
                yield f"stored {old.strip()!r}, and now {new.strip()!r}"


def differences_of(cell, outputs: Iterable) -> list[str]:
    """`differences` between what a cell has stored and its new outputs, as its tags say."""
    tags = set(cell.metadata.get("tags", ()))
    if tags & {EXACTLY, MACHINE}:
        return []
    times = max([int(found[1]) for tag in tags if (found := WIDER.fullmatch(tag))], default=0)
    return list(differences(printed(cell.outputs), printed(outputs), times, NAMES in tags))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if type(item).__name__ != "IPyNbCell":
        return result
    if found := differences_of(item.cell, item.test_outputs):
        item.raise_cell_error(f"Cell {item.cell.id!r} no longer prints what is stored", "\n".join(found))
    return result
