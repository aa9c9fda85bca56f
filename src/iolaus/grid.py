"""Every combination of what a multirun varies, one run each: `hydra/sweeper=basic`, the default, in Hydra's place.

A plugin of Hydra's, imported at every start, so it stays light.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from iolaus import folders, workers
from iolaus.checkpoint import FINISHED, RESULTS, read_json
from iolaus.errors import ConfigError

log = logging.getLogger("iolaus")
ATTEMPTS = 3  # at runs whose process was killed


class Grid(BasicSweeper):
    """Hydra's BasicSweeper, which leaves out the runs that are finished and goes on past those that fail.

    The sweep ends with exit status 1 when a run has failed, 2 where it was by its configuration; the run's
    results.json, or the sweep's output, says why.
    """

    def setup(self, **parts: Any) -> None:
        """Make the launcher."""
        super().setup(**parts)
        # worker processes; 0 where the launcher takes all jobs at once
        self.at_once = workers.runs_at_once(self.config) if workers.is_joblib(self.config) else 0

    def sweep(self, arguments: list[str]) -> Any:
        """Run what is not finished of all combinations, each in its folder."""
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), self.max_batch_size)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        # all are composed before the first runs: a mistake is told now
        open_runs = [[job for job in jobs if not is_finished(self._composed(job))] for jobs in batches]
        jobs, to_run = sum(map(len, batches)), sum(map(len, open_runs))
        if to_run < jobs:
            log.info("%d of %d runs are finished already", jobs - to_run, jobs)
        returns: list[JobReturn] = []
        if self.at_once and to_run:
            returns = self._work_in_processes([job for batch in open_runs for job in batch], folder, jobs)
        else:
            for batch in open_runs:
                if batch:
                    returns += self._launch(batch, len(returns))
        if failed := [job_return for job_return in returns if job_return.status != JobStatus.COMPLETED]:
            log.error("%d of %d runs failed; the others are done", len(failed), jobs)
            mistakes = all(isinstance(job_return._return_value, ConfigError) for job_return in failed)
            raise SystemExit(2 if mistakes else 1)
        return returns

    def _work_in_processes(self, jobs: list[list[str]], folder: Path, total: int) -> list[JobReturn]:
        """Launch each job by itself, `at_once` of them at the same time."""
        waiting, returns = iter(enumerate(jobs)), dict[int, JobReturn]()
        failures: list[BaseException] = []
        at_once = min(self.at_once, len(jobs))
        workers.prepare(self.launcher, at_once)

        def work() -> None:
            while not failures and (one := next(waiting, None)) is not None:
                number, job = one
                for attempt in range(1, ATTEMPTS + 1):
                    try:
                        (returns[number],) = self._launch([job], number)
                        break
                    except Exception as error:
                        if failures or attempt == ATTEMPTS or not workers.is_a_dead_worker(error):
                            raise
                        log.warning("a worker process was killed (%s); its run goes on", type(error).__name__)

        workers.keep_busy(work, at_once, failures, folder, total)
        return [returns[number] for number in sorted(returns)]

    def _launch(self, jobs: list[list[str]], first: int) -> Sequence[JobReturn]:
        assert self.launcher is not None
        return self.launcher.launch(jobs, initial_job_idx=first)

    def _composed(self, job: Sequence[str]) -> DictConfig:
        assert self.config is not None
        assert self.hydra_context is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(job))


def is_finished(composed: DictConfig) -> bool:
    """Whether the run of a composed job is finished, with this very configuration."""
    folder = Path(composed.hydra.sweep.dir) / str(composed.hydra.sweep.subdir)
    if read_json(folder / RESULTS).get("status") != FINISHED or not folders.is_run(folder):
        return False
    config = composed.copy()
    with open_dict(config):
        del config["hydra"]
    return bool(OmegaConf.load(folder / ".hydra" / "config.yaml") == config)
