"""What a `_target_` names: found, and allowed by the policy or by the user.

The user allows more in two ways, and a file in none: the environment variable IOLAUS_ALLOW, and a module of the current
folder that is named on the command line itself.
"""

import difflib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from iolaus.errors import ConfigError, first_line, nearest
from iolaus.files.moved import MOVED_TARGETS
from iolaus.machine.signals import defer_signals
from iolaus.trust.command_line import DOTTED_PATH, CommandLine
from iolaus.trust.policy import OWN_PARTS, READING_ARGUMENTS, RUN_PARTS, TRACKER_KEY, TRACKERS, Policy

ALLOW_VARIABLE = "IOLAUS_ALLOW"
# Read once, as this file is imported: before Hydra sets the variables of `hydra.job.env_set`, in workers too.
ALLOWED = tuple(name.strip() for name in os.environ.get(ALLOW_VARIABLE, "").split(",") if name.strip())
# What a node may say to Hydra about itself.
HYDRA_KEYS = {"_target_": str, "_partial_": bool, "_recursive_": bool, "_convert_": str, "_args_": list}


def is_hydras(name: str) -> bool:
    """Whether a key of a node is an instruction to Hydra (`_partial_`), not an argument."""
    return name.startswith("_") and name.endswith("_")


def is_allowed(target: str) -> bool:
    """Whether the user's environment allows a dotted path: by its exact name, or by its package (`name.*`)."""
    return any(target == pattern or (pattern.endswith(".*") and target.startswith(pattern[:-1])) for pattern in ALLOWED)


def nodes_in(key: str, value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key, node) of everything with a `_target_` in a plain value, itself included, at any depth."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield key, value
    for key_below, below in nodes_below(key, value):
        yield from nodes_in(key_below, below)


def nodes_below(key: str, value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key, node) of the nearest nodes within a plain value; those within them are theirs."""
    items: Iterable[tuple[str, object]] = ()
    if isinstance(value, Mapping):
        items = ((f"{key}.{name}", inner) for name, inner in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{key}[{index}]", inner) for index, inner in enumerate(value))
    for key_below, inner in items:
        if isinstance(inner, Mapping) and "_target_" in inner:
            yield key_below, inner
        else:
            yield from nodes_below(key_below, inner)


def locate(key: str, node: Mapping[str, Any], policy: Policy = RUN_PARTS) -> Callable[..., Any]:
    """Return the callable that a node's `_target_` names. Raises ConfigError where it is not allowed or not there."""
    target = node.get("_target_")
    where = f"{key}._target_={target}"
    if not isinstance(target, str) or not DOTTED_PATH.fullmatch(target):
        raise ConfigError(f"{where}: must be the dotted path of a class or function")
    for name, value in node.items():
        kind = HYDRA_KEYS.get(name)
        if is_hydras(str(name)) and (kind is None or not isinstance(value, kind)):
            raise ConfigError(f"{key}.{name}={value}: {nearest(str(name), HYDRA_KEYS)}")
    users_own = is_users_own(where, target)
    if not users_own:
        refuse_by_name(key, target, policy)
    try:
        with defer_signals():
            found: Callable[..., Any] = pkgutil.resolve_name(target)
    except Exception as error:  # whatever importing the user's module raises
        what = "not found" if isinstance(error, AttributeError | ModuleNotFoundError) else "can't be imported"
        raise ConfigError(f"{where}: {what}{_hint(target, error)}") from error
    if not callable(found):
        raise ConfigError(f"{where}: is not a class or function")
    if not users_own:
        refuse_by_kind(key, node, found, policy)
    return found


def is_users_own(where: str, target: str) -> bool:
    """Whether the user allowed a target; its module can then be imported. `where`: the key, for an error's line."""
    command_line = CommandLine.instance()
    named = command_line.names(target) and command_line.file_of(target) is not None
    if is_allowed(target):
        command_line.import_from_folder(target)
        return True
    if not named:
        return False
    command_line.import_from_folder(target)
    spec, file = importlib.util.find_spec(target.split(".")[0]), command_line.file_of(target)
    if spec is None or spec.origin is None or file is None or not file.samefile(spec.origin):
        raise ConfigError(f"{where}: an installed module has that name; rename {file}")
    return True


def refuse_by_name(key: str, target: str, policy: Policy) -> None:
    """Raise ConfigError for a target that is not even looked at: importing a module can run code."""
    where = f"{key}._target_={target}"
    if not target.startswith(policy.packages):
        packages = ", ".join(f"{name}*" if name.endswith(".") else name for name in policy.packages)
        door = _door(key, target)
        raise ConfigError(
            f"{where}: not among the packages that may be run ({packages}); to allow your own: {door}", complete=True
        )
    if target.startswith("iolaus.") and target not in OWN_PARTS:
        if target in TRACKERS and TRACKER_KEY.fullmatch(key):
            return
        if target in MOVED_TARGETS:
            raise ConfigError(f"{where}: not found{_hint(target, KeyError(target))}")
        only = "only as tracker.NAME" if target in TRACKERS else f"no part of a run; {nearest(target, OWN_PARTS)}"
        raise ConfigError(f"{where}: {only}", complete=True)


def refuse_by_kind(key: str, node: Mapping[str, Any], found: Callable[..., Any], policy: Policy) -> None:
    """Raise ConfigError for a target of a known package that is of no kind which a run is made of."""
    target = str(node["_target_"])
    if target not in TRACKERS and not policy.permits(target, found):
        raise ConfigError(
            f"{key}._target_={target}: a configuration may name {policy.kinds}, and this is none; "
            f"to allow it all the same: {ALLOW_VARIABLE}='{target}' in the environment",
            complete=True,
        )
    for name in READING_ARGUMENTS & node.keys():
        raise ConfigError(
            f"{key}.{name}={node[name]}: has {target} use files of the configuration's choice; "
            f"for weights of your own: model.weights=FILE",
            complete=True,
        )


def _door(key: str, target: str) -> str:
    """How the user allows a target."""
    allow = f"{ALLOW_VARIABLE}='{target.split('.')[0]}.*' in the environment"
    if CommandLine.instance().file_of(target) is None:
        return allow
    return f"name it on the command line itself ({key}._target_={target}), or {allow}"


def _hint(target: str, error: Exception) -> str:
    """What the user may have meant, else why the target was not found."""
    if target in MOVED_TARGETS:
        return f"; it is {MOVED_TARGETS[target]} now"
    module, _, name = target.rpartition(".")
    names = [n for n in dir(sys.modules[module]) if not n.startswith("_")] if module in sys.modules else []
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f": {first_line(error.__cause__ or error)}"
