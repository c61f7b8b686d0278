"""Curiosity: a reward for what one's own model of the world didn't foresee, where the world gives none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn

from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.control.environment import MOVES, Fetch
from sslcourse.control.extractor import BackboneFeatures, Frozen
from sslcourse.control.learning import HELD_OUT, environments

BONUS = 1.0  # times the error over the mean error so far


class ForwardModel(nn.Module):
    """From a frame's features (N, d) and what is done (N,) to the next one's (N, d): the change is predicted."""

    def __init__(self, dim: int, hidden: int = 128, actions: int = len(MOVES), seed: int = 0):
        super().__init__()
        self.actions = actions
        with devices.seeded(seed):
            self.layers = nn.Sequential(nn.Linear(dim + actions, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        chosen = nn.functional.one_hot(action, self.actions).to(features.dtype)  # (N, A)
        return features + self.layers(torch.cat([features, chosen], dim=1))

    def surprise(self, features: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Half the mean squared error of each prediction, (N,): Pathak et al. (2017, 1705.05363), per dimension."""
        return (self(features, action) - following).square().mean(dim=1) / 2


class Curious(VecEnvWrapper):
    """Environments of features whose reward is surprise, and with `world_too` the world's reward beside it.

    The model learns at every step from what was seen; so what is seen often stops being rewarded. Surprise is divided by
    its mean so far, since its scale says nothing.
    """

    def __init__(self, venv: VecEnv, *, world_too: bool = False, learning_rate: float = 1e-3, seed: int = 0):
        super().__init__(venv)
        self.world_too = world_too
        self.model = ForwardModel(venv.observation_space.shape[0], seed=seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)
        self.total, self.count = 0.0, 0

    def reset(self) -> np.ndarray:
        self.before = self.venv.reset()
        return self.before

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> tuple:
        seen, rewards, dones, infos = self.venv.step_wait()
        came = seen.copy()  # where an episode ended, `seen` is of the next one already
        for i in np.flatnonzero(dones):
            came[i] = infos[i]["terminal_observation"]
        before, after = torch.from_numpy(self.before), torch.from_numpy(came)
        surprise = self.model.surprise(before, torch.from_numpy(self.actions), after)  # (N,)
        self.optimizer.zero_grad()
        surprise.mean().backward()
        self.optimizer.step()
        self.before = seen
        errors = surprise.detach().numpy()
        self.total, self.count = self.total + float(errors.sum()), self.count + len(errors)
        curious = BONUS * errors * self.count / self.total
        return seen, (curious + self.world_too * rewards).astype(np.float32), dones, infos


def explorer(
    backbone: Backbone, play: Tensor, frames: int, *, seed: int = 0, envs: int = 16, **options: Any
) -> tuple[PPO, BackboneFeatures]:
    """One who plays for surprise alone, on a frozen backbone, by PPO (Schulman et al., 2017, 1707.06347)."""
    inner = environments(envs, **options)
    extractor = BackboneFeatures(inner.observation_space, backbone, play)
    venv = Curious(Frozen(inner, extractor), seed=seed)
    found = PPO(
        "MlpPolicy", venv, n_steps=64, batch_size=256, n_epochs=6, learning_rate=1e-3, gamma=0.95, gae_lambda=0.9,
        ent_coef=0.01, seed=seed, device="cpu", policy_kwargs={"net_arch": [128]},
    )  # fmt: skip
    return found.learn(frames), extractor


def cells_visited(
    found: PPO | None, extractor: BackboneFeatures | None, episodes: int = 20, seed: int = 0, **options: Any
) -> list[int]:
    """How many different cells each of `episodes` episodes comes to; with None, of random play."""
    first = HELD_OUT + seed * episodes
    visited, dice = [], np.random.default_rng(first)
    for k in range(first, first + episodes):
        env = Fetch(**options)
        seen, info = env.reset(seed=k)
        cells, over = {info["cell"]}, False
        if found is not None:
            found.set_random_seed(k)
        while not over:
            action = int(dice.integers(len(MOVES)))
            if found is not None:
                with torch.no_grad():
                    features = extractor(torch.from_numpy(seen)[None].float() / 255)
                action = int(found.predict(features.numpy()[0], deterministic=False)[0])
            seen, _, ended, cut, info = env.step(action)
            cells.add(info["cell"])
            over = ended or cut
        visited.append(len(cells))
    return visited
