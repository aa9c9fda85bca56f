"""The fused form of an optimizer, where there is one."""

import inspect
from collections.abc import Callable
from typing import Any


def fused_by_default(optimizer_class: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, bool]:
    """`fused=True` for an optimizer that has it, unless the config chose a form itself (fused, foreach, …).

    On a CPU the fused SGD and AdamW are two to four times as fast as the default.
    """
    chosen = any(arguments.get(name) for name in ("foreach", "capturable", "differentiable"))
    known = "fused" in inspect.signature(optimizer_class).parameters
    return {"fused": True} if known and arguments.get("fused") is None and not chosen else {}
