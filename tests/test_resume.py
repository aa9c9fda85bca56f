"""A run that was interrupted and resumed equals the uninterrupted run, bit for bit."""

import json
import math
import os
import re
import signal
import time
from pathlib import Path

import processes
import pytest
import torch
from conftest import TINY, thin

from iolaus import loop
from iolaus.files import checkpoint
from iolaus.files.locks import is_locked
from iolaus.follow import ask_ranks
from iolaus.machine.ranks import Alone
from iolaus.machine.signals import PAUSE

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
    "a transform of torchvision's in data workers": (
        "dataset.residency=streaming", "dataset.num_workers=1", "augmentation.scale=[0.5,1]",
        "augmentation.transform=torchvision.transforms.v2.RandAugment",
    ),
    "SAM, EMA, micro-batches, warm-up": (
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


def reproducible_results(folder: Path) -> dict:
    """What two runs of one command have in common: history, metrics and counts, but no times."""
    results = json.loads((folder / "results.json").read_text())

    def without_times(metrics: dict) -> dict:
        return {name: value for name, value in metrics.items() if not name.startswith(TIMES)}

    history = [without_times(metrics) for metrics in results["history"]]
    metrics = {which: without_times(values) for which, values in results["metrics"].items()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "history": history, "metrics": metrics, "steps": results["steps"], "epochs": results["epochs"],
        "stopped": results["stopped"], "jsonl": [without_times(line) for line in lines],
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
    """Ends a run where kill -9 would end it: no `except Exception` sees it."""


@thin(2)
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_a_run_that_was_killed_three_times_equals_the_uninterrupted_one(command, monkeypatch, arguments):
    from iolaus.files import checkpoint

    whole = command(*BASE, *arguments, "hydra.run.dir=outputs/whole")
    assert whole.status == 0, whole.err
    save, saves = checkpoint.save, []

    def save_and_kill(path: Path, state: dict) -> None:
        save(path, state)
        saves.append(path.name)
        if path.name == "last.pt" and saves.count("last.pt") in (1, 2, 4):
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_kill)
        with pytest.raises(Killed):
            command(*BASE, *arguments, "hydra.run.dir=outputs/cut")
        for _ in range(2):
            with pytest.raises(Killed):
                command("resume=outputs/cut")
        resumed = command("resume=outputs/cut")
    assert resumed.status == 0, resumed.err
    assert saves.count("last.pt") == len(json.loads(Path("outputs/whole/results.json").read_text())["history"])
    assert reproducible_results(Path("outputs/cut")) == reproducible_results(Path("outputs/whole"))
    assert_same_checkpoints(Path("outputs/cut"), Path("outputs/whole"))


def test_checkpoints_written_beside_the_training_are_those_of_any_run_and_a_killed_one_goes_on(command, monkeypatch):
    """As on a GPU. A kill finds the log an epoch ahead of the checkpoint that the thread has written."""
    arguments = (*BASE, "trainer.epochs=4", "trainer.ema_decay=0.5")
    assert command(*arguments, "hydra.run.dir=outputs/whole").status == 0
    inline, save, saves = checkpoint.Writer, checkpoint.save, []

    def save_and_kill(path: Path, state: dict) -> None:
        if saves.count("last.pt") == 2:  # in the middle of the third epoch's
            raise Killed
        save(path, state)
        saves.append(path.name)

    monkeypatch.setattr(checkpoint, "Writer", lambda beside, every: inline(True, every))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_kill)
        with pytest.raises(Killed):
            command(*arguments, "hydra.run.dir=outputs/cut")
    cut = Path("outputs/cut")
    assert (cut / "metrics.jsonl").read_text().count("\n") == 4
    assert checkpoint.load(cut / "last.pt")["state"]["epoch"] == 2
    assert command("resume=last").status == 0
    assert reproducible_results(cut) == reproducible_results(Path("outputs/whole"))
    assert_same_checkpoints(cut, Path("outputs/whole"))


def test_signals_in_the_middle_of_an_epoch_keep_the_steps_done(command, monkeypatch):

    arguments = (*BASE, "model.dropout=0.5", "optimizer=sgd", "augmentation=basic", "tracker=tensorboard")
    command(*arguments, "hydra.run.dir=outputs/whole")

    train_step, steps = loop.train_step, []

    def interrupted_step(*args, **kwargs):
        steps.append(1)
        if len(steps) in (1, 2, 5, 7):  # an epoch has three
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    stopped = command(*arguments, "hydra.run.dir=outputs/cut")
    for step in (1, 2, 5, 7):
        assert stopped.status == 143
        assert "python train.py resume=outputs/cut" in stopped.err
        assert len(steps) == step
        stopped = command("resume=last")

    assert stopped.status == 0, stopped.err
    assert reproducible_results(Path("outputs/cut")) == reproducible_results(Path("outputs/whole"))
    assert_same_checkpoints(Path("outputs/cut"), Path("outputs/whole"))
    assert len(steps) == reproducible_results(Path("outputs/whole"))["steps"]  # none was taken twice


def test_a_run_whose_minutes_are_over_ends_after_its_step_and_the_rest_has_minutes_of_its_own(command, monkeypatch):
    arguments = (*BASE, "trainer.epochs=3", "trainer.max_minutes=5")
    command(*arguments, "hydra.run.dir=outputs/whole")
    train_step, steps, clock = loop.train_step, [], time.time

    def slow_step(*args, **kwargs):
        steps.append(1)
        if len(steps) in (5, 6):  # of nine
            monkeypatch.setattr(time, "time", lambda: clock() + 301 * (len(steps) - 4))
        return train_step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", slow_step)
    stopped = command(*arguments, "hydra.run.dir=outputs/cut")
    assert stopped.status == 142
    assert "stopped in epoch 2; continue with: python train.py resume=outputs/cut" in stopped.err
    assert "Traceback" not in stopped.err
    assert not Path("outputs/cut/results.json").exists()
    assert command("resume=last").status == 142
    done = command("resume=last", "trainer.max_minutes=null")
    assert done.status == 0, done.err
    assert len(steps) == 9  # none was taken twice
    assert_same_checkpoints(Path("outputs/cut"), Path("outputs/whole"))


def test_checkpoints_within_an_epoch_change_nothing_and_a_kill_there_loses_no_more_than_a_step(command, monkeypatch):
    arguments = (*BASE, *CASES["SAM, EMA, micro-batches, warm-up"], "trainer.epochs=3")
    command(*arguments, "trainer.checkpoint_every=null", "hydra.run.dir=outputs/whole")
    train_step, steps = loop.train_step, []

    def killed_step(*args, **kwargs):
        steps.append(args[3])
        if len(steps) == 7:  # in the middle of an epoch of four
            raise Killed
        return train_step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", killed_step)
    with pytest.raises(Killed):
        command(*arguments, "trainer.checkpoint_every=1e-9", "hydra.run.dir=outputs/cut")
    done = command("resume=last")
    assert done.status == 0, done.err
    assert steps[6] == steps[7] == 6  # the one that was killed, and no other, was taken twice
    assert reproducible_results(Path("outputs/cut")) == reproducible_results(Path("outputs/whole"))
    assert_same_checkpoints(Path("outputs/cut"), Path("outputs/whole"))


def test_a_checkpoint_is_due_when_its_seconds_have_passed_since_the_last(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    writer, never = checkpoint.Writer(False, 600.0), checkpoint.Writer(False, None)
    for now, due in ((1599.0, False), (1600.0, True), (1601.0, False), (2199.0, False), (2200.0, True)):  # noqa: B007
        assert writer.is_due() is due
    with writer:
        writer.write({tmp_path / "last.pt": {}})
        assert not writer.is_due()
        now = 2799.0
        assert not writer.is_due()
        now = 2800.0
        assert writer.is_due()
    assert not never.is_due()


def test_ranks_that_answer_a_step_later_write_a_checkpoint_that_is_due_once(monkeypatch):
    class Late(Alone):
        before = 0

        def agree(self, number):
            answer, self.before = self.before, number
            return answer

    now, group, answers = 0.0, Late(), []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    writer = checkpoint.Writer(False, 10.0)
    for now in map(float, range(1, 24)):  # noqa: B007
        answers.append(ask_ranks(group, [], math.inf, writer.is_due))
        if answers[-1] == PAUSE:
            writer.write({})
    assert [second for second, answer in enumerate(answers, 1) if answer == PAUSE] == [11, 22]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_a_warning_ends_a_run_and_the_handler_that_was_there_answers_when_all_is_saved(command, monkeypatch):
    train_step, answers = loop.train_step, []

    def warned_step(*args, **kwargs):
        if not answers:
            signal.raise_signal(signal.SIGUSR1)
        return train_step(*args, **kwargs)

    def answer(number, frame):
        answers.append((number, Path("outputs/cut/last.pt").exists(), is_locked(Path("outputs/cut/.lock"))))

    monkeypatch.setattr(loop, "train_step", warned_step)
    before = signal.signal(signal.SIGUSR1, answer)
    try:
        stopped = command(*BASE, "hydra.run.dir=outputs/cut")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped.status == 128 + signal.SIGUSR1
    assert "stopped in epoch 1; continue with: " in stopped.err
    assert answers == [(signal.SIGUSR1, True, False)]


def test_kill_minus_9_loses_nothing(tmp_path):
    arguments = (*BASE, "trainer.epochs=24", "model.dropout=0.5", "dataset.train_count=600")
    process = processes.start(tmp_path, *arguments, "hydra.run.dir=outputs/cut")
    log = tmp_path / "outputs" / "cut" / "metrics.jsonl"
    processes.wait_for(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    processes.kill(process)
    assert 3 <= len(log.read_text().splitlines()) < 24

    for command in (["resume=outputs/cut"], [*arguments, "hydra.run.dir=outputs/whole"]):
        process = processes.start(tmp_path, *command)
        process.join(300)
        assert process.exitcode == 0, (tmp_path / "output").read_text()
    cut, uncut = tmp_path / "outputs" / "cut", tmp_path / "outputs" / "whole"
    assert reproducible_results(cut) == reproducible_results(uncut)
    assert_same_checkpoints(cut, uncut)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
@thin(2)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_run_and_not_its_data_workers_answers_a_signal_to_the_whole_group(tmp_path, number, status):
    """As a terminal's Ctrl-C and a cluster's scancel send it."""
    process = processes.start(tmp_path, *BASE, "dataset.residency=streaming", "dataset.num_workers=2",
                              "trainer.epochs=10000", "hydra.run.dir=outputs/run")  # fmt: skip
    log = tmp_path / "outputs" / "run" / "metrics.jsonl"
    processes.wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2, process)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == status
    told = (tmp_path / "output").read_text()
    assert told.count("ending after this step") == 1
    assert "Traceback" not in told
    assert (tmp_path / "outputs" / "run" / "last.pt").exists()
    processes.wait_for(lambda: not processes.group_of(process), seconds=30)  # no worker is left in the group


def test_resume_refuses_a_finished_run_other_overrides_and_a_damaged_checkpoint(command):
    command(*TINY, "hydra.run.dir=outputs/done")
    assert "is finished" in command("resume=outputs/done").err
    assert "drop seed=9" in command("resume=outputs/done", "seed=9", "trainer.epochs=9").err

    folder = Path("outputs/done")
    (folder / "results.json").unlink()
    whole = (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(whole[: len(whole) // 2])
    outcome = command("resume=outputs/done")
    assert outcome.status == 2
    assert "last.pt: the checkpoint is damaged" in outcome.err
    assert (folder / "last.pt").read_bytes() == whole[: len(whole) // 2]
    assert [p.name for p in Path("outputs").iterdir()] == ["done"]


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(command):
    command(*TINY, "hydra.run.dir=outputs/cut")
    folder = Path("outputs/cut")
    before = reproducible_results(folder)
    for name in ("results.json", "last.pt", "best.pt", "metrics.jsonl"):
        (folder / name).unlink()
    assert command("resume=last").status == 0
    assert reproducible_results(folder) == before


@pytest.fixture
def cut_run(command, monkeypatch):
    """A function that trains a run until its third save of last.pt, and gives its folder."""
    from iolaus.files import checkpoint

    original = checkpoint.save

    def cut(*arguments: str) -> Path:
        saves = []

        def save(path: Path, state: dict) -> None:
            original(path, state)
            saves.append(path.name)
            if saves.count("last.pt") == 3:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save", save)
            with pytest.raises(Killed):
                command(*BASE, *arguments, "hydra.run.dir=outputs/cut")
        return Path("outputs/cut")

    return cut


def test_a_lost_last_pt_is_told_and_not_trained_anew_in_silence(command, cut_run):
    folder = cut_run()
    (folder / "last.pt").unlink()
    outcome = command("resume=outputs/cut")
    assert outcome.status == 2
    assert "outputs/cut/last.pt: is missing" in outcome.err
    assert (folder / "metrics.jsonl").read_text().count("\n") == 3


def test_a_finished_run_without_last_pt_is_not_trained_anew(command):
    assert command(*TINY, "scheduler=constant", "hydra.run.dir=outputs/r").status == 0
    Path("outputs/r/last.pt").unlink()
    outcome = command("resume=outputs/r", "trainer.epochs=2")
    assert outcome.status == 2
    assert "outputs/r/last.pt: is missing" in outcome.err
    assert Path("outputs/r/best.pt").exists()


def test_a_configuration_that_was_edited_since_is_told_by_its_keys(command, cut_run):
    folder = cut_run("optimizer=adamw")
    config = folder / ".hydra" / "config.yaml"
    text = config.read_text()
    edited = text.replace("torch.optim.AdamW", "torch.optim.Adam").replace("num_workers: null", "num_workers: 1")
    config.write_text(edited.replace(" batch_size: 16", " batch_size: 8"))
    outcome = command("resume=outputs/cut")
    assert outcome.status == 2
    lines = outcome.err.strip().splitlines()
    assert [line.split("=")[0] for line in lines] == ["iolaus: trainer.batch_size", "iolaus: optimizer._target_"]
    assert "it was torch.optim.AdamW when outputs/cut began" in lines[1]
    config.write_text(text.replace("num_workers: null", "num_workers: 1"))  # trains the same model
    assert command("resume=outputs/cut").status == 0


@thin(2)
@pytest.mark.parametrize("content", [b"{{", b"\xff\xfe", b"[1]", b"{}", b""])
def test_a_damaged_configuration_is_told_in_a_line_that_names_the_file_or_the_group(command, cut_run, content):
    folder = cut_run()
    (folder / ".hydra" / "config.yaml").write_bytes(content)
    outcome = command("resume=outputs/cut")
    assert outcome.status == 2
    assert re.match(r"iolaus: (\S*config\.yaml|dataset): ", outcome.err)
    assert "Traceback" not in outcome.err


def test_data_that_changed_since_are_told(command, cut_run, monkeypatch):
    from iolaus.config import build

    cut_run()
    monkeypatch.setattr(build, "data_fingerprint", lambda source: "64 train, 6 test, 2 classes, 0123456789")
    outcome = command("resume=outputs/cut")
    assert outcome.status == 2
    assert "dataset: 64 train, 6 test, 2 classes, 0123456789; outputs/cut began with 60 train, 6 test" in outcome.err


@pytest.mark.parametrize("change", ["an image more", "another class", "another name"])
def test_the_fingerprint_of_data_tells_what_changed(change):
    from iolaus.config.build_data import data_fingerprint
    from iolaus.data.sources import synthetic

    source = synthetic(num_classes=2, size=4, train_count=9 if change == "an image more" else 8, test_count=4)
    if change == "another class":
        source.test.targets[0] = 1 - source.test.targets[0]
    if change == "another name":
        source.classes[1] = "dog"
    fingerprints = {data_fingerprint(synthetic(num_classes=2, size=4, train_count=8, test_count=4)) for _ in range(2)}
    assert len(fingerprints) == 1
    assert data_fingerprint(source) not in fingerprints


def test_a_last_pt_of_another_program_is_named_and_stays(command, cut_run):
    folder = cut_run()
    for content, why in (
        ({"model": {"weight": torch.zeros(2)}}, "is no such checkpoint of a run (it has no learner and no state)"),
        ([1, 2], "is no such checkpoint of a run (it has no learner and no state)"),
        ({"learner": {}, "state": {}}, "it has no 'model'"),
        ({"learner": {"model": {}}, "state": {}}, "state_dict"),
    ):
        torch.save(content, folder / "last.pt")
        outcome = command("resume=outputs/cut")
        assert outcome.status == 2
        (line,) = outcome.err.splitlines()
        assert line.startswith("iolaus: outputs/cut/last.pt: ")
        assert why in line
        assert line.endswith("; put back a copy of it, or start a new run")
        assert type(torch.load(folder / "last.pt", weights_only=True)) is type(content)


def test_a_results_json_with_other_values_within_is_written_anew(command):
    """A job of a grid: its checkpoint says that it is trained, so only the results are made again."""
    job = ("-m", *TINY, "model=mlp", "seed=3", "study=grid")
    assert command(*job).status == 0
    (file,) = Path("outputs/grid").glob("*/results.json")
    before = json.loads(file.read_text())
    for damage in ({"objective": 3}, {"metrics": 1}, {"metrics": {"last": [1]}}, {"objectives": [1]}):
        file.write_text(json.dumps(before | damage))
        outcome = command(*job)
        assert outcome.status == 0, outcome.err
        assert "results.json: is not as a run writes it; the run goes on from its last checkpoint" in outcome.err
        again = json.loads(file.read_text())
        for key in ("objective", "metrics", "history"):
            assert again[key] == before[key]


def test_a_lost_best_pt_does_not_keep_a_run_from_its_end(command, cut_run):
    folder = cut_run("optimizer=sgd", "optimizer.lr=1e-12")  # of equal epochs the first is the best
    (folder / "best.pt").unlink()
    outcome = command("resume=outputs/cut")
    assert outcome.status == 0, outcome.err
    results = outcome.results
    assert results["status"] == "finished"
    assert results["metrics"]["best"]["epoch"] < 3
    assert results["best_test_accuracy"] is None
    assert "no test of the best epoch" in outcome.out + outcome.err


LONGER = {
    "constant": ("scheduler=constant", "optimizer=sgd", "model.dropout=0.5"),
    "step, an average, a batch size that grows": (
        "scheduler=step", "scheduler.step_size=2", "optimizer=adamw", "trainer.ema_decay=0.9",
        "trainer.batch_size_schedule={1: 8, 6: 24}", "trainer.scale_lr_with_batch=linear",
    ),
    "plateau, warm-up": ("scheduler=plateau", "scheduler.patience=0", "scheduler.warmup_epochs=1.5", "optimizer=muon"),
}  # fmt: skip


@thin(2)
@pytest.mark.parametrize("arguments", LONGER.values(), ids=LONGER.keys())
def test_a_finished_run_that_trains_longer_equals_a_longer_run(command, arguments):
    command(*BASE, *arguments, "trainer.epochs=8", "hydra.run.dir=outputs/whole")
    command(*BASE, *arguments, "trainer.epochs=3", "hydra.run.dir=outputs/short")
    outcome = command("resume=outputs/short", "epochs=8")
    assert outcome.status == 0, outcome.err
    assert reproducible_results(Path("outputs/short")) == reproducible_results(Path("outputs/whole"))
    assert_same_checkpoints(Path("outputs/short"), Path("outputs/whole"))
    saved = Path("outputs/short/.hydra/overrides.yaml").read_text()
    assert saved.count("trainer.epochs") == 1
    assert "trainer.epochs=8" in saved
    assert "must be above 8" in command("resume=outputs/short", "trainer.epochs=8").err


def test_a_longer_run_that_was_killed_goes_on_to_its_new_end(command, cut_run):
    folder = cut_run("scheduler=constant")
    assert command("resume=outputs/cut", "trainer.epochs=7").status == 0
    command(*BASE, "scheduler=constant", "trainer.epochs=7", "hydra.run.dir=outputs/whole")
    assert_same_checkpoints(folder, Path("outputs/whole"))


def test_a_schedule_of_fixed_length_names_the_way_to_train_longer(command):
    command(*BASE, "scheduler=one_cycle", "trainer.epochs=2", "hydra.run.dir=outputs/my run")
    before = {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}
    outcome = command("resume=outputs/my run", "trainer.epochs=4")
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    assert "OneCycleLR was laid out over 2 epochs" in outcome.err
    assert "\"model.weights='outputs/my run'\" trainer.epochs=N" in outcome.err
    assert {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()} == before


def test_a_run_that_stopped_early_does_not_train_longer(command):
    stopping = ("early_stopping=patience", "early_stopping.patience=1", "scheduler=constant", "lr=1e-12")
    command(*BASE, *stopping, "hydra.run.dir=outputs/short")
    outcome = command("resume=outputs/short", "trainer.epochs=9")
    assert outcome.status == 2
    assert "early stopping ended the run in epoch" in outcome.err


def test_resume_of_a_study_and_of_a_misspelt_run_say_what_is_meant(command):
    command("-m", *TINY, "study=s", "seed=0,1")
    assert "resume=outputs/s: is a study; the command that began it goes on with it" in command("resume=outputs/s").err
    assert "nearest names there: seed=1, seed=0" in command("resume='outputs/s/seed=3'").err
    assert not [path for path in Path("outputs").iterdir() if path.name != "s"]
