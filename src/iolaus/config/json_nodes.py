"""The groups of a configuration as JSON schemas: what each target's node may hold (json_schema.py)."""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter
from typing import Any

import yaml
from omegaconf import OmegaConf

from iolaus.config.check import AUTO_FILLED, INJECTED, LAUNCHER_SETTINGS
from iolaus.config.json_types import INTERPOLATION, Schema, describe_values, near_misses
from iolaus.config.reference import Key, Option, Reference
from iolaus.config.schema import hint_of, parameters_of, takes_keywords
from iolaus.errors import ConfigError
from iolaus.trust.targets import HYDRA_KEYS, locate

# what a value may be, beside what is said of it
TYPES = (
    *("type", "enum", "anyOf", "items", "minItems", "maxItems", "required", "additionalProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "pattern", "patternErrorMessage"),
)
BUILT = "dotted path of the class or function that is built"


def refer(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def has(key: str, value: Schema) -> Schema:
    """The condition that a mapping has a key with such a value."""
    return {"required": [key], "properties": {key: value}}


def options_by_target(reference: Reference, group: str) -> dict[str, list[Option]]:
    """The options of a group by what they build: their own target, or that of the option they start from."""
    options, found = reference.groups.get(group, {}), dict[str, list[Option]]()
    for option in options.values():
        line = [option, *(options[name] for name in option.extends if name in options and name != option.name)]
        target = next((one.target for one in line if one.target), reference.read_common_option(group).target)
        if target:
            found.setdefault(target, []).append(option)
    return found


def describe_group(reference: Reference, group: str) -> dict[str, Schema]:
    """Definitions by name: the group; `group()`, its node where the target is not told; `group(TARGET)` of each."""
    known = {
        key.name: key
        for options in reference.groups.values()
        for option in reversed(options.values())
        for key in reversed(option.keys)
    }
    known |= {key.name: key for key in reference.read_common(group)}
    ours = parameters_of(LAUNCHER_SETTINGS[group]) if group in LAUNCHER_SETTINGS else {}
    properties = {name: describe_key(p, known.get(f"{group}.{name}")) for name, p in ours.items()}
    options = reference.groups.get(group, {})
    if group == "tracker":  # a node for each tracker, by its name
        own = {name: describe_node(f"tracker.{name}", o.target, [o], known) for name, o in options.items() if o.target}
        others = {"additionalProperties": {"type": "object"}}
        return {group: {"type": "object", "properties": {**own, "defaults": {}}, **others}}
    targets = options_by_target(reference, group)
    nodes = {target: describe_node(group, target, options, known, ours) for target, options in targets.items()}
    hydras = {name: describe_values(kind) for name, kind in HYDRA_KEYS.items()}
    hydras["_target_"] = {"description": BUILT, "anyOf": [{"enum": [*targets]}, {"type": "string"}]}
    cases = [{"if": has("_target_", {"const": target}), "then": refer(f"{group}({target})")} for target in nodes]
    cases.append({"if": {"required": ["_target_"]}, "else": refer(f"{group}()")})
    starts = [{"enum": [*options, "_self_"]}, {"type": "string", "pattern": "[@/]"}, {"type": "object"}]
    parents = {"type": "array", "items": {"anyOf": starts}, "description": "options that this one starts from"}
    whole = {
        "type": ["object", "string"],
        "pattern": INTERPOLATION,
        "properties": {**properties, **hydras, "defaults": parents},
        "allOf": cases,
    }
    untold = merge([*nodes.values()]) if len(nodes) > 1 else refer(f"{group}({next(iter(nodes))})")
    return {group: whole, f"{group}()": untold, **{f"{group}({t})": n for t, n in nodes.items()}}


def describe_node(
    key: str, target: str, options: Sequence[Option], known: Mapping[str, Key], settings: Iterable[str] = ()
) -> Schema:
    """The node of a target: its arguments, and the keys of our settings, which the group describes.

    A target that may not run here, such as a class of the user's, takes whatever stands in its options, and more.
    """
    try:
        found = locate(key, {"_target_": target})
    except ConfigError:
        found = None
    keys = [k for option in options for k in option.keys if k.name.startswith(f"{key}.")]
    own = {k.name.removeprefix(f"{key}."): k for k in reversed(keys)}
    group = key.split(".")[0]
    given = INJECTED.get(group, frozenset()) if group != "dataset" else frozenset()
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    parameters: dict[str, Parameter | None] = dict.fromkeys(own) | {
        name: parameter
        for name, parameter in (parameters_of(found) if found else {}).items()
        if parameter.kind in kinds and (name not in given or name in own)
    }
    arguments = {
        name: describe_key(parameter, own.get(name) or known.get(f"{key}.{name}"), f"see {target}")
        for name, parameter in parameters.items()
        if name not in settings
    }
    # what stands in every option of the group is described once, by the group
    shared: Schema = {name: {} for name in (*settings, *HYDRA_KEYS, "defaults")}
    return describe_mapping(shared | arguments, found is None or takes_keywords(found))


def describe_mapping(properties: Schema, is_open: bool) -> Schema:
    """A mapping of these keys, or with others as well: then a slip of the finger is refused all the same."""
    misses = {"patternProperties": near_misses(properties)} if is_open else {}
    return {"type": ["object", "string"], "properties": properties, **misses, "additionalProperties": is_open}


def merge(nodes: Sequence[Schema]) -> Schema:
    """A node of any of these targets: all their keys, each with all that it may be."""
    keys: dict[str, list[Schema]] = {}
    for node in nodes:
        for name, value in node["properties"].items():
            keys.setdefault(name, []).append(value)
    properties: Schema = {}
    for name, values in keys.items():
        types = ({part: value[part] for part in TYPES if part in value} for value in values)
        kinds = {json.dumps(kind): kind for kind in types}
        words = [*dict.fromkeys(value["description"] for value in values if "description" in value)]
        words = [word for word in words if not word.startswith("see ")] or words[:1]
        one = {} if "{}" in kinds else {"anyOf": [*kinds.values()]} if len(kinds) > 1 else kinds.popitem()[1]
        properties[name] = {**one, **({"description": "; or: ".join(words)} if words else {})}
    return describe_mapping(properties, any(node["additionalProperties"] for node in nodes))


def describe_key(parameter: Parameter | None, key: Key | None, otherwise: str = "") -> Schema:
    """The schema of a key: its type, its meaning, its default."""
    hint = Any if parameter is None else hint_of(parameter)
    if parameter is not None and parameter.name in AUTO_FILLED and hint is not Any:
        hint |= None
    schema = describe_values(hint, parameter.name if parameter else "")
    if meaning := key.meaning if key and key.meaning else otherwise:
        schema["description"] = meaning
    if key and not re.search(INTERPOLATION, key.default):
        with contextlib.suppress(yaml.YAMLError):  # a value that goes on in the next lines
            schema["default"] = read_default(key)
    return schema


def read_default(key: Key) -> object:
    """A key's default as a plain value."""
    value: object = OmegaConf.select(OmegaConf.create(f"value: {key.default}"), "value")
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
