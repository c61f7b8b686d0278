"""The loop, its schedules, its history, and what it refuses."""

import contextlib
import copy
import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch
from captions import EVERY_TASK, material
from hypothesis import given, strategies
from torch import nn

from sslcourse import backbones, device, heads, losses, pretext, schedules, train
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, Diverged
from sslcourse.pretext import PretextTask
from sslcourse.pretext.two_views import TwoViews

SHORT = train.TrainConfig(steps=6, batch_size=8, log_every=2, checkpoint_every=2)


def pictures(n=24, side=16, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=device.generator(seed))


def smooth(n=8, side=16):
    """Pictures with something to predict: a 4x4 pattern, blown up."""
    coarse = torch.rand(n, 3, 4, 4, generator=device.generator(0))
    return (255 * nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)).to(torch.uint8)


def labelled(n=24, classes=3):
    labels = torch.arange(n) % classes
    images = pictures(n)
    images[:, 0] = (labels * 80).to(torch.uint8)[:, None, None]  # red tells the class
    return ImageSet(images, labels, tuple("abc"[:classes]), "toy")


def task(name="rotation", **options):
    return pretext.build(name, backbones.build(pretext.find(name).arch, image_size=16), **options)


def weights(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# From eight pictures a task learns its answers by heart: the loss that is left, as a share of the first, after 60 steps.
# Tasks whose views are drawn anew at every step meet other holes, pairs and puzzles each time, and take longer.
OVERFIT = {
    "colorization": (150, 0.3), "inpainting": (150, 0.15), "mae": (150, 0.25), "context": (150, 0.3), "ijepa": (150, 0.5),
    "siglip": (150, 0.3),
}  # fmt: skip


# Of the tasks that compare views, tests/test_views.py asks the same: they have no answer that could be learned to the end.
ANSWERED = [name for name, kind in EVERY_TASK.items() if not issubclass(kind, TwoViews)]


@pytest.mark.training
@pytest.mark.parametrize("name", ANSWERED)
def test_every_task_overfits_eight_images(name):
    model = task(name)
    steps, left = OVERFIT.get(name, (60, 0.3))
    config = train.TrainConfig(**model.recipe | {"steps": steps, "batch_size": 8, "weight_decay": 0.0, "log_every": 1})
    images = material(name, smooth() if name in ("inpainting", "mae", "ijepa") else pictures(8))
    history = train.pretrain(model, images, config, progress=False)
    assert history.last["loss"] < left * history.records[0]["loss"]
    assert history.last.get("accuracy", 1.0) > 0.85


@pytest.mark.training
@pytest.mark.parametrize("name", list(EVERY_TASK))
def test_every_run_is_reproducible_from_its_seed(name):
    runs = []
    for seed in (0, 0, 1):
        torch.rand(7)  # whatever the global generator does is of no consequence
        model = task(name)
        images = material(name, pictures())
        history = train.pretrain(model, images, dataclasses.replace(SHORT, seed=seed), progress=False)
        runs.append((weights(model), history.records))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert not same(runs[0][0], runs[2][0])


def test_the_loop_equals_one_written_out():
    model, by_hand = task(), task()
    train.pretrain(model, pictures(), SHORT, device="cpu", progress=False)
    by_hand.train().to(memory_format=torch.channels_last)
    matrices = [p for p in by_hand.parameters() if p.dim() > 1]  # weight decay on these alone
    vectors = [p for p in by_hand.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": SHORT.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=SHORT.learning_rate,
    )
    for step in range(6):
        epoch, place = divmod(step, 3)
        order = torch.randperm(24, generator=device.generator(device.derive_seed(0, "order", epoch)))
        images = pictures()[order[place * 8 : place * 8 + 8]]
        views = by_hand.views(images, device.generator(device.derive_seed(0, "views", step)))
        loss, _ = by_hand(*views)
        done = (step + 1) / 6
        for group in optimizer.param_groups:
            group["lr"] = SHORT.learning_rate * schedules.warmup_cosine(done, 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same(weights(model), weights(by_hand))


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order():
    config = train.TrainConfig(steps=1, batch_size=4)
    first, second = (torch.cat([train.batch_indices(e * 5 + s, 20, config) for s in range(5)]) for e in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))
    assert first.tolist() != second.tolist()


def test_schedules_are_pure_and_end_where_they_should():
    assert schedules.cosine(0.0, 3, 1) == 3 and schedules.cosine(1.0, 3, 1) == 1
    assert math.isclose(schedules.cosine(0.5, 3, 1), 2)
    assert schedules.warmup_cosine(0.0, 0.2) == 0 and math.isclose(schedules.warmup_cosine(0.1, 0.2), 0.5)
    assert schedules.warmup_cosine(0.2, 0.2) == 1 and schedules.warmup_cosine(1.0, 0.2) == 0
    assert schedules.warmup_cosine(0.0, 0.0) == 1


def test_the_rate_of_a_step():
    """Warm-up as a share or a number of steps; a cosine to zero, or level."""
    base = train.TrainConfig(steps=10, learning_rate=2.0, warmup=0.4)
    rates = lambda **change: [train.learning_rate(dataclasses.replace(base, **change), s) for s in range(10)]  # noqa: E731
    for change in ({}, {"warmup": 4}, {"warmup": 4, "schedule": "constant"}):
        assert rates(**change)[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates()[4:] == pytest.approx(rates(warmup=4)[4:]) and rates()[-1] == 0
    assert rates(schedule="constant")[3:] == [2.0] * 7 == rates(warmup=4, schedule="constant")[3:]
    assert rates(warmup=0, schedule="constant") == [2.0] * 10
    longer = dataclasses.replace(base, steps=30, warmup=4, schedule="constant")
    assert [train.learning_rate(longer, s) for s in range(10)] == rates(warmup=4, schedule="constant")


def test_epochs_as_steps():
    assert [train.steps_of(epochs, 100, 30) for epochs in (1, 2.5, 0.01)] == [3, 8, 1]
    with pytest.raises(CourseError, match="epochs must be a finite number"):
        train.steps_of(math.nan, 100, 30)


@pytest.mark.parametrize("name", list(pretext.tasks()))
def test_a_task_says_whether_it_goes_by_the_share_of_training_that_is_done(name):
    """Two equal students, one early and one late in training: their teachers move alike unless the task is scheduled."""
    moved = []
    for progress in (0.2, 0.9):
        model = pretext.build(name, backbones.build(pretext.find(name).arch, image_size=16, seed=1))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1)
        model.after_step(progress)
        moved.append(torch.cat([value.double().flatten() for value in model.state_dict().values()]))
    assert torch.equal(*moved) == (not model.scheduled)


class Spy(PretextTask):
    """Notes what reaches a task."""

    name = "spy"

    def __init__(self, backbone):
        super().__init__(backbone)
        self.head, self.seen, self.progress = nn.Linear(backbone.dim, 1), [], []

    def views(self, images, generator):
        assert not torch.is_grad_enabled()
        self.seen.append((type(images), images.dtype, images.shape))
        return (images.float() / 255,)

    def forward(self, images):
        return self.head(self.backbone(images)).square().mean(), {}

    def after_step(self, progress):
        self.progress.append(progress)


def test_a_task_sees_pixels_and_nothing_else():
    spy = Spy(backbones.build())
    train.pretrain(spy, labelled(), SHORT, progress=False)
    assert set(spy.seen) == {(torch.Tensor, torch.uint8, torch.Size((8, 3, 16, 16)))}
    assert spy.progress == [(s + 1) / 6 for s in range(6)]


def test_frozen_parameters_stay_out_of_the_optimizer():
    model = task()
    for p in model.backbone.trunk.layer1.parameters():
        p.requires_grad_(False)
    optimizer = train.make_optimizer(model, SHORT)
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert inside == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.dim() > 1 for p in optimizer.param_groups[0]["params"])
    assert optimizer.param_groups[1]["weight_decay"] == 0


def test_the_run_folder_holds_what_it_promises(tmp_path):
    model = task()
    history = train.pretrain(model, labelled(), SHORT, out=tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert lines == history.records and [r["step"] for r in lines] == [2, 4, 6]
    assert {"loss", "learning_rate", "accuracy"} <= lines[0].keys()
    loaded = backbones.load(tmp_path / "run")
    assert same(weights(loaded), weights(model.backbone.cpu()))
    assert loaded.notes["task"] == "rotation" and loaded.notes["data"] == "toy"
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "checkpoint.pt", "checkpoint.previous.pt", "backbone.safetensors", "history.jsonl",
    }  # fmt: skip


def test_on_log_gets_each_record_and_history_finds_columns():
    seen = []
    history = train.pretrain(task(), pictures(), SHORT, progress=False, on_log=seen.append)
    assert seen == history.records
    assert history.column("step") == [2, 4, 6]
    with pytest.raises(CourseError, match="did you mean 'loss'"):
        history.column("los")


def test_finetune_learns_and_leaves_the_backbone_as_it_was():
    backbone, data = backbones.build(image_size=16), labelled()
    before = weights(backbone)
    config = train.TrainConfig(steps=40, batch_size=24, learning_rate=3e-3)
    classifier, history = train.finetune(backbone, data, config, progress=False)
    assert same(before, weights(backbone))
    assert history.last["loss"] < 0.2
    again = weights(classifier)
    assert (classifier.predict(data) == data.labels).float().mean() > 0.9
    assert same(again, weights(classifier))


@pytest.mark.parametrize("arch", ["resnet-tiny", "vit-tiny"])
@pytest.mark.parametrize("tune", ["last stage", "head"])
def test_what_is_not_tuned_stays_to_the_bit_statistics_included(arch, tune):
    backbone = backbones.build(arch)
    classifier, _ = train.finetune(backbone, labelled(), SHORT, tune=tune, progress=False)
    last = ("trunk.layer4.", "trunk.blocks.3.", "trunk.norm.") if tune == "last stage" else ()
    before, after = backbone.state_dict(), classifier.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith(last) for name in moved) if last else not moved
    assert bool(moved) == bool(last)
    assert not torch.equal(classifier.head.weight, torch.zeros_like(classifier.head.weight))
    assert all(parameter.requires_grad for parameter in classifier.parameters()), "the result can be trained on"
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("arch", ["resnet-tiny", "vit-tiny"])
def test_layer_decay_makes_early_layers_move_less_by_that_factor(arch):
    """One step of gradient descent without decay of weights: the first update is linear in the learning rate."""
    backbone, data = backbones.build(arch), labelled()
    one = train.TrainConfig(
        steps=1, batch_size=8, optimizer="sgd", learning_rate=0.1, weight_decay=0.0, warmup=0.5, mixed_precision=False
    )
    start = train.Classifier(backbone, len(data.classes))
    torch.nn.init.normal_(
        start.head.weight, generator=torch.Generator().manual_seed(0)
    )  # zero weights pass no gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "linear", lambda dim, classes: copy.deepcopy(start.head))
        patch.setattr(train.schedules, "warmup_cosine", lambda progress, warmup: 1.0)  # a last step has rate 0
        full, _ = train.finetune(backbone, data, one, progress=False)
        less, _ = train.finetune(backbone, data, one, layer_decay=0.5, progress=False)
    depths = set()
    for name, parameter in backbone.named_parameters():
        depth = train.depth_of(name, 4)
        step, small = (dict(c.backbone.named_parameters())[name] - parameter for c in (full, less))
        torch.testing.assert_close(small, step * 0.5 ** (5 - depth), rtol=1e-2, atol=1e-6)
        depths |= {depth} if step.abs().max() > 1e-4 else set()
    assert depths == {0, 1, 2, 3, 4}
    torch.testing.assert_close(full.head.weight, less.head.weight)


def test_finetune_refuses_what_it_cannot_tune():
    with pytest.raises(CourseError, match="last stage"):
        train.finetune(backbones.build(), labelled(), SHORT, tune="last-stage")
    for factor in (0, 1.5, -1):
        with pytest.raises(CourseError, match="layer_decay"):
            train.finetune(backbones.build(), labelled(), SHORT, layer_decay=factor)


def test_finetune_needs_labels():
    with pytest.raises(CourseError, match="no labels"):
        train.finetune(backbones.build(), labelled().without_labels(), SHORT)


class Explosive(Spy):
    """A loss that stops being a number at a chosen step."""

    def __init__(self, backbone, at):
        super().__init__(backbone)
        self.at, self.calls = at, 0

    def forward(self, images):
        loss, metrics = super().forward(images)
        self.calls += 1
        return (loss * math.nan if self.calls == self.at else loss), metrics


def test_a_loss_that_is_no_number_stops_training_and_names_the_step(tmp_path):
    with pytest.raises(CourseError, match="not a finite number at step 5.*last good checkpoint, of step 4"):
        train.pretrain(Explosive(backbones.build(), 5), pictures(), SHORT, out=tmp_path, progress=False)
    from sslcourse import checkpoint

    state = checkpoint.read(tmp_path / "checkpoint.pt")
    assert state["step"] == 4 and all(torch.isfinite(v).all() for v in state["model"].values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, and is 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number"),
        ({"warmup": 1.0}, "warmup is a share"),
        ({"warmup": 10**6}, "warmup, as a number of the steps, must be a whole number from 1 to"),
        ({"warmup": math.nan}, "warmup, a share of the steps, must be a finite number"),
        ({"schedule": "cosin"}, "schedule 'cosin' is unknown.*did you mean 'cosine'"),
        ({"optimizer": "adam"}, "optimizer 'adam' is unknown.*did you mean 'adamw'"),
    ],
)
def test_bad_settings_get_a_sentence(change, sentence):
    with pytest.raises(CourseError, match=sentence):
        dataclasses.replace(SHORT, **change)


def test_bad_images_get_a_sentence():
    with pytest.raises(CourseError, match="batch size is 8, but there are only 5 images"):
        train.pretrain(task(), pictures(5), SHORT)
    with pytest.raises(CourseError, match="takes uint8 images"):
        train.pretrain(task(), torch.rand(9, 3, 16, 16), SHORT)
    with pytest.raises(CourseError, match="needs square images, and these are 16x12"):
        train.pretrain(task(), pictures(9)[..., :12].contiguous(), SHORT)


def test_unknown_tasks_and_options_get_the_nearest_name():
    with pytest.raises(CourseError, match="did you mean 'rotation'"):
        pretext.find("rotatoin")
    with pytest.raises(CourseError, match="no option 'flips'.*did you mean 'flip'"):
        task(flips=True)
    with pytest.raises(CourseError, match="group 'sqare' is unknown.*did you mean 'square'"):
        task("transformation", group="sqare")


def test_devices_by_name():
    assert device.pick_device("cpu").type == "cpu"
    with pytest.raises(CourseError, match="did you mean 'cuda'"):
        device.pick_device("cud")
    if not torch.cuda.is_available():
        with pytest.raises(CourseError, match="offers only cpu"):
            device.pick_device("cuda")
    assert "torch" in device.report("cpu")


def test_derived_seeds_depend_on_every_part_and_on_their_order():
    seeds = {device.derive_seed(*parts) for parts in [(0, "a", 1), (0, "a", 2), (1, "a", 0), (0, "b", 1), ("a", 0, 1)]}
    assert len(seeds) == 5
    assert device.derive_seed(0, "views", 3) == 3971230131169731477  # the same in every process and on every machine


def test_cross_entropy_equals_torch_and_is_log_c_for_equal_logits():
    logits = torch.randn(7, 5, dtype=torch.float64, generator=device.generator(0), requires_grad=True)
    labels = torch.randint(5, (7,), generator=device.generator(1))
    torch.testing.assert_close(losses.cross_entropy(logits, labels), nn.functional.cross_entropy(logits, labels))
    assert torch.autograd.gradcheck(lambda x: losses.cross_entropy(x, labels), logits)
    assert math.isclose(
        losses.cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 2])).item(), math.log(4), rel_tol=1e-6
    )
    huge = torch.tensor([[1e4, 0.0]])
    assert losses.cross_entropy(huge, torch.tensor([1])).item() == 1e4


@pytest.mark.commands
def test_compiled_training_runs_where_a_compiler_is_there():
    try:
        train.pretrain(task(), pictures(), dataclasses.replace(SHORT, steps=2, compile=True), progress=False)
    except CourseError as error:
        pytest.skip(str(error))


def test_without_a_compiler_it_is_said_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled = dataclasses.replace(SHORT, compile=True)
    with pytest.raises(CourseError, match="no no-such-compiler here.*without --compile"):
        train.pretrain(task(), pictures(), compiled, out=tmp_path / "run", device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_whatever_else_compiling_lacks_is_one_sentence(monkeypatch):
    def broken(module):
        raise RuntimeError("not on this system")

    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(CourseError, match="not on this system.*without --compile"):
        device.compiled(nn.Identity(), torch.device("cpu"))

    def fails_later(module):
        def call(*inputs):
            raise torch._dynamo.exc.BackendCompilerFailed(len, RuntimeError("no headers"), None)

        return call

    monkeypatch.setattr(torch, "compile", fails_later)
    with pytest.raises(CourseError, match="torch.compile doesn't work here"):
        device.compiled(nn.Identity(), torch.device("cpu"))(torch.zeros(1))


# --- hostile values ----------------------------------------------------------------------------------------------

HOSTILE = [
    None, "", "abc", "1", b"1", -1, 0, 1.5, -0.5, math.nan, math.inf, -math.inf, 10**400, 2**70, 1e300, -1e300, 1e-300,
    True, False, [], [1], {}, (), object(), 1j, np.float32("nan"), np.bool_(True), np.int64(3), torch.tensor(1.0),
]  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(train.TrainConfig)])
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: "object" if type(value) is object else repr(value))
def test_every_field_of_a_configuration_takes_what_it_can_or_says_one_sentence(name, value):
    try:
        config = dataclasses.replace(SHORT, **{name: value})
    except CourseError as error:
        assert name in str(error) and "\n" not in str(error)
    else:
        kinds = {int, float} if name == "warmup" else {type(getattr(SHORT, name))}  # a number of steps, or a share
        assert type(getattr(config, name)) in kinds, "numbers are Python's own, as JSON takes them"
        json.dumps(dataclasses.asdict(config), allow_nan=False)


@pytest.mark.parametrize("name", list(EVERY_TASK))
def test_every_option_of_a_task_takes_what_it_can_or_says_one_sentence(name):
    network = backbones.build(pretext.find(name).arch, image_size=16)
    for option in pretext.option_defaults(pretext.find(name)):
        for value in HOSTILE:
            try:
                built = pretext.build(name, network, **{option: value})
            except CourseError as error:
                assert "\n" not in str(error)
            else:
                json.dumps(built.options(), allow_nan=False)


@pytest.mark.parametrize("rate", [1000.0, 1e-300])
def test_an_extreme_learning_rate_diverges_in_a_sentence_or_not_at_all(rate):
    with contextlib.suppress(Diverged):
        train.pretrain(task(), pictures(), dataclasses.replace(SHORT, learning_rate=rate), progress=False)


def test_numpy_numbers_are_numbers():
    config = train.TrainConfig(
        steps=np.int64(10), batch_size=np.uint8(4), learning_rate=np.float32(0.5), seed=np.int32(7)
    )
    assert config == train.TrainConfig(steps=10, batch_size=4, learning_rate=0.5, seed=7)
    assert task("simclr", hidden=np.int64(8)).options()["hidden"] == 8


@pytest.mark.parametrize("name", [name for name, kind in EVERY_TASK.items() if kind.least_batch == 2])
def test_a_task_that_compares_images_says_that_one_is_too_few(name, tmp_path):
    one = dataclasses.replace(SHORT, batch_size=1)
    with pytest.raises(CourseError, match="batch size is 1; choose one of at least 2"):
        train.pretrain(task(name), material(name, pictures()), one, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["colorization", "inpainting", "rotation", "transformation"])
def test_a_single_value_of_a_channel_is_one_sentence(name, tmp_path):
    drawn = {"rotation": {"all_rotations": False}, "transformation": {"all_elements": False}}.get(name, {})
    one = dataclasses.replace(SHORT, batch_size=1)
    with pytest.raises(CourseError, match="batch norm needs at least two values.*--size"):
        train.pretrain(task(name, **drawn), pictures(side=8), one, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    train.pretrain(task(name, **drawn), pictures(side=8), dataclasses.replace(one, batch_size=2), progress=False)
    assert not any(part._forward_pre_hooks for part in task(name).modules())


def test_fine_tuning_on_one_small_picture_is_one_sentence():
    with pytest.raises(CourseError, match="batch norm needs at least two values"):
        train.finetune(backbones.build(image_size=16), labelled().select(slice(1)), SHORT, progress=False)


@given(
    field=strategies.sampled_from([field.name for field in dataclasses.fields(train.TrainConfig)]),
    value=strategies.one_of(
        strategies.none(), strategies.booleans(), strategies.integers(), strategies.floats(), strategies.text(),
        strategies.binary(), strategies.lists(strategies.integers()), strategies.complex_numbers(),
        strategies.decimals(), strategies.fractions(), strategies.dates(),
    ),
)  # fmt: skip
def test_any_value_of_a_configuration_is_a_number_of_python_s_own_or_one_sentence(field, value):
    try:
        config = dataclasses.replace(SHORT, **{field: value})
    except CourseError as error:
        assert "\n" not in str(error) and len(str(error)) < 250
    else:
        json.dumps(dataclasses.asdict(config), allow_nan=False)


def test_a_number_of_thousands_of_digits_is_one_sentence_too():
    for field in ("steps", "learning_rate", "seed", "optimizer"):
        with pytest.raises(CourseError, match=field):
            dataclasses.replace(SHORT, **{field: -(10**5000)})
