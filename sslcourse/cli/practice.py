"""`sslcourse finetune`, `predict`, `embed`, `search`, `explore`: from a backbone to answers about one's own pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslcourse.cli import options, texts
from sslcourse.cli.running import command
from sslcourse.console import shown
from sslcourse.errors import CourseError
from sslcourse.paths import typed

if TYPE_CHECKING:
    from sslcourse.backbones import Backbone
    from sslcourse.classify import Fitted
    from sslcourse.classify.heap import Found, Heap
    from sslcourse.data.imageset import ImageSet

Weights = Annotated[str, typer.Argument(help="A run's folder, or a file of weights (the course's or other people's).")]
Pictures = Annotated[Path, typer.Argument(help="A folder of pictures.", parser=typed, metavar="FOLDER")]
KINDS = ("duplicates", "outliers", "clusters", "label-next")


@command(stopped=texts.classifier_stopped)
def finetune(
    source: Annotated[str, typer.Argument(help="A run's folder, a file of weights, or scratch for a new network.")],
    out: Annotated[Path, options.path_option(help="The classifier's file, such as model.safetensors.")],
    data: options.Spec = "world",
    labels: options.Labels = None,
    protocol: Annotated[
        str, typer.Option(help="finetune (all of the network), linear (the head alone) or knn (no training)")
    ] = "finetune",
    stage: options.Stage = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation that measures it.")] = 5,
    test: Annotated[
        bool, typer.Option("--test", help="Keep the test split aside and measure on it, once, at the end.")
    ] = False,
    mistakes: options.Mistakes = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    stem: options.Stem = None,
    activation: options.Activation = None,
    normalize: options.Normalize = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Make a classifier from a backbone and labelled pictures, say how good it is, and keep it in one file."""
    from sslcourse import evaluate, files, locking
    from sslcourse.classify import model, pages

    evaluate.refuse_unknown_protocol(protocol)
    with locking.claimed_files(out, mistakes):
        files.refuse_foreign(out, model.is_classifier, "a classifier that finetune wrote")
        if mistakes is not None:
            pages.refuse_foreign(mistakes)
        hints = {"network": network, "prefix": prefix, "heads": heads, "stem": stem}
        hints |= {"activation": activation, "normalize": normalize}
        asked = {"protocol": protocol, "folds": folds, "seed": seed, "device": device}
        fitted, images, result = _fitted(source, data, labels, size, stage, test, hints, **asked)
        fitted.model.notes = {"source": source, "data": data, "measured": result}
        fitted.model.save(out)
        if mistakes is not None:
            result["mistakes"] = pages.mistakes(mistakes, fitted, images)
    texts.show(result, texts.fitted(result, fitted.measures.text(), out, mistakes), as_json)


def _fitted(
    source: str,
    data: str,
    labels: Path | None,
    size: int | None,
    stage: str | None,
    test: bool,
    hints: dict[str, Any],
    **asked: Any,
) -> tuple[Fitted, ImageSet, dict[str, Any]]:
    """A classifier, the pictures that it learned from, and what was measured."""
    from sslcourse import classify, record
    from sslcourse.classify import fitting
    from sslcourse.data.spec import load_labelled

    if source == "scratch":
        options.refuse_idle(hints, None, "WEIGHTS in place of scratch")
    backbone, side = (None, size) if source == "scratch" else _backbone(source, size, **hints)
    splits = load_labelled(data, size=side, labels=labels)
    texts.notices(splits.notes if test else splits.notes_of_all)
    images = fitting.together(splits, test=not test)
    read_at = options.stage(stage)
    if backbone is not None and asked["protocol"] != "finetune":
        read_at = record.stage_of(source, backbone, read_at)
    fitted = classify.fit(backbone or _new(images, asked["seed"]), images, stage=read_at, progress=True, **asked)
    result = _result(source, data, asked["protocol"], fitted, images)
    if test:
        result["test"] = _tested(fitted.model, splits.test, asked["device"]).as_json()
    return fitted, images, result


@command(stopped=texts.prediction_stopped)
def predict(
    model: Annotated[Path, typer.Argument(help="A file that finetune wrote.", parser=typed, metavar="MODEL")],
    pictures: Pictures,
    csv: Annotated[Path, options.path_option("--csv", help="The table to write: path, class, probabilities.")],
    labels: Annotated[
        Path | None,
        options.path_option(
            help="To say how many are right: a CSV of paths and classes, or FOLDER, sorted by classes."
        ),
    ] = None,
    mistakes: options.Mistakes = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Write the class of every picture of a folder, with its probability, to a table; with labels, say how many are right."""
    from sslcourse import classify

    known = classify.load(model)
    done = classify.predict(known, pictures, csv, labels=labels, mistakes=mistakes, device=device)
    texts.notices(done.notes)
    if labels is not None and known.made_from(pictures):
        texts.notices([f"{shown(model)} {texts.LEARNED_FROM}"])
    texts.show(*texts.written(done, "predictions", mistakes), as_json)


@command(stopped=texts.embedding_stopped)
def embed(
    source: Weights,
    pictures: Pictures,
    out: Annotated[
        Path,
        options.path_option(help="The features: NAME.parquet, or NAME.npy with a .csv that says which row is whose."),
    ],
    stage: options.Stage = None,
    patches: Annotated[
        bool, typer.Option("--patches", help="The features of each place of a stage's map, not their mean.")
    ] = False,
    size: options.Size = None,
    network: options.Network = None,
    prefix: options.Prefix = None,
    heads: options.Heads = None,
    stem: options.Stem = None,
    activation: options.Activation = None,
    normalize: options.Normalize = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Write the features of every picture of a folder, a row each."""
    from sslcourse import classify, record

    hints = {"network": network, "prefix": prefix, "heads": heads, "stem": stem}
    backbone, side = _backbone(source, size, **hints, activation=activation, normalize=normalize)
    side = record.size_of(source, backbone, side)
    read_at = 4 if patches and stage is None else record.stage_of(source, backbone, options.stage(stage))
    done = classify.embed(backbone, pictures, out, size=side, stage=read_at, patches=patches, device=device)
    texts.notices(done.notes)
    texts.show(*texts.written(done, "features"), as_json)


@command(stopped=texts.page_stopped)
def search(
    features: Annotated[Path, typer.Argument(help="A file that embed wrote.", parser=typed, metavar="FEATURES")],
    pictures: Pictures,
    like: Annotated[Path, options.path_option(help="The picture to look for, one of the folder.")],
    out: Annotated[Path, options.path_option(help="The page to write.")] = Path("search.html"),
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many pictures to show.")] = 30,
    csv: Annotated[Path | None, options.path_option("--csv", help="The same as a table: path, cosine.")] = None,
) -> None:
    """Show the pictures of a folder that are most like one of them, on a page with thumbnails."""
    from sslcourse.classify import heap

    known = heap.load(features, pictures)
    number = known.number(like)
    found = _written(known, "search", lambda: known.like(number, count), out, csv)
    print(f"{shown(out)}: {len(found.captions) - 1} pictures like {shown(known.names[number])}")


def _written(known: Heap, what: str, look: Callable[[], Found], out: Path, csv: Path | None) -> Found:
    """What was looked for, as a page and, where one is asked for, as a table."""
    from sslcourse import locking
    from sslcourse.classify import heap

    with locking.claimed_files(out, csv):
        if csv is not None:
            heap.refuse_foreign_table(csv, what)
        found = look()
        known.page(out, found)
        if csv is not None:
            heap.write_table(csv, what, found.rows)
    return found


@command(stopped=texts.page_stopped, name="explore")
def explore_pictures(
    what: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}")],
    features: Annotated[Path, typer.Argument(help="A file that embed wrote.", parser=typed, metavar="FEATURES")],
    pictures: Pictures,
    out: Annotated[Path, options.path_option(help="The page to write.")] = Path("explore.html"),
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many pictures, pairs or clusters.")] = 50,
    how: Annotated[
        str, typer.Option(help="label-next: typiclust (few labels), k-center (many) or random")
    ] = "typiclust",
    labelled: Annotated[
        Path | None,
        options.path_option(
            help="label-next: a CSV of what has a label already, as --labels takes it, or a list of paths."
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        options.path_option(
            "--csv", help="A table as well: of the pairs, of the chosen, or of all pictures' distances or clusters."
        ),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Find near-duplicates, outliers, clusters, or the pictures that are worth labelling next."""
    from sslcourse.classify import heap
    from sslcourse.errors import suggest

    if what not in KINDS:
        raise CourseError(f"{what!r} can't be explored{suggest(what, KINDS)}; choose one of {', '.join(KINDS)}.")
    known = heap.load(features, pictures)
    ways = {
        "duplicates": lambda: known.duplicates(count),
        "outliers": lambda: known.outliers(count),
        "clusters": lambda: known.clusters(count, seed),
        "label-next": lambda: known.label_next(count, labelled, how, seed),
    }
    found = _written(known, what, ways[what], out, csv)
    for line in found.captions if what == "label-next" else ():
        print(shown(line))
    texts.notices([f"{shown(out)}: {found.title.lower()}, {len(found.captions)} pictures"])


def _backbone(source: str, size: int | None, **hints: Any) -> tuple[Backbone, int | None]:
    """The backbone, and the side in pixels that pictures are brought to: what was asked for, or what it was trained with."""
    from sslcourse import record, weights

    backbone = weights.load(source, **hints)
    used = record.settled(source, record.of(backbone), image_size=size)
    return backbone, used.image_size


def _new(images: ImageSet, seed: int) -> Backbone:
    from sslcourse import backbones

    return backbones.build("resnet-tiny", image_size=images.size[0], seed=seed)


def _tested(model, images: ImageSet, device: str):
    from sslcourse.classify.measures import Measures

    named = model.logits(images.images, device=device).argmax(dim=1)
    return Measures.of(named, images.require_labels(), model.classes, images.independent)


def _result(source: str, data: str, protocol: str, fitted: Fitted, images: ImageSet) -> dict:
    """Everything that was measured, for JSON."""
    return {
        "source": source,
        "data": data,
        "protocol": protocol,
        "stage": fitted.model.stage,
        "image_size": fitted.model.image_size,
        "labels": len(images),
        "folds": fitted.folds,
        "setting": fitted.setting,
        "cross_validated": fitted.measures.as_json(),
        "temperature": fitted.model.temperature,
        "calibration_error": {"before": fitted.error[0], "after": fitted.error[1]},
    }
