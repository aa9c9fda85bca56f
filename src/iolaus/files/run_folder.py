"""A run's folder: what it holds, whose it is, and how it is found, taken and given up."""

import difflib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.errors import ConfigError, first_line
from iolaus.files.atomic import read_json, write_json, write_text
from iolaus.files.layout import BEST, CURVES, ENDED, FAILED, FINISHED, HYDRA, LAST, LOCK, METRICS, RESULTS
from iolaus.files.locks import is_locked
from iolaus.files.moved import update_config

if TYPE_CHECKING:
    from omegaconf import DictConfig

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, whether it exists or not, and the paths of its files."""

    path: Path

    def __str__(self) -> str:
        """The path as a user would type it: relative where it lies below the current folder."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @property
    def last(self) -> Path:
        return self.path / LAST

    @property
    def best(self) -> Path:
        return self.path / BEST

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def curves(self) -> Path:
        return self.path / CURVES

    @property
    def lock(self) -> Path:
        return self.path / LOCK

    @property
    def results_file(self) -> Path:
        return self.path / RESULTS

    @property
    def hydra(self) -> Path:
        return self.path / HYDRA

    @property
    def config_file(self) -> Path:
        return self.hydra / "config.yaml"

    def is_run(self) -> bool:
        """Whether a run has begun here, finished or not."""
        return self.config_file.is_file()

    def results(self) -> dict[str, Any]:
        """The content of results.json; empty where there is none, or another one than a run writes."""
        content = read_json(self.results_file)
        return content if is_result(content) else {}

    def status(self) -> str | None:
        """The status in results.json; None before the run has ended."""
        return self.results().get("status")

    def checkpoint_time(self) -> int:
        """When the last checkpoint was written, in nanoseconds since 1970; 0 where there is none."""
        return self.last.stat().st_mtime_ns if self.last.exists() else 0

    def lacks_test(self) -> bool:
        """Whether a finished run's test has been left out, as a search does for all trials but the winner."""
        results = self.results()
        metrics = results.get("metrics")
        last = metrics.get("last") if isinstance(metrics, dict) else None
        tested = not isinstance(last, dict) or any(str(name).startswith("test/") for name in last)
        return results.get("status") == FINISHED and not tested

    def saved_config(self) -> "DictConfig":
        """The configuration that the run was started with, its targets named as they are today."""
        from omegaconf import OmegaConf

        try:
            saved = OmegaConf.load(self.config_file)
        except Exception as error:  # of YAML, of the encoding, of the file system
            raise ConfigError(f"{self.config_file}: can't be read ({first_line(error)})") from error
        if not OmegaConf.is_dict(saved):
            raise ConfigError(f"{self.config_file}: is no configuration")
        renamed: DictConfig = OmegaConf.create(update_config(OmegaConf.to_container(saved, resolve=False)))
        return renamed

    def saved_overrides(self) -> list[str]:
        """The overrides that the run was started with, as text; none where they can't be read."""
        from omegaconf import OmegaConf

        try:
            plain: object = OmegaConf.to_container(OmegaConf.load(self.hydra / "overrides.yaml"), resolve=False)
        except Exception:  # of YAML, of the encoding, of the file system
            return []
        return [str(override) for override in plain] if isinstance(plain, list) else []

    def remove_stale_files(self) -> None:
        """Remove the temporary files of writers that were killed; only the holder of the run's lock may."""
        for folder in (self.path, self.hydra):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def record_refusal(self, why: str, overrides: list[str]) -> None:
        """Write down that a job of a sweep could not begin, for the tables; the next start begins it all the same."""
        if not self.is_run():
            self.hydra.mkdir(parents=True, exist_ok=True)
            write_text(self.hydra / "overrides.yaml", json.dumps(overrides))  # which is YAML, too
            write_json(self.results_file, {"status": FAILED, "error": why})

    def remove_dead(self) -> None:
        """Remove the folder of a run that was killed before its configuration was written; the caller has its lock."""
        for path in (*self.hydra.glob("*.yaml"), self.path / "run.log", self.lock):
            path.unlink(missing_ok=True)
        for folder in (self.hydra, self.path):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def remove(self) -> None:
        """Remove the folder of a new run that can't start after all, with what was written of the run."""
        shutil.rmtree(self.hydra, ignore_errors=True)
        for pattern in (METRICS, "run.log", "events.out.tfevents.*"):
            for path in self.path.glob(pattern):
                path.unlink()
        self.discard()

    def discard(self) -> None:
        """Give up the folder of a run that could not start: remove its log, and the folder if it holds no more."""
        ours = {LOCK}
        for handler in list(logging.getLogger().handlers):
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == self.path.absolute():
                logging.getLogger().removeHandler(handler)
                handler.close()
                ours.add(Path(handler.baseFilename).name)
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= ours:
            for path in list(self.path.iterdir()):
                path.unlink()
        _made.add(self.path.absolute())  # Hydra makes the folder of a sweep's run
        remove_empty(self.path)


def is_result(content: Mapping[str, Any]) -> bool:
    """Whether the values of results.json that a run or a search reads again have the form that a run gives them."""
    metrics, objectives = content.get("metrics", {}), content.get("objectives", [])
    if not isinstance(metrics, dict) or not isinstance(objectives, list):
        return False
    values = [
        one.get("value") if isinstance(one, dict) else None for one in (*objectives, content.get("objective", {}))
    ]
    numbers = all(isinstance(value, int | float) for value in (values if "objective" in content else values[:-1]))
    nested = all(isinstance(one, dict | None) for one in metrics.values())
    return numbers and nested and isinstance(content.get("epochs", 0), int) and isinstance(content.get("status"), str)


# The folders that this process has made: it removes no other, however empty.
_made: set[Path] = set()


def make_folder(folder: Path, exist_ok: bool = True) -> None:
    """Make a folder and its parents, for `remove_empty` to remove if nothing comes of it.

    Raises ConfigError, one line that names the path in the way, where that is not possible.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        try:
            path.mkdir(exist_ok=exist_ok or path != folder)
        except FileExistsError:
            if path.is_symlink() and not path.exists():
                raise ConfigError(f"{path}: is a link to {path.readlink()}, which is not there") from None
            raise
        except OSError as error:
            raise ConfigError(f"{path}: can't be made ({error.strerror})") from error
        _made.add(path.absolute())
    if not missing and not exist_ok:
        raise FileExistsError(folder)


def claim_folder(folder: Path) -> Path:
    """Make `folder`, or `folder-2`, `folder-3`, … when it is taken, also by a process that starts at this moment."""
    number, candidate = 1, folder
    while True:
        try:
            make_folder(candidate, exist_ok=False)
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")


def similar_names(folder: Path) -> str:
    """`; nearest names there: …` for a folder that is not there, or nothing."""
    names = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
    near = [] if folder.exists() else difflib.get_close_matches(folder.name, names, n=3, cutoff=0.5)
    return f"; nearest names there: {', '.join(near)}" if near else ""


def remove_empty(folder: Path) -> None:
    """Remove a folder that this process made and nobody wrote into, then its parents of which that is true too."""
    folder = folder.absolute()
    while folder in _made and folder.is_dir() and not any(folder.iterdir()) and folder != Path.cwd():
        folder.rmdir()
        _made.discard(folder)
        folder = folder.parent


def find_unfinished(resume: str) -> RunFolder:
    """The folder that `resume=FOLDER` or `resume=last` means.

    `last` is the newest run in outputs/ that has neither ended (failed runs would fail again) nor is at work.
    """
    if resume != "last":
        return RunFolder(Path(resume))
    runs = [RunFolder(path.parent.parent) for path in OUTPUTS.glob(f"**/{HYDRA}/config.yaml")]

    def last_change(run: RunFolder) -> float:
        return max(path.stat().st_mtime for path in (run.last, run.hydra) if path.exists())

    unfinished = (run for run in runs if run.status() not in ENDED and not is_locked(run.lock))
    return max(unfinished, key=last_change, default=RunFolder(OUTPUTS / "last"))


def newest_run() -> Path:
    """The folder of the run in outputs/ whose best.pt is the newest. Raises ConfigError where there is none."""
    saved = [found for found in OUTPUTS.glob(f"**/{BEST}") if RunFolder(found.parent).is_run()]
    if not saved:
        raise ConfigError(f"last: {OUTPUTS}/ holds no run with a {BEST}")
    return max(saved, key=lambda found: found.stat().st_mtime).parent
