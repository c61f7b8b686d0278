"""Figures for the lessons: a colour-blind-safe palette, labelled axes, and a text alternative for every picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from sslcourse import notebook
from sslcourse.console import shown

if TYPE_CHECKING:
    from sslcourse.long_runs import Found
    from sslcourse.summary import Summary
    from sslcourse.train import History

# Okabe and Ito's palette: distinguishable with every common form of colour blindness
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
MASK_COLORS = (*PALETTE[:7], "#44AA99", "#882255", "#777777")  # ten classes; regions carry their names, too
GRAY = "#B0B0B0"  # what is there to be compared with
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # so that no line is told from another by colour alone

WIDEST = 120  # letters of a line over a whole figure
LONGEST = 40  # letters of a name in a figure; of a longer one, its beginning and its end are shown
# fonts for names that DejaVu can't write, where the system has one
WIDER = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)
INSTALLED = {font.name for font in font_manager.fontManager.ttflist}

STYLE = {
    "font.family": ["DejaVu Sans", *(name for name in WIDER if name in INSTALLED)],
    "axes.prop_cycle": plt.cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 90,
    "savefig.dpi": 90,
    "figure.constrained_layout.use": True,
}


def use_style() -> None:
    """Set the course's look for every figure that follows."""
    plt.rcParams.update(STYLE)


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook with `alt` as its text alternative (read aloud, and shown where it can't load).

    Outside a notebook this does nothing but close the figure.
    """
    from IPython import get_ipython
    from IPython.display import display

    if (shell := get_ipython()) is not None:
        data, metadata = shell.display_formatter.format(figure)
        if png := data.get(notebook.PNG):  # the notebook draws figures
            described, words = notebook.bundle(notebook.without_alpha(png), alt)
            words[notebook.PNG] |= metadata.get(notebook.PNG, {})
            data, metadata = data | described, metadata | words
        display(data, metadata=metadata, raw=True)
    plt.close(figure)


def as_text(name: object, longest: int = LONGEST) -> str:
    """A name, of a class or of anything else, as text that a figure shows as it is.

    Matplotlib would set what lies between two dollar signs as a formula, and leave a name that begins with an
    underscore out of legends. What can't be shown is escaped (`console.shown`), and of a long name the middle is left
    out.
    """
    text = shown(name)
    if len(text) > longest:
        text = f"{text[: longest - longest // 3 - 1]}…{text[-(longest // 3) :]}"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def lines_of_text(text: str, longest: int = LONGEST) -> str:
    """`as_text` of every line of a text."""
    return "\n".join(as_text(line, longest) for line in text.split("\n"))


def to_picture(image: Tensor) -> np.ndarray:
    """One image (3, H, W), uint8 or float in [0, 1], to an array (H, W, 3) that matplotlib draws."""
    array = image.detach().cpu().movedim(0, -1).numpy()
    return array if array.dtype == np.uint8 else array.clip(0, 1)


def grid(
    images: Tensor | Sequence[Tensor],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    size: float = 1.1,
    title: str | None = None,
    rows: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
) -> Figure:
    """Images (N, 3, H, W) in rows of `columns`, each `size` inches wide, with titles over them and names of rows beside.

    `colors` gives each title its colour.
    """
    count = len(images)
    lines = -(-count // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            lines,
            columns,
            squeeze=False,
            figsize=(columns * size, lines * (size + (0.22 if titles else 0)) + 0.35),
        )
        for i, axis in enumerate(axes.flat):
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            for spine in axis.spines.values():
                spine.set_visible(False)
            if i < count:
                axis.imshow(to_picture(images[i]), interpolation="nearest")
                if titles is not None:
                    color = colors[i] if colors else "black"
                    axis.set_title(lines_of_text(titles[i]), fontsize=8, fontweight="normal", color=color)
            if rows is not None and i % columns == 0 and i // columns < len(rows):
                axis.set_ylabel(lines_of_text(rows[i // columns]), rotation=0, ha="right", va="center", fontsize=9)
        if title:
            figure.suptitle(lines_of_text(title, WIDEST), fontsize=11, fontweight="bold")
    return figure


def draw_boxes(
    axis: Axes,
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    right: Tensor | None = None,
) -> None:
    """An image (3, H, W) with boxes (K, 4) in its pixels and their classes' names.

    A name stands at a corner of its box where it covers no earlier name; where none is free, the box has no name.

    right  bool (K,): hits are drawn solid and green, the others dashed and orange; without it all are blue
    """
    height, width = image.shape[1:]
    axis.imshow(to_picture(image), interpolation="nearest", extent=(0, width, height, 0))
    names = [classes[c] for c in labels.tolist()]
    corners = _free_corners(boxes.tolist(), names, width, height)
    for k, (left, top, end, bottom) in reversed(list(enumerate(boxes.tolist()))):  # the first on top
        wrong = right is not None and not right[k]
        color = PALETTE[0] if right is None else PALETTE[1 if wrong else 2]
        for edge, thick, style in (("white", 2.6, "-"), (color, 1.5, "--" if wrong else "-")):
            axis.add_patch(
                plt.Rectangle(
                    (left, top), end - left, bottom - top, fill=False, edgecolor=edge, linewidth=thick, linestyle=style
                )
            )
        if corners[k]:
            x, y, ha, va = corners[k]
            _tag(axis, x, y, names[k], color, ha=ha, va=va)
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.grid(False)


LETTER, LINE = 1 / 20, 1 / 11  # about how much of a picture's width and height a letter of a tag takes, and its line


def _free_corners(
    boxes: list[list[float]], names: Sequence[str], width: int, height: int
) -> list[tuple[float, float, str, str] | None]:
    """Where each box's name can stand without covering an earlier one: (x, y, ha, va), or None."""
    taken, found = [], []
    for (left, top, right, bottom), name in zip(boxes, names, strict=True):
        corners = [
            (x, y, ha, va)
            for y, va in ((top, "top"), (bottom, "bottom"))
            for x, ha in ((left, "left"), (right, "right"))
        ]
        for x, y, ha, va in corners:
            x0, y0 = x - (ha == "right") * len(name) * width * LETTER, y - (va == "bottom") * height * LINE
            space = (x0, y0, x0 + len(name) * width * LETTER, y0 + height * LINE)
            if not any(a < space[2] and space[0] < c and b < space[3] and space[1] < d for a, b, c, d in taken):
                taken.append(space)
                found.append((x, y, ha, va))
                break
        else:
            found.append(None)
    return found


def draw_mask(axis: Axes, image: Tensor, mask: Tensor, classes: Sequence[str], least: int = 12) -> None:
    """An image (3, H, W), in pale gray, under its mask int64 (H, W): 0 for the background, 1 + c for class c.

    A class of at least `least` pixels gets its name, where most of it is.
    """
    gray = to_picture(image).mean(axis=2, keepdims=True) / (1 if image.dtype.is_floating_point else 255)
    shown = np.repeat(0.4 * gray + 0.6, 3, axis=2)  # (H, W, 3)
    for c in (mask.unique() - 1).tolist():
        if c < 0:
            continue
        here, color = (mask == c + 1).numpy(), MASK_COLORS[c % len(MASK_COLORS)]
        shown[here] = 0.25 * gray[here] + 0.75 * np.array(to_rgb(color))
    axis.imshow(shown, interpolation="nearest")
    for c in (mask.unique() - 1).tolist():
        rows, columns = np.nonzero((mask == c + 1).numpy())
        if c >= 0 and len(rows) >= least:
            _tag(axis, np.median(columns), np.median(rows), classes[c], "black", ha="center", va="center")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)


def _tag(axis: Axes, x: float, y: float, text: str, color: str, **alignment: str) -> None:
    name = axis.text(x, y, as_text(text), fontsize=6, color="white", clip_on=True, **alignment)
    name.set_bbox({"facecolor": color, "edgecolor": "none", "pad": 0.6, "alpha": 0.8, "clip_on": True})


def history(runs: Mapping[str, History], quantity: str = "loss", *, axis: Axes | None = None, unit: str = "") -> Axes:
    """A logged quantity against the step, a line per run."""
    axis = axis or _axes()
    for i, (name, run) in enumerate(runs.items()):
        axis.plot(run.column("step"), run.column(quantity), label=as_text(name), color=PALETTE[i % len(PALETTE)])
    axis.set(xlabel="step", ylabel=as_text(quantity) + (f" ({as_text(unit)})" if unit else ""))
    axis.legend(frameon=False)
    return axis


def label_efficiency(curves: Mapping[str, Mapping[int, Summary]], *, axis: Axes | None = None) -> Axes:
    """Test accuracy against labels per class: the mean over seeds as a line, its 95% interval as a band."""
    axis = axis or _axes()
    for i, (name, curve) in enumerate(curves.items()):
        budgets = sorted(curve)
        means = np.array([curve[b].mean for b in budgets])
        low, high = np.array([interval_or_mean(curve[b]) for b in budgets]).T
        color = PALETTE[i % len(PALETTE)]
        axis.plot(budgets, means, marker=MARKERS[i % len(MARKERS)], color=color, label=as_text(name))
        axis.fill_between(budgets, low, high, color=color, alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    ticks = sorted({b for curve in curves.values() for b in curve})
    axis.set_xticks(ticks, [str(b) for b in ticks])
    axis.minorticks_off()
    axis.set(xlabel="labels per class", ylabel="test accuracy", ylim=(0, 1))
    axis.legend(frameon=False)
    return axis


def training_budget(
    curves: Mapping[str, Mapping[int, Summary]],
    *,
    floors: Mapping[str, float] | None = None,
    live: tuple[str, float, float] | None = None,
    score: str = "test accuracy",
    looks: Mapping[str, int] | None = None,
    axis: Axes | None = None,
) -> Axes:
    """A score against the training budget, in multiples of the course's steps: a line for each name, labelled at its end.

    curves  {name: {budget: values over seeds}}, every seed a dot, the line through the means; budgets above 0
    floors  {name: what no training of this kind changes}, dotted across: raw pixels, say
    live    (name, budget, value) of a run that has just been trained here: a star
    looks   {name: which of the course's colours and markers}, for what stands in several panels; else one after another
    """
    axis, looks = axis or _axes(), looks or {name: i for i, name in enumerate(curves)}
    ends: list[tuple[float, float | None, str, str]] = []  # (height, budget, name, colour) of the labels on the right
    for name, curve in curves.items():
        known = sorted(budget for budget in curve if budget > 0)
        turn, i = divmod(looks[name], len(PALETTE))  # the ninth has the first colour again, and another marker
        color, marker = PALETTE[i], MARKERS[(i + turn) % len(MARKERS)]
        axis.plot(known, [curve[budget].mean for budget in known], color=color, marker=marker, markersize=5)
        for budget in known:
            axis.plot(
                [budget] * len(curve[budget].values), curve[budget].values, ".", color=color, alpha=0.45, markersize=4
            )
        if known:
            ends.append((curve[known[-1]].mean, known[-1], name, color))
    for name, value in (floors or {}).items():
        axis.axhline(value, color="black", linestyle=":", linewidth=1)
        ends.append((value, None, name, "black"))
    if live is not None:
        name, budget, value = live
        axis.plot([budget], [value], "*", color="black", markersize=13)
        paper = dict(facecolor="white", edgecolor="none", alpha=0.85, pad=0.5)  # a floor may run behind the name
        axis.annotate(as_text(name), (budget, value), (6, 6), textcoords="offset points", fontsize=8, bbox=paper)
    budgets = sorted({budget for curve in curves.values() for budget in curve if budget > 0})
    axis.set_xscale("log")
    axis.set_xticks(budgets, [str(budget) for budget in budgets])
    axis.minorticks_off()
    axis.set(xlabel="training budget (1: the course's steps)", ylabel=as_text(score))
    _at_the_end(axis, ends)
    return axis


def more_training(
    found: Found,
    rows: Sequence[str],
    *,
    live: tuple[str, float, float] | None = None,
    labels: int = 10,
    scratch: Sequence[str] = ("random weights",),
) -> Figure:
    """What `rows` of long runs (`long_runs.of_course`) are worth against the training budget: the probe, and fine-tuned.

    live     (name, budget, probe's accuracy) of the reader's own run: a star on the left
    scratch  the rows whose fine-tuning is training from scratch, drawn on the right

    Raw pixels are dotted on the left; a network trained with all labels is drawn on both sides, where it was measured.
    `long_runs.described` says the same in words.
    """
    from sslcourse import long_runs  # reads with SciPy, which other figures don't need

    probed = long_runs.curves(found, (*rows, "supervised"), "linear", labels)
    tuned = long_runs.curves(found, (*rows, *scratch, "supervised"), "finetune", labels)
    looks = {name: i for i, name in enumerate(probed | tuned)}
    height = 3.6 if len(looks) <= 10 else 5.2  # many names at the ends need room
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, height))
        for axis, curves in ((left, probed), (right, tuned)):
            training_budget(
                curves,
                floors={"raw pixels": long_runs.floor(found, labels=labels)} if axis is left else None,
                live=live if axis is left else None,
                looks=looks,
                axis=axis,
            )
        left.set_title(f"Linear probe, {labels} labels per class")
        right.set_title(f"Fine-tuned, {labels} labels per class")
    return figure


def variants(found: Found, panels: Mapping[str, Mapping[str, str]], *, labels: int = 10) -> Figure:
    """Variants of a task in long runs against the training budget, by the linear probe: a panel for each question.

    panels  {title: {name: row of the long runs}}; what stands in a panel is compared over the seeds that all of it has

    Raw pixels are dotted. Two panels stand side by side, and all have one scale; a row looks alike wherever it stands.
    """
    from sslcourse import long_runs  # reads with SciPy, which other figures don't need

    look_of = _looks([list(names.values()) for names in panels.values()])
    drawn = {title: long_runs.paired(found, names.values(), labels=labels) for title, names in panels.items()}
    floors = {"raw pixels": long_runs.floor(found, labels=labels)}
    every = [some.mean for curves in drawn.values() for curve in curves.values() for some in curve.values()]
    low, high = min(*every, *floors.values()), max(*every, *floors.values())
    columns, lines = min(len(panels), 2), -(-len(panels) // 2)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(lines, columns, figsize=(5.2 * columns, 3.3 * lines), squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, (title, names) in zip(axes.flat, panels.items(), strict=False):
            axis.set(title=title, ylim=(low - 0.03, high + 0.03))  # before names are placed by it
            looks = {name: look_of[row] for name, row in names.items()}
            curves = {name: drawn[title][row] for name, row in names.items()}
            training_budget(curves, floors=floors, looks=looks, axis=axis)
    return figure


def _looks(panels: Sequence[Sequence[str]]) -> dict[str, int]:
    """{row: which colour and marker}: one for each row wherever it stands, and another for each that stands beside it."""
    found: dict[str, int] = {}
    for row in dict.fromkeys(row for rows in panels for row in rows):
        taken = {found.get(other) for rows in panels if row in rows for other in rows}
        found[row] = next(i for i in itertools.count() if i not in taken)
    return found


def _at_the_end(axis: Axes, ends: Sequence[tuple[float, float | None, str, str]], least: float = 0.055) -> None:
    """Names at the right of an axis, each at the height where its line ends, or tied to it where there is no room.

    ends   (height, where on the x-axis the line ends, or None for the edge, name, colour)
    least  how far apart two names stand, in shares of the axis's height
    """
    low, high = axis.get_ylim()
    ends = sorted(ends, key=lambda end: end[0])
    heights = [(height - low) / (high - low) for height, *_ in ends]
    places = list(heights)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + least)
    above = 1 + least
    for i in reversed(range(len(places))):  # none above the axis, as long as it has room for all
        places[i] = above = min(places[i], above - least)
    for place, own, (height, x, name, color) in zip(places, heights, ends, strict=True):
        color = _legible(color)
        axis.text(1.03, place, as_text(name), color=color, fontsize=8, va="center", transform=axis.transAxes)
        if abs(place - own) > least / 4:
            start, scale = ((1, height), axis.get_yaxis_transform()) if x is None else ((x, height), axis.transData)
            tie = ConnectionPatch(start, (1.025, place), scale, axis.transAxes, color=color, linewidth=0.6)
            tie.set_in_layout(False)
            axis.add_artist(tie).set_clip_on(False)


def _legible(color: str, least: float = 3.0) -> tuple[float, float, float]:
    """The colour, or a darker one of the same hue, whose contrast with white is at least that (as WCAG 2.1 counts it)."""
    rgb = np.array(to_rgb(color))
    while 1.05 / (_luminance(rgb) + 0.05) < least:
        rgb = 0.95 * rgb
    return tuple(rgb.tolist())


def _luminance(rgb: np.ndarray) -> float:
    """Relative luminance of an sRGB colour in [0, 1]: 0 for black, 1 for white."""
    light = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    return float(light @ (0.2126, 0.7152, 0.0722))


def bars(
    values: Mapping[str, Summary],
    *,
    axis: Axes | None = None,
    chance: float | None = None,
    beside: Mapping[str, Summary] | None = None,
) -> Axes:
    """A horizontal bar per name, as long as the mean over seeds, with its 95% interval and its seeds as dots.

    `beside`, what the values are to be compared with (`comparison.floors_and_ceiling`), stands above them in gray.
    """
    axis, beside = axis or _axes(), beside or {}
    names = [*beside, *values]
    colors = [GRAY] * len(beside) + [PALETTE[i % len(PALETTE)] for i in range(len(values))]
    for i, (summary, color) in enumerate(zip([*beside.values(), *values.values()], colors, strict=True)):
        low, high = interval_or_mean(summary)
        around = [[summary.mean - low], [high - summary.mean]]
        axis.barh(i, summary.mean, xerr=around, color=color, alpha=0.85, capsize=3)
        axis.plot(summary.values, [i] * len(summary.values), "k.", markersize=4, alpha=0.6)
    axis.set_yticks(range(len(names)), [as_text(name) for name in names])
    axis.invert_yaxis()
    if chance is not None:
        axis.axvline(chance, color="black", linestyle=":", linewidth=1)
        axis.text(chance, -0.6, " chance", fontsize=8, va="center")
    axis.set(xlabel="test accuracy", xlim=(0, 1))
    return axis


def heat(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], *, axis: Axes | None = None, fontsize: float = 9
) -> Axes:
    """A table (R, C) of numbers in [0, 1], each written on its colour; `rows` are named at the left, `columns` below."""
    axis = axis or _axes()
    axis.imshow(values, cmap="cividis", vmin=0, vmax=1)
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            color = "black" if value > 0.55 else "white"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=fontsize)
    axis.set_xticks(range(len(columns)), [as_text(name) for name in columns])
    axis.set_yticks(range(len(rows)), [as_text(name) for name in rows])
    axis.grid(False)
    return axis


def interval_or_mean(summary: Summary) -> tuple[float, float]:
    """The 95% interval, or the mean twice where a single value has none."""
    return (summary.mean, summary.mean) if len(summary.values) < 2 else summary.interval


def _axes() -> Axes:
    with plt.rc_context(STYLE):
        return plt.subplots(figsize=(6.4, 3.8))[1]
