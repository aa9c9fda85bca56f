"""Images brought to the shape of a model, compared with PIL, torchvision and numpy; the constants of the configs.

Only digits can always be recomputed, and CIFAR-10 where its JPEG files lie beside the repository. The constants of
MNIST, Fashion-MNIST and CIFAR-100 need downloads; Oxford-IIIT Pet has ImageNet's, synthetic those of even noise.
"""

import io
import tarfile

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, SHARED, checked_config
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from iolaus.config.build_data import read_inputs
from iolaus.data.open import sample_images
from iolaus.data.shape import ImageShape, channel_statistics, to_shape
from iolaus.data.sources import digits
from iolaus.data.split import LazyImages, Split
from iolaus.images import from_pil
from iolaus.settings import DatasetSettings

CIFAR10_JPEG = SHARED / "cifar10-jpeg.tar.xz"
SETTINGS = DatasetSettings()


def noise(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_images_that_fit_are_given_back_as_they_are():
    images = noise(3, 3, 32, 32)
    assert to_shape(images, 3, 32) is images


def test_grey_becomes_rgb_by_repetition():
    images = noise(4, 1, 8, 8)
    assert torch.equal(to_shape(images, 3, 8), images.repeat(1, 3, 1, 1))


def test_rgb_becomes_grey_as_pil_does_it():
    images = noise(4, 3, 32, 32)
    grey = to_shape(images, 1, 32)
    assert grey.dtype == torch.uint8
    assert grey.shape == (4, 1, 32, 32)
    for image, result in zip(images, grey, strict=True):
        expected = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(result[0].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("size", "target"), [(28, 32), (24, 32), (7, 8)])
def test_an_image_a_little_too_small_lies_intact_in_the_centre_of_zeros(size, target):
    images = noise(2, 1, size, size)
    padded = to_shape(images, 1, target)
    before = (target - size) // 2
    assert padded.shape == (2, 1, target, target)
    assert torch.equal(padded[..., before : before + size, before : before + size], images)
    assert padded.sum() == images.sum()


@pytest.mark.parametrize(
    ("height", "width"),
    [(64, 96), (96, 64), (50, 50), (200, 71), (8, 8), (20, 33), (33, 100), (31, 57), (375, 500), (1, 300), (37, 36)],
)
def test_other_images_are_resized_and_cropped_as_torchvision_does_it(height, width):
    images = noise(2, 3, height, width)
    expected = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(32)])(images)
    assert (to_shape(images, 3, 32).int() - expected.int()).abs().max() <= 1


# 2 × 3 pixels, so that height and width can't be mistaken for each other
GREY = np.array([[0, 50, 100], [150, 200, 255]], dtype=np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A transparent picture of `colour` (channels, height, width) before a white wall, as a viewer shows it."""
    opacity = alpha / 255
    return np.round(colour * opacity + 255 * (1 - opacity)).astype(np.uint8)


PICTURES = {
    "L": (Image.fromarray(GREY), GREY[None]),
    "1": (Image.fromarray(GREY > 120), (GREY > 120)[None] * 255),
    "LA": (Image.fromarray(np.stack([GREY, GREY // 3], axis=2), "LA"), over_white(GREY[None], GREY // 3)),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY[None]),
    "I": (Image.fromarray(GREY.astype(np.int32) * 257), GREY[None]),
    "F": (Image.fromarray(GREY.astype(np.float32)), GREY[None]),
    "RGB": (Image.fromarray(COLOUR), COLOUR.transpose(2, 0, 1)),
    "RGBA": (Image.fromarray(np.dstack([COLOUR, GREY])), over_white(COLOUR.transpose(2, 0, 1), GREY)),
    "P": (Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE), COLOUR.transpose(2, 0, 1)),
}


@pytest.mark.parametrize("mode", PICTURES)
def test_every_mode_of_pil_becomes_grey_or_rgb_of_8_bits(mode):
    picture, expected = PICTURES[mode]
    assert picture.mode == mode
    pixels = from_pil(picture)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, *expected.shape)
    rounding = 1 if picture.has_transparency_data else 0  # Pillow blends in whole numbers
    assert np.abs(pixels[0].numpy().astype(int) - expected).max() <= rounding


def test_a_png_file_of_16_bits_keeps_its_greys():
    file = io.BytesIO()
    Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)).save(file, "PNG")
    pixels = from_pil(Image.open(file)).flatten()
    assert torch.equal(pixels.int(), torch.arange(0, 65536, 256).div(257).round().int())


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics_are_those_of_numpy(channels):
    images = noise(250, channels, 9, 9) // torch.arange(1, channels + 1).view(-1, 1, 1)
    mean, std = channel_statistics(images)
    pixels = images.numpy() / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)))
    assert std == pytest.approx(pixels.std(axis=(0, 2, 3)))


@pytest.mark.parametrize("most", [3, 10, 11, 2000])
def test_the_sample_is_of_images_as_the_model_gets_them_wherever_they_live(most):
    images, targets, shape = noise(11, 3, 8, 8), torch.zeros(11, dtype=torch.int64), ImageShape(1, 12, 12)
    items = [(image, 0) for image in images]
    in_memory = sample_images(Split(images, targets), None, shape, SETTINGS, most)
    read_singly = Split(LazyImages(items, range(11)), targets)
    assert torch.equal(in_memory, sample_images(read_singly, None, shape, SETTINGS, most))
    assert torch.equal(in_memory, to_shape(images, 1, 12)[:: -(-11 // most)])


def test_the_sample_is_of_the_given_part_only():
    images, part = noise(11, 1, 8, 8), torch.tensor([2, 5, 7])
    split = Split(images, torch.zeros(11, dtype=torch.int64))
    assert torch.equal(sample_images(split, part, ImageShape(1, 8, 8), SETTINGS), images[part])


def test_a_constant_channel_is_not_divided_by_zero():
    _, std = channel_statistics(torch.full((2, 1, 4, 4), 7, dtype=torch.uint8))
    assert std[0] > 0


def test_evaluation_sees_the_centre_of_what_is_kept():
    images = noise(2, 3, 16, 16)
    assert torch.equal(ImageShape(3, 12, 16).centre(images), reference.center_crop(images, [12, 12]))
    assert ImageShape(3, 16, 16).centre(images) is images


def test_resize_256_and_centre_crop_224_are_torchvisions():
    image = noise(1, 3, 300, 410)
    shape = ImageShape(3, 224, 256)
    expected = reference.center_crop(reference.resize(image, [256], antialias=True), [224, 224])
    assert (shape.centre(shape.preprocess(image)).int() - expected.int()).abs().max() <= 1


def test_an_initial_function_comes_first_and_may_give_floats_and_any_size():
    images = noise(3, 3, 10, 14)
    shape = ImageShape(1, 8, 8, initial=lambda image: image[:, :9, :9].float() / 255)
    assert torch.equal(shape.preprocess(images), to_shape(images[..., :9, :9], 1, 8))


@pytest.mark.parametrize(("values", "levels"), [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 300.0], [0, 100, 255])])
def test_a_pil_image_of_floats_is_read_by_its_range(values, levels):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert from_pil(image).flatten().tolist() == levels


def constants(name):
    node = yaml.safe_load((ROOT / "conf" / "dataset" / f"{name}.yaml").read_text())
    return node["mean"], node["std"]


def test_the_constants_of_digits_are_those_of_its_training_images():
    pixels = digits().train.images.numpy() / 255
    mean, std = constants("digits")
    assert mean == pytest.approx([pixels.mean()], abs=0.0005)
    assert std == pytest.approx([pixels.std()], abs=0.0005)


def test_the_constants_of_synthetic_are_those_of_even_noise():
    levels = np.arange(256) / 255
    mean, std = constants("synthetic")
    assert mean == pytest.approx([levels.mean()], abs=0.001)
    assert std == pytest.approx([levels.std()], abs=0.001)


@pytest.mark.skipif(not CIFAR10_JPEG.is_file(), reason=f"{CIFAR10_JPEG.name} is not beside the repository")
def test_the_constants_of_cifar10_are_those_of_its_training_images():
    images = []
    with tarfile.open(CIFAR10_JPEG, "r|xz") as tar:
        for count, member in enumerate(m for m in tar if "/train/" in m.name and m.isfile()):
            if count % 10 == 0:
                images.append(np.asarray(Image.open(tar.extractfile(member))))
    pixels = np.stack(images) / 255
    assert len(images) == 5000
    mean, std = constants("cifar10")
    assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=0.005)
    assert std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=0.005)


@pytest.fixture
def small_pictures(tmp_path):
    """Of 30 × 40 and 32 × 32 pixels, which agree on no size."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(6):
            Image.new("RGB", (40, 30) if k % 2 else (32, 32), (k * 9, 0, 0)).save(tmp_path / name / f"{k}.png")
    return (f"dataset.root={tmp_path}", "dataset=image_folder", "model=resnet18")


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ((), "dataset.image_size=30 trains on 56 times fewer pixels"),  # (224 / 30)² = 55.8
        (("dataset.image_size=96",), "enlarged to 96; dataset.image_size=30 trains on 10 times"),
        (("model.image_size=96",), "enlarged to 96; model.image_size=30 trains on 10 times"),
        (("model.min_image_size=48",), "dataset.image_size=48 trains on 22 times fewer pixels"),
        (("dataset.image_size=60",), None),
        (("dataset.image_size=48", "model.min_image_size=64"), None),  # the model takes no smaller ones
    ],
)
def test_pictures_that_are_much_enlarged_are_told_with_what_would_be_faster(small_pictures, overrides, note):
    notes = read_inputs(checked_config(*small_pictures, *overrides)).notes
    assert [note in line for line in notes if "enlarged" in line] == [True] * (note is not None)
