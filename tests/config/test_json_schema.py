"""conf/schema.json: what editors check recipes and options by is what a command checks them by."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from iolaus import cli
from iolaus.config.check import GROUPS, check_groups
from iolaus.config.json_schema import format_schema
from iolaus.config.json_types import describe_values, pattern_of_misses
from iolaus.config.reference import Reference
from iolaus.config.schema import fits

CONF = ROOT / "conf"
KEPT = CONF / "schema.json"
UNCHECKED = ("help", "hydra_logging", "job_logging", "local")  # folders: Hydra's own keys, a machine's own values
FILES = sorted({*CONF.rglob("*.yaml"), *ROOT.glob("experiments/*.yaml")})
FILES = [path for path in FILES if path.parent.name not in UNCHECKED]
SIGNATURES_OF_TORCH = ("optimizer", "scheduler", "loss")  # groups
SCHEMA = json.loads(KEPT.read_text())


def definition_of(path: Path) -> str:
    """The definition that a file's first line names, in the schema of conf/; only Hydra's own line may come before."""
    line = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)#/definitions/(\S+)", line)
    assert found is not None, f"{path}: the first line is {line}"
    assert (path.parent / found[1]).resolve() == KEPT
    return found[2]


def mistakes(text: str, definition: str) -> list[tuple[str, str]]:
    """(place, message) of all that a validator finds in a YAML text."""
    content = json.loads(json.dumps(OmegaConf.to_container(OmegaConf.create(text))))
    validator = jsonschema.Draft7Validator({**SCHEMA, "$ref": f"#/definitions/{definition}"})
    return sorted((".".join(map(str, e.absolute_path)), e.message) for e in validator.iter_errors(content))


def test_the_schema_is_what_the_command_prints(capsys):
    assert cli.main(["schema"]) == 0
    made = json.loads(capsys.readouterr().out)
    kept = json.loads(KEPT.read_text())
    if made["$comment"] != kept["$comment"]:  # another torch, whose signatures may differ
        for schema in (made, kept):
            names = [name for name in schema["definitions"] if re.split(r"\W", name)[0] in SIGNATURES_OF_TORCH]
            schema["$comment"] = [schema["definitions"].pop(name) for name in names] and ""
    assert made == kept, "run: nox -s reference"
    jsonschema.Draft7Validator.check_schema(kept)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_every_recipe_and_option_names_its_schema_and_fits_it(path):
    group = ".".join(path.relative_to(CONF).parts[:-1]) if CONF in path.parents else "recipe"
    expected = {"": "config", "common": path.stem, "batch_size": "trainer"}.get(group, group)
    assert definition_of(path) == ("recipe" if "@package _global_" in path.read_text() else expected)
    assert mistakes(path.read_text(), definition_of(path)) == []


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("sed: 1", "sed", "1 is not of type 'object'"),
        ("modle: {widths: [4]}", "", "False schema does not allow"),
        ("defaults: [{override /model: mpl}]", "defaults.0.override /model", "'mpl' is not valid under"),
        ("defaults: [{override model: mlp}]", "defaults.0", "'override model' does not match any"),
        ("defaults: [{override /model: mlp}]\nmodel: {widths: [4]}", "model", "'widths' was unexpected"),
        ("model: {hiden: [4]}", "model", "False schema does not allow [4]"),
        ("model: {widths: [a]}", "model.widths", "['a'] is not valid under"),
        ("model: {_target_: iolaus.models.cnn.CNN, hidden: [4]}", "model", "'hidden' was unexpected"),
        ("model: {_target_: my.Net, anything: 1, image_size: x}", "model.image_size", "'x' does not match"),
        ("trainer: {epochs: 3.5}", "trainer.epochs", "3.5 is not of type 'integer', 'string'"),
        ("trainer: {epoch: 3}", "trainer", "'epoch' was unexpected"),
        ("trainer: {tta: flipp}", "trainer.tta", "'flipp' is not valid under"),
        ("optimizer: {lr: -1}", "optimizer.lr", "-1 is "),
        ("optimizer: {betas: [0.9]}", "optimizer.betas", "[0.9] is not valid under"),
        ("loss: {label_smoothing: 2}", "loss.label_smoothing", "2 is greater than the maximum of 1.0"),
        ("tracker: {wandb: {mode: onlin}}", "tracker.wandb.mode", "'onlin' is not valid under"),
        ("dataset: {validation: [1]}", "dataset.validation", "[1] is not of type"),
    ],
)
def test_a_mistake_is_found_where_it_is(text, place, message):
    ((found, said),) = mistakes(text, "recipe")
    assert (found, message in said) == (place, True), said


@pytest.mark.parametrize(
    "text",
    [
        "model: ${other}\nother: {widths: [4]}",
        "trainer: {epochs: '${n.epochs}', batch_size: '???'}\nn: {epochs: 3}",
        "hydra: {anything: [1], sweeper: {params: {optimizer.lr: 'interval(1,2)', +model.x: 1}}}",
        "model: {_target_: my.Net, anything: {goes: 1}}",
        "defaults: [_self_, {override /hydra/launcher: joblib}, {optional /local: default}, {override /tracker: null}]",
        "defaults: [{override /augmentation: [heavy, mixup]}, sgd@optimizer]",
        "augmentation: {transform: {_target_: torchvision.transforms.v2.AugMix}}\ndataset: {initial: my.function}",
        "loss: {class_weights: [1, 2.5]}\nscheduler: {T_max: 3}\ntracker: {mlflow: {_target_: my.MLflow, x: 1}}",
    ],
)
def test_what_a_command_takes_is_no_mistake(text):
    assert mistakes(text, "recipe") == []


HINTS: list[Any] = [int, float, bool, str, int | None, float | str, list[int], tuple[float, float] | None, Any]
HINTS += [Literal["a", "b"], Literal["auto"] | bool, list[str] | Literal["x"], dict[int, int] | None]
VALUES = [0, 2, 2.5, True, None, "a", "x", [], [1], [1, 2], ["a"], [0.5, 1], {}, {"1": 2}]


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_a_type_takes_what_the_check_takes(hint):
    validator = jsonschema.Draft7Validator(describe_values(hint))
    for value in VALUES:
        keyed = {int(key): item for key, item in value.items()} if isinstance(value, dict) else value
        assert validator.is_valid(value) == fits(keyed, hint), value
    assert validator.is_valid("${a.b}")


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_an_editor_refuses_is_one_that_the_check_refuses(group):
    misses = re.compile(pattern_of_misses(group))
    edits = [(i, letter, skip) for i in range(len(group)) for letter in ("x", "") for skip in (0, 1)]
    slips = {group[:i] + letter + group[i + skip :] for i, letter, skip in edits}
    slips |= {group[:i] + group[i + 1] + group[i] + group[i + 2 :] for i in range(len(group) - 1)}
    assert not misses.search(group)
    for slip in slips - {group}:
        assert misses.search(slip), slip
        assert check_groups({slip: {}}) != [], slip


def test_the_schema_of_ones_own_folder_has_ones_own_options_and_runs_none_of_ones_code(tmp_path):
    for file, text in {
        "conf/model/own.yaml": "# Mine.\n_target_: own_net.Net\nwidth: 8  # of the net\n",
        "conf/model/long.yaml": "_target_: iolaus.models.cnn.CNN\nwidths: [8,\n  16]\ndropout: {a: b\n",
        "conf/pet/cat.yaml": "# A group of my own.\nname: Tom\n",
        "experiments/mine.yaml": "# @package _global_\n",
        "own_net.py": "raise SystemExit('was run')\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "conf" / "model" / "latin.yaml").write_bytes("# Größer.\n".encode("latin-1"))
    reference = Reference([tmp_path / "conf", CONF], [tmp_path / "experiments", ROOT / "experiments"])
    definitions = json.loads(format_schema(reference))["definitions"]
    width = definitions["model(own_net.Net)"]["properties"]["width"]
    assert width == {"description": "of the net", "default": 8}
    assert "own" in definitions["options.model"]["anyOf"][0]["enum"]
    assert "mine" in definitions["options.experiment"]["anyOf"][0]["enum"]
    assert "override /pet" in definitions["defaults.recipe"]["items"]["then"]["properties"]
