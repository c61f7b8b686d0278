"""What each method is worth after 1, 4, 16 and 64 times the steps of its lesson: the figures in benchmarks/long.json.

    python benchmarks/long.py --budget 1,4,16,64 --seeds 3               every task, on pocket world
    python benchmarks/long.py rotation simclr --budget 4 --jobs 4        these, four processes at once
    python benchmarks/long.py --ablation crop queue --budget 1,4,16      variants of a task, as curves
    python benchmarks/long.py --data folder:PATH --record "CIFAR-10 (JPEG)" rotation simclr --budget 1,4,16
    python benchmarks/long.py --bundle                                   the longest run of each row, into the package
    python benchmarks/long.py --report                                   the tables of long.json

**The rule.** A run of budget b has b times the steps of the course's recipe, and everything else of it: network, batch,
options, weight decay, and the *same peak learning rate*, for every task. Warm-up and cosine are stretched with the steps,
so that a run of budget 16 isn't at step 1/16 what the run of budget 1 is at its end: each budget is a run of its own.
Nothing is chosen on test. Labels per class, k of kNN, the probe's penalty and the learning rate of fine-tuning are those
of `sslcourse compare`, chosen on validation: a seed draws weights, order, views and the labelled images.

**Beside them**: raw pixels; random weights, whose fine-tuning is training from scratch, with b times the steps that a
pretrained network is fine-tuned for; and "supervised", the same network trained with every label that there is, for as
many steps as rotation, the learning rate chosen on validation, as the ceiling.

A measurement is written at once, and what stands in the file isn't measured again; a run goes on from its last
checkpoint. So any kill costs 100 steps at most (a supervised run: all of it). Several processes, started by --jobs or by
hand, share the work: each takes what none has begun. A run that stands in the file, whose folder is gone and whose weights
come with the package isn't trained again: what is still lacking is measured of those weights, with 16 bits a number.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sslcourse import (
    augment,
    backbones,
    bundled,
    compare,
    comparison,
    evaluate,
    geometry,
    long_runs,
    pretext,
    store,
    train,
)
from sslcourse import device as devices
from sslcourse.data import load
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError
from sslcourse.evaluate import Features
from sslcourse.files import write_atomically
from sslcourse.locking import Claimed, claimed
from sslcourse.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("long.json")
LABELS = (10, 100)  # per class
CURVE = 40  # points of a loss curve that are kept
VIEWED = 1000  # validation pictures for alignment and uniformity
PIXELS, RANDOM, SUPERVISED = comparison.PIXELS, comparison.RANDOM, "supervised"

# name: {row: (task, options)}; a row of an ablation is measured beside the task's own
ABLATIONS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "gap": {"context, no gap": ("context", {"gap": 0.0}), "context, no jitter": ("context", {"gap": 0.0, "jitter": 0.0})},
    "mask": {
        "mae, mask 0.25": ("mae", {"mask": 0.25}),
        "mae, mask 0.5": ("mae", {"mask": 0.5}),
        "mae, mask 0.9": ("mae", {"mask": 0.9}),
        "mae, normalized target": ("mae", {"normalize": True}),
        "inpainting, central hole": ("inpainting", {"mask": "central"}),
    },
    "crop": {f"simclr, crop {crop:g}": ("simclr", {"crop": crop}) for crop in (0.08, 0.2, 1.0)},
    "colour": {"simclr, colours kept": ("simclr", {"jitter": 0.0, "gray": 0.0})},
    "projector": {"simclr, no projector": ("simclr", {"hidden": 0})},
    "temperature": {f"simclr, temperature {t:g}": ("simclr", {"temperature": t}) for t in (0.02, 0.07, 1.0)},
    "queue": {"moco, queue 64": ("moco", {"queue": 64})},
    "momentum": {
        **{f"moco, momentum {m:g}": ("moco", {"momentum": m}) for m in (0.0, 0.9, 1.0)},
        **{f"byol, momentum {m:g}": ("byol", {"momentum": m}) for m in (0.0, 0.9, 1.0)},
    },
    "predictor": {
        "byol, no predictor": ("byol", {"predictor": False}),
        "simsiam, no predictor": ("simsiam", {"predictor": False}),
        "simsiam, narrow predictor": ("simsiam", {"predictor_hidden": 16}),
    },
    "stop-gradient": {"simsiam, no stop-gradient": ("simsiam", {"stop_gradient": False})},
    "small crops": {"dino, two small crops": ("dino", {"local": 2})},
    "centring": {"dino, no centring": ("dino", {"centring": False})},
    "sharpening": {"dino, no sharpening": ("dino", {"teacher_temperature": 1.0})},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What is trained: a task with its options, or a baseline (without a task)."""

    name: str
    task: str | None = None
    backbone: str | None = None  # other than the recipe's
    options: dict[str, Any] = field(default_factory=dict)

    def recipe(self, budget: int, seed: int) -> store.Recipe:
        steps = budget * store.recipe(self.task).config.steps
        return store.recipe(self.task, seed=seed, steps=steps, backbone=self.backbone, **self.options)


@dataclass(frozen=True)
class Job:
    """One row, trained for one budget from one seed. Budget 0: what no training changes."""

    row: Row
    budget: int
    seed: int

    def __str__(self) -> str:
        return f"{self.row.name}, budget {self.budget}, seed {self.seed}"

    @property
    def wanted(self) -> list[tuple[str, int]]:
        """(protocol, labels per class) of all that is measured of it; what takes longest comes last."""
        probes = [(protocol, labels) for protocol in ("knn", "linear") for labels in LABELS]
        tuned = [("finetune", labels) for labels in LABELS]
        shape = [(protocol, 0) for protocol in long_runs.SHAPE]
        if self.row.name.startswith(RANDOM):
            return tuned if self.budget else probes + shape
        return probes if self.row.name == PIXELS else probes + shape + tuned


def rows() -> dict[str, Row]:
    """Every row that can be asked for by name, the usual ones first."""
    tasks = {name: Row(name, name) for name in pretext.tasks()}
    transformer = Row("dino, vit-tiny", "dino", "vit-tiny", {"local": 2})
    baselines = [Row(name) for name in (PIXELS, RANDOM, f"{RANDOM}, vit-tiny", SUPERVISED)]
    variants = [Row(name, task, None, options) for of in ABLATIONS.values() for name, (task, options) in of.items()]
    return tasks | {row.name: row for row in [transformer, *baselines, *variants]}


def jobs(given: argparse.Namespace) -> Iterator[Job]:
    """What was asked for, the short runs first."""
    known = rows()
    for budget, seed, name in itertools.product([0, *given.budget], range(given.seeds), given.rows):
        trained = known[name].task or name == SUPERVISED
        if not (name == PIXELS and budget or trained and not budget):
            yield Job(known[name], budget, seed)


# --- training ----------------------------------------------------------------------------------------------------


class Clock:
    """Seconds of a run, over all its interruptions: of the wall, and of processors. It is told at every logged step."""

    def __init__(self, path: Path):
        self.path = path
        self.seconds = json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "processor_seconds": 0.0}
        self.last = (time.perf_counter(), time.process_time())

    def __call__(self, record: dict[str, float] | None = None) -> None:
        now = (time.perf_counter(), time.process_time())
        for name, begin, end in zip(self.seconds, self.last, now, strict=True):
            self.seconds[name] = round(self.seconds[name] + end - begin, 2)
        self.last = now
        write_atomically(self.path, json.dumps(self.seconds).encode())


def folder_of(job: Job, given: argparse.Namespace) -> Path:
    """Where a run is kept while it goes on, and afterwards."""
    words = f"{given.record} {job.row.name} budget{job.budget} seed{job.seed}"
    return given.runs / "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in words)


def trained(job: Job, splits: Splits, given: argparse.Namespace) -> backbones.Backbone:
    """The backbone of a job, trained or gone on with; beside it lies `run.json`, which says how."""
    side, folder = splits.size[0], folder_of(job, given)
    if (folder / "run.json").exists():
        return backbones.load(folder)
    if stored := in_the_package(job, given):
        return stored.load()
    if not job.row.task:
        return supervised(job, splits, given, folder) if job.row.name == SUPERVISED else untrained(job, side)
    asked = job.row.recipe(job.budget, job.seed).fitted(len(splits.unlabeled))
    task = asked.build(side)
    clock = Clock(folder / "seconds.json")
    history = train.pretrain(
        task, splits.unlabeled, asked.config, out=folder, resume=True, device=given.device, progress=False, on_log=clock
    )
    note(job, folder, given, task.backbone, asked.config, clock, history, task.options())
    return task.backbone


def in_the_package(job: Job, given: argparse.Namespace) -> bundled.Bundled | None:
    """The weights of this very run, if it stands in the file and they come with the package."""
    run = {"data": given.record, "row": job.row.name, "budget": job.budget, "seed": job.seed}
    runs = long_runs.read(given.out)["runs"] if given.out.exists() else []
    known = any(run.items() <= one.items() for one in runs)
    return next((one for one in bundled.listed() if known and run.items() <= one.record.items()), None)


def untrained(job: Job, side: int) -> backbones.Backbone:
    """Random weights: those of `compare`'s baselines."""
    arch = job.row.name.removeprefix(RANDOM).removeprefix(", ") or "resnet-tiny"
    return backbones.build(arch, image_size=side, seed=1000 + job.seed)


def supervised(job: Job, splits: Splits, given: argparse.Namespace, folder: Path) -> backbones.Backbone:
    """The same network trained with all labels, for as many steps as rotation; the learning rate is chosen on validation."""
    clock = Clock(folder / "seconds.json")
    steps = job.budget * store.recipe("rotation").config.steps
    config = dataclasses.replace(train.FINETUNE, steps=steps, batch_size=store.BATCH_SIZE, seed=job.seed)
    start = backbones.build("resnet-tiny", image_size=splits.size[0], seed=job.seed)

    def learn(trial: train.TrainConfig) -> tuple[train.Classifier, train.History, train.TrainConfig]:
        return *train.finetune(start, splits.train, trial, device=given.device, progress=False), trial

    def right(model: tuple[train.Classifier, train.History, train.TrainConfig]) -> float:
        return (model[0].predict(splits.val, device=given.device) == splits.val.labels).float().mean().item()

    classifier, history, chosen = evaluate.best_of_rates(learn, right, config, compare.RATES)
    backbones.save(classifier.backbone, folder / "backbone.safetensors")
    clock()
    note(job, folder, given, classifier.backbone, chosen, clock, history, {})
    return classifier.backbone


def note(
    job: Job,
    folder: Path,
    given: argparse.Namespace,
    backbone: backbones.Backbone,
    config: train.TrainConfig,
    clock: Clock,
    history: train.History,
    options: dict[str, Any],
) -> None:
    """Write beside a finished run, and to the file of results, what made it."""
    points = history.records[:: max(1, len(history) // CURVE)]
    run = {
        "data": given.record, "row": job.row.name, "budget": job.budget, "seed": job.seed, "task": job.row.task,
        "backbone": backbone.arch, "options": options, "steps": config.steps, "batch_size": config.batch_size,
        "learning_rate": config.learning_rate, "commit": commit(), "torch": torch.__version__,
        "device": devices.report(given.device), **clock.seconds,
        "loss": [[one["step"], round(one["loss"], 4)] for one in (*points, history.last)],
    }  # fmt: skip
    write_atomically(folder / "run.json", json.dumps(run).encode())


@functools.cache
def commit() -> str:
    """The commit of the code that trains, with a + where the tree differs from it."""
    ask = functools.partial(subprocess.run, capture_output=True, text=True, cwd=ROOT)
    found = ask(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
    changed = ask(["git", "status", "--porcelain", "--", "sslcourse"]).stdout.strip()
    return (found or "unknown") + "+" * bool(changed)


# --- measuring ---------------------------------------------------------------------------------------------------


def shape_of(backbone: backbones.Backbone, splits: Splits, device: str) -> dict[str, float]:
    """Effective rank and uniformity of the backbone's output on validation pictures, and the alignment of two views."""
    images = splits.val.images[:VIEWED]
    seen = augment.view(images, devices.generator(0), times=2)  # (2N, 3, H, W) in [0, 1]
    whole, views = (
        evaluate.extract(backbone, part, stage=4, device=device) for part in (images, (255 * seen).round().byte())
    )
    return {
        "effective rank": geometry.effective_rank(whole),
        "alignment": geometry.alignment(*views.chunk(2)),
        "uniformity": geometry.uniformity(whole),
    }


def measured(job: Job, pieces: list[tuple[str, int]], splits: Splits, given: argparse.Namespace) -> Iterator[dict]:
    """Records of one job, each as soon as it is known."""
    network = None if job.row.name == PIXELS else trained(job, splits, given)

    @functools.cache
    def features() -> Features:
        if network is not None:
            return Features.of(network, splits, device=given.device)
        return Features(*(compare.raw_pixels(part.images) for part in (splits.train, splits.val, splits.test)))

    shape = functools.cache(lambda: shape_of(network, splits, given.device))
    for protocol, labels in pieces:
        if protocol in long_runs.SHAPE:
            value = shape()[protocol]
        elif protocol == "finetune":
            value = tuned(job, network, splits, labels, given.device)
        else:
            value = evaluate.probe_accuracy(features(), splits, labels, job.seed, protocol)
        where = {"data": given.record, "row": job.row.name, "budget": job.budget, "seed": job.seed}
        yield where | {"protocol": protocol, "labels": labels, "value": round(value, 6)}


def tuned(job: Job, network: backbones.Backbone, splits: Splits, labels: int, device: str) -> float:
    """Test accuracy after fine-tuning; random weights are trained for `budget` times as many steps."""
    if job.row.name.startswith(RANDOM):
        config = dataclasses.replace(train.FINETUNE, steps=job.budget * train.FINETUNE.steps)
        return evaluate.finetune_accuracy(
            network, splits, labels, job.seed, config, compare.RATES, device=device, progress=False
        )
    return compare.finetuned(network, splits, labels, job.seed, device)


def lacking(job: Job, given: argparse.Namespace) -> list[tuple[str, int]]:
    """What the file doesn't have of a job, as it is now: other processes write it, too."""
    found = long_runs.read(given.out) if given.out.exists() else long_runs.empty()
    key = (given.record, job.row.name, job.budget, job.seed)
    known = {
        (one["protocol"], one["labels"]) for one in found["records"] if tuple(one[n] for n in long_runs.RUN) == key
    }
    return [piece for piece in job.wanted if piece not in known]


def measure(given: argparse.Namespace) -> None:
    """Two rounds over all jobs: training with the quick measurements, and then fine-tuning."""
    splits = load(given.data, size=given.size)
    evaluate.refuse_unlabelled(splits)
    most = evaluate.labels_at_most(splits)
    about = {"classes": len(splits.train.classes), "test_images": len(splits.test)}
    quick: Callable[[str], bool] = lambda protocol: protocol != "finetune"  # noqa: E731
    for now in (quick, lambda protocol: not quick(protocol))[: 1 if given.no_finetune else 2]:
        for job in jobs(given):
            try:
                with claimed(folder_of(job, given).with_suffix(".job"), file=True):
                    pieces = [(p, labels) for p, labels in lacking(job, given) if now(p) and labels <= most]
                    for record in measured(job, pieces, splits, given) if pieces else ():
                        made = folder_of(job, given) / "run.json"
                        run = [json.loads(made.read_text())] if made.exists() else []
                        long_runs.add(given.out, given.record, about, run, [record])
                        print(f"{job}: {record['protocol']} {record['labels']} {record['value']:.3f}", flush=True)
            except Claimed:
                continue  # another process is at it


def in_parallel(given: argparse.Namespace) -> int:
    """As many processes as were asked for, each with the same arguments but that number."""
    words = [sys.executable, __file__, *sys.argv[1:], "--jobs", "1"]
    processes = [subprocess.Popen(words) for _ in range(given.jobs)]
    return max(process.wait() for process in processes)


# --- into the package --------------------------------------------------------------------------------------------


def bundle(given: argparse.Namespace) -> None:
    """The longest finished run of seed 0 of each task that was asked for, with 16 bits, into the package."""
    found, known = long_runs.read(given.out), rows()
    for name in given.rows:
        runs = [one for one in found["runs"] if (one["data"], one["row"], one["seed"]) == (given.record, name, 0)]
        if known[name].task and runs:
            run = max(runs, key=lambda one: one["budget"])
            scores = [one for one in found["records"] if all(one[part] == run[part] for part in long_runs.RUN)]
            scores = {f"{one['protocol']}, {one['labels']}": one["value"] for one in scores}
            words = [name] if " " not in name else [f'"{name}"']
            command = f"python benchmarks/long.py {words[0]} --budget {run['budget']}"
            job = Job(known[name], run["budget"], 0)
            path = bundled.put(backbones.load(folder_of(job, given)), run | {"command": command, "measured": scores})
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB")


def report(found: long_runs.Found) -> str:
    """The tables of every data set in Markdown: each protocol and number of labels against the budget."""
    lines = []
    for data in found["data"]:
        for protocol, labels in [
            *itertools.product(long_runs.SCORES, LABELS),
            *((name, 0) for name in long_runs.SHAPE),
        ]:
            cells = long_runs.table(found, protocol, labels, data)
            of = f"{protocol}, {labels} labels per class" if labels else protocol
            lines += [f"{data}: {of}", "", markdown(cells), ""]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="tasks, or any other row; by default all but ablations")
    parser.add_argument("--budget", default="1,4,16,64", help="multiples of the recipe's steps")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--ablation", nargs="*", default=[], metavar="NAME", help=f"instead: {', '.join(ABLATIONS)}")
    parser.add_argument("--data", default="world")
    parser.add_argument("--size", type=int)
    parser.add_argument("--record", help="what the data are called in the file (a folder's path has no place there)")
    parser.add_argument("--no-finetune", action="store_true", help="leave fine-tuning for another time")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "long", help="where the runs are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--bundle", action="store_true", help="train nothing: put finished runs into the package")
    parser.add_argument("--report", action="store_true", help="train nothing: print the tables")
    given = parser.parse_args()
    known, variants = rows(), [name for of in ABLATIONS.values() for name in of]
    asked = [name for of in given.ablation for name in ABLATIONS.get(of, {of: None})] + given.rows
    given.rows = asked or [name for name in known if name not in variants]
    for name in given.rows:
        if name not in known:
            parser.error(f"there is no row {name!r}; choose among {', '.join(known)}")
    given.budget = sorted({int(budget) for budget in given.budget.split(",")})
    if given.record is None and ":" in given.data and not given.data.startswith("world"):
        parser.error("--record NAME is needed beside a folder: what its pictures are called in the file")
    given.record = given.record or given.data
    return given


def main() -> int:
    given = arguments()
    try:
        if given.report:
            print(report(long_runs.read(given.out)))
        elif given.bundle:
            bundle(given)
        elif given.jobs > 1:
            return in_parallel(given)
        else:
            measure(given)
    except CourseError as error:
        print(f"long.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
