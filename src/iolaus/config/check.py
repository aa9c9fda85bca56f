"""A composed configuration, checked: all mistakes in one go, one line each, or a typed RunConfig.

A node with a `_target_` has one schema, the signature of what it names (schema.py); keys of our own are dataclasses
with ranges (settings.py).
"""

import difflib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from iolaus.config.loss_and_scheduler import LossSettings, SchedulerSettings
from iolaus.config.node import Node, read_function, read_node
from iolaus.config.schema import check_arguments, check_values
from iolaus.errors import ConfigError, nearest
from iolaus.methods.schedules import TOTALS
from iolaus.settings import DatasetSettings, Launch, ModelSettings, OptimizerGroups, Trainer
from iolaus.trust.policy import TRACKERS
from iolaus.trust.secrets import hide_secrets

# The groups whose node holds keys for the launcher beside those of its target.
LAUNCHER_SETTINGS = {
    "dataset": DatasetSettings, "model": ModelSettings, "loss": LossSettings, "scheduler": SchedulerSettings,
}  # fmt: skip
# Arguments that the launcher passes to a built object itself: a signature may ask for them, a node need not have them.
INJECTED: dict[str, frozenset[str]] = {
    "dataset": frozenset({"train", "split"}),
    "model": frozenset({"num_classes", "in_channels", "image_size"}),
    "optimizer": frozenset({"params"}),
    "scheduler": frozenset({"optimizer"}),
    "tracker": frozenset({"folder", "config", "purge_step", "study", "varied"}),
    "augmentation": frozenset({"mirror"}),
}
# Arguments of a scheduler whose null the launcher replaces: its length, and a plateau's direction.
AUTO_FILLED = frozenset({*TOTALS, "mode"})
GROUPS = (
    "dataset", "model", "optimizer", "optimizer_groups", "scheduler", "loss", "augmentation", "trainer",
    "early_stopping", "tracker",
)  # fmt: skip

REQUIRED = ("dataset", "model", "optimizer", "optimizer_groups", "scheduler", "loss", "trainer")

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class RunConfig:
    """A checked configuration: typed settings of our own, and a Node for everything that is built.

    initial, transform: functions of the user's for images, see DatasetSettings and Augmentation. plain: the whole
    configuration as plain containers, for results.json and the trackers.
    """

    launch: Launch
    trainer: Trainer
    optimizer_groups: OptimizerGroups
    dataset: DatasetSettings
    dataset_node: Node
    initial: Node | None
    model: ModelSettings
    model_node: Node
    loss: LossSettings
    loss_node: Node
    scheduler: SchedulerSettings
    scheduler_node: Node
    optimizer_node: Node
    augmentation_node: Node | None
    transform: Node | None
    early_stopping_node: Node | None
    tracker_nodes: dict[str, Node]
    plain: dict[str, Any]


def check(
    config: Mapping[str, Any],
    copies: Set[str] = frozenset(),
    shown: Mapping[str, Any] | None = None,
    known: dict[str, tuple[object, dict[str, Any]]] | None = None,
) -> RunConfig:
    """Check a whole configuration (plain containers). Raises ConfigError with every problem that it has.

    copies: keys whose values stand elsewhere too (interpolations): a mistake is told where it was made. shown: the
    configuration without the values of secret variables (secrets.py), where it has any. known: for one configuration
    after the other: a group that is the same object as in the one before is not read again.
    """
    shown, known = config if shown is None else shown, {} if known is None else known
    if missing := [key for key in REQUIRED if not isinstance(config.get(key), Mapping)]:
        raise ConfigError(*(f"{key}: missing; the configuration has no such group" for key in missing))
    problems: list[str] = []
    parts: dict[str, Any] = {"plain": dict(shown)}
    at_top = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    parts["launch"] = read_settings("", Launch, at_top, problems)
    problems += check_groups(config)
    for part, (key, read) in READERS.items():
        values = config.get(key)
        if part not in known or known[part][0] is not values:
            found: list[str] = []
            made = read(key, values, found)
            problems += found
            parts |= made
            if not found:
                known[part] = values, made
        else:
            parts |= known[part][1]
    trackers = config.get("tracker") or {}
    for name in [name for name, node in trackers.items() if not isinstance(node, Mapping)]:
        problems.append(f"tracker.{name}={trackers[name]}: must be a tracker with a _target_; none: tracker=none")
    parts["tracker_nodes"] = {
        name: read_node(f"tracker.{name}", node, problems, INJECTED["tracker"])
        for name, node in trackers_of(config, shown).items()
    }
    if problems:
        raise ConfigError(*([p for p in problems if p.split("=")[0] not in copies] or problems), complete=True)
    return RunConfig(**parts)


def read_launcher_group(key: str, values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The settings and the node of a group that holds both."""
    own, node = split_settings(values, LAUNCHER_SETTINGS[key])
    settings = read_settings(key, LAUNCHER_SETTINGS[key], own, problems)
    filled = AUTO_FILLED if key == "scheduler" else frozenset()
    return {key: settings, f"{key}_node": read_node(key, node, problems, INJECTED.get(key, frozenset()), filled)}


def read_group(key: str, values: Mapping[str, Any] | None, problems: list[str]) -> dict[str, Any]:
    """The node of a group that holds its target's arguments alone; None where there is none."""
    given = {name: value for name, value in (values or {}).items() if (key, name) != ("augmentation", "transform")}
    return {f"{key}_node": read_node(key, given, problems, INJECTED.get(key, frozenset())) if given else None}


def read_function_of(name: str) -> Callable[[str, Any, list[str]], dict[str, Any]]:
    """A reader of a key of a group that names a function of the user's."""
    return lambda key, values, problems: {name: read_function(f"{key}.{name}", (values or {}).get(name), problems)}


def trackers_of(config: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of the trackers. Ours, which send their arguments on, get no secret; the user's own may need one."""
    given, public = config.get("tracker") or {}, shown.get("tracker") or {}
    return {
        name: public[name] if isinstance(node, Mapping) and node.get("_target_") in TRACKERS else node
        for name, node in given.items()
        if isinstance(node, Mapping)
    }


def split_settings(config: Mapping[str, Any], schema: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """A group's keys as (those of our settings dataclass, those of the `_target_` node that is left)."""
    names = {field.name for field in fields(schema)}
    own = {key: value for key, value in config.items() if key in names}
    return own, {key: value for key, value in config.items() if key not in names}


def read_settings(key: str, schema: type[Settings], values: Mapping[str, Any], problems: list[str]) -> Settings | None:
    """One of our own dataclasses from its values, checked: names, types, then ranges."""
    found = check_arguments(key, schema, values, frozenset()) or check_values(key, schema, values)
    problems += [problem.removeprefix(".") for problem in found]  # the keys at the top have no group before them
    return None if found else schema(**values)


def read_own_node(key: str, values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """A group that can only be our own dataclass; its `_target_` says so to the reader of the file."""
    schema = {"trainer": Trainer, "optimizer_groups": OptimizerGroups}[key]
    ours = f"{schema.__module__}.{schema.__qualname__}"
    if values.get("_target_", ours) != ours:
        problems.append(f"{key}._target_={values['_target_']}: must be {ours}")
        return {key: None}
    given = {name: value for name, value in values.items() if name != "_target_"}
    return {key: read_settings(key, schema, given, problems)}


# part -> (the group that it is read from, what reads it into fields of RunConfig)
READERS: dict[str, tuple[str, Callable[[str, Any, list[str]], dict[str, Any]]]] = {
    **{key: (key, read_launcher_group) for key in LAUNCHER_SETTINGS},
    "optimizer": ("optimizer", read_group),
    "optimizer_groups": ("optimizer_groups", read_own_node),
    "trainer": ("trainer", read_own_node),
    "augmentation": ("augmentation", read_group),
    "early_stopping": ("early_stopping", read_group),
    "initial": ("dataset", read_function_of("initial")),
    "transform": ("augmentation", read_function_of("transform")),
}


def check_groups(config: Mapping[str, Any]) -> list[str]:
    """Problems of the names at the top: one that is nearly a group's is a mistake.

    Any other name is a table of the user's, for values to be looked up in: ${batch_size_of.${model.name}}.
    """
    files = [key for key in ("experiment", "local") if isinstance(config.get(key), Mapping)]
    if files:
        return [
            f"{key}: the file lacks its first line, # @package _global_; without it nothing reads it" for key in files
        ]
    others = [str(key) for key, value in config.items() if isinstance(value, Mapping) and key not in GROUPS]
    wrong = [key for key in others if difflib.get_close_matches(key, GROUPS, cutoff=0.75)]
    return [f"{key}: no such group; {nearest(key, GROUPS)}" for key in wrong]


def check_composed(
    config: DictConfig,
    resolved: dict[str, Any] | None = None,
    known: dict[str, tuple[object, dict[str, Any]]] | None = None,
) -> RunConfig:
    """Check a composed configuration of Hydra's (without its own node). Raises ConfigError.

    resolved: the same as plain containers, where that is known and no secret variable is in it. known: as for `check`.
    """
    if resolved is None:
        with hide_secrets() as secrets:
            shown = resolve_all(config)
        plain = resolve_all(config) if secrets else shown
    else:
        plain = shown = resolved
    try:
        return check(plain, shown=shown, known=known)
    except ConfigError:
        return check(plain, find_interpolations(config), shown)  # raises: of copies, the original is named


def resolve_all(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain containers, every value known."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return plain


def find_interpolations(config: DictConfig) -> set[str]:
    """Keys (`group.key`) of a DictConfig whose values are copies of others."""
    nodes = {group: node for group, node in config.items() if isinstance(node, DictConfig)}
    keys = ((group, node, str(key)) for group, node in nodes.items() for key in node)
    return {f"{group!s}.{key}" for group, node, key in keys if OmegaConf.is_interpolation(node, key)}
