"""Sharpness-aware minimisation: a way to take the gradient, for any optimizer, without state."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def perturb_weights(model: nn.Module, rho: float, adaptive: bool = False) -> Iterator[Tensor]:
    """Move the weights to w + ρ·g/‖g‖ for the length of a `with` statement, in which the step's gradient is taken.

    Foret et al. 2021 (arXiv 2010.01412), equation 2; adaptive: w + ρ·w²g/‖wg‖, Kwon et al. 2021 (arXiv 2102.11600),
    equation 5. g is the parameters' .grad on entry, which is set to None; a loss scale cancels out. Yields the norm, a
    scalar on the device. On exit weights and buffers are exactly what they were: BatchNorm's running statistics move
    with the first pass only. An infinite or NaN norm makes all perturbed weights NaN, so that the second gradient is
    NaN throughout and the step is skipped.
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    kept: dict[torch.dtype, list[Tensor]] = defaultdict(list)  # one launch for all tensors of a dtype
    for tensor in (*parameters, *model.buffers()):
        kept[tensor.dtype].append(tensor)
    with torch.no_grad():
        copies = {dtype: [torch.empty_like(tensor) for tensor in tensors] for dtype, tensors in kept.items()}
        for dtype, tensors in kept.items():
            torch._foreach_copy_(copies[dtype], tensors)
        climb = [p.grad for p in parameters if p.grad is not None]
        if adaptive:
            torch._foreach_mul_(climb, parameters)
            norm = torch.nn.utils.get_total_norm(climb)
            torch._foreach_mul_(climb, parameters)
        else:
            norm = torch.nn.utils.get_total_norm(climb)
        # 1e-12: a gradient of zero moves nothing, instead of dividing by zero
        torch._foreach_mul_(climb, torch.where(norm.isfinite(), rho / (norm + 1e-12), torch.nan))
        torch._foreach_add_(parameters, climb)
    for p in parameters:
        p.grad = None
    try:
        yield norm
    finally:
        with torch.no_grad():
            for dtype, tensors in kept.items():
                torch._foreach_copy_(tensors, copies[dtype])
