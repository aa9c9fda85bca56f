"""A class of the user's own in place of a default option's: that option's values do not stay behind."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iolaus.config.check import LAUNCHER_SETTINGS
from iolaus.config.places import CONF


def reset_replaced(config: DictConfig, overrides: Iterable[str], choices: Mapping[str, object]) -> None:
    """Set our keys of a group back to their defaults where `group._target_=PATH` replaced an option nobody chose.

    `dataset._target_=mine.Data` alone would have the mean, the std and the mirror of the default dataset. An option
    that is named (`loss=mse loss._target_=PATH`) is the user's word, and so is every key that is given.
    """
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for group, settings in LAUNCHER_SETTINGS.items():
        if f"{group}._target_" not in given or group in given:
            continue
        file = CONF / group / f"{choices.get(group)}.yaml"
        of_option: Any = OmegaConf.load(file) if file.is_file() else {}
        for field in fields(settings):
            name, ours = field.name, field.name in of_option and f"{group}.{field.name}" not in given
            if ours and field.default is not MISSING and config[group].get(name) == of_option[name]:
                config[group][name] = field.default
        reset_choices(config, given, group, choices)


def reset_choices(config: DictConfig, given: set[str], group: str, choices: Mapping[str, object]) -> None:
    """Set back to the usual options' values what the replaced option of a group has chosen of other groups."""
    from iolaus.config.reference import read_reference  # for classes of one's own alone

    reference = read_reference((str(CONF),))
    replaced = reference.groups[group].get(str(choices.get(group)))
    for other, _, option in (choice.partition("=") for choice in (replaced.chooses if replaced else ())):
        if other in given or choices.get(other) != option:
            continue
        options = reference.groups[other]
        usual = {key.name: key.default for key in options[reference.defaults[other]].keys}
        for key in options[option].keys:
            if key.name in usual and key.name not in given:
                chosen, before = (OmegaConf.create(f"value: {text}").value for text in (key.default, usual[key.name]))
                if OmegaConf.select(config, key.name) == chosen:
                    OmegaConf.update(config, key.name, before)
