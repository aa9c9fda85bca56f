"""What a run saves of its pictures is enough to read another one as training did, bit for bit."""

import json
import os

import numpy as np
import pytest
import torch
from pictures import COLORS, noise, shape_of_alpha, write_oriented
from PIL import Image

from iolaus.config.build_data import set_pixel_rules
from iolaus.data.image_files import ImageFiles
from iolaus.data.image_input import ImageInput
from iolaus.data.sources import image_folder
from iolaus.data.split import LazyImages
from iolaus.images import PixelRules
from iolaus.settings import DatasetSettings

RUN = ("dataset=image_folder", "dataset.root=own", "model.widths=[4]", "trainer.epochs=1", "trainer.batch_size=4",
       "dataset.validation=0.3", "tracker=none", "dataset.num_workers=0")  # fmt: skip


def write_16_bit(path, k):
    """12 bits in 16, the first of them dark: its own range is not the data's."""
    pixels = noise(8, 8, seed=k).astype(np.uint16) * (16 if k else 2)
    Image.fromarray(pixels).save(path)


def write_floats(path, k):
    """From -1 to 1; the first of them has half of that."""
    Image.fromarray((noise(8, 8, seed=k) / (127.5 if k else 255) - 1).astype(np.float32)).save(path)


def write_rotated(path, k):
    write_oriented(path, np.roll(COLORS[:, :6], k, axis=0), 6)


def write_shape(path, k):
    """Black on transparent, which white makes visible and black does not."""
    shape_of_alpha(0, np.roll(noise(8, 8, seed=k), k)).save(path)


# name: (function that writes picture k, its suffix, settings of the dataset)
KINDS = {
    "12 bits in a 16-bit PNG": (write_16_bit, "png", {}),
    "a range that is given": (write_16_bit, "png", {"value_range": [100, 3000]}),
    "floats": (write_floats, "tif", {}),
    "rotated JPEG": (write_rotated, "jpg", {}),
    "rotated JPEG as it is stored": (write_rotated, "jpg", {"exif": "ignore"}),
    "shape in an RGBA PNG": (write_shape, "png", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_is_read_by_the_saved_input_as_in_training(command, tmp_path, name):
    write, suffix, settings = KINDS[name]
    for label in "ab":
        (tmp_path / "own" / label).mkdir(parents=True)
        for k in range(6):
            write(tmp_path / "own" / label / f"{k}.{suffix}", k)
    outcome = command(*RUN, *(f"dataset.{key}={value}" for key, value in settings.items()))
    assert outcome.status == 0, outcome.err

    source = image_folder("own")
    set_pixel_rules(source, DatasetSettings(**settings))
    trained_on = source.train.images
    saved = ImageInput.from_plain(json.loads((outcome.runs[0] / "results.json").read_text())["input"])
    for file in ("best.pt", "last.pt"):
        assert ImageInput.from_plain(torch.load(outcome.runs[0] / file, weights_only=True)["input"]) == saved
    for index in range(len(trained_on)):
        path = os.path.abspath(trained_on.name(index))
        assert torch.equal(LazyImages(ImageFiles([(path, 0)], ["?"]), [0], saved.pixels)[0], trained_on[index])
    others = PixelRules(background=0, upright=settings.get("exif") == "ignore")
    changed = LazyImages(ImageFiles([(path, 0)], ["?"]), [0], others)[0]
    assert not torch.equal(changed, trained_on[index])  # other rules would not have done


def test_what_was_saved_before_the_rules_is_read_by_their_defaults():
    saved = {"channels": 3, "size": 8, "kept_size": 8, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3}
    assert ImageInput.from_plain(saved).pixels == PixelRules()
