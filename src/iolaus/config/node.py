"""A `_target_` node after its check: what it names, with which arguments, and how it is built."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any

from iolaus.config.schema import check_arguments, check_values, parameters_of, takes_keywords
from iolaus.errors import ConfigError, first_line, problems_of
from iolaus.trust.policy import RUN_PARTS, Policy
from iolaus.trust.targets import is_hydras, locate, nodes_below

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Node:
    """What a config key with a `_target_` names. Its errors are ConfigErrors that name the key.

    arguments: plain containers by name; a nested node among them is built when this one is. config: the whole node.
    """

    key: str
    target: Callable[..., Any]
    config: Mapping[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        return {name: value for name, value in self.config.items() if not is_hydras(name)}

    @property
    def path(self) -> str:
        """The dotted path of the target, as the config has it."""
        return str(self.config["_target_"])

    @property
    def signature(self) -> Mapping[str, inspect.Parameter]:
        return parameters_of(self.target)

    def replace(self, **arguments: object) -> "Node":
        """The same node with some arguments in place of its own."""
        return Node(self.key, self.target, {**self.config, **arguments})

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what a value of this node causes as a ConfigError that names key and argument."""
        with problems_of(self.key, self.arguments):
            yield

    def partial(self) -> functools.partial[Any]:
        """The target with the node's arguments bound; nested nodes are built."""
        return bind(self.key, self.config)

    def build(self, **given: object) -> Any:
        """Call the target with the node's arguments and those of the `given` ones that its signature takes.

        Raises ConfigError, one line, when the callable refuses its arguments (ValueError, TypeError, a missing file).
        """
        made, known = self.partial(), self.signature
        taken = {name: value for name, value in given.items() if name in known}
        if "num_classes" in given and takes_keywords(self.target):
            taken["num_classes"] = given["num_classes"]
        with self.errors():
            return made(**taken)

    def build_function(self) -> Callable[[Any], Any]:
        """The function of the user's that the node names, to be called with an image.

        A class is made with the node's arguments; a function gets them after the image.
        """
        if isinstance(self.target, type):
            made: Callable[[Any], Any] = self.build()
            return made
        bound = self.partial()
        return bound if bound.keywords else bound.func


def bind(key: str, config: Mapping[str, Any], policy: Policy = RUN_PARTS) -> functools.partial[Any]:
    """A node's target, found and allowed, with its arguments bound, in which the nodes are built.

    Hydra's `instantiate` would do it by rules of its own: resolve `${` in text a second time, and judge a target by its
    name where the policy judges the object itself.
    """
    target = locate(key, config, policy)
    arguments = {name: value for name, value in config.items() if not is_hydras(name)}
    positional = config.get("_args_") or []
    if config.get("_recursive_", True):
        arguments = {name: build_within(f"{key}.{name}", value, policy) for name, value in arguments.items()}
        positional = build_within(f"{key}._args_", positional, policy)
    return functools.partial(target, *positional, **arguments)


def build_within(key: str, value: object, policy: Policy = RUN_PARTS) -> Any:
    """A copy of a plain value in which every node is built, the innermost first. Raises ConfigError."""
    if isinstance(value, list):
        return [build_within(f"{key}[{i}]", inner, policy) for i, inner in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {name: build_within(f"{key}.{name}", inner, policy) for name, inner in value.items()}
    made = bind(key, value, policy)
    if value.get("_partial_"):
        return made
    try:
        return made()
    except Exception as error:  # whatever a callable of some library raises
        raise ConfigError(f"{key}: {first_line(error)}") from error


def read_node(
    key: str,
    config: Mapping[str, Any],
    problems: list[str],
    given: Set[str] = frozenset(),
    filled: Set[str] = frozenset(),
    inner: bool = False,
) -> Node | None:
    """Check a node and the nodes within it. Returns None, and adds to `problems`, where something is wrong.

    given: arguments that the launcher passes itself; filled: those whose null it replaces. inner: whether the node is
    within another.
    """
    found: list[str] = []
    try:
        target = locate(key, config)
    except ConfigError as error:
        problems += error.problems
        return None
    node = Node(key, target, config)
    own = {name: value for name, value in node.arguments.items() if name not in filled or value is not None}
    if inner:  # the first ones may be positional, and a function that is passed on gets the rest from its caller
        rest = [name for name in node.signature if name not in own]
        given = {*rest} if config.get("_partial_") else {*rest[: len(config.get("_args_") or [])]}
    found += check_arguments(key, target, own, given | (node.arguments.keys() - own.keys()))
    for key_below, below in nodes_below(key, {**own, "_args_": config.get("_args_")}):
        read_node(key_below, below, found, inner=True)
    if not found and is_dataclass(target):
        found += check_values(key, target, own)
    problems += found
    return None if found else node


def read_function(key: str, value: object, problems: list[str]) -> Node | None:
    """Check a key that names a function of the user's: a dotted path, or a node. None stays None."""
    if value is None:
        return None
    config = {"_target_": value} if isinstance(value, str) else value
    if not isinstance(config, Mapping):
        problems.append(f"{key}={value}: expected a dotted path, or _target_ with arguments")
        return None
    try:
        target = locate(key, config)
    except ConfigError as error:
        short = isinstance(value, str)
        problems += [p.replace(f"{key}._target_=", f"{key}=") if short else p for p in error.problems]
        return None
    image = NOTHING if isinstance(target, type) else frozenset(list(parameters_of(target))[:1])
    return read_node(key, config, problems, image)
