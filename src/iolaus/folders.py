"""Where runs and sweeps live: a new folder for each run, one named by its overrides for each sweep.

Two of Hydra's plugin kinds, so this module is imported at every start and stays light.
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from iolaus.checkpoint import DONE, LAST, LOCK, RESULTS, read_json
from iolaus.settings import objectives_of
from iolaus.stopping import mode_of
from iolaus.trial import SWEEPER

log = logging.getLogger(__name__)
OUTPUTS = Path("outputs")


class ExperimentsSource(FileConfigSource):
    """Configs of the group `experiment` out of a folder whose name is its own: `experiments://experiments`.

    A relative folder is looked for beside conf/, wherever the command is given.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.path = str(Path(__file__).parents[2] / self.path)

    @staticmethod
    def scheme() -> str:
        return "experiments"

    def _inside(self, config_path: str) -> str | None:
        group, _, rest = config_path.partition("/")
        return rest if group == "experiment" else None

    def load_config(self, config_path: str) -> Any:
        return super().load_config(self._inside(config_path) or config_path)

    def is_group(self, config_path: str) -> bool:
        inside = self._inside(config_path)
        return config_path == "" or (inside is not None and super().is_group(inside))

    def is_config(self, config_path: str) -> bool:
        return bool(self._inside(config_path)) and super().is_config(self._inside(config_path) or "")

    def list(self, config_path: str, results_filter: Any) -> Any:
        inside = self._inside(config_path)
        if inside is None:
            return ["experiment"] if config_path == "" else []
        # Not super().list(): that one asks is_config() for names without their group.
        return FileConfigSource(self.provider, f"file://{self.path}").list(inside, results_filter)


class Folders(Callback):
    """Names the folder of a run or a sweep before Hydra makes it, and ends a sweep with its table."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = find_unfinished(config.resume) if config.get("resume") else None
        if folder is None or not is_run(folder):  # run.py refuses to resume what is no run
            folder = claim(Path(config.hydra.run.dir))
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.run.dir = str(folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # As overrides, since every job of a sweep composes its configuration anew from these.
        params = (config.hydra.sweeper.get("params") or {}).items()  # a recipe's
        lines = [*(f"{key}={value}" for key, value in params), *config.hydra.overrides.task]
        overrides = OverridesParser.create().parse_overrides(lines)
        varied = [o for o in overrides if o.is_sweep_override()]
        fixed = [o.get_key_element().lstrip("+~") for o in overrides if not o.is_sweep_override()]
        ours = [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]
        if config.hydra.sweeper.get("_target_") == SWEEPER:
            ours.append("hydra.sweep.subdir=${hydra.job.num}")  # the trial's number
        elif not varied:
            ours.append("hydra.sweep.subdir=run")
        given = any(str(o).startswith("hydra.sweep.dir") for o in config.hydra.overrides.hydra)
        folder = Path(config.hydra.sweep.dir)
        if not given and config.study is None:
            folder = OUTPUTS / study_name(
                sorted(str(o.input_line) for o in overrides), [str(o.input_line) for o in varied]
            )
            ours.append(f"hydra.sweep.dir={QuotedString(str(folder), Quote.double).with_quotes()}")
        if ways := directions(config):
            ours.append(f"hydra.sweeper.direction=[{','.join(ways)}]")
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra = [*config.hydra.overrides.hydra, *ours]
            config.hydra.sweep.dir = str(folder)
            if ways:
                config.hydra.sweeper.direction = ways

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if any(folder.glob(f"*/{RESULTS}")):
            from iolaus.report.runs import read_study
            from iolaus.watch import print_study

            study = read_study(folder)
            print_study(study)
            print(f"Runs: {folder}")
            report(study)
        elif folder.is_dir() and [p.name for p in folder.iterdir()] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()  # no job got as far as a run folder: leave nothing behind
            remove_empty(folder)


def report(study: Any) -> None:
    """Write a sweep's report; what goes wrong with it is a warning, since the runs are done."""
    from iolaus.report import report_study

    try:
        print(f"Report: {report_study(study)}")
    except Exception as error:
        log.warning("no report: %s: %s", type(error).__name__, error)


def directions(config: DictConfig) -> list[str]:
    """The ways of the objectives, for a sweeper that optimizes (Optuna's); none where it was told them or does not."""
    if "direction" not in config.hydra.sweeper or config.hydra.sweeper.direction is not None:
        return []
    return ["maximize" if mode_of(name) == "max" else "minimize" for name in objectives_of(config.objective)]


def study_name(overrides: list[str], varied: list[str]) -> str:
    """A sweep's folder name: what it varies, readable, and a short hash of all its overrides."""
    return f"{folder_name('_'.join(varied) or 'sweep', 60)}-{short_hash(' '.join(overrides))}"


def folder_name(text: str, longest: int = 120) -> str:
    """Overrides as the name of one folder: other characters become dashes; a long name is cut, with a hash of all."""
    name = re.sub(r"[^A-Za-z0-9._,=+-]+", "-", text).strip("-")
    return name if len(name) <= longest else f"{name[: longest - 7]}-{short_hash(text)}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


OmegaConf.register_resolver("folder_name", folder_name, replace=True)


def claim(folder: Path) -> Path:
    """Make `folder`, or `folder-2`, `folder-3`, … when it is taken, also by a process that starts at this moment."""
    number, candidate = 1, folder
    while True:
        try:
            candidate.mkdir(parents=True, exist_ok=False)
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")


def discard(folder: Path) -> None:
    """Forget the folder of a run that can't be: its log, not opened yet, and the folder, if nothing is in it."""
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder.absolute():
            logging.getLogger().removeHandler(handler)
            handler.close()
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder that nothing was written into, and the empty ones that were made for it."""
    folder = folder.absolute()
    while folder.is_dir() and not any(folder.iterdir()) and folder != Path.cwd():
        folder.rmdir()
        folder = folder.parent


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    return (folder / ".hydra" / "config.yaml").is_file()


def find_unfinished(resume: str) -> Path:
    """The folder that `resume=FOLDER` or `resume=last` (the newest unfinished run in outputs/) means."""
    if resume != "last":
        return Path(resume)
    runs = [p.parent.parent for p in OUTPUTS.glob("**/.hydra/config.yaml")]
    open_runs = [run for run in runs if read_json(run / RESULTS).get("status") not in DONE]

    def touched(run: Path) -> float:
        return max((run / name).stat().st_mtime for name in (LAST, ".hydra") if (run / name).exists())

    return max(open_runs, key=touched, default=OUTPUTS / "last")
