"""kill -9 at random moments, again and again, and the same command given anew: is a run lost, run twice, or stuck?

    python benchmarks/kill_storm.py --kills 200                    # all kinds in turn, one table
    python benchmarks/kill_storm.py --kills 30 search-joblib-sqlite

A run, a grid or a search of small runs is started; after a random time its process, one of its worker processes or
all of them are killed, and the same command is given again (`resume=last` for a run that has begun), until it ends by
itself. Then the folders are looked at: each epoch of each run once, in metrics.jsonl, in its history and in the study;
nothing RUNNING; no temporary file; no process that is left.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
from processes import group_of, workers_of  # noqa: E402

SMALL = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=40", "dataset.test_count=6",
    "dataset.validation=0.2", "trainer.batch_size=16", "tracker=none", "trainer.monitor_every=0", "optimizer=sgd",
)  # fmt: skip
SEARCH = ("-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "lr=interval(0.001,0.01)", "study=storm")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
KINDS = ("single", "grid-basic", "grid-joblib", "search-basic-journal", "search-joblib-journal", "search-joblib-sqlite")
FAULTS = ("lost", "repeated", "wrong", "stuck", "temporary", "orphans")
STUCK_SECONDS = 600
ORPHAN_SECONDS = 60  # in which workers that outlive their sweeper have to end


@dataclass
class Storm:
    """One command that is killed. count: its runs. url: the storage of a search, if not the journal."""

    folder: Path
    kind: str
    count: int
    epochs: int
    most_seconds: float

    def __post_init__(self) -> None:
        self.groups: list[subprocess.Popen[bytes]] = []
        self.url = f"sqlite:///{self.folder}/studies.db" if self.kind.endswith("sqlite") else None

    @property
    def in_workers(self) -> bool:
        return "joblib" in self.kind

    def arguments(self) -> list[str]:
        """The command's; a single run that has begun is resumed."""
        if self.kind == "single":
            begun = list(self.folder.glob("outputs/**/.hydra/config.yaml"))
            return ["resume=last"] if begun else [*SMALL, f"trainer.epochs={self.epochs}"]
        seeds = f"seed=range({self.count})"
        varied = SEARCH if self.kind.startswith("search") else ("-m", seeds, "study=storm")
        trials = [f"hydra.sweeper.n_trials={self.count}"] if self.kind.startswith("search") else []
        storage = [f"hydra.sweeper.storage={self.url}"] if self.url else []
        jobs = JOBLIB if self.in_workers else ()
        return [*varied, *SMALL, f"trainer.epochs={self.epochs}", *trials, *storage, *jobs]

    def start(self) -> "subprocess.Popen[bytes]":
        """The command as a process with a group of its own."""
        with open(self.folder / "output", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *self.arguments()], cwd=self.folder, stdout=output,
                stderr=output, process_group=0, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self.groups.append(process)
        return process

    def lines(self) -> int:
        """How far all is: epochs that are written down."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("outputs/**/metrics.jsonl"))

    def rage(self, kills: int) -> Counter[str]:
        """Start again after each kill until the command ends by itself; kill only where something was done between."""
        done: Counter[str] = Counter()
        process = self.start()
        while True:
            before, begun = self.lines(), time.monotonic()
            while process.poll() is None and self.lines() == before and time.monotonic() < begun + STUCK_SECONDS:
                time.sleep(0.05)
            if done.total() >= kills:
                self.wait_for_end(process)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(random.uniform(0, self.most_seconds))
            if process.poll() is not None and process.returncode != -signal.SIGKILL:
                if process.returncode:
                    raise SystemExit(f"ended with {process.returncode}: see {self.folder}/output")
                return done
            if done.total() >= kills:
                os.killpg(process.pid, signal.SIGKILL)
                raise SystemExit(f"stuck: see {self.folder}/output")
            victims = random.choice(["command", "worker", "all"] if self.in_workers else ["command"])
            kill_some(process, victims)
            done[victims] += 1
            if victims != "worker":
                process.wait()
                process = self.start()

    def wait_for_end(self, process: "subprocess.Popen[bytes]") -> None:
        """Until the process has ended, or no epoch of any run has ended for STUCK_SECONDS."""
        before, since = self.lines(), time.monotonic()
        while process.poll() is None and time.monotonic() < since + STUCK_SECONDS:
            time.sleep(0.1)
            if (now := self.lines()) != before:
                before, since = now, time.monotonic()

    def check(self) -> dict[str, list[str]]:
        """What is wrong at the end, by kind of fault."""
        found: dict[str, list[str]] = {fault: [] for fault in FAULTS}
        runs = {
            path.parent.parent.name: path.parent.parent for path in self.folder.glob("outputs/**/.hydra/config.yaml")
        }
        found["lost"] = [f"{self.count - len(runs)} runs"] if len(runs) < self.count else []
        found["repeated"] = [f"{len(runs) - self.count} runs"] if len(runs) > self.count else []
        for name, run in runs.items():
            check_run(name, run, self.epochs, found)
        if self.kind.startswith("search"):
            self.check_study(found)
        found["temporary"] = [str(path) for path in self.folder.rglob(".*.tmp")]
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (left := [pid for group in self.groups for pid in group_of(group)]) and time.monotonic() < deadline:
            time.sleep(0.5)
        found["orphans"] = list(map(str, left))
        return found

    def check_study(self, found: dict[str, list[str]]) -> None:
        """What Optuna's study says, against the folders of the trials."""
        import optuna

        from iolaus.files.optuna_storage import open_storage

        sweep = self.folder / "outputs" / "storm"
        for trial in optuna.load_study(study_name="storm", storage=open_storage(self.url, sweep)).trials:
            name = f"trial {trial.number}"
            if trial.state.name != "COMPLETE":
                found["stuck"].append(f"{name} is {trial.state.name}")
                continue
            result = json.loads((sweep / str(trial.number) / "results.json").read_text())
            same = trial.params == {"optimizer.lr": result["config"]["optimizer"]["lr"]}
            if not same or list(trial.intermediate_values) != list(range(self.epochs)):
                found["wrong"].append(name)


def check_run(name: str, run: Path, epochs: int, found: dict[str, list[str]]) -> None:
    """Each epoch of a run once, in results.json and in metrics.jsonl."""
    if not (run / "results.json").exists():
        found["lost"].append(name)
        return
    result = json.loads((run / "results.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "val/loss" in line]
    if len(steps) > len(set(steps)) or len(result["history"]) > epochs:
        found["repeated"].append(name)
    if [metrics["epoch"] for metrics in result["history"]] != list(range(epochs)) or result["status"] != "finished":
        found["wrong"].append(name)


def kill_some(process: "subprocess.Popen[bytes]", victims: str) -> None:
    """kill -9 of the command alone, of one of its workers, or of the whole group."""
    workers = workers_of(process)
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        if victims == "worker" and workers:
            os.kill(random.choice(workers), signal.SIGKILL)
        elif victims == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="what is killed; all of them by default")
    parser.add_argument("--kills", type=int, default=200, help="over all kinds")
    parser.add_argument("--runs", type=int, default=40, help="of a grid or a search")
    parser.add_argument("--epochs", type=int, default=20, help="of each run; a single run has ten times as many")
    parser.add_argument("--most-seconds", type=float, default=3.0, help="from the first sign of work to the next kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    kinds, total, faulty = options.kinds or KINDS, Counter[str](), False
    print("| what is killed | kills | runs | " + " | ".join(FAULTS) + " | s |\n|---|" + "--:|" * (len(FAULTS) + 3))
    for i, kind in enumerate(kinds):
        kills = options.kills * (i + 1) // len(kinds) - options.kills * i // len(kinds)
        folder, begun = Path(tempfile.mkdtemp(prefix=f"kill-storm-{kind}-")), time.monotonic()
        single = kind == "single"
        epochs = options.epochs * 10 if single else options.epochs
        storm = Storm(folder, kind, 1 if single else options.runs, epochs, options.most_seconds)
        done, found = storm.rage(kills), storm.check()
        counts = {fault: len(names) for fault, names in found.items()}
        row = {"kills": done.total(), "runs": storm.count, **counts}
        total.update(row)
        print(f"| {kind} | " + " | ".join(map(str, row.values())) + f" | {time.monotonic() - begun:.0f} |", flush=True)
        if any(counts.values()):
            faulty = True
            print(f"{folder}: {found}", file=sys.stderr)
    print("| all | " + " | ".join(str(total[name]) for name in ("kills", "runs", *FAULTS)) + " | |")
    sys.exit(faulty)


if __name__ == "__main__":
    main()
