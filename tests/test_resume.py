"""kill -9 at any moment, then --resume: the final weights are bit-identical. Nothing that was saved is ever lost."""

import dataclasses
import errno
import multiprocessing
import os
import pickle
import random
import signal

import pytest
import torch
from captions import EVERY_TASK, material

from sslcourse import backbones, checkpoint, files, pretext, train
from sslcourse.device import generator
from sslcourse.errors import CourseError, Damaged
from sslcourse.locking import Claimed

CONFIG = train.TrainConfig(steps=30, batch_size=8, log_every=5, checkpoint_every=3, seed=4)
MOMENTS = ("half-written", "written", "between the two moves", "moved", *(f"after {i} steps" for i in range(6)))


def pictures(n=20):
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator(0))


def task(name="rotation", **options):
    return pretext.build(name, backbones.build(pretext.find(name).arch, image_size=16, seed=1), **options)


def run(out, name="rotation", resume=True, config=CONFIG):
    return train.pretrain(
        task(name), material(name, pictures()), config, out=out, resume=resume, device="cpu", progress=False
    )


def run_and_die(out, name, moment, seed):
    """In a process of its own: train, and be killed as the moment says, at a place drawn from the seed."""
    torch.set_num_threads(1)
    dice = random.Random(seed)
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    count = dice.randint(1, 9)  # which write, of two per checkpoint
    calls = {"sync": 0, "move": 0}
    sync, move = os.fsync, os.replace

    def fsync(handle):
        calls["sync"] += 1
        if calls["sync"] >= count and moment == "half-written":
            os.truncate(handle, os.fstat(handle).st_size // 2)
            die()
        sync(handle)
        if calls["sync"] >= count and moment == "written":
            die()

    def replace(a, b):
        move(a, b)
        calls["move"] += 1
        to_previous = str(b).endswith("previous.pt")
        if calls["move"] >= count and moment == ("between the two moves" if to_previous else "moved"):
            die()

    files.os.fsync, files.os.replace = fsync, replace
    model = task(name)
    if moment.startswith("after"):
        steps, original = dice.randint(1, 12), model.after_step
        done = [0]

        def after_step(progress):
            original(progress)
            done[0] += 1
            if done[0] == steps:
                die()

        model.after_step = after_step
    train.pretrain(model, material(name, pictures()), CONFIG, out=out, resume=True, device="cpu", progress=False)


@pytest.mark.commands
@pytest.mark.parametrize("name", list(EVERY_TASK))
def test_killed_again_and_again_and_resumed_the_weights_are_the_same_bits(tmp_path, name):
    torch.set_num_threads(1)
    run(tmp_path / "whole", name, resume=False)
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["sslcourse.train", *(task.__module__ for task in EVERY_TASK.values())])
    kills = 0
    moments = list(MOMENTS)
    random.Random(name).shuffle(moments)
    moments = moments if name == "rotation" else moments[::2]  # ten deaths for one task, five for each of the others
    for seed, moment in enumerate(moments):
        process = start.Process(target=run_and_die, args=(tmp_path / "killed", name, moment, seed))
        process.start()
        process.join(120)
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= (4 if name == "rotation" else 2)  # a run may reach its end before the last moments come
    run(tmp_path / "killed", name)
    for file in ("backbone.safetensors", "history.jsonl"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    a, b = (checkpoint.read(tmp_path / d / "checkpoint.pt") for d in ("whole", "killed"))
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert not [p for p in (tmp_path / "killed").iterdir() if p.name.startswith(".")]  # nothing half-written stays


@pytest.mark.training
@pytest.mark.parametrize("stop", [1, 2, 3, 7, 29])
def test_resume_at_any_step_is_exact(tmp_path, stop):
    whole = run(tmp_path / "whole", resume=False)

    class Stop(Exception):
        pass

    model, seen = task(), []

    def after_step(progress):
        seen.append(progress)
        if len(seen) == stop:
            raise Stop

    model.after_step = after_step
    with pytest.raises(Stop):
        train.pretrain(model, pictures(), CONFIG, out=tmp_path / "cut", device="cpu", progress=False)
    assert run(tmp_path / "cut").records == whole.records
    assert (tmp_path / "cut/backbone.safetensors").read_bytes() == (
        tmp_path / "whole/backbone.safetensors"
    ).read_bytes()


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run(tmp_path, resume=False)
    before = (tmp_path / "backbone.safetensors").read_bytes()
    run(tmp_path)
    assert (tmp_path / "backbone.safetensors").read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_weights_without_a_checkpoint_are_not_replaced(tmp_path, resume):
    """Those of a run whose checkpoints were removed to save space, or somebody else's."""
    (tmp_path / "backbone.safetensors").write_bytes(b"mine")
    with pytest.raises(CourseError, match="no checkpoint to go on from; choose another folder"):
        run(tmp_path, resume=resume)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run(tmp_path, resume=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(CourseError, match="already holds a run"):
        run(tmp_path, resume=False)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"), [({"steps": 20}, "config.steps 30"), ({"learning_rate": 1e-3}, "config.learning_rate 0.005")]
)
def test_another_run_is_not_continued(tmp_path, change, named):
    run(tmp_path, resume=False)
    with pytest.raises(CourseError, match=named):
        run(tmp_path, config=dataclasses.replace(CONFIG, **change))
    with pytest.raises(CourseError, match="has task 'rotation', and this one 'transformation'|options"):
        run(tmp_path, "transformation")
    with pytest.raises(CourseError, match="has images"):
        train.pretrain(task(), pictures(21), CONFIG, out=tmp_path, resume=True, progress=False)


# --- made longer ---------------------------------------------------------------------------------------------------

LEVEL = dataclasses.replace(CONFIG, schedule="constant", warmup=4)


def weights_of(folder):
    return (folder / "backbone.safetensors").read_bytes()


def stopped_after(steps, name="rotation"):
    """A task that is interrupted after so many more steps, as by Ctrl-C."""
    model, left = task(name), [steps]
    follow = model.after_step

    def after_step(progress):
        follow(progress)
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)

    model.after_step = after_step
    return model


@pytest.mark.training
@pytest.mark.parametrize("done", [12, 30])
def test_a_level_rate_makes_a_longer_run_the_same_bits_as_one_that_was_as_long_from_the_start(tmp_path, capfd, done):
    longer = dataclasses.replace(LEVEL, steps=40)
    run(tmp_path / "whole", resume=False, config=longer)
    if done == 30:
        run(tmp_path / "more", resume=False, config=LEVEL)
    else:
        with pytest.raises(KeyboardInterrupt):
            train.pretrain(stopped_after(done), pictures(), LEVEL, out=tmp_path / "more", device="cpu", progress=False)
    capfd.readouterr()
    run(tmp_path / "more", config=longer)
    assert (
        f"from step {done} of 30 to step 40: the weights will be those of a run that was as long"
        in capfd.readouterr().err
    )
    assert weights_of(tmp_path / "more") == weights_of(tmp_path / "whole")
    assert (tmp_path / "more/history.jsonl").read_bytes() == (tmp_path / "whole/history.jsonl").read_bytes()
    run(tmp_path / "more", config=longer)
    assert capfd.readouterr().err == ""  # said once


@pytest.mark.training
def test_a_cosine_is_taken_up_where_that_of_the_longer_run_is_and_one_line_says_so(tmp_path, capfd):
    run(tmp_path / "run", resume=False)
    capfd.readouterr()
    longer = dataclasses.replace(CONFIG, steps=60)
    history = run(tmp_path / "run", config=longer)
    (line,) = capfd.readouterr().err.splitlines()
    rate = train.learning_rate(longer, 30)
    assert f"step 30 of 30 to step 60: the learning rate was 0 and is {rate:.2g} from here on, falling to 0" in line
    assert "will not be those of a run that was as long from the start" in line
    rates = history.column("learning_rate")
    assert rates[5] == 0 and rates[6:] == [train.learning_rate(longer, step - 1) for step in range(35, 61, 5)]
    run(tmp_path / "whole", resume=False, config=longer)
    assert weights_of(tmp_path / "run") != weights_of(tmp_path / "whole")
    assert backbones.load(tmp_path / "run").notes["lengthened_at"] == "30"
    assert "lengthened_at" not in backbones.load(tmp_path / "whole").notes


@pytest.mark.training
def test_a_longer_run_that_is_interrupted_goes_on_to_the_same_bits(tmp_path):
    longer = dataclasses.replace(CONFIG, steps=45)
    for name in ("whole", "cut"):
        run(tmp_path / name, resume=False)
    run(tmp_path / "whole", config=longer)
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(
            stopped_after(7), pictures(), longer, out=tmp_path / "cut", resume=True, device="cpu", progress=False
        )
    assert checkpoint.read(tmp_path / "cut/checkpoint.pt")["step"] == 37
    run(tmp_path / "cut", config=longer)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_task_whose_teacher_goes_by_progress_is_never_the_same_when_longer(tmp_path, capfd):
    run(tmp_path, "byol", resume=False, config=LEVEL)
    capfd.readouterr()
    run(tmp_path, "byol", config=dataclasses.replace(LEVEL, steps=33))
    line = capfd.readouterr().err
    assert "the pace of the teacher starts anew" in line and "will not be those" in line


def test_a_checkpoint_from_before_there_were_schedules_is_gone_on_from(tmp_path):
    run(tmp_path, resume=False)
    state = checkpoint.read(tmp_path / "checkpoint.pt")
    del state["run"]["config"]["schedule"], state["lengthened"], state["best"]
    torch.save(state, tmp_path / "checkpoint.pt")
    run(tmp_path)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(
        CourseError, match=r"config.schedule 'cosine', and this one 'constant'; .*\(--schedule cosine\)"
    ):
        run(tmp_path, config=dataclasses.replace(CONFIG, schedule="constant"))


def test_what_is_logged_may_change_when_resuming(tmp_path):
    run(tmp_path, resume=False)
    run(tmp_path, config=dataclasses.replace(CONFIG, log_every=7, checkpoint_every=2))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path, capfd):
    run(tmp_path / "whole", resume=False)
    run(tmp_path / "cut", resume=False)
    cut(tmp_path / "cut" / "checkpoint.pt")
    run(tmp_path / "cut")
    assert "is damaged or not a checkpoint" in capfd.readouterr().err
    assert (tmp_path / "cut/backbone.safetensors").read_bytes() == (
        tmp_path / "whole/backbone.safetensors"
    ).read_bytes()


def test_a_flipped_bit_is_noticed(tmp_path):
    run(tmp_path, resume=False)
    path = tmp_path / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CourseError, match="is damaged"):
        checkpoint.read(path)


def test_when_both_are_damaged_nothing_is_overwritten(tmp_path):
    run(tmp_path, resume=False)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        cut(tmp_path / name)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(CourseError, match="Nothing was overwritten"):
        run(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


class Evil:
    def __reduce__(self):
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("how", ["torch.save", "pickle", "text", "empty", "a tensor"])
def test_foreign_and_malicious_checkpoints_are_refused_and_never_run(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    if how == "torch.save":
        torch.save({"format": checkpoint.FORMAT, "evil": Evil()}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif how == "a tensor":
        torch.save(torch.zeros(3), path)
    else:
        path.write_bytes(b"hello" if how == "text" else b"")
    before = path.read_bytes()
    with pytest.raises(CourseError, match="refused|damaged or not a checkpoint|not a checkpoint that this version"):
        run(path.parent)
    assert not (tmp_path / "executed").exists() and path.read_bytes() == before


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    writes, fdopen = [], os.fdopen

    def full(handle, mode):
        writes.append(handle)
        if len(writes) >= 5:  # two files per checkpoint: the third checkpoint finds no space
            os.close(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        return fdopen(handle, mode)

    monkeypatch.setattr(files.os, "fdopen", full)
    with pytest.raises(CourseError, match="No space left on device.*unharmed.*--resume"):
        run(tmp_path, resume=False)
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "checkpoint.pt")["step"] == 6
    run(tmp_path)
    assert checkpoint.read(tmp_path / "checkpoint.pt")["step"] == 30


def test_out_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CourseError, match="is a file; --out needs a folder"):
        run(tmp_path / "file")


def test_a_checkpoint_holds_tensors_numbers_and_strings_alone(tmp_path):
    run(tmp_path, resume=False)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 30 and state["run"]["task"] == "rotation"


# --- stopped, and two at once ------------------------------------------------------------------------------------


@pytest.mark.training
@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_a_run_that_is_stopped_is_saved_after_the_step_and_goes_on_to_the_same_bits(tmp_path, number, raised):
    config = dataclasses.replace(CONFIG, checkpoint_every=100)  # none was due
    run(tmp_path / "whole", resume=False, config=config)
    before = signal.getsignal(number)
    model = task()
    model.after_step = lambda progress: signal.raise_signal(number) if progress == 4 / 30 else None
    with pytest.raises(raised):
        train.pretrain(model, pictures(), config, out=tmp_path / "run", device="cpu", progress=False)
    assert signal.getsignal(number) is before
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["step"] == 4
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "history.jsonl"}
    run(tmp_path / "run", config=config)
    for file in ("backbone.safetensors", "history.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    model, steps = task(), []

    def twice(images, generator):
        steps.append(1)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second was to stop it here")

    model.views = twice
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(model, pictures(), CONFIG, out=tmp_path / "run", device="cpu", progress=False)
    assert len(steps) == 1 and not (tmp_path / "run").exists()


def test_a_live_plot_may_stop_a_run_too(tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    config = dataclasses.replace(CONFIG, checkpoint_every=100)
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(task(), pictures(), config, out=tmp_path, device="cpu", progress=False, on_log=stop)
    assert checkpoint.read(tmp_path / "checkpoint.pt")["step"] == CONFIG.log_every


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        model = task()
        model.after_step = lambda progress: signal.raise_signal(signal.SIGTERM)
        history = train.pretrain(model, pictures(), CONFIG, out=tmp_path, device="cpu", progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert history.last["step"] == 30


def test_of_two_runs_into_one_folder_the_second_is_refused_at_once(tmp_path):
    """Both began in an empty folder, and the first had written nothing yet: whichever was last would have won."""
    refused, model = [], task()

    def another(progress):
        if not refused:
            with pytest.raises(Claimed, match=f"another run is writing {tmp_path / 'run'}") as error:
                run(tmp_path / "run", "transformation", resume=False)
            refused.append(error)

    model.after_step = another
    train.pretrain(model, pictures(), CONFIG, out=tmp_path / "run", device="cpu", progress=False)
    assert refused
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["run"]["task"] == "rotation"
    run(tmp_path / "run")


def test_options_that_an_earlier_version_recorded_are_read(tmp_path):
    """What checkpoints of 0.1.0 hold: each option under the name that the constructor and the command line have."""
    recorded = {
        "byol": {"momentum": 0.98, "last_norm": True, "hidden": 256, "dim": 64, "predictor": True},
        "moco": {"queue": 1024, "momentum": 0.99, "temperature": 0.2, "hidden": 256, "dim": 64},
        "swav": {"prototypes": 64, "temperature": 0.1, "epsilon": 0.05, "iterations": 3, "hidden": 256, "dim": 64},
        "rotation": {"all_rotations": True, "flip": True, "hidden": 256},
    }
    views = {"crop": 0.7, "jitter": 0.5, "gray": 0.2, "blur": 0.0}
    for name, options in recorded.items():
        crop = {"byol": {"crop": 0.85}, "swav": {"crop": 0.85}}.get(name, {})
        assert task(name).options() == options | ({} if name == "rotation" else views | crop), name


def test_a_checkpoint_of_another_network_is_damaged_not_a_traceback(tmp_path):
    run(tmp_path, resume=False)
    state = checkpoint.read(tmp_path / "checkpoint.pt")
    state["model"].pop("head.0.weight")
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        torch.save(state, tmp_path / name)
    with pytest.raises(Damaged, match="doesn't fit the network"):
        run(tmp_path)
    del state["history"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(Damaged, match="is not a checkpoint"):
        checkpoint.read(tmp_path / "checkpoint.pt")
