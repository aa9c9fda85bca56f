"""The device and the precision that `auto` chooses, and what the results say about the machine."""

import ctypes
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from iolaus.machine import gpus

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# where a repository has its code, for git: these folders, and modules at its top or in the current folder
CODE = (":/src", ":/conf", ":/experiments", ":(top,glob)*.py", ":(glob)*.py")


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. With several GPUs, `cuda` is this process's own (gpus.py).

    Raises ValueError for a device that this machine does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    here = ["cpu"] + [f"cuda:{i}" for i in range(gpus.count())] + ["mps"] * mps
    if name not in {*here, *(n.split(":")[0] for n in here)}:  # torch.device("cuda:01") would raise another error
        raise ValueError(f"device={name}: not on this machine; allowed: auto, {', '.join(here)}")
    if name == "cuda" and gpus.count() > 1:
        name = f"cuda:{gpus.claim_gpus(1)[0]}"
    return torch.device(name)


def pick_devices(name: str, number: int | str) -> list[torch.device]:
    """The devices of a run on several: GPUs of its own, or as many processes on the CPU. Raises ValueError.

    number: `auto` is all GPUs that no other run has; one device where there is no GPU.
    """
    if name == "cpu" or (name == "auto" and not gpus.count()):
        return [torch.device("cpu")] * (1 if number == "auto" else int(number))
    if name not in ("auto", "cuda"):
        raise ValueError(f"devices={number}: with device={name}; allowed: device=auto, cuda or cpu")
    if (count := gpus.count()) == 0:
        raise ValueError(f"device={name}: not on this machine; allowed: auto, cpu")
    if number != "auto" and int(number) > count:
        raise ValueError(f"devices={number}: this machine has {count} GPU{'s' * (count > 1)}; allowed: 1 to {count}")
    return [torch.device("cuda", index) for index in gpus.claim_gpus(None if number == "auto" else int(number))]


def pick_local_device(name: str, local_rank: int) -> torch.device:
    """The device of a rank that torchrun has started: the GPU of its number on this machine, or the CPU."""
    if name == "cpu" or (name == "auto" and not gpus.count()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ValueError(f"device={name}: one device for several ranks; allowed: auto, cuda or cpu")
    if local_rank >= gpus.count():
        raise ValueError(f"device={name}: this machine has {gpus.count()} GPUs, fewer than torchrun has started ranks")
    return torch.device("cuda", local_rank)


def pick_precision(name: str, device: torch.device) -> str:
    """fp32, bf16 or fp16 for `name` on a device.

    `auto` is bf16 on GPUs that have it and on CPUs with AMX or AVX512-BF16 (measured: benchmarks/README.md), fp16 on
    other GPUs, else fp32. Raises ValueError for fp16 on a CPU, where it is many times slower than fp32, and for bf16
    on a GPU without it.
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
    """Let glibc keep freed memory for the next tensors; False restores its defaults.

    By default it returns large blocks to the system at each free, and every step faults them in again, page by page,
    which can take half of a step on a CPU. Returns whether glibc keeps memory now; other C libraries are left alone.
    """
    if not has_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    done = mallopt(mmap_max, 0 if keep else 65536) and mallopt(trim_threshold, -1 if keep else 128 * 1024)
    return bool(done) and keep


def set_deterministic(on: bool) -> None:
    """Allow only algorithms that give the same bits each time, which is slower on a GPU; False allows all.

    With False, cuDNN tries its algorithms on the first batch of each shape and keeps the fastest. On a CPU runs have
    the same bits either way. An operation without a deterministic algorithm raises RuntimeError when it is called.
    """
    if on:  # cuBLAS reads it at its first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler: 0.5 s
        torch.use_deterministic_algorithms(on)
        # an aid for finding mistakes, which costs a write
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not on


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that torch held on the GPU or, on a CPU, that this process held; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def device_name(device: torch.device) -> str:
    """`NVIDIA H200`, `mps (arm)`, or `cpu (2 threads, AMD EPYC)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"mps ({platform.processor() or platform.machine()})"
    name = (torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}).get("cpu_name")
    threads = torch.get_num_threads()
    plural = "s" if threads > 1 else ""
    return f"cpu ({threads} thread{plural}, {name or platform.processor() or platform.machine()})"


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}  # with its build: +cu132, +cpu
    return found | package_versions("iolaus", "torchvision", "timm", "hydra-core", "numpy")


def package_versions(*packages: str) -> dict[str, str]:
    """The versions of these packages, without those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """The commit of the current folder's repository, and whether its code has uncommitted changes; None outside of one.

    A file that git does not track counts where it may be code (CODE): a user's pictures are none.
    """

    def git(*arguments: str) -> str:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        command = ["git", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=environment)
        return done.stdout.strip()

    try:
        commit, status = git("rev-parse", "HEAD"), ("status", "--porcelain")
        return {"commit": commit, "dirty": bool(git(*status, "--untracked-files=no") or git(*status, "--", *CODE))}
    except (OSError, subprocess.SubprocessError):
        return None
