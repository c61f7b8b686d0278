"""Write the tables of the files of results in benchmarks/ into README.md and benchmarks/README.md.

    python tools/write_results.py            write them
    python tools/write_results.py --check    say which file differs from the results, and fail

A table stands between <!-- results: NAME --> and <!-- end -->; nothing else of a file is touched. So prose and file
can't drift apart: `python -m sslcourse compare --out benchmarks/results.json` measures, this writes, a test checks.
"""

import json
import re
import runpy
import sys
from pathlib import Path

from sslcourse import comparison, long_runs, tables
from sslcourse.comparison import Results
from sslcourse.summary import Summary

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))  # its programs share a few things
FILES = ("README.md", "benchmarks/README.md")
BLOCK = re.compile(r"(<!-- results: (?P<name>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def short(results: Results) -> str:
    """The table of the front page: linear probe and fine-tuning, the best at the end."""
    lines = [["", "linear probe", "fine-tuned"]]
    floor = comparison.floors_and_ceiling(results["labels"])[comparison.SCRATCH]
    rows = comparison.order(results)
    baselines = [row for row in rows if row not in results["tasks"]]
    for row in [*baselines, *reversed([row for row in rows if row in results["tasks"]])]:
        found = [comparison.accuracies(results, row, protocol) for protocol in ("linear", "finetune")]
        lines.append([tables.titled(results, row), *(str(summary or "") for summary in found)])
        if row == baselines[-1]:
            lines.append(["trained from scratch, for as long as pays", "", str(floor)])
    return tables.markdown(lines)


def curves(results: Results, protocol: str) -> str:
    """Mean accuracies against labels per class, a line for each row."""
    found = {row: comparison.curve(results, row, protocol) for row in comparison.order(results)}
    budgets = sorted({budget for curve in found.values() for budget in curve})
    lines = [["labels per class", *map(str, budgets)]]
    for row, curve in found.items():
        if curve:
            lines.append([row, *(f"{curve[b].mean:.3f}" if b in curve else "" for b in budgets)])
    return tables.markdown(lines)


def dense() -> str:
    """The tables of benchmarks/dense.json, as the program that measured it makes them."""
    program = runpy.run_path(str(ROOT / "benchmarks" / "dense.py"))
    return program["report"](program["Record"]().found)


def longer(results: Results, protocol: str, labels: int, data: str = "world") -> str:
    """A protocol of benchmarks/long.json against the training budget, with the comparison as budget 1."""
    both = long_runs.joined(long_runs.read(ROOT / "benchmarks" / "long.json"), results)
    return tables.markdown(long_runs.table(both, protocol, labels, data))


def variants(results: Results, labels: int = 10, data: str = "world") -> str:
    """Every variant in benchmarks/long.json beside its task, of the same seeds."""
    both = long_runs.joined(long_runs.read(ROOT / "benchmarks" / "long.json"), results)
    asked = [("probe", "linear", labels), ("kNN", "knn", labels)]
    return tables.markdown(long_runs.variants_table(both, asked, data))


def control(measure: str, digits: int) -> str:
    """The last `measure` of every way of benchmarks/control.json that has it, over its seeds, the highest first."""
    runs = json.loads((ROOT / "benchmarks" / "control.json").read_text(encoding="utf-8"))["runs"]
    ends = {way: [run[measure][-1] for run in of.values() if measure in run] for way, of in runs.items()}
    found = {way: Summary(tuple(values)) for way, values in ends.items() if values}
    lines = [["", "mean", "deviation", "seeds"]]
    for way, its in sorted(found.items(), key=lambda pair: -pair[1].mean):
        lines.append([way, *(f"{x:.{digits}f}" for x in (its.mean, its.std)), ", ".join(map(str, its.values))])
    return tables.markdown(lines)


def scratch() -> str:
    """Training from scratch, tuned in rate and length, against labels per class."""
    curve = comparison.curve(comparison.scratch(), comparison.SCRATCH, "finetune")
    return tables.markdown([["labels per class", *map(str, curve)], [comparison.SCRATCH, *map(str, curve.values())]])


def practice(part: str) -> str:
    """benchmarks/practice.json: what was measured, the differences, and what choosing adds; a column or a row for each record."""
    program = runpy.run_path(str(ROOT / "benchmarks" / "practice.py"))
    found = json.loads(program["RESULTS"].read_text(encoding="utf-8"))
    if part == "rows":
        names = dict.fromkeys(name for record in found.values() for name in record["rows"])
        cells = [
            [str(Summary(tuple(r["rows"][name]))) if name in r["rows"] else "" for r in found.values()]
            for name in names
        ]
        return tables.markdown([["", *found], *([name, *line] for name, line in zip(names, cells, strict=True))])
    if part == "gains":
        lines = [[record, *line] for record, its in found.items() for line in program["gains"](its)]
        return tables.markdown([["", "row", "over", "points"], *lines])
    return "\n\n".join(tables.markdown(program["chosen_table"](its)) for its in found.values() if "choosing" in its)


def captions() -> str:
    """benchmarks/captions.json: what each run's network of images and texts does, by how many pictures it learned from."""
    runs = json.loads((ROOT / "benchmarks" / "captions.json").read_text(encoding="utf-8"))["runs"]
    lines = [["", *(f"{run['pictures of each kind']:,} pictures of each kind" for run in runs)]]
    lines += [[what, *(f"{run['measured'][what]:.3f}" for run in runs)] for what in runs[0]["measured"]]
    return tables.markdown(lines)


def binding() -> str:
    """benchmarks/binding.json: the share of swapped captions told apart, by reader, by what is swapped and by number of pictures."""
    rows = json.loads((ROOT / "benchmarks" / "binding.json").read_text(encoding="utf-8"))["rows"]
    shares = ("learned from", "new", "blind")
    lines = [["read by", "swapped", "pictures with two such things", *shares]]
    lines += [[r["reader"], r["swapped"], f"{r['pairs']:,}", *(f"{r[share]:.3f}" for share in shares)] for r in rows]
    return tables.markdown(lines)


TABLES = {
    "short": short,
    "table": lambda results: tables.markdown(tables.table(results)),
    "matrix": lambda results: tables.markdown(tables.matrix_table(results)),
    "linear curves": lambda results: curves(results, "linear"),
    "dense": lambda results: dense(),
    "long probe": lambda results: longer(results, "linear", 10),
    "long probe of a hundred": lambda results: longer(results, "linear", 100),
    "long nearest neighbours": lambda results: longer(results, "knn", 10),
    "long finetuning": lambda results: longer(results, "finetune", 10),
    "long finetuning of a hundred": lambda results: longer(results, "finetune", 100),
    "long variants": variants,
    "photographs probe": lambda results: longer(results, "linear", 10, long_runs.PHOTOGRAPHS),
    "photographs probe of a hundred": lambda results: longer(results, "linear", 100, long_runs.PHOTOGRAPHS),
    "photographs variants": lambda results: variants(results, 100, long_runs.PHOTOGRAPHS),
    "photographs nearest neighbours": lambda results: longer(results, "knn", 100, long_runs.PHOTOGRAPHS),
    "long rank": lambda results: longer(results, "effective rank", 0),
    "long alignment": lambda results: longer(results, "alignment", 0),
    "scratch": lambda results: scratch(),
    "practice": lambda results: practice("rows"),
    "practice gains": lambda results: practice("gains"),
    "practice choosing": lambda results: practice("choosing"),
    "control": lambda results: control("returns", 2),
    "captions": lambda results: captions(),
    "binding": lambda results: binding(),
    "explorers": lambda results: control("cells", 0),
    "long uniformity": lambda results: longer(results, "uniformity", 0),
}


def written(text: str, results: Results) -> str:
    """A file's text with every table made again."""
    return BLOCK.sub(lambda m: m[1] + TABLES[m["name"]](results) + "\n" + m[3], text)


def main() -> int:
    results = comparison.read(ROOT / "benchmarks" / "results.json")
    differ = []
    for name in FILES:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = written(old, results)
        if old != new:
            differ.append(name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if "--check" in sys.argv and differ:
        print(f"not what the files of results say: {', '.join(differ)}; run tools/write_results.py")
    return int("--check" in sys.argv and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
