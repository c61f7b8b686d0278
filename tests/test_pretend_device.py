"""The pretend device behaves as CUDA is documented to: what it computes, what it refuses, what it lets pass."""

import copy
import io
import pickle

import numpy as np
import pretend_device
import pytest
import torch
from torch import nn
from torch.nn import functional

from sslcourse import device as devices


@pytest.fixture(autouse=True)
def far():
    with pretend_device.present() as device:
        yield device


def here(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def there(*shape):
    return here(*shape).to("pretend")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5))


# --- what it computes ------------------------------------------------------------------------------------------------

MADE = {
    "zeros": lambda d: torch.zeros(2, 3, device=d),
    "full": lambda d: torch.full((), -1, device=d),
    "eye": lambda d: torch.eye(3, device=d),
    "arange": lambda d: torch.arange(5, device=d) + 0.5,
    "linspace": lambda d: torch.linspace(0, 1, 5, device=d),
    "tensor": lambda d: torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=d),
    "as_tensor": lambda d: torch.as_tensor([1, 2], device=d),
    "as_tensor of an array": lambda d: torch.as_tensor(np.arange(3), device=d),
    "from_numpy": lambda d: torch.from_numpy(np.arange(3)).to(d),
    "new_tensor": lambda d: torch.zeros(2, device=d).new_tensor([1.0, 2.0]),
    "new_zeros": lambda d: torch.ones(2, device=d).new_zeros(3),
    "zeros_like": lambda d: torch.zeros_like(torch.ones(2, device=d)),
    "one_hot": lambda d: functional.one_hot(torch.arange(3, device=d), 4),
}
COMPUTED = {
    "product": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "einsum": lambda x: torch.einsum("nchw,c->nhw", x, x[0, :, 0, 0]),
    "inverse": lambda x: torch.linalg.inv(x[0, 0] + torch.eye(8, device=x.device)),
    "topk": lambda x: x.flatten(1).topk(3, dim=1).indices,
    "windows": lambda x: x.unfold(2, 4, 1).unfold(3, 4, 2),
    "interpolate": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear", antialias=True),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "where": lambda x: torch.where(x > 0.5, 1 - x, x),
    "nonzero": lambda x: (x > 0.5).nonzero(),
    "scatter": lambda x: torch.zeros_like(x).scatter_add_(1, x.long(), x),
    "write a part": lambda x: x.clone().index_fill_(1, torch.tensor([1], device=x.device), 0.5),
    "write through a view": lambda x: (x := x.clone(), x[0, 0].mul_(2))[0],
    "unsqueeze in place": lambda x: x[0, 0].clone().unsqueeze_(0),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "network": lambda x: network().to(x.device).eval()(x).detach(),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_tensors_are_made_on_it(make):
    made, expected = make("pretend"), make("cpu")
    assert made.device == torch.device("pretend:0") and made.dtype == expected.dtype
    assert torch.equal(made.cpu(), expected)


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_it_computes_what_the_cpu_computes(compute):
    result, expected = compute(there(4, 3, 8, 8)), compute(here(4, 3, 8, 8))
    assert result.device.type == "pretend" and result.stride() == expected.stride()
    torch.testing.assert_close(result.cpu(), expected)  # attention is another kernel; all else is equal


def test_numbers_come_out():
    x = there(4)
    assert x.tolist() == here(4).tolist() and x.sum().item() == here(4).sum().item()
    assert f"{x[0]:.3f}" == f"{here(4)[0]:.3f}" and "device='pretend:0'" in repr(x)
    assert bool((x >= 0).all()) and [5, 6, 7][torch.tensor(1, device="pretend")] == 6


# --- what it refuses, and what it lets pass --------------------------------------------------------------------------

MIXED = {
    "sum": lambda x, c: x + c,
    "sum, the other way": lambda x, c: c + x,
    "product of matrices": lambda x, c: x @ c,
    "in place": lambda x, c: c.add_(x),
    "number of the CPU in place": lambda x, c: torch.tensor(1.0).add_(x[0, 0]),
    "number in a product": lambda x, c: torch.dot(x[0], c[0]),
    "comparison": lambda x, c: x > c,
    "torch.equal": lambda x, c: torch.equal(x, c),
    "cat": lambda x, c: torch.cat([x, c]),
    "stack of numbers": lambda x, c: torch.stack([x[0, 0], c[0, 0]]),
    "where": lambda x, c: torch.where(x > 0, x, c),
    "gather": lambda x, c: x.gather(0, torch.zeros(1, 4, dtype=torch.long)),
    "index_select": lambda x, c: x.index_select(0, torch.tensor([0])),
    "CPU indexed by it": lambda x, c: c[torch.tensor([0], device="pretend")],
    "CPU masked by it": lambda x, c: c[x > 0],
    "CPU written to at its indices": lambda x, c: c.index_put_((torch.tensor([0], device="pretend"),), c[:1]),
    "its values written into the CPU's at indices": lambda x, c: c.__setitem__(torch.tensor([0]), x[:1]),
    "the CPU's values written into it at indices": lambda x, c: x.__setitem__(torch.tensor([0]), c[:1]),
    "one_hot's loss": lambda x, c: functional.cross_entropy(x, torch.zeros(4, dtype=torch.long)),
    "a module elsewhere": lambda x, c: nn.Linear(4, 2)(x),
    "buffers elsewhere": lambda x, c: nn.BatchNorm1d(4, affine=False)(x),
    "embedding": lambda x, c: functional.embedding(torch.tensor([0]), x),
    "lerp": lambda x, c: x.lerp_(c, 0.5),
    "random numbers from a generator of the CPU": lambda x, c: torch.rand(
        3, generator=torch.Generator(), device="pretend"
    ),
    "random numbers on the CPU from its generator": lambda x, c: torch.rand(
        3, generator=torch.Generator(device="pretend")
    ),
    "randperm on the CPU from its generator": lambda x, c: torch.randperm(3, generator=torch.Generator("pretend")),
    "uniform_ with a generator of the CPU": lambda x, c: x.uniform_(generator=torch.Generator()),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_it_refuses_to_mix(mix):
    with pytest.raises(RuntimeError, match="same device|device type for generator"):
        mix(there(4, 4), here(4, 4))


PASSED = {
    "a number of the CPU": lambda x, c: x * torch.tensor(2.0),
    "a number of the CPU first": lambda x, c: torch.tensor(2.0) * x,
    "clamp": lambda x, c: x.clamp(min=torch.tensor(0.5)),
    "masked_fill": lambda x, c: x.masked_fill(x > 0.5, torch.tensor(2.0)),
    "where": lambda x, c: torch.where(x > 0.5, x, torch.tensor(0.0)),
    "indices of the CPU": lambda x, c: x[torch.tensor([1, 0])],
    "a list": lambda x, c: x[:, [0, 2]] + x[[0, 1, 2, 3], 1][:, None],
    "a mask of the CPU": lambda x, c: x[torch.tensor([True, False, True, False])],
    "a number of the CPU written at indices": lambda x, c: x.index_put((torch.tensor([0]),), torch.tensor(2.0)),
    "written from the CPU": lambda x, c: torch.zeros_like(x).copy_(c),
    "a slice written from the CPU": lambda x, c: (x.__setitem__(slice(2), c[:2]), x)[1],
}


@pytest.mark.parametrize("mix", PASSED.values(), ids=PASSED)
def test_what_cuda_lets_pass(mix):
    result = mix(there(4, 4), here(4, 4))
    assert result.device.type == "pretend"
    assert torch.equal(result.cpu(), mix(here(4, 4), here(4, 4)))


def test_the_cpu_takes_copies_of_it():
    assert torch.equal(torch.zeros(4).copy_(there(4)), here(4)) and there(4).cpu().device.type == "cpu"
    kept = here(4)
    kept[:2] = there(4)[:2]
    assert torch.equal(kept, here(4))


@pytest.mark.parametrize("take", [lambda x: x.numpy(), np.asarray, lambda x: np.array([x, x])])
def test_numpy_is_refused(take):
    with pytest.raises(TypeError, match="Use Tensor.cpu()"):
        take(there(3))


# --- random numbers --------------------------------------------------------------------------------------------------


def test_generators():
    g = torch.Generator(device="pretend").manual_seed(3)
    assert g.device.type == "pretend" and torch.Generator().device.type == "cpu"
    first = torch.rand(3, generator=g, device=g.device)
    again = torch.zeros(3, device="pretend").uniform_(generator=g.manual_seed(3))
    assert torch.equal(first, again) and first.device.type == "pretend"
    assert sorted(torch.randperm(5, generator=g, device="pretend").tolist()) == [0, 1, 2, 3, 4]
    assert isinstance(g, torch.Generator)


def test_its_own_random_numbers_follow_the_seed_and_dont_move_the_cpus():
    torch.manual_seed(0)
    first, expected = torch.rand(3, device="pretend"), torch.rand(3)
    torch.manual_seed(0)
    functional.dropout(torch.ones(5, device="pretend"))
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3, device="pretend"), first)


# --- modules, training, files ----------------------------------------------------------------------------------------


def test_a_module_moves_with_its_gradients_and_stays_the_same_objects():
    module = network()
    parameters = list(module.parameters())
    module(here(4, 3, 8, 8)).sum().backward()
    graph = module(here(4, 3, 8, 8))  # still holds the parameters
    module.to("pretend", memory_format=torch.channels_last)
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True)) and graph.device.type == "cpu"
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in parameters)
    assert {p.device.type for p in parameters} == {p.grad.device.type for p in parameters} == {"pretend"}
    assert {b.device.type for b in module.buffers()} == {"pretend"}
    module.cpu()
    assert {p.device.type for p in parameters} == {p.grad.device.type for p in parameters} == {"cpu"}
    assert all(type(p) is nn.Parameter for p in parameters)


def test_a_module_without_numbers_can_be_filled():
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    assert module.to_empty(device="pretend").weight.device.type == "pretend"
    assert module.to_empty(device="cpu").weight.device.type == "cpu"


@pytest.mark.parametrize("kind", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_training_gives_the_same_bits_and_goes_on_from_a_file(kind):
    def train(module, place, optimizer=None):
        optimizer = optimizer or kind(module.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            module(here(4, 3, 8, 8).to(place)).square().mean().backward()
            optimizer.step()
        return optimizer

    cpu, far = network(), network().to("pretend")
    ours, theirs = train(far, "pretend"), train(cpu, "cpu")
    file = io.BytesIO()
    torch.save({"model": far.state_dict(), "optimizer": ours.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, map_location="cpu", weights_only=True)
    assert {x.device.type for x in state["model"].values()} == {"cpu"}
    resumed = network().to("pretend")
    optimizer = kind(resumed.parameters())
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, "pretend", optimizer)
    train(cpu, "cpu", theirs)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(resumed.parameters(), cpu.parameters(), strict=True))


def test_a_copy_is_on_the_same_device_and_apart():
    module = network().to("pretend")
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied[0].weight.zero_()
    assert copied[0].weight.device.type == "pretend" and isinstance(copied[0].weight, nn.Parameter)
    assert module[0].weight.abs().sum() > 0


def test_pickles_and_files_keep_the_device():
    module = pickle.loads(pickle.dumps(network().to("pretend")))
    assert module[0].weight.device.type == "pretend" and isinstance(module[0].weight, nn.Parameter)
    file = io.BytesIO()
    torch.save(there(3), file)
    file.seek(0)
    loaded = torch.load(file)
    assert loaded.device.type == "pretend" and torch.equal(loaded.cpu(), here(3))


def test_autocast_takes_sixteen_bits_for_products_and_thirty_two_for_losses():
    module, x = network().to("pretend"), there(4, 3, 8, 8)
    with torch.autocast("pretend", dtype=torch.bfloat16):
        logits = module(x)
        assert logits.dtype == (logits @ logits.T).dtype == torch.bfloat16
        assert logits.softmax(dim=1).dtype == functional.cross_entropy(logits, logits.argmax(1)).dtype == torch.float32
        with torch.autocast("pretend", enabled=False):
            assert (x[0, 0] @ x[0, 0]).dtype == torch.float32
    logits.float().sum().backward()
    assert module[0].weight.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (here(2, 2) @ here(2, 2)).dtype == torch.bfloat16 and (x[0, 0] @ x[0, 0]).dtype == torch.float32


def test_memory_is_pinned_on_the_cpu_alone():
    assert here(3).pin_memory().is_pinned() and not here(3).is_pinned()
    assert torch.equal(here(3).pin_memory().to("pretend", non_blocking=True).cpu(), here(3))
    with pytest.raises(RuntimeError, match="only dense CPU tensors"):
        there(3).pin_memory()


# --- as the package's choice -----------------------------------------------------------------------------------------


def test_the_package_picks_it_only_while_it_is_chosen():
    with pretend_device.chosen():
        assert devices.pick_device().type == devices.pick_device("pretend").type == "pretend"
        assert devices.pick_device("cpu").type == "cpu"
        assert devices.generator(3, "pretend").device.type == "pretend"
    assert devices.pick_device().type != "pretend"
