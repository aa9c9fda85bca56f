"""Datasets of the Hugging Face hub's kinds, from folders that the test writes; the hub itself is never asked."""

import io
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from iolaus.data.hub_tables import BUILDERS, stay_offline
from iolaus.data.huggingface import from_huggingface
from iolaus.data.open import image_shape, open_data
from iolaus.settings import DatasetSettings, ModelSettings

datasets = pytest.importorskip("datasets", reason="needs the extra huggingface")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """The library's cache of this test, and no network."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    with stay_offline(True):
        yield folder


def png(level):
    file = io.BytesIO()
    Image.new("RGB", (6, 6), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def table(levels, labels, names=("cat", "dog"), image="image", label="label"):
    """A table in memory: an Image feature and a ClassLabel."""
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict(
        {image: [{"bytes": png(v), "path": None} for v in levels], label: labels}, features
    )


def three_way():
    return datasets.DatasetDict(
        {"Training": table(range(6), [0, 1] * 3), "valid": table(range(6, 10), [1, 0] * 2),
         "TEST": table(range(10, 14), [0, 1] * 2)}
    )  # fmt: skip


def write_parquet(folder, made=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (made or {"train": table(range(10), [0, 1] * 5), "test": table((20, 21), [1, 0])}).items():
        split.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    return folder


def pairs(split, classes):
    """[(red level, class name)]: which image has which label, in order."""
    return [(int(split.images[k][0, 0, 0, 0]), classes[split.targets[k]]) for k in range(len(split.targets))]


def test_a_saved_dataset_keeps_its_splits_under_any_usual_name(tmp_path):
    three_way().save_to_disk(str(tmp_path / "saved"))
    source = from_huggingface(str(tmp_path / "saved"))
    expected = {"train": range(6), "val": range(6, 10), "test": range(10, 14)}
    got = {role: pairs(split, source.classes) for role, split in source.splits.items()}
    assert {role: [level for level, _ in found] for role, found in got.items()} == {
        k: list(v) for k, v in expected.items()
    }
    assert got["val"] == [(6, "dog"), (7, "cat"), (8, "dog"), (9, "cat")]
    assert (source.channels, source.image_size) == (3, 6)
    assert source.train.images.name(3) == "train[3]"
    assert "train 6, val 4, test 4" in source.layout


def test_splits_and_columns_can_be_named_and_joined(tmp_path):
    made = {
        "a": table((1, 2), [0, 1], image="x", label="why"),
        "b": table((3, 4), [1, 0], image="x", label="why"),
        "other": table((5, 6), [0, 1], image="x", label="why"),
        "held": table((7,), [1], image="x", label="why"),
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path))
    source = from_huggingface(str(tmp_path), train_split="a+b", test_split="held", image_column="x", label_column="why")
    assert pairs(source.train, source.classes) == [(1, "cat"), (2, "dog"), (3, "dog"), (4, "cat")]
    assert pairs(source.test, source.classes) == [(7, "dog")]
    assert source.notes == ["left out: the splits other"]


def test_parquet_folders_files_and_pictures_give_the_same_images(tmp_path):
    folder = write_parquet(tmp_path / "tables")
    pictures = tmp_path / "pictures"
    for role, levels, labels in (("train", range(10), [0, 1] * 5), ("test", (20, 21), [1, 0])):
        for level, label in zip(levels, labels, strict=True):
            path = pictures / role / ("cat", "dog")[label] / f"{level:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(level))
    first, second = from_huggingface(str(folder)), from_huggingface(str(pictures))
    for role in ("train", "test"):
        found = [sorted(pairs(source.splits[role], source.classes)) for source in (first, second)]
        assert found[0] == found[1]
    alone = from_huggingface(str(folder / "train-00000-of-00001.parquet"), test_fraction=0.2)
    assert (len(alone.train.targets), len(alone.test.targets)) == (8, 2)
    assert torch.bincount(alone.test.targets).tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["bytes", "structs", "paths"])
def test_tables_of_other_programs_hold_bytes_structs_or_paths(tmp_path, kind):
    levels = list(range(20))
    made = {
        "bytes": [png(level) for level in levels],
        "structs": [{"bytes": png(level), "path": f"{level}.png"} for level in levels],
        "paths": [f"images/{level}.png" for level in levels],
    }[kind]
    (tmp_path / "images").mkdir()
    for level in levels if kind == "paths" else []:
        (tmp_path / "images" / f"{level}.png").write_bytes(png(level))
    labels = ["10" if level % 2 else "9" for level in levels]
    parquet.write_table(pyarrow.table({"img": made, "target": labels}), tmp_path / "all.parquet")
    source = from_huggingface(str(tmp_path / "all.parquet"))
    assert source.classes == ["9", "10"]
    every = pairs(source.train, source.classes) + pairs(source.test, source.classes)
    assert sorted(every) == [(level, "10" if level % 2 else "9") for level in levels]


def test_numbers_are_classes_and_rows_without_a_label_are_told(tmp_path):
    made = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_dict(
                {"image": [png(k) for k in range(6)], "label": [3, 12, 3, None, 12, 3]}
            ),
            "validation": datasets.Dataset.from_dict({"image": [png(k) for k in range(6, 8)], "label": [12, 3]}),
            "test": datasets.Dataset.from_dict({"image": [png(9)], "label": [None]}),
        }
    )
    made.save_to_disk(str(tmp_path))
    source = from_huggingface(str(tmp_path))
    assert source.classes == ["3", "12"]
    assert [level for level, _ in pairs(source.train, source.classes)] == [0, 1, 2, 4, 5]
    assert source.val is None  # test has no labels: validation is the test set
    assert pairs(source.test, source.classes) == [(6, "12"), (7, "3")]
    assert source.notes == [
        "left out: 1 of 6 images of train without a label", "left out: 1 of 1 images of test without a label",
    ]  # fmt: skip


def test_a_secret_test_set_of_a_classlabel_is_left_out(tmp_path):
    secret = datasets.DatasetDict({"train": table(range(10), [0, 1] * 5), "test": table((20, 21), [-1, -1])})
    secret.save_to_disk(str(tmp_path))
    assert len(from_huggingface(str(tmp_path)).test.targets) == 2  # a fifth of train


@pytest.mark.parametrize("where", ["resident", "streaming", "cache_dir"])
def test_the_images_are_the_same_wherever_they_live(tmp_path, where):
    three_way().save_to_disk(str(tmp_path / "saved"))
    source = from_huggingface(str(tmp_path / "saved"))
    chosen = {"resident": "resident", "streaming": "streaming", "cache_dir": "resident"}[where]
    cache = str(tmp_path / "kept") if where == "cache_dir" else None
    settings = DatasetSettings(residency=chosen, cache_dir=cache, num_workers=1 if where == "streaming" else 0)
    shape = image_shape(source, settings, ModelSettings(), None)
    device = torch.device("cpu")
    data = open_data(source, settings, shape, augmentation=None, seed=0, device=device)
    try:
        images = torch.cat([batch for batch, _ in data.test.batches(4, epoch=0, train=False)])
    finally:
        data.close()
    statistics = [values.to(images) for values in data.input.statistics]
    red = ((images * statistics[1] + statistics[0]) * 255)[:, 0, 0, 0]
    assert red.round().tolist() == [10, 11, 12, 13]
    assert len(list((tmp_path / "kept").glob("*.npy"))) == (6 if where == "cache_dir" else 0)


MISTAKES = {
    "no such folder": ({"name": "nowhere"}, "name=nowhere: no such folder or file here.*OWNER/NAME"),
    "not in the cache": ({"name": "owner/nothing"}, "name=owner/nothing: not in the library's cache; dataset.download"),
    "a split that is not there": ({"train_split": "trian"}, "train_split=trian.*did you mean train.*test"),
    "one split twice": ({"test_split": "train"}, "the split train is taken more than once"),
    "a column that is not there": ({"label_column": "lable"}, "label_column=lable.*did you mean label"),
    "a column that is none of labels": ({"label_column": "score"}, "label_column=score: holds float"),
    "one class": ({"label_column": "all"}, "label_column=all: one class, x: nothing to tell apart"),
    "no fraction": ({"test_fraction": 1.0}, "test_fraction=1.0: must be between 0 and 1"),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_with_what_there_is(tmp_path, arguments, told):
    split = table(range(4), [0, 1, 0, 1]).add_column("score", [0.5] * 4).add_column("all", ["x"] * 4)
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=told) as raised:
        from_huggingface(**{"name": str(tmp_path / "saved"), **arguments})
    assert "\n" not in str(raised.value)


def test_columns_that_are_not_found_are_listed(tmp_path):
    made = datasets.Dataset.from_dict({"photo_bytes": [png(0)], "answer": ["a"], "a\x1b[31m": [1]})
    made.save_to_disk(str(tmp_path))
    with pytest.raises(
        ValueError, match=re.escape("image_column=null: which of the columns is it? photo_bytes, ans")
    ) as e:
        from_huggingface(str(tmp_path))
    assert "\x1b" not in str(e.value)


@pytest.mark.parametrize("path", ["../outside/train-*.parquet", "{outside}/train-*.parquet"])
def test_a_readme_names_no_files_outside_of_its_folder(tmp_path, path):
    outside, folder = write_parquet(tmp_path / "outside"), write_parquet(tmp_path / "folder")
    named = path.format(outside=outside)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '{named}'\n---\n"
    )
    with pytest.raises(ValueError, match=r"name=.*/folder: its README names .*outside.*lies outside of the folder"):
        from_huggingface(str(folder))


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


HOSTILE = {
    "pickled table": lambda folder, mark: (folder / "train.pkl").write_bytes(pickle.dumps(Bomb(mark))),
    "loading script": lambda folder, mark: [
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n") for name in (folder.name, "dataset")
    ],
    "pickles in a tar": lambda folder, mark: tar_of(folder, pickle.dumps(Bomb(mark))),
    "a card that names the pandas builder": lambda folder, mark: [
        (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.pkl\n---\n"),
        (folder / "train.pkl").write_bytes(pickle.dumps(Bomb(mark))),
    ],
    "a table of comma-separated values": lambda folder, mark: (folder / "train.csv").write_text("image,label\na,1\n"),
}


def tar_of(folder, content):
    import tarfile

    with tarfile.open(folder / "train.tar", "w") as archive:
        for name in ("0.pkl", "0.pth", "0.npy"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_run_code_is_refused_and_nothing_runs(tmp_path, name):
    folder, mark = tmp_path / "hostile", tmp_path / "ran"
    folder.mkdir()
    HOSTILE[name](folder, mark)
    with pytest.raises(ValueError, match="name=") as raised:
        from_huggingface(str(folder))
    assert "\n" not in str(raised.value)
    assert not mark.exists()


def test_only_builders_that_read_data_alone_are_taken(tmp_path, monkeypatch):
    """Whatever builder the library picks for a name on the hub, it is looked at before it reads."""

    def no_reading(self, *args, **kwargs):
        raise AssertionError("has read")

    for kind in ("pandas", "webdataset", "csv", "json", "text"):
        module = __import__(f"datasets.packaged_modules.{kind}.{kind}", fromlist=["_"])
        (builder,) = [
            value for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, datasets.DatasetBuilder)
            and value.__module__ == module.__name__
        ]  # fmt: skip
        hub = object.__new__(builder)
        monkeypatch.setattr(builder, "download_and_prepare", no_reading)
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda *args, given=hub, **kwargs: given)
        with pytest.raises(
            ValueError, match=f"name=owner/cats: is read by the builder {kind}; allowed: arrow, imagefolder"
        ):
            from_huggingface("owner/cats", download=True)
    assert {"arrow", "imagefolder", "parquet", "cache"} == BUILDERS


def test_a_name_on_the_hub_goes_to_the_library_with_config_and_revision(tmp_path, monkeypatch):
    folder, asked = write_parquet(tmp_path / "tables"), []
    load = datasets.load_dataset_builder

    def hub(name, config=None, *, revision=None):
        asked.append((name, config, revision, datasets.config.HF_HUB_OFFLINE))
        return load(str(folder))

    monkeypatch.setattr(datasets, "load_dataset_builder", hub)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    source = from_huggingface("owner/cats", config="small", revision="v2", download=True)
    assert len(source.train.targets) == 10
    from_huggingface("owner/cats")
    assert asked == [("owner/cats", "small", "v2", False), ("owner/cats", None, None, True)]
    assert datasets.config.HF_HUB_OFFLINE is False


def test_what_the_library_has_in_its_cache_is_used_offline(tmp_path, own_cache):
    folder = write_parquet(tmp_path / "cats")
    datasets.load_dataset_builder(str(folder), cache_dir=str(own_cache)).download_and_prepare()
    (made,) = own_cache.glob("cats")
    shutil.move(made, own_cache / "owner___cats")
    source = from_huggingface("owner/cats")
    assert pairs(source.test, source.classes) == [(20, "dog"), (21, "cat")]
    with pytest.raises(
        ValueError, match=r"dataset.download=true gets it .*Available configs in the cache: \['default'\]"
    ):
        from_huggingface("owner/cats", config="large")


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape("pip install 'iolaus[huggingface]'")):
        from_huggingface("owner/cats")


def test_a_picture_that_is_none_is_a_broken_image_by_its_place(tmp_path):
    made = {"image": [png(0), b"no picture", png(1), png(2)], "label": ["a", "b", "a", "b"]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(made), "test": table((1, 2), [0, 1])}).save_to_disk(
        str(tmp_path)
    )
    with pytest.raises(ValueError, match="label_column=label: test has classes that train lacks: cat, dog"):
        from_huggingface(str(tmp_path))
    shutil.rmtree(tmp_path / "test")
    os.remove(tmp_path / "dataset_dict.json")
    source = from_huggingface(str(tmp_path / "train"))
    (images,) = [s.images for s in source.splits.values() if 1 in s.images.indices]
    with pytest.raises(ValueError, match=r"can't read image train\[1\]"):
        images[images.indices.index(1)]
