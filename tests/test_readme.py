"""Every command of README.md, in its order, from its text: what a reader types works. Heavy ones are cut short here.

A command that is new in README is a failure until this file says how it runs.
"""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from sslcourse import cli, weights
from sslcourse.data import world

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
STARTS = ("sslcourse ", "python", "py ", "make ", "conda ", "uv ", ".venv", ". .venv")
COMMANDS = typer.main.get_command(cli.app).commands


def commands():
    """Every command of README in its order: lines of shell blocks, and code within the text that begins like one."""
    found = []
    for block, inline in re.findall(r"```(?:sh|powershell)\n(.*?)```|(?<!`)`([^`\n]+)`(?!`)", README, re.DOTALL):
        lines = [line.split("  #")[0].strip() for line in block.splitlines()] if block else [inline]
        found += [line for line in lines if line and (block or line.startswith(STARTS)) and line not in NAMES]
    return list(dict.fromkeys(found))


NAMES = {"python3.12", ".venv", "pyproject.toml"}  # that begin like a command
OTHERS = ("make ", "conda ", "uv ", "py ", ". .venv", ".venv\\", "python -m pip ", "python tools/")

# What is cut or replaced in a command of the course: words after it. The world is smaller in this test, too.
SHORT = {
    "demo": ["--steps", "2", "--seeds", "1", "--size", "32"],
    "pretrain": ["--batch-size", "8"],
    "evaluate": ["--seeds", "1"],
    "compare": [
        "--seeds",
        "1",
        "--steps",
        "2",
        "--labels-per-class",
        "2",
        "--budgets",
        "1",
        "--no-finetune",
        "--no-factors",
    ],
    "finetune": ["--folds", "2"],
    "doctor": ["--quick"],
    "bench": ["--seconds", "0.01"],
}


def the_course(line):
    """The words of a command of the course after its name; None of another command."""
    words = shlex.split(line.replace("\\", "/"))
    at = words.index("sslcourse") if "sslcourse" in words else None
    return None if at is None or line.startswith(("make ", "conda ")) else words[at + 1 :]


def opened(words):
    """The file that a command of JupyterLab opens, below its root."""
    return next(word for word in words if "default_url" in word).partition("/lab/tree/")[2]


@pytest.fixture
def small(monkeypatch, tmp_path, photographs):
    """A small world, no JupyterLab, no ten seconds of speed; {what README calls a place: a place here}."""
    from sslcourse import bench, doctor, train

    drawn = world.draw
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(world, "COUNTS", {"unlabeled": 60, "train": 240, "val": 40, "test": 60})
    monkeypatch.setattr("subprocess.call", lambda words, cwd: 0 if (cwd / opened(words)).is_file() else 1)
    monkeypatch.setattr(doctor, "findings", lambda quick: iter([doctor.Finding("Python", "ok", "3.12")]))
    ratio = {"ratio": 1.0, "ours, images/s": 1.0, "bare, images/s": 1.0, "theirs, images/s": 1.0}
    for name in ("loop_against_bare_step", "streaming", "two_processes", "beside_others"):
        monkeypatch.setattr(bench, name, lambda *_, **__: ratio)
    monkeypatch.setattr(bench, "against_lightly", lambda *_: {"views": ratio})
    monkeypatch.setattr(bench, "world_times", lambda: {"drawn": 1.0})
    monkeypatch.setattr(bench, "import_times", lambda: {"sslcourse": 0.1})
    monkeypatch.setattr(bench.world, "draw", lambda split, n, **options: drawn(split, min(n, 300), **options))
    real = train.fit  # of every training two steps

    def fit(model, batch, config, **options):
        short = dataclasses.replace(config, steps=min(config.steps, 2), warmup=min(config.warmup, 1))
        return real(model, batch, short, **options)

    monkeypatch.setattr(train, "fit", fit)
    return {"PATH": str(photographs), "PICTURE": str(next(photographs.rglob("*.png")))}


def few_tasks(words):
    return ["--tasks", "rotation"] if words == ["compare"] else []


@pytest.mark.commands
def test_every_command_of_the_course_runs_in_the_order_of_the_readme(call, small, tmp_path):
    lines = [line for line in commands() if the_course(line) is not None]
    shown = {words[0] for words in map(the_course, lines) if words}
    assert len(lines) > 12 and shown == set(COMMANDS), "a command without an example"
    seen = set()
    for line in lines:
        words = [word.replace("PATH", small["PATH"]).replace("PICTURE", small["PICTURE"]) for word in the_course(line)]
        if tuple(words) in seen:
            continue
        seen.add(tuple(words))
        code, out, err = call(*words, *SHORT.get(words[0] if words else "", []), *few_tasks(words))
        assert code == 0 and (out + err or words[0] == "lab"), f"{line}: {err}"
    assert json.loads((tmp_path / "results.json").read_text())["tasks"] == ["rotation", "simclr"]
    assert (tmp_path / "world.png").is_file()
    assert weights.load(tmp_path / "mine").arch == "resnet-tiny"  # of README's own sequence: pretrain, then export


def test_every_option_beside_a_command_is_one_of_its_options():
    for row in re.findall(r"^\| `sslcourse (\w+).*$", README, re.MULTILINE):
        (text,) = [line for line in README.splitlines() if line.startswith(f"| `sslcourse {row}")]
        named = set(re.findall(r"`(--[a-z-]+)", text.split("|")[2]))
        assert named <= {name for option in COMMANDS[row].params for name in option.opts + option.secondary_opts}, row


@pytest.mark.parametrize("line", [line for line in commands() if the_course(line) is None])
def test_every_other_command_names_what_is_there(line):
    """Installing needs a network, and so isn't done here: the files, targets, extras and groups it names are there."""
    assert line.startswith(OTHERS), f"README has a new command, {line!r}: say in this file how it is tested"
    words = shlex.split(line.replace("\\", "/"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if words[0] == "make":
        variables = [word for word in words[1:] if "=" in word]
        done = subprocess.run(["make", "-n", words[1], *variables], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^#   {variable.split('=')[0]}=", makefile, re.MULTILINE) for variable in variables)
    for option, value in zip(words, words[1:], strict=False):
        if option in ("-r", "--file"):
            assert (ROOT / value).is_file(), value
        if option == "--group":
            assert value in project["dependency-groups"]
        for extra in re.findall(r"^\.\[(.*)\]$", value):
            assert set(extra.split(",")) <= set(project["project"]["optional-dependencies"])
    for word in words:
        if word.startswith("tools/"):
            assert (ROOT / word).is_file()


def test_a_new_command_would_be_noticed(monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__], "README", README + "\n```sh\nsslcourse pretend\ncurl x\n```\nand `sslcourse fly`"
    )
    new = set(commands()) - {line for line in commands() if line in README_COMMANDS}
    assert new == {"sslcourse pretend", "curl x", "sslcourse fly"}


README_COMMANDS = commands()


def test_the_example_in_python_runs(small, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "steps=500" in code
    names = {}
    exec(code.replace("steps=500", "steps=2, batch_size=8"), names)
    assert names["classifier"].predict(names["few"]).shape == (len(names["few"]),)
    assert len(names["history"]) == 1
