"""What Optuna knows about a study: its trials by state, the best of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.files.layout import FAILED, FINISHED
from iolaus.files.optuna_storage import JOURNAL, load_study
from iolaus.files.study_url import readable_url, sqlite_path
from iolaus.methods.stopping import mode_of
from iolaus.report.parsing import get_nested, read_yaml
from iolaus.show.numbers import Metric, metric_of

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Search:
    """A study of Optuna's."""

    study: "OptunaStudy"
    names: list[str]  # of the objectives
    maximize: list[bool]
    trials: "list[FrozenTrial]"

    @property
    def metrics(self) -> list[Metric]:
        """The objectives."""
        return list(map(metric_of, self.names))

    @property
    def states(self) -> Counter[str]:
        """The number of trials that are finished, pruned, failed, running, waiting."""
        ours = {"COMPLETE": FINISHED, "FAIL": FAILED}
        return Counter(ours.get(trial.state.name, trial.state.name.lower()) for trial in self.trials)

    @property
    def complete(self) -> "list[FrozenTrial]":
        return [trial for trial in self.trials if trial.state.name == "COMPLETE"]

    @property
    def best(self) -> "list[FrozenTrial]":
        """One trial, or those of the Pareto front."""
        if not self.complete:
            return []
        return self.study.best_trials if len(self.names) > 1 else [self.study.best_trial]


def read_search(folder: Path, objectives: Sequence[str], storage: str | None = None) -> Search | None:
    """The Optuna study of a sweep's folder, in its journal or the sweeper's storage; None if there is none.

    objectives: the names of the runs' own. storage: the URL that the user gives; multirun.yaml can be a stranger's, and
    is only taken at its word for a file of SQLite's. Raises what Optuna, SQLAlchemy or a driver raise where it can't be
    read.
    """
    sweeper = get_nested(read_yaml(folder / "multirun.yaml"), "hydra", "sweeper")
    url, name = get_nested(sweeper, "storage"), get_nested(sweeper, "study_name")
    journal = folder / JOURNAL
    if journal.is_file() and not journal.is_symlink():  # a link may lead to a file that is not ours to lock and repair
        url = None
    elif storage is not None and sqlite_path(storage) is None:
        url = storage
    elif not isinstance(url, str) or "://" not in url or "${" in url or (url := readable_url(url)) is None:
        return None
    study = load_study(folder, url, folder.name if name is None or "${" in str(name) else str(name))
    maximize = [direction.name == "MAXIMIZE" for direction in study.directions]
    fitting = [mode_of(name) == "max" for name in objectives] == maximize
    numbered = [f"objective {i + 1}" for i in range(len(maximize))]
    names = list(study.metric_names or (objectives if fitting else numbered))
    return Search(study, names, maximize, study.get_trials(deepcopy=False))
