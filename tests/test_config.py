"""A configuration is checked against signatures and annotations, before anything is built."""

from collections.abc import Sequence
from typing import Any, Literal, Optional

import pytest
import torch
import yaml
from conftest import ROOT, TINY
from torch import Tensor, nn

from iolaus import config
from iolaus.config import check_node, expected, fits
from iolaus.errors import ConfigError, nearest
from iolaus.muon import Muon

TABLE = [  # annotation, what fits, what does not, in words
    (int, [3, 0, -1], [3.0, "3", True, None, [3]], "int"),
    (float, [0.5, 3, float("inf")], ["0.5", True, None, [0.5]], "float"),
    (bool, [True, False], [1, 0, "true", None], "bool"),
    (str, ["a", ""], [1, True, None, ["a"]], "str"),
    (None, [None], [0, "", False], "null"),
    (Optional[int], [3, None], [0.5, "3", False], "int or null"),  # noqa: UP045
    (float | None, [0.5, 3, None], ["null", True], "float or null"),
    (Literal["min", "max"], ["min"], ["mean", None, 1], "min or max"),
    (Literal[1, 3] | None, [1, 3, None], [2, True, "1"], "1 or 3 or null"),
    (tuple[float, float], [[0.9, 1]], [[0.9], [0.9, 1, 1], 0.9, ["a", 1]], "a list of float"),
    (tuple[int, str], [[1, "a"]], [["a", 1], [1]], "a list of int, str"),
    (tuple[int, ...], [[], [1], [1, 2, 3]], [[0.5], 1], "a list of int, Ellipsis"),
    (list[int], [[], [1, 2]], [[0.5], [1, "a"], 1, {1: 1}], "a list of int"),
    (Sequence[str], [["a"]], ["a", [1]], "Sequence"),
    (dict[int, int], [{}, {0: 1}], [{"0": 1}, {0: 0.5}, [1], 1], "{int: int}"),
    (list[tuple[int, int]], [[[1, 2]]], [[[1]], [1, 2]], "a list of a list of int"),
    (float | Tensor, [0.5], ["fast", [0.5]], "float or Tensor"),
    (tuple[float | Tensor, float | Tensor], [[0.9, 0.999]], [[0.9], 0.9, ["a", "b"]], "a list of float or Tensor"),
    (Tensor, [], [0.5, "a", [0.5], None], "Tensor"),
    (nn.Module, [{"_target_": "torch.nn.ReLU"}], ["relu", 1], "Module"),
    (Any, [1, "a", None, [1]], [], "Any"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "good", "bad", "words"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_a_value_fits_its_annotation_or_not(hint, good, bad, words):
    assert [value for value in good if not fits(value, hint)] == []
    assert [value for value in bad if fits(value, hint)] == []
    assert expected(hint) == words


OPTIMIZERS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / "optimizer").glob("*.yaml")}
del OPTIMIZERS["sam"]  # sgd's, and a key of the trainer
CLASSES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon,
           "rmsprop": torch.optim.RMSprop}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_file_holds_every_argument_of_the_optimizer(name):
    node = OPTIMIZERS[name]
    target = config.locate("optimizer", node)
    assert target is CLASSES[name]
    assert node["_partial_"] is True
    assert set(node) - {"_target_", "_partial_"} == set(config.parameters(target)) - {"params"}
    assert check_node("optimizer", node, {"params"}) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_mistake_in_any_argument_of_an_optimizer_is_told_by_its_key(name):
    node = OPTIMIZERS[name]
    for key in set(node) - {"_target_", "_partial_"}:
        (problem,) = check_node("optimizer", {**node, key: "wrong"}, {"params"})
        assert problem.startswith(f"optimizer.{key}=wrong: expected "), problem
    (problem,) = check_node("optimizer", {**node, "momentun": 0.9}, {"params"})
    assert problem.startswith("optimizer.momentun=0.9: ")
    assert "lr" in problem.partition("allowed: ")[2].split(", ")
    assert "params" not in problem  # comes from the launcher


def test_what_the_launcher_gives_itself_is_not_asked_for_nor_taken():
    assert check_node("optimizer", {"_target_": "torch.optim.SGD"}) == [
        "optimizer.params: missing, and optimizer's _target_ needs it"
    ]
    (problem,) = check_node("optimizer", {"_target_": "torch.optim.SGD", "params": [1]}, {"params"})
    assert "optimizer.params=[1]: SGD has no such argument" in problem


def test_nodes_within_a_node_are_checked_too():
    def problems(inner: dict[str, Any]) -> list[str]:
        node = {"_target_": "torch.nn.TransformerEncoder", "num_layers": 2, "encoder_layer": inner}
        return check_node("model", node)

    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 8, "nhead": 2}
    assert problems(layer) == []
    assert problems({**layer, "nhead": "two"}) == ["model.encoder_layer.nhead=two: expected int"]
    (problem,) = problems({**layer, "dropuot": 0.5})
    assert problem.startswith("model.encoder_layer.dropuot=0.5: ")
    assert "did you mean dropout?" in problem
    (problem,) = problems({"_target_": "os.system"})
    assert problem.startswith("model.encoder_layer._target_=os.system: not among")
    (problem,) = problems({**layer, "activation": {"_target_": "torch.nn.ReLu"}})
    assert problem.startswith("model.encoder_layer.activation._target_=torch.nn.ReLu: not found; did you mean ReLU")


def test_built_objects_have_their_nested_objects_and_plain_containers():
    layer = {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 8, "nhead": 2, "batch_first": True}
    model = config.build("model", {"_target_": "torch.nn.TransformerEncoder", "num_layers": 1, "encoder_layer": layer})
    assert model.layers[0].self_attn.num_heads == 2
    adam = config.factory("optimizer", {"_target_": "torch.optim.Adam", "_partial_": True, "betas": [0.5, 0.6]})
    assert adam.func is torch.optim.Adam
    assert type(adam.keywords["betas"]) is list


def test_targets_are_allowed_by_the_environment_alone(monkeypatch):
    monkeypatch.delenv("IOLAUS_ALLOW", raising=False)
    assert config.allowed_targets() == list(config.TARGETS)
    with pytest.raises(ConfigError, match=r"IOLAUS_ALLOW='collections\.\*'"):
        config.locate("model", {"_target_": "collections.Counter"})

    monkeypatch.setenv("IOLAUS_ALLOW", " collections.* ,, mine.models.Net,")
    assert config.allowed_targets() == [*config.TARGETS, "collections.*", "mine.models.Net"]
    assert config.locate("model", {"_target_": "collections.Counter"}).__name__ == "Counter"
    assert config.build("model", {"_target_": "collections.Counter"}) == {}


@pytest.mark.parametrize(
    "target", ["torch.load", "builtins.eval", "torchevil.Net", "torch.nnn.Linear", "iolausx.a", "os.system"]
)
def test_names_that_resemble_the_allowed_ones_are_refused(target):
    with pytest.raises(ConfigError, match="not among the packages that may be run"):
        config.locate("model", {"_target_": target})


@pytest.mark.parametrize("target", [None, 3, {"a": 1}])
def test_a_target_that_is_no_text_is_refused(target):
    with pytest.raises(ConfigError, match="must be the dotted path of a class or function"):
        config.locate("model", {"_target_": target})


def test_nearest_names_the_closest_and_all_that_is_allowed():
    assert nearest("resnet19", ["vgg16", "resnet18", "cnn"]) == "did you mean resnet18? allowed: cnn, resnet18, vgg16"
    assert nearest("xyz", ["b", "a"]) == "allowed: a, b"
    assert nearest("a", []) == "allowed: none"


def test_a_group_is_split_into_our_settings_and_the_targets_arguments():
    node = {"_target_": "iolaus.models.cnn.CNN", "widths": [8], "in_channels": 3, "min_image_size": 9}
    settings, rest = config.split_node("model", node)
    assert (settings.in_channels, settings.image_size, settings.min_image_size) == (3, None, 9)
    assert rest == {"_target_": "iolaus.models.cnn.CNN", "widths": [8]}
    for group, schema in config.OWN_KEYS.items():
        settings, rest = config.split_node(group, {"_target_": "x", "y": 1})
        assert (settings, rest) == (schema(), {"_target_": "x", "y": 1})


def test_the_short_names_of_keys_work(command):
    outcome = command(*TINY, "lr=0.5", "wd=0.25", "epochs=2", "device=cpu", "precision=fp32")
    composed = outcome.results["config"]
    assert (composed["optimizer"]["lr"], composed["optimizer"]["weight_decay"]) == (0.5, 0.25)
    trainer = composed["trainer"]
    assert (trainer["epochs"], trainer["device"], trainer["precision"]) == (2, "cpu", "fp32")
    assert outcome.results["epochs"] == 2

    shown = command("dataset=mnist", "root=there", "--cfg", "job")
    assert yaml.safe_load(shown.out)["dataset"]["root"] == "there"
