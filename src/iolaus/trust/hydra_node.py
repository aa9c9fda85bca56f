"""Hydra's own node of a configuration, checked: what would be run or written before a run begins."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iolaus.errors import ConfigError
from iolaus.files.changes import to_dotted_keys
from iolaus.files.run_folder import OUTPUTS
from iolaus.files.study_url import sqlite_path
from iolaus.trust.command_line import CommandLine
from iolaus.trust.folder_names import check_folders, is_inside, select_text
from iolaus.trust.targets import is_allowed, nodes_in

FOLDERS = "iolaus.studies.folders.Folders"
CALLBACKS = (FOLDERS,)
SLURM = "iolaus.studies.slurm.SlurmLauncher"
SLURM_COMMANDS = ("setup", "extra")  # its keys that are run as they are: even a single word is a command
ALLOWED_SWEEPERS = (
    "iolaus.studies.grid.GridSweeper",
    "iolaus.studies.search.OptunaSweeper",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
)
# The classes that Hydra itself makes under its whitelist: callbacks, and the handlers of its logging.
HYDRA_TARGETS = (FOLDERS, "logging.NullHandler")
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
FORMATTERS = ("logging.Formatter", "colorlog.ColoredFormatter")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# Variables that a file may set for a run. Others name libraries to load, folders to write, servers to ask.
VARIABLES = frozenset(
    {
        "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES",
        "HF_HUB_OFFLINE", "HYDRA_FULL_ERROR", "MKL_NUM_THREADS", "NCCL_DEBUG", "NCCL_IB_DISABLE", "NCCL_P2P_DISABLE",
        "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK", "THP_MEM_ALLOC_ENABLE", "TOKENIZERS_PARALLELISM",
        "WANDB_MODE", "WANDB_SILENT",
    }
)  # fmt: skip
# A launcher's value from a file: a number or a word, none that a shell or an evaluated text makes more of.
PLAIN_WORD = re.compile(r"[\w.:=%@-]*|\d+\*n_jobs")
OWN_SLURM = "conf/local/slurm.yaml"  # what this cluster wants of every job
OWN_PROVIDERS = ("own", "main", "iolaus")  # of Hydra's search path: conf/ here, of the command, and of the package
DATA_VARIABLE = "IOLAUS_DATA"  # where data are, which a machine's own values may say


def check_hydra_node(config: DictConfig) -> None:
    """Check what Hydra runs and writes for a composed configuration. Raises ConfigError, one line a problem."""
    problems = [
        *check_callbacks(config),
        *check_controllers(config),
        *check_folders(config),
        *check_variables(config),
        *check_storage(config),
    ]
    if problems:
        raise ConfigError(*problems, complete=True)  # what is refused is not composed again, to find other mistakes


def plain(config: DictConfig, key: str) -> Any:
    """A part of a configuration as resolved plain containers; None where it is not there."""
    value = OmegaConf.select(config, key, throw_on_missing=False)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def check_callbacks(config: DictConfig) -> Iterator[str]:
    """Problems of callbacks: ours, and those that the environment allows."""
    for key, node in nodes_in("hydra.callbacks", plain(config, "hydra.callbacks")):
        target = node["_target_"]
        if target not in CALLBACKS and not is_allowed(str(target)):
            hint = f"to allow it: IOLAUS_ALLOW='{target}' in the environment"
            yield f"{key}._target_={target}: a callback that a configuration may not name; {hint}"


def check_controllers(config: DictConfig) -> Iterator[str]:
    """Problems of sweeper and launcher. A search checks its sampler and pruner when it makes them."""
    for part, node in (("sweeper", plain(config, "hydra.sweeper")), ("launcher", plain(config, "hydra.launcher"))):
        key, typed = f"hydra.{part}", CommandLine.instance().gives
        if not isinstance(node, Mapping):
            continue
        target = str(node.get("_target_"))
        known = target in ALLOWED_SWEEPERS if part == "sweeper" else is_launcher(target)
        if not known and not is_allowed(target):
            yield f"{key}._target_={target}: no {part} that a configuration may name"
        own = read_own_values(config) if target == SLURM and part == "launcher" else {}
        written = values_as_written(config.hydra.launcher)
        for name, value in to_dotted_keys(node).items() if part == "launcher" else ():
            if name == "_target_" or typed(f"{key}.{name}") or (name in own and own[name] == written.get(name)):
                continue
            inner = "." in name and isinstance(value, str)  # of Ray: the address of a cluster, a function to call
            if inner or not is_harmless(value) or (value and target == SLURM and name in SLURM_COMMANDS):
                place = f" or in {OWN_SLURM}" if target == SLURM else ""
                yield f"{key}.{name}={value}: can run or write something else; give it on the command line{place}"


def read_own_values(config: DictConfig) -> dict[str, Any]:
    """What the user's own conf/local/slurm.yaml says, as it is written there: it is the user's word."""
    for source in config.hydra.runtime.config_sources:
        file = Path(source.path, OWN_SLURM.removeprefix("conf/"))
        if source.provider in OWN_PROVIDERS and source.schema == "file" and file.is_file():
            return values_as_written(OmegaConf.load(file))
    return {}


def values_as_written(node: object) -> dict[str, Any]:
    """The values of a node as plain containers, their `${…}` as they are written; none where it is no mapping."""
    values = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else None
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def is_launcher(target: str) -> bool:
    """Whether a dotted path is a launcher of Hydra's, of an installed plugin of its family, or ours for Slurm."""
    return target == SLURM or (
        re.fullmatch(r"(hydra\._internal\.core_plugins|hydra_plugins\.hydra_\w+_launcher)\.[\w.]+", target) is not None
    )


def is_harmless(value: object) -> bool:
    """Whether a launcher's value is a number, a word, a path of the study's own folder, or nothing."""
    if isinstance(value, str):
        word = PLAIN_WORD.fullmatch(value) is not None
        return word or (re.fullmatch(r"[\w./:=%@,+-]+", value) is not None and is_inside(value, OUTPUTS))
    return not value or isinstance(value, bool | int | float)


def check_variables(config: DictConfig) -> Iterator[str]:
    """Problems of the environment variables that a configuration sets."""
    for name in plain(config, "hydra.job.env_set") or {}:
        key = f"hydra.job.env_set.{name}"
        if str(name).startswith("IOLAUS_") and name != DATA_VARIABLE:
            yield f"{key}: has no effect from a configuration; set it in the environment"
        elif name not in (DATA_VARIABLE, *VARIABLES) and not CommandLine.instance().gives(key):
            yield f"{key}: not among the variables that a file may set; give it on the command line"


def check_storage(config: DictConfig) -> Iterator[str]:
    """Problems of a search's storage: a file of outputs/, or where the command or the environment says."""
    key = "hydra.sweeper.storage"
    url = select_text(config, key)
    if url is None or CommandLine.instance().gives(key) or url in os.environ.values():
        return
    path = sqlite_path(url)
    if path is None or path.startswith("file:") or not is_inside(path, OUTPUTS):
        hint = "give another on the command line, or by ${oc.env:NAME}"
        yield f"{key}: a file may only name sqlite:///{OUTPUTS}/…; {hint}"


def check_logging(conf: Mapping[str, Any], folders: list[Path]) -> None:
    """Check a logging configuration (Python's dictConfig): streams, and files in `folders`. Raises ConfigError."""
    problems = [*check_factories("", conf)]
    for name, handler in dict(conf.get("handlers") or {}).items():
        key, kind, stream = f"handlers.{name}", handler.get("class"), str(handler.get("stream", STREAMS[0]))
        if "()" not in handler and kind not in HANDLERS and not is_allowed(str(kind)):
            problems.append(f"{key}.class={kind}: allowed: {', '.join(HANDLERS)}")
        if stream not in STREAMS and "://" not in stream:
            problems.append(f"{key}.stream={stream}: allowed: {', '.join(STREAMS)}")
        if kind == "logging.FileHandler":
            problems += check_log_file(key, handler, folders)
    for name, formatter in dict(conf.get("formatters") or {}).items():
        kind = formatter.get("class", FORMATTERS[0])
        if kind not in FORMATTERS and not is_allowed(str(kind)):
            problems.append(f"formatters.{name}.class={kind}: allowed: {', '.join(FORMATTERS)}")
    if problems:
        raise ConfigError(*(f"logging.{problem}" for problem in problems))


def check_log_file(key: str, handler: Mapping[str, Any], folders: list[Path]) -> Iterator[str]:
    """Problems of a handler that writes a file: it adds to one in the run's folder, links followed."""
    filename = handler.get("filename")
    file = Path(str(filename)).resolve()
    if not any(file.is_relative_to(folder.resolve()) for folder in folders):
        yield f"{key}.filename={filename}: must lie in the run's folder"
    if handler.get("mode", "a") != "a":
        yield f"{key}.mode={handler['mode']}: allowed: a"


def check_factories(key: str, value: object) -> Iterator[str]:
    """Problems of what Python's logging would call or look up: `()`, `.`, `ext://…`, `cfg://…`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in ("()", "."):
                yield f"{key}.{name}={inner}: a logging configuration may not call or set anything".lstrip(".")
            else:
                yield from check_factories(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from check_factories(f"{key}[{i}]", inner)
    elif isinstance(value, str) and re.match(r"[a-z]+://", value) and value not in STREAMS:
        yield f"{key}={value}: allowed: {', '.join(STREAMS)}".lstrip(".")


def check_links(folder: Path) -> None:
    """Raise ConfigError where a link in a run's or study's folder leads out of it: what is written would go there."""
    inside = folder.resolve()
    for path in (path for pattern in ("*", ".hydra/*", ".trials/*", ".slurm/*") for path in folder.glob(pattern)):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise ConfigError(f"{path}: a link that leads out of its folder; remove it")
