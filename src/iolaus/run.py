"""One run: configuration -> objects -> train() -> results.json -> the objective."""

import contextlib
import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iolaus import checkpoint, config, folders, locks, trial
from iolaus.errors import ConfigError, explain, first_line, value_error
from iolaus.stopping import RunFailed, best_epoch

log = logging.getLogger("iolaus")
LOOKED_AT_SECONDS = 0.1  # at most, by a table that asks whether the run is at work
ONE_STOP_SECONDS = 0.5  # a terminal, a sweeper and a cluster may each pass on the same wish to stop


def run(cfg: DictConfig) -> float:
    """Train as `cfg` says, or resume, in Hydra's output folder. Returns the objective at the last epoch.

    What a person's input has caused leaves no folder and ends a single run with SystemExit(2) from ConfigError;
    RunFailed ends it with SystemExit(1), a signal with 130 (Ctrl-C) or 143 (SIGTERM), after which
    `resume=FOLDER` continues. In a sweep the two errors are raised as they are, and its other runs go on; a run that
    another process is at is left to it.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        with locks.held(folder / checkpoint.LOCK, wait=LOOKED_AT_SECONDS) as ours:
            if ours:
                locks.sign(folder / checkpoint.LOCK)
                return prepare_and_train(cfg, folder)
            if sweeping():
                log.info("%s is trained by another process", shown(folder))
                return math.nan
            raise ConfigError(f"resume={cfg.get('resume')}: another process trains in {shown(folder)}")
    except (ConfigError, RunFailed) as error:
        if not sweeping():  # an exit, as Hydra would put a line of its own before an error's
            raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
        for line in explain(error):  # Hydra shows only the first error of a sweep, and at its end
            print(f"iolaus: {line}", file=sys.stderr)
        raise


def sweeping() -> bool:
    """Whether this run is one of a sweep's."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def prepare_and_train(cfg: DictConfig, folder: Path) -> float:
    """The run itself. Whatever ends it before all its parts stand (ConfigError, Ctrl-C) leaves no folder."""
    try:
        cfg = resumed(cfg) if cfg.get("resume") else cfg
        if (objective := already_done(cfg, folder)) is not None:
            return objective
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        config.check(plain, copies=config.interpolated(cfg))
        from iolaus.data.open import forget
        from iolaus.parts import build_parts  # torch, and what the run needs of the rest, not before the checks

        if not sweeping() or HydraConfig.get().job.num == 0:
            forget()  # only the runs of one sweep share what was read
        started = (folder / checkpoint.LAST).exists()  # and so needs the file that it started from no more
        parts = build_parts({**plain, "model": {**plain["model"], "weights": None}} if started else plain)
        state = restore(parts, folder)
    except BaseException as error:  # Ctrl-C while the data are read, too
        folders.discard(folder)
        if isinstance(error, OmegaConfBaseException):
            raise ConfigError(*explain(error)) from error
        raise
    write_hydra(folder, cfg)
    (folder / checkpoint.RESULTS).unlink(missing_ok=True)  # of a run that failed, and is at it again
    return train(parts, state, folder, plain)


def train(parts: Any, state: Any, folder: Path, plain: dict[str, Any]) -> float:
    """Train from `state` on, evaluate on test, write and show the results. Returns the objective."""
    from iolaus import display, loop, results
    from iolaus.curves import draw_curves
    from iolaus.monitor import Monitor
    from iolaus.tables import result_table

    learner, settings, resuming = parts.learner, parts.settings, state.step > 0
    name = plain["model"].get("name") or type(learner.model).__name__
    objective = parts.launch.objectives[0]
    mine = trial.of_job(HydraConfig.get()) if sweeping() else None
    pruning = trial.Pruning(mine, objective) if mine is not None else None
    log.info("data: %s", parts.data.description)
    log.info("model: %s, %s parameters; %s on %s", name, f"{parts.parameters:,}", learner.precision, learner.device)
    for note in parts.notes:
        log.info("%s", note)
    if resuming:
        log.info("resumed in epoch %d, after step %d", state.epoch + 1, state.step)

    def should_stop(history: list[dict[str, float]]) -> bool:
        return (pruning is not None and pruning.should_stop(history)) or parts.should_stop(history)

    def save() -> None:
        if not state.losses and best_epoch(state.history, objective) == len(state.history) - 1:
            best = {
                "model": learner.evaluated.state_dict(),
                "metrics": state.history[-1],
                "classes": parts.data.classes,
            }
            checkpoint.save(folder / checkpoint.BEST, best)  # before last.pt: a kill between the two is harmless
        checkpoint.save(folder / checkpoint.LAST, {"learner": learner.state_dict(), "state": state.state_dict()})

    study = folder.parent.name if sweeping() else None
    tracker = open_trackers(plain, folder, state.history, state.step + 1 if resuming else None, study)
    try:
        monitor = Monitor(learner.device, settings.monitor_every, step=lambda: state.step)
        with stop_on_signals() as received, display.progress(settings.epochs) as progress, monitor:
            loop.train(
                learner, parts.data, settings, state, seed=parts.launch.seed, should_stop=should_stop,
                objective=objective, save=save, tracker=tracker, progress=progress,
                interrupted=lambda: bool(received), monitor=monitor,
            )  # fmt: skip
        if pruning is not None:
            pruning.report(state.history)
        if received and state.epoch < settings.epochs and not should_stop(state.history):
            again = "the same command" if sweeping() else f"python train.py resume={shown(folder)}"
            log.warning("stopped in epoch %d; continue with: %s", state.epoch + 1, again)
            raise SystemExit(128 + received[0])
        if pruning is not None and pruning.pruned and state.epoch < settings.epochs:
            log.info("pruned after epoch %d", state.epoch)
            checkpoint.write_json(folder / checkpoint.RESULTS, results.pruned(parts, state, plain))
            return state.history[-1][objective]
        metrics = results.measure(
            parts, state, lambda: checkpoint.load(folder / checkpoint.BEST, learner.device)["model"]
        )
        tracker.log({k: v for k, v in metrics["last"].items() if k.startswith("test/")}, state.step)
    except Exception as error:
        why = str(error) if isinstance(error, RunFailed) else what_failed(error)
        if why is None and sweeping():  # the other runs go on, and the table says why this one did not
            why = f"{type(error).__name__}: {first_line(error)}"
            log.exception("the run failed")
        if why is None:
            raise
        checkpoint.write_json(folder / checkpoint.RESULTS, results.failed(parts, state, why, plain))
        raise RunFailed(why) from error
    finally:
        tracker.close()
        parts.data.close()
    title = f"{name} on {folder_name(plain['dataset'])}, {type(learner.optimizer).__name__}, seed {parts.launch.seed}"
    draw_curves(state.history, folder / checkpoint.CURVES, title, best_epoch=int(metrics["best"]["epoch"]))
    result = results.finished(parts, state, metrics, plain)
    checkpoint.write_json(folder / checkpoint.RESULTS, result)  # last of all: it marks the run as finished
    result_table(result, shown(folder))
    return result["objective"]["value"]


def what_failed(error: Exception) -> str | None:
    """What a person can do about an error of torch's in the middle of a run; None for an unknown one."""
    line = first_line(error)
    if "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"{line}; try a trainer.micro_batch_size below the batch size, or a smaller trainer.eval_batch_size"
    if "deterministic" in str(error):
        return f"trainer.deterministic=true: {line}"
    return None


def resumed(cfg: DictConfig) -> DictConfig:
    """The saved configuration of the run that `resume` names. Raises ConfigError when it can't be continued."""
    if sweeping():
        raise ConfigError(f"resume={cfg.resume}: continues a single run; drop -m")
    others = [o for o in HydraConfig.get().overrides.task if not o.startswith("resume=")]
    if others:
        raise ConfigError(f"resume={cfg.resume}: goes on with the run's own configuration; drop {' '.join(others)}")
    folder = folders.find_unfinished(cfg.resume)
    if not folders.is_run(folder):
        why = (
            "outputs/ holds no unfinished run" if cfg.resume == "last" else "not the folder of a run (no .hydra/ in it)"
        )
        raise ConfigError(f"resume={cfg.resume}: {why}")
    if checkpoint.read_json(folder / checkpoint.RESULTS).get("status") == checkpoint.FINISHED:
        raise ConfigError(f"resume={cfg.resume}: the run is finished, see {folder / checkpoint.RESULTS}")
    return OmegaConf.load(folder / ".hydra" / "config.yaml")  # type: ignore[return-value]


def already_done(cfg: DictConfig, folder: Path) -> float | None:
    """The objective of a finished run of this very configuration in `folder`, which is a job of a repeated sweep's.

    Raises ConfigError when the folder holds a run of another configuration: that one is not written over.
    """
    if not folders.is_run(folder):
        return None
    if OmegaConf.load(folder / ".hydra" / "config.yaml") != cfg:
        raise ConfigError(f"study={cfg.study}: {shown(folder)} holds a run of another configuration; "
                                 "choose another study=NAME, or remove that folder")  # fmt: skip
    result = checkpoint.read_json(folder / checkpoint.RESULTS)
    if result.get("status") not in checkpoint.DONE:
        return None
    log.info("%s is %s already", shown(folder), result["status"])
    return result["objective"]["value"]


def restore(parts: Any, folder: Path) -> Any:
    """The state that the folder's last.pt holds, with its weights put into `parts`; a new state where there is none."""
    from iolaus.loop import State

    if not (folder / checkpoint.LAST).exists():
        return State()
    try:
        saved = checkpoint.load(folder / checkpoint.LAST, parts.learner.device)
        parts.learner.load_state_dict(saved["learner"])
    except (ValueError, RuntimeError, KeyError) as error:
        raise value_error("resume", error) from error
    return State(**saved["state"])


def write_hydra(folder: Path, cfg: DictConfig) -> None:
    """`.hydra/` as Hydra would have written it, now that the run is known to be possible; resuming keeps it."""
    hydra = folder / ".hydra"
    if folders.is_run(folder):
        return
    hydra.mkdir(exist_ok=True)
    nodes = {"hydra": OmegaConf.create({"hydra": HydraConfig.get()}), "overrides": HydraConfig.get().overrides.task}
    for name, node in {**nodes, "config": cfg}.items():  # config.yaml last: it makes the folder one of a run
        text = OmegaConf.to_yaml(node).encode()
        checkpoint.write_atomically(hydra / f"{name}.yaml", lambda file, text=text: file.write(text))


def open_trackers(
    plain: dict[str, Any], folder: Path, history: list[Any], purge_step: int | None, study: str | None = None
) -> Any:
    """metrics.jsonl, which is always written, and the trackers of the group, behind one log(metrics, step)."""
    from iolaus.trackers import JSONL, Several

    chosen = [
        config.build(f"tracker.{name}", node, folder=folder, config=plain, purge_step=purge_step, study=study)
        for name, node in (plain.get("tracker") or {}).items()
    ]
    several = Several([JSONL(folder / checkpoint.METRICS, history), *chosen])
    several.text("optimizer", json.dumps(plain["optimizer"]))
    return several


def folder_name(dataset: dict[str, Any]) -> str:
    """A short name of a dataset node, for a title."""
    root = Path(str(dataset.get("root", ""))).name
    reader = dataset["_target_"].rpartition(".")[2]
    return str(dataset.get("name") or (root if reader == "image_folder" else reader))


def shown(folder: Path) -> Path:
    """A folder as a person would type it: relative where it lies below the current one."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


@contextlib.contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, for the loop to end after the step at hand; a later one ends at once."""
    received: list[int] = []
    first = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: Any) -> None:
        nonlocal first
        if received:
            if time.monotonic() - first < ONE_STOP_SECONDS:
                return
            raise KeyboardInterrupt
        first = time.monotonic()
        received.append(number)
        log.warning("ending after this step, with a checkpoint; once more to end at once")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
