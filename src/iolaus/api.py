"""Iolaus from Python: in a script or a notebook. `import iolaus` gives these functions, imported when they are used.

result = iolaus.train("model=resnet18", "optimizer=sgd", epochs=3)
result.best_test_accuracy, result.folder, result.history
pandas.DataFrame(iolaus.runs("outputs"))
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from iolaus.config.explain import hydra_raises, raised_in
from iolaus.config.mistakes import find_mistakes
from iolaus.config.places import all_folders
from iolaus.errors import ConfigError, RunFailed, nearest
from iolaus.files.run_folder import RunFolder
from iolaus.report.runs import Run, read_study
from iolaus.run import run
from iolaus.start import start
from iolaus.studies.compat import own_hydra

PLAIN = re.compile(r"[A-Za-z0-9_./-]+")  # a text that an override holds as it is


class Result(dict[str, Any]):
    """The content of a run's results.json, its keys as attributes too; `folder` is the run's."""

    def __init__(self, content: Mapping[str, Any], folder: Path) -> None:
        super().__init__(content)
        self.folder = folder

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name}: not in results.json; {nearest(name, self)}") from None

    def __repr__(self) -> str:
        objective = self.get("objective") or {}
        return (
            f"Result({RunFolder(self.folder)}: {self.get('status')}, {objective.get('name')}={objective.get('value')})"
        )


def train(*overrides: str, **values: object) -> Result:
    """Train one run as `python train.py OVERRIDES` does, in the current folder; return its results.

    overrides: `"model=resnet18"`, `"optimizer.lr=0.1"`, as on the command line. values: keys without a dot, or their
    short names: `epochs=3, seed=1`. Raises ConfigError for a mistake, one line each, before anything is written;
    RunFailed for a run that can't go on; KeyboardInterrupt for Ctrl-C or a notebook's stop button, after which
    `iolaus.train("resume=last")` continues. Hydra and the log of the program are left as they were.
    """
    arguments = [*overrides, *(f"{key}={format_value(value)}" for key, value in values.items())]
    if wrong := [a for a in arguments if not isinstance(a, str) or a.startswith("-") or not re.search("=|^~", a)]:
        raise ConfigError(*(f"{argument}: an override is a text, key=value" for argument in wrong))
    results: list[Result] = []

    def train_one(cfg: DictConfig) -> float:
        show_log_in_notebook()
        objective = run(cfg)
        folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
        results.append(Result(folder.results(), folder.path))
        return objective

    single = [] if any(argument.startswith("hydra.mode=") for argument in arguments) else ["hydra.mode=RUN"]
    with own_hydra(), all_folders(), own_process([*arguments, *single]), errors_as_exceptions():
        start(train_one)
    return results[0]


def runs(folder: str | os.PathLike[str] = "outputs") -> list[dict[str, Any]]:
    """One flat dict for each run below a folder, for pandas: what was set, the status, the numbers of its results.

    Accuracies are fractions. Raises ConfigError where there is no folder or no run.
    """
    try:
        study = read_study(Path(folder))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return [to_row(one) for one in study.runs]


def to_row(one: Run) -> dict[str, Any]:
    """A run as one dict: folder, status, error, its settings by their keys, its numbers by their names."""
    settings = {key: read_number(value) for key, value in one.settings.items()}
    return {"folder": str(one.folder), "status": one.status, "error": one.error, **settings, **one.numbers}


def read_number(text: str) -> int | float | str | None:
    """The number that a text is, None for `null`, else the text."""
    if text == "null":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def format_value(value: object) -> str:
    """A value of Python's as one of an override: True is true, None null, a text with special signs is quoted."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{format_value(key)}:{format_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(format_value, value)) + "]"
    text = str(value)
    if PLAIN.fullmatch(text) or isinstance(value, int | float):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (rf"\{found[2]}" if found[2] else ""), text)
    return f"'{escaped}'"


def show_log_in_notebook() -> None:
    """A notebook shows standard error in red: let the log of the run go to standard output there."""
    if "ipykernel" in sys.modules:
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stdout)


@contextlib.contextmanager
def own_process(arguments: list[str]) -> Iterator[None]:
    """What a command finds in its process and sets there: its arguments and its log; both are put back."""
    root, argv = logging.getLogger(), sys.argv
    handlers, level, ours = root.handlers[:], root.level, logging.getLogger("iolaus").level
    sys.argv = [argv[0], *arguments]
    try:
        with hydra_raises():
            yield
    finally:
        sys.argv = argv
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("iolaus").setLevel(ours)


@contextlib.contextmanager
def errors_as_exceptions() -> Iterator[None]:
    """Raise ConfigError and RunFailed in place of the command's exits, and KeyboardInterrupt for an interrupted run.

    Without what Hydra has raised before: a traceback that nobody asked for hides the line that helps.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(*find_mistakes(error)) from None
    except ValueError as error:
        if raised_in(error, "hydra"):
            raise ConfigError(*find_mistakes(error)) from None
        raise
    except SystemExit as end:
        cause = end.__cause__
        if isinstance(cause, ConfigError | RunFailed) and cause.complete:
            raise cause from None
        if cause is not None:
            raise ConfigError(*find_mistakes(cause)) from None
        if end.code == 130:
            raise KeyboardInterrupt from None
        raise
