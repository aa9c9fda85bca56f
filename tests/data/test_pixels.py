"""Pixels as a viewer shows them: orientation, depth, transparency, channels; broken files all named at once."""

import io
import json

import numpy as np
import pytest
import torch
from pictures import COLORS, DEEP, LEVELS, ORIENTATIONS, noise, shape_of_alpha, write_deep, write_oriented, write_tree
from PIL import Image

from iolaus.config.build_data import set_pixel_rules
from iolaus.data.reading import read_all
from iolaus.data.shape import ImageShape, to_shape
from iolaus.data.sources import image_folder
from iolaus.data.split import BrokenImage, LazyImages
from iolaus.images import PixelRules, as_uint8, from_pil
from iolaus.settings import DatasetSettings

RUN = ("dataset=image_folder", "dataset.root=own", "model.widths=[4]", "trainer.epochs=1", "trainer.batch_size=4",
       "dataset.validation=0.3", "tracker=none", "dataset.num_workers=0")  # fmt: skip


def read(root, **settings):
    """The source of a folder with its rules, and their notes."""
    source = image_folder(str(root), 0.34)
    return source, set_pixel_rules(source, DatasetSettings(**settings))


def seen(source, index=0):
    """A training image as (height, width) or (height, width, 3)."""
    return (
        source.train.images[index][0].permute(1, 2, 0).numpy().squeeze(-1)
        if source.channels == 1
        else (source.train.images[index][0].permute(1, 2, 0).numpy())
    )


# ---- orientation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pictures_are_seen_upright_in_every_format(tmp_path, suffix, orientation):
    pixels = np.kron(noise(2, 3, 3), np.ones((8, 8, 1), np.uint8))  # even blocks, which JPEG keeps
    path = tmp_path / "own" / "a" / f"one{suffix}"
    write_oriented(path, pixels, orientation)
    write_tree(tmp_path / "own", ["a", "b"], count=2)
    source, _ = read(tmp_path / "own")
    dataset = source.train.images.dataset
    images = LazyImages(dataset, range(len(dataset)), source.train.images.rules)
    (index,) = [k for k in range(len(images)) if images.name(k) == str(path)]
    found = images[index][0].permute(1, 2, 0).numpy()
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).mean() <= 6  # that of another orientation is above 60


def test_exif_can_be_ignored_as_torchvision_does(tmp_path):
    pixels = np.kron(noise(2, 3, 3), np.ones((8, 8, 1), np.uint8))
    for label in "ab":
        for k in range(3):
            write_oriented(tmp_path / "own" / label / f"{k}.png", pixels + np.uint8(k), 6)
    as_stored, _ = read(tmp_path / "own", exif="ignore")
    assert as_stored.train.images[0].shape[2:] == (24, 16)
    upright, _ = read(tmp_path / "own")
    assert upright.train.images[0].shape[2:] == (16, 24)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b""])
def test_a_broken_exif_block_is_ignored(exif):
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "PNG", exif=exif)
    assert np.array_equal(from_pil(Image.open(file))[0].permute(1, 2, 0).numpy(), COLORS)


# ---- depth and transparency ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEEP)
def test_every_kind_of_picture_keeps_its_levels(tmp_path, name):
    source, _ = read(write_deep(tmp_path / "own", name))
    expected = DEEP[name][2]
    found = seen(source)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(np.unique(found)) == len(np.unique(expected))


def test_a_narrow_range_of_a_16_bit_scan_is_spread(tmp_path):
    values = 900 + LEVELS.astype(np.uint16)  # computed tomography: water is 1000
    for label in "ab":
        (tmp_path / label).mkdir()
        for k in range(3):
            scan = values.copy()
            scan[0, 0] = 1153 if k else 901
            Image.fromarray(scan).save(tmp_path / label / f"{k}.png")
    source, notes = read(tmp_path)
    assert notes == ["16-bit pictures: 901 is black, 1153 is white (dataset.value_range)"]
    assert seen(source).min() == 0
    assert seen(source).max() == 255


def test_the_range_is_one_for_all_pictures_so_that_a_dark_one_stays_dark(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for k in range(3):
            Image.fromarray((LEVELS / (255 if k else 2550)).astype(np.float32)).save(tmp_path / label / f"{k}.tif")
    source, _ = read(tmp_path)
    darkest = min(seen(source, k).max() for k in range(len(source.train.images)))
    assert darkest <= 26


def test_one_hot_pixel_does_not_take_the_contrast_of_all_others():
    from iolaus.data.ranges import decide_range, levels_of

    values = np.tile(np.arange(1000, 1200, dtype=np.uint16), (200, 1))
    values[0, 0] = 65535
    assert decide_range("I;16", [levels_of("a", values)]) == (1000, 1199)


def test_nan_is_black_and_counts_for_no_range(tmp_path):
    values = (LEVELS / 255).astype(np.float32)
    values[0, 0] = np.nan
    values[0, 1] = np.inf
    for label in "ab":
        (tmp_path / label).mkdir()
        for k in range(3):
            Image.fromarray(values).save(tmp_path / label / f"{k}.tif")
    source, _ = read(tmp_path)
    found = seen(source)
    assert (found[0, 0], found[0, 1]) == (0, 255)
    assert np.array_equal(found[1:], LEVELS[1:])


def test_floats_of_two_ranges_are_refused_with_a_file_of_each(command, tmp_path):
    for label in "ab":
        (tmp_path / "own" / label).mkdir(parents=True)
        for k in range(4):
            pixels = LEVELS.astype(np.float32) / (255 if k % 2 else 1)
            Image.fromarray(pixels).save(tmp_path / "own" / label / f"{k}.tif")
    outcome = command(*RUN)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("iolaus: dataset.value_range=null: of ")
    assert "hold values up to 1" in line
    assert "bring them to one range, or give it: [0,253]" in line
    assert command(*RUN, "dataset.value_range=[0,255]").status == 0


def test_a_range_that_is_given_is_taken(tmp_path):
    source, notes = read(write_deep(tmp_path, "12 bits in a 16-bit PNG"), value_range=[0, 65535])
    assert seen(source).max() == round(253 * 4095 / 65535)
    assert notes == ["16-bit pictures: 0 is black, 65535 is white (dataset.value_range)"]


def test_opaque_and_8_bit_pictures_are_read_bit_by_bit_as_before():
    for picture in (Image.fromarray(LEVELS), Image.fromarray(COLORS), Image.fromarray(COLORS).convert("P"),
                    Image.fromarray(np.dstack([COLORS, np.full_like(LEVELS, 255)]))):  # fmt: skip
        mode = "L" if picture.mode == "L" else "RGB"
        expected = torch.from_numpy(np.array(picture.convert(mode))).view(8, 8, -1).permute(2, 0, 1)
        assert torch.equal(from_pil(picture)[0], expected)


def test_half_transparent_pixels_are_mixed_with_the_background():
    picture = shape_of_alpha(100, np.full_like(LEVELS, 51))  # a fifth of 100 over four fifths of the background
    assert from_pil(picture, PixelRules(background=255)).unique().tolist() == [224]
    assert from_pil(picture, PixelRules(background=0)).unique().tolist() == [20]


@pytest.mark.parametrize("values", [torch.tensor([0, 4095]), torch.tensor([-1, 3]), torch.tensor([0.0, 255.0]),
                                    torch.tensor([-2.1, 2.6]), torch.tensor([0.0, torch.nan])])  # fmt: skip
def test_tensors_that_are_no_pixels_are_refused(values):
    with pytest.raises(ValueError, match="must be "):
        as_uint8(values)


def test_a_run_warns_of_pictures_without_content(command, tmp_path):
    for label in "ab":
        (tmp_path / "own" / label).mkdir(parents=True)
        for k in range(6):
            Image.new("RGB", (8, 8), (k, k, k)).save(tmp_path / "own" / label / f"{k}{label}.png")
    outcome = command(*RUN)
    assert outcome.status == 0, outcome.err
    assert "sampled training images are of one even level" in outcome.err


# ---- color or grey -------------------------------------------------------------------------------------------


def test_one_picture_in_color_among_hundreds_of_grey_ones_keeps_its_colors(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for k in range(150):
            Image.fromarray(noise(4, 4, seed=k)).save(tmp_path / label / f"{k}.jpg")
    assert image_folder(str(tmp_path)).channels == 1
    for k in (71, 72, 73):  # not all three are held out as the test set
        Image.fromarray(noise(4, 4, 3, seed=k)).save(tmp_path / "b" / f"{k}.jpg")
    assert image_folder(str(tmp_path)).channels == 3


# ---- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (3000, 1), (3, 100), (7, 61), (64, 1000), (8, 65)])
def test_a_thin_image_is_cropped_first_and_comes_out_the_same(height, width):
    from torchvision.transforms import v2

    images = torch.from_numpy(noise(1, 3, height, width))
    expected = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])(images)
    exact = 16 * max(height, width) % min(height, width) == 0  # else torchvision stretches by a part of a pixel
    difference = (to_shape(images, 3, 16).int() - expected.int()).abs()
    assert difference.max() <= 1 if exact else difference.float().mean() < 12


def test_a_thin_image_takes_the_memory_of_a_square_one():
    sizes = []
    interpolate = torch.nn.functional.interpolate

    def watch(image, size, *others, **options):
        sizes.append(size)
        return interpolate(image, size, *others, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.interpolate", watch)
        to_shape(torch.zeros(1, 3, 1, 3000, dtype=torch.uint8), 3, 224)
    assert sizes[0][0] * sizes[0][1] <= 10 * 224**2


# ---- broken files and large ones -----------------------------------------------------------------------------


@pytest.fixture
def with_broken(tmp_path):
    root = write_tree(tmp_path / "own", ["a", "b"], count=10)
    for name in ("a/3.png", "b/5.png", "b/7.png"):
        (root / name).write_bytes((root / name).read_bytes()[:60])
    return root


def test_verify_names_all_broken_files_at_once_and_leaves_nothing(command, with_broken, tmp_path):
    outcome = command(*RUN, "dataset.verify=true")
    assert outcome.status == 2
    first, *others = [line for line in outcome.err.splitlines() if line.startswith("iolaus: ")]
    assert first == ("iolaus: dataset.verify: 3 of 20 images can't be read; "
                     "dataset.on_bad_image=skip leaves them out")  # fmt: skip
    assert [line.split(":")[1].strip() for line in others] == [
        f"can't read image own/{name}" for name in ("a/3.png", "b/5.png", "b/7.png")
    ]
    assert not (tmp_path / "outputs").exists()


def test_verify_with_skip_trains_on_the_rest(command, with_broken):
    outcome = command(*RUN, "dataset.verify=true", "dataset.on_bad_image=skip")
    assert outcome.status == 0, outcome.err
    assert "verified: 17 of 20 images can be read" in outcome.err
    assert outcome.results["skipped_images"] == 3


def test_a_broken_file_is_named_with_what_to_do(with_broken):
    dataset = image_folder(str(with_broken)).train.images.dataset
    every = LazyImages(dataset, range(len(dataset)))
    with pytest.raises(BrokenImage, match=r"can't read image .*a/3\.png.*; dataset\.on_bad_image=skip leaves"):
        read_all(every, ImageShape(3, 8, 8), DatasetSettings())


def test_the_limit_against_decompression_bombs_is_a_key(tmp_path):
    write_tree(tmp_path, ["a", "b"])
    Image.new("L", (100, 80)).save(tmp_path / "a" / "large.png")
    before = Image.MAX_IMAGE_PIXELS
    images = LazyImages(image_folder(str(tmp_path)).train.images.dataset, range(7), PixelRules(max_pixels=7998))
    (large,) = [k for k in range(7) if images.name(k).endswith("large.png")]
    with pytest.raises(BrokenImage, match=r"large\.png: .*dataset\.max_pixels sets the limit"):
        images[large]
    images.rules = PixelRules(max_pixels=8000)
    assert images[large].shape[2:] == (80, 100)
    assert before == Image.MAX_IMAGE_PIXELS


def test_settings_of_pixels_out_of_range_are_refused(command):
    for given in ("dataset.value_range=[1,0]", "dataset.value_range=[1]", "dataset.max_pixels=0", "dataset.exif=no"):
        outcome = command(given)
        assert outcome.status == 2
        assert outcome.err.startswith(f"iolaus: {given.split('=')[0]}=")


def test_the_rules_are_part_of_what_a_cache_depends_on(tmp_path):
    from iolaus.data.cache import cache_key

    source, _ = read(write_deep(tmp_path, "floats from 0 to 1"))
    keys = []
    for rules in (source.train.images.rules, PixelRules(), PixelRules(upright=False), PixelRules(background=0)):
        source.train.images.rules = rules
        keys.append(cache_key(source.train.images, ImageShape(1, 8, 8), DatasetSettings()))
    assert len(set(keys)) == 4
    json.dumps(source.train.images.rules.__dict__)
