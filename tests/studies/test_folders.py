"""A sweep's folder is named by its overrides."""

import re

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.utils import hydra_override_dirname
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from iolaus.files.layout import folder_name
from iolaus.studies.folders import name_sweep


def test_a_studys_name_says_what_it_varies_and_stays_the_same():
    name = name_sweep(["optimizer.lr=0.1,0.05", "seed=0"], ["optimizer.lr=0.1,0.05"])
    assert name == "optimizer.lr=0.1,0.05-d13b76"
    assert name_sweep(["seed=0"], []).startswith("sweep-")


def test_other_overrides_are_another_study():
    lists = [["a=1,2"], ["a=1,2", "b=1"], ["a=1,2", "b=2"], ["a=1,2,3"], ["a=1", "2"]]
    names = {name_sweep(overrides, ["a=1,2"]) for overrides in lists}
    assert len(names) == len(lists)


@pytest.mark.parametrize(
    "override",
    [
        "a=choice(1,2)",
        "~a=1,2",
        "a='x y','../../etc'",
        "a=/tmp/x,/tmp/y",
        "a=ä,ß:*?",
        "a=" + ",".join(map(str, range(999))),
    ],
)
def test_a_studys_name_is_safe_as_a_folders(override):
    name = name_sweep([override], [override])
    assert re.fullmatch(r"[A-Za-z0-9._,=+-]{7,70}", name)
    assert not name.startswith((".", "-"))


small = settings(max_examples=100, deadline=None, database=None)
SAFE = re.compile(r"[A-Za-z0-9._,=+-]*")


@given(st.text() | st.text("ab=,1/", max_size=300))
@small
def test_a_folders_name_is_safe_and_not_too_long(text):
    name = folder_name(text)
    assert SAFE.fullmatch(name)
    assert len(name) <= 120
    assert not name.startswith("-")


@given(st.text("ab-/ä", max_size=5), st.text("ab-/ä", max_size=5))
@small
def test_different_texts_have_different_names(first, second):
    assert (folder_name(first) == folder_name(second)) == (first == second)


@given(st.lists(st.text()), st.lists(st.text()))
@small
def test_a_sweeps_name_is_safe_for_any_overrides(overrides, varied):
    name = name_sweep(overrides, varied)
    assert SAFE.fullmatch(name)
    assert 7 <= len(name) <= 67
    assert name_sweep([*overrides, "seed=1"], varied) != name


def test_long_names_that_begin_alike_stay_apart():
    names = {folder_name("a=" + "1," * 100 + end) for end in "123"}
    assert len(names) == 3
    assert max(map(len, names)) <= 120
    assert folder_name("optimizer.lr=0.1,seed=0") == "optimizer.lr=0.1,seed=0"


def test_texts_that_look_alike_as_names_are_folders_of_their_own():
    texts = ["cache_dir=a/b", "cache_dir=a-b", "cache_dir=a b", "root=ä", "root=ß", "a=[1, 2]", "a=[1,2]", "a=-1,2-"]
    assert len({folder_name(text) for text in texts}) == len(texts)
    assert folder_name("a/b=[1, 2]").startswith("a-b=-1,-2-")


@pytest.mark.parametrize("overrides", [
    [], ["seed=1"], ["trainer.epochs=2", "model=mlp", "optimizer.lr=0.1"], ["~optimizer.amsgrad", "+model.a=[1,2]"],
    ["dataset.cache_dir='a b'", "study='${seed}x'", "seed=3"], ["seed=1", "hydra.job.config.override_dirname.kv_sep=:"],
    ["seed=1", "trainer.epochs=2", "hydra.job.config.override_dirname.exclude_keys=[seed]"],
])  # fmt: skip
def test_a_run_is_named_as_hydra_would_name_it(overrides):
    with initialize_config_dir(str(ROOT / "conf")):
        config = compose("config", overrides, return_hydra_config=True)
    hydras = hydra_override_dirname(_root_=config, _parent_=config.hydra.sweep, _node_=None)
    assert OmegaConf.select(config, "hydra.sweep.subdir") == folder_name(hydras)
