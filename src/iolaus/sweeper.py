"""An Optuna study as a multirun that can be killed, resumed and shared: `hydra/sweeper=optuna`.

What is known of a trial stands in two places, Optuna's storage and the trial's folder, whose name is the trial's
number. A process that works at a trial holds its lock, so that a trial that is RUNNING while nobody holds its lock is
lost: whoever sees it takes it up, with the same parameters, from its checkpoint. Hydra's own sweeper of that name gives
the search-space syntax and the samplers. A plugin of Hydra's, imported at every start, so it stays light.
"""

import contextlib
import inspect
import logging
import math
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iolaus import folders, locks, space, trial, workers
from iolaus.checkpoint import DONE, FAILED, LAST, LOCK, RESULTS, read_json
from iolaus.errors import ConfigError, explain, first_line, nearest
from iolaus.settings import objectives_of

log = logging.getLogger("iolaus")
OVER = (*DONE, FAILED)
MOST_STARTS = 20  # of a trial whose process dies each time, with no checkpoint since the last
POLL_SECONDS = 0.5


class OptunaSweeper(Sweeper):
    """Keys: see conf/hydra/sweeper/optuna.yaml."""

    def __init__(
        self, sampler: Any, pruner: Any, direction: Any, storage: str | None, study_name: str | None, n_trials: int,
        n_jobs: Any, max_failure_rate: float, enqueue: Any, custom_search_space: str | None, params: Any,
        **unknown: Any,
    ) -> None:  # fmt: skip
        for key, value in unknown.items():
            allowed = set(inspect.signature(OptunaSweeper).parameters) - {"unknown"}
            raise ConfigError(f"hydra.sweeper.{key}={value}: no such key; {nearest(key, allowed)}")
        self.sampler, self.pruner = sampler, pruner
        self.directions: list[Any] = [direction] if isinstance(direction, str) else list(direction)
        self.storage, self.study_name = storage, study_name
        self.n_trials, self.n_jobs, self.max_failure_rate = n_trials, n_jobs, max_failure_rate
        self.enqueue: Any = OmegaConf.to_container(enqueue) if enqueue else []
        self.custom_search_space, self.params = custom_search_space, params or {}
        self.failures: list[BaseException] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the keys, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.composed, self.context, self.folder = config, hydra_context, Path(config.hydra.sweep.dir)
        self._check_keys()
        self.in_workers = workers.is_joblib(config)
        if self.n_jobs is None:
            self.n_jobs = min(workers.runs_at_once(config), self.n_trials) if self.in_workers else 1
        if self.n_jobs > 1 and config.hydra.launcher._target_.endswith("BasicLauncher"):
            raise ConfigError(f"hydra.sweeper.n_jobs={self.n_jobs}: the basic launcher runs one at a time; "
                              "add hydra/launcher=joblib")  # fmt: skip
        self.jobs: Any = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )
        if self.in_workers:
            workers.prepare(self.jobs, self.n_jobs)

    def _check_keys(self) -> None:
        one = self.n_jobs is None or (isinstance(self.n_jobs, int) and self.n_jobs >= 1)
        rate = isinstance(self.max_failure_rate, int | float) and 0 <= self.max_failure_rate <= 1
        for name, fine, allowed in (
            ("n_trials", isinstance(self.n_trials, int) and self.n_trials >= 1, "a whole number, 1 or more"),
            ("n_jobs", one, "a whole number, 1 or more"),
            ("max_failure_rate", rate, "between 0 and 1"),
            ("direction", set(self.directions) <= {"minimize", "maximize"}, "minimize or maximize"),
        ):
            if not fine:
                raise ConfigError(f"hydra.sweeper.{name}={getattr(self, name, self.directions)}: must be {allowed}")
        names = objectives_of(self.composed.objective)
        if len(names) != len(self.directions):
            raise ConfigError(f"hydra.sweeper.direction: {len(self.directions)} for {len(names)} objectives")

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials until the study has `n_trials`, together with every other process that works at it."""
        self._read([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        self._open()
        OmegaConf.save(self.composed, self.folder / "multirun.yaml")
        if self.in_workers:
            workers.keep_busy(self._work, self.n_jobs, self.failures, self.folder, self.n_trials)
        else:
            self._work()
        return self._finish()

    def _read(self, arguments: list[str]) -> None:
        """Read the search space, and find the mistakes in it and in the sampler before anything is made."""
        from hydra.utils import instantiate

        self.space = space.read(arguments, self.custom_search_space)
        for point in self.enqueue:
            self.space.check_point(point)
        if space.is_grid(self.sampler):
            if self.enqueue:  # Optuna would count them beside the grid's own, and leave as many of those out
                raise ConfigError("hydra.sweeper.enqueue: the grid sampler goes through all points; leave it empty")
            grid = space.grid_of(self.space)
            self.n_trials = min(self.n_trials, math.prod(map(len, grid.values())))
        self._sampler(0)
        self.pruner = instantiate(self.pruner, _execution_whitelist_=space.PLUGINS)
        self.context.config_loader.load_sweep_config(self.composed, self.space.some_point())

    def _open(self) -> None:
        """Make or open the study, by one process at a time."""
        import optuna

        several = len(self.directions) > 1
        if several and not isinstance(self.pruner, optuna.pruners.NopPruner):
            log.warning("hydra/sweeper/pruner: a study of several objectives is not pruned")
        is_new = not self.folder.exists()
        try:
            with self._alone():
                storage = trial.open_storage(self.storage, self.folder)
                self.study = optuna.create_study(
                    study_name=self.study_name or self.folder.name, storage=storage, sampler=self._sampler(0),
                    pruner=self.pruner, directions=self.directions, load_if_exists=True,
                )  # fmt: skip
                trial.check_study(self.study, self.directions, self.space)
                for point in self.enqueue:
                    self.study.enqueue_trial(point, skip_if_exists=True)
        except ConfigError:
            if is_new:
                shutil.rmtree(self.folder)
                folders.remove_empty(self.folder.parent)
            raise
        done = sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))
        log.info("study %s: %d of %d trials are done", self.study.study_name, done, self.n_trials)

    def _sampler(self, number: int) -> Any:
        return space.sampler(self.sampler, self.space, self.composed.seed, number)

    def _alone(self) -> Any:
        """The lock under which trials are counted and begun, by one thread of one process at a time."""
        return locks.held(self.folder / ".trials" / "begin.lock", wait=math.inf)

    def _folder_of(self, number: int) -> Path:
        return self.folder / str(number)

    def _work(self) -> None:
        """Run one trial after the other, until none is left to begin and none of the others' can be lost any more."""
        while not self.failures:
            with contextlib.ExitStack() as stack:
                begun = self._begin(stack)
                if begun is not None:
                    self._run(begun)
                    continue
            if not self._others_run():
                return
            time.sleep(POLL_SECONDS)

    def _begin(self, stack: contextlib.ExitStack) -> Any:
        """A lost trial or a new one, its lock held by `stack` and its parameters drawn; None where there is none."""
        from optuna.trial import Trial, TrialState

        with self._alone():
            trials = self.study.get_trials(deepcopy=False)
            for lost in trials:
                if lost.state == TrialState.RUNNING and self._take_up(lost.number, stack):
                    log.info("trial %d was cut off: taken up again", lost.number)
                    self.study.sampler = self._sampler(lost.number)
                    return self._drawn(Trial(self.study, lost._trial_id))
            waiting = [t.number for t in trials if t.state == TrialState.WAITING]
            failed = sum(t.state == TrialState.FAIL for t in trials)
            if failed > self.max_failure_rate * self.n_trials:
                raise ConfigError(f"hydra.sweeper.max_failure_rate={self.max_failure_rate:g}: {failed} of "
                                  f"{self.n_trials} trials failed, see {self.folder}")  # fmt: skip
            if len(trials) - len(waiting) >= self.n_trials:
                return None
            self.study.sampler = self._sampler(min(waiting, default=len(trials)))
            fresh = self.study.ask()
            stack.enter_context(self._lock_of(fresh.number))
            return self._drawn(fresh)

    def _lock_of(self, number: int) -> Any:
        """The lock of whoever works at a trial."""
        return locks.held(self.folder / ".trials" / f"{number}.lock")

    def _take_up(self, number: int, stack: contextlib.ExitStack) -> bool:
        """Take a lost trial's lock; not where somebody has it or still trains, or where the trial has ended."""
        from optuna.trial import TrialState

        with contextlib.ExitStack() as mine:
            ours = mine.enter_context(self._lock_of(number))
            if not ours or locks.is_held(self._folder_of(number) / LOCK):
                return False
            # Whoever had the lock until now may have told the study of the trial's end since it was listed.
            if self.study.get_trials(deepcopy=False)[number].state != TrialState.RUNNING:
                return False
            stack.enter_context(mine.pop_all())
            return True

    def _drawn(self, begun: Any) -> Any:
        self.space.draw(begun, self.composed)
        return begun

    def _others_run(self) -> bool:
        from optuna.trial import TrialState

        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _run(self, begun: Any) -> None:
        """Launch a trial's run unless it is over already, and tell the study how it ended."""
        results = self._folder_of(begun.number) / RESULTS
        # the first start finds only what another study left in this folder, which is for the run to see
        result = read_json(results) if "starts" in begun.user_attrs else {}
        if result.get("status") not in OVER:
            if self._dies_each_time(begun):
                result = {"status": FAILED, "error": f"its process died {MOST_STARTS} times"}
            else:
                error = self._launch(begun)
                result = read_json(results)
                why = "" if error is None else "; ".join(explain(error)) or first_line(error)
                # a refused run's results are another's; with its own it is over, whatever came after them
                if isinstance(error, ConfigError) or (why and result.get("status") not in OVER):
                    result = {"status": FAILED, "error": why}
                elif why and result["status"] != FAILED:
                    log.warning("trial %d: %s", begun.number, why)
        if result.get("status") in OVER:  # else its process died: the trial stays RUNNING, to be taken up again
            self._tell(begun, result)

    def _dies_each_time(self, begun: Any) -> bool:
        """Count a trial's start. Whether there were too many since its last checkpoint."""
        last = self._folder_of(begun.number) / LAST
        written = last.stat().st_mtime_ns if last.exists() else 0
        starts, before = begun.user_attrs.get("starts", (0, None))
        starts = starts + 1 if written == before else 1
        begun.set_user_attr("starts", [starts, written])
        return starts > MOST_STARTS

    def _launch(self, begun: Any) -> BaseException | None:
        """Run the job. Returns what it raised; None also where its process died or was told to end."""
        from hydra.core.utils import JobStatus

        point = [f"{key}={value}" for key, value in begun.params.items()]
        log.info("trial %d: %s", begun.number, shlex.join(point))
        trial.set_running(begun)
        try:
            (job,) = self.jobs.launch([[*point, *self.space.overrides]], initial_job_idx=begun.number)
        except (HydraException, OmegaConfBaseException) as error:  # a point of which no run can be composed
            return error
        except Exception as error:
            if not workers.is_a_dead_worker(error):
                raise
            if not self.failures:
                log.warning("trial %d: its process was killed (%s)", begun.number, type(error).__name__)
            return None
        finally:
            trial.set_running(None)
        return job._return_value if job.status == JobStatus.FAILED else None

    def _tell(self, begun: Any, result: dict[str, Any]) -> None:
        """Tell the study how a trial ended."""
        state, values, error = trial.outcome(result)
        if error is not None:
            begun.set_user_attr("error", error)
            log.warning("trial %d failed: %s", begun.number, error)
        with contextlib.suppress(RuntimeError):  # GridSampler stops the study of optimize(), which this is not
            self.study.tell(begun, values, state=state)
        if values is not None:
            names = objectives_of(self.composed.objective)
            reached = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, values, strict=True))
            best = self.study.best_trial if len(names) == 1 else None
            also = f"; the best is trial {best.number}, {best.value:.6g}" if best is not None else ""
            log.info("trial %d: %s%s", begun.number, reached, also)

    def _finish(self) -> Any:
        """Write optimization_results.yaml as Hydra's own sweeper does, and return its content."""
        content = trial.best_of(self.study)
        if not content:
            raise ConfigError(f"hydra/sweeper=optuna: no trial has finished, see {self.folder}")
        if "solutions" in content:
            log.info("%d solutions that no other beats in all objectives", len(content["solutions"]))
        else:
            point = (f"{key}={value}" for key, value in content["best_params"].items())
            log.info("best: trial %d, %.6g, %s", content["best_trial"], content["best_value"], shlex.join(point))
        OmegaConf.save(OmegaConf.create(content), self.folder / "optimization_results.yaml")
        return content
