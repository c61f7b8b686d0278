"""A pen that draws flat shapes on a sheet of numbered inks, in whole numbers only, so that every machine draws alike.

A sheet holds ink numbers, not colours: the colours come later (by day, by night, in pencil), and the numbers also tell
which object a point belongs to. Filling is done here and not by Pillow, whose polygons have changed between versions and
are computed in float32, which machines round differently. This module doesn't import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Sine and cosine of whole degrees, rounded to 1/4096, so that the last bit of a machine's math library can't matter.
_SINE = [round(4096 * math.sin(math.radians(degrees))) / 4096 for degrees in range(360)]


def sine(degrees: int) -> float:
    return _SINE[degrees % 360]


def cosine(degrees: int) -> float:
    return _SINE[(degrees + 90) % 360]


CORNERS = 24  # of an oval
_COSINES, _SINES = (np.array([f(360 * k // CORNERS) for k in range(CORNERS)]) for f in (cosine, sine))
_RUNS = [bytes([ink]) * 1024 for ink in range(256)]


class Inks:
    """The inks of one picture, in the order of their first use; ink 0 is "nothing drawn here". At most 255."""

    def __init__(self) -> None:
        self.colours: list[Colour] = [(0, 0, 0)]
        self.glows: list[bool] = [False]  # an ink that gives light of its own keeps its colour at night
        self.owners: list[int] = [0]  # which object, counted from 1, the ink was made for; 0 is the background
        self._known: dict[tuple[Colour, bool, int], int] = {}

    def get(self, colour: Colour, glow: bool = False, owner: int = 0) -> int:
        key = (colour, glow, owner)
        if key not in self._known:
            self._known[key] = len(self.colours)
            self.colours.append(colour)
            self.glows.append(glow)
            self.owners.append(owner)
        return self._known[key]


class Sheet:
    """A square of ink numbers. Shapes are collected, and filled all at once, later ones over earlier ones."""

    def __init__(self, side: int):
        self.side = side
        self.inks: list[int] = []  # of each shape
        self.corners: list[float] = []  # x, y, x, y, ... of all polygons, one after another
        self.polygons: list[tuple[int, int]] = []  # (which shape, how many corners)
        self.ovals: list[
            tuple[float, ...]
        ] = []  # (which shape, x, y, first half-axis x and y, second half-axis x and y)

    def filled(self, ground: int = 0) -> np.ndarray:
        """What has been drawn so far, on a ground of one ink: uint8 (side, side).

        A point is inside where a line to its left crosses the outline an odd number of times, looked at in the middle
        of each pixel, with exact fractions of whole numbers.
        """
        sheet = bytearray(_RUNS[ground][:1] * self.side**2)
        if self.inks:
            starts, stops, shapes = self._spans(*self._edges())
            inks = np.array(self.inks, np.uint8)[shapes]
            for start, stop, ink in zip(starts.tolist(), stops.tolist(), inks.tolist(), strict=True):
                sheet[start:stop] = _RUNS[ink][: stop - start]
        return np.frombuffer(sheet, np.uint8).reshape(self.side, self.side)

    def _edges(self) -> tuple[np.ndarray, ...]:
        """Every edge of every shape: which shape, and its ends (x0, y0), (x1, y1) in whole pixels; int64 (E,) each."""
        points = np.floor(np.array(self.corners)).astype(np.int64).reshape(-1, 2)  # (P, 2)
        which, counts = np.array(self.polygons, np.int64).reshape(-1, 2).T
        after = np.arange(1, len(points) + 1)
        last = counts.cumsum()
        after[last - 1] = last - counts  # a polygon's last corner is joined to its first
        ovals = np.array(self.ovals).reshape(-1, 7, 1)  # (O, 7, 1)
        x = np.floor(ovals[:, 1] + _COSINES * ovals[:, 3] + _SINES * ovals[:, 5]).astype(np.int64)  # (O, CORNERS)
        y = np.floor(ovals[:, 2] + _COSINES * ovals[:, 4] + _SINES * ovals[:, 6]).astype(np.int64)
        return (
            np.concatenate([which.repeat(counts), ovals[:, 0, 0].astype(np.int64).repeat(CORNERS)]),
            np.concatenate([points[:, 0], x.ravel()]),
            np.concatenate([points[:, 1], y.ravel()]),
            np.concatenate([points[after, 0], np.roll(x, -1, 1).ravel()]),
            np.concatenate([points[after, 1], np.roll(y, -1, 1).ravel()]),
        )

    def _spans(self, shape, x0, y0, x1, y1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Runs of pixels: first place, place after the last (row * side + column), and shape; int64 (R,) each."""
        down = y0 < y1
        left, top = np.where(down, x0, x1), np.where(down, y0, y1)
        across, rows = np.where(down, x1 - x0, x0 - x1), abs(y1 - y0)
        first = np.clip(top, 0, self.side)
        counts = np.clip(top + rows, 0, self.side) - first  # the rows of each edge that are on the sheet
        edge = np.arange(len(shape)).repeat(counts)
        row = np.arange(len(edge)) - (counts.cumsum() - counts - first)[edge]
        # The crossing in the middle of a row is at left + across * (row - top + 1/2) / rows, rounded to the nearest.
        rows = rows[edge]
        column = left[edge] + ((2 * (row - top[edge]) + 1) * across[edge] + rows) // (2 * rows)
        key = (shape[edge] * self.side + row) * (self.side + 1) + np.clip(column, 0, self.side)
        key.sort()  # crossings come in pairs now: into the shape, and out of it
        line, column = np.divmod(key, self.side + 1)
        shape, row = np.divmod(line[0::2], self.side)
        start, stop = row * self.side + column[0::2], row * self.side + column[1::2]
        seen = start < stop
        return start[seen], stop[seen], shape[seen]


class Pen:
    """Draws in an object's own coordinates: u to the right and v down, both about -1..1, (0, 0) in its middle."""

    def __init__(
        self,
        sheet: Sheet,
        inks: Inks,
        *,
        owner: int = 0,
        centre: Point = (0.5, 0.5),
        scale: float = 0.5,
        stretch: float = 1.0,
        mirror: bool = False,
        tilt: int = 0,
    ):
        """centre and scale (half the height) are fractions of the sheet; stretch widens; tilt is in whole degrees."""
        self.sheet, self.inks, self.owner = sheet, inks, owner
        self.x, self.y = centre[0] * sheet.side, centre[1] * sheet.side
        across, along = scale * sheet.side * stretch * (-1 if mirror else 1), scale * sheet.side
        self.uu, self.uv = across * cosine(tilt), -along * sine(tilt)
        self.vu, self.vv = across * sine(tilt), along * cosine(tilt)

    def ink(self, colour: Colour, glow: bool = False) -> int:
        return self.inks.get(colour, glow, self.owner)

    def shape(self, points: Sequence[Point], ink: int) -> None:
        """A filled polygon."""
        sheet, x, y, uu, uv, vu, vv = self.sheet, self.x, self.y, self.uu, self.uv, self.vu, self.vv
        sheet.polygons.append((len(sheet.inks), len(points)))
        sheet.inks.append(ink)
        for u, v in points:
            sheet.corners += (x + u * uu + v * uv, y + u * vu + v * vv)

    def disc(self, u: float, v: float, radius: float, ink: int) -> None:
        self.oval(u, v, radius, radius, ink)

    def oval(self, u: float, v: float, across: float, along: float, ink: int, turn: int = 0) -> None:
        """An ellipse with half-axes `across` and `along`, turned clockwise by whole degrees."""
        sheet, uu, uv, vu, vv = self.sheet, self.uu, self.uv, self.vu, self.vv
        c, s = cosine(turn), sine(turn)
        middle = (self.x + u * uu + v * uv, self.y + u * vu + v * vv)
        first = (across * (c * uu + s * uv), across * (c * vu + s * vv))
        second = (along * (c * uv - s * uu), along * (c * vv - s * vu))
        sheet.ovals.append((len(sheet.inks), *middle, *first, *second))
        sheet.inks.append(ink)

    def box(self, left: float, top: float, right: float, bottom: float, ink: int) -> None:
        self.shape(((left, top), (right, top), (right, bottom), (left, bottom)), ink)

    def bar(self, start: Point, end: Point, width: float, ink: int, end_width: float | None = None) -> None:
        """A straight stroke; `width` is its full width at the start, `end_width` at the end."""
        (u0, v0), (u1, v1) = start, end
        length = math.sqrt((u1 - u0) ** 2 + (v1 - v0) ** 2) or 1.0
        across, down = (v0 - v1) / length / 2, (u1 - u0) / length / 2
        last = width if end_width is None else end_width
        self.shape(
            (
                (u0 + across * width, v0 + down * width),
                (u1 + across * last, v1 + down * last),
                (u1 - across * last, v1 - down * last),
                (u0 - across * width, v0 - down * width),
            ),
            ink,
        )
