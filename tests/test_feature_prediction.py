"""iBOT, I-JEPA and LeJEPA: what is hidden, what is predicted, what follows what, and what prevents collapse."""

import pytest
import torch
from torch.nn import functional

from sslcourse import backbones, losses, pretext, train, vit
from sslcourse.data import world
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.pretext import ijepa


def pictures(n=6, side=16):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator(0))


def build(name, side=16, **options):
    return pretext.build(name, backbones.build("vit-tiny", image_size=side, seed=1), **options)


# --- iBOT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0.1, 0.3, 0.75])
def test_as_many_patches_are_hidden_of_each_crop_and_others_of_each(mask):
    large, hidden = build("ibot", mask=mask).views(pictures(), generator(1))
    assert large.shape == (12, 3, 16, 16) and hidden.shape == (12, 64)
    assert (hidden.sum(dim=1) == 64 - int(64 * (1 - mask) + 1e-6)).all()
    assert len({tuple(row.tolist()) for row in hidden}) == 12


def test_what_is_hidden_has_no_effect_on_the_student_and_all_on_the_teacher():
    task = build("ibot").eval()
    large, hidden = task.views(pictures(), generator(1))
    covered = hidden.view(12, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)  # (12, 1, 16, 16)
    other = torch.where(covered, torch.rand(large.shape, generator=generator(2)), large)
    with torch.no_grad():
        assert torch.equal(task.tokens(task.backbone, large, hidden), task.tokens(task.backbone, other, hidden))
        assert not torch.equal(task.tokens(task.teacher[0], large), task.tokens(task.teacher[0], other))
        unseen = task.tokens(task.backbone, large, torch.zeros_like(hidden))
        torch.testing.assert_close(unseen[:, 0], task.backbone.summary(large))


def test_the_mask_token_stands_where_the_patch_stood():
    task = build("ibot")
    trunk, embedded = task.backbone.trunk, []
    task.mask_token.data.fill_(0.5)
    trunk.encode = lambda tokens: embedded.append(tokens) or tokens
    large, hidden = task.views(pictures(2), generator(1))
    task.tokens(task.backbone, large, hidden)
    expected = torch.where(
        hidden[:, :, None], 0.5 + trunk.pos_embed[:, 1:], trunk.embed(task.backbone.preprocess(large))
    )
    torch.testing.assert_close(embedded[0], expected)


def test_ibots_loss_is_dinos_and_that_of_the_hidden_patches():
    task = build("ibot", patch_weight=0.5, local=1).eval()
    task.center.normal_(generator=generator(3)), task.patch_center.normal_(generator=generator(4))
    large, hidden, small = task.views(pictures(), generator(1))
    with torch.no_grad():
        loss, metrics = task(large, hidden, small)
        tokens, seen = task.tokens(task.backbone, large, hidden), task.tokens(task.teacher[0], large)
        crops = [*task.head(tokens[:, 0]).chunk(2), task.head(task.backbone.summary(small))]
        target = task.sharpen(task.teacher[1](seen[:, 0])).chunk(2)
        patches = []
        for n in range(12):
            said, asked = task.head(tokens[n, 1:][hidden[n]]), task.teacher[1](seen[n, 1:][hidden[n]])
            patches.append(losses.distillation(said, ((asked - task.patch_center) / 0.07).softmax(1), 0.1))
    expected = losses.dino(crops, target, 0.1) + 0.5 * sum(patches) / 12
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(metrics["patches"], sum(patches) / 12, atol=1e-5, rtol=1e-5)


def test_the_patches_have_a_centre_of_their_own():
    task = build("ibot", center_momentum=0.5)
    large, hidden = task.views(pictures(), generator(1))
    with torch.no_grad():
        seen = task.teacher[1](task.tokens(task.teacher[0], large).flatten(0, 1)).unflatten(0, (12, 65))
        task(large, hidden)
    torch.testing.assert_close(task.center, 0.5 * seen[:, 0].mean(0, keepdim=True), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(task.patch_center, 0.5 * seen[:, 1:].mean((0, 1))[None], atol=1e-5, rtol=1e-4)


def test_koleo_and_gram_are_added_with_their_weights():
    plain, added = build("ibot").eval(), build("ibot", koleo=0.1, gram=2.0).eval()
    views = plain.views(pictures(), generator(1))
    for anchor in added.anchor.parameters():
        anchor.data.mul_(1.1)
    with torch.no_grad():
        tokens = plain.tokens(plain.backbone, *views)
        koleo = sum(losses.koleo(crop) for crop in tokens[:, 0].chunk(2))
        gram = losses.gram(tokens[:, 1:], plain.tokens(added.anchor, views[0])[:, 1:])
        before = plain(*views)[0] + 0.1 * koleo
        torch.testing.assert_close(added(*views)[0], before)  # Gram anchoring hasn't begun
        added.anchored.fill_(1.0)
        torch.testing.assert_close(added(*views)[0], before + 2.0 * gram)
    assert gram > 0


def test_the_anchor_is_the_teacher_as_it_was_when_anchoring_began():
    task = build("ibot", gram=1.0, gram_from=0.5, momentum=0.0)
    begun = None
    for progress in (0.25, 0.5, 0.75):
        for p in task.backbone.parameters():
            p.data.add_(0.1)
        task.after_step(progress)
        same = all(
            torch.equal(a, t) for a, t in zip(task.anchor.parameters(), task.teacher[0].parameters(), strict=True)
        )
        assert same == (progress < 0.5) and bool(task.anchored) == (progress >= 0.5)
        now = [p.clone() for p in task.anchor.parameters()]
        begun = now if progress < 0.5 else begun
        assert all(torch.equal(a, b) for a, b in zip(begun, now, strict=True))
    assert all(not p.requires_grad for p in task.anchor.parameters())


# --- I-JEPA ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "blocks", "shape"), [(8, 4, (3, 4)), (8, 1, (8, 8)), (14, 3, (5, 7))])
def test_blocks_are_rectangles_inside_and_every_other_one_is_turned(side, blocks, shape):
    drawn = ijepa.random_blocks(200, side, blocks, shape, generator(0))
    assert drawn.shape == (200, blocks, shape[0] * shape[1]) and 0 <= drawn.min() and drawn.max() < side**2
    for b in range(blocks):
        rows, columns = drawn[:, b] // side, drawn[:, b] % side
        tall, wide = (x.amax(1) - x.amin(1) + 1 for x in (rows, columns))
        assert (tall == shape[b % 2]).all() and (wide == shape[1 - b % 2]).all()
        assert all(len(set(row.tolist())) == shape[0] * shape[1] for row in drawn[:, b])
        assert rows.min() == columns.min() == 0 and rows.max() == columns.max() == side - 1  # they reach every edge


def test_the_context_is_outside_of_every_block_and_drawn_from_all_that_is():
    targets = ijepa.random_blocks(300, 8, 4, (3, 4), generator(0))
    context = ijepa.outside(targets, 64, 16, generator(1))
    assert context.shape == (300, 16)
    for seen, asked in zip(context.tolist(), targets.flatten(1).tolist(), strict=True):
        assert len(set(seen)) == 16 and not set(seen) & set(asked)
    assert len(context.unique()) == 64


def test_the_student_sees_its_context_alone_and_the_teacher_everything():
    task = build("ijepa").eval()
    images, context, targets = task.views(pictures(), generator(1))
    seen = torch.zeros(6, 64, dtype=torch.bool).scatter_(1, context, True)
    visible = seen.view(6, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    other = torch.where(visible, images, torch.rand(images.shape, generator=generator(2)))
    with torch.no_grad():
        torch.testing.assert_close(task.encode(images, context), task.encode(other, context))
        assert not torch.allclose(task.target(images, targets)[0], task.target(other, targets)[0])


def test_the_target_is_the_teachers_normalized_feature_at_each_place():
    task = build("ijepa").eval()
    images, _, targets = task.views(pictures(3), generator(1))
    found, mean = task.target(images, targets)
    assert found.shape == (3, 4, 12, 128)
    last = task.teacher.stages(images)[-1].flatten(2).transpose(1, 2)  # (3, 64, d)
    for n in range(3):
        for b in range(4):
            expected = functional.layer_norm(last[n, targets[n, b]], (128,))
            torch.testing.assert_close(found[n, b], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mean, last.mean(1), atol=1e-5, rtol=1e-4)


def test_each_block_is_predicted_as_if_it_were_the_only_one():
    task = build("ijepa").eval()
    images, context, targets = task.views(pictures(), generator(1))
    with torch.no_grad():
        tokens = task.encode(images, context)[:, 1:]
        whole = task.predictor(tokens, context, targets)
        for b in range(4):
            alone = task.predictor(tokens, context, targets[:, b : b + 1])
            torch.testing.assert_close(whole[:, b : b + 1], alone, atol=1e-5, rtol=1e-4)
        order = torch.randperm(12, generator=generator(2))  # a place is known by its position alone
        torch.testing.assert_close(whole[:, :, order], task.predictor(tokens, context, targets[:, :, order]))


def test_no_gradient_reaches_the_target_and_all_of_the_backbone_learns():
    task = build("ijepa")
    task(*task.views(pictures(), generator(1)))[0].backward()
    assert all(p.grad is None for p in task.teacher.parameters())
    assert all(p.grad is not None for p in task.backbone.parameters())
    before = [p.clone() for p in task.teacher.parameters()]
    for p in task.backbone.parameters():
        p.data.add_(1.0)
    task.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, task.teacher.parameters(), strict=True))


@pytest.mark.parametrize("options", [{"blocks": 6}, {"block": 1.0}, {"block": 0.0}, {"block": 2.0}])
def test_what_ijepa_refuses(options):
    with pytest.raises(CourseError, match="block"):
        build("ijepa", **options)


@pytest.mark.parametrize("name", ["ibot", "ijepa"])
def test_patches_need_a_transformer(name):
    with pytest.raises(CourseError, match="resnet-tiny can't: use --backbone vit-tiny"):
        pretext.build(name, backbones.build())


# --- LeJEPA ------------------------------------------------------------------------------------------------------


def test_lejepas_loss_is_its_two_parts_and_there_is_nothing_else():
    task = build("lejepa", weight=0.2, local=2)
    large, directions, small = task.views(pictures(), generator(1))
    assert directions.shape == (6, 4, 64) and small.shape == (12, 3, 8, 8)
    loss, metrics = task(large, directions, small)
    z = task.projector(torch.cat([task.backbone(large), task.backbone(small)])).unflatten(0, (4, 6))
    expected = 0.2 * losses.sigreg(z, directions.flatten(0, 1)) + 0.8 * losses.to_centre(z, 2)
    torch.testing.assert_close(loss, expected)
    assert not [name for name, p in task.named_parameters() if not p.requires_grad]  # nobody stands still
    assert not [name for name, _ in task.named_buffers() if not name.startswith(("backbone", "projector"))]


def test_directions_are_drawn_anew_at_each_step():
    task = build("lejepa")
    first, second = (task.views(pictures(), generator(i))[1] for i in (0, 1))
    assert not torch.equal(first, second) and torch.equal(first, task.views(pictures(), generator(0))[1])


@pytest.mark.training
def test_collapse_comes_when_sigreg_goes_and_not_otherwise():
    images, deviation = world.draw("unlabeled", 256).images, {}
    for weight in (0.0, 0.05):
        task = pretext.build("lejepa", backbones.build(seed=0), weight=weight)
        config = train.TrainConfig(steps=40, batch_size=32, **task.recipe)
        train.pretrain(task, images, config, progress=False)
        views = task.views(images[:64], generator(0))
        with torch.no_grad():
            deviation[weight] = task.projector(task.backbone(views[0])).std(dim=0).mean().item()
    assert deviation[0.0] < 0.1 < 0.4 < deviation[0.05], deviation


# --- the transformer's parts ---------------------------------------------------------------------------------------


def test_encode_is_what_stages_and_summary_see():
    backbone = backbones.build("vit-tiny", image_size=16)
    images = torch.rand(2, 3, 16, 16, generator=generator(0))
    trunk = backbone.trunk
    tokens = trunk.encode(trunk.embed(backbone.preprocess(images)))
    torch.testing.assert_close(tokens[:, 0], backbone.summary(images))
    torch.testing.assert_close(tokens[:, 1:], backbone.stages(images)[-1].flatten(2).transpose(1, 2))
    places = torch.tensor([[3, 1], [0, 2]])
    assert torch.equal(vit.pick(tokens, places), torch.stack([tokens[0, [3, 1]], tokens[1, [0, 2]]]))
