"""Large JPEG files are decoded smaller: the same picture, turned and cut alike; the exact way is what it was."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import ORIENTATIONS, noise, write_oriented
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from iolaus.augment.pipeline import Augmentation
from iolaus.augment.resized_crop import boxes, draw_boxes, one_by_one, scale_boxes
from iolaus.data.cache import cache_key
from iolaus.data.decode import read_file
from iolaus.data.epoch import EpochSettings
from iolaus.data.image_files import ImageFiles
from iolaus.data.image_input import ImageInput
from iolaus.data.shape import ImageShape, to_shape
from iolaus.data.sources import from_torchvision
from iolaus.data.split import BrokenImage, LazyImages, Split, join
from iolaus.data.streaming import Streaming
from iolaus.files.moved import update_config
from iolaus.images import PixelRules, from_pil
from iolaus.settings import DatasetSettings
from iolaus.use.pictures import Pictures

SETTINGS = DatasetSettings(num_workers=0)


def smooth(height, width, seed=0):
    """A picture without fine detail, as an enlarged photograph: (height, width, 3) uint8."""
    coarse = torch.from_numpy(96 + noise(6, 8, 3, seed=seed) // 4).permute(2, 0, 1)
    return reference.resize(coarse, [height, width], interpolation=reference.InterpolationMode.BICUBIC).permute(1, 2, 0)


def images_in(*paths):
    return LazyImages(ImageFiles([(str(path), 0) for path in paths], ["?"]), range(len(paths)))


@pytest.fixture
def photograph(tmp_path):
    """303 × 403 pixels: no scale divides its sides."""
    path = tmp_path / "photograph.jpg"
    Image.fromarray(smooth(303, 403).numpy()).save(path, quality=95)
    return path


def difference(one, other):
    return float((one.float() - other.float()).abs().mean())


def of_all_pixels(path, size, interpolation="bilinear"):
    """What the model was given before there was a choice, by the formula."""
    pixels = from_pil(Image.open(path))
    height, width = pixels.shape[-2:]
    shape = [size * height // min(height, width), size * width // min(height, width)]
    resized = F.interpolate(pixels.float(), size=shape, mode=interpolation, antialias=True).round().clamp(0, 255)
    top, left = (round((length - size) / 2) for length in shape)
    return resized[..., top : top + size, left : left + size].to(torch.uint8)


# ---- the whole picture ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 100, 224])
def test_the_exact_way_is_the_formula_bit_for_bit(photograph, interpolation, size):
    exact = ImageShape(3, size, size, interpolation, resizing="exact").read(images_in(photograph), 0)
    assert torch.equal(exact, of_all_pixels(photograph, size, interpolation))


@pytest.mark.parametrize(("interpolation", "levels"), [("bilinear", 1), ("bicubic", 2)])
@pytest.mark.parametrize(("height", "width"), [(96, 130), (131, 96), (20, 33)])
def test_the_fast_way_is_within_a_level_of_pillows_resizing_on_noise(interpolation, levels, height, width):
    picture = Image.fromarray(noise(height, width, 3))
    shorter = min(height, width)
    shape = [64 * width // shorter, 64 * height // shorter]
    expected = np.array(picture.resize(shape, getattr(Image.Resampling, interpolation.upper())))
    top, left = (round((length - 64) / 2) for length in expected.shape[:2])
    expected = expected[top : top + 64, left : left + 64].astype(int)
    found = to_shape(from_pil(picture), 3, 64, interpolation)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= levels


@pytest.mark.parametrize(("factor", "size"), [(2, 100), (4, 70), (8, 32)])
def test_a_large_file_is_decoded_smaller_and_looks_the_same(photograph, factor, size):
    shape = ImageShape(3, size, size)
    assert shape.reduction(303, 403) == factor
    pixels, whole = images_in(photograph).read(0, shape.reduction)
    assert (tuple(pixels.shape[-2:]), whole) == ((-(-303 // factor), -(-403 // factor)), (303, 403, factor))
    assert difference(shape.read(images_in(photograph), 0), of_all_pixels(photograph, size)) < 1


def test_as_many_pixels_are_left_as_the_model_needs():
    at = {size: ImageShape(3, size, size).reduction(400, 600) for size in (49, 50, 51, 100, 101, 200, 201, 400, 800)}
    assert at == {49: 8, 50: 8, 51: 4, 100: 4, 101: 2, 200: 2, 201: 1, 400: 1, 800: 1}
    assert ImageShape(3, 100, 100, "bicubic").reduction(400, 600) == 2  # twice as many, for the filter to work on
    assert ImageShape(3, 90, 100).reduction(800, 600) == 4  # the kept square is what counts
    for all_pixels in ({"resizing": "exact"}, {"initial": torch.nn.Identity()}):
        assert ImageShape(3, 10, 10, **all_pixels).reduction(400, 600) == 1
    assert ImageShape(3, 10, 10).reduction(100, 900) == 1  # a thin one is cut before


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("upright", [True, False])
def test_a_turned_photograph_is_the_same_at_every_scale(tmp_path, orientation, upright):
    path, rules = tmp_path / "turned.jpg", PixelRules(upright=upright)
    write_oriented(path, smooth(120, 168).numpy(), orientation)
    whole, size = read_file(str(path), rules, lambda height, width: 1)
    asked = []
    reduced, same_size = read_file(str(path), rules, lambda height, width: asked.append((height, width)) or 4)
    assert tuple(whole.shape[-2:]) == size[:2] == same_size[:2]
    assert asked == [size[:2]]
    assert tuple(reduced.shape[-2:]) == (size[0] // 4, size[1] // 4)
    assert difference(reduced, reference.resize(whole, reduced.shape[-2:], antialias=True)) < 3


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_other_formats_are_decoded_as_they_are(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(smooth(80, 96).numpy()).save(path)
    pixels, size = images_in(path).read(0, lambda height, width: 4)
    assert (tuple(pixels.shape[-2:]), size) == ((80, 96), (80, 96, 1))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [True, False])
def test_every_kind_of_jpeg_is_the_same_picture_at_half_its_size(tmp_path, mode, progressive):
    path = tmp_path / "picture.jpg"
    Image.fromarray(smooth(80, 96).numpy()).convert(mode).save(path, quality=95, progressive=progressive)
    whole = images_in(path)[0]
    reduced, _ = images_in(path).read(0, lambda height, width: 2)
    assert reduced.shape == (1, 1 if mode == "L" else 3, 40, 48)
    assert difference(reduced, reference.resize(whole, [40, 48], antialias=True)) < 2


def test_a_cut_off_file_names_itself_at_every_scale(photograph):
    photograph.write_bytes(photograph.read_bytes()[:2000])
    for size in (32, 224):
        with pytest.raises(BrokenImage, match=r"can't read image .*photograph\.jpg: .*truncated"):
            ImageShape(3, size, size).read(images_in(photograph), 0)


def test_small_files_are_their_own_pixels_whatever_the_way(tmp_path):
    path = tmp_path / "small.jpg"
    Image.fromarray(noise(32, 32, 3)).save(path, quality=75)
    expected = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
    for way in ("fast", "exact"):
        assert torch.equal(ImageShape(3, 32, 32, resizing=way).read(images_in(path), 0), expected)


# ---- a part of it --------------------------------------------------------------------------------------------


def test_a_box_of_a_smaller_picture_is_the_same_part_of_it():
    drawn = draw_boxes(500, (0.001, 1.0), (0.75, 4 / 3), torch.Generator().manual_seed(0))
    whole = boxes(drawn, 303, 403, (0.75, 4 / 3))
    assert scale_boxes(whole, 1, (303, 403)) is whole
    for factor in (2, 4, 8):
        size = -(-303 // factor), -(-403 // factor)
        scaled = scale_boxes(whole, factor, size)
        assert (scaled[:, 2:] >= 1).all()
        assert (scaled[:, :2] >= 0).all()
        assert (scaled[:, :2] + scaled[:, 2:] <= torch.tensor(size)).all()
        exact = whole / factor
        assert ((scaled[:, :2] - exact[:, :2]).abs() <= 1).all()
        assert ((scaled[:, 2:] - exact[:, 2:]).abs() <= 1).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_random_crop_is_cut_from_the_smaller_picture_as_from_the_whole(tmp_path, orientation):
    path = tmp_path / "photograph.jpg"
    write_oriented(path, smooth(303, 403).numpy(), orientation)
    split = Split(LazyImages(ImageFiles([(str(path), 0)] * 24, ["?"]), range(24)), torch.zeros(24, dtype=torch.int64))
    augmentation = Augmentation(scale=(0.2, 1.0), flip=0)
    level = torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 1 / 255)  # normalised to levels
    made = {}
    for way in ("fast", "exact"):
        settings = EpochSettings(ImageShape(3, 24, 24, resizing=way), level, augmentation)
        data = Streaming(split, settings, SETTINGS, torch.device("cpu"))
        ((made[way], _),) = data.batches(24, epoch=3, train=True)
    assert not torch.equal(made["fast"], made["exact"])
    assert difference(made["fast"], made["exact"]) < 2.5
    pixels, drawn = from_pil(Image.open(path)), draw_boxes(24, (0.2, 1.0), augmentation.ratio, torch.Generator())
    assert difference(one_by_one(pixels, boxes(drawn[:1], 303, 403, augmentation.ratio), 24), made["exact"][:1]) > 5


# ---- wherever it is read -------------------------------------------------------------------------------------


def test_a_picture_is_the_same_bits_for_a_run_and_for_a_prediction(photograph):
    shape = ImageShape(3, 28, 32)
    saved = ImageInput(3, 28, 32, "bilinear", [0.5] * 3, [0.2] * 3, resizing="fast")
    assert saved.shape() == shape
    split = Split(images_in(photograph), torch.zeros(1, dtype=torch.int64))
    data = Streaming(split, EpochSettings(shape, saved.statistics), SETTINGS, torch.device("cpu"))
    ((trained, _),) = data.batches(1, epoch=0, train=False)
    predicted = saved.shape().read(LazyImages(Pictures([photograph]), [0]), 0)
    assert torch.equal(saved.normalise()(shape.centre(predicted)), trained)


def test_files_of_torchvisions_datasets_are_read_as_it_reads_them(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    kinds = {"RGB": "JPEG", "L": "JPEG", "CMYK": "JPEG", "P": "GIF", "RGBA": "PNG"}
    for number, (mode, kind) in enumerate(kinds.items()):
        Image.fromarray(smooth(80, 96, number).numpy()).convert(mode).save(folder / "images" / f"x_{number}.jpg", kind)
    lines = "".join(f"x_{number} {1 + number % 2} 1 1\n" for number in range(len(kinds)))
    for name in ("trainval", "test"):
        (folder / "annotations" / f"{name}.txt").write_text(lines)
    source = from_torchvision("OxfordIIITPet", str(tmp_path))
    for images in (source.train.images, join(source.train, source.test).images):
        for index in range(len(kinds)):
            expected = from_pil(source.train.images.item(index))
            assert torch.equal(images[index], expected)
            reduced = images.read(index, lambda height, width: 2)[0]
            assert (reduced.shape == expected.shape) == (index > 0)  # the RGB one alone is not opened by torchvision


def test_a_saved_run_without_the_key_goes_on_by_all_pixels():
    saved = {"channels": 3, "size": 8, "kept_size": 8, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3}
    assert ImageInput.from_plain(saved).shape().resizing == "exact"
    assert ImageInput.from_plain({**saved, "resizing": "fast"}).shape().resizing == "fast"
    assert update_config({"dataset": {"root": "a"}, "seed": 1}) == {
        "dataset": {"root": "a", "resizing": "exact"},
        "seed": 1,
    }
    assert update_config({"dataset": {"resizing": "fast"}}) == {"dataset": {"resizing": "fast"}}


def test_the_two_ways_have_caches_of_their_own(photograph):
    keys = {cache_key(images_in(photograph), ImageShape(3, 8, 8, resizing=way), SETTINGS) for way in ("fast", "exact")}
    assert len(keys) == 2


def test_a_picture_of_several_frames_in_a_jpeg_is_reduced_too(tmp_path):
    path, file = tmp_path / "portrait.jpg", io.BytesIO()
    frames = [Image.fromarray(smooth(80, 96, seed).numpy()) for seed in (0, 1)]
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:], quality=95)
    path.write_bytes(file.getvalue())
    assert Image.open(path).format == "MPO"
    reduced, whole = images_in(path).read(0, lambda height, width: 2)
    assert (tuple(reduced.shape[-2:]), whole) == ((40, 48), (80, 96, 2))
    assert difference(reduced, reference.resize(from_pil(frames[0]), [40, 48], antialias=True)) < 2
