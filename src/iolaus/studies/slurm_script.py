"""The script of a study's workers for Slurm's sbatch: each task of an array gives the same command.

Python gets SIGTERM when the time is nearly over, and ends after its step with a checkpoint; then the task queues again.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iolaus.settings import require

WORKER = "IOLAUS_WORKER"  # set in a worker: when its array was submitted, in seconds since 1970
DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
PLAIN_OPTION = re.compile(r"[\w.,:/@%+=&|()\[\]*!-]*")

# Slurm sends SIGUSR1 to the script alone (B:), before the end of `time`. It sends SIGTERM to all when it takes the
# machine away, and then queues the task again itself, or when a user cancels it.
SIGNALS = """\
again=0 worker=
finish() {{
  if [ $again = 1 ] && [ "$1" -gt 128 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
  fi
  exit "$1"
}}
stop() {{ if [ -n "$worker" ]; then kill -{signal} "$worker"; else finish 143; fi; }}
trap 'again=1; stop' USR1
trap stop TERM
"""
WAIT = """\
worker=$!
while wait "$worker"; status=$?; kill -0 "$worker" 2>/dev/null; do :; done
finish "$status"
"""
# One process for each GPU of all machines, with the variables that torchrun would set. The script,
# srun and rank 0 run on the first machine.
RANKS = """\
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
rank='export MASTER_ADDR=$SLURM_LAUNCH_NODE_IPADDR RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
export WORLD_SIZE=$SLURM_NTASKS; exec "$@"'
srun --kill-on-bad-exit=1{cpus} bash -c "$rank" rank \\
"""


@dataclass(frozen=True)
class SlurmSettings:
    """The keys of conf/hydra/launcher/slurm.yaml, which says what each means."""

    jobs: int
    partition: str | None
    account: str | None
    gpus: int | None
    cpus: int | None
    memory: str | int | None
    time: str | int | None
    constraint: str | None
    nodes: int
    extra: list[str]
    setup: list[str]
    grace_seconds: int
    dry_run: bool

    def __post_init__(self) -> None:
        for name in ("jobs", "gpus", "cpus", "nodes"):
            count = getattr(self, name)
            require(count is None or count >= 1, name, count, "1 or more")
        for name in ("partition", "account", "constraint"):
            text = getattr(self, name)
            require(text is None or (text != "" and text.isprintable()), name, repr(text), "one line of text")
        sized = self.memory is None or re.fullmatch(r"\d+[KMGT]?", str(self.memory))
        require(bool(sized), "memory", self.memory, "megabytes, or with a unit: 32G")
        for option in self.extra:
            require(option.startswith("-") and option.isprintable(), "extra", repr(option), "options: --NAME=VALUE")
        grace, most = self.grace_seconds, 65535
        require(0 < grace <= most, "grace_seconds", grace, f"seconds above 0, {most} at most")
        if self.time is not None:
            seconds = seconds_of(self.time)
            require(seconds > grace, "time", self.time, f"longer than grace_seconds={grace}")


def seconds_of(time: str | int) -> int:
    """Slurm's ways to write a time (sbatch --time): minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S. Raises ValueError."""
    found = DURATION.fullmatch(str(time))
    require(found is not None, "time", time, "minutes, H:M:S or D-H:M:S")
    assert found is not None
    days, *others = (None if part is None else int(part) for part in found.groups())
    numbers = [number for number in others if number is not None]
    units = (3600, 60, 1) if days is not None or len(numbers) == 3 else (60, 1)
    return 86400 * (days or 0) + sum(number * unit for number, unit in zip(numbers, units, strict=False))


def format_script(
    settings: SlurmSettings,
    command: Sequence[str],
    name: str,
    logs: Path,
    workers: int,
    submitted: float,
    show: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> str:
    """The script of `workers` workers that each give `command` (a program and its arguments) in the current folder.

    name: the job's. logs: the folder of what they print. submitted: in seconds since 1970. show: what stands there for
    the options, the lines of `setup` and the words of the command, before they are quoted.
    """
    several = settings.nodes > 1
    cpus = "" if settings.cpus is None else f" --cpus-per-task={settings.cpus}"  # srun does not take sbatch's
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {quote_option(option)}" for option in show(options_of(settings, name, logs, workers))),
        f"cd -- {shlex.quote(str(Path.cwd()))} || exit 1",
        SIGNALS.format(signal="USR1" if several else "TERM").rstrip(),  # srun hands SIGUSR1 on, and ends at SIGTERM
        *show(settings.setup),
        f"export {WORKER}={submitted:.0f}",
        f"{RANKS.format(cpus=cpus) if several else ''}{shlex.join(show(command))} &",
        WAIT,
    ]
    return "\n".join(lines)


def options_of(settings: SlurmSettings, name: str, logs: Path, workers: int) -> Iterator[str]:
    """The options of sbatch."""
    yield f"--job-name={name}"
    yield f"--array=0-{workers - 1}"
    yield f"--output={str(logs).replace('%', '%%')}/%A_%a.log"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=B:USR1@{settings.grace_seconds}"
    if settings.nodes > 1:
        yield f"--nodes={settings.nodes}"
        yield f"--ntasks-per-node={settings.gpus or 1}"
    for option, value in (
        ("partition", settings.partition),
        ("account", settings.account),
        ("gpus-per-node", settings.gpus),
        ("cpus-per-task", settings.cpus),
        ("mem", settings.memory),
        ("time", settings.time),
        ("constraint", settings.constraint),
    ):
        if value is not None:
            yield f"--{option}={value}"
    yield from settings.extra


def quote_option(option: str) -> str:
    """An option as sbatch reads it from a line of a script: within quotes, a backslash before a quote or another."""
    if PLAIN_OPTION.fullmatch(option):
        return option
    escaped = re.sub(r'(["\\])', r"\\\1", option)
    return f'"{escaped}"'
