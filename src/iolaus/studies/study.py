"""An Optuna study that any number of processes share: which trial is next, and how each has ended.

A trial's state stands in two places: Optuna's storage, and the trial's folder, whose name is the trial's number. A
process holds the lock of the trial that it runs, so a trial that is RUNNING while nobody holds its lock is orphaned.
The next process that looks adopts it: it goes on with the same parameters, from the checkpoint.
"""

import contextlib
import logging
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.trial import TrialState

from iolaus.errors import ConfigError, problems_of
from iolaus.files.changes import FREE_KEYS
from iolaus.files.layout import FAILED, HYDRA, PRUNED, TRIALS
from iolaus.files.leftovers import remove_leftovers
from iolaus.files.locks import file_lock, is_locked
from iolaus.files.optuna_storage import open_storage
from iolaus.files.run_folder import RunFolder, make_folder, remove_empty
from iolaus.settings import objectives_of
from iolaus.studies.search_parts import build_search_part
from iolaus.studies.space import Space, make_sampler
from iolaus.studies.trial import load_trial

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from iolaus.studies.search_settings import SearchSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedStudy:
    """A study that is open.

    config: the sweep's configuration, with seed and objective. is_new: whether this process has made the study.
    """

    study: optuna.Study
    storage: optuna.storages.BaseStorage
    folder: Path
    settings: "SearchSettings"
    space: Space
    config: "DictConfig"
    is_new: bool

    def next_trial(self, stack: ExitStack) -> optuna.Trial | None:
        """Adopt an orphaned trial or begin a new one, and draw its parameters; None if there is neither.

        stack: holds the trial's lock. Raises ConfigError when too many trials have failed.
        """
        with lock_study(self.folder):
            trials = self.study.get_trials(deepcopy=False)
            running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
            orphan = next((number for number in running if self._adopt(number, stack)), None)
            if orphan is not None:
                log.info("trial %d was cut off: taken up again", orphan)
                self.study.sampler = self._sampler(orphan)
                trial = load_trial(self.study, self.storage, orphan)
            else:
                waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
                self._check_failures(len(failed_trials(trials)))
                if len(trials) - len(retries_of(trials)) - len(waiting) >= self.settings.n_trials:
                    return None
                self.study.sampler = self._sampler(min(waiting, default=len(trials)))
                trial = self.study.ask()
                stack.enter_context(self._lock_trial(trial.number))
            self.space.draw(trial, self.config)
            return trial

    def _adopt(self, number: int, stack: ExitStack) -> bool:
        """Adopt an orphaned trial. False if it is locked, still training, or finished."""
        with ExitStack() as own:
            acquired = own.enter_context(self._lock_trial(number))
            if not acquired or is_locked(self.folder_of(number).lock):
                return False
            # the process that held the lock until now may have told the study the result since the trials were listed
            if self.study.get_trials(deepcopy=False)[number].state != TrialState.RUNNING:
                return False
            stack.enter_context(own.pop_all())
            return True

    def _check_failures(self, failed: int) -> None:
        rate, n_trials = self.settings.max_failure_rate, self.settings.n_trials
        if failed > rate * n_trials:
            counts = f"{failed} of {n_trials} trials failed, see {self.folder}"
            hint = "once their cause is mended, hydra.sweeper.retry_failed=true tries them again"
            raise ConfigError(f"hydra.sweeper.max_failure_rate={rate:g}: {counts}; {hint}")

    def has_trials(self, state: TrialState) -> bool:
        """Whether a trial is in this state."""
        return bool(self.study.get_trials(deepcopy=False, states=(state,)))

    def has_running_trials(self) -> bool:
        """Whether a trial is at work, or was cut off."""
        return self.has_trials(TrialState.RUNNING)

    def has_begun(self) -> bool:
        """Whether a trial has got as far as to train."""
        return any(self.folder.glob(f"*/{HYDRA}/config.yaml"))

    def give_up(self) -> None:
        """Remove a study that this process has made and in which no trial has begun."""
        if self.is_new and not self.has_begun():
            with lock_study(self.folder):
                optuna.delete_study(study_name=self.study.study_name, storage=self.storage)
                shutil.rmtree(self.folder)
            remove_empty(self.folder.parent)

    def tell(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        """Tell the study how a trial ended; result: the content of the run's results.json."""
        state, values, error = judge_result(result)
        if error is not None:
            trial.set_user_attr("error", error)
            log.warning("trial %d failed: %s", trial.number, error)
        with contextlib.suppress(RuntimeError):  # GridSampler stops the study of optimize(), which this is not
            self.study.tell(trial, values, state=state)
        if values is not None:
            names = objectives_of(self.config.objective)
            reached = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, values, strict=True))
            best = self.study.best_trial if len(names) == 1 else None
            also = f"; the best is trial {best.number}, {best.value:.6g}" if best is not None else ""
            log.info("trial %d: %s%s", trial.number, reached, also)

    def best(self) -> dict[str, Any]:
        """The best trial in the form of Hydra's own sweeper, or the Pareto front; empty if no trial is complete."""
        if not self.has_trials(TrialState.COMPLETE):
            return {}
        if len(self.study.directions) == 1:
            best = self.study.best_trial
            point = {"best_params": best.params, "best_value": best.value, "best_trial": best.number}
            return {"name": "optuna", **point}
        front = self.study.best_trials
        solutions = [{"trial": t.number, "params": t.params, "values": list(t.values)} for t in front]
        return {"name": "optuna", "solutions": solutions}

    def folder_of(self, number: int) -> RunFolder:
        """The folder of a trial's run."""
        return RunFolder(self.folder / str(number))

    def _lock_trial(self, number: int) -> AbstractContextManager[bool]:
        return file_lock(self.folder / TRIALS / f"{number}.lock")

    def _sampler(self, number: int) -> "BaseSampler":
        return make_sampler(self.settings.sampler, self.space, self.config.seed, number)


def lock_study(folder: Path) -> AbstractContextManager[bool]:
    """The lock under which trials are counted and begun, by one thread of one process at a time."""
    return file_lock(folder / TRIALS / "begin.lock", timeout=math.inf)


def open_study(settings: "SearchSettings", space: Space, config: "DictConfig") -> SharedStudy:
    """Make or open the study of a sweep's folder. Raises ConfigError, and leaves no new folder, where it can't."""
    folder = Path(config.hydra.sweep.dir)
    pruner = build_search_part("pruner", settings.pruner)
    if len(settings.direction) > 1 and not isinstance(pruner, optuna.pruners.NopPruner):
        log.warning("hydra/sweeper/pruner: a study of several objectives is not pruned")
    is_new = not folder.exists()
    make_folder(folder)
    remove_leftovers(folder)
    try:
        with lock_study(folder):
            with problems_of("hydra.sweeper.storage"):
                storage = open_storage(settings.storage, folder)
            name = settings.study_name or folder.name
            study = optuna.create_study(
                study_name=name, storage=storage, directions=settings.direction, pruner=pruner, load_if_exists=True
            )
            check_study(study, settings, space)
            set_metric_names(study, objectives_of(config.objective))
            trials = study.get_trials(deepcopy=False)
            for point in settings.enqueue or []:
                study.enqueue_trial(point, skip_if_exists=True)
            for trial in failed_trials(trials) if settings.retry_failed else []:
                study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})
    except ConfigError:
        if is_new:
            shutil.rmtree(folder)
            remove_empty(folder.parent)
        raise
    done = sum(trial.state.is_finished() for trial in trials)
    log.info("study %s: %d of %d trials are done", study.study_name, done, settings.n_trials)
    return SharedStudy(study, storage, folder, settings, space, config, is_new and not trials)


def retries_of(trials: "Sequence[FrozenTrial]") -> set[int]:
    """The numbers of the failed trials that were tried again, or wait for that: they do not count any more."""
    return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}


def failed_trials(trials: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
    """The failed trials that were not tried again."""
    again = retries_of(trials)
    return [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in again]


def set_metric_names(study: optuna.Study, names: list[str]) -> None:
    """Name the objectives, for Optuna's dashboard and its plots; also in a study of before they had names."""
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)


def check_study(study: optuna.Study, settings: "SearchSettings", space: Space) -> None:
    """Raise ConfigError if a study that exists already was begun as another search."""
    other = f"the study {study.study_name} was begun with another"
    hint = "choose another study=NAME"
    if [direction.name.lower() for direction in study.directions] != settings.direction:
        raise ConfigError(f"objective: {other} direction; {hint}")
    fixed, begun_with = (
        sorted(override for override in overrides if not override.lstrip("+~").startswith(FREE_KEYS))
        for overrides in (space.overrides, study.user_attrs.get("overrides", space.overrides))
    )
    if begun_with != fixed:
        raise ConfigError(f"{', '.join(sorted({*begun_with} ^ {*fixed}))}: {other} configuration; {hint}")
    for trial in study.get_trials(deepcopy=False):
        for key in space.searched.keys() & trial.distributions.keys():
            try:
                check_distribution_compatibility(trial.distributions[key], space.searched[key])
            except ValueError as error:
                raise ConfigError(f"{key}: {other} space; {hint}") from error
    study.set_user_attr("overrides", fixed)


def judge_result(result: Mapping[str, Any]) -> tuple[TrialState, list[float] | None, str | None]:
    """Translate a run's results.json for a study: the trial's state, its values, and its error."""
    if result["status"] == PRUNED:
        return TrialState.PRUNED, None, None
    if result["status"] == FAILED:
        return TrialState.FAIL, None, str(result.get("error"))
    objectives = result["objectives"]
    if not all(math.isfinite(objective["value"]) for objective in objectives):
        return TrialState.FAIL, None, ", ".join(f"{o['name']} is {o['value']}" for o in objectives)
    return TrialState.COMPLETE, [objective["value"] for objective in objectives], None
