"""What can't be read is told or left out, and counted; functions of the user's come from the configuration."""

import json

import numpy as np
import pytest
import torch
from conftest import thin
from PIL import Image

from iolaus.data.reading import read_all, worker_count
from iolaus.data.shape import ImageShape
from iolaus.data.sources import image_folder
from iolaus.data.split import BrokenImage
from iolaus.settings import DatasetSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # on a machine of one core
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),  # of Python, from 3.12
]
SMALL = ("dataset=image_folder", "dataset.root=photos", "dataset.image_size=8", "model.widths=[4]", "trainer.epochs=2",
         "trainer.batch_size=4", "dataset.validation=0.2", "tracker=none")  # fmt: skip


def write_photos(folder, count=40):
    random = np.random.default_rng(0)
    for k in range(count):
        path = folder / "ab"[k % 2] / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(9 + k % 5, 10, 3), dtype=np.uint8)).save(path)
    return folder


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(200)


@pytest.fixture
def broken(tmp_path):
    folder = write_photos(tmp_path / "photos")
    for name in ("a/06.jpg", "b/11.jpg", "b/21.jpg"):
        cut(folder / name)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_leave_the_others_in_their_places(broken, workers, caplog):
    images = image_folder(str(broken)).train.images
    good = [k for k in range(len(images)) if not images.name(k).endswith(("06.jpg", "11.jpg", "21.jpg"))]
    made, readable = read_all(images, ImageShape(3, 8, 8), DatasetSettings(on_bad_image="skip", num_workers=workers))
    assert readable.nonzero().flatten().tolist() == good
    for k in good:
        assert torch.equal(made[k], ImageShape(3, 8, 8).preprocess(images[k])[0])
    assert caplog.text.count("skipped: can't read image ") == len(images) - len(good)


@pytest.mark.parametrize("workers", [0, 2])
def test_by_default_the_first_that_is_broken_is_an_error_with_its_file(broken, workers):
    with pytest.raises(BrokenImage, match=r"can't read image .*(06|11|21)\.jpg"):
        read_all(image_folder(str(broken)).train.images, ImageShape(3, 8, 8), DatasetSettings(num_workers=workers))


def test_no_image_at_all_is_an_error_even_where_they_are_skipped(tmp_path):
    folder = write_photos(tmp_path / "photos", 8)
    for path in folder.glob("*/*"):
        cut(path)
    with pytest.raises(BrokenImage, match="can't read image"):
        image_folder(str(folder))


@pytest.mark.parametrize("residency", ["resident", "streaming"])
def test_a_run_counts_what_it_skips_in_its_results(command, broken, residency):
    outcome = command(*SMALL, f"dataset.residency={residency}", "dataset.num_workers=0", "dataset.on_bad_image=skip")
    assert outcome.status == 0, outcome.err
    assert outcome.results["skipped_images"] == 3
    assert outcome.err.count("skipped: can't read image") == 3
    assert "3 images could not be read and were left out; see run.log" in outcome.out


def test_streaming_trains_on_the_rest_of_a_batch(command, broken):
    outcome = command(*SMALL, "dataset.residency=streaming", "dataset.num_workers=0", "dataset.on_bad_image=skip",
                      "trainer.batch_size=100")  # fmt: skip
    assert outcome.status == 0, outcome.err
    for metrics in outcome.results["history"]:
        assert 0 <= metrics["train/accuracy"] <= 1


def test_cores_give_the_number_of_workers_up_to_four(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)  # of ranks that another test has left waiting
    for count, expected in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr("iolaus.data.reading.cores", lambda count=count: count)
        assert worker_count(None) == expected
    assert worker_count(0) == 0


# ---- functions of the user's ---------------------------------------------------------------------------------


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    (tmp_path / "my_images.py").write_text(
        "import torch\n"
        "def darker(image, by=2):\n    return image // by\n"
        "class Inverted:\n"
        "    def __init__(self, level=255):\n        self.level = level\n"
        "    def __call__(self, image):\n        return self.level - image\n"
        "def broken(image):\n    raise KeyError('nothing')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", ("my_images.*",))


TINY = ("dataset=synthetic", "dataset.size=8", "dataset.train_count=60", "dataset.test_count=20", "trainer.epochs=1",
        "trainer.batch_size=16", "dataset.validation=0.2", "tracker=none", "model.widths=[4]")  # fmt: skip


@pytest.mark.parametrize("key", ["dataset.initial", "augmentation.transform"])
@pytest.mark.parametrize(
    "value", ["my_images.darker", "{_target_: my_images.darker, by: 3}", "my_images.Inverted",
              "{_target_: my_images.Inverted, level: 200}", "torchvision.transforms.v2.RandAugment",
              "{_target_: torchvision.transforms.v2.GaussianBlur, kernel_size: 3}"],
)  # fmt: skip
def test_a_function_or_a_class_by_its_path_with_or_without_arguments(command, own_package, key, value, tmp_path):
    losses = []
    for number, more in enumerate(([], [f"{key}={value}"])):
        outcome = command(*TINY, *more, f"hydra.run.dir=outputs/{number}")
        assert outcome.status == 0, outcome.err
        results = json.loads((tmp_path / "outputs" / str(number) / "results.json").read_text())
        losses.append((results["metrics"]["last"]["train/loss"], results["metrics"]["last"]["test/loss"]))
    assert losses[0][0] != losses[1][0]


TOO_SMALL = "{_target_: torchvision.transforms.v2.CenterCrop, size: 4}"
MISTAKES = {
    "dataset.initial=my_images.lighter": "dataset.initial=my_images.lighter: not found",
    "dataset.initial=other.function": "dataset.initial=other.function: not among the packages that may be run",
    "dataset.initial={_target_: my_images.darker, bye: 3}":
        "dataset.initial.bye=3: darker has no such argument; did you mean by?",
    "augmentation.transform=my_images.broken":
        "augmentation.transform=broken: fails on the first image (KeyError: 'nothing')",
    "augmentation.transform=torchvision.transforms.v2.MixUp":
        "augmentation.transform=MixUp: fails on the first image (ValueError: labels should be index based",
    "augmentation.transform=3": "augmentation.transform=3: expected a dotted path, or _target_ with arguments",
    f"augmentation.transform={TOO_SMALL}":
        "augmentation.transform=CenterCrop: gives 3x4x4 for an image of 3x8x8; must keep the shape",
    "augmentation.erasing=2": "augmentation.erasing=2: must be a probability, 0 to 1",
    "augmentation.policy=rand": "augmentation.policy=rand: expected none or trivial_augment or rand_augment",
}  # fmt: skip


@thin(2)
@pytest.mark.parametrize(("given", "told"), MISTAKES.items())
def test_a_mistake_in_them_is_one_line_and_leaves_nothing(command, own_package, given, told):
    outcome = command(*TINY, given)
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith(f"iolaus: {told}")
    assert not (outcome.cwd / "outputs").exists()
