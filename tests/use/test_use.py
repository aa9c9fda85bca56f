"""What one does with a trained run: its model reloaded, its figures again, its answers for pictures."""

import contextlib
import csv
import io
import json
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, command_in
from PIL import Image
from sklearn import metrics as reference

from iolaus import loop
from iolaus.cli import main
from iolaus.files import checkpoint
from iolaus.files.locks import file_lock, record_host
from iolaus.files.run_folder import RunFolder, newest_run
from iolaus.use import rows
from iolaus.use.load import load

of_one_model = pytest.mark.xdist_group("of_one_model")  # in one process, which trains it once
pytestmark = of_one_model
CLASSES = {"=red": (200, 40, 40), "green": (40, 190, 60), "blue": (50, 60, 200)}


def iolaus(*arguments, stdin=""):
    """`iolaus ARGUMENTS`: (exit status, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr("sys.stdin", io.StringIO(stdin))
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on small photographs of three classes, whose colours are hard to tell apart."""
    folder, generator = tmp_path_factory.mktemp("use"), np.random.default_rng(0)
    for name, colour in CLASSES.items():
        (folder / "data" / name).mkdir(parents=True)
        for i in range(20):
            size = (int(generator.integers(16, 40)), int(generator.integers(16, 40)), 3)
            pixels = np.clip(generator.normal(colour, 130, size), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        outcome = command_in(folder, patch)(
            "dataset=image_folder", "dataset.root=data", "dataset.image_size=16", "dataset.test_fraction=0.5",
            "dataset.crop_fraction=0.8", "model.widths=[8,16]", "trainer.precision=fp32", "trainer.device=cpu",
            "trainer.epochs=2", "trainer.batch_size=8", "trainer.ema_decay=0.5", "trainer.tta=flip", "tracker=none",
            "hydra.run.dir=outputs/run",
        )  # fmt: skip
        assert outcome.status == 0, outcome.err
    return folder / "outputs" / "run"


@pytest.fixture
def run(trained, monkeypatch):
    monkeypatch.chdir(trained.parents[1])
    return trained


@pytest.fixture
def evaluation(run):
    status, _out, err = iolaus("evaluate", run, "--device", "cpu")
    assert status == 0, err
    return json.loads((run / "evaluation.json").read_text())


def test_an_evaluation_measures_what_the_run_has_measured(run, evaluation):
    measured = json.loads((run / "results.json").read_text())["metrics"]["best"]
    for name in ("accuracy", "loss", "balanced_accuracy", "f1"):
        assert evaluation[name] == pytest.approx(measured[f"test/tta_{name}"], rel=1e-6), name
    iolaus("evaluate", run, "trainer.tta=none", "--split", "val", "--out", run.parent / "val")
    val = json.loads((run.parent / "val" / "evaluation.json").read_text())
    assert [val[name] for name in ("accuracy", "loss")] == pytest.approx(
        [measured["val/accuracy"], measured["val/loss"]]
    )


def test_an_evaluation_says_which_epoch_it_is_of(run):
    epochs = json.loads((run / "results.json").read_text())["metrics"]
    best = f"best.pt, epoch {epochs['best']['epoch'] + 1}, the best (--weights last: the last);"
    last = f"last.pt, epoch {epochs['last']['epoch'] + 1}, the last;"
    assert best in iolaus("evaluate", run, "--out", run.parent / "epochs")[1]
    assert last in iolaus("evaluate", run, "--weights", "last", "--out", run.parent / "epochs")[1]


def test_weights_from_within_an_epoch_are_called_so(command, monkeypatch):
    train_step = loop.train_step

    def cut_step(*arguments, **keywords):
        signal.raise_signal(signal.SIGTERM)
        return train_step(*arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", cut_step)
    assert command(*TINY, "model=mlp", "dataset.train_count=60", "trainer.precision=fp32").status == 143
    (run,) = Path("outputs").glob("*/*")
    status, _, err = iolaus("evaluate", run)
    assert status == 2
    assert err.rstrip().endswith("the run has ended no epoch yet: --weights last takes last.pt")
    status, out, err = iolaus("evaluate", run, "--weights", "last")
    assert status == 0, err
    assert "last.pt, within epoch 1; fp32" in out


def test_the_figures_of_an_evaluation_are_those_of_scikit_learn(run, evaluation):
    rows = rows_of((run / "predictions.csv").read_text())
    true, predicted = ([row[column].lstrip("'") for row in rows] for column in ("true", "predicted"))
    names = [entry["class"] for entry in evaluation["per_class"]]
    assert len(rows) == evaluation["images"] == 30
    assert evaluation["accuracy"] == reference.accuracy_score(true, predicted)
    assert evaluation["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(true, predicted))
    assert evaluation["f1"] == pytest.approx(reference.f1_score(true, predicted, average="macro", zero_division=0))
    assert evaluation["confusion"] == reference.confusion_matrix(true, predicted, labels=names).tolist()
    precision, recall, f1, count = reference.precision_recall_fscore_support(
        true, predicted, labels=names, zero_division=0
    )
    for k, entry in enumerate(evaluation["per_class"]):
        assert (entry["precision"] or 0, entry["recall"], entry["f1"], entry["count"]) == pytest.approx(
            (precision[k], recall[k], f1[k], count[k])
        )


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_predictions_for_any_number_of_files_are_those_of_the_evaluation_to_the_last_bit(run, monkeypatch, count):
    monkeypatch.setattr(rows, "DIGITS", 17)
    assert iolaus("evaluate", run, "--device", "cpu")[0] == 0
    evaluated = {row["image"]: row for row in rows_of((run / "predictions.csv").read_text())}
    files = [*evaluated][:: 30 // count][:count]
    status, out, _ = iolaus("predict", run, *files)
    assert status == 0
    predicted = rows_of(out)
    assert [row.pop("file") for row in predicted] == files
    assert predicted == [{k: v for k, v in evaluated[f].items() if k not in ("image", "true")} for f in files]


def test_a_broken_picture_is_named_and_the_others_are_done(run, tmp_path, caplog):
    good = sorted(Path("data/green").iterdir())[0]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    status, out, err = iolaus("predict", run, tmp_path / "broken.jpg", good, "missing.png", "--json")
    (row,) = json.loads(out)
    assert (status, row["file"]) == (1, str(good))
    assert row["predicted"] == max(row["top"], key=row["top"].get)
    assert sum(row["top"].values()) == pytest.approx(1)
    assert "2 of 3 pictures could not be read" in err
    assert all(name in caplog.text for name in ("broken.jpg", "missing.png"))
    assert iolaus("predict", run, tmp_path / "broken.jpg", "--json")[:2] == (1, "[]\n")
    assert iolaus("predict", run, tmp_path / "broken.jpg")[:2] == (1, "")  # no head of a table without rows


def test_pictures_that_are_not_there_are_told_before_the_model_is_read(run):
    expected = "".join(f"iolaus: {name}: no such file\n" for name in ("a.png", "b.png"))
    assert iolaus("predict", "no run", "a.png", "b.png") == (2, "", expected)


def test_a_probability_has_six_digits(run):
    (row,) = rows_of(iolaus("predict", run, "data/green/0.png")[1])
    (whole,) = load(run, device="cpu").predict("data/green/0.png")
    assert row["probability"] == f"{whole.probability:.6g}"
    assert len(row["probability"]) < len(str(whole.probability))


def test_pictures_are_named_by_folders_patterns_and_a_list(run):
    everything = [row["file"] for row in rows_of(iolaus("predict", run, "data")[1])]
    assert len(everything) == 60
    pattern = [row["file"] for row in rows_of(iolaus("predict", run, "data/gr*/1?.png")[1])]
    assert pattern == sorted(f"data/green/{i}.png" for i in range(10, 20))
    listed = rows_of(iolaus("predict", run, "-", stdin="data/blue/3.png\ndata/green/1.png\n")[1])
    assert [row["file"] for row in listed] == ["data/blue/3.png", "data/green/1.png"]


def test_no_cell_begins_a_formula(run, evaluation):
    rows = rows_of((run / "predictions.csv").read_text())
    assert {row["true"] for row in rows} == {"'=red", "green", "blue"}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


def test_a_loaded_model_takes_files_pil_images_arrays_and_tensors_alike(run):
    model, file = load(run, device="cpu"), "data/blue/0.png"
    assert model.classes == sorted(CLASSES)
    assert not model.model.training
    with Image.open(file) as picture:
        image = picture.convert("RGB")
    array = np.asarray(image)
    forms = [file, Path(file), image, array, torch.from_numpy(array.copy()).permute(2, 0, 1)]
    assert all(torch.equal(model.transform(form), model.transform(file)) for form in forms)
    assert model.transform(file).shape == (3, 16, 16)
    found = model.predict(forms)
    assert len({(p.label, p.probability) for p in found}) == 1
    assert list(found[0].probabilities.values()) == sorted(found[0].probabilities.values(), reverse=True)
    assert model.predict(file) == found[:1]
    with pytest.raises(ValueError, match=r"missing\.png"):
        model.predict("missing.png")


def test_loading_draws_no_random_number_and_needs_no_data(run, tmp_path):
    shutil.copy(run / "best.pt", tmp_path / "alone.pt")
    before = torch.get_rng_state()
    alone = load(tmp_path / "alone.pt", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert alone.predict("data/blue/0.png") == load(run, device="cpu").predict("data/blue/0.png")


def strip(run, folder):
    """A copy of a run as it was before runs saved what a picture needs."""
    shutil.copytree(run, folder)
    for name in ("best.pt", "last.pt"):
        saved = checkpoint.load(folder / name)
        checkpoint.save(folder / name, {k: v for k, v in saved.items() if k not in ("input", "config")})
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(
        json.dumps({k: v for k, v in results.items() if k not in ("input", "classes")})
    )
    return folder


def test_a_run_of_before_gets_its_input_from_its_data_or_says_what_is_missing(run, tmp_path, monkeypatch):
    old = strip(run, tmp_path / "old")
    assert load(old, device="cpu").input == load(run, device="cpu").input
    monkeypatch.chdir(tmp_path)
    status, _, err = iolaus("predict", old, old / "best.pt")
    assert status == 2
    assert "does not say what a picture needs" in err
    assert "no such folder" in err
    assert len(err.splitlines()) == 1


def test_last_pt_gives_the_average_of_the_last_epoch(run):
    saved = checkpoint.load(run / "last.pt")["learner"]["ema"]
    assert all(torch.equal(value, saved[name]) for name, value in load(run, weights="last").model.state_dict().items())


def test_other_data_are_judged_by_the_names_of_their_classes(run, tmp_path):
    for name in ("green", "=red"):
        shutil.copytree(Path("data") / name, tmp_path / "two" / "test" / name)
        shutil.copytree(Path("data") / name, tmp_path / "two" / "train" / name)
    root = f"dataset.root={tmp_path / 'two'}"
    assert iolaus("evaluate", run, root)[0] == 0
    (folder,) = [path for path in (run / "evaluations").iterdir() if "two" in path.name]
    found = json.loads((folder / "evaluation.json").read_text())
    assert [entry["count"] for entry in found["per_class"]] == [20, 0, 20]  # =red, blue, green
    shutil.copytree("data/blue", tmp_path / "two" / "test" / "violet")
    shutil.copytree("data/blue", tmp_path / "two" / "train" / "violet")
    status, _, err = iolaus("evaluate", run, root)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "does not know violet" in err


MISTAKES = {
    "no such run": (["nowhere"], "nowhere: no such run"),
    "a picture and no run": (["data/blue/0.png"], "0.png: is no run, nor a checkpoint; the run comes first"),
    "nearest run": (["outputs/rum"], "nearest names there: run"),
    "a folder that is none": (["data"], "neither a run nor a study"),
    "not about the data": (["outputs/run", "optimizer.lr=1"], "optimizer.lr=1: has no effect here"),
    "about the model": (["outputs/run", "dataset.mean=[0.5]"], "dataset.mean=[0.5]: stays as it was"),
    "several values": (["outputs/run", "dataset.root=a,b"], "dataset.root=a,b: one value"),
    "misspelt key": (["outputs/run", "dataset.rot=x"], "did you mean root?"),
    "no override": (["outputs/run", "root"], "KEY=VALUE"),
    "missing data": (["outputs/run", "dataset.root=nowhere"], "no such folder"),
    "unknown option": (["outputs/run", "dataset=cifar11"], "cifar11"),
    "unknown split": (["outputs/run", "--split", "all"], "--split"),
    "no batch": (["outputs/run", "--batch-size", "0"], "--batch-size"),
    "no precision": (["outputs/run", "--precision", "fp8"], "fp8"),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(run, arguments, told):
    status, out, err = iolaus("evaluate", *arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_damaged_checkpoint_and_another_model_are_one_line_each(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    saved = checkpoint.load(run / "best.pt")
    saved["config"]["model"]["widths"] = [4, 4]
    checkpoint.save(tmp_path / "run" / "best.pt", saved)
    status, _, err = iolaus("predict", tmp_path / "run", "data")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "does not fit the model" in err
    (tmp_path / "run" / "best.pt").write_bytes((run / "best.pt").read_bytes()[:-2000])
    status, _, err = iolaus("predict", tmp_path / "run", "data")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "damaged" in err


def test_a_saved_configuration_can_have_nothing_else_run(run, tmp_path):
    saved = checkpoint.load(run / "best.pt")
    saved["config"]["model"] = {"_target_": "os.system", "command": f"touch {tmp_path}/hacked"}
    checkpoint.save(tmp_path / "best.pt", saved)
    status, _, err = iolaus("predict", tmp_path / "best.pt", "data")
    assert status == 2
    assert "IOLAUS_ALLOW" in err
    assert not (tmp_path / "hacked").exists()


def test_a_study_stands_for_its_best_run_and_last_for_the_newest(command):
    outcome = command("-m", *TINY, "study=s", "seed=0,1,2", "objective=val/loss", "hydra.sweep.dir=outputs/s")
    values = {}
    for folder in outcome.runs:
        values[folder] = json.loads((folder / "results.json").read_text())["objective"]["value"]
    assert load("outputs/s").file.parent.resolve() == min(values, key=values.get)
    newest = max(outcome.runs, key=lambda folder: (folder / "best.pt").stat().st_mtime_ns)
    assert load("last").file.parent.resolve() == newest
    best = str(min(values, key=values.get).relative_to(Path.cwd()))
    for given, meant in (("last", str(newest_run())), ("outputs/s", best), (best, "")):
        told = iolaus("evaluate", given, "--split", "val")[2]
        assert [line for line in told.splitlines() if " is " in line] == [f"iolaus: {given} is {meant}"] * bool(meant)
    assert iolaus("report", "last")[1].splitlines()[0] == str(newest_run() / "report.html")


def test_a_run_that_still_trains_is_called_so(run):
    folder = RunFolder(run)
    with file_lock(folder.lock):
        record_host(folder.lock)
        status, _out, err = iolaus("evaluate", run, "--device", "cpu", "--split", "val")
    assert status == 0, err
    assert f"{run} is still training; its weights are those of now" in err
    assert "still training" not in iolaus("evaluate", run, "--device", "cpu", "--split", "val")[2]


def test_a_model_introduces_itself_in_one_line(run):
    (line,) = repr(load(run, device="cpu")).splitlines()
    assert line == f"Classifier({run / 'best.pt'}: CNN, 3 classes, 3x16x16, fp32 on cpu)"


def test_what_is_named_by_mistake_is_told_before_anything_is_written(command):
    command("-m", *TINY, "study=s", "seed=0,1")
    status, out, err = iolaus("predict", "outputs/s/seed=0", "outputs/s/seed=1")
    assert (status, out) == (2, "")
    assert "outputs/s/seed=1: is a run" in err
    before = sorted(Path("outputs/s/seed=1").iterdir())
    status, out, err = iolaus("evaluate", "outputs/s/seed=0", "--out", "outputs/s/seed=1")
    assert (status, out) == (2, "")
    assert "--out outputs/s/seed=1: is the folder of another run" in err
    assert sorted(Path("outputs/s/seed=1").iterdir()) == before
    command("trainer.epochs=1", "tracker=none", "hydra.run.dir=outputs/other")
    assert (
        "outputs: its runs are of several datasets (digits, synthetic); give a study"
        in iolaus("evaluate", "outputs")[2]
    )
    with pytest.raises(ValueError, match="outputs: is a folder; give the pictures in it"):
        load("outputs/s/seed=0").predict("outputs")
    with pytest.raises(ValueError, match=r"^can't read image nothere.png: [^;]*$"):
        load("outputs/s/seed=0").predict("nothere.png")


def test_images_in_memory_are_known_by_their_numbers(command):
    outcome = command(*TINY, "trainer.precision=fp32")
    assert iolaus("evaluate", "last")[0] == 0
    assert [row["image"] for row in rows_of((outcome.runs[0] / "predictions.csv").read_text())] == [*"012345"]


def test_the_calibration_error_is_guos_formula():
    from iolaus.methods.metrics import calibration_error

    generator = np.random.default_rng(1)
    confidences, correct = generator.uniform(0.2, 1, 500).astype(np.float32), generator.random(500) < 0.6
    expected = 0.0
    for m in range(15):
        inside = (confidences > m / 15) & (confidences <= (m + 1) / 15)
        if inside.any():
            gap = correct[inside].mean() - confidences[inside].astype(np.float64).mean()
            expected += inside.sum() / 500 * abs(gap)
    assert calibration_error(torch.from_numpy(confidences), torch.from_numpy(correct)) == pytest.approx(expected)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0
    assert not math.isnan(expected)


def test_pictures_of_16_bits_are_read_by_the_range_of_the_training_images(command, tmp_path):
    generator = np.random.default_rng(0)
    for name, centre in (("dark", 900), ("light", 2600)):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for i in range(12):
            levels = np.clip(generator.normal(centre, 500, (8, 8)), 0, 4095).astype(np.uint16)
            Image.fromarray(levels).save(tmp_path / "deep" / name / f"{i}.png")
    small = ("model.widths=[4]", "trainer.epochs=1", "trainer.batch_size=8", "trainer.precision=fp32", "tracker=none")
    outcome = command("dataset=image_folder", "dataset.root=deep", *small)
    assert outcome.status == 0, outcome.err
    assert outcome.results["input"]["pixels"]["ranges"] == {"I;16": [0, 4095]}
    assert iolaus("evaluate", "last")[0] == 0
    evaluated = rows_of((outcome.runs[0] / "predictions.csv").read_text())
    (alone,) = rows_of(iolaus("predict", "last", evaluated[0]["image"])[1])  # too few to tell a range by
    assert alone["probability"] == evaluated[0]["probability"]


def test_the_report_of_a_run_shows_its_evaluation(run, evaluation):
    from iolaus.report import write_report

    page = write_report(run).read_text()
    assert f"{100 * evaluation['accuracy']:.2f} %" in page
    assert "Confusion matrix" in page
    assert "green" in page
