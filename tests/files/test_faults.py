"""A full disk, a quota, a lost permission, a folder that is gone: one line with the way out, and the data survive."""

import errno
import functools
import io
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY

from iolaus.files import checkpoint
from iolaus.files.faults import drop_unwritable_lines, explain_fault, find_fault

FAULTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "quota",
    errno.EACCES: "make it readable and writable",
    errno.EROFS: "hydra.run.dir",
    errno.EIO: "disk",
}


@pytest.mark.parametrize(
    ("number", "way_out", "beside"),
    [*((number, way_out, False) for number, way_out in FAULTS.items()), (errno.ENOSPC, "free some space", True)],
)
def test_a_fault_while_a_run_trains_is_one_line_and_the_last_checkpoint_goes_on(
    command, monkeypatch, number, way_out, beside
):
    real_save, saved = torch.save, []
    writer = functools.partial(checkpoint.Writer, beside)  # in a thread, as on a GPU
    monkeypatch.setattr(checkpoint, "Writer", lambda beside, every: writer(every))

    def save(state: object, file: object) -> None:
        saved.append(state)
        if len(saved) > 2:  # best.pt and last.pt of the first epoch
            raise OSError(number, os.strerror(number))
        real_save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        outcome = command(*TINY, "trainer.epochs=3")
    (folder,) = outcome.runs
    assert outcome.status == 1
    line = outcome.err.splitlines()[-1]
    assert line.startswith("iolaus: ")
    assert f"{folder.name}/" in line
    assert way_out in line
    assert os.strerror(number) in line
    assert "Traceback" not in outcome.err + outcome.out
    assert not list(folder.glob(".*.tmp"))
    assert checkpoint.load(folder / "last.pt")["state"]["epoch"] == 1

    again = line.rpartition("continue with: ")[2].split()[-1]
    assert command(again).status == 0  # resume=FOLDER
    assert outcome.results["epochs"] == 3


def test_a_full_disk_ends_a_search_and_no_trial_is_lost(command, monkeypatch):
    search = (*TINY, "-m", "study=s", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "lr=interval(0.01,0.1)")

    def save(state: object, file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        outcome = command(*search)
    assert outcome.status == 1
    assert "best.pt: No space left on device; free some space there" in outcome.err.splitlines()[-1]
    again = command(*search)
    assert again.status == 0, again.err
    assert "trial 0 was cut off: taken up again" in again.out + again.err
    assert len(again.runs) == 2


def test_a_folder_removed_while_its_run_trains_is_one_line(command, monkeypatch):
    real_save = torch.save

    def save(state: object, file: object) -> None:
        real_save(state, file)
        shutil.rmtree("outputs")

    monkeypatch.setattr(torch, "save", save)
    outcome = command(*TINY)
    assert outcome.status == 1
    assert "its folder has been removed" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err + outcome.out
    assert outcome.runs == []


def test_the_start_on_a_full_disk_leaves_no_run(command, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    outcome = command(*TINY)
    assert outcome.status == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("iolaus: ")]
    assert "No space left" in line
    assert line.endswith("give the same command")
    assert list(Path(outcome.cwd).iterdir()) == []


def test_a_disk_without_room_for_a_lock_is_told_with_its_file(command, monkeypatch):
    real = Path.write_text

    def write_text(self: Path, text: str, **keywords: object) -> int:
        if self.name == ".lock":
            real(self, "")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, text, **keywords)

    monkeypatch.setattr(Path, "write_text", write_text)
    outcome = command(*TINY)
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert "/.lock: No space left on device; free some space there" in line
    assert list(outcome.cwd.iterdir()) == []


@pytest.mark.parametrize(("number", "shown"), [(errno.ENOSPC, False), (None, True)])
def test_a_full_disk_silences_a_line_of_the_log_and_a_faulty_call_is_shown(capsys, number, shown):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number)) if number else ValueError("of another kind")

    handler = logging.StreamHandler(Full())
    drop_unwritable_lines([handler])
    handler.handle(logging.makeLogRecord({"msg": "a line"}))
    assert ("of another kind" in capsys.readouterr().err) == shown


def test_the_error_that_torch_makes_of_a_full_disk_is_known_by_what_lies_behind():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 768 vs 662")  # noqa: B904  (as torch does)
    except RuntimeError as error:
        fault = find_fault(error)
        assert fault is not None
        assert fault.errno == errno.ENOSPC


def test_a_file_that_is_missing_from_a_folder_that_is_there_is_no_fault_of_the_file_system(tmp_path):
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "a.png"))
    assert explain_fault(missing, tmp_path, "") is None
    assert explain_fault(ValueError("a"), tmp_path, "") is None
