"""Recipes are found by their names."""

import pytest
from hydra.core.object_type import ObjectType

from iolaus.config.experiments import ExperimentsSource


@pytest.fixture
def source(tmp_path):
    (tmp_path / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "notes.txt").write_text("not a recipe")
    return ExperimentsSource("test", f"experiments://{tmp_path}")


def test_a_recipe_is_a_config_of_the_group_experiment(source):
    loaded = source.load_config("experiment/mine")
    assert loaded.config == {"seed": 7}
    assert loaded.header["package"] == "_global_"
    assert source.list("experiment", ObjectType.CONFIG) == ["mine"]
    assert source.list("", ObjectType.GROUP) == ["experiment"]
    assert source.available()


def test_a_recipe_is_nothing_but_that(source):
    known = ["experiment/mine", "experiment/other", "mine", "model/mine", "experiment", "experiment/notes", ""]
    assert [path for path in known if source.is_config(path)] == ["experiment/mine"]
    assert [path for path in ("", "experiment", "model", "mine") if source.is_group(path)] == ["", "experiment"]
    assert source.list("model", ObjectType.CONFIG) == []


def test_a_misspelt_recipe_is_told_with_the_ones_there_are(source, command, tmp_path):
    outcome = command(f"hydra.searchpath=[experiments://{tmp_path}]", "experiment=mien")
    assert outcome.status == 2
    assert outcome.err == "iolaus: experiment=mien: no such option; did you mean mine? allowed: mine\n"
