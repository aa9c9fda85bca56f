"""Steps whose gradient may have overflowed, which are then skipped: by the device, so that nobody waits for it."""

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from iolaus.machine.late import LateNumber


def step_or_skip(optimizer: Optimizer, scaler: GradScaler, overflow: Tensor | None) -> LateNumber | None:
    """Take an optimizer's step, unless the gradient has overflowed. Returns 1 if it was skipped; None: it can't be.

    overflow: whether to skip the step, a bool on the device, or None; under a loss scale the scaler knows it by itself.
    Optimizers in torch's fused form and our Muon skip a step on the device (`found_inf`, as GradScaler gives it); any
    other one waits for the number. A skipped step leaves weights and state as they were.
    """
    fresh = not optimizer.state
    if scaler.is_enabled():
        one = torch.ones((), device=next(iter(optimizer.param_groups[0]["params"])).device)
        scale = scaler.scale(one)
        scaler.step(optimizer)
        scaler.update()
        skipped = LateNumber(scaler.scale(one) < scale)  # the scale falls after an overflow, and then alone
    elif overflow is None:
        optimizer.step()
        return None
    else:
        step_unless(optimizer, overflow)
        skipped = LateNumber(overflow)
    # A first step that torch's fused SGD skips leaves it momentum that nothing was ever written to.
    if fresh and optimizer.state and skipped.read():
        optimizer.state.clear()
    return skipped


def step_unless(optimizer: Optimizer, overflow: Tensor) -> None:
    """Take a step unless `overflow` is true, on the device where the optimizer can."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, overflow.float()  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
    elif not overflow:
        optimizer.step()
