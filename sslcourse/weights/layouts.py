"""Finding the network in a checkpoint, and the course's names for its parts.

Every layout is found in the same way. A checkpoint is a tree; each tensor in it has a dotted path. The first layer of a
network and a layer of its first block, side by side, show where a network begins: what stands before them is its
prefix, and what begins with it and isn't part of the network must be a known head.

    source                        prefix                                          names behind it
    torchvision                   (none), state_dict.                             conv1, layer1.0.conv1, fc
    MoCo v1, v2 (1911.05722)      state_dict.module.encoder_q. | encoder_k.       torchvision's
    DINO (2104.14294)             teacher.[module.]backbone. | student.module.…   timm's, or torchvision's
    DINO's backbone alone         (none)                                          timm's, or torchvision's
    iBOT (2111.07832)             as DINO; state_dict. of a teacher alone         timm's
    MAE (2111.06377)              model.                                          timm's, decoder beside them
    MoCo v3 (2104.02057)          state_dict.module.base_encoder. | momentum_…    timm's, or torchvision's
    SwAV (2006.09882)             [state_dict.]module.                            torchvision's, prototypes beside them
    DINOv2 (2304.07193)           (none), or of a training teacher.backbone.      timm's; in a training blocks.0.1.norm1
    DINOv3 (2508.10104)           (none)                                          timm's, rope_embed, storage_tokens
    I-JEPA (2301.08243)           target_encoder.module. | encoder.module.        timm's, without a class token
    CLIP (2103.00020), OpenCLIP   [state_dict.module.]visual.                     transformer.resblocks.0.ln_1
    SigLIP (2303.15343)           params.img.                                     embedding, Transformer.encoderblock_0
      in OpenCLIP and timm        visual.trunk., or (none)                        timm's, attn_pool beside them
    VISSL                         classy_state_dict.base_model.model.trunk.[base_model.]_feature_blocks.
                                  model_state_dict._feature_blocks., or bare      torchvision's
    SimCLR to PyTorch (tonylins)  state_dict.                                     torchvision's
    SimCLRv2 (Separius)           resnet.                                         net.0.0, net.1.blocks.0.net.0
    lightly                       state_dict.backbone.                            torchvision's, or 0, 1, 4.0.conv1
    solo-learn                    state_dict.backbone. (once encoder.)            torchvision's, or timm's
    timm                          (none)                                          patch_embed.proj, blocks.0.attn.qkv
    Hugging Face                  (none), resnet., vit., dinov2., vision_model.   embeddings., encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcourse.console import shown
from sslcourse.errors import CourseError
from sslcourse.weights.reading import Contents, refuse_unusual

LONGEST_NAME, MOST_NAMED = 120, 8  # letters of an entry's name, and names, that a message holds
TEACHER = re.compile(r"(^|[._])(encoder_k|momentum|teacher|target|ema)")
# What may stand beside a network without being part of it: heads, the masked autoencoder's decoder, the mask's token, and
# DINOv3's norm of the class token of small crops, which only training uses.
HEAD = re.compile(
    r"^(fc|heads?|head_dist|classifier|linear|projectors?|projection_head|prediction_head|predictor|prototypes|pooler"
    r"|mask_token|masked_embed|fc_norm|decoder\w*|contrastive_head|classification_head|online_classifier|local_cls_norm"
    r"|embeddings\.position_ids)(\.|$)"
)


# --- names ------------------------------------------------------------------------------------------------------


def torchvision(key: str) -> str:
    """torchvision's own names; lightly's ResNetGenerator says shortcut for downsample."""
    return ".".join("downsample" if part == "shortcut" else part for part in key.split("."))


def _numbered(places: dict[str, str]) -> Callable[[str], str]:
    def rename(key: str) -> str:
        place, dot, rest = key.partition(".")
        return torchvision(places.get(place, place) + dot + rest)

    return rename


# The children of a torchvision network in an nn.Sequential, and those of lightly's, which has neither ReLU nor pooling.
sequential = _numbered({"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"})
sequential_lightly = _numbered({"0": "conv1", "1": "bn1", "2": "layer1", "3": "layer2", "4": "layer3", "5": "layer4"})


def simclr2(key: str) -> str:
    """Names of the SimCLRv2 conversions (Chen et al., 2020, 2006.10029), whose blocks are numbered sequences."""
    key = re.sub(r"^net\.0\.0\.", "conv1.", re.sub(r"^net\.0\.1\.0\.", "bn1.", key))
    match = re.match(r"net\.([1-4])\.blocks\.(\d{1,4})\.(.+)$", key)
    if not match:
        return key
    rest = re.sub(r"^net\.([024])\.(?=weight)", lambda m: f"conv{int(m[1]) // 2 + 1}.", match[3])
    rest = re.sub(r"^net\.([135])\.0\.", lambda m: f"bn{int(m[1]) // 2 + 1}.", rest)
    rest = re.sub(
        r"^projection\.shortcut\.(?=weight)", "downsample.0.", re.sub(r"^projection\.bn\.0\.", "downsample.1.", rest)
    )
    return f"layer{match[1]}.{match[2]}.{rest}"


def huggingface_resnet(key: str) -> str:
    """Names of Transformers' ResNetModel."""
    parts = {"convolution": ("conv1", "downsample.0", "conv{}"), "normalization": ("bn1", "downsample.1", "bn{}")}
    for part, (stem, shortcut, layer) in parts.items():
        key = re.sub(rf"^embedder\.embedder\.{part}\.", f"{stem}.", key)
        key = re.sub(
            rf"^encoder\.stages\.(\d{{1,4}})\.layers\.(\d{{1,4}})\.(?:shortcut|layer\.(\d{{1,4}}))\.{part}\.",
            lambda m, shortcut=shortcut, layer=layer: (
                f"layer{int(m[1]) + 1}.{m[2]}.{shortcut if m[3] is None else layer.format(int(m[3]) + 1)}."
            ),
            key,
        )
    return key


# What others call the parts of a vision transformer that lie outside its blocks: VISSL, DINOv2, DINOv3.
TIMM = {
    "class_token": "cls_token",
    "pos_embedding": "pos_embed",
    "register_tokens": "reg_token",
    "storage_tokens": "reg_token",
    "rope_embed.periods": "rope.periods",
}


def timm(key: str) -> str:
    """timm's own names; iBOT says gamma_1 for ls1.gamma, which it has when it is fine-tuned."""
    return TIMM.get(key) or re.sub(r"^(blocks\.\d{1,4}\.)gamma_([12])$", r"\1ls\2.gamma", key)


def dinov2(key: str) -> str:
    """Names while DINOv2 is trained: its blocks come in chunks, numbered through."""
    return timm(re.sub(r"^blocks\.\d{1,4}\.(?=\d{1,4}\.)", "blocks.", key))


def clip(key: str) -> str:
    """Names of CLIP's image tower, and of OpenCLIP's."""
    outside = {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "conv1.weight": "patch_embed.proj.weight",
        "proj": "projector",  # to the space that images share with texts
    }
    inside = {"ln_1": "norm1", "ln_2": "norm2", "ls_1": "ls1", "ls_2": "ls2", "mlp.c_fc": "mlp.fc1"}
    inside |= {"mlp.c_proj": "mlp.fc2", "attn.in_proj": "attn.qkv", "attn.out_proj": "attn.proj"}
    key = re.sub(r"^ln_(pre|post)\.", lambda m: "norm_pre." if m[1] == "pre" else "norm.", key)
    match = re.match(r"transformer\.resblocks\.(\d{1,4})\.(.+)[._](weight|bias|gamma)$", key)
    return f"blocks.{match[1]}.{inside.get(match[2], match[2])}.{match[3]}" if match else outside.get(key, key)


# big_vision's names: what a block and the pooling hold, and what lies outside.
FLAX = {
    "LayerNorm_0": "norm1",
    "LayerNorm_1": "norm2",
    "MlpBlock_0.Dense_0": "mlp.fc1",
    "MlpBlock_0.Dense_1": "mlp.fc2",
}
FLAX |= {
    f"MultiHeadDotProductAttention_0.{theirs}": f"attn.{ours}"
    for theirs, ours in {"query": "q", "key": "k", "value": "v", "out": "proj"}.items()
}
FLAX_POOL = FLAX | {"LayerNorm_0": "norm", "MultiHeadDotProductAttention_0.out": "proj"}
FLAX_OUTSIDE = {"embedding": "patch_embed.proj", "Transformer.encoder_norm": "norm"}
FLAX_LAST = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def big_vision(key: str) -> str:
    """Names of SigLIP's own code, google-research/big_vision."""
    part, _, last = key.rpartition(".")
    last = FLAX_LAST.get(last, last)
    if match := re.match(r"Transformer\.encoderblock_(\d{1,4})\.(.+)$", part):
        return f"blocks.{match[1]}.{FLAX.get(match[2], match[2])}.{last}"
    if part.startswith("MAPHead_0."):
        inside = part.removeprefix("MAPHead_0.")
        return f"attn_pool.{FLAX_POOL.get(inside, inside)}.{last}"
    whole = {"pos_embedding": "pos_embed", "MAPHead_0.probe": "attn_pool.latent", "cls": "cls_token"}
    return whole.get(key) or (f"{FLAX_OUTSIDE.get(part, part)}.{last}" if part else key)


def from_flax(key: str, tensor: Tensor) -> Tensor:
    """An array of Flax in PyTorch's order: (in, out) to (out, in), filters (h, w, in, out) to (out, in, h, w), and the axis
    of the heads, which queries, keys, values and what comes out of them have of their own, joined to what it divides."""
    headed = re.search(r"\.(query|key|value|out)\.(kernel|bias)$", key)
    if headed and tensor.dim() == 3:  # (d, heads, d / heads), and (heads, d / heads, d) of what comes out
        tensor = tensor.flatten(0, 1) if headed[1] == "out" else tensor.flatten(1)
    elif headed and tensor.dim() == 2 and headed[2] == "bias":
        tensor = tensor.flatten()
    if not key.endswith("kernel"):
        return tensor
    return tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.mT if tensor.dim() == 2 else tensor


# Transformers' names of what lies in a block of a vision transformer: those in its files, and those in memory since v5.
IN_BLOCK = {
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"norm1": "norm1",
    r"norm2": "norm2",
    r"attention\.attention\.query": "attn.q",
    r"attention\.attention\.key": "attn.k",
    r"attention\.attention\.value": "attn.v",
    r"attention\.q_proj": "attn.q",
    r"attention\.k_proj": "attn.k",
    r"attention\.v_proj": "attn.v",
    r"attention\.output\.dense": "attn.proj",
    r"attention\.o_proj": "attn.proj",
    r"self_attn\.q_proj": "attn.q",
    r"self_attn\.k_proj": "attn.k",
    r"self_attn\.v_proj": "attn.v",
    r"self_attn\.out_proj": "attn.proj",
    r"layer_norm1": "norm1",
    r"layer_norm2": "norm2",
    r"mlp\.up_proj": "mlp.fc1",
    r"mlp\.down_proj": "mlp.fc2",
    r"intermediate\.dense": "mlp.fc1",
    r"output\.dense": "mlp.fc2",
    r"mlp\.fc1": "mlp.fc1",
    r"mlp\.fc2": "mlp.fc2",
}


OUTSIDE = {
    r"embeddings\.patch_embeddings?": "patch_embed.proj",
    r"pre_layrnorm": "norm_pre",
    r"post_layernorm": "norm",
    r"head\.attention\.in_proj": "attn_pool.qkv",
    r"head\.attention\.out_proj": "attn_pool.proj",
    r"head\.layernorm": "attn_pool.norm",
    r"head\.mlp\.fc1": "attn_pool.mlp.fc1",
    r"head\.mlp\.fc2": "attn_pool.mlp.fc2",
}


def huggingface_vit(key: str) -> str:
    """Names of Transformers' vision transformers: ViTModel, Dinov2Model, DINOv3ViTModel, IJepaModel, CLIPVisionModel,
    SiglipVisionModel and others; attn.q, attn.k and attn.v are joined later."""
    outside = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "embeddings.register_tokens": "reg_token",
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding.weight": "pos_embed",
        "head.probe": "attn_pool.latent",
    }
    match = re.match(r"(?:model\.layer|encoder\.layer|encoder\.layers|layers|layer)\.(\d{1,4})\.(.+)$", key)
    if not match:
        for pattern, name in OUTSIDE.items():
            key = re.sub(rf"^{pattern}[._](weight|bias)$", rf"{name}.\1", key)
        return outside.get(key, key)
    block, rest = f"blocks.{match[1]}.", match[2]
    if scale := re.fullmatch(r"layer_scale([12])\.lambda1", rest):
        return f"{block}ls{scale[1]}.gamma"
    for pattern, name in IN_BLOCK.items():
        if inside := re.fullmatch(rf"{pattern}\.(weight|bias)", rest):
            return f"{block}{name}.{inside[1]}"
    return key


@dataclass(frozen=True)
class Layout:
    """How a network is known, and the course's names for its parts: torchvision's for ResNets, timm's for transformers.

    `first` and `block` are names that stand side by side at the start of such a network; `without` isn't there.
    """

    name: str
    kind: str  # resnet or vit
    rename: Callable[[str], str]
    first: str
    block: str
    without: str = ""
    keys_unbiased: bool = False  # queries and values have a bias, and keys have none
    arrange: Callable[[str, Tensor], Tensor] = lambda key, tensor: tensor  # their key and tensor -> in PyTorch's order


LAYOUTS = (
    Layout("torchvision", "resnet", torchvision, "conv1.weight", "layer1.0.conv1.weight"),
    Layout("sequential", "resnet", sequential, "0.weight", "4.0.conv1.weight", without="2.0.conv1.weight"),
    Layout("lightly", "resnet", sequential_lightly, "0.weight", "2.0.conv1.weight"),
    Layout("simclr2", "resnet", simclr2, "net.0.0.weight", "net.1.blocks.0.net.0.weight"),
    Layout(
        "huggingface",
        "resnet",
        huggingface_resnet,
        "embedder.embedder.convolution.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
    ),
    Layout("timm", "vit", timm, "patch_embed.proj.weight", "blocks.0.norm1.weight"),
    Layout("dinov2", "vit", dinov2, "patch_embed.proj.weight", "blocks.0.0.norm1.weight"),
    Layout("clip", "vit", clip, "conv1.weight", "transformer.resblocks.0.ln_1.weight"),
    Layout(
        "big_vision",
        "vit",
        big_vision,
        "embedding.kernel",
        "Transformer.encoderblock_0.LayerNorm_0.scale",
        arrange=from_flax,
    ),
    Layout(
        "huggingface",
        "vit",
        huggingface_vit,
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embeddings.projection.bias",
    ),
    Layout(  # DINOv3
        "huggingface",
        "vit",
        huggingface_vit,
        "embeddings.patch_embeddings.weight",
        "embeddings.cls_token",
        keys_unbiased=True,
    ),
    Layout(  # CLIP and SigLIP
        "huggingface",
        "vit",
        huggingface_vit,
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
    ),
)


# --- finding ------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """One network of a checkpoint, its parts under the course's names."""

    layout: Layout
    prefix: str
    weights: dict[str, Tensor]
    sources: dict[str, list[str]]  # the course's name to the names in the file
    heads: int | None = None  # of a vision transformer, where the file says it

    def origins(self, names: list[str]) -> list[str]:
        """The names in the file of these parts."""
        return list(dict.fromkeys(origin for name in names for origin in self.sources[name]))

    def origin(self, name: str) -> str:
        """The name in the file of one part, or of the first of several that it was made of, as a message can hold it."""
        return named(next(iter(self.sources.get(name, ())), name))


def find(contents: Contents, network: str | None = None, prefix: str | None = None) -> Found:
    """The one network of a checkpoint that was asked for.

    network  "teacher" or "student", of a checkpoint that holds both. By default the one that its method evaluates: a
             network that is called teacher (DINO) or target encoder (I-JEPA), else the one that isn't an average over
             training (MoCo's query encoder)
    prefix   the dotted path of the network, where several are left
    Raises CourseError when none or several are found, with what there is.
    """
    if network not in (None, "teacher", "student"):
        raise CourseError(f"network is teacher or student, and {network!r} was given.")
    candidates = [(layout, p) for layout in LAYOUTS for p in _prefixes(contents.tensors, layout)]
    if not candidates:
        some = ", ".join(named(name) for name in list(contents.tensors)[:3])
        raise CourseError(
            f"{shown(contents.path)} holds no residual network or vision transformer in a layout that this course knows (its first "
            f"entries are {some}); it reads those of torchvision, MoCo, SwAV, DINO, iBOT, MAE, I-JEPA, CLIP, SigLIP, VISSL, SimCLR, "
            "lightly, solo-learn, timm and Transformers."
        )
    chosen = _choose(candidates, network, prefix)
    if len(chosen) != 1:
        choices = ", ".join(f"'{named(p)}'" for _, p in (chosen or candidates)[:MOST_NAMED])
        wanted = f"prefix {prefix!r}" if prefix is not None else f"the {network}" if network else "one network"
        raise CourseError(
            f"{shown(contents.path)} holds {len(candidates)} network{'s' * (len(candidates) > 1)}, and {wanted} isn't one that can be "
            f"told from them; choose by network='teacher' or 'student', or by prefix= one of {choices}."
        )
    return _collect(contents, *chosen[0])


def named(entry: str) -> str:
    """The name of an entry as a message can hold it: names in files are of any kind and any length."""
    return shown(entry if len(entry) <= LONGEST_NAME else f"{entry[:LONGEST_NAME]}…")


def _prefixes(tensors: dict[str, Tensor], layout: Layout) -> list[str]:
    """What stands before the first layer of each network in this layout."""
    starts = [key.removesuffix(layout.first) for key in tensors if key.endswith(layout.first)]
    return [
        p
        for p in starts
        if (not p or p.endswith("."))
        and p + layout.block in tensors
        and not (layout.without and p + layout.without in tensors)
    ]


def _choose(candidates: list[tuple[Layout, str]], network: str | None, prefix: str | None) -> list[tuple[Layout, str]]:
    if prefix is not None:
        return [c for c in candidates if c[1].rstrip(".") == prefix.rstrip(".")]
    teachers = [c for c in candidates if TEACHER.search(c[1])]
    students = [c for c in candidates if not TEACHER.search(c[1])]
    if network is not None:
        return teachers if network == "teacher" else students
    named = [c for c in teachers if "teacher" in c[1] or c[1].startswith("target_encoder.")]
    if len(named) == 1 and all(re.search(r"student|base_model|^encoder\.", p) for _, p in students):
        return named
    exact = [c for c in students if c[1].endswith("backbone.") and not c[1].endswith("student_backbone.")]
    return students if len(students) == 1 else exact or students or teachers


def _collect(contents: Contents, layout: Layout, prefix: str) -> Found:
    """The tensors behind the prefix, renamed; queries, keys and values joined in timm's order."""
    found = Found(layout, prefix, {}, {})
    for key, tensor in contents.tensors.items():
        if not key.startswith(prefix):
            continue
        name = layout.rename(key.removeprefix(prefix))
        if name in found.weights:
            both = f"{named(found.sources[name][0])} and {named(key)}"
            raise CourseError(f"two entries of the file, {both}, are both {named(name)}; get it again.")
        if not HEAD.match(name):
            refuse_unusual(key, tensor, contents.path)
        if layout.name == "big_vision" and name == "blocks.0.attn.q.weight" and tensor.dim() == 3:
            found.heads = tensor.shape[1]  # (d, heads, d / heads)
        found.weights[name], found.sources[name] = layout.arrange(key, tensor), [key]
    _join(found)
    _divide(found)
    return found


def _join(found: Found) -> None:
    """Queries, keys and values that have entries of their own to one, in timm's order; DINOv3's mask of the keys' bias to
    the bias that it leaves."""
    for name in [name for name in found.weights if re.search(r"\.attn\.q\.(weight|bias)$", name)]:
        three = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if found.layout.keys_unbiased and name.endswith("bias") and three[1] not in found.weights:
            found.weights[three[1]], found.sources[three[1]] = torch.zeros_like(found.weights[name]), []
        if not all(part in found.weights for part in three):
            raise CourseError(f"of queries, keys and values some are missing beside {found.sources[name][0]}.")
        joined = name.replace(".attn.q.", ".attn.qkv.")
        found.sources[joined] = [origin for part in three for origin in found.sources.pop(part)]
        parts = [found.weights.pop(part) for part in three]
        if len({part.shape for part in parts}) > 1 or parts[0].dim() == 0:
            raise CourseError(f"queries, keys and values beside {found.sources[joined][0]} have different shapes.")
        found.weights[joined] = torch.cat(parts)  # (3 d, d) or (3 d,)
    for name in [name for name in found.weights if name.endswith(".attn.qkv.bias_mask")]:
        bias = name.removesuffix("_mask")
        if bias in found.weights:
            found.weights[bias] = found.weights[bias] * found.weights.pop(name)  # (3 d,)
            found.sources[bias] += found.sources.pop(name)


def _divide(found: Found) -> None:
    """Shapes as timm has them: tokens (1, n, d), and queries apart from keys and values where one query looks at all."""
    for name in ("cls_token", "pos_embed", "reg_token"):
        if name in found.weights and found.weights[name].dim() < 3:
            tokens = found.weights[name]
            found.weights[name] = tokens.reshape(1, -1, tokens.shape[-1] if tokens.dim() else 1)
    for last in ("weight", "bias"):
        for name in {f"attn_pool.qkv.{last}", f"attn_pool.attn.qkv.{last}"} & found.weights.keys():
            both, origin = found.weights.pop(name), found.sources.pop(name)
            for part, rows in (("q", slice(0, len(both) // 3)), ("kv", slice(len(both) // 3, None))):
                found.weights[f"attn_pool.{part}.{last}"] = both[rows]
                found.sources[f"attn_pool.{part}.{last}"] = list(origin)
