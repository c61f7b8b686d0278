"""The ten classes of pocket world, and the three kinds of each: how they are drawn, and in which colours they come.

Every function draws one kind upright, in coordinates -1..1, front to the right where there is a front. Light falls from
the side, never from above, so that brightness alone doesn't tell which way is up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from sslcourse.data.world_pen import Colour, Pen, cosine, sine

COLOURS: dict[str, Colour] = {
    "red": (212, 62, 56),
    "orange": (235, 134, 48),
    "yellow": (242, 198, 62),
    "green": (92, 164, 82),
    "teal": (50, 154, 148),
    "blue": (66, 114, 200),
    "purple": (136, 90, 178),
    "pink": (236, 136, 168),
    "brown": (148, 102, 68),
    "white": (240, 236, 226),
}
WOOD, DARK, GLASS, LAMP, CREAM = (124, 84, 56), (52, 48, 58), (176, 214, 232), (255, 226, 130), (246, 234, 206)
LEAF, STEEL, CLAY = (84, 150, 70), (150, 156, 166), (196, 108, 72)
SKINS = ((250, 214, 184), (234, 182, 142), (190, 132, 92), (128, 84, 58))
HAIRS = ((48, 38, 36), (104, 66, 40), (216, 166, 84), (176, 76, 40), (190, 190, 194))


class Draws:
    """Random numbers that are the same in every version of Python: only Random.random() is promised to be."""

    def __init__(self, seed: int):
        self.random = random.Random(seed).random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number in low..high, both ends included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.random() * len(options))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability


def darker(colour: Colour, by: float = 0.22) -> Colour:
    return tuple(int(c * (1 - by)) for c in colour)


def lighter(colour: Colour, by: float = 0.3) -> Colour:
    return tuple(int(c + (255 - c) * by) for c in colour)


def other(colour: Colour, draws: Draws) -> Colour:
    """A colour of the palette that stands out from `colour`."""
    return draws.pick([c for c in COLOURS.values() if sum(abs(a - b) for a, b in zip(c, colour, strict=True)) > 150])


# --- tree --------------------------------------------------------------------------------------------------------


def conifer(pen: Pen, colour: Colour, draws: Draws) -> None:
    pen.box(-0.1, 0.6, 0.1, 1, pen.ink(WOOD))
    tiers, width, slim = draws.whole(2, 4), draws.between(0.6, 0.8), draws.between(0.12, 0.3)
    for tier in range(tiers):
        low = 0.72 - 1.05 * tier / tiers
        high = max(-1.0, low - 1.75 / tiers + 0.02 * tier) if tier < tiers - 1 else -1.0
        half = width - (width - slim) * tier / tiers
        pen.shape([(-half, low), (half, low), (0, high)], pen.ink(colour))
        pen.shape([(0.04, low), (half, low), (0, high)], pen.ink(darker(colour)))
        pen.shape(
            [(-half, low), (half, low), (half * 0.8, low + 0.06), (-half * 0.8, low + 0.06)],
            pen.ink(darker(colour, 0.4)),
        )


def broadleaf(pen: Pen, colour: Colour, draws: Draws) -> None:
    pen.shape([(-0.15, 1), (0.15, 1), (0.08, 0.1), (-0.08, 0.1)], pen.ink(WOOD))
    pen.shape([(0.02, 1), (0.15, 1), (0.08, 0.1), (0.0, 0.1)], pen.ink(darker(WOOD)))
    leaves, wide = draws.whole(4, 6), draws.between(0.36, 0.5)
    start = draws.whole(0, 359)
    spots = [
        (
            wide * cosine(start + 360 * k // leaves),
            -0.32 + 0.36 * sine(start + 360 * k // leaves),
            draws.between(0.3, 0.4),
        )
        for k in range(leaves)
    ] + [(0.0, -0.32, 0.44)]
    for u, v, radius in spots:
        pen.disc(u + 0.05, v + 0.02, radius, pen.ink(darker(colour)))
    for u, v, radius in spots:
        pen.disc(u - 0.03, v, radius * 0.84, pen.ink(colour))
    for _ in range(4):
        pen.disc(draws.between(-0.5, 0.0), draws.between(-0.6, 0.0), 0.11, pen.ink(lighter(colour, 0.25)))
    if draws.chance(0.35):
        fruit = pen.ink(other(colour, draws))
        for _ in range(5):
            pen.disc(draws.between(-0.5, 0.5), draws.between(-0.65, 0.05), 0.085, fruit)


def palm(pen: Pen, colour: Colour, draws: Draws) -> None:
    lean = draws.between(0.1, 0.4)
    trunk = [(-lean, 1.0), (-lean * 0.5, 0.6), (-lean * 0.05, 0.15), (lean * 0.5, -0.4)]
    for k, (start, end) in enumerate(zip(trunk, trunk[1:], strict=False)):
        pen.bar(start, end, 0.22 - 0.03 * k, pen.ink(WOOD if k % 2 == 0 else lighter(WOOD, 0.15)), 0.18 - 0.03 * k)
    top, fronds = trunk[-1], draws.whole(6, 8)
    for k in range(fronds):
        angle = 200 + 320 * k // fronds + draws.whole(-8, 8)
        reach, across = draws.between(0.6, 0.75), cosine(angle)
        middle = (top[0] + reach * 0.6 * across, top[1] + reach * 0.55 * sine(angle) - 0.12)
        tip = (top[0] + reach * 1.1 * across, top[1] + reach * 0.8 * sine(angle) + 0.22 * abs(across))
        ink = pen.ink(colour if k % 2 else darker(colour))
        pen.bar(top, middle, 0.1, ink, 0.24)
        pen.bar(middle, tip, 0.24, ink, 0.02)
    for u in (-0.1, 0.08):
        pen.disc(top[0] + u, top[1] + 0.1, 0.1, pen.ink(darker(WOOD, 0.3)))


# --- house -------------------------------------------------------------------------------------------------------


def _window(pen: Pen, u: float, v: float, across: float, along: float, lit: bool) -> None:
    pen.box(u - across - 0.035, v - along - 0.035, u + across + 0.035, v + along + 0.035, pen.ink(CREAM))
    pen.box(u - across, v - along, u + across, v + along, pen.ink(LAMP, glow=True) if lit else pen.ink((96, 132, 164)))


def cottage(pen: Pen, colour: Colour, draws: Draws) -> None:
    roof, eave = other(colour, draws), draws.between(-0.2, 0.05)
    pen.box(0.3, -0.85, 0.52, -0.2, pen.ink(darker(CLAY)))
    pen.box(-0.7, eave, 0.7, 1, pen.ink(colour))
    pen.box(0.42, eave, 0.7, 1, pen.ink(darker(colour, 0.14)))
    pen.shape([(-0.92, eave + 0.06), (0.92, eave + 0.06), (0, -1)], pen.ink(roof))
    pen.shape([(0.2, eave + 0.06), (0.92, eave + 0.06), (0, -1)], pen.ink(darker(roof)))
    door = draws.between(-0.35, 0.3)
    pen.box(door - 0.17, 0.38, door + 0.17, 1, pen.ink(darker(roof, 0.35)))
    pen.disc(door + 0.09, 0.7, 0.045, pen.ink(LAMP))
    beside = door + 0.45 if door < 0 else door - 0.45
    _window(pen, beside, 0.4, 0.15, 0.16, draws.chance(0.7))
    if draws.chance(0.6):
        pen.disc(0, eave - 0.28, 0.13, pen.ink(CREAM))
        pen.disc(0, eave - 0.28, 0.09, pen.ink(LAMP, glow=True))


def farmhouse(pen: Pen, colour: Colour, draws: Draws) -> None:
    roof, eave = other(colour, draws), draws.between(-0.08, 0.12)
    chimney = draws.between(-0.6, 0.5)
    pen.box(chimney - 0.1, -0.72, chimney + 0.1, -0.2, pen.ink(CLAY))
    pen.box(-0.92, eave, 0.92, 0.9, pen.ink(colour))
    pen.box(-0.92, 0.8, 0.92, 0.9, pen.ink(STEEL))
    pen.shape([(-1, eave + 0.05), (1, eave + 0.05), (0.72, -0.55), (-0.72, -0.55)], pen.ink(roof))
    pen.shape(
        [(-1, eave + 0.05), (1, eave + 0.05), (0.97, eave - 0.05), (-0.97, eave - 0.05)], pen.ink(darker(roof, 0.3))
    )
    door, lit = draws.pick((-0.6, 0.0, 0.6)), draws.chance(0.7)
    for u in (-0.6, 0.0, 0.6):
        if u == door:
            pen.box(u - 0.15, 0.28, u + 0.15, 0.9, pen.ink(darker(roof, 0.3)))
        else:
            _window(pen, u, 0.38, 0.15, 0.14, lit)


def townhouse(pen: Pen, colour: Colour, draws: Draws) -> None:
    half, floors = draws.between(0.45, 0.62), draws.whole(3, 4)
    trim = other(colour, draws)
    pen.box(-half, -0.9, half, 1, pen.ink(colour))
    pen.box(half * 0.6, -0.9, half, 1, pen.ink(darker(colour, 0.16)))
    pen.box(-half - 0.08, -1, half + 0.08, -0.84, pen.ink(trim))
    for floor in range(floors):
        v = -0.62 + 1.55 * floor / floors
        for u in (-half * 0.5, half * 0.5):
            if floor < floors - 1:
                _window(pen, u, v, 0.13, 0.26 / floors * 1.6, draws.chance(0.6))
    pen.box(-0.17, 0.5, 0.17, 1, pen.ink(darker(trim, 0.3)))
    pen.box(-half, 0.42, half, 0.5, pen.ink(trim))


# --- car ---------------------------------------------------------------------------------------------------------


def _wheel(pen: Pen, u: float, radius: float) -> None:
    pen.disc(u, 0.42, radius, pen.ink(DARK))
    pen.disc(u, 0.42, radius * 0.5, pen.ink(lighter(STEEL, 0.4)))


def sedan(pen: Pen, colour: Colour, draws: Draws) -> None:
    hood, roof = draws.between(-0.16, -0.02), draws.between(-0.6, -0.46)
    pen.shape([(-0.78, hood), (-0.5, roof), (0.22, roof), (0.56, hood)], pen.ink(colour))
    pen.shape([(-0.62, hood), (-0.44, roof + 0.1), (-0.16, roof + 0.1), (-0.16, hood)], pen.ink(GLASS))
    pen.shape([(-0.06, hood), (-0.06, roof + 0.1), (0.18, roof + 0.1), (0.42, hood)], pen.ink(GLASS))
    pen.shape([(-1, 0.02), (-0.9, hood), (0.62, hood), (0.96, hood + 0.14), (1, 0.4), (-0.98, 0.4)], pen.ink(colour))
    pen.box(-0.99, 0.24, 1, 0.4, pen.ink(darker(colour)))
    pen.disc(0.9, 0.15, 0.1, pen.ink(LAMP, glow=True))
    pen.box(-1, 0.06, -0.9, 0.2, pen.ink((190, 40, 40), glow=True))
    for u in (-0.56, 0.56):
        _wheel(pen, u, 0.25)


def van(pen: Pen, colour: Colour, draws: Draws) -> None:
    top, second = draws.between(-0.75, -0.6), other(colour, draws)
    pen.shape(
        [(-0.95, top + 0.06), (-0.88, top), (0.55, top), (0.8, -0.1), (0.96, 0.02), (0.98, 0.42), (-0.96, 0.42)],
        pen.ink(colour),
    )
    pen.shape([(-0.96, 0.02), (0.96, 0.02), (0.98, 0.42), (-0.96, 0.42)], pen.ink(second))
    for k in range(3):
        pen.box(-0.82 + 0.44 * k, top + 0.14, -0.48 + 0.44 * k, -0.1, pen.ink(GLASS))
    pen.shape([(0.5, top + 0.14), (0.56, top + 0.14), (0.72, -0.1), (0.5, -0.1)], pen.ink(GLASS))
    pen.disc(0.9, 0.16, 0.09, pen.ink(LAMP, glow=True))
    for u in (-0.56, 0.58):
        _wheel(pen, u, 0.24)


def truck(pen: Pen, colour: Colour, draws: Draws) -> None:
    box, top = other(colour, draws), draws.between(-0.85, -0.35)
    pen.box(-1, top, 0.28, 0.3, pen.ink(box))
    pen.box(-1, top, -0.86, 0.3, pen.ink(darker(box)))
    for k in range(2):
        pen.box(-0.62 + 0.4 * k, top, -0.57 + 0.4 * k, 0.3, pen.ink(darker(box)))
    pen.shape([(0.34, -0.5), (0.68, -0.5), (0.88, -0.08), (1, 0), (1, 0.4), (0.34, 0.4)], pen.ink(colour))
    pen.shape([(0.48, -0.38), (0.64, -0.38), (0.77, -0.06), (0.48, -0.06)], pen.ink(GLASS))
    pen.box(-1, 0.28, 1, 0.42, pen.ink(DARK))
    pen.disc(0.93, 0.18, 0.09, pen.ink(LAMP, glow=True))
    for u in (-0.64, -0.2, 0.64):
        _wheel(pen, u, 0.22)


# --- boat --------------------------------------------------------------------------------------------------------


def _hull(pen: Pen, colour: Colour, deck: float, stripe: Colour) -> None:
    pen.shape([(-0.86, deck), (1, deck - 0.1), (0.62, 0.85), (-0.62, 0.85)], pen.ink(colour))
    pen.shape([(-0.86, deck), (1, deck - 0.1), (0.94, deck + 0.06), (-0.8, deck + 0.12)], pen.ink(stripe))
    pen.shape([(-0.7, 0.7), (0.74, 0.7), (0.62, 0.88), (-0.62, 0.88)], pen.ink(darker(colour, 0.4)))


def sailboat(pen: Pen, colour: Colour, draws: Draws) -> None:
    mast, second = draws.between(-0.1, 0.15), draws.chance(0.5)
    sail = draws.pick((COLOURS["white"], CREAM, other(colour, draws)))
    pen.bar((mast, 0.5), (mast, -1), 0.07, pen.ink(WOOD))
    pen.shape([(mast - 0.06, -0.92), (mast - 0.06, 0.28), (-0.8, 0.28)], pen.ink(sail))
    if second:
        pen.shape([(mast - 0.06, -0.2), (mast - 0.06, 0.28), (-0.8, 0.28), (-0.5, -0.14)], pen.ink(darker(sail, 0.15)))
    pen.shape([(mast + 0.07, -0.8), (mast + 0.07, 0.22), (0.86, 0.22)], pen.ink(darker(sail, 0.1)))
    pen.shape([(mast, -1), (mast - 0.3, -0.93), (mast, -0.84)], pen.ink(colour))
    _hull(pen, colour, 0.42, lighter(colour, 0.4))


def steamer(pen: Pen, colour: Colour, draws: Draws) -> None:
    funnels, band = draws.whole(1, 2), other(colour, draws)
    for k in range(funnels):
        u = -0.25 + 0.42 * k
        for puff in range(3):
            pen.disc(u - 0.05 - 0.2 * puff, -0.72 - 0.08 * puff, 0.12 + 0.03 * puff, pen.ink((222, 222, 226)))
        pen.box(u - 0.11, -0.6, u + 0.11, 0.1, pen.ink(band))
        pen.box(u - 0.11, -0.6, u + 0.11, -0.46, pen.ink(DARK))
    pen.box(-0.62, -0.05, 0.62, 0.4, pen.ink(COLOURS["white"]))
    pen.box(-0.62, -0.05, 0.7, 0.03, pen.ink(STEEL))
    for u in (-0.42, -0.12, 0.18, 0.46):
        pen.disc(u, 0.2, 0.085, pen.ink(LAMP, glow=True))
    _hull(pen, colour, 0.36, darker(colour, 0.25))


def fishing_boat(pen: Pen, colour: Colour, draws: Draws) -> None:
    trim, cabin = other(colour, draws), draws.between(0.1, 0.3)
    pen.bar((-0.3, 0.4), (-0.3, -0.9), 0.08, pen.ink(WOOD))
    pen.bar((-0.3, 0.1), (-0.85, -0.55), 0.06, pen.ink(WOOD))
    pen.bar((-0.3, -0.85), (-0.84, -0.54), 0.035, pen.ink(DARK))
    pen.shape([(-0.3, -0.95), (0.02, -0.84), (-0.3, -0.72)], pen.ink(trim))
    pen.box(cabin - 0.26, -0.25, cabin + 0.28, 0.42, pen.ink(COLOURS["white"]))
    pen.box(cabin - 0.34, -0.34, cabin + 0.36, -0.22, pen.ink(trim))
    pen.box(cabin + 0.02, -0.12, cabin + 0.22, 0.12, pen.ink(LAMP, glow=True))
    _hull(pen, colour, 0.36, trim)


# --- flower ------------------------------------------------------------------------------------------------------


def _stem(pen: Pen, draws: Draws, top: float) -> None:
    sway = draws.between(-0.12, 0.12)
    pen.bar((sway, 1), (0, top), 0.1, pen.ink(LEAF), 0.09)
    side = draws.pick((-1, 1))
    pen.oval(side * 0.27 + sway, 0.66, 0.3, 0.12, pen.ink(LEAF), turn=-28 * side)
    pen.oval(-side * 0.24 + sway, 0.82, 0.27, 0.11, pen.ink(darker(LEAF)), turn=28 * side)


def _head(pen: Pen, colour: Colour, draws: Draws, v: float, size: float) -> None:
    """A flower seen from the front: turned by a random angle, it looks nearly the same whichever way is up."""
    petals, start = draws.whole(5, 9), draws.whole(0, 359)
    heart = COLOURS["yellow"] if colour[2] > 90 or colour[1] < 120 else (112, 70, 44)
    broad = 1.75 / petals
    for k in range(petals):
        angle = start + 360 * k // petals
        ink = pen.ink(colour if k % 2 else darker(colour, 0.1))
        pen.oval(0.58 * size * cosine(angle), v + 0.58 * size * sine(angle), 0.42 * size, broad * size, ink, turn=angle)
    pen.disc(0, v, 0.34 * size, pen.ink(darker(heart, 0.2)))
    pen.disc(0, v, 0.25 * size, pen.ink(heart))


def daisy(pen: Pen, colour: Colour, draws: Draws) -> None:
    _stem(pen, draws, -0.3)
    _head(pen, colour, draws, -0.4, draws.between(0.5, 0.6))


def tulip(pen: Pen, colour: Colour, draws: Draws) -> None:
    _stem(pen, draws, -0.2)
    half = draws.between(0.34, 0.44)
    pen.shape(
        [
            (-half, -0.55),
            (-half * 0.85, -0.98),
            (-0.1, -0.6),
            (0.1, -0.6),
            (half * 0.85, -0.98),
            (half, -0.55),
            (half * 0.7, -0.2),
            (0.14, -0.06),
            (-0.14, -0.06),
            (-half * 0.7, -0.2),
        ],
        pen.ink(darker(colour, 0.18)),
    )
    pen.shape([(0, -1), (half * 0.62, -0.5), (0.16, -0.06), (-0.16, -0.06), (-half * 0.62, -0.5)], pen.ink(colour))
    pen.shape(
        [(0, -1), (-half * 0.62, -0.5), (-0.16, -0.06), (-0.04, -0.1), (-half * 0.2, -0.5)],
        pen.ink(lighter(colour, 0.25)),
    )


def blossom(pen: Pen, colour: Colour, draws: Draws) -> None:
    _head(pen, colour, draws, 0.0, draws.between(0.8, 0.98))


# --- person ------------------------------------------------------------------------------------------------------


def _face(pen: Pen, draws: Draws, skin: Colour, *, long_hair: bool = False) -> None:
    hair = pen.ink(draws.pick(HAIRS))
    if long_hair:
        pen.oval(-0.03, -0.6, 0.25, 0.32, hair)
    pen.disc(-0.02, -0.72, 0.235, hair)
    pen.disc(0.03, -0.67, 0.2, pen.ink(skin))
    pen.oval(-0.02, -0.86, 0.2, 0.09, hair)
    for u in (0.03, 0.14):
        pen.disc(u, -0.67, 0.032, pen.ink(DARK))


def _arm(pen: Pen, shoulder: tuple[float, float], hand: tuple[float, float], sleeve: Colour, skin: Colour) -> None:
    pen.bar(shoulder, hand, 0.17, pen.ink(sleeve), 0.13)
    pen.disc(hand[0], hand[1], 0.085, pen.ink(skin))


def walker(pen: Pen, colour: Colour, draws: Draws) -> None:
    skin, step = draws.pick(SKINS), draws.between(0.14, 0.32)
    trousers = darker(other(colour, draws), 0.25)
    up = draws.chance(0.5)
    for side, tone in ((-1, 0.2), (1, 0.0)):
        pen.bar((side * 0.08, 0.25), (side * step, 0.94), 0.21, pen.ink(darker(trousers, tone)), 0.16)
        pen.oval(side * step + 0.06, 0.95, 0.14, 0.07, pen.ink(DARK))
    _arm(pen, (-0.22, -0.32), (-0.44, 0.22), darker(colour), skin)
    pen.shape([(-0.28, -0.42), (0.28, -0.42), (0.24, 0.34), (-0.24, 0.34)], pen.ink(colour))
    _arm(pen, (0.22, -0.32), (0.55, -0.72) if up else (0.46, 0.18), darker(colour, 0.1), skin)
    _face(pen, draws, skin)


def dancer(pen: Pen, colour: Colour, draws: Draws) -> None:
    skin, flare = draws.pick(SKINS), draws.between(0.42, 0.62)
    for side in (-1, 1):
        pen.bar((side * 0.12, 0.5), (side * 0.16, 0.92), 0.13, pen.ink(skin), 0.1)
        pen.oval(side * 0.16 + 0.05, 0.95, 0.13, 0.06, pen.ink(darker(colour, 0.4)))
    reach = draws.between(-0.35, 0.05)
    _arm(pen, (-0.2, -0.32), (-0.62, reach), colour, skin)
    _arm(pen, (0.2, -0.32), (0.62, reach - 0.15), colour, skin)
    _face(pen, draws, skin, long_hair=True)
    pen.shape(
        [(-0.22, -0.44), (0.22, -0.44), (0.16, -0.02), (flare, 0.6), (-flare, 0.6), (-0.16, -0.02)], pen.ink(colour)
    )
    pen.shape([(0.05, -0.02), (0.16, -0.02), (flare, 0.6), (flare * 0.3, 0.6)], pen.ink(darker(colour)))
    pen.box(-0.17, -0.06, 0.17, 0.03, pen.ink(lighter(colour, 0.5)))


def gardener(pen: Pen, colour: Colour, draws: Draws) -> None:
    skin, hat = draws.pick(SKINS), other(colour, draws)
    pen.box(-0.2, 0.4, -0.02, 0.92, pen.ink(DARK))
    pen.box(0.04, 0.4, 0.22, 0.92, pen.ink(DARK))
    for u in (-0.09, 0.16):
        pen.oval(u, 0.95, 0.16, 0.06, pen.ink(darker(WOOD, 0.4)))
    _arm(pen, (-0.24, -0.3), (-0.42, 0.24), darker(colour), skin)
    pen.shape([(-0.29, -0.44), (0.29, -0.44), (0.36, 0.55), (-0.36, 0.55)], pen.ink(colour))
    pen.box(-0.03, -0.42, 0.03, 0.55, pen.ink(darker(colour)))
    pen.bar((0.55, -0.5), (0.55, 0.98), 0.07, pen.ink(WOOD))
    _arm(pen, (0.24, -0.3), (0.53, 0.05), darker(colour, 0.1), skin)
    _face(pen, draws, skin)
    pen.oval(0.01, -0.82, 0.38, 0.08, pen.ink(hat))
    pen.shape([(-0.2, -0.82), (0.22, -0.82), (0.16, -1), (-0.14, -1)], pen.ink(hat))


# --- mushroom ----------------------------------------------------------------------------------------------------


def _dome(half: float, height: float, base: float) -> list[tuple[float, float]]:
    return [(half * cosine(angle), base + height * sine(angle)) for angle in range(180, 361, 15)]


def _stalk(pen: Pen, u: float, top: float, width: float, flesh: Colour) -> None:
    pen.shape([(u - width, top), (u + width, top), (u + width * 1.35, 0.96), (u - width * 1.35, 0.96)], pen.ink(flesh))
    pen.shape(
        [(u + width * 0.3, top), (u + width, top), (u + width * 1.35, 0.96), (u + width * 0.5, 0.96)],
        pen.ink(darker(flesh, 0.14)),
    )


def toadstool(pen: Pen, colour: Colour, draws: Draws) -> None:
    rim, half, flesh = draws.between(-0.05, 0.15), draws.between(0.72, 0.92), CREAM
    _stalk(pen, 0, rim - 0.05, draws.between(0.17, 0.26), flesh)
    pen.oval(0, rim, half, 0.15, pen.ink(darker(flesh, 0.2)))
    pen.shape(_dome(half, 0.9, rim), pen.ink(colour))
    pen.shape([(half * 0.45, rim), *_dome(half, 0.9, rim)[7:]], pen.ink(darker(colour, 0.15)))
    spot = pen.ink(COLOURS["white"] if sum(colour) < 640 else CLAY)
    for u, v in ((-0.5, 0.2), (-0.12, 0.42), (0.32, 0.3), (0.55, 0.1), (-0.3, 0.68), (0.15, 0.72)):
        if draws.chance(0.85):
            pen.disc(u * half, rim - v * 0.9, draws.between(0.07, 0.12), spot)


def bell_mushroom(pen: Pen, colour: Colour, draws: Draws) -> None:
    rim, half, flesh = draws.between(0.0, 0.3), draws.between(0.45, 0.6), lighter(colour, 0.65)
    _stalk(pen, 0, rim - 0.1, 0.13, flesh)
    cap = [
        (-half, rim),
        (-half * 0.8, rim - 0.45),
        (-0.16, -0.94),
        (0, -1),
        (0.16, -0.94),
        (half * 0.8, rim - 0.45),
        (half, rim),
    ]
    pen.shape(cap, pen.ink(colour))
    pen.shape([(half * 0.3, rim), (0.06, -0.97), *cap[4:]], pen.ink(darker(colour)))
    for k in range(7):
        pen.disc(-half + half * k / 3, rim, 0.09, pen.ink(darker(colour, 0.35)))


def chanterelle(pen: Pen, colour: Colour, draws: Draws) -> None:
    for u, size in ((0.0, 1.0), (draws.pick((-0.62, 0.62)), draws.between(0.45, 0.62))):
        foot, half = 0.96, 0.7 * size
        top = foot - 1.55 * size
        flesh = lighter(colour, 0.5)
        pen.shape(
            [
                (u - half * 0.85, top + 0.12),
                (u + half * 0.85, top + 0.12),
                (u + 0.24 * size, foot - 0.7 * size),
                (u + 0.2 * size, foot),
                (u - 0.2 * size, foot),
                (u - 0.24 * size, foot - 0.7 * size),
            ],
            pen.ink(flesh),
        )
        for k in (-2, -1, 0, 1, 2):
            pen.bar(
                (u + half * 0.36 * k, top + 0.1), (u + 0.08 * size * k, foot - 0.6 * size), 0.05, pen.ink(darker(flesh))
            )
        pen.oval(u, top + 0.08, half, 0.26 * size, pen.ink(colour))
        pen.oval(u - 0.08 * size, top + 0.04, half * 0.66, 0.14 * size, pen.ink(darker(colour, 0.16)))


# --- cactus ------------------------------------------------------------------------------------------------------


def _column(pen: Pen, u: float, top: float, foot: float, width: float, colour: Colour) -> None:
    pen.box(u - width, top, u + width, foot, pen.ink(colour))
    pen.disc(u, top, width, pen.ink(colour))
    pen.box(u + width * 0.4, top - width * 0.3, u + width, foot, pen.ink(darker(colour)))
    pen.box(u - width * 0.5, top - width * 0.3, u - width * 0.25, foot, pen.ink(lighter(colour, 0.25)))


def saguaro(pen: Pen, colour: Colour, draws: Draws) -> None:
    arms = draws.pick(((-1, 1), (-1, 1), (-1,), (1,)))
    for side in arms:
        elbow, top = draws.between(0.1, 0.4), draws.between(-0.5, -0.15)
        pen.bar((0, elbow), (side * 0.55, elbow), 0.24, pen.ink(darker(colour)))
        _column(pen, side * 0.56, top, elbow + 0.1, 0.14, colour)
    _column(pen, 0, -0.8, 1, draws.between(0.18, 0.25), colour)
    if draws.chance(0.5):
        for angle in (210, 270, 330):
            pen.disc(0.11 * cosine(angle), -0.96 + 0.05 * sine(angle), 0.1, pen.ink(COLOURS["pink"]))


def potted_cactus(pen: Pen, colour: Colour, draws: Draws) -> None:
    tall = draws.between(0.5, 0.75)
    pen.oval(0, -0.05, 0.6, tall, pen.ink(darker(colour)))
    for k, share in enumerate((0.8, 0.46, 0.16)):
        pen.oval(0, -0.05, 0.6 * share, tall, pen.ink(lighter(colour, 0.22) if k % 2 == 0 else colour))
    for u, v in ((-0.38, -0.2), (-0.15, 0.1), (0.13, -0.3), (0.36, 0.05), (-0.1, -0.45)):
        pen.disc(u, v * tall * 1.4, 0.04, pen.ink(CREAM))
    bloom = pen.ink(draws.pick((COLOURS["pink"], COLOURS["yellow"], COLOURS["red"])))
    for angle in range(0, 360, 72):
        pen.disc(0.12 * cosine(angle), -0.05 - tall + 0.08 * sine(angle), 0.11, bloom)
    clay = draws.pick((CLAY, COLOURS["white"], COLOURS["blue"], COLOURS["yellow"]))
    pen.shape([(-0.55, 0.4), (0.55, 0.4), (0.4, 1), (-0.4, 1)], pen.ink(clay))
    pen.box(-0.63, 0.34, 0.63, 0.52, pen.ink(darker(clay, 0.18)))


def prickly_pear(pen: Pen, colour: Colour, draws: Draws) -> None:
    lean = draws.between(24, 40)
    pads = [
        (0.0, 0.55, 0.36, 0.46, 0),
        (-0.42, -0.12, 0.26, 0.38, -lean),
        (0.4, -0.18, 0.27, 0.4, lean),
        (0.02, -0.42, 0.24, 0.36, 4),
    ]
    if draws.chance(0.5):
        pads.append((0.62, -0.66, 0.17, 0.25, 20))
    bloom = pen.ink(draws.pick((COLOURS["red"], COLOURS["pink"], COLOURS["yellow"])))
    for k, (u, v, across, along, turn) in enumerate(pads):
        angle = int(turn)
        pen.oval(u, v, across, along, pen.ink(darker(colour, 0.28)), turn=angle)
        pen.oval(
            u - 0.03, v, across * 0.84, along * 0.88, pen.ink(colour if k % 2 else lighter(colour, 0.12)), turn=angle
        )
        for du, dv in ((-0.4, -0.3), (0.3, -0.45), (0.0, 0.1), (-0.35, 0.45), (0.38, 0.4)):
            pen.disc(u + du * across, v + dv * along, 0.04, pen.ink(CREAM))
        if k:
            pen.disc(u + along * sine(angle), v - along * cosine(angle), 0.11, bloom)


# --- balloon -----------------------------------------------------------------------------------------------------


def _balloon(pen: Pen, colour: Colour, draws: Draws, pattern: Callable[[Colour], None]) -> None:
    """Everything about a balloon is left-right symmetric."""
    mouth = draws.between(0.1, 0.17)
    for side in (-1, 1):
        pen.bar((side * 0.42, 0.1), (side * 0.12, 0.76), 0.045, pen.ink(WOOD))
    pen.shape([(-0.66, -0.08), (0.66, -0.08), (mouth, 0.5), (-mouth, 0.5)], pen.ink(colour))
    pen.disc(0, -0.3, 0.7, pen.ink(colour))
    pattern(other(colour, draws))
    pen.box(-mouth, 0.44, mouth, 0.52, pen.ink(LAMP, glow=True))
    pen.shape([(-0.19, 0.74), (0.19, 0.74), (0.15, 1), (-0.15, 1)], pen.ink(WOOD))
    pen.box(-0.21, 0.72, 0.21, 0.79, pen.ink(lighter(WOOD, 0.3)))


def striped_balloon(pen: Pen, colour: Colour, draws: Draws) -> None:
    def gores(second: Colour) -> None:
        for share, tone in ((0.68, second), (0.36, colour), (0.1, second)):
            pen.shape(
                [(-0.66 * share, -0.1), (0.66 * share, -0.1), (0.13 * share, 0.5), (-0.13 * share, 0.5)], pen.ink(tone)
            )
            pen.oval(0, -0.3, 0.7 * share, 0.7, pen.ink(tone))

    _balloon(pen, colour, draws, gores)


def banded_balloon(pen: Pen, colour: Colour, draws: Draws) -> None:
    def band(second: Colour) -> None:
        top = draws.between(-0.62, -0.4)
        half = 0.68
        low, high = [], []
        for k in range(7):
            u = -half + 2 * half * k / 6
            bulge = 0.1 * (1 - u * u / (half * half))
            low.append((u * 0.98, top + 0.3 + bulge + (0.07 if k % 2 else 0.0)))
            high.append((u * 0.86, top + bulge + (0.07 if k % 2 else 0.0)))
        pen.shape(high + low[::-1], pen.ink(second))
        pen.oval(0, -0.93, 0.26, 0.07, pen.ink(second))

    _balloon(pen, colour, draws, band)


def spotted_balloon(pen: Pen, colour: Colour, draws: Draws) -> None:
    def spots(second: Colour) -> None:
        big = draws.between(0.1, 0.16)
        for u, v in ((0.0, -0.72), (0.36, -0.5), (0.0, -0.3), (0.42, -0.08), (0.0, 0.14)):
            for side in (-1, 1):
                pen.disc(side * u, v, big, pen.ink(second))

    _balloon(pen, colour, draws, spots)


# --- windmill ----------------------------------------------------------------------------------------------------


def _sails(pen: Pen, draws: Draws, u: float, v: float, reach: float, cloth: Colour) -> None:
    start = draws.whole(0, 89)
    for k in range(4):
        angle = start + 90 * k
        c, s = cosine(angle), sine(angle)
        tip = (u + reach * c, v + reach * s)
        pen.shape(
            [
                (u + reach * (a * c - b * s), v + reach * (a * s + b * c))
                for a, b in ((0.22, 0), (0.98, 0), (0.98, 0.3), (0.22, 0.24))
            ],
            pen.ink(cloth),
        )
        pen.bar((u, v), tip, 0.085, pen.ink(WOOD), 0.06)
        for share in (0.45, 0.7):
            pen.bar(
                (u + reach * share * c, v + reach * share * s),
                (u + reach * (share * c - 0.27 * s), v + reach * (share * s + 0.27 * c)),
                0.035,
                pen.ink(WOOD),
            )
    pen.disc(u, v, 0.1, pen.ink(DARK))


def tower_mill(pen: Pen, colour: Colour, draws: Draws) -> None:
    half, cap = draws.between(0.38, 0.48), other(colour, draws)
    pen.shape([(-0.26, -0.3), (0.26, -0.3), (half, 1), (-half, 1)], pen.ink(colour))
    pen.shape([(0.06, -0.3), (0.26, -0.3), (half, 1), (half * 0.3, 1)], pen.ink(darker(colour, 0.15)))
    pen.shape(_dome(0.31, 0.4, -0.28), pen.ink(cap))
    pen.box(-0.15, 0.62, 0.11, 1, pen.ink(darker(cap, 0.3)))
    pen.box(-0.12, 0.18, 0.06, 0.38, pen.ink(LAMP, glow=True))
    _sails(pen, draws, 0.0, -0.3, draws.between(0.66, 0.78), draws.pick((CREAM, COLOURS["white"], lighter(cap, 0.5))))


def post_mill(pen: Pen, colour: Colour, draws: Draws) -> None:
    roof = other(colour, draws)
    pen.bar((0, 0.3), (-0.42, 1), 0.12, pen.ink(WOOD))
    pen.bar((0, 0.3), (0.42, 1), 0.12, pen.ink(darker(WOOD)))
    pen.bar((0, 0.2), (0, 0.98), 0.16, pen.ink(darker(WOOD, 0.1)))
    pen.box(-0.36, -0.4, 0.4, 0.42, pen.ink(colour))
    pen.box(0.2, -0.4, 0.4, 0.42, pen.ink(darker(colour, 0.16)))
    pen.shape([(-0.46, -0.36), (0.5, -0.36), (0.02, -0.78)], pen.ink(roof))
    pen.box(0.0, 0.1, 0.14, 0.28, pen.ink(LAMP, glow=True))
    _sails(pen, draws, -0.02, -0.22, draws.between(0.66, 0.76), CREAM)


def wind_turbine(pen: Pen, colour: Colour, draws: Draws) -> None:
    pale = lighter(colour, 0.3)
    hub, reach, start = (0.0, -0.32), draws.between(0.62, 0.74), draws.whole(0, 119)
    pen.shape([(-0.07, -0.3), (0.07, -0.3), (0.13, 1), (-0.13, 1)], pen.ink(pale))
    pen.shape([(0.01, -0.3), (0.07, -0.3), (0.13, 1), (0.03, 1)], pen.ink(darker(pale)))
    pen.box(-0.24, 0.9, 0.24, 1, pen.ink(STEEL))
    for k in range(3):
        c, s = cosine(start + 120 * k), sine(start + 120 * k)
        blade = ((0.05, -0.07), (0.3, -0.13), (1.0, 0.0), (0.3, 0.06), (0.05, 0.06))
        points = [(hub[0] + reach * (a * c - b * s), hub[1] + reach * (a * s + b * c)) for a, b in blade]
        pen.shape(points, pen.ink(pale))
        pen.shape([points[0], points[1], points[2], (hub[0], hub[1])], pen.ink(darker(pale, 0.12)))
    pen.disc(hub[0], hub[1], 0.12, pen.ink(darker(colour)))
    pen.disc(hub[0], hub[1], 0.05, pen.ink((220, 60, 50), glow=True))


# --- the table of classes ----------------------------------------------------------------------------------------

Drawing = Callable[[Pen, Colour, Draws], None]
ANY = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white")
LEAVES = ("green",) * 6 + ("teal", "orange", "yellow")
PETALS = ("red", "orange", "yellow", "pink", "purple", "white", "blue")
CAPS = ("red", "red", "brown", "brown", "orange", "purple", "white", "pink")
CACTI = ("green", "green", "green", "teal")
WALLS = ("white", "white", "red", "brown", "yellow", "blue", "teal", "pink")

# class -> kind -> (how it is drawn, the colours it comes in: a name that is there twice is twice as frequent). The first
# kind is the typical one, and the most frequent.
KINDS: dict[str, dict[str, tuple[Drawing, tuple[str, ...]]]] = {
    "tree": {
        "conifer": (conifer, ("green",) * 4 + ("teal",)),
        "broadleaf": (broadleaf, LEAVES),
        "palm": (palm, ("green",)),
    },
    "house": {"cottage": (cottage, ANY), "farmhouse": (farmhouse, ANY), "townhouse": (townhouse, ANY)},
    "car": {"sedan": (sedan, ANY), "van": (van, ANY), "truck": (truck, ANY)},
    "boat": {"sailboat": (sailboat, ANY), "fishing boat": (fishing_boat, ANY), "steamer": (steamer, ANY)},
    "flower": {"tulip": (tulip, PETALS), "daisy": (daisy, PETALS), "blossom": (blossom, PETALS)},
    "person": {"walker": (walker, ANY), "gardener": (gardener, ANY), "dancer": (dancer, ANY)},
    "mushroom": {
        "toadstool": (toadstool, CAPS),
        "bell mushroom": (bell_mushroom, CAPS),
        "chanterelle": (chanterelle, ("orange", "yellow", "brown")),
    },
    "cactus": {
        "saguaro": (saguaro, CACTI),
        "prickly pear": (prickly_pear, CACTI),
        "potted cactus": (potted_cactus, CACTI),
    },
    "balloon": {
        "striped balloon": (striped_balloon, ANY),
        "banded balloon": (banded_balloon, ANY),
        "spotted balloon": (spotted_balloon, ANY),
    },
    "windmill": {
        "tower mill": (tower_mill, WALLS),
        "post mill": (post_mill, WALLS),
        "wind turbine": (wind_turbine, ("white", "white", "red", "blue", "yellow")),
    },
}
SHARES = (0.76, 0.14, 0.1)  # how often a class comes as each of its kinds
CLASSES: tuple[str, ...] = tuple(KINDS)
ALL_KINDS: tuple[str, ...] = tuple(kind for kinds in KINDS.values() for kind in kinds)
