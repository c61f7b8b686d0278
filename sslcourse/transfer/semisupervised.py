"""Few labels and many pictures without one, learned from at once: what a labelled and an unlabelled batch ask together.

    classifier = Classifier(copy.deepcopy(backbone), classes)
    learn(FixMatch(classifier), few, unlabeled, config)      # the classifier is trained in place

An `Objective` holds the classifier and whatever else it learns by, makes views of both batches, and says what they cost.
`learn` runs any of them through the one loop.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import augment, checkpoint, heads, losses, train
from sslcourse import device as devices
from sslcourse.backbones import Backbone
from sslcourse.data import stream
from sslcourse.data.imageset import ImageSet
from sslcourse.data.stream import ImageFiles
from sslcourse.errors import CourseError, real_number, whole_number
from sslcourse.features import refuse_not_finite_weights
from sslcourse.pretext.base import PretextTask
from sslcourse.supervised import Classifier, standard_augment
from sslcourse.train import History, TrainConfig

# Fine-tuning's own numbers (`train.FINETUNE`), so that what differs is what is learned from. More steps pay: FixMatch takes 600.
SEMI = TrainConfig(steps=200, batch_size=32, learning_rate=3e-3, weight_decay=0.05, log_every=20)

Batch = tuple[Tensor, ...]


# --- losses ------------------------------------------------------------------------------------------------------


@losses.without_autocast
def supervised_contrastive(embeddings: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Each view must find the views of its class among all others of the batch (Khosla et al., 2020, 2004.11362: L_out).

    embeddings (M, d) of any length, labels int64 (M,). Mean over views i of -1/|P_i| sum_{p in P_i} log softmax_{a != i}
    (cos_ia / T)_p, P_i being the others of its class. A view that is alone in its class doesn't count. With two views of
    each picture, and a class of its own for each picture, it is SimCLR's loss.
    """
    z = functional.normalize(embeddings, dim=1)  # (M, d)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, -math.inf)  # (M, M)
    log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)  # (M, M), -inf at itself
    positive = (labels[:, None] == labels) & ~itself  # (M, M)
    count = positive.sum(dim=1)  # (M,) |P_i|
    cost = -torch.where(positive, log_share, 0).sum(dim=1) / count.clamp(min=1)  # (M,)
    return cost.sum() / (count > 0).sum().clamp(min=1)


@losses.without_autocast
def self_training(guess: Tensor, asked: Tensor, threshold: float = 0.95) -> tuple[Tensor, Tensor]:
    """A network's own sure answers, taken for labels: logits (U, C) of what it answers on, and of what it is asked.

    Gives the loss, sum over sure pictures of the cross-entropy with the likeliest class, divided by U; and which pictures
    were sure, bool (U,): those whose likeliest class had a probability of at least `threshold`. An answer gets no gradient
    (Lee, 2013, Pseudo-label; Sohn et al., 2020, 2001.07685).
    """
    probability, answer = guess.detach().softmax(dim=1).max(dim=1)  # (U,) each
    sure = probability >= threshold
    cost = asked.logsumexp(dim=1) - asked.gather(1, answer[:, None]).squeeze(1)  # (U,)
    return (cost * sure).mean(), sure


def strong_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """What a network has to see through: crops of half the picture and more, strong colours, gray. As `standard_augment`."""
    return augment.view(images, generator, scale=(0.5, 1.0), jitter=1.0, gray=0.2)


# --- objectives --------------------------------------------------------------------------------------------------


class Objective(nn.Module):
    """A classifier, and what it learns by from a labelled and an unlabelled batch; a subclass per method.

    It is trained by `learn`, which calls it as the loop calls a pretext task: views, forward, after_step.
    """

    name: ClassVar[str]
    ratio: ClassVar[int] = 2  # unlabelled pictures to a labelled one, where nobody asks for another number

    def __init__(self, classifier: Classifier, **options: float):
        super().__init__()
        self.classifier = classifier
        self.given = options

    @property
    def backbone(self) -> Backbone:
        return self.classifier.backbone

    def options(self) -> dict[str, Any]:
        """The numbers that it was built with: a checkpoint records them."""
        return dict(self.given)

    def prepare(self, images: Tensor) -> None:
        """Called once before training with the unlabelled images, uint8 (N, 3, H, W)."""

    def views(self, labelled: Tensor, labels: Tensor, unlabelled: Tensor, generator: torch.Generator) -> Batch:
        """uint8 (B, 3, H, W), int64 (B,) and uint8 (U, 3, H, W) -> what `forward` takes, on the same device."""
        raise NotImplementedError(f"{type(self).__name__} must define views(labelled, labels, unlabelled, generator)")

    def forward(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The views to the loss (a scalar) and metrics (detached scalars)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(*views)")

    def after_step(self, progress: float) -> None:
        """Called after each step with the share of training that is done, in (0, 1]."""


class Joint(Objective):
    """Labels and a pretext task at once: cross-entropy + weight * the task's loss (S4L: Zhai et al., 2019, 1905.03670).

    task    a pretext task; the classifier is built on its backbone
    weight  of the task's loss; 0 learns from labels alone, while the task's head looks on

    The task gets the labelled pictures as well, without their labels. As in the paper, as many unlabelled as labelled ones.
    """

    name = "joint"
    ratio = 1

    def __init__(self, task: PretextTask, classes: int, *, weight: float = 1.0):
        super().__init__(Classifier(task.backbone, classes), weight=real_number("weight", weight))
        self.task, self.weight = task, weight

    def options(self) -> dict[str, Any]:
        return super().options() | {self.task.name: self.task.options()}

    def prepare(self, images: Tensor) -> None:
        self.task.prepare(images)

    def views(self, labelled, labels, unlabelled, generator):
        pictures = torch.cat([labelled, unlabelled])  # (B + U, 3, H, W)
        weak = standard_augment(augment.to_float(labelled), generator)
        return weak, labels, *self.task.views(pictures, generator)

    def forward(self, labelled, labels, *views):
        logits = self.classifier(labelled)  # (B, C)
        supervised = losses.cross_entropy(logits, labels)
        pretext, _ = self.task(*views)
        found = {"supervised": supervised, "pretext": pretext, "accuracy": losses.accuracy(logits, labels)}
        return supervised + self.weight * pretext, {name: value.detach() for name, value in found.items()}

    def after_step(self, progress: float) -> None:
        self.task.after_step(progress)


class PseudoLabels(Objective):
    """Labels, and the network's own sure answers taken for labels (Lee, 2013, Pseudo-label, at ICML's workshop).

    threshold  the probability from which an answer is taken; weight  of the loss on unlabelled pictures

    Here an answer is given on one weak view of a picture and asked for on another. The paper takes every answer, and lets
    the weight grow.
    """

    name = "pseudo-labels"
    asked = staticmethod(standard_augment)

    def __init__(self, classifier: Classifier, *, threshold: float = 0.95, weight: float = 1.0):
        threshold, weight = real_number("threshold", threshold, most=1.0), real_number("weight", weight)
        super().__init__(classifier, threshold=threshold, weight=weight)
        self.threshold, self.weight = threshold, weight

    def views(self, labelled, labels, unlabelled, generator):
        labelled, unlabelled = augment.to_float(labelled), augment.to_float(unlabelled)
        weak = standard_augment(torch.cat([labelled, unlabelled]), generator).split([len(labelled), len(unlabelled)])
        return weak[0], labels, weak[1], self.asked(unlabelled, generator)

    def forward(self, labelled, labels, weak, asked):
        logits = self.classifier(torch.cat([labelled, weak, asked]))  # (B + 2U, C): batch norm sees all at once
        known, guess, answer = logits.split([len(labelled), len(weak), len(asked)])
        supervised = losses.cross_entropy(known, labels)
        unsupervised, sure = self_training(guess, answer, self.threshold)
        found = {"supervised": supervised, "unsupervised": unsupervised, "sure": sure.float().mean()}
        return supervised + self.weight * unsupervised, {name: value.detach() for name, value in found.items()}


class FixMatch(PseudoLabels):
    """Pseudo-labels of a weak view, asked of a strong one (Sohn et al., 2020, 2001.07685)."""

    name = "fixmatch"
    asked = staticmethod(strong_augment)


class SupervisedContrast(Objective):
    """Two views of each labelled picture; those of a class attract each other (Khosla et al., 2020, 2004.11362).

    temperature   divides the cosines; hidden, dim  of the projector, which is thrown away

    The classifier's head learns beside it, by cross-entropy on features that it cannot change. The unlabelled pictures
    take no part.
    """

    name = "supervised contrast"
    ratio = 1

    def __init__(self, classifier: Classifier, *, temperature: float = 0.1, hidden: int = 256, dim: int = 64):
        super().__init__(classifier, temperature=temperature, hidden=hidden, dim=dim)
        if not temperature > 0:
            raise CourseError(f"temperature must be above 0, and is {temperature!r}.")
        self.temperature = temperature
        self.projector = heads.projector((classifier.backbone.dim, hidden, dim)).to(classifier.backbone.mean.device)

    def views(self, labelled, labels, unlabelled, generator):
        return augment.view(labelled, generator, times=2, scale=(0.7, 1.0)), labels.repeat(2)  # (2B, 3, H, H), (2B,)

    def forward(self, views, labels):
        features = self.backbone(views)  # (2B, d)
        contrast = supervised_contrastive(self.projector(features).float(), labels, self.temperature)
        logits = self.classifier.head(features.detach())  # (2B, C)
        found = {"contrast": contrast.detach(), "accuracy": losses.accuracy(logits, labels).detach()}
        return contrast + losses.cross_entropy(logits, labels), found


class Distillation(Objective):
    """A fixed teacher's answers on unlabelled pictures, learned by a student (Chen et al., 2020, 2006.10029, SimCLRv2).

    student      the classifier that learns;  teacher  one that has learned; a copy of it is kept, and rests
    temperature  divides both's logits: the higher, the more the unlikely classes say

    Student and teacher see the same weak view. Labels take no part: the teacher has learned them.
    """

    name = "distillation"

    def __init__(self, student: Classifier, teacher: Classifier, *, temperature: float = 1.0):
        super().__init__(student, temperature=temperature)
        if not temperature > 0:
            raise CourseError(f"temperature must be above 0, and is {temperature!r}.")
        self.temperature = temperature
        self.teacher = copy.deepcopy(teacher).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.teacher.eval()
        return self

    def views(self, labelled, labels, unlabelled, generator):
        return (standard_augment(augment.to_float(unlabelled), generator),)

    def forward(self, images):
        with torch.no_grad():
            told = (self.teacher(images).float() / self.temperature).softmax(dim=1)  # (U, C)
        logits = self.classifier(images).float()  # (U, C)
        agreed = (logits.argmax(dim=1) == told.argmax(dim=1)).float().mean()
        return losses.distillation(logits, told, self.temperature), {"agreed": agreed.detach()}


# --- the loop ----------------------------------------------------------------------------------------------------


def learn(
    objective: Objective,
    labelled: ImageSet,
    unlabelled: ImageSet | ImageFiles | Tensor,
    config: TrainConfig = SEMI,
    *,
    ratio: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> tuple[Classifier, History]:
    """Train an objective's classifier on labelled and unlabelled pictures, in place, through the loop.

    labelled     uint8 images with labels, of the classes that the classifier tells apart
    unlabelled   of what they show nothing is used, not even where it is known
    config       batch_size counts labelled pictures; where there are fewer, all of them make a batch
    ratio        how many unlabelled pictures a step takes for each labelled one; by default as the method has it
    out, resume  a folder for checkpoints, and whether to go on from one, bit for bit

    Which pictures a step takes and how they are augmented depend on the seed and the step alone. The classifier is
    afterwards where it was, and in evaluation mode. Raises CourseError without labels, for a class too many, and for too
    few unlabelled pictures.
    """
    labels = labelled.require_labels()
    if len(labelled) == 0 or len(labelled.classes) != objective.classifier.head.out_features:
        raise CourseError(
            f"the classifier tells {objective.classifier.head.out_features} classes apart, and the labelled set has "
            f"{len(labelled)} images of {len(labelled.classes)}; build it with as many classes as the set has."
        )
    refuse_not_finite_weights(objective.backbone)
    device = devices.pick_device(device)
    few = dataclasses.replace(config, batch_size=min(config.batch_size, len(labelled)))
    many = dataclasses.replace(config, batch_size=few.batch_size * whole_number("ratio", ratio or objective.ratio))
    pixels = stream.source(unlabelled)
    if len(pixels) < many.batch_size:
        raise CourseError(
            f"a step takes {many.batch_size} unlabelled pictures, and there are {len(pixels)}; give more of them, or a "
            "smaller ratio."
        )
    crowd = train.Batches(pixels, many, device)
    rows = labelled.images.to(device), labels.to(device)  # (L, 3, H, W), (L,)
    generator = devices.generator(0, device)

    def batch(step: int) -> Batch:
        chosen = train.batch_indices(step, len(labelled), few, device)  # (B,)
        generator.manual_seed(devices.derive_seed(config.seed, "views", step))
        return objective.views(rows[0][chosen], rows[1][chosen], crowd[step], generator)

    with checkpoint.claim(out), devices.on(device, objective):
        objective.prepare(stream.looked_at(crowd.pixels))
        identity = checkpoint.run_identity(objective, config, crowd.pixels, rows) | {"start": _digest(objective)}
        store = checkpoint.Store(out, identity, resume=resume) if out is not None else None
        options = {"progress": progress, "on_log": on_log, "label": objective.name}
        history = train.fit(
            objective, batch, config, device=device, store=store, after_step=objective.after_step, **options
        )
    return objective.classifier.eval(), history


def _digest(module: nn.Module) -> str:
    """Of the weights that training starts from: a run that began elsewhere is another run."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def answers(
    classifier: Classifier, images: ImageSet | Tensor, *, device: str | torch.device = "auto", batch_size: int = 512
) -> tuple[Tensor, Tensor]:
    """What a classifier says of uint8 images, and how sure it is: the likeliest class int64 (N,), and its probability (N,).

    On the CPU; the classifier stays where and as it was.
    """
    pixels = images.images if isinstance(images, ImageSet) else images
    device = devices.pick_device(device)
    with devices.on(device, classifier), devices.evaluating(classifier):
        parts = [classifier(augment.to_float(part.to(device))).float().cpu() for part in pixels.split(batch_size)]
    probability, answer = torch.cat(parts).softmax(dim=1).max(dim=1)
    return answer, probability
