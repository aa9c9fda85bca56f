"""What only a GPU can show: NCCL, and the scaler of fp16."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

RUN = (*TINY, "dataset.train_count=60", "trainer.epochs=2", "trainer.device=cuda", "model=mlp", "optimizer=sgd",
       "trainer.deterministic=true", "trainer.precision=fp32", "trainer.monitor_every=0")  # fmt: skip


def test_a_rank_under_torchrun_and_nccl_trains_what_one_process_trains(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    for name, program in (("alone", [sys.executable]), ("rank", torchrun)):
        command = [*program, str(ROOT / "train.py"), *RUN, f"hydra.run.dir={name}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    alone, rank = (torch.load(tmp_path / name / "last.pt", weights_only=True)["learner"] for name in ("alone", "rank"))
    for key, tensor in alone["model"].items():
        torch.testing.assert_close(rank["model"][key], tensor, rtol=1e-5, atol=1e-6)


def test_fp16_and_its_scaler_train_and_resume(command):
    given = (*RUN, "trainer.precision=fp16", "hydra.run.dir=outputs/half")
    assert command(*given, "trainer.max_minutes=1e-9").status == 142
    done = command("resume=last", "trainer.max_minutes=null")
    assert done.status == 0, done.err
    results = json.loads((done.cwd / "outputs" / "half" / "results.json").read_text())
    assert (results["status"], results["precision"]) == ("finished", "fp16")
