"""Each run has a folder of its own, a sweep one that its overrides name, and recipes are found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.object_type import ObjectType

from iolaus import folders
from iolaus.checkpoint import write_json


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


def test_a_studys_name_says_what_it_varies_and_stays_the_same():
    name = folders.study_name(["optimizer.lr=0.1,0.05", "seed=0"], ["optimizer.lr=0.1,0.05"])
    assert name == "optimizer.lr=0.1,0.05-d13b76"
    assert folders.study_name(["seed=0"], []).startswith("sweep-")


def test_other_overrides_are_another_study():
    lists = [["a=1,2"], ["a=1,2", "b=1"], ["a=1,2", "b=2"], ["a=1,2,3"], ["a=1", "2"]]
    names = {folders.study_name(overrides, ["a=1,2"]) for overrides in lists}
    assert len(names) == len(lists)


@pytest.mark.parametrize(
    "override",
    [
        "a=choice(1,2)",
        "~a=1,2",
        "a='x y','../../etc'",
        "a=/tmp/x,/tmp/y",
        "a=ä,ß:*?",
        "a=" + ",".join(map(str, range(999))),
    ],
)
def test_a_studys_name_is_safe_as_a_folders(override):
    name = folders.study_name([override], [override])
    assert re.fullmatch(r"[A-Za-z0-9._,=+-]{7,70}", name)
    assert not name.startswith((".", "-"))


def test_long_names_that_begin_alike_stay_apart():
    names = {folders.folder_name("a=" + "1," * 100 + end) for end in "123"}
    assert len(names) == 3
    assert max(map(len, names)) <= 120
    assert folders.folder_name("a/b=[1, 2]") == "a-b=-1,-2"


def test_a_folder_that_is_taken_gets_a_number(tmp_path):
    claimed = [folders.claim(tmp_path / "a" / "run").name for _ in range(3)]
    assert claimed == ["run", "run-2", "run-3"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == claimed


CLAIM = """
import sys, time
from pathlib import Path
from iolaus.folders import claim
Path(f"ready{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.001)
print("\\n".join(str(claim(Path("outputs/run"))) for _ in range(20)))
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
    assert folders.find_unfinished("last") == newest

    just_begun = a_run(Path("outputs/day/just-begun"), age=5, last_pt=False)
    assert folders.find_unfinished("last") == just_begun
    failed = a_run(Path("outputs/study/failed-later"), status="failed", age=1)
    assert folders.find_unfinished("last") == failed
    assert folders.find_unfinished("outputs/day/older") == Path("outputs/day/older")


def test_last_is_no_run_where_all_are_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not folders.is_run(folders.find_unfinished("last"))
    finished = a_run(Path("outputs/day/finished"), status="finished")
    assert not folders.is_run(folders.find_unfinished("last"))
    assert folders.is_run(finished)


def test_empty_folders_are_removed_up_to_the_first_with_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "outputs" / "day" / "run"
    deep.mkdir(parents=True)
    (tmp_path / "outputs" / "kept.txt").touch()
    folders.remove_empty(Path("outputs/day/run"))
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["kept.txt"]

    folders.remove_empty(tmp_path / "outputs")
    folders.remove_empty(tmp_path / "nowhere")
    assert (tmp_path / "outputs" / "kept.txt").exists()


def test_the_current_folder_is_not_removed(tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "outputs" / "run").mkdir(parents=True)
    monkeypatch.chdir(here)
    folders.remove_empty(Path("outputs/run"))
    assert list(here.iterdir()) == []


def test_a_discarded_runs_log_is_closed_and_the_others_stay(tmp_path, monkeypatch):
    import logging

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    ours, other = (logging.FileHandler(path, delay=True) for path in ("run/run.log", "other.log"))
    for handler in (ours, other):
        logging.getLogger().addHandler(handler)
    try:
        folders.discard(Path("run"))
        assert ours not in logging.getLogger().handlers
        assert other in logging.getLogger().handlers
        assert not (tmp_path / "run").exists()
    finally:
        logging.getLogger().removeHandler(other)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "notes.txt").write_text("not a recipe")
    return folders.ExperimentsSource("test", f"experiments://{tmp_path}")


def test_a_recipe_is_a_config_of_the_group_experiment(source):
    loaded = source.load_config("experiment/mine")
    assert loaded.config == {"seed": 7}
    assert loaded.header["package"] == "_global_"
    assert source.list("experiment", ObjectType.CONFIG) == ["mine"]
    assert source.list("", ObjectType.GROUP) == ["experiment"]
    assert source.available()


def test_a_recipe_is_nothing_but_that(source):
    known = ["experiment/mine", "experiment/other", "mine", "model/mine", "experiment", "experiment/notes", ""]
    assert [path for path in known if source.is_config(path)] == ["experiment/mine"]
    assert [path for path in ("", "experiment", "model", "mine") if source.is_group(path)] == ["", "experiment"]
    assert source.list("model", ObjectType.CONFIG) == []


def test_a_misspelt_recipe_is_told_with_the_ones_there_are(source, command, tmp_path):
    outcome = command(f"hydra.searchpath=[experiments://{tmp_path}]", "experiment=mien")
    assert outcome.status == 2
    assert outcome.err == "iolaus: experiment=mien: no such option; did you mean mine? allowed: mine\n"
