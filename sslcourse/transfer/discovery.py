"""Finding the object without any label: pictures cut in two by the features of their patches.

A map of features (N, d, h, w) has a vector for every patch of a picture. Patches of one thing are alike, so a picture is
a graph whose nodes are patches, and an object is what a good cut separates from the rest. Which of the two sides is the
object, no cut can say; that takes an assumption, and it is stated as one: an object touches the picture's border less
than its background does.

Everything here takes maps from anywhere, the colours of the picture as well, so that a baseline is the same call.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import scipy.linalg
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, real_number, whole_number
from sslcourse.features import checked_features, refuse_not_finite

# --- a vector for every patch ------------------------------------------------------------------------------------


@torch.no_grad()
def patch_features(
    backbone: Backbone,
    images: ImageSet | Tensor,
    *,
    stages: Sequence[int] = (1, 2),
    enlarge: int = 1,
    grid: int | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 256,
) -> Tensor:
    """The maps of some stages, side by side, on one grid: float32 (N, d, h, w), on the CPU.

    stages    each stage's vectors are brought to length 1, so that every stage counts alike
    enlarge   the pictures are brought to this many times their size first (bilinear), which makes the maps finer
    grid      patches a side; by default as many as the finest of these maps has. A finer map is averaged, a coarser one
              interpolated
    The backbone stays where and as it was.
    """
    stages, last = list(stages), len(backbone.channels)
    if not stages or any(stage not in range(1, last + 1) for stage in stages):
        raise CourseError(f"stages are whole numbers from 1 to {last}, at least one, and are {stages}.")
    enlarge, grid = whole_number("enlarge", enlarge), None if grid is None else whole_number("grid", grid)
    pixels = images.images if isinstance(images, ImageSet) else images
    if len(pixels) == 0:
        raise CourseError("there are no images to take features from; give at least one.")
    device, parts = devices.pick_device(device), []
    with devices.on(device, backbone), devices.evaluating(backbone):
        for part in pixels.split(batch_size):
            x = augment.to_float(part.to(device))  # (n, 3, H, W)
            if enlarge > 1:
                x = functional.interpolate(x, scale_factor=enlarge, mode="bilinear", align_corners=False)
            maps = backbone.stages(x)  # (n, C_s, H_s, W_s) each
            chosen = [functional.normalize(maps[stage - 1].float(), dim=1) for stage in stages]
            size = max(m.shape[-2:] for m in chosen) if grid is None else (grid, grid)
            parts.append(torch.cat([_resized(m, size) for m in chosen], dim=1).cpu())
    return torch.cat(parts)


def _resized(m: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (N, C, H, W) on another grid."""
    if m.shape[-1] > size[-1]:
        return functional.adaptive_avg_pool2d(m, size)
    return functional.interpolate(m, size, mode="bilinear", align_corners=False)


def patch_colours(images: ImageSet | Tensor, grid: int = 16) -> Tensor:
    """The mean colour of each of grid x grid patches: uint8 (N, 3, H, W) -> float32 (N, 3, grid, grid), in [0, 1]."""
    pixels = images.images if isinstance(images, ImageSet) else images
    grid = whole_number("the grid's patches a side", grid, 1, min(pixels.shape[-2:]))
    return functional.adaptive_avg_pool2d(augment.to_float(pixels), grid)


# --- a picture as a graph ----------------------------------------------------------------------------------------


def affinity(features: Tensor, threshold: float = 0.2, floor: float = 1e-5) -> Tensor:
    """How strongly patches are tied: features (P, d) -> float64 (P, P), 1 where the cosine is above `threshold`, else `floor`.

    TokenCut's graph (Wang et al., 2022, 2202.11539). The mean of the picture is taken off first, since networks send all
    patches into a narrow cone; `floor` keeps the graph in one piece.
    """
    if features.dim() != 2 or len(features) < 2:
        raise CourseError(
            f"an affinity needs features (P, d) of at least two patches, and got {tuple(features.shape)}."
        )
    if not -1 <= threshold < 1 or not 0 < floor < 1:
        raise CourseError(
            f"the threshold is a cosine in [-1, 1) and the floor a weight in (0, 1); they are {threshold!r} and {floor!r}."
        )
    x = checked_features(features, "the features of patches").double()
    unit = functional.normalize(x - x.mean(dim=0), dim=1)  # (P, d)
    return (unit @ unit.T > threshold).double().clamp(min=floor)


def fiedler(weights: Tensor) -> Tensor:
    """The second smallest generalized eigenvector of (D - W) v = lambda D v: symmetric (P, P) -> float64 (P,).

    The relaxed normalized cut (Shi and Malik, 2000): patches that belong together get about the same number. Its sign
    means nothing. Length 1 in the metric of D. Raises CourseError for weights that aren't symmetric and positive.
    """
    w = weights.detach().cpu().double()
    if w.dim() != 2 or w.shape[0] != w.shape[1] or len(w) < 2 or not torch.allclose(w, w.T) or not (w > 0).all():
        raise CourseError(
            f"weights must be a symmetric table (P, P) of numbers above 0, at least 2 x 2, and are {tuple(w.shape)}; "
            "a floor above 0 keeps the graph in one piece."
        )
    degree = torch.diag(w.sum(dim=1))  # (P, P)
    _, vector = scipy.linalg.eigh((degree - w).numpy(), degree.numpy(), subset_by_index=[1, 1])
    return torch.from_numpy(vector[:, 0])


def border_share(inside: Tensor) -> Tensor:
    """Which share of the border's patches is inside: bool (..., h, w) -> float (...)."""
    h, w = inside.shape[-2:]
    frame = torch.ones(h, w, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    return inside[..., frame].float().mean(dim=-1)


def inwards(values: Tensor) -> Tensor:
    """Values (N, h, w) with signs such that what is above 0 touches the border less than what isn't."""
    outside = border_share(values > 0) > border_share(values <= 0)  # (N,)
    return torch.where(outside[:, None, None], -values, values)


# --- ways to find the object -------------------------------------------------------------------------------------


def spectral(maps: Tensor, threshold: float = 0.2) -> Tensor:
    """Cut each picture in two by its Fiedler vector: maps (N, d, h, w) -> float32 (N, h, w), above 0 on the object.

    As TokenCut does (Wang et al., 2022, 2202.11539), with the cut at the vector's mean. There, the object is the side of
    the patch with the largest absolute value; here, it is the side that touches the border less.
    """
    maps = _checked_maps(maps)
    n, _, h, w = maps.shape
    cut = torch.stack([fiedler(affinity(m.flatten(1).T, threshold)).view(h, w) for m in maps])  # (N, h, w)
    cut = cut - cut.mean(dim=(1, 2), keepdim=True)
    return inwards(cut / cut.abs().amax(dim=(1, 2), keepdim=True)).float()


def two_means(maps: Tensor, seed: int = 0) -> Tensor:
    """k-means with two clusters over the patches of each picture: maps (N, d, h, w) -> float32 (N, h, w), above 0 on the object.

    The value is how much nearer a patch is to one centre than to the other, in [-1, 1].
    """
    maps = _checked_maps(maps)
    return inwards(torch.stack([_split(m, seed) for m in maps]))


def _split(m: Tensor, seed: int) -> Tensor:
    """Two clusters of the patches of one map (d, h, w): float32 (h, w) in [-1, 1], of one sign in each."""
    x = m.flatten(1).T.double().numpy()  # (P, d)
    with warnings.catch_warnings():  # a picture of one colour has no two clusters, and then nothing is found
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(2, n_init=2, random_state=seed % 2**32).fit(x)
    away = torch.from_numpy(found.transform(x))  # (P, 2)
    return ((away[:, 0] - away[:, 1]) / away.sum(dim=1).clamp(min=1e-12)).view(m.shape[1:]).float()


def seed_expansion(maps: Tensor, seeds: int = 10) -> Tensor:
    """LOST (Siméoni et al., 2021, 2109.14279): from a seed to the object: maps (N, d, h, w) -> float32 (N, h, w), above 0 on it.

    The seed is the patch that resembles the fewest others, as objects are smaller than backgrounds. It is expanded by
    those of the `seeds` patches of lowest degree that resemble it; the object is what resembles their mean. To resemble
    is a scalar product above 0, once the mean of the picture is taken off, as in `affinity`.
    """
    maps = _checked_maps(maps)
    seeds = whole_number("seeds", seeds)
    n, _, h, w = maps.shape
    values = []
    for m in maps:
        x = m.flatten(1).T  # (P, d)
        x = x - x.mean(dim=0)
        similar = x @ x.T  # (P, P)
        order = (similar > 0).sum(dim=1).argsort(stable=True)[:seeds]
        members = order[(similar[order, order[0]] > 0) | (order == order[0])]  # the seed, whatever it resembles
        values.append((x @ x[members].mean(dim=0)).view(h, w))
    found = torch.stack(values)
    return (found / found.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).float()


class Foreground:
    """A linear classifier of patches, taught by rough masks of many pictures, so that the mistakes of single ones cancel.

    In the spirit of FOUND (Siméoni et al., 2022, 2212.07834), which trains a 1x1 convolution on frozen features with masks
    that were found without a label.

    patches   how many it learns from, drawn by `seed`
    strength  inverse strength C of its L2 penalty
    """

    def __init__(self, patches: int = 20_000, strength: float = 0.01, *, seed: int = 0):
        self.patches = whole_number("patches", patches, 2)
        self.strength, self.seed = real_number("strength", strength, least=1e-12), seed

    def fit(self, maps: Tensor, rough: Tensor) -> Foreground:
        """maps (N, d, h, w), and values (N, h, w) above 0 where a rough method takes a patch for object."""
        maps = _checked_maps(maps)
        if rough.shape != (len(maps), *maps.shape[2:]):
            raise CourseError(
                f"rough masks must have a value for each patch, {(len(maps), *maps.shape[2:])}, and are {tuple(rough.shape)}."
            )
        x, y = _rows(maps), rough.detach().cpu().flatten() > 0  # (N * h * w, d), (N * h * w,)
        chosen = torch.randperm(len(x), generator=devices.generator(self.seed))[: self.patches]
        if y[chosen].all() or not y[chosen].any():
            raise CourseError("the rough masks take every patch for the same; there are no two sides to learn.")
        model = LogisticRegression(C=self.strength, max_iter=1000)
        self.model = make_pipeline(StandardScaler(), model).fit(x[chosen].double().numpy(), y[chosen].numpy())
        return self

    def __call__(self, maps: Tensor) -> Tensor:
        """maps (M, d, h, w) -> float32 (M, h, w) in [-1, 1], above 0 on the object: twice its probability, less 1."""
        maps = _checked_maps(maps)
        if not hasattr(self, "model"):
            raise CourseError("this foreground has learned nothing yet; call fit(maps, rough) first.")
        share = torch.from_numpy(self.model.predict_proba(_rows(maps).double().numpy())[:, 1])  # (M * h * w,)
        return (2 * share - 1).view(len(maps), *maps.shape[2:]).float()


def snap(values: Tensor, colours: Tensor, weight: float = 0.5, seed: int = 0) -> Tensor:
    """Bring a blurred mask to the edges of the picture: values (N, h, w) in [-1, 1] -> float32 (N, h, w), the same range.

    Two clusters over each patch's colour (N, 3, h, w) and `weight` times its value; the object is the side of the larger
    mean value. FOUND has a bilateral solver for this. Weight 0 leaves the value to choose the side alone.
    """
    colours = _checked_maps(colours)
    if values.shape != (len(colours), *colours.shape[2:]):
        raise CourseError(
            f"there must be a value for each patch of colour, {(len(colours), *colours.shape[2:])}, and they are "
            f"{tuple(values.shape)}."
        )
    if not weight >= 0:
        raise CourseError(f"the weight of the values must be at least 0, and is {weight!r}.")
    values = values.detach().cpu().float()
    found = []
    for value, colour in zip(values, colours, strict=True):
        cut = _split(torch.cat([colour, weight * (value[None] + 1) / 2]), seed)  # (h, w)
        inside, outside = value[cut > 0], value[cut <= 0]
        turned = len(inside) and len(outside) and inside.mean() < outside.mean()
        found.append(-cut if turned else cut)
    return torch.stack(found)


def centre_box(count: int, side: int, share: float) -> Tensor:
    """The baseline that looks at nothing: a square in the middle with `share` of the area, bool (count, side, side)."""
    if not 0 < share <= 1:
        raise CourseError(f"the box takes a share of the picture in (0, 1], and {share!r} was asked for.")
    away = (torch.arange(side) + 0.5 - side / 2).abs()  # (side,)
    inside = away <= side * share**0.5 / 2
    return (inside[:, None] & inside).expand(count, side, side).clone()


# --- against the true masks --------------------------------------------------------------------------------------


def to_masks(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (N, h, w), above 0 on the object -> masks bool (N, H, W), by bilinear interpolation."""
    return functional.interpolate(values[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0] > 0


def iou(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of each pair of masks: bool (N, H, W) twice -> float (N,), 1 where both are empty."""
    if found.dtype != torch.bool or true.dtype != torch.bool or found.shape != true.shape or found.dim() != 3:
        raise CourseError(
            f"IoU needs two sets of masks, bool (N, H, W), and got {found.dtype} {tuple(found.shape)} and "
            f"{true.dtype} {tuple(true.shape)}; instances > 0 makes masks of instances."
        )
    both, either = (found & true).sum(dim=(1, 2)), (found | true).sum(dim=(1, 2))
    return torch.where(either == 0, 1.0, both / either.clamp(min=1))


def _rows(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)  # (N * h * w, d)


def _checked_maps(maps: Tensor) -> Tensor:
    if maps.dim() != 4 or not maps.is_floating_point() or min(maps.shape) < 1 or maps.shape[2] * maps.shape[3] < 2:
        raise CourseError(
            f"maps of features must be float (N, d, h, w), and are {maps.dtype} {tuple(maps.shape)}; "
            "discovery.patch_features makes them."
        )
    refuse_not_finite(maps, "the maps")
    return maps.detach().cpu()
