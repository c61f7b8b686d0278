"""ImageSet: images and everything that is known about them, checked once at the border and never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcourse import device as devices
from sslcourse.console import shown
from sslcourse.data.arrays import UNSIGNED, as_tensor, described
from sslcourse.errors import CourseError, whole_number

PER_IMAGE = (
    "images",
    "labels",
    "groups",
    "boxes",
    "box_labels",
    "instances",
)  # tensors whose first dimension is the image
PER_IMAGE_TEXT = ("captions", "names")


def effective_count(groups: Tensor) -> int:
    """As how many unrelated images N images count for a mean over them, when those of a group are all right or all wrong.

    groups  int64 (N,), at least one

    (sum of n)² / sum of n² for groups of n images (Kish, 1965, Survey Sampling), rounded down: the number of groups where
    all are of one size, and fewer where a large one decides more than its share.
    """
    sizes = groups.unique(return_counts=True)[1]
    return int(sizes.sum() ** 2 // sizes.square().sum())


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """N images with what is known about them; what isn't known is None (or empty). Every wrong input is a CourseError.

    images         uint8 (N, 3, H, W), RGB
    labels         int64 (N,) in [0, len(classes)), or None
    classes        names of the classes
    name           what the set is called in tables and messages
    factors        how each image was made: name -> (N,), int64 for a category and float32 for a quantity
    factor_values  names of a factor's categories: factors["colour"][i] == 2 means factor_values["colour"][2]
    boxes          float32 (N, K, 4): left, top, right, bottom of each object in pixels; [0, 0, 0, 0] where there is none
    box_labels     int64 (N, K): the object's class, -1 where there is none
    instances      uint8 (N, H, W): k where object k-1 of the boxes is seen, 0 elsewhere
    captions       one sentence per image, or several: a tuple of sentences for each
    names          one name per image that tells them apart: a path relative to the folder where they come from files
    groups         int64 (N,): images with the same number belong together (one patient, one scene), and are never on
                   both sides of a split; None where nothing is known of it

    NumPy arrays in any layout, and lists of arrays or of Pillow's pictures, are taken as well. Anything integer becomes
    int64 where int64 is promised, and names of classes are made printable (`console.shown`).
    """

    images: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = "images"
    factors: dict[str, Tensor] = field(default_factory=dict)
    factor_values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    boxes: Tensor | None = None
    box_labels: Tensor | None = None
    instances: Tensor | None = None
    captions: tuple[str | tuple[str, ...], ...] | None = None
    names: tuple[str, ...] | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("images", _checked_images(self.images))
        put("name", shown(self.name))
        put("classes", _checked_names(self.classes, "class names"))
        for what in ("factors", "factor_values"):
            if not isinstance(getattr(self, what), Mapping):
                raise CourseError(f"{what} must be a dictionary by name, and got {type(getattr(self, what)).__name__}.")
        if self.labels is not None:
            put("labels", self._categories(self.labels, "labels", len(self.classes)))
        if self.groups is not None:
            put("groups", self._checked_groups(as_tensor(self.groups, "groups")))
        put("factor_values", {k: _checked_names(v, f"values of {k!r}") for k, v in self.factor_values.items()})
        put("factors", {name: self._checked_factor(name, values) for name, values in self.factors.items()})
        self._refuse_values_without_factor()
        if self.names is not None:
            put("names", self._checked_texts(self.names, "names"))
        if self.captions is not None:
            put("captions", self._checked_captions(self.captions))
        if self.instances is not None:
            put("instances", self._checked_instances(as_tensor(self.instances, "instances")))
        if (self.boxes is None) != (self.box_labels is None):
            given, missing = ("box_labels", "boxes") if self.boxes is None else ("boxes", "box_labels")
            raise CourseError(f"{given} were given without {missing}; give both or neither.")
        if self.boxes is not None:
            boxes, box_labels = as_tensor(self.boxes, "boxes"), as_tensor(self.box_labels, "box_labels")
            put("boxes", self._checked_boxes(boxes))
            put("box_labels", self._checked_box_labels(box_labels))

    # --- reading -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        """(image uint8 (3, H, W), label or None). For more than one image use `select`."""
        if not isinstance(index, int | np.integer):
            raise CourseError(f"s[i] takes one whole number, and got {index!r}; s.select(...) takes many.")
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"image {index} was asked for, but there are {len(self)}."
            )  # lets `for image, label in s` end
        return self.images[index], None if self.labels is None else int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[Tensor, int | None]]:
        return (self[i] for i in range(len(self)))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return tuple(self.images.shape[-2:])

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def independent(self) -> int:
        """As how many unrelated images these count as evidence (`effective_count`); without groups, all of them."""
        return len(self) if self.groups is None else effective_count(self.groups)

    def require_labels(self) -> Tensor:
        """labels, int64 (N,); CourseError where the set has none. Everything that needs labels asks here."""
        if self.labels is None:
            raise CourseError(
                f"{self.name} has no labels: pretraining must not see any; use the train, val or test split for what needs them."
            )
        return self.labels

    def counts(self) -> dict[str, int]:
        """How many images each class has, by name."""
        counted = torch.bincount(self.require_labels(), minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counted, strict=True))

    # --- other sets made of this one ---------------------------------------------------------------------------

    def select(self, indices: Tensor | np.ndarray | Sequence[int] | slice) -> ImageSet:
        """The images at `indices`, in that order: whole numbers (negative ones count from the end), a mask or a slice."""
        chosen = self._indices(indices)
        changes: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in PER_IMAGE if getattr(self, name) is not None
        }
        changes["factors"] = {name: values[chosen] for name, values in self.factors.items()}
        for what in PER_IMAGE_TEXT:
            if (texts := getattr(self, what)) is not None:
                changes[what] = tuple(texts[i] for i in chosen.tolist())
        return replace(self, **changes)

    def without_labels(self) -> ImageSet:
        """The images alone: labels, factors, boxes, masks, captions and names (which may hold the class) are gone, and the
        class names stay.
        """
        return ImageSet(self.images, classes=self.classes, name=self.name)

    def to(self, device: str | torch.device) -> ImageSet:
        """The same set with every tensor on `device`."""
        changes: dict[str, Any] = {
            name: getattr(self, name).to(device) for name in PER_IMAGE if getattr(self, name) is not None
        }
        return replace(self, **changes, factors={name: values.to(device) for name, values in self.factors.items()})

    def sample_per_class(self, k: int, seed: int = 0) -> ImageSet:
        """k images of every class, drawn by `seed`, class after class. A larger k adds to what a smaller one drew.

        Raises CourseError where a class has fewer than k.
        """
        return self.select(self.indices_per_class(k, seed))

    few = sample_per_class

    def indices_per_class(self, k: int, seed: int = 0) -> Tensor:
        """Which images `sample_per_class` takes: int64 (C * k,), on the CPU."""
        labels = self.require_labels().cpu()
        k, seed = whole_number("images per class", k, 1), whole_number("the seed", seed, 0)
        counts = self.counts()
        chosen = []
        for c, name in enumerate(self.classes):
            members = (labels == c).nonzero().squeeze(1)
            if len(members) < k:
                fewest = min(counts.values())
                way_out = f"ask for at most {fewest}" if fewest else "give every class some, or leave such classes out"
                raise CourseError(
                    f"{k} images per class were asked for, but class {name!r} of {self.name} has {len(members)}; {way_out}."
                )
            generator = devices.generator(devices.derive_seed(seed, "few", c))
            chosen.append(members[torch.randperm(len(members), generator=generator)[:k]])
        return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64)

    @classmethod
    def from_floats(cls, images: Tensor | np.ndarray, labels: Any = None, **rest: Any) -> ImageSet:
        """Float images (N, 3, H, W) in [0, 1], rounded to the nearest of 256 steps; other arguments as ImageSet's.

        Raises CourseError for anything outside [0, 1], NaN included.
        """
        images = as_tensor(images, "images")
        if not images.is_floating_point():
            raise CourseError(
                f"from_floats takes float images, and got {described(images)}; ImageSet(...) takes uint8 itself."
            )
        if images.numel():
            if not torch.isfinite(images).all():
                raise CourseError("float images hold NaN or infinity; replace those values before making an ImageSet.")
            low, high = images.min().item(), images.max().item()
            if low < 0 or high > 1:
                hint = "divide them by 255" if low >= 0 and high <= 255 else "scale or clamp them"
                raise CourseError(
                    f"float images must lie in [0, 1], and these lie in [{low:.4g}, {high:.4g}]; {hint} first."
                )
        return cls((images.double() * 255).round().to(torch.uint8), labels, **rest)

    # --- telling -----------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        height, width = self.size
        known = f"{len(self.classes)} classes" if self.labels is not None else "no labels"
        return f"ImageSet({self.name!r}, {len(self):,} images of {width}x{height}, {known})"

    def describe(self) -> str:
        """What the set holds, in a few lines of text."""
        lines = [
            repr(self),
            f"  images     uint8 {tuple(self.images.shape)} on {self.device}, {self.images.nbytes / 1e6:.1f} MB",
        ]
        if self.labels is not None:
            lines.append("  labels     " + ", ".join(f"{name} {n}" for name, n in self.counts().items()))
        for name, values in self.factors.items():
            told = ", ".join(self.factor_values.get(name, ()))
            if not told and len(self):
                told = f"{values.min().item():.3g} to {values.max().item():.3g}"
            lines.append(f"  {name:<10} {told}")
        if self.boxes is not None:
            lines.append(
                f"  boxes      {int((self.box_labels >= 0).sum()):,} objects, at most {self.boxes.shape[1]} per image"
            )
        if self.instances is not None:
            lines.append("  instances  the visible pixels of every object")
        if self.captions:
            first = self.captions[0]
            lines.append(f"  captions   such as {first if isinstance(first, str) else first[0]!r}")
        return "\n".join(lines)

    # --- checks ------------------------------------------------------------------------------------------------

    def _refuse_count(self, name: str, count: int) -> None:
        if count != len(self.images):
            raise CourseError(f"there are {len(self.images)} images and {count} {name}; give one per image.")

    def _categories(self, values: Any, name: str, count: int) -> Tensor:
        values = as_tensor(values, name)
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool or values.dim() != 1:
            raise CourseError(f"{name} must be whole numbers (N,), and got {described(values)}; convert them first.")
        self._refuse_count(name, len(values))
        values = _signed(values, name)
        if len(values) and (values.min() < 0 or values.max() >= count):
            raise CourseError(
                f"{name} must lie in 0..{count - 1} for {count} names, and these lie in "
                f"{values.min().item()}..{values.max().item()}; give a name for each, or count from 0."
                if count
                else f"{name} were given without names for them; give one name per class."
            )
        return values.long()

    def _checked_factor(self, name: str, values: Any) -> Tensor:
        if name in self.factor_values:
            return self._categories(values, f"factor {name!r}", len(self.factor_values[name]))
        values = as_tensor(values, f"factor {name!r}")
        if values.dim() != 1 or values.is_complex():
            raise CourseError(
                f"factor {name!r} must be numbers (N,), and got {described(values)}; give one number per image."
            )
        self._refuse_count(f"values of {name!r}", len(values))
        return values.float() if values.is_floating_point() else _signed(values, f"factor {name!r}").long()

    def _refuse_values_without_factor(self) -> None:
        for name in self.factor_values:
            if name not in self.factors:
                raise CourseError(f"factor_values names {name!r}, but factors has none; give both or neither.")

    def _checked_texts(self, texts: Any, what: str) -> tuple[str, ...]:
        texts = _listed(texts)
        if texts is None or not all(isinstance(text, str) for text in texts):
            raise CourseError(f"{what} must be a sequence of strings, one per image.")
        self._refuse_count(what, len(texts))
        return tuple(map(str, texts))

    def _checked_captions(self, captions: Any) -> tuple[str | tuple[str, ...], ...]:
        each = _listed(captions)
        if each is None or not all(isinstance(told, list | tuple) for told in each) or not each:
            return self._checked_texts(captions, "captions")
        self._refuse_count("captions", len(each))
        if not all(told and all(isinstance(text, str) for text in told) for told in each):
            raise CourseError("captions must be a sentence for each image, or at least one in a tuple for each.")
        return tuple(tuple(map(str, told)) for told in each)

    def _checked_instances(self, instances: Tensor) -> Tensor:
        expected = (len(self.images), *self.size)
        if instances.dtype != torch.uint8 or tuple(instances.shape) != expected:
            raise CourseError(f"instances must be uint8 {expected}, as the images are, and got {described(instances)}.")
        return instances

    def _checked_groups(self, groups: Tensor) -> Tensor:
        if groups.dim() != 1 or groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool:
            raise CourseError(f"groups must be whole numbers (N,), one per image, and got {described(groups)}.")
        self._refuse_count("groups", len(groups))
        return _signed(groups, "groups").long()

    def _checked_boxes(self, boxes: Tensor) -> Tensor:
        if boxes.dim() != 3 or boxes.shape[0] != len(self.images) or boxes.shape[2] != 4 or boxes.is_complex():
            raise CourseError(
                f"boxes must be ({len(self.images)}, K, 4): K boxes for each image; got {described(boxes)}."
            )
        boxes = boxes.float()
        height, width = self.size
        left, top, right, bottom = boxes.unbind(2)
        inside = (left >= 0) & (top >= 0) & (right <= width) & (bottom <= height) & (left <= right) & (top <= bottom)
        if not inside.all():
            i, k = (~inside).nonzero()[0].tolist()
            raise CourseError(
                f"a box is [left, top, right, bottom] in pixels inside the {width}x{height} image, and box {k} of image {i} "
                f"is {[round(x, 2) for x in boxes[i, k].tolist()]}; clip it, or put its numbers in this order."
            )
        return boxes

    def _checked_box_labels(self, box_labels: Tensor) -> Tensor:
        expected = tuple(self.boxes.shape[:2])
        kind = box_labels.dtype
        if tuple(box_labels.shape) != expected or kind.is_floating_point or kind.is_complex or kind == torch.bool:
            raise CourseError(
                f"box_labels must be whole numbers {expected}, one per box, and got {described(box_labels)}."
            )
        box_labels = _signed(box_labels, "box_labels")
        if box_labels.numel() and (box_labels.min() < -1 or box_labels.max() >= len(self.classes)):
            raise CourseError(
                f"box_labels must lie in -1..{len(self.classes) - 1} (-1: no object), and these lie in "
                f"{box_labels.min().item()}..{box_labels.max().item()}; give a name for each class."
            )
        return box_labels.long()

    def _indices(self, indices: Any) -> Tensor:
        if isinstance(indices, slice):
            return torch.tensor(range(len(self))[indices], dtype=torch.int64)
        chosen = as_tensor(indices, "indices").cpu()
        if chosen.numel() == 0 and chosen.dim() == 1:
            return torch.empty(0, dtype=torch.int64)
        if chosen.dtype == torch.bool and tuple(chosen.shape) == (len(self),):
            return chosen.nonzero().squeeze(1)
        if chosen.dim() != 1 or chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
            raise CourseError(
                f"select takes whole numbers (M,), a mask ({len(self)},) or a slice, and got {described(chosen)}."
            )
        chosen = _signed(chosen, "indices")
        if len(chosen) and (chosen.min() < -len(self) or chosen.max() >= len(self)):
            worst = chosen.max().item() if chosen.max() >= len(self) else chosen.min().item()
            raise CourseError(
                f"image {worst} was asked for, but {self.name} has {len(self)} images, 0..{len(self) - 1}."
            )
        return chosen.long()


def _signed(values: Tensor, name: str) -> Tensor:
    """Whole numbers of a type that torch can compare; CourseError for some above 2**63 - 1."""
    if values.dtype not in UNSIGNED:
        return values
    signed = values.long()
    if (signed < 0).any():
        raise CourseError(f"{name} must lie below 2**63, and some don't; convert them first.")
    return signed


def _listed(values: Any) -> list[Any] | None:
    """The items of a sequence that isn't a string or a mapping; None for anything else."""
    if isinstance(values, str | bytes | Mapping):
        return None
    try:
        return list(values)
    except TypeError:
        return None


def _checked_names(names: Any, what: str) -> tuple[str, ...]:
    words = _listed(names)
    if words is None or not all(isinstance(word, str) and word for word in words):
        raise CourseError(f"{what} must be a sequence of words, and got {names!r}.")
    words = [shown(word) for word in words]
    if len(set(words)) != len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise CourseError(f"{what} must differ, and {twice!r} is there twice.")
    return tuple(words)


def _checked_images(images: Any) -> Tensor:
    if isinstance(images, ImageSet):
        raise CourseError(
            f"images must be an array of pixels, and got an ImageSet, {images.name}; it can be used as it is."
        )
    images = as_tensor(images, "images")
    if images.dim() == 4 and images.shape[1] == 3 and images.dtype == torch.uint8 and min(images.shape[2:]) > 0:
        return images
    raise CourseError(f"images must be uint8 (N, 3, H, W), and got {described(images)}; {_way_out(images)}.")


def _way_out(images: Tensor) -> str:
    """What makes uint8 (N, 3, H, W) of images that aren't."""
    if images.is_floating_point():
        return "ImageSet.from_floats converts float images (N, 3, H, W) in [0, 1]"
    if images.dim() == 3:
        return "for one image use image[None], for gray ones images[:, None].repeat(1, 3, 1, 1)"
    if images.dim() == 4 and 0 in images.shape[1:]:
        return "an image has at least one pixel"
    if images.dim() == 4 and images.shape[3] == 3 and images.shape[1] != 3:
        return "the colour channel comes second: images.permute(0, 3, 1, 2)"
    if images.dim() == 4 and images.shape[1] == 1:
        return "images.repeat(1, 3, 1, 1) gives gray images three channels"
    if images.dim() == 4 and images.shape[1] == 4:
        return "images[:, :3] drops the transparency"
    if images.dim() == 4 and images.shape[1] == 3:
        return "convert them first, so that black is 0 and white 255"
    return "bring them into that shape first"
