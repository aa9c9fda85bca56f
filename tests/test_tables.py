"""The tables at the end of a run and of a sweep."""

import math
from pathlib import Path

import pytest
from conftest import EPOCH, pipe, terminal, written

from iolaus import tables
from iolaus.tables import result_table, sweep_table

RESULT = {
    "metrics": {
        "last": {"epoch": 19, **EPOCH, "test/loss": 1.75, "test/accuracy": 0.4321},
        "best": {"epoch": 13, **EPOCH, "val/accuracy": 0.5, "test/loss": 1.625, "test/accuracy": 0.4875},
    },
    "seconds": 752.0,
    "images_per_second": 4000.0,
    "parameters": 26000,
    "device": "cpu",
    "precision": "fp32",
    "stopped": None,
    "selected_on_test": False,
}
LONG = Path("outputs") / ("[a]" * 60)


def row(accuracy, seconds=120.0, **overrides):
    best = {f"best_{split}_{name}": 0.25 for split in ("train", "test") for name in ("loss", "accuracy")}
    more = {"best_val_accuracy": accuracy, "seconds": seconds, "folder": f"outputs/{accuracy}", "error": None}
    return {"overrides": overrides, "status": "finished", **best, **more}


@pytest.mark.parametrize("console", [terminal, pipe])
def test_the_result_shows_each_split_at_the_last_and_the_best_epoch(console):
    console = console()
    result_table(RESULT, Path("outputs/run"), console)
    rows = {line.split()[0]: line.split()[1:] for line in console.file.getvalue().splitlines() if "%" in line}
    assert rows == {
        "train": ["50.00", "%", "1.2500", "50.00", "%", "1.2500"],
        "val": ["45.67", "%", "1.5000", "50.00", "%", "1.5000"],
        "test": ["43.21", "%", "1.7500", "48.75", "%", "1.6250"],
    }
    assert "last (epoch 20)" in console.file.getvalue()
    assert "best (epoch 14)" in console.file.getvalue()
    assert "12 min 32 s   4,000 images/s   cpu, fp32   26,000 parameters" in console.file.getvalue()


@pytest.mark.parametrize("console", [terminal, pipe])
def test_the_folder_is_a_line_of_its_own_never_wrapped(console):
    console = console()
    result_table(RESULT, LONG, console)
    assert console.file.getvalue().splitlines()[-1] == str(LONG)


def test_a_choice_on_the_test_set_and_an_early_stop_are_told_and_else_are_not():
    silent, told = pipe(), pipe()
    result_table(RESULT, Path("run"), silent)
    result_table({**RESULT, "stopped": "early stopping", "selected_on_test": True}, Path("run"), told)
    for sentence in ("Stopped by early stopping\n", "The best epoch was chosen on the test set"):
        assert sentence in told.file.getvalue()
        assert sentence not in silent.file.getvalue()


def test_the_sweep_is_sorted_by_validation_accuracy_with_the_best_marked():
    console = pipe()
    rows = [row(0.5, **{"optimizer.lr": "0.1"}), row(0.75, **{"optimizer.lr": "[1]"}), row(math.nan)]
    sweep_table(rows, ["optimizer.lr"], console)
    *table, folder = console.file.getvalue().splitlines()
    cells = ["25.00", "%", "25.00", "%", "0.2500", "0.2500", "2.0", "finished"]
    assert [line.split() for line in table[2:]] == [
        ["*", "[1]", "75.00", "%", *cells],
        ["0.1", "50.00", "%", *cells],
        ["-", "nan", "%", *cells],
    ]
    assert folder == "outputs/0.75"


def test_a_failed_run_shows_its_errors_first_line_instead_of_numbers():
    console = pipe()
    failed = {
        "overrides": {"lr": "10"},
        "status": "failed",
        "error": "loss is NaN [x]\nmore",
        "folder": "outputs/1",
    }
    sweep_table([failed, row(0.5, lr="0.1")], ["lr"], console)
    *_, line, message, folder = console.file.getvalue().splitlines()
    assert line.split() == ["10", "failed"]
    assert message == "lr=10: loss is NaN [x]"
    assert folder == "outputs/0.5"


def test_a_sweep_in_which_every_run_failed_has_no_best():
    console = pipe()
    sweep_table([{"overrides": {}, "status": "failed", "error": "no", "folder": "x"}], [], console)
    assert "*" not in console.file.getvalue()
    assert console.file.getvalue().splitlines()[-1].endswith("no")


def test_columns_take_the_short_name_of_a_key_unless_two_would_be_the_same():
    assert tables.short_names(["optimizer.lr", "model.depth", "data.depth"]) == [
        "lr",
        "model.depth",
        "data.depth",
    ]


@pytest.mark.parametrize("console", [terminal(width=40), pipe()])
def test_no_column_is_lost_where_the_table_is_wider_than_the_console(console):
    key, value = "trainer.a_long_name_of_a_key_that_is_varied", "augmentations"
    sweep_table([row(0.5, **{key: value, "m": "resnet18"})], [key, "m"], console)
    [line] = [line for line in written(console).splitlines() if "%" in line]
    numbers = ["50.00", "%", "25.00", "%", "25.00", "%", "0.2500", "0.2500", "2.0", "finished"]
    assert line.split() == ["*", value, "resnet18", *numbers]
