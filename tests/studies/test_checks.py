"""A grid whose check takes long says how far it is; a short one says nothing."""

import io
import logging

import pytest

from iolaus.studies import checks

JOBS = [[f"seed={seed}"] for seed in range(3)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(checks, "FEW_JOBS", 0)
    monkeypatch.setattr(checks, "SILENT_SECONDS", -1.0)
    monkeypatch.setattr(checks, "LINE_SECONDS", {True: -1.0, False: -1.0})


def test_at_a_terminal_one_line_is_redrawn_and_removed(slow, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    assert list(checks.number_jobs(JOBS)) == list(enumerate(JOBS))
    lines = screen.getvalue().split("\r")
    assert lines == ["", *(f"checked {n} of 3 configurations" for n in range(3)), "\x1b[K"]


def test_elsewhere_it_is_a_line_of_the_log(slow, caplog):
    with caplog.at_level(logging.INFO):
        list(checks.number_jobs(JOBS))
    assert caplog.messages == [f"checked {n} of 3 configurations" for n in range(3)]


def test_a_short_check_says_nothing(caplog, capsys):
    with caplog.at_level(logging.INFO):
        list(checks.number_jobs(JOBS))
    assert caplog.messages == []
    assert capsys.readouterr().err == ""
