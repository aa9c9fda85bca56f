"""The door between Hydra's configuration and plain Python: settings, checks, and errors for people.

A node with a `_target_` has one schema, the signature of what it names: `check_node` compares the two before
anything is built, `build` builds. All problems of a configuration are found in one go, one line each.
"""

import contextlib
import difflib
import functools
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NoReturn

from omegaconf import OmegaConf

from iolaus.schedules import TOTALS
from iolaus.stopping import NonFiniteLoss

METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
ALLOW_VARIABLE = "IOLAUS_ALLOW"
TARGETS = (
    "iolaus.*", "torch.nn.*", "torch.optim.*", "torchvision.*", "timm.*",
    "torch._C._nn.*",  # what torch.nn.functional's activations resolve to
)  # fmt: skip


class ConfigError(Exception):
    """What is wrong with a configuration: `problems`, one line each, written for the person who typed it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def allowed_targets() -> list[str]:
    """What a `_target_` may name: our own and torch's packages, and those in $IOLAUS_ALLOW (commas between).

    The environment, not the configuration, extends the list: a downloaded config can't allow itself.
    """
    own = os.environ.get(ALLOW_VARIABLE, "").split(",")
    return [*TARGETS, *(name.strip() for name in own if name.strip())]


# ---- our own nodes -------------------------------------------------------------------------------------------


def _require(ok: bool, name: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{name}={value}: must be {allowed}")


@dataclass
class Launch:
    """The keys at the top of the configuration."""

    seed: int = 0
    objective: str = "val/accuracy"
    study: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.objective in METRICS, "objective", self.objective, f"one of {', '.join(METRICS)}")


@dataclass
class Trainer:
    """Settings of the training loop (the group `trainer`).

    epochs: passes over the training data. batch_size: images per step; batch_size_schedule: {epoch: size}, from
    that epoch on (the first is 0), or null. eval_batch_size: images per batch of validation and test. device: auto, cpu,
    cuda, cuda:1, mps. precision: auto, fp32, bf16, fp16. grad_clip_norm: largest total gradient norm, null for
    none. log_every: steps between the logged batch losses and gradient norms.
    """

    epochs: int = 20
    batch_size: int = 128
    batch_size_schedule: dict[int, int] | None = None
    eval_batch_size: int = 500
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    grad_clip_norm: float | None = None
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size", "log_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for epoch, size in (self.batch_size_schedule or {}).items():
            _require(epoch >= 0 and size >= 1, "batch_size_schedule", {epoch: size}, "{epoch: size}, from epoch 0")
        if self.grad_clip_norm is not None:
            _require(self.grad_clip_norm > 0, "grad_clip_norm", self.grad_clip_norm, "above 0, or null for none")
        known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device)
        _require(known is not None, "device", self.device, "auto, cpu, cuda, cuda:N or mps")


@dataclass
class DatasetSettings:
    """Keys that every dataset has besides its reader's own arguments.

    validation: the part of train that is held out, a fraction, stratified; or `test`, to select on the test set
    as many papers do (the results say so). validation_seed: which part. image_size: pixels that images are
    brought to; null keeps the source's. residency: resident (uint8 on the device), streaming (read while
    training), or auto by size. num_workers: reading processes of streaming; null takes the cores, 4 at most.
    mirror: whether a mirrored image keeps its class (a digit does not). mean, std: per channel, of pixels in
    [0, 1]; null computes them from the training images.
    """

    validation: float | str = 0.1
    validation_seed: int = 0
    image_size: int | None = None
    residency: Literal["auto", "resident", "streaming"] = "auto"
    num_workers: int | None = None
    mirror: bool = True
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        fraction = isinstance(self.validation, int | float) and 0 < self.validation < 1
        _require(fraction or self.validation == "test", "validation", self.validation,
                 "a fraction between 0 and 1, or test")  # fmt: skip
        _require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        _require(self.num_workers is None or self.num_workers >= 0, "num_workers", self.num_workers, "0 or more")
        _require((self.mean is None) == (self.std is None), "mean", self.mean, "given together with std")
        for deviation in self.std or []:
            _require(deviation > 0, "std", self.std, "above 0")


@dataclass
class ModelSettings:
    """Keys that every model has besides its own arguments: what images it takes.

    in_channels: 3 turns grey images into RGB, 1 the other way, null takes the dataset's. image_size: pixels that
    images are brought to, null for the dataset's; min_image_size: smaller images are enlarged to this.
    """

    in_channels: Literal[1, 3] | None = None
    image_size: int | None = None
    min_image_size: int = 1

    def __post_init__(self) -> None:
        _require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        _require(self.min_image_size >= 1, "min_image_size", self.min_image_size, "1 or more")


@dataclass
class LossSettings:
    """one_hot: whether the loss takes float one-hot targets (mse), or class indices (cross_entropy)."""

    one_hot: bool = False


@dataclass
class SchedulerSettings:
    """interval: whether the scheduler moves after each step or each epoch. monitor: what a plateau watches."""

    interval: Literal["step", "epoch"] = "epoch"
    monitor: str = "val/loss"

    def __post_init__(self) -> None:
        _require(self.monitor in METRICS, "monitor", self.monitor, f"one of {', '.join(METRICS)}")


OWN_KEYS: dict[str, type] = {
    "dataset": DatasetSettings, "model": ModelSettings, "loss": LossSettings, "scheduler": SchedulerSettings,
}  # fmt: skip
# What the launcher gives to the built object itself, so that a signature may ask for it and a node need not.
GIVEN: dict[str, set[str]] = {
    "dataset": {"train", "split"},
    "model": {"num_classes", "in_channels", "image_size"},
    "optimizer": {"params"},
    "scheduler": {"optimizer"},
    "tracker": {"folder", "config", "purge_step"},
    "augmentation": {"mirror"},
}
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


# ---- checking a node against a signature -----------------------------------------------------------------------


def nearest(word: str, allowed: typing.Iterable[str]) -> str:
    """`did you mean …` and all that is allowed, for the end of an error line."""
    names = sorted(str(name) for name in allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(names) if names else 'none'}"


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
    if isinstance(hint, type) and hint.__module__.startswith("torch"):
        return False  # a tensor or a module is an object: a number, a text or a list is none
    return True


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
    by_name = {
        n: p for n, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
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
        hint = f"; did you mean {' or '.join(close)}?" if close else f": {first_line(error)}"
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
    if not problems and is_dataclass(target):  # settings, whose ranges are checked when they are made
        try:
            target(**arguments)
        except ValueError as error:
            problems = list(value_error(key, error).problems)
    return problems


def check_settings(key: str, schema: type, values: Mapping[str, Any]) -> list[str]:
    """Problems of one of our own dataclasses: names, types, then ranges."""
    problems = check_arguments(key, schema, values, set())
    if not problems:
        try:
            schema(**values)
        except ValueError as error:
            problems = [f"{key}.{error}" if key else str(error)]
    return problems if key else [problem.removeprefix(".") for problem in problems]


def check(config: Mapping[str, Any], copies: Set[str] = frozenset()) -> None:
    """Check a whole configuration (plain containers). Raises ConfigError with every problem that it has.

    copies: keys whose values stand elsewhere too (interpolations): a mistake is told where it was made.
    """
    problems = check_settings("", Launch, {k: v for k, v in config.items() if not isinstance(v, Mapping)})
    for key, schema in OWN_KEYS.items():
        names = {f.name for f in fields(schema)}
        problems += check_settings(key, schema, {k: v for k, v in config[key].items() if k in names})
        node = {k: v for k, v in config[key].items() if k not in names}
        filled = {k for k in FILLED if key == "scheduler" and k in node and node[k] is None}
        node = {k: v for k, v in node.items() if k not in filled}
        problems += check_node(key, node, GIVEN.get(key, set()) | filled)
    for key in ("optimizer", "trainer", "augmentation", "early_stopping"):
        if config.get(key):
            problems += check_node(key, config[key], GIVEN.get(key, set()))
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


def value_error(key: str, error: Exception, node: Mapping[str, Any] = types.MappingProxyType({})) -> ConfigError:
    """An error that a value below `key` has caused, with the key before it; with `node` also the argument, if clear."""
    line = first_line(error)
    if re.match(r"\w+=", line):
        return ConfigError(f"{key}.{line}")
    numbers = {k: v for k, v in node.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    named = [k for k, v in numbers.items() if re.search(rf"(?<![\w.]){re.escape(str(v))}(?![\w.])", line)]
    return ConfigError(f"{key}.{named[0]}={node[named[0]]}: {line}" if len(named) == 1 else f"{key}: {line}")


# ---- errors as a person reads them -----------------------------------------------------------------------------


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, else its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def explain(error: BaseException) -> list[str]:
    """One line for each problem in an error that a person's input has caused: ours, Hydra's or omegaconf's."""
    from hydra.errors import MissingConfigException
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
        target = str(parent.get("_target_", "iolaus.config"))  # our own settings take no further argument
        argument = "" if target.startswith("iolaus.config") else (
            f"; an argument that the file does not list: +{cause.full_key}=VALUE")  # fmt: skip
        return [f"{cause.full_key}: no such key; {nearest(str(cause.key), keys)}{argument}"]
    lines = [line.strip() for line in [*str(error).splitlines(), *str(cause or "").splitlines()] if line.strip()]
    noise = ("full_key:", "object_type=", "reference_type=", "To append to your config", "See https", "^")
    return ["; ".join(dict.fromkeys(line for line in lines if not line.startswith(noise)))]


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Print what a person's input has caused as one line each and exit with 2; HYDRA_FULL_ERROR=1 raises it.

    A run that can't go on (its loss is no number) is one line too, and exit status 1.
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
    except NonFiniteLoss as error:
        end(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
