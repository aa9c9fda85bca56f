"""Seconds of a trial beyond its training under Slurm: workers that share the study, and one job a trial (submitit).

For a machine with `sbatch`: a login node, or one with Debian's slurm-wlm as tests/studies/test_real_slurm.py starts it.
Each way is a search of `--trials` short trials, one at a time; the ways take turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRIAL = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=200", "dataset.test_count=20",
    "trainer.epochs=2", "trainer.batch_size=16", "trainer.device=cpu", "trainer.monitor_every=0", "tracker=none",
    "-m", "study=s", "hydra/sweeper=optuna", "lr=interval(0.001,0.1)",
)  # fmt: skip
WAYS = {
    "workers (hydra/launcher=slurm)": ("hydra/launcher=slurm", "hydra.launcher.jobs=1"),
    "one job a trial (hydra/launcher=submitit_slurm)": ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=1"),
}


def measure(way: tuple[str, ...], trials: int) -> float:
    """Seconds beyond the training of each trial, from the command to the end of its last job."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, ROOT / "train.py", *TRIAL, f"hydra.sweeper.n_trials={trials}", *way]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        while subprocess.run(["squeue", "--me", "-h"], check=True, capture_output=True).stdout.strip():
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        results = [json.loads(path.read_text()) for path in Path(folder).glob("outputs/s/*/results.json")]
        assert [result["status"] for result in results] == ["finished"] * trials
        training = sum(epoch["seconds"] for result in results for epoch in result["history"])
        return (seconds - training) / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name, way in WAYS.items():
            samples[name].append(measure(way, options.trials))
            print(f"{name}: {samples[name][-1]:.2f} s", file=sys.stderr)
    print(f"| {options.trials} trials, one at a time | Seconds beyond training, of each (least to most) |\n|---|---|")
    for name, values in samples.items():
        print(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")


if __name__ == "__main__":
    main()
