import inspect
import io
import json
import logging
import os
import pty
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from iolaus.show.trackers import JSONL, TensorBoard, TrackerList, WandB
from iolaus.show.wandb_service import sync_command

pytestmark = [
    # protobuf's and tensorboard's own business
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def warned(caplog):
    """What a person would be warned of; wandb's own debug log is not meant."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    """Neither a key nor a home where one could be found; wandb's service ends with the test."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    import wandb

    wandb.teardown()


class Recorder:
    def __init__(self, error=None):
        self.calls, self.error = [], error

    def log(self, metrics, step):
        if self.error:
            raise self.error
        self.calls.append((metrics, step))

    def text(self, name, value):
        self.calls.append((name, value))

    def close(self):
        self.calls.append("closed")


def test_importing_the_trackers_imports_no_library_of_theirs():
    code = "import sys, iolaus.show.trackers; print({'torch', 'tensorboard', 'wandb'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_each_epoch_is_a_line_in_the_file_before_close(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    tracker = JSONL(path)
    tracker.log({"train/batch_loss": 0.6}, step=1)
    tracker.log({"epoch": 0, "train/loss": 0.5}, step=3)
    assert lines(path) == [{"step": 3, "epoch": 0, "train/loss": 0.5}]
    tracker.text("optimizer", "SGD")
    tracker.log({"epoch": 1, "train/loss": 0.25}, step=6)
    tracker.close()
    assert [line["train/loss"] for line in lines(path)] == [0.5, 0.25]


def test_after_a_resume_the_file_holds_each_epoch_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    history = [{"epoch": 0, "step": 10, "lr": 0.1}, {"epoch": 1, "step": 20, "lr": 0.1}]
    tracker = JSONL(path, history)
    tracker.log({"epoch": 2, "lr": 0.1}, step=30)  # after the checkpoint: this epoch is lost
    tracker.close()
    resumed = JSONL(path, history)
    resumed.log({"epoch": 2, "lr": 0.2}, step=30)
    resumed.close()
    assert lines(path) == [*history, {"step": 30, "epoch": 2, "lr": 0.2}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_tracker_is_dropped_with_one_warning_and_the_others_go_on(caplog):
    good, bad = Recorder(), Recorder(OSError("disk full\nand more"))
    several = TrackerList([bad, good])
    several.log({"lr": 0.1}, 1)
    several.log({"lr": 0.2}, 2)
    several.text("optimizer", "SGD")
    several.close()
    assert good.calls == [({"lr": 0.1}, 1), ({"lr": 0.2}, 2), ("optimizer", "SGD"), "closed"]
    assert bad.calls == []
    [warning] = warned(caplog)
    assert warning.startswith("Recorder failed")
    assert warning.endswith("OSError: disk full")


def test_ctrl_c_inside_a_tracker_still_stops_the_run():
    with pytest.raises(KeyboardInterrupt):
        TrackerList([Recorder(KeyboardInterrupt())]).log({}, 1)


def test_tensorboard_holds_scalars_and_multi_line_texts_directly_in_the_folder(tmp_path):
    tracker = TensorBoard(folder=tmp_path, config={"lr": 0.1})
    tracker.log({"train/loss": 0.5, "lr": 0.1}, step=7)
    tracker.text("optimizer", "SGD(\n  lr=0.1)")
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    tracker.image("train/batch", pixels, step=0)
    tracker.close()
    assert [path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir()] == [True]
    events = read_back(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(7, 0.5)]
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert texts["optimizer/text_summary"] == "    SGD(\n      lr=0.1)"
    assert json.loads(texts["config/text_summary"]) == {"lr": 0.1}
    [picture] = events.Images("train/batch")
    assert picture.step == 0
    assert (np.asarray(Image.open(io.BytesIO(picture.encoded_image_string))) == pixels).all()


def test_a_run_of_a_sweep_is_a_row_of_tensorboards_hparams_whose_metrics_are_its_scalars(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    tracker = TensorBoard(folder=tmp_path, config={}, varied={"optimizer.lr": "0.1", "model": "cnn"})
    tracker.log({"val/accuracy": 0.5}, step=7)
    tracker.close()
    TensorBoard(folder=tmp_path / "single", config={}, varied={}).close()
    with pytest.raises(KeyError, match="hparams"):
        read_back(tmp_path / "single").PluginTagToContent("hparams")
    content = read_back(tmp_path).PluginTagToContent("hparams")
    parts = {tag: HParamsPluginData.FromString(data) for tag, data in content.items()}
    experiment = parts["_hparams_/experiment"].experiment
    assert [metric.name.tag for metric in experiment.metric_infos][:2] == ["test/accuracy", "val/accuracy"]
    start = parts["_hparams_/session_start_info"].session_start_info.hparams
    assert (start["optimizer.lr"].number_value, start["model"].string_value) == (0.1, "cnn")
    assert parts["_hparams_/session_end_info"].session_end_info.status == 1  # success


def test_purge_step_replaces_what_an_interrupted_run_wrote_after_its_checkpoint(tmp_path):
    interrupted = TensorBoard(folder=tmp_path, config={})
    for step in range(1, 11):
        interrupted.log({"loss": float(step)}, step)
    interrupted.close()
    resumed = TensorBoard(folder=tmp_path, config={}, purge_step=6)
    for step in range(6, 9):
        resumed.log({"loss": 100.0 + step}, step)
    resumed.close()
    expected = [(step, float(step)) for step in range(1, 6)] + [(step, 100.0 + step) for step in range(6, 9)]
    assert [(e.step, e.value) for e in read_back(tmp_path).Scalars("loss")] == expected


def test_wandb_keeps_its_id_across_a_resume_and_its_files_in_the_folder(tmp_path, no_account, caplog):
    folder, ids = tmp_path / "my-run", []
    for _ in range(2):
        tracker = WandB(folder=folder, config={"optimizer": {"lr": 0.1}}, group="sweep")
        assert (tracker.run.name, tracker.run.group) == ("my-run", "sweep")
        assert tracker.run.config["optimizer"] == {"lr": 0.1}
        ids.append(tracker.run.id)
        tracker.image("train/batch", np.full((4, 4, 3), 7, dtype=np.uint8), step=0)
        tracker.log({"train/loss": 0.5}, step=1)
        tracker.text("optimizer", "SGD")
        tracker.close()
    pictures = [Image.open(path) for path in folder.glob("wandb/offline-run-*/files/**/batch_0_*.png")]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(7,) * 3] * 2
    assert ids[0] == ids[1] == (folder / "wandb-id").read_text().strip()
    recorded = list(folder.glob(f"wandb/offline-run-*/run-{ids[0]}.wandb"))
    assert len(recorded) == 2
    deadline = time.monotonic() + 20  # wandb's service may write the file's end after `finish` has returned
    while not all(b"train/loss" in path.read_bytes() for path in recorded):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert warned(caplog) == []


@pytest.mark.parametrize(
    ("study", "group", "expected"), [("sweep", None, "sweep"), ("sweep", "mine", "mine"), (None, None, None)]
)
def test_wandb_groups_the_runs_of_a_sweep_by_its_name(tmp_path, no_account, study, group, expected):
    tracker = WandB(folder=tmp_path, config={}, study=study, group=group)
    assert (tracker.run.group or None) == expected
    tracker.close()


def test_a_run_of_a_sweep_tells_its_tracker_the_sweeps_name_and_what_varies_a_single_run_none(command, monkeypatch):
    told = []

    class Listening(TensorBoard):
        def __init__(self, *, folder, config, purge_step=None, study=None, varied=None):
            told.append((study, varied))
            super().__init__(folder=folder, config=config, varied=varied)

    monkeypatch.setattr("iolaus.show.trackers.TensorBoard", Listening)
    arguments = (*TINY, "tracker=tensorboard", "lr=0.01")
    assert command(*arguments, "seed=3").status == 0
    assert command("-m", "study=mine", *arguments, "seed=0,1", "hydra.sweeper.params={model: 'cnn,mlp'}").status == 0
    assert [study for study, _ in told] == [None, *["mine"] * 4]
    assert told[0][1] == {}
    assert [varied["model"] + varied["seed"] for _, varied in told[1:]] == ["cnn0", "cnn1", "mlp0", "mlp1"]
    assert all(varied.keys() == {"model", "seed"} for _, varied in told[1:])


@pytest.mark.parametrize(("study", "lines"), [(None, 1), ("sweep", 0)])
def test_an_offline_run_says_once_how_it_is_uploaded(tmp_path, no_account, caplog, monkeypatch, study, lines):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "a b"
    with caplog.at_level(logging.INFO, "iolaus"):
        tracker = WandB(folder=folder, config={}, study=study)
        tracker.log({"val/accuracy": 0.5}, step=1)
        tracker.close()
        tracker.close()
    told = [record.getMessage() for record in caplog.records if "wandb sync" in record.getMessage()]
    assert told == ["upload this run to W&B: wandb sync 'outputs/a b'/wandb/offline-run-*"] * lines
    assert [*folder.glob("wandb/offline-run-*")]
    assert sync_command(tmp_path / "outputs") == "wandb sync outputs/*/wandb/offline-run-*"


def test_a_failure_of_wandb_is_one_warning_and_the_run_goes_on(tmp_path, no_account, caplog, monkeypatch):
    tracker = WandB(folder=tmp_path, config={})

    def fail(*args, **kwargs):
        raise BrokenPipeError("the service is gone")

    for method in ("log", "finish"):
        monkeypatch.setattr(type(tracker.run), method, fail)
    for step in (1, 2):
        tracker.log({"loss": 1.0}, step)
    tracker.text("optimizer", "SGD")
    tracker.close()
    monkeypatch.undo()
    [warning] = warned(caplog)
    assert warning.endswith("BrokenPipeError: the service is gone")


def test_online_without_a_key_goes_on_offline_soon_and_never_prompts(tmp_path, no_account):
    code = (
        "import pathlib, sys; from iolaus.show.trackers import WandB;"
        "tracker = WandB(folder=pathlib.Path(sys.argv[1]), config={}, mode='online');"
        "tracker.log({'loss': 1.0}, step=1); tracker.close()"
    )
    keyboard, terminal = pty.openpty()  # in a terminal wandb would ask for a key, and wait
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    subprocess.run(command, stdin=terminal, stdout=terminal, stderr=terminal, timeout=120, check=True)
    shown = os.read(keyboard, 10_000).decode().splitlines()
    for end in (keyboard, terminal):
        os.close(end)
    [warning] = shown
    assert "kept offline: UsageError: No API key configured" in warning
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/run-*.wandb"))) == 1


def test_disabled_wandb_writes_nothing(tmp_path):
    tracker = WandB(folder=tmp_path, config={}, mode="disabled")
    tracker.log({"loss": 1.0}, step=1)
    tracker.text("optimizer", "SGD")
    tracker.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("choice", "trackers"),
    [
        ("none", []),
        ("tensorboard", ["tensorboard"]),
        ("wandb", ["wandb"]),
        ("both", ["tensorboard", "wandb"]),
        ("trackio", ["trackio"]),
    ],
)
def test_each_choice_of_the_group_names_its_trackers_and_keys_they_take(choice, trackers, request):
    from hydra import compose, initialize_config_dir
    from hydra.utils import get_class
    from omegaconf import OmegaConf

    with initialize_config_dir(str(request.config.rootpath / "conf")):
        chosen = compose(overrides=[f"+tracker={choice}"]).tracker
    assert list(chosen) == trackers
    for node in chosen.values():
        keys = OmegaConf.to_container(node)
        signature = inspect.signature(get_class(keys.pop("_target_")))
        given = dict.fromkeys({"folder", "config", "purge_step"} & signature.parameters.keys())
        signature.bind(**given, **keys)  # raises if a key is unknown
