"""What a configuration may build: decided by what an object is, not by the package that it is found in.

A configuration can come from a stranger: a recipe, a downloaded run folder, a shared study. It may name models, losses,
optimizers, schedules, datasets and transforms, which compute, but nothing that unpickles, runs or writes files. What
the user allows beyond that is in targets.py.
"""

import enum
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from iolaus.data.trusted import UNCHECKED_DATASETS


@dataclass(frozen=True)
class Policy:
    """Which targets may run. packages: prefixes of dotted paths that may be imported to look at what they name.

    permits: (dotted path, object) -> whether that may run. kinds: what may run, in words.
    """

    packages: tuple[str, ...]
    permits: Callable[[str, Any], bool]
    kinds: str


# The public parts of Iolaus that a run is made of: those that conf/ names, and their neighbours in the same files.
OWN_PARTS = frozenset(
    {
        "iolaus.augment.pipeline.Augmentation",
        "iolaus.data.csv_file.csv_file",
        "iolaus.data.huggingface.from_huggingface",
        "iolaus.data.sources.digits",
        "iolaus.data.sources.from_torchvision",
        "iolaus.data.sources.image_folder",
        "iolaus.data.sources.synthetic",
        "iolaus.methods.muon.Muon",
        "iolaus.methods.stopping.Patience",
        "iolaus.models.airbench.AirbenchNet",
        "iolaus.models.cnn.CNN",
        "iolaus.models.mlp.MLP",
        "iolaus.models.timm.build",
        "iolaus.settings.OptimizerGroups",
        "iolaus.settings.Trainer",
    }
)
# Trackers write where they are told to: only as `tracker.NAME`, where the launcher itself gives the folder.
TRACKERS = frozenset(
    {
        "iolaus.show.trackers.TensorBoard",
        "iolaus.show.trackers.WandB",
        "iolaus.show.trackio_tracker.Trackio",
    }
)
TRACKER_KEY = re.compile(r"tracker\.[^.\[\]]+")

# Arguments that would have a builder read weights from a file or an address of the config's choice, or write a cache.
READING_ARGUMENTS = frozenset(
    {"cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_filter_fn"}
)
FUNCTIONS = "torch.nn.functional."
TRANSFORMS = ("torchvision.transforms.functional.", "torchvision.transforms.v2.functional.")
PLAIN_TRANSFORMS = ("torchvision.transforms.transforms", "torchvision.transforms.autoaugment")
OPTIMIZER_HOMES = ("torch.optim.", "timm.optim.")
MODULE_HOMES = ("torch.nn.", "torchvision.", "timm.layers.", "timm.loss.", "timm.models.")


def is_permitted(path: str, found: object) -> bool:
    """Whether an object of the known packages is of a kind that a run may be made of."""
    if path.startswith("iolaus."):
        return path in OWN_PARTS
    if isinstance(found, type):
        return is_permitted_class(found)
    if path.startswith("torch.nn."):
        return is_pure_function(path, found)
    if path.startswith("torchvision."):
        return is_image_function(found) or found in registered_builders("torchvision.models._api", "BUILTIN_MODELS")
    return found in registered_builders("timm.models._registry", "_model_entrypoints")


def is_permitted_class(found: type) -> bool:
    """Modules, optimizers, schedules, datasets whose files are checked, transforms; by the module that made them."""
    from torch import nn, optim
    from torch.utils.data import Dataset

    home = f"{found.__module__}."
    if found.__name__.startswith("_"):
        return False
    if issubclass(found, nn.Module):
        return home.startswith(MODULE_HOMES)
    if issubclass(found, optim.Optimizer | optim.lr_scheduler.LRScheduler):
        return home.startswith(OPTIMIZER_HOMES)
    if issubclass(found, Dataset):
        return home.startswith("torchvision.datasets.") and found.__name__ not in UNCHECKED_DATASETS
    if issubclass(found, enum.Enum):  # an argument of a transform: InterpolationMode
        return home.startswith("torchvision.transforms.")
    return found.__module__ in PLAIN_TRANSFORMS


def is_pure_function(path: str, found: object) -> bool:
    """Whether `found` is one of torch.nn.functional's own functions, in Python or in C++."""
    import torch

    name = path.removeprefix(FUNCTIONS)
    if not path.startswith(FUNCTIONS) or not name.isidentifier() or name.startswith("_"):
        return False
    if isinstance(found, types.FunctionType):
        return found.__module__ == FUNCTIONS.rstrip(".")
    compiled = (getattr(torch._C._nn, name, None), getattr(torch, name, None))
    return isinstance(found, types.BuiltinFunctionType) and any(found is one for one in compiled)


def is_image_function(found: object) -> bool:
    """Whether `found` is a function of torchvision's that takes an image and gives one."""
    if not isinstance(found, types.FunctionType) or found.__name__.startswith(("_", "register")):
        return False
    return f"{found.__module__}.".startswith(TRANSFORMS)


def registered_builders(module: str, name: str) -> list[Any]:
    """The builders of models that a library has registered by their names; none where it is not imported."""
    found: Mapping[str, Any] = getattr(sys.modules.get(module), name, {})
    return list(found.values())


RUN_PARTS = Policy(
    packages=("iolaus.", "torch.nn.", "torch.optim.", "torchvision.", "timm."),
    permits=is_permitted,
    kinds="models, losses, optimizers, schedulers, datasets and transforms",
)
