"""A hand that must fetch the thing that a picture asks for: Gymnasium's interface, drawn as pocket world is."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from sslcourse.control import drawing
from sslcourse.control.drawing import CELL, PAPER, SIDE, WALL, WISHES
from sslcourse.errors import CourseError, whole_number

ROWS, COLUMNS = 3, 4  # cells of a room; above it lies the strip with the wish
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (rows, columns) of each action
PLACES = ((0, 0), (0, COLUMNS - 1), (ROWS - 1, 0), (ROWS - 1, COLUMNS - 1))  # where things lie, in the room's corners
MOVE_NAMES = ("up", "down", "left", "right")


class Fetch(gymnasium.Env):
    """Fetch the thing that the picture at the upper left asks for.

    An observation is uint8 (3, 32, 32): a strip with the wish, and below it a room of 3 x 4 cells with the hand and `things`
    things, one of them the one asked for. Half of them, by chance, are half hidden behind grass. An action moves the hand by a
    cell: up, down, left, right. Reaching a thing ends the episode, with reward 1 for the right one and 0 for another; every
    other step gives 0. After `steps` steps the episode is truncated.

    rooms   in a row, joined by doors; only the room that the hand is in is seen. The hand starts in the first one, and the
            things lie in the last. The rooms, their doors and grounds are those of `house`, the same in every episode
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self, *, things: int = 3, rooms: int = 1, steps: int = 20, house: int = 0, render_mode: str | None = None
    ):
        self.things = whole_number("things", things, 1, len(WISHES))
        self.rooms, self.steps = whole_number("rooms", rooms, 1, 1000), whole_number("steps", steps, 1, 10**6)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise CourseError(f"render_mode must be rgb_array or None, and is {render_mode!r}.")
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))
        plan = np.random.default_rng(house)
        self.doors = plan.integers(ROWS, size=self.rooms - 1)  # row of the door to the right of each room
        self.grounds = plan.integers(drawing.GROUNDS, size=self.rooms)

    # --- an episode ------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        dice = self.np_random
        if self.rooms == 1:
            self.grounds = dice.integers(drawing.GROUNDS, size=1)
        self.hand = (int(dice.integers(ROWS)), int(dice.integers(1, COLUMNS - 1)))
        kinds = dice.permutation(len(WISHES))[: self.things]
        self.wish = int(kinds[0])
        last = (self.rooms - 1) * COLUMNS
        places = [PLACES[p] for p in dice.permutation(len(PLACES))[: self.things]]
        self.lying = {(row, last + column): int(k) for (row, column), k in zip(places, kinds, strict=True)}
        self.hidden = {place for place in self.lying if dice.random() < 0.5}
        self.taken = 0
        self._backs: dict[int, np.ndarray] = {}
        return self._seen(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        down, right = MOVES[int(action)]
        row, column = self.hand[0] + down, self.hand[1] + right
        if 0 <= row < ROWS and 0 <= column < self.rooms * COLUMNS and not self._is_wall(row, self.hand[1], column):
            self.hand = (row, column)
        self.taken += 1
        found = self.lying.get(self.hand)
        reward = float(found == self.wish)
        return self._seen(), reward, found is not None, found is None and self.taken >= self.steps, self._info()

    def _is_wall(self, row: int, before: int, after: int) -> bool:
        """Whether a step from one column to another goes through the wall between two rooms, beside its door."""
        left = min(before, after)
        return before != after and left % COLUMNS == COLUMNS - 1 and row != self.doors[left // COLUMNS]

    def _info(self) -> dict[str, Any]:
        """What only the one who measures may know: nothing that learns is given it."""
        return {"cell": self.hand, "wish": self.wish}

    # --- what is seen ----------------------------------------------------------------------------------------------

    def render(self) -> np.ndarray | None:
        """The present picture as uint8 (32, 32, 3); None where `render_mode` is None."""
        return self._seen().transpose(1, 2, 0) if self.render_mode == "rgb_array" else None

    def _seen(self) -> np.ndarray:
        room = self.hand[1] // COLUMNS
        if room not in self._backs:
            self._backs[room] = self._drawn(room)
        picture = self._backs[room].copy()
        drawing.paste(picture, drawing.hand(), self.hand[0] + 1, self.hand[1] % COLUMNS)
        return picture

    def _drawn(self, room: int) -> np.ndarray:
        """A room without the hand: uint8 (3, 32, 32)."""
        picture = drawing.ground(int(self.grounds[room])).copy()
        picture[:, :CELL] = np.array(PAPER, np.uint8)[:, None, None]
        drawing.paste(picture, drawing.thing(self.wish), 0, 0)
        for (row, column), kind in self.lying.items():
            if column // COLUMNS == room:
                drawing.paste(picture, drawing.thing(kind), row + 1, column % COLUMNS)
                if (row, column) in self.hidden:
                    drawing.paste(picture, drawing.tuft(), row + 1, column % COLUMNS)
        if self.rooms > 1:
            self._draw_walls(picture, room)
        return picture

    def _draw_walls(self, picture: np.ndarray, room: int) -> None:
        """Walls left and right, with the gaps that are doors."""
        for side, door in ((slice(0, 1), room - 1), (slice(SIDE - 1, SIDE), room)):
            wall = np.ones(SIDE, bool)
            wall[:CELL] = False
            if 0 <= door < self.rooms - 1:
                top = (int(self.doors[door]) + 1) * CELL
                wall[top : top + CELL] = False
            picture[:, wall, side] = np.array(WALL, np.uint8)[:, None, None]
