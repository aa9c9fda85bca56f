"""Iolaus from Python: the runs of the command, errors as exceptions, and a process left as it was."""

import json
import logging
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from conftest import TINY
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from test_architecture import modules_after

import iolaus
from iolaus.api import format_value, read_number

CPU = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_from_python_has_the_numbers_of_the_command(command):
    result = iolaus.train(*TINY, **CPU)
    outcome = command(*TINY, "trainer.device=cpu", "trainer.precision=fp32", "hydra.run.dir=outputs/b")
    assert outcome.status == 0, outcome.err
    saved = json.loads((outcome.cwd / "outputs/b/results.json").read_text())
    assert result.metrics["last"]["test/loss"] == saved["metrics"]["last"]["test/loss"]
    assert result["config"] == saved["config"]


def test_a_result_is_results_json_with_attributes_a_folder_and_the_history(folder):
    result = iolaus.train(*TINY, epochs=2, **CPU)
    assert result == json.loads((result.folder / "results.json").read_text())
    assert result.folder.is_relative_to(folder / "outputs")
    assert [epoch["epoch"] for epoch in result.history] == [0, 1]
    assert (result.status, result.best_test_loss) == ("finished", result["best_test_loss"])
    assert repr(result).startswith(f"Result({result.folder.relative_to(folder)}: finished, val/accuracy=0.")
    with pytest.raises(AttributeError, match=r"best_tset_loss: not in results\.json; did you mean best_test_loss"):
        _ = result.best_tset_loss


def test_two_runs_of_one_process_are_equal_and_have_a_folder_each():
    first, second = (iolaus.train(*TINY, seed=3, **CPU) for _ in range(2))
    assert first.folder != second.folder
    assert first.metrics["last"]["train/loss"] == second.metrics["last"]["train/loss"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=resnet19"], "model=resnet19: no such option; did you mean resnet18"),
        (["modl=3"], "modl: no such key; did you mean model"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: expected a number"),
        (["batch_size=256"], "batch_size=256: no such option; did you mean trainer.batch_size=256"),
        (["dataset=image_folder", "dataset.root=nowhere"], "dataset"),
        (["dataset=image_folder"], "dataset.root: missing"),
        (["resume=last"], "resume=last: outputs/ holds no unfinished run"),
        (["optimizer.lr=0.1,0.2"], "optimizer.lr=0.1,0.2: several values are a sweep, which "),
        (["optimizer.lr='"], ""),
        (["--help"], "--help: an override is a text, key=value"),
        (["model._target_=os.system"], "model._target_=os.system: not among the packages that may be run"),
    ],
)
def test_a_mistake_is_a_config_error_of_the_commands_words_and_leaves_nothing(overrides, message, folder, capsys):
    with pytest.raises(iolaus.ConfigError) as caught:
        iolaus.train(*overrides)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1  # no other error's before it
    assert list(folder.iterdir()) == []


def test_a_run_that_cant_go_on_is_run_failed_and_its_folder_says_why():
    with pytest.raises(iolaus.RunFailed, match="loss"):
        iolaus.train(*TINY, "optimizer=sgd", "optimizer.lr=1e30", epochs=30, **CPU)
    [run] = iolaus.runs()
    assert (run["status"], run["optimizer.lr"]) == ("failed", 1e30)
    assert "loss" in run["error"]


def test_an_interrupted_run_is_a_keyboard_interrupt_and_continues():
    timer = threading.Timer(0.0, lambda: None)

    def interrupt():
        if not any(Path("outputs").glob("*/*/last.pt")):
            timer = threading.Timer(0.01, interrupt)
            timer.start()
        else:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        iolaus.train(*TINY, epochs=3000, **CPU)
    timer.cancel()
    assert signal.getsignal(signal.SIGINT) is before
    [run] = iolaus.runs()
    assert run["status"] == "unfinished"


def test_hydra_the_log_and_the_arguments_are_left_as_they_were(folder):
    (folder / "conf").mkdir()
    (folder / "conf" / "config.yaml").write_text("mine: 1\n")
    root = logging.getLogger()
    handler = logging.StreamHandler()
    root.addHandler(handler)
    try:
        before = (root.handlers[:], root.level, logging.getLogger("iolaus").level, sys.argv[:])
        hydra_before = HydraConfig.instance().cfg  # `--cfg job` of an earlier test leaves one behind
        with initialize_config_dir(str(folder / "conf"), job_name="mine"):
            theirs = GlobalHydra.instance()
            (folder / "conf").rename(folder / "others")  # or it would be ours, too
            iolaus.train(*TINY, **CPU)
            with pytest.raises(iolaus.ConfigError):
                iolaus.train("modl=3")
            (folder / "others").rename(folder / "conf")
            assert GlobalHydra.instance() is theirs
            assert compose("config") == {"mine": 1}
        assert HydraConfig.instance().cfg is hydra_before
        assert not GlobalHydra.instance().is_initialized()
        assert (root.handlers, root.level, logging.getLogger("iolaus").level, sys.argv) == before
    finally:
        root.removeHandler(handler)


def test_a_recipe_of_a_study_trains_one_run_of_it():
    result = iolaus.train("experiment=digits_search", *TINY, **CPU)
    assert result.status == "finished"
    assert len(iolaus.runs()) == 1


def test_the_runs_of_a_folder_are_flat_dicts_with_numbers(command):
    assert command(*TINY, "-m", "optimizer.lr=0.1,0.01", "study=s", "trainer.device=cpu").status == 0
    runs = iolaus.runs("outputs/s")
    assert [run["optimizer.lr"] for run in runs] == [0.01, 0.1]
    assert all(run["status"] == "finished" and 0 <= run["best_val_accuracy"] <= 1 for run in runs)
    assert read_number("null") is None
    assert {type(value) for run in runs for value in run.values()} <= {str, int, float, type(None)}
    with pytest.raises(iolaus.ConfigError, match=r"^nowhere: no such folder$"):
        iolaus.runs("nowhere")


# any printable text; one that looks like a number is one, as on the command line
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])).map(lambda text: f"{text} a")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(VALUES)
@settings(deadline=None)
def test_a_value_of_python_is_the_same_value_as_an_override(value):
    override = OverridesParser.create().parse_override(f"key={format_value(value)}")
    assert unquote(override.value()) == value


def unquote(value):
    if isinstance(value, list):
        return [unquote(inner) for inner in value]
    return getattr(value, "text", value)


def test_import_iolaus_is_free_and_names_what_it_offers(tmp_path):
    loaded = modules_after("import iolaus\nassert {'train', 'runs'} <= set(dir(iolaus))", tmp_path)
    assert loaded & {"torch", "hydra", "omegaconf", "numpy", "rich", "iolaus.api", "iolaus.errors", "yaml"} == set()
    code = "import time; t = time.perf_counter(); import iolaus; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(3)
    ]
    assert min(times) < 0.05
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = iolaus.trian
