"""The report of a study: what it reads, computes, writes, and that it can be made at any time."""

import csv
import html.parser
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from conftest import TINY
from test_architecture import modules_after

from iolaus.files import locks
from iolaus.files.layout import RESULT_COLUMNS as BEST
from iolaus.report import defuse_formula, sections, to_csv, write_report
from iolaus.report import terminal as watch
from iolaus.report.comparison import build_grid, compute_effects
from iolaus.report.configurations import group_runs
from iolaus.report.plots import draw_pictures
from iolaus.report.rendering import to_markdown
from iolaus.report.runs import read_study
from iolaus.report.search import read_search
from iolaus.report.search_plots import draw_search

AWKWARD = "model.name='a b|c' <script>alert(1)</script> $HOME `x` \"q\""


def epochs(*accuracies):
    return [
        {"epoch": i, "train/loss": 1 - a, "train/accuracy": a, "val/loss": 2 - a, "val/accuracy": a,
         "seconds": 30.0, "images_per_second": 1000.0}
        for i, a in enumerate(accuracies)
    ]  # fmt: skip


def make_run(folder, overrides, *accuracies, status="finished", **more):
    """A run's folder as run.py leaves it; without a status it is one that is not done."""
    history = epochs(*accuracies)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("trainer: {epochs: 9}\n")
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))  # JSON is YAML
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    if status is None:
        return folder
    result = {"status": status, "error": None, "history": history, "seconds": 30.0 * len(history), **more}
    if status == "finished":
        last = {**history[-1], "test/accuracy": accuracies[-1] - 0.01, "test/loss": 0.5}
        result |= {"objective": {"name": "val/accuracy", "value": accuracies[-1]}, "metrics": {"last": last},
                   "best_test_accuracy": last["test/accuracy"], "best_test_loss": 0.5, "peak_memory_bytes": 2**30,
                   "device_name": "cpu", "precision": "fp32", "versions": {"torch": "2"}} | more  # fmt: skip
    (folder / "results.json").write_text(json.dumps(result))
    return folder


def grid(folder, values, keys=("model", "optimizer.lr")):
    """A run for each {(model, lr): accuracy}."""
    for i, (place, accuracy) in enumerate(values.items()):
        make_run(folder / str(i), [f"{k}={v}" for k, v in zip(keys, place, strict=True)], accuracy)
    return folder


def test_of_equal_configurations_and_runs_that_of_the_lower_validation_loss_is_the_best(tmp_path):
    losses = {"a": 0.5, "b": 0.125, "c": 0.25}
    for name, loss in losses.items():
        run = make_run(tmp_path / name, [f"model={name}"], 0.75)
        result = json.loads((run / "results.json").read_text())
        result["metrics"]["last"]["val/loss"] = result["history"][-1]["val/loss"] = loss
        (run / "results.json").write_text(json.dumps(result))
    study = read_study(tmp_path)
    assert [place.settings["model"] for place in group_runs(study)] == ["b", "c", "a"]
    assert [run.name for run in watch.rank_runs(study)] == ["b", "c", "a"]
    assert watch.best_run(study).name == "b"


def test_the_objective_has_a_picture_of_its_own(tmp_path):
    for name in ("a", "b"):
        run = make_run(tmp_path / name, [f"model={name}"], 0.5, 0.75, objective={"name": "val/f1", "value": 0.5})
        result = json.loads((run / "results.json").read_text())
        for row in (*result["history"], result["metrics"]["last"]):
            row["val/f1"] = 0.5
        (run / "results.json").write_text(json.dumps(result))
    study = read_study(tmp_path)
    assert study.objective == "val/f1"
    first, *_ = draw_pictures(study, group_runs(study))
    assert (first.name, first.title) == ("val_f1", "Validation f1 by epoch")


def markdown(folder):
    """report.md, but for the pictures, which take most of a report's time."""
    with (
        mock.patch.object(sections, "draw_pictures", return_value=[]),
        mock.patch.object(sections, "draw_search", return_value=([], [])),
    ):
        return to_markdown(sections.make_document(read_study(folder), foot=""))


def tables(folder, title):
    """The rows of a section's first table in report.md, as dicts; emphasis is left out."""
    text = markdown(folder).partition(f"\n## {title}\n")[2]
    lines = text[text.index("|") :].partition("\n\n")[0].splitlines()
    cells = [[cell.strip().strip("*") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(row) for row in cells} == {len(cells[0])}
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def rows(folder):
    """results.csv"""
    return list(csv.DictReader(to_csv(read_study(folder)).splitlines()))


class Balanced(html.parser.HTMLParser):
    """Fails where a tag is closed that is not open, and collects what the page would load."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.scripts, self.text = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.loaded += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data") and tag != "a"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> in line {self.getpos()[0]}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def page(folder):
    parsed = Balanced()
    parsed.feed(write_report(folder).read_text())
    parsed.close()
    assert parsed.open == []
    return parsed


def test_what_a_sweep_leaves_makes_a_report(command):
    done = command("-m", *TINY, "trainer.epochs=2", "lr=0.01,0.1", "study=two")
    assert done.status == 0
    folder = Path("outputs/two")
    assert {row["lr"] for row in tables(folder, "Leaderboard")} == {"0.01", "0.1"}
    for row, run in zip(rows(folder), done.runs, strict=True):
        result = json.loads((run / "results.json").read_text())
        assert [float(row[name]) for name in BEST] == [result[name] for name in BEST]
        assert float(row["objective"]) == result["objective"]["value"]
        assert float(row["last_test_accuracy"]) == result["metrics"]["last"]["test/accuracy"]
        assert Path(folder / row["folder"]).samefile(run)


def test_the_columns_are_those_of_the_sweeps_table():
    assert [name for name in BEST if "val" not in name] == sorted(watch.BEST_COLUMNS.values(), key=BEST.index)


def test_runs_that_differ_in_the_seed_are_one_row_with_mean_and_sample_deviation(tmp_path):
    for seed, accuracy in enumerate((0.70, 0.72, 0.77)):
        make_run(tmp_path / f"a{seed}", ["optimizer.lr=0.1", f"seed={seed}"], 0.5, accuracy)
    make_run(tmp_path / "b", ["optimizer.lr=0.2", "seed=0"], 0.5, 0.6)
    first, second = tables(tmp_path, "Leaderboard")
    # by hand: mean 0.73; sqrt((0.03² + 0.01² + 0.04²) / 2) = 0.03606
    assert (first["lr"], first["val acc, %"], first["test acc, %"], first["n"]) == (
        "0.1", "73.00 ± 3.61", "72.00 ± 3.61", "3",
    )  # fmt: skip
    assert (second["val acc, %"], second["n"]) == ("60.00", "1")


def test_the_folds_of_a_configuration_are_one_row_and_one_command(tmp_path):
    for fold, accuracy in enumerate((0.5, 0.6, 0.7)):
        make_run(tmp_path / str(fold), ["dataset.folds=3", "model=cnn", f"dataset.fold={fold}"], accuracy)
    (row,) = tables(tmp_path, "Leaderboard")
    assert row["val acc, %"] == "60.00 ± 10.00"  # the sample deviation
    assert row["n"] == "3"
    text = markdown(tmp_path)
    assert "(mean ± standard deviation of 3 folds)" in text
    assert "n runs that differ only in the fold;" in text
    assert "python train.py -m dataset.folds=3 model=cnn dataset.fold=0,1,2" in text


def test_folds_and_seeds_of_a_configuration_are_counted_each(tmp_path):
    for number in range(4):
        make_run(tmp_path / str(number), [f"seed={number // 2}", f"dataset.fold={number % 2}"], 0.5 + number / 100)
    text = markdown(tmp_path)
    assert "(mean ± standard deviation of 4 runs: 2 seeds, 2 folds)" in text
    assert "seed=0,1 dataset.fold=0,1" in text


def test_the_best_mean_is_first_not_the_luckiest_seed(tmp_path):
    for name, accuracies in {"lucky": (0.9, 0.5), "steady": (0.8, 0.8)}.items():
        for seed, accuracy in enumerate(accuracies):
            make_run(tmp_path / f"{name}{seed}", [f"model={name}", f"seed={seed}"], accuracy)
    assert [row["model"] for row in tables(tmp_path, "Leaderboard")] == ["steady", "lucky"]


def test_the_lower_loss_is_the_better_objective(tmp_path):
    for model, accuracy in (("a", 0.5), ("b", 0.9)):  # val/loss is 2 - accuracy
        make_run(tmp_path / model, [f"model={model}"], accuracy, objective={"name": "val/loss", "value": 2 - accuracy})
    first = tables(tmp_path, "Leaderboard")[0]
    assert (first["model"], first["val loss"], first["val acc, %"]) == ("b", "1.1000", "90.00")


def test_seconds_as_the_objective_are_those_of_all_epochs(tmp_path):
    for model, seconds in (("a", 90.0), ("b", 65.0)):  # an epoch has 30
        objectives = [{"name": "seconds", "value": seconds}]
        make_run(tmp_path / model, [f"model={model}"], 0.5, 0.6, seconds=seconds, objectives=objectives)
    assert [(row["model"], row["seconds"]) for row in tables(tmp_path, "Leaderboard")] == [("b", "65.0"), ("a", "90.0")]


def test_runs_of_less_than_a_minute_have_seconds(tmp_path):
    for model, seconds in (("a", 0.7), ("b", 0.1)):
        make_run(tmp_path / model, [f"model={model}"], 0.5, seconds=seconds)
    assert {row["model"]: row["seconds"] for row in tables(tmp_path, "Leaderboard")} == {"a": "0.7", "b": "0.1"}


def test_a_failed_seed_does_not_count(tmp_path):
    make_run(tmp_path / "0", ["seed=0"], 0.5, 0.8)
    make_run(tmp_path / "1", ["seed=1"], 0.1, status="failed", error="the loss is nan")
    (row,) = tables(tmp_path, "Leaderboard")
    assert (row["val acc, %"], row["n"], row["status"]) == ("80.00", "1", "1 finished, 1 failed")
    assert [row["error"] for row in tables(tmp_path, "Failed and unfinished")] == ["the loss is nan"]


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "|calc", "%x"])
def test_no_cell_of_a_csv_file_begins_a_formula(cell):
    assert defuse_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-0.5", "1e-3", "+1", "adam", "", None, -0.5])
def test_numbers_and_words_of_a_csv_file_stay_as_they_are(cell):
    assert defuse_formula(cell) == cell


def test_results_csv_has_a_column_for_each_key_that_varies_and_numbers_as_they_are(tmp_path):
    make_run(tmp_path / "x", ["model=cnn", "+optimizer.lr=0.1", "trainer.epochs=2"], 0.25, 1 / 3)
    make_run(
        tmp_path / "y",
        ["model=cnn", "+optimizer.lr=0.2", "~loss", "trainer.epochs=2"],
        0.25,
        status="failed",
        error="no",
    )
    first, second = rows(tmp_path)
    assert list(first) == ["optimizer.lr", "loss", "status", *BEST, "last_val_accuracy", "last_test_accuracy",
                           "objective", "epochs", "seconds", "minutes", "images_per_second", "peak_memory_mib", "error",
                           "folder"]  # fmt: skip
    assert (first["optimizer.lr"], first["loss"], second["loss"]) == ("0.1", "", "removed")
    assert float(first["last_val_accuracy"]) == float(first["objective"]) == 1 / 3
    assert (first["epochs"], first["minutes"], first["peak_memory_mib"], first["folder"]) == ("2", "1.0", "1024.0", "x")
    assert (second["status"], second["error"], second["best_val_accuracy"], second["best_test_accuracy"]) == (
        "failed", "no", "0.25", "",
    )  # fmt: skip


def test_the_effect_of_a_key_is_the_mean_over_the_cells_with_each_value(tmp_path):
    grid(tmp_path, {("a", "0.1"): 0.1, ("a", "0.2"): 0.3, ("b", "0.1"): 0.5, ("b", "0.2"): 0.4, ("c", "0.1"): 0.9})
    study = read_study(tmp_path)
    model, lr = compute_effects(study, build_grid(study, group_runs(study)))
    assert (model.key, model.values, lr.key, lr.values) == ("model", ["a", "b", "c"], "optimizer.lr", ["0.1", "0.2"])
    assert (model.means.round(6).tolist(), model.counts.tolist()) == ([0.2, 0.45, 0.9], [2, 2, 1])
    assert (lr.means.round(6).tolist(), lr.counts.tolist()) == ([0.5, 0.35], [3, 2])
    # only lr=0.1 has all three models, and models a and b have both rates
    assert (model.wins.tolist(), model.num_rows) == ([0, 0, 1], 1)
    assert (lr.wins.tolist(), lr.num_rows) == ([1, 1], 2)


def test_a_grid_is_a_table_of_its_cells(tmp_path):
    keys = ("model", "optimizer.lr", "scheduler")
    values = {
        (m, lr, s): i / 10 for i, (m, lr, s) in enumerate((m, r, s) for m in "ab" for r in "12" for s in ("x", "y"))
    }
    found = tables(grid(tmp_path, values, keys), "Grid")
    write_report(tmp_path)
    assert found[0] == {"model": "a", "lr": "1", "scheduler x": "0.00", "scheduler y": "10.00"}
    assert found[-1] == {"model": "b", "lr": "2", "scheduler x": "60.00", "scheduler y": "70.00"}
    heats = [float(heat) for heat in re.findall(r"--heat:([\d.]+)", (tmp_path / "report.html").read_text())]
    assert heats[:8] == sorted(heats[:8])
    assert (heats[0], heats[7]) == (0.0, 1.0)


def test_a_random_search_is_no_grid(tmp_path):
    grid(tmp_path, {(m, f"0.{i}"): i / 10 for i, m in enumerate("aabbb")})
    assert "## Grid" not in markdown(tmp_path)


def test_the_best_runs_command_is_its_overrides_quoted_for_a_shell(tmp_path):
    make_run(tmp_path / "0", ["model=cnn", "study=mine", "seed=0", AWKWARD], 0.9)
    make_run(tmp_path / "1", ["model=cnn", "seed=1", AWKWARD], 0.8)
    make_run(tmp_path / "2", ["model=mlp", "seed=1", "~optimizer.fused"], 0.5)
    commands = re.findall(r"```+sh\n(.*?)\n```", markdown(tmp_path), re.DOTALL)
    assert [shlex.split(command) for command in commands] == [
        ["python", "train.py", "model=cnn", "seed=0", AWKWARD],
        ["python", "train.py", "-m", "model=cnn", AWKWARD, "seed=0,1"],
    ]


def test_what_a_person_typed_is_shown_and_never_run(tmp_path):
    folder = tmp_path / "a <b>study & more"
    make_run(folder / "0", ["model=cnn", AWKWARD], 0.9)
    make_run(folder / "1 <i>", ["model=mlp"], 0.5, status="failed", error="<script>alert(2)</script> a|b")
    found = page(folder)
    assert found.scripts == 1
    assert {"a <b>study & more", "<script>alert(2)</script> a|b"} <= set(found.text)
    value = AWKWARD.partition("=")[2].replace("|", r"\|").replace("<", r"\<").replace(">", r"\>")
    assert tables(folder, "Leaderboard")[0]["name"] == value.replace("$", r"\$").replace("`", r"\`")


def test_the_page_needs_no_other_file(tmp_path):
    found = page(grid(tmp_path, {("a", "0.1"): 0.1, ("a", "0.2"): 0.3, ("b", "0.1"): 0.5}))
    assert all(value.startswith(("#", "data:")) for value in found.loaded)
    assert "http" not in (tmp_path / "report.html").read_text()
    pictures = re.findall(r"\]\((plots/.*?)\)", (tmp_path / "report.md").read_text())
    assert len(pictures) == 4
    assert all((tmp_path / path).read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_colours_of_the_pictures_are_the_pages(tmp_path):
    make_run(tmp_path / "0", [], 0.1, 0.2)
    text = write_report(tmp_path).read_text()
    drawings = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert drawings
    assert not any(re.search(r"#[0-9a-f]{6}\b", drawing) for drawing in drawings)
    assert all(f"--{name}:" in text for name in set(re.findall(r"var\(--([\w]+)\)", text)) - {"heat"})


def test_runs_in_progress_and_broken_files_are_shown_as_far_as_they_are_readable(tmp_path):
    make_run(tmp_path / "running", ["model=a"], 0.1, 0.2, status=None)
    with (tmp_path / "running" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "val/accu')
    stale = make_run(tmp_path / "stale", ["model=b"], 0.3, status=None)
    for path in (stale / "metrics.jsonl", stale / ".hydra"):
        os.utime(path, (time.time() - 9000,) * 2)
    half = make_run(tmp_path / "half", ["model=c"], 0.4)
    (half / "results.json").write_text('{"status": "fini')
    other = make_run(tmp_path / "other", ["model=d"], 0.5)
    (other / "results.json").write_text('["not", "ours"]')
    (other / ".hydra" / "overrides.yaml").write_text("- 'model=d\n  :\x00")
    (tmp_path / "begun" / ".hydra").mkdir(parents=True)
    odd = make_run(tmp_path / "odd", ["model=f"], 0.6)
    (odd / "results.json").write_text('{"status": "finished", "history": [3, {"epoch": NaN}], "metrics": {"last": 4}, '
                                      '"seconds": NaN, "epochs": "x", "objective": [], "versions": 1}')  # fmt: skip
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    found = {row["folder"]: row for row in rows(tmp_path)}
    states = {name: (row["status"], row["epochs"], row["objective"]) for name, row in found.items()}
    assert states == {"running": ("running", "2", "0.2"), "stale": ("unfinished", "1", "0.3"),
                      "half": ("running", "1", "0.4"), "other": ("running", "1", "0.5"), "begun": ("running", "0", ""),
                      "odd": ("finished", "1", "0.6")}  # fmt: skip
    assert page(tmp_path).scripts == 1
    assert "2 of 9" in {row["epochs"] for row in tables(tmp_path, "Failed and unfinished")}


def test_of_this_machine_a_run_without_results_is_running_as_long_as_it_has_its_lock(tmp_path):
    folder = make_run(tmp_path / "0", [], 0.1, status=None)
    with locks.file_lock(folder / ".lock"):
        locks.record_host(folder / ".lock")
        for path in (folder / "metrics.jsonl", folder / ".hydra", folder / ".lock"):
            os.utime(path, (time.time() - 9000,) * 2)  # its epochs may be long
        assert [row["status"] for row in rows(tmp_path)] == ["running"]
    (folder / "last.pt").touch()
    assert [row["status"] for row in rows(tmp_path)] == ["unfinished"]


def test_a_run_that_ends_while_it_is_read_is_finished(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "0", [], 0.1, status=None)

    def held_until_now(path):
        (folder / "results.json").write_text('{"status": "finished"}')
        return True

    monkeypatch.setattr(locks, "is_locked_here", held_until_now)
    assert [row["status"] for row in rows(tmp_path)] == ["finished"]


def test_before_a_run_has_finished_there_is_no_best_one(tmp_path):
    make_run(tmp_path / "0", ["model=a"], 0.1, status=None)
    make_run(tmp_path / "1", ["model=b"], status="failed", error="out of memory")
    assert "No run has finished yet." in markdown(tmp_path)


def test_a_number_that_is_none_is_the_worst(tmp_path):
    make_run(tmp_path / "0", ["model=a"], math.nan)
    make_run(tmp_path / "1", ["model=b"], 0.1)
    assert [row["val acc, %"] for row in tables(tmp_path, "Leaderboard")] == ["10.00", "nan"]


def test_runs_are_found_at_any_depth(tmp_path):
    make_run(tmp_path / "2026-01-01" / "10-00-00", ["model=a"], 0.5)
    make_run(tmp_path / "study" / "3", ["model=b"], 0.6, status="pruned")
    make_run(tmp_path / "study" / "20", ["model=c"], 0.7)
    (tmp_path / "study" / "notes").mkdir()
    assert [row["folder"] for row in rows(tmp_path)] == ["2026-01-01/10-00-00", "study/3", "study/20"]
    assert [row["folder"] for row in rows(tmp_path / "study")] == ["3", "20"]


def test_a_study_that_selected_on_test_says_so(tmp_path):
    make_run(tmp_path / "0", [], 0.5, selected_on_test=True)
    assert "Selected on the test set" in markdown(tmp_path)


def test_many_runs_are_drawn_without_a_name_for_each(tmp_path):
    for i in range(70):
        status = "pruned" if i % 3 else "failed" if i % 5 == 0 else "finished"
        make_run(
            tmp_path / str(i), [f"optimizer.lr=0.{i:03d}12345678"], *(e * i / 700 for e in range(1, 4)), status=status
        )
    found = page(tmp_path)
    assert len(tables(tmp_path, "Leaderboard")) == 20
    assert any(text.startswith("best: lr 0.069") for text in found.text)
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_it_imports_neither_torch_nor_hydra(tmp_path):
    make_run(tmp_path / "0", ["model=a"], 0.5)
    loaded = modules_after(f"from pathlib import Path\nimport iolaus.report\n"
                           f"iolaus.report.write_report(Path({str(tmp_path)!r}))", tmp_path)  # fmt: skip
    assert "matplotlib" in loaded
    assert loaded & {"torch", "hydra", "omegaconf", "optuna", "matplotlib.pyplot", "rich"} == set()


def test_the_command_says_where_the_report_is_or_why_there_is_none(tmp_path):
    def call(folder):
        command = [sys.executable, "-m", "iolaus.report", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    make_run(tmp_path / "study" / "0", ["model=a"], 0.5)
    (tmp_path / "empty").mkdir()
    good, missing, empty = call("study"), call("nowhere"), call("empty")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines()[:3] == ["study/report.html", "study/report.md", "study/results.csv"]
    assert all((tmp_path / line).is_file() for line in good.stdout.splitlines())
    assert (missing.returncode, missing.stderr) == (2, "iolaus: nowhere: no such folder\n")
    assert empty.returncode == 2
    assert empty.stderr.startswith("iolaus: empty: holds no run")
    assert len(empty.stderr.splitlines()) == 1
    assert list((tmp_path / "empty").iterdir()) == []


def searched(folder, trials, **directions):
    """An Optuna study in its journal, and the folders of its runs."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.create_study(study_name="any", storage=storage, **directions)
    space = {"optimizer.lr": FloatDistribution(1e-4, 1.0, log=True), "model": CategoricalDistribution(["a", "b"])}
    for number, (lr, model, state, values) in enumerate(trials):
        study.add_trial(optuna.trial.create_trial(
            state=optuna.trial.TrialState[state], params={"optimizer.lr": lr, "model": model}, distributions=space,
            values=values, intermediate_values={0: 0.1, 1: 0.2} if state == "PRUNED" else {},
        ))  # fmt: skip
        status = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}[state]
        names = ("val/accuracy", "seconds")[: len(values or [])]
        more = {"objectives": [{"name": n, "value": v} for n, v in zip(names, values, strict=True)]} if values else {}
        make_run(folder / str(number), [f"optimizer.lr={lr}", f"model={model}"], 0.1, *(values or [])[:1],
                 status=status, **more)  # fmt: skip


SEARCH = [(0.1, "a", "COMPLETE", [0.5]), (0.01, "b", "COMPLETE", [0.8]), (0.5, "a", "PRUNED", None),
          (0.02, "b", "COMPLETE", [0.7]), (0.9, "a", "FAIL", None), (0.03, "a", "COMPLETE", [0.6])]  # fmt: skip


def test_a_search_shows_its_trials_the_best_of_them_and_what_matters(tmp_path):
    searched(tmp_path, SEARCH, direction="maximize")
    with (tmp_path / "optuna.journal").open("a") as file:
        file.write('{"op_code": 4, "wor')  # another process is writing
    assert tables(tmp_path, "Search") == [{"best trial": "[1](1/)", "val acc, %": "80.00", "lr": "0.01", "model": "b"}]
    assert "Optuna: 6 trials, 4 finished, 1 pruned, 1 failed." in page(tmp_path).text
    drawn = {path.stem for path in (tmp_path / "plots").glob("optuna_*")}
    assert drawn == {"optuna_history", "optuna_importances", "optuna_slices", "optuna_parallel"}


def test_two_objectives_have_a_pareto_front(tmp_path):
    trials = [(0.1, "a", "COMPLETE", [0.5, 10]), (0.2, "b", "COMPLETE", [0.8, 30]), (0.3, "a", "COMPLETE", [0.7, 40]),
              (0.4, "b", "COMPLETE", [0.6, 5])]  # fmt: skip
    searched(tmp_path, trials, directions=["maximize", "minimize"])
    found = tables(tmp_path, "Search")
    assert [(row["val acc, %"], row["seconds"]) for row in found] == [("80.00", "30.0"), ("60.00", "5.0")]
    assert (found[0]["on the Pareto front"], found[1]["model"]) == ("[1](1/)", "b")
    pictures, _ = draw_search(read_search(tmp_path, ["val/accuracy", "seconds"]))
    assert pictures[0].name == "optuna_pareto"


def test_what_optuna_cannot_tell_yet_is_left_out_with_a_reason(tmp_path):
    searched(tmp_path, SEARCH[:1], direction="maximize")
    pictures, notes = draw_search(read_search(tmp_path, ["val/accuracy"]))
    assert [picture.name for picture in pictures] == ["optuna_history"]
    assert [re.match(r"Left out: ([^(]*) \(.*\)\.", note)[1] for note in notes] == [
        "importances for val/accuracy", "slices", "parallel coordinates",
    ]  # fmt: skip


def test_a_storage_that_cannot_be_read_gives_away_no_password_and_is_not_made(tmp_path):
    make_run(tmp_path / "0", ["model=a"], 0.5)
    sweep = "hydra: {{sweeper: {{storage: '{}', study_name: null}}}}"
    (tmp_path / "multirun.yaml").write_text(sweep.format("nodriver://me:hunter2@host/db"))
    assert "Optuna's study could not be read" in markdown(tmp_path)
    assert "hunter2" not in markdown(tmp_path)
    (tmp_path / "multirun.yaml").write_text(sweep.format(f"sqlite:///{tmp_path}/none.db"))
    assert "Optuna" not in markdown(tmp_path)
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "optuna.journal").write_text("not a journal\nat all\n")
    assert "Optuna's study could not be read" in markdown(tmp_path)
