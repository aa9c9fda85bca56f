"""Errors as a user reads them: what was given, what is allowed, the nearest match; one line each."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any


class ConfigError(Exception):
    """What is wrong with a configuration: `problems`, one line each, written for the user who typed it.

    told: whether the user has read them already. complete: whether no other mistake of the command hides behind them.
    """

    told = False

    def __init__(self, *problems: str, complete: bool = False) -> None:
        super().__init__("\n".join(problems))
        self.problems, self.complete = problems, complete


class RunFailed(Exception):
    """A run that can't go on; the message is one line for the user, who has read it already if it is `told`."""

    told, complete = False, True


# errors whose message is made to be read; others are known by their names
SPEAKING = (ValueError, TypeError, OSError, RuntimeError)


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, else its name. A line that ends in a colon brings the next."""
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {others[0]}" if first.endswith(":") and others else first


def describe_error(error: BaseException) -> str:
    """An error's name and its first line, for what is no user error."""
    return f"{type(error).__name__}: {first_line(error)}"


def printable(name: str) -> str:
    """A file's or class's name for a message: control characters and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`did you mean …` and all that is allowed, for the end of an error line."""
    names = sorted(str(name) for name in allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.65)
    close = close or [name for name in names if len(word) > 2 and word in name][:3]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}allowed: {', '.join(names) if names else 'none'}"


def value_error(key: str, error: Exception, node: Mapping[str, Any] = MappingProxyType({})) -> ConfigError:
    """The error that a value below `key` caused as one that names the key and, where `node` tells, the argument."""
    line = first_line(error)
    if not isinstance(error, SPEAKING):  # "list index out of range" alone says little
        line = f"{type(error).__name__}: {line}"
    if re.match(r"\w+=", line):
        return ConfigError(f"{key}.{line}")
    numbers = {k: v for k, v in node.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    named = [k for k, v in numbers.items() if re.search(rf"(?<![\w.]){re.escape(str(v))}(?![\w.])", line)]
    return ConfigError(f"{key}.{named[0]}={node[named[0]]}: {line}" if len(named) == 1 else f"{key}: {line}")


@contextlib.contextmanager
def problems_of(key: str, node: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Raise whatever a config value causes as a ConfigError that names its key (see value_error)."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise value_error(key, error, node) from error
