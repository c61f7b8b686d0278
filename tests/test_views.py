"""The methods that compare views: teachers, queues and centres, what gets a gradient, and what collapses when it is broken."""

import math

import pytest
import torch
from torch.nn import functional

from sslcourse import augment, backbones, losses, pretext, schedules, teacher, train
from sslcourse.data import world
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.pretext.two_views import TwoViews

METHODS = {name: kind for name, kind in pretext.tasks().items() if issubclass(kind, TwoViews)}
WITH_TEACHER = ["byol", "dino", "ibot", "moco"]
ONE_TENSOR = ["dino", "ibot", "lejepa"]  # both large views in one, the first ones first
ARCH = {"ibot": "vit-tiny"}  # the others are tested on the residual network, which is fast


def pictures(n=8, side=16, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator(seed))


def build(name, **options):
    return pretext.build(name, backbones.build(ARCH.get(name, "resnet-tiny"), image_size=16, seed=1), **options)


def test_all_ten_are_there():
    eight = {"simclr", "moco", "byol", "simsiam", "barlow", "vicreg", "swav", "dino"}
    assert set(METHODS) == eight | {"ibot", "lejepa"}


# --- views -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_two_views_are_of_the_same_pictures_and_drawn_apart(name):
    images = pictures(64)
    views = build(name).views(images, generator(0))
    first, second = views[0].chunk(2) if name in ONE_TENSOR else views
    assert first.shape == second.shape == (64, 3, 16, 16)
    assert 0 <= first.min() and first.max() <= 1
    assert (first != second).flatten(1).any(1).all()
    untouched = build(name, crop=1.0, jitter=0.0, gray=0.0, **({"local": 0} if name == "dino" else {}))
    views = untouched.views(images, generator(1))
    uncropped = views[0] if name in ONE_TENSOR else torch.cat(views)  # (128, 3, 16, 16), but for the aspect ratio
    x = (images / 255).repeat(2, 1, 1, 1)
    nearest = torch.minimum((uncropped - x).abs().mean((1, 2, 3)), (uncropped - x.flip(-1)).abs().mean((1, 2, 3)))
    other = (uncropped - x.roll(1, 0)).abs().mean((1, 2, 3))
    assert (nearest < other).all()


def test_a_view_can_be_gray_small_blurred_and_solarized():
    images = pictures(4)
    gray = augment.view(images, generator(0), jitter=0.0, gray=1.0)
    torch.testing.assert_close(gray[:, 0], gray[:, 2], atol=1e-5, rtol=0)
    small = augment.view(images, generator(0), size=8, blur=1.0, solarized=1.0)
    assert small.shape == (4, 3, 8, 8) and 0 <= small.min() and small.max() <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [({"crop": 0.0}, "crop is the least share"), ({"jitter": -1.0}, "jitter"), ({"gray": 1.5}, "gray must be in")],
)
@pytest.mark.parametrize("name", METHODS)
def test_what_every_method_refuses(name, options, said):
    with pytest.raises(CourseError, match=said):
        build(name, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("simclr", {"temperature": 0.0}), ("moco", {"queue": 0}), ("moco", {"momentum": 1.1}), ("byol", {"momentum": -0.1}),
     ("swav", {"epsilon": 0.0}), ("dino", {"teacher_temperature": 0.0}), ("dino", {"center_momentum": 2.0})],
)  # fmt: skip
def test_what_single_methods_refuse(name, options):
    with pytest.raises(CourseError, match=next(iter(options))):
        build(name, **options)


# --- teachers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_starts_as_an_exact_copy_and_no_optimizer_takes_it(name):
    task = build(name)
    ours, theirs = task.student().state_dict(), task.teacher.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert not {p.data_ptr() for p in task.teacher.parameters()} & {p.data_ptr() for p in task.student().parameters()}
    taken = {id(p) for group in train.make_optimizer(task, train.TrainConfig()).param_groups for p in group["params"]}
    assert not taken & {id(p) for p in task.teacher.parameters()}
    task(*task.views(pictures(), generator(0)))[0].backward()
    assert all(p.grad is None for p in task.teacher.parameters())
    assert all(p.grad is not None for p in task.backbone.parameters())


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 1.0])
def test_the_teacher_follows_by_the_closed_form(momentum):
    student, start = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    follower = teacher.copy_of(start)
    for _ in range(4):
        teacher.follow(follower, student, momentum)
    for slow, w, first in zip(follower.parameters(), student.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(slow, momentum**4 * first + (1 - momentum**4) * w)
        assert momentum != 1 or torch.equal(slow, first)
        assert momentum != 0 or torch.equal(slow, w)


@pytest.mark.parametrize("name", ["byol", "dino", "ibot"])
def test_the_teachers_momentum_rises_to_one(name):
    task = build(name)
    for p in task.backbone.parameters():
        p.data.add_(1.0)
    before = [p.clone() for p in task.teacher.parameters()]
    task.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, task.teacher.parameters(), strict=True))
    task.after_step(0.5)
    share = 1 - schedules.cosine(0.5, task.momentum, 1.0)
    moved = next(iter(task.teacher.parameters())) - before[0]
    torch.testing.assert_close(moved, torch.full_like(moved, share), atol=1e-5, rtol=0)


# --- MoCo's queue ------------------------------------------------------------------------------------------------


def test_the_queue_is_first_in_first_out_and_wraps():
    task, size, batch = build("moco", queue=10, dim=4), 10, 4  # 4 doesn't divide 10
    expected = [row for row in task.queue.clone()]
    place = 0
    for step in range(6):
        keys = functional.normalize(torch.randn(batch, 4, generator=generator(step)), dim=1)
        task.enqueue(keys)
        for key in keys:
            expected[place % size] = key
            place += 1
        assert torch.equal(task.queue, torch.stack(expected)) and int(task.pointer) == place % size
    task.enqueue(torch.ones(25, 4))  # more than it holds: the last ones stay
    assert torch.equal(task.queue, torch.ones(10, 4))


def test_mocos_loss_is_brute_force_on_the_queue_before_the_batch_and_keys_come_after():
    task = build("moco", queue=12, dim=8)
    first, second = task.views(pictures(), generator(0))
    queue = task.queue.clone()
    loss, _ = task(first, second)
    task.eval()  # batch norm has moved; take the loss again from the parts, in training mode
    task.train()
    q = functional.normalize(task.projector(task.backbone(first)), dim=1)
    k = functional.normalize(task.teacher(second), dim=1)
    total = 0.0
    for i in range(len(q)):
        logits = torch.stack([q[i] @ k[i], *(q[i] @ other for other in queue)]) / task.temperature
        total = total - logits.log_softmax(0)[0]
    torch.testing.assert_close(loss, total / len(q))
    torch.testing.assert_close(task.queue[:8], k.detach(), atol=1e-5, rtol=0)
    assert torch.equal(task.queue[8:], queue[8:])


def test_measuring_writes_nothing_into_queue_or_centre():
    for name in ("moco", "dino", "ibot"):
        task = build(name).eval()
        before = {k: v.clone() for k, v in task.state_dict().items()}
        task(*task.views(pictures(), generator(0)))
        assert all(torch.equal(before[k], v) for k, v in task.state_dict().items()), name


# --- BYOL, SimSiam -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_the_loss_is_symmetric_and_predicts_the_other_view(name):
    task = build(name).eval()
    first, second = task.views(pictures(), generator(0))
    loss, _ = task(first, second)
    torch.testing.assert_close(loss, task(second, first)[0])
    project = task.teacher if name == "byol" else (lambda x: task.projector(task.backbone(x)))
    predict = lambda x: task.predictor(task.projector(task.backbone(x)))  # noqa: E731
    cosines = [
        functional.cosine_similarity(predict(a), project(b)).mean() for a, b in ((first, second), (second, first))
    ]
    expected = -sum(cosines) / 2 if name == "simsiam" else 2 - sum(cosines)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_simsiams_target_gets_no_gradient_unless_asked_for():
    """With a predictor that ignores its input, a gradient can reach the backbone through the target alone."""
    for stop in (True, False):
        task = build("simsiam", stop_gradient=stop, dim=16)
        task.predictor[-1].weight.data.zero_()
        task.predictor[-1].bias.data.fill_(1.0)
        task(*task.views(pictures(), generator(0)))[0].backward()
        reached = task.backbone.trunk.conv1.weight.grad.abs().max()
        assert (reached == 0) == stop


@pytest.mark.training
@pytest.mark.parametrize(("name", "broken"), [("simsiam", {"stop_gradient": False}), ("byol", {"predictor": False})])
def test_collapse_comes_when_stop_gradient_or_predictor_goes_and_not_otherwise(name, broken):
    images = world.draw("unlabeled", 512).images
    spread = {}
    for case, options in (("whole", {}), ("broken", broken)):
        task = pretext.build(name, backbones.build(seed=0), last_norm=False, **options)
        config = train.TrainConfig(steps=40, batch_size=64, **task.recipe)
        spread[case] = train.pretrain(task, images, config, progress=False).last["spread"]
    assert spread["broken"] < 0.25 < 0.5 < spread["whole"], spread


@pytest.mark.training
def test_collapse_comes_when_the_variance_term_goes_and_not_otherwise():
    images = world.draw("unlabeled", 512).images
    deviation = {}
    for variance in (25.0, 0.0):
        task = pretext.build("vicreg", backbones.build(seed=0), variance=variance)
        history = train.pretrain(
            task, images, train.TrainConfig(steps=40, batch_size=64, **task.recipe), progress=False
        )
        deviation[variance] = history.last["deviation"]
    assert deviation[0.0] < 0.05 < 0.15 < deviation[25.0], deviation


# --- DINO --------------------------------------------------------------------------------------------------------


def test_shifting_teacher_and_centre_together_changes_nothing():
    task = build("dino")
    logits = torch.randn(5, task.center.shape[1], generator=generator(0))
    before = task.sharpen(logits)
    task.center.add_(3.0)
    torch.testing.assert_close(task.sharpen(logits + 3.0), before, atol=1e-5, rtol=1e-4)


def test_the_centre_is_a_moving_average_in_closed_form():
    task = build("dino", center_momentum=0.9)
    large, small = task.views(pictures(), generator(0))
    with torch.no_grad():
        mean = task.teacher[1](task.teacher[0].summary(large)).mean(0, keepdim=True)
    for _ in range(3):
        task(large, small)
    torch.testing.assert_close(task.center, (1 - 0.9**3) * mean, atol=1e-5, rtol=1e-3)
    still = build("dino", centring=False)
    still(large, small)
    assert not still.center.any()


@pytest.mark.training
def test_without_centring_one_answer_wins_and_without_sharpening_all_answers_are_equal():
    images, said = world.draw("unlabeled", 512).images, {}
    for case, options in {
        "whole": {},
        "centring": {"centring": False},
        "sharpening": {"teacher_temperature": 1.0},
    }.items():
        task = pretext.build("dino", backbones.build(seed=0), local=0, **options)
        config = train.TrainConfig(steps=60, batch_size=64, **task.recipe)
        last = train.pretrain(task, images, config, progress=False).last
        said[case] = last["entropy of one"], last["entropy of the mean"]
    most = math.log(64)  # of 64 outputs
    assert said["centring"][1] < 0.5, said  # the same answer for every picture
    assert said["sharpening"][0] > most - 0.02, said  # no answer at all
    assert said["whole"][0] < most - 0.15 and said["whole"][1] > 3, said


def test_dinos_head_learns_from_every_crop_and_the_loss_is_the_mean_over_pairs():
    task = build("dino", local=3).eval()
    large, small = task.views(pictures(), generator(0))
    assert large.shape == (16, 3, 16, 16) and small.shape == (24, 3, 8, 8)
    loss, _ = task(large, small)
    crops = [*large.chunk(2), *small.chunk(3)]
    student = [task.head(task.backbone(c)) for c in crops]
    target = [task.sharpen(task.teacher[1](task.teacher[0](c))) for c in crops[:2]]
    torch.testing.assert_close(loss, losses.dino(student, target, task.temperature), atol=1e-5, rtol=1e-5)


def test_dino_trains_the_class_token_of_a_transformer():
    task = pretext.build("dino", backbones.build("vit-tiny", image_size=16), local=1)
    task(*task.views(pictures(), generator(0)))[0].backward()
    assert task.backbone.trunk.cls_token.grad.abs().sum() > 0
    assert task.backbone.trunk.pos_embed.grad.abs().sum() > 0


# --- every method ------------------------------------------------------------------------------------------------


@pytest.mark.training
@pytest.mark.parametrize("name", METHODS)
def test_eight_pictures_are_learned_by_heart(name):
    images = world.draw("unlabeled", 8).images
    easy = {"crop": 0.8, "jitter": 0.1, "gray": 0.0, **({"local": 0} if name == "dino" else {})}
    if name == "moco":
        easy["queue"] = 16
    task = pretext.build(name, backbones.build(ARCH.get(name, "resnet-tiny"), seed=0), **easy)
    config = train.TrainConfig(steps=60, batch_size=8, learning_rate=2e-3, weight_decay=0.0, log_every=1)
    history = train.pretrain(task, images, config, progress=False).column("loss")
    first, last = sum(history[:3]) / 3, sum(history[-5:]) / 5
    assert last < first - 0.2 * abs(first), (first, last)


@pytest.mark.parametrize("name", METHODS)
def test_float_images_are_taken_as_well(name):
    images = pictures()
    a = build(name).views(images, generator(3))
    b = build(name).views(images / 255, generator(3))
    assert all(torch.allclose(x.float(), y.float(), atol=1e-6) for x, y in zip(a, b, strict=True))
