"""The policy at Hydra's door: each configuration is checked before Hydra calls, makes or writes anything for it.

Hydra has no place for such a check: it configures its log before its first callback, and what a callback raises is a
warning. So this file wraps four of its private functions, here alone, as it is imported: in a worker process too, which
imports it with the function that it is to run.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra._internal import callbacks, logging_config
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.core import utils
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from iolaus.errors import ConfigError
from iolaus.files.run_folder import RunFolder
from iolaus.trust.command_line import CommandLine, check_hidden_files, check_left_out
from iolaus.trust.hydra_node import check_hydra_node, check_links, check_logging, plain, values_as_written
from iolaus.trust.targets import is_allowed

if TYPE_CHECKING:
    from hydra.conf import HydraConf

CONFIG_PACKAGES = ("hydra.", "hydra_plugins.", "iolaus.")
PRIMITIVES = ("bool", "bytes", "float", "int", "str")


def check_command(config: DictConfig | None) -> None:
    """Check the configuration of a command, as Hydra makes its callbacks: before any folder is made."""
    if config is None:
        return
    CommandLine.instance().read(sys.argv[1:])
    check_left_out(sys.argv[1:])
    check_hydra_node(config)
    sources = config.hydra.runtime.config_sources
    check_hidden_files([(source.provider, Path(source.path)) for source in sources if source.schema == "file"])
    sweeping = config.hydra.mode == RunMode.MULTIRUN
    folder = Path(config.hydra.sweep.dir if sweeping else config.hydra.run.dir).absolute()
    if sweeping:
        check_links(folder)
    with contextlib.suppress(OmegaConfBaseException):  # what only a job knows is checked with the job
        check_job_logging(config, folder)


def check_job(config: DictConfig, folder: Path) -> None:
    """Check the configuration of one job; a job of a sweep can pick other files than the sweep did."""
    try:
        if config.hydra.mode == RunMode.MULTIRUN:
            check_hydra_node(config)
        check_links(folder)
        check_job_logging(config, folder)
    except (ConfigError, OmegaConfBaseException):
        RunFolder(folder).discard()
        raise


def check_job_logging(config: DictConfig, folder: Path) -> None:
    """Check `hydra.job_logging` as it will be for a run in `folder`."""
    runtime = config.hydra.runtime
    before = values_as_written(runtime)["output_dir"]  # missing (???) until the job begins
    with read_write(runtime), open_dict(runtime):
        try:
            runtime.output_dir = str(folder)
            conf = plain(config, "hydra.job_logging")
        finally:
            runtime.output_dir = before
    if conf:
        check_logging(conf, [folder])


def before(original: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """A function that is called after a check of the same arguments."""

    @functools.wraps(original)
    def check_first(*args: object, **kwargs: object) -> object:
        check(*args, **kwargs)
        return original(*args, **kwargs)

    return check_first


def check_callbacks_of(_: object, config: DictConfig | None = None) -> None:
    check_command(config)


def check_run_job(*, config: DictConfig, job_dir_key: str, job_subdir_key: str | None, **_: object) -> None:
    instance = HydraConfig.instance()
    outer = instance.cfg
    instance.cfg = cast("HydraConf", config)  # for what is resolved below; the job itself takes a copy next
    try:
        folder = Path(str(OmegaConf.select(config, job_dir_key)))
        if job_subdir_key is not None:
            folder /= str(OmegaConf.select(config, job_subdir_key))
        check_job(config, folder.absolute())
    finally:
        instance.cfg = outer


def check_dict_config(config: dict[str, Any], *_: object, **__: object) -> None:
    """Whatever Hydra hands to Python's logging: its own log too, which has no folder and so no file."""
    key: str = "hydra.runtime.output_dir"
    composed: Any = HydraConfig.instance().cfg
    folder = None if composed is None else OmegaConf.select(composed, key, throw_on_missing=False)
    check_logging(config, [] if folder is None else [Path(folder)])


def check_package(source: Any) -> None:
    """To look for configurations in a package imports it."""
    if not f"{source.path}.".startswith(CONFIG_PACKAGES) and not is_allowed(source.path):
        raise ConfigError(f"hydra.searchpath: pkg://{source.path} is a package that a configuration may not import")


def coerce_primitive(type_name: str, value: object) -> object:
    """omegaconf's `oc.coerce` without types by their dotted path, whose module it would import."""
    if type_name not in PRIMITIVES:
        raise ValueError(f"oc.coerce: {type_name} is none of {', '.join(PRIMITIVES)}")
    return oc.coerce(type_name, value)


def install() -> None:
    """Put the checks in their places, once."""
    if hasattr(utils._run_job, "__wrapped__"):
        return
    utils._run_job = before(utils._run_job, check_run_job)
    logging_config.configure_logging = before(logging_config.configure_logging, check_dict_config)
    callbacks.Callbacks.__init__ = before(callbacks.Callbacks.__init__, check_callbacks_of)  # type: ignore[method-assign]
    source = ImportlibResourcesConfigSource
    source._get_resources = before(source._get_resources, check_package)  # type: ignore[method-assign]
    OmegaConf.register_resolver("oc.coerce", coerce_primitive, replace=True)


install()
