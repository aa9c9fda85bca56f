"""Whether reading photographs keeps up with training on them.

    python benchmarks/loader.py --root FOLDER [--size 224] [--images 200] [--repeats 3]

FOLDER holds oxford-iiit-pet/. A training pass of the streaming data alone, for several numbers of workers, beside
the training steps of ResNet-18 on one batch that is there, in turn. Both would share the cores in a run on a CPU.
Puts all samples into benchmarks/results.json.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import ours
import report
import torch
from child import wait_for

from iolaus import loop


def overrides_of(root: Path, size: int, batch_size: int, device: str, workers: int) -> list[str]:
    """The arguments of `python train.py` for a number of workers."""
    return [
        "dataset=oxford_iiit_pet", f"dataset.root={root.absolute()}", "dataset.residency=streaming",
        f"dataset.image_size={size}", f"dataset.num_workers={workers}", "model=resnet18", "optimizer=sgd",
        "optimizer.lr=0.01", f"trainer.batch_size={batch_size}", f"trainer.device={device}",
    ]  # fmt: skip


def read(data: Any, batch_size: int, batches: int, epoch: int) -> float:
    """Images per second of the last `batches` of an epoch: all that the workers read is then counted."""
    start = max(0, len(data) // batch_size - batches)
    started, images = time.perf_counter(), 0
    for batch, _ in data.batches(batch_size, epoch, train=True, start=start):
        images += len(batch)
    wait_for(data.device)
    return images / (time.perf_counter() - started)


def step(learner: loop.Learner, images: torch.Tensor, targets: torch.Tensor, steps: int) -> float:
    """Images per second of training steps on one batch."""
    learner.model.train()
    loop.train_step(learner, images, targets, 0, want_norm=False)
    wait_for(learner.device)
    started = time.perf_counter()
    for _ in range(steps):
        loop.train_step(learner, images, targets, 0, want_norm=False)
    wait_for(learner.device)
    return steps * len(images) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds oxford-iiit-pet/")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=200, help="of each pass")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3, help="training steps of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    chosen = parser.parse_args()
    load, batches = report.load_average(), max(1, chosen.images // chosen.batch_size)
    made = {
        f"num_workers={n}": ours.iolaus_parts(
            overrides_of(chosen.root, chosen.size, chosen.batch_size, chosen.device, n)
        )
        for n in chosen.workers
    }
    parts = next(iter(made.values()))
    learner, training = parts.learner, f"ResNet-18's steps, {parts.learner.precision}"
    # the layout that the data give, as the model meets it in a run
    images, targets = next(iter(parts.data.train.batches(chosen.batch_size, 0, train=True)))
    samples: report.Samples = {name: [] for name in (*made, training)}
    try:
        for name in made:  # the first pass starts the workers, which then stay
            read(made[name].data.train, chosen.batch_size, 1, epoch=0)
        for repeat in range(chosen.repeats):
            for name in made:
                samples[name].append(read(made[name].data.train, chosen.batch_size, batches, epoch=repeat + 1))
            samples[training].append(step(learner, images, targets, chosen.steps))
    finally:
        for parts in made.values():
            parts.data.close()
    facts = report.about(chosen.device, load)
    rows: list[dict[str, Any]] = []
    for name, values in samples.items():
        to_training = report.ratio(values, samples[training])
        rows.append({"name": name, "images_per_second": report.spread(values), "to_training": to_training})
    lines = [
        [row["name"], report.show(row["images_per_second"], ",.0f"), str(row["images_per_second"]["n"]),
         report.show(row["to_training"], ".2f")] for row in rows
    ]  # fmt: skip
    size = f"{chosen.size} × {chosen.size}"
    print(report.heading(f"Photographs, {size}, {batches * chosen.batch_size} a pass", facts, chosen.markdown))
    print(report.table(["training batches alone", "images/s", "n", "÷ training"], lines, chosen.markdown))
    content = {**facts, "size": chosen.size, "batch_size": chosen.batch_size, "batches": batches, "ways": rows}
    report.write(chosen.output, "loader", content)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
