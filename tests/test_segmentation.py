"""Segmentation on a backbone: torchvision's models take it, masks move with pictures, and the score is a count by hand."""

import dataclasses
import math

import pytest
import torch
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork, masks_to_boxes

from sslcourse import backbones, train
from sslcourse.data import world
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.transfer import dense, segmentation

ARCHITECTURES = ("resnet-tiny", "resnet18", "vit-tiny")
QUICK = train.TrainConfig(steps=3, batch_size=4, learning_rate=3e-3, weight_decay=0.05, log_every=1)


@pytest.fixture(scope="module")
def crowd():
    return world.draw("train", 12, mode="crowd")


@pytest.fixture(scope="module")
def tiny():
    return backbones.build("resnet-tiny", seed=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- a backbone in torchvision's models --------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_backbone_drops_into_torchvisions_segmentation_models(arch):
    backbone = backbones.build(arch)
    images = torch.rand(2, 3, 32, 32, generator=generator())
    for model in (
        FCN(dense.FeatureMaps(backbone, {4: "out"}), FCNHead(backbone.dim, 11)),
        DeepLabV3(dense.FeatureMaps(backbone, {4: "out"}), DeepLabHead(backbone.dim, 11)),
        FCN(
            dense.FeatureMaps(backbone, {3: "aux", 4: "out"}),
            FCNHead(backbone.dim, 11),
            FCNHead(backbone.channels[2], 11),
        ),
        segmentation.Segmenter(backbone, 10),
    ):
        result = model(images)
        assert result["out"].shape == (2, 11, 32, 32)
        sum(out.square().mean() for out in result.values()).backward()
        first = next(p for name, p in backbone.named_parameters() if name.endswith(("conv1.weight", "proj.weight")))
        assert first.grad.abs().sum() > 0
        backbone.zero_grad()


@pytest.mark.parametrize(
    ("arch", "stem", "expected", "usual"),
    [
        ("resnet-tiny", None, [2, 4, 8, 16], (1, 2, 3, 4)),
        ("resnet18", None, [1, 2, 4, 8], (2, 3, 4)),
        ("resnet18", "imagenet", [4, 8, 16, 32], (1, 2, 3, 4)),
        ("vit-tiny", None, [4, 4, 4, 4], (4,)),
    ],
)
def test_strides_and_the_stages_of_a_pyramid(arch, stem, expected, usual):
    backbone = backbones.build(arch, stem=stem).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert dense.strides(backbone) == expected
    assert dense.usual_stages(backbone) == usual
    assert backbone.training and backbone.trunk.training
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_stages_that_fit_the_images(tiny, crowd):
    assert dense.strides(tiny, 2) == [1, 2, 4, 8] and dense.usual_stages(tiny, 2) == (2, 3, 4)
    assert dense.usual_stages(tiny, 2, 32) == (2, 3) and dense.usual_stages(tiny, 1, 64) == (1, 2, 3)
    assert dense.usual_stages(tiny, 1, 8) == (1,)  # at least one stays
    assert dense.usual_stages(tiny, 16) == (4,)  # cells of one pixel and less: the coarsest
    assert dense.fitted(tiny, crowd) == {"enlarge": 2, "stages": (2, 3)}
    assert dense.fitted(tiny, crowd, 1) == {"enlarge": 1, "stages": (1, 2)}
    assert dense.fitted(backbones.build("vit-tiny"), crowd) == {"enlarge": 2, "stages": (4,)}
    large = ImageSet(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))
    assert dense.fitted(tiny, large) == {"enlarge": 1, "stages": (1, 2, 3)}


def test_a_pyramid_enlarges_what_the_backbone_sees(tiny):
    tiny.eval()
    images = torch.rand(2, 3, 32, 48, generator=generator())
    pyramid = dense.Pyramid(tiny, 32, (2, 3), enlarge=2).eval()
    twice = torch.nn.functional.interpolate(images, size=(64, 96), mode="bilinear", align_corners=False)
    expected = pyramid.fpn(pyramid.body(twice))
    assert all(torch.equal(a, b) for a, b in zip(pyramid(images).values(), expected.values(), strict=True))
    assert pyramid.strides == [2, 4] and pyramid(images)["2"].shape == (2, 32, 16, 24)
    for enlarge in (0, -1, 1.5, None):
        with pytest.raises(CourseError, match="enlarge, .* must be a whole number of at least 1, and is"):
            dense.Pyramid(tiny, enlarge=enlarge)
    with pytest.raises(CourseError, match="a cell would be smaller than a pixel"):
        dense.Pyramid(tiny, 32, (1, 2), enlarge=4)


def test_maps_and_pyramid_are_those_of_the_backbone(tiny):
    tiny.eval()
    images = torch.rand(2, 3, 32, 48, generator=generator())
    maps = dense.FeatureMaps(tiny)(images)
    assert list(maps) == ["1", "2", "3", "4"]
    assert all(torch.equal(a, b) for a, b in zip(maps.values(), tiny.stages(images), strict=True))
    named = dense.FeatureMaps(tiny, {4: "out", 2: "aux"})(images)
    assert list(named) == ["aux", "out"] and torch.equal(named["aux"], maps["2"])

    pyramid = dense.Pyramid(tiny, 32)
    levels = pyramid(images)
    assert isinstance(pyramid.fpn, FeaturePyramidNetwork) and pyramid.out_channels == 32
    assert [tuple(level.shape) for level in levels.values()] == [
        (2, 32, 16, 24),
        (2, 32, 8, 12),
        (2, 32, 4, 6),
        (2, 32, 2, 3),
    ]
    assert all(torch.equal(a, b) for a, b in zip(levels.values(), pyramid.fpn(maps).values(), strict=True))
    assert not hasattr(dense.FeatureMaps(tiny), "out_channels")
    assert dense.FeatureMaps(tiny, {3: "0"}).out_channels == 64


def test_wrong_parts_are_refused(tiny):
    for names in ({}, {5: "out"}, {3: "out", 4: "out"}):
        with pytest.raises(CourseError, match="stages among 1..4 a name each"):
            dense.FeatureMaps(tiny, names)
    for make in (dense.FeatureMaps, dense.Pyramid, lambda b: segmentation.Segmenter(b, 10), dense.copied):
        with pytest.raises(CourseError, match="a Backbone is needed here, and got ResNet"):
            make(tiny.trunk)
    for classes in (0, -1, 2.5, None):
        with pytest.raises(CourseError, match="at least one class"):
            segmentation.Segmenter(tiny, classes)


# --- masks -------------------------------------------------------------------------------------------------------


def test_masks_are_those_of_a_loop(crowd):
    masks = segmentation.semantic_masks(crowd)
    assert masks.dtype == torch.int64 and masks.shape == (12, 32, 32)
    for i in range(12):
        for row in range(0, 32, 3):
            for column in range(0, 32, 3):
                k = int(crowd.instances[i, row, column])
                assert masks[i, row, column] == (0 if k == 0 else 1 + crowd.box_labels[i, k - 1])
    assert len(masks.unique()) > 5


def test_an_object_without_a_class_is_background():
    instances = torch.tensor([[[0, 1], [2, 2]]], dtype=torch.uint8)
    boxes = torch.tensor([[[1.0, 0, 2, 1], [0, 0, 0, 0]]])
    images = ImageSet(
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        classes=("a", "b"),
        boxes=boxes,
        box_labels=torch.tensor([[1, -1]]),
        instances=instances,
    )
    assert segmentation.semantic_masks(images).tolist() == [[[0, 2], [0, 0]]]


def test_masks_that_cannot_be_are_refused(crowd):
    with pytest.raises(CourseError, match=r'says of no pixel what it shows .*load\("world:crowd"\)'):
        segmentation.semantic_masks(crowd.without_labels())
    short = dataclasses.replace(crowd, boxes=crowd.boxes[:, :1], box_labels=crowd.box_labels[:, :1])
    with pytest.raises(CourseError, match="a pixel shows object 6, and box_labels has room for 1"):
        segmentation.semantic_masks(short)
    with pytest.raises(CourseError, match="no pixel"):
        segmentation.train_segmenter(backbones.build(), crowd.without_labels(), QUICK)
    with pytest.raises(CourseError, match="no annotated images"):
        segmentation.train_segmenter(backbones.build(), crowd.select([]), QUICK)
    with pytest.raises(CourseError, match="tune must be one of all, last stage, head, and is 'heed'.*'head'"):
        segmentation.train_segmenter(backbones.build(), crowd, QUICK, tune="heed")


def test_sampling_is_nested_and_decided_by_the_seed(crowd):
    three, five = (dense.sample(crowd, count, seed=1) for count in (3, 5))
    assert torch.equal(three.images, five.images[:3])
    assert torch.equal(dense.sample(crowd, 5, seed=1).instances, five.instances)
    assert not torch.equal(dense.sample(crowd, 5, seed=2).images, five.images)
    for count in (0, 13, 2.0):
        with pytest.raises(
            CourseError, match="the number of annotated images must be a whole number from 1 to 12, and is"
        ):
            dense.sample(crowd, count)


# --- moves -------------------------------------------------------------------------------------------------------


def test_pictures_masks_and_boxes_move_together(crowd):
    move = dense.Move.draw(12, 4, generator(3))
    assert 0 < move.mirrored.sum() < 12 and move.right.abs().max() <= 4 and len(move.down.unique()) > 3
    pictures = move.images(crowd.images)
    instances = move.masks(crowd.instances)
    assert pictures.dtype == torch.uint8 and pictures.shape == crowd.images.shape
    for i in range(12):  # by hand: mirror, then take every pixel from where it was
        source = crowd.images[i].flip(-1) if move.mirrored[i] else crowd.images[i]
        for row in (0, 13, 31):
            for column in (0, 9, 31):
                y = min(max(row - int(move.down[i]), 0), 31)
                x = min(max(column - int(move.right[i]), 0), 31)
                assert torch.equal(pictures[i, :, row, column], source[:, y, x])
    inner = crowd.boxes.amin(dim=(1, 2)) >= 0  # boxes of what lies well inside are the boxes of its moved mask
    boxes, labels = move.boxes(crowd.boxes, crowd.box_labels, (32, 32))
    compared = 0
    for i in inner.nonzero().squeeze(1).tolist():
        for k in range(6):
            left, top, right, bottom = crowd.boxes[i, k].tolist()
            if labels[i, k] < 0 or min(left, top, 32 - right, 32 - bottom) < 5:
                continue
            mask = instances[i] == k + 1
            expected = masks_to_boxes(mask[None])[0] + torch.tensor([0.0, 0, 1, 1])
            assert torch.equal(boxes[i, k], expected)
            compared += 1
    assert compared > 5


def test_a_box_that_leaves_the_picture_is_cut_or_gone():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [4, 4, 8, 8], [0, 0, 0, 0]]])
    labels = torch.tensor([[3, 1, -1]])

    def moved(mirrored, right, down):
        return dense.Move(torch.tensor([mirrored]), torch.tensor([right]), torch.tensor([down])).boxes(
            boxes, labels, (20, 16)
        )

    found, kept = moved(False, -5, 0)
    assert found[0].tolist() == [[0, 0, 5, 10], [0, 4, 3, 8], [0, 0, 0, 0]] and kept[0].tolist() == [3, 1, -1]
    found, kept = moved(False, -6, -3)
    assert found[0].tolist() == [[0, 0, 0, 0], [0, 1, 2, 5], [0, 0, 0, 0]] and kept[0].tolist() == [-1, 1, -1]
    found, kept = moved(True, 0, 2)
    assert found[0].tolist() == [[6, 2, 16, 12], [8, 6, 12, 10], [0, 0, 0, 0]] and kept[0].tolist() == [3, 1, -1]


# --- the score ---------------------------------------------------------------------------------------------------


def test_iou_is_a_count_by_hand():
    dice = generator(5)
    predicted, truth = torch.randint(0, 4, (2, 3, 8, 8), generator=dice)
    predicted[predicted == 3] = 0
    truth[truth == 3] = 1  # class 3 is nowhere, class 4 neither
    found = segmentation.iou(predicted, truth, 4)
    for c in range(5):
        both = either = 0
        for a, b in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True):
            both += a == c and b == c
            either += a == c or b == c
        assert math.isnan(found[c]) if either == 0 else abs(found[c].item() - both / either) < 1e-6
    with pytest.raises(CourseError, match="same shape"):
        segmentation.iou(predicted, truth[:2], 4)
    for wrong in (predicted + 5, predicted - 1, predicted.float()):
        with pytest.raises(CourseError, match="whole numbers, 0 for the background and 1 to 4 for the classes"):
            segmentation.iou(wrong, truth, 4)


def test_mean_iou_counts_the_pixels_of_all_images_together(crowd):
    truth = segmentation.semantic_masks(crowd)
    assert segmentation.mean_iou(truth, crowd) == 1.0
    half = truth.clone()
    half[6:] = 0
    scores = []
    for c in truth.unique():
        scores.append(((half == c) & (truth == c)).sum() / ((half == c) | (truth == c)).sum())
    assert segmentation.mean_iou(half, crowd) == pytest.approx(torch.stack(scores).mean().item(), abs=1e-6)
    one = crowd.select([0])  # few classes occur in it: the others have no say
    assert segmentation.mean_iou(truth[:1], one) == 1.0 and len(truth[0].unique()) < 11
    nothing = segmentation.mean_iou(torch.zeros_like(truth), crowd)
    assert nothing == pytest.approx((truth == 0).float().mean().item() / len(truth.unique()), abs=1e-6)


# --- training ----------------------------------------------------------------------------------------------------


def test_training_is_decided_by_the_seed_and_leaves_the_backbone_alone(crowd, tiny):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    (one, history), (two, _), (other, _) = (
        segmentation.train_segmenter(tiny, crowd, dataclasses.replace(QUICK, seed=seed), progress=False, device="cpu")
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(before[name], value) for name, value in tiny.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.classifier[1].weight, other.classifier[1].weight)
    assert not one.training and set(history.last) == {"step", "loss", "learning_rate", "pixel accuracy"}
    assert abs(history.records[0]["loss"] - math.log(11)) < 1
    assert torch.equal(one.predict(crowd), one.predict(crowd.images, batch_size=5))
    assert one.predict(crowd).shape == (12, 32, 32) and one.predict(crowd.images[:0]).shape == (0, 32, 32)


def test_the_seed_decides_the_new_weights(crowd, tiny):
    still = dataclasses.replace(QUICK, seed=5, learning_rate=1e-12, weight_decay=0.0)  # so that nothing moves
    segmenter, _ = segmentation.train_segmenter(tiny, crowd, still, progress=False, device="cpu")
    for seed, same in ((5, True), (0, False)):
        fresh = segmentation.Segmenter(tiny, 10, seed=seed, **dense.fitted(tiny, crowd))
        assert torch.allclose(fresh.classifier[1].weight, segmenter.classifier[1].weight, atol=1e-6) is same


@pytest.mark.parametrize("tune", train.TUNE)
def test_what_is_frozen_stays_to_the_bit(crowd, tiny, tune):
    segmenter, _ = segmentation.train_segmenter(tiny, crowd, QUICK, tune=tune, progress=False, device="cpu")
    after = segmenter.backbone.pyramid.body.backbone.state_dict()
    moved = {name for name, value in tiny.state_dict().items() if not torch.equal(value, after[name])}
    stages = {name.split(".")[1] for name in moved}
    assert (
        stages
        == {"all": {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}, "last stage": {"layer4"}, "head": set()}[
            tune
        ]
    )
    assert all(p.requires_grad for p in segmenter.parameters())


@pytest.mark.training
def test_a_segmenter_learns_what_it_is_shown(crowd, tiny):
    few = crowd.select(slice(0, 4))
    config = train.TrainConfig(steps=60, batch_size=4, learning_rate=1e-2, weight_decay=0.0, log_every=60)
    segmenter, history = segmentation.train_segmenter(tiny, few, config, augment=False, progress=False, device="cpu")
    assert history.last["loss"] < 0.6
    blank = segmentation.mean_iou(torch.zeros_like(segmentation.semantic_masks(few)), few)
    assert segmentation.mean_iou(segmenter.predict(few), few) > blank + 0.25


def test_the_rate_is_chosen_on_validation_and_test_touched_once(crowd, tiny, monkeypatch):
    class Splits:
        train, val, test = crowd, crowd.select(slice(0, 6)), crowd.select(slice(6, 12))

    class Fake:
        def __init__(self, rate):
            self.rate = rate

        def predict(self, images, **options):
            seen.append((self.rate, images.name if images is not Splits.test else "test"))
            truth = segmentation.semantic_masks(images)
            return truth if self.rate == 0.2 else torch.zeros_like(truth)

    seen, trained = [], []

    def fake(backbone, few, config, **options):
        trained.append((len(few), config.seed, config.learning_rate, options))
        return Fake(config.learning_rate), None

    monkeypatch.setattr(segmentation, "train_segmenter", fake)
    score = segmentation.finetune_mean_iou(tiny, Splits, 5, seed=7, rates=(0.1, 0.2, 0.3), tune="head")
    assert score == 1.0
    assert trained == [(5, 7, rate, {"tune": "head"}) for rate in (0.1, 0.2, 0.3)]
    assert [rate for rate, name in seen if name == "test"] == [0.2] and len(seen) == 4
