"""Single values of a configuration: where they are, what refers to them, and plain containers with others in place."""

import copy
import functools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

# References that depend on the task's other keys and on the environment alone; Hydra's own node is not theirs.
PURE = re.compile(r"\$\{(\.*[A-Za-z_][\w.]*\}|oc\.env:|oc\.decode:|now:)")
NAMED = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
Containers = dict[Any, Any] | list[Any]  # plain ones
Plain = TypeVar("Plain", dict[str, Any], list[Any])


@dataclass(frozen=True)
class Place:
    """A value of a configuration: the node that holds it, and the names that lead to it from the top."""

    parent: "DictConfig | ListConfig"
    path: tuple[Any, ...]

    def value(self) -> object:
        """The value as it is in plain containers, resolved."""
        found = self.parent[self.path[-1]]
        return (
            OmegaConf.to_container(found, resolve=True, throw_on_missing=True) if OmegaConf.is_config(found) else found
        )


def overlap(keys: Sequence[str]) -> bool:
    """Whether one of the keys is another, or within another."""
    return any(i != j and f"{a}.".startswith(f"{b}.") for i, a in enumerate(keys) for j, b in enumerate(keys))


def find_place(config: "DictConfig", key: str) -> Place | None:
    """The place of a single value; None where a reference or a list leads to it, or something else is there."""
    *above, name = path = tuple(key.split("."))
    node = config
    for inner in above:
        if not OmegaConf.is_dict(node) or inner not in node or OmegaConf.is_interpolation(node, inner):
            return None
        node = node[inner]
    if not OmegaConf.is_dict(node) or OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
        return None
    return None if name not in node or OmegaConf.is_config(node[name]) else Place(node, path)


def find_references(node: DictConfig | ListConfig, text: Containers, path: tuple[Any, ...] = ()) -> Iterator[Place]:
    """The places of all `${…}` in a node. text: the node as plain containers, with its `${…}` as written."""
    for name, inner in text.items() if isinstance(text, dict) else enumerate(text):
        if OmegaConf.is_interpolation(node, name):
            yield Place(node, (*path, name))
        elif isinstance(inner, dict | list):
            yield from find_references(node[name], inner, (*path, name))


def value_at(plain: Containers, path: Sequence[Any]) -> object:
    """What lies at a path of plain containers."""
    return functools.reduce(lambda inner, name: inner[name], path, plain)


def is_pure(text: object) -> bool:
    """Whether a reference is of a kind that gives the same value wherever the same keys have the same values."""
    return "hydra" not in str(text) and str(text).count("${") == len(PURE.findall(str(text)))


def is_constant(whole: Containers, key: str, varied: Collection[str]) -> bool:
    """Whether the value of a key is the same whatever the varied ones are: the time is the command's own.

    whole: a configuration as plain containers, with its `${…}` as written.
    """
    text = str(value_at(whole, key.split(".")))
    others = NAMED.findall(text)
    known = text.count("${") == text.count("${now:") + len(others)
    return (
        known
        and not any(overlap([key, one]) for one in varied)
        and all(is_constant(whole, other, varied) for other in others)
    )


def replace_value(plain: Plain, path: Sequence[Any], value: object) -> Plain:
    """Plain containers with another value at a path; all that it does not lie in are the same objects, unchanged."""
    name, *below = path
    before = cast("dict[Any, Any]", plain)[name]
    value = replace_value(before, below, value) if below else value
    if value is before or (not below and not isinstance(value, dict | list) and repr(value) == repr(before)):
        return plain
    made = copy.copy(plain)
    cast("dict[Any, Any]", made)[name] = value
    return made
