"""Each run has a folder of its own, which is found again, and given up without a trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iolaus.errors import ConfigError
from iolaus.files.atomic import write_json
from iolaus.files.locks import file_lock
from iolaus.files.run_folder import RunFolder, claim_folder, find_unfinished, make_folder, remove_empty


def a_run(folder: Path, status: str | None = None, age: float = 0, last_pt: bool = True) -> Path:
    """Make the folder of a run that wrote its checkpoint `age` seconds before a fixed moment."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("{}")
    (folder / ".hydra" / "overrides.yaml").write_text("[]")
    if status:
        write_json(folder / "results.json", {"status": status})
    if last_pt:
        (folder / "last.pt").write_text("")
    for path in (folder / "last.pt", folder / ".hydra"):
        if path.exists():
            os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def test_a_folder_that_is_taken_gets_a_number(tmp_path):
    claimed = [claim_folder(tmp_path / "a" / "run").name for _ in range(3)]
    assert claimed == ["run", "run-2", "run-3"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == claimed


CLAIM = """
import sys, time
from pathlib import Path
from iolaus.files.run_folder import claim_folder
Path(f"ready{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.001)
print("\\n".join(str(claim_folder(Path("outputs/run"))) for _ in range(20)))
"""


def test_processes_that_start_at_once_get_folders_of_their_own(tmp_path):
    command = [sys.executable, "-c", CLAIM]
    processes = [
        subprocess.Popen([*command, str(i)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) for i in range(3)
    ]
    while not all((tmp_path / f"ready{i}").exists() for i in range(3)):
        assert all(process.poll() is None for process in processes)
    (tmp_path / "go").touch()
    claimed = [line for process in processes for line in process.communicate()[0].split()]
    assert len(set(claimed)) == len(claimed) == 60
    assert len(list((tmp_path / "outputs").iterdir())) == 60


def test_last_is_the_newest_run_that_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_run(Path("outputs/day/older"), age=50)
    newest = a_run(Path("outputs/day/newest"), age=20)
    a_run(Path("outputs/study/failed"), status="failed", age=30)
    a_run(Path("outputs/day/finished"), status="finished", age=10)
    a_run(Path("outputs/study/pruned"), status="pruned", age=10)
    (tmp_path / "outputs" / "day" / "no run").mkdir()
    assert find_unfinished("last").path == newest

    just_begun = a_run(Path("outputs/day/just-begun"), age=5, last_pt=False)
    assert find_unfinished("last").path == just_begun
    a_run(Path("outputs/study/failed-later"), status="failed", age=1)  # it would fail again
    at_work = a_run(Path("outputs/day/at-work"), age=1)
    with file_lock(at_work / ".lock"):
        assert find_unfinished("last").path == just_begun
    assert find_unfinished("last").path == at_work
    assert find_unfinished("outputs/day/older").path == Path("outputs/day/older")


def test_last_is_no_run_where_all_are_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not find_unfinished("last").is_run()
    finished = a_run(Path("outputs/day/finished"), status="finished")
    assert not find_unfinished("last").is_run()
    assert RunFolder(finished).is_run()


def test_empty_folders_are_removed_up_to_the_first_with_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(Path("outputs/day/run"))
    (tmp_path / "outputs" / "kept.txt").touch()
    remove_empty(Path("outputs/day/run"))
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["kept.txt"]

    remove_empty(tmp_path / "outputs")
    remove_empty(tmp_path / "nowhere")
    assert (tmp_path / "outputs" / "kept.txt").exists()


def test_folders_that_somebody_else_made_stay_however_empty(tmp_path):
    (tmp_path / "me" / "exp").mkdir(parents=True)
    run = claim_folder(tmp_path / "me" / "exp" / "day" / "run")
    RunFolder(run).discard()
    assert (tmp_path / "me" / "exp").is_dir()
    assert not (tmp_path / "me" / "exp" / "day").exists()


def test_the_current_folder_is_not_removed(tmp_path, monkeypatch):
    make_folder(tmp_path / "here" / "outputs" / "run")
    monkeypatch.chdir(tmp_path / "here")
    remove_empty(Path("outputs/run"))
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("kind", ["dangling link", "file"])
def test_what_stands_in_the_way_of_a_folder_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "file":
        Path("outputs").touch()
    else:
        Path("outputs").symlink_to("gone")
    with pytest.raises(ConfigError, match=r"^outputs"):
        claim_folder(Path("outputs/day/run"))


def test_an_empty_link_to_a_folder_is_as_good_as_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("disk").mkdir()
    Path("outputs").symlink_to("disk")
    assert claim_folder(Path("outputs/day/run")).is_dir()
    RunFolder(Path("outputs/day/run")).discard()
    assert Path("outputs").is_symlink()
    assert list(Path("disk").iterdir()) == []


def test_temporary_files_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    folder = RunFolder(a_run(tmp_path / "run"))
    for name in (".last.pt.12345.tmp", ".results.json.1.tmp", ".hydra/.config.yaml.7.tmp", "mine.tmp", ".lock"):
        (folder.path / name).touch()
    folder.remove_stale_files()
    left = {path.name for path in folder.path.rglob("*") if path.is_file()}
    assert left == {"last.pt", "mine.tmp", ".lock", "config.yaml", "overrides.yaml"}


def test_a_discarded_runs_log_is_closed_and_the_others_stay(tmp_path, monkeypatch):
    import logging

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    ours, other = (logging.FileHandler(path, delay=True) for path in ("run/run.log", "other.log"))
    for handler in (ours, other):
        logging.getLogger().addHandler(handler)
    try:
        RunFolder(Path("run")).discard()
        assert ours not in logging.getLogger().handlers
        assert other in logging.getLogger().handlers
        assert not (tmp_path / "run").exists()
    finally:
        logging.getLogger().removeHandler(other)
