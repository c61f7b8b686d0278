"""Every method beside every other: one probe, the same labels, seeds and intervals, and baselines that keep it honest.

A *row* is a pretext task, a file of published weights or a baseline, a *run* is one seed of a row. A seed draws the weights, the order and the views
of pretraining, the labelled images, and the weights of the baselines, so that differences are paired. Results are
written after every measurement, and what stands in the file isn't measured again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import backbones, evaluate, locking, pretext, store, train, weights
from sslcourse import device as devices
from sslcourse import record as record_of
from sslcourse.comparison import (  # noqa: F401 (lessons ask all of this of the comparison)
    FACTOR,
    FORMAT,
    PIXELS,
    RANDOM,
    Results,
    advice,
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
from sslcourse.console import shown
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
    """One line of the table.

    network    gives a seed's backbone; None where features come from the pixels
    pixels     uint8 (N, 3, H, W) -> features (N, d)
    recipe     of a pretext task, by seed
    most       labels per class up to which it is probed
    published  a digest of weights that someone else trained, which are the same for every seed, and the stage where it is
               another than all
    stage      where features are read
    scratch    whether its networks are also trained from scratch with every number of labels
    """

    name: str
    arch: str = ""
    network: Callable[[int], backbones.Backbone] | None = None
    pixels: Callable[[Tensor], Tensor] | None = None
    recipe: Callable[[int], store.Recipe] | None = None
    most: int | None = None
    published: str = ""
    scratch: bool = False
    stage: int | str = "all"

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
    cell = ((level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]).flatten(1)  # (N, H * W)
    ones = torch.ones(cell.shape, device=cell.device)
    counts = torch.zeros(len(images), bins**3, device=cell.device).scatter_add_(1, cell, ones)  # (N, bins^3)
    return counts / cell.shape[1]


def raw_pixels(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> (N, 3 * H * W) in [0, 1]."""
    return images.flatten(1).float() / 255


def rows(
    recipes: Mapping[str, Callable[[int], store.Recipe]],
    unlabeled: ImageSet,
    *,
    backbone: str | None = None,
    stem: str | None = None,
    published: Mapping[str, backbones.Backbone] | None = None,
    stage: int | str | None = None,
    **options: Any,
) -> list[Row]:
    """The baselines, the tasks and published weights.

    recipes         task -> seed -> how it is pretrained
    backbone, stem  of the networks of chance, beside the backbones of the tasks
    stage           of published weights (default: what their record says, or all)
    options         as `store.made` takes them
    """
    side, archs = unlabeled.size[0], {backbone or "resnet-tiny", *(recipe(0).arch for recipe in recipes.values())}

    def random(arch: str) -> Callable[[int], backbones.Backbone]:
        own = None if arch in backbones.TRANSFORMERS else stem
        return lambda seed: backbones.build(arch, stem=own, image_size=side, seed=1000 + seed)

    def pretrained(recipe: Callable[[int], store.Recipe]) -> Callable[[int], backbones.Backbone]:
        return lambda seed: store.made(recipe(seed), unlabeled, **options)

    result = [Row(PIXELS, pixels=raw_pixels, most=PIXELS_MOST), Row(HISTOGRAM, pixels=colour_histogram)]
    for i, arch in enumerate(sorted(archs)):
        result.append(Row(random_name(arch), arch, random(arch), scratch=i == 0))
    for task, recipe in recipes.items():
        result.append(Row(task, recipe(0).arch, pretrained(recipe), recipe=recipe))
    for name, network in (published or {}).items():
        read_at = stage or record_of.of(network).stage or "all"
        digest = weights_digest(network) + ("" if read_at == "all" else f" at {read_at}")
        made = {"network": lambda seed, network=network: network, "published": digest, "stage": read_at}
        result.append(Row(name, network.arch, **made))
    return result


def weights_digest(network: backbones.Backbone) -> str:
    """What changes when any of a network's numbers does."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
    batch_size: int | None = None,
    backbone: str | None = None,
    stem: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    published: Sequence[str | Path] = (),
    reading: Mapping[str, Any] | None = None,
    stage: int | str | None = None,
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
    steps, batch_size, backbone, stem
              of pretraining, in place of the course's own for each task; backbone and stem are those of the networks of
              chance as well
    options   task -> its options
    published files of weights that someone else trained, or folders of runs, each a row of its own;  reading: what their
              files don't say, as `weights.load` takes it;  stage: where their features are read, as `evaluate` takes it
    labels_file  a CSV file with the classes of the images of a folder
    out       a JSON file that is written after every measurement and read at the start

    A task that refuses the images (colorization of gray ones, say) is left out, as are weights that don't take their size,
    and the sentence is kept under "refused". Raises CourseError for an unknown task, data without labels, weights that
    can't be read, a file of other data, and one that another run writes.
    """
    seeds = whole_number("at least one seed is needed to measure anything: their number", seeds)
    out = None if out is None else typed(out)
    tasks = list(pretext.tasks()) if tasks is None else list(dict.fromkeys(tasks))
    for task in tasks:
        pretext.find(task)
    if backbone is not None:
        backbones.refuse_unknown(backbone)
    changes = {"steps": steps, "batch_size": batch_size, "backbone": backbone, "stem": stem}
    recipes = {task: _recipe(task, changes, (options or {}).get(task, {})) for task in tasks}
    for recipe in recipes.values():
        recipe(0)  # a wrong number is said before anything is computed
    checkpoints = _published(published, reading or {})
    with locking.claimed(out, file=True) if out is not None else contextlib.nullcontext():
        splits = load(data, size=size, labels=labels_file)
        evaluate.refuse_unlabelled(splits)
        wanted, notes = affordable(splits, labels, budgets, (labels,) if finetune is None else finetune, scratch)
        refused = refusals(recipes, splits.unlabeled)
        if refused and len(refused) == len(recipes):
            raise CourseError(f"none of the tasks can learn from {data}: {' '.join(refused.values())}")
        refused |= unmeasurable(checkpoints, splits, device, stage)
        recipes, checkpoints = (
            {name: made for name, made in found.items() if name not in refused} for found in (recipes, checkpoints)
        )
        results = _begin(out, data, splits, labels) | {"refused": refused, "notes": notes}
        notes += _forget_other_data(results, splits)
        for kind, found in (("tasks", recipes), ("published", checkpoints)):
            results[kind] = sorted({*results[kind], *found})
        chance = {"backbone": backbone, "stem": stem}
        chance |= {"published": checkpoints, "stage": stage}
        lines = rows(recipes, splits.unlabeled, device=device, progress=False, **chance)
        jobs = _jobs(results, lines, seeds, splits, wanted, factors, stem)
        _measure(jobs, splits, results, out, device, progress)
        results["advice"] = advice(results)
        if out is not None:
            write(results, out)
    return results


def _jobs(
    results: Results,
    lines: Sequence[Row],
    seeds: int,
    splits: Splits,
    wanted: dict[str, list[int]],
    factors: bool,
    stem: str | None,
) -> list[Measurement]:
    """What the results lack, once those of other weights are dropped from them: all rows of a seed, then the next seed."""
    on, probed, jobs = _data_digests(splits), evaluate.known_factors(splits) if factors else [], []
    for seed, row in itertools.product(range(seeds), lines):
        _forget_other_weights(results, row, seed, splits, on, stem)
        jobs += missing(results, row, seed, wanted, probed)
    return jobs


def _recipe(task: str, changes: Mapping[str, Any], options: Mapping[str, Any]) -> Callable[[int], store.Recipe]:
    return lambda seed: store.recipe(task, seed=seed, **changes, **options)


def _published(places: Sequence[str | Path], reading: Mapping[str, Any]) -> dict[str, backbones.Backbone]:
    """{name of the row: network} of files of weights. A file that is called as a task gets its folder before its name."""
    found = {}
    for place in dict.fromkeys(map(str, places)):
        name = place if place not in {*pretext.tasks(), PIXELS, HISTOGRAM} else f"./{place}"
        found[shown(name)] = weights.load(place, **reading)
    return found


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


def refusals(recipes: Mapping[str, Callable[[int], store.Recipe]], unlabeled: ImageSet) -> dict[str, str]:
    """{task: why} for the tasks that can't learn from these images."""
    found = {}
    for task, recipe in recipes.items():
        try:
            model = recipe(0).build(unlabeled.size[0])
            model.beside(unlabeled)
            model.prepare(stream.looked_at(stream.source(unlabeled)))
        except CourseError as error:
            found[task] = str(error)
    return found


def unmeasurable(
    networks: Mapping[str, backbones.Backbone], splits: Splits, device: Any, stage: int | str | None = None
) -> dict[str, str]:
    """{name: why} for the networks that don't take images of this size, or lack the stage; for the others, says where it
    isn't their own."""
    found = {}
    for name, network in networks.items():
        try:
            read_at = record_of.stage_of(name, network, stage)
            evaluate.extract(network, splits.train.images[:2], stage=read_at, device=device)
            record_of.say_other_size(network, splits.size[1])
        except CourseError as error:
            found[name] = str(error)
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
        pieces += [("finetune", budget) for budget in wanted["scratch" if row.scratch else "finetune"]]
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
    known: dict[str, Features] = {}  # of published weights, which are the same for every seed
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
    with tqdm(total=total, bar_format=form, desc="compare", disable=not progress) as bar:
        for group in groups:
            row, seed = group[0].row, group[0].seed
            bar.set_description(f"{row.name}, seed {seed}")
            network = row.network(seed) if row.network else None
            features = known.get(row.name) or features_of(row, network, splits, device)
            known |= {row.name: features} if row.published else {}
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
    """Those of the row's stage of the network, or what the row takes from the pixels."""
    if network is not None:
        return Features.of(network, splits, stage=row.stage, device=device)
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
        "independent": splits.test.independent,
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
    kept = {"tasks": [], "published": [], "runs": {}, "chance": {}, "records": []}
    return about | {name: found.get(name, empty) for name, empty in kept.items()}


def _data_digests(splits: Splits) -> tuple[str, str]:
    """What changes when a labelled image or its label does; and what earlier files have, of the pixels alone."""
    pixels, labels = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    for part in (splits.train, splits.val, splits.test):
        pixels.update(part.images.numpy())
        labels.update(part.require_labels().cpu().numpy())
    return f"{pixels.hexdigest()} {labels.hexdigest()}", pixels.hexdigest()


def _forget_other_data(results: Results, splits: Splits) -> list[str]:
    """Drop the rows that were measured on other images or labels, which a table would put beside these; a sentence on them."""
    on, forgotten = _data_digests(splits), set()
    for row, seeds in results["runs"].items():
        for seed in [seed for seed, run in seeds.items() if run.get("key", on[0]).rpartition(" on ")[2] not in on]:
            del seeds[seed]
            forgotten.add((row, int(seed)))
    results["records"] = [one for one in results["records"] if (one["row"], one["seed"]) not in forgotten]
    results["runs"] = {row: seeds for row, seeds in results["runs"].items() if seeds}
    for kind in ("tasks", "published"):
        results[kind] = [row for row in results[kind] if row in results["runs"]]
    rows = sorted({row for row, _ in forgotten})
    return [f"What was known of {', '.join(rows)} is of other images or labels, and was left out."] if rows else []


def _forget_other_weights(
    results: Results, row: Row, seed: int, splits: Splits, on: Sequence[str], stem: str | None
) -> None:
    """Drop the records of a run that were made from other weights: another recipe, file, code, data or PyTorch."""
    recipe = row.recipe(seed) if row.recipe is not None else None
    if recipe is not None:
        made_of = store.entry(recipe, splits.unlabeled).stem
    else:
        chance = stem if row.network is not None and not row.published else None
        made_of = " ".join(filter(None, (row.name, row.published, chance, torch.__version__)))
    keys = [f"{made_of} on {data}" for data in on]
    runs = results["runs"].setdefault(row.name, {})
    if runs.get(str(seed), {}).get("key") in keys:
        return
    results["records"] = [one for one in results["records"] if (one["row"], one["seed"]) != (row.name, seed)]
    runs[str(seed)] = {"key": keys[0], "backbone": row.arch}
    if recipe is not None:
        runs[str(seed)] |= {"steps": recipe.config.steps, "batch_size": recipe.config.batch_size}
