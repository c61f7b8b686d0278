"""Do the lessons' claims hold on another processor, with another number of threads, from another seed? Measure it.

    python tools/claims.py measure                        every lesson under every perturbation that isn't measured yet
    python tools/claims.py measure --only avx2 seed-1     under these alone (`--lessons 12 15`: of these lessons alone)
    python tools/claims.py table                          what was measured, into benchmarks/claims.json
    python tools/claims.py report                         the claims with the smallest margins
    python tools/claims.py check                          lessons and table together; `make lint` calls it

`measure` runs one lesson at a time and writes what its claims measured at once, so it can be stopped and started again.
One pass over all lessons takes half an hour of one core; more on old instruction sets. Each perturbation trains in a
cache of its own. `table` reads the thresholds that the lessons state now: another threshold or sentence, or a part less,
needs no new run; another measure does.

A claim's margin is the distance from the mean of what was measured to its threshold, in units of the spread (standard
deviation) over the perturbations; of several parts the smallest counts. A claim stands if it held every time and its
margin is at least two. Otherwise it is widened, measured over more seeds, or its sentence changes to what is true.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "claims.json"
OFFLINE = ROOT / "tests" / "offline"  # its sitecustomize.py switches the network off
DIRECTIONS = ("above", "below", "between", "exact")
LEAST_MARGIN = 2.0  # spreads
LEAST_RUNS = 8  # what a row is to have in the end
ENOUGH_FOR_A_MARGIN = 3  # with fewer runs, a spread says nothing


def instructions(aten: str, onednn: str, mkl: str) -> dict[str, str]:
    """The settings with which PyTorch, oneDNN and MKL use no newer instructions than these."""
    return {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn, "MKL_ENABLE_INSTRUCTIONS": mkl}


AVX512 = instructions("avx512", "AVX512_CORE", "AVX512")
AVX2 = instructions("avx2", "AVX2", "AVX2")
SSE = instructions("default", "SSE41", "SSE4_2")
# Each is the environment of a kernel; SALT is read by `salted`, all else by the libraries.
PERTURBATIONS = {
    "avx2": AVX2 | {"OMP_NUM_THREADS": "1"},
    "seed-1": {"OMP_NUM_THREADS": "1", "SALT": "1"},
    "sse": SSE | {"OMP_NUM_THREADS": "1"},
    "seed-2": {"OMP_NUM_THREADS": "1", "SALT": "2"},
    "avx512": AVX512 | {"OMP_NUM_THREADS": "1"},
    "seed-3, avx2": AVX2 | {"OMP_NUM_THREADS": "1", "SALT": "3"},
    "avx512, two threads": AVX512 | {"OMP_NUM_THREADS": "2"},
    "avx2, two threads": AVX2 | {"OMP_NUM_THREADS": "2"},
    "seed-4": {"OMP_NUM_THREADS": "1", "SALT": "4"},
    "seed-5": {"OMP_NUM_THREADS": "1", "SALT": "5"},
}
# The lessons whose claims depend most on a training come first.
BY_RISK = "12 15 16 10 08 11 09 13 07 06 05 04 03 02 01 14 19 20 22 00".split()
# Another seed of every training: of weights, order, views and rounds of clustering. Pictures, splits,
# and which of them carry labels, stay as they are. A kernel's own processes are salted as well.
OF_TRAINING = {"views", "order", "round"}  # what derive_seed is asked for with a training's seed
SALTED = """
import runpy
runpy.run_path({offline!r})
import torch
from sslcourse import device
manual_seed, seeded, derive_seed = torch.manual_seed, device.seeded, device.derive_seed
torch.manual_seed = torch.random.manual_seed = lambda seed: manual_seed(int(seed) + 7919 * {salt})
device.seeded = lambda seed: seeded(seed + 7919 * {salt})
device.derive_seed = lambda *parts: (
    derive_seed(*parts, "salt", {salt}) if {of_training!r} & set(parts) else derive_seed(*parts)
)
"""


# -- what a lesson claims -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Argument:
    """One argument of `holds` after the sentence: a part, or a starred series of parts of one kind."""

    direction: str
    thresholds: tuple[float, ...] | None  # None: not written as numbers
    measure: str  # the code of the value
    starred: bool

    @property
    def kind(self) -> tuple:
        return self.direction, self.thresholds

    @property
    def constant(self) -> bool:
        """Whether the value is made of numbers alone, so that the claim can't fail."""
        names = {node.id for node in ast.walk(ast.parse(f"f({self.measure})")) if isinstance(node, ast.Name)}
        return names <= {"f", "math", "torch", *DIRECTIONS, *dir(builtins)}


@dataclass(frozen=True)
class Claim:
    """A call of `holds` in a lesson."""

    lesson: str
    cell: str
    sentence: str | None  # None: put together when it runs
    arguments: tuple[Argument, ...]

    @property
    def exact(self) -> bool:
        return all(argument.direction == "exact" for argument in self.arguments)

    @property
    def place(self) -> str:
        return f"lesson {self.lesson[:2]}, cell {self.cell!r}"


def number(node: ast.expr) -> float:
    """The value of a number, or of a sum, difference, product or quotient of numbers; ValueError for anything else."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -number(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return number(left) + number(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return number(left) - number(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return number(left) * number(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return number(left) / number(right)
    raise ValueError(f"{ast.unparse(node)} isn't written as a number")


def argument_of(node: ast.expr) -> Argument:
    """An argument of `holds`; ValueError where it is none of the forms that can be read without running it."""
    starred = isinstance(node, ast.Starred)
    part = node
    if starred:
        if not isinstance(node.value, ast.GeneratorExp):
            raise ValueError(f"*{ast.unparse(node.value)} is no series such as *(above(...) for ...)")
        part = node.value.elt
    if not (isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in DIRECTIONS):
        raise ValueError(f"{ast.unparse(part)} is none of {', '.join(DIRECTIONS)}")
    if part.func.id == "exact":
        return Argument("exact", (0.5,), ast.unparse(node), starred)
    thresholds: tuple[float, ...] | None
    try:
        thresholds = tuple(number(threshold) for threshold in part.args[1:])
    except ValueError:
        thresholds = None
    part.args[1:] = []
    return Argument(part.func.id, thresholds, ast.unparse(node), starred)


def claims_of(notebook: NotebookNode, lesson: str) -> list[Claim]:
    """Every claim of a lesson, in order."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or "holds(" not in cell.source:
            continue
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        calls = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "holds"]
        for call in sorted(calls, key=lambda call: call.lineno):
            literal = isinstance(call.args[0], ast.Constant)
            arguments = tuple(argument_of(node) for node in call.args[1:])
            found.append(Claim(lesson, cell.id, call.args[0].value if literal else None, arguments))
    return found


def bound_anew(notebook: NotebookNode) -> set[str]:
    """The words of claims that a lesson gives another meaning, outside its functions."""
    found = set()
    for cell in notebook.cells:
        stack: list[ast.AST] = (
            [ast.parse(cell.source)] if cell.cell_type == "code" and "%" not in cell.source[:1] else []
        )
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
                continue
            if not isinstance(node, ast.Lambda | ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp):
                stack.extend(ast.iter_child_nodes(node))
    return found & {"holds", *DIRECTIONS}


def lessons(root: Path = ROOT) -> dict[str, NotebookNode]:
    """Every lesson by its name."""
    return {path.stem: nbformat.read(path, as_version=4) for path in sorted((root / "notebooks").glob("*.ipynb"))}


# -- measuring ----------------------------------------------------------------------------------------------------------


def records_folder() -> Path:
    """Where the records of runs lie: `claims` in the course's cache folder."""
    from sslcourse.data.cache import folder

    return folder() / "claims"


def values_of(arguments: tuple[Argument, ...], parts: list[dict]) -> list[list[float]]:
    """The measured values of each argument: one of a plain argument, several of a starred one.

    Neighbours of one kind are told apart by their number alone, so starred ones among them must be of equal length.
    """
    left, values = list(parts), []
    for kind, group in itertools.groupby(arguments, key=lambda argument: argument.kind):
        group = list(group)
        count = next((i for i, part in enumerate(left) if not _is_of(part, kind)), len(left))
        stars = sum(argument.starred for argument in group)
        each, rest = divmod(count - (len(group) - stars), stars) if stars else (1, count - len(group))
        if rest or each < 0:
            raise ValueError(f"{count} parts can't be dealt to {len(group)} arguments of the kind {kind}")
        for argument in group:
            taken = each if argument.starred else 1
            values.append([part["value"] for part in left[:taken]])
            del left[:taken]
    if left:
        raise ValueError(f"{len(left)} parts are left over")
    return values


def _is_of(part: dict, kind: tuple) -> bool:
    return (part["direction"], tuple(part["thresholds"])) == kind


def measured(claims: list[Claim], lines: list[dict]) -> list[dict]:
    """A record for each claim that ran: which it was, whether it held, and the values of its arguments."""
    by_sentence = {claim.sentence: claim for claim in claims if claim.sentence is not None}
    found = []
    for line in lines:
        claim = by_sentence.get(line["sentence"])
        record = {key: line[key] for key in ("sentence", "holds", "exact")}
        if claim is not None and not line["exact"]:
            values = values_of(claim.arguments, line["parts"])
            record["arguments"] = [
                {"direction": argument.direction, "measure": argument.measure, "values": its}
                for argument, its in zip(claim.arguments, values, strict=True)
            ]
        found.append(record)
    return found


@contextlib.contextmanager
def salted(salt: str | None) -> Iterator[Path]:
    """A folder whose sitecustomize.py switches the network off and, with a salt, changes the seeds of training."""
    if salt is None:
        yield OFFLINE
        return
    with tempfile.TemporaryDirectory() as folder:
        code = SALTED.format(offline=str(OFFLINE / "sitecustomize.py"), of_training=OF_TRAINING, salt=salt)
        Path(folder, "sitecustomize.py").write_text(code)
        yield Path(folder)


def run(path: Path, perturbation: str, cache: Path, record: Path, timeout: int) -> None:
    """Execute the lesson at `path` in a kernel of this perturbation; what its claims measure goes to `record`."""
    from nbclient import NotebookClient

    settings = dict(PERTURBATIONS[perturbation])
    with salted(settings.pop("SALT", None)) as customize, tempfile.TemporaryDirectory() as ipython:
        search = os.pathsep.join(filter(None, (str(customize), os.environ.get("PYTHONPATH"))))
        place = {"SSLCOURSE_CACHE": str(cache), "SSLCOURSE_CLAIMS": str(record), "IPYTHONDIR": ipython}
        env = {**os.environ, **settings, **place, "PYTHONHASHSEED": "0", "PYTHONPATH": search}
        env.pop("MPLBACKEND", None)
        client = NotebookClient(
            nbformat.read(path, as_version=4),
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute(env=env)


def measure(only: list[str], which: list[str], timeout: int) -> int:
    """Measure what isn't measured yet, one lesson after the other; the number of lessons that raised an error."""
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    failed = 0
    paths = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    order = [number for number in BY_RISK if number in paths] + sorted(paths.keys() - set(BY_RISK))
    for perturbation, lesson in itertools.product(only, order):
        path, folder = paths[lesson], records_folder() / perturbation.replace(", ", "-").replace(" ", "-")
        done = folder / f"{path.stem}.json"
        if (which and lesson not in which) or done.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / f"{path.stem}.jsonl"
        record.unlink(missing_ok=True)
        start = time.perf_counter()
        try:
            run(path, perturbation, folder / "cache", record, timeout)
        except (CellExecutionError, DeadKernelError) as error:
            failed += 1
            print(f"{perturbation}: {path.stem} FAILED\n{str(error)[-1500:]}", flush=True)
            continue
        lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        claims = claims_of(nbformat.read(path, as_version=4), path.stem)
        partial = done.with_suffix(".part")
        partial.write_text(json.dumps(measured(claims, lines)), encoding="utf-8")
        partial.replace(done)
        wrong = [line["sentence"] for line in lines if not line["holds"]]
        print(f"{perturbation}: {path.stem}, {time.perf_counter() - start:.0f} s, {len(wrong)} of {len(lines)} fail")
        print("".join(f"    FAILS: {sentence}\n" for sentence in wrong), end="", flush=True)
    return failed


# -- the table ----------------------------------------------------------------------------------------------------------


def read_records() -> dict[tuple[str, str], list[dict]]:
    """What was measured, by perturbation and lesson."""
    found = {}
    for name in PERTURBATIONS:
        for path in sorted((records_folder() / name.replace(", ", "-").replace(" ", "-")).glob("*.json")):
            found[name, path.stem] = json.loads(path.read_text(encoding="utf-8"))
    return found


def row_of(claim: Claim) -> dict:
    """The row of a claim that wasn't measured yet."""
    arguments = [
        {"direction": a.direction, "thresholds": a.thresholds, "measure": a.measure, "values": {}}
        for a in claim.arguments
    ]
    return {"lesson": claim.lesson, "sentence": claim.sentence, "arguments": arguments}


def matched(claim: Claim, sentence: str, arguments: list[dict]) -> list[dict]:
    """What was measured for each argument of the claim; none where it isn't what the claim states now.

    It is under the same sentence, with parts of the same directions, or by the code of the parts that remain.
    """
    if sentence == claim.sentence and [a["direction"] for a in arguments] == [a.direction for a in claim.arguments]:
        return arguments
    known = {argument["measure"]: argument for argument in arguments}
    found = [known[a.measure] for a in claim.arguments if a.measure in known]
    return found if len(found) == len(claim.arguments) else []


def build(old: dict, records: dict[tuple[str, str], list[dict]], claims: list[Claim]) -> dict:
    """The table: for every trained claim of the lessons its thresholds, and its values from `old` and the records."""
    rows = []
    for claim in claims:
        if claim.exact or claim.sentence is None:
            continue
        row = row_of(claim)
        for before in old.get("rows", ()):
            if before["lesson"] == claim.lesson:
                found = matched(claim, before["sentence"], before["arguments"])
                for mine, its in zip(row["arguments"], found, strict=bool(found)):
                    mine["values"] |= its["values"]
        for (perturbation, lesson), lines in records.items():
            for line in lines if lesson == claim.lesson else ():
                found = matched(claim, line["sentence"], line.get("arguments", []))
                for mine, its in zip(row["arguments"], found, strict=bool(found)):
                    mine["values"][perturbation] = [float(f"{value:.5g}") for value in its["values"]]
        rows.append(row | {"margin": rounded(margin(row))})
    broken = dict(old.get("exact claims that failed", {}))
    sentences = {(claim.lesson, claim.sentence) for claim in claims}
    for (perturbation, lesson), found in records.items():
        failing = [
            r["sentence"] for r in found if r["exact"] and not r["holds"] and (lesson, r["sentence"]) in sentences
        ]
        broken.pop(f"{lesson}, {perturbation}", None)
        if failing:
            broken[f"{lesson}, {perturbation}"] = failing
    return {"perturbations": PERTURBATIONS, "exact claims that failed": broken, "rows": rows}


def runs(row: dict) -> list[str]:
    """The perturbations under which the row's claim was measured."""
    return sorted(set.intersection(*(set(argument["values"]) for argument in row["arguments"])))


def distances(argument: dict, values: list[float]) -> list[float]:
    """How far values lie inside their interval: one distance for each value and each threshold; below zero: outside."""
    low = {"above": [0], "between": [0], "exact": [0]}.get(argument["direction"], [])
    high = {"below": [0], "between": [1]}.get(argument["direction"], [])
    thresholds = argument["thresholds"]
    return [v - thresholds[i] for v in values for i in low] + [thresholds[i] - v for v in values for i in high]


def failures(row: dict) -> list[str]:
    """The perturbations under which the row's claim didn't hold; a value that is no number holds nowhere."""
    return [
        run
        for run in runs(row)
        if not all(d > 0 for argument in row["arguments"] for d in distances(argument, argument["values"][run]))
    ]


def margin(row: dict) -> float | None:
    """The claim's smallest distance from a threshold, on average, in spreads; None with too few runs."""
    names = runs(row)
    if len(names) < ENOUGH_FOR_A_MARGIN:
        return None
    smallest = math.inf
    for argument in row["arguments"]:
        each = [distances(argument, argument["values"][name]) for name in names]
        for one in itertools.zip_longest(*each, fillvalue=math.nan):  # the same value and threshold, run by run
            if not all(map(math.isfinite, one)):
                return math.nan
            spread, mean = statistics.stdev(one), statistics.fmean(one)
            if spread > 0 or mean <= 0:
                smallest = min(smallest, mean / spread if spread > 0 else -math.inf)
    return smallest


def rounded(value: float | None) -> float | str | None:
    """As JSON can hold it: infinite margins (nothing varied) as a word."""
    return value if value is None else round(value, 2) if math.isfinite(value) else str(value)


def text_of(table: dict) -> str:
    """JSON with a line for each row, so that a diff shows which claims changed."""
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in table["rows"])
    head = json.dumps({key: value for key, value in table.items() if key != "rows"}, indent=2, ensure_ascii=False)
    return head.removesuffix("\n}") + f',\n  "rows": [\n{rows}\n  ]\n}}\n'


# -- lessons and table together -----------------------------------------------------------------------------------------


def failed_outputs(notebook: NotebookNode, lesson: str) -> Iterator[str]:
    """A sentence for every claim that fails in a stored output."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            for line in str(output.get("text", "")).splitlines():
                if line.startswith("FAILS: "):
                    yield f"lesson {lesson[:2]}, cell {cell.id!r}: its stored output says {line!r}"


def flaws(notebooks: dict[str, NotebookNode], table: dict) -> Iterator[str]:
    """A sentence for everything that is wrong between lessons and table."""
    rows = {(row["lesson"], row["sentence"]): row for row in table["rows"]}
    seen = set()
    for lesson, notebook in notebooks.items():
        yield from failed_outputs(notebook, lesson)
        for name in sorted(bound_anew(notebook)):
            yield f"lesson {lesson[:2]} binds {name!r} anew, which its claims need"
        try:
            claims = claims_of(notebook, lesson)
        except ValueError as error:
            yield f"lesson {lesson[:2]}: {error}"
            continue
        for claim in claims:
            if any(argument.constant for argument in claim.arguments):
                yield f"{claim.place}: {claim.sentence!r} can't fail: a part of it is made of numbers alone"
            if claim.exact:
                continue
            if claim.sentence is None or any(a.thresholds is None for a in claim.arguments):
                yield f"{claim.place}: a claim about something trained needs its sentence and thresholds written out"
                continue
            key = (lesson, claim.sentence)
            if key in seen:
                yield f"{claim.place}: the claim {claim.sentence!r} stands twice"
            seen.add(key)
            yield from row_flaws(claim, rows.get(key))
    yield from (
        f"benchmarks/claims.json has a row for {sentence!r}, which lesson {lesson[:2]} doesn't claim (any more)"
        for lesson, sentence in rows.keys() - seen
    )
    for place, sentences in table.get("exact claims that failed", {}).items():
        yield from (f"{place}: {sentence!r} is marked exact and didn't hold" for sentence in sentences)


def row_flaws(claim: Claim, row: dict | None) -> Iterator[str]:
    """What keeps a claim from standing."""
    if row is None:
        yield f"{claim.place}: {claim.sentence!r} has no row in benchmarks/claims.json: measure it, then make the table"
        return
    stated = [(a.direction, list(a.thresholds or ())) for a in claim.arguments]
    if stated != [(a["direction"], list(a["thresholds"])) for a in row["arguments"]]:
        yield f"{claim.place}: {claim.sentence!r} states other thresholds than its row: make the table again"
        return
    if found := failures(row):
        yield f"{claim.place}: {claim.sentence!r} didn't hold under {', '.join(found)}"
    its = margin(row)
    if its is not None and not its >= LEAST_MARGIN:
        yield f"{claim.place}: {claim.sentence!r} has a margin of {its:.2f} spreads, {LEAST_MARGIN:g} are needed"


def missing(table: dict) -> str:
    """How far the table is from the runs that every row is to have."""
    short = [len(runs(row)) for row in table["rows"] if len(runs(row)) < LEAST_RUNS]
    lacking = sum(LEAST_RUNS - count for count in short)
    return f"{len(table['rows'])} measured claims; {len(short)} have fewer than {LEAST_RUNS} runs ({lacking} missing)"


def read_table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"rows": []}


def report(table: dict) -> None:
    """Print the claims by margin, the smallest first, with what was measured."""
    ranked = [(margin(row), row) for row in table["rows"] if runs(row)]
    for its, row in sorted(ranked, key=lambda pair: (not failures(pair[1]), math.inf if pair[0] is None else pair[0])):
        if its is not None and its > 2 * LEAST_MARGIN and not failures(row):
            break
        failing = ", ".join(failures(row))
        shown = "few runs" if its is None else f"{its:.2f}"
        print(f"{row['lesson'][:2]} {shown:>8} {'FAILS: ' + failing if failing else ''}  {row['sentence']}")
        for argument in row["arguments"]:
            values = "  ".join(" ".join(f"{v:.4g}" for v in argument["values"][name]) for name in runs(row))
            print(f"      {argument['direction']} {argument['thresholds']}: {values}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "table", "report", "check"))
    parser.add_argument("--only", nargs="+", choices=PERTURBATIONS, default=list(PERTURBATIONS), metavar="PERTURBATION")
    parser.add_argument("--lessons", nargs="+", default=[], metavar="NN")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds for one cell")
    options = parser.parse_args()
    if options.action == "measure":
        return int(measure(options.only, options.lessons, options.timeout) > 0)
    if options.action == "table":
        claims = [claim for lesson, notebook in lessons().items() for claim in claims_of(notebook, lesson)]
        TABLE.write_text(text_of(build(read_table(), read_records(), claims)), encoding="utf-8")
        print(missing(read_table()))
        return 0
    table = read_table()
    if options.action == "report":
        report(table)
        return 0
    found = list(flaws(lessons(), table))
    print("\n".join([*found, missing(table)]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
