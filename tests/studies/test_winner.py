"""A search looks at the test set for the trial that wins, and for others on demand."""

import json

from conftest import TINY

SEARCH = ("-m", *TINY, "model=mlp", "study=s", "hydra/sweeper=optuna", "lr=interval(0.001,0.1)")


def trials_with_test(outcome):
    """The numbers of the trials that have a test accuracy."""
    results = {run.name: json.loads((run / "results.json").read_text()) for run in outcome.runs}
    assert all(result["status"] == "finished" for result in results.values())
    return {name for name, result in results.items() if "test/accuracy" in result["metrics"]["last"]}


def winner_of(outcome):
    text = (outcome.cwd / "outputs/s/optimization_results.yaml").read_text()
    return text.split("best_trial: ")[1].split()[0]


def test_only_the_winner_of_a_search_sees_the_test_set(command):
    outcome = command(*SEARCH, "hydra.sweeper.n_trials=3")
    assert outcome.status == 0, outcome.err
    winner = winner_of(outcome)
    assert trials_with_test(outcome) == {winner}
    told = outcome.out + outcome.err
    assert told.count(f"evaluating the winner, trial {winner}, on test") == 1
    assert told.count(f"trial {winner}: optimizer.lr=") == 1  # of its training: its evaluation is no other run
    result = json.loads((outcome.cwd / f"outputs/s/{winner}/results.json").read_text())
    assert result["best_test_accuracy"] == result["metrics"]["best"]["test/accuracy"]
    assert "test" in (outcome.cwd / "outputs/s/report.md").read_text()


def test_the_same_command_again_evaluates_nothing_anew(command):
    first = command(*SEARCH, "hydra.sweeper.n_trials=2")
    before = [(run / "results.json").read_bytes() for run in first.runs]
    again = command(*SEARCH, "hydra.sweeper.n_trials=2")
    assert again.status == 0
    assert [(run / "results.json").read_bytes() for run in again.runs] == before


def test_the_test_of_another_trial_is_evaluated_on_demand(command):
    """The numbers of its training stay; a second time there is nothing to do."""
    outcome = command(*SEARCH, "hydra.sweeper.n_trials=2")
    (other,) = {"0", "1"} - {winner_of(outcome)}
    file = outcome.cwd / f"outputs/s/{other}/results.json"
    before = json.loads(file.read_text())
    assert command(f"resume=outputs/s/{other}").status == 0
    after = json.loads(file.read_text())
    added = after["metrics"]["last"].keys() - before["metrics"]["last"].keys()
    assert {"test/loss", "test/accuracy"} <= added
    assert all(name.startswith("test/") for name in added)
    assert after["history"] == before["history"]
    second = command(f"resume=outputs/s/{other}")
    assert (second.status, "the run is finished" in second.err) == (2, True)


def test_a_pareto_front_is_tested(command):
    outcome = command(*SEARCH, "hydra.sweeper.n_trials=2", "objective=[val/accuracy,parameters]")
    assert outcome.status == 0, outcome.err
    assert outcome.runs
    front = (outcome.cwd / "outputs/s/optimization_results.yaml").read_text().count("trial:")
    results = [json.loads((run / "results.json").read_text()) for run in outcome.runs]
    assert sum("test/accuracy" in result["metrics"]["last"] for result in results) == front


def test_a_winner_that_has_lost_its_checkpoint_ends_the_search_all_the_same(command):
    outcome = command(*SEARCH, "hydra.sweeper.n_trials=1")
    folder = outcome.cwd / "outputs/s/0"
    result = json.loads((folder / "results.json").read_text())
    result["metrics"]["last"] = {k: v for k, v in result["metrics"]["last"].items() if not k.startswith("test/")}
    (folder / "results.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text('{"epoch": 0}\n' * 3)
    (folder / "last.pt").unlink()
    again = command(*SEARCH, "hydra.sweeper.n_trials=1")
    assert again.status == 0
    assert "trial 0: no test: " in again.out + again.err
    assert json.loads((folder / "results.json").read_text())["status"] == "finished"
