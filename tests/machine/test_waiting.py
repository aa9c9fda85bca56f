"""Threads that wait for each other sleep soon, unless the user says how they wait."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, TINY

from iolaus.machine.waiting import SPIN, SPINS, spin_briefly

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
