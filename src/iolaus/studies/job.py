"""One job as Hydra launches it: its folder, its place in a sweep, and the overrides that made its configuration."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from iolaus.config.replaced import reset_replaced
from iolaus.errors import ConfigError
from iolaus.files.atomic import write_text
from iolaus.files.run_folder import RunFolder
from iolaus.trust.hydra_node import values_as_written
from iolaus.trust.secrets import mask, mask_config

if TYPE_CHECKING:
    from hydra.conf import HydraConf

log = logging.getLogger(__name__)
EPOCHS = "trainer.epochs"  # the one key of what a run trains that a resumed run may get another value of


@dataclass(frozen=True)
class Job:
    """What a run needs to know of Hydra, read once.

    number, study: the job's place in its sweep and the name of the sweep's folder; None for a single run.
    overrides: those of the task, without Hydra's own. varied: by key, those values that the sweep varies.
    hydra: the node `hydra` of the composed configuration.
    """

    folder: RunFolder
    sweeping: bool
    number: int | None
    study: str | None
    overrides: list[str]
    varied: dict[str, str]
    hydra: "HydraConf"

    @classmethod
    def from_hydra(cls) -> "Job":
        """The job that Hydra runs at this moment in this process."""
        hydra = HydraConfig.get()
        sweeping = hydra.mode == RunMode.MULTIRUN
        folder = RunFolder(Path(hydra.runtime.output_dir))
        number = hydra.job.num if sweeping else None
        study = Path(hydra.sweep.dir).name if sweeping else None
        overrides = read_as_text(cast("DictConfig", hydra.overrides), "task")
        fixed = hydra.job.config.override_dirname.exclude_keys  # as studies/folders.py has found them
        values = {key.lstrip("+~"): value for key, _, value in (line.partition("=") for line in overrides)}
        varied = {key: value for key, value in values.items() if sweeping and key not in fixed}
        return cls(folder, sweeping, number, study, overrides, varied, hydra)

    def save_config(self, cfg: DictConfig) -> None:
        """Write `.hydra/` as Hydra would have, now that the run is known to be possible.

        A resumed run has its own, in which only the number of epochs may become another.
        """
        if self.folder.is_run():
            self._save_length(cfg.trainer.epochs)
            return
        self.folder.hydra.mkdir(exist_ok=True)
        # config.yaml last: it makes the folder one of a run
        hydra = mask_config(cast("DictConfig", HydraConfig.instance().cfg))  # its key `hydra` alone
        nodes: dict[str, Any] = {
            "hydra": hydra,
            "overrides": OmegaConf.create([str(mask(o)) for o in self.overrides]),
            "config": cfg,
        }
        for name, node in nodes.items():
            write_text(self.folder.hydra / f"{name}.yaml", OmegaConf.to_yaml(node))

    def _save_length(self, epochs: int) -> None:
        """Let the saved configuration of a run say how long it is to be now."""
        saved = self.folder.saved_config()
        if saved.trainer.epochs == epochs:
            return
        others = [line for line in self.folder.saved_overrides() if not line.startswith(f"{EPOCHS}=")]
        OmegaConf.update(saved, EPOCHS, epochs)
        files: dict[str, Any] = {"overrides": [*others, f"{EPOCHS}={epochs}"], "config": saved}
        for name, node in files.items():
            write_text(self.folder.hydra / f"{name}.yaml", OmegaConf.to_yaml(OmegaConf.create(node)))


def take_job_config(composed: DictConfig) -> list[str]:
    """Make a composed configuration that of its job: without Hydra's own node, and without what was replaced.

    Returns the job's overrides.
    """
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    overrides: list[str] = [str(override) for override in hydra.overrides.task]
    reset_replaced(composed, overrides, hydra.runtime.choices)
    return overrides


def save_command(config: DictConfig, folder: Path) -> None:
    """Write a sweep's `multirun.yaml`, as Hydra's own sweeper does, without secrets."""
    write_text(folder / "multirun.yaml", OmegaConf.to_yaml(mask_config(config)))


def tell_of_study(job: Job) -> None:
    """Say in the log of a single run that its recipe is a study, which it is with -m."""
    if keys := [str(key) for key in job.hydra.sweeper.get("params") or ()]:
        log.warning("the recipe is a study of %s: add -m; without it this is a single run", ", ".join(keys))


def check_not_resumed(config: DictConfig) -> None:
    """Raise ConfigError where a sweep's configuration resumes a run, which no job of a sweep does."""
    if config.get("resume"):
        raise ConfigError(f"resume={config.resume}: continues a single run; drop -m")


def read_as_text(node: DictConfig, key: str) -> Any:
    """A value of a node with its `${…}` as they were typed: a job resolves them, not the sweep."""
    return values_as_written(node)[key]


def to_overrides(values: Mapping[str, object]) -> list[str]:
    """Keys and their values as Hydra's overrides: `key=value`."""
    return [f"{key}={value}" for key, value in values.items()]
