"""An Optuna study as a multirun that can be killed, resumed and shared: `hydra/sweeper=optuna`.

What is known of a trial stands in two places, Optuna's storage and the trial's folder, whose name is the trial's
number. A process that works at a trial holds its lock, so that a trial that is RUNNING while nobody holds its lock is
lost: whoever sees it takes it up, with the same parameters, from its checkpoint. Hydra's own sweeper of that name gives
the search-space syntax and the samplers. A plugin of Hydra's, imported at every start, so it stays light.
"""

import contextlib
import hashlib
import logging
import shlex
import threading
import time
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from iolaus import config, folders, locks, trial
from iolaus.checkpoint import RESULTS, read_json
from iolaus.errors import ConfigError, first_line

log = logging.getLogger("iolaus")
SAMPLERS = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", "optuna.pruners.*")
# Their randomness belongs to the study: with another seed for each trial they would visit points twice or none
ONE_SEED = ("GridSampler", "QMCSampler", "CmaEsSampler")
MOST_STARTS = 20  # of a trial whose process dies each time
POLL_SECONDS = 0.5


class OptunaSweeper(Sweeper):
    """Keys: see conf/hydra/sweeper/optuna.yaml."""

    def __init__(
        self, sampler: Any, pruner: Any, direction: Any, storage: str | None, study_name: str | None, n_trials: int,
        n_jobs: int, max_failure_rate: float, enqueue: Any, custom_search_space: str | None, params: Any,
    ) -> None:  # fmt: skip
        self.sampler, self.pruner, self.direction = sampler, pruner, direction
        self.storage, self.study_name = storage, study_name
        self.n_trials, self.n_jobs, self.max_failure_rate = n_trials, n_jobs, max_failure_rate
        self.enqueue, self.custom_search_space, self.params = enqueue, custom_search_space, params or {}
        self.failure: BaseException | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the keys, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.composed, self.folder = config, Path(config.hydra.sweep.dir)
        for name, allowed in (("n_trials", self.n_trials >= 1), ("n_jobs", self.n_jobs >= 1),
                              ("max_failure_rate", 0 <= self.max_failure_rate <= 1)):  # fmt: skip
            if not allowed:
                limits = "between 0 and 1" if name == "max_failure_rate" else "1 or more"
                raise ConfigError(f"hydra.sweeper.{name}={getattr(self, name)}: must be {limits}")
        launcher = str(config.hydra.launcher._target_)
        if self.n_jobs > 1 and launcher.endswith("BasicLauncher"):
            raise ConfigError(f"hydra.sweeper.n_jobs={self.n_jobs}: the basic launcher runs one at a time; "
                              "add hydra/launcher=joblib")  # fmt: skip
        if "joblib" in launcher:  # with one worker joblib would run the job in this process
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.launcher.n_jobs = max(2, self.n_jobs)
        self.jobs: Any = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials until the study has `n_trials`, together with every other process that works at it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.composed, self.folder / "multirun.yaml")
        self._open([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        threads = [threading.Thread(target=self._work, name=f"trials-{i}") for i in range(1, self.n_jobs)]
        for thread in threads:
            thread.start()
        try:
            self._work()
        finally:
            end_workers(threads)
        if self.failure is not None:
            raise self.failure
        return self._finish()

    def _open(self, arguments: list[str]) -> None:
        """Read the search space, and make or open the study."""
        import optuna
        from hydra.utils import instantiate
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides

        self.space, self.fixed, self.fixed_overrides = create_params_from_overrides(arguments)
        for key in self.fixed:
            self.space.pop(key, None)
        self.extend = None
        if self.custom_search_space:
            self.extend = config.factory("hydra.sweeper.custom_search_space", {"_target_": self.custom_search_space})
        if not self.space and self.extend is None:
            raise ConfigError(
                "hydra/sweeper=optuna: nothing to search; give a space, 'optimizer.lr=interval(0.001,0.1)'"
            )
        self.grid = None
        if str(self.sampler._target_).endswith("GridSampler"):
            self.grid = {key: OptunaSweeperImpl._to_grid_sampler_choices(d) for key, d in self.space.items()}
            size = 1
            for choices in self.grid.values():
                size *= len(choices)
            self.n_trials = min(self.n_trials, size)
        directions: list[Any] = [self.direction] if isinstance(self.direction, str) else list(self.direction)
        self.pruner = instantiate(self.pruner, _execution_whitelist_=SAMPLERS)
        self.study = optuna.create_study(
            study_name=self.study_name or self.folder.name, storage=trial.open_storage(self.storage, self.folder),
            sampler=self._sampler(0), pruner=self.pruner, directions=directions, load_if_exists=True,
        )  # fmt: skip
        if len(directions) > 1 and not isinstance(self.pruner, optuna.pruners.NopPruner):
            log.warning("hydra/sweeper/pruner: a study of several objectives is not pruned")
        with self._alone():
            for point in self.enqueue or []:
                self.study.enqueue_trial(dict(point), skip_if_exists=True)
        done = sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))
        log.info("study %s: %d of %d trials are done", self.study.study_name, done, self.n_trials)

    def _sampler(self, number: int) -> Any:
        """The sampler for a trial. It keeps nothing in memory: each trial has its own, seeded by the trial's number."""
        from hydra.utils import instantiate

        node = OmegaConf.to_container(self.sampler, resolve=True)
        assert isinstance(node, dict)
        if "seed" in node:
            seed = self.composed.seed if node["seed"] is None else node["seed"]
            one = str(node["_target_"]).endswith(ONE_SEED)
            node["seed"] = seed if one else seed_of_trial(seed, number)
        made = instantiate(node, _execution_whitelist_=SAMPLERS)
        return made(self.grid) if self.grid is not None else made

    def _alone(self) -> Any:
        """The lock under which trials are counted and begun, by one thread of one process at a time."""
        return locks.held(self.folder / ".trials" / "begin.lock", wait=True)

    def _lock_of(self, number: int) -> Path:
        return self.folder / ".trials" / f"{number}.lock"

    def _folder_of(self, number: int) -> Path:
        return self.folder / str(number)

    def _work(self) -> None:
        """Run one trial after the other, until none is left to begin and none of the others' can be lost any more."""
        try:
            while self.failure is None:
                with contextlib.ExitStack() as stack:
                    begun = self._begin(stack)
                    if begun is not None:
                        self._run(begun)
                        continue
                if not self._others_run():
                    return
                time.sleep(POLL_SECONDS)
        except BaseException as error:  # Ctrl-C as well: the other threads begin no further trial
            self.failure = self.failure or error
            if threading.current_thread() is threading.main_thread():
                raise

    def _begin(self, stack: contextlib.ExitStack) -> Any:
        """A lost trial or a new one, its lock held by `stack` and its parameters drawn; None where there is none."""
        import optuna

        with self._alone():
            trials = self.study.get_trials(deepcopy=False)
            running = [t for t in trials if t.state == optuna.trial.TrialState.RUNNING]
            for lost in running:
                if not locks.is_held(self._folder_of(lost.number) / folders.LOCK) and stack.enter_context(
                    locks.held(self._lock_of(lost.number))
                ):
                    log.info("trial %d was cut off: taken up again", lost.number)
                    return self._drawn(optuna.Trial(self.study, lost._trial_id))
            begun = sum(t.state != optuna.trial.TrialState.WAITING for t in trials)
            failed = sum(t.state == optuna.trial.TrialState.FAIL for t in trials)
            if failed > self.max_failure_rate * self.n_trials:
                raise ConfigError(f"hydra.sweeper.max_failure_rate={self.max_failure_rate:g}: {failed} of "
                                  f"{self.n_trials} trials failed, see {self.folder}")  # fmt: skip
            if begun >= self.n_trials:
                return None
            self.study.sampler = self._sampler(len(trials))
            fresh = self.study.ask()
            stack.enter_context(locks.held(self._lock_of(fresh.number), wait=True))
            return self._drawn(fresh)

    def _drawn(self, begun: Any) -> Any:
        """The trial with all its parameters: what it has already stays."""
        for key, distribution in self.space.items():
            begun._suggest(key, distribution)
        if self.extend is not None:
            self.extend(self.composed, begun)
        return begun

    def _others_run(self) -> bool:
        import optuna

        states = (optuna.trial.TrialState.RUNNING,)
        return bool(self.study.get_trials(deepcopy=False, states=states))

    def _run(self, begun: Any) -> None:
        """Launch a trial's run unless it is over already, and tell the study how it ended."""
        results = self._folder_of(begun.number) / RESULTS
        result, error = read_json(results), None
        if result.get("status") not in ("finished", "pruned", "failed"):
            starts = 1 + begun.user_attrs.get("starts", 0)
            begun.set_user_attr("starts", starts)
            if starts > MOST_STARTS:
                result = {"status": "failed", "error": f"its process died {MOST_STARTS} times"}
            else:
                error = self._launch(begun)
                result = read_json(results)
        if result.get("status") is None:
            if error is None:  # its process died: the trial stays RUNNING, to be taken up again
                return
            result = {"status": "failed", "error": first_line(error)}
        self._tell(begun, result)

    def _launch(self, begun: Any) -> BaseException | None:
        """Run the job. Returns what it raised; None also where its process died."""
        from hydra.core.utils import JobStatus

        from iolaus.grid import is_a_dead_worker

        params = {**begun.params, **self.fixed}
        overrides = [*(f"{key}={value}" for key, value in params.items()), *self.fixed_overrides]
        log.info("trial %d: %s", begun.number, shlex.join(f"{key}={value}" for key, value in begun.params.items()))
        trial.set_running(begun)
        try:
            (job,) = self.jobs.launch([overrides], initial_job_idx=begun.number)
        except Exception as error:
            if not is_a_dead_worker(error):
                raise
            log.warning("trial %d: its process was killed (%s)", begun.number, type(error).__name__)
            return None
        finally:
            trial.set_running(None)
        return job._return_value if job.status == JobStatus.FAILED else None

    def _tell(self, begun: Any, result: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        values, state = None, TrialState.COMPLETE
        if result["status"] == "finished":
            values = [o["value"] for o in result["objectives"]]
        elif result["status"] == "pruned":
            state = TrialState.PRUNED
        else:
            state = TrialState.FAIL
            begun.set_user_attr("error", str(result.get("error")))
            log.warning("trial %d failed: %s", begun.number, result.get("error"))
        with contextlib.suppress(RuntimeError):  # GridSampler stops the study of optimize(), which this is not
            self.study.tell(begun, values, state=state)

    def _finish(self) -> Any:
        """Write optimization_results.yaml as Hydra's own sweeper does, and return its content."""
        complete = [
            t for t in self.study.get_trials(deepcopy=False) if t.values is not None and t.state.name == "COMPLETE"
        ]
        if not complete:
            raise ConfigError(f"hydra/sweeper=optuna: no trial has finished, see {self.folder}")
        if len(self.study.directions) == 1:
            best = self.study.best_trial
            content: dict[str, Any] = {
                "name": "optuna",
                "best_params": best.params,
                "best_value": best.value,
                "best_trial": best.number,
            }
            log.info("best: trial %d, %s, %s", best.number, f"{best.value:.6g}",
                     shlex.join(f"{key}={value}" for key, value in best.params.items()))  # fmt: skip
        else:
            content = {"name": "optuna", "solutions": [
                {"trial": t.number, "params": t.params, "values": list(t.values)} for t in self.study.best_trials
            ]}  # fmt: skip
        OmegaConf.save(OmegaConf.create(content), self.folder / "optimization_results.yaml")
        return content


def seed_of_trial(seed: int, number: int) -> int:
    """A seed of 32 bits for a trial's sampler, so that a search goes on after a restart as it would have without."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def end_workers(threads: list[threading.Thread], patience_seconds: float = 30.0) -> None:
    """Wait for the threads; where this thread is ending by an error, end joblib's processes that keep them waiting."""
    import sys

    if sys.exc_info()[0] is not None:  # each run writes its checkpoint when it gets the signal, which takes a step
        deadline = time.monotonic() + patience_seconds
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            time.sleep(0.1)
        with contextlib.suppress(Exception):
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=False, kill_workers=True)
    for thread in threads:
        thread.join()
