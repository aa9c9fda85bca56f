"""Iolaus as the benchmarks measure it: the parts of a real run, its loop and its batches.

What the benchmarks know of Iolaus' inside is here, so that a change there is followed here alone. Nothing heavy is
imported before it is used.
"""

import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def least_steps(seconds: float) -> int:
    """Steps that a measurement takes at least, however slow they are; one of 0 seconds is for warming up."""
    return 3 if seconds else 1


def iolaus_config(overrides: list[str]) -> Any:
    """The checked configuration (RunConfig) of `python train.py OVERRIDES`."""
    from hydra import compose, initialize_config_dir

    from iolaus.config.check import check_composed

    with initialize_config_dir(str(ROOT / "conf")):
        return check_composed(compose("config", overrides=overrides))


def iolaus_parts(overrides: list[str]) -> Any:
    """The parts of the run that `python train.py OVERRIDES` would make."""
    config = iolaus_config(overrides)
    from iolaus.config.build import build_parts

    return build_parts(config)


def overrides_of(model: str, images: int, batch_size: int, device: str, precision: str = "auto") -> list[str]:
    """The arguments of `python train.py` that give the benchmarks' task; what they don't name stays at its default."""
    return [
        f"model={model}", "dataset=synthetic", "dataset.size=32", f"dataset.train_count={images}",
        "dataset.residency=resident",  # `auto` asks for free memory, and all children live at the same time
        "optimizer=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.9", "optimizer.weight_decay=5e-4",
        "optimizer.nesterov=false", f"trainer.batch_size={batch_size}", f"trainer.device={device}",
        f"trainer.precision={precision}", "trainer.epochs=100000",  # one_cycle must not come to its end
    ]  # fmt: skip


def open_tracker(config: Any, folder: Path) -> Any:
    """The run's trackers, metrics.jsonl among them, writing into `folder`."""
    from iolaus.show.trackers import JSONL, TrackerList

    given = {"folder": folder, "config": config.plain, "study": None, "varied": None, "purge_step": None}
    chosen = [node.build(**given) for node in config.tracker_nodes.values()]
    return TrackerList([JSONL(folder / "metrics.jsonl"), *chosen])


def train(parts: Any, state: Any, tracker: Any, enough: Callable[[int], bool]) -> int:
    """An epoch of the real loop and its log, left as soon as `enough(steps)` says so. Returns the images it took."""
    from iolaus import loop
    from iolaus.learner import EpochStats
    from iolaus.machine.monitor import Monitor
    from iolaus.show.progress import NullProgress

    settings, first_step = parts.config.trainer, state.step

    def interrupted() -> bool:
        return enough(state.step - first_step)

    observers = loop.Observers(tracker, NullProgress(), Monitor(parts.learner.device, 0, lambda: state.step))
    loop.train_epoch(parts.learner, parts.data.train, settings.batch_size, state, observers, interrupted)
    stats = state.stats
    metrics = {
        "epoch": state.epoch, "step": state.step, "train/loss": stats.mean_loss, "train/accuracy": stats.accuracy,
        "train/grad_norm": stats.mean_norm, "lr": parts.learner.optimizer.param_groups[0]["lr"],
        "batch_size": settings.batch_size, "seconds": stats.seconds, "images_per_second": stats.images / stats.seconds,
    }  # fmt: skip
    loop.log_epoch(tracker, metrics, stats.losses, [], [], settings.log_every)
    state.epoch, state.stats = state.epoch + 1, EpochStats()
    return stats.images


def measure_training(parts: Any, state: Any, tracker: Any, seconds: float) -> float:
    """Images per second of the real loop, its log and the plan of its epochs included."""
    train(parts, state, tracker, lambda steps: steps >= 2)  # after a while of doing nothing the caches are cold
    images, least, started = 0, least_steps(seconds), time.perf_counter()

    def enough(steps: int) -> bool:
        done = images // parts.config.trainer.batch_size + steps
        return time.perf_counter() - started >= seconds and done >= least

    while not enough(0):
        images += train(parts, state, tracker, enough)
    return images / (time.perf_counter() - started)  # the loop has fetched its losses: the device is done


def epochs_of(data: Any, batch_size: int) -> Callable[[], Iterator[int]]:
    """A function that gives the next epoch of training batches alone, as the number of images of each."""
    numbers = count()

    def epoch() -> Iterator[int]:
        for images, _ in data.batches(batch_size, next(numbers), train=True):
            yield len(images)

    return epoch


def layout(data: Any, batch_size: int) -> str:
    """The memory layout of the training batches: contiguous or channels_last."""
    import torch

    images, _ = next(islice(data.batches(batch_size, 0, train=True), 1))
    return "channels_last" if images.is_contiguous(memory_format=torch.channels_last) else "contiguous"
