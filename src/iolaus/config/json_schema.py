"""`iolaus schema`: what a file of conf/ or experiments/ may hold, as a JSON schema that editors check and complete by.

Names and types are those that a command is checked by (check.py): the signatures of what the options build, and our
dataclasses of settings. Meanings, defaults and options are read from the files (reference.py).
"""

import json
import re
from collections.abc import Sequence
from importlib.metadata import version

from iolaus.command import CommandParser
from iolaus.config.check import GROUPS
from iolaus.config.json_nodes import describe_group, describe_key, has, options_by_target, refer
from iolaus.config.json_types import INTERPOLATION, Schema, near_misses
from iolaus.config.places import CONF, EXPERIMENTS, own_folder
from iolaus.config.reference import SWEEPERS, Reference
from iolaus.config.schema import parameters_of
from iolaus.settings import Launch

EXAMPLES = """\
  iolaus schema > conf/schema.json   with the options and recipes of this folder's conf/ and experiments/
"""
OWN_TABLE = "a table of your own, in which others look values up: ${table.${model.name}}"


def main(arguments: Sequence[str]) -> int:
    """The command: prints the schema of the current folder's configuration and ours."""
    CommandParser("schema", "Print a JSON schema of recipes and options, for editors.", EXAMPLES).parse_args(arguments)
    folders, recipes = ([own_folder(path.name), path] for path in (CONF, EXPERIMENTS))
    reference = Reference([folder for folder in folders if folder], [folder for folder in recipes if folder])
    print(format_schema(reference))
    return 0


def format_schema(reference: Reference) -> str:
    """The schema as JSON, a definition a line, so that a change is seen where it is."""
    schema = make_schema(reference)
    definitions = schema.pop("definitions")
    lines = [f"{dump(name)}: {dump(value)}" for name, value in {**schema, "definitions": {}}.items()]
    inside = ",\n".join(f"  {dump(name)}: {dump(value)}" for name, value in definitions.items())
    return "{\n" + ",\n".join(lines)[:-1] + "\n" + inside + "\n}}"


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def make_schema(reference: Reference) -> Schema:
    """`definitions` has the schema of a `recipe`, of `config`.yaml, and of the options of each group, by its name."""
    definitions: dict[str, Schema] = {}
    cases: list[Schema] = []
    for group in GROUPS:
        definitions |= describe_group(reference, group)
        for target, options in options_by_target(reference, group).items():
            chosen = {"type": "object", **has(f"override /{group}", {"enum": [option.name for option in options]})}
            then = {"properties": {group: {"if": {"required": ["_target_"]}, "else": refer(f"{group}({target})")}}}
            if f"{group}({target})" in definitions and group != "tracker":
                cases.append({"if": has("defaults", {"contains": chosen}), "then": then})
    definitions |= {group.replace("/", "."): describe_sweeper(reference, group) for group in SWEEPERS}
    parts = {name: refer(f"hydra.{name}") for name in ("sweeper", "launcher")}
    hydra = {"type": "object", "properties": parts}
    others = {group: refer(group) for group in GROUPS} | {"hydra": hydra, "defaults": {}}
    top = {key.name: key for key in reference.top.keys}
    definitions["all"] = {
        "type": "object",
        "allOf": cases,
        "properties": {n: describe_key(p, top.get(n)) for n, p in parameters_of(Launch).items()} | others,
        "patternProperties": near_misses(GROUPS),
        "additionalProperties": {"type": "object", "description": OWN_TABLE},
    }
    for group, named in reference.groups.items():
        definitions[f"options.{group}"] = describe_choice([*named], [option.meaning for option in named.values()])
    definitions["options.experiment"] = describe_choice(reference.recipes, [])
    for kind in ("recipe", "config"):
        definitions[f"defaults.{kind}"] = describe_defaults(reference, kind)
        definitions[kind] = {"allOf": [refer("all")], "properties": {"defaults": refer(f"defaults.{kind}")}}
    # nothing beside the definitions: an editor joins what stands here to the definition that a file names
    made = f"made by `iolaus schema`, with the signatures of torch {'.'.join(version('torch').split('.')[:2])}"
    return {"$schema": "http://json-schema.org/draft-07/schema#", "$comment": made, "definitions": definitions}


def describe_sweeper(reference: Reference, group: str) -> Schema:
    """A sweeper's node, its pruner's or a launcher's: Hydra's and Optuna's own keys stand beside our options'."""
    place, properties = group.replace("/", "."), Schema()
    for option in reference.read_options(group).values():
        for key in option.keys:
            properties.setdefault(key.name.removeprefix(f"{place}."), describe_key(None, key))
    if group == SWEEPERS[0]:
        varied = {key.name: {"description": key.meaning} for key in reference.list_keys()}
        properties |= {
            "params": {**properties["params"], "properties": varied},
            "pruner": refer("hydra.sweeper.pruner"),
        }
    return {"type": "object", "properties": properties}


def describe_defaults(reference: Reference, kind: str) -> Schema:
    """The list `defaults` of a recipe, or of config.yaml: which option of each group."""
    slash = "/" if kind == "recipe" else ""
    text, usual, patterns = {"type": ["string", "null"]}, dict[str, Schema](), dict[str, Schema]()
    for group in (*reference.groups, "experiment"):
        choice = refer(f"options.{group}")
        typed = f"override /{group}" if kind == "recipe" else group
        usual[typed] = choice
        patterns[f"^(?!{typed}$)(optional )?(override )?{slash}{re.escape(group)}(@.+)?$"] = choice
    for group in SWEEPERS:
        usual[f"override /{group}"] = {"anyOf": [{"enum": [*reference.read_options(group)]}, text]}
    patterns |= {"^(optional )?(override )?/?hydra/.+$": text, "^(optional )?/?local$": text}
    item = {"type": "object", "properties": usual, "patternProperties": patterns, "additionalProperties": False}
    words = "|".join(["_self_", *(reference.recipes if kind == "recipe" else ())])  # a recipe may begin from another
    common = {
        "type": "string",
        "pattern": f"^({words})$|[@/]",
        "patternErrorMessage": "expected override /group: option",
    }
    about = "which option of each group; what stands below changes single values"
    return {"type": "array", "description": about, "items": {"if": {"type": "object"}, "then": item, "else": common}}


def describe_choice(names: Sequence[str], meanings: Sequence[str]) -> Schema:
    """One of these options, none, several of them, or an interpolation."""
    one: Schema = {"enum": [*names, None], **({"enumDescriptions": [*meanings, "none"]} if meanings else {})}
    return {"anyOf": [one, {"type": "array", "items": one}, {"type": "string", "pattern": INTERPOLATION}]}
