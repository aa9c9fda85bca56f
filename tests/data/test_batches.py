"""Batches of a training and an evaluation pass, resident and streaming; splits, and what decides between the two."""

import functools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import checked_config
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from iolaus.augment.pipeline import Augmentation
from iolaus.config.build_data import read_inputs
from iolaus.data.epoch import EpochPlan, EpochSettings
from iolaus.data.open import cached_source, clear_source_cache, image_shape, open_data
from iolaus.data.reading import Item
from iolaus.data.resident import Resident
from iolaus.data.shape import ImageShape
from iolaus.data.sources import Source, Split, image_folder
from iolaus.data.split import LazyImages
from iolaus.data.streaming import Streaming
from iolaus.machine.ranks import Ranks
from iolaus.settings import DatasetSettings, ModelSettings

CPU = torch.device("cpu")
STATISTICS = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
LEVELS = torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 1 / 255)  # a normalised pixel is its level
WORKERS = [0, 1, 2]
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # on a machine of one core
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),  # of Python, from 3.12
]


def noise_split(count=23):
    images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Split(images, torch.arange(count) % 4)


def numbered_split(first, count, num_classes=4):
    """Images that are known again: every pixel of the k-th has the level first + k."""
    levels = torch.arange(first, first + count, dtype=torch.uint8)
    return Split(levels.view(-1, 1, 1, 1).expand(-1, 3, 8, 8), torch.arange(count) % num_classes)


def numbers(batches):
    """The levels of numbered images, in the order of the batches."""
    return torch.cat([images[:, 0, 0, 0] for images, _ in batches]).round().long().tolist()


@pytest.fixture
def make():
    """Resident (workers=None) or Streaming data of a split; what reads it ends with the test."""
    made = []

    def of(split, workers=None, statistics=STATISTICS, size=8, layout=torch.contiguous_format, **more):
        settings = EpochSettings(ImageShape(3, size, 8), statistics, **more)
        if workers is None:
            made.append(Resident(split.images.contiguous(memory_format=layout), split.targets, settings))
        else:
            made.append(Streaming(split, settings, DatasetSettings(num_workers=workers), CPU, layout))
        return made[-1]

    yield of
    for data in made:
        data.close()


def assert_same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected) > 0
    for (images, targets), (other_images, other_targets) in zip(batches, expected, strict=True):
        assert images.dtype == torch.float32
        assert targets.dtype == torch.int64
        assert torch.equal(images, other_images)
        assert torch.equal(targets, other_targets)


# ---- a pass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_streaming_gives_the_batches_of_resident(make, workers):
    split = noise_split()
    resident = make(split, augmentation=Augmentation(), seed=5)
    streaming = make(split, workers, augmentation=Augmentation(), seed=5)
    assert len(streaming) == len(resident) == 23
    for epoch in (0, 1, 7):
        assert_same(streaming.batches(5, epoch, train=True), resident.batches(5, epoch, train=True))
        assert_same(streaming.batches(6, epoch, train=False), resident.batches(6, epoch, train=False))


@pytest.mark.parametrize("workers", [None, 0])
def test_every_training_epoch_is_another_permutation_in_full_batches(make, workers):
    data = make(numbered_split(0, 23), workers, LEVELS)
    epochs = [list(data.batches(5, epoch, train=True)) for epoch in range(6)]
    for batches in epochs:
        assert [len(images) for images, _ in batches] == [5, 5, 5, 5]
        assert len(set(numbers(batches))) == 20
    assert len({tuple(numbers(batches)) for batches in epochs}) == 6


@pytest.mark.parametrize("workers", [None, 0])
def test_an_epoch_is_a_function_of_seed_and_epoch_alone(make, workers):
    split = numbered_split(0, 23)
    first, again, other = (make(split, workers, LEVELS, seed=seed) for seed in (1, 1, 2))
    list(first.batches(5, 0, train=True))
    orders = [numbers(data.batches(5, 3, train=True)) for data in (first, again, other)]
    assert orders[0] == orders[1] != orders[2]


def test_targets_stay_with_their_images(make):
    data = make(numbered_split(0, 23), None, LEVELS)
    for images, targets in data.batches(5, 0, train=True):
        assert torch.equal(images[:, 0, 0, 0].round().long() % 4, targets)


@pytest.mark.parametrize("workers", [None, *WORKERS])
def test_evaluation_counts_every_image_once_in_order(make, workers):
    data = make(numbered_split(0, 23), workers, LEVELS)
    batches = list(data.batches(10, 0, train=False))
    assert [len(images) for images, _ in batches] == [10, 10, 3]
    assert numbers(batches) == list(range(23))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("workers", [None, 0, 2])
def test_start_leaves_out_the_first_batches_and_no_others(make, workers, train):
    data = make(noise_split(), workers, augmentation=Augmentation())
    whole = list(data.batches(5, 2, train))
    for start in range(1, len(whole)):
        assert_same(data.batches(5, 2, train, start=start), whole[start:])
    assert list(data.batches(5, 2, train, start=len(whole))) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_a_pass_that_was_left_halfway_does_not_leak_into_the_next(make, workers):
    data = make(noise_split(), workers, augmentation=Augmentation())
    next(data.batches(4, 0, train=True))
    another = make(noise_split(), augmentation=Augmentation())
    assert_same(data.batches(5, 1, train=True), another.batches(5, 1, train=True))


@pytest.mark.parametrize("workers", [None, 0])
def test_augmentation_is_of_training_only(make, workers):
    split = noise_split(20)
    plain, flipped = make(split, workers), make(split, workers, augmentation=Augmentation(crop_padding=0, flip=1.0))
    assert_same(flipped.batches(5, 0, train=False), plain.batches(5, 0, train=False))
    mirrored = [(images.flip(-1), targets) for images, targets in plain.batches(5, 0, train=True)]
    assert_same(flipped.batches(5, 0, train=True), mirrored)


def sides(batches):
    """{number of an image: whether it is mirrored}, of images that are dark on the left and bright on the right."""
    pairs = [(images[:, 1, 0, 0].round().long(), images[:, 0, 0, 0] > images[:, 0, 0, -1]) for images, _ in batches]
    return {number: turned for some in pairs for number, turned in zip(*(part.tolist() for part in some), strict=True)}


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_alternating_flips_are_functions_of_seed_image_and_epoch(make, workers):
    split = numbered_split(0, 40)
    split.images = split.images.clone()
    split.images[:, 0, :, 4:] = 255
    split.images[:, 0, :, :4] = 0
    keys = {"crop_padding": 0, "flip_mode": "alternate"}
    data, again, other = (make(split, workers, LEVELS, augmentation=Augmentation(**keys), seed=s) for s in (5, 5, 6))
    epochs = [sides(data.batches(10, epoch, train=True)) for epoch in range(5)]
    assert 8 < sum(epochs[0].values()) < 32
    for epoch, seen in enumerate(epochs):
        assert seen == {number: turned ^ bool(epoch % 2) for number, turned in epochs[0].items()}
    # from a later epoch and batch on, in batches of another size, on each of several ranks
    later = sides(again.batches(10, 3, train=True, start=2))
    assert later.items() <= epochs[3].items()
    assert len(later) == 20
    assert sides(again.batches(8, 4, train=True)) == epochs[4]
    for rank in range(2):
        its = sides(again.batches(10, 1, train=True, group=Ranks(rank, 2, CPU, None)))
        assert its.items() <= epochs[1].items()
        assert len(its) == 20
    assert sides(other.batches(10, 0, train=True)) != epochs[0]


def test_alternating_flips_leave_the_order_and_the_crops_as_they_are():
    modes = [EpochSettings(ImageShape(3, 8, 8), STATISTICS, Augmentation(flip_mode=m)) for m in ("random", "alternate")]
    random, alternate = (EpochPlan(settings, 50, 1, train=True) for settings in modes)
    assert torch.equal(random.order, alternate.order)
    assert torch.equal(random.drawn["crop"][:, :2], alternate.drawn["crop"][:, :2])
    assert not torch.equal(random.drawn["crop"], alternate.drawn["crop"])


@pytest.mark.parametrize(("flip", "mirror"), [(0.0, True), (0.5, False)])
def test_no_image_alternates_where_none_is_to_be_mirrored(make, flip, mirror):
    split = noise_split(20)
    keys = {"crop_padding": 0, "flip": flip, "mirror": mirror}
    plain, alternate = (make(split, augmentation=Augmentation(**keys, flip_mode=m)) for m in ("random", "alternate"))
    for epoch in (0, 1):
        assert_same(alternate.batches(5, epoch, train=True), plain.batches(5, epoch, train=True))


def test_images_are_normalised_as_torchvision_does_it(make):
    split = noise_split()
    ((images, _),) = make(split).batches(23, 0, train=False)
    expected = reference.normalize(split.images / 255, *(values.flatten().tolist() for values in STATISTICS))
    torch.testing.assert_close(images, expected)


def test_the_images_themselves_are_not_changed_by_a_pass(make):
    split = noise_split()
    before = split.images.clone()
    data = make(split, augmentation=Augmentation())
    for train in (True, False):
        list(data.batches(5, 0, train))
    assert torch.equal(data.images, before)


# ---- from a source to three splits ---------------------------------------------------------------------------


def opened(source, augmentation=None, seed=0, **settings):
    dataset = DatasetSettings(**settings)
    shape = image_shape(source, dataset, ModelSettings(), None)
    return open_data(source, dataset, shape, augmentation=augmentation, seed=seed, device=CPU)


def numbered_source():
    """100 training images of the levels 0 to 99, 40 test images of the levels 200 to 239."""
    return Source(numbered_split(0, 100), numbered_split(200, 40), list("abcd"), channels=3, image_size=8)


def held(split):
    return numbers(split.batches(7, 0, train=False))


LEVEL_SETTINGS = {"mean": [0.0], "std": [1 / 255]}


def test_validation_is_a_stratified_part_of_train_and_test_is_left_alone():
    data = opened(numbered_source(), validation=0.2, **LEVEL_SETTINGS)
    assert sorted(held(data.train) + held(data.val)) == list(range(100))
    assert [sum(k % 4 == label for k in held(data.val)) for label in range(4)] == [5, 5, 5, 5]
    assert held(data.test) == list(range(200, 240))
    assert not data.selected_on_test


def test_validation_is_fixed_across_seeds_and_moves_with_validation_seed():
    first, other_seed, other_part = (
        held(opened(numbered_source(), seed=seed, validation_seed=part, **LEVEL_SETTINGS).val)
        for seed, part in ((0, 0), (1, 0), (0, 1))
    )
    assert first == other_seed
    assert first != other_part


def test_validation_on_test_trains_on_all_and_says_so():
    data = opened(numbered_source(), validation="test", **LEVEL_SETTINGS)
    assert held(data.train) == list(range(100))
    assert held(data.val) == held(data.test) == list(range(200, 240))
    assert data.selected_on_test
    assert "test as validation" in data.description


@pytest.mark.parametrize(
    ("residency", "spare", "kind"),
    [("auto", 0, Resident), ("auto", -1, Streaming), ("resident", -1, Resident), ("streaming", 0, Streaming)],
)
def test_auto_is_resident_up_to_a_quarter_of_the_free_memory(monkeypatch, residency, spare, kind):
    size = 140 * 3 * 8 * 8
    monkeypatch.setattr("iolaus.data.open.free_memory", lambda device: 4 * size + spare)
    data = opened(numbered_source(), residency=residency, num_workers=0)
    assert [type(split) for split in (data.train, data.val, data.test)] == [kind] * 3
    assert ("resident" in data.description) == (kind is Resident)


@pytest.mark.parametrize("residency", ["resident", "streaming"])
def test_missing_statistics_are_those_of_the_training_images(residency):
    data = opened(numbered_source(), residency=residency, num_workers=0, validation=0.2)
    ((images, _),) = data.train.batches(len(data.train), 0, train=False)
    assert images.double().mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert images.double().std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_one_value_of_the_statistics_is_for_all_channels_and_two_are_for_none():
    given = opened(numbered_source(), mean=[0.1], std=[0.5])
    assert given.train.normalise.shift.flatten().tolist() == pytest.approx([-0.2] * 3)
    with pytest.raises(ValueError, match="mean and std have 2 values, the images 3 channels"):
        opened(numbered_source(), mean=[0.1, 0.2], std=[0.5, 0.5])


@pytest.mark.parametrize("workers", WORKERS)
def test_files_of_many_sizes_give_the_same_batches_resident_and_streaming(tmp_path, workers):
    write_photos(tmp_path)
    settings = {"augmentation": Augmentation(), "image_size": 16, "validation": 0.2}
    resident = opened(image_folder(str(tmp_path)), residency="resident", **settings)
    streaming = opened(image_folder(str(tmp_path)), residency="streaming", num_workers=workers, **settings)
    assert_same(streaming.train.batches(4, 1, train=True), resident.train.batches(4, 1, train=True))
    assert_same(streaming.val.batches(4, 1, train=False), resident.val.batches(4, 1, train=False))
    streaming.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_names_the_file_that_breaks_it(tmp_path, workers):
    write_photos(tmp_path)
    given = {"mean": [0.5], "std": [0.5]}  # else a broken image is met while the statistics are computed
    data = opened(image_folder(str(tmp_path)), residency="streaming", num_workers=workers, image_size=16, **given)
    broken = data.val.images.name(0)
    with open(broken, "r+b") as file:
        file.truncate(300)
    with pytest.raises(ValueError, match=f"can't read image {broken}"):
        list(data.val.batches(4, 0, train=False))
    data.close()


def write_photos(folder, count=12):
    random = np.random.default_rng(0)
    for k in range(2 * count):
        path = folder / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(256, size=(20 + k, 30 - k // 2, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize("mirror", [True, False])
def test_images_are_flipped_only_where_the_dataset_allows_it(make, mirror):
    augmentation = Augmentation(flip=1.0, crop_padding=0, mirror=mirror)
    images, _ = next(make(noise_split(), augmentation=augmentation).batches(20, 0, train=True))
    expected, _ = next(make(noise_split()).batches(20, 0, train=True))
    assert torch.equal(images, expected.flip(-1) if mirror else expected)


# ---- what reaches the model ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "model", "expected"),
    [
        ({}, {}, (1, 28)),
        ({}, {"in_channels": 3}, (3, 28)),
        ({"image_size": 40}, {}, (1, 40)),
        ({}, {"image_size": 64}, (1, 64)),
        ({"image_size": 40}, {"image_size": 24}, (1, 24)),
        ({}, {"min_image_size": 32}, (1, 32)),
        ({}, {"min_image_size": 8}, (1, 28)),
        ({"image_size": 40}, {"min_image_size": 48, "in_channels": 3}, (3, 48)),
    ],
)
def test_the_model_decides_on_the_images_before_the_dataset_before_the_source(dataset, model, expected):
    source = SimpleNamespace(channels=1, image_size=28)
    shape = image_shape(source, DatasetSettings(**dataset), ModelSettings(**model), None)
    assert (shape.channels, shape.size) == expected


def test_a_colour_dataset_is_grey_for_a_model_of_one_channel():
    source = SimpleNamespace(channels=3, image_size=32)
    assert image_shape(source, DatasetSettings(), ModelSettings(in_channels=1), None) == ImageShape(1, 32, 32)


# ---- the last batch, the order, the memory -------------------------------------------------------------------


@pytest.mark.parametrize("workers", [None, 0])
def test_the_last_batch_of_training_is_kept_when_asked_for(make, workers):
    data = make(numbered_split(0, 23), workers, LEVELS, drop_last=False)
    batches = list(data.batches(5, 0, train=True))
    assert [len(images) for images, _ in batches] == [5, 5, 5, 5, 3]
    assert sorted(numbers(batches)) == list(range(23))
    assert_same(data.batches(5, 0, train=True, start=4), batches[4:])


@pytest.mark.parametrize("workers", [None, 0])
def test_the_order_stays_when_it_is_not_to_be_shuffled(make, workers):
    data = make(numbered_split(0, 23), workers, LEVELS, shuffle=False)
    assert numbers(data.batches(5, 3, train=True)) == list(range(20))


@pytest.mark.parametrize("workers", [None, 0])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [8, 6])
def test_both_memory_layouts_hold_the_same_numbers_in_their_own_order(make, workers, train, size):
    plain, last = (
        make(noise_split(), workers, size=size, augmentation=Augmentation(), layout=layout)
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    for (one, _), (other, _) in zip(plain.batches(5, 1, train), last.batches(5, 1, train), strict=True):
        assert one.is_contiguous()
        assert other.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_reads_pictures_puts_them_into_the_models_order(make, workers, layout):
    data = make(noise_split(), workers, layout=layout, augmentation=Augmentation())
    (images, _), *_ = data.reader.read([[Item(0), Item(1)]])
    assert images.is_contiguous(memory_format=layout)


def test_train_and_validation_share_one_copy_of_the_images_with_their_source():
    source = numbered_source()
    data = opened(source, validation=0.2, **LEVEL_SETTINGS)
    pointers = {images.data_ptr() for images in (data.train.images, data.val.images, source.train.images)}
    assert len(pointers) == 1


def test_runs_of_a_sweep_share_what_was_read_and_others_do_not(monkeypatch):
    read = []

    def reader():
        read.append(1)
        return numbered_source()

    first = cached_source({"a": 1}, reader)
    assert cached_source({"a": 1}, reader) is first
    assert cached_source({"a": 2}, reader) is not first
    assert len(read) == 2
    clear_source_cache()
    cached_source({"a": 2}, reader)
    assert len(read) == 3
    clear_source_cache()


def test_what_was_prepared_is_made_anew_for_another_shape_only():
    source = numbered_source()
    images = [opened(source, image_size=size, **LEVEL_SETTINGS).test.images for size in (12, 12, 16)]
    assert images[0] is images[1]
    assert [each.shape[-1] for each in images] == [12, 12, 16]


def test_auto_decides_alike_for_all_runs_of_a_sweep(monkeypatch):
    """The first run's images are in memory when the second asks how much of it is free."""
    source, size = numbered_source(), 140 * 3 * 8 * 8
    for free in (4 * size, 3 * size):
        monkeypatch.setattr("iolaus.data.open.free_memory", lambda device, free=free: free)
        assert isinstance(opened(source, residency="auto").train, Resident)
    assert isinstance(opened(numbered_source(), residency="auto", num_workers=0).train, Streaming)


def darker(image, by):
    return image // by


def test_an_initial_function_is_known_again_by_its_code_and_arguments():
    source, dataset = numbered_source(), DatasetSettings(**LEVEL_SETTINGS)
    images = []
    for by in (2, 2, 3):
        shape = image_shape(source, dataset, ModelSettings(), functools.partial(darker, by=by))
        data = open_data(source, dataset, shape, augmentation=None, seed=0, device=CPU)
        images.append(data.test.images)
    assert images[0] is images[1]
    assert [each[0, 0, 0, 0].item() for each in images] == [100, 100, 66]


@pytest.mark.parametrize(("size", "kept_size"), [(224, 235), (32, 32)])
def test_a_pretrained_model_gets_the_images_that_it_was_made_with(size, kept_size):
    """resnet50.a1_in1k: ImageNet's statistics, bicubic, crop_pct 0.95; of small images nothing is cut away."""
    dataset = ["dataset=synthetic", "dataset.size=8", "dataset.mean=[0.1]", "dataset.std=[0.1]"]
    model = ["model=timm", "model.name=resnet50.a1_in1k", f"dataset.image_size={size}"]
    pretrained = read_inputs(checked_config(*dataset, *model, "model.pretrained=true"))
    assert (pretrained.settings.mean, pretrained.settings.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert pretrained.shape == ImageShape(3, size, kept_size, "bicubic")
    fresh = read_inputs(checked_config(*dataset, *model))
    assert (fresh.settings.mean, fresh.shape) == ([0.1], ImageShape(3, size, size))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [None, 0, 2])
def test_a_gpu_gets_the_batches_that_a_cpu_gets(make, workers):
    split, gpu = noise_split(), torch.device("cuda")
    expected = make(split, augmentation=Augmentation())
    if workers is None:
        twice = torch.cat([split.images, split.images]).to(gpu)
        on_gpu = Resident(twice, split.targets.repeat(2), expected.settings, torch.arange(23, 46))
    else:
        on_gpu = Streaming(split, expected.settings, DatasetSettings(num_workers=workers), gpu)
    for train in (True, False):
        moved = [(images.cpu(), targets.cpu()) for images, targets in on_gpu.batches(5, 1, train)]
        for (one, targets), (other, others) in zip(moved, expected.batches(5, 1, train), strict=True):
            torch.testing.assert_close(one, other)
            assert torch.equal(targets, others)
    on_gpu.close()


@pytest.mark.parametrize(("train", "images"), [(True, 2), (False, 1)])
def test_the_only_readable_image_of_a_batch_comes_twice_in_training(train, images):
    """BatchNorm has no variance of one image; the mean gradient of two equal ones is that of one."""

    class OneReadable:
        def __getitem__(self, index):
            if index:
                raise OSError("broken")
            return Image.new("RGB", (8, 8), (9, 9, 9)), 0

    split = Split(LazyImages(OneReadable(), range(3)), torch.tensor([2, 0, 1]))
    dataset = DatasetSettings(num_workers=0, on_bad_image="skip")
    data = Streaming(split, EpochSettings(ImageShape(3, 8, 8), LEVELS), dataset, CPU)
    ((read, targets),) = data.batches(3, 0, train)
    assert (read.shape[0], targets.tolist()) == (images, [2] * images)
    assert numbers([(read, targets)]) == [9] * images


def test_an_epoch_drawn_while_the_one_before_trains_is_the_same_epoch(make, monkeypatch):
    """As on a GPU, also where a run goes on within an epoch, leaves epochs out, or evaluates between two."""
    everything = {"augmentation": Augmentation(erasing=0.5, mixup_alpha=0.4, scale=(0.3, 1.0), brightness=0.3,
                                               policy="trivial_augment"), "seed": 3}  # fmt: skip
    plain, ahead = (make(noise_split(), **everything) for _ in range(2))
    ahead.ahead, drawn = True, []
    real = EpochPlan.__init__

    def draw(self, settings, count, epoch, train, group):
        drawn.append((epoch, threading.current_thread() is threading.main_thread()))
        real(self, settings, count, epoch, train, group)

    for epoch, start in ((0, 0), (1, 0), (1, 2), (2, 0), (7, 1), (8, 0), (9, 0)):
        expected = list(plain.batches(5, epoch, train=True, start=start))
        with monkeypatch.context() as patch:
            patch.setattr(EpochPlan, "__init__", draw)
            found = list(ahead.batches(5, epoch, train=True, start=start))
            list(ahead.batches(5, 0, train=False))
            ahead.next[3].result()  # else it may be drawn when the patch is gone
        for (images, targets), (others, other_targets) in zip(found, expected, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(targets.targets, other_targets.targets)
            assert targets.share == other_targets.share
    ahead.close()
    in_thread = sorted(epoch for epoch, here in drawn if not here)
    assert in_thread == [1, 2, 2, 3, 8, 9, 10]
    assert [epoch for epoch, here in drawn if here and epoch] == [1, 7]  # what could not be foreseen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_the_epochs_of_a_cpu_when_they_are_drawn_ahead():
    settings = EpochSettings(ImageShape(3, 8, 8), STATISTICS, Augmentation(erasing=0.5), seed=3)
    split = noise_split()
    cpu, gpu = (Resident(split.images.to(device), split.targets, settings) for device in ("cpu", "cuda"))
    for epoch in range(3):
        for ours, theirs in zip(gpu.batches(5, epoch, True), cpu.batches(5, epoch, True), strict=True):
            torch.testing.assert_close(tuple(part.cpu() for part in ours), theirs)
    gpu.close()
