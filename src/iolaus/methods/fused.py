"""The fused form of an optimizer, if it has one."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def fused_by_default(
    optimizer_class: Callable[..., Any], arguments: dict[str, Any], parameters: Iterable[Tensor] = ()
) -> dict[str, bool]:
    """`fused=True` for an optimizer that has it, unless the config chooses a form (fused, foreach, …).

    On a CPU the fused SGD and AdamW are two to four times as fast as the default. They read memory from one end to the
    other, whatever the strides, so a parameter with gaps between its numbers (a slice) is not for them.
    """
    chosen = any(arguments.get(name) for name in ("foreach", "capturable", "differentiable"))
    known = "fused" in inspect.signature(optimizer_class).parameters
    dense = all(map(is_dense, parameters))
    return {"fused": True} if known and arguments.get("fused") is None and not chosen and dense else {}


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor's numbers lie side by side, in any order of its dimensions."""
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def lay_out_moments(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments of an optimizer the strides of their parameters, for its fused form.

    A checkpoint has the strides of the run that wrote it, and its continuation may prefer another memory order.
    """
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
