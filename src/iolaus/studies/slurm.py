"""`hydra/launcher=slurm`: workers in a queue of Slurm, which share a study as any processes with one command do.

On the login node a sweeper checks everything, opens the study, and `submit` hands an array of workers to sbatch. Each
worker gives the same command, and is a basic launcher there.
"""

import logging
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from iolaus.command import train_command
from iolaus.config.check import read_settings
from iolaus.errors import ConfigError
from iolaus.files.atomic import write_text
from iolaus.files.layout import DONE, FAILED, SLURM_FOLDER, readable_name, short_hash
from iolaus.files.locks import file_lock, is_locked
from iolaus.files.run_folder import RunFolder
from iolaus.studies.compat import BasicLauncher
from iolaus.studies.slurm_script import WORKER, SlurmSettings, format_script
from iolaus.trust.secrets import mask

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from iolaus.studies.study import SharedStudy

log = logging.getLogger(__name__)
LAUNCHER = "hydra.launcher"


class SlurmLauncher(BasicLauncher):
    """Keys: those of SlurmSettings, see conf/hydra/launcher/slurm.yaml."""

    def __init__(self, **keys: object) -> None:
        super().__init__()
        self.keys = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in keys.items()}

    def setup(self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig") -> None:
        """Check the keys, and whether there is a Slurm. Raises ConfigError."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        problems: list[str] = []
        settings = read_settings(LAUNCHER, SlurmSettings, self.keys, problems)
        if settings is None:
            raise ConfigError(*problems)
        self.settings, self.folder = settings, Path(config.hydra.sweep.dir)
        devices = config.trainer.devices
        if settings.nodes > 1 and devices not in (1, "auto"):
            raise ConfigError(
                f"trainer.devices={devices}: {LAUNCHER}.nodes and .gpus say how many processes; leave it out"
            )
        if settings.nodes == 1 and (settings.gpus or 1) > 1 and devices == 1:
            used = f"a run takes one; trainer.devices={settings.gpus} takes all of them"
            raise ConfigError(f"{LAUNCHER}.gpus={settings.gpus}: {used}")
        if not (is_worker() or settings.dry_run or shutil.which("sbatch")):
            hint = f"give the command where it is, or see the script with {LAUNCHER}.dry_run=true"
            raise ConfigError(f"hydra/launcher=slurm: no sbatch here; {hint}")

    def prints(self, missing: int) -> bool:
        """Print the script of the workers for so many runs where that is all that is asked for; returns whether."""
        if self.settings.dry_run:
            print(self._script(max(1, min(self.settings.jobs, missing)), time.time()), end="")
        return self.settings.dry_run

    def submit(self, missing: int) -> None:
        """Submit workers for `missing` runs, less those that are queued or at work already. Raises ConfigError."""
        if missing == 0:
            return
        logs = self.folder / SLURM_FOLDER
        is_new = not logs.exists()
        try:
            with file_lock(logs / "submit.lock", timeout=math.inf):  # the same command may be given twice
                there = self._count_workers()
                wanted = min(self.settings.jobs, missing) - there
                if there:
                    workers = "1 worker is" if there == 1 else f"{there} workers are"
                    log.info("%s queued or at work: squeue --me --name=%s", workers, self._name())
                if wanted > 0:
                    self._submit_array(wanted, logs)
        except ConfigError:
            if is_new:
                shutil.rmtree(logs)
            raise

    def submit_trials(self, study: "SharedStudy") -> bool:
        """Submit workers for the trials that a search has not finished; returns whether there are any."""
        missing = missing_trials(study)
        self.submit(missing)
        return missing > 0

    def _submit_array(self, workers: int, logs: Path) -> None:
        now = time.time()
        answer = call_slurm("sbatch", "--parsable", script=self._script(workers, now))
        job = answer.split(";")[0]  # the cluster's name may follow
        write_text(logs / f"{readable_name(job, 40)}.sh", self._script(workers, now, mask_texts))
        iolaus = "iolaus" if train_command()[0] == "iolaus" else "python -m iolaus"
        folder = shlex.quote(str(RunFolder(self.folder)))
        print(f"Workers: {workers}, job {job}; squeue -j {job} shows them, what they print is in {RunFolder(logs)}")
        print(f"Watch: {iolaus} watch {folder}")
        print(f"Stop: scancel {job}, with a checkpoint of each run; the same command goes on")

    def _script(self, workers: int, submitted: float, show: Callable[[Iterable[str]], Iterable[str]] = iter) -> str:
        logs = self.folder / SLURM_FOLDER
        if not str(logs).isprintable():
            raise ConfigError(f"hydra.sweep.dir={str(self.folder)!r}: sbatch needs a folder whose name is one line")
        return format_script(self.settings, own_command(), self._name(), logs, workers, submitted, show)

    def _name(self) -> str:
        """The name of the study's jobs, by which they are found: no other study of the user's has it."""
        readable = re.sub(r"[=,+]", "-", readable_name(self.folder.name, 40))
        return f"{readable}-{short_hash(str(self.folder.absolute()))}"

    def _count_workers(self) -> int:
        """How many workers of this study are queued or at work, or about to end or to queue again."""
        return len(call_slurm("squeue", "--me", "-h", "-r", "-o", "%i", f"--name={self._name()}").split())


def is_worker() -> bool:
    """Whether this process is a worker that `submit` has asked Slurm for."""
    return WORKER in os.environ


def is_taken(folder: RunFolder) -> bool:
    """Whether a run is not for this worker: done, at work elsewhere, or failed since the workers were submitted."""
    if folder.status() == FAILED:
        return folder.results_file.stat().st_mtime > float(os.environ[WORKER])
    return (folder.status() in DONE and not folder.lacks_test()) or is_locked(folder.lock)


def own_command() -> Sequence[str]:
    """The command that started this process, for another machine: its Python and its program by their whole paths."""
    program = Path(sys.argv[0])
    is_file = program.suffix == ".py" and program.name != "__main__.py" and program.is_file()
    return [sys.executable, *([str(program.resolve())] if is_file else ["-m", "iolaus", "train"]), *sys.argv[1:]]


def mask_texts(texts: Iterable[str]) -> list[str]:
    """Texts without the secrets that stand in them, as in all that a study keeps."""
    return [str(mask(text)) for text in texts]


def call_slurm(program: str, *arguments: str, script: str = "") -> str:
    """What one of Slurm's programs prints. Raises ConfigError with its own words where it refuses."""
    try:
        done = subprocess.run([program, *arguments], input=os.fsencode(script), capture_output=True, check=False)
    except OSError as error:
        raise ConfigError(f"hydra/launcher=slurm: {program}: {error.strerror}") from error
    if done.returncode:
        words = "; ".join(line.strip() for line in os.fsdecode(done.stderr).splitlines() if line.strip())
        said = words.removeprefix(f"{program}: ") or f"{program} failed"
        raise ConfigError(f"hydra/launcher=slurm: {said}", complete=True)  # the command has been checked
    return os.fsdecode(done.stdout).strip()


def missing_trials(study: "SharedStudy") -> int:
    """How many trials of a search are to be finished yet; 1 where only the test of a winner is left."""
    from iolaus.studies.study import retries_of

    trials = study.study.get_trials(deepcopy=False)
    done = sum(trial.state.is_finished() for trial in trials) - len(retries_of(trials))
    best = study.best()
    winners = [best["best_trial"]] if "best_trial" in best else [one["trial"] for one in best.get("solutions", [])]
    untested = any(study.folder_of(number).lacks_test() for number in winners)
    return max(study.settings.n_trials - done, int(untested))
