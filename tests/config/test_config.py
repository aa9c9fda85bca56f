"""A configuration is checked against signatures and annotations, before anything is built."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal, Optional

import pytest
import torch
import yaml
from conftest import ROOT, TINY, checked_config
from torch import Tensor, nn

from iolaus.config.check import LAUNCHER_SETTINGS, check, split_settings
from iolaus.config.node import Node, read_function, read_node
from iolaus.config.schema import describe_type, fits, parameters_of
from iolaus.errors import ConfigError, nearest
from iolaus.methods.muon import Muon
from iolaus.trust.targets import locate


def problems_of_node(key, config, given=frozenset()):
    problems = []
    node = read_node(key, config, problems, given)
    assert (node is None) == bool(problems)
    return problems


def node_of(key, config):
    return Node(key, locate(key, config), config)


TABLE = [  # annotation, what fits, what does not, in words
    (int, [3, 0, -1], [3.0, "3", True, None, [3]], "a whole number"),
    (float, [0.5, 3, float("inf")], ["0.5", True, None, [0.5]], "a number"),
    (bool, [True, False], [1, 0, "true", None], "true or false"),
    (str, ["a", ""], [1, True, None, ["a"]], "a text"),
    (None, [None], [0, "", False], "null"),
    (Optional[int], [3, None], [0.5, "3", False], "a whole number or null"),  # noqa: UP045
    (float | None, [0.5, 3, None], ["null", True], "a number or null"),
    (Literal["min", "max"], ["min"], ["mean", None, 1], "min or max"),
    (Literal[1, 3] | None, [1, 3, None], [2, True, "1"], "1 or 3 or null"),
    (tuple[float, float], [[0.9, 1]], [[0.9], [0.9, 1, 1], 0.9, ["a", 1]], "a list of 2 numbers"),
    (tuple[int, str], [[1, "a"]], [["a", 1], [1]], "a list of 2 whole numbers or texts"),
    (tuple[int, ...], [[], [1], [1, 2, 3]], [[0.5], 1], "a list of whole numbers"),
    (list[int], [[], [1, 2]], [[0.5], [1, "a"], 1, {1: 1}], "a list of whole numbers"),
    (Sequence[str], [["a"]], ["a", [1]], "a list of texts"),
    (dict[int, int], [{}, {0: 1}], [{"0": 1}, {0: 0.5}, [1], 1], "{a whole number: a whole number}"),
    (list[tuple[int, int]], [[[1, 2]]], [[[1]], [1, 2]], "a list of a list of 2 whole numbers"),
    (float | Tensor, [0.5], ["fast", [0.5]], "a number"),
    (tuple[float | Tensor, float | Tensor], [[0.9, 0.999]], [[0.9], 0.9, ["a", "b"]], "a list of 2 numbers"),
    (Tensor, [], [0.5, "a", [0.5], None], "an object (Tensor)"),
    (nn.Module, [{"_target_": "torch.nn.ReLU"}], ["relu", 1], "an object (Module)"),
    (Any, [1, "a", None, [1]], [], "any value"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "good", "bad", "words"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_a_value_fits_its_annotation_or_not(hint, good, bad, words):
    assert [value for value in good if not fits(value, hint)] == []
    assert [value for value in bad if fits(value, hint)] == []
    assert describe_type(hint) == words


OPTIMIZERS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / "optimizer").glob("*.yaml")}
del OPTIMIZERS["sam"], OPTIMIZERS["adamw_fast"]  # another's, and a key
CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon,
           "rmsprop": torch.optim.RMSprop}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_file_holds_every_argument_of_the_optimizer(name):
    node = OPTIMIZERS[name]
    target = locate("optimizer", node)
    assert target is CLASSES[name]
    assert node["_partial_"] is True
    assert set(node) - {"_target_", "_partial_"} == set(parameters_of(target)) - {"params"}
    assert problems_of_node("optimizer", node, {"params"}) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_mistake_in_any_argument_of_an_optimizer_is_told_by_its_key(name):
    node = OPTIMIZERS[name]
    for key in set(node) - {"_target_", "_partial_"}:
        (problem,) = problems_of_node("optimizer", {**node, key: "wrong"}, {"params"})
        assert problem.startswith(f"optimizer.{key}=wrong: expected "), problem
    (problem,) = problems_of_node("optimizer", {**node, "momentun": 0.9}, {"params"})
    assert problem.startswith("optimizer.momentun=0.9: ")
    assert "lr" in problem.partition("allowed: ")[2].split(", ")
    assert "params" not in problem  # comes from the launcher


def test_what_the_launcher_gives_itself_is_not_asked_for_nor_taken():
    assert problems_of_node("optimizer", {"_target_": "torch.optim.SGD"}) == [
        "optimizer.params: missing, and optimizer's _target_ needs it"
    ]
    (problem,) = problems_of_node("optimizer", {"_target_": "torch.optim.SGD", "params": [1]}, {"params"})
    assert "optimizer.params=[1]: SGD has no such argument" in problem


def test_nodes_within_a_node_are_checked_too():
    def problems(inner: dict[str, Any]) -> list[str]:
        node = {"_target_": "torch.nn.TransformerEncoder", "num_layers": 2, "encoder_layer": inner}
        return problems_of_node("model", node)

    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 8, "nhead": 2}
    assert problems(layer) == []
    assert problems({**layer, "nhead": "two"}) == ["model.encoder_layer.nhead=two: expected a whole number"]
    (problem,) = problems({**layer, "dropuot": 0.5})
    assert problem.startswith("model.encoder_layer.dropuot=0.5: ")
    assert "did you mean dropout?" in problem
    (problem,) = problems({"_target_": "os.system"})
    assert problem.startswith("model.encoder_layer._target_=os.system: not among")
    (problem,) = problems({**layer, "activation": {"_target_": "torch.nn.ReLu"}})
    assert problem.startswith("model.encoder_layer.activation._target_=torch.nn.ReLu: not found; did you mean ReLU")


def test_built_objects_have_their_nested_objects_and_plain_containers():
    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 8, "nhead": 2, "batch_first": True}
    encoder = {"_target_": "torch.nn.TransformerEncoder", "num_layers": 1, "encoder_layer": layer}
    model = node_of("model", encoder).build()
    assert model.layers[0].self_attn.num_heads == 2
    adam = node_of("optimizer", {"_target_": "torch.optim.Adam", "_partial_": True, "betas": [0.5, 0.6]}).partial()
    assert adam.func is torch.optim.Adam
    assert type(adam.keywords["betas"]) is list


def test_targets_are_allowed_by_the_environment_that_the_process_was_started_with(monkeypatch):
    with pytest.raises(ConfigError, match=r"IOLAUS_ALLOW='collections\.\*'"):
        locate("model", {"_target_": "collections.Counter"})
    monkeypatch.setenv("IOLAUS_ALLOW", "collections.*")  # as Hydra sets what a configuration asks for
    with pytest.raises(ConfigError, match="not among the packages"):
        locate("model", {"_target_": "collections.Counter"})

    code = "from iolaus.trust import targets; print(targets.ALLOWED, targets.is_allowed('collections.Counter'))"
    environment = {**os.environ, "IOLAUS_ALLOW": " collections.* ,, mine.models.Net,"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('collections.*', 'mine.models.Net') True"

    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", ("collections.*",))
    assert locate("model", {"_target_": "collections.Counter"}).__name__ == "Counter"
    assert node_of("model", {"_target_": "collections.Counter"}).build() == {}


@pytest.mark.parametrize(
    "target", ["torch.load", "builtins.eval", "torchevil.Net", "torch.nnn.Linear", "iolausx.a", "os.system"]
)
def test_names_that_resemble_the_allowed_ones_are_refused(target):
    with pytest.raises(ConfigError, match="not among the packages that may be run"):
        locate("model", {"_target_": target})


@pytest.mark.parametrize("target", [None, 3, {"a": 1}])
def test_a_target_that_is_no_text_is_refused(target):
    with pytest.raises(ConfigError, match="must be the dotted path of a class or function"):
        locate("model", {"_target_": target})


def test_nearest_names_the_closest_and_all_that_is_allowed():
    assert nearest("resnet19", ["vgg16", "resnet18", "cnn"]) == "did you mean resnet18? allowed: cnn, resnet18, vgg16"
    assert nearest("xyz", ["b", "a"]) == "allowed: a, b"
    assert nearest("a", []) == "allowed: none"


def test_a_group_is_split_into_our_settings_and_the_targets_arguments():
    node = {"_target_": "iolaus.models.cnn.CNN", "widths": [8], "in_channels": 3, "min_image_size": 9}
    own, rest = split_settings(node, LAUNCHER_SETTINGS["model"])
    assert own == {"in_channels": 3, "min_image_size": 9}
    assert rest == {"_target_": "iolaus.models.cnn.CNN", "widths": [8]}
    for schema in LAUNCHER_SETTINGS.values():
        assert split_settings({"_target_": "x", "y": 1}, schema) == ({}, {"_target_": "x", "y": 1})


def test_the_check_itself_makes_typed_settings_and_nodes():
    model, transform = ("model=mlp", "model.hidden=[8]"), "augmentation.transform=torchvision.transforms.v2.AugMix"
    config = checked_config(*TINY, *model, transform, "early_stopping=patience", "tracker=both")
    assert (config.trainer.batch_size, config.dataset.validation, config.model.in_channels) == (16, 0.2, None)
    assert config.model_node.arguments["hidden"] == [8]
    assert config.model_node.target.__name__ == "MLP"
    assert config.transform is not None
    assert "transform" not in config.augmentation_node.arguments
    assert config.early_stopping_node.build().patience == 10
    assert config.tracker_nodes.keys() == {"tensorboard", "wandb"}
    assert config.plain["trainer"]["batch_size"] == 16
    with pytest.raises(AttributeError):  # what was checked stays as it was checked
        config.seed = 1


def test_all_problems_of_a_configuration_are_told_in_one_go():
    plain = dict(checked_config(*TINY).plain)
    plain |= {"seed": -1, "optimiser": {}, "trainer": {**plain["trainer"], "epochs": "x"}}
    plain["model"] = {**plain["model"], "widths": "wide"}
    with pytest.raises(ConfigError) as error:
        check(plain)
    keys = [problem.replace(":", "=").split("=")[0] for problem in error.value.problems]
    assert keys == ["seed", "optimiser", "model.widths", "trainer.epochs"]


def test_a_group_of_our_own_settings_can_be_no_other_class():
    plain = dict(checked_config(*TINY).plain)
    plain["trainer"] = {**plain["trainer"], "_target_": "torch.nn.Linear"}
    with pytest.raises(ConfigError, match=r"trainer\._target_=torch\.nn\.Linear: must be iolaus\.settings\.Trainer"):
        check(plain)


def test_a_function_gets_the_image_first_and_then_its_arguments():
    problems = []
    node = read_function("dataset.initial", {"_target_": "torch.nn.functional.pad", "pad": [1, 1]}, problems)
    assert problems == []
    assert node.build_function()(torch.zeros(1, 2)).shape == (1, 4)
    transform = read_function("augmentation.transform", "torchvision.transforms.v2.Identity", problems)
    assert type(transform.build_function()).__name__ == "Identity"
    assert read_function("dataset.initial", None, problems) is None
    assert read_function("dataset.initial", 3, problems) is None
    assert problems == ["dataset.initial=3: expected a dotted path, or _target_ with arguments"]


def test_a_target_of_before_the_rooms_is_told_where_it_is_now():
    with pytest.raises(ConfigError, match=r"iolaus\.muon\.Muon: not found; it is iolaus\.methods\.muon\.Muon now"):
        locate("optimizer", {"_target_": "iolaus.muon.Muon"})


def test_the_short_names_of_keys_work(command):
    outcome = command(*TINY, "lr=0.5", "wd=0.25", "epochs=2", "device=cpu", "precision=fp32")
    composed = outcome.results["config"]
    assert (composed["optimizer"]["lr"], composed["optimizer"]["weight_decay"]) == (0.5, 0.25)
    trainer = composed["trainer"]
    assert (trainer["epochs"], trainer["device"], trainer["precision"]) == (2, "cpu", "fp32")
    assert outcome.results["epochs"] == 2

    shown = command("dataset=mnist", "root=there", "--cfg", "job")
    assert yaml.safe_load(shown.out)["dataset"]["root"] == "there"
