"""TrivialAugmentWide and RandAugment: what is drawn for an image, and what each op does to a batch."""

import functools

import pytest
import torch
from conftest import generator
from torchvision.transforms import v2

from iolaus.augment.policies import (
    GEOMETRIC,
    OPS,
    SIGNED,
    affine_nearest,
    apply_ops,
    draw_rand_augment,
    draw_trivial_augment,
)

BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
EXACT = [op for op in OPS if op not in (*GEOMETRIC, *BLENDS)]
SHAPES = [(3, 32, 32), (1, 28, 28), (3, 15, 23), (3, 64, 48), (1, 2, 2)]
torchvisions = pytest.mark.parametrize("policy", [v2.TrivialAugmentWide(), v2.RandAugment()], ids=["trivial", "rand"])


def pictures(count, channels, height, width):
    """Noise, smooth gradients of little contrast, images of few levels, and of a single one."""
    draw = functools.partial(torch.rand, generator=generator(7))
    noise = draw(count, channels, height, width)
    gradient = draw(count, channels, 1, 1) + draw(count, channels, 1, 1) * torch.linspace(0, 1, width)
    few = (noise * draw(count, 1, 1, 1) * 8).round() / 8
    kinds = [noise, gradient / 2, few, draw(count, channels, 1, 1)]
    kinds = torch.stack([kind.expand_as(noise) for kind in kinds])
    return (kinds[torch.arange(count) % 4, torch.arange(count)] * 255).to(torch.uint8)


def torchvisions_rows(policy, name, height, width):
    """Each magnitude and sign of an op in torchvision's policy, as (torchvision's value, our row's value)."""
    values, signed = policy._AUGMENTATION_SPACE[name]
    values = values(31, height, width)
    values = [0.0] * 31 if values is None else values.double().tolist()
    scale = 255 if name == "Solarize" else 1
    whole = name.startswith("Translate")
    pairs = [(value, float(int(value)) if whole else value * scale) for value in values]
    return [(sign * a, sign * b) for a, b in pairs for sign in ((1, -1) if signed else (1,))]


def compare(policy, name, shape):
    """(ours, torchvision's) results of an op in all its magnitudes and signs."""
    magnitudes = torchvisions_rows(policy, name, *shape[1:])
    images = pictures(len(magnitudes), *shape)
    drawn = {
        "op": torch.full((len(images), 1), OPS.index(name)),
        "magnitude": torch.tensor([[ours] for _, ours in magnitudes]),
    }
    theirs = [
        policy._apply_image_or_video_transform(image, name, value, v2.InterpolationMode.NEAREST, policy._fill)
        for image, (value, _) in zip(images, magnitudes, strict=True)
    ]
    ours = apply_ops(images, drawn)
    assert ours.dtype == torch.uint8
    return ours.int(), torch.stack(theirs).int()


@torchvisions
@pytest.mark.parametrize("name", EXACT)
def test_ops_on_levels_equal_torchvisions_image_by_image(policy, name):
    for shape in SHAPES:
        ours, theirs = compare(policy, name, shape)
        assert torch.equal(ours, theirs), shape


@torchvisions
@pytest.mark.parametrize("name", BLENDS)
def test_blends_equal_torchvisions_image_by_image_but_for_a_level_of_rounding(policy, name):
    for shape in SHAPES:
        ours, theirs = compare(policy, name, shape)
        assert (ours - theirs).abs().max() <= 1, shape
        assert (ours != theirs).float().mean() <= 0.02, shape


@torchvisions
@pytest.mark.parametrize("name", GEOMETRIC)
def test_moves_equal_torchvisions_image_by_image_but_for_ties_of_the_nearest_pixel(policy, name):
    for shape in SHAPES:
        ours, theirs = compare(policy, name, shape)
        assert (ours != theirs).float().mean() <= 0.005, shape


def test_affine_nearest_with_whole_pixels_and_quarter_turns_is_exact():
    images = pictures(8, 3, 9, 9)
    shift = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -3.0]]).expand(8, -1, -1)
    expected = torch.zeros_like(images)
    expected[:, :, 3:, :-2] = images[:, :, :-3, 2:]
    assert torch.equal(affine_nearest(images, shift), expected)
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]).expand(8, -1, -1)
    assert torch.equal(affine_nearest(images, turn), images.rot90(1, (2, 3)))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_rand_augment_applies_its_ops_one_after_the_other(shape):
    images = pictures(60, *shape)
    drawn = draw_rand_augment(60, shape[1:], generator(), num_ops=3)
    step_by_step = images
    for k in range(3):
        step_by_step = apply_ops(step_by_step, {name: values[:, k : k + 1] for name, values in drawn.items()})
    assert torch.equal(apply_ops(images, drawn), step_by_step)
    assert (step_by_step != images).any()


@pytest.mark.parametrize(("draw", "places"), [("trivial", 1), ("rand", 2)])
def test_every_op_is_drawn_equally_often_and_in_every_place_independently(draw, places):
    count = 42_000
    drawn = (
        draw_trivial_augment(count, generator())
        if draw == "trivial"
        else draw_rand_augment(count, (32, 32), generator())
    )
    assert drawn["op"].shape == drawn["magnitude"].shape == (count, places)
    combined = drawn["op"][:, 0] if places == 1 else drawn["op"][:, 0] * 14 + drawn["op"][:, 1]
    counts = torch.bincount(combined, minlength=14**places)
    share = 1 / 14**places
    assert len(counts) == 14**places
    assert (counts - count * share).abs().max() <= 4 * (count * share * (1 - share)) ** 0.5


def test_trivial_augment_draws_torchvisions_magnitudes_equally_often_with_either_sign():
    drawn = draw_trivial_augment(420_000, generator())
    for index, name in enumerate(OPS):
        values = drawn["magnitude"][drawn["op"] == index]
        rows = [ours for _, ours in torchvisions_rows(v2.TrivialAugmentWide(), name, 32, 32)]
        expected, shares = torch.tensor(rows).unique(return_counts=True)
        drawn_values, counts = values.unique(return_counts=True)
        torch.testing.assert_close(drawn_values, expected, atol=1e-6, rtol=1e-6)
        shares = shares / len(rows)
        spread = (len(values) * shares * (1 - shares)).sqrt()
        assert ((counts - len(values) * shares).abs() <= 4 * spread).all(), name


@pytest.mark.parametrize(("size", "magnitude", "bins"), [((32, 32), 9, 31), ((28, 40), 14, 31), ((224, 224), 5, 10)])
def test_rand_augment_draws_torchvisions_magnitude_with_either_sign(size, magnitude, bins):
    drawn = draw_rand_augment(20_000, size, generator(), num_ops=1, magnitude=magnitude, bins=bins)
    for index, name in enumerate(OPS):
        values = drawn["magnitude"][drawn["op"] == index]
        theirs = v2.RandAugment._AUGMENTATION_SPACE[name][0](bins, *size)
        theirs = 0.0 if theirs is None else float(theirs[magnitude])
        theirs = {"TranslateX": int(theirs), "TranslateY": int(theirs), "Solarize": theirs * 255}.get(name, theirs)
        torch.testing.assert_close(values.abs(), torch.full_like(values, theirs))
        negative = (values < 0).double().mean().item()
        assert abs(negative - (0.5 if name in SIGNED else 0.0)) <= 4 * 0.5 / len(values) ** 0.5


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 17, 15)])
def test_an_image_comes_out_the_same_in_any_batch(shape):
    images, drawn = pictures(112, *shape), draw_rand_augment(112, shape[1:], generator())
    whole = apply_ops(images, drawn)
    orders = [torch.arange(112).split(size) for size in (1, 9, 64)] + [[torch.randperm(112, generator=generator())]]
    for parts in orders:
        rows = [{name: values[part] for name, values in drawn.items()} for part in parts]
        results = torch.cat([apply_ops(images[part], row) for part, row in zip(parts, rows, strict=True)])
        assert torch.equal(results, whole[torch.cat(list(parts))])


def test_an_image_comes_out_the_same_in_channels_last_order_and_stays_in_it():
    images, drawn = pictures(140, 3, 17, 15), draw_trivial_augment(140, generator())
    last = apply_ops(images.to(memory_format=torch.channels_last), drawn)
    assert last.is_contiguous(memory_format=torch.channels_last)
    contiguous = apply_ops(images, drawn)
    assert contiguous.is_contiguous()
    assert torch.equal(last, contiguous)


def test_the_images_given_are_not_written_to():
    images = pictures(140, 3, 16, 16)
    before = images.clone()
    apply_ops(images, draw_rand_augment(140, (16, 16), generator()))
    assert torch.equal(images, before)


def test_without_ops_images_stay_as_they_are():
    images = pictures(12, 3, 8, 8)
    assert torch.equal(apply_ops(images, draw_rand_augment(12, (8, 8), generator(), num_ops=0)), images)


@pytest.mark.parametrize(
    "draw",
    [lambda g: draw_trivial_augment(50, g), lambda g: draw_rand_augment(50, (32, 32), g)],
    ids=["trivial", "rand"],
)
def test_the_same_generator_draws_the_same_and_another_seed_others(draw):
    first, again, other = (draw(generator(seed)) for seed in (3, 3, 4))
    for name in ("op", "magnitude"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_ops": -1}, "num_ops=-1: must be 0 or more"),
        ({"magnitude": 31}, "magnitude=31: must be 0 to 30"),
        ({"magnitude": -1}, "magnitude=-1"),
        ({"bins": 1}, "bins=1: must be 2 or more"),
    ],
)
def test_a_value_out_of_range_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        draw_rand_augment(5, (32, 32), generator(), **arguments)
    if "bins" in arguments:
        with pytest.raises(ValueError, match=told):
            draw_trivial_augment(5, generator(), **arguments)
