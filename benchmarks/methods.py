"""What each training method costs: images/s as a ratio to plain training of the same turn, and peak memory on a GPU.

    python benchmarks/methods.py --model resnet18 --repeats 5

All methods live in one process and take turns, so that whatever else the machine does strikes all. The real loop runs,
with data, augmentation and log; a method is nothing but overrides of `python train.py`.
"""

import argparse
import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import ours
import report

METHODS: dict[str, list[str]] = {
    "plain": [],
    "fp32": ["trainer.precision=fp32"],
    "fp32, SAM": ["trainer.precision=fp32", "trainer.sam_rho=0.05"],
    "SAM": ["trainer.sam_rho=0.05"],
    "ASAM": ["trainer.sam_rho=0.5", "trainer.sam_adaptive=true"],
    "EMA": ["trainer.ema_decay=0.999"],
    "Adam": ["optimizer=adam"],
    "AdamW": ["optimizer=adamw"],
    "RMSprop": ["optimizer=rmsprop"],
    "Muon": ["optimizer=muon"],
    "groups by depth": ["optimizer_groups=discriminative", "optimizer_groups.no_decay_on_norm_and_bias=true"],
    "linear probe": ["optimizer_groups=linear_probe"],
    "in parts of a quarter": ["trainer.micro_batch_size=32"],
    "clipping": ["trainer.grad_clip_norm=1"],
    "mixup, cutmix": ["augmentation=mixup_cutmix"],
    "deterministic": ["trainer.deterministic=true"],
    "hardware every second": [],  # five times as often as by default
    "losses read 100 times less often": ["trainer.log_every=1000"],
}
ON_A_GPU = {
    "without CUDA graphs": ["trainer.cuda_graphs=false"],
    "without CUDA graphs, SAM": ["trainer.cuda_graphs=false", "trainer.sam_rho=0.05"],
    "torch.compile": ["trainer.compile=true"],
    "torch.compile, reduce-overhead": ["trainer.compile=reduce-overhead"],
}


def overrides_of(name: str, model: str, device: str, batch_size: int) -> list[str]:
    """The arguments of a method; an optimizer of its own takes the place of the benchmarks' SGD."""
    methods = {**METHODS, **ON_A_GPU}[name]
    base = ours.overrides_of(model, 10_000, batch_size, device)
    if any(o.startswith("optimizer=") for o in methods):
        base = [o for o in base if not o.startswith("optimizer")]
    return [*base, *methods]


def build(name: str, model: str, device: str, batch_size: int, folder: Path) -> dict[str, Any]:
    """A method, warm, and the memory that its first steps took at most, in MiB; None where torch does not count it."""
    import torch

    from iolaus.learner import LoopState

    cuda = torch.cuda.is_available() and device != "cpu"
    before = torch.cuda.memory_allocated() if cuda else 0
    parts = ours.iolaus_parts(overrides_of(name, model, device, batch_size))
    made = {"parts": parts, "state": LoopState()}
    made["tracker"] = ours.open_tracker(replace(parts.config, tracker_nodes={}), folder)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    ours.measure_training(made["parts"], made["state"], made["tracker"], 0)
    made["memory"] = (torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else None
    print(f"{name}: ready", file=sys.stderr, flush=True)  # on a GPU all of them take minutes
    return made


def measure(name: str, made: dict[str, Any], seconds: float) -> float:
    """Images per second of a method's next steps."""
    from iolaus.machine import hardware
    from iolaus.machine.monitor import Monitor

    parts, state = made["parts"], made["state"]
    hardware.set_deterministic(parts.config.trainer.deterministic)  # of the process, not of the parts
    watched = Monitor(parts.learner.device, 1.0, lambda: state.step) if name.startswith("hardware") else None
    with watched or contextlib.nullcontext():
        return ours.measure_training(parts, state, made["tracker"], seconds)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cnn", help="an option of conf/model/ (cnn)")
    parser.add_argument("--device", default="auto", help="as trainer.device (auto)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (3)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (5)")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step (128)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the methods; plain is always there")
    options = parser.parse_args()
    from iolaus.machine.hardware import device_name, pick_device

    known = [*METHODS, *(ON_A_GPU if pick_device(options.device).type == "cuda" else ())]
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"--only: {', '.join(sorted(unknown))}: allowed: {', '.join(known)}")
    names = [name for name in known if name in (options.only or known) or name == "plain"]
    with tempfile.TemporaryDirectory() as folder:
        given = options.model, options.device, options.batch_size
        made = {name: build(name, *given, Path(folder) / str(i)) for i, name in enumerate(names)}
        samples: report.Samples = {name: [] for name in names}
        for _ in range(options.repeats):
            for name in names:
                samples[name].append(measure(name, made[name], options.seconds))
    rows = []
    for name in names:
        memory = made[name]["memory"]
        of_plain = report.show(report.ratio(samples[name], samples["plain"]), ".2f")
        rows.append([name, f"{report.spread(samples[name])['median']:,.0f}", of_plain,
                     f"{memory:,.0f}" if memory else "-"])  # fmt: skip
    learner = made["plain"]["parts"].learner
    where = f"batch {options.batch_size}, {learner.precision}, {device_name(learner.device)}"
    print(f"{options.model}, {where}, n = {options.repeats}\n")
    print(report.table(["method", "images/s", "over plain (median, least to most)", "peak MiB"], rows, markdown=True))


if __name__ == "__main__":
    main()
