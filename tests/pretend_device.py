"""A pretend device: its tensors lie in the CPU's memory, and refuse to mix with the CPU's tensors as CUDA's do.

So a machine without a GPU finds what would fail on one. Importing this file gives PyTorch a device called "pretend" (its
PrivateUse1 backend); within `present()` everything that Python offers works on it. `chosen()` makes it the device that
the package picks by itself. What is computed is what the CPU computes.

A tensor of the device wraps a tensor of the CPU (`inner`). Each operation of PyTorch arrives in `run`, which looks at
where its tensors are, runs it on the inner ones, and wraps the results. What lies above or beside the operations is
replaced within `present`: `torch.tensor`, random generators, pinned memory, and how a module moves its parameters.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
CPU = torch.device("cpu")


def is_ours(device: Any) -> bool:
    """True for the pretend device, by name or as a torch.device; False for None."""
    return device is not None and not isinstance(device, int) and torch.device(device).type == NAME


# --- the device as PyTorch sees it -------------------------------------------------------------------------------


class _Backend:
    """What `torch.cuda` is for CUDA: `torch.pretend`."""

    is_initialized = is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    get_rng_state = staticmethod(lambda device=NAME: _random.clone())
    set_rng_state = staticmethod(lambda state, device=NAME: _random.copy_(state))

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        _random.copy_(torch._C.Generator().manual_seed(seed).get_state())


_setup_privateuseone_for_python_backend(NAME, _Backend())
DEVICE = torch.device(NAME, 0)


class PretendTensor(torch.Tensor):
    """A tensor on the pretend device; `inner` is the CPU's tensor that holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendTensor:
        outer = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip
        outer.inner = inner
        return outer

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"{repr(self.inner)[:-1]}, device='{DEVICE}')"

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError(
                f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return self.detach().cpu().numpy()

    def tolist(self) -> list:
        return self.detach().cpu().tolist()

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def __deepcopy__(self, memo: dict) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
        if id(self) not in memo:
            with torch.no_grad():
                copied = self.clone()
            if isinstance(self, nn.Parameter):
                copied = nn.Parameter(copied)
            copied.requires_grad_(self.requires_grad)
            copied.grad = None if self.grad is None else self.grad.__deepcopy__(memo)
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int):
        parts = (self.detach().cpu(), self.dtype, str(self.device), self.requires_grad)
        if isinstance(self, nn.Parameter):
            plain = torch._utils._rebuild_device_tensor_from_cpu_tensor(*parts[:3], False)
            return torch._utils._rebuild_parameter, (plain, self.requires_grad, {})
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, parts


# --- one operation -----------------------------------------------------------------------------------------------

# Operations that take tensors of both devices: copies, and indexing by numbers of the CPU.
COPIES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# Operations that take a single number of the CPU, beside those that work element by element.
TAKE_NUMBERS = {"aten::fill_", "aten::fill", "aten::masked_fill", "aten::masked_fill_", "aten::_foreach_mul_"}


def run(func, args: tuple, kwargs: dict) -> Any:
    """An operation of PyTorch on the inner tensors; its results are on the pretend device unless it asks for another."""
    tensors = []
    replaced(tensors.append, (args, *kwargs.values()))
    ours = any(isinstance(x, PretendTensor) for x in tensors)
    refuse_to_mix(func, args, tensors)
    here = is_ours(kwargs["device"]) if kwargs.get("device") is not None else ours or not tensors
    if here:
        refuse_generator_of_cpu(kwargs.get("generator"))
    inner_args = replaced(_inner, args)
    inner_kwargs = {
        name: CPU if isinstance(x, torch.device) and x.type == NAME else replaced(_inner, x)
        for name, x in kwargs.items()
    }
    with _own_random_numbers() if here and torch.Tag.nondeterministic_seeded in func.tags else contextlib.nullcontext():
        out = func(*inner_args, **inner_kwargs)
    if func._schema.is_mutable:
        known = {id(x.inner): x for x in tensors if isinstance(x, PretendTensor)}
        for outer in known.values():
            _follow_shape(outer)
        # an `out=` of another size: PyTorch goes on with what is returned
        return replaced(lambda x: _known(x, known, tensors), out)
    return replaced(PretendTensor, out) if here else out


def replaced(by: Callable[[Tensor], Any], found: Any) -> Any:
    """An operation's arguments or results, in tuples and lists, with by(x) for each tensor x."""
    if isinstance(found, Tensor):
        return by(found)
    return type(found)([replaced(by, x) for x in found]) if type(found) in (tuple, list) else found


def refuse_to_mix(func, args: tuple, tensors: list[Tensor]) -> None:
    """RuntimeError, as CUDA gives it, where an operation gets tensors of both devices and doesn't take them."""
    theirs = [x for x in tensors if not isinstance(x, PretendTensor)]
    name = func._schema.name
    if not theirs or len(theirs) == len(tensors) or name in COPIES:
        return
    if name in INDEXING:
        values = list(args[2:3])  # of index_put
        strangers = [x for x in (args[0], *values) if not isinstance(x, PretendTensor)]
        if not isinstance(args[0], PretendTensor) and any(isinstance(x, PretendTensor) for x in args[1]):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        theirs = [x for x in strangers if x is args[0] or x.dim()]
    elif torch.Tag.pointwise in func.tags or name in TAKE_NUMBERS:
        written = args[0] if func._schema.is_mutable and args else None
        theirs = [x for x in theirs if x.dim() or x is written]
    if theirs:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
            f"({name} got a tensor of shape {tuple(theirs[0].shape)} on the cpu)"
        )


def _inner(x: Tensor) -> Tensor:
    return x.inner if isinstance(x, PretendTensor) else x


def _known(result: Tensor, known: dict[int, PretendTensor], tensors: list[Tensor]) -> Tensor:
    """The tensor that an operation wrote to and returns; a new one where it returns another."""
    if id(result) in known and known[id(result)].shape == result.shape:
        return known[id(result)]
    return result if any(result is x for x in tensors) else PretendTensor(result)


def _follow_shape(outer: PretendTensor) -> None:
    """`unsqueeze_` and its like change the shape of the inner tensor: the outer one gets it as well."""
    inner = outer.inner
    if outer.numel() != inner.numel() or (outer.shape == inner.shape and outer.stride() == inner.stride()):
        return
    with torch.utils._mode_utils.no_dispatch():
        before = torch._C._meta_in_tls_dispatch_include()
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            torch.ops.aten.as_strided_(outer, inner.size(), inner.stride(), inner.storage_offset())
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


_library = torch.library.Library("_", "IMPL")  # noqa: TOR901 (it must live as long as the process)
_library.fallback(lambda func, *args, **kwargs: run(func, args, kwargs), "PrivateUse1")
_operations = torch.library.Library("aten", "IMPL")  # noqa: TOR901
for _name in ("eye", "eye.m"):  # PyTorch's own makes an empty tensor and lets it grow, which an outer one can't
    _eye = getattr(torch.ops.aten.eye, _name.partition(".")[2] or "default")
    _operations.impl(_name, lambda *sizes, _eye=_eye, **kwargs: run(_eye, sizes, kwargs), "PrivateUse1")


# --- autocast ----------------------------------------------------------------------------------------------------

# Operations that CUDA's autocast runs in sixteen bits, and in thirty-two (those that this course meets).
SIXTEEN = (
    "conv1d conv2d conv2d.padding conv_transpose2d.input linear matmul mm mv bmm addmm baddbmm "
    "scaled_dot_product_attention"
)
THIRTY_TWO = (
    "softmax.int log_softmax.int cross_entropy_loss nll_loss mse_loss layer_norm cosine_similarity cdist exp log pow.Tensor_Scalar "
    "norm.ScalarOpt_dim linalg_vector_norm sum sum.dim_IntList prod cumsum binary_cross_entropy_with_logits"
)


def _cast(name: str, dtype: torch.dtype | None) -> None:
    """Give operation `name` its kernel under autocast: float tensors of this device in `dtype` (None: autocast's own)."""
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args, **kwargs):
        def cast(x: Tensor) -> Tensor:
            floats = isinstance(x, PretendTensor) and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
            return x.to(dtype or torch.get_autocast_dtype(NAME)) if floats else x

        with torch._C._ExcludeDispatchKeyGuard(key):
            return operation(*replaced(cast, args), **{name: replaced(cast, x) for name, x in kwargs.items()})

    _operations.impl(name, kernel, "AutocastPrivateUse1")


_library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for _names, _dtype in ((SIXTEEN, None), (THIRTY_TWO, torch.float32)):
    for _name in _names.split():
        _cast(_name, _dtype)


# --- random numbers ----------------------------------------------------------------------------------------------

_random = torch._C.Generator().get_state()  # of the device: drawing on it doesn't move the CPU's


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Within it, the process's generator is the pretend device's."""
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(_random)
    try:
        yield
    finally:
        _random.copy_(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


# Operations get generators as new Python objects, which know only the address of what they stand for.
_generators: weakref.WeakValueDictionary[int, torch.Generator] = weakref.WeakValueDictionary()


class Generator(torch._C.Generator):
    """`torch.Generator`, which can also be the pretend device's; its numbers are those of the CPU's with that seed."""

    def __new__(cls, device: Any = CPU) -> torch.Generator:
        if not is_ours(device):
            return torch._C.Generator(device)
        made = super().__new__(cls)
        _generators[made._cdata] = made
        return made

    def __init__(self, device: Any = CPU):
        pass

    @property
    def device(self) -> torch.device:
        return DEVICE


def refuse_generator_of_cpu(generator: torch.Generator | None) -> None:
    if generator is not None and generator._cdata not in _generators:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{generator.device}'")


# --- what doesn't arrive as an operation -------------------------------------------------------------------------


class _Functions(TorchFunctionMode):
    """Functions that make tensors out of Python's numbers, pin memory, or get a generator of the other device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor):
            return self.from_numbers(func, args, kwargs)
        if func is torch.Tensor.pin_memory:
            if isinstance(args[0], PretendTensor):
                raise RuntimeError(f"cannot pin '{NAME}' tensors: only dense CPU tensors can be pinned")
            pinned = args[0].clone()
            pinned.is_pretended_pinned = True
            return pinned
        if func is torch.Tensor.is_pinned:
            return getattr(args[0], "is_pretended_pinned", False)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], self.index(args[1]), *args[2:])
        generator = kwargs.get("generator")
        if generator is not None and is_ours(generator.device):
            on_ours = is_ours(device) or any(isinstance(x, PretendTensor) for x in args)
            if not on_ours:
                raise RuntimeError(f"Expected a 'cpu' device type for generator but found '{generator.device}'")
        return func(*args, **kwargs)

    @staticmethod
    def index(chosen: Any) -> Any:
        """An index with tensors of the CPU for its lists, which PyTorch would make on the device beneath all of this."""
        if isinstance(chosen, list):
            return torch.tensor(chosen)
        return tuple(_Functions.index(one) for one in chosen) if type(chosen) is tuple else chosen

    @staticmethod
    def from_numbers(func, args: tuple, kwargs: dict) -> Tensor:
        device = kwargs.get("device")
        if func is torch.Tensor.new_tensor:
            like, data, *rest = args
            kwargs.setdefault("dtype", like.dtype)
            func, args, device = torch.tensor, (data, *rest), device or like.device
        given = args[0] if args else kwargs["data"]
        if isinstance(given, Tensor):
            made = given.to(device or given.device, kwargs.get("dtype"), copy=func is torch.tensor)
            return made.detach() if func is torch.tensor else made
        if not is_ours(device):
            return func(*args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        made = func(*args, **(kwargs | {"device": CPU})).to(DEVICE)
        return made.requires_grad_() if requires_grad else made


def _move_parameters(module: nn.Module, fn, recurse: bool = True) -> nn.Module:
    """`nn.Module._apply`: a parameter stays the same Python object on either device, and so does its gradient.

    PyTorch does it by `parameter.data = moved`, which can't make a tensor of one device out of one of another kind.
    """
    if recurse:
        for child in module.children():
            child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        with torch.no_grad():
            moved = fn(parameter)
            gradient = None if parameter.grad is None else fn(parameter.grad)
        parameter.grad = None
        if moved is parameter:
            pass
        elif isinstance(moved, PretendTensor) or isinstance(parameter, PretendTensor):
            _exchange(parameter, nn.Parameter(moved, requires_grad=parameter.requires_grad))
        elif torch._has_compatible_shallow_copy_type(parameter, moved):
            parameter.data = moved
        else:  # from or to PyTorch's "meta" device
            parameter = module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        parameter.grad = gradient
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else fn(buffer)
    return module


def _exchange(first: Tensor, second: Tensor) -> None:
    """`torch.utils.swap_tensors` without its condition that no graph holds them."""
    first.__class__, second.__class__ = second.__class__, first.__class__
    first.__dict__, second.__dict__ = second.__dict__, first.__dict__
    torch._C._swap_tensor_impl(first, second)


@contextlib.contextmanager
def present() -> Iterator[torch.device]:
    """Within it the pretend device can be used as CUDA can."""
    generator, apply = torch.Generator, nn.Module._apply
    torch.Generator, nn.Module._apply = Generator, _move_parameters
    try:
        with _Functions():
            yield torch.device(NAME)
    finally:
        torch.Generator, nn.Module._apply = generator, apply


@contextlib.contextmanager
def chosen() -> Iterator[torch.device]:
    """Within it the pretend device is what the package picks where it is asked to choose ("auto")."""
    from sslcourse import device as devices

    pick = devices.pick_device
    with present() as device:
        devices.pick_device = lambda name="auto": device if str(name) == "auto" or is_ours(name) else pick(name)
        try:
            yield device
        finally:
            devices.pick_device = pick
