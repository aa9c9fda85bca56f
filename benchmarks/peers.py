"""Other projects' own training scripts beside Iolaus: one model, one batch size, one clock.

    python benchmarks/peers.py --kuangliu FOLDER --weiaicunzai FOLDER --timm FOLDER --template FOLDER --repeats 5

peers.md says where the folders come from. Each script runs as it is, in a process of its own, one after the other,
turn after turn; it trains ResNet-18 with a stem for small images on noise of CIFAR-10's size, batch 128. What is put
beneath is data (nothing is downloaded), the model where a script has another default, and the clock: torch's hook after
each step of any optimizer. Images/s are those between the fifth step and the end of the time.
"""

import argparse
import importlib
import io
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report

ROOT = Path(__file__).resolve().parents[1]
BATCH, FIRST = 128, 5  # images a step; the step after which the clock runs
OURS = "Iolaus"
# name: the script in its folder and its arguments
SCRIPTS = {
    OURS: ("train.py", "model=resnet18 optimizer=sgd dataset=synthetic dataset.size=32 dataset.train_count=50000 "
           f"dataset.residency=resident trainer.batch_size={BATCH} trainer.device={{device}} augmentation=basic "
           "tracker=none epochs=100"),
    "kuangliu": ("main.py", ""),
    "weiaicunzai": ("train.py", "-net resnet18 -b 128 {gpu}"),
    "timm": ("train.py", "--dataset torch/cifar10 --model resnet18_small_stem --num-classes 10 --img-size 32 -b 128 "
             "--opt momentum --lr 0.1 --workers 2 --reprob 0 --scale 0.8 1.0 --device {device} "
             "--dataset-download"),
    "template": ("src/train.py", "trainer.accelerator={accelerator} data.num_workers=2 data.batch_size=128 "
                 "data.train_val_test_split=[50000,5000,5000] model.net._target_=peers.small_resnet18 callbacks=none"),
}  # fmt: skip


class Noise:
    """In place of torchvision's CIFAR10, CIFAR100 and MNIST: pictures of noise, 32 × 32 in color, for PIL as there."""

    def __init__(self, root: str, train: bool = True, transform: Any = None, target_transform: Any = None, **_: Any):
        import numpy as np

        random, count = np.random.default_rng(0), 50_000 if train else 10_000
        self.data = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = random.integers(0, 10, count).tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        picture: Any = Image.fromarray(self.data[i])
        return (self.transform(picture) if self.transform else picture), self.targets[i]


def small_resnet18(*_: Any, **__: Any) -> Any:
    """timm's ResNet-18 with a stem for small images, ten classes: the network that `model=resnet18` gives in Iolaus."""
    from torch import nn

    create_model = importlib.import_module("timm").create_model
    model = create_model("resnet18", num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


def start_clock(seconds: float) -> None:
    """Let the process end with a line of JSON when it has trained for so long."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps, started = 0, 0.0

    def count(*_: Any) -> None:
        nonlocal steps, started
        steps += 1
        if steps == FIRST or (steps > FIRST and time.perf_counter() - started >= seconds):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            if steps > FIRST:
                print("\n" + json.dumps({"images_per_second": BATCH * (steps - FIRST) / (now - started)}), flush=True)
                os.killpg(0, 9)  # with the processes that read its data
            started = now

    register_optimizer_step_post_hook(count)


def run_child(name: str, folder: Path, seconds: float) -> None:
    """Be the script of a peer, or of Iolaus."""
    import torch

    script, arguments = SCRIPTS[name]
    cuda = torch.cuda.is_available()
    device, accelerator, gpu = ("cuda", "gpu", "-gpu") if cuda else ("cpu", "cpu", "")
    sys.argv = [script, *arguments.format(device=device, accelerator=accelerator, gpu=gpu).split()]
    sys.path[0] = str((folder / script).parent)
    sys.path.insert(1, str(Path(__file__).parent))
    if name != OURS:
        datasets = importlib.import_module("torchvision.datasets")
        for dataset in ("CIFAR10", "CIFAR100", "MNIST"):
            setattr(datasets, dataset, Noise)
    if name == "kuangliu":  # its main.py takes no argument for the model
        models = importlib.import_module("models")
        models.SimpleDLA = models.ResNet18
        os.popen = lambda *_: io.StringIO("24 80")  # its progress bar asks for the size of a terminal
    if name == "timm":
        registry = importlib.import_module("timm.models")
        small_resnet18.__name__ = "resnet18_small_stem"
        small_resnet18.__module__ = "timm.models.resnet"
        registry.register_model(small_resnet18)
    start_clock(seconds)
    runpy.run_path(script, run_name="__main__")


def measure(name: str, folder: Path, seconds: float, python: str = sys.executable) -> float:
    """Images per second of one turn."""
    command = [python, __file__, "--child", name, str(folder), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, process_group=0)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"images_per_second"')]
    if not lines:
        sys.exit(f"{name} did not train:\n{(done.stdout + done.stderr)[-3000:]}")
    return float(json.loads(lines[-1])["images_per_second"])


def main() -> None:
    """Measure all that have a folder, in turns, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SCRIPTS:
        if name != OURS:
            parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=f"a checkout of {name}'s")
    parser.add_argument("--python", default=sys.executable, help="that has what the others need (this one)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (20)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (3)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child[0], Path(options.child[1]), options.seconds)
        return
    folders = {OURS: ROOT} | {name: getattr(options, name) for name in SCRIPTS if name != OURS}
    names = [name for name, folder in folders.items() if folder]
    samples: report.Samples = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            python = sys.executable if name == OURS else options.python
            samples[name].append(measure(name, folders[name].resolve(), options.seconds, python))
    rows = []
    for name in names:
        found = report.spread(samples[name])
        ours_over = report.show(report.ratio(samples[OURS], samples[name]), ".2f")
        rows.append([name, f"{found['median']:,.0f}", f"{found['min']:,.0f}", f"{found['max']:,.0f}", ours_over])
    header = ["script", "images/s", "min", "max", "Iolaus over it (median, least to most)"]
    print(report.table(header, rows, markdown=True))


if __name__ == "__main__":
    main()
