"""Iolaus: a Hydra-composed launcher for image-classification experiments in PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from iolaus.api import Result as Result
    from iolaus.api import runs as runs
    from iolaus.api import train as train
    from iolaus.errors import ConfigError as ConfigError
    from iolaus.errors import RunFailed as RunFailed
    from iolaus.use.load import load as load

# What `import iolaus` offers, and where it is: imported when it is first asked for, since Hydra and torch take seconds.
PUBLIC = {
    "ConfigError": "iolaus.errors",
    "Result": "iolaus.api",
    "RunFailed": "iolaus.errors",
    "load": "iolaus.use.load",
    "runs": "iolaus.api",
    "train": "iolaus.api",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'iolaus' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
