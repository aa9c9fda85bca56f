"""A class of the user's own in place of a default option's: that option's values do not stay behind."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import cast

from omegaconf import DictConfig, OmegaConf

from iolaus.config.check import LAUNCHER_SETTINGS
from iolaus.config.places import CONF

CHOICE = re.compile(r"override /(\w+)@")
PACKAGES = {"batch_size": "trainer"}  # of groups whose keys are another's


def reset_replaced(config: DictConfig, overrides: Iterable[str], choices: Mapping[str, object]) -> None:
    """Set our keys of a group back to their defaults where `group._target_=PATH` replaced an option nobody chose.

    `dataset._target_=mine.Data` alone would have the mean, the std and the mirror of the default dataset. An option
    that is named (`loss=mse loss._target_=PATH`) is the user's word, and so is every key that is given.
    """
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for group, settings in LAUNCHER_SETTINGS.items():
        if f"{group}._target_" not in given or group in given:
            continue
        of_option = read_option_file(f"{group}/{choices.get(group)}")
        for field in fields(settings):
            name, ours = field.name, field.name in of_option and f"{group}.{field.name}" not in given
            if ours and field.default is not MISSING and config[group].get(name) == of_option[name]:
                config[group][name] = field.default
        for other, option in choices_of(of_option).items():
            if other not in given and choices.get(other) == option:
                reset_choice(config, given, other, option)


def choices_of(option: DictConfig) -> dict[str, str]:
    """{group: option} that an option's file chooses of other groups."""
    entries = [entry for entry in option.get("defaults", ()) if OmegaConf.is_dict(entry)]
    found = [(CHOICE.match(str(key)), name) for entry in entries for key, name in entry.items()]
    return {match[1]: str(name) for match, name in found if match}


def reset_choice(config: DictConfig, given: set[str], group: str, option: str) -> None:
    """Set what an option that a dataset has chosen of another group changes back to the values of the usual option."""
    entries = [entry for entry in read_option_file("config").defaults if OmegaConf.is_dict(entry)]
    usual, package = next(entry[group] for entry in entries if group in entry), PACKAGES.get(group, group)
    chosen, before = read_option_file(f"{group}/{option}"), read_option_file(f"{group}/{usual}")
    for name in map(str, (chosen.keys() & before.keys()) - {"defaults"}):
        if f"{package}.{name}" not in given and config[package].get(name) == chosen[name]:
            config[package][name] = before[name]


def read_option_file(name: str) -> DictConfig:
    """A file of conf/ as it is written; empty where it is not there."""
    file = CONF / f"{name}.yaml"
    return cast("DictConfig", OmegaConf.load(file)) if file.is_file() else OmegaConf.create()
