"""Transformers' directories: what config.json decides beyond the weights, read and written.

Equal keys are not enough: a ResNet with its stride in the wrong place, or a vision transformer with another epsilon,
loads without a word and computes something else. Whatever the configuration says is honoured, or refused in a sentence.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslcourse.backbones import Backbone
from sslcourse.errors import CourseError
from sslcourse.files import write_atomically
from sslcourse.vit import RotaryPositions
from sslcourse.weights.networks import ResNetMeasures, VitMeasures

# Of vision transformers, where config.json is silent: epsilon of the layer norms, heads, activation.
DEFAULTS: dict[str, tuple[float, int, str]] = {
    "vit": (1e-12, 12, "gelu"),
    "vit_mae": (1e-12, 12, "gelu"),
    "vit_msn": (1e-6, 12, "gelu"),
    "ijepa": (1e-12, 12, "gelu"),
    "dinov2": (1e-6, 12, "gelu"),
    "dinov2_with_registers": (1e-6, 12, "gelu"),
    "dinov3_vit": (1e-5, 6, "gelu"),
    **dict.fromkeys(("clip", "clip_vision_model"), (1e-5, 12, "quick_gelu")),
    **dict.fromkeys(("siglip", "siglip_vision_model"), (1e-6, 12, "gelu_pytorch_tanh")),
}
KINDS = {"resnet": "resnet"} | dict.fromkeys(DEFAULTS, "vit")
ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick-gelu", "gelu_pytorch_tanh": "gelu-tanh", "gelu_new": "gelu-tanh"}
ROPE_THETA = 100.0  # DINOv3's base of rotary positions, where config.json is silent


# --- reading ------------------------------------------------------------------------------------------------------


def refuse_unknown(config: dict[str, Any], kind: str) -> None:
    """CourseError for a directory whose model isn't one of these, or that has no configuration."""
    model = config.get("model_type")
    if not config:
        raise CourseError(
            "these are the names of Transformers, and the weights alone don't say what config.json does (epsilon, heads, "
            "where the stride is); give the directory that save_pretrained wrote."
        )
    if KINDS.get(model) != kind:
        raise CourseError(f"config.json says model_type {model!r}, and this course reads {', '.join(KINDS)}.")
    known = ("relu",) if kind == "resnet" else tuple(ACTIVATIONS)
    if config.get("hidden_act", known[0]) not in known:
        raise CourseError(
            f"config.json says hidden_act {config['hidden_act']!r}; only relu in a ResNet, and {', '.join(ACTIVATIONS)} in a "
            "vision transformer can be read."
        )
    for gated in ("use_swiglu_ffn", "use_gated_mlp"):
        if config.get(gated):
            raise CourseError(
                f"config.json says {gated}, a gated network in each block, which this course doesn't have."
            )


def resnet_measures(found: ResNetMeasures, config: dict[str, Any]) -> ResNetMeasures:
    """The measures that the shapes say, with the strides that config.json says; both must agree on the rest."""
    bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    refuse_contradiction("layer_type", bottleneck, found.block is Bottleneck)
    refuse_contradiction("depths", tuple(config.get("depths", (3, 4, 6, 3))), found.blocks)
    return dataclasses.replace(
        found,
        stride_in_first=bool(config.get("downsample_in_bottleneck", False)) and bottleneck,
        first_stride=2 if config.get("downsample_in_first_stage", False) else 1,
    )


def refuse_vit_contradiction(found: VitMeasures, config: dict[str, Any]) -> None:
    """CourseError where config.json and the shapes of the weights say different things."""
    measured = {
        "hidden_size": found.width,
        "num_hidden_layers": found.depth,
        "patch_size": found.patch,
        "image_size": found.image_size,
        "intermediate_size": found.hidden,
    }
    for name, shape_says in measured.items():
        value = config.get(name, shape_says)
        refuse_contradiction(name, value[0] if isinstance(value, list) else value, shape_says)


def refuse_contradiction(name: str, config_says: Any, shapes_say: Any) -> None:
    if config_says != shapes_say:
        raise CourseError(
            f"config.json says {name} {config_says}, and the shapes of the weights say {shapes_say}; the two files don't "
            "belong together: get the whole directory again."
        )


def epsilon(config: dict[str, Any]) -> float:
    """Of a vision transformer's layer norms: what config.json says, or the default of its kind."""
    return config.get("layer_norm_eps", DEFAULTS[config["model_type"]][0])


def heads(config: dict[str, Any]) -> int:
    """Attention heads of a vision transformer, likewise."""
    return config.get("num_attention_heads", DEFAULTS[config["model_type"]][1])


def activation(config: dict[str, Any]) -> str:
    """The activation of a vision transformer's blocks, likewise, in the words of vit.ACTIVATIONS."""
    return ACTIVATIONS[config.get("hidden_act", DEFAULTS[config["model_type"]][2])]


def periods(config: dict[str, Any], width: int) -> Tensor | None:
    """Periods of DINOv3's rotary positions for heads as config.json has them, which no file holds: (e / 4,)."""
    if config["model_type"] != "dinov3_vit" or width % heads(config) or width // heads(config) % 4:
        return None
    return RotaryPositions(width // heads(config), config.get("rope_theta", ROPE_THETA)).periods


# --- writing ------------------------------------------------------------------------------------------------------


WAY_OUT = (
    "For Transformers, pretrain with --stem imagenet (in Python build(..., stem='imagenet')) or on a vision transformer; "
    "for PyTorch alone, --format torchvision (format='torchvision')."
)


def limit(m: ResNetMeasures | VitMeasures) -> str:
    """Why Transformers' classes can't express a network; "" where they can."""
    if isinstance(m, VitMeasures):
        if not m.plain:
            return f"a {m.name} has parts that a ViTModel or Dinov2Model of Transformers hasn't: keep the file that it came in"
        if not m.last_norm:
            return "this vision transformer has no last norm, and those of Transformers have"
        if m.layer_scale and m.hidden % m.width:
            return f"a Dinov2Model's hidden layers are multiples of {m.width}, and here they have {m.hidden}"
    elif m.stem != "imagenet":
        return (
            f"this backbone has the stem {m.stem!r}, and a ResNet of Transformers begins with ImageNet's (7x7, stride 2, "
            "max-pooling)"
        )
    elif (m.groups, m.base_width) != (1, 64):
        return "a ResNet of Transformers has no groups and no wider bottlenecks, and this backbone has"
    return ""


def save(
    backbone: Backbone,
    folder: Path,
    measures: ResNetMeasures | VitMeasures,
    image_size: int | None,
    about: dict[str, Any],
) -> None:
    """config.json, model.safetensors and preprocessor_config.json, as `save_pretrained` lays them out.

    A ResNet becomes a ResNetModel, whose `pooler_output` (N, dim, 1, 1) is the backbone's output. A vision transformer
    becomes a ViTModel, or a Dinov2Model where it has layer scale: `last_hidden_state` (N, 1 + L, d) holds the class token
    and the patches after the last norm, `pooler_output` is the class token. `limit` says what these classes can't
    express. `about` is for config.json beside what Transformers reads there.
    """
    state = {name: t.detach().cpu().contiguous() for name, t in backbone.trunk.state_dict().items()}
    if isinstance(measures, ResNetMeasures):
        config, weights, size = _resnet(measures, state)
    else:
        config, weights, size = _vit(measures, state)
    size = image_size or size
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": backbone.mean.flatten().tolist(),
        "image_std": backbone.std.flatten().tolist(),
    }
    write_atomically(folder / "model.safetensors", safetensors.torch.save(weights, metadata={"format": "pt"}))
    write_atomically(folder / "preprocessor_config.json", as_json(preprocessor))
    write_atomically(folder / "config.json", as_json(config | {"num_channels": 3, "dtype": "float32"} | about))


def _resnet(m: ResNetMeasures, state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor], int]:
    config = {
        "model_type": "resnet",
        "architectures": ["ResNetModel"],
        "hidden_act": "relu",
        "layer_type": "basic" if m.block is BasicBlock else "bottleneck",
        "depths": list(m.blocks),
        "embedding_size": m.stem_width,
        "hidden_sizes": [c * m.block.expansion for c in m.channels],
        "downsample_in_bottleneck": m.stride_in_first,
        "downsample_in_first_stage": m.first_stride == 2,
    }
    return config, {_resnet_name(name): tensor for name, tensor in state.items()}, 224


def _resnet_name(name: str) -> str:
    """layer2.0.bn1.weight to encoder.stages.1.layers.0.layer.0.normalization.weight."""
    *path, last = name.split(".")
    if len(path) == 1:
        return f"embedder.embedder.{'convolution' if path[0] == 'conv1' else 'normalization'}.{last}"
    stage, block, part, *rest = path
    place = f"encoder.stages.{int(stage.removeprefix('layer')) - 1}.layers.{block}"
    if part == "downsample":
        return f"{place}.shortcut.{('convolution', 'normalization')[int(rest[0])]}.{last}"
    what = "convolution" if part.startswith("conv") else "normalization"
    return f"{place}.layer.{int(part[-1]) - 1}.{what}.{last}"


def _vit(m: VitMeasures, state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor], int]:
    config = {
        "hidden_size": m.width,
        "num_hidden_layers": m.depth,
        "num_attention_heads": m.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": m.eps,
        "image_size": m.image_size,
        "patch_size": m.patch,
        "qkv_bias": m.qkv_bias,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if m.layer_scale:
        config |= {"model_type": "dinov2", "architectures": ["Dinov2Model"], "mlp_ratio": m.hidden // m.width}
        extra = {"embeddings.mask_token": torch.zeros(1, m.width)}
    else:
        config |= {"model_type": "vit", "architectures": ["ViTModel"], "intermediate_size": m.hidden}
        # a pooler that changes nothing: without one in the file, AutoModel would make up a random one
        config |= {"pooler_act": "linear", "pooler_output_size": m.width}
        extra = {"pooler.dense.weight": torch.eye(m.width), "pooler.dense.bias": torch.zeros(m.width)}
    weights = {name: t for key, tensor in state.items() for name, t in _vit_names(key, tensor, m.layer_scale)}
    return config, weights | extra, m.image_size


def _vit_names(key: str, tensor: Tensor, dinov2: bool) -> list[tuple[str, Tensor]]:
    """timm's name to those in the files of Transformers; queries, keys and values (3 d, ...) to three of (d, ...)."""
    outside = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    if key in outside:
        return [(outside[key], tensor)]
    path, last = key.rsplit(".", 1)
    if path in outside:
        return [(f"{outside[path]}.{last}", tensor)]
    _, block, part = path.split(".", 2)
    place = f"encoder.layer.{block}"
    if part == "attn.qkv":
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return [(f"{place}.attention.attention.{name}.{last}", third.clone()) for name, third in parts]
    names = {"attn.proj": "attention.output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after"}
    names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    if dinov2:
        names = {"attn.proj": "attention.output.dense", "ls1": "layer_scale1", "ls2": "layer_scale2"}
    return [(f"{place}.{names.get(part, part)}.{'lambda1' if last == 'gamma' else last}", tensor)]


def as_json(settings: dict[str, Any]) -> bytes:
    return (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
