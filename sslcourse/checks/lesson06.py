"""Checks of the exercises of lesson 06: places of patches, tiles, permutations and how far apart they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from sslcourse.checks.cases import pictures
from sslcourse.checks.compare import EXACT
from sslcourse.checks.framework import Check, Wrong, yourself
from sslcourse.pretext.context import OFFSETS


def offset_of(position: Tensor) -> Tensor:
    """position int64 (M,) in 0..7 -> int64 (M, 2): rows down and columns right, numbered as one reads."""
    cell = position + (position >= 4)  # the centre, cell 4, is no neighbour
    return torch.stack([cell // 3 - 1, cell % 3 - 1], dim=1)


def _offset_in_loop(position):
    around = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
    return torch.tensor([around[p] for p in position.tolist()])


offset_of_a_position = Check(
    name="6.1 the offset of a position", reference=offset_of,
    cases=lambda g: [(torch.arange(8),)] + [(torch.randint(8, (n,), generator=g),) for n in (5, 11)], close=EXACT,
    rights=(lambda position: torch.tensor(OFFSETS)[position], _offset_in_loop),
    wrongs=(
        Wrong("centre counted", lambda position: torch.stack([position // 3 - 1, position % 3 - 1], dim=1),
            """You count the centre as a position: label 4 gets the offset (0, 0), and nobody gets below right. The
            first patch lies in the centre, so from label 4 on everything moves up by one cell of the 3 x 3 square."""),
        Wrong("one label too late", change=(">=", ">"),
            hint="""Label 4 gets the offset (0, 0), the first patch's own place, and the others are right: the step over
            the centre comes one label too late. Label 4 is the neighbour on the right, cell 5."""),
        Wrong("rows and columns swapped", lambda position: offset_of(position).flip(1),
            """Rows and columns are swapped: label 1 is above, one row up in the same column, (-1, 0). The row of a cell
            is cell // 3, the column is cell % 3, and the row stands first."""),
        Wrong("rows counted upwards", lambda position: offset_of(position) * torch.tensor([-1, 1]), """You count rows
            upwards, as in a plot. In a picture row 0 is at the top and rows grow downwards, so above is -1."""),
        Wrong("seen from the second patch", lambda position: -offset_of(position),
            """All signs are reversed: you say where the first patch lies, seen from the second. The label says where
            the second lies, seen from the first."""),
        Wrong("counted from the corner", lambda position: offset_of(position) + 1, """Your offsets run from 0 to 2: that
            is the place in the 3 x 3 square, counted from its corner. Count from the centre: take 1 off both."""),
        Wrong("numbered in a circle",
            change=("position + (position >= 4)", "torch.tensor([0, 1, 2, 5, 8, 7, 6, 3])[position]"),
            hint="""You number the neighbours in a circle, clockwise. Here they are numbered as one reads: the row
            above, then left and right, then the row below."""),
    ),
    hints=(
        """Draw a 3 x 3 square, number its nine cells from 0 as you read, and see which of them is the first patch
        itself.""",
        """The centre is cell 4, so labels 0..3 are cells 0..3, and labels 4..7 are cells 5..8. A cell's row is cell //
        3 and its column is cell % 3, both counted from the corner.""",
        "cell = position + (position >= 4); torch.stack([cell // 3 - 1, cell % 3 - 1], dim=1)",
    ),
)


def split(images: Tensor, grid: int) -> Tensor:
    """images (N, C, H, W), grid dividing H and W -> (N, grid * grid, C, H // grid, W // grid), rows first."""
    n, c, h, w = images.shape
    cut = images.reshape(n, c, grid, h // grid, grid, w // grid)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, c, h // grid, w // grid)


def _puzzles(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    sizes = [((5, 3, 8, 14), 2), ((2, 5, 12, 21), 3), ((3, 1, 8, 20), 4)]  # no two counts are alike
    return [(pictures(generator, *size), grid) for size, grid in sizes]


def _split_in_loop(images, grid):
    h, w = images.shape[2] // grid, images.shape[3] // grid
    cut = [images[:, :, r * h : (r + 1) * h, c * w : (c + 1) * w] for r in range(grid) for c in range(grid)]
    return torch.stack(cut, dim=1)


def _split_by_unfold(images, grid):
    h, w = images.shape[2] // grid, images.shape[3] // grid
    return images.unfold(2, h, h).unfold(3, w, w).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def _split_by_chunk(images, grid):
    rows = images.chunk(grid, dim=2)
    return torch.stack([tile for row in rows for tile in row.chunk(grid, dim=3)], dim=1)


split_into_tiles = Check(
    name="6.2 split pictures into tiles", reference=split, cases=_puzzles, close=EXACT,
    forbidden=(yourself("sslcourse.patches"),), rights=(_split_in_loop, _split_by_unfold, _split_by_chunk),
    wrongs=(
        Wrong("columns first", change=("2, 4", "4, 2"),
            hint="""Your tiles are right and numbered column by column. Here they are numbered as one reads: tile 1 lies
            to the right of tile 0. Row of tiles before column of tiles."""),
        Wrong("reshape alone", change=("cut.permute(0, 2, 4, 1, 3, 5).reshape(", "images.reshape("),
            also=(("permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, c, h // grid, w // grid)",
            "reshape(n, c, grid * grid, h // grid, w // grid).transpose(1, 2)"),), hint="""The shape is right and the
            tiles are not: reshape keeps the order of the values in memory, and there whole rows of the picture follow
            each other. Cut H and W into two dimensions each, permute, then reshape."""),
        Wrong("every second pixel",
            change=(("(n, c, grid, h // grid, grid, w // grid)", "(n, c, h // grid, grid, w // grid, grid)"),
            ("0, 2, 4, 1, 3, 5", "0, 3, 5, 1, 2, 4")), hint="""Each of your tiles is the whole picture, small: it takes
            every grid-th pixel. A tile is a block of neighbouring pixels: H becomes (grid, H // grid), with the tile's
            number first."""),
        Wrong("tiles before pictures", lambda images, grid: split(images, grid).transpose(0, 1), """The result begins
            with the tiles, and should begin with the pictures: (N, grid * grid, C, ...); stack along dim=1."""),
        Wrong("channels before tiles", lambda images, grid: split(images, grid).transpose(1, 2),
            """Channels stand before tiles: the result should be (N, grid * grid, C, height, width), so that each tile
            is a picture of its own."""),
    ),
    hints=(
        """Which rows and which columns of the picture belong to tile 0? To tile 1? A loop over rows and columns of
        tiles is fine.""",
        """Tile (r, c) is images[:, :, r * h : (r + 1) * h, c * w : (c + 1) * w] with h = H // grid and w = W // grid.
        Without a loop: reshape to (N, C, grid, h, grid, w) and bring the two grid dimensions to the front.""",
        "images.reshape(n, c, grid, h, grid, w).permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, c, h, w)",
    ),
)


def solve(laid: Tensor, order: Tensor) -> Tensor:
    """laid (M, T, ...), order int64 (M, T): place i shows tile order[m, i] -> the tiles in their places, as laid."""
    back = order.argsort(dim=1)  # the inverse: at which place each tile lies
    return laid[torch.arange(len(laid))[:, None], back]


def _shuffled(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for m, t, more in [(6, 4, (3, 2, 2)), (5, 9, (2,)), (7, 4, (1, 3, 2))]:
        order = torch.rand(m, t, generator=generator).argsort(dim=1)
        order[0] = torch.tensor([1, 2, 0, *range(3, t)])  # a cycle of three: not its own inverse
        yield torch.rand(m, t, *more, generator=generator), order


def _solve_by_assignment(laid, order):
    solved = torch.empty_like(laid)
    for m in range(len(laid)):
        for place in range(order.shape[1]):
            solved[m, order[m, place]] = laid[m, place]
    return solved


def _solve_by_scatter(laid, order):
    solved = laid.clone()
    solved[torch.arange(len(laid))[:, None], order] = laid
    return solved


solve_a_puzzle = Check(
    name="6.3 solve a puzzle whose order is known", reference=solve, cases=_shuffled, close=EXACT,
    forbidden=(yourself("sslcourse.pretext.jigsaw"),), rights=(_solve_by_assignment, _solve_by_scatter),
    wrongs=(
        Wrong("the order instead of its inverse", change=("order.argsort(dim=1)", "order"),
            hint="""You apply the order once more, and that shuffles twice. It undoes itself only where tiles were
            swapped in pairs; a cycle of three needs the inverse: the order's argsort."""),
        Wrong("one order for all", lambda laid, order: laid[:, order[0].argsort()],
            also=(lambda laid, order: laid[:, order[0]],),
            hint="""Every puzzle is laid by the order of the first: laid[:, order] with a single row moves all alike.
            Row m of `order` belongs to puzzle m: index with torch.arange(M)[:, None] beside it."""),
        Wrong("nothing done", lambda laid, order: laid.clone(),
            "The tiles lie as they were given. Tile laid[m, i] belongs to place order[m, i]: put it there."),
        Wrong("sorted downwards", change=("dim=1", "dim=1, descending=True"),
            also=(("argsort(dim=1)", "argsort(dim=1).flip(1)"),), hint="""Every picture comes out back to front: your
            argsort is descending. The inverse is the ascending one."""),
        Wrong("order read backwards", change=("argsort(dim=1)", "flip(1)"),
            hint="""You read the order from right to left. Reversing a list isn't inverting a permutation: the inverse
            says, for each tile, at which place it lies."""),
    ),
    hints=(
        "Take one puzzle and one place i. Which tile lies there, and to which place does that tile belong?",
        """Tile laid[m, i] belongs to place order[m, i]. A loop can put it there. Without a loop you need the inverse
        order: at which place does tile 0 lie, tile 1, ...?""",
        "back = order.argsort(dim=1); laid[torch.arange(len(laid))[:, None], back]",
    ),
)


def hamming(orders: Tensor) -> Tensor:
    """orders int64 (P, T) -> int64 (P, P): in how many places two orders differ."""
    return (orders[:, None] != orders[None]).sum(dim=2)


def _hamming_in_loop(orders):
    rows = orders.tolist()
    return torch.tensor([[sum(x != y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows])


def _hamming_by_place(orders):
    distance = torch.zeros(len(orders), len(orders), dtype=torch.int64)
    for column in orders.T:
        distance += column[:, None] != column
    return distance


hamming_distances = Check(
    name="6.4 Hamming distances", reference=hamming,
    cases=lambda g: [(torch.rand(p, t, generator=g).argsort(dim=1),) for p, t in [(6, 4), (8, 9), (5, 6)]], close=EXACT,
    rights=(_hamming_in_loop, _hamming_by_place),
    wrongs=(
        Wrong("places that agree", change=("!=", "=="), hint="""You count the places where two orders agree; the
            distance counts those where they differ. An order is at distance 0 from itself."""),
        Wrong("a share", lambda orders: hamming(orders) / orders.shape[1], """You give the share of places that differ
            (some libraries call that the Hamming distance); here it is their number: don't divide."""),
        Wrong("sum of differences", lambda orders: (orders[:, None] - orders[None]).abs().sum(dim=2),
            """You add up by how much the numbers differ. The numbers are names of tiles: tile 3 is no farther from tile
            0 than tile 1 is. Count the places where they are not the same."""),
        Wrong("same or not", change=("sum(dim=2)", "any(dim=2).long()"),
            hint="You say whether two orders differ at all, 0 or 1. Count in how many places: sum instead of any."),
        Wrong("half of the table", lambda orders: hamming(orders).triu(),
            "The lower half of the table is empty. The distance from a to b is that from b to a: fill both halves."),
        Wrong("summed over the orders", change=("2", "0"),
            hint="You sum over the orders instead of over the places: in (P, P, T) the places are the last dimension."),
    ),
    hints=(
        """Write down two orders of four tiles, one below the other, and mark the places where they differ. How many
        marks?""",
        """orders[:, None] has the shape (P, 1, T) and orders[None] has (1, P, T): compared with !=, they give (P, P,
        T).""",
        "(orders[:, None] != orders[None]).sum(dim=2)",
    ),
)


def second_corner(first: Tensor, offset: Tensor, further: Tensor, size: int, gap: int) -> Tensor:
    """Corners first, offset and further, int64 (M, 2) each -> the second patch's upper left corner, int64 (M, 2)."""
    return first + offset * (size + gap + further)


def _pairs(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, int, int]]:
    for size, gap, loose in [(12, 2, 4), (8, 3, 2), (10, 1, 5)]:
        offset = torch.tensor(OFFSETS)
        first = torch.randint(40, 60, (8, 2), generator=generator)
        further = torch.randint(1, loose + 1, (8, 2), generator=generator)
        yield first, offset, further, size, gap


def _second_in_loop(first, offset, further, size, gap):
    second = first.clone()
    for m in range(len(first)):
        for axis in range(2):
            way = int(offset[m, axis])
            if way > 0:
                second[m, axis] += size + gap + further[m, axis]
            elif way < 0:
                second[m, axis] -= size + gap + further[m, axis]
    return second


def _second_by_where(first, offset, further, size, gap):
    away = size + gap + further
    return torch.where(offset > 0, first + away, torch.where(offset < 0, first - away, first))


second_patch = Check(
    name="6.5 two patches that never touch", reference=second_corner, cases=_pairs, close=EXACT,
    rights=(_second_in_loop, _second_by_where),
    wrongs=(
        Wrong("gap on one side only", change=("(size + gap + further)", "(size + further) + gap"),
            hint="""To the right and below the gap is there; to the left and above it is eaten up, because you add it
            whatever the direction. The gap belongs into the brackets that the offset multiplies."""),
        Wrong("jitter on one side only", change=("(size + gap + further)", "(size + gap) + further"),
            hint="""You add the jitter whatever the direction: it moves a patch on the left towards the first one, so
            that they may overlap, and one in the same row out of it. Multiply it by the offset, too."""),
        Wrong("jitter inwards", change=("gap +", "gap -"), hint="""Your jitter moves the second patch closer, into the
            gap. It has to lie `further` away: add it to size and gap."""),
        Wrong("gap forgotten", change=("+ gap", ""), hint="""The gap is missing: without jitter the patches would touch,
            and an edge that runs across the border would tell."""),
        Wrong("size forgotten", change=("size +", ""), hint="""The patches overlap: the distance is between upper left
            corners, so it holds the first patch's own side as well: size + gap + further."""),
        Wrong("jitter forgotten", change=("+ further", ""), hint="""The jitter is missing: all second patches lie on a
            fixed grid. Add `further` to the distance, in each direction."""),
        Wrong("the opposite neighbour", change=("first +", "first -"), hint="""The second patch lies on the opposite
            side: an offset of -1 in rows is above, at a smaller row. Add, don't subtract."""),
        Wrong("rows and columns swapped", change=("+ offset", "+ offset.flip(1)"), hint="""Rows and columns of the
            offset are swapped. Column 0 of all three tensors is the row: no flip is needed."""),
        Wrong("counted from the picture's corner", change=("first +", ""), hint="""You give the step from the first
            patch to the second; the exercise asks where the second lies: add `first`."""),
    ),
    hints=(
        """Take the neighbour on the right: how many columns lie between the two upper left corners? And for the one on
        the left?""",
        """Between corners there are size + gap + further pixels. The offset, -1, 0 or 1, says in which direction, or
        that the patches share their row or column.""",
        "first + offset * (size + gap + further)",
    ),
)


def far_apart(orders: Tensor, count: int) -> Tensor:
    """orders int64 (P, T) -> rows of `count` of them, int64 (count,): row 0, then the farthest from its nearest."""
    distance = hamming(orders)
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(distance[chosen].amin(dim=0).argmax()))  # argmax: the first at a tie
    return torch.tensor(chosen)


def _candidates(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    every = torch.tensor(list(itertools.permutations(range(4))))
    five = torch.tensor(list(itertools.permutations(range(5))))
    some = five[torch.randperm(len(five), generator=generator)[:40]]
    return [(every, 6), (some, 9), (five, 8)]


def _far_in_loop(orders, count):
    rows, chosen = orders.tolist(), [0]
    while len(chosen) < count:
        best, found = -1, None
        for i, row in enumerate(rows):
            nearest = min(sum(a != b for a, b in zip(row, rows[c], strict=True)) for c in chosen)
            if nearest > best:
                best, found = nearest, i
        chosen.append(found)
    return torch.tensor(chosen)


def _far_running(orders, count):
    chosen = torch.zeros(count, dtype=torch.int64)
    nearest = (orders != orders[0]).sum(dim=1)
    for k in range(1, count):
        chosen[k] = nearest.argmax()
        nearest = torch.minimum(nearest, (orders != orders[chosen[k]]).sum(dim=1))
    return chosen


permutations_far_apart = Check(
    name="6.6 permutations far apart", reference=far_apart, cases=_candidates, close=EXACT,
    rights=(_far_in_loop, _far_running),
    wrongs=(
        Wrong("farthest on the whole", change=("amin(dim=0)", "sum(dim=0)"),
            hint="""You take the one that is farthest from the chosen ones on average. That is the rule as Noroozi and
            Favaro published it; here the *smallest* distance is asked for, since one that is far from most may be the
            twin of one. Take the minimum over the chosen, then the maximum over the candidates."""),
        Wrong("farthest from the farthest", change=("amin(dim=0)", "amax(dim=0)"),
            hint="""You compare each candidate with the chosen one that is farthest from it. Its nearest is what counts:
            the minimum over the chosen, then argmax over the candidates."""),
        Wrong("far from the last alone", change=("distance[chosen].amin(dim=0)", "distance[chosen[-1]]"),
            hint="""You look only at the distance to the last chosen one, and so go to and fro between two ends. All
            chosen ones count."""),
        Wrong("far from the first alone",
            lambda orders, count: hamming(orders)[0].argsort(descending=True, stable=True)[:count],
            also=(("distance[chosen].amin(dim=0)", "distance[0]"),),
            hint="""You take those that are farthest from the first, and never compare them with each other. Each choice
            changes what is far: work out the nearest chosen one again after each."""),
        Wrong("closest together", change=("distance[chosen].amin(dim=0).argmax()",
            "distance[chosen].amin(dim=0).index_fill(0, torch.tensor(chosen), 99).argmin()"),
            hint="You choose orders as close together as possible: argmin where argmax belongs."),
        Wrong("last at a tie", change=("int(distance[chosen].amin(dim=0).argmax())",
            "len(orders) - 1 - int(distance[chosen].amin(dim=0).flip(0).argmax())"), hint="""At a tie you take the last
            candidate; the first is asked for (as argmax gives it, or > instead of >=)."""),
        Wrong("orders instead of row numbers", change=("torch.tensor(chosen)", "orders[chosen]"), hint="""You return the
            orders themselves; the exercise asks for their row numbers in `orders`, shape (count,)."""),
    ),
    hints=(
        """Keep a list of chosen rows, beginning with row 0. What would you like to know of every candidate before the
        next choice?""",
        """For every candidate, the distance to its nearest chosen one: the minimum over the chosen. Then the candidate
        for which this number is largest; argmax gives the first at a tie.""",
        """distance = (orders[:, None] != orders[None]).sum(2); while len(chosen) < count:
        chosen.append(int(distance[chosen].amin(dim=0).argmax()))""",
    ),
)
