"""What the commands print: results to read, notices, and what is true after an interruption."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcourse.console import shown

if TYPE_CHECKING:
    from sslcourse.overview import Lesson
    from sslcourse.work import Changes

# --- results -----------------------------------------------------------------------------------------------------


def show(result: Any, text: str, as_json: bool, indent: int | None = None) -> None:
    """A result on standard output: one JSON document, or the text."""
    print(json.dumps(result, indent=indent) if as_json else text)


def notices(lines: Iterable[str]) -> None:
    """Notices on standard error: standard output is for results."""
    for line in lines:
        print(line, file=sys.stderr)


def finite(value: float) -> float | None:
    """JSON has no NaN: the spread of a single seed is null."""
    return value if value == value else None


def tasks(found: list[dict[str, Any]]) -> str:
    lines = []
    for entry in found:
        lines += [entry["task"], f"    {entry['about']}"]
        lines += [f"    --option {option}={default}" for option, default in entry["options"].items()]
        if entry["backbone"] != "resnet-tiny":
            lines.append(f"    --backbone {entry['backbone']} where none is named")
    return "\n".join(lines)


def bundled(found: list[dict[str, Any]]) -> str:
    """The backbones that come with the package, a line each, and how to get one."""
    if not found:
        return "no backbone comes with this version of the package."
    lines = [f"{'task':<16}{'backbone':<14}{'budget':>6}{'steps':>9}{'linear probe, 10 labels per class':>36}"]
    for one in found:
        score = one["measured"].get("linear, 10")
        shown_score = "" if score is None else f"{score:.3f}"
        lines.append(f"{one['task']:<16}{one['backbone']:<14}{one['budget']:>6}{one['steps']:>9,}{shown_score:>36}")
    first = found[0]
    return "\n".join(
        [
            *lines,
            "Trained on pocket world, seed 0; the budget is the steps as a multiple of the lesson's. In Python:",
            f'    store.pretrained("{first["task"]}", backbone="{first["backbone"]}", budget={first["budget"]})',
        ]
    )


def changes(found: Changes, work: Path) -> list[str]:
    """What bringing a person's copies up to date did, a sentence each."""
    lessons = [name for name in found.kept if name.endswith(".ipynb")]
    others = [name for name in found.kept if name not in lessons]
    sentences = []
    if found.new and not found.renewed and not found.kept:
        sentences.append(f"your own copies of the notebooks are in {shown(work)}; what you write stays there.")
    if found.renewed:
        sentences.append(f"{_count(found.renewed)} brought up to date: you had written nothing in them.")
    if lessons:
        numbers = sorted({Path(name).stem.removeprefix("exercises_")[:2] for name in lessons})
        sentences.append(
            f"you wrote in {', '.join(map(shown, lessons))}, so they stay as they are; there are new versions, and "
            f"`sslcourse reset {numbers[0]}` gives you a fresh one and keeps yours."
        )
    if others:
        sentences.append(f"you changed {', '.join(map(shown, others))}, which stay as they are.")
    return sentences


def _count(names: list[str]) -> str:
    return "one file was" if len(names) == 1 else f"{len(names)} files were"


def reset(names: list[str], kept: list[Path], work: Path) -> str:
    """What is fresh now, and where the earlier files are."""
    lines = [f"fresh: {shown(work / name)}" for name in names]
    lines += [f"yours: {shown(path)}" for path in kept] or ["there was nothing of yours in them to keep."]
    return "\n".join(lines)


def progress(lessons: list[Lesson], predicted: dict[str, dict[str, Any]], work: Path) -> str:
    """A table of what is solved, every prediction with what came out, and the lesson to go on with."""
    from sslcourse import overview
    from sslcourse.tables import aligned

    if not any(one.begun for one in lessons):
        return f"nothing is begun in {shown(work)}; `sslcourse lab` opens the course."
    there = lessons[overview.next_one(lessons)]
    entered = ["", *map(_prediction, sorted(predicted), map(predicted.get, sorted(predicted)))] if predicted else []
    return "\n".join(
        [
            aligned(overview.table(lessons)),
            "Solved is what your notebooks say as they were saved last; save an open one (Ctrl+S) to have it counted.",
            *entered,
            "",
            f"go on: sslcourse lab {there.number}   ({there.title})",
        ]
    )


def _prediction(name: str, entry: dict[str, Any]) -> str:
    """A prediction in a line: what was asked, what was said, what came out."""
    from sslcourse.predictions import verdict, with_unit

    unit, measured = entry.get("unit", ""), entry.get("measured")
    said = f"{shown(name)}: {shown(entry.get('asked', ''))} You said {with_unit(entry['predicted'], unit)}"
    return (
        f"{said}."
        if measured is None
        else f"{said}; it came out as {with_unit(measured, unit)}: {verdict(entry, measured)}."
    )


def pretrained(result: dict[str, Any], labels: Path | None, size: int | None) -> str:
    """What pretraining gave, and the command that measures it."""
    names = [name for name in result if name not in PRETRAINING]
    done = "" if result["step"] == result["steps"] else f", of which {result['step']} were enough"
    figures = ", ".join(f"{name} {result[name]:.4g}" for name in names)
    best = f", of step {result['best_step']}, where {result['signal']} was highest" if result.get("best_step") else ""
    return "\n".join(
        [
            f"{result['task']} on {shown(result['data'])}, {result['steps']} steps{done}: {figures}",
            f"backbone: {shown(Path(result['out'], 'backbone.safetensors'))}{best}",
            f"measure it: {typed_command('evaluate', result['out'], data=result['data'], labels=labels, size=size)}",
        ]
    )


PRETRAINING = (
    "task",
    "data",
    "backbone",
    "images",
    "steps",
    "device",
    "out",
    "step",
    "signal",
    "best_step",
)  # of a result; the rest was logged


def evaluated(result: dict[str, Any], by_class: str, mistakes: Path | None = None) -> str:
    """An accuracy, or a curve of them, with how sure it is, and what was right of each class with the most labels."""
    labels, curve = result["labels_per_class"], result.get("curve")
    few = "all labels" if labels is None else f"{labels} labels per class"
    by = f", {result['folds']} folds" if result["folds"] else ""
    lines = [
        f"{shown(result['source'])} on {shown(result['data'])}, {result['protocol']}, "
        f"{'a curve' if curve else few}{by}, {result['seeds']} seeds:"
    ]
    said = f"(mean ± standard deviation over seeds; chance {1 / result['classes']:.3f})"
    if curve:
        lines += [f"{'labels per class':>16}  test accuracy  {said}"]
        lines += [f"{one['labels_per_class']:>16}  {_accuracy(one)}{_interval(one)}" for one in curve]
    else:
        lines += [f"test accuracy {_accuracy(result)}  {said}"]
    independent, images = result["independent"], result["test_images"]
    fewer = "" if independent == images else f", in groups that count as {independent:,}"
    lines += [f"{images:,} test images{fewer}{'' if curve else _interval(result)}"]
    lines += sorted({one["caution"] for one in curve or [result]} - {""})
    most = f"with {few}" if curve else "class by class"
    together = "" if result["seeds"] == 1 else f", the answers of {result['seeds']} seeds together"
    lines += [f"{most}{together}:", by_class]
    if mistakes is not None:
        lines.append(f"mistakes: {result['mistakes']}, in {shown(mistakes)}")
    return "\n".join(lines)


def asked_of(seeds: int) -> str:
    """Who gave the answers on a page of mistakes."""
    return (
        "a model that had not seen them"
        if seeds == 1
        else f"one of {seeds} models that had not seen them, or by several"
    )


def _accuracy(one: dict[str, Any]) -> str:
    return f"{one['mean']:.3f}" + ("" if one["std"] is None else f" ± {one['std']:.3f}")


def _interval(one: dict[str, Any]) -> str:
    low, high = one["interval95"]
    return "" if low is None else f", 95% interval {low:.3f} to {high:.3f}"


def exported(out: Path, arch: str, layout: str) -> str:
    return f"{shown(out)}: {arch} in the layout of {layout}"


def deployed(out: Path, about: dict[str, Any], format: str) -> str:
    """What a file for other programs takes and gives."""
    classes = [f"classes: {', '.join(map(shown, about['classes']))}"] if "classes" in about else []
    return "\n".join(
        [
            f"{shown(out)}: {about['arch']} in the format {format}, features of stage {about['stage']}",
            about["input"],
            about["output"],
            *classes,
            "compared with the network on pictures of this size, to 0.0001",
        ]
    )


def fitted(result: dict[str, Any], measures: str, out: Path, mistakes: Path | None = None) -> str:
    """What a classifier is worth, and the command that uses it."""
    before, after = (result["calibration_error"][key] for key in ("before", "after"))
    lines = [
        f"{shown(result['source'])} on {shown(result['data'])}, {result['protocol']}, {result['labels']} labels: by "
        f"{result['folds']} folds, each picture judged by a model that hadn't seen it,",
        measures,
        f"expected calibration error {before:.3f}, with temperature {result['temperature']:.2f} {after:.3f}",
    ]
    if "test" in result:
        low, high = result["test"]["interval95"]
        lines.append(
            f"test accuracy {result['test']['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f}; "
            f"{result['test']['images']} images)"
        )
    if "mistakes" in result:
        lines.append(f"mistakes: {result['mistakes']}, in {shown(mistakes)}")
    lines += [
        f"classifier, of {'these' if 'test' in result else 'all'} {result['labels']} labels: {shown(out)}",
        f"use it: {typed_command('predict', out, 'FOLDER', csv='out.csv')}",
    ]
    return "\n".join(lines)


LEARNED_FROM = (
    "was made from pictures of this folder: on those that it learned from it is right more often than on new ones, and "
    "finetune's own measurement leaves each of them out once."
)


def written(done: Any, what: str, mistakes: Path | None = None) -> tuple[dict[str, Any], str]:
    """What `classify.predict` or `embed` wrote, for JSON and in words."""
    result = {"out": str(done.path), "pictures": done.pictures, "kept": done.kept, "unreadable": list(done.unreadable)}
    lines = [f"{shown(done.path)}: {what} of {done.pictures - len(done.unreadable)} pictures"]
    if done.kept:
        lines.append(f"{done.kept} of them had been written before an interruption")
    if done.unreadable:
        path, reason = done.unreadable[0]
        lines.append(f"{len(done.unreadable)} have none, and the table says why; the first: {shown(path)} ({reason})")
    if done.answers is not None:
        measures = done.answers.measures
        result["measures"] = measures.as_json()
        lines.append(measures.text() if measures.count else "none of the pictures that have a label has a class")
    if mistakes is not None:
        result["mistakes"] = int(done.answers.wrong.sum())
        lines.append(f"mistakes: {result['mistakes']}, in {shown(mistakes)}")
    return result, "\n".join(lines)


def data(about: dict[str, Any]) -> str:
    height, width = about["image_size"]
    lines = [f"{shown(about['data'])}: {width}x{height} pixels"]
    lines += [f"  {part:<10} {count:>7} images" for part, count in about["splits"].items()]
    if about["classes"]:
        lines.append(f"  {len(about['classes'])} classes: {', '.join(map(shown, about['classes']))}")
    if about["factors"]:
        lines.append(f"  known factors: {', '.join(about['factors'])}")
    if about["annotations"]:
        lines.append(f"  annotations: {', '.join(about['annotations'])}")
    lines += [f"  note: {note}" for note in about["notes"]]
    if "preview" in about:
        lines.append(f"  picture: {shown(about['preview'])}")
    return "\n".join(lines)


RESERVED = ("random", "scratch")  # names of baselines, where a folder could be


def typed_command(*words: str | Path, **options: Any) -> str:
    """A command that runs as it is printed: a name and places, quoted for the shell, and options; those that are None are left out."""
    first, *others = map(str, words)
    places = [f"./{place}" if place.startswith(("-", "~")) or place in RESERVED else place for place in others]
    chosen = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(["sslcourse", first, *places, *chosen])


# --- interruptions: what is left of the work, from the command's parameters ----------------------------------------


def pretraining_stopped(out: Path, **given: Any) -> str:
    if not any((out / name).exists() for name in ("checkpoint.pt", "checkpoint.previous.pt")):
        return "stopped before there was anything to save; the same command begins anew."
    again = [word for word in sys.argv[1:] if word != "--resume"]
    return f"stopped; what was saved is in {shown(out)}, and {shlex.join(['sslcourse', *again, '--resume'])} goes on from it."


def comparison_stopped(out: Path | None, **given: Any) -> str:
    if out is None:
        return "stopped; without --out no measurement is kept, but networks that are trained aren't trained again."
    return f"stopped; what was measured is in {shown(out)}, and the same command goes on from it."


def demo_stopped(out: Path, **given: Any) -> str:
    return f"stopped; the results would have been written to {shown(out)} at the end, and the same command begins anew."


def evaluation_stopped(**given: Any) -> str:
    return "stopped; a measurement is not kept, and the same command begins anew."


def export_stopped(out: Path, **given: Any) -> str:
    return f"stopped; the same command writes {shown(out)} anew."


def data_stopped(**given: Any) -> str:
    return "stopped; the same command goes on with a download where it was, and reads or draws images anew."


def bench_stopped(**given: Any) -> str:
    return "stopped; nothing that was measured is kept."


def doctor_stopped(**given: Any) -> str:
    return "stopped; what the doctor has said so far holds."


def lab_stopped(**given: Any) -> str:
    return "stopped; JupyterLab saves notebooks by itself every two minutes."


def reset_stopped(**given: Any) -> str:
    return "stopped; each of your files is where it was or in the folder `kept`."


def listing_stopped(**given: Any) -> str:
    return "stopped."


def classifier_stopped(out: Path, **given: Any) -> str:
    return f"stopped; {shown(out)} would have been written at the end, and the same command begins anew."


def prediction_stopped(csv: Path, **given: Any) -> str:
    return f"stopped; the rows so far are kept beside {shown(csv)}, and the same command goes on from there."


def embedding_stopped(out: Path, **given: Any) -> str:
    return f"stopped; {shown(out)} would have been written at the end, and the same command begins anew."


def page_stopped(out: Path, **given: Any) -> str:
    return f"stopped; {shown(out)} would have been written at the end."
