"""Keys that nothing reads are refused or told; methods that do not go together are said so."""

import pytest
from conftest import TINY, checked_config

from iolaus.config.combinations import advise_on_batches, dead_keys, keys_without_effect

CYCLE = "scheduler.cycle_momentum=true"
UNREAD = {
    f"{CYCLE} optimizer.betas=[0.8,0.9]": "optimizer.betas=[0.8,0.9]: has no effect; scheduler.cycle_momentum=true",
    f"{CYCLE} optimizer=sgd optimizer.momentum=0.5": "optimizer.momentum=0.5: has no effect",
    "scheduler.max_momentum=0.9": "it is for scheduler.cycle_momentum=true",
    "scheduler.max_lr=0.1 optimizer.lr=0.2": "optimizer.lr=0.2: has no effect; scheduler.max_lr=0.1 takes its place",
    "scheduler.monitor=train/loss": "only a plateau watches a metric",
    "trainer.scale_lr_with_batch=linear": "there is no trainer.batch_size_schedule",
    "trainer.batch_size=32 trainer.batch_size_schedule={0:16}": "has a size from epoch 0 on",
    "dataset.validation=test dataset.validation_seed=1": "validation is the whole test set",
    "augmentation.flip=0.5": "augmentation.flip=0.5: has no effect; a mirrored image is of another class",
    "augmentation.flip_mode=alternate": "has no effect; a mirrored image is of another class",
    "dataset=cifar10 augmentation.flip=0 augmentation.flip_mode=alternate": "augmentation.flip is 0",
    "augmentation=none augmentation.padding_mode=reflect": "augmentation.crop_padding is 0",
    "optimizer=muon optimizer.sgd_lr=1": "optimizer.sgd_lr=1: has no effect; it is for optimizer.rest=sgd",
    "optimizer=muon optimizer.rest=sgd optimizer.adamw_lr=1": "it is for optimizer.rest=adamw",
    "optimizer_groups=linear_probe optimizer_groups.first_block_epochs=2": "lr_factors freezes the first block",
    "augmentation.magnitude=5": "it is for augmentation.policy=rand_augment",
    "augmentation.mix_probability=0.5": "neither mixup_alpha nor cutmix_alpha is on",
    "augmentation.ratio=[0.5,2]": "it is for augmentation.scale",
    "optimizer.weight_decay=0 optimizer_groups.no_decay_on_norm_and_bias=true": "there is no weight decay",
}


@pytest.mark.parametrize("given", UNREAD)
def test_a_key_that_nothing_reads_is_said_so(given):
    overrides = given.split()
    (line,) = keys_without_effect(checked_config(*overrides), overrides).values()
    assert UNREAD[given] in line


def test_a_key_that_is_read_is_not():
    read = "scheduler=plateau scheduler.monitor=train/loss dataset=cifar10 augmentation.flip=0.5 optimizer.lr=0.1 " \
        "augmentation=mixup augmentation.mix_probability=0.5 optimizer.betas=[0.8,0.9] " \
        "augmentation.flip_mode=alternate augmentation.padding_mode=reflect"  # fmt: skip
    assert keys_without_effect(checked_config(*read.split()), read.split()) == {}


def test_dead_keys_are_keys_of_the_configuration():
    config = checked_config("optimizer=sgd", "scheduler.max_lr=1", "optimizer_groups=no_decay", CYCLE)
    for key in dead_keys(config).keys() - {"optimizer.betas"}:
        group, name = key.split(".")
        assert name in config.plain[group], key


def test_a_run_with_such_a_key_is_refused(command):
    outcome = command(*TINY, CYCLE, "optimizer.betas=[0.8,0.9]")
    assert (outcome.status, list(outcome.cwd.iterdir())) == (2, [])


@pytest.mark.parametrize("sweep", [("optimizer.betas=[0.8,0.9],[0.9,0.9]",), ("hydra/sweeper=optuna",
    "optimizer.eps=interval(1,2)", "optimizer.betas=choice([0.8,0.9],[0.9,0.9])")])  # fmt: skip
def test_a_sweep_over_a_key_that_no_run_reads_is_refused(command, sweep):
    outcome = command("-m", *TINY, CYCLE, *sweep)
    assert (outcome.status, list(outcome.cwd.iterdir())) == (2, [])
    assert "has no effect; scheduler.cycle_momentum=true moves it" in outcome.err


def test_a_grid_in_which_some_runs_do_not_read_a_key_is_told(command):
    grid = ("scheduler.cycle_momentum=true,false", "optimizer.betas=[0.8,0.9]")
    outcome = command("-m", *TINY, "model=mlp", *grid)
    assert outcome.status == 0
    assert "scheduler.cycle_momentum=true moves it (so it is in 1 of 2 runs)" in outcome.out + outcome.err
    assert len(outcome.runs) == 2


@pytest.mark.parametrize(("scheduler", "told"), [("one_cycle", True), ("plateau", False)])
def test_early_stopping_under_a_schedule_of_fixed_length_is_told(command, scheduler, told):
    outcome = command(*TINY, "model=mlp", "early_stopping=patience", f"scheduler={scheduler}")
    assert ("never reaches the low learning rates" in outcome.err) == told


@pytest.mark.parametrize(("size", "told"), [(4, False), (6, True)])
def test_a_patience_that_ends_before_the_first_drop_is_told(command, size, told):
    given = ("early_stopping=patience", "early_stopping.patience=5", "scheduler=step", f"scheduler.step_size={size}")
    outcome = command(*TINY, "model=mlp", *given)
    assert outcome.status == 0, outcome.err
    assert ("early_stopping.patience=5 is below scheduler.step_size=6" in outcome.err) == told


@pytest.mark.parametrize("sizes", [("trainer.batch_size=1",), ("trainer.batch_size=15", "trainer.drop_last=false"),
                                   ("trainer.micro_batch_size=1",)])  # fmt: skip
def test_a_batch_of_one_image_under_batchnorm_is_refused_before_the_start(command, sizes):
    """The 16 training images of TINY, where BatchNorm sees one value per channel."""
    outcome = command(*TINY, "model=mlp", "model.norm=batch", *sizes)
    assert (outcome.status, list(outcome.cwd.iterdir())) == (2, [])
    assert "would train on a single image of 16" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_single_image_left_by_micro_batches_joins_the_part_before_it(command):
    outcome = command(*TINY, "model=mlp", "model.norm=batch", "trainer.micro_batch_size=5")
    assert outcome.status == 0


def test_the_values_of_a_default_option_do_not_outlive_it(command):
    """A user's own dataset would be normalised as the digits are, and never mirrored."""
    assert checked_config().dataset.mirror is False
    given = ("dataset._target_=iolaus.data.sources.synthetic", "+dataset.size=8", "+dataset.train_count=20", "seed=3")
    own = command(*given, *TINY[5:], "dataset.validation=0.3").results["config"]["dataset"]
    assert (own["mean"], own["std"], own["mirror"], own["validation"]) == (None, None, True, 0.3)


def test_what_the_user_chose_beside_a_path_stays(command):
    config = command(*TINY, "model=mlp", "loss=mse", "loss._target_=torch.nn.HuberLoss").results["config"]
    assert config["loss"]["one_hot"] is True


@pytest.mark.parametrize(("epochs", "lines"), [(2, 1), (5, 1), (6, 0)])
def test_a_batch_size_that_changes_only_after_the_run_is_said_so(epochs, lines):
    told = advise_on_batches(checked_config("batch_size=growing", f"trainer.epochs={epochs}").trainer, 10_000)
    assert ["from epoch 5 on" in line and "it stays 128" in line for line in told] == [True] * lines
    assert advise_on_batches(checked_config(f"trainer.epochs={epochs}").trainer, 10_000) == []


@pytest.mark.parametrize(("sampler", "told"), [("balanced", True), ("null", False)])
def test_balance_twice_over_is_said_so(command, sampler, told):
    outcome = command(*TINY, "model=mlp", "loss.class_weights=balanced", f"dataset.sampler={sampler}")
    assert outcome.status == 0, outcome.err
    assert ("rare classes count twice" in outcome.err) == told


@pytest.mark.parametrize(("count", "told"), [(87, "1 step;"), (600, "4 steps;"), (639, "4 steps;"), (640, None)])
def test_an_epoch_of_few_steps_is_said_so(count, told):
    advice = advise_on_batches(checked_config("dataset=synthetic", "trainer.batch_size=128").trainer, count)
    assert [told in line for line in advice] == ([True] if told else [])
