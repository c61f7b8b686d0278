"""DINO: say what a slow teacher, who sees more of the picture, would say; what is said is up to the two of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import distributed, heads, losses, schedules, teacher
from sslcourse.backbones import Backbone
from sslcourse.pretext.two_views import TwoViews, refuse_low, refuse_outside

GLOBAL = 2  # large crops of each image


class DINO(TwoViews):
    """Self-distillation with no labels (Caron et al., 2021, 2104.14294).

    Student and teacher give each view a distribution over `outputs` made-up classes. The teacher sees two large crops,
    the student those and `local` small ones, and for every crop it is to say what the teacher says of the other large
    one. Centring takes off what the teacher says on average, so that it can't say one thing always; a low teacher
    temperature sharpens, so that it can't say everything equally.

    temperature          of the student
    teacher_temperature  lower, to sharpen; 1 takes sharpening away
    centring             False takes it away. `center_momentum` is of its moving average
    momentum             of the teacher at the start, in [0, 1]; it rises to 1 along a cosine
    local                small crops of half the side; `local_crop` is the largest share of the picture that they take
    hidden, dim          of the head, before its last layer of `outputs` directions
    crop, jitter, gray, blur   as SimCLR's; for large crops
    """

    name = "dino"
    scheduled = True
    arch = "vit-tiny"
    recipe = {"learning_rate": 3e-3, "weight_decay": 0.05}
    settings = {"steps": 1300, "backbone": "resnet-tiny", "options": {"local": 0}, "seconds": 65}

    may_be_zero = ("local",)

    def __init__(
        self,
        backbone: Backbone,
        *,
        outputs: int = 64,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        centring: bool = True,
        center_momentum: float = 0.9,
        momentum: float = 0.98,
        local: int = 2,
        local_crop: float = 0.4,
        hidden: int = 256,
        dim: int = 64,
        crop: float = 0.85,
        **view_options: float,
    ):
        super().__init__(backbone, crop=crop, **view_options)
        refuse_low(temperature=temperature, teacher_temperature=teacher_temperature)
        refuse_outside(momentum=momentum, center_momentum=center_momentum, local_crop=local_crop)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.centring, self.center_momentum, self.momentum = centring, center_momentum, momentum
        self.local, self.local_crop = local, local_crop
        self.head = nn.Sequential(
            heads.projector((backbone.dim, hidden, dim), norm=False, bias=True), heads.Prototypes(dim, outputs)
        )
        self.teacher = teacher.copy_of(self.student())
        self.register_buffer("center", torch.zeros(1, outputs))

    def student(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.head)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """uint8 (N, 3, H, W) -> two large crops (2N, 3, H, H), first ones first; with `local`, small ones (local * N, 3, H/2, H/2)."""
        large = self.drawn(images, generator)
        if not self.local:
            return (large,)
        return large, self.drawn_small(images, generator, self.local, self.local_crop)

    def forward(self, large: Tensor, small: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            logits = self.teacher[1](self.teacher[0].summary(large)).float()  # (2N, outputs)
        features = self.backbone.summary(large)
        if small is not None:  # one pass of the backbone for each size, one of the head for all
            features = torch.cat([features, self.backbone.summary(small)])
        answers = self.head(features).float().chunk(GLOBAL + self.local if small is not None else GLOBAL)
        target = self.sharpen(logits).chunk(GLOBAL)  # (N, outputs) each
        loss = losses.dino(answers, target, self.temperature)
        self.move_center(self.center, logits)
        return loss, {**self.entropies(torch.cat(target)), "spread": losses.spread(features)}

    def sharpen(self, logits: Tensor) -> Tensor:
        """The teacher's logits (M, outputs), centred, as distributions: rows sum to 1."""
        return ((logits - self.center) / self.teacher_temperature).softmax(dim=1)

    def move_center(self, center: Tensor, logits: Tensor) -> None:
        """The centre (1, outputs) a little towards the mean of the teacher's logits (M, outputs), in training."""
        if self.training and self.centring:
            center.lerp_(distributed.mean(logits.mean(dim=0, keepdim=True)), 1 - self.center_momentum)

    @staticmethod
    def entropies(answered: Tensor) -> dict[str, Tensor]:
        """How sure the teacher's distributions (M, outputs) are, and how evenly they use the answers: both collapses show."""
        return {"entropy of one": entropy(answered), "entropy of the mean": entropy(answered.mean(dim=0, keepdim=True))}

    def after_step(self, progress: float) -> None:
        teacher.follow(self.teacher, self.student(), schedules.cosine(progress, self.momentum, 1.0))


def entropy(distributions: Tensor) -> Tensor:
    """Mean entropy, in nats, of the rows of (M, K); log(K) when all classes are equally likely."""
    return -(distributions * (distributions + 1e-9).log()).sum(dim=1).mean()
