"""How a command ends otherwise than by finishing: Ctrl-C, a signal, a reader that has gone, a console of few letters."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import conftest
import pytest
import typer

from sslcourse import cli
from sslcourse.console import shown

COMMANDS = typer.main.get_command(cli.app).commands
# What each command spends its time in, and what is true once that is interrupted.
INTERRUPTED = {
    "demo": ("sslcourse.demo.run", ["--data", "digits"], "written to sslcourse-demo at the end"),
    "lab": ("subprocess.call", [], "JupyterLab saves notebooks"),
    "reset": ("sslcourse.work.reset", ["02"], "where it was or in the folder `kept`"),
    "progress": ("sslcourse.overview.of", [], "stopped."),
    "doctor": ("sslcourse.doctor.run", ["--quick"], "what the doctor has said so far holds"),
    "tasks": ("sslcourse.pretext.tasks", [], "stopped."),
    "store": ("sslcourse.bundled.listed", [], "stopped."),
    "data": ("sslcourse.data.load", ["digits"], "goes on with a download where it was"),
    "pretrain": ("sslcourse.train.pretrain", ["rotation", "--data", "digits", "--out", "run"], "anything to save"),
    "evaluate": ("sslcourse.evaluate.label_efficiency", ["random", "--data", "digits"], "a measurement is not kept"),
    "finetune": ("sslcourse.weights.load", ["run", "--out", "m.safetensors"], "m.safetensors would have been written"),
    "predict": ("sslcourse.classify.load", ["m", "photos", "--csv", "c.csv"], "the rows so far are kept beside c.csv"),
    "embed": ("sslcourse.weights.load", ["run", "photos", "--out", "f.npy"], "f.npy would have been written"),
    "search": (
        "sslcourse.classify.heap.load",
        ["f.npy", "photos", "--like", "a"],
        "search.html would have been written",
    ),
    "explore": (
        "sslcourse.classify.heap.load",
        ["outliers", "f.npy", "photos"],
        "explore.html would have been written",
    ),
    "export": ("sslcourse.weights.load", ["run", "mine"], "writes mine anew"),
    "compare": ("sslcourse.compare.run", ["--data", "digits", "--out", "c.json"], "what was measured is in c.json"),
    "bench": ("sslcourse.bench.run", [], "nothing that was measured is kept"),
}


def test_every_command_says_what_is_true_after_an_interruption(call, monkeypatch):
    assert set(INTERRUPTED) == set(COMMANDS), "a new command: say here what is true when it is stopped"

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for name, (place, words, sentence) in INTERRUPTED.items():
        with monkeypatch.context() as patched:
            patched.setattr(place, interrupted)
            code, out, err = call(name, *words)
        *_, said = [line for line in err.splitlines() if line.startswith("sslcourse: ")]
        assert code == 130 and out == "" and sentence in said, name
        assert "--resume" not in said and "Traceback" not in err, name


def test_a_run_that_was_saved_is_gone_on_from_by_the_command_that_is_printed(call, monkeypatch, tmp_path):
    words = ["pretrain", "rotation", "--data", "digits", "--steps", "3", "--batch-size", "4", "--out", "my runs/a b"]
    from sslcourse import train

    real = train.pretrain

    def stopped(*given, **options):
        def stop(record):
            raise KeyboardInterrupt

        return real(*given, **(options | {"on_log": stop}))

    with monkeypatch.context() as patched:
        patched.setattr("sslcourse.train.pretrain", stopped)
        code, _, err = call(*words, "--log-every", "1", "--checkpoint-every", "1", "--device", "cpu")
    assert code == 130 and (tmp_path / "my runs/a b/checkpoint.pt").exists()
    printed = err.splitlines()[-1].split(", and ")[1].removesuffix(" goes on from it.")
    code, out, err = call(*shlex.split(printed)[1:])
    assert code == 0 and "3 steps" in out, err


def process(code, *words, **options):
    """A process that runs `code`, and then the command line."""
    script = f"{code}\nimport sys\nsys.argv = ['sslcourse', *{list(words)}]\nfrom sslcourse import cli\ncli.main()"
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, **options)


WAITS = """
import sslcourse.doctor, sys, time
def wait(**_):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
sslcourse.doctor.run = wait
"""


@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_one_sentence(number, code):
    running = process(WAITS, "doctor")
    assert running.stderr.readline() == "ready\n"
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == code
    assert err == "sslcourse: stopped; what the doctor has said so far holds.\n"


@pytest.mark.commands
@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
def test_ctrl_c_in_the_middle_of_training_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    words = ["pretrain", "rotation", "--data", "digits", "--steps", "1000000", "--batch-size", "4", "--device", "cpu"]
    started = "import sslcourse.train as t, sys\nbefore = t.fit\n" + (
        "def fit(*a, **b):\n    print('ready', file=sys.stderr, flush=True)\n    return before(*a, **b)\nt.fit = fit"
    )
    running = process(started, *words, "--out", str(tmp_path / "run"))
    while running.stderr.readline() != "ready\n":
        assert running.poll() is None
    time.sleep(0.5)  # some steps; whenever it comes, there is one sentence
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in err
    assert (tmp_path / "run" / "checkpoint.pt").exists() == ("--resume goes on from it" in err)


@pytest.mark.skipif(os.name == "nt", reason="pipes as on POSIX")
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", ["pretrain", "--help"]),
        ("import sslcourse.doctor as d\nd.run = lambda **_: print('a little') or 0", ["doctor"]),
        ("import sslcourse.doctor as d\nd.run = lambda **_: print('much' * 99999) or 0", ["doctor"]),
    ],
)
def test_output_that_nobody_reads_ends_a_command_quietly(code, words):
    reader, writer = os.pipe()
    os.close(reader)
    running = process(code, *words, stdout=writer)
    os.close(writer)
    _, err = running.communicate(timeout=30)
    assert running.returncode in (141, 1 if "--help" in words else 141) and err == ""  # rich, which prints help, says 1


def test_an_error_that_nobody_foresaw_stays_a_traceback(call, monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError("of a pipe inside")

    monkeypatch.setattr("sslcourse.data.load", broken)
    with pytest.raises(BrokenPipeError, match="inside"):
        call("data", "digits")


# --- consoles ----------------------------------------------------------------------------------------------------

NAMES = ("蓝色 things", os.fsdecode(b"caf\xe9\n$10_$20"))  # no letters of cp1252, and no letters at all


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange") / "图片"
    try:
        return conftest.two_colours(folder, NAMES, count=8)
    except OSError:
        pytest.skip("this file system has no such names")


def on_console(encoding, *words):
    """(exit code, what a console of this encoding gets, standard error) of a command."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    before = sys.stdout, sys.stderr, sys.argv
    sys.stdout, sys.stderr, sys.argv = *streams, ["sslcourse", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.stdout, sys.stderr, sys.argv = before
    for stream in streams:
        stream.flush()
    return end.value.code or 0, *(stream.buffer.getvalue().decode(encoding) for stream in streams)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_names_print_on_every_console(strange, tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    data, few = ("--data", f"folder:{strange}"), ("--size", 16, "--device", "cpu")
    commands = [
        ("data", f"folder:{strange}"),
        ("pretrain", "rotation", *data, *few, "--steps", 1, "--batch-size", 2, "--out", "运行"),
        ("evaluate", "运行", "--protocol", "knn", "--seeds", 1, "--labels-per-class", 2),
        ("export", "运行", "出口"),
        (
            "compare",
            *data,
            *few,
            "--tasks",
            "rotation",
            "--seeds",
            1,
            "--labels-per-class",
            2,
            "--budgets",
            1,
            "--steps",
            1,
        )
        + ("--no-finetune", "--out", "比较.json"),
        ("evaluate", "没有"),
        ("pretrain", "旋转", "--out", "x"),
    ]
    for words in commands:
        code, out, err = on_console(encoding, *words)
        assert code == (2 if words[1] in ("没有", "旋转") else 0), err
        assert "Traceback" not in err and "\ufffd" not in out + err
        if words[0] == "data":
            assert "2 classes: caf\\udce9\\n$10_$20, \\u84dd\\u8272 things" in out


def test_json_holds_the_names_as_they_are_shown(strange):
    _, out, _ = on_console("ascii", "data", f"folder:{strange}", "--json")
    assert sorted(json.loads(out)["classes"]) == sorted(map(shown, NAMES))
