"""Every method beside every other: one probe, the same labels, seeds and intervals, and baselines that keep it honest.

A *row* is a pretext task or a baseline, a *run* is one seed of a row. A seed draws the weights, the order and the views
of pretraining, the labelled images, and the weights of the baselines, so that differences are paired. Results are
written after every measurement, and what stands in the file isn't measured again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import Tensor
from tqdm.auto import tqdm

from sslcourse import backbones, evaluate, pretext, store, train
from sslcourse import device as devices
from sslcourse.data import load, stream
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.evaluate import Features, Summary
from sslcourse.files import write_atomically

FORMAT = "sslcourse compare 1"
BUDGETS = (1, 2, 5, 10, 20, 50, 100, 500)  # labels per class of the curves
RATES = (1e-3, 3e-3, 1e-2)  # learning rates of fine-tuning, chosen among on validation
PIXELS_MOST = 100  # labels per class: a probe of thousands of numbers on thousands of images takes minutes
PASSES = 5  # over the labelled images, at least, in fine-tuning
PIXELS, HISTOGRAM, RANDOM = "raw pixels", "colour histogram", "random weights"


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


def random_name(arch: str) -> str:
    return RANDOM if arch == "resnet-tiny" else f"{RANDOM}, {arch}"


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
    finetune: Iterable[int] = (10,),
    scratch: Iterable[int] = BUDGETS,
    factors: bool = True,
    steps: int | None = None,
    out: str | Path | None = None,
    size: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure `tasks` (default: all) and the baselines, and return the results; they are plain numbers for JSON.

    labels    labels per class of the table (kNN)
    budgets   labels per class of the linear probe's curve;  finetune, scratch: of fine-tuning pretrained backbones, and
              of training from scratch. Budgets that the data can't give are left out
    factors   probe the known factors of the images too, where the data has any
    out       a JSON file that is written after every measurement and read at the start

    A task that refuses the images (colorization of gray ones, say) is left out, and its sentence kept under "refused".
    Raises CourseError for an unknown task, data without labels, or a file of other data.
    """
    if seeds < 1:
        raise CourseError(f"at least one seed is needed to measure anything, and {seeds} were asked for.")
    tasks = list(pretext.tasks()) if tasks is None else list(dict.fromkeys(tasks))
    for task in tasks:
        pretext.find(task)
    splits = load(data, size=size)
    evaluate.refuse_unlabelled(splits)
    most = int(torch.bincount(splits.train.labels).min())
    if labels > most:
        raise CourseError(
            f"{labels} labels per class were asked for, and the smallest class has {most}; ask for fewer."
        )
    wanted = {
        "linear": sorted({b for b in (*budgets, labels) if b <= most}),
        "knn": [labels],
        "finetune": sorted({b for b in finetune if b <= most}),
        "scratch": sorted({b for b in (*scratch, *finetune) if b <= most}) if any(finetune) else [],
    }
    refused = refusals(tasks, splits.unlabeled)
    tasks = [task for task in tasks if task not in refused]
    if refused and not tasks:
        raise CourseError(f"none of the tasks can learn from {data}: {' '.join(refused.values())}")
    lines = rows(tasks, splits.unlabeled, steps=steps, device=device, progress=False)
    results = _begin(out, data, splits, labels)
    results |= {"tasks": sorted({*results.get("tasks", ()), *tasks}), "refused": refused}
    jobs = []
    for seed in range(seeds):
        for row in lines:
            record = _record(results, row, seed, splits)
            probed = factors and splits.train.factors and (row.network is not None or seed == 0)  # pixels have no seed
            jobs += [(row, seed, piece) for piece in missing(record, row, wanted, probed)]
    _measure(jobs, splits, results, out, device, progress)
    return results


def refusals(tasks: Sequence[str], unlabeled: ImageSet) -> dict[str, str]:
    """{task: why} for the tasks that can't learn from these images."""
    found = {}
    for task in tasks:
        try:
            store.recipe(task).build(unlabeled.size[0]).prepare(stream.looked_at(stream.source(unlabeled)))
        except CourseError as error:
            found[task] = str(error)
    return found


def missing(record: dict[str, Any], row: Row, wanted: dict[str, list[int]], factors: Any) -> list[tuple[str, int]]:
    """What a run lacks: (protocol, labels per class) pairs, and ("factors", 0)."""
    tuned = "scratch" if row.name == RANDOM else "finetune"  # the curve from scratch of one architecture is enough
    pieces = [("linear", b) for b in wanted["linear"] if row.most is None or b <= row.most]
    pieces += [("knn", b) for b in wanted["knn"]]
    if row.network is not None:
        pieces += [("finetune", b) for b in wanted[tuned]]
    pieces = [(p, b) for p, b in pieces if str(b) not in record.get(p, {})]
    return pieces + ([("factors", 0)] if factors and "factors" not in record else [])


def _measure(jobs: list, splits: Any, results: dict, out: Any, device: Any, progress: bool) -> None:
    """All jobs in order, with a bar that knows how long each kind takes; results are written after each."""
    have: tuple[str, int] | None = None
    network, features = None, None
    trainings = {(row.name, seed): row for row, seed, _ in jobs if row.recipe is not None}
    to_train = sum(row.recipe(seed).seconds for (_, seed), row in trainings.items())
    total = to_train + sum(_seconds(piece) for _, _, piece in jobs)
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
    with tqdm(total=total, bar_format=form, desc="compare", disable=not progress) as bar:
        for row, seed, (protocol, budget) in jobs:
            bar.set_description(f"{row.name}, seed {seed}, {protocol}")
            if have != (row.name, seed):
                network = row.network(seed) if row.network else None
                features = features_of(row, network, splits, device)
                have = (row.name, seed)
                bar.update(row.recipe(seed).seconds if row.recipe is not None else 0)
            record = results["runs"][row.name][str(seed)]
            if protocol == "factors":
                record["factors"] = evaluate.factor_probe(narrowed(features), splits)
            elif protocol == "finetune":
                value = finetuned(network, splits, budget, seed, device)
                record.setdefault("finetune", {})[str(budget)] = value
            else:
                value = evaluate.probe_accuracy(features, splits, budget, seed, protocol)
                record.setdefault(protocol, {})[str(budget)] = value
            _write(results, out)
            bar.update(_seconds((protocol, budget)))


def _seconds(piece: tuple[str, int]) -> float:
    """About how long a measurement takes on two cores: it weighs the bar's parts, and no result depends on it."""
    protocol, budget = piece
    return {"linear": 0.2 + budget / 100, "knn": 0.1, "finetune": 6 + budget / 10, "factors": 8}[protocol]


def features_of(row: Row, network: backbones.Backbone | None, splits: Any, device: Any) -> Features:
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


def finetuned(network: backbones.Backbone, splits: Any, labels: int, seed: int, device: Any) -> float:
    """Test accuracy after fine-tuning: `train.FINETUNE`, and with many labels at least PASSES passes over them."""
    images = labels * len(splits.train.classes)
    steps = max(train.FINETUNE.steps, math.ceil(PASSES * images / train.FINETUNE.batch_size))
    config = dataclasses.replace(train.FINETUNE, steps=steps)
    return evaluate.finetune_accuracy(network, splits, labels, seed, config, rates=RATES, device=device, progress=False)


# --- the file ----------------------------------------------------------------------------------------------------


def _begin(out: str | Path | None, data: str, splits: Any, labels: int) -> dict[str, Any]:
    """The results so far, from the file where there is one."""
    about = {
        "format": FORMAT, "data": data, "images": str(splits), "labels": labels, "classes": len(splits.train.classes),
        "device": devices.report("cpu").split(";")[0], "torch": torch.__version__,
    }  # fmt: skip
    found = read(out) if out is not None and Path(out).exists() else {"runs": {}}
    for name in ("data", "labels"):
        if name in found and found[name] != about[name]:
            raise CourseError(
                f"{out} holds a comparison with {name} {found[name]!r}, and this one has {about[name]!r}; "
                "choose another file."
            )
    return about | {name: found[name] for name in ("tasks", "runs") if name in found}


def read(path: str | Path) -> dict[str, Any]:
    """Results that `run` wrote. Raises CourseError where the file isn't one of those."""
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} can't be read as a comparison ({error}); choose another file.") from None
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise CourseError(f"{path} is not a comparison that `sslcourse compare` wrote; choose another file.")
    return results


def _write(results: dict[str, Any], out: str | Path | None) -> None:
    if out is not None:
        write_atomically(Path(out), (json.dumps(results, indent=1) + "\n").encode())


def _record(results: dict[str, Any], row: Row, seed: int, splits: Any) -> dict[str, Any]:
    """The run's record, emptied where it was made from other weights: another recipe, code, data or PyTorch."""
    if row.recipe is not None:
        weights = store.entry(row.recipe(seed), splits.unlabeled).stem
    else:
        weights = f"{row.name} {torch.__version__}"
    digest = hashlib.blake2b(digest_size=8)
    for part in (splits.train, splits.val, splits.test):
        digest.update(part.images.numpy())
    key = f"{weights} on {digest.hexdigest()}"
    runs = results["runs"].setdefault(row.name, {})
    if runs.get(str(seed), {}).get("key") != key:
        runs[str(seed)] = {"key": key, "backbone": row.arch}
        if row.recipe is not None:
            runs[str(seed)] |= {
                "steps": row.recipe(seed).config.steps,
                "batch_size": row.recipe(seed).config.batch_size,
            }
    return runs[str(seed)]


# --- what they say -----------------------------------------------------------------------------------------------


def values(results: dict[str, Any], row: str, protocol: str, labels: int | None = None) -> list[float]:
    """A row's accuracies, seed by seed, in [0, 1]; empty where they weren't measured."""
    labels = results["labels"] if labels is None else labels
    runs = results["runs"].get(row, {})
    found = [runs[seed].get(protocol, {}).get(str(labels)) for seed in sorted(runs, key=int)]
    return [value for value in found if value is not None]


def gain(results: dict[str, Any], row: str, protocol: str, labels: int | None = None) -> Summary | None:
    """A row less the same architecture with random weights (in fine-tuning: trained from scratch), seed by seed.

    None where either side wasn't measured.
    """
    ours = values(results, row, protocol, labels)
    theirs = values(results, random_name(architecture(results, row)), protocol, labels)
    both = min(len(ours), len(theirs))
    return evaluate.paired_difference(ours[:both], theirs[:both]) if both else None


def architecture(results: dict[str, Any], row: str) -> str:
    return next(iter(results["runs"][row].values()))["backbone"]


def curve(results: dict[str, Any], row: str, protocol: str) -> dict[int, Summary]:
    """{labels per class: accuracies} of a row, in increasing order."""
    budgets = {int(b) for run in results["runs"][row].values() for b in run.get(protocol, {})}
    return {b: Summary(tuple(values(results, row, protocol, b))) for b in sorted(budgets)}


def order(results: dict[str, Any]) -> list[str]:
    """Baselines first, then the tasks from the best linear probe down."""
    tasks = [row for row in results["runs"] if row in results["tasks"]]
    mean = lambda row: Summary(tuple(values(results, row, "linear") or [0.0])).mean  # noqa: E731
    return [row for row in results["runs"] if row not in tasks] + sorted(tasks, key=mean, reverse=True)


def matrix(results: dict[str, Any]) -> dict[str, dict[str, Summary]]:
    """{row: {factor: score over seeds}}: what a linear model reads of each factor; with chance as the row "chance"."""
    table: dict[str, dict[str, Summary]] = {"chance": {}}
    for row in order(results):
        runs = [run["factors"] for run in results["runs"][row].values() if run.get("factors")]
        if runs:
            table[row] = {name: Summary(tuple(run[name]["score"] for run in runs)) for name in runs[0]}
            table["chance"] |= {name: Summary((runs[0][name]["chance"],)) for name in runs[0]}
    return table if len(table) > 1 else {}


def table(results: dict[str, Any]) -> list[list[str]]:
    """The comparison as cells of text, headings first."""
    lines = [["", "kNN", "linear probe", "gain, points", "fine-tuned", "gain, points"]]
    for row in order(results):
        cells = [titled(results, row)]
        for protocol in ("knn", "linear", "finetune"):
            found = values(results, row, protocol)
            cells.append(str(Summary(tuple(found))) if found else "")
            if protocol != "knn":
                cells.append(points(gain(results, row, protocol)) if row in results["tasks"] else "")
        lines.append(cells)
    return lines


def titled(results: dict[str, Any], row: str) -> str:
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


def matrix_table(results: dict[str, Any]) -> list[list[str]]:
    """`matrix` as cells of text, headings first; nothing where the data knows no factors."""
    found = matrix(results)
    if not found:
        return []
    names = list(found["chance"])
    return [["", *names]] + [[row, *(f"{scores[name].mean:.2f}" for name in names)] for row, scores in found.items()]


def markdown(cells: list[list[str]]) -> str:
    """Cells as a table in Markdown."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def text(results: dict[str, Any]) -> str:
    """What the command prints: the table, what it means, and what was kept."""
    seeds = max(len(runs) for runs in results["runs"].values())
    parts = [
        f"{results['data']}, {results['labels']} labels per class, {seeds} seeds: test accuracy, mean ± standard deviation;",
        "gains are over the same network with random weights (fine-tuned: from scratch), with 95% intervals.",
        "",
        aligned(table(results)),
    ]
    if matrix(results):
        parts += ["", "What a linear model reads of each known factor (a category: accuracy; a quantity: R²):", ""]
        parts.append(aligned(matrix_table(results)))
    parts += [f"{task} was left out: {why}" for task, why in results.get("refused", {}).items()]
    return "\n".join(parts)


def aligned(cells: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)
