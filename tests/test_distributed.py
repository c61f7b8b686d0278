"""Two processes with different images are one process with all of them: gradients, buffers, and a run that was killed."""

import os
import subprocess
import time
from pathlib import Path

import distributed_worker as worker
import pytest
import torch
from torch import nn

from sslcourse import distributed, launch
from sslcourse.errors import CourseError


def torchrun(job, folder, *options, processes=2):
    """Run the worker under torchrun; returns what it said on standard error."""
    worker_file = str(Path(worker.__file__))
    return launch.torchrun(worker_file, job, str(folder), processes=processes, options=options).stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder in which two processes left their gradients, and the run of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("gradients")
    torchrun("gradients", folder)
    return folder


@pytest.fixture(scope="module")
def both(whole):
    """What each of two processes found."""
    return [torch.load(whole / f"rank{rank}.pt") for rank in (0, 1)]


def error(found, expected):
    """Relative error over all tensors whose names begin alike."""
    difference = torch.cat([(found[n].double() - expected[n].double()).flatten() for n in expected])
    whole = torch.cat([t.double().flatten() for t in expected.values()])
    return (difference.norm() / whole.norm()).item()


def only(kind, tensors):
    return {name: tensor for name, tensor in tensors.items() if name.startswith(kind) and tensor.is_floating_point()}


@pytest.mark.commands
@pytest.mark.parametrize("method", list(worker.METHODS))
def test_gradients_are_those_of_one_process_on_the_joint_batch(both, method):
    one = worker.gradients(method)
    for found in both:
        assert error(only("gradient", found[method]), only("gradient", one)) < 1e-5
        assert error(only("buffer", found[method]), only("buffer", one)) < 1e-5
        counters = [n for n in one if n.startswith("buffer") and not one[n].is_floating_point()]
        assert all(torch.equal(found[method][n], one[n]) for n in counters)


@pytest.mark.commands
@pytest.mark.parametrize("method", ["simclr", "barlow"])
def test_a_wrong_gather_would_be_noticed(both, method):
    one = worker.gradients(method)
    assert error(only("gradient", both[0][f"{method}, own rows restored"]), only("gradient", one)) > 0.01


@pytest.mark.commands
def test_batch_norm_of_each_process_alone_would_be_noticed(both):
    one = worker.gradients("rotation")
    assert error(only("gradient", both[0]["rotation, own batch norm"]), only("gradient", one)) > 0.01


@pytest.mark.commands
def test_a_worker_dies_and_the_job_ends_with_the_same_weights(whole, tmp_path):
    said = torchrun("dies", tmp_path, "--max-restarts=1")
    assert "exitcode" in said or "failed" in said.lower(), "the worker should have died"
    files = [folder / "run" / "backbone.safetensors" for folder in (whole, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()
    states = [torch.load(file.with_name("checkpoint.pt"), weights_only=True) for file in files]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


def test_a_program_that_fails_says_why(tmp_path):
    (tmp_path / "fails.py").write_text("raise SystemExit('no bread')")
    with pytest.raises(CourseError, match=r"the 1 processes failed: [\s\S]*no bread"):
        launch.torchrun(str(tmp_path / "fails.py"), processes=1)


@pytest.mark.commands
@pytest.mark.parametrize("interrupted", [False, True])
def test_processes_that_are_not_done_in_time_are_all_stopped(tmp_path, monkeypatch, interrupted):
    program = tmp_path / "stays.py"
    program.write_text(
        "import os, sys, time\n"
        "open(f'{sys.argv[1]}/{os.environ[\"RANK\"]}.pid', 'w').write(f'{os.getpid()}.')\n"
        "time.sleep(600)\n"
    )
    wait = subprocess.Popen.communicate

    def there():
        return [text for file in tmp_path.glob("*.pid") if (text := file.read_text()).endswith(".")]

    def communicate(launcher, timeout):
        if not there():  # the first time, of which only the end is of interest
            while len(there()) < 2 and launcher.poll() is None:
                time.sleep(0.05)
            if interrupted:
                raise KeyboardInterrupt
        return wait(launcher, timeout=timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    with pytest.raises(KeyboardInterrupt if interrupted else CourseError) as stop:
        launch.torchrun(str(program), str(tmp_path), timeout=0.1)
    if not interrupted:
        assert str(stop.value).startswith("the 2 processes weren't done after 0.1 seconds, and were stopped; ")
        assert "\n" not in str(stop.value)
    assert len(there()) == 2
    for number in there():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number[:-1]), 0)


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_time_limit_is_a_number_of_seconds(timeout):
    with pytest.raises(CourseError, match="the timeout in seconds must be a finite number"):
        launch.torchrun("never.py", timeout=timeout)


def test_without_torchrun_nothing_is_done():
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(x) is x and distributed.total(x) is x and distributed.mean(x) is x
    assert (distributed.size(), distributed.rank()) == (1, 0)
    assert distributed.start(torch.device("cpu")) == torch.device("cpu")
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    distributed.synchronize_batch_norm(net)
    assert type(net[1]) is nn.BatchNorm2d
    assert distributed.wrap(net, torch.device("cpu")) is net
    indices = torch.arange(6)
    assert torch.equal(distributed.shard(indices), indices)


def test_a_restart_that_would_wait_for_ever_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.delenv(distributed.OWN_STORE, raising=False)
    with pytest.raises(CourseError, match=distributed.OWN_STORE):
        distributed.start(torch.device("cpu"))


def test_every_image_of_a_batch_goes_to_one_process(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.shard(torch.arange(12)))
    assert sorted(torch.cat(parts).tolist()) == list(range(12))
    with pytest.raises(CourseError, match="multiple of 3"):
        distributed.shard(torch.arange(10))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT can't be found.*torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "MASTER_ADDR, MASTER_PORT can't be found"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE in the environment should be a whole number, and is 'two'"),
        ({"WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "x"}, "TORCHELASTIC_RESTART_COUNT in the environment"),
        (
            {"WORLD_SIZE": "2", "RANK": "5", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "port"},
            "the 2 processes can't meet",
        ),
    ],
)
def test_a_process_that_torchrun_did_not_start_is_told_so(monkeypatch, environment, sentence):
    for name in ("WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT", *distributed.TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CourseError, match=sentence):
        distributed.start(torch.device("cpu"))
