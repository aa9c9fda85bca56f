"""A run as a trial of an Optuna study: it reports each epoch, and ends early when the study's pruner says so."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iolaus import storage
from iolaus.checkpoint import FAILED, PRUNED
from iolaus.errors import ConfigError
from iolaus.space import Space

SWEEPER = "iolaus.sweeper.OptunaSweeper"

# The trial that this process's sweeper runs in this thread: a run in the same process need not read the storage.
_running = threading.local()


def set_running(trial: Any) -> None:
    """Tell the run that is about to start in this thread which trial it is; None when it has ended."""
    _running.trial = trial


def open_storage(url: str | None, folder: Path) -> Any:
    """The study's storage (storage.py). Raises ConfigError when the database can't be opened."""
    try:
        return storage.opened(url, folder)
    except ValueError as error:
        raise ConfigError(f"hydra.sweeper.storage: {error}") from error


def check_study(study: Any, directions: Sequence[str], space: Space) -> None:
    """Raise ConfigError where a study that is to go on was begun as another search."""
    from optuna.distributions import check_distribution_compatibility

    other = f"the study {study.study_name} was begun with another"
    hint = "choose another study=NAME"
    if [direction.name.lower() for direction in study.directions] != list(directions):
        raise ConfigError(f"objective: {other} direction; {hint}")
    fixed = sorted(space.overrides)
    if study.user_attrs.get("overrides", fixed) != fixed:
        different = sorted({*study.user_attrs["overrides"]} ^ {*fixed})
        raise ConfigError(f"{', '.join(different)}: {other} configuration; {hint}")
    for trial in study.get_trials(deepcopy=False):
        for key in space.searched.keys() & trial.distributions.keys():
            try:
                check_distribution_compatibility(trial.distributions[key], space.searched[key])
            except ValueError as error:
                raise ConfigError(f"{key}: {other} space; {hint}") from error
    study.set_user_attr("overrides", fixed)


def outcome(result: Mapping[str, Any]) -> tuple[Any, list[float] | None, str | None]:
    """How a run's results.json is told to a study: the trial's state, its values, and what went wrong."""
    from optuna.trial import TrialState

    if result["status"] == PRUNED:
        return TrialState.PRUNED, None, None
    if result["status"] == FAILED:
        return TrialState.FAIL, None, str(result.get("error"))
    objectives = result["objectives"]
    if not all(math.isfinite(o["value"]) for o in objectives):
        return TrialState.FAIL, None, ", ".join(f"{o['name']} is {o['value']}" for o in objectives)
    return TrialState.COMPLETE, [o["value"] for o in objectives], None


def best_of(study: Any) -> dict[str, Any]:
    """The best trial in the form of Hydra's own sweeper, or the best compromises; empty where none is complete."""
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return {}
    if len(study.directions) == 1:
        best = study.best_trial
        return {"name": "optuna", "best_params": best.params, "best_value": best.value, "best_trial": best.number}
    return {"name": "optuna", "solutions": [
        {"trial": t.number, "params": t.params, "values": list(t.values)} for t in study.best_trials
    ]}  # fmt: skip


def of_job(hydra: Any) -> Any:
    """The trial that a sweep's job is, by its number (hydra: HydraConfig.get()); None where it is none."""
    if hydra.sweeper.get("_target_") != SWEEPER or not str(hydra.job.get("num", "")).isdigit():
        return None
    if (trial := getattr(_running, "trial", None)) is not None and trial.number == hydra.job.num:
        return trial
    import optuna
    from hydra.utils import instantiate

    sweep = Path(hydra.sweep.dir)
    pruner = instantiate(hydra.sweeper.pruner, _execution_whitelist_=("optuna.pruners.*",))
    study = optuna.load_study(
        study_name=hydra.sweeper.study_name or sweep.name, storage=open_storage(hydra.sweeper.storage, sweep),
        pruner=pruner,
    )  # fmt: skip
    (number,) = (t._trial_id for t in study.get_trials(deepcopy=False) if t.number == hydra.job.num)
    return optuna.Trial(study, number)


class Pruning:
    """A rule over the history, as early stopping is, that asks the study: `should_stop(history)`.

    Each epoch's objective, of validation or training, is reported to the study once, also those before a resume.
    A trial of several objectives can't be pruned (Optuna): it reports nothing.
    """

    def __init__(self, trial: Any, objective: str) -> None:
        self.trial, self.objective = trial, objective
        self.several = len(trial.study.directions) > 1
        self.told = set() if self.several else set(self._known())
        self.seen, self.pruned = 0, False

    def _known(self) -> Mapping[int, float]:
        return self.trial.storage.get_trial(self.trial._trial_id).intermediate_values

    def should_stop(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the study wants this trial to end here."""
        if not self.several and len(history) > self.seen:
            self.report(history)
            self.seen = len(history)
            self.pruned = bool(self.trial.should_prune())
        return self.pruned

    def report(self, history: Sequence[Mapping[str, float]]) -> None:
        """Tell the study of the epochs that it does not know yet; after the last one nobody asks whether to stop."""
        for epoch, metrics in enumerate(history):
            if not self.several and epoch not in self.told and math.isfinite(metrics[self.objective]):
                self.trial.report(metrics[self.objective], epoch)
                self.told.add(epoch)
