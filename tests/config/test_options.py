"""Every option of every group composes and trains one step."""

import shutil

import pytest
import yaml
from conftest import ROOT, TINY
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser

FROM_FILES = {
    "mnist",
    "fashion_mnist",
    "cifar10",
    "cifar100",
    "oxford_iiit_pet",
    "image_folder",
    "csv",
    "huggingface",
    "torchvision",
}  # data/test_sources.py
GROUPS = (
    "model",
    "optimizer",
    "scheduler",
    "loss",
    "augmentation",
    "batch_size",
    "early_stopping",
    "tracker",
    "trainer",
)
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
    # both is wandb and tensorboard: test_trackers.py; trackio is an extra: test_trackio.py
    if (group, path.stem) not in (("tracker", "both"), ("tracker", "trackio"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_an_option_trains_one_step(command, group, option):
    tiny = (a for a in TINY if not a.startswith(f"{group}="))
    outcome = command(*tiny, f"{group}={option}", "dataset.train_count=10",
                      "trainer.batch_size=8")  # fmt: skip

    assert outcome.status == 0, outcome.err
    assert outcome.results["steps"] == 1
    assert outcome.results["status"] == "finished"


@pytest.mark.parametrize("option", sorted({p.stem for p in (ROOT / "conf" / "dataset").glob("*.yaml")} - FROM_FILES))
def test_a_dataset_without_files_trains_one_step(command, option):
    outcome = command(
        f"dataset={option}", "trainer.epochs=1", "trainer.batch_size=1200", "model.widths=[4]", "tracker=none"
    )

    assert outcome.status == 0, outcome.err
    assert outcome.results["steps"] == 1


@pytest.mark.parametrize("loss", ["SmoothL1Loss", "HuberLoss", "BCEWithLogitsLoss", "MultiMarginLoss"])
def test_any_torch_loss_trains_by_its_path(command, loss):
    one_hot = loss != "MultiMarginLoss"
    outcome = command(*TINY, "loss=mse", f"loss._target_=torch.nn.{loss}", f"loss.one_hot={one_hot}")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("optimizer", ["NAdam", "Adagrad", "RAdam"])
def test_any_torch_optimizer_trains_by_its_path(command, optimizer):
    drop = [f"~optimizer.{name}" for name in ("amsgrad", "fused", "betas", "weight_decay", "foreach", "capturable",
                                              "maximize", "differentiable", "eps")]  # fmt: skip
    outcome = command(*TINY, f"optimizer._target_=torch.optim.{optimizer}", *drop, "scheduler=cosine")
    assert outcome.status == 0, outcome.err


def test_a_torch_scheduler_by_its_path_moves_the_learning_rate(command):
    outcome = command(*TINY, "trainer.epochs=3", "scheduler=constant", "~scheduler.factor", "~scheduler.total_iters",
                      "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "+scheduler.gamma=0.5",
                      "optimizer.lr=0.8")  # fmt: skip
    assert [m["lr"] for m in outcome.results["history"]] == pytest.approx([0.8, 0.4, 0.2])


def test_grey_digits_train_a_model_of_three_channels_at_the_size_it_takes(command):
    tiny = ("trainer.epochs=1", "trainer.batch_size=1200", "tracker=none")
    assert "3x8x8" in command(*tiny, "model=resnet18", "model.name=test_resnet").results["data"]
    outcome = command(
        *tiny, "model.image_size=12", "model.in_channels=3", "model.widths=[4]", "hydra.run.dir=outputs/b"
    )
    assert "3x12x12" in outcome.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("heavy", {"erasing": 0.5, "mixup_alpha": 0.0, "flip": 0.5}),
        ("[heavy,mixup]", {"erasing": 0.5, "mixup_alpha": 0.2, "flip": 0.5}),
        ("[mixup,heavy]", {"erasing": 0.5, "mixup_alpha": 0.2, "flip": 0.5}),
        ("[none,cutmix,color]", {"erasing": 0.0, "cutmix_alpha": 0.2, "hue": 0.1, "flip": 0.0, "crop_padding": 0}),
    ],
)
def test_several_augmentations_compose_in_any_order(command, options, expected):
    outcome = command(*TINY, f"augmentation={options}")
    assert outcome.status == 0, outcome.err
    keys = outcome.results["config"]["augmentation"]
    assert {name: keys[name] for name in expected} == expected


@pytest.mark.parametrize("group", ["model", "dataset", "scheduler", "augmentation"])
def test_all_options_of_a_group_are_real_ones_for_glob_completion_and_a_misspelling(
    command, group, monkeypatch, capsys
):
    options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    misspelt = command(f"{group}=nothing_like_it").err
    assert misspelt.endswith(f"allowed: {', '.join(options)}\n")
    monkeypatch.setenv("COMP_LINE", f"python train.py {group}=")
    completed = command("--shell-completion", "query=bash").out.split()
    assert sorted(completed) == [f"{group}={option}" for option in options]
    overrides = OverridesParser.create(ConfigLoaderImpl(create_config_search_path(str(ROOT / "conf"))))
    (swept,) = overrides.parse_overrides([f"{group}=glob(*)"])
    assert sorted(swept.sweep_string_iterator()) == options


def test_a_machines_own_values_beat_a_recipe_and_yield_to_the_command_line(command, tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    (local / "default.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /tracker: none\ntrainer:\n  device: cpu\n  epochs: 3\n"
        "hydra:\n  job:\n    env_set:\n      IOLAUS_DATA: /nowhere/at_all\n"
    )
    mine = ("--config-dir", str(tmp_path))

    def composed(*arguments):
        return yaml.safe_load(command(*arguments, "--cfg", "job").out)

    assert composed()["trainer"]["device"] == "auto"
    config = composed(*mine, "experiment=digits_quick")
    assert (config["trainer"]["device"], config["trainer"]["epochs"], config["tracker"]) == ("cpu", 3, {})
    config = composed(*mine, "device=mps", "tracker=wandb")
    assert (config["trainer"]["device"], list(config["tracker"])) == ("mps", ["wandb"])
    assert composed(*mine, "~local") == composed()
    assert "dataset.root=/nowhere/at_all: CIFAR10 is missing" in command(*mine, "dataset=cifar10").err


@pytest.mark.parametrize(
    "given", [("--config-dir", "mine"), ("hydra.searchpath=[experiments://experiments,file://mine]",)]
)
def test_an_option_of_ones_own_that_ours_hides_is_told_with_both_files(command, tmp_path, given):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "model" / "mlp.yaml", tmp_path / "mine" / "model")  # the same: nothing is hidden
    assert command(*TINY, *given, "--cfg", "job").status == 0
    (tmp_path / "mine" / "model" / "cnn.yaml").write_text("_target_: iolaus.models.cnn.CNN\nwidths: [4]\n")
    outcome = command(*TINY, *given)
    (line,) = outcome.err.splitlines()
    assert outcome.status == 2
    assert "mine/model/cnn.yaml is hidden by " in line
    assert str(ROOT / "conf" / "model" / "cnn.yaml") in line


def test_debug_makes_any_recipe_one_short_epoch(command):
    outcome = command("experiment=[cifar10_mlp70,debug]", "dataset=synthetic", "dataset.train_count=1200",
                      "model.hidden=[8,8]", "trainer.batch_size=500")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert outcome.results["epochs"] == 1
    assert outcome.results["steps"] == 2
    assert not list(outcome.runs[0].glob("events*"))
