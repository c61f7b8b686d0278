"""Whose checkpoint is it? One table: how the files of each are known, and what of theirs no file says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sslcourse.weights.layouts import Found
from sslcourse.weights.reading import Contents

LIGHTNING = re.compile(r"state_dict\.(\w*backbone|encoder)\.")  # where solo-learn and lightly put their networks


@dataclass(frozen=True)
class Source:
    """Who wrote a checkpoint.

    name                 as reports say it
    matches              whether a checkpoint, with the network that was found in it, is theirs
    epsilon              of a vision transformer's layer norms
    heads                of a vision transformer, by its width, where they aren't the usual ones
    activation           of vit.ACTIVATIONS; None where it differs, and nothing in their files tells it
    stem                 what a 3x3 stem of theirs is, where its width doesn't decide
    normalization        a name of `preprocessing.NORMALIZATIONS`: how their code treats pixels; None where it differs
    small_normalization  likewise for networks with a 3x3 stem of stride 1
    reason               why it is that normalization, in reports (default: as they train)
    configured           config.json says what the shapes of the weights don't, and must be there
    """

    name: str
    matches: Callable[[Contents, Found], bool]
    epsilon: float = 1e-6
    heads: Mapping[int, int] = field(default_factory=dict)
    activation: str | None = "gelu"
    stem: str | None = None
    normalization: str | None = None
    small_normalization: str | None = None
    reason: str = ""
    configured: bool = False


def of(contents: Contents, found: Found) -> Source:
    """The first source of the table that a checkpoint matches; the last two match whatever is left."""
    return next(source for source in SOURCES if source.matches(contents, found))


# --- marks --------------------------------------------------------------------------------------------------------


def _vissl(contents: Contents, found: Found) -> bool:
    beginning = "classy_state_dict" in contents.entries or found.prefix.endswith("_feature_blocks.")
    return beginning or any("class_token" in name for name in found.sources.get("cls_token", ()))


def _moco(contents: Contents, found: Found) -> bool:
    return re.search(r"(^|\.)encoder_[qk]\.$", found.prefix) is not None


def _moco_v2(contents: Contents, found: Found) -> bool:
    return _moco(contents, found) and f"{found.prefix}fc.2.weight" in contents.tensors  # a projector of two layers


def _moco_v1(contents: Contents, found: Found) -> bool:
    return _moco(contents, found) and f"{found.prefix}fc.weight" in contents.tensors


def _moco_v3(contents: Contents, found: Found) -> bool:
    return re.search(r"(^|\.)(base|momentum)_encoder\.$", found.prefix) is not None


def _swav(contents: Contents, found: Found) -> bool:
    """SwAV's ResNets have their projection and prototypes among themselves, and are saved from several processes."""
    kept = re.search(r"(^|\.)module\.$", found.prefix) and any(n.startswith("prototypes.") for n in found.weights)
    return found.layout.name == "torchvision" and bool(kept)


def _ibot(contents: Contents, found: Found) -> bool:
    return "ibot_loss" in contents.entries or "masked_embed" in found.weights


def _dinov2(contents: Contents, found: Found) -> bool:
    scaled = {"mask_token", "blocks.0.ls1.gamma"} <= found.weights.keys()
    return found.layout.name == "dinov2" or scaled and found.layout.name == "timm"


def _clip_openai(contents: Contents, found: Found) -> bool:
    """Numbers about the network that only a state_dict of OpenAI's own files has."""
    return found.layout.name == "clip" and {"input_resolution", "context_length"} <= set(contents.entries)


def _clip(contents: Contents, found: Found) -> bool:
    return found.layout.name == "clip" or "norm_pre.weight" in found.weights  # timm's too


def _mae(contents: Contents, found: Found) -> bool:
    return any(name.startswith("decoder_embed.") for name in found.weights)


def _simclr(contents: Contents, found: Found) -> bool:
    return found.layout.name == "simclr2" or converted_simclr(contents, found)


def converted_simclr(contents: Contents, found: Found) -> bool:
    """Whether a checkpoint has the marks of a SimCLR network that was converted from TensorFlow (Chen et al., 2020,
    2002.05709): `state_dict` and nothing else at the top, torchvision's names, and batch norms that have statistics but
    never counted a batch, since PyTorch never trained them. No entry says so: `normalize` overrides.
    """
    if contents.entries != ["state_dict"] or found.prefix != "state_dict." or found.layout.name != "torchvision":
        return False
    counted = [bool(t.any()) for name, t in found.weights.items() if name.endswith("num_batches_tracked")]
    means = [t for name, t in found.weights.items() if name.endswith("running_mean")]
    return bool(counted) and not any(counted) and any(bool(mean.any()) for mean in means)


def _lightning(contents: Contents, found: Found) -> bool:
    return "pytorch-lightning_version" in contents.entries or LIGHTNING.match(found.prefix) is not None


def _solo_learn(contents: Contents, found: Found) -> bool:
    return _lightning(contents, found) and "state_dict.classifier.weight" in contents.tensors


def _lightly(contents: Contents, found: Found) -> bool:
    return _lightning(contents, found) or found.layout.name in ("sequential", "lightly")


SOURCES = (
    Source("Transformers", lambda contents, found: found.layout.name == "huggingface", configured=True),
    # Theirs say no activation, and it isn't the same in all of them.
    Source("CLIP", _clip_openai, epsilon=1e-5, activation="quick-gelu", normalization="clip"),
    Source("CLIP or OpenCLIP", _clip, epsilon=1e-5, activation=None, normalization="clip"),
    Source("SigLIP", lambda c, found: found.layout.name == "big_vision", activation="gelu-tanh", normalization="half"),
    Source("SigLIP", lambda contents, found: "attn_pool.latent" in found.weights, normalization="half"),
    Source("timm", lambda contents, found: bool(contents.config.get("pretrained_cfg"))),
    # VISSL's transformers keep the epsilon that PyTorch's layer norm has by default
    Source("VISSL", _vissl, epsilon=1e-5, normalization="imagenet"),
    Source("MoCo v2", _moco_v2, normalization="imagenet"),
    Source("MoCo v1", _moco_v1, normalization="imagenet"),
    Source("MoCo", _moco, normalization="imagenet"),
    # a ViT-S of MoCo v3 has 12 heads, where all others have 6
    Source("MoCo v3", _moco_v3, heads={384: 12}, normalization="imagenet"),
    Source("SwAV", _swav, normalization="swav"),
    Source("iBOT", _ibot, normalization="imagenet"),
    Source("I-JEPA", lambda contents, found: "target_encoder" in contents.entries, normalization="imagenet"),
    Source("DINOv3", lambda contents, found: "rope.periods" in found.weights, epsilon=1e-5, normalization="imagenet"),
    Source("DINOv2", _dinov2, normalization="imagenet"),
    Source("DINO", lambda contents, found: {"teacher", "student"} <= set(contents.entries), normalization="imagenet"),
    Source("MAE", _mae, normalization="imagenet"),
    Source("SimCLR", _simclr, normalization="none", reason="SimCLR takes images in [0, 1]"),
    Source("solo-learn", _solo_learn, stem="solo-learn", small_normalization="cifar"),
    Source("lightly", _lightly),
    Source("torchvision", lambda contents, found: found.layout.kind == "resnet"),
    Source("timm or DINO", lambda contents, found: True),
)
