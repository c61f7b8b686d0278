"""Random play: frames that nobody was rewarded for, as an ImageSet that knows what was done between them."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor

from sslcourse.control.environment import COLUMNS, MOVE_NAMES, ROWS
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, whole_number


def random_play(env: gymnasium.Env, frames: int, seed: int = 0) -> ImageSet:
    """`frames` pictures of an env whose actions are drawn at random, episode after episode.

    factors: "action", what was done next; "last", 1 where an episode ended and nothing was done (its action is that of the
    frame before); and, to measure by and never to learn from, "row" and "column" of the hand in the room and "wish".
    """
    frames = whole_number("frames", frames, 2, 10**7)
    generator = np.random.default_rng(seed)
    images = np.empty((frames, *env.observation_space.shape), np.uint8)
    known = np.zeros((frames, 5), np.int64)
    seen, info = env.reset(seed=seed)
    over, action = False, 0
    for i in range(frames):
        images[i] = seen
        over = over or i == frames - 1
        action = action if over else int(generator.integers(env.action_space.n))
        known[i] = (action, over, info["cell"][0], info["cell"][1] % COLUMNS, info["wish"])
        if over:
            seen, info = env.reset()
            over = False
        else:
            seen, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
    names = ("action", "last", "row", "column", "wish")
    values = {"action": MOVE_NAMES, "row": tuple(map(str, range(ROWS))), "column": tuple(map(str, range(COLUMNS)))}
    factors = {name: torch.from_numpy(known[:, i].copy()) for i, name in enumerate(names)}
    return ImageSet(torch.from_numpy(images), name="random play", factors=factors, factor_values=values)


def followers(play: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
    """For each frame, one that was followed by another: its index, that of the follower, and the action; int64 (N,) each.

    For a frame that ends an episode it is the one before. Raises CourseError where the images are not frames of play.
    """
    _refuse_without_order(play)
    first = torch.arange(len(play)) - play.factors["last"]
    return first, first + 1, play.factors["action"]


def companions(play: ImageSet, count: int = 2) -> Tensor:
    """For each frame, the next `count` of its episode, past the end on from the beginning; int64 (N, count).

    An episode of as few frames gives the frame itself, too. Raises CourseError where the images are not frames of play.
    """
    _refuse_without_order(play)
    ends = play.factors["last"].nonzero().flatten()  # (E,)
    begins = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
    episode = play.factors["last"].cumsum(0) - play.factors["last"]  # (N,), which one a frame belongs to
    begin, length = begins[episode], (ends - begins + 1)[episode]
    away = torch.arange(1, count + 1)  # (count,)
    within = torch.arange(len(play)) - begin  # (N,)
    return begin[:, None] + (within[:, None] + away) % length[:, None]


def _refuse_without_order(play: ImageSet) -> None:
    if not (isinstance(play, ImageSet) and {"action", "last"} <= set(play.factors)):
        raise CourseError(
            "this task learns from frames in order, and these images have none; give it control.random_play(...)."
        )
