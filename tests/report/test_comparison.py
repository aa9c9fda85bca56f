"""What a report compares: runs of the same data and objective, with their real settings, each of them once."""

import base64
import json
import re

import pytest
from test_report import make_run, markdown, page, tables

from iolaus.report.configurations import group_runs
from iolaus.report.hardware_plots import hardware_section
from iolaus.report.runs import read_study
from iolaus.show.numbers import metric_of

DIGITS = {"_target_": "iolaus.data.sources.digits", "validation": 0.1}
PNG = b"\x89PNG\r\n\x1a\nand so on"


def configured(
    folder, overrides, *accuracies, choices=None, dataset=DIGITS, seed=0, objective="val/accuracy", **config
):
    """A finished run with its whole configuration, as run.py leaves it; further keys are those of the configuration."""
    whole = {"seed": seed, "objective": objective, "dataset": dataset, **config}
    value = 2 - accuracies[-1] if objective == "val/loss" else accuracies[-1]
    run = make_run(folder, overrides, *accuracies, config=whole, objective={"name": objective, "value": value})
    hydra = {"hydra": {"runtime": {"choices": choices or {}}}}
    (run / ".hydra" / "hydra.yaml").write_text(json.dumps(hydra))
    return run


def test_a_key_that_a_run_was_not_given_has_its_default(tmp_path):
    configured(tmp_path / "0", ["optimizer.lr=0.1", "model=mlp"], 0.9, optimizer={"lr": 0.1}, model={})
    configured(tmp_path / "1", [], 0.8, optimizer={"lr": 0.003}, model={"widths": [1]}, choices={"model": "cnn"})
    found = [(row["lr"], row["model"]) for row in tables(tmp_path, "Leaderboard")]
    assert found == [("0.1", "mlp"), ("0.003", "cnn")]


def test_a_value_that_was_typed_in_one_run_and_is_the_default_of_another_does_not_vary(tmp_path):
    configured(tmp_path / "0", ["optimizer.lr=0.10", "x=null"], 0.9, optimizer={"lr": 0.1}, x=None)
    configured(tmp_path / "1", ["seed=1"], 0.8, optimizer={"lr": 0.1}, seed=1)
    study = read_study(tmp_path)
    assert study.varied == ["seed"]
    [row] = tables(tmp_path, "Leaderboard")
    assert row["n"] == "2"


def test_equal_runs_are_one_and_not_two_seeds(tmp_path):
    for name, more in (("0", ["trainer.monitor_every=1", "trainer.max_minutes=9"]), ("1", [])):  # nothing is measured
        configured(tmp_path / name, ["optimizer.lr=0.1", *more], 0.9, optimizer={"lr": 0.1})
    configured(tmp_path / "2", ["seed=1"], 0.8, optimizer={"lr": 0.1}, seed=1)
    config = {"seed": 1, "objective": "val/accuracy", "dataset": DIGITS}
    make_run(tmp_path / "3", ["optimizer.lr=0.1", "seed=1"], 0.1, status="failed", error="no", config=config)
    [place] = group_runs(read_study(tmp_path))
    assert [run.name for run in place.runs] == ["1", "2"]  # the newest, and the finished one rather than the failed
    assert tables(tmp_path, "Leaderboard")[0]["val acc, %"] == "85.00 ± 7.07"


def test_many_keys_do_not_push_the_objective_out_of_sight(tmp_path):
    for i, augmentation in enumerate(("none", "basic")):
        make_run(tmp_path / str(i), [f"augmentation={augmentation}", *(f"x.k{j}={i}" for j in range(6))], 0.9 - i / 10)
    first = tables(tmp_path, "Leaderboard")[0]
    assert [*first][:3] == ["", "val acc, %", "augmentation"]
    assert "Best: augmentation none · k0 0 · k1 0" in markdown(tmp_path)


def test_data_and_objectives_that_cannot_be_compared_have_sections_of_their_own(tmp_path):
    configured(tmp_path / "a", ["tracker=none"], 0.9)
    configured(tmp_path / "b", ["dataset.validation=0.2"], 0.8, dataset={**DIGITS, "validation": 0.2, "folds": None})
    configured(tmp_path / "c", ["objective=val/loss"], 0.7, objective="val/loss")
    for name, root in (("d", "/here/pets"), ("e", "/mnt/there/pets")):
        configured(tmp_path / name, [f"dataset.root={root}"], 0.6, dataset={"_target_": "x.folder", "root": root})
    text = markdown(tmp_path)
    groups = ["digits, val/accuracy, validation 0.1", "digits, val/accuracy, validation 0.2",
              "digits, val/loss, validation 0.1", "pets"]  # fmt: skip
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == groups
    assert "| [pets](#pets) | 2 | 1 |" in text
    assert text.count("### Leaderboard") == 4
    found = page(tmp_path)
    names = [path.stem for path in (tmp_path / "plots").glob("*")]
    assert len([name for name in names if name.startswith("pets_")]) == 4
    assert 'href="#pets"' in (tmp_path / "report.html").read_text()
    assert found.scripts == 1


def test_columns_that_are_the_same_in_all_rows_are_a_note(tmp_path):
    for i in range(2):
        make_run(tmp_path / str(i), [f"model={'ab'[i]}"], 0.5 + i / 10)
    assert {"n", "status", "epochs", "images/s"}.isdisjoint(tables(tmp_path, "Leaderboard")[0])
    same = "test loss 0.5000, seconds 30.0, epochs 1, images/s 1,000, peak MiB 1,024, n 1, status finished"
    assert f"The same in all rows: {same}." in markdown(tmp_path)


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        (([0.90, 0.91, 0.92], [0.80, 0.82, 0.81]), "in pairs of 3 common seeds): the data tell the two apart."),
        (([0.90, 0.91, 0.92], [0.95, 0.85, 0.90]), "the data can't tell the two apart. If the lead is as large as it "
         "looks, it takes about 246 seeds each."),
        (([0.90], [0.80]), "Whether that is more than the scatter of seeds can't be told: repeat both with several "
         "seeds, such as seed=0,1,2,3,4 (on 100 images alone an accuracy is uncertain by ± 3.00 points)."),
        (([0.90], [0.90]), "of training. b is as good. To tell the two apart, repeat both with several seeds, such as"),
        (([0.90, 0.90], [0.90, 0.90]), "of training each. b is as good.\n"),
        (([0.90, 0.91, 0.92], [0.92, 0.91, 0.90]), "common seeds): the data can't tell the two apart.\n"),
        (([0.80, 0.90, 0.99], [0.82, 0.93]), "2.50 points behind b"),
    ],
)  # fmt: skip
def test_a_sentence_says_whether_the_data_tell_the_best_from_the_second(tmp_path, accuracies, sentence):
    for model, values in zip("ab", accuracies, strict=True):
        for seed, accuracy in enumerate(values):
            make_run(tmp_path / f"{model}{seed}", [f"model={model}", f"seed={seed}"], accuracy, data="9 train, 100 val")
    assert sentence in markdown(tmp_path)


def test_the_luck_of_a_winner_among_many_is_told(tmp_path):
    for i in range(6):
        make_run(tmp_path / str(i), [f"model={i}"], 0.5 + i / 100)
    assert "best of 6 configurations, with one run each" in markdown(tmp_path)
    for i in range(6):
        make_run(tmp_path / f"{i}b", [f"model={i}", "seed=1"], 0.5 + i / 100 + 0.02)
    # by hand: a standard deviation of 1.414 points, a mean of two, 1.2672 expected of the largest of six
    assert "the luckiest would still look 1.27 points better than it is. Its test accuracy took" in markdown(tmp_path)


def test_pruned_trials_are_among_those_that_a_winner_was_picked_from(tmp_path):
    make_run(tmp_path / "0", ["model=0"], 0.9)
    for i in range(1, 6):
        make_run(tmp_path / str(i), [f"model={i}"], 0.5, status="pruned")
    assert "best of 6 configurations, with one run each" in markdown(tmp_path)


def test_the_evaluation_of_the_best_run_that_has_one_is_in_the_page_under_its_name(tmp_path):
    worse = make_run(tmp_path / "0", ["model=a"], 0.5)
    best = make_run(tmp_path / "1", ["model=b"], 0.9)
    make_run(tmp_path / "2", ["model=c"], 0.95)  # which nobody has evaluated
    (worse / "evaluation.json").write_text(json.dumps({"split": "test", "accuracy": 0.125}))
    classes = [{"class": "<cat>", "precision": 0.5, "recall": 0.9, "count": 10}, {"class": "dog", "recall": 0.25}]
    content = {"split": "test", "epoch": 4, "images": 1298, "skipped_images": 0, "accuracy": 0.75, "per_class": classes}
    (best / "evaluation.json").write_text(json.dumps(content))
    (best / "mistakes.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (best / "confusion.png").symlink_to(tmp_path / "secret.png")  # may lead anywhere
    found = tables(tmp_path, "Evaluation of 1")
    assert [(row["class"], row["recall, %"]) for row in found] == [("dog", "25.00"), (r"\<cat\>", "90.00")]
    shown = page(tmp_path)
    assert [value for value in shown.loaded if value.startswith("data:")] == [
        f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    ]
    assert "75.00 %" in shown.text
    assert "12.50 %" not in shown.text
    told = (tmp_path / "report.md").read_text()
    assert "- epoch: 5\n- images: 1,298\n- accuracy: 75.00 %\n" in told  # counts are whole, epochs are shown from 1
    assert "![The most confident mistakes](1/mistakes.png)" in (tmp_path / "report.md").read_text()
    assert [row["class"] for row in tables(best, "Evaluation")] == ["dog", r"\<cat\>"]  # a report of that run alone


@pytest.mark.parametrize("epoch", [4, 5])
def test_an_evaluation_of_an_earlier_best_is_called_so(tmp_path, epoch):
    run = make_run(tmp_path / "0", ["model=a"], 0.5)
    result = json.loads((run / "results.json").read_text())
    result["metrics"] = {**result.get("metrics", {}), "best": {"epoch": 5}}
    (run / "results.json").write_text(json.dumps(result))
    (run / "evaluation.json").write_text(json.dumps({"split": "test", "weights": "best.pt", "epoch": epoch}))
    assert ("Of an earlier best.pt" in markdown(tmp_path)) == (epoch == 4)


def test_hardware_is_side_by_side_and_open_where_precision_or_batch_size_varies(tmp_path):
    for i, precision in enumerate(("fp32", "bf16")):
        run = make_run(tmp_path / str(i), [f"trainer.precision={precision}"], 0.5, 0.6,
                       hardware={"ram_bytes": 2**30 * (i + 1), "gpu_watts": 100.0})  # fmt: skip
        result = json.loads((run / "results.json").read_text())
        result["history"] = [{**epoch, "hardware/ram_bytes": 2**30} for epoch in result["history"]]
        (run / "results.json").write_text(json.dumps(result))
    study = read_study(tmp_path)
    [section] = hardware_section(study, group_runs(study))
    assert not section.folded
    bars, lines = (block.pictures[0] for block in section.blocks[:2])
    assert [text in bars.svg for text in ("precision bf16", "GPU power, W", "memory (RAM), GiB")] == [True] * 3
    assert [text in lines.svg for text in ("GPU power, W", "seconds of an epoch")] == [False, True]
    assert [picture.title for picture in (bars, lines)] == ["Memory, GPU power and time", "Memory and time by epoch"]
    names = re.findall(r"precision (?:bf16|fp32)", bars.svg)
    assert names == [f"precision {place.settings['trainer.precision']}" for place in group_runs(study)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.62e27, "3.62e+27"), (0.5, "0.5000"), (2e-5, "2.00e-05"), (0.0, "0.0000"), (float("nan"), "nan")],
)
def test_a_loss_too_large_or_small_for_four_decimals_has_a_power_of_ten(value, text):
    assert metric_of("val/loss").format(value) == text
