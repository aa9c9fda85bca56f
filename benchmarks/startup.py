"""What a run costs besides its training: the start, a further run of a sweep, memory.

    python benchmarks/startup.py [--repeats 5] [--runs 8] [--epochs 3] [--images 50000]

Start: seconds from the start of the process to the first training step, beside those of a process that does nothing
but import the same libraries, in turn. Sweep: of each run but the first, the time that was not in training steps.
Memory: the peak of a run with a resident dataset of CIFAR-10's size over that of its imports. Puts all samples into
benchmarks/results.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import report
from ours import ROOT

TRAIN, PROBES = str(ROOT / "train.py"), str(Path(__file__).resolve().with_name("probes.py"))
BARE = {
    "torch": "import torch",
    "torch, sklearn.datasets": "import torch, sklearn.datasets",
    "torch, torchvision, timm": "import torch, torchvision, timm",
}
# The arguments of train.py, and the bare imports beside which each is put.
STARTS = {
    "train.py": ([], ["torch, sklearn.datasets", "torch"]),
    "train.py tracker=none": (["tracker=none"], ["torch, sklearn.datasets", "torch"]),
    "train.py synthetic, resnet18": (["dataset=synthetic", "model=resnet18"], ["torch, torchvision, timm"]),
}


def number_of(arguments: list[str], folder: str | None = None) -> float:
    """Run Python with these arguments; the number on the last line that it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, text=True, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def seconds_of(code: list[str], arguments: list[str]) -> float:
    """What Python says when it is given `code`, the time.time() of its start and `arguments`, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return number_of([*code, repr(time.time()), *arguments], folder)


def measure_starts(repeats: int) -> report.Samples:
    """Seconds of each start and of the bare imports, in turn, without a first round, which fills the file cache."""
    samples: report.Samples = {}
    for repeat in range(repeats + 1):
        for name, imports in BARE.items():
            code = f"{imports}\nimport os, sys, time\nprint(time.time() - float(sys.argv[1]), flush=True)\nos._exit(0)"
            samples.setdefault(f"import {name}", []).append(seconds_of(["-c", code], []))
        for name, (arguments, _) in STARTS.items():
            samples.setdefault(name, []).append(seconds_of([PROBES, "first_step"], [TRAIN, *arguments]))
        if repeat == 0:
            samples.clear()
    return samples


def start_rows(samples: report.Samples) -> list[dict[str, Any]]:
    """A dict for each start: its seconds, and those over each of its bare imports."""
    bare = [f"import {name}" for name in BARE]
    rows: list[dict[str, Any]] = [{"name": name, "seconds": report.spread(samples[name])} for name in bare]
    for name, (_, imports) in STARTS.items():
        over = {n: (samples[name], samples[f"import {n}"]) for n in imports}
        rows.append({
            "name": name, "seconds": report.spread(samples[name]),
            "more_than": {n: report.difference(*pair) for n, pair in over.items()},
            "ratio_to": {n: report.ratio(*pair) for n, pair in over.items()},
        })  # fmt: skip
    return rows


def measure_sweep(runs: int, epochs: int) -> dict[str, dict[str, Any]]:
    """Seconds of the runs 2, 3, … of a sweep over seeds, by the times at which a run's files were written.

    overhead: from the last run's results to this run's, less the training steps. It has three parts: `preparing` up
    to the first step (configuration, data, model), `validating` with the checkpoints, `finishing` after the last
    epoch (test, curves, results).
    """
    seeds = ",".join(map(str, range(runs)))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, TRAIN, "-m", f"seed={seeds}", f"trainer.epochs={epochs}"]
        done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
        if done.returncode:
            sys.exit(done.stderr)
        results = sorted(Path(folder).glob("outputs/**/results.json"), key=lambda path: path.stat().st_mtime)
        values: report.Samples = {}
        for before, path in pairwise(results):
            training = json.loads(path.read_text())["seconds"]
            ended = [p.stat().st_mtime for p in (before, path.parent / ".hydra" / "config.yaml",
                                                 path.parent / "last.pt", path)]  # fmt: skip
            row = {
                "training": training, "overhead": ended[3] - ended[0] - training, "preparing": ended[1] - ended[0],
                "validating": ended[2] - ended[1] - training, "finishing": ended[3] - ended[2],
            }  # fmt: skip
            for name, value in {**row, "overhead_to_training": row["overhead"] / training}.items():
                values.setdefault(name, []).append(value)
    return {name: report.spread(seconds) for name, seconds in values.items()}


def measure_memory(images: int, repeats: int) -> dict[str, Any]:
    """Bytes: peaks of imports alone, of a run on little data, and of one on `images` and a fifth as many for test."""

    def overrides(train: int) -> list[str]:
        return ["dataset=synthetic", f"dataset.train_count={train}", f"dataset.test_count={train // 5}",
                "dataset.size=32", "model=mlp", "optimizer=sgd"]  # fmt: skip

    commands = {"full": ("5", images), "little": ("5", 2000), "idle": ("0", images)}
    peaks: report.Samples = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, (steps, count) in commands.items():
                arguments = [PROBES, "memory", f"{folder}/modules", steps, *overrides(count)]
                peaks[name].append(number_of(arguments))
    data = statistics.median(peaks["full"]) - statistics.median(peaks["idle"])
    size = 3 * 32 * 32 * (images + images // 5)
    return {**{name: report.spread(values) for name, values in peaks.items()}, "data_bytes": size,
            "full_minus_idle": data, "full_minus_idle_to_data": data / size}  # fmt: skip


def print_starts(rows: list[dict[str, Any]], markdown: bool) -> None:
    lines = []
    for row in rows:
        cells = [row["name"], report.show(row["seconds"], ".2f"), str(row["seconds"]["n"])]
        lines += [] if "more_than" in row else [[*cells, "", ""]]
        for name, more in row.get("more_than", {}).items():
            lines.append([*cells, f"{more['median']:+.2f} s, {row['ratio_to'][name]['median']:.2f} ×", name])
    print(report.table(["to the first step", "seconds", "n", "more", "than import"], lines, markdown))


def print_sweep(sweep: dict[str, dict[str, Any]], markdown: bool) -> None:
    lines = [
        [name, report.show(value, ".3f"), str(value["n"])]
        for name, value in sweep.items() if name != "overhead_to_training"
    ]  # fmt: skip
    print("\n" + report.table(["further run of a sweep", "seconds", "n"], lines, markdown))
    print(f"\noverhead ÷ training: {report.show(sweep['overhead_to_training'], '.3f')}")


def print_memory(memory: dict[str, Any], markdown: bool) -> None:
    what = {"idle": "imports alone", "little": "2,000 images, 10 steps", "full": "the whole, 10 steps"}
    lines = [[text, f"{memory[name]['median'] / 2**20:,.0f}", str(memory[name]["n"])] for name, text in what.items()]
    lines.append(["the images, as uint8", f"{memory['data_bytes'] / 2**20:,.0f}", ""])
    lines.append(["whole less imports", f"{memory['full_minus_idle'] / 2**20:,.0f}", ""])
    print("\n" + report.table(["peak memory", "MiB", "n"], lines, markdown))
    print(f"\nwhole less imports ÷ images: {memory['full_minus_idle_to_data']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=8, help="of the sweep")
    parser.add_argument("--epochs", type=int, default=3, help="of each run of the sweep")
    parser.add_argument("--images", type=int, default=50000, help="of the training set whose memory is measured")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    chosen = parser.parse_args()
    if chosen.repeats < 1 or chosen.runs < 2:
        parser.error("it takes at least one repeat, and a sweep of two runs")
    load = report.load_average()
    starts = start_rows(measure_starts(chosen.repeats))
    sweep = measure_sweep(chosen.runs, chosen.epochs)
    memory = measure_memory(chosen.images, chosen.repeats)
    facts = report.about("auto", load)  # imports torch: after the memory, see probes.py
    print(report.heading("Start, sweep, memory", facts, chosen.markdown))
    print_starts(starts, chosen.markdown)
    print_sweep(sweep, chosen.markdown)
    print_memory(memory, chosen.markdown)
    report.write(chosen.output, "startup", {**facts, "starts": starts, "sweep": sweep, "memory": memory})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
