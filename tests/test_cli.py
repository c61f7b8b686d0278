"""The command line: JSON alone on standard output, one sentence for what can't be done, and files where they were promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslcourse import cli


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """call("evaluate", "random", ...) -> (exit code, standard output, standard error), in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sslcourse", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of two classes that differ in colour, 30 images each, some wider than high."""
    folder = tmp_path_factory.mktemp("photographs")
    dice = np.random.default_rng(0)
    for c, name in enumerate(("blue things", "red things")):
        (folder / name).mkdir()
        for i in range(30):
            pixels = dice.integers(0, 120, (24, 24 + i % 3, 3), dtype=np.uint8)
            pixels[..., 2 - 2 * c] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_help_answers_for_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for command in ("demo", "lab", "doctor", "tasks", "pretrain", "evaluate", "compare", "data", "bench"):
        assert command in out
        code, text, _ = call(command, "--help")
        assert code == 0 and "Usage" in text


def test_help_and_errors_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['sslcourse', '--help']; "
        "from sslcourse import cli; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "pretrain" in done.stdout


def test_tasks_are_listed_with_their_options(call):
    _, out, _ = call("tasks", "--json")
    found = {entry["task"]: entry for entry in json.loads(out)}
    assert found["rotation"]["options"] == {"all_rotations": True, "flip": True, "hidden": 256}
    assert "Gidaris" in found["rotation"]["about"]
    _, out, _ = call("tasks")
    assert "transformation" in out and "--option group=square" in out


def test_pretrain_resume_and_evaluate_on_a_folder(call, photographs, tmp_path):
    data = f"folder:{photographs}"
    common = ("pretrain", "rotation", "--data", data, "--batch-size", 8, "--device", "cpu", "--out", "run")
    code, out, _ = call(*common, "--steps", 4, "--checkpoint-every", 2, "--log-every", 2, "--json")
    result = json.loads(out)
    assert code == 0 and result["step"] == 4 and {"loss", "accuracy"} <= result.keys()
    names = {"checkpoint.pt", "checkpoint.previous.pt", "backbone.safetensors", "history.jsonl"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
    code, _, err = call(*common, "--steps", 4)
    assert code == 2 and "already holds a run" in err and "Traceback" not in err
    code, out, _ = call(*common, "--steps", 4, "--resume")
    assert code == 0 and "backbone" in out

    for source in ("run", "run/backbone.safetensors", "random"):
        for protocol in ("linear", "knn"):
            code, out, _ = call(
                "evaluate", source, "--data", data, "--protocol", protocol, "--labels-per-class", 5, "--seeds", 2, "--json"
            )  # fmt: skip
            result = json.loads(out)
            assert code == 0 and result["protocol"] == protocol and len(result["accuracies"]) == 2
            assert result["mean"] > 0.8 and result["interval95"][0] <= result["mean"] <= result["interval95"][1]


def test_scratch_is_finetuned_and_refuses_frozen_protocols(call, photographs):
    data = ("--data", f"folder:{photographs}", "--labels-per-class", 5, "--seeds", 1)
    code, out, _ = call("evaluate", "scratch", *data, "--json")
    result = json.loads(out)
    assert code == 0 and result["protocol"] == "finetune" and result["std"] is None
    code, out, err = call("evaluate", "scratch", *data, "--protocol", "linear")
    assert code == 2 and out == "" and "for frozen features without training use random" in err


def test_compare_makes_a_table_and_goes_on_where_it_was(call, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    given = ["compare", "--data", f"folder:{photographs}", "--size", 16, "--seeds", 2, "--labels-per-class", 3]
    given += ["--steps", 2, "--budgets", "1,3", "--no-finetune", "--out", tmp_path / "results.json"]
    code, out, err = call(*given, "--tasks", "rotation,simclr", "--json")
    assert code == 0, err
    results = json.loads(out)
    assert results == json.loads((tmp_path / "results.json").read_text())
    places = {(one["row"], one["seed"], one["protocol"], one["labels"]) for one in results["records"]}
    assert {("simclr", 1, "linear", 1), ("simclr", 1, "linear", 3)} <= places
    code, out, err = call(*given, "--tasks", "rotation,simclr")
    assert code == 0 and "pretraining" not in err
    assert "linear probe" in out and "simclr" in out and "colour histogram" in out


@pytest.mark.parametrize("budgets", ["ten", "0", "1,-2", "1;2"])
def test_compare_refuses_budgets_that_are_none(call, budgets):
    code, _, err = call("compare", "--budgets", budgets)
    assert code == 2 and "whole numbers" in err


def test_data_says_what_is_there_and_shows_it(call, photographs, tmp_path):
    code, out, _ = call("data", f"folder:{photographs}", "--preview", "look.png", "--json")
    about = json.loads(out)
    assert code == 0 and about["classes"] == ["blue things", "red things"]
    assert sum(about["splits"][part] for part in ("train", "val", "test")) == 60
    assert Image.open(tmp_path / "look.png").size[0] > 100
    code, out, _ = call("data", "digits")
    assert code == 0 and "10 classes" in out
    code, _, err = call("data", "digits", "--preview", "look.jpg")
    assert code == 2 and "doesn't end in .png" in err


def test_the_demo_runs_on_a_folder(call, photographs, tmp_path):
    code, out, _ = call(
        "demo", "--data", f"folder:{photographs}", "--steps", 3, "--seeds", 2, "--out", "here", "--size", 16, "--json"
    )
    results = json.loads(out)
    assert code == 0 and Image.open(tmp_path / "here" / "figure.png").size[0] > 500
    assert set(results["table"]) == {
        "rotation, linear probe", "random features, linear probe", "rotation, fine-tuned", "from scratch",
    }  # fmt: skip
    assert json.loads((tmp_path / "here" / "results.json").read_text()) == results
    assert all(0 <= row["mean"] <= 1 and row["std"] is not None for row in results["table"].values())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pretrain", "rotaton", "--out", "x"), "did you mean 'rotation'"),
        (("pretrain", "rotation", "--out", "x", "--backbone", "resnet-18"), "did you mean 'resnet18'"),
        (("pretrain", "rotation", "--out", "x", "--data", "wrld"), "did you mean 'world'"),
        (("pretrain", "rotation", "--out", "x", "--device", "gpu"), "device 'gpu' is unknown"),
        (("pretrain", "rotation", "--out", "x", "--steps", "0"), "steps must be a whole number of at least 1"),
        (("pretrain", "rotation", "--out", "x", "--data", "digits", "--option", "flip"), "is NAME=VALUE"),
        (
            ("pretrain", "rotation", "--out", "x", "--data", "digits", "--option", "flip=maybe"),
            "needs a value like True",
        ),
        (("pretrain", "rotation", "--out", "x", "--data", "digits", "--option", "flop=1"), "did you mean 'flip'"),
        (
            ("pretrain", "rotation", "--out", "x", "--data", "digits", "--batch-size", "99999"),
            "the batch size is 99999",
        ),
        (("evaluate", "nowhere"), "there is no backbone at nowhere"),
        (("evaluate", "random", "--data", "digits", "--protocol", "lineal"), "did you mean 'linear'"),
        (("evaluate", "random", "--data", "digits", "--labels-per-class", "5000"), "ask for at most"),
        (("evaluate", "random", "--data", "digits", "--seeds", "0"), "at least one seed"),
        (("data", "folder:nowhere"), "nowhere"),
        (("demo", "--seeds", "0", "--data", "digits"), "at least one seed"),
        (("lab", "77"), "there is no lesson '77'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(call, arguments, sentence):
    code, out, err = call(*arguments)
    assert code == 2 and out == ""
    assert sentence in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("sslcourse: ")]) == 1


def test_python_m_sslcourse_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "sslcourse", "tasks"], capture_output=True, text=True)
    assert done.returncode == 0 and "rotation" in done.stdout


def test_the_gpu_benchmark_takes_a_dry_run_where_there_is_no_gpu():
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=hidden)
    assert done.returncode == 0, done.stderr
    assert "No CUDA GPU here" in done.stdout
    assert "A dry run of waits, bits, speed, compile, simclr went through" in done.stdout
    for line in ("waits    moco             none", "bits     rotation         twice True; resumed True"):
        assert line in done.stdout
    assert "not measured" not in done.stdout  # lightly's training is among what is gone through
