"""Backbones: images in, features out. A backbone carries its own preprocessing, so it can't be fed the wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslcourse import device as devices
from sslcourse.console import shown
from sslcourse.errors import CourseError, is_whole, one_of, suggest, whole_number
from sslcourse.files import reading, write_atomically
from sslcourse.paths import typed
from sslcourse.vit import VisionTransformer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# name: (residual block, blocks per stage, channels per stage, stem for small images)
ARCHITECTURES: dict[str, tuple] = {
    "resnet-tiny": (BasicBlock, (1, 1, 1, 1), (16, 32, 64, 128), "tiny"),
    "resnet18": (BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), "small"),
    "resnet34": (BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512), "small"),
    "resnet50": (Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), "small"),
}
# name: (width, blocks, heads); eight patches in a row, whatever the image's size
TRANSFORMERS: dict[str, tuple[int, int, int]] = {"vit-tiny": (128, 4, 4)}
PATCHES = 8
# name: (kernel size, stride, max-pooling afterwards)
STEMS = {"imagenet": (7, 2, True), "small": (3, 1, False), "tiny": (3, 2, False)}
STAGES = (1, 2, 3, 4, "all", "class")  # where features are read
FORMAT = "sslcourse backbone 1"
FILE = "backbone.safetensors"  # of a run's folder
LARGEST_IMAGE = 4096  # pixels a side, of a transformer's file: its positions take memory
SMALL_IMAGE = 64  # pixels; up to here the ImageNet stem, which divides each side by 4, throws away too much


class ResNet(nn.Module):
    """A residual network without its classifier (He et al., 2015, 1512.03385); parameter names are torchvision's.

    `forward` gives the maps of the four stages: (N, C_s, H_s, W_s) for s = 1..4.
    """

    def __init__(self, block: type, blocks: tuple[int, ...], channels: tuple[int, ...], stem: str):
        super().__init__()
        kernel, stride, pool = STEMS[stem]
        self.conv1 = nn.Conv2d(3, channels[0], kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if pool else nn.Identity()
        width = channels[0]
        for stage, (count, channel) in enumerate(zip(blocks, channels, strict=True), start=1):
            layers = []
            for i in range(count):
                step = 2 if stage > 1 and i == 0 else 1
                layers.append(block(width, channel, step, downsample=_shortcut(width, channel * block.expansion, step)))
                width = channel * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.dim = width
        self.channels = [c * block.expansion for c in channels]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def _shortcut(width: int, out: int, stride: int) -> nn.Module | None:
    if stride == 1 and width == out:
        return None
    return nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class Backbone(nn.Module):
    """f_theta: preprocessing (mean and std, kept in the state_dict) and a trunk.

    Takes float images (N, 3, H, W) in [0, 1]; gives features (N, dim), the average of the last map over positions.
    """

    def __init__(self, trunk: nn.Module, arch: str, stem: str, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        super().__init__()
        self.trunk, self.arch, self.stem, self.dim = trunk, arch, stem, trunk.dim
        self.channels: list[int] = trunk.channels  # of each stage
        self.notes: dict[str, str | int | float] = {}  # what its file says of the run that made it (`record`)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def stages(self, images: Tensor) -> list[Tensor]:
        """The map after each stage, (N, C_s, H_s, W_s), coarse last: for dense tasks and for probing layer by layer."""
        if not images.is_floating_point() or images.dim() != 4 or images.shape[1] != 3:
            raise CourseError(
                f"a backbone takes float images (N, 3, H, W) in [0, 1], and got {images.dtype} {tuple(images.shape)}; "
                "sslcourse.augment.to_float converts uint8 images."
            )
        return self.trunk(self.preprocess(images))

    def preprocess(self, images: Tensor) -> Tensor:
        """Float images in [0, 1] with the mean taken off, in units of the standard deviation."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1].mean(dim=(2, 3))  # (N, dim)

    @property
    def sums_up(self) -> bool:
        """Whether the network has an answer of its own for a whole image, beside the average over positions."""
        return isinstance(self.trunk, VisionTransformer) and self.trunk.sums_up

    def summary(self, images: Tensor) -> Tensor:
        """What the network itself sums an image up in, (N, dim): a transformer's class token, what its attention pooling
        saw, or where there is neither, the same as `forward`."""
        return self.trunk.class_token(self.preprocess(images)) if self.sums_up else self(images)

    def features(self, images: Tensor, stage: int | str = 4) -> Tensor:
        """(N, d), read at a stage.

        1..4    the average over positions of that stage's map, (N, C_stage); 4 is the same as `forward`
        "all"   the four side by side, (N, C_1 + C_2 + C_3 + C_4)
        "class" `summary`, of a network that has its own
        """
        self.refuse_stage(stage)
        if stage == 4:
            return self(images)
        if stage == "class":
            return self.summary(images)
        means = [m.mean(dim=(2, 3)) for m in self.stages(images)]  # (N, C_stage) each
        return torch.cat(means, dim=1) if stage == "all" else means[stage - 1]

    def refuse_stage(self, stage: int | str) -> None:
        """CourseError for what is no stage, and for "class" where the network has no class token."""
        if not (is_whole(stage) or isinstance(stage, str)) or stage not in STAGES:
            raise CourseError(f"stage must be one of {', '.join(map(str, STAGES))}, and is {stage!r}.")
        if stage == "class" and not self.sums_up:
            raise CourseError(f"{self.arch} has no class token; choose a stage of 1 to 4, or all.")


def build(arch: str = "resnet-tiny", *, stem: str | None = None, image_size: int = 32, seed: int = 0) -> Backbone:
    """A backbone with random weights that depend on `seed` alone.

    `stem` is one of STEMS; by default images of up to 64 pixels a side get the small one, larger ones ImageNet's. A
    vision transformer has no stem: it cuts images of `image_size` pixels into 8 x 8 patches.
    Raises CourseError for an unknown architecture or stem.
    """
    refuse_unknown(arch)
    image_size, seed = whole_number("image_size", image_size), whole_number("seed", seed, *devices.SEEDS)
    with devices.seeded(seed):
        if arch in TRANSFORMERS:
            return _transformer(arch, stem, image_size)
        block, blocks, channels, small = ARCHITECTURES[arch]
        stem = stem or (small if image_size <= SMALL_IMAGE else "imagenet")
        one_of("stem", stem, STEMS)
        return Backbone(ResNet(block, blocks, channels, stem), arch, stem)


def _transformer(arch: str, stem: str | None, image_size: int) -> Backbone:
    if stem is not None and not str(stem).startswith("patch"):
        raise CourseError(f"{arch} has no stem, and {stem!r} was given; leave it out.")
    if image_size % PATCHES:
        raise CourseError(
            f"{arch} cuts images into {PATCHES} x {PATCHES} patches, and {image_size} pixels can't be divided by "
            f"{PATCHES}; load the images with a size that can, such as {PATCHES * max(1, round(image_size / PATCHES))}."
        )
    width, depth, heads = TRANSFORMERS[arch]
    trunk = VisionTransformer(image_size, image_size // PATCHES, width, depth, heads)
    return Backbone(trunk, arch, stem=f"patch{trunk.patch}")


def names() -> list[str]:
    """Every architecture that `build` knows."""
    return [*ARCHITECTURES, *TRANSFORMERS]


def refuse_unknown(arch: str) -> None:
    """CourseError, with the nearest name, for an architecture that isn't known."""
    if arch not in names():
        raise CourseError(f"backbone {arch!r} is unknown{suggest(arch, names())}; choose one of {', '.join(names())}.")


def save(backbone: Backbone, path: str | Path, **notes: str | int | float) -> None:
    """Write weights and preprocessing to one safetensors file, atomically; `notes` (task, data, steps) go along."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    about = {"format": FORMAT, "arch": backbone.arch, "stem": backbone.stem, "notes": notes}
    if isinstance(backbone.trunk, VisionTransformer):
        about["image_size"] = backbone.trunk.image_size
    # one key alone: safetensors writes several in an order that changes from run to run, and equal runs give equal files
    write_atomically(typed(path), safetensors.torch.save(weights, metadata={"sslcourse": json.dumps(about)}))


def is_sound(name: str, values: Tensor) -> bool:
    """Whether the values of an entry of a state_dict can be a network's: finite, and variances not below 0."""
    return bool(torch.isfinite(values).all()) and not (name.endswith("running_var") and bool((values < 0).any()))


def load(path: str | Path) -> Backbone:
    """Read a backbone that `save` wrote: a file, or a run's folder that holds `backbone.safetensors`.

    Nothing in such a file is ever executed. Raises CourseError when the file is missing, damaged or another format.
    """
    path = typed(path)
    with reading(shown(path)):
        if path.is_dir():
            path = path / FILE
        if not path.is_file():
            raise CourseError(
                f"there is no backbone at {shown(path)}; `sslcourse pretrain TASK --out DIR` writes one to DIR."
            )
        about, weights = _read(path)
    backbone = build(about["arch"], stem=about["stem"], image_size=about.get("image_size", 32))
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise CourseError(
            f"{shown(path)} says it is a {about['arch']}, but its weights don't fit: {str(error).splitlines()[-1].strip()}"
        ) from None
    unsound = [name for name, values in backbone.state_dict().items() if not is_sound(name, values)]
    if unsound or not bool((backbone.std > 0).all()):
        raise CourseError(
            f"{(unsound or ['std'])[0]} in {shown(path)} isn't finite, or not above 0 where it must be; take an earlier one."
        )
    backbone.notes = about["notes"]
    return backbone


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file of `save` says of its network, and the weights. Raises CourseError for anything else."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get("sslcourse", "{}")
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except OSError:
        raise
    except Exception as error:  # a damaged header may raise anything
        raise CourseError(
            f"{shown(path)} is not a readable safetensors file ({shown(error)}); pretrain again, or give the file that "
            "pretraining wrote."
        ) from None
    try:
        about = json.loads(about)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CourseError(
            f"{shown(path)} holds weights, but not in the layout of a backbone of this course (no architecture is named in "
            "it); give a backbone.safetensors that `sslcourse pretrain` wrote."
        )
    size = about.get("image_size", SMALL_IMAGE)
    words = isinstance(about.get("arch"), str) and isinstance(about.get("stem"), str)
    if not (words and isinstance(about.get("notes"), dict) and isinstance(size, int) and 0 < size <= LARGEST_IMAGE):
        raise CourseError(f"{shown(path)} doesn't say what network it holds; get it again, or pretrain again.")
    return about, weights
