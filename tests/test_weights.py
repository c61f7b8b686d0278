"""Other people's checkpoints, each written here in the layout that its own code writes, against the network that wrote it.

Equal keys prove nothing: every comparison is of features, with batch norms and layer norms that matter.
"""

import argparse
import dataclasses
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslcourse import backbones, cli, weights
from sslcourse.errors import CourseError

IMAGENET = (backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


# --- networks of others, with numbers that show every mistake ------------------------------------------------------


def shaken(network, seed=0):
    """The same network with weights, norms and batch statistics drawn at random, as after training."""
    dice = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2, generator=dice)
            module.running_var.uniform_(0.5, 1.5, generator=dice)
            module.num_batches_tracked.fill_(100)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            module.weight.data.uniform_(0.5, 1.5, generator=dice)
            module.bias.data.uniform_(-0.2, 0.2, generator=dice)
    for name, value in network.named_parameters():
        if name.endswith(("gamma", "lambda1")):
            value.data.uniform_(0.2, 1.5, generator=dice)
        elif (
            "embed" in name and "embedder" not in name
        ) or "token" in name:  # small tokens, so that the epsilon of a layer norm shows
            value.data.normal_(0, 0.003, generator=dice)
        elif value.dim() > 1:
            value.data.normal_(0, 1.5 * value[0].numel() ** -0.5, generator=dice)
    return network.eval()


def small_resnet(block=BasicBlock, seed=0, **options):
    return shaken(ResNet(block, [1, 1, 1, 1], num_classes=5, **options), seed)


def small_stem(network, padding=1, stride=1):
    network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, stride=stride, padding=padding, bias=False)
    network.maxpool = nn.Identity()
    return network


class Attention(nn.Module):
    """Head by head, as on paper."""

    def __init__(self, dim, heads, bias):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim, bias=bias), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mixed = []
        for a, b, c in zip(*(part.chunk(self.heads, dim=-1) for part in (q, k, v)), strict=True):
            mixed.append((a @ b.transpose(1, 2) * a.shape[-1] ** -0.5).softmax(-1) @ c)
        return self.proj(torch.cat(mixed, dim=-1))


class Vit(nn.Module):
    """A vision transformer under timm's names, which DINO and the masked autoencoder use, too."""

    def __init__(self, dim=48, depth=4, heads=3, size=32, patch=8, eps=1e-6, bias=True, classes=5):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(dim, eps),
                    "attn": Attention(dim, heads, bias),
                    "norm2": nn.LayerNorm(dim, eps),
                    "mlp": nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)}),
                }
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(dim, eps), nn.Linear(dim, classes)

    def forward(self, x):
        """The class token and the patches after the last norm: (N, 1 + L, d)."""
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = x + block["attn"](block["norm1"](x))
            x = x + block["mlp"]["fc2"](nn.functional.gelu(block["mlp"]["fc1"](block["norm2"](x))))
        return self.norm(x)


def renamed(state, prefix="", **names):
    return {prefix + names.get(key, key): value for key, value in state.items()}


def without(state, *starts):
    return {key: value for key, value in state.items() if not key.startswith(starts)}


def images(size=64, seed=9):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def normalized(x, mean, std):
    return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


@torch.no_grad()
def resnet_features(network, x):
    """The network without its classifier, whatever that is called: (N, d)."""
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        x = getattr(network, name)(x) if hasattr(network, name) else x.relu() if name == "relu" else x
    return x.mean(dim=(2, 3))


@torch.no_grad()
def assert_same_resnet(backbone, network, mean_std=IMAGENET, size=64):
    theirs = resnet_features(network.eval(), normalized(images(size), *mean_std))
    torch.testing.assert_close(backbone.eval()(images(size)), theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def assert_same_tokens(backbone, tokens, mean_std=IMAGENET, size=32):
    """`tokens` maps normalized images to (N, 1 + L, d): both the class token and the mean over patches must agree."""
    theirs = tokens(normalized(images(size), *mean_std))
    backbone.eval()
    torch.testing.assert_close(backbone.summary(images(size)), theirs[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone(images(size)), theirs[:, 1:].mean(1), atol=1e-5, rtol=1e-5)


@pytest.fixture
def written(tmp_path):
    """written(tree) -> the path of a checkpoint that torch.save wrote."""

    def write(tree, name="checkpoint.pth"):
        torch.save(tree, tmp_path / name)
        return tmp_path / name

    return write


# --- torchvision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [resnet18, resnet50], ids=lambda n: n.__name__)
def test_torchvision(written, network):
    theirs = shaken(network(weights=None))
    backbone = weights.load(written(theirs.state_dict()))
    assert_same_resnet(backbone, theirs)
    assert backbone.report.left == ("fc.weight", "fc.bias") and backbone.report.missing == ()
    assert backbone.stem == "imagenet" and "assumed" in backbone.report.normalization
    assert backbone.arch == network.__name__
    assert len(backbone.report.used) + 2 == len(theirs.state_dict())


def test_a_head_may_be_missing_and_counts_of_batches_too(written):
    """Files from before PyTorch 0.4.1 have no num_batches_tracked."""
    theirs = small_resnet()
    old = {k: v for k, v in without(theirs.state_dict(), "fc").items() if not k.endswith("num_batches_tracked")}
    backbone = weights.load(written(old))
    assert_same_resnet(backbone, theirs)
    assert {"fc.weight", "fc.bias", "bn1.num_batches_tracked"} <= set(backbone.report.missing)
    assert backbone.trunk.bn1.num_batches_tracked.item() == 0
    assert sum(p.requires_grad for p in backbone.parameters()) == len(list(backbone.parameters()))


def test_one_line_on_standard_error_says_what_became_of_it(written, capsys):
    path = written(
        {"state_dict": renamed(small_resnet().state_dict(), "module."), "epoch": 3, "optimizer": {"state": {}}}
    )
    backbone = weights.load(path)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.strip() == str(backbone.report)
    for part in (
        path.name,
        f"{len(backbone.report.used)} entries used, {len(backbone.report.left)} left",
        "state_dict.module.fc",
        "epoch",
        "normalization: imagenet",
        "0 missing",
    ):
        assert part in err
    weights.load(path, quiet=True)
    assert capsys.readouterr().err == ""


def test_weights_are_copies_in_float32(written):
    theirs = small_resnet()
    backbone = weights.load(written(theirs.half().state_dict()))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


@pytest.mark.parametrize("stem", ["small", "tiny"])
def test_a_small_stem_is_seen_and_its_stride_can_be_said(written, stem):
    theirs = shaken(small_stem(ResNet(BasicBlock, [1, 1, 1, 1]), stride=1 if stem == "small" else 2))
    path = written(theirs.state_dict())
    backbone = weights.load(path, stem=stem)
    assert_same_resnet(backbone, theirs, size=32)
    assert weights.load(path).stem == "small"
    with pytest.raises(CourseError, match="stem 'imagenet'|which is not that of the stem imagenet"):
        weights.load(path, stem="imagenet")
    with pytest.raises(CourseError, match="did you mean 'small'"):
        weights.load(path, stem="smal")


def test_resnet_tiny_is_recognized(written):
    ours = shaken(backbones.build("resnet-tiny"))
    backbone = weights.load(written(ours.trunk.state_dict()))
    assert (backbone.arch, backbone.stem) == ("resnet-tiny", "tiny")
    torch.testing.assert_close(backbone.eval()(images(32)), ours(images(32)))


# --- MoCo, SimCLR, VISSL ---------------------------------------------------------------------------------------------


def moco(version):
    """What main_moco.py saves: the query encoder, the key encoder, the queue; fc is one layer in v1 and two in v2."""
    query, key = small_resnet(seed=1), small_resnet(seed=2)
    if version == 2:
        query.fc, key.fc = (nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128)) for _ in range(2))
    state = renamed(query.state_dict(), "module.encoder_q.") | renamed(key.state_dict(), "module.encoder_k.")
    state |= {"module.queue": torch.rand(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return (
        query,
        key,
        {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {0: torch.zeros(1)}}},
    )


@pytest.mark.parametrize("version", [1, 2])
def test_moco(written, version):
    query, key, tree = moco(version)
    path = written(tree, "moco.pth.tar")
    backbone = weights.load(path)
    assert_same_resnet(backbone, query)
    assert_same_resnet(weights.load(path, network="teacher"), key)
    assert backbone.report.source == f"MoCo v{version}" and "as MoCo" in backbone.report.normalization
    assert "state_dict.module.queue" in backbone.report.left and "optimizer" in backbone.report.left
    head, slow = "state_dict.module.encoder_q.fc", "state_dict.module.encoder_k"  # the head, not the whole encoder
    assert f"left ({head}, {slow}, " in str(backbone.report)


def test_simclr_conversion_takes_pixels_as_they_are(written):
    """tonylins' convert.py: {"state_dict": torchvision's names}; batch norms hold statistics and counted no batch."""
    theirs = small_resnet()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.zero_()
    path = written({"state_dict": theirs.state_dict()})
    backbone = weights.load(path)
    assert_same_resnet(backbone, theirs, PLAIN)
    assert backbone.report.source == "SimCLR" and "none (SimCLR" in backbone.report.normalization
    assert_same_resnet(weights.load(path, normalize="imagenet"), theirs, IMAGENET)


def test_a_network_that_pytorch_trained_is_not_taken_for_simclr(written):
    theirs = small_resnet()
    assert_same_resnet(weights.load(written({"state_dict": theirs.state_dict()})), theirs, IMAGENET)
    assert_same_resnet(weights.load(written(theirs.state_dict()), normalize="none"), theirs, PLAIN)
    odd = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert_same_resnet(weights.load(written(theirs.state_dict()), normalize=odd), theirs, odd)


def simclr2(theirs):
    """Names of the SimCLRv2 conversion: everything in numbered sequences, batch norms in sequences of their own."""
    state = {}
    for key, value in without(theirs.state_dict(), "fc").items():
        if key.startswith("conv1."):
            name = "net.0.0.weight"
        elif key.startswith("bn1."):
            name = f"net.0.1.0.{key.split('.')[-1]}"
        else:
            layer, block, part, *rest = key.split(".")
            place = f"net.{layer[-1]}.blocks.{block}"
            if part == "downsample":
                name = f"{place}.projection." + ("shortcut.weight" if rest[0] == "0" else f"bn.0.{rest[1]}")
            elif part.startswith("conv"):
                name = f"{place}.net.{2 * int(part[-1]) - 2}.weight"
            else:
                name = f"{place}.net.{2 * int(part[-1]) - 1}.0.{rest[0]}"
        state[name] = value
    return {
        "resnet": state | {"fc.weight": torch.rand(5, 2048), "fc.bias": torch.rand(5)},
        "head": {"layers.0.weight": torch.rand(2, 2)},
    }


def test_simclr2_conversion(written):
    theirs = small_resnet(Bottleneck)
    tree = simclr2(theirs)
    backbone = weights.load(written(tree))
    assert_same_resnet(backbone, theirs, PLAIN)
    assert "head.layers.0.weight" in backbone.report.left
    selective = tree["resnet"] | {"net.1.blocks.0.net.2.mixing_conv.0.weight": torch.rand(2, 2)}
    with pytest.raises(CourseError, match="mixing_conv.*neither part of a network"):
        weights.load(written({"resnet": selective, "head": {}}))


def wide_resnet():
    """Twice as wide throughout, stem included, as SimCLR's and SwAV's 2x networks are."""
    theirs = ResNet(Bottleneck, [1, 1, 1, 1])
    theirs.conv1, theirs.bn1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32)
    theirs.inplanes = 32
    for s, width in enumerate((32, 64, 128, 256), start=1):
        setattr(theirs, f"layer{s}", theirs._make_layer(Bottleneck, width, 1, stride=1 if s == 1 else 2))
    return shaken(theirs)


@pytest.mark.parametrize("options", [{"groups": 32, "width_per_group": 4}, {"width_per_group": 128}], ids=str)
def test_groups_and_wide_bottlenecks_are_read_from_the_shapes(written, options):
    """ResNeXt-50 32x4d and Wide ResNet-50-2, one block a stage."""
    theirs = small_resnet(Bottleneck, **options)
    backbone = weights.load(written(theirs.state_dict()))
    assert_same_resnet(backbone, theirs)
    with pytest.raises(CourseError, match="no groups and no wider bottlenecks"):
        weights.save(backbone, "nowhere")


def test_widths_are_read_from_the_shapes(written):
    theirs = wide_resnet()
    backbone = weights.load(written(without(theirs.state_dict(), "fc")))
    assert_same_resnet(backbone, theirs)
    assert backbone.dim == 1024 and "channels32" in backbone.arch


VISSL = {
    "classy": lambda trunk: {
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {"0.clf.weight": torch.rand(2, 2)}}}, "loss": {}},
        "phase_idx": 3,
    },
    "extractor": lambda trunk: {
        "classy_state_dict": {"base_model": {"model": {"trunk": renamed(trunk, "base_model."), "heads": {}}}}
    },
    "older": lambda trunk: {"model_state_dict": trunk},
    "bare": lambda trunk: trunk,
}  # fmt: skip


@pytest.mark.parametrize("nesting", VISSL)
def test_vissl_in_all_its_nestings(written, nesting):
    theirs = small_resnet()
    trunk = renamed(without(theirs.state_dict(), "fc"), "_feature_blocks.")
    backbone = weights.load(written(VISSL[nesting](trunk), "model_final_checkpoint_phase199.torch"))
    assert_same_resnet(backbone, theirs)
    assert backbone.report.source == "VISSL"


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_vissl_keeps_dinos_teacher_in_the_loss(written, wrapped):
    student, teacher = small_resnet(seed=1), small_resnet(seed=2)
    trunks = [renamed(without(n.state_dict(), "fc"), "_feature_blocks.") for n in (student, teacher)]
    loss = renamed(trunks[1], f"momentum_teacher.{wrapped}trunk.") | {"center": torch.zeros(1, 8)}
    tree = {"classy_state_dict": {"base_model": {"model": {"trunk": trunks[0], "heads": {}}}, "loss": loss}}
    assert_same_resnet(weights.load(written(tree)), teacher)
    assert_same_resnet(weights.load(written(tree), network="student"), student)


def test_vissl_vision_transformer_has_another_epsilon_and_names(written):
    theirs = shaken(Vit(eps=1e-5, bias=False))
    trunk = renamed(without(theirs.state_dict(), "head"), cls_token="class_token", pos_embed="pos_embedding")
    backbone = weights.load(written(VISSL["classy"](trunk)), heads=3)
    assert_same_tokens(backbone, theirs)


# --- DINO, MAE, timm -------------------------------------------------------------------------------------------------


def dino_head(prefix):
    parts = {f"mlp.{i}.{part}": torch.rand(4, 4) for i in (0, 2, 4) for part in ("weight", "bias")}
    return renamed(parts | {"last_layer.weight_g": torch.rand(4, 1), "last_layer.weight_v": torch.rand(4, 4)}, prefix)


def dino(student, teacher, wrapped):
    """What main_dino.py saves. The teacher is wrapped, and has `module.` in front, where it has batch norms."""
    drop = ("head", "fc")
    return {
        "student": renamed(without(student.state_dict(), *drop), "module.backbone.") | dino_head("module.head."),
        "teacher": renamed(without(teacher.state_dict(), *drop), f"{wrapped}backbone.") | dino_head(f"{wrapped}head."),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=8, lr=5e-4, output_dir="."),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0},
    }


def test_dino_full_with_a_transformer(written):
    student, teacher = shaken(Vit(), 1), shaken(Vit(), 2)
    path = written(dino(student, teacher, wrapped=""))
    backbone = weights.load(path, heads=3)
    assert_same_tokens(backbone, teacher)
    assert_same_tokens(weights.load(path, network="student", heads=3), student)
    assert backbone.report.source == "DINO" and {"args", "optimizer", "dino_loss.center"} <= set(backbone.report.left)
    assert all(name.startswith("teacher.backbone.") for name in backbone.report.used)


def test_dino_full_with_a_resnet(written):
    student, teacher = small_resnet(seed=1), small_resnet(seed=2)
    path = written(dino(student, teacher, wrapped="module."))
    assert_same_resnet(weights.load(path), teacher)
    assert_same_resnet(weights.load(path, network="student"), student)


def test_dino_backbone_only(written):
    """The width that ViT-S has, so that the number of heads is looked up."""
    theirs = shaken(Vit(dim=384, heads=6))
    backbone = weights.load(written(without(theirs.state_dict(), "head")))
    assert_same_tokens(backbone, theirs)
    assert backbone.report.missing == ("head.weight", "head.bias")
    assert (backbone.arch, backbone.stem, backbone.trunk.image_size) == ("vit-384x4", "patch8", 32)


def test_heads_that_cannot_be_known_are_asked_for(written):
    path = written(Vit().state_dict())
    with pytest.raises(CourseError, match="give it as heads=N"):
        weights.load(path)
    with pytest.raises(CourseError, match="5 do not divide it"):
        weights.load(path, heads=5)


def test_mae_leaves_its_decoder(written):
    theirs = shaken(Vit())
    decoder = {
        "mask_token": torch.rand(1, 1, 8),
        "decoder_pos_embed": torch.rand(1, 17, 8),
        "decoder_pred.weight": torch.rand(4, 8),
    }
    decoder |= {"decoder_embed.weight": torch.rand(8, 48), "decoder_blocks.0.attn.qkv.weight": torch.rand(24, 8)}
    tree = {
        "model": without(theirs.state_dict(), "head") | decoder,
        "epoch": 3,
        "args": argparse.Namespace(mask_ratio=0.75),
    }
    backbone = weights.load(written(tree), heads=3)
    assert_same_tokens(backbone, theirs)
    assert backbone.report.source == "MAE"
    assert set(backbone.report.left) >= {"model.decoder_blocks.0.attn.qkv.weight", "model.mask_token"}


def test_the_wrong_number_of_heads_would_show(written):
    theirs = shaken(Vit(heads=3))
    backbone = weights.load(written(theirs.state_dict()), heads=4)
    with pytest.raises(AssertionError):
        assert_same_tokens(backbone, theirs)


def timm_vit(**options):
    timm = pytest.importorskip("timm")
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 5}
    return shaken(timm.models.VisionTransformer(**small | options))


@pytest.mark.parametrize("options", [{}, {"init_values": 1e-5}, {"qkv_bias": False, "mlp_ratio": 2.0}], ids=str)
def test_timm_transformers(written, options):
    theirs = timm_vit(**options)
    assert_same_tokens(weights.load(written(theirs.state_dict()), heads=3), theirs.forward_features)


def test_timm_average_pooling_norms_after_the_pool(written):
    theirs = timm_vit(global_pool="avg")
    backbone = weights.load(written(theirs.state_dict()), heads=3)
    assert_same_tokens(backbone, theirs.forward_features)
    assert "fc_norm.weight" in backbone.report.left


@pytest.mark.parametrize("options", [{"qk_norm": True}, {"swiglu_mlp": True}], ids=str)
def test_timm_transformers_that_compute_something_else_are_refused(written, options):
    if options.pop("swiglu_mlp", False):
        options = {"mlp_layer": pytest.importorskip("timm").layers.SwiGLU}
    with pytest.raises(CourseError, match="neither part of a network|has no blocks.0.mlp.fc1.weight"):
        weights.load(written(timm_vit(**options).state_dict()), heads=3)


def test_timm_directory_says_how_pixels_are_normalized(tmp_path):
    timm = pytest.importorskip("timm")
    from timm.models._hub import save_for_hf

    theirs = shaken(timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=4))
    save_for_hf(theirs, tmp_path / "timm", safe_serialization=True)
    backbone = weights.load(tmp_path / "timm")
    said = theirs.pretrained_cfg
    assert_same_tokens(backbone, theirs.forward_features, (said["mean"], said["std"]))
    assert said["mean"] != IMAGENET[0] and "config.json says so" in backbone.report.normalization


# --- lightly and solo-learn ------------------------------------------------------------------------------------------


def lightning(state, **more):
    return {
        "epoch": 1,
        "global_step": 9,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": state,
        "loops": {},
        "callbacks": {},
    } | more


def test_lightly_sequence_of_children(written):
    """As in lightly's examples: the backbone is an nn.Sequential of the children of a torchvision network."""
    theirs = small_resnet()
    backbone = nn.Sequential(*list(theirs.children())[:-1])
    state = renamed(backbone.state_dict(), "backbone.") | renamed(
        small_resnet(seed=5).state_dict(), "backbone_momentum."
    )
    loaded = weights.load(written(lightning(state | {"projection_head.layers.0.weight": torch.rand(2, 2)})))
    assert_same_resnet(loaded, theirs)
    assert loaded.report.source == "lightly"


@pytest.mark.parametrize("name", ["resnet-9", "resnet-50"])
@pytest.mark.parametrize("as_sequence", [True, False])
def test_lightly_resnet_generator(written, name, as_sequence):
    """lightly's own ResNets: a 3x3 stem of stride 1, and shortcut where torchvision says downsample."""
    generator = pytest.importorskip("lightly.models").ResNetGenerator
    theirs = shaken(generator(name, width=0.25))
    network = nn.Sequential(*list(theirs.children())[:-1]) if as_sequence else theirs
    state = renamed(network.state_dict(), "backbone.")
    loaded = weights.load(written(lightning(state)), stem="small")
    assert_same_resnet(loaded, theirs, size=32)


def test_lightly_masked_autoencoder(written):
    """MaskedVisionTransformerTIMM keeps timm's network under `vit`, and the mask's token beside it."""
    masked = pytest.importorskip("lightly.models.modules").MaskedVisionTransformerTIMM
    theirs = shaken(masked(vit=timm_vit()))
    state = renamed(theirs.state_dict(), "backbone.") | {"decoder.decoder_pred.weight": torch.rand(2, 2)}
    loaded = weights.load(written(lightning(state)), heads=3)
    assert_same_tokens(loaded, theirs.vit.forward_features)
    assert "state_dict.backbone.mask_token" in loaded.report.left


def test_lightly_dino_takes_the_teacher(written):
    student, teacher = small_resnet(seed=1), small_resnet(seed=2)
    nets = {"student_backbone.": student, "teacher_backbone.": teacher}
    state = {k: v for p, n in nets.items() for k, v in renamed(without(n.state_dict(), "fc"), p).items()}
    assert_same_resnet(weights.load(written(lightning(state))), teacher)
    assert_same_resnet(weights.load(written(lightning(state)), network="student"), student)


@pytest.mark.parametrize("name", ["backbone", "encoder"])
def test_solo_learn_pads_its_small_stem_by_two(written, name):
    """solo/methods/base.py: conv1 is 3x3 with padding 2 for CIFAR; a linear classifier learns beside it."""
    theirs, average = shaken(small_stem(resnet18(weights=None), padding=2)), small_resnet(seed=4)
    state = renamed(without(theirs.state_dict(), "fc"), f"{name}.") | {"classifier.weight": torch.rand(10, 512)}
    state |= renamed(without(average.state_dict(), "fc"), f"momentum_{name}.") | {
        "projector.0.weight": torch.rand(2, 2)
    }
    path = written(lightning(state), "simclr-cifar10.ckpt")
    loaded = weights.load(path)
    cifar = weights.preprocessing.NORMALIZATIONS["cifar"]
    assert_same_resnet(loaded, theirs, cifar, size=32)
    assert loaded.report.source == "solo-learn" and "state_dict.classifier.weight" in loaded.report.left
    theirs.conv1.padding = (1, 1)  # a network that was padded as usual, after all
    assert_same_resnet(weights.load(path, stem="small"), theirs, cifar, size=32)
    backbones.save(loaded, path.with_name("b.safetensors"))  # the course's own file must not forget the padding
    with pytest.raises(CourseError, match="stem 'solo-learn' is unknown"):
        backbones.load(path.with_name("b.safetensors"))


def test_solo_learn_for_imagenet(written):
    theirs = small_resnet()
    state = renamed(without(theirs.state_dict(), "fc"), "backbone.") | {"classifier.weight": torch.rand(100, 512)}
    assert_same_resnet(weights.load(written(lightning(state))), theirs)


def test_several_networks_are_told_apart_by_their_path(written):
    one, two = small_resnet(seed=1), small_resnet(seed=2)
    tree = {"model": renamed(one.state_dict(), "a.") | renamed(two.state_dict(), "b.")}
    path = written(tree)
    with pytest.raises(CourseError, match="by prefix= one of 'model.a.', 'model.b.'"):
        weights.load(path)
    assert_same_resnet(weights.load(path, prefix="model.b"), two)
    with pytest.raises(CourseError, match="the teacher isn't one"):
        weights.load(path, network="teacher")
    with pytest.raises(CourseError, match="network is teacher or student"):
        weights.load(path, network="tutor")


def test_prefixes_are_stripped_from_the_front_alone(written):
    """A name that holds its own prefix again in the middle: DINO's global replace would break it."""
    theirs = small_resnet()
    names = {key: f"layer1.{key}" for key in theirs.state_dict()}
    assert_same_resnet(weights.load(written({names[k]: v for k, v in theirs.state_dict().items()})), theirs)


# --- Transformers ----------------------------------------------------------------------------------------------------

HF_VIT = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
HF_RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 2, 1, 1], "layer_type": "basic"}


def transformers():
    library = pytest.importorskip("transformers")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def hf_tokens(model):
    return lambda x: model(pixel_values=x).last_hidden_state


@torch.no_grad()
def assert_same_hf_resnet(backbone, model, mean_std=IMAGENET):
    theirs = model.eval()(pixel_values=normalized(images(), *mean_std)).pooler_output.flatten(1)
    torch.testing.assert_close(backbone.eval()(images()), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-3])
def test_huggingface_vit(tmp_path, eps):
    hf = transformers()
    model = shaken(hf.ViTModel(hf.ViTConfig(**HF_VIT, intermediate_size=96, layer_norm_eps=eps)))
    model.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path)
    assert_same_tokens(backbone, hf_tokens(model), weights.preprocessing.NORMALIZATIONS["half"])
    assert backbone.report.left == ("pooler.dense.bias", "pooler.dense.weight")
    assert "assumed" in backbone.report.normalization


def test_huggingface_preprocessing_is_read(tmp_path):
    hf = transformers()
    model = shaken(hf.ViTForImageClassification(hf.ViTConfig(**HF_VIT, intermediate_size=96)))
    model.save_pretrained(tmp_path)
    said = {
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "rescale_factor": 1 / 255,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    mean_std = (said["image_mean"], said["image_std"])
    assert_same_tokens(weights.load(tmp_path), hf_tokens(model.vit), mean_std)
    assert_same_tokens(weights.load(tmp_path / "model.safetensors"), hf_tokens(model.vit), mean_std)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said | {"rescale_factor": 2 / 255}))
    assert_same_tokens(
        weights.load(tmp_path),
        lambda x: model.vit(pixel_values=x).last_hidden_state,
        ([0.05, 0.1, 0.15], [0.2, 0.25, 0.3]),
    )
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    assert_same_tokens(weights.load(tmp_path), hf_tokens(model.vit), PLAIN)


def test_huggingface_dinov2_with_layer_scale(tmp_path):
    hf = transformers()
    model = shaken(hf.Dinov2Model(hf.Dinov2Config(**HF_VIT)))
    model.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path)
    assert_same_tokens(backbone, hf_tokens(model))
    assert_same_tokens(backbone, hf_tokens(model), size=48)  # positions between the learned ones
    assert backbone.report.left == ("embeddings.mask_token",)


def test_huggingface_masked_autoencoder(tmp_path):
    hf = transformers()
    decoder = {
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 16,
    }
    model = shaken(hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**HF_VIT, **decoder, intermediate_size=96, mask_ratio=0.0)))
    model.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path)
    noise = torch.arange(16.0).repeat(2, 1)  # which keeps the patches in order
    assert_same_tokens(backbone, lambda x: model.vit(pixel_values=x, noise=noise).last_hidden_state)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", ["basic", "bottleneck", "stride in the 1x1"])
def test_huggingface_resnet_strides(tmp_path, kind, first):
    """Each of these loads with the same keys, and computes something else."""
    hf = transformers()
    layer = "basic" if kind == "basic" else "bottleneck"
    flags = {
        "layer_type": layer,
        "downsample_in_bottleneck": kind == "stride in the 1x1",
        "downsample_in_first_stage": first,
    }
    model = shaken(hf.ResNetForImageClassification(hf.ResNetConfig(**HF_RESNET | flags)))
    model.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path)
    assert_same_hf_resnet(backbone, model.resnet)
    assert set(backbone.report.left) == {"classifier.1.bias", "classifier.1.weight"}


def test_huggingface_files_of_other_kinds_and_in_several_pieces(tmp_path):
    hf = transformers()
    model = shaken(hf.ResNetModel(hf.ResNetConfig(**HF_RESNET)))
    model.save_pretrained(tmp_path / "pieces", max_shard_size="50KB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 1
    assert_same_hf_resnet(weights.load(tmp_path / "pieces"), model)
    model.config.save_pretrained(tmp_path / "pickle")
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    assert_same_hf_resnet(weights.load(tmp_path / "pickle"), model)
    torch.save(model.state_dict(), tmp_path / "alone.pth")
    with pytest.raises(CourseError, match="give the directory that save_pretrained wrote"):
        weights.load(tmp_path / "alone.pth")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "swin"}, "model_type 'swin'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"num_hidden_layers": 5}, "num_hidden_layers 5, and the shapes of the weights say 4"),
        ({"image_size": 64}, "image_size 64"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn"),
        ({"num_attention_heads": 5}, "5 do not divide"),
    ],
)
def test_huggingface_configurations_that_do_not_fit_are_refused(tmp_path, change, sentence):
    backbone = backbones.build("vit-tiny", image_size=32)
    weights.save(backbone, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CourseError, match=sentence):
        weights.load(tmp_path)


# --- writing ---------------------------------------------------------------------------------------------------------


def exported(backbone, folder):
    """The features that Transformers computes from the directory, preprocessing as its own configuration says."""
    hf = transformers()
    weights.save(backbone, folder)
    said = json.loads((folder / "preprocessor_config.json").read_text())
    model, loading = hf.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not model.training
    return model, (said["image_mean"], said["image_std"])


def odd_normalization(backbone):
    backbone.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
    backbone.std.copy_(torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
    return shaken(backbone)


@pytest.mark.parametrize("arch", ["resnet-tiny", "resnet50"])
def test_automodel_gives_the_same_features_as_our_resnet(tmp_path, arch):
    backbone = odd_normalization(backbones.build(arch, stem="imagenet"))
    model, mean_std = exported(backbone, tmp_path)
    assert_same_hf_resnet(backbone, model, mean_std)
    again = weights.load(tmp_path)
    assert (again.arch, again.stem) == (arch, "imagenet")
    assert torch.equal(again.eval()(images()), backbone(images()))


def test_automodel_gives_the_same_features_as_our_transformer(tmp_path):
    backbone = odd_normalization(backbones.build("vit-tiny", image_size=32))
    model, mean_std = exported(backbone, tmp_path)
    assert_same_tokens(backbone, hf_tokens(model), mean_std)
    with torch.no_grad():
        pooled = model(pixel_values=normalized(images(32), *mean_std)).pooler_output
        torch.testing.assert_close(pooled, backbone.summary(images(32)), atol=1e-5, rtol=1e-5)
    again = weights.load(tmp_path)
    assert (again.arch, again.stem) == ("vit-tiny", "patch4") and torch.equal(
        again.eval()(images(32)), backbone(images(32))
    )


def test_what_was_read_can_be_written_again(tmp_path, written):
    hf = transformers()
    dinov2 = shaken(hf.Dinov2Model(hf.Dinov2Config(**HF_VIT, layer_norm_eps=1e-4)))
    dinov2.save_pretrained(tmp_path / "a")
    model, mean_std = exported(weights.load(tmp_path / "a"), tmp_path / "b")
    assert type(model) is hf.Dinov2Model
    assert_same_tokens(weights.load(tmp_path / "a"), hf_tokens(model), mean_std)
    strange = hf.ResNetConfig(
        **HF_RESNET | {"layer_type": "bottleneck", "downsample_in_bottleneck": True, "embedding_size": 8}
    )
    shaken(hf.ResNetModel(strange)).save_pretrained(tmp_path / "c")
    backbone = weights.load(tmp_path / "c")
    model, mean_std = exported(backbone, tmp_path / "d")
    assert_same_hf_resnet(backbone, model, mean_std)
    with pytest.raises(CourseError, match="torchvision has no"):
        weights.save(backbone, tmp_path / "e.pth", "torchvision")
    backbones.save(backbone, tmp_path / "f.safetensors")  # refused when it is read, not computed otherwise
    with pytest.raises(CourseError, match="is unknown"):
        backbones.load(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    "change",
    [{"stride_in_first": True}, {"first_stride": 2}, {"groups": 32}, {"base_width": 128}, {"stem_width": 32}],
    ids=str,
)
def test_a_network_that_computes_something_else_never_gets_a_name_of_ours(change):
    """Or its backbone.safetensors would load again, as another network."""
    usual = weights.ResNetMeasures(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), "imagenet", 64)
    assert usual.name == "resnet50"
    assert dataclasses.replace(usual, **change).name not in backbones.names()


@pytest.mark.parametrize("change", [{"eps": 1e-12}, {"heads": 8}, {"layer_scale": True}, {"qkv_bias": False}], ids=str)
def test_nor_does_such_a_transformer(change):
    usual = weights.VitMeasures(image_size=32, patch=4, width=128, depth=4, heads=4, hidden=512, eps=1e-6)
    assert usual.name == "vit-tiny"
    assert dataclasses.replace(usual, **change).name not in backbones.names()


def test_the_image_processor_gives_what_the_backbone_expects(tmp_path):
    hf = transformers()
    backbone = odd_normalization(backbones.build("vit-tiny", image_size=32))
    weights.save(backbone, tmp_path)
    pixels = (images(32)[0] * 255).to(torch.uint8)
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path)
    ready = processor(pixels, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ready, backbone.preprocess(pixels[None] / 255), atol=1e-5, rtol=1e-5)


def test_torchvision_reads_what_we_write(tmp_path, capsys):
    backbone = odd_normalization(backbones.build("resnet18", stem="imagenet"))
    theirs = resnet18(weights=None)
    theirs.fc = nn.Identity()
    for name in ("out.pth", "out.safetensors"):
        weights.save(backbone, tmp_path / name, "torchvision")
        assert "mean (0.1, 0.2, 0.3)" in capsys.readouterr().err
    theirs.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True))
    assert_same_resnet(backbone, theirs, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "out.safetensors"))
    assert_same_resnet(backbone, theirs, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))


def test_what_a_format_cannot_hold_is_said(tmp_path):
    small = backbones.build("resnet18", stem="small")
    with pytest.raises(CourseError, match="stem 'small'.*begins with ImageNet's"):
        weights.save(small, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    weights.save(small, tmp_path / "b.pth", "torchvision")
    assert torch.equal(weights.load(tmp_path / "b.pth").eval()(images(32)), small.eval()(images(32)))
    with pytest.raises(CourseError, match="torchvision has no vit-tiny"):
        weights.save(backbones.build("vit-tiny"), tmp_path / "c.pth", "torchvision")
    with pytest.raises(CourseError, match="did you mean 'torchvision'"):
        weights.save(small, tmp_path / "c.pth", "torchvison")
    with pytest.raises(CourseError, match="is a file"):
        weights.save(backbones.build("vit-tiny"), tmp_path / "b.pth")


# --- files that are refused ------------------------------------------------------------------------------------------


class Creates:
    """A pickle that, once run, creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("place", ["alone", "beside", "in args", "bare pickle", "bin"])
def test_no_code_in_a_pickle_is_ever_run(tmp_path, place):
    evil, path = Creates(tmp_path / "ran"), tmp_path / "model.pth"
    state = small_resnet().state_dict()
    if place == "bare pickle":
        path.write_bytes(pickle.dumps({"state_dict": evil}, protocol=2))
    elif place == "bin":
        path = tmp_path / "model"
        path.mkdir()
        (path / "config.json").write_text('{"model_type": "resnet"}')
        torch.save(state | {"x": evil}, path / "pytorch_model.bin")
    else:
        tree = {
            "alone": evil,
            "beside": state | {"x": evil},
            "in args": {"model": state, "args": argparse.Namespace(x=evil)},
        }
        torch.save(tree[place], path)
    with pytest.raises(
        CourseError, match="could run foreign code, so it was refused|damaged, or not a file of weights"
    ):
        weights.load(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(evil))
    assert (tmp_path / "ran").exists()  # it would have


def test_the_allow_list_is_not_left_open(written):
    weights.load(written({"model": small_resnet().state_dict(), "args": argparse.Namespace(a=1)}))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


class Custom:
    pass


def test_a_class_that_is_not_allowed_is_named(written):
    with pytest.raises(CourseError, match=r"Custom\).*save its state_dict alone"):
        weights.load(written({"state_dict": small_resnet().state_dict(), "hyper_parameters": Custom()}))


def test_files_that_hold_no_weights_get_one_kind_sentence(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(small_resnet().state_dict(), whole)
    content = whole.read_bytes()
    files = {
        "empty.pth": (b"", "is empty"),
        "cut.pth": (content[: len(content) // 2], "damaged, or not a file of weights"),
        "text.pth": (b"<html>not found</html>", "damaged, or not a file of weights"),
        "zeros.pth": (bytes(5000), "damaged, or not a file of weights"),
        "noise.pth": (b"PK\x03\x04" + bytes(range(256)) * 9, "damaged, or not a file of weights"),
        "cut.safetensors": (safetensors.torch.save({"a": torch.zeros(9)})[:-8], "not a readable safetensors file"),
        "weights.h5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "TensorFlow"),
        "saved_model.pb": (bytes(range(200)), "TensorFlow"),
        "model.ckpt-250228.index": (bytes(range(200)), "TensorFlow"),
        "model.ckpt-250228.data-00000-of-00001": (bytes(range(200)), "TensorFlow"),
    }
    for name, (written, sentence) in files.items():
        (tmp_path / name).write_bytes(written)
        with pytest.raises(CourseError, match=sentence) as error:
            weights.load(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(CourseError, match="TensorFlow"):
        weights.load(tmp_path / "model.ckpt-250228")  # the name that TensorFlow itself takes
    with pytest.raises(CourseError, match="there is no backbone at"):
        weights.load(tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ([torch.zeros(2)], "holds a list and not a dictionary"),
        ({}, "no weights in it"),
        ({"epoch": 3, "optimizer": {"state": torch.zeros(2)}}, "no weights in it"),
        ({"encoder.weight": torch.zeros(2)}, "no residual network or vision transformer"),
        (
            {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)},
            "the first convolution has the shape",
        ),
    ],
)
def test_files_with_something_else_get_one_kind_sentence(written, tree, sentence):
    with pytest.raises(CourseError, match=sentence):
        weights.load(written(tree))


def test_directories_without_weights_get_one_kind_sentence(tmp_path):
    with pytest.raises(CourseError, match="there are no weights in"):
        weights.load(tmp_path)
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    with pytest.raises(CourseError, match="TensorFlow"):
        weights.load(tmp_path)
    (tmp_path / "epoch9.pth").write_bytes(b"x")
    with pytest.raises(CourseError, match="holds epoch9.pth: give one of them"):
        weights.load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(CourseError, match="names '../x.safetensors', which isn't in"):
        weights.load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(CourseError, match="not readable JSON"):
        weights.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("layer3.0.bn1.running_mean"), r"lacks layer3.0.bn1.running_mean.*only a head may be missing"),
        (lambda s: s.pop("layer4.0.downsample.0.weight"), "lacks layer4.0.downsample.0.weight"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("layer4.")], "one is missing"),
        (
            lambda s: s.update({"layer2.0.se.fc1.weight": torch.zeros(1)}),
            "layer2.0.se.fc1.weight, which is neither part",
        ),
        (lambda s: s.update({"attnpool.q_proj.weight": torch.zeros(1)}), "attnpool.q_proj.weight, which is neither"),
        (lambda s: s.update({"bn1.weight": torch.zeros(3)}), r"bn1.weight in .* has the shape \(3,\)"),
        (lambda s: s["bn1.weight"].fill_(float("nan")), "bn1.weight in .* isn't finite"),
    ],
)
def test_nothing_but_a_head_may_be_missing_or_left(written, change, sentence):
    state = small_resnet().state_dict()
    change(state)
    with pytest.raises(CourseError, match=sentence):
        weights.load(written(state))


@pytest.mark.parametrize(
    "name", ["norm.weight", "blocks.3.attn.qkv.bias", "pos_embed", "cls_token", "patch_embed.proj.bias"]
)
def test_nothing_of_a_transformer_may_be_missing(written, name):
    state = Vit().state_dict()
    del state[name]
    with pytest.raises(CourseError, match=f"lacks {name}|has no {name}"):
        weights.load(written(state), heads=3)


def test_normalizations_that_are_not_one_are_refused(written):
    path = written(small_resnet().state_dict())
    with pytest.raises(CourseError, match="did you mean 'imagenet'"):
        weights.load(path, normalize="imagnet")
    for bad in ((0.5, 0.5), 3, ([0.1, 0.2], [0.3, 0.4])):
        with pytest.raises(CourseError, match="three numbers"):
            weights.load(path, normalize=bad)


# --- the course's own, and the command line --------------------------------------------------------------------------


def test_our_own_files_are_read_as_ever(tmp_path, capsys):
    ours = backbones.build(seed=3)
    ours.mean.fill_(0.25)
    backbones.save(ours, tmp_path / "backbone.safetensors", task="rotation")
    for source in (tmp_path, tmp_path / "backbone.safetensors"):
        again = weights.load(source)
        assert torch.equal(again.eval()(images(32)), ours.eval()(images(32))) and again.notes == {"task": "rotation"}
        assert again.report.left == again.report.missing == ()
    assert capsys.readouterr().err == ""
    (tmp_path / "backbone.safetensors").write_bytes(b"damaged")
    with pytest.raises(CourseError, match="not a readable safetensors file"):
        weights.load(tmp_path)


def test_evaluate_takes_other_peoples_weights(written, capsys, monkeypatch):
    path = written(backbones.build("resnet-tiny", seed=1).trunk.state_dict(), "theirs.pth")
    arguments = [
        "evaluate",
        str(path),
        "--data",
        "digits",
        "--protocol",
        "knn",
        "--seeds",
        "1",
        "--device",
        "cpu",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["sslcourse", *arguments])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["backbone"] == "resnet-tiny" and 0.1 < result["mean"] <= 1
    assert f"{Path(path)}: torchvision" in captured.err


def test_evaluate_asks_for_what_a_file_does_not_say_and_takes_it(call, written):
    path = written(Vit().state_dict())
    quick = ("--data", "digits", "--size", 32, "--protocol", "knn", "--seeds", 1, "--device", "cpu", "--json")
    code, out, err = call("evaluate", path, *quick)
    assert code == 2 and "give it as heads=N" in err
    code, out, err = call("evaluate", path, *quick, "--heads", 3, "--normalize", "half")
    assert code == 0 and 0.1 < json.loads(out)["mean"] <= 1 and "normalization: half (as asked)" in err


def test_pretraining_goes_on_from_other_peoples_weights(call, written, tmp_path):
    start = backbones.build("resnet-tiny", seed=7)
    path = written(start.trunk.state_dict(), "theirs.pth")
    few = ("--data", "digits", "--steps", 1, "--batch-size", 8, "--learning-rate", 0, "--device", "cpu")
    code, out, err = call("pretrain", "rotation", "--out", "run", "--weights", path, *few)
    assert code == 0, err
    again = backbones.load(tmp_path / "run")
    assert (again.arch, again.stem) == ("resnet-tiny", "tiny")
    assert torch.equal(again.trunk.layer4[0].conv2.weight, start.trunk.layer4[0].conv2.weight)
    code, _, err = call(
        "pretrain", "rotation", "--out", "b", "--init", path, "--stem", "small", "--normalize", "half", *few
    )
    assert code == 0 and "normalization: half (as asked)" in err and backbones.load(tmp_path / "b").stem == "small"
    code, _, err = call("pretrain", "rotation", "--out", "d", "--init", path, "--backbone", "resnet18", *few)
    assert code == 2 and "leave --backbone out" in err
    code, _, err = call("pretrain", "rotation", "--out", "e", "--prefix", "model", *few)
    assert code == 2 and "prefix says how to read a file of weights; name the file with --init" in err
    odd = written(wide_resnet().state_dict(), "wide.pth")
    code, _, err = call("pretrain", "rotation", "--out", "c", "--weights", odd, *few)
    assert code == 2 and "pretraining goes on from one of resnet-tiny" in err


def test_a_run_is_exported_and_a_small_stem_refused_with_the_way_out(call, tmp_path):
    few = ("--data", "digits", "--steps", 1, "--batch-size", 8, "--device", "cpu")
    assert call("pretrain", "rotation", "--out", "small", *few)[0] == 0
    code, _, err = call("export", "small", "hf", "--format", "huggingface")
    assert code == 2 and "--stem imagenet" in err and not (tmp_path / "hf").exists()
    assert call("export", "small", "tv.pth", "--format", "torchvision")[0] == 0
    ours, again = backbones.load(tmp_path / "small").eval(), weights.load(tmp_path / "tv.pth").eval()
    assert torch.equal(again(images(32)), ours(images(32)))
    assert call("pretrain", "rotation", "--out", "large", "--stem", "imagenet", *few)[0] == 0
    code, out, _ = call("export", "large", "hf", "--image-size", 32)
    assert code == 0 and "hf: resnet-tiny in the layout of huggingface" in out
    ours, again = backbones.load(tmp_path / "large").eval(), weights.load(tmp_path / "hf").eval()
    assert torch.equal(again(images(32)), ours(images(32)))
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["size"] == {"height": 32, "width": 32}


def test_the_size_of_training_goes_into_the_image_processor_and_nowhere_else(tmp_path):
    backbone = backbones.build("resnet-tiny", stem="imagenet")
    for size, kept in ((None, 224), (48, 48)):
        weights.save(backbone, tmp_path / str(size), image_size=size)
        said = json.loads((tmp_path / str(size) / "preprocessor_config.json").read_text())
        assert said["size"] == {"height": kept, "width": kept}
    for bad in ({"image_size": 0}, {"image_size": 32, "format": "torchvision"}):
        with pytest.raises(CourseError, match="image_size is a number of pixels"):
            weights.save(backbone, tmp_path / "x", **bad)
