"""An Optuna study as a multirun that can be killed, resumed and shared: `hydra/sweeper=optuna`.

Each trial is a run in a folder of its own; study.py says how processes share the trials. Hydra's own sweeper of this
name gives the syntax of spaces, and the samplers. A plugin of Hydra's, imported at every start, so it stays light.
"""

import logging
import math
import shlex
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iolaus.config.explain import explain
from iolaus.config.mistakes import end_rehearsal
from iolaus.config.unchanged import as_text
from iolaus.errors import ConfigError, RunFailed, first_line
from iolaus.files.layout import ENDED, FAILED
from iolaus.settings import objectives_of
from iolaus.studies.checks import JobChecks
from iolaus.studies.compat import job_error
from iolaus.studies.compose import JobLoader
from iolaus.studies.fixed import FixedValues, check_sweeper, fix_values
from iolaus.studies.job import check_not_resumed, save_command, take_job_config, to_overrides
from iolaus.studies.launchers import is_slurm, make_launcher
from iolaus.studies.limits import Clock, end_when_over
from iolaus.studies.search_settings import SearchSettings
from iolaus.studies.several import configure_threads, limit_of_command, runs_at_once
from iolaus.studies.threads import is_job_loss, work_in_threads
from iolaus.studies.told import Told
from iolaus.studies.trial import count_start, end_search, set_running

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from optuna import Trial
    from optuna.trial import FrozenTrial

    from iolaus.files.run_folder import RunFolder
    from iolaus.studies.space import Space

log = logging.getLogger(__name__)
MOST_STARTS = 20  # of a trial whose process dies each time, with no checkpoint since the last
OUTSIDE = ("dataset", "trainer.device", "model.weights")  # data, devices and files can be away for a while
ORPHAN_SECONDS = 0.5  # between looks for orphaned trials


class OptunaSweeper(Sweeper):
    """Keys: those of SearchSettings, see conf/hydra/sweeper/optuna.yaml."""

    config: DictConfig
    launcher: "Launcher"

    def __init__(self, **keys: object) -> None:
        self.keys = keys
        self.stopping = threading.Event()
        self.probes: list[dict[str, Any]] = []  # configurations of the space's ends, without the keys that are searched

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: DictConfig) -> None:
        """Check the keys, and make the launcher."""
        self.config, self.loader = config, JobLoader(hydra_context.config_loader)
        self.folder = Path(config.hydra.sweep.dir)
        settings, objectives = SearchSettings.from_keys(self.keys), objectives_of(config.objective)
        if len(objectives) != len(settings.direction):
            counts = f"{len(settings.direction)} for {len(objectives)} objectives"
            raise ConfigError(f"hydra.sweeper.direction: {counts}")
        self.in_queue = is_slurm(config)
        n_jobs = runs_at_once(config, settings.n_jobs, default=1)
        self.n_jobs = None if n_jobs is None else min(n_jobs, settings.n_trials)
        self.settings, self.max_minutes = settings, limit_of_command(config)
        context = self.loader.put_into(hydra_context)
        self.launcher, self.queue = make_launcher(config, context, task_function, quiet=True)

    def sweep(self, arguments: list[str]) -> dict[str, Any]:
        """Run trials until the study has `n_trials`, together with every other process that works at it."""
        from iolaus.studies.study import open_study  # and so Optuna, which a plain run does not import

        check_sweeper(self.folder, is_search=True)
        self.space = self._read_space([*to_overrides(self.settings.params or {}), *arguments])
        end_rehearsal()
        if self.queue is not None and self.queue.prints(self.settings.n_trials):
            return {}
        Told.instance().begin(by_sweeper=True)  # of a trial that fails, the study tells
        self.study = open_study(self.settings, self.space, self.config)
        try:
            fix_values(self.folder, ["search"], self.probes)
            if self.space.extend is not None:
                FixedValues.instance().values = {}  # the user's function gives keys that are not known here
            save_command(self.config, self.folder)
            if self.queue is not None:
                if self.queue.submit_trials(self.study):
                    return {}
            elif self.n_jobs is not None:
                end_jobs = configure_threads(self.launcher, self.config, self.n_jobs)
                trials = self.settings.n_trials
                work_in_threads(self._work, self.n_jobs, self.stopping, self.folder, trials, end_jobs)
            else:
                self._work()
        except BaseException as error:
            end_search(self.study, error)
            raise
        if Clock.instance().is_over(self.settings.timeout):
            log.warning("hydra.sweeper.timeout=%g: no other trial begins", self.settings.timeout)
        return self._finish()

    def _read_space(self, arguments: list[str]) -> "Space":
        """Read the search space, and find the mistakes in it and in the sampler before anything is made."""
        from iolaus.studies.space import is_grid, make_sampler, read_space

        space, settings = read_space(arguments, self.settings.custom_search_space), self.settings
        for point in settings.enqueue or []:
            space.check_point(point)
        if is_grid(settings.sampler):
            if settings.enqueue:  # Optuna would count them beside the grid's own, and leave as many of those out
                raise ConfigError("hydra.sweeper.enqueue: the grid sampler goes through all points; leave it empty")
            points = math.prod(len(values) for values in space.grid().values())
            self.settings = replace(settings, n_trials=min(settings.n_trials, points))
        make_sampler(settings.sampler, space, self.config.seed, 0)
        checks = JobChecks(self.loader, self.config)
        for job in space.probe_points():
            with checks.collect():
                composed = checks.compose(job)
                overrides = take_job_config(composed)
                values = as_text(composed)
                self.probes.append({key: values[key] for key in values.keys() - space.searched.keys()})
                check_not_resumed(composed)
                if space.extend is None:  # else the user's function gives further keys
                    checks.check(composed, overrides)
        checks.refuse()
        return space

    def _work(self) -> None:
        """Run one trial after the other, until none is left to begin and no other process can leave one behind."""
        while not self.stopping.is_set():
            end_when_over(self.max_minutes)
            if Clock.instance().is_over(self.settings.timeout):
                return
            with ExitStack() as stack:
                trial = self.study.next_trial(stack)
                if trial is not None:
                    self._run(trial)
                    continue
            if self.in_queue or not self.study.has_running_trials():
                return  # a worker of a queue leaves its machine to others
            time.sleep(ORPHAN_SECONDS)

    def _run(self, trial: "Trial") -> None:
        """Launch a trial's run unless it has ended already, and tell the study how it ended."""
        folder = self.study.folder_of(trial.number)
        # at the first start the folder may hold a run of another study, which is for the new run to refuse
        result = folder.results() if "starts" in trial.user_attrs else {}
        if result.get("status") not in ENDED:
            starts = count_start(trial, folder)
            if starts > MOST_STARTS:
                result = {"status": FAILED, "error": f"its process died {MOST_STARTS} times"}
            else:
                result = self._train(trial, folder, starts)
        if result.get("status") in ENDED:  # else its process died: the trial stays RUNNING, to be adopted
            self.study.tell(trial, result)

    def _train(self, trial: "Trial", folder: "RunFolder", starts: int) -> dict[str, Any]:
        """Launch a trial's run. Returns its results.json, or a failure in that form; no status if it was cut off.

        Raises a mistake that is not the trial's own, or a disk's fault: the search ends, the trial is adopted later.
        """
        log.info("trial %d: %s", trial.number, shlex.join(to_overrides(trial.params)))
        error = self._launch(trial)
        result = folder.results()
        if error is None:
            return result
        why = "; ".join(explain(error)) or first_line(error)
        if isinstance(error, RunFailed) and result.get("status") not in ENDED:
            raise error  # by a full disk or the like, which the others would meet too
        if isinstance(error, ConfigError) and (not self.study.has_begun() or self._is_outside(error, starts)):
            raise error
        # a refused run has left the results of another one; a run that has ended keeps its own
        if isinstance(error, ConfigError) or result.get("status") not in ENDED:
            folder.record_refusal(why, [*to_overrides(trial.params), *self.space.overrides])
            return {"status": FAILED, "error": why}
        if result["status"] != FAILED:
            log.warning("trial %d: %s", trial.number, why)
        return result

    def _is_outside(self, error: ConfigError, starts: int) -> bool:
        """Whether a refusal is of what lies outside of the command and is not searched; a trial's third one is not."""
        own = [key for key in OUTSIDE if not any(searched.startswith(key) for searched in self.space.searched)]
        return starts < 3 and bool(own) and all(problem.startswith(tuple(own)) for problem in error.problems)

    def _evaluate(self, number: int) -> None:
        """Launch a finished trial once more: the test that its run has left out is evaluated now."""
        if not self.stopping.is_set() and self.study.folder_of(number).lacks_test():
            log.info("evaluating the winner, trial %d, on test", number)
            error = self._launch(self.study.study.trials[number])
            if error is not None:
                log.warning("trial %d: no test: %s", number, "; ".join(explain(error)))

    def _launch(self, trial: "Trial | FrozenTrial") -> BaseException | None:
        """Run a trial's job. Returns its error; None also if its process died or a signal ended it."""
        from optuna import Trial

        point = to_overrides(trial.params)
        set_running(trial if isinstance(trial, Trial) else None)
        try:
            (job,) = self.launcher.launch([[*point, *self.space.overrides]], initial_job_idx=trial.number)
        except (HydraException, OmegaConfBaseException) as error:  # no run can be composed from this point
            return error
        except Exception as error:
            if not is_job_loss(error):
                raise
            if not self.stopping.is_set():
                log.warning("trial %d: its process was killed (%s)", trial.number, type(error).__name__)
            return None
        finally:
            set_running(None)
        ended_by = job_error(job)
        return None if ended_by and is_job_loss(ended_by) else ended_by

    def _finish(self) -> dict[str, Any]:
        """Write optimization_results.yaml as Hydra's own sweeper does, and return its content."""
        content = self.study.best()
        if self.in_queue and self.study.has_running_trials():
            log.info("no trial is left to begin; the worker of the last one ends the search")
            return {}
        if not content:
            self.study.give_up()  # where none has begun
            seen = f", see {self.folder}" if self.folder.exists() else ""
            raise RunFailed(f"hydra/sweeper=optuna: no trial has finished{seen}")
        if "solutions" in content:
            log.info("%d solutions that no other beats in all objectives", len(content["solutions"]))
            winners = [solution["trial"] for solution in content["solutions"]]
        else:
            point = shlex.join(to_overrides(content["best_params"]))
            log.info("best: trial %d, %.6g, %s", content["best_trial"], content["best_value"], point)
            winners = [content["best_trial"]]
        for number in winners:
            self._evaluate(number)
        OmegaConf.save(OmegaConf.create(content), self.folder / "optimization_results.yaml")
        return content
