"""Recipes: each trains, the commands in its header are right, its values are those of the figure that it answers."""

import functools
import itertools
import json
import shlex
import shutil

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from torch import nn

from iolaus import config
from iolaus.inputs import own_input
from iolaus.parts import build_schedule

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
# What a dataset is replaced by: noise of as many classes, pixels (of photographs fewer) and channels.
NOISE = {"digits": (10, 8, 1), "mnist": (10, 28, 1), "cifar10": (10, 32, 3), "cifar100": (100, 32, 3),
         "oxford_iiit_pet": (37, 80, 3)}  # fmt: skip
LARGEST = 64  # pixels that a model gets here

# How many runs each command of a header makes, where that is not one run of one command.
RUNS = {
    "cifar100_sweep8": [8], "cifar100_grid": [36, 72], "cifar10_optimizers": 6 * [3], "cifar10_fast": [1, 5],
    "cifar100_resnet50_finetune": [1, 1], "cifar100_resnet50_pretrained": [1, 1], "pets_finetune": [1, 1],
    "digits_search": [1, 1],
}  # fmt: skip

SGD = "torch.optim.SGD"
STEP, PLATEAU = "torch.optim.lr_scheduler.StepLR", "torch.optim.lr_scheduler.ReduceLROnPlateau"
# Figures in the header, and what the pipeline that they are of is known to have set.
PUBLISHED = {
    "cifar100_sweep8": (("73.56 to 74.71 %", "71.98 to 77.05 %", "13 to 15 min", "48 to 51 min"), {
        "dataset.name": "CIFAR100", "trainer.epochs": 200, "optimizer._target_": SGD, "optimizer.weight_decay": 5e-4,
        "trainer.precision": "auto"}),
    "cifar100_grid": (("70.09 %", "69.63 %"), {
        "dataset.name": "CIFAR100", "trainer.epochs": 50, "trainer.batch_size": 100, "trainer.eval_batch_size": 500}),
    "cifar100_resnest26d_sam": (("66.02 %",), {
        "dataset.name": "CIFAR100", "model.name": "resnest26d", "model.pretrained": False, "dataset.image_size": None,
        "model.image_size": None, "optimizer._target_": SGD, "trainer.sam_rho": 0.05, "trainer.epochs": 100}),
    "cifar100_resnet50_pretrained": (("79.76 %",), {
        "dataset.name": "CIFAR100", "model.name": "resnet50", "model.pretrained": True, "dataset.image_size": 224,
        "trainer.epochs": 10}),
    "cifar100_resnet50_tricks": (("81 %",), {
        "dataset.name": "CIFAR100", "model.name": "resnet50", "model.pretrained": False, "model.stem": "auto",
        "optimizer._target_": SGD, "optimizer.lr": 0.1, "scheduler._target_": STEP, "scheduler.step_size": 50,
        "trainer.epochs": 200, "augmentation.erasing": 0.5, "augmentation.mixup_alpha": 0.2,
        "augmentation.cutmix_alpha": 0.2, "loss.label_smoothing": 0.1, "early_stopping.patience": 20}),
    "cifar100_resnet50_finetune": (("85 %",), {
        "dataset.name": "CIFAR100", "model.pretrained": True, "optimizer_groups.lr_factors": [0.25, 0.5, 1.0],
        "dataset.image_size": 224, "dataset.crop_fraction": 224 / 256, "optimizer._target_": SGD, "optimizer.lr": 0.01,
        "scheduler._target_": PLATEAU, "trainer.epochs": 100}),
    "cifar10_fast": (("94.01 %", "2.59 s", "n = 200"), {
        "dataset.name": "CIFAR10", "dataset.validation": "test", "trainer.epochs": 8, "trainer.batch_size": 2000,
        "loss.label_smoothing": 0.2, "augmentation.crop_padding": 2, "augmentation.flip": 0.5, "optimizer.lr": 0.24,
        "optimizer.momentum": 0.6, "optimizer.nesterov": True, "optimizer.ns_steps": 3,
        "trainer.tta": "flip_translate"}),
    "mnist_mlp": (("98.4 %",), {
        "dataset.name": "MNIST", "dataset.mirror": False, "model.hidden": [800], "augmentation.crop_padding": 0,
        "augmentation.flip": 0.0}),
    "pets_finetune": (("96.03 %",), {"dataset.name": "OxfordIIITPet", "model.pretrained": True}),
}  # fmt: skip


@functools.cache
def composed(*overrides):
    """What a command makes Hydra compose, not to be changed: (plain containers, options by group)."""
    with initialize_config_dir(str(ROOT / "conf")):
        made = compose("config", list(overrides), return_hydra_config=True)
    ours = OmegaConf.masked_copy(made, [key for key in made if key != "hydra"])
    plain = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    return plain, made.hydra.runtime.choices


def header(name):
    """The comment at a recipe's head, as lines without their #."""
    lines = (ROOT / "experiments" / f"{name}.yaml").read_text().splitlines()
    return [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]


def commands(name):
    """The arguments of each command in a recipe's header."""
    lines = "\n".join(header(name)).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("python train.py ")]


def runs(arguments):
    """The arguments of each run that a command makes: with -m one for every combination, as Hydra splits them."""
    if "-m" not in arguments:
        return [arguments]
    overrides = OverridesParser.create().parse_overrides([a for a in arguments if a != "-m"])
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs


def with_each_value_once(jobs):
    """As many of the jobs as bring something that those before did not."""
    seen = set()
    return [job for job in jobs if not seen.issuperset(job) and not seen.update(job)]


def on_noise(*recipe):
    """A recipe's arguments, and those that leave it two steps of eight images, of noise in its dataset's place."""
    recipe = [argument for argument in recipe if not argument.startswith("dataset.")]
    plain, choices = composed(*recipe)
    classes, size, channels = NOISE[choices["dataset"]]
    node = plain["dataset"]
    kept = {key: node[key] for key in ("crop_fraction", "interpolation", "mirror", "mean", "std")}
    shape = {"num_classes": classes, "size": size, "channels": channels, "train_count": 16, "test_count": 6,
             "image_size": node["image_size"] and LARGEST, "validation": "test"}  # fmt: skip
    known, left = (composed(*arguments, "dataset=synthetic")[0]["dataset"] for arguments in ((), recipe))
    pretrained = ("model.pretrained=false", "model.stem=large") if plain["model"].get("pretrained") else ()
    return (
        *recipe, "dataset=synthetic", *(f"~dataset.{key}" for key in left.keys() - known.keys()),
        *(f"dataset.{key}={json.dumps(value)}" for key, value in (kept | shape).items()), *pretrained,
        "trainer.epochs=1", "trainer.batch_size=8", "tracker=none",
        f"scheduler.warmup_epochs={min(plain['scheduler']['warmup_epochs'], 0.5)}",
    )  # fmt: skip


@pytest.mark.parametrize("recipe", [
    *([f"experiment={name}"] for name in RECIPES), *(runs(command)[0] for command in commands("cifar10_optimizers")),
], ids=" ".join)  # fmt: skip
def test_a_recipe_trains_and_with_its_own_parts(command, recipe):
    outcome = command(*on_noise(*recipe))
    assert outcome.status == 0, outcome.err
    assert outcome.results["status"] == "finished"
    assert outcome.results["steps"] == 2
    plain, _ = composed(*recipe)
    used = outcome.results["config"]
    for group in ("optimizer", "optimizer_groups", "loss", "augmentation", "early_stopping"):
        assert used[group] == plain[group]
    assert used["scheduler"] | {"warmup_epochs": plain["scheduler"]["warmup_epochs"]} == plain["scheduler"]
    shutil.rmtree(outcome.cwd / "outputs")  # pytest would keep 300 MB of each ResNet-50


@pytest.mark.parametrize("name", RECIPES)
def test_a_header_says_what_it_is_compared_with_and_what_was_measured(name):
    package, empty, what, *lines = header(name)
    assert (package, empty) == ("@package _global_", "")
    assert what.endswith((".", ":"))
    for title in ("To compare with:", "Measured:", "Source:"):
        (line,) = [line for line in lines if line.startswith(title)]
        assert line.removeprefix(title).strip()


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_of_a_header_names_the_recipe_and_can_be_run(name):
    its = commands(name)
    assert [len(runs(command)) for command in its] == RUNS.get(name, [1])
    for command in its:
        assert f"experiment={name}" in command
        for job in with_each_value_once(runs(command)):
            config.check(composed(*job)[0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_values(name):
    figures, values = PUBLISHED[name]
    compared = " ".join(header(name))
    assert [figure for figure in figures if figure not in compared] == []
    plain = OmegaConf.create(composed(f"experiment={name}")[0])
    assert {key: OmegaConf.select(plain, key, throw_on_missing=True) for key in values} == values


def test_the_sweep_of_eight_is_these_eight():
    (sweep,) = commands("cifar100_sweep8")
    made = [OmegaConf.create(composed(*job)[0]) for job in runs(sweep)]
    seen = [(m.model.name, m.trainer.batch_size, m.optimizer.lr, m.scheduler._target_) for m in made]
    models = (("resnet18", 128), ("resnet50", 64))
    assert seen == [(*model, lr, scheduler) for model in models for lr in (0.1, 0.05) for scheduler in (STEP, PLATEAU)]
    assert {m.scheduler.step_size for m in made if m.scheduler._target_ == STEP} == {50}


def test_the_grid_is_adam_without_momentum_and_sgd_with_it():
    adam, sgd = (runs(command) for command in commands("cifar100_grid"))
    swept = {"model": ["resnet18", "preact_resnet18", "vgg16"], "augmentation": ["basic", "advanced"],
             "lr": ["0.001", "0.005", "0.01"], "wd": ["0.0001", "0.001"]}  # fmt: skip
    for name, jobs, more in (("adam", adam, {}), ("sgd", sgd, {"optimizer.momentum": ["0.9", "0.95"]})):
        expected = {key: {f"{key}={value}" for value in values} for key, values in (swept | more).items()}
        seen = {key: {a for job in jobs for a in job if a.startswith(f"{key}=")} for key in expected}
        assert seen == expected
        assert all(f"optimizer={name}" in job for job in jobs)


def test_both_commands_of_the_grid_fill_one_folder(command):
    small = on_noise("experiment=cifar100_grid", "model=mlp")
    for swept in (("optimizer=adam",), ("optimizer=sgd", "optimizer.momentum=0.9,0.95")):
        outcome = command("-m", *small, *swept, "lr=0.001,0.01")
        assert outcome.status == 0, outcome.err
    assert {run.parent for run in outcome.runs} == {outcome.cwd / "outputs" / "cifar100_grid"}
    assert outcome.out.count("finished") == len(outcome.runs) == 2 + 4  # the second table has the first's runs, too


def test_the_rate_of_cifar10_fast_goes_in_a_line_from_lr_to_0():
    plain, _ = composed("experiment=cifar10_fast")
    parameters = [nn.Parameter(torch.zeros(4, 4)), nn.Parameter(torch.zeros(4))]
    optimizer = config.factory("optimizer", plain["optimizer"])(parameters)
    schedule = build_schedule(plain["scheduler"], optimizer, config.build("trainer", plain["trainer"]), count=50_000)
    rates = []
    for step in range(201):
        schedule.before_step(step)
        rates.append([group["lr"] for group in optimizer.param_groups])
        schedule.after_step()
    muon, adamw = zip(*rates, strict=True)
    assert muon == pytest.approx([0.24 * (1 - step / 200) for step in range(201)])
    assert adamw == pytest.approx([0.005 * (1 - step / 200) for step in range(201)])
    assert (muon[0], muon[200], adamw[200]) == (0.24, 0.0, 0.0)


def test_the_weights_of_the_fine_tuning_recipe_see_224_of_256_pixels():
    plain, _ = composed("experiment=cifar100_resnet50_finetune")
    assert own_input(plain["model"], 224)["crop_fraction"] == 224 / 256


def test_a_recipes_pruner_gives_way_to_the_command_lines():
    def pruner(*arguments):
        with initialize_config_dir(str(ROOT / "conf")):
            node = compose("config", ["experiment=digits_search", *arguments], return_hydra_config=True)
        return node.hydra.sweeper.pruner._target_

    assert pruner() == "optuna.pruners.HyperbandPruner"
    assert pruner("hydra/sweeper/pruner=none") == "optuna.pruners.NopPruner"
