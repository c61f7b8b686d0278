"""What dense tasks share: a backbone's maps in torchvision's form, a pyramid of them, and moves of pictures and annotations.

Segmentation and detection give an answer for every place of a picture, so they read the maps of a backbone and not their
average. Everything behind the maps is torchvision's.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork

from sslcourse import device as devices
from sslcourse.backbones import SMALL_IMAGE, Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, whole_number
from sslcourse.features import refuse_not_finite_weights

STAGES = (1, 2, 3, 4)
CHANNELS = 64  # of every map of a pyramid
FINEST = 2  # pixels: a map with a cell for every pixel costs four times as much as the next, and says little more
COARSEST = 8  # cells a side: a map with fewer places things by the eighth part of a picture at best
SHIFT = 8  # augmentation moves pictures by up to one part in SHIFT of their height
SEEN = 0.4  # share of a box that must stay in the picture when it moves; what shows less is no object any more


# --- a backbone as torchvision takes one -------------------------------------------------------------------------


class FeatureMaps(nn.Module):
    """A backbone as torchvision's dense models take one: float images (N, 3, H, W) in [0, 1] to an OrderedDict of maps.

    names   what each stage's map (N, C_s, H_s, W_s) is called, as in torchvision's `IntermediateLayerGetter`: segmentation
            models ask for {4: "out"}, and {3: "aux", 4: "out"} where there is an auxiliary head. By default all four, "1".."4"

    `out_channels` is there where all maps have the same number of channels, as torchvision's detectors want it; several
    stages of a residual network need a `Pyramid`. The backbone normalizes: a detector's transform must not do it again.
    """

    def __init__(self, backbone: Backbone, names: Mapping[int, str] | None = None):
        super().__init__()
        refuse_no_backbone(backbone)
        names = {stage: str(stage) for stage in STAGES} if names is None else dict(names)
        if not names or not set(names) <= set(STAGES) or len(set(names.values())) < len(names):
            raise CourseError(f"names gives stages among 1..4 a name each, such as {{4: 'out'}}, and is {names!r}.")
        self.backbone, self.names = backbone, {stage: names[stage] for stage in sorted(names)}
        channels = {backbone.channels[stage - 1] for stage in names}
        if len(channels) == 1:
            self.out_channels = channels.pop()

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.backbone.stages(images)  # (N, C_s, H_s, W_s) each
        return OrderedDict((name, maps[stage - 1]) for stage, name in self.names.items())


class Pyramid(nn.Module):
    """A backbone under torchvision's feature pyramid (Lin et al., 2016, 1612.03144), as its `BackboneWithFPN`.

    Float images (N, 3, H, W) in [0, 1] to an OrderedDict of maps (N, channels, H_s, W_s), finest first: each holds what
    the coarse, late stages found, at the place where the fine, early ones saw it.

    stages    by default `usual_stages`
    enlarge   the backbone sees the images so many times as large: small things come nearer to the size at which it met
              things when it was pretrained, and every map gets finer
    strides   how many pixels of the images, as given, a cell of each map is wide
    """

    def __init__(
        self,
        backbone: Backbone,
        channels: int = CHANNELS,
        stages: tuple[int, ...] | None = None,
        enlarge: int = 1,
    ):
        super().__init__()
        refuse_no_backbone(backbone)
        enlarge = whole_number("enlarge, how many times as large the images become,", enlarge)
        stages = usual_stages(backbone, enlarge) if stages is None else stages
        self.body = FeatureMaps(backbone, {stage: str(stage) for stage in stages})
        self.strides = [strides(backbone, enlarge)[stage - 1] for stage in self.body.names]
        if 0 in self.strides:
            raise CourseError(
                f"enlarged {enlarge} times, a cell would be smaller than a pixel; leave early stages out."
            )
        ins = [backbone.channels[stage - 1] for stage in self.body.names]
        # without norms, new layers learn slowly
        self.fpn = FeaturePyramidNetwork(ins, channels, norm_layer=nn.BatchNorm2d)
        self.out_channels, self.enlarge = channels, enlarge

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(self.body(enlarged(images, self.enlarge)))


def enlarged(images: Tensor, times: int) -> Tensor:
    """Float images (N, C, H, W) to (N, C, times * H, times * W), values in between."""
    if times == 1:
        return images
    return functional.interpolate(images, scale_factor=times, mode="bilinear", align_corners=False)


@torch.no_grad()
def strides(backbone: Backbone, enlarge: int = 1) -> list[int]:
    """How many pixels of an image wide a cell of each stage's map is, such as [2, 4, 8, 16]; 0 if less than one."""
    side = getattr(backbone.trunk, "image_size", 64)
    with devices.evaluating(backbone):
        maps = backbone.stages(torch.zeros(1, 3, enlarge * side, enlarge * side, device=backbone.mean.device))
    return [side // one.shape[-1] for one in maps]


def usual_stages(backbone: Backbone, enlarge: int = 1, side: int | None = None) -> tuple[int, ...]:
    """The stages that a pyramid takes: those whose cells are at least 2 pixels wide, of equally wide ones the last.

    side   of the images, in pixels: then maps of fewer than 8 cells a side, coarser than most things, are left out, too

    A vision transformer's maps are all of one size, so that one map is left: no pyramid, and it works all the same.
    """
    widths = strides(backbone, enlarge)
    last = {width: stage for stage, width in enumerate(widths, start=1) if width >= FINEST}
    if not last:
        return (len(widths),)
    fine = tuple(stage for width, stage in last.items() if side is None or width * COARSEST <= side)
    return fine or (next(iter(last.values())),)


def fitted(backbone: Backbone, images: ImageSet, enlarge: int | None = None) -> dict[str, Any]:
    """The enlargement and the stages that fit these images: options of `Pyramid`.

    Images of up to 64 pixels are enlarged twofold: a small thing in them is little more than one cell.
    """
    if enlarge is None:
        enlarge = 2 if max(images.size) <= SMALL_IMAGE else 1
    enlarge = whole_number("enlarge, how many times as large the images become,", enlarge)
    return {"enlarge": enlarge, "stages": usual_stages(backbone, enlarge, min(images.size))}


def refuse_no_backbone(backbone: Any) -> None:
    if not isinstance(backbone, Backbone):
        raise CourseError(
            f"a Backbone is needed here, and got {type(backbone).__name__}; backbones.build makes one with random weights, "
            "store.pretrained a pretrained one."
        )


def copied(backbone: Backbone) -> Backbone:
    """A copy to train, so that the backbone that was given stays as it is."""
    refuse_no_backbone(backbone)
    refuse_not_finite_weights(backbone)
    return copy.deepcopy(backbone)


# --- annotated pictures ------------------------------------------------------------------------------------------


def sample(images: ImageSet, count: int, seed: int = 0) -> ImageSet:
    """`count` images drawn by `seed`, for annotating. A larger count adds to what a smaller one drew."""
    if len(images) == 0:
        raise CourseError(f"{images.name} has no images to annotate; give at least one.")
    count = whole_number("the number of annotated images", count, 1, len(images))
    generator = devices.generator(devices.derive_seed(seed, "annotated"))
    return images.select(torch.randperm(len(images), generator=generator)[:count])


@dataclass(frozen=True, eq=False)
class Move:
    """One mirror and one shift for each image, the same for the picture and for everything annotated on it.

    mirrored   bool (N,): left and right exchanged, first
    right      int64 (N,): pixels to the right, afterwards
    down       int64 (N,): pixels down. What comes in from outside repeats the border
    """

    mirrored: Tensor
    right: Tensor
    down: Tensor

    @classmethod
    def draw(cls, count: int, pixels: int, generator: torch.Generator) -> Move:
        """Mirrors with probability one half, shifts of -pixels..pixels each way."""
        place = generator.device
        mirrored = torch.rand(count, generator=generator, device=place) < 0.5
        right, down = torch.randint(-pixels, pixels + 1, (2, count), generator=generator, device=place)
        return cls(mirrored, right, down)

    @classmethod
    def fitting(cls, images: Tensor, generator: torch.Generator) -> Move:
        """What augmentation does to images (N, C, H, W): shifts by up to one part in SHIFT of the height."""
        return cls.draw(len(images), max(1, images.shape[2] // SHIFT), generator)

    def images(self, images: Tensor) -> Tensor:
        """Any dtype, (N, C, H, W); pixels keep their values: nothing is interpolated."""
        count, _, height, width = images.shape
        place = images.device
        rows = (torch.arange(height, device=place) - self.down[:, None]).clamp(0, height - 1)  # (N, H): read from
        columns = (torch.arange(width, device=place) - self.right[:, None]).clamp(0, width - 1)  # (N, W)
        columns = torch.where(self.mirrored[:, None], width - 1 - columns, columns)
        which = torch.arange(count, device=place)[:, None, None]
        return images.movedim(1, -1)[which, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)  # (N, C, H, W)

    def masks(self, masks: Tensor) -> Tensor:
        """(N, H, W), as the images."""
        return self.images(masks[:, None]).squeeze(1)

    def boxes(self, boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (N, K, 4) in pixels of an image of `size` (height, width), labels (N, K): clipped to the image.

        A box of which less than SEEN is left gets the label -1, and is no object any more.
        """
        height, width = size
        left, top, right, bottom = boxes.unbind(-1)  # (N, K) each
        flip = self.mirrored[:, None]
        left, right = torch.where(flip, width - right, left), torch.where(flip, width - left, right)
        columns = (torch.stack([left, right]) + self.right[:, None]).clamp(0, width)  # (2, N, K)
        rows = (torch.stack([top, bottom]) + self.down[:, None]).clamp(0, height)
        moved = torch.stack([columns[0], rows[0], columns[1], rows[1]], dim=-1)  # (N, K, 4)
        area, left_over = ((b[..., 2:] - b[..., :2]).prod(dim=-1) for b in (boxes, moved))  # (N, K) each
        gone = (labels < 0) | (left_over < SEEN * area)
        return torch.where(gone[..., None], 0.0, moved), torch.where(gone, -1, labels)
