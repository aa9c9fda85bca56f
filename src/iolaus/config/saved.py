"""A saved configuration with other data in place of its own: `iolaus evaluate RUN dataset.root=…`."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iolaus.config.places import CONF
from iolaus.errors import ConfigError, first_line

# what the pictures of a run were brought to: its model has learned from these
OF_THE_MODEL = (
    "image_size", "crop_fraction", "interpolation", "resizing", "initial", "mean", "std", "mirror", "exif",
    "value_range",
)  # fmt: skip
FREE = ("trainer.tta", "trainer.precision")


def replace_data(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A saved configuration (plain containers) under overrides of its data, as they are typed.

    `dataset=OPTION` takes another dataset's option whole, `dataset.KEY=VALUE` changes a key. Raises ConfigError.
    """
    if not overrides:
        return dict(config)
    try:
        parsed = OverridesParser.create().parse_overrides([*overrides])
    except HydraException as error:
        raise ConfigError(f"{first_line(error)}; overrides are written KEY=VALUE") from error
    for override in parsed:
        check_override(override)
    try:
        made = OmegaConf.create({"dataset": config["dataset"], "trainer": config["trainer"]})
        if any(override.key_or_group == "dataset" for override in parsed):
            mine = [o.input_line or "" for o in parsed if str(o.key_or_group).startswith("dataset")]
            with initialize_config_dir(str(CONF)):
                made.dataset = compose("config", overrides=mine).dataset
        for override in parsed:
            if override.key_or_group != "dataset":
                OmegaConf.update(made, override.key_or_group, override.value(), force_add=True)
        plain: dict[str, Any] = OmegaConf.to_container(made, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{' '.join(overrides)}: {first_line(error)}") from error
    return {**config, **plain}


def check_override(override: Override) -> None:
    """Raise ConfigError for one that is not about the data, or about what the model has learned from."""
    key, line = str(override.key_or_group), override.input_line
    if override.is_sweep_override() or override.is_delete():
        raise ConfigError(f"{line}: one value, written KEY=VALUE")
    group, _, name = key.partition(".")
    if group == "dataset" and name in OF_THE_MODEL:
        raise ConfigError(f"{line}: stays as it was when the model learned; drop it")
    if group != "dataset" and key not in FREE:
        raise ConfigError(f"{line}: has no effect here; allowed: dataset=OPTION, dataset.KEY, {', '.join(FREE)}")
