"""How many runs of a study are trained at once, by joblib's workers or in jobs of submitit's or Ray's."""

from typing import TYPE_CHECKING

from iolaus.errors import ConfigError
from iolaus.studies import cluster_jobs, joblib_workers
from iolaus.studies.launchers import is_slurm
from iolaus.studies.search_settings import is_count

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig

    from iolaus.studies.threads import EndJobs


def runs_at_once(config: "DictConfig", n_jobs: int | None, default: int | None) -> int | None:
    """The number of threads that launch the runs of a study; None where its launcher gets them all in one call.

    n_jobs: `hydra.sweeper.n_jobs`. default: for launchers with queues, if the user does not say; None is their own.
    Raises ConfigError.
    """
    if n_jobs is not None and not is_count(n_jobs):
        raise ConfigError(f"hydra.sweeper.n_jobs={n_jobs}: must be a whole number, 1 or more")
    if joblib_workers.is_joblib(config):
        return n_jobs or joblib_workers.resolve_n_jobs(config)
    if cluster_jobs.trains_in_jobs(config):
        return n_jobs or default or cluster_jobs.most_jobs(config)
    if n_jobs is not None and n_jobs > 1:
        hint = "the basic launcher runs one at a time; add hydra/launcher=joblib"
        if is_slurm(config):
            hint = "under Slurm hydra.launcher.jobs says how many"
        raise ConfigError(f"hydra.sweeper.n_jobs={n_jobs}: {hint}")
    return None


def configure_threads(launcher: "Launcher", config: "DictConfig", n_jobs: int) -> "EndJobs":
    """Set up a launcher for that many threads. Returns what ends its jobs, for `work_in_threads`."""
    if joblib_workers.is_joblib(config):
        joblib_workers.configure_launcher(launcher, n_jobs)
        return joblib_workers.end_workers
    return cluster_jobs.configure_jobs(launcher, config, n_jobs)


def limit_of_command(config: "DictConfig") -> float | None:
    """A study's `trainer.max_minutes` where they are the command's own: its runs are trained on this machine.

    None also where the runs differ in it, and each minds its own.
    """
    minutes = config.trainer.get("max_minutes")
    return minutes if isinstance(minutes, int | float) and not cluster_jobs.trains_in_jobs(config) else None
