"""How near the training loop comes to its floor: the same steps on one batch that is already there.

    python benchmarks/loop.py [--model mlp|resnet18] [--repeats 5] [--steps 60] [--precision auto] [--device auto]

Both are measured in turn, several times, so that what else the machine does strikes both. Prints a table and
writes benchmarks/results.json. 32 × 32 RGB noise, batch 128, 10 classes, SGD with momentum; the loop augments
(crop, flip), normalises, measures and logs, the floor does none of it.
"""

import argparse
import json
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from iolaus import hardware, loop
from iolaus.augment import Basic
from iolaus.data.resident import Resident
from iolaus.data.sources import synthetic
from iolaus.display import Quiet
from iolaus.losses import loss_functions
from iolaus.optim import fused_by_default
from iolaus.schedules import Schedule

BATCH_SIZE = 128


def make_learner(model: str, device: torch.device, precision: str) -> loop.Learner:
    """A fresh model with everything that a step needs."""
    torch.manual_seed(0)
    if model == "mlp":
        from iolaus.models.mlp import MLP

        network: Any = MLP(10, 3, 32, hidden=(512, 256))
    else:
        from iolaus.models.timm import build

        network = build("resnet18", 10)
    network = network.to(device)
    fused = fused_by_default(torch.optim.SGD, {})
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, **fused)
    schedule = Schedule(torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 0))
    train_loss, evaluation_loss = loss_functions(torch.nn.CrossEntropyLoss(), one_hot=False, num_classes=10)
    return loop.Learner(
        network, train_loss, evaluation_loss, optimizer, schedule, device, precision, hardware.DTYPES[precision]
    )


def floor(learner: loop.Learner, steps: int) -> float:
    """Images per second of bare steps on one batch."""
    images = torch.randn(BATCH_SIZE, 3, 32, 32, device=learner.device)
    targets = torch.arange(BATCH_SIZE, device=learner.device) % 10
    learner.model.train()
    loss = torch.zeros(())
    started = time.perf_counter()
    for _ in range(steps):
        with learner.autocast():
            loss = learner.loss_fn(learner.model(images), targets)
        learner.scaler.scale(loss).backward()
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        learner.optimizer.zero_grad(set_to_none=True)
    loss.item()  # waits for the device
    return steps * BATCH_SIZE / (time.perf_counter() - started)


def real(learner: loop.Learner, data: Resident, steps: int) -> float:
    """Images per second of an epoch of the training loop."""
    state = loop.State()
    started = time.perf_counter()
    loop.train_epoch(learner, data, BATCH_SIZE, state, 10, 0, Quiet(), lambda: False)
    assert state.step == steps
    return steps * BATCH_SIZE / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["mlp", "resnet18"], default=None, help="default: both")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    device = hardware.pick_device(chosen.device)
    precision = hardware.pick_precision(chosen.precision, device)
    rows = []
    for model in [chosen.model] if chosen.model else ["mlp", "resnet18"]:
        steps = chosen.steps * (10 if model == "mlp" and device.type == "cpu" else 1)
        source = synthetic(train_count=steps * BATCH_SIZE, test_count=10)
        statistics_ = (torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25))
        data = Resident(source.train, 10, statistics_, Basic(), 0, device)
        learner = make_learner(model, device, precision)
        floor(learner, 5)
        pairs = [(floor(learner, steps), real(learner, data, steps)) for _ in range(chosen.repeats)]
        ratios = [ours / bare for bare, ours in pairs]
        row = {
            "model": model, "floor_images_per_second": statistics.median(bare for bare, _ in pairs),
            "loop_images_per_second": statistics.median(ours for _, ours in pairs),
            "ratio": statistics.median(ratios), "ratio_spread": [min(ratios), max(ratios)], "n": len(pairs),
        }  # fmt: skip
        rows.append(row)
        print(f"{model:10} floor {row['floor_images_per_second']:10,.0f} images/s   loop "
              f"{row['loop_images_per_second']:10,.0f}   ratio {row['ratio']:.3f} "
              f"({min(ratios):.3f} to {max(ratios):.3f}, n={len(pairs)})")  # fmt: skip
    about = {
        "date": str(date.today()), "device": hardware.device_name(device), "precision": precision,
        "versions": hardware.versions(), "rows": rows,
    }  # fmt: skip
    path = Path(__file__).parent / "results.json"
    path.write_text(json.dumps(about, indent=2) + "\n")
    print(f"{about['device']}, {precision}; written to {path}")


if __name__ == "__main__":
    main()
