"""Small files in the layouts in which six projects publish their weights, to learn on without a network connection.

Nesting, names and what lies beside the network are as each project's own code writes them; the numbers are not the
published ones. Three files hold backbones of this course, the other three random weights.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from sslcourse import backbones
from sslcourse.backbones import Backbone
from sslcourse.weights.writing import save

State = dict[str, Tensor]


@dataclass(frozen=True)
class StandIn:
    """A file, or for Transformers a directory, and what its author's network says: `author` takes float images
    (N, 3, H, W) in [0, 1] to features (N, d)."""

    path: Path
    author: Callable[[Tensor], Tensor]

    @property
    def bytes(self) -> int:
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)


def write(folder: Path, trained: Mapping[str, Backbone], seed: int = 20) -> dict[str, StandIn]:
    """Six stand-ins in `folder`, by the project's name: VISSL's holds `trained["rotation"]`, MoCo's "vicreg", SimCLR's
    "simclr"."""
    rotation, vicreg, simclr = (trained[task] for task in ("rotation", "vicreg", "simclr"))
    teacher, student, third = (backbones.build("vit-tiny", seed=s) for s in range(3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = torchvision.models.resnet18(weights=None)
        trees = {
            "resnet18-standin.pth": classifier.state_dict(),
            "moco_v2_standin.pth.tar": _moco(vicreg.trunk),
            "simclr_standin.pth": _simclr(simclr.trunk),
            "model_final_checkpoint_standin.torch": _vissl(rotation.trunk),
            "dino_standin_full_checkpoint.pth": _dino(teacher.trunk, student.trunk),
        }
    authors = [_without_head(classifier, teacher), vicreg, simclr, rotation, teacher.summary]
    names = ("torchvision", "MoCo", "SimCLR", "VISSL", "DINO")
    for file, tree in trees.items():
        torch.save(tree, folder / file)
    found = {name: StandIn(folder / file, author) for name, file, author in zip(names, trees, authors, strict=True)}
    save(third, folder / "vit-standin")  # not a file, but a directory: config.json says what weights can't
    return found | {"Transformers": StandIn(folder / "vit-standin", third.summary)}


def _without_head(classifier: nn.Module, normal: Backbone) -> Callable[[Tensor], Tensor]:
    """torchvision's own features of images that are normalized as `normal` does it."""
    network = copy.deepcopy(classifier).eval()
    network.fc = nn.Identity()
    return lambda images: network(normal.preprocess(images))


# --- trees, each as its project's code writes it -----------------------------------------------------------------


def _moco(trunk: nn.Module) -> dict[str, Any]:
    """MoCo v2, main_moco.py: a query encoder, a key encoder and a queue, behind the `module.` of a distributed wrapper."""
    slow = copy.deepcopy(trunk)
    with torch.no_grad():
        for p in slow.parameters():
            p.add_(0.01 * p.std() * torch.randn_like(p) if p.numel() > 1 else 0)
    state = {}
    for encoder, network in (("encoder_q", trunk), ("encoder_k", slow)):
        state |= _renamed(network.state_dict() | _layers(128, 128, 128, place="fc"), f"module.{encoder}.")
    state["module.queue"] = nn.functional.normalize(torch.randn(128, 4096), dim=0)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    sgd = torch.optim.SGD(slow.parameters(), lr=0.03, momentum=0.9).state_dict()
    return {"epoch": 200, "arch": "resnet-tiny", "state_dict": state, "optimizer": sgd}


def _simclr(trunk: nn.Module) -> dict[str, Any]:
    """SimCLR, converted from TensorFlow: batch norms that never counted a batch, because PyTorch never trained them."""
    state = {n: torch.zeros_like(t) if "num_batches" in n else t for n, t in trunk.state_dict().items()}
    return {"state_dict": state | {"fc.weight": torch.randn(10, 128), "fc.bias": torch.zeros(10)}}


def _vissl(trunk: nn.Module) -> dict[str, Any]:
    """VISSL: deep in the tree, and the trunk calls its parts feature blocks."""
    model = {"trunk": _renamed(trunk.state_dict(), "_feature_blocks."), "heads": _layers(128, 4, place="0.clf")}
    inside = {"base_model": {"model": model}, "loss": {}, "train_phase_idx": 104}
    return {"classy_state_dict": inside, "phase_idx": 104}


def _dino(teacher: nn.Module, student: nn.Module) -> dict[str, Any]:
    """DINO, main_dino.py: student and teacher with their heads, and the options of the run as an argparse.Namespace."""
    head = _layers(128, 256, 256, 64, place="mlp") | {"last_layer.weight_g": torch.ones(512, 1)}
    head |= {"last_layer.weight_v": torch.randn(512, 64)}
    return {
        "student": _renamed(student.state_dict(), "module.backbone.") | _renamed(head, "module.head."),
        "teacher": _renamed(teacher.state_dict(), "backbone.") | _renamed(head, "head."),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=4, out_dim=512, teacher_temp=0.04),
        "dino_loss": {"center": torch.zeros(1, 512)},
    }


def _renamed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _layers(*sizes: int, place: str) -> State:
    """Weights and biases of linear layers 0, 2, 4, ... of a head."""
    return {
        f"{place}.{2 * i}.{part}": torch.randn(shape) * 0.02
        for i, (a, b) in enumerate(pairwise(sizes))
        for part, shape in (("weight", (b, a)), ("bias", (b,)))
    }
