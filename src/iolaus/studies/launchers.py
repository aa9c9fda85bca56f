"""The launcher of a sweep: one of Hydra's plugins, or our own for Slurm, imported only where it is chosen."""

import logging
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from iolaus.errors import ConfigError, nearest
from iolaus.trust.hydra_node import SLURM

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from iolaus.studies.slurm import SlurmLauncher


def is_slurm(config: "DictConfig") -> bool:
    """Whether a composed configuration's launcher is ours for Slurm."""
    return bool(config.hydra.launcher.get("_target_") == SLURM)


def make_launcher(
    config: "DictConfig", hydra_context: "HydraContext", task_function: "TaskFunction", quiet: bool = False
) -> "tuple[Launcher, SlurmLauncher | None]":
    """The launcher that a sweep's configuration names; and itself, where the sweep hands all its work to Slurm.

    quiet: without the launcher's own lines, where the sweep tells of each run itself. Raises ConfigError for a key that
    a launcher of Hydra's does not have; ours checks its own.
    """
    if is_dataclass(schema := OmegaConf.get_type(config.hydra.launcher)):
        names = {field.name for field in fields(schema)}
        unknown = [str(key) for key in config.hydra.launcher if key not in names]
        if unknown:
            wrong = (f"hydra.launcher.{key}: no such key; {nearest(key, names - {'_target_'})}" for key in unknown)
            raise ConfigError(*wrong)
    if is_slurm(config):
        from iolaus.studies.slurm import SlurmLauncher, is_worker

        Plugins.instance().register(SlurmLauncher)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task_function, config=config
    )
    logging.getLogger(type(launcher).__module__).setLevel(logging.WARNING if quiet else logging.NOTSET)
    if is_slurm(config) and not is_worker():
        assert isinstance(launcher, SlurmLauncher)
        return launcher, launcher
    return launcher, None
