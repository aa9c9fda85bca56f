"""A grid goes on past the runs that fail, leaves out those that are finished, and can be kept in a recipe."""

import contextlib
import os
import re
import subprocess
import sys
from unittest import mock

import joblib
import pytest
from conftest import ROOT, TINY

from iolaus import checkpoint, locks


def told(outcome):
    return outcome.out + outcome.err


def test_a_run_that_fails_is_recorded_and_the_others_go_on(command):
    arguments = (*TINY, "-m", "study=s", "optimizer=sgd", "trainer.log_every=1", "lr=0.1,1e30,0.05", "trainer.epochs=4")
    outcome = command(*arguments)
    assert outcome.status == 1
    assert "1 of 3 runs failed" in told(outcome)
    assert "Traceback" not in told(outcome)
    states = {run.name: checkpoint.read_json(run / "results.json") for run in outcome.runs}
    assert {name: result["status"] for name, result in states.items()} == {
        "optimizer.lr=0.1": "finished", "optimizer.lr=1e+30": "failed", "optimizer.lr=0.05": "finished",
    }  # fmt: skip
    assert "the training loss is" in states["optimizer.lr=1e+30"]["error"]
    assert "the training loss is" in outcome.out  # in the table's footnotes
    again = command(*arguments)
    assert again.status == 1
    assert "2 of 3 runs are finished already" in told(again)
    with mock.patch("iolaus.loop.train", side_effect=KeyboardInterrupt):
        assert command(*arguments).status == 130
    assert not (outcome.cwd / "outputs" / "s" / "optimizer.lr=1e+30" / "results.json").exists()  # it did not fail now


def test_an_error_of_any_kind_in_one_run_does_not_end_the_sweep(command, first_step_fails):
    outcome = command(*TINY, "-m", "study=s", "seed=0,1")
    assert outcome.status == 1
    results = [checkpoint.read_json(run / "results.json") for run in outcome.runs]
    assert [result["status"] for result in results] == ["failed", "finished"]
    assert results[0]["error"] == "ZeroDivisionError: the unexpected"
    assert "Traceback" in (outcome.runs[0] / "run.log").read_text()


def test_a_mistake_in_all_runs_is_told_with_status_2_and_leaves_nothing(command):
    outcome = command(*TINY, "-m", "study=s", "seed=0,1", "trainer.epochs=0")
    assert outcome.status == 2
    assert told(outcome).count("trainer.epochs=0: must be 1 or more") == 2
    assert not (outcome.cwd / "outputs").exists()


def test_what_is_varied_can_be_kept_in_the_sweepers_params(command):
    outcome = command(*TINY, "-m", "hydra.sweeper.params={seed: '0,1', optimizer.lr: '0.1,0.2'}")
    assert outcome.status == 0, outcome.err
    configs = [checkpoint.read_json(run / "results.json")["config"] for run in outcome.runs]
    varied = {(config["seed"], config["optimizer"]["lr"]) for config in configs}
    assert varied == {(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)}


def test_a_run_that_another_process_is_at_is_left_to_it(command):
    folder = command(*TINY, "-m", "study=s", "seed=0").cwd / "outputs" / "s"
    for run in folder.glob("*/results.json"):
        run.unlink()
    lock = next(folder.glob("*/.lock"))
    assert locks.is_held_here(lock) is False  # signed, and free
    with locks.held(lock) as ours:
        assert ours
        outcome = command(*TINY, "-m", "study=s", "seed=0")
    assert outcome.status == 0
    assert "is trained by another process" in told(outcome)
    assert list(folder.glob("*/results.json")) == []


def test_a_run_that_is_at_work_is_not_resumed_a_second_time(command):
    folder = command(*TINY, "hydra.run.dir=outputs/a").cwd / "outputs" / "a"
    (folder / "results.json").unlink()
    with locks.held(folder / ".lock"):
        outcome = command("resume=outputs/a")
    assert outcome.status == 2
    assert "another process trains in outputs/a" in outcome.err
    assert command("resume=outputs/a").status == 0


@pytest.mark.parametrize(("argument", "line"), [
    ("+optimiser.lr=0.3", "optimiser: no such group; did you mean optimizer?"),
    ("+train={epochs: 1}", "train: no such group; did you mean trainer?"),
])  # fmt: skip
def test_a_group_that_nothing_reads_is_a_mistake(command, argument, line):
    outcome = command(*TINY, argument)
    assert outcome.status == 2
    assert line in outcome.err


def test_a_table_of_ones_own_may_be_looked_up(command):
    outcome = command(*TINY, "+size_of={mlp: 8, cnn: 4}", "trainer.batch_size=${size_of.cnn}")
    assert outcome.status == 0, outcome.err
    assert outcome.results["config"]["trainer"]["batch_size"] == 4


@pytest.mark.parametrize(("n_jobs", "threads"), [(2, joblib.cpu_count() // 2), (1, joblib.cpu_count())])
def test_joblib_runs_several_at_once_each_with_its_share_of_the_cores(command, monkeypatch, n_jobs, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outcome = command(*TINY, "-m", "study=s", "seed=0,1", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}")
    assert outcome.status == 0, told(outcome)
    results = [checkpoint.read_json(run / "results.json") for run in outcome.runs]
    assert [result["status"] for result in results] == ["finished"] * 2
    assert {result["device_name"].partition(",")[0] for result in results} == {f"cpu ({max(1, threads)} threads"}


def test_joblib_in_a_terminal_shows_the_table_of_the_study_and_not_the_lines_of_its_runs(tmp_path):
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    arguments = (*TINY, "-m", "study=s", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
                 "trainer.epochs=300", "trainer.monitor_every=0")  # fmt: skip
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "140", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, ROOT / "train.py", *arguments], cwd=tmp_path, stdin=theirs, stdout=theirs,
                          stderr=theirs, env=environment) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the last writer has closed it
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown.decode())
    assert process.returncode == 0, text
    assert re.search(r"s: .*2 running of 2", text)
    assert "2 finished" not in text.partition("2 running of 2")[0]
    assert text.count("finished") >= 2
    assert "train loss" not in text  # the head of a run's own lines
    logs = [(run / "run.log").read_text() for run in tmp_path.glob("outputs/s/seed=*")]
    assert len(logs) == 2
    assert all("model: " in log for log in logs)
