"""Colour spaces, batched on the device: RGB to CIE Lab and back, how colourful a picture is, and ab in bins.

Lab separates light from colour: L in [0, 100] is lightness, a runs from green (negative) to red, b from blue to yellow,
both about -110 to 110, and a = b = 0 is gray. Constants are those of sRGB and the D65 white point (2 degrees).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sslcourse.device import constant, made_once

XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)  # D65
REACH = 110  # |a| and |b| of every colour that a screen shows are below it


def linear(images: Tensor) -> Tensor:
    """sRGB, uint8 or float in [0, 1], to amounts of light in [0, 1]: a screen's number isn't proportional to its light."""
    if not images.is_floating_point():  # 256 values: look them up, since a power for each pixel takes long
        return _linear_bytes(images.device)[images.long()]
    return torch.where(images > 0.04045, ((images + 0.055) / 1.055) ** 2.4, images / 12.92)


@made_once
def _linear_bytes(device: torch.device) -> Tensor:
    return linear(torch.arange(256, device=device) / 255)


def _compress(xyz: Tensor) -> Tensor:
    """The cube root that the eye takes, and a straight line near black, where a root would be too steep."""
    root = xyz.clamp(min=1e-8).log_().mul_(1 / 3).exp_()  # a fifth of the time of a power
    return torch.where(xyz > 0.008856, root, 7.787 * xyz + 16 / 116)


def rgb_to_lab(images: Tensor) -> Tensor:
    """sRGB (N, 3, H, W), uint8 or float in [0, 1], to CIE Lab (N, 3, H, W): L in [0, 100], a and b within +-110."""
    light = linear(images)
    matrix = constant(XYZ_FROM_RGB, light.device, light.dtype) / constant(WHITE, light.device, light.dtype)[:, None]
    x, y, z = _compress(torch.einsum("ij,njhw->nihw", matrix, light)).unbind(1)  # (N, H, W) each; 1 for white
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lightness(images: Tensor) -> Tensor:
    """The L of Lab alone, (N, 1, H, W) in [0, 100]: a third of the work of `rgb_to_lab`."""
    if images.is_floating_point():
        weights = constant(XYZ_FROM_RGB[1], images.device, images.dtype)  # (3,)
        luminance = torch.einsum("j,njhw->nhw", weights, linear(images))[:, None]
    else:
        offset = constant(((0,), (256,), (512,)), images.device, torch.int32)[:, :, None]  # (3, 1, 1)
        rows = images.int().add_(offset)  # (N, 3, H, W), of a table for each channel
        parts = _luminance_bytes(images.device).index_select(0, rows.flatten()).view(rows.shape)
        luminance = parts.sum(dim=1, keepdim=True)
    return 116 * _compress(luminance) - 16


@made_once
def _luminance_bytes(device: torch.device) -> Tensor:
    """What each value of each channel adds to the luminance: (3 * 256,), red first."""
    weights = constant(XYZ_FROM_RGB[1], device)
    return (weights[:, None] * _linear_bytes(device)).flatten()


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIE Lab (N, 3, H, W) to sRGB (N, 3, H, W), clipped to [0, 1]: many triples of Lab lie outside what a screen shows."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=1)  # (N, 3, H, W)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) * constant(WHITE, f.device, f.dtype)[:, None, None]
    light = torch.einsum("ij,njhw->nihw", _rgb_from_xyz(f.device, f.dtype), xyz)
    bright = 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light > 0.0031308, bright, 12.92 * light).clamp(0, 1)


@made_once
def _rgb_from_xyz(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.linalg.inv(torch.tensor(XYZ_FROM_RGB, dtype=dtype)).to(device)


def chroma(lab: Tensor) -> Tensor:
    """How far each pixel is from gray: the length of (a, b). (N, 3, H, W) -> (N, H, W)."""
    return lab[:, 1:].square().sum(dim=1).sqrt()


def colorfulness(images: Tensor) -> Tensor:
    """How colourful each picture looks, (N,): 0 for gray, about 0.06 for slight, 0.2 for strong colour.

    Hasler and Süsstrunk (2003, Measuring colourfulness in natural images), for RGB (N, 3, H, W) in [0, 1]; their
    values, for RGB up to 255, are 255 times as large.
    """
    red, green, blue = images.flatten(2).unbind(1)  # (N, H*W) each
    opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)  # (N, 2, H*W)
    spread = opponents.std(dim=2, unbiased=False).square().sum(dim=1).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=1).sqrt()


@lru_cache(maxsize=8)
def bins(width: int = 10) -> Tensor:
    """Centres of the squares of side `width`, in the ab plane, that hold a colour of the screen: float (Q, 2).

    The grid of Zhang, Isola and Efros (2016, 1603.08511). Here a bin counts when a colour of sRGB falls into it, which
    gives 261 of width 10; the list that they published has 313.
    """
    levels = torch.linspace(0, 1, 86)  # every third of the 256 levels
    cube = torch.cartesian_prod(levels, levels, levels)  # (86^3, 3)
    ab = rgb_to_lab(cube[:, :, None, None])[:, 1:, 0, 0]  # (86^3, 2)
    return (ab / width).round().unique(dim=0) * width


@lru_cache(maxsize=8)
def soft_assignment(width: int = 10, neighbours: int = 5) -> tuple[Tensor, Tensor]:
    """For every whole-numbered (a, b) its nearest bins and their weights: int64 and float32 (S * S, neighbours), S = 2 * REACH + 1.

    Row (a + REACH) * S + (b + REACH). Weights are Gaussian in the distance, with half a bin as standard deviation, and
    sum to 1 (Zhang et al., 2016: five neighbours, 5 units for bins of 10). A table, because looking up is much faster
    than measuring the distance of every pixel to every bin.
    """
    line = torch.arange(-REACH, REACH + 1.0)
    distance = torch.cdist(torch.cartesian_prod(line, line), bins(width))  # (S * S, Q)
    nearest, index = distance.topk(neighbours, largest=False)
    weight = torch.exp(-((nearest / (width / 2)) ** 2 - (nearest[:, :1] / (width / 2)) ** 2) / 2)
    return index, weight / weight.sum(dim=1, keepdim=True)


def table_rows(ab: Tensor) -> Tensor:
    """ab (N, 2, H, W) to rows of `soft_assignment`'s tables, int64 (N, H, W)."""
    whole = ab.round().clamp(-REACH, REACH).long() + REACH
    return whole[:, 0] * (2 * REACH + 1) + whole[:, 1]
