"""A trunk in the measures of given weights: the shapes say almost everything, and what they don't is asked for."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslcourse.backbones import ARCHITECTURES, PATCHES, STEMS, TRANSFORMERS, Backbone, ResNet
from sslcourse.errors import CourseError, suggest
from sslcourse.vit import Angles, AttentionPool, Block, Mlp, PatchEmbed, RotaryPositions, VisionTransformer

# name: (kernel size, stride, padding, max-pooling afterwards). solo-learn pads its 3x3 stem by 2, so that maps grow.
ALL_STEMS = {name: (kernel, stride, kernel // 2, pool) for name, (kernel, stride, pool) in STEMS.items()}
ALL_STEMS |= {"solo-learn": (3, 1, 2, False)}
# of the widths in use: the weights don't tell the number
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}
USUAL_SIZE = 224  # pixels a side, of images for a network that fits any
# Layer counts of the residual networks that have names.
DEPTHS = {(BasicBlock, (2, 2, 2, 2)): 18, (BasicBlock, (3, 4, 6, 3)): 34, (Bottleneck, (3, 4, 6, 3)): 50}
DEPTHS |= {(Bottleneck, (3, 4, 23, 3)): 101, (Bottleneck, (3, 8, 36, 3)): 152, (Bottleneck, (3, 24, 36, 3)): 200}


# --- residual networks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResNetMeasures:
    """All that decides a residual network's function, its weights apart."""

    block: type
    blocks: tuple[int, ...]  # per stage
    channels: tuple[int, ...]  # per stage, before a bottleneck's expansion
    stem: str  # of ALL_STEMS
    stem_width: int
    groups: int = 1  # of a bottleneck's 3x3 convolution
    base_width: int = 64  # channels of that convolution where the stage has 64
    stride_in_first: bool = (
        False  # a bottleneck's stride in its first convolution (the paper) or in the 3x3 (torchvision)
    )
    first_stride: int = 1  # of the first stage

    @property
    def plain(self) -> bool:
        """Whether torchvision's resnet18 to resnet152, the stem apart, compute the same."""
        usual = ResNetMeasures(self.block, self.blocks, self.channels, self.stem, self.channels[0])
        return self == usual and self.stem in STEMS

    @property
    def name(self) -> str:
        """The name in ARCHITECTURES where `backbones.build` makes the same network, else a description."""
        for name, (block, blocks, channels, _) in ARCHITECTURES.items():
            if self.plain and (block, blocks, channels) == (self.block, self.blocks, self.channels):
                return name
        depth = DEPTHS.get((self.block, self.blocks))
        if self.plain and depth and self.channels == (64, 128, 256, 512):
            return f"resnet{depth}"
        parts = [f"resnet{depth}" if depth else f"resnet-{self.block.__name__}-{'-'.join(map(str, self.blocks))}"]
        parts += [f"channels{self.channels[0]}"] * (self.channels[0] != 64)
        parts += [f"from{self.stem_width}"] * (self.stem_width != self.channels[0])
        parts += [f"{self.groups}x{self.base_width}d"] * ((self.groups, self.base_width) != (1, 64))
        parts += ["stride-in-1x1"] * (self.stride_in_first and self.block is Bottleneck)
        parts += ["stride-in-stage-1"] * (self.first_stride != 1)
        return "-".join(parts)


class MeasuredResNet(ResNet):
    """A residual network in given measures; names of parameters and stages as in ResNet."""

    def __init__(self, measures: ResNetMeasures):
        nn.Module.__init__(self)
        m = self.measures = measures
        kernel, stride, padding, pool = ALL_STEMS[m.stem]
        self.conv1 = nn.Conv2d(3, m.stem_width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(m.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if pool else nn.Identity()
        self.channels = [c * m.block.expansion for c in m.channels]
        widths = [m.stem_width, *self.channels]
        for s, (count, channel) in enumerate(zip(m.blocks, m.channels, strict=True), start=1):
            stride = m.first_stride if s == 1 else 2
            stage = [self.block(widths[s - 1], channel, stride)] + [
                self.block(widths[s], channel, 1) for _ in range(count - 1)
            ]
            setattr(self, f"layer{s}", nn.Sequential(*stage))
        self.dim = widths[-1]

    def block(self, width: int, channel: int, stride: int) -> nn.Module:
        """One residual block; a 1x1 convolution in the shortcut where the shape changes."""
        m, out = self.measures, channel * self.measures.block.expansion
        shortcut = None
        if stride != 1 or width != out:
            shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        block = m.block(width, channel, stride, shortcut, m.groups, m.base_width)
        if m.stride_in_first and m.block is Bottleneck:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
        return block


def resnet_measures(weights: dict[str, Tensor], stem: str | None = None) -> ResNetMeasures:
    """What the shapes of weights in torchvision's names say.

    A 7x7 convolution is ImageNet's stem. Of a 3x3 the shape doesn't tell the stride: it is taken for `small` (1), or for
    `tiny` (2) where the stem is only 16 wide; `stem` overrides. Raises CourseError for other kernels and unknown stems.
    """
    first = weights["conv1.weight"]
    kernel = first.shape[-1] if first.dim() == 4 else 0
    if stem is None:
        stem = {7: "imagenet", 3: "tiny" if len(first) == ARCHITECTURES["resnet-tiny"][2][0] else "small"}.get(kernel)
    if stem is not None and stem not in ALL_STEMS:
        raise CourseError(f"stem {stem!r} is unknown{suggest(stem, ALL_STEMS)}; choose one of {', '.join(ALL_STEMS)}.")
    if stem is None or first.dim() != 4 or first.shape[1:] != (3, ALL_STEMS[stem][0], ALL_STEMS[stem][0]):
        raise CourseError(
            f"the first convolution has the shape {tuple(first.shape)}, which is not that of the stem "
            f"{stem or 'for images of three channels, 7x7 or 3x3'}; networks with another stem can't be read."
        )
    block = Bottleneck if "layer1.0.conv3.weight" in weights else BasicBlock
    blocks = tuple(_count(weights, rf"layer{s}\.(\d{{1,4}})\.") for s in range(1, 5))
    lasts = [weights.get(f"layer{s}.0.conv{3 if block is Bottleneck else 2}.weight") for s in range(1, 5)]
    if any(last is None for last in lasts):
        raise CourseError("of the four stages of a residual network one is missing; get the whole file again.")
    channels = tuple(len(last) // block.expansion for last in lasts)
    measures = ResNetMeasures(block, blocks, channels, stem, len(first))
    if block is Bottleneck:
        middle = weights["layer1.0.conv2.weight"]
        groups = max(1, len(middle) // middle.shape[1])
        measures = dataclasses.replace(measures, groups=groups, base_width=len(middle) * 64 // (groups * channels[0]))
    return measures


# --- vision transformers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VitMeasures:
    """All that decides a vision transformer's function, its weights apart."""

    image_size: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int  # of the two-layer network in each block
    eps: float  # of every layer norm
    qkv_bias: bool = True
    layer_scale: bool = False
    last_norm: bool = True
    activation: str = "gelu"  # of vit.ACTIVATIONS
    class_token: bool = True
    registers: int = 0
    placed: int = 1  # tokens before the patches that have a position
    rotary: bool = False  # positions are turned into queries and keys, and nothing is added to the tokens
    first_norm: bool = False  # a norm before the first block
    pooled: bool = False  # attention pooling at the end
    patch_bias: bool = True

    @property
    def plain(self) -> bool:
        """Whether it has a class token, learned positions and nothing else, as ViTModel and Dinov2Model have."""
        usual = VitMeasures(self.image_size, self.patch, self.width, self.depth, self.heads, self.hidden, self.eps)
        ours = dataclasses.replace(self, qkv_bias=True, layer_scale=False, last_norm=True)
        return ours == usual

    @property
    def name(self) -> str:
        """The name in TRANSFORMERS where `backbones.build` makes the same network, else a description."""
        for name, (width, depth, heads) in TRANSFORMERS.items():
            usual = VitMeasures(self.patch * PATCHES, self.patch, width, depth, heads, 4 * width, 1e-6)
            if self == usual:
                return name
        parts = [f"vit-{self.width}x{self.depth}"]
        parts += [f"registers{self.registers}"] * bool(self.registers)
        parts += ["rotary"] * self.rotary + ["without-class-token"] * (not self.class_token) + ["pooled"] * self.pooled
        parts += [self.activation] * (self.activation != "gelu")
        return "-".join(parts)


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., 2021, 2103.17239)."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class MeasuredBlock(Block):
    """A Block in given measures, with layer scale where the weights have it (DINOv2: Oquab et al., 2023, 2304.07193)."""

    def __init__(self, measures: VitMeasures):
        m = measures
        super().__init__(m.width, m.heads)
        self.norm1.eps = self.norm2.eps = m.eps
        self.attn.qkv = nn.Linear(m.width, 3 * m.width, bias=m.qkv_bias)
        self.mlp = Mlp(m.width, m.hidden, m.activation)
        self.ls1 = LayerScale(m.width) if m.layer_scale else nn.Identity()
        self.ls2 = LayerScale(m.width) if m.layer_scale else nn.Identity()

    def forward(self, x: Tensor, angles: Angles | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), angles))  # (N, T, d)
        return x + self.ls2(self.mlp(self.norm2(x)))


class MeasuredVit(VisionTransformer):
    """A VisionTransformer in given measures."""

    def __init__(self, measures: VitMeasures):
        m = self.measures = measures
        super().__init__(m.image_size, m.patch, m.width, m.depth, m.heads)
        self.blocks = nn.ModuleList(MeasuredBlock(m) for _ in range(m.depth))
        self.norm = nn.LayerNorm(m.width, eps=m.eps) if m.last_norm else nn.Identity()
        if not m.patch_bias:
            self.patch_embed = PatchEmbed(m.patch, m.width, bias=False)
        if not m.class_token:
            self.cls_token = None
        if m.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, m.registers, m.width))
        self.placed, self.antialias = m.placed, m.registers > 0  # as DINOv2's with registers do, and no others
        if m.rotary:
            self.pos_embed, self.rope = None, RotaryPositions(m.width // m.heads)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, m.placed + self.side**2, m.width))
        if m.first_norm:
            self.norm_pre = nn.LayerNorm(m.width, eps=m.eps)
        if m.pooled:
            self.attn_pool = AttentionPool(m.width, m.heads, m.hidden, m.eps, m.activation)


def vit_measures(
    weights: dict[str, Tensor],
    *,
    eps: float,
    heads: int | None = None,
    activation: str = "gelu",
    image_size: int | None = None,
) -> VitMeasures:
    """What the shapes of weights in timm's names say; the keywords are not among it.

    heads       looked up in HEADS where it isn't given and no rotary positions tell it
    image_size  pixels a side that a network with rotary positions is meant for, which fit any (default: about 224)

    Raises CourseError when the heads can't be known, or for images or patches that aren't square.
    """
    for name in ("pos_embed",) * ("rope.periods" not in weights) + ("blocks.0.mlp.fc1.weight",):
        if name not in weights:
            raise CourseError(
                f"this vision transformer has no {name}; the course reads those with learned, fixed or rotary positions and a "
                "two-layer network in each block."
            )
    width, channels, patch, patch_across = (*weights["patch_embed.proj.weight"].shape, 0, 0, 0)[:4]
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    side, placed = _sides(weights, registers, patch, image_size)
    if channels != 3 or patch != patch_across or side is None:
        count = weights["pos_embed"].shape[1] if "pos_embed" in weights else 0
        raise CourseError(
            f"this vision transformer has patches of {patch}x{patch_across} pixels, {channels} channels and {count} "
            "positions; the course reads square patches of square images with three channels."
        )
    if "cls_token" not in weights and placed:
        raise CourseError(
            "this vision transformer has no cls_token, and its positions count one; get the whole file again."
        )
    if "rope.periods" in weights:
        heads = width // (4 * max(1, len(weights["rope.periods"])))
    heads = heads or HEADS.get(width)
    if heads is None or heads < 1 or width % heads:
        raise CourseError(
            f"the weights don't say how many attention heads a vision transformer of width {width} has"
            f"{'' if heads is None else f', and {heads} do not divide it'}; give it as heads=N."
        )
    return VitMeasures(
        image_size=side * patch,
        patch=patch,
        width=width,
        depth=_count(weights, r"blocks\.(\d{1,4})\."),
        heads=heads,
        hidden=len(weights["blocks.0.mlp.fc1.weight"]),
        eps=eps,
        qkv_bias="blocks.0.attn.qkv.bias" in weights,
        layer_scale="blocks.0.ls1.gamma" in weights,
        last_norm="norm.weight" in weights or "fc_norm.weight" not in weights,
        activation=activation,
        class_token="cls_token" in weights,
        registers=registers,
        placed=placed,
        rotary="rope.periods" in weights,
        first_norm="norm_pre.weight" in weights,
        pooled="attn_pool.latent" in weights,
        # a patch embedding without a bias is CLIP's, which has a norm behind it; elsewhere a bias that isn't there is lost
        patch_bias="patch_embed.proj.bias" in weights or "norm_pre.weight" not in weights,
    )


def _sides(weights: dict[str, Tensor], registers: int, patch: int, image_size: int | None) -> tuple[int | None, int]:
    """Patches in a row, and how many of the tokens before them have positions; (None, 0) where no square fits."""
    if "rope.periods" in weights:
        side = round((image_size or USUAL_SIZE) / patch) if patch else 0
        return side or None, 0
    shape = weights["pos_embed"].shape
    for placed in (1, 0, 1 + registers):
        side = math.isqrt(max(shape[1] - placed, 0)) if len(shape) == 3 else 0
        if side and side * side == shape[1] - placed:
            return side, placed
    return None, 0


def measures_of(backbone: Backbone) -> ResNetMeasures | VitMeasures:
    """What decides a backbone's function, its weights apart. Raises CourseError for a trunk that isn't known."""
    trunk = backbone.trunk
    if isinstance(trunk, (MeasuredResNet, MeasuredVit)):
        return trunk.measures
    weights = trunk.state_dict()
    if isinstance(trunk, ResNet):
        return resnet_measures(weights, backbone.stem)
    if isinstance(trunk, VisionTransformer):
        return vit_measures(weights, eps=trunk.norm.eps, heads=trunk.blocks[0].attn.heads)
    raise CourseError(
        f"a trunk of the kind {type(trunk).__name__} can't be written; ResNets and vision transformers can."
    )


def _count(weights: dict[str, Tensor], pattern: str) -> int:
    """How many blocks have names that begin so. Raises CourseError where their numbers leave some out."""
    found = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
    if found and max(found) != len(found) - 1:
        raise CourseError(
            f"the network has {len(found)} blocks, and the last one has the number {max(found)}, counted from 0; some are "
            "missing: get the whole file again."
        )
    return len(found)
