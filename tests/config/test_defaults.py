"""A default that stands in a YAML file and in Python is the same in both, or differs by intent."""

import dataclasses
import pkgutil

import pytest
import yaml
from conftest import ROOT

from iolaus.config.check import LAUNCHER_SETTINGS
from iolaus.config.loss_and_scheduler import LossSettings, SchedulerSettings
from iolaus.config.schema import parameters_of
from iolaus.settings import DatasetSettings, Launch, ModelSettings, Trainer

CONF = ROOT / "conf"
FILES = [path for path in sorted(CONF.rglob("*.yaml")) if path.parent.name not in ("local", "help", "job_logging")]
NAMES = [str(path.relative_to(CONF).with_suffix("")) for path in FILES]

# The settings of ours that a file's keys belong to, beside the signature of its _target_.
SETTINGS = {
    "config": Launch, "dataset": DatasetSettings, "model": ModelSettings, "scheduler": SchedulerSettings,
    "loss": LossSettings, "batch_size": Trainer, "trainer": Trainer,
}  # fmt: skip

# Keys that differ by intent: facts of a dataset or a model, rates that train well here, totals that Iolaus fills in.
STATISTICS = {"mean", "std"}
INTENDED = {
    "batch_size/growing": {"batch_size_schedule"},
    "batch_size/small": {"batch_size"},
    "dataset/cifar10": STATISTICS,
    "dataset/cifar100": STATISTICS,
    "dataset/digits": {*STATISTICS, "mirror"},
    "dataset/fashion_mnist": STATISTICS,
    "dataset/mnist": {*STATISTICS, "mirror"},
    "dataset/oxford_iiit_pet": {*STATISTICS, "image_size", "crop_fraction"},
    "dataset/synthetic": STATISTICS,
    "loss/mse": {"one_hot"},
    "model/airbench": {"min_image_size"},
    "model/preact_resnet18": {"min_image_size"},
    "model/resnest14d": {"min_image_size"},
    "model/resnest26d": {"min_image_size"},
    "model/resnet18": {"min_image_size"},
    "model/resnet50": {"min_image_size"},
    "model/timm": {"min_image_size"},
    "optimizer/adamw": {"lr"},
    "optimizer/rmsprop": {"lr", "momentum"},
    "optimizer/sgd": {"lr", "momentum", "weight_decay", "nesterov"},
    "scheduler/constant": {"factor", "total_iters"},
    "scheduler/cosine": {"interval"},
    "scheduler/linear": {"interval", "start_factor", "end_factor", "total_iters"},
    "scheduler/one_cycle": {"interval", "cycle_momentum"},
    "scheduler/plateau": {"mode"},
    "hydra/sweeper/pruner/hyperband": {"max_resource"},
    "hydra/sweeper/pruner/successive_halving": {"min_resource"},
}


def defaults_of(target):
    """The defaults in a signature, as YAML would have them."""
    found = {name: p.default for name, p in parameters_of(target).items() if p.default is not p.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def as_number(value):
    """YAML 1.1 reads 1.0e-3 as a number, and 1e-3 as a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_default_in_yaml_is_the_one_in_python(path):
    name = str(path.relative_to(CONF).with_suffix(""))
    group, _, option = name.rpartition("/")
    settings = SETTINGS.get(option if group in ("", "common") else group)
    node = yaml.safe_load(path.read_text())
    nodes = [node, *(value for value in node.values() if isinstance(value, dict))]  # a tracker's are one level below
    differing = set()
    for keys in nodes:
        known = defaults_of(settings) if settings else {}
        if "_target_" in keys:
            known |= defaults_of(pkgutil.resolve_name(keys["_target_"]))
        differing |= {key for key, value in keys.items() if key in known and as_number(value) != known[key]}
    assert differing == INTENDED.get(name, set())


@pytest.mark.parametrize(("settings", "files"), [
    (Launch, ["config"]), (DatasetSettings, ["common/dataset"]), (ModelSettings, ["common/model"]),
    (SchedulerSettings, ["common/scheduler"]), (LossSettings, ["loss/cross_entropy"]),
    (Trainer, ["trainer/default", "batch_size/constant"]),
])  # fmt: skip
def test_every_setting_of_ours_is_a_key_that_can_be_seen(settings, files):
    keys = {key for file in files for key in yaml.safe_load((CONF / f"{file}.yaml").read_text())}
    assert {field.name for field in dataclasses.fields(settings)} <= keys


def test_the_settings_checked_here_are_those_that_the_check_knows():
    assert LAUNCHER_SETTINGS.items() <= SETTINGS.items()
