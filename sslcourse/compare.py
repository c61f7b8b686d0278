"""Every method beside every other: one probe, the same labels, seeds and intervals, and baselines that keep it honest.

A *row* is a pretext task or a baseline, a *run* is one seed of a row. A seed draws the weights, the order and the views
of pretraining, the labelled images, and the weights of the baselines, so that differences are paired. Results are
written after every measurement, and what stands in the file isn't measured again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import backbones, evaluate, locking, pretext, store, train
from sslcourse import device as devices
from sslcourse.comparison import (  # noqa: F401 (lessons ask all of this of the comparison)
    FACTOR,
    FORMAT,
    PIXELS,
    RANDOM,
    Results,
    architecture,
    curve,
    gain,
    matrix,
    order,
    random_name,
    read,
    record,
    values,
    write,
)
from sslcourse.data import load, stream
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.errors import CourseError, whole_number
from sslcourse.evaluate import Features
from sslcourse.paths import typed
from sslcourse.tables import aligned, markdown, matrix_table, points, table, text, titled  # noqa: F401

BUDGETS = (1, 2, 5, 10, 20, 50, 100, 500)  # labels per class of the curves
RATES = (1e-3, 3e-3, 1e-2)  # learning rates of fine-tuning, chosen among on validation
PIXELS_MOST = 100  # labels per class: a probe of thousands of numbers on thousands of images takes minutes
PASSES = 5  # over the labelled images, at least, in fine-tuning
HISTOGRAM = "colour histogram"
FACTORS = "factors"  # a measurement that gives a record for each known factor


@dataclass(frozen=True)
class Row:
    """One line of the table. `network` gives a seed's backbone; it is None where features come from the pixels."""

    name: str
    arch: str = ""
    network: Callable[[int], backbones.Backbone] | None = None
    pixels: Callable[[Tensor], Tensor] | None = None  # uint8 (N, 3, H, W) -> features (N, d)
    recipe: Callable[[int], store.Recipe] | None = None
    most: int | None = None  # labels per class up to which it is probed

    @property
    def baseline(self) -> str:
        """The row that this one is measured against: the same architecture with random weights."""
        return random_name(self.arch)


class Measurement(NamedTuple):
    """What is to be measured of one seed of a row: with so many labels per class, or FACTORS with all of them (0)."""

    row: Row
    seed: int
    protocol: str
    labels: int

    @property
    def tenths(self) -> int:
        """About how many tenths of a second it takes on two cores: its part of the bar, and of no result."""
        return {"linear": 2 + self.labels // 10, "knn": 1, "finetune": 60 + self.labels, FACTORS: 80}[self.protocol]


def colour_histogram(images: Tensor, bins: int = 4) -> Tensor:
    """How often each of bins^3 colours occurs in an image, and nothing of where: uint8 (N, 3, H, W) -> (N, bins^3)."""
    level = images.long() * bins // 256  # (N, 3, H, W), in [0, bins)
    cell = (level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]  # (N, H, W)
    counts = torch.nn.functional.one_hot(cell.flatten(1), bins**3).sum(dim=1)  # (N, bins^3)
    return counts.float() / cell[0].numel()


def raw_pixels(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> (N, 3 * H * W) in [0, 1]."""
    return images.flatten(1).float() / 255


def rows(tasks: Sequence[str], unlabeled: ImageSet, *, steps: int | None = None, **options: Any) -> list[Row]:
    """The baselines and the tasks; `steps` in place of the course's own, `options` go to `store.pretrained`."""
    for task in tasks:
        pretext.find(task)  # a wrong name is said before anything is computed
    recipes = {task: store.recipe(task, steps=steps) for task in tasks}
    side = unlabeled.size[0]

    def random(arch: str) -> Callable[[int], backbones.Backbone]:
        return lambda seed: backbones.build(arch, image_size=side, seed=1000 + seed)

    def pretrained(task: str) -> Callable[[int], backbones.Backbone]:
        return lambda seed: store.pretrained(task, unlabeled, seed=seed, steps=steps, **options)

    result = [Row(PIXELS, pixels=raw_pixels, most=PIXELS_MOST), Row(HISTOGRAM, pixels=colour_histogram)]
    for arch in sorted({"resnet-tiny", *(recipe.arch for recipe in recipes.values())}):
        result.append(Row(random_name(arch), arch, random(arch)))
    for task in tasks:
        again = lambda seed, task=task: store.recipe(task, seed=seed, steps=steps)  # noqa: E731
        result.append(Row(task, recipes[task].arch, pretrained(task), recipe=again))
    return result


def run(
    tasks: Sequence[str] | None = None,
    data: str = "world",
    *,
    seeds: int = 5,
    labels: int = 10,
    budgets: Iterable[int] = BUDGETS,
    finetune: Iterable[int] | None = None,
    scratch: Iterable[int] = BUDGETS,
    factors: bool = True,
    steps: int | None = None,
    out: str | Path | None = None,
    size: int | None = None,
    labels_file: str | Path | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Results:
    """Measure `tasks` (default: all that need no captions) and the baselines, and return the results; they are plain numbers for JSON.

    labels    labels per class of the table
    budgets   labels per class of the linear probe's curve, beside the table's;  finetune: of fine-tuning pretrained
              backbones (by default the table's), and scratch: of training from scratch. Budgets that the data can't give
              are left out, and "notes" say which
    factors   probe the known factors of the images too, where the data has any
    labels_file  a CSV file with the classes of the images of a folder
    out       a JSON file that is written after every measurement and read at the start

    A task that refuses the images (colorization of gray ones, say) is left out, and its sentence kept under "refused".
    Raises CourseError for an unknown task, data without labels, a file of other data, and one that another run writes.
    """
    seeds = whole_number("at least one seed is needed to measure anything: their number", seeds)
    out = None if out is None else typed(out)
    tasks = list(pretext.tasks()) if tasks is None else list(dict.fromkeys(tasks))
    for task in tasks:
        pretext.find(task)
    with locking.claimed(out, file=True) if out is not None else contextlib.nullcontext():
        splits = load(data, size=size, labels=labels_file)
        evaluate.refuse_unlabelled(splits)
        wanted, notes = affordable(splits, labels, budgets, (labels,) if finetune is None else finetune, scratch)
        refused = refusals(tasks, splits.unlabeled)
        tasks = [task for task in tasks if task not in refused]
        if refused and not tasks:
            raise CourseError(f"none of the tasks can learn from {data}: {' '.join(refused.values())}")
        results = _begin(out, data, splits, labels)
        results["tasks"] = sorted({*results["tasks"], *tasks})
        results |= {"refused": refused, "notes": notes}
        lines, pixels = rows(tasks, splits.unlabeled, steps=steps, device=device, progress=False), _digest(splits)
        probed = evaluate.known_factors(splits) if factors else []
        jobs = []
        for seed, row in itertools.product(range(seeds), lines):
            _forget_other_weights(results, row, seed, splits, pixels)
            jobs += missing(results, row, seed, wanted, probed)
        _measure(jobs, splits, results, out, device, progress)
    return results


def affordable(
    splits: Splits, labels: int, budgets: Iterable[int], finetune: Iterable[int], scratch: Iterable[int]
) -> tuple[dict[str, list[int]], list[str]]:
    """{protocol: labels per class that every class has}, and a sentence for each protocol that must leave some out.

    Fine-tuned rows need one from scratch beside them, so that "scratch" holds all of "finetune", and nothing without it.
    """
    most, labels = evaluate.labels_at_most(splits), whole_number("labels per class", labels)
    if labels > most:
        raise CourseError(
            f"{labels} labels per class were asked for, and the smallest class has {most}; ask for fewer."
        )
    finetune = list(finetune)
    asked = {
        "linear": (*budgets, labels),
        "knn": (labels,),
        "finetune": finetune,
        "scratch": (*scratch, *finetune) if finetune else (),
    }
    named = {"linear": "the linear probe", "finetune": "fine-tuning", "scratch": "training from scratch"}
    wanted, notes = {}, []
    for protocol, given in asked.items():
        given = sorted({whole_number("labels per class", budget) for budget in given})
        wanted[protocol] = [budget for budget in given if budget <= most]
        if dropped := [str(budget) for budget in given if budget > most]:
            notes.append(
                f"{named[protocol].capitalize()} with {', '.join(dropped)} labels per class was left out: the smallest "
                f"class has {most} images in train."
            )
    return wanted, notes


def refusals(tasks: Sequence[str], unlabeled: ImageSet) -> dict[str, str]:
    """{task: why} for the tasks that can't learn from these images."""
    found = {}
    for task in tasks:
        try:
            model = store.recipe(task).build(unlabeled.size[0])
            model.beside(unlabeled)
            model.prepare(stream.looked_at(stream.source(unlabeled)))
        except CourseError as error:
            found[task] = str(error)
    return found


def missing(
    results: Results, row: Row, seed: int, wanted: dict[str, list[int]], factors: Sequence[str]
) -> list[Measurement]:
    """What the results lack of one seed of a row."""
    known = {
        (one["protocol"], one["labels"]) for one in results["records"] if (one["row"], one["seed"]) == (row.name, seed)
    }
    pieces = [("linear", budget) for budget in wanted["linear"] if row.most is None or budget <= row.most]
    pieces += [("knn", budget) for budget in wanted["knn"]]
    if row.network is not None:
        # the curve from scratch of one architecture is enough
        pieces += [("finetune", budget) for budget in wanted["scratch" if row.name == RANDOM else "finetune"]]
    found = [Measurement(row, seed, *piece) for piece in pieces if piece not in known]
    probed = row.network is not None or seed == 0  # pixels are the same for every seed
    if probed and any((FACTOR + name, 0) not in known for name in factors):
        found.append(Measurement(row, seed, FACTORS, 0))
    return found


def _measure(
    jobs: list[Measurement], splits: Splits, results: Results, out: Path | None, device: Any, progress: bool
) -> None:
    """All measurements in order, with a bar that knows how long each kind takes; results are written after each."""
    groups = [list(group) for _, group in itertools.groupby(jobs, key=lambda job: (job.row.name, job.seed))]
    total = sum(job.tenths for job in jobs) + sum(_training_tenths(group[0]) for group in groups)
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
    with tqdm(total=total, bar_format=form, desc="compare", disable=not progress) as bar:
        for group in groups:
            row, seed = group[0].row, group[0].seed
            bar.set_description(f"{row.name}, seed {seed}")
            network = row.network(seed) if row.network else None
            features = features_of(row, network, splits, device)
            bar.update(_training_tenths(group[0]))
            for job in group:
                bar.set_description(f"{row.name}, seed {seed}, {job.protocol}")
                results["records"] += _records(job, network, features, splits, results["chance"], device)
                if out is not None:
                    write(results, out)
                bar.update(job.tenths)


def _training_tenths(job: Measurement) -> int:
    """About how many tenths of a second a row takes to pretrain, before it can be measured."""
    return 0 if job.row.recipe is None else round(10 * job.row.recipe(job.seed).seconds)


def _records(
    job: Measurement,
    network: backbones.Backbone | None,
    features: Features,
    splits: Splits,
    chance: dict[str, float],
    device: Any,
) -> list[dict[str, Any]]:
    """Measure: the record that it gives, or one for each factor. What guessing gives of a factor is put into `chance`."""
    row, seed, protocol, labels = job
    if protocol == FACTORS:
        found = evaluate.factor_probe(narrowed(features), splits)
        chance.update({name: factor["chance"] for name, factor in found.items()})
        return [record(row.name, seed, FACTOR + name, 0, factor["score"]) for name, factor in found.items()]
    if protocol == "finetune":
        value = finetuned(network, splits, labels, seed, device)
    else:
        value = evaluate.probe_accuracy(features, splits, labels, seed, protocol)
    return [record(row.name, seed, protocol, labels, value)]


def features_of(row: Row, network: backbones.Backbone | None, splits: Splits, device: Any) -> Features:
    """All four stages of the network side by side, or what the row takes from the pixels."""
    if network is not None:
        return Features.of(network, splits, device=device)
    return Features(*(row.pixels(part.images) for part in (splits.train, splits.val, splits.test)))


def narrowed(features: Features, width: int = 256) -> Features:
    """Features of more than `width` numbers on the leading principal components of train, (N, width): pixels are many."""
    if features.train.shape[1] <= width:
        return features
    width = min(width, len(features.train))  # as many as there are images, at most
    components = PCA(width, svd_solver="randomized", random_state=0).fit(features.train.numpy())
    parts = (features.train, features.val, features.test)
    return Features(*(torch.from_numpy(components.transform(part.numpy())) for part in parts))


def finetuned(network: backbones.Backbone, splits: Splits, labels: int, seed: int, device: Any) -> float:
    """Test accuracy after fine-tuning: `train.FINETUNE`, and with many labels at least PASSES passes over them."""
    images = labels * len(splits.train.classes)
    steps = max(train.FINETUNE.steps, math.ceil(PASSES * images / train.FINETUNE.batch_size))
    config = dataclasses.replace(train.FINETUNE, steps=steps)
    return evaluate.finetune_accuracy(network, splits, labels, seed, config, rates=RATES, device=device, progress=False)


# --- what is known already ---------------------------------------------------------------------------------------


def _begin(out: Path | None, data: str, splits: Splits, labels: int) -> Results:
    """The results so far, from the file where there is one."""
    about = {
        "format": FORMAT,
        "data": data,
        "images": str(splits),
        "labels": labels,
        "classes": len(splits.train.classes),
        "test_images": len(splits.test),
        "device": devices.report("cpu").split(";")[0],
        "torch": torch.__version__,
    }
    found = read(out) if out is not None and out.exists() else {}
    for name in ("data", "labels"):
        if name in found and found[name] != about[name]:
            raise CourseError(
                f"{out} holds a comparison with {name} {found[name]!r}, and this one has {about[name]!r}; "
                "choose another file."
            )
    kept = {"tasks": [], "runs": {}, "chance": {}, "records": []}
    return about | {name: found.get(name, empty) for name, empty in kept.items()}


def _digest(splits: Splits) -> str:
    """A digest of all labelled pixels."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (splits.train, splits.val, splits.test):
        digest.update(part.images.numpy())
    return digest.hexdigest()


def _forget_other_weights(results: Results, row: Row, seed: int, splits: Splits, pixels: str) -> None:
    """Drop the records of a run that were made from other weights: another recipe, code, data or PyTorch."""
    recipe = row.recipe(seed) if row.recipe is not None else None
    weights = f"{row.name} {torch.__version__}" if recipe is None else store.entry(recipe, splits.unlabeled).stem
    key = f"{weights} on {pixels}"
    runs = results["runs"].setdefault(row.name, {})
    if runs.get(str(seed), {}).get("key") == key:
        return
    results["records"] = [one for one in results["records"] if (one["row"], one["seed"]) != (row.name, seed)]
    runs[str(seed)] = {"key": key, "backbone": row.arch}
    if recipe is not None:
        runs[str(seed)] |= {"steps": recipe.config.steps, "batch_size": recipe.config.batch_size}
