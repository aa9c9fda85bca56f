"""One way in a process of its own: it builds, says so, and measures whenever a line comes in. Started by run.py.

The first argument is a `Way` as JSON. Every answer is one line of JSON; the end of standard input ends the process.
"""

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ours

Measure = Callable[[float], float]  # seconds -> images per second


@dataclass
class Way:
    """What a child measures.

    kind: floor, iolaus, usual, batches (Iolaus' data alone) or loader (that of a usual way). source: the usual way's
    name in ways.LOADERS, per_image whether it augments each image by itself. kept: with the allocator that keeps
    memory. fused: of the floor's SGD.
    """

    name: str
    kind: str
    model: str
    device: str
    batch_size: int
    images: int
    precision: str = "fp32"
    channels_last: bool = False
    kept: bool = False
    fused: bool = True
    source: str = ""
    per_image: bool = False


def wait_for(device: Any) -> None:
    """For the device to have done all that it was told."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def images_per_second(
    epoch: Callable[[], Iterator[int]], seconds: float, uncounted: int, wait: Callable[[], None]
) -> float:
    """Of the steps that `epoch` gives, each as its number of images; the first `uncounted` ones are off the clock.

    Another epoch begins when one ends. The epoch at hand is closed, and with it what reads for it.
    """
    images, steps, spent, least = 0, 0, 0.0, ours.least_steps(seconds)
    while spent < seconds or steps < least:
        with contextlib.closing(epoch()) as counts:
            for _ in islice(counts, uncounted):
                pass
            wait()
            started = time.perf_counter()
            for count in counts:
                images, steps = images + count, steps + 1
                if spent + time.perf_counter() - started >= seconds and steps >= least:
                    break
            wait()
            spent += time.perf_counter() - started
    return images / spent


def floor(way: Way, device: Any, wait: Callable[[], None]) -> tuple[Measure, str]:
    """Bare steps on one normalised batch that is on the device: what no loop can be faster than."""
    import torch
    from ways import make_model

    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    model = make_model(way.model).to(device, memory_format=layout).train()
    images = torch.randn(way.batch_size, 3, 32, 32, device=device).contiguous(memory_format=layout)
    targets = torch.arange(way.batch_size, device=device) % 10
    criterion = torch.nn.CrossEntropyLoss()
    fused = {"fused": True} if way.fused else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, **fused)

    def steps() -> Iterator[int]:
        while True:
            with torch.autocast(device.type, torch.bfloat16, enabled=way.precision == "bf16"):
                loss = criterion(model(images), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield way.batch_size

    return lambda seconds: images_per_second(steps, seconds, 1, wait), ""


def iolaus(way: Way, folder: Path) -> tuple[Measure, str]:
    """The real loop with everything on."""
    from iolaus.learner import LoopState

    overrides = ours.overrides_of(way.model, way.images, way.batch_size, way.device, way.precision)
    parts = ours.iolaus_parts(overrides)
    tracker, state = ours.open_tracker(parts.config, folder), LoopState()
    note = f"{parts.learner.precision}, {ours.layout(parts.data.train, way.batch_size)}"
    return lambda seconds: ours.measure_training(parts, state, tracker, seconds), note


def usual(way: Way, device: Any, wait: Callable[[], None]) -> tuple[Measure, str]:
    """A usual way, whole."""
    import ways

    loader = ways.make_loader(way.source, way.images, way.batch_size, device)
    epoch = ways.trainer(way.source, ways.make_model(way.model), loader, device, way.precision == "bf16")
    return lambda seconds: images_per_second(epoch, seconds, 2, wait), ""


def batches(way: Way, wait: Callable[[], None]) -> tuple[Measure, str]:
    """Iolaus' training data alone, as they are for a model; the plan of an epoch is on the clock."""
    parts = ours.iolaus_parts(ours.overrides_of(way.model, way.images, way.batch_size, way.device))
    epoch = ours.epochs_of(parts.data.train, way.batch_size)

    def measure(seconds: float) -> float:
        for _ in islice(epoch(), 3):
            pass
        return images_per_second(epoch, seconds, 0, wait)

    return measure, ours.layout(parts.data.train, way.batch_size)


def loader(way: Way, device: Any, wait: Callable[[], None]) -> tuple[Measure, str]:
    """A usual way's loader alone, its batches on the device."""
    import ways

    made = ways.make_loader(way.source, way.images, way.batch_size, device)

    def epoch() -> Iterator[int]:
        for images, _ in ways.load(way.source, made, device):
            yield len(images)

    return lambda seconds: images_per_second(epoch, seconds, 3, wait), ""


def build(way: Way, folder: Path) -> tuple[Measure, str]:
    """(measure, note): what `way` names, warm, and what it turned out to be."""
    from iolaus.machine.hardware import pick_device

    device = pick_device(way.device)

    def wait() -> None:
        wait_for(device)

    if way.kind == "iolaus":
        measure, note = iolaus(way, folder)
    elif way.kind == "batches":
        measure, note = batches(way, wait)
    else:
        measure, note = {"floor": floor, "usual": usual, "loader": loader}[way.kind](way, device, wait)
    measure(0.0)
    return measure, note


def main() -> None:
    # Ctrl-C is for run.py, which then closes our input; workers must not die of it in the middle either.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    way = Way(**json.loads(sys.argv[1]))
    if way.kind in ("iolaus", "batches"):
        from iolaus.machine.process import spin_briefly

        spin_briefly()  # as its commands do, before torch is imported
    if way.kept:
        from iolaus.machine.hardware import keep_freed_memory

        keep_freed_memory(True)
    with tempfile.TemporaryDirectory() as folder:
        measure, note = build(way, Path(folder))
        print(json.dumps({"note": note}), flush=True)
        for line in sys.stdin:
            print(json.dumps({"images_per_second": measure(float(line))}), flush=True)


if __name__ == "__main__":
    main()
