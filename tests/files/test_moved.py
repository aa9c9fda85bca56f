"""A run that was cut off before the files moved into rooms goes on, and every target of the table is there."""

import importlib
import json
import pkgutil
import shutil
from pathlib import Path

import pytest
import torch

from iolaus.files import checkpoint
from iolaus.files.moved import MOVED_TARGETS, rename_targets
from iolaus.files.run_folder import RunFolder
from iolaus.methods import muon

# written by the code of commit f7350d8, and ended by SIGTERM in its fourth epoch
OLD_RUN = Path(__file__).parent / "run_before_rooms"
# that code's default moved the momentum with the rate; the saved configuration says so
COMMAND = ("model=mlp", "model.hidden=[8]", "optimizer=muon", "scheduler.cycle_momentum=true",
           "early_stopping=patience", "trainer.precision=fp32", "trainer.device=cpu", "tracker=none",
           "loss=cross_entropy", "batch_size=constant", "trainer.epochs=6")  # fmt: skip


def test_a_run_of_before_the_move_resumes_and_ends_as_it_would_have(command, tmp_path, monkeypatch):
    monkeypatch.setattr(muon, "iteration_dtype", lambda device: torch.bfloat16)  # as where it began
    shutil.copytree(OLD_RUN, tmp_path / "outputs" / "old")
    saved = [json.loads(line) for line in (OLD_RUN / "metrics.jsonl").read_text().splitlines()]
    outcome = command("resume=outputs/old")
    assert outcome.status == 0, outcome.err
    assert outcome.results["history"][: len(saved)] == saved
    assert len(outcome.results["history"]) == 6

    command(*COMMAND, "hydra.run.dir=whole")
    whole, resumed = (checkpoint.load(tmp_path / name / "last.pt") for name in ("whole", "outputs/old"))
    for name, weights in whole["learner"]["model"].items():
        torch.testing.assert_close(resumed["learner"]["model"][name], weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", MOVED_TARGETS.values())
def test_what_a_saved_target_became_is_there(target):
    assert callable(pkgutil.resolve_name(target))


def test_no_saved_target_of_the_old_run_is_unknown():
    saved = RunFolder(OLD_RUN).saved_config()
    targets = [node["_target_"] for node in saved.values() if hasattr(node, "get") and "_target_" in node]
    assert "iolaus.methods.muon.Muon" in targets
    assert all(callable(pkgutil.resolve_name(target)) for target in targets)


def test_only_the_values_of_target_keys_are_renamed():
    old = {"a": [{"_target_": "iolaus.muon.Muon", "name": "iolaus.muon.Muon"}], "b": 1}
    assert rename_targets(old) == {"a": [{"_target_": "iolaus.methods.muon.Muon", "name": "iolaus.muon.Muon"}], "b": 1}
    assert not any(importlib.util.find_spec(f"iolaus.{name}") for name in ("muon", "stopping", "trackers", "sweeper"))
