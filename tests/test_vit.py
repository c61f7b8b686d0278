"""The vision transformer against PyTorch's own attention, and as a backbone like any other."""

import pytest
import torch
from torch import nn

from sslcourse import backbones, vit
from sslcourse.device import generator
from sslcourse.errors import CourseError


def tokens(n=2, t=5, d=16):
    return torch.randn(n, t, d, generator=generator(0))


def test_attention_is_pytorchs():
    ours, theirs = vit.Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight), theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.proj.weight), theirs.out_proj.bias.copy_(ours.proj.bias)
    x = tokens()
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.weights(x), weights, atol=1e-5, rtol=1e-4)


def test_a_block_is_pytorchs_encoder_layer():
    ours = vit.Block(16, 4)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.attn.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.attn.qkv.bias)
        for a, b in (
            (theirs.self_attn.out_proj, ours.attn.proj), (theirs.linear1, ours.mlp.fc1), (theirs.linear2, ours.mlp.fc2)
        ):  # fmt: skip
            a.weight.copy_(b.weight), a.bias.copy_(b.bias)
    theirs.norm1.eps = theirs.norm2.eps = 1e-6
    torch.testing.assert_close(ours(tokens()), theirs(tokens()), atol=1e-5, rtol=1e-4)


def test_keys_and_shapes_are_timms():
    trunk = backbones.build("vit-tiny").trunk
    found = {name: tuple(value.shape) for name, value in trunk.state_dict().items()}
    block = {
        "norm1.weight": (128,), "norm1.bias": (128,), "attn.qkv.weight": (384, 128), "attn.qkv.bias": (384,),
        "attn.proj.weight": (128, 128), "attn.proj.bias": (128,), "norm2.weight": (128,), "norm2.bias": (128,),
        "mlp.fc1.weight": (512, 128), "mlp.fc1.bias": (512,), "mlp.fc2.weight": (128, 512), "mlp.fc2.bias": (128,),
    }  # fmt: skip
    expected = {
        "cls_token": (1, 1, 128), "pos_embed": (1, 65, 128), "patch_embed.proj.weight": (128, 3, 4, 4),
        "patch_embed.proj.bias": (128,), "norm.weight": (128,), "norm.bias": (128,),
    }  # fmt: skip
    expected |= {f"blocks.{i}.{name}": shape for i in range(4) for name, shape in block.items()}
    assert found == expected


def test_stages_are_the_patches_after_each_quarter_of_the_blocks():
    backbone = backbones.build("vit-tiny").eval()
    images = torch.rand(2, 3, 32, 32, generator=generator(0))
    maps = backbone.stages(images)
    assert [tuple(m.shape) for m in maps] == [(2, 128, 8, 8)] * 4
    trunk = backbone.trunk
    x = torch.cat([trunk.cls_token.expand(2, -1, -1), trunk.patch_embed((images - backbone.mean) / backbone.std)], 1)
    x = x + trunk.pos_embed
    for i, block in enumerate(trunk.blocks):
        x = block(x)
        expected = (trunk.norm(x) if i == 3 else x)[:, 1:].transpose(1, 2).reshape(2, 128, 8, 8)
        torch.testing.assert_close(maps[i], expected)
    torch.testing.assert_close(backbone(images), maps[-1].mean((2, 3)))


def test_the_class_tokens_attention_sums_to_one_with_itself():
    trunk = backbones.build("vit-tiny").trunk
    looked = trunk.attention(torch.rand(2, 3, 32, 32, generator=generator(0)))
    assert looked.shape == (2, 4, 8, 8)
    assert ((looked.sum((2, 3)) > 0.5) & (looked.sum((2, 3)) < 1)).all()


@pytest.mark.parametrize("size", [16, 32, 64, 96])
def test_weights_depend_on_the_seed_alone_and_survive_a_file(tmp_path, size):
    state = torch.get_rng_state()
    a, b, c = (backbones.build("vit-tiny", image_size=size, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    same = lambda x, y: all(torch.equal(u, v) for u, v in zip(x.parameters(), y.parameters(), strict=True))  # noqa: E731
    assert same(a, b) and not same(a, c)
    backbones.save(a, tmp_path / "vit.safetensors", task="none")
    assert same(backbones.load(tmp_path / "vit.safetensors"), a)


def test_what_a_transformer_refuses():
    with pytest.raises(
        CourseError, match="patches of 4 pixels, and got images of 30x32; resize them to multiples of 4"
    ):
        backbones.build("vit-tiny")(torch.rand(1, 3, 30, 32))
    with pytest.raises(
        CourseError, match="30 pixels can't be divided by 8; load the images with a size that can, such as 32"
    ):
        backbones.build("vit-tiny", image_size=30)
    with pytest.raises(CourseError, match="has no stem"):
        backbones.build("vit-tiny", stem="small")
    with pytest.raises(CourseError, match="choose one of resnet-tiny, .*vit-tiny"):
        backbones.build("vit-small")
    with pytest.raises(CourseError, match="a width that 4 divides"):
        vit.sine_positions(4, 10)


def test_other_sides_get_positions_in_between():
    network = backbones.build("vit-tiny")
    assert [m.shape[-2:] for m in network.stages(torch.rand(2, 3, 16, 24))] == [(4, 6)] * 4
    trunk = network.trunk
    assert torch.equal(trunk.positions(8, 8), trunk.pos_embed[:, 1:])
    half = trunk.positions(4, 4)[0].T.reshape(-1, 4, 4)  # (d, 4, 4)
    whole = trunk.pos_embed[0, 1:].T.reshape(1, -1, 8, 8)
    torch.testing.assert_close(half, torch.nn.functional.interpolate(whole, (4, 4), mode="bicubic")[0])


def test_the_summary_is_the_class_token_or_the_average():
    images = torch.rand(2, 3, 32, 32)
    transformer, residual = backbones.build("vit-tiny"), backbones.build().eval()
    tokens = transformer.trunk.with_class_token(transformer.trunk.embed(transformer.preprocess(images)))
    for block in transformer.trunk.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(transformer.summary(images), transformer.trunk.norm(tokens)[:, 0])
    assert torch.equal(residual.summary(images), residual(images))
