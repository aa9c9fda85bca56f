"""A signal ends a command as a signal, whatever it meets."""

import contextlib
import os
import signal
import threading

import pytest
from conftest import TINY

from iolaus.machine import signals
from iolaus.machine.signals import defer_signals, stop_on_signals

# What some extension modules make of a Ctrl-C in the middle of their import, numpy's among them.
HALF_IMPORTED = """
import signal
try:
    signal.raise_signal(signal.{name})
    sum(range(1000))
except BaseException:
    raise ImportError("multiarray failed to import") from None
from torch.nn import Identity as Net
"""


def test_ctrl_c_in_an_import_is_not_taken_for_a_module_that_is_missing(command, tmp_path):
    (tmp_path / "half_imported.py").write_text(HALF_IMPORTED.format(name="SIGINT"))
    outcome = command(*TINY, "model._target_=half_imported.Net")
    assert outcome.status == 130, outcome.err
    assert outcome.err == ""
    assert not outcome.runs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=["INT", "TERM", "USR1"])
def test_deferred_signals_come_when_the_work_is_done_and_one_of_them(number):
    came, before = [], signal.signal(number, lambda *_: came.append("signal"))
    try:
        with defer_signals():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            came.append("done")
        assert came == ["done", "signal"]
        with contextlib.suppress(ValueError), defer_signals():
            os.kill(os.getpid(), number)
            raise ValueError
        assert came == ["done", "signal", "signal"]
    finally:
        signal.signal(number, before)


def test_a_second_signal_ends_at_once_and_the_first_says_what_that_costs(monkeypatch, caplog):
    monkeypatch.setattr(signals, "ONE_STOP_SECONDS", 0)
    with stop_on_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    (record,) = caplog.records
    assert "once more to end at once, at the checkpoint before" in record.getMessage()


def test_a_thread_has_no_signals_to_defer():
    entered = []

    def work():
        with defer_signals():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]
