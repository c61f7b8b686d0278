"""The course's backbone as the features extractor of stable-baselines3: learned with the policy, or frozen."""

from __future__ import annotations

import copy

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from sslcourse import augment
from sslcourse.backbones import Backbone
from sslcourse.control.pretraining import flat_features


class BackboneFeatures(BaseFeaturesExtractor):
    """Frames, float (N, 3, 32, 32) in [0, 1], to features (N, d): a stage's map with its positions, whitened.

    frames   uint8 (M, 3, 32, 32), of random play: of these the batch norms take their statistics, and whitening its mean, its
             `dim` directions of most variance and the deviations along these, once. All of it stays: what a policy sees of a
             frame must not depend on what else is in a batch
    stage    whose map is read; 0 takes the pixels themselves, with no network before them
    dim      None: all features, centred and in units of one deviation for all, for a backbone that learns itself what counts
    """

    def __init__(
        self, observation_space: spaces.Space, backbone: Backbone, frames: Tensor, stage: int = 3, dim: int | None = 32
    ):
        backbone = copy.deepcopy(backbone)  # an agent has several extractors, and each learns by itself
        with torch.no_grad():
            _take_statistics(backbone, frames)
            seen = torch.cat([flat_features(backbone, augment.to_float(part), stage) for part in frames.split(256)])
        middle = seen.mean(dim=0)
        kept = torch.eye(seen.shape[1]) / seen.std() if dim is None else whitening(seen - middle, dim)  # (C * h * w, d)
        super().__init__(observation_space, kept.shape[1])
        self.backbone, self.stage = backbone, stage
        self.register_buffer("middle", middle)
        self.register_buffer("kept", kept)

    def forward(self, observations: Tensor) -> Tensor:
        return (flat_features(self.backbone, observations, self.stage) - self.middle) @ self.kept

    def train(self, mode: bool = True) -> BackboneFeatures:
        """As `nn.Module.train`, but the batch norms keep their statistics."""
        super().train(mode)
        self.backbone.eval()
        return self


class Frozen(VecEnvWrapper):
    """Environments whose observations are a frozen extractor's features, each computed once."""

    def __init__(self, venv: VecEnv, extractor: BackboneFeatures):
        super().__init__(venv, spaces.Box(-np.inf, np.inf, (extractor.features_dim,), np.float32))
        self.extractor = extractor.eval()

    def reset(self) -> np.ndarray:
        return self.features(self.venv.reset())

    def step_wait(self) -> tuple:
        seen, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self.features(info["terminal_observation"][None])[0]
        return self.features(seen), rewards, dones, infos

    @torch.no_grad()
    def features(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (N, 3, 32, 32) -> float32 (N, d)."""
        return self.extractor(augment.to_float(torch.from_numpy(frames))).numpy()


def whitening(centred: Tensor, dim: int) -> Tensor:
    """Rows (M, D) with mean 0 -> a matrix (D, d) that turns them into d <= `dim` uncorrelated columns of variance 1."""
    _, values, along = torch.linalg.svd(centred, full_matrices=False)  # (R,), (R, D)
    dim = min(dim, int((values > 1e-3 * values[0]).sum()))
    return (along[:dim] / values[:dim, None] * len(centred) ** 0.5).T.contiguous()


def _take_statistics(backbone: Backbone, frames: Tensor) -> None:
    """Let the batch norms take mean and variance of these frames, whole, and no others later."""
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    kept = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    backbone.train()
    for part in frames.split(256):
        backbone.stages(augment.to_float(part))
    backbone.eval()
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
