"""The command line: JSON alone on standard output, one sentence for what can't be done, and files where they were promised."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslcourse import backbones, cli, evaluate, record, train, weights
from sslcourse.data import load
from sslcourse.errors import CourseError
from sslcourse.locking import claimed


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


def test_every_setting_of_training_reaches_the_run(call, photographs, monkeypatch):
    """None of them has its default here, so that one which is dropped on the way is missed."""
    given = train.TrainConfig(
        steps=7, batch_size=5, learning_rate=0.02, weight_decay=0.125, warmup=3, optimizer="sgd", seed=4, log_every=2,
        checkpoint_every=6, compile=True, schedule="constant",
    )  # fmt: skip
    words = []
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        if field.name == "mixed_precision":  # the device decides
            continue
        assert value != field.default, field.name
        words += [f"--{field.name.replace('_', '-')}", *([] if value is True else [value])]
    reached = []

    def pretrain(task, images, config, **rest):
        reached.append(config)
        raise CourseError("seen")

    monkeypatch.setattr(train, "pretrain", pretrain)
    data = ("--data", f"folder:{photographs}", "--size", 16, "--device", "cpu", "--out", "run")
    assert call("pretrain", "rotation", *data, *words)[0] == 2
    assert reached == [given]


def test_a_run_is_made_longer_and_ends_early_at_the_command_line(call, photographs, tmp_path, monkeypatch):
    data = ("--data", f"folder:{photographs}", "--size", 16, "--batch-size", 9, "--device", "cpu")
    level = ("--schedule", "constant", "--warmup", 2, "--optimizer", "sgd", "--learning-rate", 0.01, "--out", "run")
    code, out, err = call("pretrain", "rotation", *data, *level, "--epochs", 1, "--json")
    assert code == 0 and json.loads(out)["steps"] == 4, err  # 36 images
    code, out, err = call("pretrain", "rotation", *data, *level, "--resume", "--json")
    assert code == 0 and json.loads(out)["steps"] == 4 and "going on" not in err, "as many as it was to have"
    code, out, err = call("pretrain", "rotation", *data, *level, "--resume", "--steps", 6, "--json")
    assert code == 0 and json.loads(out)["step"] == 6
    assert "from step 4 of 4 to step 6: the weights will be those of a run that was as long" in line_of(err)
    assert backbones.load(tmp_path / "run").notes["steps"] == 6
    code, _, err = call("pretrain", "rotation", *data, *level, "--resume", "--steps", 5)
    assert code == 2 and "has config.steps 6, and this one 5" in line_of(err)

    monkeypatch.setattr("sslcourse.validation.retrieval", lambda *_: 0.5)  # nothing gets better
    early = ("--steps", 40, "--validate-every", 2, "--patience", 1, "--out", "early")
    code, out, err = call("pretrain", "rotation", *data, *early)
    assert code == 0 and "of which 4 were enough" in out and "of step 2, where retrieval was highest" in out, err
    code, out, err = call("pretrain", "rotation", *data, *early, "--resume", "--json")
    assert code == 0 and json.loads(out)["step"] == 4 and json.loads(out)["best_step"] == 2


def test_validation_takes_images_that_are_not_trained_on_where_there_are_some(call, photographs, tmp_path, monkeypatch):
    from sslcourse import train

    seen = {}

    def pretrain(task, images, config, *, validation, **options):
        seen.update(trained=images.images, validated=validation.images)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "pretrain", pretrain)
    given = ("pretrain", "rotation", "--size", 16, "--steps", 60, "--patience", 2, "--out", "run")
    _, _, err = call(*given, "--data", f"folder:{photographs}")
    trained = {image.numpy().tobytes() for image in seen["trained"]}
    assert len(seen["validated"]) == 12 and "validating on images" not in err
    assert not trained & {image.numpy().tobytes() for image in seen["validated"]}
    (tmp_path / "flat").mkdir()
    for path in photographs.rglob("*.png"):
        shutil.copy(path, tmp_path / "flat" / f"{path.parent.name}{path.name}")
    _, _, err = call(*given, "--data", "folder:flat")
    assert "validating on images that are also trained on" in err and len(seen["validated"]) == 60


@pytest.mark.commands
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


@pytest.mark.commands
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


@pytest.mark.commands
def test_python_m_sslcourse_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "sslcourse", "tasks"], capture_output=True, text=True)
    assert done.returncode == 0 and "rotation" in done.stdout


@pytest.mark.commands
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


# --- a run's folder knows what it is -----------------------------------------------------------------------------


def line_of(err):
    (line,) = [line for line in err.splitlines() if line.startswith("sslcourse: ")]
    return line


def test_what_comes_after_pretraining_takes_size_and_data_from_the_run_and_the_printed_commands_run(call, photographs):
    few = ("--protocol", "knn", "--seeds", 1, "--labels-per-class", 3, "--json")
    quick = ("--steps", 1, "--batch-size", 4, "--device", "cpu")
    code, out, _ = call(
        "pretrain", "rotation", "--data", f"folder:{photographs}", "--size", 16, *quick, "--out", "a b/-run"
    )
    printed = {line.split(": ")[0]: line.split(": ", 1)[1] for line in out.splitlines()[1:]}
    assert shlex.split(printed["measure it"])[1:] == [
        "evaluate", "a b/-run", "--data", f"folder:{photographs}", "--size", "16",
    ]  # fmt: skip
    as_printed, _, err = call(*shlex.split(printed["measure it"])[1:], *few)[0:3]
    assert as_printed == 0 and "is used, as asked" not in err
    code, out, err = call("evaluate", "a b/-run", *few)
    result = json.loads(out)
    assert code == 0 and result["data"] == f"folder:{photographs}" and result["image_size"] == [16, 16]
    assert "sslcourse: " not in err

    code, out, err = call("evaluate", "a b/-run", "--data", "digits", "--size", 24, *few)
    assert code == 0 and json.loads(out)["image_size"] == [24, 24] and json.loads(out)["data"] == "digits"
    assert [line for line in err.splitlines() if line.startswith("sslcourse: ")] == [
        f"sslcourse: a b/-run was pretrained with --data folder:{photographs}; --data digits is used, as asked.",
        "sslcourse: this resnet-tiny was pretrained on images of 16 pixels, and is measured on 24, as asked.",
    ]
    code, out, err = call("evaluate", "a b/-run", "--data", "digits:24", *few)
    assert code == 0 and json.loads(out)["image_size"] == [24, 24] and "is measured on 24, as asked" in err
    code, out, err = call("evaluate", "a b/-run", "--data", "digits", *few)
    assert code == 0 and json.loads(out)["image_size"] == [16, 16] and "--data digits is used" in line_of(err)
    code, out, err = call("evaluate", "a b/-run", "--backbone", "resnet18", *few)
    assert code == 0 and "is a resnet-tiny; --backbone resnet18 says what random and scratch are made of" in err
    code, out, err = call("evaluate", "a b/-run", "--stem", "small", "--normalize", "half", *few)
    assert code == 0 and "stem, normalize, as asked for, are not used" in line_of(err)

    code, _, err = call(
        "pretrain", "simclr", "--weights", "a b/-run", "--data", f"folder:{photographs}", *quick, "--out", "on"
    )
    assert code == 0 and backbones.load("on").notes["image_size"] == 16
    code, _, err = call(
        "pretrain", "simclr", "--weights", "a b/-run", "--data", "digits", "--size", 32, *quick, "--out", "off"
    )
    assert code == 0 and "a b/-run was pretrained with --size 16; --size 32 is used, as asked." in line_of(err)


def test_a_run_in_a_folder_named_like_a_baseline_is_measured_and_not_the_baseline():
    assert cli.texts.typed_command("evaluate", "random") == "sslcourse evaluate ./random"
    assert cli.texts.typed_command("evaluate", "-x") == "sslcourse evaluate ./-x"
    assert (
        cli.texts.typed_command("evaluate", "~x", data="folder:a b") == "sslcourse evaluate './~x' --data 'folder:a b'"
    )


def test_a_run_from_before_there_was_a_record_is_measured_as_it_was_then(call, monkeypatch):
    backbones.save(backbones.build(), "old/backbone.safetensors", task="rotation", data="digits", steps=1)
    code, out, err = call(
        "evaluate", "old", "--data", "digits", "--protocol", "knn", "--seeds", 1, "--labels-per-class", 3, "--json"
    )
    assert code == 0 and json.loads(out)["image_size"] == [32, 32] and "sslcourse: " not in err


def test_a_specification_means_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert record.canonical("folder:a b") == f"folder:{tmp_path / 'a b'}"
    assert record.canonical("huggingface:~/x") == f"huggingface:{tmp_path / 'me' / 'x'}"
    for spec, same in (("world:crowd,night,64", "world:crowd,night"), ("World", "world"), ("digits:64", "digits")):
        assert record.canonical(spec) == same and record.canonical(same) == same


def test_a_tilde_is_the_home_folder_in_every_path_of_every_command(call, monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    quick = ("--data", "digits", "--steps", 1, "--batch-size", 4, "--device", "cpu")
    assert call("pretrain", "rotation", *quick, "--out=~/run")[0] == 0
    assert call("pretrain", "rotation", *quick, "--weights", "~/run", "--out", "~/on")[0] == 0
    assert call("export", "~/run", "~/mine")[0] == 0
    assert call("export", "~/run", "~/mine.pth", "--format", "torchvision")[0] == 0
    assert call("data", "digits", "--preview", "~/look.png")[0] == 0
    assert {path.name for path in home.iterdir()} >= {"run", "on", "mine", "mine.pth", "look.png"}
    assert not (tmp_path / "~").exists()


# --- exports -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path):
    backbones.save(
        backbones.build(seed=1), tmp_path / "run/backbone.safetensors", image_size=24, spec="digits", stage="all"
    )
    return tmp_path / "run"


def features(backbone):
    return backbone.eval()(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_a_backbone_that_transformers_cannot_hold_is_written_in_the_courses_own_layout(call, run_folder, tmp_path):
    code, out, err = call("export", "run", "mine")
    assert code == 0 and "mine: resnet-tiny in the layout of sslcourse" in out
    assert "begins with ImageNet's" in line_of(err) and "--stem imagenet" in err and "--format torchvision" in err
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"config.json", "backbone.safetensors"}
    again = weights.load("mine")
    assert torch.equal(features(again), features(weights.load("run"))) and record.of(again) == record.of(
        weights.load("run")
    )
    about = json.loads((tmp_path / "mine/config.json").read_text())["sslcourse"]
    assert about["first_convolution"] == {"kernel_size": 3, "stride": 2, "max_pooling": False}
    assert about["notes"]["image_size"] == 24 and len(about["mean"]) == 3


def test_an_export_is_written_anew_and_nobody_elses_files_are(call, run_folder, tmp_path):
    assert call("export", "run", "mine")[0] == call("export", "run", "mine")[0] == 0
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/notes.txt").write_text("mine")
    (tmp_path / "old.pth").write_text("theirs")
    for place, options in (("theirs", ()), ("mixed", ()), ("old.pth", ("--format", "torchvision")), ("run", ())):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        code, out, err = call("export", "run", place, *options)
        assert code == 2 and "overwrite" in line_of(err) and out == "", place
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert call("export", "run", place, *options, "--overwrite")[0] == 0
    assert (tmp_path / "mixed/notes.txt").read_text() == "mine"


def test_of_an_export_in_another_layout_nothing_stays(tmp_path):
    small, large = backbones.build(seed=1), backbones.build(stem="imagenet", seed=2)
    assert weights.save(small, tmp_path / "mine", "auto") == "sslcourse"
    assert weights.save(large, tmp_path / "mine", "auto") == "huggingface"
    assert torch.equal(features(weights.load(tmp_path / "mine")), features(large))
    assert weights.save(small, tmp_path / "mine", "auto") == "sslcourse"
    assert torch.equal(features(weights.load(tmp_path / "mine")), features(small))


def test_the_size_of_the_run_is_the_size_of_the_export(call, tmp_path):
    backbones.save(
        backbones.build(stem="imagenet"), tmp_path / "run/backbone.safetensors", image_size=24, spec="digits"
    )

    def size(place):
        return json.loads((tmp_path / place / "preprocessor_config.json").read_text())["size"]["height"]

    code, _, err = call("export", "run", "a")
    assert code == 0 and size("a") == 24 and "sslcourse: " not in err
    code, _, err = call("export", "run", "b", "--image-size", 40)
    assert (
        code == 0 and size("b") == 40 and "was pretrained with --size 24; --size 40 is used, as asked." in line_of(err)
    )
    assert record.of(weights.load("a")) == record.Record("digits", None, 24)


def test_two_exports_to_one_place_at_once(call, run_folder, tmp_path):
    with claimed(tmp_path / "mine"):
        code, _, err = call("export", "run", "mine")
    assert code == 2 and "another run is writing" in line_of(err)
    with claimed(tmp_path / "mine.pth", file=True):
        code, _, err = call("export", "run", "mine.pth", "--format", "torchvision")
    assert code == 2 and "another run is writing" in line_of(err)


@pytest.mark.skipif(os.name == "nt", reason="modes as on POSIX")
def test_exports_have_the_mode_that_the_umask_gives(call, run_folder, tmp_path):
    before = os.umask(0o027)
    try:
        assert call("export", "run", "mine")[0] == 0
        assert call("export", "run", "mine.pth", "--format", "torchvision")[0] == 0
    finally:
        os.umask(before)
    for path in (tmp_path / "mine/config.json", tmp_path / "mine/backbone.safetensors", tmp_path / "mine.pth"):
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_table_of_labels_goes_from_pretraining_to_what_comes_after(call, photographs, tmp_path):
    (tmp_path / "flat").mkdir()
    rows = ["path,class"]
    for path in sorted(photographs.rglob("*.png")):
        name = f"{path.parent.name[0]}{path.name}"
        shutil.copy(path, tmp_path / "flat" / name)
        rows.append(f"{name},{path.parent.name}")
    (tmp_path / "my labels.csv").write_text("\n".join(rows))
    given = ("--data", "folder:flat", "--labels", "my labels.csv", "--size", 16, "--device", "cpu")
    few = ("--protocol", "knn", "--seeds", 1, "--labels-per-class", 3, "--json")
    code, out, _ = call("data", "folder:flat", "--labels", "my labels.csv", "--json")
    assert code == 0 and json.loads(out)["classes"] == ["blue things", "red things"]
    code, out, err = call("pretrain", "rotation", *given, "--steps", 1, "--batch-size", 4, "--out", "run")
    assert code == 0 and "--labels 'my labels.csv' --size 16" in out, err
    assert "60 images" not in err  # what is measured on is not pretrained on
    for words in (("evaluate", "run"), tuple(shlex.split(out.splitlines()[-1].split(": ", 1)[1])[1:])):
        code, result, err = call(*words, *few)
        assert code == 0 and json.loads(result)["mean"] > 0.6 and "sslcourse: " not in err, err
    code, result, err = call("evaluate", "run", "--data", f"folder:{photographs}", *few)
    assert code == 0 and "is used, as asked" in line_of(err)
    code, _, err = call(
        "compare", *given, "--tasks", "rotation", "--steps", 1, "--seeds", 1, "--labels-per-class", 2, "--budgets", 1,
        "--no-finetune",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = call("evaluate", "random", "--data", "digits", "--labels", "my labels.csv")
    assert code == 2 and "labels from a file are for folder:PATH" in line_of(err)


def test_in_python_too_a_backbone_says_when_it_is_measured_at_another_size(tmp_path, capsys):
    backbones.save(backbones.build(), tmp_path / "b.safetensors", image_size=24)
    for size, said in ((24, ""), (16, "was pretrained on images of 24 pixels, and is measured on 16")):
        splits = load("digits", size=size)
        evaluate.evaluate(weights.load(tmp_path / "b.safetensors"), splits, labels_per_class=1, seeds=1, protocol="knn")
        assert said in capsys.readouterr().err if said else capsys.readouterr().err == ""


def test_two_demos_into_one_folder_at_once(call, tmp_path):
    with claimed(tmp_path / "here"):
        code, _, err = call("demo", "--data", "digits", "--out", "here")
    assert code == 2 and "another run is writing" in line_of(err)


def test_the_lab_opens_a_lesson_below_the_course(call, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.call", lambda words, cwd: started.append((words, cwd)) or 0)
    assert call("lab", "2", "--no-browser", "--port", "9123")[0] == 0
    words, course = started[0]
    options = dict(word.removeprefix("--").split("=", 1) for word in words[3:] if "=" in word)
    assert Path(options["ServerApp.root_dir"]) == course and (course / "exercises").is_dir()
    assert (course / options["LabApp.default_url"].removeprefix("/lab/tree/")).name.startswith("02_")
    assert options["ServerApp.port"] == "9123" and "--no-browser" in words
    assert ("ServerApp.allow_root" in options) == (hasattr(os, "geteuid") and os.geteuid() == 0)
