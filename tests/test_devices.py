"""The contract of device.py, on a device that isn't the CPU: who computes moves, and gives back what it was given."""

import contextlib
import dataclasses
import itertools

import pretend_device
import pytest
import torch
from captions import EVERY_TASK, material
from torch import nn
from torch.utils import _pytree as pytree

from sslcourse import augment, backbones, classify, evaluate, geometry, plots, pretext, train, weights, widgets
from sslcourse import device as devices
from sslcourse.data import world
from sslcourse.data.imageset import ImageSet
from sslcourse.data.splits import Splits
from sslcourse.pretext import rotation
from sslcourse.transfer import clustering, defects, detection, discovery, domains, fewshot, segmentation, similarity

SHORT = train.TrainConfig(steps=2, batch_size=4, log_every=1, checkpoint_every=1)
SMALL = {
    "dino": {"outputs": 16, "local": 1},
    "ibot": {"outputs": 16, "koleo": 0.1, "gram": 1.0},
    "swav": {"prototypes": 8},
    "moco": {"queue": 16},
}


@pytest.fixture(autouse=True)
def far():
    with pretend_device.chosen() as device:
        yield device


def pictures(n=12, side=16, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=devices.generator(seed))


def state(module):
    """Where each part of a module is, its mode, and which parameters learn."""
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    return (
        {name: (tensor.device.type, tensor.requires_grad) for name, tensor in tensors},
        {name: part.training for name, part in module.named_modules()},
    )


def mixed_modes(module):
    """The module with every third of its parts in evaluation mode, and the first of its parameters frozen."""
    for part in list(module.modules())[::3]:
        part.training = False
    next(module.parameters()).requires_grad_(False)
    return module


# --- the context manager ---------------------------------------------------------------------------------------------


def test_every_part_comes_back_where_it_was_and_as_it_was(far):
    module = mixed_modes(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2))))
    module[2].to(far)
    before, parameters = state(module), list(module.parameters())
    with devices.on(far, module):
        assert {place for place, _ in state(module)[0].values()} == {"pretend"}
        module.eval()
    assert state(module) == before and before[0]["2.0.weight"][0] == "pretend"
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_stop_on_the_way_gives_back_too(far, stop):
    module = mixed_modes(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    before = state(module)
    with pytest.raises(stop), devices.on(far, module):
        module.train()
        raise stop
    assert state(module) == before


# --- pretraining -----------------------------------------------------------------------------------------------------


def built(name):
    return pretext.build(name, backbones.build(pretext.find(name).arch, image_size=16), **SMALL.get(name, {}))


@pytest.mark.parametrize("name", EVERY_TASK)
def test_every_task_trains_there_stops_and_goes_on_and_comes_back(name, far, tmp_path):
    def stop(record):
        assert {place for place, _ in state(task)[0].values()} == {"pretend"}  # it was there
        raise KeyboardInterrupt

    task = mixed_modes(built(name))
    before = state(task)
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(task, material(name, pictures()), SHORT, out=tmp_path, progress=False, on_log=stop)
    assert state(task) == before
    resumed = mixed_modes(built(name))
    history = train.pretrain(
        resumed, material(name, pictures().to(far)), SHORT, out=tmp_path, resume=True, progress=False
    )
    assert history.column("step") == [1, 2] and state(resumed) == before
    assert {x.device.type for x in backbones.load(tmp_path).state_dict().values()} == {"cpu"}


def test_a_task_that_is_there_stays_there(far):
    task = built("rotation").to(far)
    train.pretrain(task, ImageSet(pictures()), SHORT, progress=False)
    assert {place for place, _ in state(task)[0].values()} == {"pretend"}


# --- everything that computes with a trained network -----------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd():
    return world.draw("train", 12, mode="crowd")  # labels, boxes and masks


@pytest.fixture(params=["here", "there"])
def given(request, crowd, far):
    """Splits of labelled pictures, and a backbone in mixed modes: on the CPU, or both on the device."""
    labels, x = torch.arange(12) % 3, torch.arange(12) / 12.0
    small = crowd.images[..., ::2, ::2].contiguous()  # (12, 3, 16, 16)
    part = ImageSet(small, labels, ("a", "b", "c"), "toy", factors={"class": labels, "x": x})
    backbone = mixed_modes(backbones.build())
    if request.param == "there":
        part, crowd, backbone = part.to(far), crowd.to(far), backbone.to(far)
    return Given(Splits(part, part, part, part, "toy"), crowd, backbone)


@dataclasses.dataclass
class Given:
    splits: Splits
    crowd: ImageSet
    backbone: backbones.Backbone


def maps_of(g):
    return discovery.patch_features(g.backbone, g.splits.test, stages=(1, 2))


COMPUTED = {
    "extract": lambda g: evaluate.extract(g.backbone, g.splits.test),
    "kNN": lambda g: evaluate.evaluate(g.backbone, g.splits, labels_per_class=2, protocol="knn", seeds=2),
    "linear probe": lambda g: evaluate.evaluate(g.backbone, g.splits, labels_per_class=2, seeds=2),
    "fine-tuning": lambda g: evaluate.finetune_accuracy(
        g.backbone, g.splits, 2, 0, SHORT, rates=(0.01, 0.001), progress=False
    ),
    "factor probes": lambda g: evaluate.factor_probe(evaluate.Features.of(g.backbone, g.splits), g.splits),
    "finetune": lambda g: train.finetune(
        g.backbone, g.splits.train, SHORT, tune="last stage", layer_decay=0.5, progress=False
    )[0].predict(g.splits.test),
    "episodes": lambda g: fewshot.accuracy(
        lambda e: fewshot.by_prototype(evaluate.extract(g.backbone, g.splits.test), e),
        fewshot.episodes(g.splits.test.labels, 2, ways=2, queries=2),
    ),
    "few-shot, linear": lambda g: fewshot.by_linear_head(
        evaluate.extract(g.backbone, g.splits.test), fewshot.episode(g.splits.test.labels, ways=2, queries=2)
    ),
    "few-shot, fine-tuned": lambda g: fewshot.by_finetuning(
        g.backbone, g.splits.test, fewshot.episode(g.splits.test.labels, ways=2, queries=2), SHORT
    ),
    "domains": lambda g: domains.transfer_matrix(
        {"a": evaluate.Features.of(g.backbone, g.splits)}, {"a": g.splits}, labels_per_class=2, seeds=1
    ),
    "batch norm of a domain": lambda g: evaluate.extract(
        domains.adapt_batch_norm(g.backbone, g.splits.test), g.splits.test
    ),
    "segmentation": lambda g: segmentation.finetune_mean_iou(
        g.backbone, Splits(g.crowd, g.crowd, g.crowd, g.crowd, "crowd"), 8, 0, SHORT, rates=(1e-3, 1e-4), progress=False
    ),
    "segmenter": lambda g: segmentation.train_segmenter(g.backbone, g.crowd, SHORT, tune="head", progress=False)[
        0
    ].predict(g.crowd),
    "detection": lambda g: detection.finetune_average_precision(
        g.backbone, Splits(g.crowd, g.crowd, g.crowd, g.crowd, "crowd"), 8, 0, SHORT, progress=False
    ),
    "DeepCluster": lambda g: [
        found.labels for found in clustering.deepcluster(g.backbone, g.splits.test, 2, 2, SHORT, dims=4, progress=False)
    ],
    "k-means": lambda g: clustering.scores(
        g.splits.test.labels, clustering.k_means(evaluate.extract(g.backbone, g.splits.test), 3, starts=1).labels
    ),
    "patch features": maps_of,
    "objects": lambda g: discovery.snap(
        discovery.spectral(maps_of(g)), discovery.patch_colours(g.splits.test, maps_of(g).shape[-1])
    ),
    "defects": lambda g: [
        defects.heat_maps(scorer.fit(defects.rows(maps_of(g))), maps_of(g))
        for scorer in (defects.NearestNormal(memory=20), defects.Mahalanobis())
    ],
    "similarity": lambda g: similarity.cka_table({"a": evaluate.extract(g.backbone, g.splits.test)}),
    "classifier that is kept": lambda g: classify.fit(g.backbone, g.splits.train, folds=2, config=SHORT).model.logits(
        g.splits.test.images
    ),
}


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_who_computes_gives_back_and_returns_tensors_of_the_cpu(compute, given):
    before = state(given.backbone)
    result = compute(given)
    assert state(given.backbone) == before
    for tensor in pytree.tree_leaves(result):
        assert not isinstance(tensor, torch.Tensor) or tensor.device.type == "cpu"


STOPPED = ("extract", "finetune", "DeepCluster", "patch features", "classifier that is kept")


@pytest.mark.parametrize("name", STOPPED)
def test_a_stop_within_gives_back_too(name, given, monkeypatch):
    def stopped(backbone, images):
        assert images.device.type == "pretend"
        raise KeyboardInterrupt

    before = state(given.backbone)
    monkeypatch.setattr(backbones.Backbone, "stages", stopped)
    with pytest.raises(KeyboardInterrupt):
        COMPUTED[name](given)
    assert state(given.backbone) == before


def test_attention_on_the_device_and_back(far):
    backbone = mixed_modes(backbones.build("vit-tiny", image_size=16))
    before = state(backbone)
    maps = geometry.attention_maps(backbone, pictures().to(far))
    assert maps.device.type == "cpu" and state(backbone) == before


@pytest.mark.parametrize("place", ["cpu", "pretend"])
def test_weights_are_written_from_wherever_they_are_and_read_on_the_cpu(place, tmp_path):
    backbone = backbones.build("resnet18", stem="imagenet").to(place)
    backbones.save(backbone, tmp_path / "ours.safetensors")
    weights.save(backbone, tmp_path / "torchvision.safetensors")
    for file in tmp_path.iterdir():
        read = weights.load(file, quiet=True, normalize="imagenet") if "torch" in file.name else backbones.load(file)
        for name, value in read.state_dict().items():
            assert torch.equal(value, backbone.state_dict()[name].cpu()), (file.name, name)
    assert backbone.mean.device.type == place


# --- widgets ---------------------------------------------------------------------------------------------------------

LOOKED_AT = {
    "rotation": lambda task, images: widgets.rotation_slider(task("rotation"), images),
    "colorization": lambda task, images: widgets.temperature_slider(task("colorization"), images),
    "mae": lambda task, images: widgets.mask_ratio_slider(task("mae"), images),
    "gap": lambda task, images: widgets.gap_slider(images),
    "views": lambda task, images: widgets.view_strength_slider(images, views=2),
    "neighbours": lambda task, images: widgets.neighbour_explorer(images, {"a": images.flatten(1).float()}),
    "symmetries": lambda task, images: widgets.symmetry_picker(images[0]),
    "clusters": lambda task, images: widgets.cluster_slider(images, {2: torch.arange(12) % 2}),
}


@pytest.mark.parametrize("images_there", [False, True])
@pytest.mark.parametrize("task_there", [False, True])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_widgets_look_at_networks_and_pictures_wherever_they_are(name, task_there, images_there, far, monkeypatch):
    for setting in ("figure.dpi", "savefig.dpi"):
        monkeypatch.setitem(plots.STYLE, setting, 30)
    tasks = []

    def task(kind):
        tasks.append(mixed_modes(built(kind)).to(far if task_there else "cpu"))
        return tasks[0]

    images = pictures()
    box = LOOKED_AT[name](task, images.to(far) if images_there else images)
    assert box.png[:8] == b"\x89PNG\r\n\x1a\n"
    assert not tasks or tasks[0].backbone.mean.device.type == ("pretend" if task_there else "cpu")


def test_a_widget_goes_on_after_its_task_has_moved(far):
    task = built("rotation")
    box = widgets.rotation_slider(task, pictures())
    task.to(far)
    box.children[0].children[1].value = 90
    assert task.backbone.mean.device.type == "pretend"


# --- can all this fail? Faults of a dozen kinds, planted -----------------------------------------------------------


def keeps(given, compute):
    """What the tests above ask of everything that computes."""
    before = state(given.backbone)
    result = compute(given)
    assert state(given.backbone) == before
    assert all(x.device.type == "cpu" for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor))


def pretrains(name):
    task = mixed_modes(built(name))
    before = state(task)
    train.pretrain(task, pictures(), SHORT, progress=False)
    assert state(task) == before


@contextlib.contextmanager
def one_way(device, *modules):
    for module in modules:
        module.to(device)
    yield


@contextlib.contextmanager
def there_and_back(device, *modules):
    with one_way(device, *modules):
        yield
    with one_way("cpu", *modules):
        pass


def plain_attribute(task):
    queue = task._buffers.pop("queue")
    object.__setattr__(task, "queue", queue)
    return task


PLANTED = {
    "a constant made on the CPU, in a package function": (
        lambda patch: patch.setattr(augment, "constant", lambda values, *rest: torch.tensor(values)),
        lambda given: pretrains("simclr"),
    ),
    "labels made on the CPU, in a task's views": (
        lambda patch: patch.setattr(
            rotation.Rotation,
            "views",
            lambda task, x, generator, views=rotation.Rotation.views: tuple(v.cpu() for v in views(task, x, generator)),
        ),
        lambda given: pretrains("rotation"),
    ),
    "the labels alone on the CPU, in a loss": (
        lambda patch: patch.setattr(
            rotation.losses, "cross_entropy", lambda x, y, loss=rotation.losses.cross_entropy: loss(x, y.cpu())
        ),
        lambda given: pretrains("rotation"),
    ),
    "a generator of the CPU": (
        lambda patch: patch.setattr(
            devices, "generator", lambda seed, device="cpu": torch.Generator().manual_seed(seed)
        ),
        lambda given: pretrains("simclr"),
    ),
    "state that isn't a buffer": (
        lambda patch: patch.setattr(
            pretext, "build", lambda *args, build=pretext.build, **options: plain_attribute(build(*args, **options))
        ),
        lambda given: pretrains("moco"),
    ),
    "a task that isn't given back": (
        lambda patch: patch.setattr(devices, "on", one_way),
        lambda given: pretrains("rotation"),
    ),
    "a backbone that isn't given back": (
        lambda patch: patch.setattr(devices, "on", one_way),
        lambda given: keeps(given, COMPUTED["patch features"]),
    ),
    "a mode that isn't given back": (
        lambda patch: patch.setattr(devices, "on", there_and_back),
        lambda given: pretrains("rotation"),
    ),
    "features left on the device": (
        lambda patch: patch.setattr(torch.Tensor, "cpu", lambda x: x),
        lambda given: keeps(given, COMPUTED["extract"]),
    ),
    "numpy of a tensor on the device": (
        lambda patch: patch.setattr(evaluate, "checked_features", lambda features, *args, **options: features),
        lambda given: evaluate.LinearProbe().fit(
            *(x.to("pretend") for x in (torch.rand(6, 2), torch.arange(6) % 2) * 2)
        ),
    ),
    "an index on the device for images on the CPU": (
        lambda patch: (
            patch.setattr(devices, "fits", lambda nbytes, device: False),
            patch.setattr(train.Batches, "numbers", lambda batches, step: torch.arange(4, device=batches.device)),
        ),
        lambda given: pretrains("rotation"),
    ),
    "a picture on the CPU for a network on the device, in a widget": (
        lambda patch: patch.setattr(devices, "evaluating", lambda task: contextlib.nullcontext(task.to("pretend"))),
        lambda given: keeps(given, lambda g: widgets.temperature_slider(built("colorization"), pictures())),
    ),
    "a figure of a picture on the device": (
        lambda patch: patch.setattr(plots, "to_picture", lambda image: image.movedim(0, -1).numpy()),
        lambda given: widgets.symmetry_picker(pictures()[0].to("pretend")),
    ),
}


@pytest.mark.parametrize("given", ["here"], indirect=True)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name, given, monkeypatch):
    plant, run = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises((RuntimeError, TypeError, AssertionError)):
        run(given)
