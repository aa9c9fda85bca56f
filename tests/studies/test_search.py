"""A search can be killed, resumed, extended and shared; one trial's end is not the search's."""

import copy
import json
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import processes
import pytest
from conftest import TINY, alone, exhaustive, thin
from omegaconf import OmegaConf
from optuna.trial import TrialState

from iolaus import loop
from iolaus.files.atomic import read_json, write_json
from iolaus.files.locks import is_locked
from iolaus.files.optuna_storage import open_storage
from iolaus.studies.limits import Clock
from iolaus.studies.search import OptunaSweeper
from iolaus.studies.study import SharedStudy

SEARCH = (*TINY, "-m", "study=s", "hydra/sweeper=optuna", "trainer.monitor_every=0")
LR = "lr=interval(0.001,0.1)"
N = "hydra.sweeper.n_trials="
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def told(outcome):
    return outcome.out + outcome.err


def study_of(folder, url=None):
    return optuna.load_study(study_name="s", storage=open_storage(url, folder / "outputs" / "s"))


def states_of(folder, url=None):
    return [t.state.name for t in study_of(folder, url).trials]


def result_of(folder, number):
    return read_json(folder / "outputs" / "s" / str(number) / "results.json")


def epochs_of(folder, number):
    path = folder / "outputs" / "s" / str(number) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def no_training(monkeypatch):
    """Trials that end at once, with a result made up from their learning rate: what is left is the search."""

    def launch(self, trial):
        folder = self.study.folder_of(trial.number)
        folder.hydra.mkdir(parents=True)
        OmegaConf.save([], folder.hydra / "overrides.yaml")
        value = trial.params.get("optimizer.lr", 0.5)
        objectives = [{"name": name, "value": value} for name in self.settings.direction]
        write_json(folder.results_file, {"status": "finished", "objectives": objectives})

    monkeypatch.setattr(OptunaSweeper, "_launch", launch)


# ---- the study and its folder


def test_n_trials_is_the_total_over_restarts_and_folders_are_named_by_trial(command):
    first = command(*SEARCH, LR, N + "2")
    assert first.status == 0, told(first)
    written = [(run / "results.json").stat().st_mtime_ns for run in first.runs]
    assert [run.name for run in first.runs] == ["0", "1"]
    again = command(*SEARCH, LR, N + "3")
    assert again.status == 0, told(again)
    assert [run.name for run in again.runs] == ["0", "1", "2"]
    assert [(run / "results.json").stat().st_mtime_ns for run in again.runs[:2]] == written
    for t in study_of(again.cwd).trials:
        result = result_of(again.cwd, t.number)
        assert t.state == TrialState.COMPLETE
        assert t.params == {"optimizer.lr": result["config"]["optimizer"]["lr"]}
        assert t.value == result["objective"]["value"]
    best = OmegaConf.load(again.cwd / "outputs" / "s" / "optimization_results.yaml")
    of = study_of(again.cwd).best_trial
    assert best == {"name": "optuna", "best_params": of.params, "best_value": of.value, "best_trial": of.number}


def test_the_command_line_wins_over_a_recipes_space_and_enqueued_points_come_first_and_once(command, no_training):
    arguments = (*SEARCH, "hydra.sweeper.params={optimizer.lr: 'interval(0.001,0.1)', seed: 'range(0,5)'}", "seed=7",
                 "wd=0.1,0.2", "hydra.sweeper.enqueue=[{optimizer.lr: 0.05},{optimizer.lr: 0.06}]")  # fmt: skip
    assert command(*arguments, N + "3").status == 0
    outcome = command(*arguments, N + "4")
    assert outcome.status == 0, told(outcome)
    trials = study_of(outcome.cwd).trials
    assert [set(t.params) for t in trials] == [{"optimizer.lr", "optimizer.weight_decay"}] * 4
    assert [t.params["optimizer.lr"] for t in trials[:2]] == [0.05, 0.06]
    assert not {t.params["optimizer.lr"] for t in trials[2:]} & {0.05, 0.06}


def test_a_space_may_have_conditions_in_a_function_of_ones_own(command, tmp_path, monkeypatch):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-packages"
    elsewhere.mkdir()
    (elsewhere / "own_space.py").write_text(
        "def space(config, trial):\n"
        "    if trial.suggest_categorical('optimizer', ['sgd', 'adam']) == 'sgd':\n"
        "        trial.suggest_float('optimizer.momentum', 0.5, 0.9)\n"
    )
    monkeypatch.syspath_prepend(elsewhere)
    arguments = (*SEARCH, "hydra.sweeper.custom_search_space=own_space.space", N + "2",
                 "hydra.sweeper.enqueue=[{optimizer: sgd},{optimizer: adam}]")  # fmt: skip
    outcome = command(*arguments)
    assert outcome.status == 2
    assert "IOLAUS_ALLOW='own_space.*'" in outcome.err
    monkeypatch.setattr("iolaus.trust.targets.ALLOWED", ("own_space.*",))
    outcome = command(*arguments)
    assert outcome.status == 0, told(outcome)
    sgd, adam = (result_of(outcome.cwd, number)["config"]["optimizer"] for number in (0, 1))
    assert 0.5 <= sgd["momentum"] <= 0.9
    assert "momentum" not in adam


@pytest.mark.parametrize(("objective", "direction"), [("val/loss", "MINIMIZE"), ("val/accuracy", "MAXIMIZE")])
def test_the_direction_is_the_objectives(command, no_training, objective, direction):
    outcome = command(*SEARCH, LR, N + "1", f"objective={objective}")
    assert study_of(outcome.cwd).direction.name == direction


def test_a_direction_can_be_given(command, no_training):
    outcome = command(*SEARCH, LR, N + "1", "hydra.sweeper.direction=minimize")
    assert study_of(outcome.cwd).direction.name == "MINIMIZE"


# ---- samplers


@thin(3)
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid", "gp", "nsgaii", "cmaes"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_search_cut_into_two_draws_the_points_of_one_in_a_go(command, no_training, sampler, tmp_path):
    space = ("lr=range(0.01,0.09,0.01)", "seed=range(0,3)") if sampler == "grid" else (LR, "wd=interval(0,0.1)")
    options = (*SEARCH, *space, f"hydra/sweeper/sampler={sampler}")
    outcome = command(*options, N + "12")
    assert outcome.status == 0, told(outcome)
    whole = [t.params for t in study_of(tmp_path).trials]
    assert len({tuple(params.values()) for params in whole}) == 12
    (tmp_path / "outputs").rename(tmp_path / "whole")
    for n_trials in (5, 12):
        assert command(*options, f"{N}{n_trials}").status == 0
    assert [t.params for t in study_of(tmp_path).trials] == whole


def test_after_the_timeout_of_a_search_no_trial_begins_and_the_same_command_goes_on(command, no_training, monkeypatch):
    arguments, launch = (*SEARCH, LR, f"{N}4", "hydra.sweeper.timeout=60"), OptunaSweeper._launch

    def slow_launch(self, trial):
        if trial.number == 1:
            Clock.instance().began -= 3600
        return launch(self, trial)

    monkeypatch.setattr(OptunaSweeper, "_launch", slow_launch)
    cut = command(*arguments)
    assert cut.status == 0, cut.err
    assert "hydra.sweeper.timeout=60: no other trial begins" in told(cut)
    assert states_of(cut.cwd) == ["COMPLETE"] * 2
    assert command(*arguments).status == 0
    assert states_of(cut.cwd) == ["COMPLETE"] * 4


def test_a_grid_ends_when_it_is_through(command, no_training):
    outcome = command(*SEARCH, "lr=0.1,0.2", "seed=range(0,2)", "hydra/sweeper/sampler=grid", N + "20")
    assert outcome.status == 0, told(outcome)
    points = {tuple(t.params.values()) for t in study_of(outcome.cwd).trials}
    assert points == {(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)}


# ---- pruning, failures


PRUNER = ("hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner", "+hydra.sweeper.pruner.upper=1.0")


def test_a_pruned_trial_is_no_failure_and_was_not_evaluated_on_test(command):
    outcome = command(*SEARCH, LR, N + "2", "objective=val/loss", "trainer.epochs=4", "optimizer=sgd", *PRUNER,
                      "hydra.sweeper.enqueue=[{optimizer.lr: 0.001},{optimizer.lr: 0.1}]", "scheduler=constant",
                      "loss.label_smoothing=0.0", "optimizer.momentum=0.999")  # fmt: skip
    assert outcome.status == 0, told(outcome)
    assert states_of(outcome.cwd) == ["COMPLETE", "PRUNED"]
    result = result_of(outcome.cwd, 1)
    assert result["status"] == "pruned"
    assert result["epochs"] < 4
    assert "test" not in json.dumps(
        {k: v for k, v in result.items() if k not in ("config", "data", "data_fingerprint")}
    )
    steps = study_of(outcome.cwd).trials[1].intermediate_values
    assert steps == {epoch: metrics["val/loss"] for epoch, metrics in enumerate(result["history"])}


def test_each_epoch_is_reported_once_also_across_an_interruption(command, monkeypatch):
    original, calls = loop.train_epoch, []

    def train_epoch(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "train_epoch", train_epoch)
    arguments = (*SEARCH, LR, N + "1", "trainer.epochs=4", "hydra/sweeper/pruner=median")
    assert command(*arguments).status == 130
    assert states_of(command(*arguments).cwd) == ["COMPLETE"]
    journal = (command(*arguments).cwd / "outputs" / "s" / "optuna.journal").read_text().splitlines()
    reported = [line["step"] for line in map(json.loads, journal) if "intermediate_value" in line]
    assert reported == [0, 1, 2, 3]
    assert len(calls) == 5


def test_a_search_of_several_objectives_is_not_pruned_and_gives_the_best_compromises(command):
    outcome = command(*SEARCH, LR, N + "2", "objective=[val/accuracy,seconds]", "hydra/sweeper/pruner=median")
    assert outcome.status == 0, told(outcome)
    assert "a study of several objectives is not pruned" in told(outcome)
    study = study_of(outcome.cwd)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["val/accuracy", "seconds"]
    assert [list(t.intermediate_values) for t in study.trials] == [[], []]
    content = OmegaConf.load(outcome.cwd / "outputs" / "s" / "optimization_results.yaml")
    best = [{"trial": t.number, "params": t.params, "values": t.values} for t in study.best_trials]
    assert content == {"name": "optuna", "solutions": best}


def test_a_trial_that_fails_says_why_and_does_not_end_the_search(command, first_step_fails):
    points = "[{dataset.size: 8},{dataset.size: 0},{dataset.size: 9}]"
    arguments = (*SEARCH, LR, N + "3", "dataset.size=8,0,9", f"hydra.sweeper.enqueue={points}")
    outcome = command(*arguments, "hydra.sweeper.max_failure_rate=0.7")
    assert outcome.status == 0, told(outcome)
    assert states_of(outcome.cwd) == ["FAIL", "FAIL", "COMPLETE"]
    first, second, _ = study_of(outcome.cwd).trials
    assert first.user_attrs["error"] == "ZeroDivisionError: the unexpected"
    assert second.user_attrs["error"].startswith("dataset.size=0: must be 1 or more")
    outcome = command(*arguments, "hydra.sweeper.max_failure_rate=0.5")
    assert outcome.status == 2
    assert "hydra.sweeper.max_failure_rate=0.5: 2 of 3 trials failed, see outputs/s" in outcome.err


def test_a_result_that_is_no_number_is_a_failure(command, monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda *_: ({"loss": float("nan"), "accuracy": 0.5}, None))
    outcome = command(*SEARCH, LR, N + "1", "objective=val/loss", "hydra.sweeper.max_failure_rate=1")
    assert states_of(outcome.cwd) == ["FAIL"]
    assert "no trial has finished" in outcome.err


# ---- mistakes


@thin(3)
@pytest.mark.parametrize(("arguments", "line"), [
    ((LR, "hydra.sweeper.n_jobs=2"), "hydra.sweeper.n_jobs=2: the basic launcher runs one at a time"),
    ((LR, "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"), "hydra.launcher.n_jobs=0: must be 1 or more, or -1"),
    ((LR, "hydra/launcher=joblib", "hydra.launcher.backend=multiprocessing"), "hydra.launcher.backend=multiprocessing"),
    ((LR, N + "0"), "hydra.sweeper.n_trials=0: must be a whole number, 1 or more"),
    ((LR, N + "many"), "hydra.sweeper.n_trials=many: must be a whole number, 1 or more"),
    ((LR, "hydra/sweeper/pruner=medium"), "hydra/sweeper/pruner=medium: no such option; did you mean median?"),
    (("lr=0.1",), "nothing to search"),
    ((LR, "hydra.sweeper.trials=3"), "n_trials"),
    ((LR, "+hydra.sweeper.trials=3"), "hydra.sweeper.trials=3: no such key; did you mean n_trials?"),
    (("lr=range(1,2,0)",), "lr=range(1,2,0)"),
    (("lr=interval(2,1)",), "interval(2,1)"),
    (("optimizer.lrr=interval(0,1)",), "optimizer.lrr"),
    ((LR, "hydra/sweeper/sampler=grid"), "optimizer.lr has no end of values"),
    (("lr=0.1,0.2", "hydra/sweeper/sampler=grid", "hydra.sweeper.enqueue=[{optimizer.lr: 0.1}]"),
     "hydra.sweeper.enqueue: the grid sampler goes through all points"),
    ((LR, "hydra.sweeper.enqueue=[0.1]"), "hydra.sweeper.enqueue=[0.1]: must be a list of points, each {key: value}"),
    ((LR, "~hydra.sweeper.enqueue"), "hydra.sweeper.enqueue: missing"),
    ((LR, "hydra.sweeper.enqueue=[{lr: 0.1}]"), "lr is not searched; allowed: optimizer.lr"),
    ((LR, "hydra.sweeper.enqueue=[{optimizer.lr: 5}]"), "not in the space"),
    ((LR, "hydra.sweeper.storage=nowhere"), "hydra.sweeper.storage: "),
    ((LR, "hydra.sweeper.direction=[minimize,maximize]"), "hydra.sweeper.direction: 2 for 1 objectives"),
    ((LR, "hydra.sweeper.direction=up"), "must be minimize or maximize"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(command, no_training, arguments, line):
    outcome = command(*SEARCH, *arguments)
    assert outcome.status == 2, told(outcome)
    assert line in outcome.err
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert not (outcome.cwd / "outputs").exists()


@thin(3)
@pytest.mark.parametrize("changed", [("objective=val/loss",), ("trainer.epochs=2",), ("wd=0.1,0.3",)])
def test_a_study_does_not_go_on_as_another(command, no_training, changed):
    assert command(*SEARCH, LR, "wd=0.1,0.2", N + "1").status == 0
    outcome = command(*SEARCH, LR, *(() if "wd" in changed[0] else ("wd=0.1,0.2",)), N + "2", *changed)
    assert outcome.status == 2, told(outcome)
    assert "choose another study=NAME" in outcome.err
    assert states_of(outcome.cwd) == ["COMPLETE"]


def test_runs_of_a_study_that_is_gone_are_not_taken_for_this_ones(command):
    folder = command(*SEARCH, LR, N + "1").cwd / "outputs" / "s"
    (folder / "optuna.journal").unlink()
    outcome = command(*SEARCH, "lr=interval(0.2,0.3)", N + "1", "hydra.sweeper.max_failure_rate=0")
    assert outcome.status == 2
    assert "holds a run of another configuration" in study_of(outcome.cwd).trials[0].user_attrs["error"]


# ---- storages


def test_a_torn_line_at_the_end_of_the_journal_is_dropped(command, no_training):
    journal = command(*SEARCH, LR, N + "2").cwd / "outputs" / "s" / "optuna.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "worker')
    outcome = command(*SEARCH, LR, N + "3")
    assert outcome.status == 0, told(outcome)
    assert states_of(outcome.cwd) == ["COMPLETE"] * 3


def test_a_study_may_live_in_sqlite(command, tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    for n_trials in (1, 2):
        outcome = command(*SEARCH, LR, f"{N}{n_trials}", f"hydra.sweeper.storage={url}", "hydra/sweeper/pruner=median")
        assert outcome.status == 0, told(outcome)
    assert states_of(tmp_path, url) == ["COMPLETE"] * 2
    assert not (tmp_path / "outputs" / "s" / "optuna.journal").exists()


@pytest.fixture
def postgresql(tmp_path):
    """A server of our own on a socket and a port of the loopback, as Debian packages it; gives the URL."""
    pytest.importorskip("psycopg", reason="psycopg, PostgreSQL's driver, is not installed")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql")
    user = {}
    data = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if os.getuid() == 0:  # which initdb refuses to be
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {**user, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": data}
    subprocess.run([programs[-1], "-D", data / "db", "-U", "me", "-A", "trust", "--no-sync"], check=True, **options)
    server = subprocess.Popen(
        [programs[-1].with_name("postgres"), "-D", data / "db", "-p", str(port), "-h", "127.0.0.1", "-k", data, "-F"],
        **options,
    )
    ready = [programs[-1].with_name("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    processes.wait_for(lambda: subprocess.run(ready, check=False).returncode == 0)
    yield f"postgresql://me@127.0.0.1:{port}/postgres"
    server.send_signal(signal.SIGINT)
    server.wait(30)
    shutil.rmtree(data)


@exhaustive
@alone
def test_a_study_may_live_in_postgresql_where_two_processes_share_it(command, postgresql, tmp_path):
    arguments = (*SEARCH, LR, f"hydra.sweeper.storage={postgresql}", "hydra/sweeper/pruner=median")
    outcome = command(*arguments, N + "1")
    assert outcome.status == 0, told(outcome)
    both = [processes.start(tmp_path, *arguments, N + "5") for _ in range(2)]
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    assert states_of(tmp_path, postgresql) == ["COMPLETE"] * 5
    assert sorted(run.name for run in (tmp_path / "outputs" / "s").glob("[0-9]*")) == list("01234")
    assert not (tmp_path / "outputs" / "s" / "optuna.journal").exists()


def test_a_database_without_its_driver_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    outcome = command(*SEARCH, LR, "hydra.sweeper.storage=postgresql://me:secret@localhost/studies")
    assert outcome.status == 2
    assert outcome.err.startswith("iolaus: hydra.sweeper.storage: ")
    assert "pip install -e '.[postgresql]'" in outcome.err
    assert "secret" not in outcome.err
    assert not list(outcome.cwd.iterdir())


def test_a_trial_that_ends_while_another_looks_for_lost_ones_is_not_taken_up(command, monkeypatch):
    command(*SEARCH, LR, N + "1")
    next_trial, get_trials, stale = SharedStudy.next_trial, optuna.Study.get_trials, []

    def next_trial_late(self, stack):
        stale.append(True)
        return next_trial(self, stack)

    def listed_before(self, *arguments, **options):
        trials = get_trials(self, *arguments, **options)
        if stale:  # the list that next_trial looks through
            stale.clear()
            trials = copy.deepcopy(trials)
            trials[0].state = TrialState.RUNNING
        return trials

    monkeypatch.setattr(SharedStudy, "next_trial", next_trial_late)
    monkeypatch.setattr(optuna.Study, "get_trials", listed_before)
    outcome = command(*SEARCH, LR, N + "2")
    assert outcome.status == 0, told(outcome)
    assert "taken up" not in told(outcome)
    assert states_of(outcome.cwd) == ["COMPLETE", "COMPLETE"]


# ---- processes: killed, several, interrupted

SLOW = (*SEARCH, LR, "trainer.epochs=25")


def at_epoch(folder, number, least=2):
    """A function that says whether a trial has that many epochs behind it."""
    return lambda: len(epochs_of(folder, number)) >= least


def all_is_well(folder, n_trials, epochs=25):
    """Each number once, complete, each epoch once in the history, and a value for each in the study."""
    trials = study_of(folder).trials
    errors = [t.user_attrs.get("error") for t in trials]
    assert [(t.number, t.state.name) for t in trials] == [(number, "COMPLETE") for number in range(n_trials)], errors
    for t in trials:
        result = result_of(folder, t.number)
        assert [metrics["epoch"] for metrics in result["history"]] == list(range(epochs))
        assert list(t.intermediate_values) == list(range(epochs))
        assert t.params == {"optimizer.lr": result["config"]["optimizer"]["lr"]}
    return True


@alone
def test_after_kill_9_the_same_command_takes_the_lost_trial_up_and_finishes(tmp_path):
    process = processes.start(tmp_path, *SLOW, N + "2")
    processes.wait_for(at_epoch(tmp_path, 1), process)
    processes.kill(process)
    lost = study_of(tmp_path).trials[1]
    assert states_of(tmp_path) == ["COMPLETE", "RUNNING"]
    finished = (tmp_path / "outputs" / "s" / "0" / "results.json").stat().st_mtime_ns
    process = processes.start(tmp_path, *SLOW, N + "2")
    process.join(300)
    assert process.exitcode == 0, (tmp_path / "output").read_text()
    assert all_is_well(tmp_path, 2)
    assert study_of(tmp_path).trials[1].params == lost.params
    assert (tmp_path / "outputs" / "s" / "0" / "results.json").stat().st_mtime_ns == finished
    assert "resumed in epoch" in (tmp_path / "outputs" / "s" / "1" / "run.log").read_text()


@exhaustive
@alone
def test_two_sweepers_of_two_workers_share_a_study_and_one_takes_over_what_the_other_lost(tmp_path):
    arguments = (*SLOW, N + "5", *JOBLIB, "trainer.epochs=40")
    first, second = (processes.start(tmp_path, *arguments) for _ in range(2))
    processes.wait_for(lambda: all(at_epoch(tmp_path, number)() for number in range(4)))
    os.killpg(first.pid, signal.SIGKILL)
    first.join(30)
    second.join(300)
    assert second.exitcode == 0, (tmp_path / "output").read_text()
    assert all_is_well(tmp_path, 5, epochs=40)
    assert "was cut off: taken up again" in (tmp_path / "output").read_text()


def interrupt(process):
    """Ctrl-C: the signal to the whole group. Returns the seconds until all of it has ended."""
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    processes.wait_for(lambda: not processes.group_of(process), seconds=30)
    return time.monotonic() - begun


@alone
def test_ctrl_c_ends_a_search_at_once_and_quietly_and_it_can_go_on(tmp_path):
    process = processes.start(tmp_path, *SLOW, N + "1")
    processes.wait_for(at_epoch(tmp_path, 0), process)
    assert interrupt(process) < 20
    assert process.exitcode == 130
    output = (tmp_path / "output").read_text()
    assert "Traceback" not in output
    assert "the search is stopped: 0 of 1 trials are done; the same command goes on" in output
    process = processes.start(tmp_path, *SLOW, N + "1")
    process.join(300)
    assert all_is_well(tmp_path, 1)


@alone
def test_joblib_runs_two_at_once_survives_a_killed_worker_and_ends_on_ctrl_c(tmp_path):
    arguments = (*SLOW, N + "2", "trainer.epochs=40")
    process = processes.start(tmp_path, *arguments, *JOBLIB)
    processes.wait_for(lambda: at_epoch(tmp_path, 0)() and at_epoch(tmp_path, 1)(), process)
    assert [(tmp_path / "outputs" / "s" / n / "results.json").exists() for n in "01"] == [False, False]  # at once
    os.kill(processes.workers_of(process)[0], signal.SIGKILL)
    processes.wait_for(lambda: "resumed in epoch" in (tmp_path / "output").read_text(), process)
    assert interrupt(process) < 20
    assert process.exitcode == 130
    assert "Traceback" not in (tmp_path / "output").read_text()
    process = processes.start(tmp_path, *arguments)
    process.join(300)
    assert all_is_well(tmp_path, 2, epochs=40)


@exhaustive
@alone
def test_workers_that_outlive_their_sweeper_end_their_trials_and_themselves(tmp_path):
    arguments = (*SLOW, N + "2", "trainer.epochs=100")
    process = processes.start(tmp_path, *arguments, *JOBLIB)
    processes.wait_for(lambda: at_epoch(tmp_path, 0)() and at_epoch(tmp_path, 1)(), process)
    processes.kill(process)
    second = processes.start(tmp_path, *arguments)
    second.join(300)
    assert second.exitcode == 0, (tmp_path / "output").read_text()
    assert all_is_well(tmp_path, 2, epochs=100)
    assert "resumed" not in "".join(log.read_text() for log in tmp_path.glob("outputs/s/*/run.log"))
    # with two, their results are more than fits into the pipe that nobody reads any more
    processes.wait_for(lambda: not processes.group_of(process), seconds=90)


def run_on_another_machine(folder, arguments):
    """Run a command in a process that takes itself for one of another machine."""
    platform.node = lambda: "another-machine"
    processes.run_command(folder, arguments)


@thin(2)
@pytest.mark.parametrize("storage", ["journal", "postgresql"])
@alone
def test_a_dead_machines_trial_is_taken_up_when_its_lease_ends_and_a_live_ones_never(tmp_path, request, storage):
    """A stopped process is like a dead machine to a file server, which keeps its locks until a lease ends."""
    url = None if storage == "journal" else request.getfixturevalue("postgresql")
    arguments = (*SLOW, N + "3", "trainer.epochs=50", *([f"hydra.sweeper.storage={url}"] if url else []))
    first = processes.start(tmp_path, *arguments)
    processes.wait_for(at_epoch(tmp_path, 0), first)
    second = processes.context.Process(target=run_on_another_machine, args=(str(tmp_path), arguments))
    second.start()
    processes.wait_for(at_epoch(tmp_path, 1), second)
    study = tmp_path / "outputs" / "s"

    def stop_in_a_trial():  # not while it has a lock of the study, for an instant at a time
        os.kill(first.pid, signal.SIGSTOP)
        if not any(is_locked(study / name) for name in ("optuna.lock", ".trials/begin.lock")):
            running = [n for n, state in enumerate(states_of(tmp_path, url)) if state == "RUNNING"]
            if own := [n for n in running if (study / str(n) / ".lock").read_text() == platform.node()]:
                return own
        os.kill(first.pid, signal.SIGCONT)
        return None

    (silent,) = processes.wait_for(stop_in_a_trial, first)
    before = len(epochs_of(tmp_path, silent))
    processes.wait_for(lambda: states_of(tmp_path, url).count("COMPLETE") == 2, second)
    assert len(epochs_of(tmp_path, silent)) == before
    assert second.is_alive()
    processes.kill(first)  # and its locks are free
    second.join(120)
    assert second.exitcode == 0, (tmp_path / "output").read_text()
    assert f"trial {silent} was cut off: taken up again" in (tmp_path / "output").read_text()
    for t in study_of(tmp_path, url).trials:
        assert t.state == TrialState.COMPLETE
        assert [metrics["epoch"] for metrics in epochs_of(tmp_path, t.number)] == list(range(50))


@thin(2)
@pytest.mark.parametrize("sweep", ["search", "grid"])
@alone
def test_sigterm_to_the_sweeper_alone_lets_its_workers_write_their_checkpoints(tmp_path, sweep):
    arguments = (*TINY, "-m", "study=s", "trainer.epochs=2000", "hydra/launcher=joblib", "trainer.monitor_every=0")
    if sweep == "search":
        arguments = (*arguments, "hydra/sweeper=optuna", LR, "hydra.sweeper.n_jobs=2", N + "3")
    else:
        arguments = (*arguments, "seed=0,1,2", "hydra.launcher.n_jobs=2")
    process = processes.start(tmp_path, *arguments)

    def runs():
        return list(tmp_path.glob("outputs/s/*/metrics.jsonl"))

    # an epoch in each: a run whose parts are still being built has nothing to write, and ends without a word
    processes.wait_for(lambda: [run.stat().st_size > 0 for run in runs()] == [True, True], process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    processes.wait_for(lambda: not processes.group_of(process), seconds=30)
    assert len(runs()) == 2
    for run in runs():
        assert "stopped in epoch" in run.with_name("run.log").read_text()
    assert "Traceback" not in (tmp_path / "output").read_text()


@alone
def test_a_storm_of_kills_loses_nothing():
    root = Path(__file__).parents[2]
    arguments = ("search-basic-journal", "--kills", "3", "--runs", "4", "--epochs", "10", "--most-seconds", "0.5")
    storm = subprocess.run([sys.executable, root / "benchmarks" / "kill_storm.py", *arguments], text=True,
                           capture_output=True, timeout=300, check=False)  # fmt: skip
    assert storm.returncode == 0, storm.stdout + storm.stderr
    assert "| search-basic-journal | 3 | 4 | 0 | 0 | 0 | 0 | 0 | 0 |" in storm.stdout
