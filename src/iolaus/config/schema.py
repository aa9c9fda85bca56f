"""The signature of a callable as the schema of a node's arguments: names, types, and what is missing."""

import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Literal

from iolaus.config.quoting import quote_value
from iolaus.errors import nearest, value_error

NULL = (None, type(None))
SEQUENCES = (list, tuple, Sequence, Iterable)
MAPPINGS = (dict, Mapping)


@functools.lru_cache(1000)
def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a callable by name, with annotations as objects where they resolve."""
    try:
        signature = inspect.signature(target, eval_str=True)
    except (NameError, TypeError, SyntaxError):  # an annotation that exists for a type checker only
        signature = inspect.signature(target)
    except ValueError:  # a function of C++ without a signature: it checks its arguments itself
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}
    return signature.parameters


def hint_of(parameter: inspect.Parameter) -> Any:
    """The annotation of a parameter; without one that resolves, what its default is."""
    hint, default = parameter.annotation, parameter.default
    if hint is inspect.Parameter.empty or isinstance(hint, str):
        hint = type(default) if isinstance(default, bool | int | float) else Any
        hint = float | None if hint in (int, float) else hint
    return hint


def takes_keywords(target: Callable[..., Any]) -> bool:
    """Whether a callable takes any keyword argument (`**kwargs`)."""
    return any(p.kind is p.VAR_KEYWORD for p in parameters_of(target).values())


def fits(value: object, hint: Any) -> bool:
    """Whether a plain config value can be what a type annotation asks for; True where that can't be told."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True  # an object of its own, built first
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args and type(value) in {type(arg) for arg in args}
    if hint in NULL:
        return value is None
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if origin is tuple and args and Ellipsis not in args:
        return isinstance(value, list) and len(value) == len(args) and all(map(fits, value, args))
    if origin is dict and args:
        return isinstance(value, Mapping) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if origin in SEQUENCES:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value if args)
    # a tensor or a module is an object: a number, a text or a list is none
    return not is_object(hint)


TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Any: "any value"}
PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}


def describe_type(hint: Any) -> str:
    """An annotation in words: `a number`, `a whole number or null`, `min or max`, `a list of 2 numbers`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        plain = [arg for arg in args if not is_object(arg)]  # a tensor can't be typed
        named = plain if {*plain} - {*NULL} else args
        kinds = [arg for arg in named if not (arg is int and float in named)]  # a whole number is a number
        return " or ".join(dict.fromkeys(describe_type(arg) for arg in kinds))
    if origin is Literal:
        return " or ".join(map(str, args))
    if hint in NULL:
        return "null"
    if hint in SEQUENCES or origin in SEQUENCES:
        count = f"{len(args)} " if origin is tuple and args and Ellipsis not in args else ""
        items = dict.fromkeys(describe_type(arg) for arg in args if arg not in (Ellipsis, Any))
        return f"a list of {count}{' or '.join(PLURALS.get(item, item) for item in items)}" if items else "a list"
    if hint in MAPPINGS or origin in MAPPINGS:
        return "{" + ": ".join(map(describe_type, args)) + "}" if args else "{key: value}"
    return TYPE_WORDS.get(hint, f"an object ({getattr(hint, '__name__', hint)})")


def is_object(hint: Any) -> bool:
    """Whether an annotation asks for an object of torch, which no plain value is."""
    return isinstance(hint, type) and hint.__module__.startswith("torch")


# Ranges of arguments of torch's that it takes in silence, by name: (least, most) and what is allowed, in words.
ALLOWED_NUMBERS = {
    **dict.fromkeys(("lr", "eta_min", "patience", "cooldown", "threshold", "eps"), (0.0, math.inf, "0 or more")),
    **dict.fromkeys(("max_lr", "step_size", "div_factor", "final_div_factor"), (1e-300, math.inf, "above 0")),
    **dict.fromkeys(("label_smoothing", "pct_start"), (0.0, 1.0, "from 0 to 1")),
}


def check_number(name: str, value: object, default: object) -> str | None:
    """What a number must be and is not: finite (unless it is the default), and in the range of its name."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value == default:
        return None
    if not math.isfinite(value):
        return "a finite number"
    least, most, words = ALLOWED_NUMBERS.get(name, (-math.inf, math.inf, ""))
    return None if least <= value <= most else words


def check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any], given: Set[str]) -> list[str]:
    """Problems of `arguments` as keyword arguments of `target`; the launcher itself passes the `given` ones."""
    known = parameters_of(target)
    by_name = {n: p for n, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    name_of_target, problems = getattr(target, "__name__", str(target)), []
    for name, value in arguments.items():
        if name not in by_name or (name in given and key != "dataset"):
            if not takes_keywords(target):
                known_names = nearest(name, set(by_name) - given)
                whose = f"{name_of_target} has no such argument" if key else "no such key"
                problems.append(f"{key}.{name}={value}: {whose}; {known_names}")
            continue
        hint, default = hint_of(by_name[name]), by_name[name].default
        if not fits(value, hint):
            problems.append(f"{key}.{name}={value}: expected {describe_type(hint)}{hint_type(key, name, value, hint)}")
        elif allowed := check_number(name, value, default):
            problems.append(f"{key}.{name}={value}: must be {allowed}")
    missing = [n for n, p in by_name.items() if p.default is p.empty and n not in arguments and n not in given]
    return problems + [f"{key}.{name}: missing, and {key}'s _target_ needs it" for name in missing]


def hint_type(key: str, name: str, value: object, hint: object) -> str:
    """How to give a value as a text, or as a number, where it is of the other kind."""
    if isinstance(value, bool | int | float) and fits("", hint):
        return f"; to give it as a text: {quote_value(f'{key}.{name}'.removeprefix('.'), value)}"
    if isinstance(value, str) and fits(1, hint) and (found := re.fullmatch(r"(\d{1,6})(?:-|\.\.|:)(\d{1,6})", value)):
        several = f"{key}.{name}".removeprefix(".") + f"=range({found[1]},{int(found[2]) + 1})"
        return f"; several are a sweep: -m '{several}'"
    if (
        isinstance(value, str)
        and (fits(1, hint) or fits(1.0, hint))
        and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", value)
    ):
        return f"; it is a text; a variable as a number: '{key}.{name}=\"${{oc.decode:${{oc.env:NAME}}}}\"'"
    return ""


def check_values(key: str, settings: Callable[..., Any], values: Mapping[str, Any]) -> list[str]:
    """The problem that a dataclass of settings finds in its values when it is made."""
    try:
        settings(**values)
    except ValueError as error:
        return list(value_error(key, error).problems)
    return []
