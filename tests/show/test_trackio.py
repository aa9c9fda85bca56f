"""Trackio as a tracker: what it keeps, under one name across a resume, and what a configuration may not choose."""

import re
import sys

import numpy as np
import pytest

from iolaus.show.trackio_tracker import Trackio


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """Trackio's own reader, of a database in this test's folder."""
    pytest.importorskip("trackio", reason="needs the extra trackio")
    for name in ("TRACKIO_SERVER_URL", "TRACKIO_SPACE_ID", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    from trackio import sqlite_storage

    places = {"TRACKIO_DIR": tmp_path / "trackio", "MEDIA_DIR": tmp_path / "trackio" / "media"}
    for module in [module for name, module in sys.modules.items() if name.startswith("trackio.")]:
        for name in places.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, places[name])
    return sqlite_storage.SQLiteStorage


def test_a_run_goes_on_under_its_name_in_the_group_of_its_study_and_prints_nothing(tmp_path, storage, capsys):
    for step in (1, 2):
        tracker = Trackio(folder=tmp_path / "run", config={"optimizer": {"lr": 0.1}}, study="mine")
        if step == 1:
            tracker.image("train/batch", np.zeros((4, 4, 3), dtype=np.uint8), step=0)
        tracker.log({"train/loss": 0.5 / step}, step)
        tracker.text("optimizer", "SGD")
        tracker.close()
    [name] = storage.get_runs("iolaus")
    assert name == f"run-{(tmp_path / 'run' / 'trackio-id').read_text().strip()}"
    logs = storage.get_logs("iolaus", name)
    assert [(row["step"], row["train/loss"]) for row in logs if "train/loss" in row] == [(1, 0.5), (2, 0.25)]
    assert [row["train/batch"]["_type"] for row in logs if "train/batch" in row] == ["trackio.image"]
    config = storage.get_run_config("iolaus", name)
    assert (config["optimizer"], config["_Group"]) == ({"lr": 0.1}, "mine")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("key", ["project", "name"])
@pytest.mark.parametrize("value", ["../elsewhere", "/tmp/x", "a/b", "..\\up"])
def test_a_name_that_leads_to_another_folder_is_refused(tmp_path, monkeypatch, key, value):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    with pytest.raises(ValueError, match=re.escape(f"{key}={value}: must be a plain name")):
        Trackio(folder=tmp_path, config={}, **{key: value})
    assert "trackio" not in sys.modules or not (tmp_path / "trackio-id").exists()


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape("pip install 'iolaus[trackio]'")):
        Trackio(folder=tmp_path, config={})
