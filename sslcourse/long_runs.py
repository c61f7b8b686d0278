"""What more training gives: measurements of runs that are 1, 4, 16 and 64 times as long as the course's own.

`benchmarks/long.py` writes them as flat records, a comparison's with two fields more: the data, and the budget, which
is the number of steps as a multiple of the recipe's. Budget 0 is what no training changes: raw pixels, and the features
of random weights.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcourse import comparison
from sslcourse.comparison import Results
from sslcourse.errors import CourseError
from sslcourse.files import write_atomically
from sslcourse.locking import claimed
from sslcourse.paths import typed
from sslcourse.summary import Summary, of_accuracies

FORMAT = "sslcourse long runs 1"
SCORES = ("knn", "linear", "finetune")
SHAPE = ("effective rank", "alignment", "uniformity")  # protocols without labels: `geometry`'s, 0 labels per class
RUN = ("data", "row", "budget", "seed")  # what a run is known by
RECORD = (*RUN, "protocol", "labels")  # and what a measurement is
PHOTOGRAPHS = "CIFAR-10 (JPEG)"  # what the course's photographs are called there, beside "world"

Found = dict[str, Any]
Entry = dict[str, Any]


# --- the file ----------------------------------------------------------------------------------------------------


def empty() -> Found:
    return {"format": FORMAT, "data": {}, "runs": [], "records": []}


def read(path: str | Path) -> Found:
    """Measurements that `benchmarks/long.py` wrote. Raises CourseError for any other file."""
    path = typed(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} can't be read as long runs ({error}); choose another file.") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CourseError(f"{path} doesn't hold long runs that benchmarks/long.py wrote; choose another file.")
    return found


def add(
    path: Path, data: str, about: dict[str, Any], runs: Iterable[Entry] = (), records: Iterable[Entry] = ()
) -> None:
    """Put runs and records of one data set into the file; what was measured before of the same is replaced.

    about   what is true of the data: "classes" and "test_images"

    Several processes may do so at once: each waits until the file is its own, reads it, and writes it whole.
    """
    with claimed(path, file=True, wait=True):
        found = read(path) if path.exists() else empty()
        found["data"][data] = about
        for part, fields, new in (("runs", RUN, runs), ("records", RECORD, records)):
            known = {tuple(one[name] for name in fields): one for one in found[part]}
            known |= {tuple(one[name] for name in fields): one for one in new}
            found[part] = [known[key] for key in sorted(known)]
        write_atomically(path, _text(found).encode())


def _text(found: Found) -> str:
    """JSON with an entry on each line, so that a new one is a line of a difference."""
    lines = [f' "format": {json.dumps(found["format"])}', f' "data": {json.dumps(dict(sorted(found["data"].items())))}']
    for part in ("runs", "records"):
        entries = ",\n".join("  " + json.dumps(entry) for entry in found[part])
        lines.append(f' "{part}": [\n{entries}\n ]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def of_course(folder: str | Path = "../benchmarks") -> Found:
    """What the course has measured, from a clone's `benchmarks`: its long runs, and its comparison as budget 1."""
    folder = typed(folder)
    return joined(read(folder / "long.json"), comparison.read(folder / "results.json"))


# --- what can be worked out --------------------------------------------------------------------------------------


def joined(found: Found, results: Results) -> Found:
    """Long runs together with a comparison of the same data, whose pretrained rows are budget 1.

    The comparison's runs have the same recipes, seeds and draws of labels; where both have a value, the long run's stays.
    """
    records = [
        one | {"data": results["data"], "budget": _budget_of(one, results["tasks"])}
        for one in comparison.flattened(results)["records"]
        if one["protocol"] in SCORES
    ]
    runs = [
        {"data": results["data"], "row": row, "budget": int(row in results["tasks"]), "seed": int(seed)} | run
        for row, seeds in results["runs"].items()
        for seed, run in seeds.items()
    ]
    about = {name: results[name] for name in ("classes", "test_images") if name in results}
    both = {"format": FORMAT, "data": {results["data"]: about} | found["data"]}
    for part, fields, other in (("runs", RUN, runs), ("records", RECORD, records)):
        known = {tuple(one[name] for name in fields): one for one in [*other, *found[part]]}
        both[part] = [known[key] for key in sorted(known)]
    return both


def _budget_of(record: Entry, tasks: Sequence[str]) -> int:
    """1 for what was trained, from scratch or before; 0 for what no training changes."""
    return int(record["row"] in tasks or record["protocol"] == "finetune")


def budgets(found: Found, data: str = "world") -> list[int]:
    """Every budget that something was trained for, in increasing order."""
    return sorted({one["budget"] for one in found["records"] if one["data"] == data} - {0})


def values(found: Found, row: str, budget: int, protocol: str, labels: int, data: str = "world") -> dict[int, float]:
    """{seed: value} of one row and budget; empty where it wasn't measured. `labels` are per class, 0 for SHAPE."""
    key = (data, row, budget, protocol, labels)
    fields = ("data", "row", "budget", "protocol", "labels")
    return {one["seed"]: one["value"] for one in found["records"] if tuple(one[name] for name in fields) == key}


def curve(
    found: Found, row: str, protocol: str = "linear", labels: int = 10, data: str = "world"
) -> dict[int, Summary]:
    """{budget: values over seeds} of a row, in increasing order of the budget."""
    known = sorted({one["budget"] for one in found["records"] if (one["data"], one["row"]) == (data, row)})
    measured = {budget: values(found, row, budget, protocol, labels, data).values() for budget in known}
    return {budget: _summary(found, some, protocol, data) for budget, some in measured.items() if some}


def curves(
    found: Found, rows: Iterable[str], protocol: str = "linear", labels: int = 10, data: str = "world"
) -> dict[str, dict[int, Summary]]:
    """{name in a figure: {budget: values}} of the rows that were trained; random weights, fine-tuned, are from scratch."""
    known = {row: curve(found, row, protocol, labels, data) for row in rows}
    names = {row: row.replace("random weights", "from scratch") for row in known} | {"supervised": "all labels"}
    return {names[row]: made for row, made in known.items() if max(made, default=0) > 0}


def paired(
    found: Found, rows: Iterable[str], protocol: str = "linear", labels: int = 10, data: str = "world"
) -> dict[str, dict[int, Summary]]:
    """{row: {budget: values}} over the seeds that all the rows have, at the budgets where they share one.

    A variant and its task, trained from the same seed, have the same weights at the start, the same order of pictures and
    the same labels for the probe: what lies between them is the variant, and chance in what it changes.
    """
    rows, result = list(rows), {row: {} for row in rows}
    for budget in budgets(found, data):
        of_rows = [values(found, row, budget, protocol, labels, data) for row in rows]
        seeds = sorted(set.intersection(*map(set, of_rows)))
        for row, measured in zip(rows, of_rows, strict=True):
            if seeds:
                result[row][budget] = _summary(found, [measured[seed] for seed in seeds], protocol, data)
    return result


def floor(
    found: Found, row: str = "raw pixels", protocol: str = "linear", labels: int = 10, data: str = "world"
) -> float:
    """The mean of what no training changes. Raises CourseError where it wasn't measured."""
    known = curve(found, row, protocol, labels, data)
    if 0 not in known:
        raise CourseError(f"{row} of {data} isn't among the long runs with {protocol} and {labels} labels per class.")
    return known[0].mean


def longest(
    found: Found, row: str, protocol: str = "linear", labels: int = 10, data: str = "world"
) -> tuple[int, Summary]:
    """(budget, values over seeds) of a row's longest run. Raises CourseError where none was trained and measured so."""
    trained = {b: some for b, some in curve(found, row, protocol, labels, data).items() if b > 0}
    if not trained:
        raise CourseError(f"no run of {row} on {data} is stored with {protocol} and {labels} labels per class.")
    return max(trained.items())


def beside_budget_one(
    found: Found, rows: Iterable[str], protocol: str = "linear", labels: int = 10, data: str = "world"
) -> tuple[int, dict[str, tuple[Summary, Summary]]]:
    """(budget, {row: (at budget 1, at that budget)}), from the best at that budget down.

    It is the longest budget that half of the rows were trained for, and two at least: with one, nothing could change places,
    and with a few the table would be theirs and not the rows'. Raises CourseError where there is none.
    """
    known = {row: curve(found, row, protocol, labels, data) for row in rows}
    counts = Counter(budget for made in known.values() if 1 in made for budget in made if budget > 1)
    shared = max((budget for budget, count in counts.items() if count >= max(2, len(known) / 2)), default=None)
    if shared is None:
        raise CourseError(
            f"fewer than half of {', '.join(known)} on {data} are stored at budget 1 and at a longer one."
        )
    both = {row: (made[1], made[shared]) for row, made in known.items() if {1, shared} <= made.keys()}
    return shared, dict(sorted(both.items(), key=lambda one: -one[1][1].mean))


def overtakings(both: Mapping[str, tuple[Summary, Summary]]) -> list[tuple[str, str]]:
    """(who passes, who is passed) of rows of `beside_budget_one`: behind by the mean at budget 1, ahead at the longer one."""
    return [
        (one, other)
        for one, other in itertools.permutations(both, 2)
        if both[one][0].mean < both[other][0].mean and both[one][1].mean > both[other][1].mean
    ]


def places(
    found: Found, rows: Iterable[str], protocol: str = "linear", labels: int = 10, data: str = "world"
) -> list[list[str]]:
    """Cells: for each row of `beside_budget_one` its value and place at both budgets, and in words whom it passes."""
    budget, both = beside_budget_one(found, rows, protocol, labels, data)
    before = sorted(both, key=lambda row: -both[row][0].mean)
    passes = overtakings(both)
    lines = [["", "budget 1", "place", f"budget {budget}", "place", "changes places"]]
    for after, (row, (short, long)) in enumerate(both.items(), 1):
        words = [f"passes {other}" for one, other in passes if one == row]
        words += [f"falls behind {one}" for one, other in passes if other == row]
        lines.append([row, _cell(short), str(before.index(row) + 1), _cell(long), str(after), ", ".join(words)])
    return lines


def lead(
    found: Found, row: str, others: Iterable[str], protocol: str = "linear", labels: int = 10, data: str = "world"
) -> float:
    """How far a row's mean is above the best of the others (below 0: behind), at the longest budget that it has with one.

    Raises CourseError where it has none with any of them.
    """
    mine = curve(found, row, protocol, labels, data)
    rivals = [curve(found, other, protocol, labels, data) for other in others if other != row]
    shared = [budget for budget in mine if budget > 0 and any(budget in rival for rival in rivals)]
    if not shared:
        raise CourseError(f"{row} on {data} is stored at no budget at which one of the others is.")
    return mine[max(shared)].mean - max(rival[max(shared)].mean for rival in rivals if max(shared) in rival)


def table(found: Found, protocol: str = "linear", labels: int = 10, data: str = "world") -> list[list[str]]:
    """Cells: a row for each method, a column for each budget; mean ± standard deviation, and how many seeds, if not one.

    Rows that no training changes come first, then those with a run longer than budget 1, from the best at the end down.
    Variants of a task (`variants_of`) have a table of their own.
    """
    columns = [0, *budgets(found, data)]
    variants = set(itertools.chain.from_iterable(variants_of(found, data).values()))
    rows = list(
        dict.fromkeys(one["row"] for one in found["records"] if one["data"] == data and one["row"] not in variants)
    )
    known = {row: made for row in rows if (made := curve(found, row, protocol, labels, data))}
    known = {row: made for row, made in known.items() if max(made) != 1}  # the comparison has a table of its own
    order = sorted(known, key=lambda row: (max(known[row]) > 0, -known[row][max(known[row])].mean))
    heads = ["not trained", *(f"budget {budget}" for budget in columns[1:])]
    return [["", *heads]] + [[row, *(_cell(known[row].get(budget)) for budget in columns)] for row in order]


def variants_of(found: Found, data: str = "world") -> dict[str, list[str]]:
    """{task: rows that learned it with the same network and another option}, by name."""
    runs = [run for run in found["runs"] if run["data"] == data]
    own = {run["row"]: run["backbone"] for run in runs}
    result: dict[str, list[str]] = {}
    for task, row in sorted({(run.get("task") or run["row"], run["row"]) for run in runs}):
        if row != task and own.get(task) == own[row]:
            result.setdefault(task, []).append(row)
    return result


def variants_table(found: Found, asked: Sequence[tuple[str, str, int]], data: str = "world") -> list[list[str]]:
    """Cells: each task with its variants; a column for each measurement and budget.

    asked  (head, protocol, labels per class) of each measurement

    A column is over the seeds that the task has together with every variant that was measured there at all; there is none for
    a budget at which no variant was.
    """
    every = [row for variants in variants_of(found, data).values() for row in variants]
    columns = [
        (head, protocol, labels, b)
        for head, protocol, labels in asked
        for b in budgets(found, data)
        if any(values(found, row, b, protocol, labels, data) for row in every)
    ]
    lines = [["", *(f"{head}, budget {b}" for head, _, _, b in columns)]]
    for task, variants in variants_of(found, data).items():
        cells: dict[str, list[str]] = {row: [] for row in (task, *variants)}
        for _, protocol, labels, b in columns:
            there = [row for row in variants if values(found, row, b, protocol, labels, data)]
            shared = paired(found, [task, *there], protocol, labels, data) if there else {}
            for row, of_row in cells.items():
                of_row.append(_cell(shared.get(row, {}).get(b)))
        lines += [[row, *of_row] for row, of_row in cells.items()]
    return lines


def words(curves: Mapping[str, Mapping[int, Summary]]) -> str:
    """Curves against the budget in words, for the alternative text of their figure."""

    trained = {name: sorted(budget for budget in curve if budget > 0) for name, curve in curves.items()}
    return "; ".join(
        f"{name}: " + ", ".join(f"{curves[name][budget].mean:.2f} at budget {budget}" for budget in known)
        for name, known in trained.items()
        if known
    )


def described(
    found: Found, rows: Sequence[str], *, labels: int = 10, scratch: Sequence[str] = ("random weights",)
) -> str:
    """The figure of `plots.more_training` in words, for its alternative text."""
    probed, tuned = curves(found, rows, labels=labels), curves(found, (*rows, *scratch), "finetune", labels)
    return (
        f"Test accuracy against the training budget, {labels} labels per class, by the linear probe on the left and "
        f"fine-tuned on the right. The probe: {words(probed)}; raw pixels {floor(found, labels=labels):.2f}. "
        f"Fine-tuned: {words(tuned)}."
    )


def _summary(found: Found, some: Iterable[float], protocol: str, data: str) -> Summary:
    """Values over seeds; of accuracies, with what the number of test images leaves open."""
    images = found["data"].get(data, {}).get("test_images")
    return of_accuracies(list(some), images) if protocol in SCORES else Summary(tuple(some))


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    count = len(summary.values)
    return f"{summary.mean:.3f}" if count == 1 else f"{summary.mean:.3f} ± {summary.std:.3f} ({count})"
