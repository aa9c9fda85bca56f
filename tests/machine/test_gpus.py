"""Runs side by side have a GPU each while there is a free one; what a killed one had is free again."""

import contextlib
import types

import joblib
import processes
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir

from iolaus.machine import gpus, hardware
from iolaus.studies import joblib_workers as workers

IDS = ["GPU-a", "GPU-b"]


def test_each_gets_the_next_free_one_then_a_second_place(tmp_path):
    with contextlib.ExitStack() as first, contextlib.ExitStack() as others:
        assert gpus.lock_free_gpus(IDS, tmp_path, first) == [0]
        assert [gpus.lock_free_gpus(IDS, tmp_path, others) for _ in range(4)] == [[1], [0], [1], [0]]
        first.close()
        assert [gpus.lock_free_gpus(IDS, tmp_path, others) for _ in range(2)] == [[0], [1]]
    assert gpus.lock_free_gpus(IDS[1:], tmp_path, others) == [0]  # another process may see fewer GPUs
    assert gpus.lock_free_gpus(IDS, tmp_path, others) == [0]
    others.close()


def test_a_run_of_several_gpus_gets_them_in_one_go_and_free_ones_first(tmp_path):
    ids = [f"GPU-{i}" for i in range(5)]
    with contextlib.ExitStack() as stack:
        assert gpus.lock_free_gpus(ids, tmp_path, stack, 2) == [0, 1]
        assert gpus.lock_free_gpus(ids, tmp_path, stack, 2) == [2, 3]
        assert gpus.lock_free_gpus(ids, tmp_path, stack, 2) == [0, 4]  # one is free, the other is shared
        assert gpus.lock_free_gpus(ids, tmp_path, stack, None) == [1, 2, 3, 4]  # all that nobody shares yet
    assert gpus.lock_free_gpus(ids, tmp_path, stack, None) == [0, 1, 2, 3, 4]
    stack.close()


def pretend(monkeypatch, ids):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(ids))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(ids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(uuid=ids[index]))


def train_long(folder, pipe):
    """A process that asks for a device, and has it until it ends."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch, IDS)
        monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: folder)
        pipe.send([str(hardware.pick_device(name)) for name in ("auto", "cuda", "cuda:0", "cpu")])
        pipe.recv()


def test_processes_share_no_gpu_and_a_killed_one_leaves_its_own(tmp_path):
    def start():
        here, there = processes.context.Pipe()
        process = processes.context.Process(target=train_long, args=(str(tmp_path), there))
        process.start()
        return process, here, here.recv()

    first, second, third = start(), start(), start()
    try:
        assert first[2] == ["cuda:0", "cuda:0", "cuda:0", "cpu"]
        assert [picked[0] for _, _, picked in (second, third)] == ["cuda:1", "cuda:0"]
        processes.kill(second[0])
        second = start()
        assert second[2][0] == "cuda:1"
    finally:
        for process, pipe, _ in (first, second, third):
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(10)


@pytest.mark.parametrize(
    ("arguments", "ids", "n_jobs"),
    [
        ([], IDS, 2),
        (["trainer.device=cuda"], IDS, 2),
        (["trainer.device=cpu"], IDS, joblib.cpu_count()),
        (["hydra.launcher.n_jobs=5"], IDS, 5),
        (["trainer.devices=2"], [*IDS, "GPU-c", "GPU-d", "GPU-e"], 2),
        (["trainer.devices=auto"], IDS, 1),
        ([], [], joblib.cpu_count()),
    ],
)
def test_joblib_runs_as_many_at_once_as_there_are_gpus(monkeypatch, arguments, ids, n_jobs):
    pretend(monkeypatch, ids)
    with initialize_config_dir(str(ROOT / "conf")):
        config = compose("config", ["hydra/launcher=joblib", *arguments], return_hydra_config=True)
    assert workers.resolve_n_jobs(config) == n_jobs
