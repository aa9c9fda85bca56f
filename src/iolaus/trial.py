"""A run as a trial of an Optuna study: it reports each epoch, and ends early when the study's pruner says so."""

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

JOURNAL = "optuna.journal"  # in the sweep's folder
SWEEPER = "iolaus.sweeper.OptunaSweeper"

# The trial that this process's sweeper runs in this thread: a run in the same process need not read the storage.
_running = threading.local()


def set_running(trial: Any) -> None:
    """Tell the run that is about to start in this thread which trial it is; None when it has ended."""
    _running.trial = trial


def open_storage(url: str | None, folder: Path) -> Any:
    """The study's storage: the journal file in the sweep's folder, or what an SQLAlchemy URL names.

    The journal's lock is one that ends with its process (flock); Optuna's own would be left behind by kill -9.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is not None:
        return optuna.storages.get_storage(url)
    path = (folder / JOURNAL).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=journal_lock(path.with_suffix(".lock"))))


def journal_lock(path: Path) -> Any:
    """A lock as Optuna's journal wants it (acquire, release), of locks.held."""
    import contextlib

    from optuna.storages.journal._file import BaseJournalFileLock

    from iolaus import locks

    class Lock(BaseJournalFileLock):
        def acquire(self) -> bool:
            self.stack = contextlib.ExitStack()
            return self.stack.enter_context(locks.held(path, wait=True))

        def release(self) -> None:
            self.stack.close()

    return Lock()


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
        if self.several or len(history) == self.seen:
            return self.pruned
        for epoch, metrics in enumerate(history):
            if epoch not in self.told and math.isfinite(metrics[self.objective]):
                self.trial.report(metrics[self.objective], epoch)
                self.told.add(epoch)
        self.seen = len(history)
        self.pruned = bool(self.trial.should_prune())
        return self.pruned
