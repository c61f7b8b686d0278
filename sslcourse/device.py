"""Which device, which precision, which memory layout, which random numbers: asked once, answered here.

The contract of every function of this package that computes, on one device or another:

- it moves what it needs to the device (`device="auto"`, or the one that is asked for), wherever that lies before;
- it gives every module back where it found it, each part of it in training or in evaluation as before, and also when it
  is stopped on the way, by an error or by Ctrl-C (`on`);
- tensors that it returns are on the CPU, unless its docstring says otherwise.

So the same lines run on every machine. What is written by hand, a module called on a tensor, stays on one device: both
are on the CPU until somebody moves them. `PretextTask.views` and `forward`, losses and augmentations are of that kind:
they compute where what they are given lies.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sslcourse.errors import CourseError, suggest

DEVICES = ("auto", "cpu", "cuda", "mps")
SEEDS = (-(2**63), 2**63 - 1)  # the least and the largest that PyTorch's generators take
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # of C++, as torch.compile looks for them; elsewhere g++


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device to compute on: CUDA, then Apple's MPS, then the CPU, or the one that is named.

    Raises CourseError when the named device isn't one of DEVICES or isn't on this machine.
    """
    name = str(name)
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise CourseError(f"device {name!r} is unknown{suggest(name, DEVICES)}; choose one of {', '.join(DEVICES)}.")
    number = name.partition(":")[2]
    if ":" in name and not (number.isascii() and number.isdigit() and len(number) < 4):
        raise CourseError(f"device {name!r} is unknown; after {kind}: comes the number of a device, such as cuda:0.")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device(next(k for k in ("cuda", "mps", "cpu") if available[k]))
    if not available[kind]:
        found = ", ".join(k for k, there in available.items() if there)
        raise CourseError(f"device {name!r} was asked for, but this machine offers only {found}; use --device auto.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise CourseError(f"device {name!r} was asked for, but there are {torch.cuda.device_count()}, counted from 0.")
    return torch.device(name)


def supports_bf16(device: torch.device) -> bool:
    """True where bfloat16 is native, so that autocast gains speed and loses no range."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, enabled: bool = True) -> contextlib.AbstractContextManager:
    """bfloat16 autocast on a CUDA device that has it; elsewhere full float32 precision."""
    if enabled and supports_bf16(device):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def memory_format(device: torch.device) -> torch.memory_format:
    """channels_last where convolutions run faster in it (tensor cores, oneDNN); MPS keeps the default."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def fits(nbytes: int, device: torch.device) -> bool:
    """True when a data set of `nbytes` may live on the device and leave half of the free memory to training."""
    if device.type == "cuda":
        return nbytes < torch.cuda.mem_get_info(device)[0] // 2
    if device.type == "mps":
        return nbytes < torch.mps.recommended_max_memory() // 4
    return True  # on the CPU the images are in memory already


def made_once(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep what `make` gives for the same arguments, its device among them: fixed tensors, which nobody may write to.

    A tensor that is made on the CPU and sent to a GPU at each step would make the CPU wait for the GPU each time.
    """

    kept: dict[tuple, Tensor] = {}

    @functools.wraps(make)
    def made(*key: Any) -> Tensor:
        if torch.compiler.is_compiling():  # what makes it becomes part of the compiled step
            return make(*key)
        if key not in kept:
            with torch.inference_mode(False), torch.no_grad():  # whoever asks first: others need it for a gradient
                tensor = make(*key)
            if type(tensor) is not Tensor:  # it is being traced, and holds no numbers
                return tensor
            kept[key] = tensor
        return kept[key]

    return made


@made_once
def constant(values: tuple, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Fixed numbers, in nested tuples, as a tensor that lives on `device`."""
    return torch.tensor(values, device=device, dtype=dtype)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and their order, the same on every machine and in every process."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh source of random numbers on `device`, set to `seed`."""
    return torch.Generator(device=device).manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, the global generator of the CPU starts at `seed`; afterwards it is where it was.

    For PyTorch's own layers, which draw their first weights from it and take no other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would set those of the GPUs as well
        yield


@contextlib.contextmanager
def on(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Within it, the modules are on `device` in the memory layout that it likes; afterwards, each of their parts is where
    it was and in the mode that it was in. Parameters stay the same objects, so that an optimizer may hold them.
    """
    parts = [(part, place_of(part), part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.to(device, memory_format=memory_format(device))
        yield
    finally:
        for part, place, mode in parts:  # the whole before its parts, so that these have the last word
            if place is not None:
                part.to(place)
            part.training = mode


def place_of(module: nn.Module) -> torch.device | None:
    """The device of a module's own first tensor, leaving its submodules out; None where it has none."""
    own = itertools.chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return next((tensor.device for tensor in own), None)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it, `module` is in evaluation mode; afterwards, each of its parts is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device, without making a GPU wait: from pinned memory, while the GPU does what it was given before."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def compiled(module: nn.Module, device: torch.device) -> Callable:
    """`module` through torch.compile. CourseError where this machine can't compile: at once without a C++ compiler for
    the CPU, at the first call for whatever else is missing."""
    compiler = os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise CourseError(
            f"compiling needs a C++ compiler, and there is no {compiler} here; install one (on Debian and Ubuntu, apt install "
            "g++), or train without --compile: the result is the same."
        )

    def forward(*inputs: Tensor) -> Any:
        try:
            return fast(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise _cannot_compile(error) from error

    try:
        fast = torch.compile(module)
    except RuntimeError as error:  # a Python or a system that it doesn't know
        raise _cannot_compile(error) from error
    return forward


def _cannot_compile(error: Exception) -> CourseError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return CourseError(f"torch.compile doesn't work here ({reason}); train without --compile: the result is the same.")


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Within it, convolutions and attention on CUDA use algorithms that give the same bits every time.

    Of the kinds of attention, two add up gradients in any order. Flash attention has one order for as few tokens as
    the course's transformers have (65: a single block), and the plain products, in float32, have one for any number.
    """
    if device.type != "cuda":
        yield
        return
    convolution = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)
    with convolution, sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what it was given (for clocks; on the CPU there is nothing to wait for)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def report(device: torch.device | str = "auto") -> str:
    """One line: what was found and how it will be used."""
    device = pick_device(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        precision = "bfloat16 autocast" if supports_bf16(device) else "float32"
        found = f"{torch.cuda.get_device_name(device)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {precision}"
    elif device.type == "mps":
        found = f"Apple GPU, up to {torch.mps.recommended_max_memory() / 2**30:.0f} GiB, float32"
    else:
        found = f"{torch.get_num_threads()} of {os.cpu_count()} cores, float32"
    layout = "channels_last" if memory_format(device) == torch.channels_last else "contiguous"
    return f"{device.type}: {found}, {layout}, torch {torch.__version__}"
