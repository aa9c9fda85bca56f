"""A stranger's configuration runs nothing and writes nothing outside, wherever it comes in: one line, exit status 2."""

import contextlib
import io
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pytest
from conftest import exhaustive

from benchmarks.hostile_cases import REFUSAL, Case, cases, make_stage

CASES = sorted(cases(), key=attrgetter("entry"))
MARKED = [  # of each entry every third is for a plain `pytest`
    pytest.param(case, marks=[exhaustive] * (place % 3 > 0))
    for _, group in groupby(CASES, key=attrgetter("entry")) for place, case in enumerate(group)
]  # fmt: skip
ENTRIES = {case.entry for case in CASES}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_cases_are_many_and_come_in_by_every_door():
    assert len(CASES) >= 60
    assert len({str(case) for case in CASES}) == len(CASES)
    assert {
        "command line", "recipe", "--config-dir", "resume folder", "study folder", "callbacks", "job_logging",
        "hydra_logging", "launcher", "sweeper", "sampler", "pruner", "tracker", "nested", "environment", "folders",
    } <= ENTRIES  # fmt: skip


@pytest.mark.parametrize("case", MARKED, ids=str)
def test_nothing_is_run_and_nothing_written(case: Case, command, tmp_path, monkeypatch):
    work, outside, arguments = make_stage(case, tmp_path / "stage")
    monkeypatch.chdir(work)
    before = contents(outside)

    if case.report:
        from iolaus.report.__main__ import main

        with contextlib.redirect_stdout(io.StringIO()):
            assert main(arguments) == 0
        lines = []
    else:
        outcome = command(*arguments)
        lines = outcome.err.splitlines()
        assert outcome.status == 2, outcome.err + outcome.out
        assert len(lines) == 1, outcome.err
        assert REFUSAL.search(lines[0]), lines[0]

    assert all(line.startswith("iolaus: ") for line in lines), lines
    assert not (tmp_path / "stage" / "executed").exists()
    assert contents(outside) == before
