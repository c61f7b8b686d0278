"""Learning to fetch: deep Q-learning of stable-baselines3 on the course's backbone, and what is measured of it.

Training and measuring have environments of their own, with seeds of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.control.environment import Fetch
from sslcourse.control.extractor import BackboneFeatures, Frozen

ENVS = 8  # played side by side
HELD_OUT = 1_000_000  # the first seed of environments that are measured in
# Mnih et al. (2015), with as few steps between updates of the target as a short training needs
RECIPE: dict[str, Any] = {
    "learning_rate": 1e-3, "buffer_size": 20_000, "learning_starts": 200, "batch_size": 32, "train_freq": 4,
    "gradient_steps": 16, "gamma": 0.8, "target_update_interval": 400, "exploration_fraction": 0.5,
    "exploration_final_eps": 0.1,
}  # fmt: skip
TUNED = {"learning_rate": 3e-4}  # where the backbone learns, too


class Contrastive(DQN):
    """Deep Q-learning with CURL's loss beside the reward (Laskin, Srinivas and Abbeel, 2020, 2004.04136).

    After its own update it takes as many steps in which the extractor must find a frame's other view among those of a batch of
    replay; views are moved by a few pixels, and keys come from the target network.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        dim = self.q_net.features_extractor.features_dim
        self.bilinear = nn.Parameter(torch.eye(dim, device=self.device) / dim)
        parameters = [*self.q_net.features_extractor.parameters(), self.bilinear]
        self.contrast_optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
        self.generator = torch.Generator().manual_seed(self.seed or 0)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        super().train(gradient_steps, batch_size)
        for _ in range(gradient_steps):
            frames = self.replay_buffer.sample(batch_size).observations.cpu()  # uint8 (N, 3, 32, 32)
            loss = self.contrast(augment.to_float(frames.to(torch.uint8)))
            self.contrast_optimizer.zero_grad()
            loss.backward()
            self.contrast_optimizer.step()

    def contrast(self, frames: Tensor) -> Tensor:
        """Float frames (N, 3, H, W) -> cross-entropy of each one's other view among N, with a bilinear score."""
        first, second = (augment.random_shift(frames, self.generator, 2).to(self.device) for _ in range(2))
        queries = self.q_net.features_extractor(first)  # (N, d)
        with torch.no_grad():
            keys = self.q_net_target.features_extractor(second)
        logits = queries @ self.bilinear @ keys.T  # (N, N)
        return functional.cross_entropy(logits, torch.arange(len(frames), device=self.device))


def environments(count: int = ENVS, **options: Any) -> DummyVecEnv:
    """`count` environments side by side, with options of `Fetch`."""
    return DummyVecEnv([lambda: Fetch(**options)] * count)


def agent(
    backbone: Backbone,
    frames: Tensor,
    *,
    frozen: bool,
    contrast: bool = False,
    stage: int = 3,
    seed: int = 0,
    **options: Any,
) -> tuple[DQN, Callable[[VecEnv], VecEnv]]:
    """Who learns to fetch, on a backbone, and what other environments must pass through before it can play in them.

    frames   uint8 (M, 3, 32, 32), of random play, for `BackboneFeatures`
    frozen   the backbone stays as it is, and features are computed once a frame
    stage    of the backbone whose map is read, see `BackboneFeatures`
    contrast CURL's loss beside the reward; not where frozen
    options  of Fetch
    """
    venv = environments(**options)
    with devices.seeded(seed):
        if frozen:
            extractor = BackboneFeatures(venv.observation_space, backbone, frames, stage)
            policy, wrap, learned = {"net_arch": [128]}, lambda other: Frozen(other, extractor), {}
        else:
            given = {"backbone": backbone, "frames": frames, "stage": stage, "dim": None}
            policy = {
                "net_arch": [128],
                "features_extractor_class": BackboneFeatures,
                "features_extractor_kwargs": given,
            }
            wrap, learned = (lambda other: other), TUNED
        kind, name = Contrastive if contrast else DQN, "MlpPolicy" if frozen else "CnnPolicy"
        found = kind(name, wrap(venv), policy_kwargs=policy, seed=seed, device="cpu", **(RECIPE | learned))
    return found, wrap


def curve(
    found: DQN, wrap: Callable[[VecEnv], VecEnv], frames: int, pieces: int = 5, **options: Any
) -> list[tuple[int, float]]:
    """Train for so many frames; (frames, return) at the start and after each of `pieces` equal parts."""
    points = [(0, mean_return(found, wrap, **options))]

    def measure(local: dict, _: dict) -> bool:
        agent = local["self"]
        if agent.num_timesteps >= len(points) * frames / pieces:
            points.append((agent.num_timesteps, mean_return(agent, wrap, **options)))
        return True

    found.learn(frames, callback=measure)
    return points


@dataclass(frozen=True)
class Episode:
    """What was seen, uint8 (T + 1, 3, 32, 32); what each action was taken to be worth, (T, 4); what was done; the return."""

    frames: Tensor
    values: Tensor
    done: list[int]
    gained: float


def episode(found: DQN, wrap: Callable[[VecEnv], VecEnv], seed: int, **options: Any) -> Episode:
    """One episode of the agent's best actions, in a room of its own."""
    env, outer = Fetch(**options), wrap(environments(1, **options))
    seen, _ = env.reset(seed=seed)
    frames, values, done, over = [seen], [], [], False
    while not over:
        before = outer.features(seen[None]) if isinstance(outer, Frozen) else seen[None] / np.float32(255)
        with torch.no_grad():
            values.append(found.q_net.q_net(found.q_net.features_extractor(torch.from_numpy(before)))[0])
        done.append(int(values[-1].argmax()))
        seen, reward, ended, cut, _ = env.step(done[-1])
        frames.append(seen)
        over = ended or cut
    return Episode(torch.from_numpy(np.stack(frames)), torch.stack(values), done, reward)


def mean_return(
    found: BaseAlgorithm | None, wrap: Callable[[VecEnv], VecEnv], episodes: int = 400, **options: Any
) -> float:
    """The mean return over `episodes` first episodes of environments that no agent has trained in; with None, of random play."""
    count = 50
    venv = wrap(environments(count, **options))
    venv.seed(HELD_OUT)
    seen, generator = venv.reset(), np.random.default_rng(HELD_OUT)
    each, gained = -(-episodes // count), [[] for _ in range(count)]
    while min(map(len, gained)) < each:
        done = generator.integers(4, size=count) if found is None else found.predict(seen, deterministic=True)[0]
        seen, rewards, over, _ = venv.step(done)
        for own, reward, ended in zip(gained, rewards, over, strict=True):
            if ended:
                own.append(float(reward))
    return float(np.mean([own[:each] for own in gained]))
