"""What a process sets for itself: threads that wait sleep soon, garbage is looked for when the libraries are there."""

import gc
import os
import subprocess
import sys

import pytest
from conftest import ROOT, TINY

from iolaus.machine.process import RARELY, SPIN, SPINS, collect_as_usual, collect_rarely, spin_briefly

WORKERS = """
import json, os, runpy, sys
sys.argv = ["train.py", *sys.argv[1:]]
loaded = []
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            loaded.append(os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Look())
runpy.run_path("train.py", run_name="__main__")
print(json.dumps(loaded), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, str(SPINS)), ({SPIN: "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["by default", "a count of the user's", "a policy of the user's"],
)
def test_the_environment_of_the_user_is_kept(given, count, monkeypatch):
    for name in (SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    spin_briefly()
    assert os.environ.get(SPIN) == count
    os.environ.pop(SPIN, None)


def test_it_is_said_before_torch_is_imported(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in (SPIN, "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", WORKERS, *TINY, "trainer.device=cpu", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f'["{SPINS}"]'


@pytest.fixture
def own_garbage():
    collect_as_usual()  # an earlier test's command may have ended before it had its libraries
    before = gc.get_threshold()
    yield
    collect_as_usual()
    gc.unfreeze()
    gc.set_threshold(*before)


def test_garbage_is_looked_for_as_always_once_the_libraries_are_there(own_garbage):
    gc.unfreeze()
    gc.set_threshold(600, 11, 12)
    collect_rarely()
    collect_rarely()
    assert gc.get_threshold() == (RARELY, 11, 12)
    collect_as_usual()
    frozen = gc.get_freeze_count()
    assert gc.get_threshold() == (600, 11, 12)
    assert frozen > 0
    collect_rarely()
    more = [[] for _ in range(1000)]
    collect_as_usual()  # a second run's model is not kept for ever
    assert gc.get_freeze_count() <= frozen
    assert len(more) == 1000


@pytest.mark.parametrize("threshold", [12_345, RARELY, 0])
def test_a_process_that_is_not_ours_keeps_its_own_rule(own_garbage, threshold):
    gc.unfreeze()
    gc.set_threshold(threshold, 6, 7)
    collect_as_usual()
    assert gc.get_threshold() == (threshold, 6, 7)
    assert gc.get_freeze_count() == 0


RULES = """
import gc, runpy, sys
sys.argv = ["train.py", *sys.argv[1:]]
import iolaus.loop
train = iolaus.loop.train_epoch
def look(*given):
    print("in training", gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 10_000, file=sys.stderr)
    return train(*given)
iolaus.loop.train_epoch = look
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_command_trains_under_pythons_own_rule(tmp_path):
    command = [sys.executable, "-c", RULES, *TINY, "trainer.device=cpu", "epochs=1", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f"in training True {gc.get_threshold()[0]} True" in done.stderr, done.stderr
