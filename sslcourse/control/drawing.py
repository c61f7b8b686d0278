"""What the hand's world is drawn from: things of pocket world a quarter of their size, grounds, tufts and the hand.

Everything is drawn once and kept; a picture is then put together by pasting. This module imports neither torch nor Gymnasium.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from sslcourse.data.world_draw import DAYLIGHT, picture
from sslcourse.data.world_pen import Inks, Pen, Sheet
from sslcourse.data.world_plan import BACKDROPS, COLOUR_NAMES, Plan, Thing, label_of, plan
from sslcourse.data.world_things import ALL_KINDS, CLASSES

SIDE, CELL, SCREEN = 32, 8, 16  # pixels of a picture, of a cell and of the screen with the wish, each way
WALL = (74, 62, 66)  # of what can't be passed
WISHES = (
    ("car", "sedan", "red"),
    ("boat", "sailboat", "blue"),
    ("house", "cottage", "yellow"),
    ("tree", "broadleaf", "green"),
    ("mushroom", "toadstool", "red"),
    ("person", "walker", "purple"),
)
LOOKS = 100  # pictures of each wish that the screen may show
FADED = 0.5  # how much of a ground's contrast is taken away, so that things stand out

Sprite = tuple[
    np.ndarray, np.ndarray
]  # colours float32 (3, 8, 8), already weighted, and what they leave of the ground (1, 8, 8)


@cache
def thing(number: int) -> Sprite:
    """The thing number `number` of WISHES, in one cell."""
    label, kind, colour = WISHES[number]
    one = Thing(
        CLASSES.index(label), ALL_KINDS.index(kind), COLOUR_NAMES.index(colour), 0.5, 0.5, 0.44, 1.0, False, 0, detail=number
    )  # fmt: skip
    pixels, owners = picture(Plan("objects", (one,), 0, 0, 0, 0.0, detail=0), "photo", SIDE)
    return _smaller(pixels.transpose(2, 0, 1), owners > 0)


@cache
def look(number: int, which: int) -> np.ndarray:
    """Picture `which` of the wish `number`, one of pocket world's at half its size: uint8 (3, 16, 16)."""
    label = CLASSES.index(WISHES[number][0])
    run = range(which * len(CLASSES), (which + 1) * len(CLASSES))  # each run of ten has every class once
    index = next(i for i in run if label_of("objects", "screen", 0, i) == label)
    pixels, _ = picture(plan("objects", "screen", 0, index), "photo", SIDE)
    blocks = (SCREEN, SIDE // SCREEN, SCREEN, SIDE // SCREEN, 3)
    return pixels.reshape(blocks).mean(axis=(1, 3)).astype(np.uint8).transpose(2, 0, 1)


@cache
def hand() -> Sprite:
    """An open hand, fingers up."""
    sheet, inks = Sheet(SIDE), Inks()
    pen = Pen(sheet, inks)
    skin, edge = pen.ink((250, 214, 184)), pen.ink((40, 36, 48))
    fingers = (
        ((-0.62, -0.1), (-0.72, -0.62)),
        ((-0.22, -0.2), (-0.26, -0.86)),
        ((0.2, -0.2), (0.24, -0.86)),
        ((0.55, 0.0), (0.86, -0.3)),
    )
    for ink, wider in ((edge, 0.2), (skin, 0.0)):
        pen.oval(0.0, 0.28, 0.58 + wider / 2, 0.56 + wider / 2, ink)
        for start, end in fingers:
            pen.bar(start, end, 0.28 + wider, ink)
            pen.disc(*end, 0.14 + wider / 2, ink)
    drawn = sheet.filled()
    return _smaller(np.array(inks.colours, np.uint8)[drawn].transpose(2, 0, 1), drawn > 0)


@cache
def tuft() -> Sprite:
    """Grass that hides the lower half of what stands in a cell."""
    sheet, inks = Sheet(SIDE), Inks()
    pen = Pen(sheet, inks)
    for k in range(9):
        ink = pen.ink(((46, 104, 58), (74, 138, 70), (98, 160, 84))[k % 3])
        foot = -0.96 + 0.24 * k
        pen.shape(((foot - 0.2, 1.0), (foot + (0.1 if k % 2 else -0.1), -0.12 - 0.2 * (k % 2)), (foot + 0.2, 1.0)), ink)
    drawn = sheet.filled()
    return _smaller(np.array(inks.colours, np.uint8)[drawn].transpose(2, 0, 1), drawn > 0)


@cache
def ground(number: int) -> np.ndarray:
    """A backdrop of pocket world, faded: uint8 (3, 32, 32)."""
    light = number // len(BACKDROPS) % len(DAYLIGHT[False])
    outside = Thing(
        0, 0, number % len(COLOUR_NAMES), -9.0, -9.0, 0.1, 1.0, False, 0, detail=number
    )  # a ground alone is seen
    plan = Plan("objects", (outside,), number % len(BACKDROPS), light, 0, 0.0, detail=number)
    pixels, _ = picture(plan, "photo", SIDE)
    pixels = pixels.transpose(2, 0, 1).astype(np.float32)
    middle = pixels.mean(axis=(1, 2), keepdims=True)
    return (middle + (1 - FADED) * (pixels - middle)).astype(np.uint8)


def paste(picture: np.ndarray, sprite: Sprite, row: int, column: int) -> None:
    """Put a sprite into a cell of a picture, uint8 (3, 32, 32), in place."""
    colours, left = sprite
    place = picture[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
    place[:] = colours + place * left


def _smaller(pixels: np.ndarray, seen: np.ndarray) -> Sprite:
    """Colours (3, 32, 32) and where they are seen (32, 32), averaged down to a cell."""
    share = seen.astype(np.float32)
    blocks = (3, CELL, SIDE // CELL, CELL, SIDE // CELL)
    colours = (pixels * share).astype(np.float32).reshape(blocks).mean(axis=(2, 4))
    return colours, 1 - share.reshape(blocks[1:]).mean(axis=(1, 3))[None]
