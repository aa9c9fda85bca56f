"""The help and docs/reference.md say what the comments of the YAML files say."""

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from iolaus.config.reference import Option, Reference, format_markdown, read_option

CONF = ROOT / "conf"
REFERENCE = Reference([CONF], [ROOT / "experiments"])
OPTIONS = [option for options in REFERENCE.groups.values() for option in options.values()]


def ids(option):
    return f"{option.group}={option.name}"


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs" / "reference.md").read_text() == format_markdown(), "run: nox -s reference"


def flatten(node, prefix=""):
    """Values by dotted name, mappings of mappings alone."""
    found = {}
    for name, value in node.items():
        nested = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        found |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def keys_of(option):
    """The keys of an option by name, with those that it shares with its group or takes from another option."""
    parents = [REFERENCE.groups[option.group][name] for name in option.extends]
    keys = (*REFERENCE.read_common(option.group), *(key for parent in parents for key in parent.keys))
    return {key.name: key for key in (*keys, *option.keys)}


@pytest.mark.parametrize("option", OPTIONS, ids=ids)
def test_every_option_and_every_key_of_ours_is_explained(option):
    assert option.meaning.endswith((".", ")"))
    if not option.target.startswith("torch."):
        shared = {
            name for name, key in keys_of(Option(option.group, "", extends=option.extends)).items() if key.meaning
        }
        assert [key.name for key in option.keys if not key.meaning and key.name not in shared] == []


@pytest.mark.parametrize("option", OPTIONS, ids=ids)
def test_the_keys_read_from_the_text_are_those_that_hydra_composes(option, monkeypatch):
    monkeypatch.delenv("IOLAUS_DATA", raising=False)
    with initialize_config_dir(str(CONF)):
        composed = compose("config", [f"{option.group}={option.name}"])
    values = flatten(OmegaConf.to_container(composed, resolve=True))
    for key in option.keys:
        if not key.default.startswith("${"):
            assert values[key.name] == OmegaConf.to_container(OmegaConf.create(f"value: {key.default}"))["value"], key
    if option.group not in ("batch_size", "trainer", "optimizer", "tracker"):  # their keys stand in several files
        node = {name for name in values if name.startswith(f"{option.group}.")}
        assert node - {f"{option.group}._target_", f"{option.group}._partial_"} == set(keys_of(option))


def test_a_comment_goes_on_below_its_key_and_a_heading_belongs_to_no_key(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "# @package trainer\n# yaml-language-server: $schema=x\n"
        "# What it is,\n# in two lines.\ndefaults:\n  - other\n_target_: my.Thing\n"
        "a: 1  # first\n       # and more\n\n# a heading\nb: [1, 2]\nnested:\n  c: 'x y'   # inside\n"
        "d: ${oc.env:HERE,there}\n"
    )
    option = read_option(tmp_path / "mine.yaml", "group", "mine")
    assert (option.meaning, option.target, option.extends) == ("What it is, in two lines.", "my.Thing", ["other"])
    assert [(key.name, key.default, key.meaning) for key in option.keys] == [
        ("trainer.a", "1", "first and more"),
        ("trainer.b", "[1, 2]", ""),
        ("trainer.nested.c", "'x y'", "inside"),
        ("trainer.d", "there", ""),
    ]


def test_the_help_lists_every_group_and_option_and_the_keys_that_are_typed_most(command):
    outcome = command("--help")
    assert outcome.status == 0
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 80
    words = set(outcome.out.replace(",", " ").split())
    assert {name for option in OPTIONS for name in (option.group, option.name)} <= words
    assert {path.stem for path in (ROOT / "experiments").glob("*.yaml")} <= words
    assert words.isdisjoint({"common", "local"})
    assert "  trainer.epochs [epochs]         30           passes over the training data" in lines
    assert "  model.name                      resnet34     name of a network in timm (model=timm, …)" in lines
    assert "  dataset.root [root]             data         folder of the dataset's files" in lines
    assert outcome.out.count("python train.py ") >= 4


def test_the_help_stands_beside_other_arguments_and_lists_options_of_ones_own(command, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "my_net.yaml").write_text("# My own network.\n_target_: my.Net\nwidth: 8\n")
    (tmp_path / "mine" / "my_group").mkdir()
    (tmp_path / "mine" / "my_group" / "some.yaml").write_text("# Of my own.\n{}\n")
    outcome = command("--config-dir", str(tmp_path / "mine"), "model=my_net", "epochs=2", "--help")
    assert outcome.status == 0, outcome.err
    assert "my_net" in outcome.out
    assert "my_group" in outcome.out
