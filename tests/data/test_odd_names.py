"""Names that are no text: a camera's, another system's, a stranger's; and a machine whose language is C."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from pictures import write_picture

from iolaus.config import build

LATIN = os.fsdecode(b"caf\xe9")  # what Python makes of a Latin-1 name: a lone surrogate, which is no UTF-8
SHOWN = "caf\\udce9"
RUN = ("dataset=image_folder", "dataset.root=own", "model.widths=[4]", "trainer.epochs=1", "trainer.batch_size=4",
       "dataset.validation=0.3", "tracker=none", "dataset.num_workers=0", "dataset.on_bad_image=skip")  # fmt: skip


@pytest.fixture
def odd_names(tmp_path):
    """Classes in Latin-1, in UTF-8 and with a terminal's escape; in the first a broken file and one of another kind."""
    for k, label in enumerate((LATIN, "käse", "b\x1b[31mred")):
        for i in range(6):
            write_picture(tmp_path / "own" / label / f"{i}{os.fsdecode(bytes([0xFF]))}.png", seed=10 * k + i)
    (tmp_path / "own" / LATIN / f"broken{LATIN}.png").write_text("nothing")
    write_picture(tmp_path / "own" / LATIN / "other.heic")
    return tmp_path


def check_lines(text):
    """All that the log has to say came through, with escapes for what can't be shown."""
    assert f"skipped: can't read image own/{SHOWN}/broken{SHOWN}.png: cannot identify image file\n" in text
    assert f"left out: 1 .heic in {SHOWN}/" in text
    assert "3 classes, 3x8x8" in text
    assert "Logging error" not in text
    assert "Traceback" not in text
    assert "\x1b[31m" not in text


def test_names_that_are_not_utf_8_go_through_the_log_the_results_and_the_weights(command, odd_names):
    outcome = command(*RUN)
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.runs
    check_lines(outcome.err)
    check_lines((folder / "run.log").read_text())  # strict UTF-8
    expected = ["b\x1b[31mred", LATIN, "käse"]
    assert outcome.results["classes"] == expected
    for name in ("best.pt", "last.pt"):
        assert torch.load(folder / name, weights_only=True)["classes"] == expected
    refused = command(*RUN, "dataset.min_per_class=8")
    assert refused.status == 2
    assert "\x1b[31m" not in refused.err


def test_run_log_takes_a_line_that_is_no_utf_8(command, odd_names, monkeypatch):
    """The log itself, where somebody's code logs a name as it is."""
    build_parts = build.build_parts

    def build_and_log(*args):
        logging.getLogger("iolaus").warning("own code reads %s", LATIN)
        return build_parts(*args)

    monkeypatch.setattr(build, "build_parts", build_and_log)
    outcome = command(*RUN)
    assert f"own code reads {SHOWN}\n" in (outcome.runs[0] / "run.log").read_text()


def test_a_machine_whose_language_is_c_runs_and_says_the_same(odd_names):
    language = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    program, environment = [sys.executable, ROOT / "train.py"], {**os.environ, **language}
    done = subprocess.run([*program, *RUN], cwd=odd_names, env=environment, capture_output=True, check=False)
    told = done.stderr.decode("ascii")
    assert done.returncode == 0, told
    check_lines(told)
    (results,) = odd_names.glob("outputs/*/*/results.json")
    check_lines((results.parent / "run.log").read_text("utf-8"))
    # in ASCII every byte above 127 is one that can't be decoded
    expected = ["b\x1b[31mred", LATIN, "k\udcc3\udca4se"]
    assert json.loads(results.read_text("utf-8"))["classes"] == expected
