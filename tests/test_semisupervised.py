"""Few labels and many pictures: the losses against brute force, what each objective learns by, and the loop on any device."""

import copy
import dataclasses
import math

import pretend_device
import pytest
import torch

from sslcourse import backbones, losses, pretext, train
from sslcourse.data.imageset import ImageSet
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.pretext.together import Together
from sslcourse.supervised import Classifier
from sslcourse.transfer import semisupervised, shifts
from sslcourse.transfer.semisupervised import (
    Distillation,
    FixMatch,
    Joint,
    PseudoLabels,
    SupervisedContrast,
    learn,
    self_training,
    supervised_contrastive,
)

CONFIG = train.TrainConfig(steps=4, batch_size=4, log_every=1, checkpoint_every=1, learning_rate=1e-2, seed=3)
METHODS = ("joint", "pseudo-labels", "fixmatch", "supervised contrast", "distillation")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def pictures(n=12, seed=0):
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator(seed))


def labelled(n=6, classes=3):
    return ImageSet(pictures(n, seed=1), torch.arange(n) % classes, tuple(f"c{i}" for i in range(classes)))


def classifier(seed=1):
    return Classifier(backbones.build("resnet-tiny", image_size=16, seed=seed), 3)


def objective(name):
    if name == "joint":
        return Joint(pretext.build("rotation", classifier().backbone), 3, weight=0.5)
    if name == "distillation":
        return Distillation(classifier(), classifier(seed=2))
    return {"pseudo-labels": PseudoLabels, "fixmatch": FixMatch, "supervised contrast": SupervisedContrast}[name](
        classifier()
    )


def run(name, **options):
    made = objective(name)
    learn(made, labelled(), pictures(24), **{"config": CONFIG, "device": "cpu", "progress": False} | options)
    return made


def weights(module):
    return torch.cat([value.detach().flatten().float() for value in module.state_dict().values()])


# --- losses ------------------------------------------------------------------------------------------------------


def test_supervised_contrast_equals_its_formula_in_loops():
    z, labels, temperature = normal(9, 5).double(), torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 2]), 0.3
    unit = [row / row.norm() for row in z]
    costs = []
    for i in range(9):
        partners = [p for p in range(9) if p != i and labels[p] == labels[i]]
        among = sum(math.exp(unit[i] @ unit[a] / temperature) for a in range(9) if a != i)
        if partners:
            each = [-math.log(math.exp(unit[i] @ unit[p] / temperature) / among) for p in partners]
            costs.append(sum(each) / len(each))
    assert len(costs) == 8  # class 3 has one view alone
    assert supervised_contrastive(z, labels, temperature).item() == pytest.approx(sum(costs) / 8, abs=1e-12)


def test_with_a_class_for_each_picture_supervised_contrast_is_simclrs_loss():
    first, second = normal(6, 4), normal(6, 4, seed=1)
    mine = supervised_contrastive(torch.cat([first, second]), torch.arange(6).repeat(2), 0.5)
    torch.testing.assert_close(mine, losses.nt_xent(first, second, 0.5))


def test_supervised_contrast_has_a_finite_gradient_where_no_view_has_a_partner():
    z = normal(3, 4).requires_grad_()
    loss = supervised_contrastive(z, torch.arange(3))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(z.grad).all()


def test_self_training_takes_sure_answers_alone_and_divides_by_all():
    guess = torch.tensor([[4.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 9.0]], requires_grad=True)
    asked = normal(3, 3).requires_grad_()
    loss, sure = self_training(guess, asked, 0.9)
    expected = -(asked.log_softmax(dim=1)[0, 0] + asked.log_softmax(dim=1)[2, 2]) / 3
    assert sure.tolist() == [True, False, True]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert guess.grad is None and not asked.grad[1].any() and asked.grad[0].any()


def test_an_answer_of_exactly_the_threshold_is_taken():
    even = torch.zeros(2, 2)
    assert self_training(even, even, 0.5)[1].all() and not self_training(even, even, 0.51)[1].any()


# --- objectives --------------------------------------------------------------------------------------------------


def test_a_weight_of_zero_leaves_labels_alone_to_teach():
    def gradient(weight):
        made = Joint(pretext.build("rotation", classifier().backbone), 3, weight=weight).train()
        views = made.views(labelled().images, labelled().labels, pictures(6), generator(0))
        made(*views)[0].backward()
        return made

    none, some = gradient(0.0), gradient(1.0)
    assert not any(p.grad.any() for p in none.task.head.parameters())
    assert any(p.grad.any() for p in some.task.head.parameters())


def test_the_pretext_task_of_a_joint_objective_sees_all_pictures_and_no_label():
    made = Joint(pretext.build("rotation", classifier().backbone), 3)
    _, _, rotated, turns = made.views(labelled(6).images, labelled(6).labels, pictures(10), generator(0))
    assert len(rotated) == 4 * 16 and turns.max() == 3


def test_pseudo_labels_ask_on_a_weak_view_and_fixmatch_on_a_strong_one():
    gray = torch.full((40, 3, 16, 16), 128, dtype=torch.uint8)
    gray[:, 0] = 200  # one colour everywhere: a shift and a mirror change nothing
    _, _, weak, asked = PseudoLabels(classifier()).views(gray[:1], torch.zeros(1).long(), gray, generator(0))
    _, _, guess, strong = FixMatch(classifier()).views(gray[:1], torch.zeros(1).long(), gray, generator(0))
    assert torch.equal(weak, guess) and (asked[:, :, 8, 8] - weak[:, :, 8, 8]).abs().max() < 1e-6
    assert (strong[:, :, 8, 8] - guess[:, :, 8, 8]).abs().max() > 0.1


def test_supervised_contrast_lets_the_heads_loss_reach_the_head_alone(monkeypatch):
    monkeypatch.setattr(semisupervised, "supervised_contrastive", lambda z, labels, temperature: 0 * z.sum())
    made = SupervisedContrast(classifier()).train()
    made.classifier.head.weight.data.normal_(generator=generator(0))  # zeros would let nothing through anyway
    made(*made.views(labelled().images, labelled().labels, pictures(4), generator(0)))[0].backward()
    assert made.classifier.head.weight.grad.any()
    assert not any(p.grad.any() for p in made.backbone.parameters() if p.grad is not None)


def test_a_teacher_rests_and_is_a_copy():
    teacher = classifier(seed=2)
    made = Distillation(classifier(), teacher)
    before = weights(made.teacher)
    learn(made, labelled(), pictures(24), CONFIG, device="cpu", progress=False)
    assert torch.equal(weights(made.teacher), before) and torch.equal(weights(teacher), before)
    assert made.teacher is not teacher and all(p.requires_grad for p in teacher.parameters())


def test_a_student_who_answers_as_the_teacher_does_pays_the_teachers_entropy():
    teacher = classifier().eval()
    teacher.head.weight.data.normal_(generator=generator(0))
    made = Distillation(copy.deepcopy(teacher), teacher, temperature=2.0).eval()
    (images,) = made.views(labelled().images, labelled().labels, pictures(8), generator(0))
    told = (teacher(images) / 2).softmax(dim=1)
    torch.testing.assert_close(made(images)[0], -(told * told.log()).sum(dim=1).mean())


# --- the loop ----------------------------------------------------------------------------------------------------


@pytest.mark.training
@pytest.mark.parametrize("name", METHODS)
def test_learns_in_place_the_same_again_and_another_with_another_seed(name):
    first, again = run(name), run(name)
    other = run(name, config=dataclasses.replace(CONFIG, seed=4))
    assert torch.equal(weights(first), weights(again)) and not torch.equal(weights(first), weights(other))
    assert not torch.equal(weights(first.backbone), weights(objective(name).backbone))
    assert not first.classifier.training


def test_chance_is_another_one_in_each_step_and_for_each_seed():
    class Watched(FixMatch):
        def views(self, labelled, labels, unlabelled, generator):
            seen.append(torch.rand(1, generator=generator).item())
            return super().views(labelled, labels, unlabelled, generator)

    seen = []
    for seed in (3, 3, 4):
        config = dataclasses.replace(CONFIG, seed=seed)
        learn(Watched(classifier()), labelled(), pictures(24), config, device="cpu", progress=False)
    assert seen[:4] == seen[4:8] and len(set(seen[4:])) == 8


@pytest.mark.training
@pytest.mark.parametrize("name", METHODS)
def test_stopped_and_resumed_the_weights_are_the_same_bits(name, tmp_path):
    def stop(record):
        if record["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(name, out=tmp_path, on_log=stop)
    assert torch.equal(weights(run(name, out=tmp_path, resume=True)), weights(run(name)))


def test_a_run_from_another_start_is_another_run(tmp_path):
    run("fixmatch", out=tmp_path)
    with pytest.raises(CourseError, match="start"):
        learn(FixMatch(classifier(seed=5)), labelled(), pictures(24), CONFIG, out=tmp_path, resume=True, device="cpu")


@pytest.mark.parametrize("name", METHODS)
def test_on_another_device_everything_goes_there_and_comes_back(name):
    expected = run(name)
    with pretend_device.chosen():
        found = run(name, device="auto")
    assert {p.device.type for p in found.parameters()} == {"cpu"}
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(CourseError, match="3 classes apart, and the labelled set has 6 images of 2"):
        learn(FixMatch(classifier()), labelled(classes=2), pictures(24), CONFIG)
    with pytest.raises(CourseError, match="takes 8 unlabelled pictures, and there are 7"):
        learn(FixMatch(classifier()), labelled(), pictures(7), CONFIG)
    with pytest.raises(CourseError, match="labels"):
        learn(FixMatch(classifier()), labelled().without_labels(), pictures(24), CONFIG)
    with pytest.raises(CourseError, match="ratio"):
        learn(FixMatch(classifier()), labelled(), pictures(24), CONFIG, ratio=-1)
    with pytest.raises(CourseError, match="threshold"):
        FixMatch(classifier(), threshold=1.5)
    with pytest.raises(CourseError, match="temperature"):
        Distillation(classifier(), classifier(), temperature=0)


def test_answers_are_the_classifiers_own_and_how_sure_it_is():
    asked = classifier().train()
    asked.head.weight.data.normal_(generator=generator(0))
    answer, probability = semisupervised.answers(asked, labelled(), batch_size=4, device="cpu")
    assert asked.training and torch.equal(answer, asked.predict(labelled(), device="cpu"))
    share = asked.eval()(labelled().images.float() / 255).softmax(dim=1)
    torch.testing.assert_close(probability, share.max(dim=1).values)


# --- two tasks at once -------------------------------------------------------------------------------------------


def both(weights=()):
    network = backbones.build("resnet-tiny", image_size=16, seed=1)
    return Together(pretext.build("rotation", network), pretext.build("simclr", network), weights=weights)


def test_together_is_the_weighted_sum_of_what_its_parts_cost_on_their_own_views():
    made = both(weights=(2.0, 0.5)).eval()
    views = made.views(pictures(6), generator(0))
    each = [part(*own)[0] for part, own in zip(made.parts, views, strict=True)]
    loss, metrics = made(*views)
    torch.testing.assert_close(loss, 2 * each[0] + 0.5 * each[1])
    torch.testing.assert_close(metrics["simclr loss"], each[1].detach())
    assert len(views[0][0]) == 24 and len(views[1][0]) == 6


def test_together_runs_through_the_loop_and_resumes_to_the_bit(tmp_path):
    def pretrained(task, **options):
        train.pretrain(task, pictures(16), CONFIG, device="cpu", progress=False, **options)
        return weights(task.backbone)

    def stop(record):
        if record["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrained(both(), out=tmp_path, on_log=stop)
    assert torch.equal(pretrained(both(), out=tmp_path, resume=True), pretrained(both()))
    with pytest.raises(CourseError, match="weights|options"):
        pretrained(both(weights=(1.0, 3.0)), out=tmp_path, resume=True)


def test_tasks_on_different_backbones_are_refused():
    with pytest.raises(CourseError, match="same backbone"):
        Together(*(pretext.build(t, classifier().backbone) for t in ("rotation", "simclr")))
    with pytest.raises(CourseError, match="2 weights|need 2"):
        both(weights=(1.0,))


# --- shifted pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shifts.CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_leaves_labels(name):
    images = labelled()
    none, half, whole = (shifts.corrupted(images, name, severity) for severity in (0.0, 0.5, 1.0))
    off = [(x.images.float() - images.images.float()).abs().mean().item() for x in (none, half, whole)]
    assert off[0] < 0.51 < off[1] < off[2]
    assert torch.equal(whole.labels, images.labels) and whole.images.dtype == torch.uint8
    assert torch.equal(shifts.corrupted(images, name).images, whole.images)


def test_corruptions_do_what_they_are_called_after():
    images = labelled()
    assert shifts.corrupted(images, "contrast").images.float().std() < 0.5 * images.images.float().std()
    coarse = shifts.corrupted(ImageSet(pictures(2)[:, :, :15, :15]), "pixelate").images.float()
    assert (coarse[..., 1] - coarse[..., 0]).abs().mean() < (images.images.float().diff(dim=-1)).abs().mean() / 2
    assert shifts.corrupted(images, "noise", seed=1).images.ne(shifts.corrupted(images, "noise").images).any()
    with pytest.raises(CourseError, match="'fog' is unknown"):
        shifts.corrupted(images, "fog")
    with pytest.raises(CourseError, match="severity"):
        shifts.corrupted(images, "blur", 2.0)
