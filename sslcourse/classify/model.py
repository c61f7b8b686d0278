"""A classifier in one file: what it sees, what it computes, what its answers are called, and how sure it may be."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from sslcourse import device as devices
from sslcourse import features, weights
from sslcourse.backbones import LARGEST_IMAGE, Backbone
from sslcourse.data.decode import SMALL
from sslcourse.errors import CourseError, real_number, told, whole_number
from sslcourse.features import checked_labels
from sslcourse.files import write_atomically
from sslcourse.weights import classifiers


class LinearHead(nn.Module):
    """Features (N, d) -> logits (N, C) by one linear map."""

    kind = "linear"

    def __init__(self, dim: int, classes: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(classes, dim)), nn.Parameter(torch.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        return functional.linear(features, self.weight, self.bias)


class NeighbourHead(nn.Module):
    """Features (N, d) -> logits (N, C): the log of each class's share of the votes of the k nearest of a bank.

    bank (M, d), on the unit sphere; labels int64 (M,). A neighbour's vote weighs exp(cosine / 0.1) (Wu et al., 2018,
    1805.01978). Beside the neighbours, each class has `smoothing` votes of their mean weight (Laplace's rule): without them
    a class that none of k neighbours is of would be impossible, and no temperature mends that. No class overtakes another.
    """

    kind = "knn"
    TEMPERATURE, FLOOR = 0.1, 1e-6  # FLOOR: the least share, where nothing smooths, as in files of earlier versions

    def __init__(self, dim: int, classes: int, size: int, k: int, smoothing: float = 1.0):
        super().__init__()
        self.classes, self.k, self.smoothing = classes, k, smoothing
        self.register_buffer("bank", torch.zeros(size, dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        similarity = functional.normalize(features, dim=1) @ self.bank.T  # (N, M)
        nearest, index = similarity.topk(min(self.k, len(self.bank)), dim=1)  # (N, k)
        votes = functional.one_hot(self.labels[index], self.classes).to(nearest.dtype)  # (N, k, C)
        share = ((nearest / self.TEMPERATURE).softmax(dim=1)[..., None] * votes).sum(dim=1)  # (N, C), rows sum to 1
        added = self.smoothing / min(self.k, len(self.bank))  # to each class, where the neighbours share 1
        return ((share + added) / (1 + self.classes * added)).clamp(min=self.FLOOR).log()


class Model(nn.Module):
    """Float images (N, 3, H, W) in [0, 1] -> logits (N, C), by features of one stage of a backbone and a head on them.

    classes      names, one for each logit
    image_size   pixels a side that the backbone was trained with; `prediction` brings pictures to it
    stage        where features are read: 1..4, "all" side by side, or "class" for a transformer's class token
    temperature  what logits are divided by before the softmax, from validation
    notes        what it was made from and what was measured: plain values, kept in the file
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, classes: tuple[str, ...], *, image_size: int, stage: int | str = 4,
        temperature: float = 1.0, notes: dict | None = None,
    ):  # fmt: skip
        super().__init__()
        backbone.refuse_stage(stage)
        self.backbone, self.head, self.classes = backbone, head, tuple(classes)
        self.image_size, self.stage, self.temperature = image_size, stage, temperature
        self.notes = dict(notes or {})

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, d)."""
        return self.backbone.features(images, self.stage)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Calibrated probabilities (N, C) of float images in [0, 1]; rows sum to 1."""
        return (self(images) / self.temperature).softmax(dim=1)

    @torch.no_grad()
    def logits(self, images: Tensor, *, device: str | torch.device = "auto", batch_size: int | None = None) -> Tensor:
        """Logits of uint8 images (N, 3, H, W): float32 (N, C) on the CPU. The model stays where and as it was."""
        device = devices.pick_device(device)
        with devices.on(device, self), devices.evaluating(self):
            parts = features.in_batches(self.backbone, images, batch_size)
            return torch.cat([self(part.to(device).float() / 255).float().cpu() for part in parts])

    def made_from(self, folder: str | Path) -> bool:
        """Whether the notes say that it was made from pictures of this folder, of one in it, or of one that it is in."""
        kind, _, place = str(self.notes.get("data", "")).partition(":")
        here, there = Path(folder).resolve(), Path(place).resolve()
        return kind == "folder" and (here.is_relative_to(there) or there.is_relative_to(here))

    def save(self, path: str | Path) -> None:
        """One safetensors file, written whole or not at all."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        about = {
            "format": classifiers.FORMAT, "arch": self.backbone.arch, "stem": self.backbone.stem,
            "network": classifiers.describe(weights.measures_of(self.backbone)), "head": self.head.kind,
            "neighbours": getattr(self.head, "k", None), "smoothing": getattr(self.head, "smoothing", None),
            "classes": list(self.classes), "image_size": self.image_size, "stage": self.stage,
            "temperature": self.temperature, "notes": self.notes,
        }  # fmt: skip
        write_atomically(Path(path), safetensors.torch.save(state, metadata={classifiers.KEY: json.dumps(about)}))


def is_classifier(path: str | Path) -> bool:
    """Whether there is a file at `path` that `Model.save` wrote."""
    return classifiers.about(Path(path)) is not None


def load(path: str | Path) -> Model:
    """The model of a file that `Model.save` wrote, ready to predict. Nothing in such a file is ever executed.

    Raises CourseError for a file that is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"there is no classifier at {path}; `sslcourse finetune WEIGHTS --out {path}` writes one.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(classifiers.KEY, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CourseError(f"{path} can't be read as a classifier ({error}); write it again.") from None
    if not isinstance(about, dict) or about.get("format") != classifiers.FORMAT:
        raise CourseError(
            f"{path} holds weights and no classifier; `sslcourse finetune {path} --data … --out MODEL` makes one of them."
        )
    try:
        model = _built(about, state)
        model.load_state_dict(state)
        answer = model.logits(torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8), device="cpu")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CourseError(
            f"{path} contradicts itself ({str(error).splitlines()[-1].strip()}); it is damaged: write it again."
        ) from None
    if not all(bool(torch.isfinite(t).all()) for t in (*state.values(), answer) if t.is_floating_point()):
        raise CourseError(
            f"{path} holds or gives numbers that aren't finite; train again with a lower learning rate, or get it again."
        )
    return model.eval()


def _built(about: dict, state: dict[str, Tensor]) -> Model:
    """The model that a file describes, before its weights are filled in."""
    backbone = Backbone(classifiers.trunk_of(about["network"]), about["arch"], about["stem"])
    classes, size = _classes(about["classes"]), whole_number("image_size", about["image_size"], SMALL, LARGEST_IMAGE)
    if about["head"] == LinearHead.kind:
        head: nn.Module = LinearHead(state["head.weight"].shape[1], len(classes))
    else:
        smoothing = real_number("smoothing", about.get("smoothing") or 0.0, 0.0)
        head = _neighbours(state, len(classes), whole_number("neighbours", about["neighbours"]), smoothing)
    return Model(
        backbone, head, classes, image_size=size, stage=about["stage"],
        temperature=real_number("temperature", about["temperature"], 1e-3), notes=about["notes"],
    )  # fmt: skip


def _classes(names: object) -> tuple[str, ...]:
    """The names of the classes, of which each is another. CourseError for anything else."""
    if not isinstance(names, list) or len(names) < 2 or len(set(map(str, names))) < len(names):
        raise CourseError(f"classes must be two different names or more, and are {told(names)}")
    return tuple(map(str, names))


def _neighbours(state: dict[str, Tensor], classes: int, k: int, smoothing: float) -> NeighbourHead:
    bank, labels = state["head.bank"], state["head.labels"]
    size, dim = bank.shape
    checked_labels(labels, size, classes)
    return NeighbourHead(dim, classes, size, k, smoothing)
