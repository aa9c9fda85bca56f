"""A run as a trial of an Optuna study: it reports each epoch, and ends early when the study's pruner says so."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.errors import ConfigError, problems_of
from iolaus.files.optuna_storage import open_storage
from iolaus.files.run_folder import RunFolder
from iolaus.studies.job import Job
from iolaus.studies.search_parts import build_search_part
from iolaus.studies.told import tell_stopped

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage

    from iolaus.studies.study import SharedStudy

SWEEPER = "iolaus.studies.search.OptunaSweeper"

# The trial that this process's sweeper runs in this thread: a run in the same process need not read the storage.
_running = threading.local()


def set_running(trial: "Trial | None") -> None:
    """Tell the run that is about to start in this thread which trial it is; None when it has ended."""
    _running.trial = trial


def current_trial(job: Job) -> "Trial | None":
    """The Optuna trial that a sweep's job is; None for any other job."""
    hydra = job.hydra
    if not job.sweeping or job.number is None or hydra.sweeper.get("_target_") != SWEEPER:
        return None
    trial: Trial | None = getattr(_running, "trial", None)
    if trial is not None and trial.number == job.number:
        return trial
    import optuna

    sweep = Path(hydra.sweep.dir)
    with problems_of("hydra.sweeper.storage"):
        storage = open_storage(hydra.sweeper.storage, sweep)
    pruner = build_search_part("pruner", hydra.sweeper.pruner)
    name = hydra.sweeper.study_name or sweep.name
    return load_trial(optuna.load_study(study_name=name, storage=storage, pruner=pruner), storage, job.number)


def load_trial(study: "Study", storage: "BaseStorage", number: int) -> "Trial":
    """The trial of this number that the study has already, to go on with it; storage: the study's."""
    import optuna

    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def count_start(trial: "Trial", folder: RunFolder) -> int:
    """Count a start of a trial's run. Returns the number of starts since the run's last checkpoint."""
    checkpoint_time = folder.checkpoint_time()
    starts, time_before = trial.user_attrs.get("starts", (0, None))
    starts = starts + 1 if checkpoint_time == time_before else 1
    trial.set_user_attr("starts", [starts, checkpoint_time])
    return int(starts)


def end_search(study: "SharedStudy", error: BaseException) -> None:
    """End a search by an error: a refused one leaves nothing, a stopped one says how far it is."""
    if isinstance(error, ConfigError):
        study.give_up()
    elif not isinstance(error, Exception):  # a signal, or the command's time
        trials = study.study.get_trials(deepcopy=False)
        tried_again = sum("retry_of" in trial.user_attrs for trial in trials)
        done = sum(trial.state.is_finished() for trial in trials) - tried_again
        tell_stopped("search", "trials", done, study.settings.n_trials)


class Pruning:
    """A rule over the history, as early stopping is, that asks the study: `should_stop(history)`.

    Each epoch's objective, of validation or training, is reported to the study once, also those before a resume.
    Without a trial, or with several objectives, which Optuna does not prune, nothing is reported and nothing stops.
    """

    def __init__(self, trial: "Trial | None", objective: str) -> None:
        self.objective, self.is_trial = objective, trial is not None
        self.trial = trial if trial is not None and len(trial.study.directions) == 1 else None
        self.pruned = False
        self._epochs_asked = 0
        self._reported: set[int] = set()
        if self.trial is not None:
            self._reported |= self.trial.study.get_trials(deepcopy=False)[self.trial.number].intermediate_values.keys()

    def should_stop(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the study wants this trial to end here."""
        if self.trial is not None and len(history) > self._epochs_asked:
            self.report(history)
            self._epochs_asked = len(history)
            self.pruned = bool(self.trial.should_prune())  # of numpy, which the ranks do not send each other
        return self.pruned

    def report(self, history: Sequence[Mapping[str, float]]) -> None:
        """Report the epochs that the study does not know; the loop does not ask `should_stop` after the last epoch."""
        if self.trial is None:
            return
        for epoch, metrics in enumerate(history):
            if epoch not in self._reported and math.isfinite(metrics[self.objective]):
                self.trial.report(metrics[self.objective], epoch)
                self._reported.add(epoch)
