"""What a configuration calls the folders that Hydra makes: read, and checked to lie where a run may write."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iolaus.files.run_folder import OUTPUTS
from iolaus.trust.command_line import CommandLine
from iolaus.trust.secrets import hide_secrets, is_secret_text, secret_values

FOLDER_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "study")


@dataclass(frozen=True)
class FolderNames:
    """The keys that name folders, and their values as text. shown: the same without what secret variables hold."""

    given: dict[str, str | None]
    shown: dict[str, str | None]


def check_folders(config: DictConfig) -> Iterator[str]:
    """Problems of the folders that Hydra makes: below outputs/, or where the command itself says."""
    return find_folder_problems(read_folders(config))


def read_folders(config: DictConfig, keys: Iterable[str] = FOLDER_KEYS) -> FolderNames:
    """What a configuration calls its folders. Raises OmegaConf's error where `hydra.run.dir` leads nowhere."""
    with hide_secrets() as secrets:
        shown = {key: select_text(config, key) for key in keys}
    given = {key: select_text(config, key) for key in keys} if secrets else dict(shown)
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        if key in given and given[key] is None:
            given[key] = str(OmegaConf.select(config, key))
    return FolderNames(given, shown)


def find_folder_problems(folders: FolderNames) -> Iterator[str]:
    """Problems of the names of folders, as for check_folders."""
    typed, study = CommandLine.instance().gives, folders.given["study"]
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        folder = str(folders.given[key])
        if not typed(key) and not is_inside(folder, OUTPUTS):
            given = f"study={study}" if study is not None and key == "hydra.sweep.dir" else f"{key}={folder}"
            yield f"{given}: leaves {OUTPUTS}/; to write elsewhere, give {key}=FOLDER on the command line"
    for key in ("hydra.sweep.subdir", "hydra.output_subdir"):
        name = folders.given[key]
        if name is not None and not is_inside(name, Path()):
            yield f"{key}={name}: must be a folder within the run's"
    for key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "study"):
        name = folders.shown[key]
        if name is not None and is_secret_text(name):
            yield f"{key}={name}: a folder is not named by a variable that looks secret"
    names = {key: folders.shown[key] for key in ("hydra.run.dir", "hydra.sweep.dir", "study")}
    chosen = {PurePath(name).name: key for key, name in names.items() if name}
    chosen |= dict.fromkeys(PurePath(names["study"] or "").parts, "study")  # which may be several folders
    for variable, secret in secret_values().items():
        if secret in chosen:
            yield f"{chosen[secret]}: is the value of {variable}, a variable that looks secret; give another name"


def select_text(config: DictConfig, key: str) -> str | None:
    """A value as text; None where it is null, or is made of what only a job knows (its number)."""
    try:
        value = OmegaConf.select(config, key, throw_on_missing=False)
    except OmegaConfBaseException:
        return None
    return None if value is None else str(value)


def is_inside(folder: str, base: Path) -> bool:
    """Whether a path, as it is written, lies within another or is it."""
    return Path(os.path.abspath(folder)).is_relative_to(base.absolute())
