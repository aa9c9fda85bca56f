"""torch.compile, tried before the run; and a lighter start for runs without it."""

import copy
import importlib
import logging
import sys
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TypeVar

from torch import Tensor, nn

from iolaus.errors import first_line

log = logging.getLogger(__name__)
NAME = "torch._dynamo"
Function = TypeVar("Function")


class _Deferred(ModuleType):
    """Stands in for torch._dynamo until something asks for a part that only the real module has."""

    def graph_break(self) -> None:
        """Each optimizer step calls it; outside of a traced graph it does nothing."""

    def disable(self, fn: Function, *arguments: object, **options: object) -> Function:
        """torch.optim wraps its functions with it, to keep them out of traced graphs."""
        return fn

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__path__":  # Python itself asks any module for these
            raise AttributeError(name)
        return getattr(load_compiler(), name)


def defer_compiler() -> None:
    """Let torch.optim run without importing torch._dynamo, sympy and the like, which takes 1.6 s of a 4 s start.

    Its optimizers import the module in their constructors and in every step, for two functions that do nothing unless
    torch.compile traces them.
    """
    import torch

    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = _Deferred(NAME)


def load_compiler() -> ModuleType:
    """The real torch._dynamo, imported now if it was deferred."""
    import torch

    if isinstance(sys.modules.get(NAME), _Deferred):
        del sys.modules[NAME]
    torch._dynamo = importlib.import_module(NAME)
    return torch._dynamo


def compile_in_place(
    model: nn.Module, images: Tensor, autocast: AbstractContextManager[object], mode: str | None = None
) -> bool:
    """Compile a model and try one forward and backward pass; if that fails, warn and leave the model as it was.

    `Module.compile` keeps the names in the state dict, and its errors come at the first call only. images: a batch of
    the run's shape; autocast: the context of a step; mode: torch.compile's, None for its default.
    Returns whether the model is compiled now.
    """
    log.info("compiling the model, up to a minute")
    before = copy.deepcopy(model.state_dict())  # the trial moves running statistics
    model.train()
    try:
        model.compile(mode=mode)
        with autocast:
            loss = model(images).float().sum()
        loss.backward()
        compiled = True
    except Exception as error:  # a compiler's, of any type: it is missing, or can't translate the model
        log.warning("trainer.compile: the model runs as it is, since compiling it failed: %s", first_line(error))
        model._compiled_call_impl = None
        compiled = False
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    return compiled
