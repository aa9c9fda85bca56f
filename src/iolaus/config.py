"""Check every node of a configuration before anything is built, then build: the door between Hydra and Python.

A node with a `_target_` has one schema, the signature of what it names: `check_node` compares the two, `build`
builds. All problems of a configuration are found in one go, one line each.
"""

import difflib
import functools
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from omegaconf import OmegaConf

from iolaus.errors import ConfigError, first_line, nearest, value_error
from iolaus.schedules import TOTALS
from iolaus.settings import DatasetSettings, Launch, LossSettings, ModelSettings, SchedulerSettings

ALLOW_VARIABLE = "IOLAUS_ALLOW"
TARGETS = (
    "iolaus.*", "torch.nn.*", "torch.optim.*", "torchvision.*", "timm.*",
    "torch._C._nn.*",  # what torch.nn.functional's activations resolve to
)  # fmt: skip


def allowed_targets() -> list[str]:
    """What a `_target_` may name: our own and torch's packages, and those in $IOLAUS_ALLOW (commas between).

    The environment, not the configuration, extends the list: a downloaded config can't allow itself.
    """
    own = os.environ.get(ALLOW_VARIABLE, "").split(",")
    return [*TARGETS, *(name.strip() for name in own if name.strip())]


OWN_KEYS: dict[str, type] = {
    "dataset": DatasetSettings, "model": ModelSettings, "loss": LossSettings, "scheduler": SchedulerSettings,
}  # fmt: skip
# What the launcher gives to the built object itself, so that a signature may ask for it and a node need not.
GIVEN: dict[str, set[str]] = {
    "dataset": {"train", "split"},
    "model": {"num_classes", "in_channels", "image_size"},
    "optimizer": {"params"},
    "scheduler": {"optimizer"},
    "tracker": {"folder", "config", "purge_step", "study"},
    "augmentation": {"mirror"},
}
GROUPS = (
    "dataset", "model", "optimizer", "optimizer_groups", "scheduler", "loss", "augmentation", "trainer",
    "early_stopping", "tracker",
)  # fmt: skip
# Keys that name a function of the user's, called with each image.
FUNCTIONS = ("dataset.initial", "augmentation.transform")
# What the launcher puts in the place of null: a scheduler's length, a plateau's direction.
FILLED = {*TOTALS, "mode"}


def split_node(key: str, node: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A group's node as (our settings for it, the `_target_` node that is left)."""
    schema = OWN_KEYS[key]
    names = {f.name for f in fields(schema)}
    return (
        schema(**{k: v for k, v in node.items() if k in names}),
        {k: v for k, v in node.items() if k not in names},
    )


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value can be what a type annotation asks for; True where that can't be told."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True  # an object of its own, built first
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args and type(value) in {type(arg) for arg in args}
    if hint in (None, type(None)):
        return value is None
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if origin is tuple and args and Ellipsis not in args:
        return isinstance(value, list) and len(value) == len(args) and all(map(fits, value, args))
    if origin is dict and args:
        return isinstance(value, Mapping) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if origin in (list, tuple, typing.get_origin(typing.Sequence), typing.get_origin(typing.Iterable)):
        return isinstance(value, list) and all(fits(item, args[0]) for item in value if args)
    # a tensor or a module is an object: a number, a text or a list is none
    return not (isinstance(hint, type) and hint.__module__.startswith("torch"))


def expected(hint: Any) -> str:
    """An annotation in words: `float`, `int or null`, `min or max`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expected(arg) for arg in args)
    if origin is Literal:
        return " or ".join(map(str, args))
    if hint in (None, type(None)):
        return "null"
    if origin in (tuple, list):
        return f"a list of {', '.join(dict.fromkeys(expected(arg) for arg in args))}"
    if origin is dict:
        return "{" + ": ".join(expected(arg) for arg in args) + "}"
    return getattr(hint, "__name__", str(hint))


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that a callable can be given by name, with annotations as objects where they resolve."""
    try:
        signature = inspect.signature(target, eval_str=True)
    except (NameError, TypeError, SyntaxError):  # an annotation that exists for a type checker only
        signature = inspect.signature(target)
    return dict(signature.parameters)


def check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any], given: Set[str]) -> list[str]:
    """Problems of `arguments` as keyword arguments of `target`; `given` are the ones that come from elsewhere."""
    known = parameters(target)
    by_name = {n: p for n, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    problems = []
    for name, value in arguments.items():
        if name not in by_name or (name in given and key != "dataset"):
            if not takes_any:
                what = getattr(target, "__name__", str(target))
                problems.append(f"{key}.{name}={value}: {what} has no such argument; "
                                + nearest(name, set(by_name) - given))  # fmt: skip
            continue
        hint, default = by_name[name].annotation, by_name[name].default
        if hint is inspect.Parameter.empty or isinstance(hint, str):
            hint = type(default) if isinstance(default, bool | int | float) else Any
            hint = float | None if hint in (int, float) else hint
        if not fits(value, hint):
            problems.append(f"{key}.{name}={value}: expected {expected(hint)}")
    missing = [n for n, p in by_name.items() if p.default is p.empty and n not in arguments and n not in given]
    return problems + [f"{key}.{name}: missing, and {key}'s _target_ needs it" for name in missing]


def locate(key: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """The callable that a node's `_target_` names. Raises ConfigError when it may not be used or is not there."""
    from hydra._internal.execution_policy import _is_execution_whitelisted
    from hydra._internal.utils import _locate  # hydra.utils.get_object prints before it raises

    target = node.get("_target_")
    if not isinstance(target, str):
        raise ConfigError(f"{key}._target_={target}: must be the dotted path of a class or function")
    if not _is_execution_whitelisted(target, tuple(allowed_targets())):
        package = target.split(".")[0]
        raise ConfigError(f"{key}._target_={target}: not among the packages that may be run ({', '.join(TARGETS)}); "
                          f"to allow your own: {ALLOW_VARIABLE}='{package}.*' in the environment")  # fmt: skip
    try:
        found = _locate(target)
    except Exception as error:  # whatever importing somebody's module raises
        module, _, name = target.rpartition(".")
        names = [n for n in dir(sys.modules[module]) if not n.startswith("_")] if module in sys.modules else []
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(close)}?" if close else f": {first_line(error.__cause__ or error)}"
        raise ConfigError(f"{key}._target_={target}: not found{hint}") from error
    if not callable(found):
        raise ConfigError(f"{key}._target_={target}: is not a class or function")
    return found


def check_node(key: str, node: Mapping[str, Any], given: Set[str] = frozenset()) -> list[str]:
    """Problems of one `_target_` node and of the nodes within it, one line each."""
    try:
        target = locate(key, node)
    except ConfigError as error:
        return list(error.problems)
    arguments = {k: v for k, v in node.items() if not (k.startswith("_") and k.endswith("_"))}
    problems = check_arguments(key, target, arguments, given)
    for name, value in arguments.items():
        if isinstance(value, Mapping) and "_target_" in value:
            problems += check_node(f"{key}.{name}", value)
    return problems or (out_of_range(key, target, arguments) if is_dataclass(target) else [])


def check_function(key: str, value: Any) -> list[str]:
    """Problems of a key that names a function of the user's, which gets the image as its first argument."""
    node = function_node(value)
    if not isinstance(node, Mapping):
        return [f"{key}={value}: expected a dotted path, or _target_ with arguments"]
    try:
        target = locate(key, node)
    except ConfigError as error:
        return [problem.replace(f"{key}._target_=", f"{key}=") if node is not value else problem
                for problem in error.problems]  # fmt: skip
    return check_node(key, node, frozenset() if isinstance(target, type) else set(list(parameters(target))[:1]))


def check_settings(key: str, schema: type, values: Mapping[str, Any]) -> list[str]:
    """Problems of one of our own dataclasses: names, types, then ranges."""
    problems = check_arguments(key, schema, values, set()) or out_of_range(key, schema, values)
    return [problem.removeprefix(".") for problem in problems]  # the keys at the top have no group before them


def out_of_range(key: str, settings: Callable[..., Any], values: Mapping[str, Any]) -> list[str]:
    """The problem that a dataclass of settings finds in its values when it is made."""
    try:
        settings(**values)
    except ValueError as error:
        return list(value_error(key, error).problems)
    return []


def check(config: Mapping[str, Any], copies: Set[str] = frozenset()) -> None:
    """Check a whole configuration (plain containers). Raises ConfigError with every problem that it has.

    copies: keys whose values stand elsewhere too (interpolations): a mistake is told where it was made.
    """
    problems = check_settings("", Launch, {k: v for k, v in config.items() if not isinstance(v, Mapping)})
    for key in (str(k) for k, v in config.items() if isinstance(v, Mapping) and k not in GROUPS):
        # any other name is a table of a person's own, for values to be looked up in: ${batch_size_of.${model.name}}
        if difflib.get_close_matches(key, GROUPS, cutoff=0.75):
            problems.append(f"{key}: no such group; {nearest(key, GROUPS)}")
    for key, schema in OWN_KEYS.items():
        names = {f.name for f in fields(schema)}
        problems += check_settings(key, schema, {k: v for k, v in config[key].items() if k in names})
        node = {k: v for k, v in config[key].items() if k not in names}
        filled = {k for k in FILLED if key == "scheduler" and k in node and node[k] is None}
        node = {k: v for k, v in node.items() if k not in filled}
        problems += check_node(key, node, GIVEN.get(key, set()) | filled)
    for key in ("optimizer", "optimizer_groups", "trainer", "augmentation", "early_stopping"):
        if config.get(key):
            node = {k: v for k, v in config[key].items() if f"{key}.{k}" not in FUNCTIONS}
            problems += check_node(key, node, GIVEN.get(key, set()))
    for key in FUNCTIONS:
        group, _, name = key.partition(".")
        if (config.get(group) or {}).get(name) is not None:
            problems += check_function(key, config[group][name])
    for name, node in (config.get("tracker") or {}).items():
        problems += check_node(f"tracker.{name}", node, GIVEN["tracker"])
    if problems:
        raise ConfigError(*([p for p in problems if p.split("=")[0] not in copies] or problems))


def interpolated(config: Any) -> set[str]:
    """Keys (`group.key`) of a DictConfig whose values are copies of others."""
    return {
        f"{group}.{key}" for group, node in config.items() if OmegaConf.is_dict(node)
        for key in node if OmegaConf.is_interpolation(node, key)
    }  # fmt: skip


def factory(key: str, node: Mapping[str, Any]) -> functools.partial[Any]:
    """What a checked node names, with the node's arguments bound; nested nodes are built.

    A functools.partial of plain containers: Hydra's own can't be pickled, and omegaconf's stay out of torch.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        made = instantiate({**node, "_partial_": True}, _convert_="all", _execution_whitelist_=allowed_targets())
    except InstantiationException as error:
        raise ConfigError(f"{key}: {first_line(error.__cause__ or error)}") from error
    return functools.partial(made.func, **made.keywords)


def function_node(value: Any) -> Any:
    """A user's function as a node: a dotted path alone stands for one without arguments."""
    return {"_target_": value} if isinstance(value, str) else value


def function(key: str, value: Any) -> Callable[[Any], Any] | None:
    """What a checked key names that is to be called with an image: an object of a class, or a function.

    A class is made with the node's arguments; a function gets them after the image. None stays None.
    """
    if value is None:
        return None
    made = factory(key, function_node(value))
    if not isinstance(made.func, type):
        return made if made.keywords else made.func
    return build(key, function_node(value))


def build(key: str, node: Mapping[str, Any], **given: Any) -> Any:
    """Call what a checked node names, with its arguments and the `given` ones that its signature takes.

    Raises ConfigError, one line, when the callable refuses its arguments (ValueError, TypeError, a missing file).
    """
    made = factory(key, node)
    known = parameters(made.func)
    takes = {name: value for name, value in given.items() if name in known}
    if "num_classes" in given and any(p.kind is p.VAR_KEYWORD for p in known.values()):
        takes["num_classes"] = given["num_classes"]
    try:
        return made(**takes)
    except (ValueError, TypeError, OSError) as error:
        raise value_error(key, error, node) from error
