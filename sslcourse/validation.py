"""How far pretraining has come, without a single label: what is measured of held-out images meanwhile, and when to end.

Two signals, both of the backbone's features (N, d). *Retrieval*: is the nearest of all second views of N images the
second view of the same image? *RankMe*: how many dimensions do the features use? A task's own loss says neither, since it
falls on for a task that has long been learned by a shortcut. Both signals are a guess at what a label would say, and
neither is one: a task that isn't about telling images apart may teach much and retrieve little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sslcourse import augment, distributed, evaluate
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, one_of, whole_number

SIGNALS = ("retrieval", "rankme")
IMAGES = 256  # that are looked at: a measurement takes about as long as eight steps of 64
LEAST = 8  # with fewer, a signal has too few values to be one
CHUNK = 64  # images augmented at a time

Records = Sequence[dict[str, float]]


def retrieval(first: Tensor, second: Tensor) -> float:
    """How many of N images are found again: first and second (N, d) are features of two views of each.

    The share of images for which, of all second views, their own has the largest cosine with their first view, in [0, 1],
    averaged with the same the other way round. 1 / N is chance. (Telling instances apart: Wu et al., 2018, 1805.01978.)
    """
    similarity = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T  # (N, N)
    own = torch.arange(len(similarity))
    found = [(table.argmax(dim=1) == own).double().mean().item() for table in (similarity, similarity.T)]
    return sum(found) / 2


def rankme(features: Tensor, epsilon: float = 1e-7) -> float:
    """How many dimensions features (N, d) use: exp of the entropy of their singular values' shares, in [1, min(N, d)].

    RankMe (Garrido et al., 2022, 2210.02885); features aren't centred, other than in `geometry.effective_rank`.
    """
    values = torch.linalg.svdvals(features.double())  # (min(N, d),)
    share = values / values.sum().clamp(min=1e-30) + epsilon
    return float(torch.exp(-(share * share.log()).sum()))


class Validation:
    """What is measured while a backbone is pretrained, every so many steps, and which of its states was the best.

    images    uint8 (N, 3, H, W) that pretraining doesn't see; of more than IMAGES, so many are taken at equal distances
    every     steps between two measurements
    signal    "retrieval" or "rankme": by which the best state is told; both are recorded
    patience  how many measurements without a better one end training; None: it goes on to its last step
    seed      decides the two views of each image, which stay the same throughout

    best      the weights of the backbone at the best measurement, by name, on the CPU; {} before there is one

    Everything else that decides is a function of the history, so that a run that was stopped goes on as it would have.
    Raises CourseError for another signal, and for fewer than LEAST images.
    """

    def __init__(
        self,
        images: ImageSet | Tensor,
        *,
        every: int = 50,
        signal: str = "retrieval",
        patience: int | None = None,
        seed: int = 0,
    ):
        self.every = whole_number("the number of steps between two validations", every)
        self.signal = one_of("signal", signal, SIGNALS)
        self.patience = None if patience is None else whole_number("patience", patience)
        pixels = images.images if isinstance(images, ImageSet) else images
        if len(pixels) < LEAST:
            raise CourseError(
                f"validating without labels needs at least {LEAST} images, and there are {len(pixels)}; give it more, or "
                "leave it out."
            )
        self.images = pixels[:: -(-len(pixels) // IMAGES)].cpu()  # (M, 3, H, W), M at most IMAGES
        self.views = [_views(self.images, devices.derive_seed(seed, "validation", i)) for i in range(2)]
        self.best: dict[str, Tensor] = {}

    def refuse_unfit(self, steps: int) -> None:
        """CourseError for a run that ends before the first measurement, and for what several processes can't agree on."""
        if self.every > steps:
            raise CourseError(
                f"a validation is due every {self.every} steps, and the run has {steps}; measure more often, or train longer."
            )
        if self.patience is not None and distributed.size() > 1:
            raise CourseError(
                "ending early is for one process, since several might not end at the same step; leave patience out, and "
                "the best weights are kept all the same."
            )

    def identity(self) -> dict[str, Any]:
        """What a run's continuation must have in common with it; `patience` may change."""
        digest = hashlib.blake2b(self.images.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        return {"validation": {"every": self.every, "signal": self.signal, "images": digest}}

    def measure(self, backbone: Backbone, step: int, records: Records) -> dict[str, float]:
        """The signals after `step` steps where a measurement is due, {} elsewhere.

        Weights that are better than those of all measurements in `records`, the history so far, are kept.
        """
        if step % self.every:
            return {}
        device = next(backbone.parameters()).device
        first, second = (evaluate.extract(backbone, view, stage=4, device=device) for view in self.views)  # (M, d) each
        if not bool((first.isfinite() & second.isfinite()).all()):
            return {"retrieval": 0.0, "rankme": 0.0}
        found = {"retrieval": retrieval(first, second), "rankme": rankme(first)}
        if all(found[self.signal] > record[self.signal] for record in records if self.signal in record):
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in backbone.state_dict().items()}
        return found

    def best_step(self, records: Records) -> int | None:
        """The step of the best measurement in a history, the first of several that are alike; None where there is none."""
        measured = [record for record in records if self.signal in record]
        return max(measured, key=lambda record: record[self.signal])["step"] if measured else None

    def enough(self, records: Records) -> bool:
        """Whether the last `patience` measurements of a history brought nothing better."""
        best = self.best_step(records)
        if self.patience is None or best is None:
            return False
        return sum(self.signal in record and record["step"] > best for record in records) >= self.patience

    def give_best(self, backbone: Backbone) -> None:
        """Give a backbone the weights of the best measurement, if there is one."""
        if self.best:
            backbone.load_state_dict(self.best)


def _views(images: Tensor, seed: int) -> Tensor:
    """A random view of each image, as SimCLR makes them: uint8 (M, 3, H, W) -> the same."""
    generator = devices.generator(seed)
    seen = [augment.view(part, generator) for part in images.split(CHUNK)]
    return (torch.cat(seen) * 255).round().clamp(0, 255).to(torch.uint8)
