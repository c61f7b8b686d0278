"""Finding what is wrong when only what is right is known: one-class scores on features, for pictures and for patches.

A factory has thousands of pictures of good pieces, and hardly any of bad ones, each bad in its own way. So learn what
normal features look like, and score a piece by how far from them it lies. With a picture's one feature, a scorer says
whether something is wrong; with a feature for every patch, it says where.

Nothing here may learn from a defective picture, not even a mean: a scale that knows the defects hides them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, suggest, whole_number
from sslcourse.features import checked_features, refuse_not_finite

# --- planted defects ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Planted:
    """Pictures with a defect each.

    images  uint8 (N, 3, H, W)
    masks   bool (N, H, W): the pixels that a defect changed
    kinds   int64 (N,): places in `names`
    names   the kinds that were asked for
    """

    images: Tensor
    masks: Tensor
    kinds: Tensor
    names: tuple[str, ...]


def plant(
    images: ImageSet | Tensor, kinds: Sequence[str] = (), *, seed: int = 0, where: Tensor | None = None
) -> Planted:
    """Spoil a copy of every picture with one defect, of each kind equally often: uint8 (N, 3, H, W).

    kinds   of KINDS; by default all of them
    where   bool (N, H, W): pixels that a defect may be centred on, such as `instances > 0`; by default the middle half

    Place, size and strength depend on `seed` and the picture's place in the batch alone. Raises CourseError for an
    unknown kind, images that aren't uint8, and a picture without a pixel to centre a defect on.
    """
    pixels = images.images if isinstance(images, ImageSet) else images
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] != 3 or not len(pixels):
        raise CourseError(
            f"defects are planted in uint8 images (N, 3, H, W), at least one, and got {pixels.dtype} {tuple(pixels.shape)}."
        )
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds) or tuple(KINDS)
    for name in names:
        if name not in KINDS:
            raise CourseError(f"defect {name!r} is unknown{suggest(name, KINDS)}; choose of {', '.join(KINDS)}.")
    n, _, h, w = pixels.shape
    where = _middle(h, w).expand(n, h, w) if where is None else where.cpu()
    if where.dtype != torch.bool or where.shape != (n, h, w):
        raise CourseError(f"where must be bool {(n, h, w)}, and is {where.dtype} {tuple(where.shape)}.")
    if not where.flatten(1).any(dim=1).all():
        raise CourseError("a picture has no pixel to centre a defect on; leave it out, or allow more in `where`.")
    spoiled, masks = pixels.cpu().clone(), torch.zeros(n, h, w, dtype=torch.bool)
    chosen = torch.arange(n) % len(names)  # (n,)
    for i in range(n):
        generator = devices.generator(devices.derive_seed(seed, "defect", i))
        places = where[i].nonzero()  # (P, 2)
        centre = places[torch.randint(len(places), (1,), generator=generator)[0]].float()  # row, column
        before = spoiled[i].float()  # (3, h, w)
        after = KINDS[names[chosen[i]]](before, centre, generator)
        spoiled[i] = after.round().clamp(0, 255).to(torch.uint8)
        masks[i] = (spoiled[i] != pixels[i].cpu()).any(dim=0)
    return Planted(spoiled, masks, chosen, names)


def scratch(image: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
    """A thin straight line through `centre`, lighter or darker: float (3, H, W) in [0, 255] -> the same."""
    down, right = _offsets(image, centre)
    angle, length, light = torch.rand(3, generator=generator).tolist()
    angle = torch.tensor(angle * torch.pi)
    along, across = down * angle.sin() + right * angle.cos(), down * angle.cos() - right * angle.sin()  # (H, W)
    side = min(image.shape[-2:])
    share = (1.1 - across.abs() * 32 / side).clamp(0, 1) * (along.abs() < side * (0.15 + 0.15 * length))  # soft edge
    return image + share * (235.0 * (light > 0.5) - image) * 0.8


def missing(image: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
    """A square of the picture's mean colour: float (3, H, W) in [0, 255] -> the same."""
    half = min(image.shape[-2:]) * (0.08 + 0.05 * torch.rand(1, generator=generator))
    inside = torch.stack(_offsets(image, centre)).abs().amax(dim=0) <= half  # (H, W)
    return torch.where(inside, image.mean(dim=(1, 2), keepdim=True), image)


def blot(image: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
    """A dark spot with a soft edge: float (3, H, W) in [0, 255] -> the same."""
    radius = min(image.shape[-2:]) * (0.07 + 0.05 * torch.rand(1, generator=generator))
    away = torch.stack(_offsets(image, centre)).square().sum(dim=0).sqrt()  # (H, W)
    share = ((radius - away) / 1.5 + 0.5).clamp(0, 1) * 0.75
    return image * (1 - share) + 30 * share


def wrong_hue(image: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
    """Red, green and blue exchanged in a disc, so that its structure stays: float (3, H, W) in [0, 255] -> the same."""
    radius = min(image.shape[-2:]) * (0.14 + 0.06 * torch.rand(1, generator=generator))
    inside = torch.stack(_offsets(image, centre)).square().sum(dim=0).sqrt() <= radius  # (H, W)
    return torch.where(inside, image.roll(1, dims=0), image)


KINDS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "scratch": scratch,
    "missing patch": missing,
    "blot": blot,
    "wrong hue": wrong_hue,
}


def _offsets(image: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Rows down and columns right of `centre`, float (H, W) each."""
    h, w = image.shape[-2:]
    down, right = torch.meshgrid(torch.arange(h) - centre[0], torch.arange(w) - centre[1], indexing="ij")
    return down, right


def _middle(h: int, w: int) -> Tensor:
    inside = torch.zeros(h, w, dtype=torch.bool)
    inside[h // 4 : h - h // 4, w // 4 : w - w // 4] = True
    return inside


# --- one-class scores --------------------------------------------------------------------------------------------


class NearestNormal:
    """How far is the nearest normal feature? The distance to the k nearest rows of a memory, on average.

    Features are standardized by the normal ones first. With patches as rows this is PatchCore's memory bank (Roth et
    al., 2021, 2106.08265), drawn at random where PatchCore takes a core set.

    memory   how many rows are kept, drawn by `seed`; None keeps all
    """

    def __init__(self, k: int = 1, *, memory: int | None = None, seed: int = 0):
        self.k = whole_number("k", k)
        self.memory = None if memory is None else whole_number("memory", memory)
        self.seed = seed

    def fit(self, normal: Tensor) -> NearestNormal:
        """Learn from the features of normal pictures or patches alone: (N, d), N at least k."""
        x = checked_features(normal, least=max(2, self.k)).float()
        self.mean, self.scale = _moments(x)
        if self.memory is not None and self.memory < len(x):
            x = x[torch.randperm(len(x), generator=devices.generator(self.seed))[: self.memory]]
        self.bank = (x - self.mean) / self.scale  # (memory, d)
        return self

    def score(self, features: Tensor) -> Tensor:
        """features (M, d) -> float (M,), at least 0; larger is stranger."""
        _refuse_unfitted(self, "bank")
        x = (checked_features(features, width=self.bank.shape[1]).float() - self.mean) / self.scale
        k = min(self.k, len(self.bank))
        nearest = [
            torch.cdist(part, self.bank).topk(k, dim=1, largest=False).values for part in x.split(4096)
        ]  # (m, k)
        return torch.cat(nearest).mean(dim=1)


class Mahalanobis:
    """How far from the mean, in units of the spread in that direction (Mahalanobis, 1936).

    One Gaussian for all normal features, its covariance shrunk as Ledoit and Wolf (2004) do, so that it can be inverted.
    PaDiM (Defard et al., 2020, 2011.08785) has one Gaussian for each place of the picture: that needs pieces that always
    lie in the same place.
    """

    def fit(self, normal: Tensor) -> Mahalanobis:
        """Learn from the features of normal pictures or patches alone: (N, d), N at least 2."""
        x = checked_features(normal, least=2).float()
        self.mean, self.scale = _moments(x)
        covariance = LedoitWolf(assume_centered=True).fit(((x - self.mean) / self.scale).double().numpy()).covariance_
        self.factor = torch.linalg.cholesky(torch.from_numpy(covariance)).float()  # (d, d), lower
        return self

    def score(self, features: Tensor) -> Tensor:
        """features (M, d) -> float (M,), at least 0; larger is stranger."""
        _refuse_unfitted(self, "factor")
        x = (checked_features(features, width=len(self.mean)).float() - self.mean) / self.scale
        return torch.linalg.solve_triangular(self.factor, x.T, upper=False).norm(dim=0)


class StrangestPatch:
    """A picture is as strange as its strangest patch, by the Mahalanobis distance between patches of all places.

    pictures   how many normal maps it learns from, the first ones
    """

    def __init__(self, pictures: int = 200):
        self.pictures = whole_number("pictures", pictures)

    def fit(self, normal: Tensor) -> StrangestPatch:
        """Learn from maps of normal pictures alone: (N, d, h, w)."""
        self.scorer = Mahalanobis().fit(rows(normal[: self.pictures]))
        return self

    def score(self, maps: Tensor) -> Tensor:
        """maps (M, d, h, w) -> float (M,), at least 0; larger is stranger."""
        _refuse_unfitted(self, "scorer")
        return worst_patch(heat_maps(self.scorer, maps))


Scorer = NearestNormal | Mahalanobis


def rows(maps: Tensor) -> Tensor:
    """The patches of maps (N, d, h, w) as rows, picture after picture: (N * h * w, d)."""
    if maps.dim() != 4:
        raise CourseError(f"maps of features must be (N, d, h, w), and are {tuple(maps.shape)}.")
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


def heat_maps(scorer: Scorer, maps: Tensor) -> Tensor:
    """The score of every patch: maps (N, d, h, w) -> float (N, h, w); `scorer` was fitted on `rows` of normal maps."""
    return scorer.score(rows(maps)).view(len(maps), *maps.shape[2:])


def worst_patch(heat: Tensor) -> Tensor:
    """The score of a picture is that of its strangest patch: (N, h, w) -> (N,)."""
    return heat.amax(dim=(1, 2))


def pixel_patches(images: ImageSet | Tensor, side: int = 4, stride: int = 2) -> Tensor:
    """The baseline without a network, all pixels of each window: uint8 (N, 3, H, W) -> float (N, 3 * side * side, h, w)."""
    pixels = images.images if isinstance(images, ImageSet) else images
    side, stride = whole_number("side", side), whole_number("stride", stride)
    if side > min(pixels.shape[-2:]):
        raise CourseError(f"windows of side {side} and stride {stride} don't fit {tuple(pixels.shape[-2:])} pixels.")
    x = augment.to_float(pixels)
    h, w = ((size - side) // stride + 1 for size in x.shape[-2:])
    return functional.unfold(x, side, stride=stride).unflatten(2, (h, w))


# --- how well it is told apart -----------------------------------------------------------------------------------


def auroc(scores: Tensor, defective: Tensor) -> float:
    """The chance that a defective one gets a higher score than a normal one, in [0, 1]; ties count half.

    scores float (N,), larger is stranger; defective bool (N,), both kinds in it. 0.5 is guessing, and less than that
    usually a sign: the score's.
    """
    scores, defective = torch.as_tensor(scores), torch.as_tensor(defective)
    if scores.dim() != 1 or scores.shape != defective.shape or defective.dtype != torch.bool:
        raise CourseError(
            f"AUROC needs scores (N,) and bool (N,), and got {tuple(scores.shape)} and {defective.dtype} "
            f"{tuple(defective.shape)}."
        )
    if defective.all() or not defective.any():
        raise CourseError("AUROC compares defective pictures with normal ones, and one of the two is missing.")
    refuse_not_finite(scores, "the scores")
    return float(roc_auc_score(defective.numpy(), scores.detach().cpu().double().numpy()))


def threshold_for(normal_scores: Tensor, false_alarms: float = 0.05) -> float:
    """The score above which a share `false_alarms` of held-out normal pictures (N,) lies: no defect is needed to set it."""
    if not 0 < false_alarms < 1:
        raise CourseError(f"false_alarms is a share in (0, 1), and is {false_alarms!r}.")
    if normal_scores.dim() != 1 or not len(normal_scores):
        raise CourseError(f"the threshold needs scores (N,) of normal pictures, and got {tuple(normal_scores.shape)}.")
    refuse_not_finite(normal_scores, "the scores of normal pictures")
    return torch.quantile(normal_scores.double(), 1 - false_alarms).item()


# --- the border --------------------------------------------------------------------------------------------------


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of (N, d); 1 for a column that doesn't vary."""
    scale = x.std(dim=0)
    return x.mean(dim=0), torch.where(scale > 1e-8, scale, 1.0)


def _refuse_unfitted(scorer: Scorer, learned: str) -> None:
    if not hasattr(scorer, learned):
        raise CourseError("this scorer knows nothing normal yet; call fit(normal) first.")
