"""Train the golden runs and print what they measured as JSON: `python tests/golden/runs.py`.

A process of its own, since the switches that make a processor's kernels comparable are read before torch's first
import. The runs are given as commands, so that nothing here depends on how Iolaus is built inside.
"""

import contextlib
import json
import os
import platform
import runpy
import sys
import tempfile
from pathlib import Path

# The same arithmetic on every x86 processor, without threads whose sums depend on their number.
os.environ |= {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE",
               "OMP_NUM_THREADS": "1"}  # fmt: skip
ROOT = Path(__file__).parents[2]

COMMON = ("model=cnn", "model.widths=[8,16]", "trainer.precision=fp32", "trainer.device=cpu", "trainer.epochs=2",
          "tracker=none", "trainer.log_every=3", "trainer.monitor_every=0")  # fmt: skip
NOISE = ("dataset=synthetic", "dataset.num_classes=3", "dataset.size=12", "dataset.train_count=160",
         "dataset.test_count=40", "trainer.batch_size=32")  # fmt: skip
RUNS = {
    "sgd": ("optimizer=sgd", "trainer.grad_clip_norm=1"),
    "adamw": ("optimizer=adamw", "loss.label_smoothing=0.1"),
    "muon": ("optimizer=muon", "optimizer_groups=no_decay"),
    "sam": ("optimizer=sam", "scheduler=cosine", "scheduler.warmup_epochs=0.5"),
    "ema, mixup and micro-batches": ("trainer.ema_decay=0.9", "augmentation=mixup", "trainer.micro_batch_size=48",
                                     "trainer.epochs=3"),
    "plateau and early stopping": ("optimizer=sgd", "scheduler=plateau", "scheduler.patience=0", "trainer.epochs=6",
                                   "early_stopping=patience", "early_stopping.patience=2",
                                   "early_stopping.min_delta=10"),
    "streaming": (*NOISE, "dataset.residency=streaming", "dataset.num_workers=1", "augmentation=pretrained",
                  "trainer.drop_last=false"),
    "batch-size schedule": ("optimizer=sgd", "trainer.batch_size_schedule={1: 256}", "scheduler.interval=step",
                            "trainer.scale_lr_with_batch=linear", "trainer.epochs=3"),
    "discriminative groups": ("optimizer=sgd", "optimizer_groups=discriminative",
                              "optimizer_groups.lr_factors=[0,0.5]", "optimizer_groups.classifier_lr_factor=2",
                              "scheduler=step"),
    "policies, cutmix and one-hot targets": (*NOISE, "augmentation=[advanced,heavy,cutmix]", "loss=mse",
                                             "trainer.tta=flip"),
    "grid": ("-m", *NOISE, "optimizer=sgd", "optimizer.lr=0.1,0.05"),
    "search": ("-m", *NOISE, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra/sweeper/pruner=median",
               "optimizer.lr=tag(log,interval(0.001,0.3))", "optimizer.weight_decay=choice(0,0.01)"),
}  # fmt: skip
# What the dataset's own choices were when the runs were pinned; a run that names another option of a group has that.
GROUPS = {"optimizer": "adamw", "loss": "cross_entropy", "batch_size": "constant"}
METRICS = ("train/loss", "train/accuracy", "train/grad_norm", "val/loss", "val/accuracy", "lr", "lr/1", "step",
           "batch_size")  # fmt: skip
TEST_METRICS = ("test/loss", "test/accuracy", "test/tta_loss", "test/tta_accuracy")


def train(*arguments: str) -> None:
    """`python train.py ARGUMENTS` in the current folder, with nothing on standard output."""
    sys.argv = ["train.py", *arguments]
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def measured(folder: Path) -> dict:
    """What is pinned of the runs below a folder, by the run's folder within its sweep."""
    runs = {}
    for path in sorted(folder.glob("outputs/**/results.json")):
        result = json.loads(path.read_text())
        epochs = [{name: epoch[name] for name in METRICS if name in epoch} for epoch in result["history"]]
        best, last = ({name: value for name, value in result["metrics"][which].items() if name in TEST_METRICS}
                      for which in ("best", "last"))  # fmt: skip
        runs[path.parent.name if "-m" in RUNS[folder.name] else "run"] = {
            "epochs": epochs, "best": best, "last": last, "best_epoch": result["metrics"]["best"]["epoch"],
            "stopped": result["stopped"], "objective": result["objective"]["value"],
        }  # fmt: skip
    return runs


def main() -> None:
    import torch

    # Muon iterates in bf16 where a processor is fast at it: here in fp32 on all of them
    torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False
    here, results = Path.cwd(), {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, arguments in RUNS.items():
            folder = Path(scratch) / name
            folder.mkdir()
            os.chdir(folder)
            named = {argument.partition("=")[0] for argument in arguments}
            train(*COMMON, *(f"{group}={option}" for group, option in GROUPS.items() if group not in named), *arguments)
            results[name] = measured(folder)
        os.chdir(here)
    made_with = {"torch": torch.__version__.split("+")[0], "machine": platform.machine()}
    print(json.dumps({"made_with": made_with, "runs": results}))


if __name__ == "__main__":
    main()
