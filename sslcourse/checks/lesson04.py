"""Checks of the exercises of lesson 04: flips, the eight symmetries of the square, what can be predicted, shortcuts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslcourse import augment
from sslcourse.checks.compare import Closeness
from sslcourse.checks.framework import Check, Mistake, Wrong

EXACT = Closeness(dtype="exact")  # pixels move: no value and no dtype changes


def _pictures(generator: torch.Generator, *shape: int) -> Tensor:
    """Random uint8 pictures (no two values alike in a small one is likely, symmetric ones are not)."""
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def flip_some(images: Tensor, left_right: Tensor, up_down: Tensor) -> Tensor:
    """images (N, C, H, W), masks bool (N,): mirror left and right where left_right, upside down where up_down."""
    images = torch.where(left_right[:, None, None, None], images.flip(3), images)
    return torch.where(up_down[:, None, None, None], images.flip(2), images)


def _masked_pictures(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    cases = []
    for n, c, h, w in [(4, 3, 2, 3), (6, 3, 5, 4), (5, 1, 4, 4), (9, 2, 3, 7)]:
        both = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)  # every combination is there
        masks = torch.cat([both, torch.rand(n - 4, 2, generator=generator) < 0.5])
        masks = masks[torch.randperm(n, generator=generator)]
        cases.append((_pictures(generator, n, c, h, w), masks[:, 0], masks[:, 1]))
    floats, left_right, up_down = cases[1]
    return [*cases, (floats.float() / 255, left_right.clone(), up_down.clone())]


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


def _flip_by_symmetry(images, left_right, up_down):
    columns = torch.arange(images.shape[3]).expand(len(images), -1)
    rows = torch.arange(images.shape[2]).expand(len(images), -1)
    columns = torch.where(left_right[:, None], columns.flip(1), columns)
    rows = torch.where(up_down[:, None], rows.flip(1), rows)
    return images[
        torch.arange(len(images))[:, None, None, None],
        torch.arange(images.shape[1])[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _flip_along(first: int, second: int) -> Callable:
    """The two masks acting on dimensions `first` and `second` of a picture (C, H, W)."""

    def flip(images, left_right, up_down):
        images = torch.where(left_right[:, None, None, None], images.flip(first + 1), images)
        return torch.where(up_down[:, None, None, None], images.flip(second + 1), images)

    return flip


def _flip_all_when_any(images, left_right, up_down):
    images = images.flip(3) if left_right.any() else images
    return images.flip(2) if up_down.any() else images


def _flip_all_by_first(images, left_right, up_down):
    images = images.flip(3) if left_right[0] else images
    return images.flip(2) if up_down[0] else images


def _flip_second_from_original(images, left_right, up_down):
    """The second flip starts from the original again, and overwrites the first."""
    flipped = images.clone()
    flipped[left_right] = images[left_right].flip(-1)
    flipped[up_down] = images[up_down].flip(-2)
    return flipped


def _flip_order_of_pictures(images, left_right, up_down):
    """flip(0): turns the order of the chosen pictures about."""
    flipped = images.clone()
    flipped[left_right] = flipped[left_right].flip(0)
    flipped[up_down] = flipped[up_down].flip(0)
    return flipped


flip_some_pictures = Check(
    name="4.1 flip some of the pictures",
    reference=flip_some, cases=_masked_pictures, rights=(_flip_in_loop, _flip_by_index, _flip_by_symmetry),
    wrongs=(
        Wrong("second flip overwrites the first", _flip_second_from_original,
            also=(lambda images, left_right, up_down: flip_some(images, left_right & ~up_down, up_down),), hint="""
            A picture with both masks comes out flipped up and down only: your second flip starts from the original
            picture and overwrites the first. Let it start from the result of the first."""),
        Wrong("never both",
            lambda images, left_right, up_down: flip_some(images, left_right, up_down & ~left_right), """
            A picture with both masks gets only the left-right flip: the masks are independent, so an elif (or a
            torch.where inside the other's else branch) loses the fourth combination. Do one flip after the other."""),
        Wrong("axes swapped", _flip_along(1, 2), """
            Left-right and up-down are swapped: in (N, C, H, W) the last dimension runs along a row, from left to
            right, so it is the one that a left-right flip reverses; dimension 2 runs from top to bottom."""),
        Wrong("channels reversed", _flip_along(0, 1),
            also=(_flip_along(0, 2), _flip_along(2, 0), _flip_along(1, 0), _flip_along(0, 0)), hint="""
            You reverse the channels (red becomes blue): in (N, C, H, W) dimension 1 is colour. Rows are dimension 2
            and columns dimension 3; in one picture (C, H, W) they are 1 and 2."""),
        Wrong("one axis for both", _flip_along(2, 2), """
            Both masks flip left and right, so a picture with both comes back unchanged: up-down reverses dimension 2,
            the rows."""),
        Wrong("up-down for both", _flip_along(1, 1), """
            Both masks flip up and down, so a picture with both comes back unchanged: left-right reverses dimension 3,
            the columns."""),
        Wrong("all flipped", lambda images, left_right, up_down: images.flip(2, 3), also=(_flip_all_when_any,), hint="""
            Every picture is flipped in both directions, whatever the masks say: picture i is flipped only where
            left_right[i] or up_down[i] is True."""),
        Wrong("first mask decides for all", _flip_all_by_first, """
            Every picture is flipped as the first one's masks say: left_right[i] and up_down[i] belong to picture i."""),
        Wrong("none flipped", lambda images, left_right, up_down: images.clone(), """
            No picture is flipped. flip returns a new tensor and leaves the old one as it is, and so does
            images[mask]: use what they return, or assign it (on a copy)."""),
        Wrong("masks inverted", lambda images, left_right, up_down: flip_some(images, ~left_right, ~up_down), """
            You flip the pictures whose mask is False, and leave those whose mask is True: in torch.where(mask, a, b),
            a is taken where the mask is True."""),
        Wrong("both flips where either",
            lambda images, left_right, up_down: flip_some(images, left_right | up_down, left_right | up_down), """
            A picture with one mask gets both flips, which is a half turn: each mask decides about its own flip alone."""),
        Wrong("up-down forgotten",
            lambda images, left_right, up_down: flip_some(images, left_right, torch.zeros_like(up_down)), """
            The left-right flips are right, but up_down has no effect: is the second result the one that you return?"""),
        Wrong("left-right forgotten",
            lambda images, left_right, up_down: flip_some(images, torch.zeros_like(left_right), up_down), """
            The up-down flips are right, but left_right has no effect: does the second flip start from the first one's
            result?"""),
        Wrong("order of the pictures reversed", _flip_order_of_pictures, """
            You reverse the order of the chosen pictures in the batch: dimension 0 is the picture. Within
            images[mask], columns are still dimension 3 (or -1) and rows dimension 2 (or -2)."""),
        Wrong("the chosen pictures alone",
            lambda images, left_right, up_down: torch.cat([images[left_right].flip(-1), images[up_down].flip(-2)]), """
            You return the flipped pictures alone. Every picture comes back, in its place, flipped or not."""),
    ),
    hints=(
        "Two independent questions, so two steps: first the left-right flips, then the up-down flips on what came out.",
        """torch.where(mask, a, b) takes a where the mask is True and b elsewhere; the mask has the shape (N,) and
        must be stretched over (N, C, H, W): mask[:, None, None, None].""",
        """images = torch.where(left_right[:, None, None, None], images.flip(3), images), and the same again with
        up_down and flip(2).""",
    ),
    close=EXACT,
    praise="Both flips together are the half turn: that is why the group of flips has four elements.",
)  # fmt: skip


def eight_symmetries(images: Tensor) -> Tensor:
    """images (N, C, H, H) -> (8, N, C, H, H); [e] is every picture under element e, as augment.one_symmetry numbers them."""
    return torch.stack([augment.one_symmetry(images, element) for element in range(8)])


def _square_pictures(generator: torch.Generator) -> list[tuple[Tensor]]:
    shapes = [(1, 1, 2, 2), (2, 3, 4, 4), (5, 3, 3, 3), (3, 2, 6, 6)]
    return [(_pictures(generator, *shape),) for shape in shapes] + [(torch.rand(2, 3, 5, 5, generator=generator),)]


def _eight_by_loop(images):
    turns = [images]
    for _ in range(3):
        turns.append(torch.rot90(turns[-1], 1, (2, 3)))
    mirrored = [images.flip(3)]
    for _ in range(3):
        mirrored.append(torch.rot90(mirrored[-1], 1, (2, 3)))
    return torch.stack(turns + mirrored)


def _eight_by_transpose(images):
    """A quarter turn counter-clockwise is a transpose and then an up-down flip."""
    moved = []
    for start in (images, torch.flip(images, (-1,))):
        for _ in range(4):
            moved.append(start)
            start = start.mT.flip(-2)
    return torch.stack(moved)


def _eight_from_batch(images):
    n = len(images)
    elements = torch.arange(8).repeat_interleave(n)
    return augment.square_symmetry(images.repeat(8, 1, 1, 1), elements).view(8, *images.shape)


def _eight(mirror: Callable, turn: Callable, order: Sequence[int] = range(8), turn_first: bool = False) -> Callable:
    def eight(images):
        moved = []
        for e in range(8):
            x = turn(images, e % 4) if turn_first else images
            x = mirror(x) if e >= 4 else x
            moved.append(x if turn_first else turn(x, e % 4))
        return torch.stack([moved[e] for e in order])

    return eight


def _left_right(images):
    return images.flip(-1)


def _up_down(images):
    return images.flip(-2)


def _counter_clockwise(images, k):
    return torch.rot90(images, k, (-2, -1))


def _clockwise(images, k):
    return torch.rot90(images, -k, (-2, -1))


def _same(images):
    return images


def _half(images):
    return images.flip(-1, -2)


def _turn_once(images, k):
    return torch.rot90(images, min(k, 1), (-2, -1))


def _turn_from_one(images, k):
    return torch.rot90(images, k + 1, (-2, -1))


def _transpose_for_turn(images, k):
    for _ in range(k):
        images = images.mT
    return images


def _channels(images):
    return images.flip(1)


def _pictures_reversed(images):
    return images.flip(0)


eight_symmetries_of_a_batch = Check(
    name="4.2 the eight symmetries of a batch",
    reference=eight_symmetries, cases=_square_pictures,
    rights=(_eight_by_loop, _eight_by_transpose, _eight_from_batch),
    wrongs=(
        Wrong("turned first", _eight(_left_right, _counter_clockwise, turn_first=True), """
            Elements 5 and 7 are swapped: you turn first and mirror afterwards. The convention is to mirror first and
            then turn, and the two orders differ, because a mirror reverses the sense of a turn."""),
        Wrong("clockwise", _eight(_left_right, _clockwise),
            also=(_eight(_left_right, lambda images, k: torch.rot90(images, k, (-1, -2))),), hint="""
            You turn clockwise: element 1 must be a quarter turn counter-clockwise, as torch.rot90(x, 1, dims=(-2,
            -1)) turns: what was at the right edge comes to the top."""),
        Wrong("clockwise and turned first", _eight(_left_right, _clockwise, turn_first=True), """
            Two things: you turn clockwise (element 1 must be counter-clockwise), and you turn before you mirror
            (elements 4 to 7 mirror first)."""),
        Wrong("mirrored upside down", _eight(_up_down, _counter_clockwise),
            also=(_eight(_up_down, _counter_clockwise, turn_first=True),), hint="""
            Your mirror turns the picture upside down: element 4 swaps left and right, which is flip(-1), the columns.
            (Up-down is element 6: mirrored left-right and then turned by 180°.)"""),
        Wrong("upside down and clockwise", _eight(_up_down, _clockwise),
            also=(_eight(_up_down, _clockwise, turn_first=True),), hint="""
            Two things: you turn clockwise (element 1 must be counter-clockwise), and your mirror turns the picture
            upside down (element 4 swaps left and right: flip(-1), the columns)."""),
        Wrong("no mirror", _eight(_same, _counter_clockwise), """
            Elements 4 to 7 repeat the four rotations: they must be the rotations of the mirrored picture. No turn can
            mirror a picture."""),
        Wrong("half turn for a mirror", _eight(_half, _counter_clockwise), """
            For a mirror you flip both dimensions, and that is a half turn: elements 4 to 7 repeat the rotations. Flip
            the columns alone."""),
        Wrong("mirrors in between", _eight(_left_right, _counter_clockwise, order=(0, 4, 1, 5, 2, 6, 3, 7)), """
            All eight are there, in another order: rotation and mirrored rotation alternate. First come the four
            rotations (0 to 3), then the four rotations of the mirrored picture (4 to 7)."""),
        Wrong("mirrors first", _eight(_left_right, _counter_clockwise, order=(4, 5, 6, 7, 0, 1, 2, 3)), """
            All eight are there, but the mirrored ones come first: element 0 is the identity, and the mirror belongs
            to e >= 4."""),
        Wrong("off by one", _eight(_left_right, _turn_from_one), """
            You are one quarter turn ahead: element 0 turns by 0°, element 1 by 90°. Count the turns from 0."""),
        Wrong("always one turn", _eight(_left_right, _turn_once), """
            Elements 1, 2 and 3 are all turned by 90°: element e turns by (e % 4) quarter turns, the second argument
            of torch.rot90."""),
        Wrong("transposed", _eight(_left_right, _transpose_for_turn), """
            You transpose instead of turning: a transpose mirrors the picture along its diagonal, and twice gives the
            original. A quarter turn is a transpose and then a flip, or torch.rot90."""),
        Wrong("channels mirrored", _eight(_channels, _counter_clockwise), """
            For a mirror you reverse the colour channels: columns are the last dimension, flip(-1)."""),
        Wrong("pictures reversed", _eight(_pictures_reversed, _counter_clockwise), """
            For a mirror you reverse the order of the pictures in the batch: dimension 0. Columns are the last
            dimension, flip(-1)."""),
        Wrong("picture first", lambda images: eight_symmetries(images).transpose(0, 1), """
            The pictures are right, but the dimensions are the other way round: (8, N, C, H, H) is needed, the element
            first, and yours is (N, 8, C, H, H)."""),
        Wrong("one long batch", lambda images: eight_symmetries(images).flatten(0, 1), """
            The pictures are right, but in one batch (8 * N, C, H, H): the element needs a dimension of its own, (8,
            N, C, H, H); torch.stack makes one, torch.cat doesn't."""),
        Wrong("turned along the batch", change=("augment.one_symmetry(images, element) for element",
            "torch.rot90(_left_right(images) if e >= 4 else images, e % 4) for e"), hint="""
            torch.rot90 turns in the plane of dimensions 0 and 1 if you don't say otherwise: here that is picture and
            colour. Say dims=(-2, -1)."""),
    ),
    hints=(
        """Four of them are torch.rot90 with 0, 1, 2 and 3 quarter turns. The other four are the same turns of another
        picture.""",
        """Element e: if e >= 4 mirror first, images.flip(-1); then torch.rot90(..., e % 4, dims=(-2, -1)). Collect
        the eight in a list.""",
        "torch.stack([torch.rot90(images.flip(-1) if e >= 4 else images, e % 4, dims=(-2, -1)) for e in range(8)])",
    ),
    close=EXACT,
)  # fmt: skip


def compose(first: int, second: int) -> int:
    """The element that equals `first` and then `second`; elements are numbered as in augment.square_symmetry."""
    turns = second % 4 + (-first if second >= 4 else first) % 4  # a mirror reverses the sense of the turns before it
    mirrored = (first >= 4) != (second >= 4)
    return turns % 4 + 4 * mirrored


def _all_pairs(generator: torch.Generator) -> list[tuple[int, int]]:
    return list(itertools.product(range(8), repeat=2))


def _compose_by_moving(first, second):
    picture = torch.arange(16).view(4, 4)
    moved = augment.one_symmetry(augment.one_symmetry(picture, first), second)
    return [torch.equal(augment.one_symmetry(picture, e), moved) for e in range(8)].index(True)


_TABLE = tuple(tuple(_compose_by_moving(first, second) for second in range(8)) for first in range(8))


def _compose_by_table(first, second):
    return _TABLE[first][second]


def _compose_by_matrices(first, second):
    turn, mirror = torch.tensor([[0, -1], [1, 0]]), torch.tensor([[-1, 0], [0, 1]])  # of (x, y), y upwards

    def matrix(e):
        return torch.linalg.matrix_power(turn, e % 4) @ (mirror if e >= 4 else torch.eye(2, dtype=torch.int64))

    together = matrix(second) @ matrix(first)
    return next(e for e in range(8) if torch.equal(matrix(e), together))


def _sign_by_first(first, second):
    turns = second + (-first if first >= 4 else first)
    return turns % 4 + 4 * ((first >= 4) != (second >= 4))


def _second_turns_reversed(first, second):
    turns = first + (-second if second >= 4 else second)
    return turns % 4 + 4 * ((first >= 4) != (second >= 4))


def _turns_not_wrapped(first, second):
    turns = second % 4 + (-(first % 4) if second >= 4 else first % 4)
    return turns + 4 * ((first >= 4) != (second >= 4))


compose_two_elements = Check(
    name="4.3 compose two elements",
    reference=compose, cases=_all_pairs, rights=(_compose_by_moving, _compose_by_table, _compose_by_matrices),
    wrongs=(
        Wrong("order swapped", lambda first, second: compose(second, first), """
            You apply `second` before `first`. Elements don't commute: compose(1, 4), a quarter turn and then the
            mirror, is 7, and compose(4, 1), the mirror and then the turn, is 5."""),
        Wrong("turns added", lambda first, second: (first + second) % 4 + 4 * ((first >= 4) != (second >= 4)), """
            You add the turns as if there were no mirror: that is right until `second` mirrors. A mirror reverses the
            sense of every turn made before it: first 90° counter-clockwise and then a mirror is a mirror and then 90°
            clockwise."""),
        Wrong("numbers added", lambda first, second: (first + second) % 8, """
            You add the numbers modulo 8: that is the group of eight turns by 45°. Here take each element apart, into
            a mirror (e >= 4) and turns (e % 4), and mind that two mirrors cancel."""),
        Wrong("reversed by the wrong mirror", _sign_by_first, """
            You reverse the first turns when the *first* element mirrors. But its mirror comes before its turns; what
            reverses them is a mirror that comes after: the second element's."""),
        Wrong("wrong turns reversed", _second_turns_reversed, """
            You reverse the second element's turns. They come after all mirrors, and stay as they are; it is the first
            element's turns, made before the second mirror, that change their sense."""),
        Wrong("two mirrors make a mirror",
            lambda first, second: compose(first, second) % 4 + 4 * (first >= 4 or second >= 4), """
            Where both elements mirror, your result still mirrors: two mirrors cancel, and what remains is a rotation.
            Use !=, not `or`."""),
        Wrong("one mirror is no mirror",
            lambda first, second: compose(first, second) % 4 + 4 * (first >= 4 and second >= 4), """
            The result mirrors when exactly one of the two does (one mirror, and two cancel); yours mirrors when both
            do."""),
        Wrong("first mirror forgotten", lambda first, second: compose(first, second) % 4 + 4 * (second >= 4), """
            The result mirrors when the second element does, whatever the first did: it must be when exactly one of
            them does."""),
        Wrong("mirror lost", lambda first, second: compose(first, second) % 4, """
            The turns are right, but your result never mirrors: add 4 when exactly one of the two elements mirrors."""),
        Wrong("turns not wrapped", _turns_not_wrapped, """
            The turns leave 0..3 (they reach 6 and -3): four quarter turns are none, so take the sum modulo 4 before
            you add 4 for the mirror."""),
        Wrong("counted from 1", lambda first, second: compose(first, second) + 1, """
            Your result is one too large everywhere: the elements are 0 to 7, and 0 is the identity."""),
        Wrong("exclusive or", lambda first, second: first ^ second, """
            You combine the bits of the numbers: that treats the eight elements as three independent switches, in
            which everything is its own inverse. But two quarter turns are a half turn, not nothing."""),
        Wrong("multiplied", lambda first, second: first * second % 8, """
            You multiply the numbers. They are names, not quantities: `first` times the identity, 0, must be `first`,
            and not 0."""),
    ),
    hints=(
        """Take each element apart: is it mirrored (e >= 4), and how many quarter turns follow (e % 4)? Does the
        result mirror? By how much does it turn?""",
        """It mirrors when exactly one of the two does. The turns add up, but a mirror reverses the sense of all turns
        made before it: when `second` mirrors, the first element's turns count backwards.""",
        """turns = second % 4 + (-(first % 4) if second >= 4 else first % 4); mirrored = (first >= 4) != (second >=
        4); return turns % 4 + 4 * mirrored""",
    ),
    praise="That is the dihedral group of the square, in three lines.",
)  # fmt: skip


def best_possible(pictures: Tensor, elements: Sequence[int]) -> tuple[float, float]:
    """Pictures (N, C, H, H), all equally likely, moved by one of `elements`, all equally likely: the highest accuracy and
    the lowest mean cross-entropy (in nats) of any predictor of the element that sees the moved picture alone."""
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
    one, two, three = (_pictures(generator, n, 3, 4, 4) for n in (1, 2, 3))
    either_way = torch.cat([two, two.flip(-1)])  # every picture is there facing right and facing left
    mostly = torch.cat([three[:1], three[:1], three[:1], three[:1].flip(-1)])  # three in four face right
    return [
        (one, turns),  # nothing in common: 1 and 0
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
    _, which = moved.unique(dim=0, return_inverse=True)
    counts = torch.zeros(int(which.max()) + 1, len(elements))
    counts.index_put_(
        (which, torch.arange(len(elements)).repeat_interleave(len(pictures))), torch.ones(len(which)), accumulate=True
    )
    share = counts / counts.sum()
    given = counts / counts.sum(1, keepdim=True)
    return float(share.amax(1).sum()), float(-torch.special.xlogy(share, given).sum())


def _per_picture_mean(rule: Callable[[int, int], tuple[float, float]]) -> Callable:
    """A rule on (how many elements leave the picture unchanged, how many elements), averaged over the pictures."""

    def best(pictures, elements):
        values = []
        for picture in pictures:
            still = sum(torch.equal(augment.one_symmetry(picture, e), picture) for e in elements)
            values.append(rule(still, len(elements)))
        return tuple(sum(column) / len(values) for column in zip(*values, strict=True))

    return best


def _changed_loss(change: Callable[[float], float]) -> Callable:
    def best(pictures, elements):
        accuracy, loss = best_possible(pictures, elements)
        return accuracy, change(loss)

    return best


def _minus_log_accuracy(pictures, elements):
    accuracy, _ = best_possible(pictures, elements)
    return accuracy, -math.log(accuracy)


def _guess_for_accuracy(pictures, elements):
    """The accuracy of drawing an answer from the posterior, instead of taking the likeliest."""
    ways: dict[bytes, Counter] = {}
    for place, element in enumerate(elements):
        for picture in augment.one_symmetry(pictures, element):
            ways.setdefault(picture.contiguous().numpy().tobytes(), Counter())[place] += 1
    total = len(pictures) * len(elements)
    drawn = sum(n * n / counts.total() for counts in ways.values() for n in counts.values()) / total
    return drawn, best_possible(pictures, elements)[1]


def _each_outcome_once(pictures, elements):
    """Different moved pictures counted as equally likely."""
    ways: dict[bytes, Counter] = {}
    for place, element in enumerate(elements):
        for picture in augment.one_symmetry(pictures, element):
            ways.setdefault(picture.contiguous().numpy().tobytes(), Counter())[place] += 1
    posteriors = [[n / counts.total() for n in counts.values()] for counts in ways.values()]
    accuracy = sum(max(p) for p in posteriors) / len(posteriors)
    return accuracy, -sum(q * math.log(q) for p in posteriors for q in p) / len(posteriors)


def _one_right_per_outcome(pictures, elements):
    moved = torch.cat([augment.one_symmetry(pictures, e) for e in elements]).flatten(1)
    return len(moved.unique(dim=0)) / len(moved), best_possible(pictures, elements)[1]


def _how_often_ignored(pictures, elements):
    """Which elements lead to an outcome, and not how often."""
    ways: dict[bytes, set[int]] = {}
    pairs = []
    for element in elements:
        for picture in augment.one_symmetry(pictures, element):
            key = picture.contiguous().numpy().tobytes()
            ways.setdefault(key, set()).add(element)
            pairs.append(key)
    counts = [len(ways[key]) for key in pairs]
    return sum(1 / n for n in counts) / len(counts), sum(map(math.log, counts)) / len(counts)


best_possible_prediction = Check(
    name="4.4 the best that any network can do",
    reference=best_possible, cases=_worlds, rights=(_best_by_comparing, _best_by_unique),
    wrongs=(
        Wrong("one picture at a time", _per_picture_mean(lambda still, count: (1 / still, math.log(still))), """
            You look at each picture's own symmetries, and miss what the others do: a picture that is moved can equal
            *another* picture of the world that is moved differently (one that faces left, mirrored, is one that faces
            right). Count over all pictures and elements together."""),
        Wrong("chance", lambda pictures, elements: (1 / len(elements), math.log(len(elements))), """
            That is chance: accuracy 1/|G| and loss log |G|. It is the best only where the moved picture says nothing;
            where no two moved pictures are alike, accuracy 1 and loss 0 are possible."""),
        Wrong("always perfect", lambda pictures, elements: (1.0, 0.0), """
            Accuracy 1 and loss 0 are possible only if each moved picture can have come about in one way. Where two
            elements lead to the same picture, nothing can tell them apart. (A tensor as key of a dict is never equal
            to another tensor: make bytes or a tuple of it.)"""),
        Wrong("share of unchanged",
            _per_picture_mean(lambda still, count: (still / count, math.log(count / still))), """
            You have it upside down: the elements that leave a picture unchanged are the ones that *can't* be told
            apart. The more there are, the lower the best accuracy, and the higher the loss."""),
        Wrong("logarithm to base 2", _changed_loss(lambda loss: loss / math.log(2)), """
            The accuracy is right; the loss is in bits. The course counts in nats: use the natural logarithm,
            math.log."""),
        Wrong("negative loss", _changed_loss(lambda loss: -loss), """
            The accuracy is right, and the loss has the wrong sign: it is minus the mean log-probability of the true
            answer, and never below 0."""),
        Wrong("summed loss",
            lambda pictures, elements: (
                best_possible(pictures, elements)[0],
                best_possible(pictures, elements)[1] * len(pictures) * len(elements),
            ), """
            The accuracy is right; the loss is a sum over all pictures and elements, where the mean is needed."""),
        Wrong("minus log of the accuracy", _minus_log_accuracy, """
            The accuracy is right, but the loss is not -log(accuracy): the mean of a logarithm isn't the logarithm of
            a mean. Take the log of the probability of each true answer first, then the mean."""),
        Wrong("answers drawn", _guess_for_accuracy, """
            The loss is right. The accuracy is that of a predictor that draws its answer at random from the
            probabilities; the best one always takes the likeliest answer."""),
        Wrong("all eight elements", lambda pictures, elements: best_possible(pictures, range(8)), """
            You use all eight symmetries, whatever `elements` says."""),
        Wrong("one right per outcome", _one_right_per_outcome, """
            The loss is right. For the accuracy you count one right answer for each different moved picture; the
            likeliest element may have led to it more than once, when two pictures of the world are alike: add up
            max(n), not 1."""),
        Wrong("how often ignored", _how_often_ignored, """
            You note *which* elements lead to a moved picture, but not *how often*: where three in four face right,
            right is the better answer, with probability 3/4. Count."""),
        Wrong("loss first", lambda pictures, elements: best_possible(pictures, elements)[::-1], """
            Accuracy comes first, then the loss: yours are the other way round."""),
        Wrong("outcomes equally likely", _each_outcome_once, """
            You average over the *different* moved pictures as if they were equally likely. One that comes about in
            more ways is seen more often: weight each with its number of ways."""),
    ),
    hints=(
        """Write down every pair (picture, element) and the picture it leads to. Which pairs lead to the same picture?
        Nothing can tell these apart.""",
        """For each different outcome count how often each element led to it: {outcome: {element: n}}. The likeliest
        element is the best answer there; the shares are the best probabilities. bytes(picture.flatten().tolist()) can
        be a key of a dict.""",
        """With total = N * G: accuracy = sum over outcomes of max(n) / total; loss = sum over outcomes and elements
        of n * log(n_outcome / n) / total, where n_outcome is the sum of n there.""",
    ),
    close=Closeness(rtol=1e-4, atol=1e-5),
    praise="Whatever a network claims above this accuracy on new pictures, it has got from a leak.",
)  # fmt: skip


def strip_means(images: Tensor, width: int) -> Tensor:
    """uint8 images (N, 3, H, W) -> float (N, 4, 3) in [0, 1]: mean colour of the top, bottom, left and right strip."""
    images = images.float() / 255
    strips = images[:, :, :width], images[:, :, -width:], images[..., :width], images[..., -width:]
    return torch.stack([strip.mean(dim=(2, 3)) for strip in strips], dim=1)


def _bordered(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    sizes = [(2, 3, 3, 1), (3, 6, 5, 2), (5, 8, 8, 3), (4, 7, 9, 2)]
    return [(_pictures(generator, n, 3, h, w), width) for n, h, w, width in sizes]


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


def _strips(cut: Callable, order: Sequence[int] = (0, 1, 2, 3)) -> Callable:
    """cut(images, width) -> four strips (N, 3, h, w); then their means in [0, 1], in `order`."""

    def strips(images, width):
        four = cut(images.float() / 255, width)
        return torch.stack([four[i].mean(dim=(2, 3)) for i in order], dim=1)

    return strips


def _cut(images, width):
    return images[:, :, :width], images[:, :, -width:], images[..., :width], images[..., -width:]


def _cut_short(images, width):
    return images[:, :, :width], images[:, :, -width:-1], images[..., :width], images[..., -width:-1]


def _cut_long(images, width):
    return images[:, :, : width + 1], images[:, :, -width - 1 :], images[..., : width + 1], images[..., -width - 1 :]


def _cut_inside(images, width):
    return images[:, :, :width], images[:, :, -width - 1 : -1], images[..., :width], images[..., -width - 1 : -1]


def _cut_corners(images, width):
    inner = images[:, :, width:-width] if images.shape[2] > 2 * width else images
    return images[:, :, :width], images[:, :, -width:], inner[..., :width], inner[..., -width:]


def _strips_sum(images, width):
    images = images.float() / 255
    return torch.stack([strip.sum(dim=(2, 3)) for strip in _cut(images, width)], dim=1)


def _bytes_rounded(images, width):
    return torch.stack([(strip // 255).float().mean(dim=(2, 3)) for strip in _cut(images, width)], dim=1)


mean_colour_of_strips = Check(
    name="4.5 the mean colour of four strips",
    reference=strip_means, cases=_bordered, rights=(_strips_by_index, _strips_by_narrow),
    wrongs=(
        Wrong("rows and columns swapped", _strips(_cut, (2, 3, 0, 1)), """
            Top and bottom are swapped with left and right: dimension 2 counts rows from the top, dimension 3 columns
            from the left."""),
        Wrong("0 to 255", lambda images, width: strip_means(images, width) * 255, """
            Your values lie in [0, 255]; [0, 1] is needed: divide by 255, as augment.to_float does."""),
        Wrong("last row left out", _strips(_cut_short), """
            The bottom and right strips lack the outermost row or column (and are empty for width 1): a slice ends
            *before* its second number, so -width:-1 stops one short. Write -width: ."""),
        Wrong("one too wide", _strips(_cut_long), """
            Your strips are one pixel too wide: x[:width] has width rows already, since a slice ends before its second
            number."""),
        Wrong("not at the edge", _strips(_cut_inside), """
            The bottom and right strips start one pixel too far inside, and miss the outermost row or column: -width:
            reaches the edge."""),
        Wrong("always one pixel", lambda images, width: strip_means(images, 1), """
            Your strips are one pixel wide whatever `width` says."""),
        Wrong("round the clock", _strips(_cut, (0, 3, 1, 2)), """
            The strips are in the order top, right, bottom, left; needed is top, bottom, left, right."""),
        Wrong("other order", _strips(_cut, (0, 2, 1, 3)),
            also=(_strips(_cut, (1, 0, 3, 2)), _strips(_cut, (0, 1, 3, 2)), _strips(_cut, (2, 0, 3, 1))), hint="""
            The strips are in the order top, left, bottom, right; needed is top, bottom, left, right."""),
        Wrong("corners left out", _strips(_cut_corners), """
            Your left and right strips leave out the corners. Each strip runs along its whole edge; corners belong to
            two strips."""),
        Wrong("colour first", lambda images, width: strip_means(images, width).transpose(1, 2), """
            Colour and strip are the other way round: (N, 4, 3) is needed, a strip's three channels together, and
            yours is (N, 3, 4). torch.stack has an argument dim."""),
        Wrong("flattened", lambda images, width: strip_means(images, width).flatten(1), """
            The numbers are right, in a shape (N, 12): keep strip and colour apart, (N, 4, 3). (The lesson flattens
            them when it needs features.)"""),
        Wrong("colours averaged", lambda images, width: strip_means(images, width).mean(2), """
            You average over the three channels too, and lose the colour: take the mean over rows and columns, dim=(2,
            3), alone."""),
        Wrong("pictures averaged", lambda images, width: strip_means(images, width).mean(0), """
            You average over the pictures too: each has strips of its own. Take the mean over rows and columns,
            dim=(2, 3), alone."""),
        Wrong("summed", _strips_sum, "You sum over the strip's pixels; the mean divides by how many there are."),
        Wrong("mean of bytes",
            lambda images, width: torch.stack([strip.mean(dim=(2, 3)) for strip in _cut(images, width)], dim=1), """
            PyTorch has no mean of uint8 tensors (the sum would overflow): convert to float first,
            augment.to_float(images)."""),
        Wrong("divided as integers", _bytes_rounded, """
            images // 255 rounds down, to 0 everywhere but in pure white: convert to float first, and divide with / ."""),
    ),
    hints=(
        """Cut the four strips by slicing: the first and last `width` rows, the first and last `width` columns. Then a
        mean over each.""",
        """Float first: x = augment.to_float(images). Top is x[:, :, :width], right is x[:, :, :, -width:].
        mean(dim=(2, 3)) gives (N, 3).""",
        """torch.stack([s.mean(dim=(2, 3)) for s in (x[:, :, :width], x[:, :, -width:], x[..., :width], x[...,
        -width:])], dim=1)""",
    ),
    praise="Twelve numbers; in the lesson they answer the pretext question about scenes.",
)  # fmt: skip


def drop_when_hidden(
    predict: Callable[[Tensor], Tensor], images: Tensor, answers: Tensor, hidden: Tensor, fill: float
) -> float:
    """Accuracy of `predict` (float images -> int64 (N,)) on float images (N, 3, H, W) minus its accuracy when the pixels
    where `hidden` (bool (N, H, W)) is True are replaced by `fill`."""
    covered = torch.where(hidden[:, None], torch.full_like(images, fill), images)
    return (_share_right(predict(images), answers) - _share_right(predict(covered), answers)).item()


def _share_right(predicted: Tensor, answers: Tensor) -> Tensor:
    return (predicted == answers).double().mean()


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


def _hidden_pictures(generator: torch.Generator) -> list[tuple]:
    cases = []
    settings = [
        (brightest_edge, 7, 4, 0.5, 0.3),
        (brightest_channel, 12, 5, 0.25, 0.6),
        (light_or_dark, 20, 6, 0.9, 0.5),
        (brightest_edge, 33, 6, 0.7, 0.4),
        (brightest_channel, 40, 3, 1.0, 0.5),
    ]
    for predict, n, size, fill, share in settings:
        images = torch.rand(n, 3, size, size, generator=generator)
        answers = predict(images)
        wrong = torch.rand(n, generator=generator) < 0.25  # the predictor isn't perfect
        answers = torch.where(wrong, (answers + 1) % 2, answers)
        hidden = torch.rand(n, size, size, generator=generator) < share * 2 * torch.rand(n, 1, 1, generator=generator)
        cases.append((predict, images, answers, hidden, fill))
    return cases


def _drop_in_loop(predict, images, answers, hidden, fill):
    covered = images.clone()
    for picture, mask in zip(covered, hidden, strict=True):
        picture[:, mask] = fill
    before = sum(int(a == b) for a, b in zip(predict(images), answers, strict=True))
    after = sum(int(a == b) for a, b in zip(predict(covered), answers, strict=True))
    return (before - after) / len(images)


def _drop_by_fill(predict, images, answers, hidden, fill):
    right = predict(images).eq(answers).float().mean()
    return right - predict(images.masked_fill(hidden.unsqueeze(1), fill)).eq(answers).float().mean()


def _drop_by_mixing(predict, images, answers, hidden, fill):
    mask = hidden[:, None].to(images.dtype)
    covered = images * (1 - mask) + fill * mask
    return float(((predict(images) == answers).double() - (predict(covered) == answers).double()).mean())


def _drop_with(cover: Callable) -> Callable:
    """cover(images, hidden, fill) -> covered images; then the drop in accuracy."""

    def drop(predict, images, answers, hidden, fill):
        covered = cover(images, hidden, fill)
        return (_share_right(predict(images), answers) - _share_right(predict(covered), answers)).item()

    return drop


def _cover(images, hidden, fill):
    return images.masked_fill(hidden[:, None], fill)


def _cover_red(images, hidden, fill):
    covered = images.clone()
    covered[:, 0][hidden] = fill
    return covered


def _drop_combined(combine: Callable) -> Callable:
    """combine(right before, right after) -> number, both double (N,)."""

    def drop(predict, images, answers, hidden, fill):
        before = (predict(images) == answers).double()
        after = (predict(_cover(images, hidden, fill)) == answers).double()
        return combine(before, after).item()

    return drop


def _answers_changed(predict, images, answers, hidden, fill):
    return (predict(images) != predict(_cover(images, hidden, fill))).double().mean().item()


def _agreement_for_accuracy(predict, images, answers, hidden, fill):
    return (predict(images) == predict(_cover(images, hidden, fill))).double().mean().item()


def _changes_its_argument(answer: Callable, cases: list[tuple]) -> bool:
    predict, images, answers, hidden, fill = cases[0]
    before = images.clone()
    answer(predict, images, answers, hidden, fill)
    return not torch.equal(images, before)


shortcut_detector = Check(
    name="4.6 a shortcut detector",
    reference=drop_when_hidden, cases=_hidden_pictures, rights=(_drop_in_loop, _drop_by_fill, _drop_by_mixing),
    wrongs=(
        Wrong("mask inverted", _drop_with(lambda images, hidden, fill: _cover(images, ~hidden, fill)), """
            You hide everything *but* the hidden pixels: hidden is True where a pixel is to be replaced. In
            torch.where(mask, a, b), a is taken where the mask is True."""),
        Wrong("after minus before", _drop_combined(lambda before, after: after.mean() - before.mean()), """
            The sign is the wrong way round: a drop is accuracy before minus accuracy after, positive when hiding
            hurts."""),
        Wrong("accuracy after", _drop_combined(lambda before, after: after.mean()), """
            That is the accuracy with the pixels hidden. The drop is how much lower that is than the accuracy on the
            whole pictures."""),
        Wrong("accuracy before", _drop_combined(lambda before, after: before.mean()), """
            That is the accuracy on the whole pictures, and nothing is hidden. Subtract the accuracy on the covered
            ones."""),
        Wrong("drop from perfect", _drop_combined(lambda before, after: 1 - after.mean()), """
            You measure the drop from 1. The predictor wasn't perfect before either: subtract from its accuracy on the
            whole pictures."""),
        Wrong("relative drop", _drop_combined(lambda before, after: 1 - after.mean() / before.mean()), """
            You divide by the accuracy before: a relative drop. Needed is the difference of the two accuracies."""),
        Wrong("counted", _drop_combined(lambda before, after: before.sum() - after.sum()), """
            You count pictures; an accuracy is a share: divide by how many there are, or take a mean."""),
        Wrong("answers that change", _answers_changed, also=(_agreement_for_accuracy,), hint="""
            That is the share of answers that change when pixels are hidden; a wrong answer that becomes another wrong
            one, or a right one, isn't a loss of accuracy. Compare both predictions with `answers`."""),
        Wrong("black", _drop_with(lambda images, hidden, fill: images * ~hidden[:, None]), """
            You replace hidden pixels by 0, black; `fill` is needed. Black is a colour too, and a dark patch can be a
            cue of its own."""),
        Wrong("one mask for all", _drop_with(lambda images, hidden, fill: images.masked_fill(hidden[0], fill)), """
            Every picture is covered with the first one's mask: hidden[i] belongs to images[i]."""),
        Wrong("one channel hidden", _drop_with(_cover_red), """
            Only the red channel is hidden: a mask (N, H, W) must reach all three channels. hidden[:, None] has the
            shape (N, 1, H, W), and that is stretched over them."""),
        Wrong("nothing hidden", _drop_with(lambda images, hidden, fill: images.clone()),
            also=(("torch.where(hidden[:, None], torch.full_like(images, fill), images)", "images; covered[hidden[:, None].expand_as(covered)] = fill"),), hint="""
            Your drop is always 0: the same pictures are measured twice. If you cover them in place, the originals are
            covered too (work on a copy), and masked_fill without an underscore returns a new tensor that must be
            used."""),
    ),
    mistakes=(
        Mistake("covered in place", _changes_its_argument, example=lambda predict, images, answers, hidden, fill: (
                _share_right(predict(images.clone()), answers)
                - _share_right(predict(images.masked_fill_(hidden[:, None], fill)), answers)
            ).item(), hint="""
            You paint over the pictures that you were given, and whoever called you still needs them: work on a copy,
            images.clone(), or use torch.where or masked_fill, which return new tensors."""),
    ),
    hints=(
        "Four steps: accuracy on the pictures as they are; a covered copy; accuracy on the copy; the difference.",
        """images.masked_fill(mask, fill) returns a new tensor with `fill` where the mask is True. The mask (N, H, W)
        needs a dimension for the channels: hidden[:, None].""",
        """before = (predict(images) == answers).float().mean(); covered = images.masked_fill(hidden[:, None], fill);
        after = (predict(covered) == answers).float().mean(); return (before - after).item()""",
    ),
    praise="Use it on every network that is better than you expected.",
)  # fmt: skip
