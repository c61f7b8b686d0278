"""Detection on a backbone: torchvision's detectors take it as it is, and average precision is what a loop counts."""

import dataclasses
import math

import pytest
import torch
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from sslcourse import backbones, train
from sslcourse.data import world
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError
from sslcourse.transfer import dense, detection

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


# --- a backbone in torchvision's detectors -----------------------------------------------------------------------


def retinanet(backbone):
    pyramid = dense.Pyramid(backbone, 32)
    anchors = AnchorGenerator(tuple((4 * s,) for s in pyramid.strides), ((0.5, 1.0, 2.0),) * len(pyramid.strides))
    model = RetinaNet(pyramid, 10, anchor_generator=anchors)
    model.transform = detection.AsTheyAre(pyramid.strides[-1])
    return model


def faster_rcnn(backbone):
    one_map = dense.FeatureMaps(backbone, {3: "0"})
    model = FasterRCNN(one_map, 11, rpn_anchor_generator=AnchorGenerator(((8, 12, 16),), ((1.0,),)))
    model.transform = detection.AsTheyAre(16)
    return model


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("make", [lambda b: detection.build(b, 10), retinanet, faster_rcnn])
def test_a_backbone_drops_into_torchvisions_detectors(make, arch, crowd):
    backbone = backbones.build(arch)
    model = make(backbone)
    images = list(crowd.images[:2].float() / 255)
    losses = model(images, detection.targets(crowd.select(slice(0, 2))))
    assert len(losses) >= 2 and all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    first = next(p for name, p in backbone.named_parameters() if name.endswith(("conv1.weight", "proj.weight")))
    assert first.grad.abs().sum() > 0
    found = detection.detect(model, crowd.images[:2])
    assert len(found) == 2 and set(found[0]) == {"boxes", "labels", "scores"}
    assert model.training  # as it was
    assert detection.detect(model, crowd.images[:0]) == []


def test_the_backbone_sees_the_images_as_they_are(tiny, crowd):
    """Neither resized to 800 pixels nor normalized twice, in training and in evaluation."""
    seen = []
    detector = detection.build(tiny, 10)
    handle = tiny.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = crowd.images[:3].float() / 255
    for mode in (True, False):
        detector.train(mode)
        detector(list(images), detection.targets(crowd.select(slice(0, 3))))
    handle.remove()
    assert len(seen) == 2 and all(torch.equal(one, tiny.preprocess(images)) for one in seen)


def test_a_detector_is_torchvisions_and_takes_its_options(tiny, crowd):
    detector = detection.build(tiny, 10, seed=3, score_thresh=0.0, nms_thresh=0.3, detections_per_img=7)
    assert isinstance(detector, FCOS) and detector.nms_thresh == 0.3
    assert all(len(one["scores"]) == 7 for one in detection.detect(detector, crowd))
    same, other = (detection.build(tiny, 10, seed=seed).head.state_dict() for seed in (3, 4))
    assert all(torch.equal(a, b) for a, b in zip(same.values(), detector.head.state_dict().values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(same.values(), other.values(), strict=True))
    state = torch.get_rng_state()
    detection.build(tiny, 10)
    assert torch.equal(state, torch.get_rng_state())


def test_boxes_are_in_pixels_of_the_images_as_given(tiny, crowd):
    """With the backbone seeing them twice as large, the first boxes reach REACH cells, of 2 and 4 pixels, to each side."""
    detector = detection.build(tiny, 10, **dense.fitted(tiny, crowd), score_thresh=0.0, nms_thresh=1.0).eval()
    assert detector.backbone.strides == [2, 4]
    torch.nn.init.zeros_(detector.head.regression_head.bbox_reg.weight)
    found = detection.detect(detector, crowd.images[:1])[0]
    inner = found["boxes"][((found["boxes"] > 0) & (found["boxes"] < 32)).all(dim=1)]
    sides = (inner[:, 2:] - inner[:, :2]).round()
    assert set(sides.flatten().tolist()) <= {8.0, 16.0} and len(inner) > 10
    assert found["boxes"].max() == 32


def test_images_of_different_sizes(tiny):
    dice = generator()
    images = [torch.rand(3, h, w, generator=dice) for h, w in ((32, 48), (40, 32))]
    found = detection.build(tiny, 3, score_thresh=0.0).eval()(images)
    for image, one in zip(images, found, strict=True):
        assert (one["boxes"] >= 0).all() and (one["boxes"][:, 2] <= image.shape[2]).all()
        assert (one["boxes"][:, 3] <= image.shape[1]).all()


def test_wrong_parts_are_refused(tiny):
    for classes in (0, 2.5, None):
        with pytest.raises(CourseError, match="at least one class"):
            detection.build(tiny, classes)
    for channels in (0, 20, -32):
        with pytest.raises(CourseError, match="a multiple of 32"):
            detection.build(tiny, 10, channels=channels)
    with pytest.raises(CourseError, match="a Backbone is needed here, and got ResNet"):
        detection.build(tiny.trunk, 10)


# --- targets -----------------------------------------------------------------------------------------------------


def test_targets_leave_out_what_is_empty(crowd):
    truth = detection.targets(crowd)
    assert [len(one["labels"]) for one in truth] == (crowd.box_labels >= 0).sum(dim=1).tolist()
    assert all((one["boxes"][:, 2:] > one["boxes"][:, :2]).all() for one in truth)
    one = detection.target(torch.tensor([[1.0, 1, 1, 5], [0, 0, 2, 2], [0, 0, 3, 3]]), torch.tensor([4, 5, -1]))
    assert one["boxes"].tolist() == [[0, 0, 2, 2]] and one["labels"].tolist() == [5]


def test_sets_without_boxes_are_refused(crowd, tiny):
    bare = crowd.without_labels()
    for use in (detection.targets, lambda s: detection.train_detector(tiny, s, QUICK)):
        with pytest.raises(CourseError, match=r'has no boxes.*load\("world:crowd"\)'):
            use(bare)
    with pytest.raises(CourseError, match="no annotated images"):
        detection.train_detector(tiny, crowd.select([]), QUICK)
    with pytest.raises(CourseError, match="tune must be one of"):
        detection.train_detector(tiny, crowd, QUICK, tune="everything")


# --- average precision -------------------------------------------------------------------------------------------


def by_hand(found, truth, threshold, label):
    """Average precision of one class at one IoU, as COCO works it out: an explicit loop."""
    ranked = sorted(
        ((s, i, k) for i, one in enumerate(found) for k, s in enumerate(one["scores"].tolist())), key=lambda x: -x[0]
    )
    taken, hits = set(), []
    for _, i, k in ranked:
        if found[i]["labels"][k] != label:
            continue
        best, which = threshold - 1e-9, None
        for j, box in enumerate(truth[i]["boxes"]):
            if truth[i]["labels"][j] == label and (i, j) not in taken:
                overlap = box_iou(found[i]["boxes"][k : k + 1].double(), box[None].double()).item()
                if overlap >= best:
                    best, which = overlap, (i, j)
        taken.add(which)
        hits.append(which is not None)
    count = sum(int((one["labels"] == label).sum()) for one in truth)
    precision, recall, right = [], [], 0
    for n, hit in enumerate(hits, start=1):
        right += hit
        precision.append(right / n)
        recall.append(right / count)
    levels = [round(0.01 * k, 2) for k in range(101)]
    return sum(max([p for p, r in zip(precision, recall, strict=True) if r >= x], default=0.0) for x in levels) / 101


def noisy(truth, dice, count=10):
    """True boxes, shifted a little, with duplicates and with boxes where nothing is; scores that say little."""
    found = []
    for one in truth:
        boxes = one["boxes"].repeat(2, 1)
        boxes = boxes + 6 * torch.rand(boxes.shape, generator=dice) - 3  # no overlap is a threshold by chance
        boxes = torch.cat([boxes, torch.tensor([[1.0, 1, 9, 9], [20, 20, 31, 30]])])
        labels = torch.cat([one["labels"].repeat(2), torch.randint(0, count, (2,), generator=dice)])
        found.append({"boxes": boxes, "labels": labels, "scores": torch.rand(len(labels), generator=dice)})
    return found


def test_average_precision_is_that_of_a_loop(crowd):
    truth = detection.targets(crowd)
    found = noisy(truth, generator(1))
    scores = detection.average_precision(found, crowd)
    labels = sorted({label for one in truth for label in one["labels"].tolist()})
    for name, thresholds in {"AP50": [0.5], "AP75": [0.75], "AP": [0.5 + 0.05 * k for k in range(10)]}.items():
        expected = [by_hand(found, truth, t, label) for t in thresholds for label in labels]
        assert scores[name] == pytest.approx(sum(expected) / len(expected), abs=1e-4), name
    assert 0.2 < scores["AP50"] < 0.95 and scores["AP"] < scores["AP50"]


def test_average_precision_of_the_truth_of_nothing_and_of_duplicates(crowd):
    perfect = [one | {"scores": torch.ones(len(one["labels"]))} for one in detection.targets(crowd)]
    assert detection.average_precision(perfect, crowd) == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}
    nothing = [{name: value[:0] for name, value in one.items()} for one in perfect]
    assert detection.average_precision(nothing, crowd)["AP50"] == 0.0
    twice = [{name: torch.cat([value, value]) for name, value in one.items()} for one in perfect]
    assert detection.average_precision(twice, crowd)["AP50"] < 0.9
    with pytest.raises(CourseError, match="in 11 images was given for 12"):
        detection.average_precision(perfect[1:], crowd)
    for use in (detection.average_precision, detection.hits):
        with pytest.raises(CourseError, match="image 0 lacks scores"):
            use(detection.targets(crowd), crowd)
    bare = dataclasses.replace(crowd, box_labels=torch.full_like(crowd.box_labels, -1))
    with pytest.raises(CourseError, match="no true box"):
        detection.average_precision(perfect, bare)


@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_precision_and_recall_along_the_scores_give_average_precision(crowd, overlap):
    """Hits, ranked class by class, lead to what torchmetrics works out."""
    truth, found = detection.targets(crowd), noisy(detection.targets(crowd), generator(2))
    right = torch.cat(detection.hits(found, crowd, overlap))
    labels, scores = (torch.cat([one[name] for one in found]) for name in ("labels", "scores"))
    true = torch.cat([one["labels"] for one in truth])
    averages = []
    for label in true.unique():
        order = scores[labels == label].argsort(descending=True)
        so_far = right[labels == label][order].double().cumsum(0)
        precision, recall = so_far / torch.arange(1, len(order) + 1), so_far / (true == label).sum()
        levels = torch.arange(101).double() / 100
        best = [precision[recall >= level - 1e-9].max() if (recall >= level - 1e-9).any() else 0.0 for level in levels]
        averages.append(sum(float(b) for b in best) / 101)
    name = {0.5: "AP50", 0.75: "AP75"}[overlap]
    expected = detection.average_precision(found, crowd)[name]
    assert sum(averages) / len(averages) == pytest.approx(expected, abs=1e-4)

    for threshold in (0.0, 0.6):
        precision, recall = detection.precision_and_recall(found, crowd, threshold, overlap)
        kept = right[scores >= threshold]
        assert precision == pytest.approx((kept.sum() / len(kept)).item())
        assert recall == pytest.approx((kept.sum() / len(true)).item())
    assert math.isnan(detection.precision_and_recall(found, crowd, 2.0)[0])


def test_of_two_boxes_around_one_thing_the_better_is_right(crowd):
    one = crowd.select([0])
    real = detection.targets(one)[0]
    boxes, labels = real["boxes"][:1].repeat(3, 1), real["labels"][:1].repeat(3)
    found = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.5, 0.9, 0.7])}
    assert detection.hits([found], one)[0].tolist() == [False, True, False]
    other = found | {"labels": torch.full_like(labels, 9 if 9 not in real["labels"] else 0)}
    assert other["labels"][0] not in real["labels"] and not detection.hits([other], one)[0].any()
    nothing = dataclasses.replace(one, box_labels=torch.full_like(one.box_labels, -1))
    assert detection.hits([found], nothing)[0].tolist() == [False] * 3
    for overlap in (0, -0.5, 1.1, 50):
        with pytest.raises(CourseError, match="overlap is an IoU"):
            detection.hits([found], one, overlap)


# --- training ----------------------------------------------------------------------------------------------------


def test_training_is_decided_by_the_seed_and_leaves_the_backbone_alone(crowd, tiny):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    (one, history), (two, _), (other, _) = (
        detection.train_detector(tiny, crowd, dataclasses.replace(QUICK, seed=seed), progress=False, device="cpu")
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(before[name], value) for name, value in tiny.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not one.training
    parts = {"classification", "bbox_regression", "bbox_ctrness"}
    assert set(history.last) == {"step", "loss", "learning_rate"} | parts
    assert history.last["loss"] == pytest.approx(sum(history.last[name] for name in parts), abs=1e-4)


def test_the_seed_decides_the_new_weights(crowd, tiny):
    still = dataclasses.replace(QUICK, seed=5, learning_rate=1e-12, weight_decay=0.0)  # so that nothing moves
    detector, _ = detection.train_detector(tiny, crowd, still, progress=False, device="cpu")
    learnt = detector.head.classification_head.cls_logits.weight
    for seed, same in ((5, True), (0, False)):
        fresh = detection.build(tiny, 10, seed=seed, **dense.fitted(tiny, crowd))
        assert torch.allclose(fresh.head.classification_head.cls_logits.weight, learnt, atol=1e-6) is same


@pytest.mark.parametrize("tune", train.TUNE)
def test_what_is_frozen_stays_to_the_bit(crowd, tiny, tune):
    detector, _ = detection.train_detector(tiny, crowd, QUICK, tune=tune, progress=False, device="cpu")
    after = detector.backbone.body.backbone.state_dict()
    moved = {name for name, value in tiny.state_dict().items() if not torch.equal(value, after[name])}
    stages = {name.split(".")[1] for name in moved}
    assert (
        stages
        == {"all": {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}, "last stage": {"layer4"}, "head": set()}[
            tune
        ]
    )


def test_pictures_without_objects_can_be_learnt_from(tiny):
    images = ImageSet(
        torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator()),
        classes=("a", "b"),
        boxes=torch.zeros(4, 2, 4),
        box_labels=torch.full((4, 2), -1),
    )
    _, history = detection.train_detector(tiny, images, QUICK, progress=False, device="cpu")
    assert history.last["bbox_regression"] == 0 and history.last["classification"] > 0


@pytest.mark.training
def test_a_detector_learns_what_it_is_shown(crowd, tiny):
    few = crowd.select(slice(0, 4))
    config = train.TrainConfig(steps=80, batch_size=4, learning_rate=1e-2, weight_decay=0.0, log_every=80)
    detector, history = detection.train_detector(tiny, few, config, augment=False, progress=False, device="cpu")
    found = detection.detect(detector, few)
    assert detection.average_precision(found, few)["AP50"] > 0.5
    parts = detection.detect(detector, few.images, batch_size=3)
    assert all(torch.allclose(a["boxes"], b["boxes"], atol=1e-3) for a, b in zip(found, parts, strict=True))


def test_the_rate_is_chosen_on_validation_and_test_touched_once(crowd, tiny, monkeypatch):
    class Splits:
        train, val, test = crowd, crowd.select(slice(0, 6)), crowd.select(slice(6, 12))

    asked, trained = [], []

    def fake_training(backbone, few, config, **options):
        trained.append((len(few), config.seed, config.learning_rate, options))
        return config.learning_rate, None

    def fake_detect(rate, images, **options):
        asked.append((rate, images is Splits.test))
        part = slice(0, None if rate == 0.2 else 1)
        return [
            {name: value[part] for name, value in (one | {"scores": torch.ones(len(one["labels"]))}).items()}
            for one in detection.targets(images)
        ]

    monkeypatch.setattr(detection, "train_detector", fake_training)
    monkeypatch.setattr(detection, "detect", fake_detect)
    scores = detection.finetune_average_precision(tiny, Splits, 5, seed=7, rates=(0.1, 0.2, 0.3), tune="head")
    assert scores["AP"] == 1.0
    assert trained == [(5, 7, rate, {"tune": "head"}) for rate in (0.1, 0.2, 0.3)]
    assert [rate for rate, test in asked if test] == [0.2] and len(asked) == 4
