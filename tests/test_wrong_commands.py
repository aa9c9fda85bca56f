"""Wrong commands that people give: one line each, the nearest right one in it, and nothing left behind."""

import pytest
import yaml
from conftest import ROOT, thin

WRONG = {
    "experiment=[cifar10_cpu,nothing]": "experiment=nothing: no such option; allowed: cifar100_grid",
    "augmentation=[basic,hevy]": "augmentation=hevy: no such option; did you mean heavy?",
    "-m experiment=digits_search,debug": "experiment=digits_search,debug: hydra/sweeper=optuna holds for a whole sweep",
    "seed=0,1": "seed=0,1: several values are a sweep, which python train.py -m takes; one value that is a list:",
    "+experiment=debug": "+experiment=debug: is in the configuration already; drop the +",
    "model = cnn": "model = cnn: spaces cut an override apart; give model=cnn",
    "lr= 0.1 seed=1": "lr= 0.1: spaces cut an override apart; give lr=0.1",
    "-m seed=0, 1, 2": "seed=0, 1, 2: spaces cut an override apart; give seed=0,1,2",
    "-m optimizer=[sgd,adam]": "optimizer=[sgd,adam]: a run has one option of this group; a sweep",
    "optimizer.lr=0,01": "optimizer.lr=0,01: several values are a sweep, which python train.py -m takes; a decimal",
    "dataset=image_folder dataset.root=~/my": "dataset.root=~/my: the shell knows ~ only at the beginning of a word",
    "optimizer_lr=0.1": "optimizer_lr: no such key; did you mean optimizer.lr?",
    "experiment=pets": "experiment=pets: no such option; did you mean pets_finetune or pets_transfer?",
    "batch_size=256": "batch_size=256: no such option; did you mean trainer.batch_size=256?",
    "model=18": "model=18: no such option; did you mean model=resnet18?",
    "tracker=null": "tracker=null: no such option; did you mean tracker=none?",
    "early_stopping=null": "did you mean early_stopping=none?",
    "scheduler=none": "scheduler=none: no such option; allowed: constant, cosine",
    "epoch=5": "epoch: no such key; did you mean epochs?",
    "--lr 0.1": "--lr: no such option; a key is given as lr=0.1",
    "--hlp": "--hlp: no such option; did you mean --help?",
    "--resume": "--resume: no such option; a key is given as resume=VALUE",
    "--lr=0.1": "--lr=0.1: no such option; a key is given as lr=0.1",
    "--batch-size=3": "a key is given as batch_size=3",
    "model.widths=[]": "model.widths=[]: must be the channels of one stage",
    "-x": "-x: no such argument; a key is given as KEY=VALUE",
    "--cfg nope": "--cfg/-c nope: no such choice; allowed: all, hydra, job",
    "optimizer.lr=${no.such}": "optimizer.lr: Interpolation key 'no.such' not found",
    "dataset=huggingface dataset.name=": "dataset.name=: must be a folder, a file, or OWNER/NAME",
    "trainer.epochs=1000000000000000000000": "must be 1,000,000 or less",
    "dataset=synthetic dataset.size=0": "dataset.size=0: must be 1 or more",
    "dataset=synthetic dataset.test_count=0": "dataset.test_count=0: must be 1 or more",
    "dataset=synthetic dataset.train_count=0": "dataset.train_count=0: must be 1 or more",
    "optimizer.foreach=true optimizer.fused=true": "optimizer: `fused` and `foreach` cannot be `True` together",
    "dataset=synthetic dataset.num_classes=-1": "dataset.num_classes=-1: must be 1 or more",
    "tracker.tensorboard=null": "tracker.tensorboard=None: must be a tracker with a _target_",
    "+foo=3": "foo=3: no such key; allowed: ",
    "augmentation=[heavy,nothing]": "augmentation=nothing: no such option; allowed: advanced, basic",
    "resume=": "resume=: must be the folder of a run, or last",
    "study=": "study=: must be the name of a folder in outputs/, or null",
    "scheduler=step scheduler.step_size=-1": "scheduler.step_size=-1: must be above 0",
    "scheduler.max_lr=-1": "scheduler.max_lr=-1: must be above 0",
    "scheduler=plateau scheduler.patience=-2": "scheduler.patience=-2: must be 0 or more",
    "loss.label_smoothing=-1": "loss.label_smoothing=-1: must be from 0 to 1",
    "model.widths=[0]": "model: CNN does not take",
    "optimizer.lr=nan": "optimizer.lr=nan: must be a finite number",
    "optimizer.lr=inf": "optimizer.lr=inf: must be a finite number",
    "trainer.grad_clip_norm=nan": "trainer.grad_clip_norm=nan: must be a finite number",
    "hydra.run.dir=": "hydra.run.dir=: must be a folder",
    "hydra.sweeper.timeout=5": "hydra.sweeper.timeout=5: has no effect on a single run; with -m the command is a study",
    "hydra/launcher=joblib": "hydra/launcher=joblib: has no effect on a single run",
    "tracker=wandb tracker.wandb.mode=cloud": "tracker.wandb.mode=cloud: expected offline or online or disabled",
}


def assert_one_line(outcome, expected):
    """The command ended with one line that holds the expected text, and left nothing behind."""
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("iolaus: ")
    assert expected in line
    assert list(outcome.cwd.iterdir()) == []


@thin(2)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_command_is_one_line_that_helps(command, wrong):
    assert_one_line(command("trainer.epochs=1", *wrong.split()), WRONG[wrong])


def test_a_reference_that_leads_nowhere_hides_no_other_mistake(command):
    outcome = command("optimizer.lr=${no.such}", "seed=x")
    assert [line.split(":")[1].strip() for line in outcome.err.splitlines()] == ["optimizer.lr", "seed=x"]


WRONG_SEARCHES = {
    "lr=intervall(0.1,0.2)": "lr=intervall(0.1,0.2): no such function; did you mean interval?",
    "lr=interval(0.2,0.1)": "but got (low=0.2, high=0.1); a space is",
    "lr=interval(0.1,0.2) hydra.sweeper.n_trials=two": "hydra.sweeper.n_trials=two",
    "lr=interval(0.1,0.2) hydra/launcher=joblib hydra.launcher.n_jobs=two": "hydra.launcher.n_jobs=two: Value 'two'",
    "lr=interval(0.1,0.2) hydra.sweep.subdir=x": "hydra.sweep.subdir=x: a search calls the folders of its trials",
    "lr=interval(0.1,0.2) hydra/sweeper/pruner=percentile hydra.sweeper.pruner.percentile=200": "Percentile must",
    "lr=interval(0.1,0.2) hydra.sweeper.params=x": "hydra.sweeper.params=x: must be a mapping of keys to their values",
    "lr=interval(0.1,0.2) hydra.sweeper.enqueue=5": "hydra.sweeper.enqueue=5: must be",
    "model=choice(cnn,nothing)": "model=nothing: no such option",
    "trainer.batch_size=choice(32,abc)": "trainer.batch_size=abc: expected a whole number",
    "scheduler.pct_start=interval(0.5,2.0)": "scheduler.pct_start=2.0: must be from 0 to 1",
}


@thin(2)
@pytest.mark.parametrize("wrong", WRONG_SEARCHES)
def test_a_search_that_a_mistake_would_strike_makes_no_study(command, wrong):
    assert_one_line(command("-m", "hydra/sweeper=optuna", "trainer.epochs=1", *wrong.split()), WRONG_SEARCHES[wrong])


def test_the_version_is_ours(command):
    import iolaus

    assert command("--version").out.strip() == f"iolaus {iolaus.__version__}"


@thin(3)
@pytest.mark.parametrize("slip", ["study: 'a", "objective: [a", "a: b: c", "\tseed: 1", "seed: 1\nseed: 2", "a: \0"])
def test_a_recipe_that_is_no_yaml_is_one_line_with_its_name(command, tmp_path, slip):
    file = tmp_path / "mine/experiment/bad.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\n{slip}\n")
    outcome = command("--config-dir", "mine", "experiment=bad")
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert "bad.yaml" in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_recipe_that_nothing_would_read_is_refused(command, tmp_path):
    file = tmp_path / "mine/experiment/bad.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("trainer:\n  epochs: 1\n")
    outcome = command("--config-dir", "mine", "experiment=bad")
    assert (outcome.status, len(outcome.err.splitlines())) == (2, 1)
    assert "# @package _global_" in outcome.err


def test_the_short_names_are_those_of_the_configuration():
    from iolaus.config.explain import SHORT_NAMES

    aliases = yaml.safe_load((ROOT / "conf/config.yaml").read_text())["hydra"]["aliases"]
    assert tuple(aliases) == SHORT_NAMES


def test_generated_wrong_commands_are_refused(monkeypatch):
    """A part of benchmarks/wrong_commands.py: one of each kind."""
    import random

    from benchmarks.wrong_commands import draw, give

    commands = draw(random.Random(3))
    for command in (next(commands) for _ in range(13)):
        status, out, err, left = give(command)
        assert (status, left) == (2, set()), (command, out, err)
        assert "Traceback" not in err, command


def test_a_list_of_ours_and_an_own_option_that_changes_it_is_taken(command, tmp_path):
    own = tmp_path / "conf/optimizer/slower.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("lr: 0.02\n")
    assert "lr: 0.02" in command("optimizer=[sgd,slower]", "--cfg", "job").out


def test_a_recipe_that_chooses_a_group_twice_is_told_how(command, tmp_path):
    file = tmp_path / "experiments/bad.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults:\n  - /optimizer: sgd\n")
    outcome = command("experiment=bad")
    assert outcome.status == 2
    assert (
        "experiment/bad: chooses optimizer a second time; its line in defaults is override /optimizer: sgd"
        in outcome.err
    )
