"""iBOT: DINO for every patch. What would the teacher, who sees the whole picture, say of the patches that are hidden?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcourse import distributed, losses, teacher
from sslcourse.backbones import Backbone
from sslcourse.pretext.dino import DINO, GLOBAL
from sslcourse.pretext.mae import random_masking, refuse_mask
from sslcourse.pretext.two_views import refuse_outside


class IBOT(DINO):
    """Image BERT with an online tokenizer (Zhou et al., 2021, 2111.07832): DINO's loss, and the same one patch by patch.

    Of both large crops the student sees some patches as one learned token, and gives each patch a distribution over the
    made-up answers, by the head that the class token has; the teacher's, who sees all patches, is the target at the
    hidden ones.

    mask               share of the patches that is hidden from the student
    patch_weight       of the patches' loss beside DINO's
    patch_temperature  of the teacher for patches
    koleo              weight of KoLeo on the class tokens, as DINOv2 adds it (Oquab et al., 2023, 2304.07193), with 0.1
    gram, gram_from    weight of Gram anchoring (DINOv3; Siméoni et al., 2025, 2508.10104) and the share of training at
                       which it begins: from there on, which patches are alike must stay as the teacher had it then
    the others         as DINO's
    """

    name = "ibot"
    arch = "vit-tiny"
    recipe = {"learning_rate": 2e-3, "weight_decay": 0.05}
    settings = {"steps": 560, "batch_size": 16, "seconds": 85}

    def __init__(
        self,
        backbone: Backbone,
        *,
        mask: float = 0.3,
        patch_weight: float = 1.0,
        patch_temperature: float = 0.07,
        koleo: float = 0.0,
        gram: float = 0.0,
        gram_from: float = 0.5,
        local: int = 0,
        **dino_options: float,
    ):
        super().__init__(backbone, local=local, **dino_options)
        self.refuse_without_patches("iBOT hides patches of its input")
        refuse_mask(mask, backbone.trunk.side**2)
        refuse_outside(gram_from=gram_from)
        self.mask, self.patch_weight, self.patch_temperature = mask, patch_weight, patch_temperature
        self.koleo, self.gram, self.gram_from = koleo, gram, gram_from
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.dim))
        self.register_buffer("patch_center", torch.zeros_like(self.center))
        if gram:
            self.anchor = teacher.copy_of(self.backbone)
            self.register_buffer("anchored", torch.zeros(()))  # 1 from `gram_from` on

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """DINO's views, and after the large crops bool (2N, L), True where the student's patch is hidden."""
        large, *small = super().views(images, generator)
        places = (large.shape[-1] // self.backbone.trunk.patch) ** 2
        keep, restore = random_masking(len(large), places, self.mask, generator)
        return large, restore >= keep.shape[1], *small

    def forward(self, large: Tensor, hidden: Tensor, small: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            seen = say(self.teacher[1], self.tokens(self.teacher[0], large))  # (2N, 1 + L, outputs)
        tokens = self.tokens(self.backbone, large, hidden)  # (2N, 1 + L, d)
        answers = say(self.head, tokens)  # (2N, 1 + L, outputs)
        crops = list(answers[:, 0].chunk(GLOBAL))  # (N, outputs) each
        if small is not None:
            crops += self.head(self.backbone.summary(small)).float().chunk(self.local)
        target = self.sharpen(seen[:, 0])  # (2N, outputs)
        patch_target = ((seen[:, 1:] - self.patch_center) / self.patch_temperature).softmax(dim=2)  # (2N, L, outputs)
        views = losses.dino(crops, target.chunk(GLOBAL), self.temperature)
        patches = losses.ibot(answers[:, 1:], patch_target, hidden, self.temperature)
        loss = views + self.patch_weight * patches + self.added(tokens, large)
        self.move_center(self.center, seen[:, 0])
        self.move_center(self.patch_center, seen[:, 1:].flatten(0, 1))
        told = {"views": views.detach(), "patches": patches.detach(), "spread": losses.spread(tokens[:, 0])}
        return loss, told | self.entropies(target)

    def tokens(self, network: Backbone, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """The network's last tokens (M, 1 + L, d), class token first; where `hidden` (M, L), it sees the mask token."""
        trunk = network.trunk
        tokens = trunk.embed(network.preprocess(images))  # (M, L, d)
        if hidden is not None:
            side = images.shape[-1] // trunk.patch
            tokens = torch.where(hidden[:, :, None], self.mask_token + trunk.positions(side, side), tokens)
        return trunk.encode(tokens)

    def added(self, tokens: Tensor, large: Tensor) -> Tensor | float:
        """What DINOv2 and DINOv3 add to the loss, of the student's tokens (2N, 1 + L, d) and its large crops."""
        loss = 0.0
        if self.koleo:
            crops = (distributed.gather(crop) for crop in tokens[:, 0].float().chunk(GLOBAL))  # (N, d) each
            loss = loss + self.koleo * sum(losses.koleo(crop) for crop in crops)
        if self.gram:
            with torch.no_grad():
                anchor = self.tokens(self.anchor, large)[:, 1:].float()  # (2N, L, d)
            loss = loss + self.gram * self.anchored * losses.gram(tokens[:, 1:].float(), anchor)
        return loss

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        if self.gram and progress < self.gram_from:
            teacher.follow(self.anchor, self.teacher[0], 0.0)
        elif self.gram:
            self.anchored.fill_(1.0)


def say(head: nn.Module, tokens: Tensor) -> Tensor:
    """A head, which takes rows, on tokens: (M, T, d) -> logits (M, T, outputs), float32."""
    return head(tokens.flatten(0, 1)).float().unflatten(0, tokens.shape[:2])
