"""Colorization, context, jigsaw, inpainting, masked autoencoding: what each shows, asks, and must not do."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcourse import augment, backbones, color, losses, patches, pretext, train
from sslcourse.device import generator
from sslcourse.errors import CourseError
from sslcourse.pretext import context, inpainting, jigsaw, mae
from sslcourse.pretext.colorization import Colorization, rebalancing


def pictures(n=6, side=32):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator(0))


# --- colorization ------------------------------------------------------------------------------------------------


def test_colorization_shows_light_alone_and_asks_for_the_ab_of_the_same_picture():
    images = pictures(20)
    light, ab = Colorization(backbones.build()).views(images, generator(1))
    plain, mirrored = color.rgb_to_lab(images / 255), color.rgb_to_lab(images.flip(-1) / 255)
    seen = 0
    for i in range(20):
        lab = plain[i] if torch.allclose(light[i, 0], plain[i, 0] / 100, atol=1e-5) else mirrored[i]
        seen += lab is not None and torch.equal(light[i, 0], light[i, 1]) and torch.equal(light[i, 0], light[i, 2])
        torch.testing.assert_close(light[i, 0], lab[0] / 100, atol=1e-5, rtol=0)
        torch.testing.assert_close(ab[i], lab[1:, 2::4, 2::4], atol=1e-3, rtol=0)
    assert seen == 20


@pytest.mark.parametrize("side", [16, 32, 40, 64])
def test_colorization_takes_any_size_and_gives_it_back(side):
    task = Colorization(backbones.build(image_size=side))
    loss, _ = task(*task.views(pictures(2, side), generator(0)))
    assert loss.isfinite() and task.colorize(pictures(2, side)).shape == (2, 3, side, side)


def test_gray_pictures_are_refused():
    gray = pictures()[:, :1].expand(-1, 3, -1, -1).contiguous()
    with pytest.raises(CourseError, match="needs pictures in colour, and all of these are gray"):
        train.pretrain(Colorization(backbones.build()), gray, train.TrainConfig(steps=1, batch_size=2), progress=False)
    Colorization(backbones.build()).prepare(torch.cat([gray, pictures(1)]))  # one in colour is enough to go on


def test_the_first_loss_is_the_logarithm_of_the_number_of_bins():
    task = Colorization(backbones.build())
    loss, _ = task(*task.views(pictures(), generator(0)))
    assert math.isclose(loss.item(), math.log(len(color.bins())), rel_tol=1e-5)


def test_the_best_regression_is_the_mean_and_the_best_classification_is_not():
    """A thing that is red half the time and blue half the time: regression says a mixture that never occurs."""
    red, blue = torch.tensor([60.0, 50.0]), torch.tensor([40.0, -90.0])
    ab = torch.stack([red, blue] * 8)[:, :, None, None].expand(-1, -1, 8, 8)
    task = Colorization(backbones.build(), objective="regression")
    candidates = {"mean": (red + blue) / 2, "red": red, "blue": blue}
    scores = {}
    for name, answer in candidates.items():
        task.head.last.bias.data = answer / 100
        scores[name] = task(torch.rand(16, 3, 32, 32, generator=generator(0)), ab)[0].item()
    assert scores["mean"] < min(scores["red"], scores["blue"])


def test_soft_cross_entropy_is_a_loop():
    logits = torch.randn(5, 7, generator=generator(0))
    index = torch.stack([torch.randperm(7, generator=generator(i))[:3] for i in range(5)])
    share = torch.rand(5, 3, generator=generator(1))
    share = share / share.sum(1, keepdim=True)
    weight = torch.rand(5, generator=generator(2))
    expected = sum(
        -weight[m] * sum(share[m, k] * logits[m].log_softmax(0)[index[m, k]] for k in range(3)) for m in range(5)
    )
    torch.testing.assert_close(losses.soft_cross_entropy(logits, index, share, weight), expected / 5)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_rebalancing_keeps_the_mean_weight_and_lifts_what_is_rare(strength):
    frequency = torch.tensor([0.7, 0.2, 0.09, 0.01])
    weights = rebalancing(frequency, strength)
    assert math.isclose((frequency * weights).sum().item(), 1, rel_tol=1e-5)
    assert (weights.diff() >= 0).all() and (strength == 0) == torch.allclose(weights, torch.ones(4))
    if strength == 1:
        torch.testing.assert_close(weights * frequency, torch.full((4,), 0.25))
    assert rebalancing(torch.tensor([1.0, 0.0]), 1.0).isfinite().all()


def test_annealed_mean_goes_from_the_mode_to_the_mean():
    task = Colorization(backbones.build())
    a, b = task.centres[:2]
    task.head.last.bias.data = torch.full((len(task.centres),), -50.0)
    task.head.last.bias.data[:2] = torch.tensor([0.7, 0.3]).log()
    images = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    found = {}
    for temperature in (0.01, 1.0):
        share = (task.head.last.bias.data / temperature).softmax(0)
        found[temperature] = (share[:, None] * task.centres).sum(0)
        lab = torch.cat([color.lightness(images)[0, :, 0, 0], found[temperature]]).view(1, 3, 1, 1)
        expected = color.lab_to_rgb(lab).expand(1, 3, 32, 32)
        torch.testing.assert_close(task.colorize(images, temperature), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0.01], a)
    torch.testing.assert_close(found[1.0], 0.7 * a + 0.3 * b)
    with pytest.raises(CourseError, match="temperature must be above 0"):
        task.colorize(images, 0.0)


# --- context -----------------------------------------------------------------------------------------------------


def test_eight_positions_and_offsets_in_bijection():
    assert len(set(context.OFFSETS)) == len(context.POSITION_NAMES) == 8
    assert set(context.OFFSETS) == set(itertools.product((-1, 0, 1), repeat=2)) - {(0, 0)}
    for (down, right), name in zip(context.OFFSETS, context.POSITION_NAMES, strict=True):
        words = [{-1: "above", 0: "", 1: "below"}[down], {-1: "left", 0: "", 1: "right"}[right]]
        assert " ".join(filter(None, words)) == name
    for k, (down, right) in enumerate(context.OFFSETS):
        assert context.OFFSETS[7 - k] == (-down, -right)


@settings(max_examples=60)
@given(
    side=st.integers(24, 64),
    patch=st.floats(0.15, 0.4),
    gap=st.floats(0, 0.2),
    jitter=st.floats(0, 0.3),
    seed=st.integers(0, 99),
)
def test_patches_never_overlap_stay_inside_and_lie_where_the_label_says(side, patch, gap, jitter, seed):
    position = torch.arange(8).repeat(20)
    size, first, second = context.place_pairs(position, (side, side), patch, gap, jitter, generator(seed))
    for corner in (first, second):
        assert corner.min() >= 0 and (corner + size).max() <= side
    step = second - first
    offset = torch.tensor(context.OFFSETS)[position]
    away = step * offset  # in the direction of the offset, 0 in the other
    least = size + round(gap * size)
    assert (away[offset != 0] >= least).all() and (away[offset != 0] <= least + round(jitter * size)).all()
    assert (step[offset == 0].abs() <= round(jitter * size) / 2 + 0.5).all()
    assert (step.abs().max(dim=1).values >= size).all()  # so they don't overlap


def test_context_cuts_the_pixels_that_the_places_name():
    images = pictures(2)
    task = context.Context(backbones.build())
    first, second, position = task.views(images, generator(3))
    size, a, b = context.place_pairs(position, (32, 32), task.patch, task.gap, task.jitter, generator(3))
    assert torch.bincount(position).tolist() == [2] * 8
    for m in range(16):
        image = images[m % 2] / 255
        for patch, (top, left) in ((first[m], a[m]), (second[m], b[m])):
            assert torch.equal(patch, image[:, top : top + size, left : left + size])


def test_colour_cures():
    images = torch.rand(3, 3, 8, 8, generator=generator(0))
    flat = context.project_colour(images)
    axis = torch.tensor([-1.0, 2.0, -1.0])
    assert torch.einsum("c,nchw->nhw", axis, flat).abs().max() < 1e-5
    torch.testing.assert_close(context.project_colour(flat), flat)  # a projection
    dropped = context.drop_colour(images, generator(1))
    for image, out in zip(images, dropped, strict=True):
        same = [c for c in range(3) if torch.equal(image[c], out[c])]
        assert len(same) == 1
        spread = image[same[0]].std(unbiased=False)
        noise = torch.cat([out[c].flatten() for c in range(3) if c not in same])
        assert abs(noise.mean() - image[same[0]].mean()) < 0.01 and 0.005 * spread < noise.std() < 0.02 * spread


def test_chromatic_aberration_moves_red_out_and_blue_in_and_leaves_green():
    images = torch.zeros(1, 3, 65, 65)
    images[:, :, 32, 56] = 1  # a white dot, 24 pixels right of the middle
    out = context.chromatic_aberration(images, 0.1)
    place = (out[0].sum(1) * torch.arange(65)).sum(1) / out[0].sum((1, 2))  # where red, green and blue are, in pixels
    torch.testing.assert_close(place - 32, torch.tensor([24 * 1.1, 24.0, 24 * 0.9]), atol=0.3, rtol=0)
    torch.testing.assert_close(out[:, 1], images[:, 1], atol=1e-5, rtol=0)


def test_what_context_refuses():
    with pytest.raises(CourseError, match="two patches with their gap must fit"):
        context.Context(backbones.build(), patch=0.5, gap=0.1)
    with pytest.raises(CourseError, match="colour 'proyect' is unknown, did you mean 'project'|colour 'proyect'"):
        context.Context(backbones.build(), colour="proyect")
    with pytest.raises(CourseError, match="fewer than 4 pixels a side"):
        train.pretrain(
            context.Context(backbones.build()), pictures(8, 8), train.TrainConfig(batch_size=2), progress=False
        )


# --- jigsaw ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tiles", "count"), [(4, 24), (9, 24), (9, 100)])
def test_permutations_are_distinct_and_inverted(tiles, count):
    orders = jigsaw.permutation_set(tiles, count)
    assert len(orders.unique(dim=0)) == count and torch.equal(orders[0], torch.arange(tiles))
    assert torch.equal(orders.sort(dim=1).values, torch.arange(tiles).expand(count, -1))
    laid = jigsaw.lay(torch.arange(tiles).expand(count, -1), orders)
    assert torch.equal(jigsaw.lay(laid, jigsaw.inverse(orders)), torch.arange(tiles).expand(count, -1))


def test_the_permutation_set_is_greedy_by_brute_force():
    """Each added permutation of four tiles is as far from the chosen ones as any permutation is."""
    every = torch.tensor(list(itertools.permutations(range(4))))
    orders = jigsaw.permutation_set(4, 10)
    for k in range(1, 10):
        nearest = (every[:, None] != orders[None, :k]).sum(2).min(dim=1).values  # (24,)
        assert (orders[k] != orders[:k]).sum(1).min() == nearest.max()


def test_nine_tiles_start_with_nine_permutations_that_agree_nowhere():
    orders = jigsaw.permutation_set(9, 9)
    distance = (orders[:, None] != orders[None]).sum(2)
    assert (distance[~torch.eye(9, dtype=torch.bool)] == 9).all()
    far = jigsaw.permutation_set(9, 64)
    at_random = torch.stack([torch.randperm(9, generator=generator(i)) for i in range(64)])
    pairs = torch.triu_indices(64, 64, 1)
    ours, theirs = ((o[pairs[0]] != o[pairs[1]]).sum(1).float() for o in (far, at_random))
    assert ours.mean() > theirs.mean() and ours.min() > theirs.min()


@pytest.mark.parametrize("grid", [2, 3])
def test_places_show_the_tiles_that_the_answer_names(grid):
    images = pictures(3)
    task = jigsaw.Jigsaw(backbones.build(), grid=grid, tile=1.0, puzzles=2)
    laid, answer = task.views(images, generator(0))
    cut = patches.tiles(images / 255, grid, 32 // grid)
    for m in range(6):
        for i, tile in enumerate(task.orders[answer[m]]):
            assert torch.equal(laid[m, i], cut[m % 3, tile])
    upright = jigsaw.lay(laid, jigsaw.inverse(task.orders[answer]))
    assert torch.equal(upright, cut.repeat(2, 1, 1, 1, 1))


def test_no_feature_sees_two_tiles():
    task = jigsaw.Jigsaw(backbones.build()).eval()
    laid, answer = task.views(pictures(2), generator(0))
    laid.requires_grad_()
    task.backbone(laid.flatten(0, 1))[0].sum().backward()  # the features of the first tile of the first puzzle
    used = laid.grad.abs().sum((2, 3, 4)) > 0
    assert used[0, 0] and used.sum() == 1


def test_standardized_tiles():
    tiles = torch.rand(2, 4, 3, 14, 14, generator=generator(0))
    out = jigsaw.standardized(tiles)
    torch.testing.assert_close(out.mean((3, 4)), torch.full((2, 4, 3), 0.45))
    torch.testing.assert_close(out.std((3, 4), unbiased=False), torch.full((2, 4, 3), 0.225))
    assert (jigsaw.standardized(torch.full((1, 1, 3, 4, 4), 0.3)) - 0.45).abs().max() < 1e-4


def test_what_jigsaw_refuses():
    with pytest.raises(CourseError, match="a puzzle of 4 tiles has 24 permutations, and 25 were asked for"):
        jigsaw.Jigsaw(backbones.build(), permutations=25)
    with pytest.raises(CourseError, match="grid must be 2 or 3"):
        jigsaw.Jigsaw(backbones.build(), grid=4)
    with pytest.raises(CourseError, match="tile is a share of its cell"):
        jigsaw.Jigsaw(backbones.build(), tile=1.5)
    with pytest.raises(CourseError, match="fewer than 4"):
        jigsaw.Jigsaw(backbones.build(), grid=3).prepare(pictures(2, 10))


# --- inpainting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", inpainting.MASKS)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_holes_cover_their_share(mask, share):
    task = inpainting.Inpainting(backbones.build(), mask=mask, share=share)
    images, hole = task.views(pictures(200), generator(0))
    covered = hole.float().mean((1, 2, 3))
    assert hole.shape == (200, 1, 32, 32) and hole.dtype == torch.bool
    if mask == "central":
        assert (covered - share).abs().max() < 0.06  # whole rows and columns
        assert torch.equal(hole, hole.flip(-1)) and torch.equal(hole, hole.flip(-2))
    else:
        assert abs(covered.median() - share) < 0.15 and covered.min() > 0 and covered.max() < 1
        assert len({h.numpy().tobytes() for h in hole}) > 190  # each image has its own


def test_the_error_inside_is_a_loop_and_its_gradient_is_zero_outside():
    truth = torch.rand(2, 3, 4, 4, generator=generator(0))
    predicted = torch.rand(2, 3, 4, 4, generator=generator(1)).requires_grad_()
    hole = torch.rand(2, 1, 4, 4, generator=generator(2)) < 0.4
    terms = [
        (predicted[n, c, y, x] - truth[n, c, y, x]) ** 2
        for n, c, y, x in itertools.product(range(2), range(3), range(4), range(4))
        if hole[n, 0, y, x]
    ]
    loss = inpainting.inside_error(predicted, truth, hole)
    torch.testing.assert_close(loss, sum(terms) / len(terms))
    loss.backward()
    inside = hole.expand_as(truth)
    assert (predicted.grad[~inside] == 0).all() and (predicted.grad[inside] != 0).all()
    assert inpainting.inside_error(predicted, truth, torch.zeros_like(hole)) == 0


def test_the_head_never_sees_what_is_in_the_hole():
    task = inpainting.Inpainting(backbones.build())
    task.head.last.weight.data.normal_(generator=generator(0))
    images, hole = task.views(pictures(4), generator(0))
    other = torch.where(hole, torch.rand(images.shape, generator=generator(1)), images)
    assert torch.equal(task.reconstruct(images, hole), task.reconstruct(other, hole))
    filled = task.fill(images, hole)
    assert torch.equal(filled[~hole.expand_as(filled)], images[~hole.expand_as(images)])
    assert not torch.equal(filled, images)


@pytest.mark.parametrize("side", [16, 32, 48])
def test_inpainting_takes_any_size(side):
    task = inpainting.Inpainting(backbones.build(image_size=side))
    images, hole = task.views(pictures(2, side), generator(0))
    assert task.reconstruct(images, hole).shape == images.shape


def test_what_inpainting_refuses():
    with pytest.raises(CourseError, match="share is the part of the picture"):
        inpainting.Inpainting(backbones.build(), share=1.0)
    with pytest.raises(CourseError, match="mask 'centre' is unknown"):
        inpainting.Inpainting(backbones.build(), mask="centre")


# --- masked autoencoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0.1, 0.25, 0.5, 0.75, 0.9, 0.97])
def test_exactly_int_of_what_is_left_is_kept_and_restore_inverts(mask):
    keep, restore = mae.random_masking(7, 64, mask, generator(0))
    assert keep.shape[1] == int(64 * (1 - mask))
    assert torch.equal(restore.sort(dim=1).values, torch.arange(64).expand(7, -1))
    assert torch.equal(restore.gather(1, keep), torch.arange(keep.shape[1]).expand(7, -1))
    assert len({tuple(row.tolist()) for row in keep.sort(dim=1).values}) > 1  # another choice for each image


def test_counting_survives_rounding():
    assert [mae.kept(10, m) for m in (0.9, 0.8, 0.7, 0.3)] == [1, 2, 3, 7]  # 10 * (1 - 0.9) is 0.99999...


def build(**options):
    return mae.MaskedAutoencoder(backbones.build("vit-tiny"), **options)


def test_the_loss_ignores_the_visible_and_counts_the_hidden():
    task = build().eval()
    images, keep, restore = task.views(pictures(3), generator(0))
    loss, _ = task(images, keep, restore)
    predicted, target = task.decode(task.encode(images, keep), restore), task.target(images)
    terms = [
        ((predicted[n, j] - target[n, j]) ** 2).mean() for n in range(3) for j in range(64) if j not in keep[n].tolist()
    ]
    assert len(terms) == 3 * 48
    torch.testing.assert_close(loss, sum(terms) / len(terms))


def test_the_encoder_sees_the_kept_patches_alone():
    task = build().eval()
    images, keep, restore = task.views(pictures(2), generator(0))
    images.requires_grad_()
    task.encode(images, keep).sum().backward()
    touched = patches.patchify(images.grad, 4).abs().sum(2) > 0  # (2, 64)
    for n in range(2):
        assert sorted(touched[n].nonzero().flatten().tolist()) == sorted(keep[n].tolist())


def test_with_all_patches_kept_the_encoder_is_the_backbone():
    task = build().eval()
    images, everything = torch.rand(2, 3, 32, 32, generator=generator(0)), torch.arange(64).expand(2, -1)
    maps = task.backbone.stages(images)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(task.encode(images, everything)[:, 1:], maps, atol=1e-5, rtol=1e-4)


def test_normalized_targets_and_their_way_back():
    task = build().eval()
    images, keep, restore = task.views(pictures(2), generator(0))
    target = task.target(images)
    assert target.mean(2).abs().max() < 1e-5 and (target.var(2) - 1).abs().max() < 1e-4
    task.decode = lambda tokens, order: target  # a decoder that knows
    torch.testing.assert_close(task.reconstruct(images, keep, restore), images, atol=1e-5, rtol=0)
    plain = build(normalize=False)
    assert torch.equal(plain.target(images), patches.patchify(plain.backbone.preprocess(images), 4))


def test_what_masked_autoencoding_refuses():
    with pytest.raises(CourseError, match="resnet-tiny can't: use --backbone vit-tiny"):
        mae.MaskedAutoencoder(backbones.build())
    for mask in (0.0, 1.0, 0.99):
        with pytest.raises(CourseError, match="mask is the share of patches"):
            build(mask=mask)


# --- all five ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["colorization", "context", "inpainting", "jigsaw", "mae"])
def test_float_images_are_taken_as_well(name):
    kind = pretext.find(name)
    task = pretext.build(name, backbones.build(kind.arch))
    whole = [task.views(images, generator(2)) for images in (pictures(4), augment.to_float(pictures(4)))]
    for a, b in zip(*whole, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("name", ["context", "jigsaw"])
def test_pieces_of_images_need_a_backbone_that_takes_any_size(name):
    with pytest.raises(CourseError, match=f"{name} shows the backbone pieces of images, and vit-tiny takes whole ones"):
        pretext.build(name, backbones.build("vit-tiny"))


@pytest.mark.parametrize("name", ["rotation", "transformation", "colorization", "inpainting"])
def test_the_other_tasks_run_on_a_vision_transformer(name):
    task = pretext.build(name, backbones.build("vit-tiny"))
    loss, _ = task(*task.views(pictures(4), generator(0)))
    loss.backward()
    assert loss.isfinite()
