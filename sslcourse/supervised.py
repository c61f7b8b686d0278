"""Training with labels, all of it but the loop: a classifier, a model with its loss, and what of a backbone is trained."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sslcourse import augment, heads, losses
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data.imageset import ImageSet
from sslcourse.errors import CourseError, suggest

TUNE = ("all", "last stage", "head")  # what fine-tuning may train
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]  # (model, *views) -> loss, metrics


class Classifier(nn.Module):
    """A backbone with a linear classifier on top: what fine-tuning gives. Float images (N, 3, H, W) -> logits (N, C)."""

    def __init__(self, backbone: Backbone, classes: int):
        super().__init__()
        self.backbone = backbone
        self.head = heads.linear(backbone.dim, classes).to(backbone.mean.device)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))

    @torch.no_grad()
    def logits(
        self, images: ImageSet | Tensor, batch_size: int = 512, *, device: str | torch.device = "auto"
    ) -> Tensor:
        """Logits of uint8 images: float32 (N, C), on the CPU. The classifier stays where and as it was."""
        pixels = images.images if isinstance(images, ImageSet) else images
        device = devices.pick_device(device)
        with devices.on(device, self), devices.evaluating(self):
            return torch.cat([self(augment.to_float(part.to(device))).cpu() for part in pixels.split(batch_size)])

    def predict(
        self, images: ImageSet | Tensor, batch_size: int = 512, *, device: str | torch.device = "auto"
    ) -> Tensor:
        """The most likely class of each uint8 image: int64 (N,), on the CPU. The classifier stays where and as it was."""
        return self.logits(images, batch_size, device=device).argmax(dim=1)


def classification(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a classifier: cross-entropy, in nats, and the batch's accuracy."""
    logits = model(images)  # (B, C)
    return losses.cross_entropy(logits, labels), {"accuracy": losses.accuracy(logits, labels).detach()}


class Supervised(nn.Module):
    """A model with its loss, in the form that the loop takes: `loss(model, *views)` gives (loss, metrics).

    In training mode, what is frozen rests in evaluation mode: batch norm without training must not move its statistics.
    """

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(self.model, *views)

    def train(self, mode: bool = True) -> Supervised:
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self


def standard_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """What fine-tuning does to float images (N, 3, H, W): a shift by up to an eighth of the height, and a mirror."""
    shifted = augment.random_shift(images, generator, pixels=max(1, images.shape[-1] // 8))
    return augment.random_flip(shifted, generator)


# --- what of a backbone is trained -------------------------------------------------------------------------------


@contextlib.contextmanager
def tuned(backbone: Backbone, tune: str) -> Iterator[None]:
    """Within it, `tune` of a backbone alone requires a gradient: "all", the "last stage", or nothing of it ("head").

    The last stage of a transformer is its last block, with the norm after it. Afterwards every parameter is as before.
    Raises CourseError for another `tune`.
    """
    if tune not in TUNE:
        raise CourseError(f"tune must be one of {', '.join(TUNE)}, and is {tune!r}{suggest(tune, TUNE)}.")
    last = deepest(backbone)
    least = {"all": 0, "last stage": last, "head": last + 1}[tune]
    before = {parameter: parameter.requires_grad for parameter in backbone.parameters()}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(depth_of(name, last) >= least)
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


def deepest(backbone: Backbone) -> int:
    """How many stages a backbone has, or blocks, where it is a transformer."""
    return getattr(backbone.trunk, "depth", len(backbone.channels))


def depth_of(name: str, last: int) -> int:
    """How deep the parameter of this name lies in a backbone: 0 for what comes first, s for stage or block s = 1..last."""
    found = re.search(r"trunk\.(?:layer(\d+)|blocks\.(\d+))\.", name)
    if found is None:
        return last if "trunk.norm." in name else 0  # the norm after a transformer's last block
    return int(found[1]) if found[1] else int(found[2]) + 1
