"""What `fits` accepts, omegaconf's own types accept too, as the very same value."""

from dataclasses import make_dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iolaus.config.schema import describe_type, fits

HINTS = [int, float, bool, str, int | None, float | None, str | None, list[int], list[float], list[str], dict[str, int],
         dict[int, float], list[list[int]], list[bool]]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-9, 2**40) | st.floats(allow_nan=False) | st.text("ab1.-e", max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2) | st.integers(0, 3), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("hint", HINTS, ids=str)
@settings(max_examples=50, deadline=None)
@given(value=VALUES)
def test_a_value_that_fits_is_one_that_omegaconf_takes_unchanged(hint, value):
    if not fits(value, hint):
        return
    node = OmegaConf.structured(make_dataclass("Node", [("key", hint)]))
    try:
        OmegaConf.update(node, "key", value)  # as Hydra does; an assignment would warn of an int that becomes a float
    except OmegaConfBaseException as error:
        raise AssertionError(f"{value!r} fits {describe_type(hint)}, and omegaconf refuses it") from error
    taken = OmegaConf.to_container(node)["key"]
    assert taken == value
    assert isinstance(taken, type(value)) or hint in (float, float | None)  # an int is a float's value, too


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_each_type_is_told_from_every_other(value):
    """No value fits two of bool, int, str and list; null fits those that say so alone."""
    assert sum(fits(value, hint) for hint in (bool, int, str, list[int], dict[str, int])) <= 1
    assert fits(value, int | None) == (value is None or fits(value, int))
