"""A lighter start: torch's compiler is not imported by runs that don't use it."""

import importlib
import sys
import types
from typing import Any

NAME = "torch._dynamo"


class _Deferred(types.ModuleType):
    """Stands for torch._dynamo until something is asked of it that only the real one can do; then that takes over."""

    def graph_break(self) -> None:
        """What each optimizer step calls, and which is for graphs that are being traced: there are none."""

    def disable(self, fn: Any, *arguments: Any, **options: Any) -> Any:
        """What torch.optim wraps its functions in, to keep them out of such graphs."""
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what Python itself asks of any module
            raise AttributeError(name)
        return getattr(load_compiler(), name)


def defer_compiler() -> None:
    """Let torch.optim run without importing torch._dynamo, sympy and the like: 1.6 s, of a start of 4, for nothing.

    Its optimizers import it in their constructors and in every step for two functions that do nothing unless
    torch.compile traces them.
    """
    import torch

    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = _Deferred(NAME)


def load_compiler() -> Any:
    """The real torch._dynamo, imported now if it was deferred."""
    import torch

    if isinstance(sys.modules.get(NAME), _Deferred):
        del sys.modules[NAME]
    torch._dynamo = importlib.import_module(NAME)
    return torch._dynamo
