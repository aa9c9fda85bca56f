"""A type annotation as a JSON schema: what `schema.fits` takes, as editors check it. Interpolations fit everywhere."""

import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from iolaus.config.schema import ALLOWED_NUMBERS, NULL, SEQUENCES, describe_type, is_object

Schema = dict[str, Any]

SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}
INTERPOLATION = r"\$\{|^\?\?\?$"  # or ???, a value that is still to be given


def describe_values(hint: object, name: str = "") -> Schema:
    """The schema of the values that an annotation asks for; {}, anything, where that can't be told.

    name: of the argument, which may have a range (schema.ALLOWED_NUMBERS).
    """
    kinds: list[str] = []
    others: list[Schema] = []
    for arm in list_arms(hint):
        origin, args = typing.get_origin(arm), typing.get_args(arm)
        if arm in NULL:
            kinds.append("null")
        elif arm in SCALARS:
            kinds.append(SCALARS[arm])
        elif origin is Literal:
            others.append({"enum": [*args]})
        elif origin is tuple and args and Ellipsis not in args:
            items = [describe_values(arg) for arg in args]
            others.append({"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)})
        elif origin is dict and args:
            others.append({"type": "object", "additionalProperties": describe_values(args[1])})
        elif origin in SEQUENCES or arm is list:
            others.append({"type": "array", **({"items": describe_values(args[0])} if args else {})})
        elif not is_object(arm):
            return {}
    if not kinds and not others:  # an object of torch's, built by a node
        return {"type": ["object", "string"], "required": ["_target_"], "pattern": INTERPOLATION}
    if "string" not in kinds:
        words = f"expected {describe_type(hint)}, or an interpolation"
        others.append({"type": [*kinds, "string"], "pattern": INTERPOLATION, "patternErrorMessage": words})
    else:
        others.append({"type": kinds if kinds[1:] else "string"})
    others[-1] |= describe_range(name) if {"integer", "number"} & {*kinds} else {}
    return others[0] if len(others) == 1 else {"anyOf": others}


def list_arms(hint: object) -> list[Any]:
    """The alternatives of an annotation, itself where it has none."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [arm for arg in typing.get_args(hint) for arm in list_arms(arg)]
    return [hint]


def describe_range(name: str) -> Schema:
    """The range of a number that has this name."""
    least, most, _ = ALLOWED_NUMBERS.get(name, (-math.inf, math.inf, ""))
    lower = {"exclusiveMinimum": 0} if 0 < least < 1e-100 else {"minimum": least} if math.isfinite(least) else {}
    return {**lower, **({"maximum": most} if math.isfinite(most) else {})}


def near_misses(names: Iterable[str]) -> Schema:
    """patternProperties that refuse what is one slip of the finger away from a name: where other names are allowed."""
    return {pattern_of_misses(name): False for name in names if len(name) > 3}


def pattern_of_misses(name: str) -> str:
    """One letter too many, too few, another one, or two of them exchanged."""
    slips = {f"{name[:i]}.{name[i:]}" for i in range(len(name) + 1)}
    slips |= {f"{name[:i]}.?{name[i + 1 :]}" for i in range(len(name))}
    slips |= {f"{name[:i]}{name[i + 1]}{name[i]}{name[i + 2 :]}" for i in range(len(name) - 1)}
    return f"^(?!{re.escape(name)}$)({'|'.join(sorted(slips))})$"
