"""A run that was cut off and resumed is the uninterrupted run, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
import torch
from conftest import ROOT, TINY

# momentum, dropout, both kinds of scheduler, early stopping, a batch-size schedule, augmentation, workers: each in turn
CASES = {
    "momentum, dropout, cosine, batch-size schedule": (
        "optimizer=sgd", "model.dropout=0.5", "scheduler=cosine", "trainer.batch_size_schedule={1: 8, 3: 24}",
    ),
    "plateau and early stopping": (
        "optimizer=adamw", "scheduler=plateau", "scheduler.patience=0", "early_stopping=patience",
        "early_stopping.patience=3", "augmentation=basic", "dataset.mirror=true",
    ),
    "step per epoch, rmsprop, mse, clipping": (
        "optimizer=rmsprop", "scheduler=step", "scheduler.step_size=2", "loss=mse", "trainer.grad_clip_norm=0.1",
    ),
    "bf16, one cycle": ("trainer.precision=bf16", "scheduler=one_cycle", "optimizer=adam", "model.dropout=0.2"),
    "everything that augments, channels-last or not, the last batch kept": (
        "augmentation=advanced", "augmentation.erasing=0.5", "augmentation.mixup_alpha=0.2", "augmentation.hue=0.1",
        "augmentation.cutmix_alpha=1.0", "trainer.drop_last=false", "scheduler=cosine",
    ),
    "a transform of torchvision's in reading processes": (
        "dataset.residency=streaming", "dataset.num_workers=1", "augmentation.scale=[0.5,1]",
        "augmentation.transform=torchvision.transforms.v2.RandAugment",
    ),
    "SAM, an average of the weights, parts of a batch, warm-up": (
        "optimizer=sam", "trainer.ema_decay=0.9", "trainer.micro_batch_size=5", "scheduler.warmup_epochs=1.5",
        "scheduler=plateau", "scheduler.patience=0", "model.dropout=0.5", "model.widths=[8,8]",
        "trainer.batch_size_schedule={2: 24}", "trainer.scale_lr_with_batch=linear",
    ),
    "Muon, groups by depth, one cycle": (
        "optimizer=muon", "optimizer_groups=discriminative", "scheduler=one_cycle", "model.widths=[8,8,8]",
        "optimizer_groups.no_decay_on_norm_and_bias=true", "optimizer.adamw_weight_decay=0.01",
    ),
    "a frozen backbone under mixup and ASAM": (
        "optimizer_groups=linear_probe", "augmentation=mixup", "trainer.sam_rho=0.5", "trainer.sam_adaptive=true",
    ),
    "streaming with workers": ("dataset.residency=streaming", "dataset.num_workers=2", "scheduler=cosine"),
}  # fmt: skip
BASE = (*TINY, "dataset.train_count=60", "trainer.epochs=5", "model=cnn", "model.widths=[8]", "trainer.log_every=1")
TIMES = ("seconds", "images_per_second", "steps_per_second", "hardware/")


def what_counts(folder: Path) -> dict:
    results = json.loads((folder / "results.json").read_text())

    def lasting(metrics: dict) -> dict:
        return {name: value for name, value in metrics.items() if not name.startswith(TIMES)}

    history = [lasting(metrics) for metrics in results["history"]]
    metrics = {which: lasting(of) for which, of in results["metrics"].items()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "history": history, "metrics": metrics, "steps": results["steps"], "epochs": results["epochs"],
        "stopped": results["stopped"], "jsonl": [lasting(line) for line in lines],
    }  # fmt: skip


def assert_same(a: object, b: object) -> None:
    """Equality of nested containers of tensors, bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b


def assert_same_checkpoints(one: Path, other: Path) -> None:
    a, b = (torch.load(folder / "last.pt", weights_only=True)["learner"] for folder in (one, other))
    assert_same(a, b)
    a, b = (torch.load(folder / "best.pt", weights_only=True)["model"] for folder in (one, other))
    assert_same(a, b)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_a_resumed_run_equals_the_uninterrupted_one(command, monkeypatch, arguments):
    from iolaus import checkpoint

    whole = command(*BASE, *arguments, "hydra.run.dir=outputs/whole")
    assert whole.status == 0, whole.err
    original = checkpoint.save

    def save_and_kill(number: int) -> Callable[[Path, dict], None]:
        saves = []

        def save(path: Path, state: dict) -> None:
            original(path, state)
            saves.append(path.name)
            if saves.count("last.pt") == number:
                raise Killed

        return save

    for number in (1, 2, 4):  # of the save after which it is killed
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save", save_and_kill(number))
            with pytest.raises(Killed):
                command(*BASE, *arguments, f"hydra.run.dir=outputs/{number}")
        resumed = command(f"resume=outputs/{number}")
        assert resumed.status == 0, resumed.err
        cut, uncut = resumed.cwd / "outputs" / str(number), resumed.cwd / "outputs" / "whole"
        assert what_counts(cut) == what_counts(uncut)
        assert_same_checkpoints(cut, uncut)


@pytest.mark.parametrize("step", [1, 2, 5, 7])
def test_a_signal_in_the_middle_of_an_epoch_keeps_the_steps_done(command, monkeypatch, step):
    from iolaus import loop

    arguments = (*BASE, "model.dropout=0.5", "optimizer=sgd", "augmentation=basic", "tracker=tensorboard")
    command(*arguments, "hydra.run.dir=outputs/whole")

    original, steps = loop.train_step, []

    def interrupted_step(*args, **kwargs):
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    stopped = command(*arguments, "hydra.run.dir=outputs/cut")
    assert stopped.status == 143
    assert "python train.py resume=outputs/cut" in stopped.err
    assert len(steps) == step

    resumed = command("resume=last")
    assert resumed.status == 0, resumed.err
    cut, uncut = resumed.cwd / "outputs" / "cut", resumed.cwd / "outputs" / "whole"
    assert what_counts(cut) == what_counts(uncut)
    assert_same_checkpoints(cut, uncut)
    assert len(steps) == what_counts(uncut)["steps"]  # none was taken twice


def test_kill_minus_9_loses_nothing(tmp_path):
    arguments = (*BASE, "trainer.epochs=40", "model.dropout=0.5", "dataset.train_count=600")
    process = processes.start(tmp_path, *arguments, "hydra.run.dir=outputs/cut")
    log = tmp_path / "outputs" / "cut" / "metrics.jsonl"
    processes.wait_for(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    processes.kill(process)
    assert 3 <= len(log.read_text().splitlines()) < 40

    for command in (["resume=outputs/cut"], [*arguments, "hydra.run.dir=outputs/whole"]):
        process = processes.start(tmp_path, *command)
        process.join(300)
        assert process.exitcode == 0, (tmp_path / "output").read_text()
    cut, uncut = tmp_path / "outputs" / "cut", tmp_path / "outputs" / "whole"
    assert what_counts(cut) == what_counts(uncut)
    assert_same_checkpoints(cut, uncut)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_is_answered_by_the_run_and_not_by_its_readers(tmp_path, number, status):
    """As a terminal's Ctrl-C and a cluster's scancel send it."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *BASE, "dataset.residency=streaming", "dataset.num_workers=2",
         "trainer.epochs=10000", "hydra.run.dir=outputs/run"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    log = tmp_path / "outputs" / "run" / "metrics.jsonl"
    processes.wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == status
    assert told.count("ending after this step") == 1
    assert "Traceback" not in told
    assert (tmp_path / "outputs" / "run" / "last.pt").exists()
    with pytest.raises(ProcessLookupError):  # no reader is left in the group
        os.killpg(process.pid, 0)


def test_resume_refuses_a_finished_run_other_overrides_and_a_damaged_checkpoint(command):
    command(*TINY, "hydra.run.dir=outputs/done")
    assert "is finished" in command("resume=outputs/done").err
    assert "drop trainer.epochs=9" in command("resume=outputs/done", "trainer.epochs=9").err

    folder = Path("outputs/done")
    (folder / "results.json").unlink()
    whole = (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(whole[: len(whole) // 2])
    outcome = command("resume=outputs/done")
    assert outcome.status == 2
    assert "last.pt: the checkpoint is damaged" in outcome.err
    assert (folder / "last.pt").read_bytes() == whole[: len(whole) // 2]
    assert [p.name for p in Path("outputs").iterdir()] == ["done"]


def test_a_run_that_was_cut_off_before_its_first_checkpoint_starts_anew(command):
    command(*TINY, "hydra.run.dir=outputs/cut")
    folder = Path("outputs/cut")
    before = what_counts(folder)
    for name in ("results.json", "last.pt", "best.pt"):
        (folder / name).unlink()
    assert command("resume=last").status == 0
    assert what_counts(folder) == before
