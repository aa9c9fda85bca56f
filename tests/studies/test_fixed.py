"""A study is its configuration, not its text: what changes between two starts, or between two runs, is told."""

import csv
import json
from pathlib import Path

import optuna
import pytest
from conftest import TINY

from iolaus.data.open import clear_source_cache
from iolaus.files.optuna_storage import load_study

SEARCH = ("-m", *TINY, "model=mine", "hydra/sweeper=optuna", "lr=interval(0.001,0.01)", "study=S", "--config-dir", "c")
GRID = ("-m", *TINY, "model=mine", "study=G", "--config-dir", "c")


def write_model(width: int) -> None:
    """An option of the user's own, `model=mine`, beside our conf/."""
    Path("c/model").mkdir(parents=True, exist_ok=True)
    Path("c/model/mine.yaml").write_text(f"defaults:\n  - cnn\nwidths: [{width}]\n")


def table(study: str) -> list[dict[str, str]]:
    with open(f"outputs/{study}/results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_does_not_go_on_after_a_file_was_edited(command):
    write_model(4)
    assert command(*SEARCH, "hydra.sweeper.n_trials=1").status == 0
    write_model(5)
    outcome = command(*SEARCH, "hydra.sweeper.n_trials=2")
    assert outcome.status == 2
    why = "was edited, or changed by an update, since outputs/S began"
    assert f"iolaus: model.widths=[5], was [4]: {why}" in outcome.err
    assert "finished" not in outcome.out  # no table
    assert len(outcome.runs) == 1
    write_model(4)
    assert command(*SEARCH, "hydra.sweeper.n_trials=2", "trainer.monitor_every=0").status == 0


def test_a_grid_does_not_mix_runs_of_two_versions_of_a_file(command):
    write_model(4)
    assert command(*GRID, "seed=0,1").status == 0
    for name in ("results.json", "last.pt", "best.pt", "metrics.jsonl"):
        Path("outputs/G/seed=1", name).unlink()
    write_model(5)
    outcome = command(*GRID, "seed=0,1")
    assert outcome.status == 2
    assert "outputs/G/seed=0 and 1 more hold runs of another configuration (model.widths=[5], was [4])" in outcome.err
    assert not Path("outputs/G/seed=1/results.json").exists()


def test_runs_that_are_all_of_another_configuration_are_told_in_one_line(command):
    assert command("-m", *TINY, "model=mlp", "study=G", "seed=0,1,2").status == 0
    outcome = command("-m", *TINY, "model=mlp", "study=G", "seed=0,1,2", "optimizer.lr=0.5")
    assert outcome.status == 2
    (line,) = [line for line in outcome.err.splitlines() if "another configuration" in line]
    assert "outputs/G/seed=0 and 2 more hold runs of another configuration (optimizer.lr=0.5, was 0.003)" in line


@pytest.mark.parametrize("search", [False, True])
def test_a_file_that_is_edited_while_a_command_runs_changes_none_of_its_runs(command, monkeypatch, search):
    from iolaus import loop

    train = loop.train

    def train_and_edit(*args):
        train(*args)
        write_model(5)

    write_model(4)
    monkeypatch.setattr(loop, "train", train_and_edit)
    outcome = command(*(SEARCH if search else GRID), *(["hydra.sweeper.n_trials=2"] if search else ["seed=0,1"]))
    assert outcome.status == 0, outcome.err
    assert [run["status"] for run in table("S" if search else "G")] == ["finished", "finished"]
    assert [json.loads((run / "results.json").read_text())["config"]["model"]["widths"] for run in outcome.runs] == [
        [4],
        [4],
    ]


def test_a_run_that_is_composed_anew_after_a_file_was_edited_is_refused(command, monkeypatch):
    """As in another process, which has no options of the command's start."""
    from iolaus.studies.compose import JobLoader

    def load(self, config, overrides):
        composed = self.loader.load_sweep_config(config, overrides)
        write_model(5)
        return composed

    write_model(4)
    monkeypatch.setattr(JobLoader, "load_sweep_config", load)
    outcome = command(*GRID, "seed=0")
    assert "model.widths=[5], was [4]: a file was edited while this study runs" in outcome.err
    assert outcome.status == 2
    assert outcome.runs == []


def test_a_report_shows_the_keys_in_which_runs_differ_though_their_overrides_do_not(command):
    write_model(4)
    command(*GRID, "seed=0")
    write_model(5)
    command(*GRID, "seed=1,2")
    assert [(run["model.widths"], run["seed"]) for run in table("G")] == [("[4]", "0"), ("[5]", "1"), ("[5]", "2")]


def test_other_single_values_in_one_study_are_refused_before_anything_is_written(command):
    command("-m", *TINY, "seed=5", "study=S")
    before = {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}
    outcome = command("-m", *TINY, "seed=6", "study=S")
    assert (outcome.status, outcome.out) == (2, "")
    assert len(outcome.err.splitlines()) == 1
    assert "outputs/S/run holds a run of another configuration (seed=6, was 5)" in outcome.err
    assert {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()} == before


def test_numbered_folders_keep_their_numbers_when_a_run_in_the_middle_is_missing(command):
    numbered = ("-m", *TINY, "hydra.sweep.subdir=${hydra.job.num}", "study=N")
    command(*numbered, "seed=0,1,2,3")
    for number in (0, 2):
        Path(f"outputs/N/{number}/results.json").unlink()
    outcome = command(*numbered, "seed=0,1,2,3,4")
    assert outcome.status == 0, outcome.err
    seeds = {
        p.parent.name: json.loads(p.read_text())["config"]["seed"] for p in Path("outputs/N").glob("*/results.json")
    }
    assert seeds == {str(seed): seed for seed in range(5)}


def test_recipes_with_numbers_for_names_in_a_grid_and_alone(command):
    Path("c/experiment").mkdir(parents=True)
    for seed in (1, 2):
        Path(f"c/experiment/{seed}.yaml").write_text(f"# @package _global_\nseed: {seed}\n")
    assert command("-m", *TINY, "experiment=1,2", "--config-dir", "c", "study=E").status == 0
    assert sorted(path.parent.name for path in Path("outputs/E").glob("*/results.json")) == [
        "experiment=1",
        "experiment=2",
    ]
    assert command(*TINY, "experiment=[1,2]", "--config-dir", "c", "hydra.run.dir=outputs/one").status == 0
    assert json.loads(Path("outputs/one/results.json").read_text())["config"]["seed"] == 2
    assert "experiment=3" in command(*TINY, "experiment=3", "--config-dir", "c").err


def test_a_key_that_is_taken_out_and_options_by_a_pattern_make_a_grid(command):
    outcome = command("-m", *TINY, "~optimizer.amsgrad", "model=glob(c*)", "seed=0,1", "study=D")
    assert outcome.status == 0, outcome.err
    models = ("cnn", "cnn_small")
    assert sorted(run.name for run in outcome.runs) == [
        f"model={name},seed={seed}" for name in models for seed in (0, 1)
    ]


def test_a_mistake_outside_of_the_command_leaves_no_study_and_no_failed_trial(command, tmp_path):
    search = ("-m", "dataset=image_folder", f"dataset.root={tmp_path}/away", "tracker=none", "model.widths=[4]",
              "trainer.epochs=1", "hydra/sweeper=optuna", "lr=interval(0.001,0.01)", "study=S")  # fmt: skip
    outcome = command(*search, "hydra.sweeper.n_trials=2")
    assert outcome.status == 2
    assert outcome.err.count("iolaus: ") == 1
    assert not Path("outputs").exists()

    make_pictures(tmp_path / "away")
    assert command(*search, "hydra.sweeper.n_trials=1").status == 0
    (tmp_path / "away").rename(tmp_path / "elsewhere")  # in the middle of a study
    clear_source_cache()
    assert command(*search, "hydra.sweeper.n_trials=2").status == 2
    (tmp_path / "elsewhere").rename(tmp_path / "away")
    assert command(*search, "hydra.sweeper.n_trials=2").status == 0
    states = [trial.state.name for trial in load_study(Path("outputs/S"), None, None).trials]
    assert states == ["COMPLETE", "COMPLETE"]


def make_pictures(folder: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (8, 8), i).save(folder / name / f"{i}.png")


def test_failed_trials_are_tried_again_by_wish_in_the_place_of_the_old(command, first_step_fails):
    search = ("-m", *TINY, "model.widths=[4]", "hydra/sweeper=optuna", "lr=interval(0.001,0.01)", "study=S",
              "hydra.sweeper.n_trials=3")  # fmt: skip
    command(*search)
    command(*search)  # a failed trial is one of the three
    before = load_study(Path("outputs/S"), None, None).trials
    assert [trial.state.name for trial in before] == ["FAIL", "COMPLETE", "COMPLETE"]
    for _ in range(2):
        assert command(*search, "hydra.sweeper.retry_failed=true").status == 0
        trials = load_study(Path("outputs/S"), None, None).trials
        assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
        assert trials[3].params == before[0].params


def test_a_run_that_was_refused_has_a_row_beside_those_that_ran(command):
    """The loss is built with the run, after the checks of the whole grid."""
    outcome = command("-m", *TINY, "loss=mse", "loss.one_hot=true,false", "study=S")
    assert outcome.status == 2
    rows = {row["loss.one_hot"].lower(): row for row in table("S")}
    assert rows["true"]["status"] == "finished"
    assert rows["false"]["status"] == "failed"
    assert "does not take class indices" in rows["false"]["error"]
    assert command("-m", *TINY, "loss=mse", "loss.one_hot=false", "study=T").status == 2
    assert not Path("outputs/T").exists()  # where none ran, nothing is left


def test_a_password_in_a_storages_url_stays_out_of_every_file(command, tmp_path):
    url = f"sqlite:///file:{tmp_path}/studies.db?uri=true&password=hunter2"
    outcome = command("-m", *TINY, "model.widths=[4]", "hydra/sweeper=optuna", "lr=interval(0.001,0.01)", "study=S",
                      "hydra.sweeper.n_trials=1", f"hydra.sweeper.storage='{url}'")  # fmt: skip
    assert outcome.status == 0, outcome.err
    files = [path for path in Path("outputs").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []
    assert optuna.load_study(study_name="S", storage=url).trials[0].state.name == "COMPLETE"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:s3cr3t@host/db", "postgresql://me:***@host/db"),
        (
            "['hydra.sweeper.storage=mysql+pymysql://me:a:b@host']",
            "['hydra.sweeper.storage=mysql+pymysql://me:***@host']",
        ),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        (7, 7),
    ],
)
def test_only_the_password_of_a_url_is_masked(text, masked):
    from iolaus.trust.secrets import mask

    assert mask([text]) == [masked]
