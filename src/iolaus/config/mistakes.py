"""All mistakes of a command in one go: Hydra tells its first one, and ours are found only once it has composed.

What an error names is left out of the command, which is then tried again without running anything, until it passes.
"""

import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import NoReturn

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from iolaus.config.explain import explain, hydra_raises
from iolaus.config.places import CONF, all_folders
from iolaus.errors import ConfigError, RunFailed
from iolaus.trust.hydra_node import HYDRA_TARGETS
from iolaus.trust.targets import ALLOWED

MOST_MISTAKES = 20  # to find each takes about a tenth of a second
FOREIGN = (HydraException, OmegaConfBaseException, YAMLError)
CONSEQUENCE = re.compile(": missing|: has no effect|: nothing to search")  # of what was left out of a group

_rehearsing: ContextVar[bool] = ContextVar("rehearsing", default=False)


def end_rehearsal() -> None:
    """Called where a command has been checked and would begin: ends it if it is tried for its mistakes alone."""
    if _rehearsing.get():
        raise SystemExit(0)


def is_rehearsal() -> bool:
    """Whether the command is tried for its mistakes alone."""
    return _rehearsing.get()


def find_mistakes(error: BaseException) -> Iterator[str]:
    """A line for each mistake in the arguments of this process, of which `error` is the first that ended the command.

    They come one by one: the first is known at once.
    """
    lines, rest, told, groups = explain(error), sys.argv[1:], set[str](), {"hydra"}
    yield from lines
    culprits = [] if is_complete(error) else find_culprits(lines, rest)
    for _ in range(MOST_MISTAKES):
        told.update(lines)
        groups.update(group_of(key_of(one)) for one in culprits)
        found, lines = attempt(rest := without(rest, culprits)) if culprits else (None, [])
        if found is None:
            return
        culprits = [] if is_complete(found) else find_culprits(lines, rest)
        told.update(line for line in lines if CONSEQUENCE.search(line) and group_of(line) in groups)
        if culprits or isinstance(found, ConfigError):
            yield from (line for line in lines if line not in told)


def find_culprits(lines: list[str], arguments: list[str]) -> list[str]:
    """The arguments that an error's lines are about."""
    named = [argument for argument in arguments if any(is_about(line, argument) for line in lines)]
    if named:
        return named
    # a short name, a value of Hydra's grammar; options last: without one its keys mean nothing, and without a sweeper
    # or launcher those of another are wrong
    others = [one for one in arguments if is_override(one) and not key_of(one).startswith("hydra/")]
    overrides = sorted(others, key=lambda one: ("/" in key_of(one), "." not in key_of(one)))
    return next(([one] for one in overrides if attempt(without(arguments, [one]))[1] != lines), [])


def is_complete(error: BaseException) -> bool:
    """Whether an error has told all there is to tell: our check has, and a run that began and failed."""
    return isinstance(error, ConfigError | RunFailed) and error.complete


def is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def key_of(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0].partition("@")[0]


def group_of(key: str) -> str:
    return re.split("[./=:]", key)[0]


def is_about(line: str, argument: str) -> bool:
    """Whether a line is about an argument: it begins with it, with its key, or with a key below that."""
    if line.startswith(f"{argument}:"):
        return True
    key = re.sub(r"^hydra\.(job|hydra)_logging\b", "logging", key_of(argument))  # as the logging's errors name it
    # not below a group, whose keys have many sources
    ends = ("=", ":", ".") if "." in key or key == "logging" else ("=", ":")
    return is_override(argument) and line.lstrip("+~").startswith(tuple(f"{key}{end}" for end in ends))


def without(arguments: Sequence[str], culprits: Sequence[str]) -> list[str]:
    """The arguments without some, and without what means nothing then: the keys of an option that there is not."""
    below = tuple(f"{key_of(one).replace('/', '.')}." for one in culprits if is_override(one))

    def is_out(before: str, argument: str) -> bool:
        value = before in culprits and before.startswith("--") and "=" not in before + argument  # --lr 0.1
        return argument in culprits or value or (is_override(argument) and key_of(argument).startswith(below))

    return [one for before, one in zip(["", *arguments], arguments, strict=False) if not is_out(before, one)]


def attempt(arguments: Sequence[str]) -> tuple[BaseException | None, list[str]]:
    """Compose and check the command of these arguments. Returns what is wrong, and its lines; nothing is run."""

    def begin(_: object) -> NoReturn:
        raise SystemExit(0)

    with rehearse(arguments), all_folders(), hydra_raises():
        try:
            targets = [*HYDRA_TARGETS, *ALLOWED]
            hydra.main(config_path=str(CONF), config_name="config", execution_whitelist=targets)(begin)()
        except SystemExit as end:
            cause = end.__cause__
            return cause, explain(cause) if cause else []
        except Exception as error:
            return error, explain(error)
    return None, []


@contextlib.contextmanager
def rehearse(arguments: Sequence[str]) -> Iterator[None]:
    """Within it a command ends where it would begin, and shows nothing."""
    argv, token, disabled = sys.argv, _rehearsing.set(True), logging.root.manager.disable
    sys.argv = [argv[0], *arguments]
    logging.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.argv = argv
        logging.disable(disabled)
        _rehearsing.reset(token)
