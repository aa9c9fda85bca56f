"""Threads of a CPU: where one is as fast as one a core, on a quiet machine and beside other work.

    python benchmarks/threads.py             # on the machine as it is
    python benchmarks/threads.py --busy 2    # beside two processes that compute without a pause

Each case is trained with each number of threads in turn, several times. Images per second are those of the training
steps; the last column is the best run with one thread over the best with all.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "MLP, digits, batch 128": ("model=mlp", "trainer.epochs=30"),
    "CNN of 16 and 32 channels, digits, batch 64": ("model.widths=[16,32]", "trainer.batch_size=64"),
    "CNN (the default), digits, batch 128": (),
    "MLP, 32 x 32, batch 128": ("model=mlp", "dataset=synthetic", "trainer.epochs=6"),
    "CNN, 32 x 32, batch 128": ("dataset=synthetic", "trainer.epochs=2"),
}
QUIET = ("tracker=none", "trainer.monitor_every=0", "trainer.device=cpu")
SPIN = "while True: pass"


@contextlib.contextmanager
def other_work(count: int) -> Iterator[None]:
    """Processes that take a core each."""
    working = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in working:
            process.kill()
            process.wait()


def measure(arguments: tuple[str, ...], threads: int, folder: Path) -> float:
    """Images per second of the training steps of one run."""
    words = ["trainer.epochs=10", *QUIET, *arguments, f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    subprocess.run(command, env=environment, cwd=folder.parent, check=True, capture_output=True)
    return float(json.loads((folder / "results.json").read_text())["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compute beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the other row: one a core")
    given = parser.parse_args()
    print(f"| | one thread | {given.threads} threads | ratio |\n|---|---|---|---|")
    with other_work(given.busy), tempfile.TemporaryDirectory() as folder:
        for number, (name, arguments) in enumerate(CASES.items()):
            speeds: dict[int, list[float]] = {1: [], given.threads: []}
            for turn in range(given.rounds):
                for threads, found in speeds.items():
                    found.append(measure(arguments, threads, Path(folder) / f"{number}_{threads}_{turn}"))
            one, all_ = (max(found) for found in speeds.values())
            print(f"| {name} | {one:,.0f} | {all_:,.0f} | {one / all_:.2f} |", flush=True)


if __name__ == "__main__":
    main()
