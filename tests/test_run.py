"""What one command makes: the run folder, the results, the multirun, the help."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, TINY, command_in

SERIES = {
    "train/grad_norm", "batch_size", "train/batch_loss", "train/loss", "train/accuracy",
    "val/batch_loss", "val/loss", "val/accuracy", "lr",
}  # fmt: skip


of_one_run = pytest.mark.xdist_group("one_run")  # in one process, which makes it once


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        command = command_in(tmp_path_factory.mktemp("one_run"), monkeypatch)
        return command(*TINY, "tracker=tensorboard", "trainer.epochs=3")


@of_one_run
def test_a_run_folder_holds_the_files_that_the_readme_names(one_run):
    assert one_run.status == 0
    (folder,) = one_run.runs
    names = {p.name for p in folder.iterdir() if not p.name.startswith("events.out")}
    assert names == {
        ".hydra", ".lock", "results.json", "metrics.jsonl", "best.pt", "last.pt", "run.log", "curves.png",
    }  # fmt: skip
    assert {p.name for p in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert str(folder.relative_to(one_run.cwd)) in one_run.out.splitlines()[-1]


@of_one_run
def test_results_agree_with_the_history_line_by_line(one_run):
    results = one_run.results
    (folder,) = one_run.runs
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == results["history"]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert results["best_train_loss"] == min(line["train/loss"] for line in lines)
    assert results["best_val_accuracy"] == max(line["val/accuracy"] for line in lines)
    assert results["best_test_accuracy"] == results["metrics"]["best"]["test/accuracy"]
    assert results["objective"] == {"name": "val/accuracy", "value": lines[-1]["val/accuracy"]}
    assert results["config"]["trainer"]["epochs"] == 3
    assert results["steps"] == 3
    assert results["versions"]["torch"] == torch.__version__
    assert results["peak_memory_bytes"] > 2**20
    assert set(results) >= {"git", "device", "images_per_second", "seconds", "best_test_loss", "best_train_accuracy"}


@of_one_run
def test_tensorboard_holds_the_ten_series(one_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(one_run.runs[0]))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SERIES
    assert "optimizer/text_summary" in events.Tags()["tensors"]
    assert [e.value for e in events.Scalars("val/loss")] == pytest.approx(
        [m["val/loss"] for m in one_run.results["history"]]
    )


@of_one_run
def test_best_pt_reproduces_the_test_accuracy_of_the_best_epoch(one_run):
    from iolaus import loop
    from iolaus.config.build import build_parts
    from iolaus.config.check import check
    from iolaus.files import checkpoint

    results = one_run.results
    parts = build_parts(check(results["config"]))
    saved = checkpoint.load(one_run.runs[0] / "best.pt")
    parts.learner.model.load_state_dict(saved["model"])
    metrics, _ = loop.evaluate(parts.learner, parts.data.test, 500)
    assert metrics["accuracy"] == results["metrics"]["best"]["test/accuracy"]
    assert metrics["loss"] == pytest.approx(results["metrics"]["best"]["test/loss"])
    assert saved["metrics"] == results["history"][results["metrics"]["best"]["epoch"]]


@of_one_run
def test_weights_and_results_hold_what_a_picture_needs(one_run):
    from iolaus.files import checkpoint

    results = one_run.results
    assert results["input"] == {
        "channels": 3, "size": 8, "kept_size": 8, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.289] * 3,
        "pixels": {"ranges": {}, "background": 255, "upright": True, "max_pixels": None}, "initial": None,
        "resizing": "fast",
    }  # fmt: skip
    assert results["classes"] == ["0", "1"]
    for name in ("best.pt", "last.pt"):
        saved = checkpoint.load(one_run.runs[0] / name)
        assert {key: saved[key] for key in ("input", "classes", "config")} == {
            key: results[key] for key in ("input", "classes", "config")
        }


def test_a_run_can_be_judged_by_figures_that_treat_all_classes_alike(command):
    watch = ("early_stopping=patience", "early_stopping.monitor=val/top5_accuracy")
    plateau = ("scheduler=plateau", "scheduler.monitor=val/balanced_accuracy")
    outcome = command(*TINY, "dataset.num_classes=6", "dataset.train_count=40", "objective=val/f1", *watch, *plateau)
    last = outcome.results["metrics"]["last"]
    assert outcome.results["objective"] == {"name": "val/f1", "value": last["val/f1"]}
    assert last.keys() >= {f"{s}/{n}" for s in ("val", "test") for n in ("balanced_accuracy", "f1", "top5_accuracy")}


def test_selecting_on_the_test_set_is_possible_and_reported(command):
    outcome = command(*TINY, "dataset.validation=test")
    results = outcome.results
    assert results["selected_on_test"] is True
    assert results["metrics"]["last"]["test/loss"] == results["metrics"]["last"]["val/loss"]
    assert "test set" in outcome.out


@of_one_run
def test_the_saved_config_is_the_composed_one(one_run):
    saved = yaml.safe_load((one_run.runs[0] / ".hydra" / "config.yaml").read_text())
    assert saved["trainer"]["epochs"] == 3
    assert saved["dataset"]["size"] == 8
    assert yaml.safe_load((one_run.runs[0] / ".hydra" / "overrides.yaml").read_text())[-1] == "trainer.epochs=3"


def test_two_runs_with_the_same_folder_name_get_two_folders(command):
    for _ in range(2):
        outcome = command(*TINY, "hydra.run.dir=outputs/same")
    assert [run.name for run in outcome.runs] == ["same", "same-2"]


def test_each_run_of_a_multirun_has_a_folder_and_one_table_ends_it(command):
    outcome = command(*TINY, "-m", "optimizer.lr=0.1,0.05", "+optimizer=sgd")

    assert outcome.status == 2  # `optimizer` is in the defaults: Hydra refuses to add it
    outcome = command(*TINY, "-m", "optimizer.lr=0.1,0.05", "optimizer=sgd")
    assert outcome.status == 0
    assert [run.name for run in outcome.runs] == ["optimizer.lr=0.05", "optimizer.lr=0.1"]
    assert outcome.runs[0].parent.name.startswith("optimizer.lr=0.1,0.05-")
    table = outcome.out[outcome.out.rindex("status") :]
    assert "0.05" in table
    assert table.count("finished") == 2
    lr = {json.loads((run / "results.json").read_text())["config"]["optimizer"]["lr"] for run in outcome.runs}
    assert lr == {0.1, 0.05}


def test_the_same_multirun_again_trains_nothing_again(command):
    first = command(*TINY, "-m", "seed=0,1")
    written = [(run / "results.json").stat().st_mtime_ns for run in first.runs]
    second = command(*TINY, "-m", "seed=0,1")
    assert second.status == 0
    assert [(run / "results.json").stat().st_mtime_ns for run in second.runs] == written
    assert "2 of 2 runs are finished already" in second.out + second.err


def test_another_configuration_does_not_overwrite_a_study(command):
    command(*TINY, "-m", "study=mine", "seed=0,1")
    outcome = command(*TINY, "-m", "study=mine", "seed=0,1", "optimizer.lr=0.5")
    assert outcome.status == 2
    assert "another configuration" in outcome.err


def test_a_nan_loss_ends_the_run_with_advice_and_status_1(command):
    outcome = command(*TINY, "optimizer=sgd", "optimizer.lr=1e30", "trainer.epochs=4", "trainer.log_every=1")
    assert outcome.status == 1
    line = outcome.err.strip().splitlines()[-1]
    assert line.startswith("iolaus: the training loss is ")
    assert "epoch 2" in line or "epoch 3" in line
    assert "step" in line
    assert "optimizer.lr" in line
    assert outcome.results["status"] == "failed"
    assert outcome.results["error"] in line


def test_seed_0_is_a_seed_and_another_seed_is_another_run(command):
    losses = {}
    for seed in (0, 0, 1):
        command(*TINY, f"seed={seed}", f"hydra.run.dir=outputs/{seed}")
    for path in Path("outputs").glob("*/results.json"):
        losses[path.parent.name] = json.loads(path.read_text())["metrics"]["last"]["train/loss"]
    assert losses["0"] == losses["0-2"] != losses["1"]


def test_an_experiment_file_is_found_from_any_folder(command):
    for recipe in (ROOT / "experiments").glob("*.yaml"):
        outcome = command(f"experiment={recipe.stem}", "--cfg", "job")
        assert outcome.status == 0, outcome.err
    assert command("experiment=nothing_like_this").status == 2


def test_values_with_slashes_make_no_folders_within_a_sweeps_folder(command, tmp_path):
    from PIL import Image

    roots = [tmp_path / ("x" * 150) / name for name in ("a", "b")]
    for root in roots:
        for label in ("cat", "dog"):
            (root / label).mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (8, 8), (i * 40, 0, 0)).save(root / label / f"{i}.png")
    outcome = command("dataset=image_folder", "tracker=none", "trainer.epochs=1", "trainer.batch_size=4", "-m",
                      f"dataset.root={roots[0]},{roots[1]}", "dataset.validation=0.3")  # fmt: skip
    assert outcome.status == 0, outcome.err
    (sweep,) = (tmp_path / "outputs").iterdir()
    assert [run.parent for run in outcome.runs] == [sweep, sweep]
    assert len({run.name for run in outcome.runs}) == 2
    assert outcome.out[outcome.out.rindex("status") :].count("finished") == 2


def test_the_optuna_sweeper_maximizes_an_accuracy_and_minimizes_a_loss(command):
    optuna = ("-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0.001,0.3)", "hydra.sweeper.n_trials=2",
              "hydra.sweeper.n_jobs=1")  # fmt: skip
    for objective, better in (("val/accuracy", max), ("val/loss", min)):
        outcome = command(*TINY, *optuna, f"objective={objective}", f"study={objective[4:]}")
        assert outcome.status == 0, outcome.err
        best = yaml.safe_load(Path(f"outputs/{objective[4:]}/optimization_results.yaml").read_text())
        values = [json.loads((run / "results.json").read_text())["objective"]["value"]
                  for run in outcome.runs if run.parent.name == objective[4:]]  # fmt: skip
        assert len(values) == 2
        assert best["best_value"] == better(values)


# ---- the last batch, test-time augmentation, memory layout ----------------------------------------------------


def test_an_incomplete_last_batch_counts_in_steps_schedule_and_means(command):
    outcome = command(*TINY, "trainer.drop_last=false", "trainer.batch_size=6", "trainer.epochs=2", "optimizer.lr=0.1",
                      "scheduler=cosine", "scheduler.interval=step")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert outcome.results["steps"] == 2 * 3  # 16 images: 6, 6, 4
    assert [m["train/accuracy"] * 16 % 1 for m in outcome.results["history"]] == [0, 0]
    assert outcome.results["history"][-1]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 5 / 6)))


def test_test_time_augmentation_is_reported_beside_the_plain_evaluation(command):
    plain = command(*TINY, "hydra.run.dir=outputs/plain").results["metrics"]["last"]
    assert "test/tta_accuracy" not in plain
    for views in ("flip", "flip_translate", "resize_center_crop"):
        outcome = command(*TINY, f"trainer.tta={views}", f"hydra.run.dir=outputs/{views}")
        assert outcome.status == 0, outcome.err
        results = json.loads(Path(f"outputs/{views}/results.json").read_text())
        for which in ("last", "best"):
            metrics = results["metrics"][which]
            assert metrics["test/loss"] == plain["test/loss"]
            assert metrics["test/tta_loss"] != metrics["test/loss"]
            assert 0 <= metrics["test/tta_accuracy"] <= 1
        assert any(line.startswith("test, TTA ") for line in outcome.out.splitlines())


def test_mirrored_views_are_refused_where_a_mirrored_image_is_of_another_class(command):
    outcome = command(*TINY, "trainer.tta=flip", "dataset.mirror=false")
    assert outcome.status == 2
    (line,) = outcome.err.strip().splitlines()
    assert line == ("iolaus: trainer.tta=flip: a mirrored image is of another class here (dataset.mirror=false); "
                    "allowed: none, resize_center_crop")  # fmt: skip


@pytest.mark.parametrize(("model", "chosen", "last"), [("cnn", "auto", True), ("mlp", "auto", False),
                                                       ("cnn", "false", False), ("mlp", "true", True)])  # fmt: skip
def test_the_memory_layout_follows_the_model_or_the_key(command, model, chosen, last):
    outcome = command(*TINY, f"model={model}", f"trainer.channels_last={chosen}", "trainer.device=cpu")
    assert outcome.status == 0, outcome.err
    assert outcome.results["channels_last"] is last
    weights = torch.load(outcome.runs[0] / "last.pt", weights_only=True)["learner"]["model"]
    for weight in weights.values():
        if weight.ndim == 4 and weight.shape[1] > 1:
            assert weight.is_contiguous(memory_format=torch.channels_last) == last
