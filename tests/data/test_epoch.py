"""The batches of one pass, as slices of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from iolaus.data.epoch import batch_slices


@given(st.integers(0, 60), st.integers(1, 70), st.booleans(), st.integers(0, 8))
@settings(max_examples=50, deadline=None, database=None)
def test_the_slices_of_a_pass_cover_every_image_once(count, batch_size, drop_last, start):
    whole, later = batch_slices(count, batch_size, drop_last), batch_slices(count, batch_size, drop_last, start)
    images = [k for part in whole for k in range(count)[part]]
    left_out = count % batch_size if drop_last else 0
    assert images == list(range(count - left_out))
    assert [len(range(count)[part]) for part in whole[:-1]] == [batch_size] * len(whole[:-1])
    assert later == whole[start:]
