"""Device and precision follow from what the machine has, and a refusal names what it allows."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import alone

from iolaus.machine import hardware


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine: machine(gpus=2, bf16=True), machine(mps=True), machine(amx=True)."""

    def pretend(gpus: int = 0, bf16: bool = False, mps: bool = False, amx: bool = False, avx512: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)

    return pretend


PICKS = [  # machine, asked, device
    ({}, "auto", "cpu"),
    ({"gpus": 1}, "auto", "cuda"),
    ({"gpus": 1, "mps": True}, "auto", "cuda"),
    ({"mps": True}, "auto", "mps"),
    ({"gpus": 2, "mps": True}, "cpu", "cpu"),
    ({"gpus": 2, "mps": True}, "mps", "mps"),
    ({"gpus": 1}, "cuda", "cuda"),
    ({"gpus": 2}, "cuda:0", "cuda:0"),
    ({"gpus": 2}, "cuda:1", "cuda:1"),
]


@pytest.mark.parametrize(("has", "asked", "device"), PICKS)
def test_the_device_is_the_best_there_is_or_the_one_asked_for(machine, has, asked, device):
    machine(**has)
    assert hardware.pick_device(asked) == torch.device(device)


@pytest.mark.parametrize(
    ("has", "asked", "allowed"),
    [
        ({}, "cuda", "auto, cpu"),
        ({}, "mps", "auto, cpu"),
        ({"mps": True}, "cuda:0", "auto, cpu, mps"),
        ({"gpus": 2}, "cuda:2", "auto, cpu, cuda:0, cuda:1"),
        ({"gpus": 2}, "cuda:01", "auto, cpu, cuda:0, cuda:1"),  # torch's own error for it is no ValueError
        ({"gpus": 1}, "cuda:99999999999", "auto, cpu, cuda:0"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine, has, asked, allowed):
    machine(**has)
    with pytest.raises(ValueError, match=rf"^device={asked}: not on this machine; allowed: {allowed}$"):
        hardware.pick_device(asked)


@pytest.mark.parametrize(
    ("has", "device", "precision"),
    [
        ({"gpus": 1, "bf16": True}, "cuda", "bf16"),
        ({"gpus": 1, "bf16": False}, "cuda:0", "fp16"),
        ({"gpus": 1, "bf16": False, "amx": True}, "cuda", "fp16"),
        ({"amx": True}, "cpu", "bf16"),
        ({"avx512": True}, "cpu", "bf16"),
        ({"amx": False}, "cpu", "fp32"),
        ({"mps": True, "amx": True}, "mps", "fp32"),
    ],
)
def test_auto_precision_is_the_one_that_the_hardware_is_fast_at(machine, has, device, precision):
    machine(**has)
    assert hardware.pick_precision("auto", torch.device(device)) == precision


def test_a_precision_that_is_asked_for_is_kept_or_refused_with_those_allowed(machine):
    machine(gpus=1, bf16=False)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [hardware.pick_precision(name, cpu) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert [hardware.pick_precision(name, cuda) for name in ("fp32", "fp16")] == ["fp32", "fp16"]
    assert hardware.pick_precision("fp16", torch.device("mps")) == "fp16"
    with pytest.raises(ValueError, match=r"precision=fp16: .* allowed: auto, fp32, bf16$"):
        hardware.pick_precision("fp16", cpu)
    with pytest.raises(ValueError, match=r"precision=bf16: .* allowed: auto, fp32, fp16$"):
        hardware.pick_precision("bf16", cuda)

    machine(gpus=1, bf16=True)
    assert hardware.pick_precision("bf16", cuda) == "bf16"


def test_peak_memory_grows_by_what_is_held_and_stays():
    cpu, block, held = torch.device("cpu"), 32 * 2**20, []
    before = hardware.peak_memory(cpu)
    while hardware.peak_memory(cpu) == before and len(held) < 200:  # up to the peak of the tests before
        held.append(b"\1" * block)
    reached = hardware.peak_memory(cpu)
    held += [b"\1" * block for _ in range(4)]
    assert reached + 3 * block < hardware.peak_memory(cpu) < reached + 6 * block  # bytes, not kilobytes
    peak = hardware.peak_memory(cpu)
    del held
    assert hardware.peak_memory(cpu) == peak


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_state_is_the_commit_and_whether_code_is_uncommitted(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    assert hardware.git_state() is None  # no commit yet

    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert hardware.git_state() == {"commit": commit, "dirty": False}

    (tmp_path / "a").write_text("b")
    assert hardware.git_state() == {"commit": commit, "dirty": True}
    git(tmp_path, "checkout", "a")
    for name in ("cat.png", "my_images/cat.png", "notes/plot.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        assert hardware.git_state() == {"commit": commit, "dirty": False}, name
    for name in ("my_model.py", "conf/model/mine.yaml", "experiments/new.yaml", "src/iolaus/new.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        assert hardware.git_state() == {"commit": commit, "dirty": True}, name
        (tmp_path / name).unlink()
    (tmp_path / "notes" / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path / "notes")
    assert hardware.git_state() == {"commit": commit, "dirty": True}


def test_git_state_is_none_outside_of_a_repository_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert hardware.git_state() is None

    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "a")
    assert hardware.git_state() is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.git_state() is None


def test_versions_and_device_name_are_those_of_this_machine(monkeypatch):
    found = hardware.versions()
    assert found["torch"] == torch.__version__  # with its build, as +cpu
    assert found["timm"] == version("timm")
    assert {"python", "torchvision", "hydra-core", "numpy"} <= set(found)
    assert hardware.device_name(torch.device("cpu")).startswith(f"cpu ({torch.get_num_threads()} thread")
    assert hardware.device_name(torch.device("mps")).startswith("mps (")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert hardware.device_name(torch.device("cuda:1")) == "GPU of cuda:1"


@alone
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is on Linux")
def test_freed_memory_is_kept_or_given_back_as_told():
    """Page faults of allocating the same 64 MiB again and again: where memory is kept there are next to none."""
    code = (
        "import resource, torch\n"
        "from iolaus.machine.hardware import keep_freed_memory\n"
        "torch.set_num_threads(1)\n"
        "def faults(count, settling):\n"
        "    for _ in range(settling): torch.ones(count)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(5): torch.ones(count)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(keep_freed_memory(True), faults(2**24, 20))\n"  # the heap settles in 5 to 10
        "print(keep_freed_memory(False), faults(2**26, 1))\n"  # more than what is kept by now
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (kept, few), (given_back, many) = (line.split() for line in done.stdout.splitlines())
    if kept == "False":
        pytest.skip("the C library is not glibc")
    assert given_back == "False"
    pages = 2**24 * 4 // 4096  # each time anew, without it
    assert int(few) <= 2 * pages
    assert int(many) >= 5 * pages


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not hardware.keep_freed_memory(True)
