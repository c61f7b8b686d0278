"""A comparison as flat records, one for each measurement: its file, and what can be worked out from it.

A record says which row, seed, protocol and labels per class a value belongs to. Protocols are "knn", "linear",
"finetune", and "factor NAME" for what a linear model reads of a known factor (from all labels: 0 per class stands
there). Beside the records stand "runs", {row: {seed: which weights were measured}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sslcourse.errors import CourseError
from sslcourse.files import reading, write_atomically
from sslcourse.paths import typed
from sslcourse.summary import Summary, of_accuracies, paired_difference

FORMAT = "sslcourse compare 2"
NESTED = "sslcourse compare 1"  # the runs held the values, by protocol and labels
RANDOM = "random weights"
FACTOR = "factor "  # before the name of a factor, a protocol
STORED = Path(__file__).resolve().parents[1] / "benchmarks" / "results.json"  # the course's own, beside the package
TUNED = STORED.with_name("scratch.json")  # training from scratch, tuned in rate and length: the floor of every table
PIXELS, SCRATCH = "raw pixels", "trained from scratch"
SCENES = "scenes, every label"  # in TUNED: the ceiling on world:scenes

FEW = 100  # test images, below which folds know more

WAYS = {"linear": "a linear probe", "knn": "nearest neighbours", "finetune": "fine-tuning"}

Way = tuple[str, str]  # a row and a protocol
Record = dict[str, Any]  # row: str, seed: int, protocol: str, labels: int (per class), value: float
Results = dict[str, Any]


def random_name(arch: str) -> str:
    """The row of random weights of an architecture."""
    return RANDOM if arch == "resnet-tiny" else f"{RANDOM}, {arch}"


# --- the file ----------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Results:
    """Results that `compare.run` wrote, of the first format as well. Raises CourseError for any other file."""
    path = typed(path)
    try:
        with reading(path):
            results = json.loads(path.read_bytes().decode())
    except CourseError:
        raise
    except ValueError as error:
        raise CourseError(f"{path} can't be read as a comparison ({error}); choose another file.") from None
    if not isinstance(results, dict) or results.get("format") not in (FORMAT, NESTED):
        raise CourseError(f"{path} is not a comparison that `sslcourse compare` wrote; choose another file.")
    try:
        found = flattened(results)
        _refuse_damaged(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CourseError(f"{path} is damaged: what it measured can't be read; choose another file.") from None
    return found


def _refuse_damaged(results: Results) -> None:
    """Raise KeyError, TypeError or ValueError where a record or a run isn't one."""
    for one in results["records"]:
        record(one["row"], int(one["seed"]), one["protocol"], int(one["labels"]), float(one["value"]))
    for row, seeds in results["runs"].items():
        for seed, run in seeds.items():
            if not (isinstance(row, str) and int(seed) >= 0 and isinstance(run["backbone"], str)):
                raise ValueError(row)


def write(results: Results, path: str | Path) -> None:
    """The results as JSON, a record on each line."""
    head = json.dumps({name: value for name, value in results.items() if name != "records"}, indent=1)
    lines = ",\n".join("  " + json.dumps(record) for record in results["records"])
    text = head.removesuffix("\n}") + f',\n "records": [\n{lines}\n ]\n}}\n'
    write_atomically(Path(path), text.encode())


def flattened(results: Results) -> Results:
    """Results of the first format in that of this one; those of this one as they are."""
    if "records" in results:
        return results
    runs = {row: {seed: _about(run) for seed, run in seeds.items()} for row, seeds in results["runs"].items()}
    chance = {
        name: factor["chance"]
        for seeds in results["runs"].values()
        for run in seeds.values()
        for name, factor in run.get("factors", {}).items()
    }
    return results | {"format": FORMAT, "runs": runs, "chance": chance, "records": list(_nested(results["runs"]))}


def _about(run: dict[str, Any]) -> dict[str, Any]:
    """What a run of the first format was made from, without its values."""
    return {name: value for name, value in run.items() if name in ("key", "backbone", "steps", "batch_size")}


def _nested(runs: dict[str, Any]) -> Iterator[Record]:
    """The values of the first format, one by one."""
    for row, seeds in runs.items():
        for seed, run in seeds.items():
            for protocol in ("linear", "knn", "finetune"):
                for labels, value in run.get(protocol, {}).items():
                    yield record(row, int(seed), protocol, int(labels), value)
            for name, factor in run.get("factors", {}).items():
                yield record(row, int(seed), FACTOR + name, 0, factor["score"])


def record(row: str, seed: int, protocol: str, labels: int, value: float) -> Record:
    return {"row": row, "seed": seed, "protocol": protocol, "labels": labels, "value": value}


def stored() -> Results:
    """The course's own comparison of all methods on pocket world. Raises CourseError where the checkout isn't there."""
    return read(STORED)


def scratch() -> Results:
    """Training from scratch on pocket world (the row SCRATCH), learning rate and number of steps chosen on validation."""
    return read(TUNED)


# --- what can be worked out --------------------------------------------------------------------------------------


def floors_and_ceiling(labels: int = 10) -> dict[str, Summary]:
    """What every method of the course is measured against with so many labels per class, test accuracies over 5 seeds.

    The same linear probe on raw pixels and on the features of a random network: what a method must pass. And the whole
    network trained from scratch on the same labels, learning rate and length (200 or 800 steps) chosen on validation:
    what whoever had no pretraining would do.
    """
    rows = {
        PIXELS: accuracies(stored(), PIXELS, "linear", labels),
        "random network": accuracies(stored(), RANDOM, "linear", labels),
        SCRATCH: accuracies(scratch(), SCRATCH, "finetune", labels),
    }
    return {name: summary for name, summary in rows.items() if summary is not None}


def values(results: Results, row: str, protocol: str, labels: int | None = None) -> list[float]:
    """A row's values, seed by seed; empty where they weren't measured. `labels` are per class, by default the table's."""
    return list(by_seed(results, row, protocol, labels).values())


def by_seed(results: Results, row: str, protocol: str, labels: int | None = None) -> dict[int, float]:
    """{seed: value} of a row, as `values`."""
    labels = results["labels"] if labels is None else labels
    found = {
        one["seed"]: one["value"]
        for one in flattened(results)["records"]
        if (one["row"], one["protocol"], one["labels"]) == (row, protocol, labels)
    }
    return {seed: found[seed] for seed in sorted(found)}


def accuracies(results: Results, row: str, protocol: str, labels: int | None = None) -> Summary | None:
    """`values` with their interval, which knows how many test images there were; None where there are none."""
    found = values(results, row, protocol, labels)
    return of_accuracies(found, independent(results)) if found else None


def independent(results: Results) -> int | None:
    """As how many unrelated images the test set counts; None where nobody said so."""
    return results.get("independent", results.get("test_images"))


def gain(results: Results, row: str, protocol: str, labels: int | None = None) -> Summary | None:
    """A row less the same architecture with random weights (in fine-tuning: trained from scratch), seed by seed.

    None where no seed was measured on both sides.
    """
    baseline = random_name(architecture(results, row))
    return difference(results, (row, protocol), (baseline, protocol), labels)


def difference(results: Results, one: Way, other: Way, labels: int | None = None) -> Summary | None:
    """One way less another, seed by seed; None where no seed was measured on both sides."""
    sides = [by_seed(results, *way, labels) for way in (one, other)]
    both = [seed for seed in sides[0] if seed in sides[1]]
    if not both:
        return None
    images = independent(results)
    return paired_difference(*(of_accuracies([side[seed] for seed in both], images) for side in sides))


def contenders(results: Results) -> set[str]:
    """The rows that aren't baselines."""
    return {*results["tasks"], *results.get("published", ())}


def architecture(results: Results, row: str) -> str:
    """The name of a row's backbone; "" where its features come from the pixels."""
    return next(iter(results["runs"][row].values()))["backbone"]


def curve(results: Results, row: str, protocol: str) -> dict[int, Summary]:
    """{labels per class: accuracies} of a row, in increasing order."""
    records = flattened(results)["records"]
    budgets = {one["labels"] for one in records if (one["row"], one["protocol"]) == (row, protocol)}
    return {labels: accuracies(results, row, protocol, labels) for labels in sorted(budgets)}


def order(results: Results) -> list[str]:
    """Baselines first, then tasks and published weights from the best linear probe down."""
    tasks = [row for row in results["runs"] if row in contenders(results)]
    mean = {row: found.mean if (found := accuracies(results, row, "linear")) else 0.0 for row in tasks}
    return [row for row in results["runs"] if row not in tasks] + sorted(tasks, key=mean.get, reverse=True)


def matrix(results: Results) -> dict[str, dict[str, Summary]]:
    """{row: {factor: score over seeds}}: what a linear model reads of each factor; with chance as the row "chance"."""
    results = flattened(results)
    found = {row: {} for row in order(results)}
    for name in results.get("chance", {}):
        for row in found:
            if scores := values(results, row, FACTOR + name, 0):
                found[row][name] = Summary(tuple(scores))
    table = {row: scores for row, scores in found.items() if scores}
    chance = {name: Summary((share,)) for name, share in results.get("chance", {}).items()}
    return {"chance": chance} | table if table else {}


# --- what to use -------------------------------------------------------------------------------------------------


def best_ways(results: Results) -> list[Way]:
    """Of each row the protocol with the highest accuracy at the table's labels, the best row first."""
    found = []
    for row in results["runs"]:
        means = {way: s.mean for way in WAYS if (s := accuracies(results, row, way)) is not None}
        if means:
            found.append((max(means.values()), (row, max(means, key=means.get))))
    return [way for _, way in sorted(found, key=lambda one: -one[0])]


def advice(results: Results) -> str:
    """One sentence on what to use at the table's number of labels: the best, or that too little is known to say so.

    The best row is told from another where the 95% interval of their paired difference lies above 0. Of many rows the
    highest is flattered by its luck on this test set, and the sentence doesn't take that off.
    """
    ways = best_ways(results)
    if not ways:
        return "Nothing was measured, so that nothing can be said."
    best, *others = ways
    close = [other for other in others if not _told(results, best, other)]
    where = f"{results['labels']} labels per class"
    if results.get("test_images"):
        seeds = len(by_seed(results, *best))
        where += f", {results['test_images']:,} test images, {seeds} seed{'' if seeds == 1 else 's'}"
        if results["test_images"] < FEW:
            where += "; `sslcourse evaluate --folds 5` would test on every label"
    if not close:
        second = f", against {_named(results, others[0])} as the next best" if others else ""
        return f"Use {_named(results, best)}{second} ({where})."
    baselines = [way for way in close if way[0] not in contenders(results)]
    worth = "; so pretraining isn't shown to help here" if baselines and best[0] in contenders(results) else ""
    more = f" and {len(close) - 2} more" if len(close) > 2 else ""
    return (
        f"Too few to tell: {_named(results, best)} is highest, and {', '.join(_named(results, way) for way in close[:2])}"
        f"{more} can't be told from it ({where}){worth}."
    )


def _told(results: Results, best: Way, other: Way) -> bool:
    found = difference(results, best, other)
    return found is not None and len(found.values) > 1 and found.interval[0] > 0


def _named(results: Results, way: Way) -> str:
    """A way in words, with its accuracy."""
    row, protocol = way
    scratch = row.startswith(RANDOM) and protocol == "finetune"
    said = f"{row.replace(RANDOM, 'training from scratch')}" if scratch else f"{row} with {WAYS[protocol]}"
    return f"{said} ({accuracies(results, row, protocol).mean:.3f})"
