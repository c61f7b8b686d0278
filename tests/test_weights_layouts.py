"""Checkpoints in the layouts of newer methods' own code, against independent implementations of the same networks.

A network of Transformers or timm, with weights drawn at random, is written under the names that the method's own repository
gives them (facebookresearch/dinov2, dinov3, ijepa, moco-v3, swav, bytedance/ibot, openai/CLIP, mlfoundations/open_clip, google-research/big_vision), and
what the course makes of the file must give the same features, to 1e-5.
"""

import argparse
import json
import re

import numpy as np
import pytest
import torch
from test_weights import (
    IMAGENET,
    Vit,
    assert_same_resnet,
    assert_same_tokens,
    dino_head,
    images,
    normalized,
    renamed,
    shaken,
    small_resnet,
    timm_vit,
    transformers,
    wide_resnet,
    without,
)
from torch import nn

from sslcourse import evaluate, weights
from sslcourse.errors import CourseError

SMALL = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def written(tmp_path):
    """written(tree) -> the path of a checkpoint that torch.save wrote."""

    def write(tree, name="checkpoint.pth"):
        torch.save(tree, tmp_path / name)
        return tmp_path / name

    return write


@torch.no_grad()
def assert_same(backbone, patches, summary=None, mean_std=IMAGENET, size=32):
    """`patches` and `summary` map normalized images to (N, L, d) and (N, d)."""
    x, backbone = normalized(images(size), *mean_std), backbone.eval()
    torch.testing.assert_close(backbone(images(size)), patches(x).mean(1), atol=1e-5, rtol=1e-5)
    maps = backbone.stages(images(size))[-1]  # not the mean alone, which forgets where each patch is
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), patches(x), atol=1e-5, rtol=1e-5)
    if summary is not None:
        torch.testing.assert_close(backbone.features(images(size), "class"), summary(x), atol=1e-5, rtol=1e-5)


def official(state, blocks, outside, inside, qkv="attention.{}_proj", join="attn.qkv.{}"):
    """Transformers' names, in memory, to others': `outside` and `inside` of the blocks, queries, keys and values joined."""
    named, numbers = {}, set()
    for key, value in state.items():
        if key in outside:
            named[outside[key]] = value
        elif key.startswith(blocks):
            number, rest = key.removeprefix(blocks).split(".", 1)
            numbers.add(number)
            part, last = rest.rsplit(".", 1)
            if part in inside:
                named[f"{number}.{inside[part]}.{'gamma' if last == 'lambda1' else last}"] = value
    for number in numbers:
        for last in ("weight", "bias"):
            three = [state.get(f"{blocks}{number}.{qkv.format(part)}.{last}") for part in "qkv"]
            # DINOv3's keys have no bias: in its own files stands a number that a mask takes away
            three = [torch.full_like(three[0], 7.0) if part is None else part for part in three]
            named[f"{number}.{join.format(last)}"] = torch.cat(three)
    return named


def under_blocks(named, prefix="blocks."):
    return {(prefix + key if key.split(".")[0].isdigit() else key): value for key, value in named.items()}


INSIDE = {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
SCALED = {"layer_scale1": "ls1", "layer_scale2": "ls2"}


# --- DINOv2 with registers, DINOv3 -----------------------------------------------------------------------------------


def dinov2_with_registers():
    hf = transformers()
    model = hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=4))
    with torch.no_grad():
        model.embeddings.register_tokens.normal_()
    return shaken(model)


def in_dinov2s_names(model):
    outside = {
        "embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed", "embeddings.register_tokens": "register_tokens",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias",
    }  # fmt: skip
    inside = INSIDE | SCALED | {"attention.o_proj": "attn.proj"}
    return official(model.state_dict(), "encoder.layer.", outside, inside)


def tokens_of(model, extra=5):
    return (
        lambda x: model(pixel_values=x).last_hidden_state[:, extra:],
        lambda x: model(pixel_values=x).last_hidden_state[:, 0],
    )


@pytest.mark.parametrize("size", [32, 48])  # at the second, positions in between, with antialiasing
def test_dinov2_with_registers(written, size):
    model = dinov2_with_registers()
    backbone = weights.load(written(under_blocks(in_dinov2s_names(model))), heads=3)
    assert_same(backbone, *tokens_of(model), size=size)
    assert backbone.report.source == "DINOv2" and backbone.arch == "vit-48x4-registers4"
    assert backbone.report.left == ("mask_token",)
    with pytest.raises(CourseError, match="has parts that a ViTModel.*keep the file that it came in"):
        weights.save(backbone, "nowhere")


def test_dinov2_smaller_than_it_was_trained_for_is_antialiased_with_registers_alone(written):
    model = dinov2_with_registers()
    backbone = weights.load(written(under_blocks(in_dinov2s_names(model))), heads=3)
    assert_same(backbone, *tokens_of(model), size=16)


def test_dinov2_while_it_is_trained_has_its_blocks_in_chunks(written):
    model = dinov2_with_registers()
    named = in_dinov2s_names(model)
    chunked = {}
    for key, value in named.items():
        number = key.split(".")[0]
        chunked[f"blocks.{int(number) // 2}.{key}" if number.isdigit() else key] = value
    tree = {"teacher": renamed(chunked, "backbone.") | dino_head("dino_head.")}
    backbone = weights.load(written(tree), heads=3)
    assert_same(backbone, *tokens_of(model))
    assert backbone.report.source == "DINOv2"
    assert any(name.startswith("teacher.dino_head") for name in backbone.report.left)


def test_huggingface_dinov2_with_registers(tmp_path):
    model = dinov2_with_registers()
    model.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path)
    assert_same(backbone, *tokens_of(model))
    torch.testing.assert_close(backbone.trunk.attention(images(32)).shape, torch.Size((2, 3, 4, 4)))


def test_timm_registers_without_and_with_positions_of_their_own(written):
    for options in ({"no_embed_class": True}, {}):
        theirs = timm_vit(reg_tokens=2, **options)
        backbone = weights.load(written(theirs.state_dict()), heads=3)
        tokens = theirs.forward_features
        assert_same(backbone, lambda x, f=tokens: f(x)[:, 3:], lambda x, f=tokens: f(x)[:, 0])


def dinov3(**options):
    hf = transformers()
    model = hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(**SMALL | {"intermediate_size": 96, "num_register_tokens": 4} | options)
    )
    with torch.no_grad():
        model.embeddings.register_tokens.normal_()
    return shaken(model)


def in_dinov3s_names(model):
    outside = {
        "embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token",
        "embeddings.register_tokens": "storage_tokens", "norm.weight": "norm.weight", "norm.bias": "norm.bias",
        "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    }  # fmt: skip
    inside = INSIDE | SCALED | {"attention.o_proj": "attn.proj", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}
    named = under_blocks(official(model.state_dict(), "model.layer.", outside, inside))
    mask = torch.ones(3 * 48)
    mask[48:96] = 0
    named |= {key + "_mask": mask for key in list(named) if key.endswith("attn.qkv.bias")}
    return named | {"rope_embed.periods": 100.0 ** (torch.arange(4) / 4), "local_cls_norm.weight": torch.ones(48)}


@pytest.mark.parametrize("size", [32, 48, 224])
def test_dinov3(written, size):
    """Rotary positions fit any size; the number of heads follows from their periods."""
    model = dinov3()
    backbone = weights.load(written(in_dinov3s_names(model)))
    assert_same(backbone, *tokens_of(model), size=size)
    assert backbone.report.source == "DINOv3" and backbone.trunk.image_size == 224
    assert set(backbone.report.left) == {"mask_token", "local_cls_norm.weight"}


def test_huggingface_dinov3(tmp_path):
    model = dinov3(rope_theta=50.0, layer_norm_eps=1e-3)
    model.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path)
    assert_same(backbone, *tokens_of(model))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_gated_mlp": True}))
    with pytest.raises(CourseError, match="use_gated_mlp, a gated network"):
        weights.load(tmp_path)


def test_gated_networks_are_refused_in_one_sentence(written):
    """DINOv2's giant and DINOv3's plus: mlp.w12 and mlp.w3, or mlp.w1, mlp.w2 and mlp.w3."""
    state = without(Vit().state_dict(), "blocks.0.mlp")
    state["blocks.0.mlp.w12.weight"] = torch.rand(4, 4)
    with pytest.raises(CourseError, match="has no blocks.0.mlp.fc1.weight"):
        weights.load(written(state), heads=3)


# --- iBOT, I-JEPA, MoCo v3, SwAV -------------------------------------------------------------------------------------


def ibot(student, teacher):
    """What main_ibot.py saves: the student learned a mask's token, `masked_embed`, which the teacher hasn't."""
    return {
        "student": renamed(without(student.state_dict(), "head"), "module.backbone.")
        | {"module.backbone.masked_embed": torch.rand(1, 48)} | dino_head("module.head."),
        "teacher": renamed(without(teacher.state_dict(), "head"), "backbone.") | dino_head("head."),
        "optimizer": {"state": {}}, "epoch": 800, "args": argparse.Namespace(arch="vit_small"),
        "ibot_loss": {"center": torch.zeros(1, 8), "center2": torch.zeros(1, 1, 8)},
    }  # fmt: skip


def test_ibot(written):
    student, teacher = shaken(Vit(), 1), shaken(Vit(), 2)
    path = written(ibot(student, teacher))
    backbone = weights.load(path, heads=3)
    assert_same_tokens(backbone, teacher)
    assert backbone.report.source == "iBOT" and "student.module.backbone.masked_embed" in backbone.report.left
    assert_same_tokens(weights.load(path, network="student", heads=3), student)
    alone = written({"state_dict": without(teacher.state_dict(), "head")}, "checkpoint_teacher.pth")
    assert_same_tokens(weights.load(alone, heads=3), teacher)


def ijepa(encoder, target):
    """What src/train.py saves: both encoders and the predictor, wrapped by DistributedDataParallel."""
    predictor = {"predictor_embed.weight": torch.rand(4, 4), "mask_token": torch.rand(1, 1, 4)}
    predictor |= {"predictor_pos_embed": torch.rand(1, 16, 4), "predictor_blocks.0.norm1.weight": torch.rand(4)}
    drop = ("head", "fc_norm")
    return {
        "encoder": renamed(without(encoder.state_dict(), *drop), "module."),
        "predictor": renamed(predictor, "module."),
        "target_encoder": renamed(without(target.state_dict(), *drop), "module."),
        "opt": {"state": {0: {"exp_avg": torch.zeros(2)}}}, "scaler": {"scale": 65536.0}, "epoch": 300, "loss": 0.1,
        "batch_size": 16, "world_size": 16, "lr": 1e-3,
    }  # fmt: skip


def without_class_token(seed):
    return shaken(timm_vit(class_token=False, global_pool="avg", fc_norm=False), seed)


def test_ijepa_has_no_class_token_and_evaluates_its_target_encoder(written):
    encoder, target = without_class_token(1), without_class_token(2)
    path = written(ijepa(encoder, target), "in1k.pth.tar")
    backbone = weights.load(path, heads=3)
    assert_same(backbone, target.forward_features)
    assert backbone.report.source == "I-JEPA"
    assert_same(weights.load(path, network="student", heads=3), encoder.forward_features)
    with torch.no_grad():
        assert torch.equal(backbone.summary(images(32)), backbone(images(32)))
    for ask in (
        lambda: backbone.features(images(32), "class"),
        lambda: evaluate.extract(backbone, (images(32) * 255).to(torch.uint8), stage="class", device="cpu"),
        lambda: backbone.trunk.attention(images(32)),
    ):
        with pytest.raises(CourseError, match="has no class token"):
            ask()


def test_huggingface_ijepa(tmp_path):
    hf = transformers()
    model = shaken(hf.IJepaModel(hf.IJepaConfig(**SMALL, intermediate_size=96)))
    model.save_pretrained(tmp_path)
    assert_same(weights.load(tmp_path), tokens_of(model, 0)[0], mean_std=IMAGENET)


def mocov3(base, momentum, head):
    parts = {f"{head}.{i}.weight": torch.rand(4, 4) for i in (0, 3, 6)} | {f"{head}.1.running_mean": torch.rand(4)}
    state = renamed(without(base.state_dict(), head), "module.base_encoder.")
    state |= renamed(without(momentum.state_dict(), head), "module.momentum_encoder.")
    state |= renamed(parts, "module.base_encoder.") | renamed(parts, "module.momentum_encoder.")
    state |= {"module.predictor.0.weight": torch.rand(4, 4)}
    return {"epoch": 300, "arch": "vit_small", "state_dict": state, "optimizer": {"state": {}}, "scaler": {}}


def test_mocov3_small_has_twelve_heads(written):
    """vits.py: 384 wide, as everywhere, and 12 heads, where everybody else has 6."""
    size = {"embed_dim": 384, "num_heads": 12, "depth": 4}
    base, momentum = timm_vit(**size), shaken(timm_vit(**size), 3)
    path = written(mocov3(base, momentum, "head"), "vit-s-300ep.pth.tar")
    backbone = weights.load(path)
    assert_same_tokens(backbone, base.forward_features)
    assert backbone.report.source == "MoCo v3" and backbone.trunk.measures.heads == 12
    assert_same_tokens(weights.load(path, network="teacher"), momentum.forward_features)
    with pytest.raises(AssertionError):
        assert_same_tokens(weights.load(path, heads=6), base.forward_features)


def test_mocov3_resnet(written):
    base, momentum = small_resnet(seed=1), small_resnet(seed=2)
    backbone = weights.load(written(mocov3(base, momentum, "fc")))
    assert_same_resnet(backbone, base)
    assert backbone.report.source == "MoCo v3" and "imagenet (as MoCo v3" in backbone.report.normalization


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("network", [small_resnet, wide_resnet], ids=["usual", "wide"])
def test_swav_divides_by_its_own_standard_deviation(written, network, nested):
    """src/multicropdataset.py has 0.228 where everybody else has 0.229; published files are the bare state_dict."""
    theirs = network()
    state = renamed(without(theirs.state_dict(), "fc"), "module.")
    state |= {"module.projection_head.0.weight": torch.rand(4, 4), "module.prototypes.weight": torch.rand(30, 4)}
    tree = {"epoch": 800, "state_dict": state, "optimizer": {}, "amp": {}} if nested else state
    backbone = weights.load(written(tree, "swav_800ep_pretrain.pth.tar"))
    assert_same_resnet(backbone, theirs, (IMAGENET[0], (0.228, 0.224, 0.225)))
    assert backbone.report.source == "SwAV" and str(backbone.report).endswith("swav (as SwAV trains)")


# --- CLIP and SigLIP -------------------------------------------------------------------------------------------------


def clip(activation="quick_gelu"):
    hf = transformers()
    return shaken(hf.CLIPVisionModel(hf.CLIPVisionConfig(**SMALL, intermediate_size=96, hidden_act=activation)))


def clip_answers(model):
    """Patches after the last norm, which CLIP itself gives to the class token alone; and that class token."""
    return (
        lambda x: model.post_layernorm(model(pixel_values=x).last_hidden_state[:, 1:]),
        lambda x: model(pixel_values=x).pooler_output,
    )


def in_clips_names(model):
    outside = {
        "embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "pre_layrnorm.weight": "ln_pre.weight", "pre_layrnorm.bias": "ln_pre.bias",
        "post_layernorm.weight": "ln_post.weight", "post_layernorm.bias": "ln_post.bias",
    }  # fmt: skip
    inside = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj"}
    inside |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    blocks = "encoder.layers."
    named = official(model.state_dict(), blocks, outside, inside, "self_attn.{}_proj", "attn.in_proj_{}")
    tower = under_blocks(named, "transformer.resblocks.") | {"proj": torch.rand(48, 8)}
    text = {"positional_embedding": torch.rand(7, 8), "transformer.resblocks.0.ln_1.weight": torch.rand(8)}
    text |= {
        "token_embedding.weight": torch.rand(9, 8),
        "logit_scale": torch.tensor(4.6),
        "ln_final.bias": torch.rand(8),
    }
    return renamed(tower, "visual.") | text


def test_clip_of_openai(written):
    model = clip()
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(7), "vocab_size": torch.tensor(9)}
    path = written(in_clips_names(model) | numbers)
    backbone = weights.load(path, heads=3)
    assert_same(backbone, *clip_answers(model), CLIP)
    assert backbone.report.source == "CLIP" and "visual.proj" in backbone.report.left
    with pytest.raises(AssertionError):
        assert_same(weights.load(path, heads=3, activation="gelu"), *clip_answers(model), CLIP)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_openclip_asks_for_its_activation_or_reads_it_beside_the_weights(written, tmp_path, activation):
    model, word = clip(activation), activation.replace("_", "-")
    path = written(in_clips_names(model), "open_clip_pytorch_model.bin")
    with pytest.raises(CourseError, match="one of two activations.*give it as activation="):
        weights.load(path, heads=3)
    assert_same(weights.load(path, heads=3, activation=word), *clip_answers(model), CLIP)
    with pytest.raises(CourseError, match="activation 'gelv' is unknown.*did you mean 'gelu'"):
        weights.load(path, heads=3, activation="gelv")
    mean_std = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    said = {
        "model_cfg": {"quick_gelu": activation == "quick_gelu", "vision_cfg": {"width": 48, "head_width": 16}},
        "preprocess_cfg": {"mean": mean_std[0], "std": mean_std[1]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    for source in (path, tmp_path):
        assert_same(weights.load(source), *clip_answers(model), mean_std)


def test_openclip_while_it_is_trained(written):
    model = clip("gelu")
    tree = {"epoch": 32, "name": "run", "state_dict": renamed(in_clips_names(model), "module."), "optimizer": {}}
    assert_same(weights.load(written(tree), heads=3, activation="gelu"), *clip_answers(model), CLIP)


def test_huggingface_clip_alone_and_with_its_text_tower(tmp_path):
    hf = transformers()
    model = clip()
    model.save_pretrained(tmp_path / "vision")
    backbone = weights.load(tmp_path / "vision", normalize="clip")
    assert_same(backbone, *clip_answers(model), CLIP)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    whole = shaken(
        hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=SMALL | {"intermediate_size": 96}, projection_dim=8))
    )
    whole.save_pretrained(tmp_path / "whole")
    said = {"image_mean": list(CLIP[0]), "image_std": list(CLIP[1])}
    (tmp_path / "whole" / "preprocessor_config.json").write_text(json.dumps(said))
    backbone = weights.load(tmp_path / "whole")
    assert_same(backbone, *clip_answers(whole.vision_model), CLIP)
    assert any("text_model" in name for name in backbone.report.left)


def test_clip_resnets_are_refused_in_one_sentence(written):
    """Their stem has three convolutions, and they end in attention."""
    state = renamed(without(small_resnet().state_dict(), "fc"), "visual.")
    state["visual.conv1.weight"] = torch.rand(64, 3, 3, 3)
    state |= {"visual.conv2.weight": torch.rand(64, 64, 3, 3), "visual.attnpool.q_proj.weight": torch.rand(4, 4)}
    with pytest.raises(CourseError, match="visual.conv2.weight.*neither part of a network"):
        weights.load(written(state))


def siglip():
    hf = transformers()
    return shaken(hf.SiglipVisionModel(hf.SiglipVisionConfig(**SMALL, intermediate_size=96)))


def siglip_answers(model):
    return lambda x: model(pixel_values=x).last_hidden_state, lambda x: model(pixel_values=x).pooler_output


def test_huggingface_siglip_pools_by_attention(tmp_path):
    hf = transformers()
    model = siglip()
    model.save_pretrained(tmp_path / "vision")
    backbone = weights.load(tmp_path / "vision", normalize="half")
    assert_same(backbone, *siglip_answers(model), HALF)
    assert backbone.report.left == () and backbone.arch == "vit-48x4-without-class-token-pooled-gelu-tanh"
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    whole = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=SMALL | {"intermediate_size": 96}))
    whole = shaken(whole)
    whole.save_pretrained(tmp_path / "whole")
    assert_same(weights.load(tmp_path / "whole", normalize="half"), *siglip_answers(whole.vision_model), HALF)


def in_big_visions_names(model, heads=3):
    """timm's weights as the arrays that google-research/big_vision saves."""
    arrays = {}
    for name, tensor in without(model.state_dict(), "head").items():
        part, _, last = name.rpartition(".")
        part = re.sub(r"^blocks\.(\d+)\.", r"Transformer/encoderblock_\1/", part)
        part = re.sub(r"^attn_pool\.?", "MAPHead_0/", part)
        for ours, theirs in {
            "norm1": "LayerNorm_0", "norm2": "LayerNorm_1", "mlp.fc1": "MlpBlock_0/Dense_0", "mlp.fc2": "MlpBlock_0/Dense_1",
            "patch_embed.proj": "embedding", "MAPHead_0/norm": "MAPHead_0/LayerNorm_0",
        }.items():  # fmt: skip
            part = part.replace(ours, theirs)
        part = "Transformer/encoder_norm" if part == "norm" else part
        attention = re.sub(r"(attn\.)?(qkv|q|kv|proj)$", "MultiHeadDotProductAttention_0/", part)
        if name in ("pos_embed", "attn_pool.latent"):
            arrays["pos_embedding" if name == "pos_embed" else "MAPHead_0/probe"] = tensor
        elif attention == part:
            last = "bias" if last == "bias" else "scale" if "Norm_" in part or part.endswith("_norm") else "kernel"
            order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.dim(), (0,))
            arrays[f"{part}/{last}"] = tensor.permute(order)
        else:
            kind = part.rpartition(".")[2].rpartition("/")[2]
            names = {"qkv": ("query", "key", "value"), "q": ("query",), "kv": ("key", "value"), "proj": ("out",)}[kind]
            for what, piece in zip(names, tensor.chunk(len(names)), strict=True):
                d = len(piece)
                if last == "bias":
                    arrays[f"{attention}{what}/bias"] = piece if what == "out" else piece.reshape(heads, d // heads)
                else:
                    shape = (heads, d // heads, d) if what == "out" else (d, heads, d // heads)
                    arrays[f"{attention}{what}/kernel"] = piece.T.reshape(shape)
    return {f"params/img/{name}": tensor.contiguous().numpy() for name, tensor in arrays.items()}


def stacked(arrays):
    """The arrays of all blocks in one, as big_vision saves them where it scans over the blocks."""
    first = "/encoderblock_0/"
    whole = {name: array for name, array in arrays.items() if "/encoderblock_" not in name}
    for name in [name for name in arrays if first in name]:
        whole[name.replace(first, "/encoderblock/")] = np.stack(
            [arrays[name.replace(first, f"/encoderblock_{i}/")] for i in range(4)]
        )
    return whole


def test_siglip_of_big_vision(tmp_path):
    theirs = timm_vit(class_token=False, global_pool="map", act_layer="gelu_tanh")
    with torch.no_grad():
        theirs.attn_pool.latent.normal_()
    arrays = in_big_visions_names(theirs) | {"params/t": np.ones(1), "params/txt/Embed_0/embedding": np.ones((3, 4))}
    answers = (theirs.forward_features, lambda x: theirs.forward_head(theirs.forward_features(x), pre_logits=True))
    for name, kept in (("siglip.npz", arrays), ("siglip2.npz", stacked(arrays))):
        np.savez(tmp_path / name, **kept)
        backbone = weights.load(tmp_path / name)  # the shapes say how many heads
        assert_same(backbone, *answers, HALF)
        assert backbone.report.source == "SigLIP" and "params.t" in backbone.report.left
        assert "params.img.MAPHead_0.probe" in backbone.report.used
    again = timm_vit(class_token=False, global_pool="map", act_layer="gelu_tanh")
    again.load_pretrained(str(tmp_path / "siglip.npz"))  # timm reads the same from it
    x = normalized(images(32), *HALF)
    with torch.no_grad():
        torch.testing.assert_close(again.eval().forward_features(x), theirs.forward_features(x))


def test_arrays_in_half_precision_and_of_objects(tmp_path):
    theirs = timm_vit(class_token=False, global_pool="map", act_layer="gelu_tanh")
    arrays = in_big_visions_names(theirs)
    halves = {name: (a.view(np.uint32) >> 16).astype(np.uint16).view("V2") for name, a in arrays.items()}
    cut = {name: (h.view(np.uint16).astype(np.uint32) << 16).view(np.float32) for name, h in halves.items()}
    for name, kept in (("half.npz", halves), ("cut.npz", cut), ("objects.npz", {"a": np.array([{}], dtype=object)})):
        np.savez(tmp_path / name, **kept)
    same = [weights.load(tmp_path / name)(images(32)) for name in ("half.npz", "cut.npz")]
    assert torch.equal(*same)
    for damaged in ("objects.npz", "torn.npz"):
        (tmp_path / "torn.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:5000])
        with pytest.raises(CourseError, match="damaged, or no file of arrays"):
            weights.load(tmp_path / damaged)


def test_siglip_as_openclip_and_timm_write_it(written):
    theirs = timm_vit(class_token=False, global_pool="map")
    with torch.no_grad():
        theirs.attn_pool.latent.normal_()
    answers = (theirs.forward_features, lambda x: theirs.forward_head(theirs.forward_features(x), pre_logits=True))
    for tree in (
        without(theirs.state_dict(), "head"),
        renamed(without(theirs.state_dict(), "head"), "visual.trunk.") | {"logit_bias": torch.zeros(())},
    ):
        backbone = weights.load(written(tree), heads=3)
        assert_same(backbone, *answers, HALF)
        assert backbone.report.source == "SigLIP"


def test_timm_clip_says_its_activation_in_the_name_of_its_architecture(tmp_path):
    timm = pytest.importorskip("timm")
    from timm.models._hub import save_for_hf

    for name in ("vit_base_patch32_clip_quickgelu_224", "vit_base_patch32_clip_224"):
        small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}
        theirs = shaken(timm.create_model(name, pretrained=False, **small))
        save_for_hf(theirs, tmp_path / name, safe_serialization=True)
        said, tokens = theirs.pretrained_cfg, theirs.forward_features
        backbone = weights.load(tmp_path / name, heads=3)
        assert_same(
            backbone, lambda x, f=tokens: f(x)[:, 1:], lambda x, f=tokens: f(x)[:, 0], (said["mean"], said["std"])
        )


# --- one table of whose file is which ----------------------------------------------------------------------------------


WHOSE = {
    "MoCo v3": lambda: mocov3(small_resnet(), small_resnet(), "fc"),
    "SwAV": lambda: renamed(small_resnet().state_dict(), "module.") | {"module.prototypes.weight": torch.rand(3, 4)},
    "iBOT": lambda: ibot(shaken(Vit()), shaken(Vit())),
    "I-JEPA": lambda: ijepa(without_class_token(1), without_class_token(2)),
    "DINOv3": lambda: in_dinov3s_names(dinov3()),
    "DINOv2": lambda: under_blocks(in_dinov2s_names(dinov2_with_registers())),
    "CLIP or OpenCLIP": lambda: in_clips_names(clip()),
    "torchvision": lambda: small_resnet().state_dict(),
    "timm or DINO": lambda: Vit().state_dict(),
}


@pytest.mark.parametrize("source", WHOSE)
def test_a_file_is_known_for_what_it_is_and_for_nothing_else(written, source):
    loaded = weights.load(written(WHOSE[source]()), heads=3, activation="gelu")
    assert loaded.report.source == source
    assert str(loaded.report).count("\n") == 0


def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path):
    """OpenAI publishes CLIP as one."""
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(CourseError, match="TorchScript archive.*torch.jit.load"):
        weights.load(tmp_path / "ViT-B-32.pt")


def test_what_a_file_is_does_not_hang_on_the_words_of_an_error(tmp_path, monkeypatch):
    """Another PyTorch says it otherwise, and a file that is no program may be called like one."""
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)), tmp_path / "program.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "TorchScript.pt")

    def fails(*_, **__):
        raise RuntimeError("TorchScript is not what this is about")

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(CourseError, match="is a TorchScript archive"):
        weights.load(tmp_path / "program.pt")
    with pytest.raises(CourseError, match="is damaged, or not a file of weights"):
        weights.load(tmp_path / "TorchScript.pt")


@pytest.mark.parametrize(
    "name",
    [
        "reg_token",
        "norm_pre.bias",
        "attn_pool.latent",
        "attn_pool.kv.weight",
        "patch_embed.proj.bias",
        "cls_token",
        "norm.weight",
    ],
)
def test_nothing_of_these_parts_may_be_missing(written, name):
    """A part that is gone makes another network, or none: never one that is filled up with something else."""
    pooled = "attn_pool" in name
    theirs = timm_vit(pre_norm="norm_pre" in name, reg_tokens=2 if name == "reg_token" else 0,
                      **{"class_token": False, "global_pool": "map"} if pooled else {})  # fmt: skip
    state = without(theirs.state_dict(), "head")
    state.pop(name)
    if name == "attn_pool.latent":  # without its query it's no pooling, and what is left of it is of no network
        with pytest.raises(CourseError, match="neither part of a network"):
            weights.load(written(state), heads=3)
        return
    with pytest.raises(CourseError, match="lacks|has no|positions"):
        weights.load(written(state), heads=3, activation="gelu")
