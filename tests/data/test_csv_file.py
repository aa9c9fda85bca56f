"""Images listed in a CSV file, in the forms that people write, and what is said of lists that can't be meant."""

import re

import pytest
import torch
from PIL import Image

from iolaus.data.csv_file import csv_file


def write_images(folder, count=12, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{place:02}{suffix}" for place in range(count)]
    for place, name in enumerate(names):
        Image.new("RGB", (6, 6), (place, 0, 0)).save(folder / name)
    return names


def write_table(path, rows):
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def pairs(split, classes):
    """{(red level, class name)}: which image has which label."""
    return {(int(split.images[k][0, 0, 0, 0]), classes[split.targets[k]]) for k in range(len(split.targets))}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_paths_labels_and_splits_are_found_by_the_usual_names(tmp_path, separator):
    names = write_images(tmp_path / "images")
    rows = [
        separator.join((f"images/{name}", "dog" if place % 2 else "cat", ("Training", "valid", "TEST")[place // 4]))
        for place, name in enumerate(names)
    ]
    source = csv_file(write_table(tmp_path / "list.csv", [separator.join(("File", "label", "Split")), *rows]))
    assert source.classes == ["cat", "dog"]
    expected = [{(place, "dog" if place % 2 else "cat") for place in range(k, k + 4)} for k in (0, 4, 8)]
    assert [pairs(split, source.classes) for split in (source.train, source.val, source.test)] == expected
    assert (source.channels, source.image_size) == (3, 6)


def test_numbers_are_classes_by_value_and_names_may_lack_a_suffix(tmp_path):
    names = write_images(tmp_path / "pictures", 30, ".jpg")
    rows = [f"{name[:-4]},{(2, 10, -1)[place % 3]}" for place, name in enumerate(names)]
    source = csv_file(write_table(tmp_path / "a.csv", ["id,target", *rows]), root=str(tmp_path / "pictures"))
    assert source.classes == ["-1", "2", "10"]
    assert source.val is None
    assert (len(source.train.targets), len(source.test.targets)) == (24, 6)
    assert torch.bincount(source.test.targets).tolist() == [2, 2, 2]


def test_without_test_rows_val_is_the_test_set_and_rows_without_a_label_are_told(tmp_path):
    names = write_images(tmp_path)
    rows = [
        f"{name},{'' if place > 9 else place % 2},{'val' if place > 5 else 'train'}" for place, name in enumerate(names)
    ]
    source = csv_file(write_table(tmp_path / "a.csv", ["path,label,set", *rows]))
    assert source.val is None
    assert (len(source.train.targets), len(source.test.targets)) == (6, 4)
    assert source.notes == ["left out: 2 rows of a.csv without a label"]


def test_columns_of_any_name_can_be_named(tmp_path):
    names = write_images(tmp_path)
    table = write_table(
        tmp_path / "a.csv", ["where,what,path", *(f"{name},{k % 2},{k}" for k, name in enumerate(names))]
    )
    source = csv_file(table, path_column="where", label_column="what")
    assert source.classes == ["0", "1"]


MISTAKES = {
    "no root": (["file,label", "0.png,a"], {"root": " "}, "root= : must be a folder; . is the current one"),
    "nothing": (None, {}, "file=a.csv: No such file"),
    "one column": (["path", "00.png"], {}, "two columns or more"),
    "unknown column": (["path,label", "00.png,a"], {"label_column": "lable"},
                       "label_column=lable: no such column; did you mean label?"),
    "no usual name": (["path,what", "00.png,a"], {}, "label_column=null: which of the columns is it? path, what"),
    "missing file": (["path,label", "00.png,a", "zz.png,b"], {}, "1 of 2 files are not in . (zz.png)"),
    "twice": (["path,label", "00.png,a", "00.png,b"], {}, "1 files are listed more than once (00.png)"),
    "one class": (["path,label", "00.png,a", "01.png,a"], {}, "one class, a"),
    "no label": (["path,label", "00.png,", "01.png,"], {}, "no row has a value in its column label"),
    "split": (["path,label,split", "00.png,a,x", "01.png,b,x"], {}, "x in the column split"),
    "ragged": (["path,label", "00.png,a,b"], {}, "row 2 has 3 values, the first line 2 names"),
    "no train": (["path,label,split", "00.png,a,test", "01.png,b,test"], {}, "no row is of the split train"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_list_that_can_not_be_meant_is_refused_with_what_was_seen(tmp_path, monkeypatch, rows, arguments, told):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, 3)
    if rows:
        write_table(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        csv_file("a.csv", **arguments)
    assert "\n" not in str(error.value)


def test_a_run_trains_on_a_list_and_names_a_mistake_by_its_key(command, tmp_path):
    names = write_images(tmp_path / "pictures", 24)
    write_table(tmp_path / "list.csv", ["file,label", *(f"pictures/{name},{k % 2}" for k, name in enumerate(names))])
    one = ("dataset=csv", "dataset.file=list.csv", "dataset.validation=0.2", "trainer.epochs=1", "trainer.batch_size=8",
           "model=mlp", "model.hidden=[4]", "tracker=none")  # fmt: skip
    outcome = command(*one)
    assert outcome.status == 0, outcome.err
    assert "16 train, 4 val, 4 test, 2 classes, 3x6x6" in outcome.results["data"]
    wrong = command(*one, "dataset.path_column=nome")
    assert wrong.err == "iolaus: dataset.path_column=nome: no such column; allowed: file, label\n"
