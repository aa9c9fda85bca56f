"""What killed processes have left is removed by the next start beside it, and nothing else."""

import os
from pathlib import Path

import pytest
from conftest import TINY

from iolaus.files.leftovers import remove_leftovers
from iolaus.files.locks import file_lock, record_host


@pytest.fixture
def day(tmp_path) -> Path:
    """Runs of a day, all quiet for long: one killed in mid-write, one before its configuration, others' folders."""
    day = tmp_path / "outputs" / "day"
    contents = {
        "killed": (".lock", ".hydra/config.yaml", "last.pt", ".last.pt.123.tmp", ".hydra/.config.yaml.9.tmp"),
        "dead": (".lock", ".hydra/overrides.yaml", ".hydra/.config.yaml.9.tmp"),
        "just claimed": (".lock",),
        "another machine's": (".lock", ".last.pt.123.tmp"),
        "a user's": ("notes.txt", ".lock"),
        "empty": (),
    }
    for name, files in contents.items():
        (day / name).mkdir(parents=True)
        for file in files:
            (day / name / file).parent.mkdir(exist_ok=True)
            (day / name / file).touch()
        if (lock := day / name / ".lock").exists():
            record_host(lock)
    (day / "another machine's" / ".lock").write_text("elsewhere")
    for path in (*day.rglob("*"), *day.glob("*")):
        os.utime(path, (1e9, 1e9))
    os.utime(day / "just claimed")
    return day


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or not any(path.iterdir())}


LEFT = {
    "killed/.lock", "killed/.hydra/config.yaml", "killed/last.pt", "just claimed/.lock", "another machine's/.lock",
    "another machine's/.last.pt.123.tmp", "a user's/notes.txt", "a user's/.lock", "empty",
}  # fmt: skip


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(day):
    remove_leftovers(day)
    assert files_in(day) == LEFT


def test_what_a_process_holds_stays(day):
    before = files_in(day)
    with file_lock(day / "killed" / ".lock"), file_lock(day / "dead" / ".lock"):
        remove_leftovers(day)
    assert files_in(day) == before


def test_a_studys_own_temporary_files_go_once_they_are_old(tmp_path):
    (tmp_path / "plots").mkdir()
    for name in (".report.html.5.tmp", "plots/.loss.png.5.tmp", ".mine.tmp", ".new.csv.5.tmp"):
        (tmp_path / name).touch()
        if "new" not in name:
            os.utime(tmp_path / name, (1e9, 1e9))
    remove_leftovers(tmp_path)
    assert files_in(tmp_path) == {".mine.tmp", ".new.csv.5.tmp", "plots"}


def test_the_next_run_of_the_day_removes_them(command, day):
    assert command(*TINY, "hydra.run.dir=outputs/day/next").status == 0
    assert {name for name in files_in(day) if not name.startswith("next/")} == LEFT
