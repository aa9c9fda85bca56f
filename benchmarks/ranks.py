"""Two ranks on this machine's CPU: what they cost, and whether a run of theirs survives kill -9 again and again.

    python benchmarks/ranks.py overhead         # seconds per step of one rank and of two, and their start
    python benchmarks/ranks.py alone            # a run without other ranks beside a loop that knows of none
    python benchmarks/ranks.py storm --kills 40 # rank 0, the other, or both are killed; the end must be the same

The storm resumes one run after each kill and compares its end with that of a run that nobody has killed: the weights
bit for bit, and every epoch of the history once.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "train.py")]
RUN = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=400", "dataset.test_count=20",
    "trainer.batch_size=16", "tracker=none", "trainer.monitor_every=0", "trainer.device=cpu", "trainer.precision=fp32",
    "model=mlp", "optimizer=sgd",
)  # fmt: skip


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """A command in a process group of its own."""
    with open(folder / "output", "ab") as output:
        return subprocess.Popen(
            [*TRAIN, *arguments], cwd=folder, stdout=output, stderr=output, process_group=0,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def group_of(process: subprocess.Popen) -> list[int]:
    """The ids of the living processes in a process's group, without its own."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process.pid and fields[0] != "Z" and int(stat.parent.name) != process.pid:
                members.append(int(stat.parent.name))
    return members


def storm(kills: int, epochs: int) -> int:
    """Kill, resume, kill; returns the number of faults."""
    folder = Path(tempfile.mkdtemp(prefix="ranks-storm-"))
    whole = (*RUN, f"trainer.epochs={epochs}", "trainer.devices=2")
    assert start(folder, *whole, "hydra.run.dir=whole").wait() == 0, f"see {folder}/output"
    done: Counter[str] = Counter()
    last, left_over, begun = folder / "stormy" / "last.pt", 0, time.monotonic()
    arguments: tuple[str, ...] = (*whole, "hydra.run.dir=stormy")
    while True:
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start(folder, *arguments)
        if done.total() >= kills:
            break
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 0.2))
        if process.poll() is not None:
            raise SystemExit(f"ended with {process.returncode} after {done.total()} kills: see {folder}/output")
        victim = random.choice(["rank 0", "rank 1", "both"])
        others = group_of(process)
        for pid in {"rank 0": [process.pid], "rank 1": others, "both": [process.pid, *others]}[victim]:
            os.kill(pid, signal.SIGKILL)
        done[victim] += 1
        process.wait(30)
        deadline = time.monotonic() + 5
        while group_of(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        left_over += len(group_of(process))
        arguments = ("resume=stormy",)
    status = process.wait()
    ends = [torch.load(folder / name / "last.pt", weights_only=True)["learner"] for name in ("whole", "stormy")]
    same = all(torch.equal(ends[0]["model"][key], ends[1]["model"][key]) for key in ends[0]["model"])
    history = json.loads((folder / "stormy" / "results.json").read_text())["history"]
    each_once = [metrics["epoch"] for metrics in history] == list(range(epochs))
    faults = (status != 0) + (not same) + (not each_once) + left_over
    victims = ", ".join(f"{n} {name}" for name, n in sorted(done.items()))
    print(f"{done.total()} kills ({victims}) in {epochs} epochs, {time.monotonic() - begun:.0f} s: status {status}, "
          f"same weights: {same}, each epoch once: {each_once}, processes left: {left_over}")  # fmt: skip
    return faults


def overhead(rounds: int) -> int:
    """Steps of one rank and of two, interleaved, on the same batches; a follower's processor time until it is ready."""
    folder = Path(tempfile.mkdtemp(prefix="ranks-overhead-"))
    models = {
        "MLP, 0.2 M parameters": ("model=mlp",),
        "ResNet-18, 11 M parameters": ("model=resnet18", "dataset.size=32", "trainer.batch_size=32"),
    }
    for name, model in models.items():
        steps: dict[int, list[float]] = {1: [], 2: []}
        for number in range(rounds):
            for ranks in (1, 2):
                where = f"{model[0].partition('=')[2]}-{ranks}-{number}"
                given = (*RUN, *model, "trainer.epochs=3", f"trainer.devices={ranks}", f"hydra.run.dir={where}")
                assert start(folder, *given).wait() == 0, f"see {folder}/output"
                history = json.loads((folder / where / "results.json").read_text())["history"]
                steps[ranks] += [1000 / metrics["steps_per_second"] for metrics in history[1:]]
        one, two = (
            f"{statistics.median(steps[n]):.2f} ({statistics.mean(steps[n]):.2f} ± {statistics.stdev(steps[n]):.2f})"
            for n in (1, 2)
        )
        print(f"{name}: {one} ms a step on one rank, {two} on two: median (mean ± std) of {len(steps[1])} epochs each")
    ready = []
    for _ in range(rounds):
        begun = os.times()
        subprocess.run([sys.executable, "-c", "import torch; from iolaus import results, follow"], check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
        ended = os.times()
        ready.append(ended.children_user + ended.children_system - begun.children_user - begun.children_system)
    spread = f"{statistics.mean(ready):.2f} ± {statistics.stdev(ready):.2f}"
    print(f"a follower is ready after {spread} s of processor time (n = {rounds})")
    return 0


# What the loop asks its group in each step, and what stands there where there is none.
WITHOUT_GROUP = {
    "group.count_images(len(images), min(batch_size, len(data) - stats.steps * batch_size))": "len(images)",
    "(group.world == 1 and progress.wants_loss())": "progress.wants_loss()",
    "seed_of(seed, group.rank, STEP) if group.rank else seed": "seed",
    "group.copies(count)": "1",
    "        group.reduce_gradients(now=done == len(images))\n": "",
    "if len(images) < count * copies:": "if False:",
    "group.undo_mean(loss)": "loss",
    "hits / copies if copies > 1 else hits": "hits",
}


def alone(rounds: int) -> int:
    """Processor time of the loop in one process over that of a loop without a group; they take turns of 200 steps."""
    from ours import iolaus_parts

    from iolaus import follow, loop
    from iolaus.learner import LoopState
    from iolaus.machine.monitor import Monitor
    from iolaus.machine.ranks import ALONE
    from iolaus.show.progress import NullProgress
    from iolaus.show.trackers import TrackerList

    torch.set_num_threads(1)
    source = Path(loop.__file__).read_text()
    for asked, plain in WITHOUT_GROUP.items():
        assert source.count(asked) == 1, asked
        source = source.replace(asked, plain)
    bare = sys.modules["bare"] = types.ModuleType("bare")
    exec(compile(source, "bare", "exec"), bare.__dict__)
    received: list[int] = []
    ways = {
        "with": (loop, lambda: follow.ask_ranks(ALONE, received)),
        "without": (bare, lambda: received[0] if received else 0),
    }
    steps = ("dataset.train_count=4000", "dataset.validation=0.2", "trainer.epochs=100000")
    parts = iolaus_parts([*RUN, *steps, "trainer.devices=1"])
    learner, state = parts.learner, LoopState()
    observers = loop.Observers(TrackerList([]), NullProgress(), Monitor(learner.device, 0, lambda: 0))
    ratios = []
    for number in range(rounds + 1):
        seconds = {}
        for name in sorted(ways, reverse=number % 2 == 1):
            way, interrupted = ways[name]
            begun = time.process_time()
            way.train_epoch(learner, parts.data.train, 16, state, observers, interrupted)
            seconds[name] = (time.process_time() - begun) / state.stats.steps
            state.epoch, state.stats = state.epoch + 1, type(state.stats)()
        if number:  # the first is for warming up
            ratios.append(seconds["with"] / seconds["without"])
    spread = f"{statistics.mean(ratios):.3f} ± {statistics.stdev(ratios):.3f}, median {statistics.median(ratios):.3f}"
    print(f"alone: {spread} of a loop without a group, {1000 * seconds['without']:.2f} ms a step (n = {rounds})")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "alone", "storm"))
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    if options.what == "storm":
        sys.exit(storm(options.kills, options.epochs))
    sys.exit({"overhead": overhead, "alone": alone}[options.what](options.rounds))


if __name__ == "__main__":
    main()
