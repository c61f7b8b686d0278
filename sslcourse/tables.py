"""Tables: cells of text, for a terminal, for Markdown and for a notebook; and a comparison in such cells."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from sslcourse.comparison import Results, accuracies, advice, architecture, contenders, gain, matrix, order
from sslcourse.summary import Summary

Cells = list[list[str]]  # rows of cells, headings first
# a name in a file of weights, say: it may break behind a dot, a slash or a line
LONG_WORD = re.compile(r"[^\s<>&;]{25,}")


def table(results: Results) -> Cells:
    """Every row's accuracies and gains."""
    lines = [["", "kNN", "linear probe", "gain, points", "fine-tuned", "gain, points"]]
    for row in order(results):
        cells = [titled(results, row)]
        for protocol in ("knn", "linear", "finetune"):
            found = accuracies(results, row, protocol)
            cells.append(str(found) if found else "")
            if protocol != "knn":
                cells.append(points(gain(results, row, protocol)) if row in contenders(results) else "")
        lines.append(cells)
    return lines


def titled(results: Results, row: str) -> str:
    """A row's name, with its architecture where that isn't the course's residual network."""
    arch = architecture(results, row)
    return row if arch in ("", "resnet-tiny") or arch in row else f"{row} ({arch})"


def points(difference: Summary | None) -> str:
    """A difference of accuracies in points, with its 95% interval where there are seeds enough for one."""
    if difference is None:
        return ""
    if len(difference.values) < 2:
        return f"{100 * difference.mean:+.1f}"
    low, high = (100 * end for end in difference.interval)
    return f"{100 * difference.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def interval_table(results: Results) -> Cells:
    """The 95% interval of every row's accuracies; nothing where there are too few seeds for any."""
    lines = [["95% interval", "kNN", "linear probe", "fine-tuned"]]
    for row in order(results):
        found = [accuracies(results, row, protocol) for protocol in ("knn", "linear", "finetune")]
        known = [s is not None and len(s.values) > 1 for s in found]
        cells = [f"{s.interval[0]:.3f} to {s.interval[1]:.3f}" if k else "" for s, k in zip(found, known, strict=True)]
        lines += [[titled(results, row), *cells]] if any(known) else []
    return lines if len(lines) > 1 else []


def matrix_table(results: Results) -> Cells:
    """What a linear model reads of each factor; nothing where the data knows no factors."""
    found = matrix(results)
    if not found:
        return []
    names = list(found["chance"])
    return [["", *names]] + [
        [row, *(f"{scores[name].mean:.2f}" if name in scores else "" for name in names)]
        for row, scores in found.items()
    ]


def markdown(cells: Cells) -> str:
    """Cells as a table in Markdown."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def aligned(cells: Cells) -> str:
    """Cells as a table in letters of one width."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def text(results: Results) -> str:
    """What the command prints: the table, what it means, and what was kept."""
    seeds = max((len(runs) for runs in results["runs"].values()), default=0)
    images = f" on {results['test_images']:,} images" if "test_images" in results else ""
    parts = [
        f"{results['data']}, {results['labels']} labels per class, {seeds} seeds: test accuracy{images}, mean ± standard "
        "deviation;",
        "gains are over the same network with random weights (fine-tuned: from scratch), with 95% intervals.",
        "",
        aligned(table(results)),
    ]
    if matrix(results):
        parts += ["", "What a linear model reads of each known factor (a category: accuracy; a quantity: R²):", ""]
        parts.append(aligned(matrix_table(results)))
    if intervals := interval_table(results):
        parts += ["", aligned(intervals), ""]
    parts += [f"{task} was left out: {why}" for task, why in results.get("refused", {}).items()]
    parts += results.get("notes", [])
    parts += sorted({found.caution for row in order(results) if (found := accuracies(results, row, "linear"))} - {""})
    return "\n".join([*parts, advice(results)])


# --- in a notebook -----------------------------------------------------------------------------------------------


def show(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> None:
    """Display a table in a notebook, with a caption above it; where nothing but text can be shown, as aligned text.

    Cells are shown as `str` gives them. Outside a notebook the text is printed.
    """
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    plain = "\n".join(filter(None, (caption, aligned(cells))))
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(plain)
    else:
        display({"text/plain": plain, "text/html": as_html(cells, caption)}, raw=True)


def show_accuracies(values: Mapping[str, Summary], caption: str) -> None:
    """`show` a row for each name: the mean and standard deviation over seeds, and the 95% interval of the mean."""
    rows = []
    for name, summary in values.items():
        low, high = summary.interval if len(summary.values) > 1 else (summary.mean, summary.mean)
        rows.append([name, summary, f"{low:.3f} to {high:.3f}" if low < high else ""])
    show(["", "mean ± deviation", "95% interval"], rows, caption)


def as_html(cells: Cells, caption: str = "") -> str:
    """Cells, headings first, as a table in HTML; the first cell of a row names it."""
    head, *rows = [[LONG_WORD.sub(_breakable, html.escape(cell)) for cell in row] for row in cells]
    lines = ["<table>"]
    if caption:
        lines.append(f"<caption>{html.escape(caption)}</caption>")
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead>")
    lines.append("<tbody>")
    for first, *others in rows:
        lines.append(f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _breakable(word: re.Match[str]) -> str:
    """The word with places where a narrow page may break it."""
    return re.sub(r"(?<=[./_])(?=\w)", "<wbr>", word[0])
