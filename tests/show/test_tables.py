"""The table at the end of a run."""

import io
from pathlib import Path

import pytest
from conftest import EPOCH, pipe, terminal

from iolaus.command import can_redraw
from iolaus.show import numbers
from iolaus.show.tables import result_table

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


def with_test(**figures):
    best = RESULT["metrics"]["best"] | {f"test/{name}": value for name, value in figures.items()}
    return {**RESULT, "metrics": {**RESULT["metrics"], "best": best}}


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        (
            {"top5_accuracy": 1.0, "balanced_accuracy": 0.4875, "f1": 0.48},
            "test, best: top-5 100.00 %, balanced accuracy 48.75 %, macro F1 0.4800\n",
        ),
        ({"balanced_accuracy": 0.25, "f1": 0.125}, "test, best: balanced accuracy 25.00 %, macro F1 0.1250\n"),
        ({}, ""),
    ],
)
def test_further_figures_of_test_are_told_of_every_run_that_has_them(figures, line):
    console = pipe()
    result_table(with_test(**figures), Path("run"), console)
    assert line in console.file.getvalue()
    assert ("test, best" in console.file.getvalue()) == bool(line)


def test_a_notebook_keeps_what_is_drawn_so_that_nothing_is_drawn_in_place(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    kernel = {"TERM": "xterm-color", "PAGER": "cat", "GIT_PAGER": "cat"}  # IPython's kernel sets them
    for name, value in kernel.items():
        assert can_redraw(stream)
        monkeypatch.setenv(name, value)
    assert not can_redraw(stream)
    assert not can_redraw(io.StringIO())
    wide = terminal(width=20)
    result_table(RESULT, Path("run"), wide)  # it scrolls: lines need not be broken
    assert any(line.split()[::5] == ["train", "%"] for line in wide.file.getvalue().splitlines())


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


def test_one_image_is_not_counted_as_several():
    assert numbers.count_unread(1) == "1 image could not be read and was left out"
    assert numbers.count_unread(3) == "3 images could not be read and were left out"
