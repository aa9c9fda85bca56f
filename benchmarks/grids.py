"""How long a grid takes until its first run has a folder, by the number of its jobs.

    python benchmarks/grids.py [--jobs 12 1000] [--repeats 5] [--tree OLDER_TREE]

Each command is a process of its own that varies a learning rate and a seed, and is ended as soon as the first run's
configuration is written; with another tree, both take turns. Prints wall and CPU seconds, median (least to most).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ours import ROOT

STEP = 0.02  # seconds between two looks for the folder
TICKS = os.sysconf("SC_CLK_TCK")


def start(tree: Path, jobs: int, folder: str) -> tuple[float, float]:
    """Wall and CPU seconds from the start of Python to the first run's folder, on Linux."""
    rates = f"optimizer.lr=range(1,{jobs // 2 + 1})"
    command = [sys.executable, str(tree / "train.py"), "-m", "tracker=none", "study=s", rates, "seed=0,1"]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        while not any(Path(folder).glob("outputs/s/*/.lock")):
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
            time.sleep(STEP)
        wall = time.perf_counter() - began
        user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        process.kill()
    return wall, (int(user) + int(system)) / TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[12, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tree", type=Path, help="another checkout, to take turns with")
    options = parser.parse_args()

    trees = {"now": ROOT, **({"before": options.tree} if options.tree else {})}
    for jobs in options.jobs:
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
        for _ in range(options.repeats):
            for name, tree in trees.items():
                with tempfile.TemporaryDirectory() as folder:
                    samples[name].append(start(tree, jobs, folder))
        for name, pairs in samples.items():
            for kind, values in zip(("s", "CPU s"), zip(*pairs, strict=True), strict=True):
                spread = f"{min(values):.2f} to {max(values):.2f}, n = {len(values)}"
                print(f"{jobs} jobs, {name}: {statistics.median(values):.2f} {kind} ({spread})", flush=True)


if __name__ == "__main__":
    main()
