"""Two watchers over a training step, for machines without a GPU: what would make one wait, and what it would add up in any order.

Both look at every operation that PyTorch is asked for, forwards and backwards, so that it doesn't matter who asks.
"""

import contextlib
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Their result, or its size, is asked for on the CPU before anything else can be given to the GPU.
WAITING = {
    "_local_scalar_dense", "_linalg_check_errors", "_unique", "_unique2", "argwhere", "bincount",
    "equal", "is_nonzero", "masked_select", "multinomial", "nonzero", "nonzero_numpy", "unique_consecutive", "unique_dim",
    "unique_dim_consecutive",
}  # fmt: skip
LINALG_WITHOUT_A_CHECK = {"linalg_vector_norm", "linalg_inv_ex", "linalg_cholesky_ex", "linalg_cross"}
# Functions of Python that give numbers to Python, or make a tensor out of Python's numbers on the CPU and send it.
READING = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__"}
SENDING = {"tensor", "as_tensor", "asarray", "new_tensor", "new", "sparse_coo_tensor"}
# They make a tensor where they are told to, and on the CPU where they aren't.
MAKING = {
    "arange", "empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand", "randint", "randn", "randperm",
    "zeros",
}  # fmt: skip

# By PyTorch's list (`torch.use_deterministic_algorithms`), as the operations are called within.
ANY_ORDER = {
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "_ctc_loss_backward", "_embedding_bag_backward",
    "_cdist_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward", "embedding_dense_backward",
    "fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "grid_sampler_2d_backward",
    "grid_sampler_3d_backward", "histc", "max_pool3d_with_indices_backward", "max_unpool2d", "max_unpool3d", "nll_loss_forward",
    "nll_loss2d_forward", "put", "put_", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "reflection_pad3d_backward", "replication_pad1d_backward", "replication_pad2d_backward",
    "replication_pad3d_backward", "upsample_bicubic2d_backward", "upsample_bilinear2d_backward",
    "_upsample_bicubic2d_aa_backward", "_upsample_bilinear2d_aa_backward", "upsample_linear1d_backward",
    "upsample_trilinear3d_backward",
}  # fmt: skip
# They add, or write, several values to one place in any order: allowed where no two values meet.
MEETING = {"scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "index_add", "index_add_",
           "index_copy", "index_copy_", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put",
           "index_reduce", "index_reduce_"}  # fmt: skip


class Waits(AssertionError):
    """The GPU would have to be waited for."""


class Unordered(AssertionError):
    """A GPU would add these up in another order each time."""


class _Operations(TorchDispatchMode):
    """Looks at each operation of a step before it is done."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.look(operation._schema.name.split("::")[-1], args, kwargs or {})
        return operation(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    """Looks at each function of Python that is called with tensors, or that makes one."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if name in READING or name in SENDING:
            raise Waits(f"{name} goes from the CPU to the GPU, or back")
        if name in MAKING and kwargs.get("device") is None and kwargs.get("out") is None:
            raise Waits(f"{name} without a device makes a tensor on the CPU")
        if name in ("__getitem__", "__setitem__") and _holds_numbers(args[1]):
            raise Waits(f"{name} with a list makes indices on the CPU")
        if name in ("to", "cuda", "copy_") and "cpu" in [
            v for v in (*args[1:], *kwargs.values()) if isinstance(v, str)
        ]:
            raise Waits(f"{name} goes to the CPU")
        return function(*args, **kwargs)


def _holds_numbers(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(not isinstance(p, Tensor | slice | int | type(None) | type(...)) for p in parts)


def _look_for_waits(name, args, kwargs):
    if name in WAITING:
        raise Waits(f"{name} is waited for")
    if "linalg" in name and name not in LINALG_WITHOUT_A_CHECK:
        raise Waits(f"{name} waits to see whether it went well")
    if name == "repeat_interleave":
        raise Waits("repeat_interleave by a tensor waits for the size of its result")
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise Waits(f"{name} with a mask waits for the number of places in it")


def _look_for_any_order(name, args, kwargs):
    if name in ANY_ORDER:
        raise Unordered(f"{name} adds up in any order")
    if name in ("cumsum", "cumsum_") and args[0].is_floating_point():
        raise Unordered("cumsum of floats")
    if name == "bincount" and (len(args) > 1 and args[1] is not None or kwargs.get("weights") is not None):
        raise Unordered("bincount with weights")
    if name == "median" and len(args) > 1:
        raise Unordered("median with indices")
    if name in MEETING and _some_meet(name, args):
        raise Unordered(f"{name} writes several values to one place")


def _some_meet(name, args):
    """Whether two values go to one place of args[0]."""
    target = args[0]
    if "index_put" in name:
        found = [i for i in args[1] if i is not None]
        places = torch.stack(torch.broadcast_tensors(*found)).flatten(1)  # (dimensions, values)
        return places.unique(dim=1).shape[1] < places.shape[1]
    dim, index = args[1], args[2]
    if index.dim() < target.dim():  # index_add and the like: whole slices
        return len(index.unique()) < len(index)
    ordered = index.movedim(dim, -1).sort(dim=-1).values
    return bool((ordered.diff(dim=-1) == 0).any())


@contextlib.contextmanager
def never_waits():
    """Within it, whatever would make the CPU wait for a GPU raises Waits."""

    def from_numpy(array):
        raise Waits("from_numpy makes a tensor on the CPU")

    with _Functions(), _Operations(_look_for_waits), mock.patch.object(torch, "from_numpy", from_numpy):
        yield


@contextlib.contextmanager
def same_order():
    """Within it, whatever a GPU would do in another order each time raises Unordered."""
    with _Operations(_look_for_any_order):
        yield
