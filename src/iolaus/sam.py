"""Sharpness-aware minimisation: a way to take the gradient, for any optimizer, and without a state of its own."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def perturbed(model: nn.Module, rho: float, adaptive: bool = False) -> Iterator[Tensor]:
    """Within, the weights stand at the top of the climb, w + ρ·g/‖g‖, for the gradient that the step shall take.

    Foret et al. 2021 (arXiv 2010.01412), equation 2; adaptive: w + ρ·w²g/‖wg‖, Kwon et al. 2021 (arXiv 2102.11600),
    equation 5. g is what the parameters' .grad hold on entry, and is used up; a loss scale cancels out. Yields the
    norm, a scalar on the device. On exit the weights are exactly what they were, and so are the buffers:
    BatchNorm's running statistics move with the first pass only. A norm that is not finite makes all perturbed
    weights NaN, so that the second gradient is NaN throughout and the step is skipped.
    """
    parameters: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    kept = [*parameters, *model.buffers()]
    with torch.no_grad():
        copies = [tensor.clone() for tensor in kept]
        climb: list[Any] = [p.grad for p in parameters]
        if adaptive:
            torch._foreach_mul_(climb, parameters)
            norm = torch.nn.utils.get_total_norm(climb)
            torch._foreach_mul_(climb, parameters)
        else:
            norm = torch.nn.utils.get_total_norm(climb)
        # 1e-12: a gradient of zero is no climb and no division by zero
        torch._foreach_mul_(climb, torch.where(norm.isfinite(), rho / (norm + 1e-12), torch.nan))
        torch._foreach_add_(parameters, climb)
    for p in parameters:
        p.grad = None
    try:
        yield norm
    finally:
        with torch.no_grad():
            torch._foreach_copy_(kept, copies)
