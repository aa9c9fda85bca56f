"""Every combination of the values in a multirun, one run each: `hydra/sweeper=basic`, the default, in Hydra's place.

A plugin of Hydra's, imported at every start, so it stays light.
"""

import itertools
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from iolaus.config.check import read_settings
from iolaus.config.mistakes import end_rehearsal
from iolaus.config.unchanged import check_same_run
from iolaus.errors import ConfigError, RunFailed
from iolaus.files.layout import FINISHED, HYDRA
from iolaus.files.leftovers import remove_leftovers
from iolaus.files.run_folder import RunFolder, make_folder
from iolaus.studies.checks import JobChecks, number_jobs
from iolaus.studies.compat import allow_numbered_options, job_error, parse_references_once, read_times_as_text
from iolaus.studies.compose import JobLoader
from iolaus.studies.fixed import check_sweeper, fix_values
from iolaus.studies.grid_settings import GridSettings
from iolaus.studies.job import check_not_resumed, read_as_text, save_command, to_overrides
from iolaus.studies.launchers import is_slurm, make_launcher
from iolaus.studies.limits import Clock, end_when_over
from iolaus.studies.several import configure_threads, limit_of_command, runs_at_once
from iolaus.studies.threads import is_cut_off, is_job_loss, work_in_threads
from iolaus.studies.told import Told, tell_stopped
from iolaus.studies.variants import Variants

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction

log = logging.getLogger(__name__)
ATTEMPTS = 3  # at a run whose process is lost, with no checkpoint since the last


class GridSweeper(Sweeper):
    """Takes the place of Hydra's BasicSweeper: leaves out finished runs, and goes on past failed ones.

    The sweep ends with exit status 1 when a run has failed, 2 when all failed runs have a mistake in their
    configuration; the run's results.json, or the sweep's output, says why.
    """

    config: DictConfig
    launcher: "Launcher"

    def __init__(self, **keys: object) -> None:
        self.keys = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in keys.items()}

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: DictConfig) -> None:
        """Check the keys, and make the launcher."""
        problems: list[str] = []
        settings = read_settings("hydra.sweeper", GridSettings, self.keys, problems)
        if settings is None:
            raise ConfigError(*problems)
        self.max_batch_size, self.timeout, self.params = settings.max_batch_size, settings.timeout, settings.params
        self.max_minutes = limit_of_command(config)
        self.config, self.loader = config, JobLoader(hydra_context.config_loader)
        self.folder = Path(config.hydra.sweep.dir)
        self.composed: list[dict[str, Any]] = []  # the configurations of all runs, by dotted keys
        self.run_folders: dict[int, RunFolder] = {}  # of the runs that are not finished
        self.n_jobs = runs_at_once(config, settings.n_jobs, settings.max_batch_size)
        self.launcher, self.queue = make_launcher(config, self.loader.put_into(hydra_context), task_function)

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run every combination that is not finished, each in its folder."""
        parser = OverridesParser.create(config_loader=self.loader.loader)
        jobs = combine(parser.parse_overrides([*to_overrides(self.params or {}), *arguments]))
        to_run = self._check_jobs(jobs)
        end_rehearsal()
        if self.queue is not None and self.queue.prints(len(to_run)):
            return []
        make_folder(self.folder)
        remove_leftovers(self.folder)
        fix_values(self.folder, [*to_overrides(self.params or {}), *arguments], self.composed)
        save_command(self.config, self.folder)
        if len(to_run) < len(jobs):
            log.info("%d of %d runs are finished already", len(jobs) - len(to_run), len(jobs))
        returns: list[JobReturn] = []
        if self.queue is not None:
            self.queue.submit(len(to_run))
            return returns
        try:
            if is_slurm(self.config):
                to_run = self._run_as_worker(to_run, returns)
            elif self.n_jobs is not None and to_run:
                returns = self._run_in_workers(to_run, min(self.n_jobs, len(to_run)), len(jobs))
            elif to_run:
                for first, overrides in self._batches(to_run):
                    if not self._may_begin():
                        break
                    returns += self.launcher.launch(overrides, initial_job_idx=first)
        except (KeyboardInterrupt, SystemExit):
            done = len(jobs) - sum(folder.status() != FINISHED for folder in self.run_folders.values())
            tell_stopped("grid", "runs", done, len(jobs))
            raise
        if left := len(to_run) - len(returns):
            did = f"{left} of {len(jobs)} runs did not begin"
            log.warning("hydra.sweeper.timeout=%g: %s; the same command goes on", self.timeout, did)
        if failed := [job for job in returns if job.status != JobStatus.COMPLETED]:
            self._record_refusals(failed)
            others = "; the others are done" if len(failed) < len(jobs) and not left else ""
            log.error("%d of %d runs failed%s", len(failed), len(jobs), others)
            raise SystemExit(2 if all(isinstance(job_error(job), ConfigError) for job in failed) else 1)
        return returns

    def _check_jobs(self, jobs: list[list[str]]) -> dict[int, list[str]]:
        """Return the jobs that are not finished, by their numbers. All are checked: each mistake is told now."""
        checks = JobChecks(self.loader, self.config)
        variants = Variants(checks)
        to_run = dict[int, list[str]]()
        check_sweeper(self.folder, is_search=False)
        for number, job in number_jobs(jobs):
            with checks.collect():
                composed = variants.compose(number, job)
                folder = checks.place(composed.folders)
                self.composed.append(composed.text)
                check_not_resumed(composed.config)
                check_same_run(folder, composed.config, composed.text)
                if folder.status() != FINISHED:
                    to_run[number], self.run_folders[number] = job, folder
                    checks.check(composed.config, composed.overrides, composed.plain)
        checks.refuse()
        return to_run

    def _record_refusals(self, failed: list[JobReturn]) -> None:
        """Give each run that was refused a row in the table, where others have begun."""
        if not any(self.folder.glob(f"*/{HYDRA}/config.yaml")):
            return
        for job in failed:
            if isinstance(error := job_error(job), ConfigError) and job.hydra_cfg is not None:
                folder = RunFolder(Path(job.hydra_cfg.hydra.runtime.output_dir))
                folder.record_refusal("; ".join(error.problems), list(job.overrides or []))

    def _batches(self, to_run: dict[int, list[str]]) -> "Iterator[tuple[int, list[list[str]]]]":
        """(number of the first, overrides) of jobs that a launcher gets at once; it counts on from that number."""
        numbers, size = list(to_run), self.max_batch_size or len(to_run)
        if self.timeout is not None or self.max_minutes is not None:  # which are looked at before each
            size = 1
        while numbers:
            batch = numbers[:size]
            if "hydra.job.num" in read_as_text(self.config.hydra.sweep, "subdir"):  # else the number does not matter
                batch = [number for i, number in enumerate(batch) if number == batch[0] + i]
            yield batch[0], [to_run[number] for number in batch]
            numbers = numbers[len(batch) :]

    def _run_as_worker(self, jobs: dict[int, list[str]], returns: list[JobReturn]) -> dict[int, list[str]]:
        """Launch the jobs that no other worker has, one by one; at the end again those whose worker has died.

        Adds to `returns`. Returns the jobs that were not another worker's.
        """
        from iolaus.studies.slurm import is_taken

        own = dict[int, list[str]]()
        while left := [n for n in jobs if n not in own and not is_taken(self.run_folders[n])]:
            for number in left:
                if not is_taken(self.run_folders[number]):
                    own[number] = jobs[number]
                    if self._may_begin():
                        returns += self.launcher.launch([jobs[number]], initial_job_idx=number)
        return own

    def _run_in_workers(self, jobs: dict[int, list[str]], n_jobs: int, total: int) -> list[JobReturn]:
        """Launch each job by itself, `n_jobs` of them at the same time."""
        waiting, stopping = iter(jobs.items()), threading.Event()
        returns: dict[int, JobReturn] = {}
        end_jobs = configure_threads(self.launcher, self.config, n_jobs)
        Told.instance().begin(by_sweeper=True)

        def work() -> None:
            while not stopping.is_set() and self._may_begin() and (numbered := next(waiting, None)) is not None:
                returns[numbered[0]] = self._run_to_its_end(*numbered, stopping)

        work_in_threads(work, n_jobs, stopping, self.folder, total, end_jobs)
        return [returns[number] for number in sorted(returns)]

    def _run_to_its_end(self, number: int, job: list[str], stopping: threading.Event) -> JobReturn:
        """Launch a job, and once more each time that its process is lost: its run goes on from the checkpoint."""
        folder, attempts, checkpoint = self.run_folders[number], 0, 0
        while True:
            attempts = attempts + 1 if checkpoint == folder.checkpoint_time() else 1
            checkpoint = folder.checkpoint_time()
            try:
                (done,) = self.launcher.launch([job], initial_job_idx=number)
                if isinstance(error := job_error(done), ConfigError | RunFailed):
                    Told.instance().tell(error)
                if stopping.is_set() or not is_cut_off(done, folder):
                    return done
                why = "ended by a signal"
            except Exception as error:
                if stopping.is_set() or not is_job_loss(error):
                    raise
                why = type(error).__name__
            end_when_over(self.max_minutes)
            if attempts == ATTEMPTS:
                failure = RunFailed(f"{folder}: its process was lost {ATTEMPTS} times ({why})")
                log.error("%s", failure)
                done = JobReturn(overrides=job, status=JobStatus.FAILED)
                done.return_value = failure
                return done
            log.warning("%s: its process was lost (%s); the run goes on", folder, why)

    def _may_begin(self) -> bool:
        """Whether another run may begin by `hydra.sweeper.timeout`. Raises SystemExit by `trainer.max_minutes`."""
        end_when_over(self.max_minutes)
        return not Clock.instance().is_over(self.timeout)


def combine(overrides: "Iterable[Override]") -> list[list[str]]:
    """Every combination of the overrides' values, each as the overrides of one job; the last of a key counts.

    Raises ConfigError for an override without a list of values, such as interval(0,1) or range(0).
    """
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_delete():
            choices[key] = [str(override.input_line)]
        elif not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not choices[key]:
                raise ConfigError(f"{override.input_line}: nothing to run, since it has no values")
        else:
            hint = "give choice(x,y) or range(a,b,step), or search it with hydra/sweeper=optuna"
            raise ConfigError(f"{override.input_line}: a grid can't list its values; {hint}")
    return [list(job) for job in itertools.product(*choices.values())]


allow_numbered_options()  # Hydra imports this file at every start
read_times_as_text()
parse_references_once()
