"""What the methods that compare pictures with captions have in common: two towers that meet in one space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import augment, distributed, losses, text
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data import words
from sslcourse.data.imageset import ImageSet
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError
from sslcourse.heads import projector
from sslcourse.pretext.base import PretextTask
from sslcourse.pretext.two_views import refuse_outside

LARGEST_SCALE = 100.0  # of the cosines, as in CLIP: beyond it training is unstable


class ImageText(PretextTask):
    """Bring a picture and a caption of it together, and both away from the others of the batch; a subclass says how.

    The captions ride along beside the images (`beside`), as numbers of words, and `views` draws one of each picture's at
    every step. Both towers end in a linear map to one space, in which cosines count, times a scale (one over the
    temperature) that is learned, too. Behind each map stands a batch norm, which the papers don't have: it takes off what
    all pictures and all captions have in common, and a run of a minute begins with cosines that differ.

    dim                  of the space
    width, depth, heads  of the text transformer
    swapped              beside each caption its double with two colours exchanged, or two things with theirs, as a
                         negative of its picture: the hard negatives of Yuksekgonul et al. (2022, 2210.01936)
    crop, jitter         of `augment.view`. Mild, since a caption names colours and places; nothing is mirrored, since it
                         tells left from right
    """

    captioned = True
    least_batch = 2
    first_scale = 1 / 0.07

    def __init__(
        self, backbone: Backbone, *, dim: int = 64, width: int = 48, depth: int = 2, heads: int = 4, swapped: bool = False,
        crop: float = 0.8, jitter: float = 0.1,
    ):  # fmt: skip
        super().__init__(backbone)
        refuse_outside(crop=crop)
        self.swapped, self.crop, self.jitter = swapped, crop, jitter
        self.text = text.TextTransformer(len(words.WORDS), words.LENGTH, width=width, depth=depth, heads=heads)
        self.image_map, self.text_map = (projector((d, dim), last_norm=True) for d in (backbone.dim, width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.first_scale)))

    def beside(self, images: ImageSet | ImageFiles | Tensor) -> tuple[Tensor]:
        """The captions as numbers of words, int64 (N, K, L)."""
        captions = images.captions if isinstance(images, ImageSet) else None
        if captions is None:
            name = "these images have" if isinstance(images, Tensor) else f"{images.name} has"
            raise CourseError(
                f"{self.name} learns from captions beside the pictures, and {name} none; give an ImageSet with captions, such "
                "as the train split of world:crowd."
            )
        return (words.encode_several(captions),)

    def views(self, images: Tensor, generator: torch.Generator, captions: Tensor) -> tuple[Tensor, ...]:
        """uint8 (N, 3, H, W) and int64 (N, K, L) -> a view of each image (N, 3, H, H) and one of its captions (N, L).

        With `swapped`, the captions' doubles (N, L) as well.
        """
        seen = augment.view(images, generator, scale=(self.crop, 1.0), flip=0.0, jitter=self.jitter, gray=0.0)
        count, each = captions.shape[:2]
        device = captions.device
        which = torch.randint(each, (count,), generator=generator, device=device)  # (N,)
        said = captions[torch.arange(count, device=device), which]  # (N, L)
        if not self.swapped:
            return seen, said
        both = torch.rand(count, 1, generator=generator, device=device) < 0.5
        return seen, said, torch.where(both, with_places_exchanged(said), with_colours_exchanged(said))

    def forward(self, seen: Tensor, said: Tensor, doubles: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        texts = said if doubles is None else torch.cat([said, doubles])
        images = distributed.gather(self.of_images(seen))  # (N, dim), of all processes
        texts = [distributed.gather(part) for part in self.of_texts(texts).split(len(said))]  # (N, dim) each
        wrong = None
        if doubles is not None:  # what no exchange has changed is no negative
            wrong = texts[1], distributed.gather((doubles != said).any(dim=1).float()) > 0
        loss = self.loss(images, texts[0], wrong)
        with torch.no_grad():
            found = functional.normalize(images, dim=1) @ functional.normalize(texts[0], dim=1).T  # (N, N)
            accuracy = losses.accuracy(found, torch.arange(len(found), device=found.device))
        return loss, {"accuracy": accuracy, "scale": self.log_scale.detach().exp()}

    def loss(self, images: Tensor, texts: Tensor, wrong: tuple[Tensor, Tensor] | None) -> Tensor:
        """images and texts (N, dim), pair by pair; wrong: doubles (N, dim), and which of them count (N,) -> a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(images, texts, wrong)")

    def of_images(self, images: Tensor) -> Tensor:
        """Float images (N, 3, H, W) in [0, 1] -> where they lie in the common space, (N, dim), of any length."""
        return self.image_map(self.backbone(images)).float()

    def of_texts(self, tokens: Tensor) -> Tensor:
        """Numbers of words (N, L) -> (N, dim), of any length."""
        return self.text_map(self.text(tokens)).float()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.log_scale.clamp_(max=math.log(LARGEST_SCALE))


def members(group: tuple[str, ...], tokens: Tensor) -> Tensor:
    """For every word of the vocabulary, whether it is of the group: bool (V,), where the tokens are."""
    return devices.constant(words.group(group), tokens.device, torch.bool)


def with_colours_exchanged(tokens: Tensor) -> Tensor:
    """ "a red boat left of a blue car" -> "a blue boat left of a red car", for numbers of words (N, L)."""
    return words.exchanged(tokens, members(words.COLOUR_NAMES, tokens))


def with_places_exchanged(tokens: Tensor) -> Tensor:
    """ "a red boat left of a blue car" -> "a blue car left of a red boat": things change places with their colours.

    Without a word that tells the two places apart, this says the same again; there the colours alone are exchanged.
    """
    tells = members(("left", "right", "above", "below"), tokens)[tokens].any(dim=1, keepdim=True)  # (N, 1)
    colours = with_colours_exchanged(tokens)
    return torch.where(tells, words.exchanged(colours, members(words.CLASSES, tokens)), colours)
