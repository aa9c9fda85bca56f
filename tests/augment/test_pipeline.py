"""The group augmentation: what each key does to a batch, what is drawn for it, and that its parts compose."""

import random

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, generator
from torchvision.transforms import v2

from iolaus.augment.mix import Mixed
from iolaus.augment.pipeline import Augmentation, per_sample
from iolaus.data.epoch import EpochSettings
from iolaus.data.resident import Resident
from iolaus.data.shape import ImageShape
from iolaus.data.sources import Split
from iolaus.data.streaming import Streaming
from iolaus.settings import DatasetSettings

CPU = torch.device("cpu")
STATISTICS = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
LAYOUTS = [torch.contiguous_format, torch.channels_last]
OFF = {"crop_padding": 0, "flip": 0.0}
EVERYTHING = {
    "policy": "trivial_augment", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "erasing": 0.5,
    "mixup_alpha": 0.2, "cutmix_alpha": 0.2,
}  # fmt: skip


def noise(count=24, size=16):
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator())


def resident(images, size, layout=torch.contiguous_format, **keys):
    settings = settings_of(ImageShape(3, size, images.shape[-1]), **keys)
    return Resident(images.contiguous(memory_format=layout), torch.arange(len(images)) % 4, settings)


def streaming(images, workers=0, **keys):
    split, settings = Split(images, torch.arange(len(images)) % 4), settings_of(ImageShape(3, 16, 16), **keys)
    return Streaming(split, settings, DatasetSettings(num_workers=workers), CPU)


def settings_of(shape, **keys):
    return EpochSettings(shape, STATISTICS, Augmentation(**keys) if keys else None)


def options():
    folder = ROOT / "conf" / "augmentation"
    common = yaml.safe_load((ROOT / "conf" / "common" / "augmentation.yaml").read_text())
    del common["_target_"]
    return {path.stem: {**common, **yaml.safe_load(path.read_text())} for path in sorted(folder.glob("*.yaml"))}


@pytest.mark.parametrize(("image_size", "padding"), [(32, 4), (28, 3), (8, 1), (4, 1), (224, 28)])
def test_the_padding_is_an_eighth_of_the_image_and_all_its_corners_are_drawn(image_size, padding):
    corners = Augmentation().draw(10_000, image_size, image_size, generator())["crop"][:, :2]
    for corner in corners.unbind(dim=1):
        assert corner.unique().tolist() == list(range(2 * padding + 1))


def test_a_given_padding_replaces_the_eighth():
    drawn = Augmentation(crop_padding=6).draw(10_000, 32, 32, generator())["crop"]
    assert drawn[:, :2].unique().tolist() == list(range(13))
    assert not Augmentation(crop_padding=0).draw(100, 32, 32, generator())["crop"][:, :2].any()


def test_where_images_are_kept_larger_the_window_moves_in_them_without_padding():
    drawn = Augmentation().draw(10_000, 40, 32, generator())["crop"]
    assert drawn[:, :2].unique().tolist() == list(range(9))
    images = noise(50, 20)
    windows = images.unfold(2, 16, 1).unfold(3, 16, 1)
    data = resident(images, 16, flip=0.0)
    ((batch, _),) = data.batches(50, 0, train=True)
    levels = ((batch * 0.25 + 0.5) * 255).round().to(torch.uint8)
    for image in levels:
        assert any((windows[k] == image[:, None, None]).all(dim=(0, 3, 4)).any() for k in range(50))


@pytest.mark.parametrize("flip", [0.0, 0.2, 0.5, 1.0])
def test_the_flip_is_drawn_with_its_probability(flip):
    flips = Augmentation(flip=flip).draw(20_000, 32, 32, generator())["crop"][:, 2]
    assert set(flips.tolist()) <= {0, 1}
    assert abs(flips.double().mean().item() - flip) <= 4 * (flip * (1 - flip) / 20_000) ** 0.5


def test_top_left_and_flip_are_drawn_independently():
    correlation = torch.corrcoef(Augmentation().draw(20_000, 32, 32, generator())["crop"].double().T)
    assert (correlation - torch.eye(3)).abs().max() < 0.03


def test_an_image_that_must_not_be_mirrored_never_is():
    assert not Augmentation(flip=1.0, mirror=False).draw(1000, 8, 8, generator())["crop"][:, 2].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_switched_off_leaves_the_images_as_they_are(layout):
    images = noise()
    off, bare = resident(images, 16, layout, **OFF), resident(images, 16, layout)
    for (one, _), (other, _) in zip(off.batches(8, 3, train=True), bare.batches(8, 3, train=True), strict=True):
        assert torch.equal(one, other)
    assert Augmentation(**OFF).draw(5, 16, 16, generator()) == {}


@pytest.mark.parametrize("name", sorted(options()))
def test_each_option_of_the_group_changes_what_it_says_and_keeps_shape_and_type(name):
    images, keys = noise(), options()[name]
    (batch, targets), *_ = resident(images, 16, **keys).batches(24, 0, train=True)
    (bare, bare_targets), *_ = resident(images, 16).batches(24, 0, train=True)
    assert batch.shape == bare.shape
    assert batch.dtype == torch.float32
    assert torch.equal(batch, bare) == (name == "none")
    assert isinstance(targets, Mixed) == ("mix" in name)
    assert torch.equal(targets.targets if isinstance(targets, Mixed) else targets, bare_targets)


@pytest.mark.parametrize("keys", [EVERYTHING, {**EVERYTHING, "scale": [0.3, 1.0], "policy": "rand_augment"}])
def test_all_of_it_at_once_is_the_same_in_both_memory_layouts_and_streaming(keys):
    images = noise(20)
    data = [resident(images, 16, layout, **keys) for layout in LAYOUTS]
    data.append(streaming(images, **keys))
    first, second, third = ([*each.batches(6, 2, train=True)] for each in data)
    for (one, targets), (other, other_targets), (streamed, _) in zip(first, second, third, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5 / 255)  # a level or so, of rounding
        torch.testing.assert_close(one, streamed, rtol=0, atol=1e-6)
        assert targets.share == other_targets.share


@pytest.mark.parametrize("keys", [{}, {**EVERYTHING, "mixup_alpha": 0.0, "cutmix_alpha": 0.0}])
def test_images_do_not_depend_on_the_batch_size(keys):
    data = resident(noise(), 16, **{"flip": 0.5, **keys})
    small, large = (torch.cat([images for images, _ in data.batches(size, 1, train=True)]) for size in (6, 24))
    torch.testing.assert_close(small, large)


def test_the_same_generator_draws_the_same_and_another_seed_others():
    augmentation = Augmentation(**EVERYTHING)
    first, again, other = (augmentation.draw(50, 32, 32, generator(seed)) for seed in (3, 3, 4))
    assert first.keys() == again.keys() == other.keys()
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_one_share_is_drawn_for_a_batch_and_batches_and_epochs_have_others():
    data = resident(noise(), 16, mixup_alpha=1.0)
    shares = [targets.share for epoch in range(3) for _, targets in data.batches(6, epoch, train=True)]
    assert len(set(shares)) == 12
    assert [targets.share for _, targets in data.batches(6, 1, train=True, start=2)] == shares[6:8]


def test_evaluation_is_never_mixed_nor_erased():
    images = noise()
    for (one, targets), (other, _) in zip(
        resident(images, 16, **EVERYTHING).batches(6, 0, train=False),
        resident(images, 16).batches(6, 0, train=False), strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)
        assert isinstance(targets, torch.Tensor)


# ---- a transform of one's own --------------------------------------------------------------------------------


def test_a_per_sample_transform_draws_anew_for_each_image_of_a_batch():
    """Given a batch of equal images, torchvision's v2 would crop all of them alike."""
    image = torch.arange(3 * 16 * 16).remainder(251).to(torch.uint8).view(1, 3, 16, 16).expand(64, -1, -1, -1)
    assert len(v2.RandomCrop(16, padding=4)(image).flatten(1).unique(dim=0)) == 1
    data = resident(image.contiguous(), 16, transform=v2.RandomCrop(16, padding=4), **OFF)
    ((images, _),) = data.batches(64, 0, train=True)
    assert len(images.flatten(1).unique(dim=0)) > 25  # of 81 places


def noisy(image):
    """Draws from all the generators that there are."""
    return (image.float() / 255 + torch.rand(1) * 0.2 + np.random.rand() * 0.2 + random.random() * 0.2).clamp(0, 1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("keys", [{"transform": noisy}, {"scale": [0.1, 0.6]},
                                  {"transform": v2.TrivialAugmentWide(), "scale": [0.5, 1.0]}])  # fmt: skip
def test_what_workers_draw_depends_on_seed_epoch_and_index_alone(keys):
    images, epochs = noise(22), []
    for workers in (0, 1, 2, 4):
        data = streaming(images, workers, **keys)
        epochs.append([torch.cat([images for images, _ in data.batches(5, epoch, train=True)]) for epoch in (0, 1)])
        data.close()
    whole = resident(images, 16, **keys)
    epochs.append([torch.cat([images for images, _ in whole.batches(10, epoch, train=True)]) for epoch in (0, 1)])
    for first, second in epochs:
        assert torch.equal(first, epochs[0][0])
        assert torch.equal(second, epochs[0][1])
        assert not torch.equal(first, second)


def test_a_photograph_is_cropped_from_all_of_it_and_not_from_its_kept_square():
    """A wide image whose left end alone is bright: the central square has no such pixel."""
    image = torch.zeros(30, 3, 16, 64, dtype=torch.uint8)
    image[..., :8] = 255
    data = streaming(image, scale=[0.1, 0.3], flip=0.0)
    ((images, _),) = data.batches(30, 0, train=True)
    ((centre, _),) = data.batches(30, 0, train=False)
    assert images.max() > centre.max()


@pytest.mark.parametrize(
    ("transform", "told"),
    [(v2.CenterCrop(8), "transform=CenterCrop: gives 3x8x8 for an image of 3x16x16; must keep the shape"),
     (lambda image: image.numpy(), "gives ndarray for an image of 3x16x16")],
)  # fmt: skip
def test_a_transform_that_does_not_keep_the_shape_is_refused(transform, told):
    with pytest.raises(ValueError, match=told):
        per_sample(transform, noise(1), [0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"crop_padding": -1}, "crop_padding=-1"), ({"flip": 1.5}, "flip=1.5"), ({"flip": -0.1}, "flip=-0.1"),
     ({"erasing": 2.0}, "erasing=2.0"), ({"hue": 0.6}, "hue=0.6"), ({"mixup_alpha": -1.0}, "mixup_alpha=-1.0"),
     ({"scale": [0.5, 0.2]}, r"scale=\[0.5, 0.2\]"), ({"scale": [0.0, 1.0]}, "scale="),
     ({"magnitude": 31}, "magnitude=31"), ({"ratio": (2.0, 1.0)}, "ratio="), ({"num_ops": 0}, "num_ops=0"),
     ({"brightness": -0.1}, "brightness=-0.1")],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        Augmentation(**arguments)


def test_a_border_that_is_reflected_is_smaller_than_the_image():
    Augmentation(padding_mode="reflect", crop_padding=7).check_size(8, 8)
    Augmentation(padding_mode="zeros", crop_padding=8).check_size(8, 8)
    with pytest.raises(ValueError, match="crop_padding=8: must be below 8 pixels, the image that is reflected"):
        Augmentation(padding_mode="reflect", crop_padding=8).check_size(8, 8)
    with pytest.raises(ValueError, match="crop_padding=8: must be below 8 pixels"):
        Augmentation(padding_mode="reflect", crop_padding=8, scale=(0.5, 1.0)).check_size(32, 8)


def test_the_crop_of_a_batch_has_the_border_that_is_asked_for():
    images = noise()
    keys = {"crop_padding": 3, "flip": 0.0}
    drawn = Augmentation(**keys).draw(24, 16, 16, generator())
    zeros, reflected = (Augmentation(**keys, padding_mode=m).apply(images, drawn, 16) for m in ("zeros", "reflect"))
    padded = torch.nn.functional.pad(images.float(), (3,) * 4, mode="reflect")
    for k, (top, left, _) in enumerate(drawn["crop"].tolist()):
        assert torch.equal(reflected[k].float(), padded[k, :, top : top + 16, left : left + 16])
    assert not torch.equal(zeros, reflected)
