"""Streaming: the same images, batches and weights as from memory, whatever the workers do and whatever the files are."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import backbones, bench, checkpoint, pretext, train
from sslcourse import device as devices
from sslcourse.data import ImageFiles, decode, find_leaks
from sslcourse.data import load as load_data
from sslcourse.data.stream import TRIES, looked_at, placed, report, source
from sslcourse.errors import CourseError

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(seed, size=(20, 16)):
    low = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return Image.fromarray(low).resize(size)


def fill(top, count=12, start=0):
    top.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(start + i).save(top / f"{start + i:03}.jpg", quality=95)
    return sorted(top.iterdir())


@pytest.fixture
def paths(tmp_path):
    return fill(tmp_path / "photos")


def load(top, **options):
    return load_data(f"folder:{top}", progress=False, size=16, **options)


def in_memory(paths):
    return torch.from_numpy(decode.decode(paths, 16, progress=False).images)


def order(step):
    return torch.tensor([step % 12, (5 * step + 3) % 12, 7])


# --- the images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_of_memory_in_order_from_any_step(paths, workers):
    whole, files = in_memory(paths), ImageFiles(paths, 16, workers=workers)
    for start in (0, 4):
        got = list(files.batches(order, start, 7))
        assert len(got) == 7 - start
        for step, batch in enumerate(got, start):
            assert batch.dtype == torch.uint8
            assert torch.equal(batch, whole[order(step)])


def test_the_batch_of_a_step_is_the_same_from_memory_and_from_files_and_from_any_step_on(paths):
    whole, files = in_memory(paths), ImageFiles(paths, 16, workers=1)
    config = train.TrainConfig(steps=9, batch_size=5)
    memory, streamed = (train.Batches(images, config, CPU) for images in (whole, files))
    for step in (0, 1, 2, 6, 7, 3):  # a jump ahead, and back
        assert torch.equal(memory[step], streamed[step])
        assert torch.equal(memory[step], whole[train.batch_indices(step, 12, config)])
    assert len(memory) == 9
    with pytest.raises(IndexError):
        memory[9]


def test_the_process_s_own_random_numbers_are_left_alone(paths):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(ImageFiles(paths, 16, workers=1).batches(order, 0, 3))
    assert torch.equal(before, torch.get_rng_state())


def test_take_sample_and_size(paths):
    whole, files = in_memory(paths), ImageFiles(paths, 16, name="photos")
    assert len(files) == 12 and files.size == (16, 16) and "12 files of 16x16" in repr(files)
    assert torch.equal(files.take([3, 0]).images, whole[[3, 0]])
    assert torch.equal(files.sample(5).images, whole[::3])
    assert torch.equal(files.sample().images, whole)
    assert torch.equal(looked_at(files), whole) and looked_at(whole) is whole
    assert source(files.take([1])).shape == (1, 3, 16, 16) and source(files) is files
    with pytest.raises(CourseError, match="photos are streamed from disk.*take"):
        _ = files.images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": []}, "no image files to stream"),
        ({"size": 0}, "whole number of at least 1, and is 0"),
        ({"size": 1.5}, "whole number of at least 1, and is 1.5"),
        ({"workers": -1}, "whole number of at least 0, and is -1"),
        ({"workers": 0.5}, "whole number of at least 0, and is 0.5"),
    ],
)
def test_bad_arguments_are_refused(paths, options, message):
    with pytest.raises(CourseError, match=message):
        ImageFiles(**{"paths": paths, "size": 16, **options})


def test_any_name_that_the_disk_allows(tmp_path):
    names = ["a b.jpg", "schön.jpg", "雪.jpg", os.fsdecode(b"\xff.jpg")]
    try:
        for i, name in enumerate(names):
            picture(i).save(tmp_path / name)
    except OSError:
        names = names[:3]  # a file system that takes UTF-8 alone
    paths = [tmp_path / name for name in names]
    files = ImageFiles(paths, 16, workers=1)
    assert torch.equal(next(files.batches(lambda step: torch.arange(len(names)), 0, 1)), in_memory(paths))
    assert [files.path(i) for i in range(len(names))] == [str(path) for path in paths]


# --- files that can't be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_file_stands_in_for_one_that_cannot_be_read(paths, workers, capsys):
    whole = in_memory(paths)
    paths[4].write_bytes(b"no image")
    paths[5].write_bytes(b"")
    paths[11].unlink()
    files = ImageFiles(paths, 16, name="photos", workers=workers)
    for _ in range(2):
        got = list(files.batches(lambda step: torch.tensor([4, 5, 6, 11]), 0, 2))
    for batch in got:
        assert torch.equal(batch, whole[[6, 6, 6, 0]])
    assert sorted(files.unreadable) == [4, 5, 11]
    said = capsys.readouterr().err
    assert said.count("can't be read") == 3  # each once
    assert "004.jpg" in said and "empty file" in said and "a link to nothing" in said


def test_many_unreadable_files_are_counted_and_too_many_in_a_row_stop_with_one_sentence(paths, capsys):
    for path in paths[:10]:
        path.write_bytes(b"")
    files = ImageFiles(paths, 16, workers=1)
    assert torch.equal(files.take([0]).images, in_memory(paths[10:11]))
    said = capsys.readouterr().err
    assert said.count("stands in") == 8 and said.count("not named") == 1
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(CourseError, match=f"{TRIES} files of files in a row can't be read, .*000.jpg among them"):
        next(ImageFiles(paths, 16, workers=1).batches(order, 0, 1))


# --- training ----------------------------------------------------------------------------------------------------


def small(**changes):
    return train.TrainConfig(**{"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 3, **changes})


def task(name="rotation"):
    return pretext.build(name, backbones.build("resnet-tiny", image_size=16, seed=0))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.training
@pytest.mark.parametrize("name", ["rotation", "simclr", "colorization"])
def test_pretraining_from_files_gives_the_weights_of_pretraining_from_memory(paths, name):
    trained = []
    for images in (in_memory(paths), ImageFiles(paths, 16, workers=1)):
        model = task(name)
        train.pretrain(model, images, small(), device="cpu", progress=False)
        trained.append(weights(model))
    assert_same(*trained)


@pytest.mark.training
def test_a_run_that_stops_goes_on_bit_for_bit(paths, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        if record["step"] == 4:
            raise Stop

    files = ImageFiles(paths, 16, workers=1)
    whole, part = task(), task()
    train.pretrain(whole, files, small(log_every=1), device="cpu", progress=False)
    with pytest.raises(Stop):
        train.pretrain(part, files, small(log_every=1), device="cpu", progress=False, out=tmp_path / "run", on_log=stop)
    again = task()
    again_history = train.pretrain(
        again, ImageFiles(paths, 16, workers=2), small(log_every=1), out=tmp_path / "run", resume=True, device="cpu",
        progress=False,
    )  # fmt: skip
    assert_same(weights(whole), weights(again))
    assert again_history.column("step") == [1, 2, 3, 4, 5, 6]
    saved = backbones.load(tmp_path / "run" / "backbone.safetensors")
    assert_same(weights(saved), weights(again.backbone))


def test_a_run_is_not_gone_on_with_on_other_files(paths, tmp_path):
    run = {"out": tmp_path / "run", "device": "cpu", "progress": False}
    train.pretrain(task(), ImageFiles(paths, 16, workers=0), small(steps=3), **run)
    picture(99).save(paths[2])
    with pytest.raises(CourseError, match="the run in .* has images '12 files"):
        train.pretrain(task(), ImageFiles(paths, 16, workers=0), small(steps=3), resume=True, **run)


def test_fingerprints_tell_name_size_time_and_side(paths):
    first = ImageFiles(paths, 16).fingerprint()
    assert first == ImageFiles(paths, 16, workers=0).fingerprint()
    assert first != ImageFiles(paths, 17).fingerprint()
    assert first != ImageFiles(paths[:-1], 16).fingerprint()
    assert first != ImageFiles(paths[::-1], 16).fingerprint()
    os.utime(paths[0], ns=(1, 1))
    assert first != ImageFiles(paths, 16).fingerprint()
    identity = checkpoint.run_identity(task(), small(), ImageFiles(paths, 16))
    assert identity["images"].startswith("12 files ")


def test_a_batch_larger_than_the_files_is_refused(paths):
    with pytest.raises(CourseError, match="batch size is 13, but there are only 12 images"):
        train.pretrain(task(), ImageFiles(paths, 16), small(batch_size=13), device="cpu", progress=False)


# --- folders -----------------------------------------------------------------------------------------------------


def class_folders(top, count=10):
    for c, name in enumerate(CLASSES):
        fill(top / name, count, start=100 * c)
    return top


def held(images):
    """The images of a set as a set of bytes."""
    pixels = images.take(range(len(images))).images if isinstance(images, ImageFiles) else images.images
    return {image.numpy().tobytes() for image in pixels}


def test_class_folders_streamed_are_the_splits_of_memory(tmp_path):
    top = class_folders(tmp_path / "photos")
    memory, streamed = load(top), load(top, stream=True)
    for name in ("train", "val", "test"):
        a, b = getattr(memory, name), getattr(streamed, name)
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        assert not b.factors
    assert isinstance(streamed.unlabeled, ImageFiles)
    assert held(streamed.unlabeled) == held(memory.unlabeled)
    assert any("stay on disk" in note for note in streamed.notes)
    assert streamed.size == memory.size and str(streamed) == str(memory)
    assert not any("stay on disk" in note for note in memory.notes)


def test_unlabeled_beside_classes_is_streamed_without_copies_of_measured_files(tmp_path):
    top = class_folders(tmp_path / "photos")
    memory = load(top)
    fill(top / "unlabeled", 6, start=900)
    val = next(
        path for path in sorted(top.rglob("*.jpg")) if decode.read_image(path, 16)[0].tobytes() in held(memory.val)
    )
    (top / "unlabeled" / "copy.jpg").write_bytes(val.read_bytes())
    streamed = load(top, stream=True)
    assert len(streamed.unlabeled) == 6
    assert not held(streamed.unlabeled) & (held(streamed.val) | held(streamed.test))
    assert any("1 files left out of unlabeled" in line for line in streamed.warnings)
    assert not any(note.startswith("unlabeled is") for note in streamed.notes)


def test_images_without_any_labels_are_streamed(tmp_path):
    fill(tmp_path / "photos", 7)
    splits = load(tmp_path / "photos", stream=True)
    assert len(splits.unlabeled) == 7 and len(splits.train) == len(splits.val) == len(splits.test) == 0
    assert any("nothing can be measured" in note for note in splits.notes)


def test_what_does_not_fit_into_memory_is_streamed_by_itself_unless_that_is_refused(tmp_path, monkeypatch):
    top = class_folders(tmp_path / "photos")
    fill(top / "unlabeled", 40, start=900)
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 45 * 3 * 16**2)  # 45 of the 70 images
    splits = load(top)
    assert isinstance(splits.unlabeled, ImageFiles) and len(splits.unlabeled) == 40
    assert len(splits.train) + len(splits.val) + len(splits.test) == 30
    with pytest.raises(CourseError, match="take .* of memory"):
        load(top, stream=False)


def test_of_too_many_labelled_images_the_same_share_of_each_class_is_read(tmp_path, monkeypatch):
    top = class_folders(tmp_path / "photos", count=20)
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 30 * 3 * 16**2)
    splits = load(top)
    read = len(splits.train) + len(splits.val) + len(splits.test)
    assert read == 30
    assert set(splits.train.counts().values()) == {6}
    assert len(splits.unlabeled) == 60 - len(splits.val) - len(splits.test)
    assert not held(splits.unlabeled) & (held(splits.val) | held(splits.test))
    assert any("of 60 labelled images, 30 are read" in note for note in splits.notes)
    again = load(top)
    assert torch.equal(again.test.images, splits.test.images)


def test_only_files_can_be_streamed_and_leaks_are_not_looked_for_in_vain(tmp_path):
    with pytest.raises(CourseError, match="only photographs can be streamed.*data 'digits'.*stl10.*folder:PATH"):
        load_data("digits", stream=True)
    with pytest.raises(CourseError, match="never in memory together"):
        find_leaks(load(class_folders(tmp_path / "photos"), stream=True))


def test_the_report_says_where_the_images_are(paths):
    assert report(in_memory(paths), CPU) == "images: 12 in memory, 0 MB"
    assert report(ImageFiles(paths, 16, workers=2), CPU) == (
        "images: 12, streamed from disk by 2 worker processes, 16x16 pixels"
    )
    assert "by the loop itself" in report(ImageFiles(paths, 16, workers=0), CPU)


@pytest.mark.parametrize("fits", [True, False])
def test_what_fits_beside_training_is_put_on_the_device_and_that_is_said(paths, monkeypatch, fits):
    images, asked = in_memory(paths), []
    monkeypatch.setattr(devices, "fits", lambda nbytes, device: asked.append((nbytes, device.type)) or fits)
    assert placed(images, torch.device("meta")).device.type == ("meta" if fits else "cpu")
    files = ImageFiles(paths, 16, workers=0)
    assert placed(files, torch.device("meta")) is files
    where = "on cuda" if fits else "in memory"
    assert report(images, torch.device("cuda")) == f"images: 12 {where}, 0 MB"
    train.pretrain(task(), images, small(steps=1), device="cpu", progress=False)
    assert asked == [(images.nbytes, name) for name in ("meta", "cuda", "cpu")]


@pytest.mark.commands
def test_the_command_streams(tmp_path):
    top = class_folders(tmp_path / "photos")
    command = [sys.executable, "-m", "sslcourse", "pretrain", "rotation", "--out", str(tmp_path / "run"), "--stream"]
    options = ["--data", f"folder:{top}", "--size", "16", "--steps", "3", "--batch-size", "4", "--device", "cpu"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "streamed from disk by" in done.stderr
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


def test_another_seed_draws_other_labelled_images(tmp_path, monkeypatch):
    top = class_folders(tmp_path / "photos", count=20)
    monkeypatch.setattr(decode, "available_memory", lambda: 2 * 30 * 3 * 16**2)
    first, second = (load(top, seed=seed) for seed in (0, 1))
    read = [held(splits.train) | held(splits.val) | held(splits.test) for splits in (first, second)]
    assert len(read[0]) == len(read[1]) == 30
    assert read[0] != read[1]


@pytest.mark.commands
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks /proc which process is alive")
def test_a_worker_ends_when_the_process_that_trains_is_killed(paths):
    program = (
        "import multiprocessing, sys, torch\n"
        "from sslcourse.data import ImageFiles\n"
        "files = ImageFiles(sys.argv[1:], 224, workers=1)\n"  # a batch is longer than what a pipe holds
        "batches = files.batches(lambda step: torch.arange(12), 0, 100)\n"
        "next(batches)\n"
        "print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        worker = int(training.stdout.readline())
        training.kill()
    end = time.monotonic() + 30
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.1)
    left = alive(worker)
    if left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def alive(number):
    """Whether a process runs; one that ended and that nobody asked about doesn't."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# --- how fast ----------------------------------------------------------------------------------------------------


def test_decoding_and_learning_are_measured_apart_in_turn_and_ahead(tmp_path, monkeypatch):
    paths = bench.photographs(tmp_path / "photos", 6, "png", size=(24, 32), noise=0)
    asked, batches = [], ImageFiles.batches

    def told(files, numbers, start, stop):
        asked.append((files.workers, len(numbers(start)), stop - start))
        return batches(files, numbers, start, stop)

    monkeypatch.setattr(ImageFiles, "batches", told)
    rates = bench.loader_and_network(paths, 16, CPU, steps=1, batch=4)
    alone = ["decoding, all threads", "decoding, one worker", "network alone"]
    assert list(rates) == [*alone, "in turn", "decoded ahead"] and min(rates.values()) > 0
    assert asked == [(0, 4, 2), (1, 4, 2), (0, 4, 2), (1, 4, 2)]  # with a first batch that isn't counted


def test_photographs_are_of_the_size_and_kind_asked_for_and_as_noisy(tmp_path):
    still, noisy = (bench.photographs(tmp_path / str(n), 2, "png", size=(30, 40), noise=n) for n in (0, 6))
    assert [path.name for path in still] == ["0000.png", "0001.png"]
    pairs = [[np.asarray(Image.open(path)).astype(float) for path in pair] for pair in zip(still, noisy, strict=True)]
    assert all(image.shape == (30, 40, 3) for pair in pairs for image in pair)
    spread = np.std([noisy - still for still, noisy in pairs])
    assert 4 < spread < 7  # less than 6 by what is clipped
    (photograph,) = bench.photographs(tmp_path / "usual", 1)
    assert photograph.suffix == ".jpg" and Image.open(photograph).size == (256, 192)
