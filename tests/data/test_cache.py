"""Images kept on disk after the initial step: found again, made anew when anything changed, whole or not there."""

import json
import multiprocessing
import os
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from iolaus.data import cache
from iolaus.data.cache import cache_key, read_through_cache
from iolaus.data.reading import read_all
from iolaus.data.shape import ImageShape
from iolaus.data.sources import image_folder
from iolaus.settings import DatasetSettings

SHAPE, SETTINGS = ImageShape(3, 8, 8), DatasetSettings()


def brighter(image, by=10):
    return (image.int() + by).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for k in range(12):
        path = tmp_path / "photos" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(10, 9, 3), dtype=np.uint8)).save(path)
    return image_folder(str(tmp_path / "photos")).train.images


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_time_no_image_is_read(photos, tmp_path, monkeypatch):
    expected, all_good = read_all(photos, SHAPE, SETTINGS)
    made, readable = read_through_cache(photos, SHAPE, SETTINGS, tmp_path / "cache")
    assert torch.equal(made, expected)
    assert torch.equal(readable, all_good)

    def refuse(*arguments, **options):
        raise AssertionError("an image was read")

    monkeypatch.setattr(cache, "read_all", refuse)
    again, readable = read_through_cache(photos, SHAPE, SETTINGS, tmp_path / "cache")
    assert torch.equal(again, expected)
    assert readable.all()


def test_what_is_written_into_the_images_does_not_reach_the_file(photos, tmp_path):
    read_through_cache(photos, SHAPE, SETTINGS, tmp_path)
    made, _ = read_through_cache(photos, SHAPE, SETTINGS, tmp_path)
    before = made.clone()
    made.zero_()
    assert torch.equal(read_through_cache(photos, SHAPE, SETTINGS, tmp_path)[0], before)


def test_every_cause_of_other_images_makes_another_key(photos, monkeypatch):
    shapes = [SHAPE, ImageShape(1, 8, 8), ImageShape(3, 8, 9), ImageShape(3, 8, 8, "bicubic"),
              ImageShape(3, 8, 8, initial=brighter), ImageShape(3, 8, 8, initial=torch.nn.Identity())]  # fmt: skip
    keys = [cache_key(photos, shape, SETTINGS) for shape in shapes]
    keys.append(cache_key(photos, SHAPE, DatasetSettings(on_bad_image="skip")))
    keys.append(cache_key(photos.take(torch.tensor([0, 1])), SHAPE, SETTINGS))
    path = photos.name(0)
    os.utime(path, (1, 1))
    keys.append(cache_key(photos, SHAPE, SETTINGS))
    monkeypatch.setattr("iolaus.machine.hardware.version", lambda package: "0")
    keys.append(cache_key(photos, SHAPE, SETTINGS))
    assert len(set(keys)) == len(keys)


def test_the_arguments_of_an_initial_function_are_part_of_the_key(photos):
    few, many = (ImageShape(3, 8, 8, initial=partial(brighter, by=by)) for by in (1, 2))
    assert cache_key(photos, few, SETTINGS) != cache_key(photos, many, SETTINGS)
    again = ImageShape(3, 8, 8, initial=partial(brighter, by=1))
    assert cache_key(photos, few, SETTINGS) == cache_key(photos, again, SETTINGS)


def test_pixels_in_memory_are_their_own_key():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    before = cache_key(images, SHAPE, SETTINGS)
    images[3, 2, 7, 7] = 1
    assert cache_key(images, SHAPE, SETTINGS) != before


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_file_is_made_anew_with_a_warning(photos, tmp_path, damage, caplog):
    expected, _ = read_through_cache(photos, SHAPE, SETTINGS, tmp_path)
    expected = expected.clone()
    path = tmp_path / f"{cache_key(photos, SHAPE, SETTINGS)}.npy"
    if damage == "other":
        np.save(path, np.zeros((2, 3, 8, 8), dtype=np.uint8))
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "cut" else 0])
    made, _ = read_through_cache(photos, SHAPE, SETTINGS, tmp_path)
    assert torch.equal(made, expected)
    assert "made anew" in caplog.text


def test_a_kill_leaves_no_file_that_is_half_full(photos, tmp_path, monkeypatch):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "read_all", killed)
    with pytest.raises(KeyboardInterrupt):
        read_through_cache(photos, SHAPE, SETTINGS, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_skipped_images_are_known_from_the_cache_too(photos, tmp_path):
    with open(photos.name(3), "r+b") as file:
        file.truncate(60)
    skip = DatasetSettings(on_bad_image="skip")
    for _ in range(2):
        _, readable = read_through_cache(photos, SHAPE, skip, tmp_path / "cache")
        assert readable.tolist() == [k != 3 for k in range(len(photos))]


def make_cache(photos, folder, start):
    start.wait()
    made, _ = read_through_cache(photos, SHAPE, SETTINGS, folder)
    assert torch.equal(made, read_all(photos, SHAPE, SETTINGS)[0])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_processes_may_make_it_at_once(photos, tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    workers = [context.Process(target=make_cache, args=(photos, tmp_path / "cache", start)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(files(tmp_path / "cache")) == 2


def test_a_run_with_a_cache_gives_the_numbers_of_one_without(command, photos, tmp_path):
    arguments = ("dataset=image_folder", "dataset.root=photos", "dataset.image_size=8", "model.widths=[4]",
                 "trainer.epochs=1", "trainer.batch_size=4", "dataset.validation=0.2", "tracker=none")  # fmt: skip
    results, kept = [], ["dataset.cache_dir=kept"]
    streaming = ["dataset.residency=streaming", "dataset.num_workers=0"]
    for k, more in enumerate(([], kept, kept, [*kept, *streaming])):
        outcome = command(*arguments, *more, f"hydra.run.dir=outputs/{k}")
        assert outcome.status == 0, outcome.err
        assert ("images from kept" in outcome.err) == (k > 1)
        results.append(json.loads((tmp_path / "outputs" / str(k) / "results.json").read_text())["metrics"]["last"])
    numbers = [{name: r[name] for name in ("train/loss", "val/loss", "test/loss")} for r in results]
    assert all(other == numbers[0] for other in numbers)
