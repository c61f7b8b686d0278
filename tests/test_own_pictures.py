"""From a flat folder with a few labels to predictions and an exported file: lesson 22's commands, as they stand there."""

import csv
import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import train
from sslcourse.classify import fitting

pytestmark = pytest.mark.commands
LESSON = next((Path(__file__).parents[1] / "notebooks").glob("22_*.ipynb"))
SMALLER = {
    "--steps": 2,
    "--batch-size": 8,
    "--labels-per-class": "1,2",
    "--seeds": 1,
    "--count": 3,
    "--like": "red00.jpg",
}
COMPARED = ["--labels-per-class", 2, "--budgets", "1,2", "--batch-size", 8, "--no-finetune"]
LABELLED = 12  # of 15 pictures of each class


def commands():
    """The arguments of every command of the lesson, in order."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("sslcourse ")]


def smaller(arguments):
    """The same command on less."""
    values = [SMALLER.get(option) for option in [None, *arguments[:-1]]]
    less = [given if less is None else less for given, less in zip(arguments, values, strict=True)]
    return [*less, *COMPARED] if arguments[0] == "compare" else less


@pytest.fixture
def pictures(tmp_path):
    """`pictures`, a flat folder of two colours, and `labels.csv`, in which pictures stand in pairs of one scene."""
    folder, generator = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    rows = [["path", "label", "scene"]]
    for i in range(30):
        pixels = generator.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2 * (i % 2)] += 110
        Image.fromarray(pixels).save(folder / f"{'red blue'.split()[i % 2]}{i:02d}.jpg", quality=95)
        if i < 2 * LABELLED:
            name = "red blue".split()[i % 2]
            rows.append([f"{name}{i:02d}.jpg", name, f"{name} {i // 4}"])
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "torn.jpg").write_bytes(b"no picture at all")
    return folder


def test_the_commands_of_the_lesson_in_their_order(call, pictures, tmp_path, monkeypatch):
    short = dataclasses.replace(train.FINETUNE, steps=30, batch_size=8)
    monkeypatch.setitem(fitting.fit.__kwdefaults__, "config", short)
    said = {}
    for arguments in commands():
        if "onnx" in arguments:  # tests/test_deployment.py writes it
            continue
        code, out, err = call(*smaller(arguments))
        assert code == 0, (arguments, err)
        said[" ".join(arguments)] = out
    steps = "pretrain finetune evaluate embed explore search compare predict export"
    assert {text.split()[0] for text in said} == set(steps.split())

    known = {row["path"] for row in csv.DictReader((tmp_path / "labels.csv").open(encoding="utf-8"))}
    chosen = next(out for text, out in said.items() if text.startswith("explore label-next")).split()[:3]
    assert len(set(chosen)) == 3 and not known & set(chosen)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows if row["problem"]] == ["torn.jpg"] and len(rows) == 31
    assert sum(row["path"].startswith(row["class"] or "?") for row in rows) >= 25
    image = torch.full((1, 3, 16, 16), 60, dtype=torch.uint8)
    image[:, 0] += 110
    probabilities = torch.export.load(tmp_path / "model.pt2").module()(image)  # of blue and red
    assert probabilities.argmax() == 1
    for page in ("outliers", "clusters", "search"):
        assert (tmp_path / f"{page}.html").read_text(encoding="utf-8").count("<img") >= 3, page
    assert (tmp_path / "duplicates.html").is_file()
    assert (tmp_path / "duplicates.csv").read_text(encoding="utf-8").count(",cosine") == 1  # noise has no twins
    compared = next(out for text, out in said.items() if text.startswith("compare"))
    assert "rotation" in compared and (tmp_path / "compared.json").is_file()
    assert "of 24 pictures were taken" in (tmp_path / "mistakes.html").read_text(encoding="utf-8")
