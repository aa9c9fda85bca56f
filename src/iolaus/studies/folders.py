"""Where runs and sweeps live: a new folder for each run, one named by its overrides for each sweep.

A callback of Hydra's, imported at every start, so it stays light.
"""

import copy
import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import hydra_override_dirname
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from iolaus.config.check import check_composed
from iolaus.config.combinations import keys_without_effect, refuse_unread
from iolaus.config.mistakes import end_rehearsal, is_rehearsal
from iolaus.errors import ConfigError
from iolaus.files.layout import RESULTS, folder_name, readable_name, short_hash
from iolaus.files.leftovers import remove_leftovers
from iolaus.files.locks import record_host
from iolaus.files.run_folder import OUTPUTS, RunFolder, claim_folder, find_unfinished, remove_empty
from iolaus.methods.stopping import mode_of
from iolaus.settings import objectives_of
from iolaus.studies.compose import name_job, plainly_unnamed
from iolaus.studies.fixed import FixedValues
from iolaus.studies.job import read_as_text, take_job_config, to_overrides
from iolaus.studies.launchers import is_slurm
from iolaus.studies.limits import Clock
from iolaus.studies.told import Told
from iolaus.studies.trial import SWEEPER

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from iolaus.report.runs import Study

log = logging.getLogger(__name__)
OF_SWEEPS = re.compile(r"[+~]*hydra(\.|/)(sweep|sweeper|launcher)\b")  # keys that only a multirun reads
COMMAND_FILE = re.compile(r"multirun\.yaml|\.fixed-\w+\.json")


def end_on_errors(callback: Callable[..., None]) -> Callable[..., None]:
    """Let an error in a callback end the command, of which Hydra would make a warning and go on."""

    @functools.wraps(callback)
    def call(*arguments: object, **keywords: object) -> None:
        try:
            callback(*arguments, **keywords)
        except Exception as error:
            raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error

    return call


class Folders(Callback):
    """Names the folder of a run or a sweep before Hydra makes it, and ends a sweep with its table."""

    @end_on_errors
    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Give a run a folder of its own; a resumed one goes on in its folder."""
        if is_slurm(config):
            raise ConfigError("hydra/launcher=slurm: needs -m, for a single run too")
        typed = read_as_text(config.hydra.overrides, "hydra")
        if swept := [o for o in typed if OF_SWEEPS.match(o)]:
            raise ConfigError(f"{swept[0]}: has no effect on a single run; with -m the command is a study")
        if not str(config.hydra.run.dir).strip():
            raise ConfigError("hydra.run.dir=: must be a folder")
        if is_rehearsal():
            check_single(config)
            end_rehearsal()
        folder = find_unfinished(config.resume) if config.get("resume") else None
        if folder is None or not folder.is_run():  # run.py refuses to resume a folder without a run
            wanted = Path(config.hydra.run.dir)
            folder = RunFolder(claim_folder(wanted))
            if folder.path != wanted and any(o.startswith("hydra.run.dir=") for o in typed):
                log.warning("hydra.run.dir=%s: is there already; this run is in %s", wanted, folder)
            try:
                record_host(folder.lock)  # whose folder it is, should the process be killed now
            except OSError:
                folder.discard()
                raise
            if folder.path.absolute().is_relative_to(OUTPUTS.absolute()):
                remove_leftovers(folder.path.parent)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.run.dir = str(folder.path)

    @end_on_errors
    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Name a sweep's folder and those of its runs, and give a search the directions of its objectives."""
        FixedValues.instance().forget()
        Told.instance().begin()
        Clock.instance().start()
        params = config.hydra.sweeper.get("params") or {}
        if not isinstance(params, Mapping):
            raise ConfigError(f"hydra.sweeper.params={params}: must be a mapping of keys to their values")
        lines = [*to_overrides(params), *read_as_text(config.hydra.overrides, "task")]
        overrides = OverridesParser.create().parse_overrides(lines)
        sweeps = [override for override in overrides if override.is_sweep_override()]
        varied = [str(override.input_line) for override in sweeps]
        fixed_keys = keys_of(overrides) - keys_of(sweeps)  # a key given twice, fixed and then varied, is varied
        # as overrides, since every job of a sweep composes its configuration anew from these
        ours = [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(fixed_keys))}]"]
        if config.hydra.sweeper.get("_target_") == SWEEPER:
            if subdirs := [
                o for o in read_as_text(config.hydra.overrides, "hydra") if o.startswith("hydra.sweep.subdir=")
            ]:
                raise ConfigError(f"{subdirs[0]}: a search calls the folders of its trials by their numbers; drop it")
            ours.append("hydra.sweep.subdir=${hydra.job.num}")  # the trial's number
        elif not varied:
            ours.append("hydra.sweep.subdir=run")
        folder, typed = Path(config.hydra.sweep.dir), read_as_text(config.hydra.overrides, "hydra")
        chosen = any(override.startswith("hydra.sweep.dir") for override in typed)
        if not chosen and config.study is None:
            # a command that is given again with another limit goes on in its folder
            named = (o for o in overrides if o.get_key_element() != "trainer.max_minutes")
            folder = OUTPUTS / name_sweep(sorted(str(o.input_line) for o in named), varied)
            ours.append(f"hydra.sweep.dir={QuotedString(str(folder), Quote.double).with_quotes()}")
        directions = find_directions(config)
        if directions:
            ours.append(f"hydra.sweeper.direction=[{','.join(directions)}]")
        if not str(config.hydra.sweeper.get("_target_")).startswith("iolaus."):
            end_rehearsal()  # only our own sweepers know of it
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra = [*typed, *ours]
            config.hydra.sweep.dir = str(folder)
            if directions:
                config.hydra.sweeper.direction = directions

    @end_on_errors
    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Print a sweep's table and write its report, unless it was refused; a sweep without a run leaves no folder."""
        folder = Path(config.hydra.sweep.dir)
        if FixedValues.instance().accepted and any(folder.glob(f"*/{RESULTS}")):
            from iolaus.report.runs import read_study
            from iolaus.report.terminal import print_study

            study = replace(read_study(folder), storage=config.hydra.sweeper.get("storage"))
            print_study(study)
            print(f"Runs: {folder}")
            report_sweep(study)
            if any(folder.glob("*/wandb/offline-run-*")):
                from iolaus.show.wandb_service import sync_command

                print(f"Upload its runs to W&B: {sync_command(folder)}")
        else:
            give_up_study(folder)


def check_single(config: DictConfig) -> None:
    """Check what a single run's command has composed, as the run will. Raises ConfigError."""
    if config.get("resume"):  # goes on with the run's own configuration
        return
    HydraConfig.instance().set_config(config)  # for ${hydra:…}
    composed = copy.deepcopy(config)
    overrides = take_job_config(composed)
    refuse_unread([keys_without_effect(check_composed(composed), overrides)])


def give_up_study(folder: Path) -> None:
    """Remove what a command wrote of itself into the folder of a sweep in which no run has begun, then the folder."""
    if folder.is_dir() and all(COMMAND_FILE.fullmatch(path.name) for path in folder.iterdir()):
        for path in folder.iterdir():
            path.unlink()
        remove_empty(folder)


def keys_of(overrides: "Iterable[Override]") -> set[str]:
    """The keys that overrides give, without the `+` and `~` before them."""
    return {override.get_key_element().lstrip("+~") for override in overrides}


def report_sweep(study: "Study") -> None:
    """Write a sweep's report. An error in it is a warning, since the runs are done."""
    from iolaus.report import report_study

    try:
        print(f"Report: {report_study(study)}")
    except Exception as error:
        log.warning("no report: %s: %s", type(error).__name__, error)


def find_directions(config: DictConfig) -> list[str]:
    """The direction of each objective, for a sweeper that has none yet; empty for any other sweeper."""
    if "direction" not in config.hydra.sweeper or config.hydra.sweeper.direction is not None:
        return []
    return ["maximize" if mode_of(name) == "max" else "minimize" for name in objectives_of(config.objective)]


def name_sweep(overrides: list[str], varied: list[str]) -> str:
    """Name a sweep's folder: the overrides that vary, readable, and a short hash of all overrides."""
    return f"{readable_name('_'.join(varied), 60) or 'sweep'}-{short_hash(' '.join(overrides))}"


def name_run(*, _root_: DictConfig, _parent_: DictConfig, _node_: Any) -> str:
    """`${run_name:}`: the folder of a sweep's run, named by what the sweep varies.

    It is `${folder_name:${hydra_override_dirname:}}`, which parses a job's overrides anew each time, ten times a run.
    """
    hydra = OmegaConf.select(_root_, "hydra", default=None) or HydraConfig.get()
    lines = read_as_text(cast("DictConfig", hydra.overrides), "task")
    if (unnamed := plainly_unnamed(hydra, lines)) is None:
        return folder_name(hydra_override_dirname(_root_=_root_, _parent_=_parent_, _node_=_node_))
    return name_job(lines, unnamed)


OmegaConf.register_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_resolver("run_name", name_run, replace=True)
