"""kill -9 at random moments, again and again, and the same search started anew: is a trial lost, run twice, or stuck?

    python benchmarks/kill_storm.py --kills 30 --launcher joblib --storage sqlite

A search of small trials is started; after a random time its sweeper, one of its worker processes or all of them are
killed, and the same command is given again, until the search is done and all kills are spent. Then the study and the
folders are compared: each number once, every epoch of each trial once in its history and in the study, nothing RUNNING.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from processes import workers_of  # noqa: E402

TRIAL = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=40", "dataset.test_count=6",
    "dataset.validation=0.2", "trainer.batch_size=16", "tracker=none", "trainer.monitor_every=0", "optimizer=sgd",
    "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "lr=interval(0.001,0.01)", "study=storm",
)  # fmt: skip
STUCK_SECONDS = 600


def start(folder: Path, arguments: tuple[str, ...]) -> subprocess.Popen:
    """The search as a process with a group of its own."""
    with open(folder / "output", "ab") as output:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", *arguments], cwd=folder, stdout=output, stderr=output,
            process_group=0, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def kill_some(process: subprocess.Popen, victims: str) -> None:
    """kill -9 of the sweeper alone, of one of its workers, or of the whole group."""
    workers = workers_of(process)
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        if victims == "worker" and workers:
            os.kill(random.choice(workers), signal.SIGKILL)
        elif victims == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def lines_of(folder: Path) -> int:
    """How far the search is: epochs that are written down."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("outputs/storm/*/metrics.jsonl"))


def storm(folder: Path, arguments: tuple[str, ...], kills: int, launcher: str, most_seconds: float) -> Counter[str]:
    """Start the search again after each kill until it ends by itself; kill only where something was done in between."""
    done: Counter[str] = Counter()
    process = start(folder, arguments)
    while True:
        before, begun = lines_of(folder), time.monotonic()
        while process.poll() is None and (lines_of(folder) == before and time.monotonic() < begun + STUCK_SECONDS):
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            still = done.total() < kills
            process.wait(random.uniform(0, most_seconds) if still else STUCK_SECONDS)
        if process.poll() is not None and process.returncode != -signal.SIGKILL:
            if process.returncode:
                raise SystemExit(f"ended with {process.returncode}: see {folder}/output")
            return done
        if done.total() >= kills:
            os.killpg(process.pid, signal.SIGKILL)
            raise SystemExit(f"stuck: see {folder}/output")
        victims = random.choice(["sweeper", "worker", "all"] if launcher == "joblib" else ["sweeper"])
        kill_some(process, victims)
        done[victims] += 1
        if victims != "worker":
            process.wait()
            process = start(folder, arguments)


def check(folder: Path, storage: str | None, n_trials: int, epochs: int) -> dict[str, list[int]]:
    """What is wrong with the search's end: numbers of trials by kind of fault."""
    sys.path.insert(0, str(ROOT / "src"))
    import optuna

    from iolaus import trial

    sweep = folder / "outputs" / "storm"
    trials = optuna.load_study(study_name="storm", storage=trial.open_storage(storage, sweep)).trials
    found: dict[str, list[int]] = {"lost": [], "duplicated": [], "stuck": [], "failed": [], "wrong": []}
    numbers = Counter(t.number for t in trials)
    found["lost"] = [n for n in range(n_trials) if n not in numbers or not (sweep / str(n) / "results.json").exists()]
    found["duplicated"] = [n for n in numbers if numbers[n] > 1 or n >= n_trials]
    for t in trials:
        if t.state.name not in ("COMPLETE", "PRUNED"):
            found["stuck" if t.state.name in ("RUNNING", "WAITING") else "failed"].append(t.number)
            continue
        result = json.loads((sweep / str(t.number) / "results.json").read_text())
        lines = [json.loads(line) for line in (sweep / str(t.number) / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "val/loss" in line]
        if len(steps) > len(set(steps)) or len(result["history"]) > epochs:
            found["duplicated"].append(t.number)
        every = list(range(epochs))
        whole = [metrics["epoch"] for metrics in result["history"]] == every == list(t.intermediate_values)
        same = t.params == {"optimizer.lr": result["config"]["optimizer"]["lr"]}
        if not (whole and same and result["status"] == "finished"):
            found["wrong"].append(t.number)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--launcher", choices=("basic", "joblib"), default="basic")
    parser.add_argument("--storage", choices=("journal", "sqlite"), default="journal")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--most-seconds", type=float, default=3.0, help="from the first sign of work to the next kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill-storm-"))
    url = f"sqlite:///{folder}/studies.db" if options.storage == "sqlite" else None
    arguments = (*TRIAL, f"trainer.epochs={options.epochs}", f"hydra.sweeper.n_trials={options.trials}",
                 *([f"hydra.sweeper.storage={url}"] if url else []),
                 *(["hydra/launcher=joblib", "hydra.sweeper.n_jobs=2"] if options.launcher == "joblib" else []),
                 )  # fmt: skip
    begun = time.monotonic()
    done = storm(folder, arguments, options.kills, options.launcher, options.most_seconds)
    found = check(folder, url, options.trials, options.epochs)
    faults = ", ".join(f"{len(numbers)} {kind}" for kind, numbers in found.items())
    kills = ", ".join(f"{n} {victims}" for victims, n in sorted(done.items()))
    print(f"{options.launcher}, {options.storage}: {done.total()} kills ({kills}), {options.trials} trials: {faults}; "
          f"{time.monotonic() - begun:.0f} s, {folder}")  # fmt: skip
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
