"""Every mistake in a command is one line that names the key, and leaves nothing behind."""

from pathlib import Path

import pytest
from conftest import TINY

MISTAKES = {
    "unknown option": (["model=resnet19"], ["model=resnet19", "did you mean resnet18?", "vgg16"]),
    "unknown group": (["optimiser=sgd"], ["optimiser", "optimizer"]),
    "unknown key": (["trainer.epoch=3"], ["trainer.epoch", "epochs"]),
    "unknown key of an optimizer": (["optimizer.learning_rate=1"], ["optimizer.learning_rate"]),
    "misspelt argument": (["+optimizer.lrr=0.1"], ["optimizer.lrr=0.1", "AdamW", "did you mean lr?"]),
    "misspelt argument of a model": (["+model.wdths=[8]"], ["model.wdths", "did you mean widths?"]),
    "wrong type of a target's argument": (["optimizer.lr=fast"], ["optimizer.lr=fast", "expected float"]),
    "wrong type in our own node": (["trainer.epochs=many"], ["trainer.epochs=many", "expected int"]),
    "wrong type of a tuple": (["optimizer.betas=[0.9]"], ["optimizer.betas", "a list of float"]),
    "out of range": (["trainer.epochs=0"], ["trainer.epochs=0", "1 or more"]),
    "out of range in a target": (["optimizer.lr=-1"], ["optimizer", "-1"]),
    "out of range fraction": (["dataset.validation=1.5"], ["dataset.validation=1.5", "between 0 and 1, or test"]),
    "negative seed": (["seed=-1"], ["seed=-1", "0 or more"]),
    "unknown objective": (["objective=test/accuracy"], ["objective=test/accuracy", "val/accuracy"]),
    "unknown precision": (["trainer.precision=fp8"], ["trainer.precision=fp8", "bf16"]),
    "fp16 on a CPU": (["trainer.precision=fp16", "trainer.device=cpu"], ["trainer.precision=fp16", "CPU", "bf16"]),
    "unknown device": (["trainer.device=gpu"], ["trainer.device=gpu", "cuda"]),
    "plateau per step": (["scheduler=plateau", "scheduler.interval=step"], ["scheduler.interval=step", "epoch"]),
    "unknown monitor": (["early_stopping=patience", "early_stopping.monitor=loss"], ["early_stopping.monitor=loss"]),
    "missing folder": (["dataset=image_folder", "dataset.root=nowhere"], ["dataset.root", "nowhere", "no such folder"]),
    "no root given": (["dataset=image_folder"], ["dataset.root"]),
    "missing dataset": (["dataset=cifar10", "dataset.root=nowhere"], ["CIFAR10", "nowhere", "dataset.download=true"]),
    "forbidden target": (["model._target_=os.system"], ["model._target_=os.system", "IOLAUS_ALLOW='os.*'"]),
    "torch.load is no target": (["model._target_=torch.load"], ["model._target_=torch.load", "IOLAUS_ALLOW"]),
    "target that is not there": (["loss._target_=torch.nn.CrossEntropyLos"], ["did you mean CrossEntropyLoss"]),
    "loss that wants other targets": (["loss._target_=torch.nn.MSELoss", "~loss.label_smoothing"], ["one_hot=true"]),
    "model for other images": (["model=mlp", "model._target_=torch.nn.Linear", "~model.hidden", "~model.dropout",
                                "~model.norm", "~model.activation", "~model.expansion", "+model.in_features=3",
                                "+model.out_features=2"], ["Linear does not take"]),
    "unknown timm name": (["model=timm", "model.name=resnet1o1"], ["resnet101"]),
    "broken override": (["optimizer.lr=[0.1"], ["optimizer.lr"]),
    "options that exclude each other": (["-m", "--cfg", "job"], ["Only one of", "--multirun", "--cfg"]),
    "resume of nothing": (["resume=nowhere"], ["resume=nowhere", "not the folder of a run"]),
    "resume without any run": (["resume=last"], ["no unfinished run"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_leaves_no_folder(command, arguments, told):
    groups = {argument.split("=")[0] for argument in arguments}
    tiny = [] if groups & {"resume"} else [a for a in TINY if a.split("=")[0] not in groups]
    if "dataset" in groups:
        tiny = [a for a in tiny if not a.startswith("dataset")]

    outcome = command(*tiny, *arguments)

    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("iolaus: ")
    assert all(part in line for part in told), line
    assert outcome.out == ""
    assert list(Path(outcome.cwd).iterdir()) == []


def test_all_mistakes_are_told_at_once(command):
    outcome = command("trainer.epochs=0", "optimizer.lr=fast", "+model.depth=3", "seed=-1")

    lines = outcome.err.splitlines()
    assert len(lines) == 4
    assert {line.split()[1].split("=")[0] for line in lines} == {
        "trainer.epochs", "optimizer.lr", "model.depth", "seed",
    }  # fmt: skip


def test_hydra_full_error_brings_the_traceback_back(command, monkeypatch):
    import train
    from iolaus.errors import ConfigError, errors_for_people

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["train.py", "trainer.epochs=0"])
    with pytest.raises(ConfigError, match=r"trainer.epochs=0"), errors_for_people():
        train.main()


def test_a_package_of_ones_own_is_allowed_by_the_environment(command, tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, in_channels):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = [*TINY, "model=cnn", "model._target_=mine_for_test.Net", "~model.widths", "~model.dropout"]
    refused = command(*own)
    assert refused.status == 2
    assert "IOLAUS_ALLOW='mine_for_test.*'" in refused.err

    monkeypatch.setenv("IOLAUS_ALLOW", "mine_for_test.*")
    assert command(*own).results["parameters"] == 3 * 64 * 2 + 2


def test_a_mistake_in_one_job_of_a_sweep_is_told_and_the_others_run(command):
    outcome = command(*TINY, "-m", "optimizer.lr=0.01,fast")

    assert outcome.status == 2
    assert "optimizer.lr=fast: expected float" in outcome.err
    assert [run.name for run in outcome.runs] == ["optimizer.lr=0.01"]


def test_a_sweep_without_a_single_run_leaves_no_folder(command):
    outcome = command("-m", "trainer.epochs=0,-1")

    assert outcome.status == 2
    assert list(outcome.cwd.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("scheduler=one_cycle", "scheduler.pct_start=1.0"),
        ("scheduler=one_cycle", "scheduler.total_steps=2"),
        ("scheduler=step", "scheduler.step_size=0"),
        ("scheduler=cosine", "scheduler.T_max=0"),
    ],
)
def test_a_scheduler_that_would_break_during_the_run_is_refused_before_it(command, arguments):
    outcome = command(*TINY, "trainer.epochs=5", *arguments)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert "scheduler" in line
    assert list(outcome.cwd.iterdir()) == []


def test_ctrl_c_while_the_data_are_read_leaves_no_folder(command, monkeypatch):
    from iolaus import inputs

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inputs, "read", interrupted)
    outcome = command(*TINY)
    assert outcome.status == 130
    assert list(outcome.cwd.iterdir()) == []
