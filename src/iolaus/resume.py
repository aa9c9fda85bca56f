"""Where a run goes on: the run that `resume` names, one that a sweep has done already, the state of a last.pt."""

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from iolaus.command import train_command
from iolaus.config.quoting import paste
from iolaus.config.unchanged import check_same_run, check_unchanged
from iolaus.errors import ConfigError, first_line
from iolaus.files import checkpoint
from iolaus.files.changes import edited_files
from iolaus.files.layout import DONE, HYDRA, PRUNED
from iolaus.files.run_folder import RunFolder, similar_names
from iolaus.studies.job import EPOCHS, Job
from iolaus.trust.command_line import repeats_target

if TYPE_CHECKING:
    from iolaus.config.build import Parts
    from iolaus.learner import LoopState

log = logging.getLogger(__name__)
# where a run is computed, how far it goes, and how long it may work
MAY_CHANGE = ("trainer.devices=", f"{EPOCHS}=", "trainer.max_minutes=", "trainer.checkpoint_every=")


def load_resumed(cfg: DictConfig, job: Job) -> DictConfig:
    """The saved configuration of the run that `resume` names. Raises ConfigError when it can't be continued."""
    given = f"resume={cfg.resume}"
    folder = job.folder  # the run that the name means, where there is one (studies/folders.py)
    free = ("resume=", *MAY_CHANGE)
    others = [o for o in job.overrides if not o.startswith(free) and not repeats_target(o, folder.config_file)]
    if others:
        raise ConfigError(f"{given}: goes on with the run's own configuration; drop {shlex.join(others)}")
    if not folder.is_run():
        if cfg.resume == "last":
            raise ConfigError(f"{given}: outputs/ holds no unfinished run")
        named = Path(str(cfg.resume))
        if any(named.glob(f"*/{HYDRA}")):
            raise ConfigError(f"{given}: is a study; the command that began it goes on with it")
        raise ConfigError(f"{given}: not the folder of a run (no {HYDRA}/ in it){similar_names(named)}")
    check_not_done(given, cfg.trainer.epochs, job)
    config = folder.saved_config()
    config.merge_with_dotlist([override for override in job.overrides if override.startswith(MAY_CHANGE)])
    return config


def check_not_done(given: str, epochs: object, job: Job) -> None:
    """Raise ConfigError where the run that `given` names is done, unless the command gives it more epochs."""
    folder, longer = job.folder, any(override.startswith(f"{EPOCHS}=") for override in job.overrides)
    result = folder.results()
    if (status := result.get("status")) not in DONE or (folder.lacks_test() and not longer):
        return
    done, stopped = result.get("epochs", 0), result.get("stopped")
    if not longer or status == PRUNED:
        raise ConfigError(f"{given}: the run is {status}, see {folder.results_file}")
    if stopped:
        raise ConfigError(f"{given}: {stopped} ended the run in epoch {done}, and would end it there again")
    if isinstance(epochs, int) and epochs <= done:
        raise ConfigError(f"{EPOCHS}={epochs}: must be above {done}, the epochs that {folder} has trained")


def find_result(cfg: DictConfig, folder: RunFolder) -> float | None:
    """The objective of the run of this very configuration that is done in `folder`, a job of a sweep given again.

    Raises ConfigError when the folder holds a run of another configuration: that one is not written over.
    """
    if not folder.is_run():
        return None
    check_same_run(folder, cfg)
    result = folder.results()
    if result.get("status") not in DONE or folder.lacks_test() or "objective" not in result:
        return None
    log.info("%s is %s already", folder, result["status"])
    objective: float | None = result.get("objective", {}).get("value")
    return objective


def restore(parts: "Parts", folder: RunFolder) -> "LoopState":
    """The state that the folder's last.pt holds, with its weights put into `parts`; a new state for a new run.

    Raises ConfigError where the run can't go on as it began.
    """
    from iolaus.learner import LoopState

    if folder.results_file.exists() and not folder.results():
        log.warning("%s: is not as a run writes it; the run goes on from its last checkpoint", folder.results_file)
    if not folder.last.exists():
        # a kill between the two writes of the first epoch leaves one line
        epochs = folder.metrics.read_text().count("\n") if folder.metrics.exists() else 0
        if epochs > 1 or folder.status() in DONE:
            raise ConfigError(
                f"{folder}/{folder.last.name}: is missing, and the epochs of this run with it; start a new run"
            )
        return LoopState()
    try:
        saved = checkpoint.load(folder.last, parts.learner.device, ["learner", "state"])
        check_unchanged(saved, parts, folder)
        check_length(saved, parts, folder)
        for name in edited_files([saved.get("own_code"), parts.own_code]):
            log.warning("%s was edited since %s began; it goes on with what the file says now", name, folder)
        parts.learner.load_state_dict(saved["learner"])
        return LoopState.from_state_dict(saved["state"])
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        why = why.removeprefix(f"{folder.last}: ")
        if "loading state_dict" in why:
            why = f"is not of this model, whose code may have been edited ({why})"
        raise ConfigError(f"{folder}/{folder.last.name}: {why}; put back a copy of it, or start a new run") from error


def check_length(saved: Mapping[str, Any], parts: "Parts", folder: RunFolder) -> None:
    """Raise ConfigError where a run is to be longer or shorter than its schedule, which the first step has fixed."""
    from iolaus.methods.schedules import fill_totals

    epochs, node = parts.config.trainer.epochs, parts.config.scheduler_node
    began = saved.get("config", {}).get("trainer", {}).get("epochs", epochs)
    if epochs != began and fill_totals(node.signature, node.arguments, epochs):
        name = node.path.rpartition(".")[2]
        hint = f"to start from its weights: {paste('model.weights', folder)} {EPOCHS}=N"
        raise ConfigError(f"{EPOCHS}={epochs}: {name} was laid out over {began} epochs when {folder} began; {hint}")


def how_to_continue(job: Job) -> str:
    """The command that goes on with a run."""
    return "the same command" if job.sweeping else " ".join([*train_command(), paste("resume", job.folder)])
