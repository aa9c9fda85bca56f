"""What Optuna knows about a study: its trials by state, and the best of them."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iolaus.report.runs import inside, read_yaml
from iolaus.stopping import mode_of

JOURNAL = "optuna.journal"


@dataclass
class Search:
    """A study of Optuna's, as far as it could be read."""

    study: Any = None  # optuna.Study
    trials: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the objectives
    maximize: list[bool] = field(default_factory=list)
    best: list[Any] = field(default_factory=list)  # trials: one, or those of the Pareto front
    notes: list[str] = field(default_factory=list)  # what could not be read, and why

    @property
    def states(self) -> dict[str, int]:
        """The number of trials that are finished, pruned, failed, running, waiting."""
        return dict(
            Counter(
                trial.state.name.lower().replace("fail", "failed").replace("complete", "finished")
                for trial in self.trials
            )
        )

    @property
    def complete(self) -> list[Any]:
        return [trial for trial in self.trials if trial.state.name == "COMPLETE"]


def read_search(folder: Path, objectives: Sequence[str]) -> Search | None:
    """The Optuna study of a sweep's folder; None where it has none. objectives: the runs' own, by name."""
    place = find_storage(folder)
    if place is None:
        return None
    search = Search()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks much of itself as experimental
        try:
            fill(search, load(*place), objectives)
        except Exception as error:  # Optuna's, SQLAlchemy's, the driver's, a broken file's
            # without the message: it may hold the storage's URL, and that a password
            search.notes.append(f"Optuna's study could not be read ({type(error).__name__}).")
    return search


def find_storage(folder: Path) -> tuple[str, str] | None:
    """Where Optuna keeps its trials, and the name of its study."""
    if (folder / JOURNAL).is_file():
        return str(folder / JOURNAL), folder.name
    sweeper = inside(read_yaml(folder / "multirun.yaml"), "hydra", "sweeper")
    storage, name = inside(sweeper, "storage"), inside(sweeper, "study_name")
    if not isinstance(storage, str) or "://" not in storage or "${" in storage:
        return None
    if storage.startswith("sqlite:///") and not Path(storage.removeprefix("sqlite:///")).is_file():
        return None  # to open it would make it
    return storage, name if isinstance(name, str) and "${" not in name else folder.name


def load(storage: str, name: str) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    opened: Any = storage
    if storage.endswith(JOURNAL):
        opened = optuna.storages.JournalStorage(JournalFileBackend(storage))
        names = [study.study_name for study in opened.get_all_studies()]
        name = name if name in names or not names else names[0]
    return optuna.load_study(study_name=name, storage=opened)


def fill(search: Search, study: Any, objectives: Sequence[str]) -> None:
    search.study, search.trials = study, study.get_trials(deepcopy=False)
    search.maximize = [direction.name == "MAXIMIZE" for direction in study.directions]
    fitting = [mode_of(name) == "max" for name in objectives] == search.maximize
    numbered = [f"objective {i + 1}" for i in range(len(search.maximize))]
    search.names = list(study.metric_names or (objectives if fitting else numbered))
    if search.complete:
        search.best = study.best_trials if len(search.names) > 1 else [study.best_trial]
    else:
        search.notes.append("No trial is complete yet: there is nothing to plot.")
