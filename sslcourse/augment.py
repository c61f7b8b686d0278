"""Augmentations of a whole batch at once, on the device the images are on.

Images are float (N, 3, H, W) in [0, 1] unless a function says otherwise. Nothing here loops over images: geometry
is two matrix products per image (resampling is linear and separable), colour is one (brightness, contrast,
saturation, hue and gray are affine maps of RGB). All randomness comes from the generator that is passed in,
which lives on the images' device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse.device import constant, made_once

LUMA = (
    0.299,
    0.587,
    0.114,
)  # weights of red, green and blue in gray (ITU-R BT.601), as Pillow and torchvision use
RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height, the extremes
TO_YIQ = (LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))  # gray and two axes of chroma


def to_float(images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) to float32 in [0, 1]; float images pass through."""
    return images if images.is_floating_point() else images.float().div_(255)


# --- the symmetries of the square: exact, no interpolation -------------------------------------------------------


def rotate90(images: Tensor, quarter_turns: Tensor) -> Tensor:
    """Rotate image i counter-clockwise by quarter_turns[i] * 90 degrees; any dtype, square images (N, C, H, H).

    quarter_turns is int64 (N,), any integer (taken modulo 4). Pixels move and keep their values: no interpolation.
    """
    return square_symmetry(images, quarter_turns % 4)


def square_symmetry(images: Tensor, elements: Tensor) -> Tensor:
    """Apply one of the eight symmetries of the square to each image; any dtype, square images (N, C, H, H).

    elements is int64 (N,) in [0, 8): element e mirrors left and right when e >= 4, and then turns counter-clockwise
    by (e % 4) * 90 degrees.
    """
    count, channels, side, _ = images.shape
    source = _sources(side, images.device)[elements]  # (N, H * H): which pixel comes to each place
    moved = images.flatten(2).gather(2, source[:, None].expand(-1, channels, -1))  # (N, C, H * H)
    return moved.view(count, channels, side, side)


@made_once
def _sources(side: int, device: torch.device) -> Tensor:
    """For each of the eight symmetries, the pixel that it brings to each place: int64 (8, side * side)."""
    places = torch.arange(side * side, device=device).view(side, side)
    return torch.stack([one_symmetry(places, element).flatten() for element in range(8)])


def one_symmetry(images: Tensor, element: int) -> Tensor:
    """The same symmetry of the square for every image (..., H, H); `element` as in `square_symmetry`."""
    return torch.rot90(images.flip(-1) if element >= 4 else images, element % 4, dims=(-2, -1))


# --- crop, resize, flip, blur: two matrices per image ------------------------------------------------------------


def resampling_matrix(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Weights that resample, for each image, the stretch [start, start + length) of a row of `size` pixels to `out`.

    start and length are (N,) in pixels; a negative length reads backwards: a mirror. The filter is a triangle, widened
    when the stretch shrinks, as Pillow's and torchvision's antialiased bilinear resize. Returns (N, out, size), rows
    summing to 1.
    """
    pixel = torch.arange(size, device=start.device) + 0.5  # (size,) centres of the pixels read
    target = (torch.arange(out, device=start.device) + 0.5) / out  # (out,) centres of the pixels written, in [0, 1]
    centre = start[:, None] + target * length[:, None]  # (N, out)
    reach = (length.abs() / out).clamp(min=1.0)[:, None, None]  # (N, 1, 1)
    end = start + length
    inside = (pixel > torch.minimum(start, end)[:, None]) & (pixel < torch.maximum(start, end)[:, None])  # (N, size)
    seen = torch.where(inside, pixel, math.inf)  # (N, size): the filter must not see outside the crop
    # In place, since memory for N * out * size numbers costs as much as the arithmetic: 1 - |centre - seen| / reach.
    weight = (centre[:, :, None] - seen[:, None]).abs_().div_(-reach).add_(1).clamp_(min=0)  # (N, out, size)
    return weight.div_(weight.sum(dim=-1, keepdim=True).clamp_(min=1e-8))


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Gaussian blur of a row as a matrix: sigma (N,) in pixels, 0 for none; returns (N, size, size), rows summing to 1."""
    position = torch.arange(size, device=sigma.device, dtype=torch.float32)
    squared = (position[:, None] - position).square()  # (size, size)
    weight = torch.exp(-squared / (2 * sigma.clamp(min=1e-3).square()[:, None, None]))  # (N, size, size)
    return weight / weight.sum(dim=-1, keepdim=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (N, h, H) and columns (N, w, W) applied to images (N, C, H, W): the result is (N, C, h, w)."""
    count, channels, height, width = images.shape
    out = (rows.shape[1], columns.shape[1])
    lines = images.transpose(1, 2).reshape(count, height * channels, width)  # (N, H*C, W): free for `in_lines`
    narrowed = torch.bmm(lines, columns.transpose(1, 2)).view(count, height, channels * out[1])
    return torch.bmm(rows, narrowed).view(count, out[0], channels, out[1]).transpose(1, 2)


def in_lines(images: Tensor) -> Tensor:
    """The same images (N, C, H, W), in memory row by row with the channels of a row together, as `resample` reads them."""
    return images.transpose(1, 2).contiguous().transpose(1, 2)


IN_ORDER = ("cpu",)  # devices on which the gradients of `interpolate` are added up in one order


def resize(maps: Tensor, size: tuple[int, int], mode: str = "bilinear", antialias: bool = False) -> Tensor:
    """`functional.interpolate(maps, size, mode=mode, antialias=antialias)`, the same bits in every run: (N, C, H, W) -> (N, C, *size).

    On a GPU the gradients of `interpolate` and of adaptive pooling are added up in any order, so that no two runs give
    the same bits; those of two matrix products are not, and agree with it but for rounding. On a CPU the order is
    fixed, and `interpolate` the faster way. mode is "bilinear", "bicubic" or "area" (the mean over cells).
    """
    if maps.shape[-2:] == size:
        return maps
    if maps.device.type in IN_ORDER:
        return functional.interpolate(maps, size, mode=mode, antialias=antialias)
    rows, columns = (
        _interpolation(side, out, mode, antialias, maps.device, maps.dtype)  # (out, side)
        for side, out in zip(maps.shape[-2:], size, strict=True)
    )
    return rows @ (maps @ columns.T)


@made_once
def _interpolation(side: int, out: int, mode: str, antialias: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What `interpolate` makes of a row of `side` numbers, as a matrix (out, side): its answers to the unit vectors."""
    units = torch.eye(side, device=device).view(side, 1, 1, side)
    return functional.interpolate(units, (1, out), mode=mode, antialias=antialias).view(side, out).T.to(dtype)


def random_boxes(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = RATIO,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crop boxes (top, left, height, width), each float (count,) in pixels, inside an image of height x width.

    The area is a share of the image drawn uniformly from `scale`, the aspect ratio (width / height) log-uniformly from
    `ratio` (Szegedy et al., 2014, 1409.4842); a side that would leave the image is cut to its length.
    """
    return _boxes(_draws(generator, 4, count), height, width, scale, ratio)


def _boxes(
    draws: Iterator[Tensor], height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c, d = (next(draws) for _ in range(4))  # (count,) each
    area = height * width * (scale[0] + (scale[1] - scale[0]) * a)
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * b)
    h = (area / aspect).sqrt().clamp(min=1, max=height)
    w = (area * aspect).sqrt().clamp(min=1, max=width)
    return (height - h) * c, (width - w) * d, h, w


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    size: int | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = RATIO,
    flip: float = 0.5,
    blur: float = 0.0,
    sigma: tuple[float, float] = (0.1, 2.0),
) -> Tensor:
    """A random crop of each image, resized to size x size (default: the images' height), mirrored with probability
    `flip` and blurred with probability `blur` by a Gaussian of `sigma` pixels. (N, C, H, W) -> (N, C, size, size).
    """
    draws = _draws(generator, _cropping(blur), len(images))
    return _cropped(images, draws, size or images.shape[-2], scale, ratio, flip, blur, sigma)


def _cropping(blur: float) -> int:
    """How many random numbers a crop takes for each image."""
    return 7 if blur > 0 else 5


def _cropped(
    images: Tensor, draws: Iterator[Tensor], out: int, scale: tuple[float, float], ratio: tuple[float, float],
    flip: float, blur: float, sigma: tuple[float, float],
) -> Tensor:  # fmt: skip
    """One crop of each image for each number drawn: (N, C, H, W) -> (views * N, C, out, out), the first views first."""
    height, width = images.shape[-2:]
    top, left, h, w = _boxes(draws, height, width, scale, ratio)
    mirrored = next(draws) < flip
    columns = resampling_matrix(torch.where(mirrored, left + w, left), torch.where(mirrored, -w, w), width, out)
    rows = resampling_matrix(top, h, height, out)
    if blur > 0:
        strength = _between(*sigma, next(draws)) * (next(draws) < blur)  # (views * N,), 0 where not blurred
        smooth = blur_matrix(strength, out)
        rows, columns = smooth @ rows, smooth @ columns
    views = zip(rows.split(len(images)), columns.split(len(images)), strict=True)
    return torch.cat([resample(images, *matrices) for matrices in views])


def random_flip(images: Tensor, generator: torch.Generator, probability: float = 0.5) -> Tensor:
    """Mirror each image left and right with the given probability."""
    mirrored = next(_draws(generator, 1, len(images))) < probability  # (N,)
    column = torch.arange(images.shape[-1], device=images.device)
    source = torch.where(mirrored[:, None], column.flip(0), column)  # (N, W): which column comes to each place
    return images.gather(-1, source[:, None, None].expand(images.shape))


def random_shift(images: Tensor, generator: torch.Generator, pixels: int = 4) -> Tensor:
    """Move each image by up to `pixels` whole pixels each way; what comes in from outside repeats the border."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pixels,) * 4, mode="replicate")  # (N, C, H + 2p, W + 2p)
    top, left = torch.randint(2 * pixels + 1, (2, count), generator=generator, device=images.device)  # (N,) each
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p + 1, 2p + 1, H, W): views, nothing is copied
    return windows[torch.arange(count, device=images.device), :, top, left]  # (N, C, H, W)


# --- colour: one affine map of RGB per image ---------------------------------------------------------------------


def color_matrix(brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """The product of hue rotation, saturation and brightness as one map of RGB: inputs (N,), output (N, 3, 3).

    brightness and saturation are factors (1 changes nothing), as in torchvision. hue is in turns, in [-0.5, 0.5], and
    rotates the chroma plane of YIQ: unlike a hue shift in HSV it is linear, and it keeps the gray value exactly.
    """
    to_yiq, from_yiq = constant(TO_YIQ, hue.device), _from_yiq(hue.device)  # (3, 3) each
    angle = 2 * math.pi * hue
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(hue), torch.zeros_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)  # (N, 3, 3)
    rotate = from_yiq @ turn @ to_yiq  # (N, 3, 3)
    identity, gray = torch.eye(3, device=hue.device), to_yiq[0].expand(3, 3)
    saturate = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * gray  # (N, 3, 3)
    return brightness[:, None, None] * (saturate @ rotate)


@made_once
def _from_yiq(device: torch.device) -> Tensor:
    return torch.linalg.inv(torch.tensor(TO_YIQ)).to(
        device
    )  # on the CPU: on a GPU the inverse would wait for its check


def color_jitter(
    images: Tensor,
    generator: torch.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    probability: float = 0.8,
    gray: float = 0.2,
) -> Tensor:
    """Colour jitter with `probability`, then gray with probability `gray`; the result is clipped to [0, 1].

    Factors are drawn uniformly from [max(0, 1 - s), 1 + s], hue from [-hue, hue] turns, for each image. Everything is
    one affine map per image in a fixed order (torchvision shuffles the order and clips in between).
    """
    return _jittered(
        images, _draws(generator, JITTER, len(images)), brightness, contrast, saturation, hue, probability, gray
    )


JITTER = 6  # random numbers that colour jitter takes for each image


def _jittered(
    images: Tensor, draws: Iterator[Tensor], brightness: float, contrast: float, saturation: float, hue: float,
    probability: float, gray: float,
) -> Tensor:  # fmt: skip
    on = next(draws) < probability  # (N,)
    bright, contrasted, saturated = (
        torch.where(on, _between(max(0.0, 1 - s), 1 + s, next(draws)), 1.0) for s in (brightness, contrast, saturation)
    )  # (N,) each
    turned = _between(-hue, hue, next(draws)) * on
    saturated = torch.where(next(draws) < gray, 0.0, saturated)
    matrix = color_matrix(bright, saturated, turned)  # (N, 3, 3)
    flat = images.flatten(2)  # (N, 3, H*W)
    luma = constant(LUMA, images.device)
    mean = bright * (luma @ flat.mean(dim=2).T)  # (N,) mean gray after brightness: hue and saturation keep it
    matrix = contrasted[:, None, None] * matrix
    offset = ((1 - contrasted) * mean)[:, None, None].expand(-1, 3, 1)  # (N, 3, 1)
    return torch.baddbmm(offset, matrix, flat).clamp_(0, 1).view_as(images)


def solarize(images: Tensor, generator: torch.Generator, probability: float = 0.2, threshold: float = 0.5) -> Tensor:
    """Invert the values above `threshold`, for each image with the given probability."""
    return _solarized(images, next(_draws(generator, 1, len(images))) < probability, threshold)


def _solarized(images: Tensor, chosen: Tensor, threshold: float = 0.5) -> Tensor:
    on = chosen[:, None, None, None]
    return torch.where(on & (images >= threshold), 1 - images, images)


# --- views: what the methods that compare views compare ----------------------------------------------------------


def view(
    images: Tensor,
    generator: torch.Generator,
    *,
    times: int = 1,
    size: int | None = None,
    scale: tuple[float, float] = (0.2, 1.0),
    flip: float = 0.5,
    jitter: float = 0.5,
    gray: float = 0.2,
    blur: float = 0.0,
    solarized: float = 0.0,
) -> Tensor:
    """Random views of each image, after SimCLR's recipe (Chen et al., 2020, 2002.05709): (N, 3, H, W) -> (times * N, 3, size, size).

    images     uint8, or float in [0, 1]
    times      views of each image, the first ones of all images first; drawn as `times` calls would draw them
    size       pixels; by default the images' height
    scale      share of the picture that a crop takes; with (1, 1) its shape alone trims one side, by up to 13%
    jitter     strength of the colour jitter, with probability 0.8; the paper takes 1, and 0.5 for CIFAR-10
    flip, gray, blur, solarized   probabilities. The paper blurs no small images
    """
    out = size or images.shape[-2]
    sigma = (0.1, max(0.2, out / 112))  # two pixels for images of 224, as in the paper
    coloured = bool(jitter or gray)
    draws = _draws(generator, _cropping(blur) + JITTER * coloured + bool(solarized), len(images), times)
    seen = _cropped(to_float(in_lines(images)), draws, out, scale, RATIO, flip, blur, sigma)
    if coloured:
        strength = 0.8 * jitter
        seen = _jittered(seen, draws, strength, strength, strength, 0.2 * jitter, probability=0.8, gray=gray)
    return _solarized(seen, next(draws) < solarized) if solarized else seen


def _draws(generator: torch.Generator, kinds: int, count: int, times: int = 1) -> Iterator[Tensor]:
    """`kinds` random numbers in [0, 1) for each view of each image, one kind (times * count,) after the other.

    All in one call, since a GPU is asked for each call: a view takes a dozen of them.
    """
    drawn = torch.rand(times, kinds, count, generator=generator, device=generator.device)
    return iter(drawn.transpose(0, 1).reshape(kinds, -1).unbind())


def _between(low: float, high: float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw
