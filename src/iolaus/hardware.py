"""The device and the precision by themselves, and what a run must say about where it ran."""

import ctypes
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from iolaus import gpus

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU; of several GPUs one of this process's own (gpus.py).

    Raises ValueError for a device that is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    here = ["cpu"] + [f"cuda:{i}" for i in range(gpus.count())] + ["mps"] * mps
    if name not in {*here, *(n.split(":")[0] for n in here)}:  # asked first: torch.device("cuda:01") is no ValueError
        raise ValueError(f"device={name}: not on this machine; allowed: auto, {', '.join(here)}")
    if name == "cuda" and gpus.count() > 1:
        name = f"cuda:{gpus.own_gpu()}"
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """fp32, bf16 or fp16 for `name` on a device.

    `auto` is bf16 on CUDA that has it and on CPUs with AMX or AVX512-BF16 (measured: benchmarks/README.md), else
    fp16 on CUDA, else fp32. Raises ValueError for fp16 on a CPU, where it is many times slower than fp32, and for
    bf16 on a GPU that has it not.
    """
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        fast = device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
        return "bf16" if fast else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise ValueError("precision=fp16: not on a CPU, where it is slower than fp32; allowed: auto, fp32, bf16")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision=bf16: this GPU has no bfloat16; allowed: auto, fp32, fp16")
    return name


def has_glibc() -> bool:
    """Whether the C library is glibc, whose allocator `keep_freed_memory` sets."""
    return platform.libc_ver()[0] == "glibc"


def keep_freed_memory(keep: bool) -> bool:
    """Let glibc keep the memory that tensors give back for the next ones; False goes back to its own ways.

    By itself it returns large blocks to the system at each free, and every step faults them in again, page by page:
    that can cost half of a step on a CPU. Returns whether it is so now; elsewhere than under glibc nothing is done.
    """
    if not has_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4  # the names of malloc.h, M_TRIM_THRESHOLD and M_MMAP_MAX
    done = mallopt(mmap_max, 0 if keep else 65536) and mallopt(trim_threshold, -1 if keep else 128 * 1024)
    return bool(done) and keep


def deterministic(on: bool) -> None:
    """Whether torch takes only algorithms that give the same bits each time; it costs speed on a GPU (README).

    Without, cuDNN tries its algorithms on the first batch of each shape and keeps the fastest. On a CPU runs are
    the same bits either way. An operation without such an algorithm raises RuntimeError when it is reached.
    """
    if on:  # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler, half a second
        torch.use_deterministic_algorithms(on)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a search for mistakes, which costs a write
    torch.backends.cudnn.benchmark = not on


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the most that torch held on the GPU, or the most that this process held on a CPU; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def device_name(device: torch.device) -> str:
    """`NVIDIA H200`, `mps (arm)`, or `cpu (2 threads, AMD EPYC)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"mps ({platform.processor() or platform.machine()})"
    name = (torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}).get("cpu_name")
    return f"cpu ({torch.get_num_threads()} threads, {name or platform.processor() or platform.machine()})"


def versions() -> dict[str, str]:
    """Python's, and those of the packages that a result depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}  # with the build: +cu132, +cpu
    return found | installed("iolaus", "torchvision", "timm", "hydra-core", "numpy")


def installed(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the current folder's repository and whether it has uncommitted changes; None outside of one."""

    def git(*arguments: str) -> str:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True,
                              env=environment).stdout.strip()  # fmt: skip

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
