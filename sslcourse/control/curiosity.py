"""Curiosity: a reward for what one's own model of the world doesn't foresee, where the world gives none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn

from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.control.environment import MOVES
from sslcourse.control.extractor import BackboneFeatures, Frozen
from sslcourse.control.learning import RECIPE, environments

# it looks far ahead, and follows its target closely
CURIOUS: dict[str, Any] = RECIPE | {"batch_size": 64, "gamma": 0.97, "target_update_interval": 200}
MEMORY = 0.99  # of the mean surprise that rewards are compared with, per batch


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


class Surprising(ReplayBuffer):
    """A replay whose rewards are what a model of the world doesn't foresee *now*; the world's own aren't used.

    What has been understood since it was seen stops being rewarded. Surprise is divided by its running mean, since its scale
    says nothing, and one is taken off: were every step worth about as much, values would be one large number, in which the
    small differences between actions, all that counts, are hard to learn.
    """

    model: ForwardModel
    mean: float | None = None

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        seen = super()._get_samples(batch_inds, env)
        with torch.no_grad():
            surprise = self.model.surprise(seen.observations, seen.actions[:, 0], seen.next_observations)  # (N,)
        now = surprise.mean().item()
        self.mean = now if self.mean is None else MEMORY * self.mean + (1 - MEMORY) * now
        return seen._replace(rewards=(surprise / self.mean - 1)[:, None])


class Curious(DQN):
    """Deep Q-learning for surprise alone, whose model of the world learns from the same replay.

    While it explores, an action is drawn with probability proportional to exp(z), where z is its value in standard deviations
    from the mean over the actions. The best action alone would be the same each time it stands in the same place, and a hand
    that pushes against a wall stays there; drawn in this way, it walks at random with a drift to where it is curious.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        self.generator = torch.Generator().manual_seed(self.seed or 0)
        self.model = ForwardModel(self.observation_space.shape[0], seed=self.seed or 0)
        self.replay_buffer.model = self.model
        self.model_optimizer = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        if deterministic:
            return super().predict(observation, state, episode_start, deterministic=True)
        with torch.no_grad():
            values = self.q_net(torch.as_tensor(observation, device=self.device))  # (N, A)
        spread = values.std(dim=1, keepdim=True).clamp_min(1e-6)
        chances = ((values - values.mean(dim=1, keepdim=True)) / spread).softmax(dim=1).cpu()
        return torch.multinomial(chances, 1, generator=self.generator)[:, 0].numpy(), state

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        for _ in range(gradient_steps):
            seen = self.replay_buffer.sample(batch_size)
            loss = self.model.surprise(seen.observations, seen.actions[:, 0], seen.next_observations).mean()
            self.model_optimizer.zero_grad()
            loss.backward()
            self.model_optimizer.step()
        super().train(gradient_steps, batch_size)


class Counting(VecEnvWrapper):
    """Environments of which is counted how many different cells the hand has come to, after each step of all of them."""

    def __init__(self, venv: VecEnv):
        super().__init__(venv)
        self.cells: set[tuple[int, int]] = set()
        self.counts: list[int] = []

    def reset(self) -> np.ndarray:
        return self.venv.reset()

    def step_wait(self) -> tuple:
        seen, rewards, dones, infos = self.venv.step_wait()
        self.cells.update(info["cell"] for info in infos)
        self.counts.append(len(self.cells))
        return seen, rewards, dones, infos


def explore(backbone: Backbone | None, play: Tensor | None, frames: int, *, seed: int = 0, **options: Any) -> list[int]:
    """How many different cells have been seen, after each step of the environments, in `frames` frames of playing for surprise.

    backbone  stays as it is; None: actions are drawn at random, and `play` isn't needed
    play      uint8 (M, 3, 32, 32), frames of random play, for `BackboneFeatures`
    """
    venv = Counting(environments(**options))
    venv.seed(seed)
    if backbone is None:
        generator = np.random.default_rng(seed)
        venv.reset()
        for _ in range(frames // venv.num_envs):
            venv.step(generator.integers(len(MOVES), size=venv.num_envs))
        return venv.counts
    extractor = BackboneFeatures(venv.observation_space, backbone, play)
    agent = Curious(
        "MlpPolicy", Frozen(venv, extractor), replay_buffer_class=Surprising, policy_kwargs={"net_arch": [128]},
        seed=seed, device="cpu", **CURIOUS,
    )  # fmt: skip
    agent.learn(frames)
    return venv.counts
