"""Which mean and standard deviation a network was trained with: said by its files, by its source, or assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sslcourse.backbones import IMAGENET_MEAN, IMAGENET_STD
from sslcourse.errors import CourseError, suggest
from sslcourse.weights import openclip
from sslcourse.weights.reading import Contents
from sslcourse.weights.sources import Source

Three = tuple[float, float, float]
NORMALIZATIONS: dict[str, tuple[Three, Three]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # SimCLR: images in [0, 1]
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # many of timm's and Google's vision transformers: images in [-1, 1]
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),  # of OpenAI's own pictures
    "swav": (IMAGENET_MEAN, (0.228, 0.224, 0.225)),  # as its code has it, for pretraining and evaluation
    "cifar": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),  # as solo-learn has it, for CIFAR-10 and CIFAR-100
}


@dataclass(frozen=True)
class Normalization:
    """mean and std per channel of images in [0, 1], and the reason for taking these."""

    mean: Three
    std: Three
    reason: str

    def __str__(self) -> str:
        for name, pair in NORMALIZATIONS.items():
            if pair == (self.mean, self.std):
                return f"{name} ({self.reason})"
        return f"mean {_short(self.mean)}, std {_short(self.std)} ({self.reason})"


def choose(
    normalize: str | tuple[Sequence[float], Sequence[float]] | None,
    source: Source,
    contents: Contents,
    small: bool,
) -> Normalization:
    """What was given, else what the files say, else what the source always does, else ImageNet's, as an assumption.

    `small` is a stem for small images, by which networks for CIFAR are known.
    """
    if normalize is not None:
        return given(normalize)
    if contents.preprocessor:
        return _of_processor(contents.preprocessor)
    about = contents.config.get("pretrained_cfg") or openclip.preprocessing(contents.config)
    if {"mean", "std"} <= about.keys():
        return Normalization(_three(about["mean"]), _three(about["std"], above_zero=True), "config.json says so")
    if small and source.small_normalization:
        return Normalization(*NORMALIZATIONS[source.small_normalization], f"as {source.name} trains with this stem")
    if source.normalization:
        return Normalization(*NORMALIZATIONS[source.normalization], source.reason or f"as {source.name} trains")
    if contents.config.get("model_type") == "vit":
        return Normalization(
            *NORMALIZATIONS["half"], "assumed: Transformers' default, without preprocessor_config.json"
        )
    return Normalization(IMAGENET_MEAN, IMAGENET_STD, "assumed: the file doesn't say; normalize= changes it")


def given(normalize: str | tuple[Sequence[float], Sequence[float]]) -> Normalization:
    """A name of NORMALIZATIONS, or (mean, std) of three numbers each."""
    if isinstance(normalize, str):
        if normalize not in NORMALIZATIONS:
            raise CourseError(
                f"normalization {normalize!r} is unknown{suggest(normalize, NORMALIZATIONS)}; choose one of "
                f"{', '.join(NORMALIZATIONS)}, or give (mean, std) of three numbers each."
            )
        return Normalization(*NORMALIZATIONS[normalize], "as asked")
    try:
        mean, std = normalize
    except (TypeError, ValueError):
        raise CourseError(
            f"normalize is a name or a pair (mean, std) of three numbers each, and {normalize!r} was given."
        ) from None
    return Normalization(_three(mean), _three(std, above_zero=True), "as asked")


def _of_processor(settings: dict) -> Normalization:
    """Transformers' image processors: uint8 pixels times `rescale_factor`, less the mean, over the std.

    Images here are in [0, 1] and not in [0, 255], which the mean and std take up.
    """
    factor = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if settings.get("do_normalize", True):
        mean = _three(settings.get("image_mean", (0.5,) * 3))
        std = _three(settings.get("image_std", (0.5,) * 3), above_zero=True)
    if abs(factor - 1) > 1e-6:
        mean, std = _three([m / factor for m in mean]), _three([s / factor for s in std])
    return Normalization(mean, std, "preprocessor_config.json says so")


def _three(numbers: Sequence[float], above_zero: bool = False) -> Three:
    """Three finite numbers, one per channel. Raises CourseError for anything else."""
    try:
        three = tuple(float(number) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        three = ()
    if len(three) != 3 or not all(math.isfinite(number) and (number > 0 or not above_zero) for number in three):
        raise CourseError(
            f"mean and std have three numbers each, one per channel, and a std is above 0; {numbers!r} was given."
        )
    return three


def _short(numbers: Three) -> str:
    return "/".join(f"{number:.3g}" for number in numbers)
