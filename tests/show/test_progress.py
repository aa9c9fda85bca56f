import logging
import sys
import time

import pytest
from conftest import EPOCH, pipe, read_console, terminal

from iolaus.show.numbers import format_duration
from iolaus.show.progress import progress


def test_every_epoch_becomes_a_line_and_the_best_so_far_is_marked():
    console = terminal()
    with progress(3, console=console) as shown:
        for epoch, accuracy in enumerate((0.4, 0.3, 0.6)):
            shown.start_epoch(epoch, steps=2)
            shown.step(1, 1.0)
            shown.end_epoch({**EPOCH, "val/accuracy": accuracy})
    lines = [" ".join(line.split()) for line in read_console(console).splitlines() if "%" in line]
    assert lines == [
        "1/3 1.2500 50.00 % 1.5000 40.00 % 0.1 3.2 best",
        "2/3 1.2500 50.00 % 1.5000 30.00 % 0.1 3.2",
        "3/3 1.2500 50.00 % 1.5000 60.00 % 0.1 3.2 best",
    ]
    assert read_console(console).count("train loss") == 1


def test_the_caller_may_say_which_epoch_is_the_best():
    console = terminal()
    with progress(2, console=console) as shown:
        for epoch, best in enumerate((False, True)):
            shown.start_epoch(epoch, steps=1)
            shown.end_epoch(EPOCH, best=best)
    [marked] = [line for line in read_console(console).splitlines() if line.endswith("best")]
    assert marked.split()[0] == "2/2"


def test_the_live_line_tells_epoch_speed_time_left_and_loss(monkeypatch):
    console, clock = terminal(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress(2, console=console) as shown:
        shown.start_epoch(0, steps=10)
        clock[0] = 2.0
        shown.step(5, 0.75)  # a quarter of the run in 2 s
        line = read_console(console).splitlines()[-1]
    assert line.startswith("epoch 1/2")
    assert line.split("  ")[-3:] == ["2.5 steps/s", "6 s left", "loss 0.7500"]


def test_a_resumed_epoch_counts_only_its_own_steps_for_the_speed(monkeypatch):
    console, clock = terminal(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress(4, console=console) as shown:
        shown.start_epoch(2, steps=10, start_step=5)
        clock[0] = 1.0
        shown.step(10, None)  # half an epoch a second, one epoch to go
        assert "5.0 steps/s  2 s left" in console.file.getvalue()


def test_the_loss_is_wanted_only_when_a_redraw_is_due(monkeypatch):
    console, clock = terminal(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress(1, console=console) as shown:
        shown.start_epoch(0, steps=1000)
        wanted = 0
        for step in range(1000):  # of 10 ms each
            clock[0] += 0.01
            wanted += shown.wants_loss()
            shown.step(step + 1, None)
    assert 45 <= wanted <= 50  # five a second


def test_log_lines_land_above_the_live_line_and_handlers_get_their_stream_back(monkeypatch):
    root, console = logging.getLogger(), terminal()
    before = sys.stdout
    handler = logging.StreamHandler(before)
    root.addHandler(handler)
    try:
        with progress(1, console=console) as shown:
            shown.start_epoch(0, steps=1)
            logging.getLogger("iolaus").warning("the disk is nearly full")
        assert "the disk is nearly full\n" in console.file.getvalue()
        assert handler.stream is before
    finally:
        root.removeHandler(handler)


def test_without_a_terminal_nothing_is_shown_and_no_loss_is_wanted(capsys):
    console = pipe()
    for shown in (progress(1, console=console), progress(1), progress(1, enabled=False, console=terminal())):
        with shown:
            shown.start_epoch(0, steps=2)
            assert not shown.wants_loss()
            shown.step(1, 0.5)
            shown.end_epoch(EPOCH)
    assert console.file.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_an_exception_passes_and_gives_the_cursor_back():
    console = terminal()
    shown = progress(1, console=console)
    with pytest.raises(KeyboardInterrupt), shown:
        raise KeyboardInterrupt
    show, hide = "\x1b[?25h", "\x1b[?25l"
    assert console.file.getvalue().rindex(show) > console.file.getvalue().rindex(hide)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.123 s"), (12.34, "12.3 s"), (60, "1 min 00 s"), (3725, "1 h 02 min")]
)
def test_durations_are_written_for_people(seconds, text):
    assert format_duration(seconds) == text
