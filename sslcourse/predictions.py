"""Predictions that a learner enters before a measurement, and how far off they were.

    predictions.ask("02/blossom", "How much will the blossom cost?", unit="nats")
    ...                                                          # the cell that measures it
    predictions.compare("02/blossom", final["blossom"])          # how far off

They are kept in the learner's progress (`progress`), and never needed: without one a lesson goes on.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from sslcourse import progress
from sslcourse.errors import CourseError

RANGE = re.compile(r"\((\d[\d.]*) to (\d[\d.]*)\)")  # what a unit says in parentheses: "nats (0 to 4.16)"
LIMITS = {"accuracy": (0.0, 1.0), "points": (-100.0, 100.0), "nats": (0.0, math.inf)}  # a loss or an entropy in nats
LOGARITHM = re.compile(r"(log|ln) ?\(?([^()]+)\)?")  # natural, as everywhere in the course


def ask(name: str, question: str, *, unit: str = "", choices: Sequence[str] = ()) -> widgets.VBox:
    """A field for a number, or for one of `choices`; what is entered is kept under `name`, "lesson/what".

    Shown as the last expression of a cell. Whoever enters another answer before measuring replaces the first. A number
    that can't be, such as 60 for a share, isn't kept: it was meant otherwise, and its distance would say nothing.
    """
    kept = progress.predictions().get(name, {}).get("predicted")
    message = widgets.HTML(said_of(kept, unit), layout=widgets.Layout(margin="0 0 0 8px"))
    wide = widgets.Layout(width="auto")
    if choices:
        field = widgets.RadioButtons(options=list(choices), value=kept if kept in choices else None, layout=wide)
    else:
        field = widgets.Text(
            value="" if kept is None else f"{kept:g}",
            placeholder="a number, then Enter",
            description=unit,
            style={"description_width": "initial"},  # as wide as the unit is
            continuous_update=False,
        )

    def entered(change: dict[str, Any]) -> None:
        answer = change["new"] if choices else number(change["new"], unit)
        if answer is None:
            message.value = "A number is needed, such as 0.5; the lesson goes on without one, too."
            return
        if not choices and not within(answer, unit):
            message.value = (
                f"{answer:.3g} can't be: {wanted(unit)}. It isn't kept; the lesson goes on without one, too."
            )
            return
        progress.keep("predictions", name, asked=question, unit=unit, predicted=answer)
        message.value = said_of(answer, unit)

    field.observe(entered, names="value")
    return widgets.VBox([widgets.HTML(f"<b>Your prediction.</b> {question}"), field, message])


def number(text: str, unit: str = "") -> float | None:
    """The number that somebody typed, with a comma or a point, as a percentage, a fraction "1/4" or a logarithm "log 4".

    Its unit may stand behind it. "30%" is 30 where the unit counts in hundredths (% or points), and 0.3 anywhere else.
    None for what is no number.
    """
    words = str(text).strip().lower().replace(",", ".").lstrip("~≈")
    words = words.removesuffix(unit.partition("(")[0].strip().lower()).strip() if unit != "%" else words
    logarithm = LOGARITHM.fullmatch(words)
    digits, _, divisor = (logarithm[2] if logarithm else words).partition("/")
    hundredths = digits.endswith("%") and unit not in ("%", "points")
    try:
        found = float(digits.removesuffix("%")) / float(divisor or 1) / (100 if hundredths else 1)
        found = math.log(found) if logarithm else found
    except (ValueError, ZeroDivisionError):
        return None
    return found if math.isfinite(found) else None


def limits(unit: str) -> tuple[float, float]:
    """The least and the greatest number that a unit allows: "of 1" and "(0 to 1)" say both, "nats" the least."""
    if written := RANGE.search(unit):
        return float(written[1]), float(written[2])
    name, _, whole = unit.partition(" ")
    if name == "of" and whole.isdigit():
        return 0.0, float(whole)
    return LIMITS.get(unit, (-math.inf, math.inf))


def within(answer: float, unit: str) -> bool:
    low, high = limits(unit)
    return low <= answer <= high


def wanted(unit: str) -> str:
    """ "the answer lies between 0 and 1 (60% is 0.6)"."""
    low, high = limits(unit)
    if math.isinf(high):
        return f"the answer is {low:g} or more"
    return f"the answer lies between {low:g} and {high:g}" + (" (60% is 0.6)" if high == 1 else "")


def said_of(answer: Any, unit: str) -> str:
    return "" if answer is None else f"Kept: {with_unit(answer, unit)}."


def with_unit(answer: Any, unit: str) -> str:
    """ "0.4 nats": what a field says in parentheses, as "nats (0 to 4.16)", helps whoever answers and no sentence."""
    shown = f"{answer:.3g}" if isinstance(answer, float) else str(answer)
    return f"{shown} {unit.partition('(')[0]}".strip()


def compare(name: str, measured: float | str, *, unit: str = "") -> None:
    """Print what was predicted under `name`, what came out, and the distance; what came out is kept beside it.

    `measured` is a number (or a tensor of one), or the choice that turned out to be right.
    """
    measured = measured if isinstance(measured, str) else float(measured)
    entry = progress.predictions().get(name)
    if entry is None:
        print(filled(f"No prediction was entered; it came out as {with_unit(measured, unit)}."))
        return
    predicted, unit = entry["predicted"], unit or entry.get("unit", "")
    if isinstance(predicted, str) != isinstance(measured, str):
        raise CourseError(f"the prediction {name!r} is {predicted!r}, which can't be compared with {measured!r}.")
    progress.keep("predictions", name, measured=measured)
    came = f"it came out as {with_unit(measured, unit)}: {verdict(entry, measured)}."
    print(filled(f"You predicted {with_unit(predicted, unit)}; {came}"))


def filled(sentence: str) -> str:
    """The sentence in lines that a window of 1024 pixels holds: JupyterLab breaks longer ones in the middle of a word."""
    return textwrap.fill(sentence, 72, break_long_words=False, break_on_hyphens=False)


def verdict(entry: dict[str, Any], measured: float | str) -> str:
    """How far off a prediction was, in words."""
    predicted = entry["predicted"]
    if isinstance(measured, str):
        return "as you said" if predicted == measured else "not as you said"
    off = predicted - measured
    if abs(off) <= 0.05 * abs(measured):
        return "within 5%"
    return f"you were {abs(off):.2g} too {'high' if off > 0 else 'low'}"
