"""Whatever is typed: a result, or exit code 2 and one sentence. Every option of every command meets values of every kind."""

import os
import socket
import subprocess
import sys

import pytest
import typer

from sslcourse import backbones, cli

COMMANDS = typer.main.get_command(cli.app).commands
NUMBERS = ["", "-1", "0", "nan", "inf", "1e300", "-1e-320", "9" * 400, "abc", "½", "2.5", "true", "--", "\udcff", "1,2"]
WORDS = [
    "",
    "-",
    "nan",
    "\udcff",
    "中文",
    "a\nb",
    "x" * 5000,
    "..",
    "~",
    "~nobody-here/x",
    ".",
    "folder",
    "file",
    "null\0byte",
]
WORDS += [
    "cpu:banana",
    "cuda:99",
    "random",
    "a**b",
    "[",
    "world:9999",
    "digits:7",
    "folder:",
    "folder:file",
    "huggingface:folder",
]
PATHS = [
    "",
    "~nobody-here/x",
    "file",
    "file/x",
    "/proc/x",
    "/dev/null/x",
    "x" * 300,
    "\udcff",
    "a\nb",
    "null\0byte",
    "folder",
    "/",
]
OF_NUMBERS = set(
    "seeds steps size seed labels-per-class heads image-size seconds batch-size learning-rate weight-decay "
    "checkpoint-every log-every epochs warmup validate-every patience folds".split()
)
QUICK = ["--data", "digits", "--device", "cpu"]
# The least that each command does; None where a value could start something long. What these leave out, other tests hold.
LEAST = {
    "pretrain": ["pretrain", "rotation", *QUICK, "--steps", "1", "--batch-size", "2", "--out", "new"],
    "evaluate": ["evaluate", "random", *QUICK, "--seeds", "1", "--labels-per-class", "1", "--protocol", "knn"],
    "export": ["export", "run", "new"],
    "compare": ["compare", *QUICK, "--tasks", "rotation", "--seeds", "1", "--labels-per-class", "1", "--budgets", "1"]
    + ["--no-finetune", "--no-factors", "--steps", "1"],
    "data": ["data", "digits"],
    **dict.fromkeys(("finetune", "predict", "embed", "search", "explore")),  # tests/test_cli_practice.py
    "demo": None,
    "lab": None,
    "reset": ["reset", "02"],
    "progress": ["progress"],
    "bench": None,
    "doctor": None,
    "tasks": None,
    "store": None,
}


def hostile(name):
    """Commands with one value changed: some values for each option and argument, others for each."""
    arguments = [p.name for p in COMMANDS[name].params if p.param_type_name == "argument"]
    for i, parameter in enumerate(COMMANDS[name].params):
        flag = parameter.opts[-1]
        if flag == "--help" or getattr(parameter, "is_flag", False):
            continue
        values = PATHS if parameter.metavar in ("PATH", "OUT") else NUMBERS if flag[2:] in OF_NUMBERS else WORDS
        for k in range(1 if name == "compare" else 3):  # whose least takes the longest
            words, value = list(LEAST[name]), values[(3 * i + k) % len(values)]
            if parameter.name in arguments:
                words[1 + arguments.index(parameter.name)] = value
            elif flag in words:
                words[words.index(flag) + 1] = value
            else:
                words += [flag, value]
            if not (flag == "--steps" and value.isdigit() and len(value) > 9):  # which would be done
                yield words


@pytest.mark.commands
@pytest.mark.parametrize("name", [name for name in COMMANDS if LEAST[name]])
def test_every_option_takes_whatever_is_typed(call, tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    backbones.save(backbones.build(), tmp_path / "run/backbone.safetensors", image_size=32)
    for words in hostile(name):
        code, _, err = call(*words)
        said = [line for line in err.splitlines() if line.startswith("sslcourse: ")]
        assert code in (0, 2) and "Traceback" not in err, (words, err)
        assert code == 0 or len(said) == 1 and err.splitlines()[-1] == said[0], (words, err)


SENTENCES = [
    (("pretrain", "moco", *QUICK, "--steps", "1", "--batch-size", "1", "--out", "x"), "batch"),
    (("pretrain", "rotation", *QUICK, "--steps", "1", "--learning-rate", "1e300", "--out", "x"), "learning_rate"),
    (("pretrain", "rotation", *QUICK, "--seed", "9" * 30, "--out", "x"), "--seed"),
    (("pretrain", "rotation", *QUICK, "--option", "hidden=-1", "--steps", "1", "--out", "x"), "hidden"),
    (("pretrain", "simclr", *QUICK, "--option", "temperature=nan", "--steps", "1", "--out", "x"), "temperature"),
    (("pretrain", "rotation", *QUICK, "--steps", "1", "--epochs", "1", "--out", "x"), "leave one out"),
    (("pretrain", "rotation", *QUICK, "--epochs", "nan", "--out", "x"), "epochs must be a finite number"),
    (("pretrain", "rotation", *QUICK, "--steps", "9", "--warmup", "10", "--out", "x"), "from 1 to 9"),
    (("pretrain", "rotation", *QUICK, "--warmup", "a lot", "--out", "x"), "--warmup takes a share of the steps"),
    (("pretrain", "rotation", *QUICK, "--optimizer", "adam", "--out", "x"), "did you mean 'adamw'"),
    (("pretrain", "rotation", *QUICK, "--schedule", "linear", "--out", "x"), "schedule 'linear' is unknown"),
    (("pretrain", "rotation", *QUICK, "--signal", "knn", "--out", "x"), "signal 'knn' is unknown"),
    (("pretrain", "rotation", *QUICK, "--steps", "9", "--patience", "1", "--out", "x"), "due every 50 steps"),
    (("pretrain", "rotation", *QUICK, "--heads", "3", "--out", "x"), "name the file with --init"),
    (("pretrain", "rotation", *QUICK, "--init", "run", "--backbone", "resnet18", "--out", "x"), "leave --backbone out"),
    (("pretrain", "rotation", *QUICK, "--init", "nowhere", "--out", "x"), "nowhere"),
    (("evaluate", "random", "--data", "digits", "--seeds", "9" * 30), "--seeds"),
    (("compare", *QUICK, "--tasks", "rotation", "--option", "flop=1"), "none of rotation has an option 'flop'"),
    (("compare", *QUICK, "--tasks", "rotation", "--option", "flip=maybe"), "needs a value like True"),
    (("compare", *QUICK, "--tasks", "rotation", "--backbone", "resnet"), "backbone 'resnet' is unknown"),
    (("compare", *QUICK, "--tasks", "rotation", "--batch-size", "0"), "batch_size must be a whole number"),
    (("compare", *QUICK, "--weights", "nowhere"), "nowhere"),
    (("compare", *QUICK, "--weights", "run", "--seeds", "0"), "at least one seed"),
    (("export", "run", "x", "--format", "onyx"), "format 'onyx' is unknown"),
    (("export", "run", "x", "--format", "onnx", "--image-size", "32", "--stage", "5"), "stage must be one of"),
    (("evaluate", "random", *QUICK, "--stage", ""), "stage must be one of"),
    (("bench", "--seconds", "nan"), "--seconds"),
    (("bench", "--seconds", "-1"), "--seconds"),
    (("demo", "--steps", "0"), "--steps"),
    (("data", "digits", "--siz", "8"), "`sslcourse data --help` says what there is"),
    (("pretrain",), "Missing argument"),
    (("fly",), "fly"),
    (("lab", "-1"), "-1"),
    (("lab", "*"), "there is no lesson '*'"),
]


@pytest.mark.parametrize(("words", "sentence"), SENTENCES, ids=lambda value: " ".join(value)[:40] if value else "")
def test_what_is_asked_for_in_vain_is_named(call, tmp_path, words, sentence):
    backbones.save(backbones.build(), tmp_path / "run/backbone.safetensors")
    code, out, err = call(*words)
    assert code == 2 and out == "" and sentence in err.splitlines()[-1]
    assert len([line for line in err.splitlines() if line.startswith("sslcourse: ")]) == 1 and "Traceback" not in err


VARIABLES = [
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "abc"},
    {"WORLD_SIZE": "2", "RANK": "abc", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
    {"TORCHELASTIC_RESTART_COUNT": "x"},
    {"SSLCOURSE_CACHE": "~nobody-here/x"},
    {"RANK": "abc"},
    {"WORLD_SIZE": ""},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_environment_variables_of_any_kind(call, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, err = call("pretrain", "rotation", *QUICK, "--steps", "1", "--batch-size", "2", "--out", "x")
    said = [line for line in err.splitlines() if line.startswith("sslcourse: ")]
    assert "Traceback" not in err and (code == 0 or code == 2 and len(said) == 1), err


@pytest.mark.skipif(os.name == "nt", reason="home folders as on POSIX")
def test_without_a_home_folder():
    """A container's user that nobody has heard of: help answers, and ~ gets a sentence."""
    without = {name: value for name, value in os.environ.items() if name not in ("HOME", "USERPROFILE")}
    code = "import pwd\ndef nobody(*_): raise KeyError\npwd.getpwuid = pwd.getpwnam = nobody\n"
    code += "import sys\nfrom sslcourse import cli\nsys.argv = ['sslcourse', *sys.argv[1:]]\ncli.main()"
    for words, expected in ((["--help"], 0), (["export", "run", "~/x"], 2)):
        done = subprocess.run([sys.executable, "-c", code, *words], env=without, capture_output=True, text=True)
        assert done.returncode == expected and "Traceback" not in done.stderr, done.stderr
    assert "home folder" in done.stderr


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="sockets as on POSIX")
def test_what_lies_at_a_path_may_be_anything(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind("socket")
        for name in ("fifo", "socket", "/dev/null"):
            for words in (("evaluate", name, "--data", "digits"), ("export", name, "x")):
                code, _, err = call(*words)
                assert code == 2 and len([line for line in err.splitlines() if line.startswith("sslcourse: ")]) == 1
