"""How fast Iolaus trains, between the floor below it and the usual ways beside it.

    python benchmarks/run.py [--model mlp resnet18 cnn data] [--repeats 5] [--seconds 2] [--only NAME ...]

Each way is a process of its own; they are measured in turn, one at a time, again and again, so that whatever else
the machine does strikes all of them. Noise of CIFAR-10's size, 10 classes, SGD with momentum. Prints a table for each
model, and one of the data alone (`data`), and puts all samples into benchmarks/results.json.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import compare
import report
from child import Way
from report import Samples
from ways import LOADERS, PER_IMAGE

from iolaus.machine.hardware import has_glibc, pick_device

TITLES = {
    "mlp": "MLP 3072-512-256-10", "resnet18": "ResNet-18, CIFAR stem", "cnn": "CNN, the launcher's default",
    "data": "Training batches alone: crop, flip, normalise",
}  # fmt: skip
Child = subprocess.Popen[str]


class ChildFailed(Exception):
    """A child ended when an answer was due; what it had to say is on standard error."""


def ways_of(group: str, common: dict[str, Any]) -> list[Way]:
    """All ways of a model, or those of `data`. common: device, batch_size and images."""
    if group == "data":
        ours = [Way(f"Iolaus, as for {model}", "batches", model, **common) for model in ("mlp", "resnet18")]
        return ours + usual_ways("loader", "", common)
    ways = [Way(compare.STOCK, "floor", group, **common, fused=False)]
    on_cpu = pick_device(common["device"]).type == "cpu"
    for precision in ("fp32", "bf16"):
        for channels_last in (False, True) if group != "mlp" else (False,):
            for kept in (False, True) if on_cpu and has_glibc() else (False,):
                name = f"floor, {precision}, {'channels_last' if channels_last else 'contiguous'}"
                ways.append(Way(name + ", kept" * kept, "floor", group, **common, precision=precision,
                                channels_last=channels_last, kept=kept))  # fmt: skip
    ways.append(Way(compare.DEFAULTS, "iolaus", group, **common, precision="auto"))
    ways.append(Way(compare.FP32, "iolaus", group, **common))
    ways += usual_ways("usual", group, common)
    return ways if on_cpu else ways + usual_ways("usual", group, common, precision="bf16")


def usual_ways(kind: str, model: str, common: dict[str, Any], precision: str = "fp32") -> list[Way]:
    """The usual ways with a model, or their loaders alone."""
    suffix = "" if precision == "fp32" else f", {precision}"
    return [
        Way(name + suffix, kind, model, **common, precision=precision, source=name, per_image=name in PER_IMAGE)
        for name in LOADERS
    ]


def answer(child: Child) -> dict[str, Any]:
    """The child's next line. Raises ChildFailed."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise ChildFailed
    return json.loads(line)


def start(way: Way) -> Child:
    """A child that builds `way`, and answers once it stands."""
    script = str(Path(__file__).with_name("child.py"))
    return subprocess.Popen([sys.executable, script, json.dumps(asdict(way))], text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)  # fmt: skip


def measure(child: Child, seconds: float) -> float:
    """Images per second, now. Raises ChildFailed."""
    assert child.stdin is not None
    try:
        child.stdin.write(f"{seconds}\n")
        child.stdin.flush()
    except BrokenPipeError as error:
        raise ChildFailed from error
    return answer(child)["images_per_second"]


def stop(children: list[Child]) -> None:
    """End all children: they go when their input ends, at the latest after the measurement at hand."""
    for child in children:
        with contextlib.suppress(BrokenPipeError):  # it ended by itself, a request still on the way
            assert child.stdin is not None
            child.stdin.close()
    for child in children:
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def measure_all(ways: list[Way], repeats: int, seconds: float) -> tuple[Samples, dict[str, str]]:
    """(samples, notes) of each way; one that fails is named on standard error and left out."""
    children: dict[str, Child] = {}
    samples: Samples = {way.name: [] for way in ways}
    notes: dict[str, str] = {}

    def drop(name: str) -> None:
        print(f"{name}: failed, and is left out", file=sys.stderr)
        del samples[name]

    try:
        for number, way in enumerate(ways, 1):
            say(f"starting {number}/{len(ways)}: {way.name}")
            children[way.name] = start(way)
            try:
                notes[way.name] = answer(children[way.name])["note"]
            except ChildFailed:
                drop(way.name)
        for repeat in range(repeats):
            for name in list(samples):
                say(f"repeat {repeat + 1}/{repeats}: {name}")
                try:
                    samples[name].append(measure(children[name], seconds))
                except ChildFailed:
                    drop(name)
    finally:
        say("")
        stop(list(children.values()))
    return samples, notes


def say(text: str) -> None:
    """A line of progress that the next one replaces; only in a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(TITLES), default=["mlp", "resnet18", "data"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, and at least three steps")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="ways with one of these texts in their name")
    parser.add_argument("--images", type=int, default=50000, help="size of the training set")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    chosen = parser.parse_args()
    if chosen.repeats < 1 or chosen.images < 10 * chosen.batch_size:
        parser.error("it takes at least one repeat, and images for ten batches")
    facts = report.about(chosen.device, report.load_average())
    common = {"device": chosen.device, "batch_size": chosen.batch_size, "images": chosen.images}
    for group in chosen.model:
        ways = ways_of(group, common)
        if chosen.only:
            ways = [way for way in ways if any(text.lower() in way.name.lower() for text in chosen.only)]
        samples, notes = measure_all(ways, chosen.repeats, chosen.seconds)
        rows, ratios = compare.rows_of(ways, samples, notes), compare.ratios_of(ways, samples)
        print(report.heading(TITLES[group], facts, chosen.markdown))
        print(compare.printed(rows, ratios, chosen.markdown), flush=True)
        content = {**facts, "seconds": chosen.seconds, **common, "ways": rows, "ratios": ratios}
        report.write(chosen.output, group, content)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
