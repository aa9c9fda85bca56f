"""Every mistake in a command is reported in one line that names the key, and leaves nothing behind."""

from pathlib import Path

import pytest
from conftest import TINY, thin

MISTAKES = {
    "a range that is none": (["seed=0-2"], ["seed=0-2: expected a whole number", "sweep: -m 'seed=range(0,3)'"]),
    "an option that is timm's": (["model=resnet10t.c3_in1k"], ["model=timm model.name=resnet10t.c3_in1k"]),
    "unknown option": (["model=resnet19"], ["model=resnet19", "did you mean resnet18?", "vgg16"]),
    "unknown group": (["optimiser=sgd"], ["optimiser", "optimizer"]),
    "unknown key": (["trainer.epoch=3"], ["trainer.epoch", "epochs"]),
    "key without its group": (["batchsize=256"], ["batchsize", "did you mean trainer.batch_size?"]),
    "key with a hyphen": (["batch-size=256"], ["batch-size", "did you mean trainer.batch_size?"]),
    "name of other programs": (["learning_rate=0.1"], ["learning_rate", "did you mean lr?"]),
    "nearly a short name": (["epoch=5"], ["epoch", "did you mean epochs?"]),
    "unknown key of an optimizer": (["optimizer.learning_rate=1"], ["optimizer.learning_rate"]),
    "misspelt argument": (["+optimizer.lrr=0.1"], ["optimizer.lrr=0.1", "AdamW", "did you mean lr?"]),
    "misspelt argument of a model": (["+model.wdths=[8]"], ["model.wdths", "did you mean widths?"]),
    "wrong type of a target's argument": (["optimizer.lr=fast"], ["optimizer.lr=fast", "expected a number"]),
    "wrong type in our own node": (["trainer.epochs=many"], ["trainer.epochs=many", "expected a whole number"]),
    "wrong type of a tuple": (["optimizer.betas=[0.9]"], ["optimizer.betas", "a list of 2 numbers"]),
    "no minutes": (["trainer.max_minutes=0"], ["trainer.max_minutes=0", "above 0"]),
    "no number for a search's time": (
        ["-m", "hydra/sweeper=optuna", "lr=interval(0.1,0.2)", "hydra.sweeper.timeout=nan"],
        ["hydra.sweeper.timeout=nan", "minutes"],
    ),
    "no time for a grid": (["-m", "hydra.sweeper.timeout=soon", "seed=0,1"], ["timeout=soon", "a number or null"]),
    "out of range": (["trainer.epochs=0"], ["trainer.epochs=0", "1 or more"]),
    "out of range in a target": (["optimizer.lr=-1"], ["optimizer", "-1"]),
    "out of range fraction": (["dataset.validation=1.5"], ["dataset.validation=1.5", "between 0 and 1, or test"]),
    "fold that is not there": (["dataset.validation=0.1", "dataset.folds=5", "dataset.fold=5"],
                               ["dataset.fold=5", "from 0 to 4"]),
    "folds without a fold": (["dataset.folds=3"], ["dataset.fold=null", "range(3)"]),
    "fold of nothing": (["dataset.fold=1"], ["dataset.fold=1", "given with dataset.folds"]),
    "folds and a fraction": (["dataset.folds=5", "dataset.fold=1"],
                             ["dataset.validation=0.2", "left out with dataset.folds"]),
    "negative seed": (["seed=-1"], ["seed=-1", "0 or more"]),
    "unknown objective": (["objective=test/accuracy"], ["objective=test/accuracy", "val/accuracy"]),
    "top-5 of few classes": (["objective=val/top5_accuracy"], ["=val/top5_accuracy", "2 classes", "6 or more"]),
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


@pytest.mark.parametrize("arguments", [("~batch_size",), ("-m", "~trainer=default", "seed=0,1"), ("~model",)])
def test_a_group_that_a_run_needs_can_not_be_left_out(command, arguments):
    outcome = command(*arguments)
    given = next(argument for argument in arguments if argument.startswith("~"))
    group = given[1:].partition("=")[0]
    line = f"iolaus: {given}: a run needs an option of this group; give {group}=OPTION\n"
    assert (outcome.status, outcome.err, outcome.runs) == (2, line, [])


@thin(2)
@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_reported_in_one_line_and_leaves_no_folder(command, arguments, told):
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


# Hydra's own refusals, of several kinds, together with ours: which keys are told, and nothing else.
TOGETHER = {
    "ours": ("trainer.epochs=0 optimizer.lr=x +model.depth=3 seed=-1", "trainer.epochs optimizer.lr model.depth seed"),
    "an option and what means nothing without it": ("model=resnet19 model.pretrained=3 seed=-1", "model seed"),
    "keys, options, appended, left out": ("trainer.epoch=1 model=x +optimizer.lr=1 ~nothing seed=-1",
                                          "trainer.epoch model +optimizer.lr ~nothing seed"),
    "what can't be read": ("optimizer.lr=[1 trainer.epoch=1 wd=x", "optimizer.lr trainer.epoch optimizer.weight_decay"),
    "an option of other programs": ("--lr 0.1 trainer.epoch=3 seed=-1", "--lr trainer.epoch seed"),
    "a group given a number": ("batch_size=256 model=18 trainer.epochs=0", "batch_size model trainer.epochs"),
    "no key for the root": ("dataset=image_folder dataset.rot=x seed=-1", "dataset.rot seed"),
    "Hydra's node": ("hydra.run.dir= trainer.epoch=2 seed=-1", "trainer.epoch hydra.run.dir seed"),
    "a grid": ("-m model=no,nada,cnn trainer.epochs=abc,0 modle=1", "modle model model trainer.epochs trainer.epochs"),
    "a grid of nothing": ("-m seed=range(0) trainer.epochs=0", "seed trainer.epochs"),
    "a search": ("-m hydra/sweeper=optuna hydra.sweeper.n_trials=0 lr=interval(0.1,1) trainer.epoch=3 hydra.sweeper.x=1"
                 " hydra.sweeper.direction=up seed=-1",
                 "trainer.epoch hydra.sweeper.x hydra.sweeper.n_trials hydra.sweeper.direction seed"),
}  # fmt: skip


@thin(2)
@pytest.mark.parametrize(("wrong", "keys"), TOGETHER.values(), ids=TOGETHER)
def test_all_mistakes_are_reported_at_once(command, wrong, keys):
    outcome = command(*wrong.split())

    assert outcome.status == 2
    assert {line.split()[1].split("=")[0].rstrip(":") for line in outcome.err.splitlines()} == {*keys.split()}
    assert len(outcome.err.splitlines()) == len(keys.split())
    assert list(outcome.cwd.iterdir()) == []


def test_python_is_told_all_mistakes_at_once(tmp_path, monkeypatch):
    import iolaus
    from iolaus.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        iolaus.train("trainer.epoch=3", "model=x", seed=-1)
    assert [problem.split("=")[0].split(":")[0] for problem in refused.value.problems] == [
        "model",
        "trainer.epoch",
        "seed",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=\x1b[31mred"],
        ["trainer.\x1b]0;title\x07=1"],
        ["dataset=image_folder", "dataset.root='\x1b[2Jgone'"],
        ["-m", "seed=0,1", "dataset=image_folder", "dataset.root='\x1b[2Jgone'"],
        ["resume='[red]x[/red]\x1b[0m'"],
    ],
)
def test_what_an_error_repeats_of_a_command_is_no_code_of_the_terminal(command, arguments):
    outcome = command("tracker=none", *arguments)
    assert outcome.status == 2
    assert "\\x1b" in outcome.err
    assert not {"\x1b", "\x07"} & {*outcome.err}


def test_hydra_full_error_shows_the_traceback(command, monkeypatch):
    import train
    from iolaus.config.explain import exit_on_user_errors
    from iolaus.errors import ConfigError

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["train.py", "trainer.epochs=0"])
    with pytest.raises(ConfigError, match=r"trainer.epochs=0"), exit_on_user_errors():
        train.main()


def test_the_environment_allows_a_package_of_the_users_own(command, tmp_path, monkeypatch):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-packages"  # not the folder of the command, see test_own_code
    elsewhere.mkdir()
    (elsewhere / "mine_for_test.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, in_channels):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(elsewhere)
    own = [*TINY, "model=cnn", "model._target_=mine_for_test.Net", "~model.widths", "~model.dropout"]
    refused = command(*own)
    assert refused.status == 2
    assert "IOLAUS_ALLOW='mine_for_test.*'" in refused.err

    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", ("mine_for_test.*",))
    assert command(*own).results["parameters"] == 3 * 64 * 2 + 2


def test_a_mistake_in_one_job_of_a_sweep_is_told_before_any_trains(command):
    outcome = command(*TINY, "-m", "optimizer.lr=0.01,fast")

    assert outcome.status == 2
    assert "optimizer.lr=fast: expected a number" in outcome.err
    assert outcome.runs == []


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
def test_a_scheduler_that_would_fail_during_the_run_is_refused_before_it(command, arguments):
    outcome = command(*TINY, "trainer.epochs=5", *arguments)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert "scheduler" in line
    assert list(outcome.cwd.iterdir()) == []


def test_ctrl_c_while_the_data_are_read_leaves_no_folder(command, monkeypatch):
    from iolaus.config import build_data as inputs

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inputs, "read_source", interrupted)
    outcome = command(*TINY)
    assert outcome.status == 130
    assert list(outcome.cwd.iterdir()) == []
