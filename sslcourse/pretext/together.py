"""Two pretext tasks at once: one backbone, and each task's own head, views and loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcourse.errors import CourseError, real_number
from sslcourse.pretext.base import PretextTask


class Together(PretextTask):
    """Several pretext tasks on one backbone: the weighted sum of their losses (Doersch and Zisserman, 2017, 1708.07860).

    parts    tasks that were built on the same backbone: Together(Rotation(backbone), SimCLR(backbone))
    weights  how much each loss counts; by default 1 each

    Every part makes its own views of the same images, so that a step costs what its parts cost together. It stands in no
    list of tasks, since it is made of such. Raises CourseError for parts that share no backbone, or need captions.
    """

    def __init__(self, *parts: PretextTask, weights: Sequence[float] = ()):
        if not parts or any(part.backbone is not parts[0].backbone for part in parts):
            raise CourseError("tasks that learn together need the same backbone: build it once, and each task on it.")
        if any(part.captioned for part in parts):
            raise CourseError("tasks that learn together get pictures alone; leave out the one that needs captions.")
        super().__init__(parts[0].backbone)
        self.weights = tuple(real_number("a task's weight", weight) for weight in weights or [1.0] * len(parts))
        if len(self.weights) != len(parts):
            raise CourseError(f"{len(parts)} tasks need {len(parts)} weights, and {len(self.weights)} were given.")
        self.parts = nn.ModuleList(parts)
        self.name = " + ".join(part.name for part in parts)
        self.least_batch = max(part.least_batch for part in parts)
        self.scheduled = any(part.scheduled for part in parts)

    def options(self) -> dict[str, Any]:
        own = {f"{i} {part.name}": part.options() for i, part in enumerate(self.parts)}
        return own | {"weights": list(self.weights)}

    def prepare(self, images: Tensor) -> None:
        for part in self.parts:
            part.prepare(images)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[tuple[Tensor, ...], ...]:
        """uint8 (N, 3, H, W) -> the views of each part, one after the other."""
        return tuple(part.views(images, generator) for part in self.parts)

    def forward(self, *views: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        total, metrics = 0.0, {}
        for part, weight, own in zip(self.parts, self.weights, views, strict=True):
            loss, measured = part(*own)
            total = total + weight * loss
            metrics |= {f"{part.name} loss": loss.detach()}
            metrics |= {f"{part.name} {name}": value for name, value in measured.items()}
        return total, metrics

    def after_step(self, progress: float) -> None:
        for part in self.parts:
            part.after_step(progress)
