"""Which mean and standard deviation a network was trained with: said by its files, by its source, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sslcourse.backbones import IMAGENET_MEAN, IMAGENET_STD
from sslcourse.errors import CourseError, suggest
from sslcourse.weights.reading import Contents

Three = tuple[float, float, float]
NORMALIZATIONS: dict[str, tuple[Three, Three]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # SimCLR: images in [0, 1]
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # many of timm's and Google's vision transformers: images in [-1, 1]
    "cifar": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),  # as solo-learn has it, for CIFAR-10 and CIFAR-100
}
KNOWN = {"MoCo v1", "MoCo v2", "MoCo", "DINO", "MAE", "VISSL"}  # their code trains with ImageNet's, and nothing else


@dataclass(frozen=True)
class Normalization:
    """mean and std per channel of images in [0, 1]; `said` is where they come from."""

    mean: Three
    std: Three
    said: str

    def __str__(self) -> str:
        for name, pair in NORMALIZATIONS.items():
            if pair == (self.mean, self.std):
                return f"{name} ({self.said})"
        return f"mean {_short(self.mean)}, std {_short(self.std)} ({self.said})"


def choose(
    normalize: str | tuple[Sequence[float], Sequence[float]] | None,
    source: str,
    contents: Contents,
    small: bool,
) -> Normalization:
    """What was given, else what the files say, else what the source always does, else ImageNet's, as an assumption.

    `small` is a stem for small images, by which solo-learn's networks for CIFAR are known.
    """
    if normalize is not None:
        return given(normalize)
    if contents.preprocessor:
        return _of_processor(contents.preprocessor)
    about = contents.config.get("pretrained_cfg", {})
    if {"mean", "std"} <= about.keys():
        return Normalization(_three(about["mean"]), _three(about["std"]), "config.json says so")
    if source == "SimCLR":
        return Normalization(*NORMALIZATIONS["none"], "SimCLR takes images in [0, 1]")
    if source == "solo-learn" and small:
        return Normalization(*NORMALIZATIONS["cifar"], "as solo-learn trains with this stem")
    if contents.config.get("model_type") == "vit":
        return Normalization(
            *NORMALIZATIONS["half"], "assumed: Transformers' default, without preprocessor_config.json"
        )
    said = f"as {source} trains" if source in KNOWN else "assumed: the file doesn't say; normalize= changes it"
    return Normalization(IMAGENET_MEAN, IMAGENET_STD, said)


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
        return Normalization(_three(mean), _three(std), "as asked")
    except (TypeError, ValueError):
        raise CourseError(
            f"normalize is a name or a pair (mean, std) of three numbers each, and {normalize!r} was given."
        ) from None


def _of_processor(settings: dict) -> Normalization:
    """Transformers' image processors: uint8 pixels times `rescale_factor`, less the mean, over the std.

    Images here are in [0, 1] and not in [0, 255], which the mean and std take up.
    """
    factor = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if settings.get("do_normalize", True):
        mean, std = _three(settings.get("image_mean", (0.5,) * 3)), _three(settings.get("image_std", (0.5,) * 3))
    if abs(factor - 1) > 1e-6:
        mean, std = _three([m / factor for m in mean]), _three([s / factor for s in std])
    return Normalization(mean, std, "preprocessor_config.json says so")


def _three(numbers: Sequence[float]) -> Three:
    three = tuple(float(number) for number in numbers)
    if len(three) != 3:
        raise CourseError(f"mean and std have three numbers each, one per channel, and {numbers} was given.")
    return three


def _short(numbers: Three) -> str:
    return "/".join(f"{number:.3g}" for number in numbers)
