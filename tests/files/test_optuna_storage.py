"""Optuna's storage: the lock of its journal, and what is read back from it."""

import contextlib

import optuna
import pytest
from processes import most_at_once

from iolaus.files.locks import is_locked
from iolaus.files.optuna_storage import JOURNAL, JournalLock, load_study, open_storage, param_importances


def test_the_journals_lock_excludes_threads_and_ends_with_its_own_release(tmp_path):
    lock = JournalLock(tmp_path / JOURNAL)
    (tmp_path / JOURNAL).touch()

    @contextlib.contextmanager
    def held():
        lock.acquire()
        yield
        lock.release()

    assert most_at_once(held, 50) == (200, 1)
    assert not is_locked(tmp_path / "optuna.lock")


def test_optunas_journal_writes_under_the_lock(tmp_path, monkeypatch):
    calls = []
    acquire, release = JournalLock.acquire, JournalLock.release
    monkeypatch.setattr(JournalLock, "acquire", lambda self: (calls.append("acquire"), acquire(self))[1])
    monkeypatch.setattr(JournalLock, "release", lambda self: (calls.append("release"), release(self))[1])
    optuna.create_study(study_name="any", storage=open_storage(None, tmp_path))
    assert calls[:2] == ["acquire", "release"]
    assert (tmp_path / JOURNAL).stat().st_size > 0


def test_a_journals_study_is_loaded_whatever_its_name(tmp_path):
    optuna.create_study(study_name="a former name", storage=open_storage(None, tmp_path))
    assert load_study(tmp_path, None, "another name").study_name == "a former name"


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_importances_are_those_for_good_values_not_for_bad_ones(direction, sign):
    """A small `width` makes a trial bad whatever else; among the others `lr` decides which is the best."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: sign * worth(t.suggest_float("lr", 0, 1), t.suggest_float("width", 0, 1)), n_trials=200)
    shares = param_importances(study)
    assert list(shares) == ["lr", "width"]
    assert sum(shares.values()) == pytest.approx(1)


def worth(lr, width):
    return -100 * (1 - width) if width < 0.2 else lr


def test_a_journal_that_has_lost_a_whole_line_is_told(tmp_path):
    """Optuna reads it without a word: a value of a trial, or a whole trial, would be missing."""
    study = optuna.create_study(study_name="any", storage=open_storage(None, tmp_path))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    path = tmp_path / JOURNAL
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"param_name"' in line)
    path.write_text("".join(lines[:at] + lines[at + 1 :]))
    with pytest.raises(ValueError, match=r"optuna\.journal: has lost \d+ bytes.* remove .*\.optuna\.journal\.size"):
        open_storage(None, tmp_path)
    (tmp_path / f".{JOURNAL}.size").unlink()
    assert open_storage(None, tmp_path).get_all_studies()
    path.write_text(whole + '{"torn')  # a kill in the middle of a line
    optuna.create_study(study_name="another", storage=open_storage(None, tmp_path))
    path.unlink()
    assert open_storage(None, tmp_path).get_all_studies() == []


@pytest.mark.parametrize("damage", ["garbage", "[1]", '{"a": 1}', '{"op_code": 0'])
def test_a_damaged_line_of_a_journal_is_told_with_file_line_and_way_out(tmp_path, damage):
    study = optuna.create_study(study_name="any", storage=open_storage(None, tmp_path))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    path = tmp_path / JOURNAL
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"optuna\.journal, line 2: is no entry.* move it away"):
        open_storage(None, tmp_path)
    assert len(path.read_text().splitlines()) == len(lines)  # nothing is repaired or lost
