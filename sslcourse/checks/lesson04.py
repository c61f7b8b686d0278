"""Checks of the exercises of lesson 04: flips, the eight symmetries of the square, what can be predicted, shortcuts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sslcourse import augment
from sslcourse.checks.cases import normal, pictures, uniform
from sslcourse.checks.compare import EXACT, Closeness
from sslcourse.checks.framework import Check, Forbidden, Mistake, Wrong


def flip_some(images: Tensor, left_right: Tensor, up_down: Tensor) -> Tensor:
    """images (N, C, H, W), masks bool (N,): mirror left and right where left_right, upside down where up_down."""
    mirrored = torch.where(left_right[:, None, None, None], images.flip(3), images)
    return torch.where(up_down[:, None, None, None], mirrored.flip(2), mirrored)


def _masked_pictures(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    cases = []
    for n, c, h, w in [(4, 3, 2, 3), (6, 3, 5, 4), (5, 1, 4, 4), (9, 2, 3, 7)]:
        both = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)  # every combination is there
        masks = torch.cat([both, uniform(generator, n - 4, 2) < 0.5])
        masks = masks[torch.randperm(n, generator=generator)]
        cases.append((pictures(generator, n, c, h, w), masks[:, 0], masks[:, 1]))
    (few, *few_masks), (many, *many_masks) = cases[1], cases[3]
    return [*cases, (few.float() / 255, *few_masks), (many.double() / 255, *many_masks)]


def _flip_in_loop(images, left_right, up_down):
    flipped = []
    for image, mirrored, upset in zip(images, left_right, up_down, strict=True):
        dims = [2] * bool(mirrored) + [1] * bool(upset)
        flipped.append(image.flip(dims) if dims else image)
    return torch.stack(flipped)


def _flip_by_index(images, left_right, up_down):
    flipped = images.clone()
    flipped[left_right] = flipped[left_right].flip(-1)
    flipped[up_down] = flipped[up_down].flip(-2)
    return flipped


def _flip_by_places(images, left_right, up_down):
    columns, rows = (torch.arange(images.shape[dim]).expand(len(images), -1) for dim in (3, 2))
    columns = torch.where(left_right[:, None], columns.flip(1), columns)  # (N, W)
    rows = torch.where(up_down[:, None], rows.flip(1), rows)  # (N, H)
    each = torch.arange(len(images))[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


flip_some_pictures = Check(
    name="4.1 flip some of the pictures", reference=flip_some, cases=_masked_pictures, close=EXACT,
    rights=(_flip_in_loop, _flip_by_index, _flip_by_places),
    wrongs=(
        Wrong("second flip overwrites the first", change=("mirrored.flip", "images.flip"),
            also=(("left_right[", "(left_right & ~up_down)["),),
            hint="""A picture with both masks comes out flipped up and down only: your second flip starts from the
            original picture and overwrites the first. Let it start from the result of the first."""),
        Wrong("never both", change=("up_down[", "(up_down & ~left_right)["),
            hint="""A picture with both masks gets only the left-right flip: the masks are independent, so an elif (or a
            torch.where inside the other's else branch) loses the fourth combination. Do one flip after the other."""),
        Wrong("axes swapped", change=(("images.flip(3)", "images.flip(2)"), ("mirrored.flip(2)", "mirrored.flip(3)")),
            hint="""Left-right and up-down are swapped: in (N, C, H, W) the last dimension runs along a row, from left
            to right, so it is the one that a left-right flip reverses; dimension 2 runs from top to bottom."""),
        Wrong("channels reversed", change=("flip(3)", "flip(1)"), also=((("flip(3)", "flip(1)"),
            ("flip(2)", "flip(3)")), ("flip(2)", "flip(1)"), (("images.flip(3)", "images.flip(2)"),
            ("mirrored.flip(2)", "mirrored.flip(1)")), (("flip(3)", "flip(1)"), ("flip(2)", "flip(1)"))),
            hint="""You reverse the channels (red becomes blue): in (N, C, H, W) dimension 1 is colour. Rows are
            dimension 2 and columns dimension 3; in one picture (C, H, W) they are 1 and 2."""),
        Wrong("one axis for both", change=("flip(2)", "flip(3)"), hint="""Both masks flip left and right, so a picture
            with both comes back unchanged: up-down reverses dimension 2, the rows."""),
        Wrong("up-down for both", change=("flip(3)", "flip(2)"), hint="""Both masks flip up and down, so a picture with
            both comes back unchanged: left-right reverses dimension 3, the columns."""),
        Wrong("all flipped", lambda images, left_right, up_down: images.flip(2, 3),
            also=((("left_right[:, None, None, None]", "left_right.any()"),
            ("up_down[:, None, None, None]", "up_down.any()")),), hint="""Every picture is flipped in both directions,
            whatever the masks say: picture i is flipped only where left_right[i] or up_down[i] is True."""),
        Wrong("first mask decides for all", change=(("left_right[:, None, None, None]", "left_right[0]"),
            ("up_down[:, None, None, None]", "up_down[0]")), hint="""Every picture is flipped as the first one's masks
            say: left_right[i] and up_down[i] belong to picture i."""),
        Wrong("none flipped", change=((".flip(3)", ""), (".flip(2)", "")),
            hint="""No picture is flipped. flip returns a new tensor and leaves the old one as it is, and so does
            images[mask]: use what they return, or assign it (on a copy)."""),
        Wrong("masks inverted", change=(("left_right[", "~left_right["), ("up_down[", "~up_down[")),
            hint="""You flip the pictures whose mask is False, and leave those whose mask is True: in torch.where(mask,
            a, b), a is taken where the mask is True."""),
        Wrong("both flips where either", change=(("left_right[", "(left_right | up_down)["),
            ("up_down[", "(left_right | up_down)[")), hint="""A picture with one mask gets both flips, which is a half
            turn: each mask decides about its own flip alone."""),
        Wrong("up-down forgotten", change=("mirrored.flip(2)", "mirrored"), hint="""The left-right flips are right, but
            up_down has no effect: is the second result the one that you return?"""),
        Wrong("left-right forgotten", change=("images.flip(3)", "images"), hint="""The up-down flips are right, but
            left_right has no effect: does the second flip start from the first one's result?"""),
        Wrong("order of the pictures reversed",
            change=(("torch.where(left_right[:, None, None, None], images.flip(3), images)",
            "images.clone(); mirrored[left_right] = mirrored[left_right].flip(0)"),
            ("return torch.where(up_down[:, None, None, None], mirrored.flip(2), mirrored)",
            "mirrored[up_down] = mirrored[up_down].flip(0); return mirrored")), hint="""You reverse the order of the
            chosen pictures in the batch: dimension 0 is the picture. Within images[mask], columns are still dimension 3
            (or -1) and rows dimension 2 (or -2)."""),
        Wrong("the chosen pictures alone",
            lambda images, left_right, up_down: torch.cat([images[left_right].flip(-1), images[up_down].flip(-2)]),
            "You return the flipped pictures alone. Every picture comes back, in its place, flipped or not."),
    ),
    hints=(
        "Two independent questions, so two steps: first the left-right flips, then the up-down flips on what came out.",
        """torch.where(mask, a, b) takes a where the mask is True and b elsewhere; the mask has the shape (N,) and must
        be stretched over (N, C, H, W): mask[:, None, None, None].""",
        """images = torch.where(left_right[:, None, None, None], images.flip(3), images), and the same again with
        up_down and flip(2).""",
    ),
    praise="Both flips together are the half turn: that is why the group of flips has four elements.",
)


def eight_symmetries(images: Tensor) -> Tensor:
    """images (N, C, H, H) -> (8, N, C, H, H); [e] the batch under element e, as augment.one_symmetry numbers them."""
    moved = []
    for e in range(8):
        mirrored = images.flip(-1) if e >= 4 else images
        moved.append(torch.rot90(mirrored, e % 4, dims=(-2, -1)))
    return torch.stack(moved)


TURNED_FIRST = (
    ("mirrored = images.flip(-1) if e >= 4 else images", "turned = torch.rot90(images, e % 4, dims=(-2, -1))"),
    ("torch.rot90(mirrored, e % 4, dims=(-2, -1))", "turned.flip(-1) if e >= 4 else turned"),
)


def _square_pictures(generator: torch.Generator) -> list[tuple[Tensor]]:
    shapes = [(1, 1, 2, 2), (2, 3, 4, 4), (5, 3, 3, 3), (3, 2, 6, 6)]
    floats = normal(generator, 2, 3, 5, 5), normal(generator, 4, 1, 3, 3).double()
    return [(images,) for images in (*(pictures(generator, *shape) for shape in shapes), *floats)]


def _eight_by_loop(images):
    moved = [images, images.flip(3)]
    for _ in range(3):
        moved += [torch.rot90(x, 1, (2, 3)) for x in moved[-2:]]
    return torch.stack(moved[::2] + moved[1::2])


def _eight_by_transpose(images):
    """A quarter turn counter-clockwise is a transpose and then an up-down flip."""
    moved = []
    for start in (images, torch.flip(images, (-1,))):
        for _ in range(4):
            moved.append(start)
            start = start.mT.flip(-2)
    return torch.stack(moved)


def _eight_by_two_stacks(images):
    both = torch.stack([images, images.flip(3)])  # (2, N, C, H, H)
    return torch.stack([both.rot90(k, (3, 4)) for k in range(4)], dim=1).flatten(0, 1)


eight_symmetries_of_a_batch = Check(
    name="4.2 the eight symmetries of a batch", reference=eight_symmetries, cases=_square_pictures, close=EXACT,
    forbidden=(
        Forbidden("moved by augment", (augment.one_symmetry, augment.square_symmetry, augment.rotate90), hint="""
            You let `augment` move the pictures: here it is to be done with flip and torch.rot90, e % 4 quarter turns of
            the picture or of its mirror image."""),
    ),
    rights=(_eight_by_loop, _eight_by_transpose, _eight_by_two_stacks),
    wrongs=(
        Wrong("turned first", change=TURNED_FIRST,
            hint="""Elements 5 and 7 are swapped: you turn first and mirror afterwards. The convention is to mirror
            first and then turn, and the two orders differ, because a mirror reverses the sense of a turn."""),
        Wrong("clockwise", change=("e % 4", "-e % 4"), also=(("(-2, -1)", "(-1, -2)"),),
            hint="""You turn clockwise: element 1 must be a quarter turn counter-clockwise, as torch.rot90(x, 1,
            dims=(-2, -1)) turns: what was at the right edge comes to the top."""),
        Wrong("clockwise and turned first", change=(*TURNED_FIRST, ("e % 4", "-e % 4")),
            hint="""Two things: you turn clockwise (element 1 must be counter-clockwise), and you turn before you mirror
            (elements 4 to 7 mirror first)."""),
        Wrong("mirrored upside down", change=("flip(-1)", "flip(-2)"), also=((*TURNED_FIRST,
            ("flip(-1)", "flip(-2)")),),
            hint="""Your mirror turns the picture upside down: element 4 swaps left and right, which is flip(-1), the
            columns. (Up-down is element 6: mirrored left-right and then turned by 180°.)"""),
        Wrong("upside down and clockwise", change=(("flip(-1)", "flip(-2)"), ("e % 4", "-e % 4")), also=((*TURNED_FIRST,
            ("flip(-1)", "flip(-2)"), ("e % 4", "-e % 4")),),
            hint="""Two things: you turn clockwise (element 1 must be counter-clockwise), and your mirror turns the
            picture upside down (element 4 swaps left and right: flip(-1), the columns)."""),
        Wrong("no mirror", change=(".flip(-1)", ""), hint="""Elements 4 to 7 repeat the four rotations: they must be the
            rotations of the mirrored picture. No turn can mirror a picture."""),
        Wrong("half turn for a mirror", change=("flip(-1)", "flip(-1, -2)"), hint="""For a mirror you flip both
            dimensions, and that is a half turn: elements 4 to 7 repeat the rotations. Flip the columns alone."""),
        Wrong("mirrors in between", change=("(moved)", "([moved[e] for e in (0, 4, 1, 5, 2, 6, 3, 7)])"),
            hint="""All eight are there, in another order: rotation and mirrored rotation alternate. First come the four
            rotations (0 to 3), then the four rotations of the mirrored picture (4 to 7)."""),
        Wrong("mirrors first", change=("e >= 4", "e < 4"), hint="""All eight are there, but the mirrored ones come
            first: element 0 is the identity, and the mirror belongs to e >= 4."""),
        Wrong("off by one", change=("e % 4", "e % 4 + 1"),
            hint="You are one quarter turn ahead: element 0 turns by 0°, element 1 by 90°. Count the turns from 0."),
        Wrong("always one turn", change=("e % 4", "min(e % 4, 1)"), hint="""Elements 1, 2 and 3 are all turned by 90°:
            element e turns by (e % 4) quarter turns, the second argument of torch.rot90."""),
        Wrong("transposed",
            change=("torch.rot90(mirrored, e % 4, dims=(-2, -1))", "mirrored.mT if e % 2 else mirrored"),
            hint="""You transpose instead of turning: a transpose mirrors the picture along its diagonal, and twice
            gives the original. A quarter turn is a transpose and then a flip, or torch.rot90."""),
        Wrong("channels mirrored", change=("flip(-1)", "flip(1)"),
            hint="For a mirror you reverse the colour channels: columns are the last dimension, flip(-1)."),
        Wrong("pictures reversed", change=("flip(-1)", "flip(0)"), hint="""For a mirror you reverse the order of the
            pictures in the batch: dimension 0. Columns are the last dimension, flip(-1)."""),
        Wrong("picture first", change=("(moved)", "(moved, dim=1)"), hint="""The pictures are right, but the dimensions
            are the other way round: (8, N, C, H, H) is needed, the element first, and yours is (N, 8, C, H, H)."""),
        Wrong("one long batch", change=("torch.stack", "torch.cat"),
            hint="""The pictures are right, but in one batch (8 * N, C, H, H): the element needs a dimension of its own,
            (8, N, C, H, H); torch.stack makes one, torch.cat doesn't."""),
        Wrong("turned along the batch", change=(", dims=(-2, -1)", ""), hint="""torch.rot90 turns in the plane of
            dimensions 0 and 1 if you don't say otherwise: here that is picture and colour. Say dims=(-2, -1)."""),
    ),
    hints=(
        """Four of them are torch.rot90 with 0, 1, 2 and 3 quarter turns. The other four are the same turns of another
        picture.""",
        """Element e: if e >= 4 mirror first, images.flip(-1); then torch.rot90(..., e % 4, dims=(-2, -1)). Collect the
        eight in a list.""",
        "torch.stack([torch.rot90(images.flip(-1) if e >= 4 else images, e % 4, dims=(-2, -1)) for e in range(8)])",
    ),
)


def compose(first: int, second: int) -> int:
    """The element that equals `first` and then `second`; elements are numbered as in augment.square_symmetry."""
    turns = second % 4 + (-(first % 4) if second >= 4 else first % 4)  # a mirror reverses the turns before it
    mirrored = (first >= 4) != (second >= 4)
    return turns % 4 + 4 * mirrored


def _compose_by_divmod(first, second):
    (mirror, turns), (other, more) = divmod(first, 4), divmod(second, 4)
    return 4 * (mirror ^ other) + (more + (turns, -turns)[other]) % 4


def _compose_by_signs(first, second):
    sense = 1 if second < 4 else -1
    return (sense * first + second) % 4 + (first // 4 + second // 4) % 2 * 4


def _compose_by_matrices(first, second):
    turn, mirror = torch.tensor([[0, -1], [1, 0]]), torch.tensor([[-1, 0], [0, 1]])  # of (x, y), y upwards

    def matrix(e):
        return torch.linalg.matrix_power(turn, e % 4) @ (mirror if e >= 4 else torch.eye(2, dtype=torch.int64))

    together = matrix(second) @ matrix(first)
    return next(e for e in range(8) if torch.equal(matrix(e), together))


compose_two_elements = Check(
    name="4.3 compose two elements", reference=compose, cases=lambda g: list(itertools.product(range(8), repeat=2)),
    forbidden=(
        Forbidden("pictures moved", (augment.one_symmetry, augment.square_symmetry, torch.rot90, "rot90"), hint="""
            You move a picture to see where it ends up: here the result is to be computed from the two numbers. Take
            each apart, into a mirror (e >= 4) and turns (e % 4)."""),
    ),
    rights=(_compose_by_divmod, _compose_by_signs, _compose_by_matrices),
    wrongs=(
        Wrong("order swapped", lambda first, second: compose(second, first),
            """You apply `second` before `first`. Elements don't commute: compose(1, 4), a quarter turn and then the
            mirror, is 7, and compose(4, 1), the mirror and then the turn, is 5."""),
        Wrong("turns added", change=("-(first % 4) if second >= 4 else first % 4", "first % 4"), hint="""You add the
            turns as if there were no mirror: that is right until `second` mirrors. A mirror reverses the sense of every
            turn made before it: first 90° counter-clockwise and then a mirror is a mirror and then 90° clockwise."""),
        Wrong("numbers added", lambda first, second: (first + second) % 8,
            """You add the numbers modulo 8: that is the group of eight turns by 45°. Here take each element apart, into
            a mirror (e >= 4) and turns (e % 4), and mind that two mirrors cancel."""),
        Wrong("reversed by the wrong mirror", change=("if second >= 4", "if first >= 4"),
            hint="""You reverse the first turns when the *first* element mirrors. But its mirror comes before its turns;
            what reverses them is a mirror that comes after: the second element's."""),
        Wrong("wrong turns reversed", change=("second % 4 + (-(first % 4) if second >= 4 else first % 4)",
            "first % 4 + (-(second % 4) if second >= 4 else second % 4)"),
            hint="""You reverse the second element's turns. They come after all mirrors, and stay as they are; it is the
            first element's turns, made before the second mirror, that change their sense."""),
        Wrong("two mirrors make a mirror", change=("!=", "or"), hint="""Where both elements mirror, your result still
            mirrors: two mirrors cancel, and what remains is a rotation. Use !=, not `or`."""),
        Wrong("one mirror is no mirror", change=("!=", "and"), hint="""The result mirrors when exactly one of the two
            does (one mirror, and two cancel); yours mirrors when both do."""),
        Wrong("first mirror forgotten", change=("(first >= 4) != (second >= 4)", "second >= 4"), hint="""The result
            mirrors when the second element does, whatever the first did: it must be when exactly one of them does."""),
        Wrong("mirror lost", change=(" + 4 * mirrored", ""), hint="""The turns are right, but your result never mirrors:
            add 4 when exactly one of the two elements mirrors."""),
        Wrong("turns not wrapped", change=("return turns % 4", "return turns"), hint="""The turns leave 0..3 (they reach
            6 and -3): four quarter turns are none, so take the sum modulo 4 before you add 4 for the mirror."""),
        Wrong("counted from 1", change=("4 * mirrored", "4 * mirrored + 1"),
            hint="Your result is one too large everywhere: the elements are 0 to 7, and 0 is the identity."),
        Wrong("exclusive or", lambda first, second: first ^ second,
            """You combine the bits of the numbers: that treats the eight elements as three independent switches, in
            which everything is its own inverse. But two quarter turns are a half turn, not nothing."""),
        Wrong("multiplied", lambda first, second: first * second % 8, """You multiply the numbers. They are names, not
            quantities: `first` times the identity, 0, must be `first`, and not 0."""),
    ),
    hints=(
        """Take each element apart: is it mirrored (e >= 4), and how many quarter turns follow (e % 4)? Does the result
        mirror? By how much does it turn?""",
        """It mirrors when exactly one of the two does. The turns add up, but a mirror reverses the sense of all turns
        made before it: when `second` mirrors, the first element's turns count backwards.""",
        """turns = second % 4 + (-(first % 4) if second >= 4 else first % 4); mirrored = (first >= 4) != (second >= 4);
        return turns % 4 + 4 * mirrored""",
    ),
    praise="That is the dihedral group of the square, in three lines.",
)


def best_possible(pictures: Tensor, elements: Sequence[int]) -> tuple[float, float]:
    """Pictures (N, C, H, H), all equally likely, moved by one of `elements`, all equally likely: the highest accuracy
    and the lowest mean cross-entropy (in nats) of any predictor of the element that sees the moved picture alone."""
    ways: dict[bytes, Counter] = {}  # moved picture -> how often by each element
    for place, element in enumerate(elements):
        for picture in augment.one_symmetry(pictures, element):
            ways.setdefault(picture.contiguous().numpy().tobytes(), Counter())[place] += 1
    total = len(pictures) * len(elements)
    accuracy = sum(max(counts.values()) for counts in ways.values()) / total
    loss = sum(n * math.log(counts.total() / n) for counts in ways.values() for n in counts.values()) / total
    return accuracy, loss


def _symmetric(pictures: Tensor, elements: Sequence[int]) -> Tensor:
    """The pictures made symmetric under a subgroup: the lightest of all its moved versions, pixel by pixel."""
    return torch.stack([augment.one_symmetry(pictures, e) for e in elements]).amax(0)


def _worlds(generator: torch.Generator) -> list[tuple[Tensor, tuple[int, ...]]]:
    square, turns, mirror, flips = tuple(range(8)), (0, 1, 2, 3), (0, 4), (0, 4, 6, 2)
    one, two, three = (pictures(generator, n, 3, 4, 4) for n in (1, 2, 3))
    either_way = torch.cat([two, two.flip(-1)])  # every picture is there facing right and facing left
    mostly = torch.cat([three[:1], three[:1], three[:1], three[:1].flip(-1)])  # three in four face right
    nearly = _symmetric(one, mirror)
    nearly[0, -1, 0, 0] ^= 1  # not its own mirror image, by one bit of the last channel
    return [
        (one, turns),  # nothing in common: 1 and 0
        (one // 2 * 2, turns),  # nor where all bytes are even
        (nearly, mirror),
        (_symmetric(one, mirror), mirror),
        (_symmetric(one, mirror), square),
        (_symmetric(one, (0, 2)), turns),
        (_symmetric(one, turns), square),
        (_symmetric(one, square), turns),
        (_symmetric(one, (0, 6)), flips),
        (either_way, mirror),
        (either_way, flips),
        (torch.cat([_symmetric(one, mirror), two]), mirror),
        (torch.cat([two, _symmetric(two, turns)]), turns),
        (mostly, mirror),
        (mostly, (0, 6)),
        (torch.cat([three, three[:2].flip(-1)]), square),
    ]


def _best_by_comparing(pictures, elements):
    moved = torch.cat([augment.one_symmetry(pictures, e) for e in elements])  # (G * N, C, H, H)
    answer = torch.arange(len(elements)).repeat_interleave(len(pictures))
    same = (moved[:, None] == moved[None]).flatten(2).all(2)  # (G * N, G * N)
    votes = same.double() @ torch.nn.functional.one_hot(answer, len(elements)).double()  # (G * N, G)
    posterior = votes / votes.sum(1, keepdim=True)
    chosen = posterior[torch.arange(len(answer)), answer]
    return posterior.amax(1).mean().item(), -chosen.log().mean().item()


def _best_by_unique(pictures, elements):
    moved = torch.cat([augment.one_symmetry(pictures, e) for e in elements]).flatten(1)
    _, outcome = moved.unique(dim=0, return_inverse=True)
    answer = torch.arange(len(elements)).repeat_interleave(len(pictures))
    counts = torch.zeros(len(moved), len(elements)).index_put_((outcome, answer), torch.ones(()), accumulate=True)
    given = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return float(counts.amax(1).sum()) / len(moved), float(-torch.special.xlogy(counts, given).sum()) / len(moved)


def _per_picture_mean(rule: Callable[[int, int], tuple[float, float]]) -> Callable:
    """A rule on (how many elements leave the picture unchanged, how many elements), averaged over the pictures."""

    def best(pictures, elements):
        values = []
        for picture in pictures:
            still = sum(torch.equal(augment.one_symmetry(picture, e), picture) for e in elements)
            values.append(rule(still, len(elements)))
        return tuple(sum(column) / len(values) for column in zip(*values, strict=True))

    return best


best_possible_prediction = Check(
    name="4.4 the best that any network can do", reference=best_possible, cases=_worlds,
    close=Closeness(rtol=1e-4, atol=1e-5, plain=True), rights=(_best_by_comparing, _best_by_unique),
    wrongs=(
        Wrong("one picture at a time", _per_picture_mean(lambda still, count: (1 / still, math.log(still))),
            """You look at each picture's own symmetries, and miss what the others do: a picture that is moved can equal
            *another* picture of the world that is moved differently (one that faces left, mirrored, is one that faces
            right). Count over all pictures and elements together."""),
        Wrong("chance", lambda pictures, elements: (1 / len(elements), math.log(len(elements))),
            """That is chance: accuracy 1/|G| and loss log |G|. It is the best only where the moved picture says
            nothing; where no two moved pictures are alike, accuracy 1 and loss 0 are possible."""),
        Wrong("always perfect", lambda pictures, elements: (1.0, 0.0),
            """Accuracy 1 and loss 0 are possible only if each moved picture can have come about in one way. Where two
            elements lead to the same picture, nothing can tell them apart. (A tensor as key of a dict is never equal to
            another tensor: make bytes or a tuple of it.)"""),
        Wrong("share of unchanged", _per_picture_mean(lambda still, count: (still / count, math.log(count / still))),
            """You have it upside down: the elements that leave a picture unchanged are the ones that *can't* be told
            apart. The more there are, the lower the best accuracy, and the higher the loss."""),
        Wrong("one channel compared", change=("picture.contiguous()", "picture[:1].contiguous()"),
            hint="You compare one channel of the moved pictures. Two are the same where all their channels are."),
        Wrong("logarithm to base 2", change=("math.log(", "math.log2("), hint="""The accuracy is right; the loss is in
            bits. The course counts in nats: use the natural logarithm, math.log."""),
        Wrong("negative loss", change=("return accuracy, loss", "return accuracy, -loss"),
            hint="""The accuracy is right, and the loss has the wrong sign: it is minus the mean log-probability of the
            true answer, and never below 0."""),
        Wrong("summed loss", change=("for n in counts.values()) / total", "for n in counts.values())"),
            hint="The accuracy is right; the loss is a sum over all pictures and elements, where the mean is needed."),
        Wrong("minus log of the accuracy", change=("return accuracy, loss", "return accuracy, -math.log(accuracy)"),
            hint="""The accuracy is right, but the loss is not -log(accuracy): the mean of a logarithm isn't the
            logarithm of a mean. Take the log of the probability of each true answer first, then the mean."""),
        Wrong("answers drawn", change=("max(counts.values())", "sum(n * n for n in counts.values()) / counts.total()"),
            hint="""The loss is right. The accuracy is that of a predictor that draws its answer at random from the
            probabilities; the best one always takes the likeliest answer."""),
        Wrong("all eight elements", lambda pictures, elements: best_possible(pictures, range(8)),
            "You use all eight symmetries, whatever `elements` says."),
        Wrong("one right per outcome", change=("max(counts.values())", "1"), hint="""The loss is right. For the accuracy
            you count one right answer for each different moved picture; the likeliest element may have led to it more
            than once, when two pictures of the world are alike: add up max(n), not 1."""),
        Wrong("how often ignored", change=(("max(counts.values())", "counts.total() / len(counts)"),
            ("log(counts.total() / n)", "log(len(counts))")),
            hint="""You note *which* elements lead to a moved picture, but not *how often*: where three in four face
            right, right is the better answer, with probability 3/4. Count."""),
        Wrong("loss first", change=("return accuracy, loss", "return loss, accuracy"),
            hint="Accuracy comes first, then the loss: yours are the other way round."),
        Wrong("outcomes equally likely", change=(("/ total", "/ len(ways)"),
            ("max(counts.values())", "max(counts.values()) / counts.total()"),
            ("n * math", "n / counts.total() * math")),
            hint="""You average over the *different* moved pictures as if they were equally likely. One that comes about
            in more ways is seen more often: weight each with its number of ways."""),
    ),
    hints=(
        """Write down every pair (picture, element) and the picture it leads to. Which pairs lead to the same picture?
        Nothing can tell these apart.""",
        """For each different outcome count how often each element led to it: {outcome: {element: n}}. The likeliest
        element is the best answer there; the shares are the best probabilities. bytes(picture.flatten().tolist()) can
        be a key of a dict.""",
        """With total = N * G: accuracy = sum over outcomes of max(n) / total; loss = sum over outcomes and elements of
        n * log(n_outcome / n) / total, where n_outcome is the sum of n there.""",
    ),
    praise="Whatever a network claims above this accuracy on new pictures, it has got from a leak.",
)


def strip_means(images: Tensor, width: int) -> Tensor:
    """uint8 images (N, 3, H, W) -> float (N, 4, 3) in [0, 1]: mean colour of the top, bottom, left and right strip."""
    images = images.float() / 255
    strips = images[:, :, :width], images[:, :, -width:], images[..., :width], images[..., -width:]
    return torch.stack([strip.mean(dim=(2, 3)) for strip in strips], dim=1)


def _bordered(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    sizes = [(2, 3, 3, 1), (3, 6, 5, 2), (5, 8, 8, 3), (4, 7, 9, 2)]
    return [(pictures(generator, n, 3, h, w), width) for n, h, w, width in sizes]


def _strips_by_index(images, width):
    height, breadth = images.shape[2:]
    rows, columns = torch.arange(height), torch.arange(breadth)
    masks = [
        (rows < width)[:, None].expand(height, breadth),
        (rows >= height - width)[:, None].expand(height, breadth),
        (columns < width)[None].expand(height, breadth),
        (columns >= breadth - width)[None].expand(height, breadth),
    ]
    return torch.stack([images[:, :, mask].double().mean(-1) / 255 for mask in masks], 1)


def _strips_by_narrow(images, width):
    x = augment.to_float(images)
    means = []
    for dim in (2, 3):
        for start in (0, x.shape[dim] - width):
            means.append(x.narrow(dim, start, width).flatten(2).mean(2))
    return torch.stack(means, 1)


mean_colour_of_strips = Check(
    name="4.5 the mean colour of four strips", reference=strip_means, cases=_bordered,
    rights=(_strips_by_index, _strips_by_narrow),
    wrongs=(
        Wrong("rows and columns swapped", change=("in strips", "in (strips[i] for i in (2, 3, 0, 1))"),
            hint="""Top and bottom are swapped with left and right: dimension 2 counts rows from the top, dimension 3
            columns from the left."""),
        Wrong("0 to 255", change=(" / 255", ""),
            hint="Your values lie in [0, 255]; [0, 1] is needed: divide by 255, as augment.to_float does."),
        Wrong("last row left out", change=("-width:", "-width:-1"),
            hint="""The bottom and right strips lack the outermost row or column (and are empty for width 1): a slice
            ends *before* its second number, so -width:-1 stops one short. Write -width: ."""),
        Wrong("one too wide", change=((" :width", " :width + 1"), ("-width:", "-width - 1 :")), hint="""Your strips are
            one pixel too wide: x[:width] has width rows already, since a slice ends before its second number."""),
        Wrong("not at the edge", change=("-width:", "-width - 1 : -1"), hint="""The bottom and right strips start one
            pixel too far inside, and miss the outermost row or column: -width: reaches the edge."""),
        Wrong("always one pixel", lambda images, width: strip_means(images, 1),
            "Your strips are one pixel wide whatever `width` says."),
        Wrong("round the clock", change=("in strips", "in (strips[i] for i in (0, 3, 1, 2))"),
            hint="The strips are in the order top, right, bottom, left; needed is top, bottom, left, right."),
        Wrong("other order", change=("in strips", "in (strips[i] for i in (0, 2, 1, 3))"),
            also=(("in strips", "in (strips[i] for i in (1, 0, 3, 2))"),
            ("in strips", "in (strips[i] for i in (0, 1, 3, 2))"),
            ("in strips", "in (strips[i] for i in (2, 0, 3, 1))")),
            hint="The four strips are there, in another order: needed is top, bottom, left, right."),
        Wrong("corners left out", change=("images[..., :width], images[..., -width:]",
            "images[:, :, width:-width, :width], images[:, :, width:-width, -width:]"), hint="""Your left and right
            strips leave out the corners. Each strip runs along its whole edge; corners belong to two strips."""),
        Wrong("colour first", change=("dim=1)", "dim=2)"), hint="""Colour and strip are the other way round: (N, 4, 3)
            is needed, a strip's three channels together, and yours is (N, 3, 4). torch.stack has an argument dim."""),
        Wrong("flattened", change=("dim=1)", "dim=1).flatten(1)"), hint="""The numbers are right, in a shape (N, 12):
            keep strip and colour apart, (N, 4, 3). (The lesson flattens them when it needs features.)"""),
        Wrong("colours averaged", change=("dim=1)", "dim=1).mean(dim=2)"), hint="""You average over the three channels
            too, and lose the colour: take the mean over rows and columns, dim=(2, 3), alone."""),
        Wrong("pictures averaged", change=("dim=1)", "dim=1).mean(dim=0)"), hint="""You average over the pictures too:
            each has strips of its own. Take the mean over rows and columns, dim=(2, 3), alone."""),
        Wrong("summed", change=("strip.mean", "strip.sum"),
            hint="You sum over the strip's pixels; the mean divides by how many there are."),
        Wrong("mean of bytes", change=(".float() / 255", ""), hint="""PyTorch has no mean of uint8 tensors (the sum
            would overflow): convert to float first, augment.to_float(images)."""),
        Wrong("divided as integers", change=((".float() / 255", " // 255"), ("strip.mean", "strip.float().mean")),
            hint="""images // 255 rounds down, to 0 everywhere but in pure white: convert to float first, and divide
            with / ."""),
    ),
    hints=(
        """Cut the four strips by slicing: the first and last `width` rows, the first and last `width` columns. Then a
        mean over each.""",
        """Float first: x = augment.to_float(images). Top is x[:, :, :width], right is x[:, :, :, -width:]. mean(dim=(2,
        3)) gives (N, 3).""",
        """torch.stack([s.mean(dim=(2, 3)) for s in (x[:, :, :width], x[:, :, -width:], x[..., :width], x[...,
        -width:])], dim=1)""",
    ),
    praise="Twelve numbers; in the lesson they answer the pretext question about scenes.",
)


def drop_when_hidden(
    predict: Callable[[Tensor], Tensor], images: Tensor, answers: Tensor, hidden: Tensor, fill: float
) -> float:
    """Accuracy of `predict` (float images -> int64 (N,)) on float images (N, 3, H, W) minus its accuracy when the
    pixels where `hidden` (bool (N, H, W)) is True are replaced by `fill`."""
    covered = images.masked_fill(hidden[:, None], fill)
    before = (predict(images) == answers).double().mean()
    after = (predict(covered) == answers).double().mean()
    return (before - after).item()


def brightest_edge(images: Tensor) -> Tensor:
    """0 to 3: is the first row, last row, first column or last column the brightest?"""
    edges = images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]
    return torch.stack([edge.mean(dim=(1, 2)) for edge in edges], 1).argmax(1)


def brightest_channel(images: Tensor) -> Tensor:
    """0 to 2: the channel with the largest mean."""
    return images.mean(dim=(2, 3)).argmax(1)


def light_or_dark(images: Tensor) -> Tensor:
    """1 where the mean of the picture is above one half, else 0."""
    return (images.mean(dim=(1, 2, 3)) > 0.5).long()


def _hidden_pictures(generator: torch.Generator) -> Iterator[tuple]:
    """Predictors that are mostly right, and two that are mostly wrong: what they don't see makes them better."""
    settings = [
        (brightest_edge, 7, 4, 0.5, 0.3, 0.25), (brightest_channel, 12, 5, 0.25, 0.6, 0.25),
        (light_or_dark, 20, 6, 0.9, 0.5, 0.25), (brightest_edge, 33, 6, 0.7, 0.4, 0.25),
        (brightest_channel, 40, 3, 1.0, 0.5, 0.8), (light_or_dark, 25, 4, 0.1, 0.5, 0.9),
    ]
    for predict, n, size, fill, share, error in settings:
        images = uniform(generator, n, 3, size, size + 2)
        answers = predict(images)
        answers = torch.where(uniform(generator, n) < error, (answers + 1) % 2, answers)
        hidden = uniform(generator, n, size, size + 2) < share * uniform(generator, n, 1, 1, high=2.0)
        yield predict, images, answers, hidden, fill


def _drop_in_loop(predict, images, answers, hidden, fill):
    covered = images.clone()
    for picture, mask in zip(covered, hidden, strict=True):
        picture[:, mask] = fill
    before = sum(int(a == b) for a, b in zip(predict(images), answers, strict=True))
    after = sum(int(a == b) for a, b in zip(predict(covered), answers, strict=True))
    return (before - after) / len(images)


def _drop_by_fill(predict, images, answers, hidden, fill):
    covered = torch.where(hidden.unsqueeze(1), torch.full_like(images, fill), images)
    return (predict(images).eq(answers).float().mean() - predict(covered).eq(answers).float().mean()).item()


def _drop_by_mixing(predict, images, answers, hidden, fill):
    mask = hidden[:, None].to(images.dtype)
    covered = images * (1 - mask) + fill * mask
    return float(((predict(images) == answers).double() - (predict(covered) == answers).double()).mean())


def _changes_its_argument(answer: Callable, cases: list[tuple]) -> bool:
    predict, images, answers, hidden, fill = cases[0]
    before = images.clone()
    answer(predict, images, answers, hidden, fill)
    return not torch.equal(images, before)


shortcut_detector = Check(
    name="4.6 a shortcut detector", reference=drop_when_hidden, cases=_hidden_pictures, close=Closeness(plain=True),
    rights=(_drop_in_loop, _drop_by_fill, _drop_by_mixing),
    wrongs=(
        Wrong("mask inverted", change=("hidden[", "~hidden["),
            hint="""You hide everything *but* the hidden pixels: hidden is True where a pixel is to be replaced. In
            torch.where(mask, a, b), a is taken where the mask is True."""),
        Wrong("after minus before", change=("before - after", "after - before"), hint="""The sign is the wrong way
            round: a drop is accuracy before minus accuracy after, positive when hiding hurts."""),
        Wrong("accuracy after", change=("(before - after)", "after"), hint="""That is the accuracy with the pixels
            hidden. The drop is how much lower that is than the accuracy on the whole pictures."""),
        Wrong("accuracy before", change=("(before - after)", "before"), hint="""That is the accuracy on the whole
            pictures, and nothing is hidden. Subtract the accuracy on the covered ones."""),
        Wrong("drop from perfect", change=("before - after", "1 - after"), hint="""You measure the drop from 1. The
            predictor wasn't perfect before either: subtract from its accuracy on the whole pictures."""),
        Wrong("relative drop", change=("before - after", "1 - after / before"),
            hint="You divide by the accuracy before: a relative drop. Needed is the difference of the two accuracies."),
        Wrong("counted", change=("mean()", "sum()"),
            hint="You count pictures; an accuracy is a share: divide by how many there are, or take a mean."),
        Wrong("answers that change", change=("before - after", "(predict(images) != predict(covered)).double().mean()"),
            also=(("before - after", "(predict(images) == predict(covered)).double().mean()"),),
            hint="""That is the share of answers that change when pixels are hidden; a wrong answer that becomes another
            wrong one, or a right one, isn't a loss of accuracy. Compare both predictions with `answers`."""),
        Wrong("black", change=("None], fill", "None], 0.0"), hint="""You replace hidden pixels by 0, black; `fill` is
            needed. Black is a colour too, and a dark patch can be a cue of its own."""),
        Wrong("one mask for all", change=("hidden[:, None]", "hidden[0]"),
            hint="Every picture is covered with the first one's mask: hidden[i] belongs to images[i]."),
        Wrong("one channel hidden",
            change=("images.masked_fill(hidden[:, None], fill)", "images.clone(); covered[:, 0][hidden] = fill"),
            hint="""Only the red channel is hidden: a mask (N, H, W) must reach all three channels. hidden[:, None] has
            the shape (N, 1, H, W), and that is stretched over them."""),
        Wrong("nothing hidden", change=("predict(covered)", "predict(images)"),
            also=(("masked_fill(", "masked_fill_("),), hint="""Your drop is always 0: the same pictures are measured
            twice. If you cover them in place, the originals are covered too (work on a copy), and masked_fill without
            an underscore returns a new tensor that must be used."""),
    ),
    mistakes=(
        Mistake("covered in place", _changes_its_argument,
            example=(("covered = images.masked_fill(hidden[:, None], fill)", "pass"),
            ("predict(covered)", "predict(images.masked_fill_(hidden[:, None], fill))")),
            hint="""You paint over the pictures that you were given, and whoever called you still needs them: work on a
            copy, images.clone(), or use torch.where or masked_fill, which return new tensors."""),
    ),
    hints=(
        "Four steps: accuracy on the pictures as they are; a covered copy; accuracy on the copy; the difference.",
        """images.masked_fill(mask, fill) returns a new tensor with `fill` where the mask is True. The mask (N, H, W)
        needs a dimension for the channels: hidden[:, None].""",
        """before = (predict(images) == answers).float().mean(); covered = images.masked_fill(hidden[:, None], fill);
        after = (predict(covered) == answers).float().mean(); return (before - after).item()""",
    ),
    praise="Use it on every network that is better than you expected.",
)
