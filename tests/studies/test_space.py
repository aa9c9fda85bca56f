"""A search space is read from Hydra's syntax, and a trial draws from the very distributions that it names."""

import contextlib

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from iolaus.errors import ConfigError
from iolaus.studies.space import Space, derive_seed, read_space

SPACE = {
    "a=interval(0.5,2)": FloatDistribution(0.5, 2),
    "b=int(interval(1,8))": IntDistribution(1, 8),
    "c=tag(log,interval(0.001,1.0))": FloatDistribution(0.001, 1, log=True),
    "d=int(tag(log,interval(1,64)))": IntDistribution(1, 64, log=True),
    "e=range(0,10,3)": IntDistribution(0, 9, step=3),
    "f=range(0.0,1.0,0.25)": FloatDistribution(0, 0.75, step=0.25),
    "g=x,1,null": CategoricalDistribution(["x", 1, "null"]),
}

items = st.sampled_from(["0", "1", "-3", "0.5", "1e-3", "inf", "nan", "x", "''", "[1,2]", "{a: 1}", "null", "${y}", ""])
functions = st.sampled_from(["interval", "range", "choice", "tag", "log", "int", "shuffle", "f"])
calls = st.builds("{}({})".format, functions, st.lists(items, max_size=4).map(",".join))
values = st.one_of(st.text("ab01.,()[]{}='\"~+$:|*\\ \n", max_size=20), items, calls, st.text(max_size=10))
keys = st.sampled_from(["a", "a.b", "+a", "~a", "a@b", "", "a b", "$"])
overrides = st.one_of(st.builds("{}={}".format, keys, values), st.text(max_size=20))


@given(st.lists(overrides, max_size=3))
@settings(max_examples=300, deadline=None, database=None)
def test_a_mistake_in_any_override_is_a_user_error(arguments):
    with contextlib.suppress(ConfigError):
        assert read_space(arguments, None).searched != {}


def test_a_trial_draws_from_the_distributions_that_the_overrides_name():
    space = read_space(list(SPACE), None)
    assert space.searched == dict(zip("abcdefg", SPACE.values(), strict=True))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    space.draw(trial, None)
    assert trial.distributions == space.searched
    drawn = trial.params
    space.draw(trial, None)
    assert trial.params == drawn


def test_an_adopted_trial_keeps_what_it_drew_from_a_narrower_space():
    study = optuna.create_study()
    trial = study.ask({"a": FloatDistribution(0, 1)})
    Space({"a": FloatDistribution(0, 2), "b": IntDistribution(3, 3)}).draw(trial, None)
    assert trial.distributions["a"] == FloatDistribution(0, 1)
    assert trial.params["b"] == 3


@pytest.mark.parametrize(("argument", "inside", "outside"), [
    ("a=interval(0.5,2)", [0.5, 2, "1"], [0.4, 2.1, "x", None, [1], float("nan")]),
    ("a=int(interval(1,8))", [1, 8], [0, 9, 1.5]),
    ("a=tag(log,interval(0.001,1.0))", [0.001, 1], [0, -1]),
    ("a=range(0,10,3)", [0, 9], [1, 10, 12]),
    ("a=x,y", ["x"], ["z", 1, None, {}]),
])  # fmt: skip
def test_a_point_to_try_first_must_lie_in_the_space(argument, inside, outside):
    space = read_space([argument], None)
    for value in inside:
        space.check_point({"a": value})
    for value in outside:
        with pytest.raises(ConfigError, match="not in the space"):
            space.check_point({"a": value})


def test_the_last_argument_of_a_key_counts():
    assert read_space(["a=1,2", "b=1,2", "a=3", "~c"], None).overrides == ["a=3", "~c"]
    assert list(read_space(["a=3", "a=1,2"], None).searched) == ["a"]


@given(st.integers(0, 2**40), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, database=None)
def test_a_trials_seed_is_of_32_bits_and_its_own(seed, number):
    assert 0 <= derive_seed(seed, number) < 2**32
    assert derive_seed(seed, number) == derive_seed(seed, number)
    assert derive_seed(seed, number) != derive_seed(seed, number + 1)
