"""Signals without labels: what they say of features whose answer is known, and a run that they end and go on from."""

import dataclasses
import math
import signal
import sys

import pytest
import torch

from sslcourse import backbones, checkpoint, events, pretext, train
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.validation import IMAGES, Validation, rankme, retrieval

CONFIG = train.TrainConfig(steps=24, batch_size=8, log_every=10, checkpoint_every=5, seed=4)


def pictures(n=20, seed=0):
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator(seed))


def task():
    return pretext.build("rotation", backbones.build("resnet-tiny", image_size=16, seed=1))


def held_out(**options):
    return Validation(pictures(12, 9), **({"every": 4} | options))


def run(out, validation, config=CONFIG, model=None, **options):
    return train.pretrain(
        model or task(), pictures(), config, out=out, device="cpu", progress=False, validation=validation, **options
    )


# What the signals say.


def test_retrieval_counts_the_views_that_are_found():
    x = torch.randn(40, 8, generator=generator(0))
    assert retrieval(x, 3 * x) == 1 and retrieval(x, x.roll(1, dims=0)) == 0
    half = x.clone()
    half[:20] = half[:20].roll(1, dims=0)
    assert retrieval(x, half) == 0.5
    first, second = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.eye(2)
    assert retrieval(first, second) == 0.75  # of the first views one finds its own, of the second ones both


def test_rankme_is_the_number_of_directions_that_are_used_alike():
    basis = torch.linalg.qr(torch.randn(60, 5, generator=generator(1), dtype=torch.float64))[0]  # (60, 5), orthonormal
    assert rankme(basis) == pytest.approx(5, abs=1e-4)
    assert rankme(basis[:, :1] @ torch.ones(1, 7, dtype=torch.float64)) == pytest.approx(1, abs=1e-4)
    weights = torch.tensor([3.0, 1.0], dtype=torch.float64)
    by_hand = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert rankme(basis[:, :2] * weights) == pytest.approx(by_hand, abs=1e-4)
    assert rankme(basis + 100) < 1.5, "not centred, as in the paper"


def test_measuring_changes_nothing_in_the_run(tmp_path):
    """Neither weights nor batch-norm statistics nor random numbers: without an early end, only what is kept differs."""
    run(tmp_path / "plain", None)
    run(tmp_path / "measured", held_out())
    plain, measured = (checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("plain", "measured"))
    assert all(torch.equal(plain["model"][name], measured["model"][name]) for name in plain["model"])
    assert torch.equal(plain["random"], measured["random"])


def test_the_history_holds_the_signals_and_the_backbone_has_the_best_weights(tmp_path):
    validation, model = held_out(), task()
    history = run(tmp_path, validation, model=model)
    assert [record["step"] for record in history.records] == [4, 8, 10, 12, 16, 20, 24]
    values = history.column("retrieval")
    assert len(values) == 6 and all(0 <= value <= 1 for value in values)
    best = validation.best_step(history.records)
    assert best == 4 * (1 + values.index(max(values)))
    saved = backbones.load(tmp_path)
    assert saved.notes["best_step"] == best
    again = held_out().measure(saved, 4, [])
    assert again["retrieval"] == max(values)
    assert all(
        torch.equal(a, b)
        for a, b in zip(saved.state_dict().values(), model.backbone.state_dict().values(), strict=True)
    )


class Scripted(Validation):
    """Says what it is told to say, measurement by measurement."""

    def __init__(self, values, **options):
        super().__init__(pictures(12, 9), every=4, **options)
        self.values = values

    def measure(self, backbone, step, records):
        found = super().measure(backbone, step, [])
        return found and {self.signal: self.values[step // 4 - 1]}


@pytest.mark.training
def test_a_run_ends_when_nothing_better_came_for_so_long(tmp_path):
    validation = Scripted([0.1, 0.5, 0.4, 0.5, 0.9, 0.9], patience=2)
    history = run(tmp_path, validation)
    assert history.last["step"] == 16 and validation.best_step(history.records) == 8  # the second 0.5 is no better
    assert checkpoint.read(tmp_path / "checkpoint.pt")["step"] == 16
    before = (tmp_path / "backbone.safetensors").read_bytes()
    again = run(tmp_path, Scripted([0.0] * 6, patience=2), resume=True)
    assert again.last["step"] == 16 and (tmp_path / "backbone.safetensors").read_bytes() == before
    longer = run(tmp_path, Scripted([0.0] * 6, patience=9), resume=True)  # more patience: it goes on
    assert longer.last["step"] == 24
    assert run(None, Scripted([0.1] * 6)).last["step"] == 24  # without patience it doesn't end


@pytest.mark.training
@pytest.mark.parametrize("stop", [4, 7, 13])
def test_an_interruption_changes_neither_the_end_nor_the_best_weights(tmp_path, stop):
    run(tmp_path / "whole", held_out(patience=3))
    model, steps = task(), []

    def after_step(progress):
        steps.append(progress)
        if len(steps) == stop:
            signal.raise_signal(signal.SIGINT)

    model.after_step = after_step
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", held_out(patience=3), model=model)
    run(tmp_path / "cut", held_out(patience=3), resume=True)
    for file in ("backbone.safetensors", "history.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_another_signal_is_another_run(tmp_path):
    run(tmp_path, held_out())
    with pytest.raises(CourseError, match="has validation.signal 'retrieval', and this one 'rankme'"):
        run(tmp_path, held_out(signal="rankme"), resume=True)
    with pytest.raises(CourseError, match=r"has validation.every 4, and this one None; .*\(--validate-every 4\)"):
        run(tmp_path, None, resume=True)


def test_many_images_are_thinned_and_features_that_are_no_numbers_are_worth_nothing():
    many = Validation(pictures(IMAGES + 1))
    assert len(many.images) <= IMAGES and many.views[0].shape == many.images.shape
    assert not torch.equal(many.views[0], many.views[1])
    broken = backbones.build("resnet-tiny", image_size=16)
    torch.nn.init.constant_(broken.trunk.conv1.weight, math.nan)
    assert many.measure(broken, 50, []) == {"retrieval": 0.0, "rankme": 0.0} and many.best == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"signal": "rank"}, "signal 'rank' is unknown.*did you mean 'rankme'"),
        ({"every": 0}, "steps between two validations must be a whole number"),
        ({"patience": 0}, "patience must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_validated_is_said_in_a_sentence(options, sentence):
    with pytest.raises(CourseError, match=sentence):
        held_out(**options)


def test_too_few_images_and_too_few_steps():
    with pytest.raises(CourseError, match="needs at least 8 images, and there are 7"):
        Validation(pictures(7))
    with pytest.raises(CourseError, match="due every 4 steps, and the run has 3"):
        run(None, held_out(), dataclasses.replace(CONFIG, steps=3))


def test_tensorboard_shows_one_line_for_a_run_that_went_on(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def shown(name):
        found = EventAccumulator(str(tmp_path / events.FOLDER)).Reload()
        return [(event.step, round(event.value, 5)) for event in found.Scalars(name)]

    history = run(tmp_path, held_out(), on_log=events.writer(tmp_path))
    want = [(record["step"], round(record["loss"], 5)) for record in history.records]
    assert shown("loss") == want and len(shown("retrieval")) == 6
    longer = dataclasses.replace(CONFIG, steps=30)
    history = run(tmp_path, held_out(), longer, resume=True, on_log=events.writer(tmp_path))
    assert shown("loss") == [(record["step"], round(record["loss"], 5)) for record in history.records]


def test_without_tensorboard_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(CourseError, match="pip install tensorboard"):
        events.writer(tmp_path)
