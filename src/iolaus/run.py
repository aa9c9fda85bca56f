"""One run: configuration -> objects -> loop.train() -> results.json -> the objective."""

import contextlib
import functools
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from iolaus.config.check import RunConfig, check_composed
from iolaus.config.combinations import keys_without_effect, refuse_unread
from iolaus.config.explain import explain, explain_failure
from iolaus.config.replaced import reset_replaced
from iolaus.errors import ConfigError, RunFailed, first_line, problems_of
from iolaus.files import checkpoint
from iolaus.files.atomic import write_json
from iolaus.files.faults import drop_unwritable_lines, explain_fault, find_fault
from iolaus.files.layout import FINISHED
from iolaus.files.locks import file_lock, record_host
from iolaus.follow import ask_ranks, begin_together, describe_work
from iolaus.machine import followers
from iolaus.machine.crew import RankLost
from iolaus.machine.process import collect_as_usual
from iolaus.machine.signals import defer_signals, pass_on, raise_stop, stop_on_signals
from iolaus.methods.stopping import NonFiniteLoss, best_epoch
from iolaus.resume import find_result, how_to_continue, load_resumed, restore
from iolaus.studies.fixed import FixedValues
from iolaus.studies.job import Job, check_not_resumed, tell_of_study
from iolaus.studies.limits import Clock
from iolaus.studies.told import Told
from iolaus.studies.trial import Pruning, current_trial
from iolaus.trust import hydra_guard  # noqa: F401  (what Hydra does is checked from here on, in workers too)

if TYPE_CHECKING:
    from iolaus.config.build import Parts
    from iolaus.learner import LoopState, Metrics
    from iolaus.machine.ranks import Alone
    from iolaus.show.trackers import TrackerList

log = logging.getLogger(__name__)
LOCK_SECONDS = 0.1  # at most, a table that asks whether the run is at work holds its lock


def run(cfg: DictConfig) -> float:
    """Train as `cfg` says, or resume, in Hydra's output folder. Returns the objective at the last epoch.

    User errors leave no folder and end a single run with SystemExit(2) from ConfigError; RunFailed ends it with
    SystemExit(1), a signal with 130 (Ctrl-C) or 143 (SIGTERM), `trainer.max_minutes` with 142; `resume=FOLDER` goes on.
    In a sweep the two errors are raised as they are, and its other runs go on; one that another trains is left to it.
    """
    job = Job.from_hydra()
    if not job.sweeping:  # else the study's clock runs
        Clock.instance().start()
    drop_unwritable_lines(logging.getLogger().handlers)
    try:
        with tell_faults(job), file_lock(job.folder.lock, timeout=LOCK_SECONDS) as acquired:
            if acquired:
                record_host(job.folder.lock)
                job.folder.remove_stale_files()
                return prepare_and_train(cfg, job)
            if job.sweeping:
                log.info("%s is trained by another process", job.folder)
                return math.nan
            raise ConfigError(f"resume={cfg.get('resume')}: another process trains in {job.folder}")
    except (ConfigError, RunFailed) as error:
        # all that Hydra composed was checked, unless a `${…}` in it leads nowhere
        error.complete = not isinstance(error.__cause__, OmegaConfBaseException)
        if not job.sweeping:  # an exit, as Hydra would put a line of its own before an error's
            raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
        if not Told.instance().by_sweeper:
            Told.instance().tell(error)  # Hydra shows only the first error of a sweep, and at its end
        raise
    except SystemExit as end:
        pass_on(end.code)
        raise


def prepare_and_train(cfg: DictConfig, job: Job) -> float:
    """Check, build and train. Whatever ends it before all parts are built (ConfigError, Ctrl-C) leaves no folder."""
    folder = job.folder
    try:
        if resumes := bool(cfg.get("resume")) and not job.sweeping:
            cfg = load_resumed(cfg, job)
        else:
            reset_replaced(cfg, job.overrides, job.hydra.runtime.choices)
        if job.sweeping:
            check_not_resumed(cfg)
            FixedValues.instance().check(cfg)
        if not resumes and (objective := find_result(cfg, folder)) is not None:
            return objective
        config = check_composed(cfg)
        if not job.sweeping:  # a sweep has looked at all of its runs together
            refuse_unread([keys_without_effect(config, job.overrides)])
            tell_of_study(job)
        with defer_signals():  # torch and the rest of what the run needs, not before the checks
            from iolaus.config.build import build_parts
            from iolaus.data.open import clear_source_cache
        collect_as_usual()
        if not job.number:
            clear_source_cache()  # only the runs of one sweep share what was read
        if folder.last.exists():  # the file that the run started from is not needed any more
            config = replace(config, model=replace(config.model, weights=None))
        with problems_of("trainer"):
            group = followers.form_group(config.trainer.device, config.trainer.devices, lambda: describe_work(cfg))
        parts = build_parts(config, group)
        state = restore(parts, folder)
    except BaseException as error:  # Ctrl-C while the data are read, too
        folder.discard()
        if isinstance(error, OmegaConfBaseException):
            raise ConfigError(*explain(error)) from error
        raise
    is_new = not folder.is_run()
    finished = folder.status() == FINISHED and state.epoch >= config.trainer.epochs  # all but its test
    try:
        job.save_config(cfg)
        if not finished:
            folder.results_file.unlink(missing_ok=True)  # of a run that failed, and is at it again
        tracker = open_trackers(config, state, job)
    except (ConfigError, OSError):
        if is_new:
            folder.remove()
        raise
    pruning = Pruning(None if finished else current_trial(job), config.launch.objectives[0])
    return train_and_evaluate(parts, group, state, tracker, job, pruning)


@contextlib.contextmanager
def tell_faults(job: Job) -> Iterator[None]:
    """Raise what the file system does to a run as RunFailed; the run goes on from its last checkpoint another time."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        again = f"continue with: {how_to_continue(job)}" if job.folder.is_run() else "give the same command"
        if (why := explain_fault(error, job.folder, again)) is None:
            raise
        raise RunFailed(why) from error


def train_and_evaluate(
    parts: "Parts", group: "Alone", state: "LoopState", tracker: "TrackerList", job: Job, pruning: Pruning
) -> float:
    """Train from `state` on, evaluate on test, write and show the results. Returns the objective.

    group: the ranks that train it together. pruning: by the search whose trial the run is, if any; the test of a trial
    waits until it has won.
    """
    from iolaus import loop, results
    from iolaus.machine.monitor import Monitor
    from iolaus.show import progress as display
    from iolaus.show.tables import result_table

    config, learner, folder = parts.config, parts.learner, job.folder
    objective, epochs = config.launch.objectives[0], config.trainer.epochs
    again = how_to_continue(job)
    # On a CPU a thread would take from the training what it saves it.
    writer = checkpoint.Writer(learner.device.type == "cuda", config.trainer.checkpoint_every)
    log_parts(parts, state)

    def should_stop(history: "list[Metrics]") -> bool:
        return pruning.should_stop(history) or parts.should_stop(history)

    def save() -> None:
        states = {}
        if state.stats.steps == 0 and best_epoch(state.history, objective) == len(state.history) - 1:
            states[folder.best] = results.pack_best(parts, state)  # before last.pt: a kill between the two is harmless
        writer.write({**states, folder.last: results.pack_last(parts, state)})

    try:
        if followers.begin_run(group):
            begin_together(parts, state, group)
        monitor = Monitor(learner.device, config.trainer.monitor_every, step=lambda: state.step)
        with stop_on_signals() as received, display.progress(epochs, small=parts.is_small) as progress, monitor, writer:
            observers = loop.Observers(tracker, progress, monitor)
            end = Clock.instance().end(config.trainer.max_minutes)
            interrupted = functools.partial(ask_ranks, learner.group, received, end, writer.is_due)
            number = loop.train(learner, parts.data, state, observers, objective, should_stop, interrupted, save)
        pruning.report(state.history)
        if number:
            followers.end_run(group)
            raise_stop(number, f"stopped in epoch {state.epoch + 1}; continue with: {again}")
        if learner.group.broadcast(pruning.pruned and state.epoch < epochs):
            followers.end_run(group)
            log.info("pruned after epoch %d", state.epoch)
            write_json(folder.results_file, results.describe_pruned(parts, state))
            return state.history[-1][objective]
        load_best = functools.partial(checkpoint.load, folder.best, learner.device, ["model"])
        metrics = results.evaluate_final(parts, state, load_best, with_test=not pruning.is_trial)
        tracker.log({k: v for k, v in metrics["last"].items() if k.startswith("test/")}, state.step)
        followers.end_run(group)
    except Exception as raised:
        if isinstance(raised, NonFiniteLoss):  # of a sum over the ranks: all have met it
            followers.end_run(group)
        error = followers.find_cause(group, raised)
        if isinstance(error, RankLost):
            raise RankLost(f"{error}; continue with: {again}") from raised
        if find_fault(error):  # see tell_faults; no results.json: the run has not ended
            raise error from error.__cause__
        why = explain_failure(error)
        if why is None and job.sweeping:  # the other runs go on, and the table says why this one did not
            log.exception("the run failed")
            why = f"{type(error).__name__}: {first_line(error)}"
        if why is None:
            raise error from error.__cause__
        if folder.status() != FINISHED:  # all but its test
            write_json(folder.results_file, results.describe_failed(parts, state, why))
        raise RunFailed(why) from error
    finally:
        tracker.close()
        parts.data.close()
        followers.end_broken_run(group)
    from iolaus.show.curves import draw_or_warn

    best = int(metrics["best"]["epoch"])
    draw_or_warn(state.history, folder.curves, results.title_of(parts), best, objective)
    result = results.describe_finished(parts, state, metrics)
    write_json(folder.results_file, result)  # last of all: it marks the run as finished
    result_table(result, folder)
    return float(result["objective"]["value"])


def log_parts(parts: "Parts", state: "LoopState") -> None:
    """Say in the log what the run consists of, and where it goes on."""
    from iolaus import results

    learner = parts.learner
    log.info("data: %s", parts.data.description)
    where = f"{learner.precision} on {learner.device}"
    log.info("model: %s, %s parameters; %s", results.model_name(parts), f"{parts.parameters:,}", where)
    for note in parts.notes:
        log.info("%s", note)
    if state.step > 0 and state.epoch < parts.config.trainer.epochs:  # else only its test is left
        log.info("resumed in epoch %d, after step %d", state.epoch + 1, state.step)


def open_trackers(config: RunConfig, state: "LoopState", job: Job) -> "TrackerList":
    """metrics.jsonl, which is always written, and the trackers of the group, behind one log(metrics, step)."""
    from iolaus.show.trackers import JSONL, TrackerList

    given: dict[str, Any] = {"folder": job.folder.path, "config": config.plain}
    given |= {"study": job.study, "varied": job.varied}
    purge_step = state.step + 1 if state.step > 0 else None
    chosen = [node.build(**given, purge_step=purge_step) for node in config.tracker_nodes.values()]
    trackers = TrackerList([JSONL(job.folder.metrics, state.history), *chosen])
    trackers.text("optimizer", json.dumps(config.plain["optimizer"]))
    return trackers
