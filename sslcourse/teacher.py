"""A teacher: a frozen copy of the student that follows it slowly, and never gets a gradient."""

from __future__ import annotations

import copy

import torch
from torch import nn


def copy_of(student: nn.Module) -> nn.Module:
    """An exact copy, heads included, whose parameters ask for no gradient, so that no optimizer takes them."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, for every parameter; momentum in [0, 1].

    0 copies, 1 leaves the teacher as it is; n steps after a student that stays at w, the teacher is at
    momentum^n * start + (1 - momentum^n) * w. Buffers are not touched: the statistics of the teacher's batch norm come
    from what the teacher sees (as in He et al., 2019, 1911.05722).
    """
    slow, fast = list(teacher.parameters()), list(student.parameters())
    torch._foreach_lerp_(slow, fast, 1 - momentum)  # in one call: to a GPU, each call takes as long as its arithmetic
