"""Files that others may read, whole or not at all, and never two runs writing one place."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from sslcourse import backbones, checkpoint, classify, comparison, files, pretext, train, weights
from sslcourse.data import cache, shards
from sslcourse.errors import CourseError
from sslcourse.locking import Claimed, claimed


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def expected(request):
    """The mode of a new file under an umask that holds for the test."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_every_written_file_has_the_mode_of_the_umask(expected, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    cache.load_or_make({"name": "zeros"}, lambda: {"zeros": np.zeros(3)})
    task = pretext.build("rotation", backbones.build(image_size=16, stem="imagenet"), hidden=0)
    config = train.TrainConfig(steps=2, batch_size=4, checkpoint_every=1)
    train.pretrain(task, torch.zeros(4, 3, 16, 16, dtype=torch.uint8), config, out=tmp_path / "run", progress=False)
    backbones.save(task.backbone, tmp_path / "backbone.safetensors")
    weights.save(task.backbone, tmp_path / "exported")
    weights.save(task.backbone, tmp_path / "exported.pt", format="torchvision")
    comparison.write({"records": []}, tmp_path / "results.json")
    found = {path: mode(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(found) == 11
    assert set(found.values()) == {expected}, found


def test_a_block_that_raises_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.written(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_of_someone_else_is_one_sentence(tmp_path):
    with pytest.raises(CourseError, match="can't be read: .*chmod"), files.reading(tmp_path / "theirs"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(CourseError, match=r"can't be read \(No such file"), files.reading(tmp_path / "none"):
        (tmp_path / "none").read_bytes()


@pytest.mark.parametrize("file", [False, True])
def test_the_second_to_claim_a_place_is_refused_at_once_and_nothing_stays(file, tmp_path):
    place = tmp_path / "deep" / "place"
    code = f"from sslcourse.locking import claimed\nwith claimed({str(place)!r}, file={file}): print('had')"
    other = [sys.executable, "-c", code]
    with claimed(place, file=file):
        with pytest.raises(Claimed, match="another run is writing"), claimed(place, file=file):
            pass
        refused = subprocess.run(other, capture_output=True, text=True)
        assert refused.returncode and "another run is writing" in refused.stderr and not refused.stdout
    assert not place.exists() and not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert subprocess.run(other, capture_output=True, text=True).stdout == "had\n"


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    code = f"import os\nfrom sslcourse.locking import claimed\nwith claimed({str(tmp_path)!r}): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with claimed(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CourseError, match="is a file; --out needs a folder"), claimed(tmp_path / "file"):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_keeps_no_reader_waiting(tmp_path):
    """Whatever a command reads: features, a comparison, a checkpoint, a shard, or what lies where it is to write."""
    pipe = tmp_path / "p.tar"
    os.mkfifo(pipe)
    os.mkfifo(tmp_path / "f.npy")
    readers = (
        lambda: classify.read_features(tmp_path / "f.npy"),
        lambda: comparison.read(pipe),
        lambda: checkpoint.read(pipe),
        lambda: shards.survey(pipe, cache=False),
        lambda: files.refuse_foreign(pipe, lambda path: True, "ours"),
    )
    for read in readers:
        with pytest.raises(CourseError, match="is a pipe or a device, and reading it might never end"):
            read()


def test_nothing_of_others_in_a_runs_folder_is_lost(tmp_path):
    (tmp_path / ".notes.part").write_text("mine")
    (tmp_path / ".checkpoint.pt.12345678.part").write_text("of a run that was killed")
    (tmp_path / "history.jsonl").write_text("mine")
    with pytest.raises(CourseError, match="history.jsonl is there already and isn't the history of a run"):
        checkpoint.Store(tmp_path, {}, resume=False)
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "history.jsonl").write_text('{"step": 20, "loss": 1.0}\n')
    checkpoint.Store(tmp_path, {}, resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.part", "history.jsonl"]
