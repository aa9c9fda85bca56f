"""A checkpoint is whole, or it is an error of one line: never something in between."""

import errno
import json
import os
import random
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from iolaus.files import checkpoint
from iolaus.files.atomic import read_json, write_atomically, write_json

CONTAINERS = {
    "numbers": [1, 2.5, float("inf"), -(2**62), True, None], "text": {"π": "läuft"}, "empty": {"list": [], "dict": {}},
    "tensors": [torch.arange(3), torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor(True), torch.empty(0, 3)],
}  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Whether two nested containers are equal, tensors in dtype and every bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_state_dicts_and_containers_come_back_as_they_were(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
    for _ in range(3):
        model(torch.randn(5, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    state = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict(),
             "scheduler": scheduler.state_dict(), **CONTAINERS}  # fmt: skip

    checkpoint.save(tmp_path / "last.pt", state)
    loaded = checkpoint.load(tmp_path / "last.pt")

    assert same({**loaded, "model": dict(loaded["model"])}, state)
    assert files(tmp_path) == ["last.pt"]


def refusal(path: Path) -> str:
    """What loading a file complains of, one line with the file's name; empty where it loads."""
    try:
        checkpoint.load(path)
        return ""
    except ValueError as error:
        (line,) = str(error).splitlines()
        return line.removeprefix(f"{path}: the checkpoint is damaged (")


def test_a_flipped_byte_anywhere_is_never_loaded_as_another_value(tmp_path):
    path, state = tmp_path / "last.pt", {"weight": torch.randn(8, 3), "optimizer": {"lr": 0.1, "steps": [1, 2]}}
    checkpoint.save(path, state)
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for position in draw.sample(range(len(whole)), 800):
        broken = bytearray(whole)
        broken[position] ^= draw.randrange(1, 256)
        path.write_bytes(broken)
        if reason := refusal(path):
            refused += 1
            assert not reason.startswith(str(path)), position
        else:
            assert same(checkpoint.load(path), state), position  # the byte was padding
    assert 200 < refused < 800


def test_a_tensor_that_torch_would_take_for_a_folder_is_not_left_uninitialised(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weight": torch.randn(8)})
    broken = bytearray(path.read_bytes())
    name = broken.rindex(b"data/0")  # in the zip's list of contents, which no checksum covers
    broken[broken.rindex(b"PK\1\2", 0, name) + 38] ^= 0x10
    path.write_bytes(broken)
    assert "says that it is a folder" in refusal(path)


def test_an_error_without_words_is_named_by_its_kind(tmp_path, monkeypatch):
    checkpoint.save(path := tmp_path / "last.pt", {})

    def end_early(archive):  # as zipfile reads beyond the end, in some versions of Python
        raise EOFError

    monkeypatch.setattr(zipfile.ZipFile, "testzip", end_early)
    assert refusal(path) == "EOFError)"


def test_a_flipped_bit_of_any_weight_is_noticed(tmp_path):
    path, weight = tmp_path / "last.pt", torch.randn(64)
    checkpoint.save(path, {"weight": weight})
    whole, data = path.read_bytes(), weight.numpy().tobytes()
    start = whole.index(data)
    for position in range(start, start + len(data)):
        broken = bytearray(whole)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert "checksum" in refusal(path)


def test_half_a_file_is_one_line_that_names_it(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, CONTAINERS)
    whole = path.read_bytes()
    contents = [whole[: len(whole) * part // 20] for part in range(20)] + [
        whole[:-1],
        whole[100:],
        b"PK\3\4",
        b"no" * 999,
    ]
    for content in contents:
        path.write_bytes(content)
        assert refusal(path).endswith(")")


def test_a_missing_file_is_one_line_that_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"last\.pt: no such checkpoint$"):
        checkpoint.load(tmp_path / "last.pt")


class Surprise:
    """Code that runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("surprise",))


def test_a_file_that_holds_code_does_not_run_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Surprise()}, "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt"):
        checkpoint.load(Path("last.pt"))
    assert files(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("failing", ["write", "replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "last.pt"
    write_atomically(path, lambda file: file.write(b"old"))

    def write(file: Any) -> None:
        file.write(b"new" * 100_000)
        if failing == "write":
            raise OSError("disk full")

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    if failing != "write":
        monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["last.pt"]


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])
    checkpoint.save(tmp_path / "last.pt", {})
    assert calls == ["fsync", "replace", "fsync"] if os.name == "posix" else ["fsync", "replace"]


WRITER = """
import sys
from pathlib import Path
from iolaus.files.atomic import write_atomically
letter = sys.argv[1].encode()
for _ in range(300):
    write_atomically(Path("last.pt"), lambda file: [file.write(letter * 1000) for _ in range(20)])
"""


def test_several_writers_of_one_file_never_leave_a_mixture(tmp_path):
    path, seen = tmp_path / "last.pt", set()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, letter], cwd=tmp_path) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            seen.add(content[:1])
            assert content == content[:1] * 20_000
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(seen) > 1  # they did write at the same time
    assert files(tmp_path) == ["last.pt"]


def test_json_comes_back_and_a_broken_one_is_empty(tmp_path):
    path, content = tmp_path / "results.json", {"status": "finished", "values": [1, 0.5, None], "name": "Ä"}
    write_json(path, {**content, "folder": tmp_path})
    assert read_json(path) == {**content, "folder": str(tmp_path)}
    assert json.loads(path.read_text()) == read_json(path)
    assert len(path.read_text().splitlines()) > len(content)  # indented, for people

    path.write_text(path.read_text()[:-5])
    assert read_json(path) == read_json(tmp_path / "none.json") == {}


def trained_state() -> tuple[nn.Module, dict[str, Any]]:
    """A model, and a state that shares its memory, as a run's does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    model(torch.randn(5, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "again": model.state_dict(), "optimizer": optimizer.state_dict()}
    return model, {**state, "scheduler": scheduler.state_dict(), "losses": [[1.0], (2.0, "x")], **CONTAINERS}


def change(model: nn.Module, state: dict[str, Any]) -> None:
    """What the steps after a checkpoint do to what it was made of."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.zero_()
    for moments in state["optimizer"]["state"].values():
        moments["step"] += 1
    state["losses"].append(3.0)
    state["losses"][0].append(1.5)
    state["scheduler"]["milestones"][7] = 1


def test_a_checkpoint_written_beside_the_training_is_that_of_the_moment_it_was_asked_for(tmp_path, monkeypatch):
    model, state = trained_state()
    with checkpoint.Writer(beside=False) as writer:
        writer.write({tmp_path / "inline.pt": state})
    changed = threading.Event()
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, state: (changed.wait(30), real(path, state)))
    (tmp_path / "last.pt").touch()
    with checkpoint.Writer(beside=True) as writer:
        writer.write({tmp_path / "last.pt": state})
        change(model, state)
        changed.set()
    inline, beside = (checkpoint.load(tmp_path / name) for name in ("inline.pt", "last.pt"))
    assert same({**beside, "model": dict(beside["model"]), "again": dict(beside["again"])},
                {**inline, "model": dict(inline["model"]), "again": dict(inline["again"])})  # fmt: skip
    assert type(beside["scheduler"]["milestones"]) is Counter
    assert beside["model"]._metadata == inline["model"]._metadata
    assert beside["model"]["0.weight"].stride() == inline["model"]["0.weight"].stride() != (27, 9, 3, 1)
    assert beside["model"]["0.weight"].data_ptr() == beside["again"]["0.weight"].data_ptr()  # kept once


def test_one_write_at_a_time_best_before_last_and_the_end_waits(tmp_path, monkeypatch):
    saved, going = [], threading.Semaphore(0)
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"

    def save(path: Path, state: dict[str, Any]) -> None:
        going.acquire(timeout=30)
        saved.append((path.name, state["epoch"], threading.current_thread() is threading.main_thread()))
        path.touch()

    monkeypatch.setattr(checkpoint, "save", save)
    with checkpoint.Writer(beside=True) as writer:
        going.release(2)
        writer.write({best: {"epoch": 0}, last: {"epoch": 0}})
        assert saved == [("best.pt", 0, True), ("last.pt", 0, True)]  # the first is waited for
        writer.write({best: {"epoch": 1}, last: {"epoch": 1}})
        assert len(saved) == 2
        threading.Timer(0.05, going.release, [2]).start()
        writer.write({last: {"epoch": 2}})  # waits for the one before
        assert saved[2:] == [("best.pt", 1, False), ("last.pt", 1, False)]
        going.release()
    assert saved[4:] == [("last.pt", 2, False)]


def test_a_write_that_fails_in_the_thread_is_raised_by_the_next_one_or_at_the_end(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 0})

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with checkpoint.Writer(beside=True) as writer:
            writer.write({path: {"epoch": 1}})
            with pytest.raises(OSError, match=r"No space left on device: '.*last\.pt'"):
                writer.write({path: {"epoch": 2}})
        with pytest.raises(OSError, match="No space left"), checkpoint.Writer(beside=True) as writer:
            writer.write({path: {"epoch": 1}})

        def train() -> None:
            with checkpoint.Writer(beside=True) as writer:
                writer.write({path: {"epoch": 1}})
                raise ValueError("of the training, which the full disk comes before")

        with pytest.raises(OSError, match="No space left"):
            train()
    assert checkpoint.load(path) == {"epoch": 0}
    assert files(tmp_path) == ["last.pt"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_copies_a_state_before_the_next_step_changes_it_and_nobody_waits(tmp_path):
    device, weight = torch.device("cuda"), torch.zeros(1 << 22, device="cuda")
    square, path = torch.ones(4096, 4096, device=device), tmp_path / "last.pt"
    with checkpoint.Writer(beside=True) as writer:
        for value in range(1, 5):
            square @ square  # work that the copy comes after
            weight.fill_(value)
            path.touch()
            if value > 1:  # the first allocates pinned memory
                torch.cuda.set_sync_debug_mode("error")
            try:
                writer.write({path: {"weight": weight}})
                weight.fill_(-1)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            writer.join()
            loaded = checkpoint.load(path)["weight"]
            assert loaded.device.type == "cpu"
            assert (loaded == value).all()
