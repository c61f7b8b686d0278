"""A hand that must fetch the thing that a screen asks for: Gymnasium's interface, drawn as pocket world is."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from sslcourse.control import drawing
from sslcourse.control.drawing import CELL, LOOKS, SCREEN, SIDE, WALL, WISHES
from sslcourse.errors import CourseError, whole_number

ROWS, COLUMNS = 4, 4  # cells of a room; those of the upper left quarter are the screen
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (rows, columns) of each action
MOVE_NAMES = ("up", "down", "left", "right")
PLACES = ((0, 2), (0, 3), (2, 0), (3, 0), (3, 2), (3, 3))  # (row, column) in the room, of each of WISHES
STARTS = ((1, 2), (2, 1), (2, 2), (2, 3))  # of the hand
DARK = np.full((3, SCREEN, SCREEN), 30, np.uint8)  # a screen that shows nothing
HIDDEN = 0.5  # chance that grass is before a thing, drawn anew for each picture


class Fetch(gymnasium.Env):
    """Fetch the thing that the screen at the upper left asks for.

    An observation is uint8 (3, 32, 32): a room of 4 x 4 cells of 8 x 8 pixels, whose upper left quarter is the screen. In the
    other twelve cells are the hand and six things, each always at its place. The screen asks for a *kind* of thing, the same
    one for an episode, and shows another picture of it at every step: other colours, another make, another ground. Grass sways
    before the things, and hides the lower half of each one half of the time. An action moves the hand by a cell: up, down,
    left, right. Reaching a thing ends the episode, with reward 1 for the right one and 0 for another; every other step gives 0.
    After `steps` steps the episode is truncated.

    rooms   in a row, joined by doors; only the room that the hand is in is seen. The hand starts in the first one, and the
            things lie in the last. The rooms, their doors and grounds are those of `house`, the same in every episode
    screen  False: it stays dark, and asks for nothing that can be seen
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self, *, rooms: int = 1, steps: int = 6, house: int = 0, screen: bool = True, render_mode: str | None = None
    ):
        self.rooms, self.steps = whole_number("rooms", rooms, 1, 1000), whole_number("steps", steps, 1, 10**6)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise CourseError(f"render_mode must be rgb_array or None, and is {render_mode!r}.")
        self.render_mode, self.screen = render_mode, screen
        self.observation_space = spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))
        plan = np.random.default_rng(house)
        self.doors = plan.integers(
            SCREEN // CELL, ROWS, size=self.rooms - 1
        )  # row of the door to the right of each room
        self.grounds = plan.permutation(self.rooms)
        last = (self.rooms - 1) * COLUMNS
        self.lying = {(row, last + column): kind for kind, (row, column) in enumerate(PLACES)}
        self._backs: dict[int, np.ndarray] = {}

    # --- an episode ------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        random = self.np_random
        self.hand = STARTS[random.integers(len(STARTS))]
        self.wish, self.taken = int(random.integers(len(WISHES))), 0
        return self._look(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        down, right = MOVES[int(action)]
        row, column = self.hand[0] + down, self.hand[1] + right
        if self._is_free(row, column) and not self._is_wall(row, self.hand[1], column):
            self.hand = (row, column)
        self.taken += 1
        found = self.lying.get(self.hand)
        reward = float(found == self.wish)
        return self._look(), reward, found is not None, found is None and self.taken >= self.steps, self._info()

    def _is_free(self, row: int, column: int) -> bool:
        """Whether a cell is one of a room, and not behind the screen."""
        inside = 0 <= row < ROWS and 0 <= column < self.rooms * COLUMNS
        return inside and (row * CELL >= SCREEN or column % COLUMNS * CELL >= SCREEN)

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
        return self.seen.transpose(1, 2, 0) if self.render_mode == "rgb_array" else None

    def _look(self) -> np.ndarray:
        """Draw what is seen now, with another picture on the screen and other grass than before."""
        room = self.hand[1] // COLUMNS
        if room not in self._backs:
            self._backs[room] = self._empty(room)
        picture = self._backs[room].copy()
        shown = drawing.look(self.wish, int(self.np_random.integers(LOOKS))) if self.screen else DARK
        picture[:, :SCREEN, :SCREEN] = shown
        swaying = self.np_random.random(len(PLACES)) < HIDDEN
        if room == self.rooms - 1:
            for kind, (row, column) in enumerate(PLACES):
                drawing.paste(picture, drawing.thing(kind), row, column)
                if swaying[kind]:
                    drawing.paste(picture, drawing.tuft(), row, column)
        drawing.paste(picture, drawing.hand(), self.hand[0], self.hand[1] % COLUMNS)
        self.seen = picture
        return picture

    def _empty(self, room: int) -> np.ndarray:
        """A room with neither hand nor things, and above it what the screen hangs on: uint8 (3, 32, 32)."""
        picture = drawing.ground(int(self.grounds[room])).copy()
        for side, door in ((slice(0, 1), room - 1), (slice(SIDE - 1, SIDE), room)) if self.rooms > 1 else ():
            wall = np.ones(SIDE, bool)
            if 0 <= door < self.rooms - 1:
                top = int(self.doors[door]) * CELL
                wall[top : top + CELL] = False
            picture[:, wall, side] = np.array(WALL, np.uint8)[:, None, None]
        return picture
