"""Whether a run that is resumed is still the one that began: its configuration and its data."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from iolaus.errors import ConfigError
from iolaus.files.changes import FREE_KEYS, STARTING_KEYS, find_changes, format_changes, to_dotted_keys
from iolaus.files.moved import update_config
from iolaus.files.run_folder import RunFolder

if TYPE_CHECKING:
    from iolaus.config.build import Parts

OTHER_RUN = " holds a run of another configuration"


def check_unchanged(saved: Mapping[str, Any], parts: "Parts", folder: RunFolder) -> None:
    """Compare a checkpoint with what was built from the run's folder. Raises ConfigError with every difference."""
    problems = []
    if "config" in saved:
        then, now = (to_dotted_keys(config) for config in (update_config(saved["config"]), parts.config.plain))
        for key, (was, reads) in find_changes(then, now, (*FREE_KEYS, *STARTING_KEYS, "trainer.epochs")).items():
            problems.append(f"{key}={reads}: it was {was} when {folder} began; put it back, or start a new run")
    if saved.get("fingerprint", parts.fingerprint) != parts.fingerprint:
        began = f"{folder} began with {saved['fingerprint']}"
        problems.append(f"dataset: {parts.fingerprint}; {began}: put the data back, or start a new run")
    if problems:
        raise ConfigError(*problems)


def as_text(config: DictConfig) -> dict[str, Any]:
    """A composed configuration by dotted keys, its `${…}` as they are written."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return to_dotted_keys(plain)


def check_same_run(folder: RunFolder, config: DictConfig, text: Mapping[str, Any] | None = None) -> None:
    """Raise ConfigError where the folder holds a run of another configuration, which is not written over.

    text: the configuration as as_text gives it, where that is known.
    """
    if not folder.is_run():
        return
    if changes := find_changes(as_text(folder.saved_config()), as_text(config) if text is None else text):
        hint = "choose another study=NAME, or remove that folder"
        given = f"study={study}: " if (study := config.get("study")) else ""
        raise ConfigError(f"{given}{folder}{OTHER_RUN} ({format_changes(changes)}); {hint}")
