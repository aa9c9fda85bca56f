"""Progress without a terminal: a line an epoch in the log and run.log, and one when other work takes the cores."""

import logging
import os
import re
import time

import pytest
from conftest import EPOCH, TINY, checked_config, terminal

from iolaus.config.build import build_parts
from iolaus.show import plain
from iolaus.show.plain import WINDOW_SECONDS, Pace, format_epoch
from iolaus.show.progress import progress


def test_an_epoch_is_one_line_that_counts_from_1():
    line = "epoch 3/30: train loss 1.2500, 50.00 %; val loss 1.5000, 45.67 %; lr 0.1; 3.2 s, best"
    assert format_epoch(2, 30, EPOCH, best=True) == line
    assert (
        format_epoch(0, 1, {"train/loss": 0.5, "train/accuracy": 1.0}, None) == "epoch 1/1: train loss 0.5000, 100.00 %"
    )


def test_each_epoch_is_a_line_of_the_log_and_of_run_log(command):
    outcome = command(*TINY, "trainer.epochs=2", "hydra.run.dir=outputs/run")
    pattern = r"epoch (\d)/2: train loss [\d.]+, [\d.]+ %; val loss [\d.]+, [\d.]+ %; lr \S+; \S+ s(, best)?"
    for text in (outcome.err, (outcome.cwd / "outputs/run/run.log").read_text()):
        assert [found[0] for found in re.findall(rf"(?m){pattern}$", text)] == ["1", "2"]


def test_in_a_terminal_the_line_goes_to_the_files_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0, 0))  # a busy machine has a line of its own
    plain.warn_if_busy.cache_clear()
    handler, root = logging.FileHandler(tmp_path / "run.log"), logging.getLogger()
    root.addHandler(handler)
    try:
        with progress(30, console=terminal()) as shown:
            shown.start_epoch(2, steps=5)
            shown.end_epoch(EPOCH)
    finally:
        root.removeHandler(handler)
        handler.close()
    assert (tmp_path / "run.log").read_text().startswith("epoch 3/30: train loss 1.2500")
    assert "train loss 1.2500" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("slower", [2.0, 8.0])
def test_steps_that_become_several_times_slower_are_told_once(slower, monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 0, 0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    pace = Pace(small=True)
    for epoch in range(12):
        pace.start_epoch(10, 0)
        for step in range(1, 11):
            clock[0] += 0.1 * (slower if epoch >= 8 else 1.0)
            pace.note(step)
        clock[0] += 10 * WINDOW_SECONDS  # validation takes its time
    told = [record.getMessage() for record in caplog.records]
    if slower < plain.SLOWER:
        assert told == []
    else:
        [line] = told
        assert re.match(
            r"steps are \d\.\d times slower than before: 64.0 busy threads on 2 cores; OMP_NUM_THREADS=1", line
        )


def test_larger_batches_are_not_called_slower(monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace(small=True)
    for steps, seconds in ((100, 0.1), (10, 1.0)):
        pace.start_epoch(steps, 0)
        for step in range(1, steps + 1):
            clock[0] += seconds
            pace.note(step)
    assert caplog.records == []


@pytest.mark.parametrize(("overrides", "small"), [(("model=mlp",), True), (("model=resnet18",), False),
                                                  (("model=mlp", "dataset.size=64"), False)])  # fmt: skip
def test_a_small_model_is_one_that_was_measured(overrides, small):
    assert build_parts(checked_config(*TINY, "trainer.device=cpu", *overrides)).is_small == small


@pytest.mark.parametrize(("small", "threads", "proposed"), [(False, "", False), (True, "", True), (True, "2", True),
                                                            (True, "1", False)])  # fmt: skip
def test_a_busy_machine_is_told_once_in_a_process_and_one_thread_proposed_to_small_models_that_have_more(
    monkeypatch, caplog, small, threads, proposed
):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for load, count in ((1.0, 0), (8.3, 1)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0, 0))
        plain.warn_if_busy.cache_clear()
        plain.warn_if_busy(small)
        plain.warn_if_busy(small)
        assert len(caplog.records) == count
    line = caplog.records[0].getMessage()
    assert line.startswith("the machine is busy: 8.3 busy threads on 2 cores")
    assert ("OMP_NUM_THREADS=1" in line) == proposed
