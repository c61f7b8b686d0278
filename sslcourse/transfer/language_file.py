"""A network that knows pictures and captions in one file: both towers, in 16-bit numbers, and what they were trained on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from sslcourse import backbones, pretext
from sslcourse.data import words
from sslcourse.errors import CourseError, Damaged
from sslcourse.files import reading, write_atomically
from sslcourse.paths import typed
from sslcourse.pretext.image_text import ImageText

FORMAT = "sslcourse image and text 1"
FOLDER = Path(__file__).parent.parent / "bundled" / "words"


def save(task: ImageText, path: str | Path, image_size: int, **record: Any) -> None:
    """Write both towers to a safetensors file, in 16-bit numbers, with a record of how they were trained (JSON's types)."""
    content = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in task.state_dict().items()
    }
    about = {
        "format": FORMAT, "task": task.name, "options": task.options(), "arch": task.backbone.arch,
        "image_size": image_size, "words": words.WORDS, "record": record,
    }  # fmt: skip
    write_atomically(typed(path), safetensors.torch.save(content, {"about": json.dumps(about)}))


def load(path: str | Path) -> tuple[ImageText, dict[str, Any]]:
    """A task with both towers, in evaluation mode on the CPU, and the record of its training.

    Raises CourseError for a file of another kind, and for one whose vocabulary has other words than this package's.
    """
    path = typed(path)
    about = _about(path)
    if tuple(about["words"]) != words.WORDS[: len(about["words"])]:
        raise CourseError(f"{path} was trained on another vocabulary than this package has; train it again.")
    network = backbones.build(about["arch"], image_size=about["image_size"])
    task = pretext.build(about["task"], network, **about["options"])
    state = {
        name: value.float() if value.is_floating_point() else value
        for name, value in safetensors.torch.load_file(path).items()
    }
    rows = task.text.words.shape[0] - len(state["text.words"])
    if rows:  # words that were added since mean nothing to it
        state["text.words"] = torch.cat([state["text.words"], torch.zeros(rows, state["text.words"].shape[1])])
    task.load_state_dict(state)
    return task.eval(), about["record"]


def _about(path: Path) -> dict[str, Any]:
    with reading(path):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("about", "{}"))
        except safetensors.SafetensorError:
            about = {}
    if about.get("format") != FORMAT:
        raise CourseError(f"{path} holds no network of images and texts that this package wrote; give one of those.")
    return about


# --- the one that comes with the package -------------------------------------------------------------------------


def put(task: ImageText, record: dict[str, Any]) -> Path:
    """Write a task as the one that comes with the package, and its record, with the file's SHA-256, beside it."""
    path = FOLDER / f"{task.name}.safetensors"
    save(task, path, image_size=32)
    record = record | {"sha256": _digest(path)}
    write_atomically(path.with_suffix(".record"), (json.dumps(record, indent=1) + "\n").encode())
    return path


def bundled(name: str = "clip") -> tuple[ImageText, dict[str, Any]]:
    """The task of this name that `benchmarks/captions.py` put into the package, and its record.

    Raises CourseError where there is none (that run is still to be made), and Damaged where the file isn't the recorded one.
    """
    path = FOLDER / f"{name}.safetensors"
    with reading(path):
        record = json.loads(path.with_suffix(".record").read_text(encoding="utf-8"))
        if _digest(path) != record["sha256"]:
            raise Damaged(f"{path} isn't the file that its record describes; install the package again.")
    return load(path)[0], record


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
