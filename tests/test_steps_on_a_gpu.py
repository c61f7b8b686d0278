"""A training step makes no GPU wait and gives the same bits each time: watched here without one, and on one where there is one."""

import contextlib

import pytest
import torch
from captions import EVERY_TASK
from step_watch import Unordered, Waits, never_waits, same_order
from torch import nn
from torch.nn import functional

from sslcourse import augment, backbones, color, heads, pretext, supervised, train
from sslcourse.data import world
from sslcourse.device import constant, generator, made_once
from sslcourse.pretext.base import PretextTask
from sslcourse.transfer import segmentation

OTHER_WAYS = {
    "rotation, one drawn": {"all_rotations": False},
    "transformation, one drawn": {"all_elements": False, "group": "flips"},
    "colorization, regression": {"objective": "regression"},
    "context, project": {"colour": "project"},
    "context, drop": {"colour": "drop"},
    "jigsaw, 3x3": {"grid": 3, "permutations": 30, "standardize": True},
    "inpainting, central": {"mask": "central"},
    "mae, pixels": {"normalize": False},
    "simclr, everything": {"crop": 0.08, "jitter": 1.0, "blur": 0.5, "hidden": 0},
    "dino, no small crops": {"local": 0},
    "ibot, everything": {"local": 2, "koleo": 0.1, "gram": 1.0},
    "lejepa, small views": {"local": 2},
    "clip, swapped": {"swapped": True},
    "siglip, swapped": {"swapped": True},
    "byol, bare": {"predictor": False, "last_norm": False},
}
CASES = {name: {} for name in EVERY_TASK} | OTHER_WAYS


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """What the package does on a CPU alone isn't done: a GPU's way is watched."""
    monkeypatch.setattr(augment, "IN_ORDER", ())


def images(side=32, count=8):
    """Pictures with a caption each."""
    return world.draw("train", count, size=side)


def build(case, side=32, **kind):
    name = case.split(",")[0]
    arch = kind.pop("arch", pretext.find(name).arch)
    return pretext.build(name, backbones.build(arch, image_size=side, **kind), **CASES[case])


def step_of(task, images, device="cpu"):
    """A function that takes one step of pretraining, in the parts in which the loop takes it."""
    task = task.to(device).train()
    pixels, dice = images.images.to(device), generator(0, device)
    beside = tuple(rows.to(device) for rows in task.beside(images))
    task.prepare(pixels)
    optimizer = train.make_optimizer(task, train.TrainConfig())

    def step(watch=contextlib.nullcontext):
        with watch():
            with torch.no_grad():
                views = task.views(pixels, dice, *beside)
            loss, _ = task(*views)
            loss.backward()
        optimizer.step()  # it counts its steps on the CPU, and asks there
        optimizer.zero_grad(set_to_none=True)
        with watch():
            task.after_step(0.5)
        return loss

    return step


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_and_none_depends_on_an_order(case):
    step = step_of(build(case), images())
    step()  # constants are made once
    step(never_waits)
    step(same_order)


@pytest.mark.parametrize(
    ("case", "side", "kind"),
    [("colorization", 64, {"stem": "imagenet"}), ("inpainting", 64, {}), ("dino", 96, {})],
)
def test_nor_does_one_on_images_of_another_size(case, side, kind):
    step = step_of(build(case, side, **kind), images(side, 4))
    step()
    step(never_waits)
    step(same_order)


def test_nor_does_fine_tuning():
    task = supervised.Supervised(supervised.Classifier(backbones.build(), 10), supervised.classification).train()
    pixels, labels = images().images, torch.arange(8)
    for watch in (contextlib.nullcontext, never_waits, same_order):
        with watch():
            shown = supervised.standard_augment(augment.to_float(pixels), generator(0))
            task(shown, labels)[0].backward()


def test_nor_does_segmentation():
    segmenter = segmentation.Segmenter(backbones.build(), 3, channels=8).train()
    pixels, masks = augment.to_float(images().images), torch.arange(4).repeat(8, 32, 8)
    for watch in (contextlib.nullcontext, never_waits, same_order):
        with watch():
            segmentation.loss(segmenter, pixels, masks)[0].backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: watched without one above")
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_no_step_waits(case):
    step = step_of(build(case), images(), "cuda")
    step()

    @contextlib.contextmanager
    def no_wait():
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    step(no_wait)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: watched without one above")
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_a_seed_gives_the_same_bits(case):
    def trained():
        task = build(case)
        train.pretrain(task, images(count=64), train.TrainConfig(steps=6, batch_size=32), device="cuda", progress=False)
        return task.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


# What the watchers catch.

x, index, mask = torch.rand(4, 4), torch.tensor([0, 1, 1]), torch.tensor([True, False, True, True])
square = torch.eye(4) + x
WAITING = {
    "item": lambda: x[0, 0].item(), "a branch": lambda: 1 if x.sum() > 2 else 0, "float": lambda: float(x[0, 0]),
    "int": lambda: int(index[0]), "tolist": lambda: x.tolist(), "numpy": lambda: x.numpy(), "cpu": lambda: x.cpu(),
    "to the CPU": lambda: x.to("cpu"), "nonzero": lambda: x.nonzero(), "where": lambda: torch.where(mask),
    "a mask": lambda: x[mask], "writing by a mask": lambda: x.clone().__setitem__(mask, 0.0),
    "masked_select": lambda: x.masked_select(x > 0.5), "unique": lambda: index.unique(),
    "inv": lambda: torch.linalg.inv(square), "solve": lambda: torch.linalg.solve(square, x),
    "cholesky": lambda: torch.linalg.cholesky(square @ square.T), "eigh": lambda: torch.linalg.eigh(square @ square.T),
    "svd": lambda: torch.linalg.svd(x), "tensor": lambda: torch.tensor([1.0, 2.0]),
    "tensor on a device": lambda: torch.tensor([1.0], device=x.device), "as_tensor": lambda: torch.as_tensor([1.0]),
    "new_tensor": lambda: x.new_tensor([1.0]), "from_numpy": lambda: torch.from_numpy(NUMBERS),
    "a list as index": lambda: x[[0, 2]], "bincount": lambda: torch.bincount(index),
    "repeat_interleave": lambda: x[:3].repeat_interleave(index, dim=0), "equal": lambda: torch.equal(x, x),
    "arange on the CPU": lambda: torch.arange(4), "multinomial": lambda: torch.multinomial(x[0], 2),
    "a bar": lambda: f"{x.mean():.2f}",
}  # fmt: skip
NUMBERS = x.numpy().copy()


@pytest.mark.parametrize("name", WAITING)
def test_a_planted_wait_is_seen(name):
    with pytest.raises(Waits), never_waits():
        WAITING[name]()


def gradient(make):
    """Forwards and backwards through `make`, of a picture that asks for a gradient."""
    picture = torch.rand(2, 3, 8, 8, requires_grad=True)
    make(picture).sum().backward()


MEETING = {
    "bilinear": lambda p: functional.interpolate(p, (5, 5), mode="bilinear"),
    "bicubic": lambda p: functional.interpolate(p, scale_factor=2, mode="bicubic"),
    "antialias": lambda p: functional.interpolate(p, (5, 5), mode="bilinear", antialias=True),
    "adaptive pooling": lambda p: functional.adaptive_avg_pool2d(p, 3),
    "adaptive max": lambda p: functional.adaptive_max_pool2d(p, 3),
    "grid_sample": lambda p: functional.grid_sample(p, torch.zeros(2, 4, 4, 2), align_corners=False),
    "reflection": lambda p: functional.pad(p, (1, 1, 1, 1), mode="reflect"),
    "replication": lambda p: functional.pad(p, (1, 1, 1, 1), mode="replicate"),
    "rows read twice": lambda p: p[:, :, index],
    "gather read twice": lambda p: p.flatten(1).gather(1, index.expand(2, 3)),
    "index_select read twice": lambda p: p.index_select(2, index),
    "embedding": lambda p: functional.embedding(index, p[0, 0]),
    "scatter_add": lambda p: torch.zeros(4).scatter_add(0, index, p[0, 0, 0, :3]),
    "index_add": lambda p: torch.zeros(4).index_add(0, index, p[0, 0, 0, :3]),
    "index_put": lambda p: torch.zeros(4).index_put((index,), p[0, 0, 0, :3]),
    "accumulate": lambda p: torch.zeros(4).index_put((index,), p[0, 0, 0, :3], accumulate=True),
    "cumsum": lambda p: p.cumsum(dim=2),
    "nll_loss": lambda p: functional.cross_entropy(p[:, :, 0, 0], torch.tensor([0, 1])),
}


@pytest.mark.parametrize("name", MEETING)
def test_a_planted_sum_in_any_order_is_seen(name):
    with pytest.raises(Unordered), same_order():
        gradient(MEETING[name])


def test_where_no_two_values_meet_the_order_is_nothing():
    with same_order():
        gradient(
            lambda p: (
                p[:, :, torch.tensor([2, 0])] + p.gather(2, torch.tensor([1, 0]).view(1, 1, 2, 1).expand(2, 3, 2, 8))
            )
        )


class Waiting(PretextTask):
    """A task that asks for its loss as a number."""

    def __init__(self, part):
        super().__init__(backbones.build())
        self.part = part

    def views(self, images, generator):
        return (images.float() / self.asks("views", images.float().max() + 1),)

    def forward(self, shown):
        loss = self.backbone(shown).square().mean()
        return loss * self.asks("forward", loss.detach() + 1), {}

    def after_step(self, progress):
        self.asks("after_step", next(self.parameters()).sum())

    def asks(self, part, value):
        return float(value) if part == self.part else value


@pytest.mark.parametrize("part", ["views", "forward", "after_step", None])
def test_a_wait_is_seen_in_every_part_of_a_step(part):
    step = step_of(Waiting(part), images())
    with pytest.raises(Waits) if part else contextlib.nullcontext():
        step(never_waits)


# What is done instead.


@pytest.mark.parametrize(
    ("height", "width", "size"), [(4, 4, (8, 8)), (2, 3, (8, 8)), (16, 16, (48, 40)), (8, 8, (5, 7))]
)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resize_is_interpolate(mode, height, width, size):
    maps = torch.randn(3, 5, height, width, generator=generator(0), requires_grad=True)
    weight = torch.randn(3, 5, *size, generator=generator(1))
    found, expected = augment.resize(maps, size, mode), functional.interpolate(maps, size, mode=mode)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), maps)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("side", "out"), [(16, 8), (12, 8), (8, 8), (9, 4)])
def test_resize_by_area_is_adaptive_pooling(side, out):
    maps = torch.randn(3, 5, side, side, generator=generator(0))
    expected = functional.adaptive_avg_pool2d(maps, out)
    torch.testing.assert_close(augment.resize(maps, (out, out), "area"), expected, atol=1e-6, rtol=1e-6)


def test_constants_are_made_once_whoever_asks_first():
    with torch.inference_mode():
        first = constant((0.25, 0.5), torch.device("cpu"))
    assert constant((0.25, 0.5), torch.device("cpu")) is first
    assert constant((0.25, 0.5), torch.device("cpu"), torch.float64).dtype == torch.float64
    weight = nn.Parameter(torch.ones(2))
    (weight * first).sum().backward()  # a tensor of inference mode would refuse
    assert torch.equal(weight.grad, first)


def test_what_resizes_can_be_compiled_whole():
    decoder = heads.Decoder([3, 4, 5], 2, side=8, width=4)
    nn.init.normal_(decoder.last.weight, generator=generator(0))
    maps = [torch.rand(2, channel, side, side, generator=generator(1)) for channel, side in ((3, 16), (4, 4), (5, 2))]
    compiled = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(maps), decoder(maps))


def test_what_is_traced_is_not_kept():
    from torch._subclasses.fake_tensor import FakeTensorMode

    made = made_once(lambda device: torch.arange(3, device=device))
    with FakeTensorMode():
        assert made(torch.device("cpu")).shape == (3,)
    assert made(torch.device("cpu")).tolist() == [0, 1, 2]


def test_colours_go_there_and_back_without_an_inverse_on_the_device():
    lab = color.rgb_to_lab(images().images / 255)
    color.lab_to_rgb(lab)
    with never_waits():
        color.lab_to_rgb(lab)
