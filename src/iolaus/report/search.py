"""What Optuna knows about a study: its trials by state, the best of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iolaus.report.groups import Measure, measure
from iolaus.report.runs import FAILED, FINISHED, inside, read_yaml
from iolaus.stopping import mode_of
from iolaus.storage import JOURNAL, opened


@dataclass(frozen=True)
class Search:
    """A study of Optuna's."""

    study: Any  # optuna.Study
    names: list[str]  # of the objectives
    maximize: list[bool]
    trials: list[Any]

    @property
    def measures(self) -> list[Measure]:
        return list(map(measure, self.names))

    @property
    def states(self) -> Counter[str]:
        """The number of trials that are finished, pruned, failed, running, waiting."""
        ours = {"COMPLETE": FINISHED, "FAIL": FAILED}
        return Counter(ours.get(trial.state.name, trial.state.name.lower()) for trial in self.trials)

    @property
    def complete(self) -> list[Any]:
        return [trial for trial in self.trials if trial.state.name == "COMPLETE"]

    @property
    def best(self) -> list[Any]:
        """One trial, or those of the Pareto front."""
        if not self.complete:
            return []
        return self.study.best_trials if len(self.names) > 1 else [self.study.best_trial]


def read_search(folder: Path, objectives: Sequence[str]) -> Search | None:
    """The Optuna study of a sweep's folder; None where it has none. objectives: the runs' own, by name.

    Raises what Optuna, SQLAlchemy or a driver raise where it can't be read.
    """
    study = load(folder)
    if study is None:
        return None
    maximize = [direction.name == "MAXIMIZE" for direction in study.directions]
    fitting = [mode_of(name) == "max" for name in objectives] == maximize
    numbered = [f"objective {i + 1}" for i in range(len(maximize))]
    names = list(study.metric_names or (objectives if fitting else numbered))
    return Search(study, names, maximize, study.get_trials(deepcopy=False))


def load(folder: Path) -> Any:
    """An optuna.Study: of the folder's journal, or of the storage that its sweep was told."""
    sweeper = inside(read_yaml(folder / "multirun.yaml"), "hydra", "sweeper")
    url, name = inside(sweeper, "storage"), inside(sweeper, "study_name")
    is_journal = (folder / JOURNAL).is_file()
    if not is_journal and (not isinstance(url, str) or "://" not in url or "${" in url):
        return None
    if not is_journal and url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        return None  # to open it would make it

    import optuna

    storage = opened(None if is_journal else url, folder)
    if is_journal:  # of one study, whose folder may have another name by now
        name = storage.get_all_studies()[0].study_name
    return optuna.load_study(study_name=folder.name if name is None or "${" in str(name) else name, storage=storage)
