"""The network within a classifier's file (`classify.Model.save`), which says everything about itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.weights.networks import MeasuredResNet, MeasuredVit, ResNetMeasures, VitMeasures

KEY = "sslcourse-classifier"  # of the file's metadata
FORMAT = "sslcourse classifier 1"
BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}
BACKBONE = "backbone."  # what the names of its entries begin with


def about(path: Path) -> dict[str, Any] | None:
    """What a classifier's file says of itself; None for any other file."""
    if not path.is_file():  # of a pipe, opening it would wait for a writer for ever
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(KEY, "null"))
    except Exception:  # a damaged header may raise anything
        return None
    return description if isinstance(description, dict) else None


def describe(measures: ResNetMeasures | VitMeasures) -> dict[str, Any]:
    """The measures of a network as plain values, for JSON."""
    plain = dataclasses.asdict(measures)
    if isinstance(measures, ResNetMeasures):
        plain["block"] = next(name for name, block in BLOCKS.items() if block is measures.block)
    return plain | {"kind": "resnet" if isinstance(measures, ResNetMeasures) else "vit"}


def trunk_of(described: dict[str, Any]) -> nn.Module:
    """The network that `describe` described, with weights that are still chance."""
    plain = dict(described)
    if plain.pop("kind") == "vit":
        return MeasuredVit(VitMeasures(**plain))
    plain["block"] = BLOCKS[plain["block"]]
    return MeasuredResNet(ResNetMeasures(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}))


def backbone_of(path: Path, description: dict[str, Any]) -> Backbone:
    """The backbone of a classifier's file, with its own preprocessing; its notes hold image size and stage.

    description  what `about` found in it. Raises CourseError for a damaged file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {
                name.removeprefix(BACKBONE): file.get_tensor(name) for name in file.keys() if name.startswith(BACKBONE)
            }
        backbone = Backbone(trunk_of(description["network"]), description["arch"], description["stem"])
        backbone.load_state_dict(state)
        backbone.notes = {"image_size": int(description["image_size"]), "stage": str(description["stage"])}
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CourseError(
            f"{path} contradicts itself ({str(error).splitlines()[-1].strip()}); it is damaged: write it again."
        ) from None
    return backbone.eval()
