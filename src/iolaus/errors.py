"""Errors as a person reads them: what was given, what is allowed, the nearest match; one line each."""

import contextlib
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from iolaus.stopping import RunFailed


class ConfigError(Exception):
    """What is wrong with a configuration: `problems`, one line each, written for the person who typed it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, else its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`did you mean …` and all that is allowed, for the end of an error line."""
    names = sorted(str(name) for name in allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(names) if names else 'none'}"


def value_error(key: str, error: Exception, node: Mapping[str, Any] = MappingProxyType({})) -> ConfigError:
    """An error that a value below `key` has caused, with the key before it; with `node` also the argument, if clear."""
    line = first_line(error)
    if re.match(r"\w+=", line):
        return ConfigError(f"{key}.{line}")
    numbers = {k: v for k, v in node.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    named = [k for k, v in numbers.items() if re.search(rf"(?<![\w.]){re.escape(str(v))}(?![\w.])", line)]
    return ConfigError(f"{key}.{named[0]}={node[named[0]]}: {line}" if len(named) == 1 else f"{key}: {line}")


def explain(error: BaseException) -> list[str]:
    """One line for each problem in an error that a person's input has caused: ours, Hydra's or omegaconf's."""
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, ConfigError):
        return list(error.problems)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = [name for name in error.options if not name.startswith("_")]
        return [f"{group}={option}: no such option; {nearest(option, options)}"]
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, MissingMandatoryValue):
        return [f"{cause.full_key}: missing; give it as {cause.full_key}=VALUE"]
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        parent = cause.parent_node if OmegaConf.is_dict(cause.parent_node) else {}
        keys = [str(k) for k in parent if not str(k).startswith("_") and k != "hydra"]
        target = str(parent.get("_target_", "iolaus.settings"))  # our own settings take no further argument
        argument = "" if target.startswith("iolaus.settings") else (
            f"; an argument that the file does not list: +{cause.full_key}=VALUE")  # fmt: skip
        return [f"{cause.full_key}: no such key; {nearest(str(cause.key), keys)}{argument}"]
    lines = [line.strip() for line in [*str(error).splitlines(), *str(cause or "").splitlines()] if line.strip()]
    noise = ("full_key:", "object_type=", "reference_type=", "To append to your config", "See https", "^")
    return ["; ".join(dict.fromkeys(line for line in lines if not line.startswith(noise)))]


def raised_in(error: BaseException, package: str) -> bool:
    """Whether the line that raised an error is one of a package's."""
    last = list(traceback.walk_tb(error.__traceback__))[-1][0]
    return str(last.f_globals.get("__name__", "")).partition(".")[0] == package


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Print what a person's input has caused as one line each and exit with 2; HYDRA_FULL_ERROR=1 raises it.

    A run that can't go on (its loss is no number, an image is broken) is one line too, and exit status 1.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    full = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, and what is shown is decided here

    def end(error: BaseException, status: int) -> NoReturn:
        if full:
            raise error
        for line in explain(error):
            print(f"iolaus: {line}", file=sys.stderr)
        sys.exit(status)

    try:
        yield
    except SystemExit as error:
        if error.__cause__ is None:
            raise
        end(error.__cause__, int(error.code or 0))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        end(error, 2)
    except RunFailed as error:
        end(error, 1)
    except ValueError as error:
        if raised_in(error, "hydra"):  # options that exclude each other: -m --cfg job
            end(error, 2)
        raise
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def problems_of(key: str, node: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Errors that a config value has caused, as ConfigErrors that name the key (see value_error)."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise value_error(key, error, node) from error
