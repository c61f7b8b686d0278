"""What a network that knows pictures and captions can do without another label: name a picture, find it, be misled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import augment
from sslcourse import device as devices
from sslcourse.data import words
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, whole_number
from sslcourse.pretext.image_text import ImageText

# Several ways to speak of a thing; their mean is a better name for it than any one of them (Radford et al., 2021, 2103.00020).
PROMPTS = (
    "a {}", "a picture of a {}", "a photo of a {}", "there is a {}", "a {} on a plain background", "a {} in daylight",
    "a photo of a {} in dim light", "a {} on a striped background",
)  # fmt: skip


@torch.no_grad()
def of_images(
    task: ImageText, images: ImageSet | Tensor, *, device: str | torch.device = "auto", batch_size: int = 512
) -> Tensor:
    """Directions of uint8 images in the common space: float32 (N, dim) of length 1, on the CPU. The task stays as it was."""
    pixels = images.images if isinstance(images, ImageSet) else images
    device = devices.pick_device(device)
    with devices.on(device, task), devices.evaluating(task):
        parts = [task.of_images(augment.to_float(part.to(device))).cpu() for part in pixels.split(batch_size)]
    return functional.normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def of_texts(
    task: ImageText, sentences: Sequence[str], *, device: str | torch.device = "auto", batch_size: int = 512
) -> Tensor:
    """Directions of sentences in the common space: float32 (M, dim) of length 1, on the CPU."""
    if isinstance(sentences, str) or not len(sentences):
        raise CourseError("give a list of at least one sentence.")
    tokens, device = words.encode(sentences), devices.pick_device(device)
    with devices.on(device, task), devices.evaluating(task):
        parts = [task.of_texts(part.to(device)).cpu() for part in tokens.split(batch_size)]
    return functional.normalize(torch.cat(parts), dim=1)


def class_directions(
    task: ImageText, classes: Sequence[str], prompts: Sequence[str] = PROMPTS, *, device: str | torch.device = "auto"
) -> Tensor:
    """A linear classifier out of words: for each class the mean direction of its prompts, (C, dim) of length 1.

    prompts  sentences with {} where the name of the class goes
    """
    if isinstance(prompts, str) or not prompts or not all("{}" in prompt for prompt in prompts):
        raise CourseError("a prompt is a sentence with {} where the name of a class goes; give a list of at least one.")
    texts = of_texts(task, [prompt.format(name) for name in classes for prompt in prompts], device=device)
    return functional.normalize(texts.view(len(classes), len(prompts), -1).mean(dim=1), dim=1)


def zero_shot(
    task: ImageText, images: ImageSet, prompts: Sequence[str] = PROMPTS, *, device: str | torch.device = "auto"
) -> float:
    """The share of labelled images whose class is the nearest by its name alone: no labelled image was learned from."""
    labels = images.require_labels().cpu()
    head = class_directions(task, images.classes, prompts, device=device)  # (C, dim)
    nearest = (of_images(task, images, device=device) @ head.T).argmax(dim=1)  # (N,)
    return (nearest == labels).double().mean().item()


def recall(queries: Tensor, gallery: Tensor, k: int = 10) -> float:
    """The share of queries (N, d) whose own row of the gallery (N, d) is among the k most alike; k / N for a guess.

    Both in directions of length 1. Of rows that are exactly as alike, half stand before one's own.
    """
    k = whole_number("k", k, 1)
    if queries.shape != gallery.shape:
        raise CourseError(
            f"recall pairs rows, and got {tuple(queries.shape)} and {tuple(gallery.shape)}; give one of the gallery per query."
        )
    similarity = queries @ gallery.T  # (N, N)
    own = similarity.diagonal()[:, None]
    before = (similarity > own).sum(dim=1) + ((similarity == own).sum(dim=1) - 1) / 2  # (N,) places before one's own
    return (before < k).double().mean().item()


@torch.no_grad()
def preferred(
    task: ImageText, images: Tensor, right: Sequence[str], wrong: Sequence[str], *, blind: bool = False, **where: str
) -> Tensor:
    """For each image whether it is nearer to its right sentence than to its wrong one: bool (N,).

    blind  the mean direction of all images stands in the place of each: what the sentences alone tell
    """
    seen = of_images(task, images, **where)  # (N, dim)
    seen = seen.mean(dim=0, keepdim=True) if blind else seen  # (1, dim) or (N, dim)
    return (seen * of_texts(task, right, **where)).sum(1) > (seen * of_texts(task, wrong, **where)).sum(1)
