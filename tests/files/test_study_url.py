"""A study's database is read where a stranger's multirun.yaml names it, and never made, changed or written beside."""

import sqlite3

import pytest

from iolaus.files.optuna_storage import open_storage
from iolaus.files.study_url import readable_url


@pytest.fixture
def optuna_database(tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="s", storage=open_storage(url, tmp_path))
    study.add_trial(optuna.trial.create_trial(value=0.5))
    return url


def test_optunas_own_file_is_read_and_stays_as_it_was(tmp_path, optuna_database):
    import optuna

    before = (tmp_path / "study.db").read_bytes()
    (tmp_path / "study.db").chmod(0o400)
    storage = open_storage(readable_url(optuna_database), tmp_path, existing=True)
    assert optuna.load_study(study_name="s", storage=storage).best_value == 0.5
    assert (tmp_path / "study.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_missing_file_another_kind_of_file_and_a_write_ahead_log_are_no_study(tmp_path):
    (tmp_path / "text").write_text("SQLite format 4")
    with sqlite3.connect(tmp_path / "wal.db") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table t (x)")
    database.close()
    for name in ("missing", "text", "wal.db", "file:wal.db"):
        assert readable_url(f"sqlite:///{tmp_path}/{name}") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text", "wal.db"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@host/db", "postgresql+psycopg://host/db", "mysql+pymysql://host/db", "duckdb:////tmp/x",
        "access:///x", "sqlite:///x?mode=rwc&uri=true", "sqlite+evil:///x",
    ],
)  # fmt: skip
def test_a_server_another_driver_and_options_are_not_asked_for_a_files_sake(url):
    with pytest.raises(ValueError, match="a storage that a file names"):
        readable_url(url)
