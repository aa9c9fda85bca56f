"""Recipes: each trains, and the commands in its header are right and make the runs that it speaks of."""

import functools
import itertools
import json
import math
import re
import shlex
import shutil
from types import SimpleNamespace

import pytest
from conftest import ROOT, TINY, exhaustive
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from torch import nn

from iolaus.config.build import build_optimizer, build_schedule
from iolaus.config.build_data import pretrained_input
from iolaus.config.check import check
from iolaus.preview.rates import planned_rates

RECIPES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
# What a dataset is replaced by: noise of as many classes, pixels (of photographs fewer) and channels.
NOISE = {"digits": (10, 8, 1), "mnist": (10, 28, 1), "cifar10": (10, 32, 3), "cifar100": (100, 32, 3),
         "oxford_iiit_pet": (37, 80, 3)}  # fmt: skip
LARGEST = 64  # pixels that a model gets here

# How many runs each command of a header makes, where that is not one run of one command.
RUNS = {
    "cifar100_sweep8": [8], "cifar100_grid": [36, 72], "cifar10_optimizers": 6 * [3], "cifar10_fast": [1, 5],
    "cifar10_cpu": [1, 1], "cifar100_resnet50_finetune": [1, 1], "cifar100_resnet50_pretrained": [1, 1],
    "pets_finetune": [1, 1], "pets_transfer": 5 * [1], "digits_search": [1, 1], "debug": [1, 1],
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
    named = {argument.partition("=")[0] for argument in recipe}  # what the digits choose for themselves
    groups = (
        f"{group}={choices[group]}" for group in ("model", "optimizer", "loss", "batch_size") if group not in named
    )
    pretrained = ("model.pretrained=false", "model.stem=large") if plain["model"].get("pretrained") else ()
    return (
        *recipe, *groups, "dataset=synthetic", *(f"~dataset.{key}" for key in left.keys() - known.keys()),
        *(f"dataset.{key}={json.dumps(value)}" for key, value in (kept | shape).items()), *pretrained,
        "trainer.epochs=1", "trainer.batch_size=8", "tracker=none",
        f"scheduler.warmup_epochs={min(plain['scheduler']['warmup_epochs'], 0.5)}",
    )  # fmt: skip


# Networks that take ten seconds for their two steps; others of their kind are trained by a plain `pytest`, too.
SLOW = {
    "cifar100_grid", "cifar100_resnest26d_sam", "cifar100_resnet50_pretrained", "cifar100_resnet50_tricks",
    "pets_finetune",
}  # fmt: skip


@pytest.mark.parametrize("recipe", [
    *(pytest.param([f"experiment={name}"], marks=[exhaustive] * (name in SLOW)) for name in RECIPES),
    *(pytest.param(runs(command)[0], marks=exhaustive) for command in commands("cifar10_optimizers")),
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
    package, _, empty, what, *lines = header(name)  # the second line: tests/config/test_json_schema.py
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
        (chosen,) = [argument for argument in command if argument.startswith("experiment=")]
        assert name in re.findall(r"\w+", chosen)
        for job in with_each_value_once(runs(command)):
            check(composed(*job)[0])


def test_the_sweep_of_eight_is_these_eight():
    (sweep,) = commands("cifar100_sweep8")
    made = [OmegaConf.create(composed(*job)[0]) for job in runs(sweep)]
    seen = [(m.model.name, m.trainer.batch_size, m.optimizer.lr, m.scheduler._target_.split(".")[-1]) for m in made]
    models, schedulers = (("resnet18", 128), ("resnet50", 64)), ("StepLR", "ReduceLROnPlateau")
    assert seen == [(*model, lr, name) for model in models for lr in (0.1, 0.05) for name in schedulers]


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
    checked = check(composed("experiment=cifar10_fast")[0])
    model = checked.model_node.build(num_classes=10, in_channels=3)
    optimizer = build_optimizer(checked, model)
    schedule = build_schedule(checked, optimizer, count=50_000)
    rates = []
    for step in range(201):
        schedule.before_step(step)
        rates.append([group["lr"] for group in optimizer.param_groups])
        schedule.after_step()
    muon, shifts, head, whitening = zip(*rates, strict=True)
    for given, initial, steps in ((muon, 0.24, 200), (shifts, 0.053 * 2000, 200), (head, 0.67 * 2000, 200),
                                  (whitening, 0.053 * 2000, 75)):  # fmt: skip
        assert given == pytest.approx([initial * max(0, 1 - step / steps) for step in range(201)])
    assert (muon[0], muon[200], shifts[200], whitening[75]) == (0.24, 0.0, 0.0, 0.0)
    decays = [group["lr"] * group["weight_decay"] for group in build_optimizer(checked, model).param_groups]
    assert decays == pytest.approx([0.0] + 3 * [2e-6 * 2000])


COUNT = 45_000  # CIFAR-100's, a tenth held out


@pytest.mark.parametrize(
    ("recipe", "rate", "steps"),
    [
        (["cifar100_sweep8", "scheduler=step"], lambda epoch: 0.1 * 0.1 ** (int(epoch) // 50), 200 * (COUNT // 128)),
        (["cifar100_resnet50_tricks"], lambda epoch: 0.1 * 0.1 ** (int(epoch) // 50), 200 * (COUNT // 64)),
        (
            ["cifar100_resnet50_pretrained"],
            lambda epoch: 0.01 * (1 + math.cos(math.pi * epoch / 10)) / 2,
            10 * (COUNT // 64),
        ),
        (
            ["cifar100_resnest26d_sam"],
            lambda epoch: 0.1 * (1 + math.cos(math.pi * epoch / 100)) / 2,
            100 * (COUNT // 128),
        ),
        (["cifar100_resnet50_finetune"], lambda epoch: 0.01, 100 * (COUNT // 64)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_rate_of_a_recipe_follows_the_curve_that_it_speaks_of(recipe, rate, steps):
    """The plateau's stays, since nothing is measured here."""
    checked = check(composed(f"experiment={recipe[0]}", *recipe[1:])[0])
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    optimizer = build_optimizer(checked, model)
    schedule = build_schedule(checked, optimizer, COUNT)
    learner = SimpleNamespace(settings=checked.trainer, schedule=schedule, optimizer=optimizer)
    planned = planned_rates(learner, COUNT)
    assert len(planned) == steps
    expected = [schedule.factors[0] * rate(epoch - 1) for epoch, _ in planned]
    assert [lr for _, lr in planned] == pytest.approx(expected, abs=1e-9)


def test_the_weights_of_the_fine_tuning_recipe_see_224_of_256_pixels():
    checked = check(composed("experiment=cifar100_resnet50_finetune")[0])
    assert pretrained_input(checked, 224)["crop_fraction"] == 224 / 256


def test_a_recipe_that_is_a_study_says_so_of_a_single_run(command):
    outcome = command("experiment=[digits_search,debug]")
    assert outcome.status == 0, outcome.err
    assert outcome.err.count("the recipe is a study of optimizer.lr, optimizer.weight_decay, model.widths,") == 1
    assert "add -m" in outcome.err
    assert "add -m" not in command(*TINY).err


def test_a_recipes_pruner_gives_way_to_the_command_lines():
    def pruner(*arguments):
        with initialize_config_dir(str(ROOT / "conf")):
            node = compose("config", ["experiment=digits_search", *arguments], return_hydra_config=True)
        return node.hydra.sweeper.pruner._target_

    assert pruner() == "optuna.pruners.HyperbandPruner"
    assert pruner("hydra/sweeper/pruner=none") == "optuna.pruners.NopPruner"
