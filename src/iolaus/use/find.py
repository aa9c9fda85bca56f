"""Which run is meant, and what its files hold of the model: weights, classes, input, configuration."""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iolaus.data.image_input import ImageInput
from iolaus.errors import ConfigError, first_line, printable
from iolaus.files import checkpoint
from iolaus.files.layout import BEST, FINISHED, HYDRA, LAST
from iolaus.files.locks import is_locked_here
from iolaus.files.moved import update_config
from iolaus.files.run_folder import RunFolder, newest_run, similar_names

Which = Literal["best", "last"]


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint holds besides the optimizer's state.

    file: the checkpoint. weights: the state dict that evaluation uses (the average, where there is one). metrics: of
    the epoch; its number alone where the weights are from within it. input: None, and classes empty, where a run of
    before did not save them. config: plain containers.
    """

    file: Path
    weights: dict[str, Any]
    metrics: dict[str, float]
    classes: list[str]
    input: ImageInput | None
    config: dict[str, Any]
    within_epoch: bool = False

    @property
    def folder(self) -> Path:
        return self.file.parent


def find_run(given: str | Path) -> Path:
    """The folder of the run that `given` means: a run's folder, a study's (its best run), or `last`.

    `last` is the run in outputs/ whose best.pt is the newest. A checkpoint's own path is returned as it is. Raises
    ConfigError.
    """
    path = Path(given).expanduser()
    if str(given) == "last":
        return newest_run()
    if path.is_file() and path.suffix != ".pt" and not zipfile.is_zipfile(path):
        raise ConfigError(f"{given}: is no run, nor a checkpoint; the run comes first: last, its folder or its {BEST}")
    if path.is_file() or RunFolder(path).is_run() or (path / BEST).is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"{given}: no such run{similar_names(path)}")
    return best_run_of(path)


def choose_run(given: str | Path) -> Path:
    """`find_run` for a command, which says on standard error what `last` or a study stands for, and what still trains.

    Raises ConfigError.
    """
    found = find_run(given)
    if found != Path(given).expanduser():
        print(f"iolaus: {printable(str(given))} is {printable(str(found))}", file=sys.stderr)
    if is_locked_here(RunFolder(found).lock):
        print(f"iolaus: {printable(str(found))} is still training; its weights are those of now", file=sys.stderr)
    return found


def best_run_of(folder: Path) -> Path:
    """The run of a study whose objective is best, as the study's own table has it. Raises ConfigError."""
    from iolaus.report.configurations import merit_of
    from iolaus.report.groups import dataset_name
    from iolaus.report.runs import read_study

    if not any(folder.glob(f"**/{HYDRA}/config.yaml")):
        raise ConfigError(f"{folder}: neither a run nor a study (no {HYDRA}/ in it or below it)")
    try:
        study = read_study(folder)
    except ValueError as error:
        raise ConfigError(first_line(error)) from error
    usable = [run for run in study.runs if run.status == FINISHED and (run.folder / BEST).is_file()]
    if not usable:
        raise ConfigError(f"{folder}: no run of this study is finished and has a {BEST}")
    if len(datasets := sorted({dataset_name(run) for run in usable})) > 1:
        raise ConfigError(
            f"{folder}: its runs are of several datasets ({', '.join(datasets)}); give a study or a run of one"
        )
    return min(usable, key=lambda run: merit_of(study, run)).folder


def read_model(given: str | Path, which: Which = "best") -> SavedModel:
    """Read the checkpoint of a run: best.pt, or the weights of last.pt. Raises ConfigError, one line."""
    found = find_run(given)
    file = found if found.is_file() else found / (BEST if which == "best" else LAST)
    try:
        content = checkpoint.load(file)
    except ValueError as error:
        begun = file.name == BEST and not file.exists() and (found / LAST).exists()
        hint = f"; the run has ended no epoch yet: --weights last takes {LAST}" if begun else ""
        raise ConfigError(first_line(error) + hint) from error
    learner, state = content.get("learner"), content.get("state") or {}
    if isinstance(learner, dict):  # last.pt
        from iolaus.learner import decode_history  # torch is here by now

        (metrics,) = decode_history((state.get("history") or [])[-1:]) or [{}]
        weights = learner.get("ema") or learner.get("model")
    else:
        weights, metrics = content.get("model"), content.get("metrics", {})
    if not isinstance(weights, dict):
        raise ConfigError(f"{file}: no checkpoint of a run (it holds {', '.join(map(str, content)) or 'nothing'})")
    within = bool(state.get("counts"))  # the steps of an epoch that has not ended
    metrics = {"epoch": state["epoch"]} if within else metrics
    results = RunFolder(file.parent).results()
    config = content.get("config") or results.get("config") or _composed_config(file)
    kept = content.get("input") or results.get("input")
    classes = content.get("classes") or results.get("classes") or []
    names, shape = [*map(str, classes)], _read_input(file, kept)
    return SavedModel(file, weights, metrics, names, shape, update_config(config), within)


def _composed_config(file: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    folder = RunFolder(file.parent)
    if not folder.is_run():
        raise ConfigError(f"{file}: holds no configuration, and there is no {HYDRA}/ beside it")
    try:
        plain: dict[str, Any] = OmegaConf.to_container(folder.saved_config(), resolve=True)  # type: ignore[assignment]
    except ConfigError:
        raise
    except Exception as error:  # of an interpolation, such as a variable that is not set
        raise ConfigError(f"{folder.config_file}: {first_line(error)}") from error
    return plain


def _read_input(file: Path, saved: object) -> ImageInput | None:
    """The saved `input`, without keys that this version does not know. Raises ConfigError where one is missing."""
    if not isinstance(saved, dict):
        return None
    try:
        return ImageInput.from_plain(saved)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file}: its input can't be read ({first_line(error)})") from error
