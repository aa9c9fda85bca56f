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


MACHINE = ["0f9a", "1c3b", "2d7e"]  # a driver's GPUs, in its order


def shown(visible):
    """What CUDA shows of the machine by CUDA_VISIBLE_DEVICES, in torch's order: of several slices the first alone."""
    names = visible.split(",")
    if names[0].startswith("MIG-"):
        return names[:1]
    by_uuid = {name: uuid for uuid in MACHINE for name in (f"GPU-{uuid}", f"GPU-{uuid[:2]}")}
    return [by_uuid.get(name) or MACHINE[int(name)] for name in names]


@pytest.mark.parametrize(
    ("visible", "chosen"),
    [
        (("0,1,2", "2,1,0", "0,1,2"), ("0f9a", "2d7e", "1c3b")),  # numbers, in another order
        (("1", "GPU-1c3b,GPU-0f", "1,0"), ("1c3b", "0f9a", "1c3b")),  # UUIDs, shortened; the third has to share
        (("MIG-5a,MIG-6b", "MIG-6b", "2"), ("MIG-5a", "MIG-6b", "2d7e")),
    ],
)
def test_a_gpu_is_the_same_by_number_by_uuid_and_by_slice(monkeypatch, tmp_path, visible, chosen):
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    with contextlib.ExitStack() as others:
        for value, uuid in zip(visible, chosen, strict=True):  # each as a process of its own
            monkeypatch.setattr(gpus, "_ours", [])
            monkeypatch.setattr(gpus, "_claimed", others)
            pretend(monkeypatch, shown(value))
            monkeypatch.setattr(others, "close", lambda: None, raising=False)
            assert [shown(value)[index] for index in gpus.claim_gpus(1)] == [uuid]


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
