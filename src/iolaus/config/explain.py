"""User errors at the door: ours, Hydra's and omegaconf's as one line each, and the exit status."""

import argparse
import contextlib
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from yaml import YAMLError

import iolaus
from iolaus.command import end_with_the_reader, explain_argument, train_command
from iolaus.config.options import CHOICES, explain_choice, explain_group, explain_list, explain_option, find_option
from iolaus.config.places import all_folders
from iolaus.config.quoting import explain_unread, find_spaces
from iolaus.errors import ConfigError, RunFailed, first_line, nearest, printable
from iolaus.files.faults import explain_fault

SHORT_NAMES = ("lr", "wd", "epochs", "device", "precision", "root")  # hydra.aliases of conf/config.yaml
OTHER_NAMES = {  # of other programs, without - and _
    "learningrate": "lr", "weightdecay": "wd", "numepochs": "epochs", "nepochs": "epochs", "maxepochs": "epochs",
    "gradientclipval": "trainer.grad_clip_norm", "maxgradnorm": "trainer.grad_clip_norm",
    "batch": "trainer.batch_size", "bs": "trainer.batch_size", "workers": "dataset.num_workers",
}  # fmt: skip
NOISE = re.compile(  # the lines of a foreign error that say nothing to a user
    r"full_key:|object_type=|reference_type=|To append to your config|See https|\^|Config search path|provider="
)
HYDRA_FLAGS = (
    "help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion", "config-path",
    "config-name", "config-dir", "experimental-rerun", "info",
)  # fmt: skip


def explain(error: BaseException) -> list[str]:
    """One line for each problem in a user error: ours, Hydra's or omegaconf's."""
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

    if isinstance(error, ConfigError):
        return list(error.problems)
    if isinstance(error, RunFailed):
        return [str(error)]
    if isinstance(error, YAMLError):
        return [explain_yaml(error)]
    if "override must be a string" in str(error):
        wrong = [line for line in map(explain_group, sys.argv[1:]) if line is not None]
        if wrong:
            return wrong
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        return [explain_option(str(error.missing_cfg_file), error.options)]
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, MissingMandatoryValue):
        return [f"{cause.full_key}: missing; give it as {cause.full_key}=VALUE"]
    if isinstance(cause, InterpolationResolutionError) and cause.full_key:
        return [f"{cause.full_key}: {first_line(cause)}"]
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        parent = cause.parent_node if OmegaConf.is_dict(cause.parent_node) else {}
        keys = [str(k) for k in parent if not str(k).startswith("_") and k != "hydra"]
        if "." not in str(cause.full_key):
            keys += SHORT_NAMES
        target = str(parent.get("_target_", "iolaus.settings"))  # our own settings take no further argument
        unlisted = f"; an argument that the file does not list: +{cause.full_key}=VALUE"
        hint = "" if target.startswith("iolaus.settings") else unlisted
        group, dot, _ = str(cause.full_key).partition(".")
        meant = find_elsewhere(str(cause.key), parent) if not dot else find_option(str(cause.key), group)
        likely = f"did you mean {meant}? allowed: {', '.join(sorted(keys))}" if meant else nearest(str(cause.key), keys)
        return [f"{cause.full_key}: no such key; {likely}{hint}"]
    if found := re.match(r"Could not append to config. An item is already at '(.+)'", str(error)):
        return [f"+{found[1]}: is in the configuration already; drop the +"]
    if found := re.match(r"Multiple values for (\S+)\. To override", str(error)):
        if added := [word for word in sys.argv[1:] if word.startswith(f"+{found[1]}=")]:
            return [f"{added[0]}: is in the configuration already; drop the +"]
        if by := re.search(r"'([^']+)' from '(experiment/[^']+)'", str(error)):
            return [f"{by[2]}: chooses {found[1]} a second time; its line in defaults is override /{found[1]}: {by[1]}"]
    if cause is not None and (found := re.match(r"Error merging override (.+)", str(error))):
        return [f"{found[1]}: {first_line(cause)}"]
    if found := re.match(r"Could not delete from config. '(.+)' does not exist", str(error)):
        return [f"~{found[1]}: there is no such key to leave out"]
    if found := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '((.+?)=(.+))'", str(error)):
        other = f"; one value that is a list: {found[2]}=[{found[3]}]"
        if re.fullmatch(r"\d+,0\d+", found[3]):  # as no whole number is written
            other = f"; a decimal point: {found[2]}={found[3].replace(',', '.')}"
        is_list = str(error).startswith("Ambiguous") and found[2] not in CHOICES
        sweep = " ".join((*train_command(), "-m"))
        return [f"{found[1]}: several values are a sweep, which {sweep} takes{other if is_list else ''}"]
    if (unfit := explain_choice(str(error))) is not None:
        return [unfit]
    if (unread := explain_unread(str(error), str(cause or ""))) is not None:
        return [unread]
    lines = [line.strip() for line in [*str(error).splitlines(), *str(cause or "").splitlines()] if line.strip()]
    return ["; ".join(dict.fromkeys(line for line in lines if not NOISE.match(line)))]


def find_elsewhere(word: str, config: Mapping[Any, Any]) -> str | None:
    """The key of a group, or the short name, that a word at the top means: batchsize, batch-size, learning_rate."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]", "", name).lower()

    meant = OTHER_NAMES.get(plain(word))
    if meant is not None:
        return meant
    groups = {str(group): config[group] for group in config if isinstance(config.get(group), Mapping)}
    named = [(f"{group}.{key}", str(key)) for group, node in groups.items() for key in node]
    keys = [full for full, key in named if plain(word) in (plain(key), plain(full))]
    if keys:
        return min(keys, key=lambda key: not key.startswith("trainer."))
    return next((found for group in groups if (found := find_option(word, group))), None)


def explain_yaml(error: YAMLError) -> str:
    """The line for a file that is no YAML: its name, and where it goes wrong."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{getattr(error, 'name', 'a file')}: is no YAML ({first_line(error)})"
    what = " ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    return f"{mark.name}, line {mark.line + 1}: is no YAML ({what})"


def check_flags(arguments: Sequence[str]) -> None:
    """Raise ConfigError for what no parser of Hydra's would name: `--lr 0.1`, `lr = 0.1`, `optimizer=[sgd,adam]`."""
    if cut := [*find_spaces(arguments), *filter(None, map(explain_list, arguments))]:
        raise ConfigError(*cut, complete=True)
    problems = []
    for i, argument in enumerate(arguments):
        name, given, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and not any(flag.startswith(name) for flag in HYDRA_FLAGS):
            following = arguments[i + 1] if i + 1 < len(arguments) and "=" not in arguments[i + 1] else "VALUE"
            close = difflib.get_close_matches(name, HYDRA_FLAGS, n=1, cutoff=0.8)  # below it --resume is near resolve
            key = f"a key is given as {name.replace('-', '_')}={value if given else following}"
            problems.append(f"{argument}: no such option; {f'did you mean --{close[0]}?' if close else key}")
    if problems:
        raise ConfigError(*problems)


def explain_failure(error: Exception) -> str | None:
    """One line on why a run can't go on, with what the user can do about it; None for an unknown error."""
    line = first_line(error)
    if isinstance(error, RunFailed):
        return str(error)
    if "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"{line}; try a trainer.micro_batch_size below the batch size, or a smaller trainer.eval_batch_size"
    if "finished reduction in the prior iteration" in str(error):  # torch's DDP
        unused = "on several devices the loss must depend on all parameters of the model, and not on some"
        return f"trainer.devices: {unused}; freeze the others (requires_grad=False), or take trainer.devices=1"
    if "deterministic" in str(error):
        return f"trainer.deterministic=true: {line}"
    return None


def raised_in(error: BaseException, package: str) -> bool:
    """Whether the line that raised an error is one of a package's."""
    last = list(traceback.walk_tb(error.__traceback__))[-1][0]
    return str(last.f_globals.get("__name__", "")).partition(".")[0] == package


def wants_tracebacks() -> bool:
    """Whether the user has set HYDRA_FULL_ERROR."""
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


@contextlib.contextmanager
def hydra_raises() -> Iterator[None]:
    """Within it Hydra raises its errors, of which it would print its own account."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextlib.contextmanager
def parsers_raise() -> Iterator[None]:
    """Within it arguments that argparse does not understand are a ConfigError, one line, in place of a page."""

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise ConfigError(f"{explain_argument(message)}; a key is given as KEY=VALUE, --help lists all")

    before, argparse.ArgumentParser.error = argparse.ArgumentParser.error, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.error = before  # type: ignore[method-assign]


@contextlib.contextmanager
def exit_on_user_errors() -> Iterator[None]:
    """Print user errors as one line each and exit with status 2; HYDRA_FULL_ERROR=1 raises them.

    A run that can't go on (a NaN loss, a broken image) is one line too, with exit status 1.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    full = wants_tracebacks()

    def end(error: BaseException, status: int) -> NoReturn:
        if full:
            raise error
        from iolaus.config.mistakes import find_mistakes

        for line in find_mistakes(error) if not getattr(error, "told", False) else []:
            print(f"iolaus: {printable(line)}", file=sys.stderr)
        sys.exit(status)

    def end_of_fault(error: BaseException) -> None:
        if why := explain_fault(error, "outputs", "give the same command"):
            end(RunFailed(why), 1)

    try:
        with end_with_the_reader(), all_folders(), hydra_raises(), parsers_raise():
            check_flags(sys.argv[1:])
            if "--version" in sys.argv[1:]:  # of Hydra's otherwise
                print(f"iolaus {iolaus.__version__}")
                sys.exit(0)
            yield
    except SystemExit as error:
        if error.__cause__ is None:
            raise
        if not isinstance(error.__cause__, ConfigError | RunFailed):
            end_of_fault(error.__cause__)
        end(error.__cause__, int(error.code or 0))
    except (ConfigError, HydraException, OmegaConfBaseException, YAMLError) as error:
        end(error, 2)
    except RunFailed as error:
        end(error, 1)
    except ValueError as error:
        if raised_in(error, "hydra"):  # options that exclude each other: -m --cfg job
            end(error, 2)
        end_of_fault(error)
        raise
    except (OSError, RuntimeError) as error:
        end_of_fault(error)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
