"""torch.compile, tried before the run."""

import copy
import logging
from typing import Any

from torch import Tensor, nn

from iolaus.errors import first_line

log = logging.getLogger("iolaus")


def compile_in_place(model: nn.Module, images: Tensor, autocast: Any) -> bool:
    """Compile a model and try it on a forward and backward pass; where that fails the model stays as it was.

    `Module.compile` leaves the names in the state dict alone, and its errors come at the first call only. images: a
    batch of the run's shape; autocast: the context of a step. Returns whether the model is compiled now; a failure
    is a warning.
    """
    before = copy.deepcopy(model.state_dict())  # running statistics move in the trial
    model.train()
    try:
        model.compile()
        with autocast:
            loss = model(images).float().sum()
        loss.backward()
        compiled = True
    except Exception as error:  # of a compiler, of its absence, or of what it can't translate
        log.warning("trainer.compile: the model runs as it is, since compiling it failed: %s", first_line(error))
        model._compiled_call_impl = None
        compiled = False
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    return compiled
