"""The few lines that torchrun needs: which process is this, and what all of them have, with the right gradient.

Every process holds the whole model and a part of each batch. A loss over the whole batch is computed by every process
from gathered embeddings; DistributedDataParallel then averages the gradients. For that average to be the gradient of
one process on the joint batch, what is sent out in the forward pass must come back, summed, in the backward pass.
Without torchrun everything here does nothing.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslcourse.errors import CourseError

# Without it, processes that torchrun starts again find the addresses of the dead ones (pytorch issue 135712).
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what it tells a process, beside WORLD_SIZE


def size() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0; rank 0 writes the files and shows the bar."""
    return dist.get_rank() if size() > 1 else 0


def restarted() -> bool:
    """Whether torchrun has started this job again after a process died."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def start(device: torch.device) -> torch.device:
    """Join the processes that torchrun started (gloo on CPU, NCCL on GPUs), and return this one's device.

    Does nothing where torchrun didn't start this process, or where they are joined already.
    """
    processes = _number("WORLD_SIZE", 1)
    if processes < 2 or not dist.is_available():
        return device
    if restarted() and os.environ.get(OWN_STORE) != "1":  # the processes would wait for each other for ever
        raise CourseError(
            f"a process died, and the new ones can't meet at torchrun's shared store; start torchrun with {OWN_STORE}=1 "
            "in its environment, and the job goes on from its last checkpoint."
        )
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        raise CourseError(
            f"WORLD_SIZE is {processes}, but {', '.join(missing)} can't be found in the environment, so that torchrun "
            f"didn't start this process; start it with torchrun --nproc-per-node={processes}, or unset WORLD_SIZE."
        )
    if device.type == "cuda":
        device = torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise CourseError(
                f"the {processes} processes can't meet ({str(error).strip().splitlines()[0]}); start them with torchrun."
            ) from error
    return device


def _number(name: str, default: int) -> int:
    """A whole number from the environment."""
    value = os.environ.get(name, default)
    try:
        return int(value)
    except ValueError:
        raise CourseError(f"{name} in the environment should be a whole number, and is {value!r}; unset it.") from None


def shard(indices: Tensor) -> Tensor:
    """This process's part of a batch: every size()-th of (N,) indices. All parts are equally long, or CourseError."""
    if len(indices) % size():
        raise CourseError(
            f"a batch of {len(indices)} images can't be divided among {size()} processes; "
            f"choose a batch size that is a multiple of {size()}."
        )
    return indices[rank() :: size()]


# --- collectives with a gradient ---------------------------------------------------------------------------------


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)  # (size * N, ...)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)  # every process's loss depends on our rows
        return gradient.chunk(size())[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, in order of rank: (N, ...) -> (size * N, ...). The gradient comes back to each."""
    return _Gather.apply(x) if size() > 1 else x


def total(x: Tensor) -> Tensor:
    """The sum of x over all processes, with gradient."""
    return _Sum.apply(x) if size() > 1 else x


def mean(x: Tensor) -> Tensor:
    """The mean of x over all processes, with gradient."""
    return total(x) / size() if size() > 1 else x


# --- batch norm over the whole batch -----------------------------------------------------------------------------


class _Normalize(torch.autograd.Function):
    """Batch norm whose mean and variance are those of all processes' images, in two exchanges of 2C numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        # Equally many values everywhere, so that the joint variance is the mean of the variances and the variance of
        # the means. Sums of squares would cancel where a mean is large.
        parts = gather(torch.stack(torch.batch_norm_update_stats(x, None, None, 0.0)).unsqueeze(0))  # (size, 2, C)
        mean = parts[:, 0].mean(dim=0)  # (C,)
        variance = parts[:, 1].mean(dim=0) + parts[:, 0].var(dim=0, correction=0)  # (C,)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return nn.functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        # As if mean and variance were constants: dx = scale * gradient / deviation, and the sums over this process's
        # values of gradient * normalized x and of gradient, which are the gradients of weight and bias, too.
        dx, along, across = torch.ops.aten.native_batch_norm_backward(
            gradient, x, scale, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = gather(torch.stack([across, along]).unsqueeze(0))  # (size, 2, C): all losses depend on our values
        across_all, along_all = sums.sum(dim=0) / (size() * x.numel() / x.shape[1])
        # What they depend on: dx -= scale / deviation * (mean of gradient + normalized x * mean of their product).
        rate = (variance + ctx.eps).rsqrt()
        slope = -scale * rate.square() * along_all
        offset = -scale * rate * across_all - slope * mean
        shape = [1, -1] + [1] * (x.dim() - 2)
        dx.addcmul_(x, slope.to(dx.dtype).view(shape)).add_(offset.to(dx.dtype).view(shape))
        return dx, *((None, None) if weight is None else (along, across)), None


class SynchronizedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the statistics of all processes' images: PyTorch's own SyncBatchNorm works on GPUs alone."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # (N, C) and (N, C, H, W) alike

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        normalized, mean, variance = _Normalize.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            count = size() * x.numel() / x.shape[1]  # values of each channel; every process has as many images
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return normalized


def synchronize_batch_norm(module: nn.Module) -> None:
    """Make every batch norm of `module` see the whole batch, in place: parameters, buffers and their names stay."""
    if size() == 1:
        return
    for layer in module.modules():
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
            layer.__class__ = SynchronizedBatchNorm  # the same numbers, another forward


def wrap(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` with its gradients averaged over processes after each backward pass; itself, where there is one process.

    Buffers aren't broadcast: queues, centres and batch-norm statistics are computed from gathered values, equal
    everywhere.
    """
    if size() == 1:
        return module
    ids = [device.index] if device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    new, old = "forward_sync_buffers", "broadcast_buffers"
    return DistributedDataParallel(
        module, device_ids=ids, find_unused_parameters=True, **{new if new in known else old: False}
    )


def wait() -> None:
    """Until every process is here."""
    if size() > 1:
        dist.barrier()
