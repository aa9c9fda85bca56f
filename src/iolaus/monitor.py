"""What a run takes of its machine while it trains: memory, load and power, sampled by a thread beside the loop."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch

Metrics = dict[str, float]
Reader = Callable[[], Metrics]

LOOKING = 0.002  # the share of a core that finding out what processes share may take

logger = logging.getLogger(__name__)


class Monitor:
    """Samples the hardware every `every_seconds` while it is entered; `drain` hands the samples over.

    step: tells where the run is; each sample is stamped with it. every_seconds: 0 or None is off, with no thread and no
    samples. Raises ValueError if it is negative. A failure ends the sampling with a warning, never the run.
    What a machine does not tell is left out; the last three are the driver's (NVML), of the whole GPU with all users.

    hardware/ram_bytes: resident memory of this process and of those below it, the readers of data; what they share
        counts once.
    hardware/cpu_percent: of all cores of the machine, 0-100, since the sample before.
    hardware/device_memory_bytes: what torch holds allocated on the GPU.
    hardware/gpu_memory_used_bytes, hardware/gpu_percent (0-100, of the time), hardware/gpu_watts.
    """

    def __init__(self, device: torch.device, every_seconds: float | None, step: Callable[[], int]):
        if every_seconds and every_seconds < 0:
            raise ValueError(f"every_seconds={every_seconds}: 0 (off) or more")
        self.device, self.every_seconds, self.step = device, every_seconds, step
        self.readers: list[Reader] = []
        self.samples: list[tuple[int, Metrics]] = []
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._watch, name="iolaus-monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        if self.every_seconds:
            try:
                self.readers = [_ram(), _cpu(), *_gpu(self.device)]
                self.thread.start()
            except Exception as error:
                self._give_up(error)
        return self

    def __exit__(self, *error: Any) -> None:
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join(timeout=2)  # a driver that hangs keeps a daemon thread, not the run

    def drain(self) -> list[tuple[int, Metrics]]:
        """The (step, metrics) since the last call, and one of now, so that the shortest epoch has one."""
        self._sample()
        with self.lock:
            samples, self.samples = self.samples, []
        return samples

    def _watch(self) -> None:
        while not self.ended.wait(self.every_seconds):
            self._sample()

    def _sample(self) -> None:
        with self.lock:
            if not self.readers or self.ended.is_set():
                return
            try:
                step, parts = self.step(), [read() for read in self.readers]
                self.samples.append((step, {name: value for part in parts for name, value in part.items()}))
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.ended.set()
        logger.warning("the hardware is not watched for the rest of this run: %s: %s", type(error).__name__, error)


def epoch_means(samples: Iterable[tuple[int, Metrics]]) -> Metrics:
    """One number for each metric of `Monitor.drain()`: the maximum of bytes, the mean of percent and of watts."""
    series: dict[str, list[float]] = {}
    for _, metrics in samples:
        for name, value in metrics.items():
            series.setdefault(name, []).append(value)
    return {name: max(all_) if name.endswith("_bytes") else sum(all_) / len(all_) for name, all_ in series.items()}


def _ram() -> Reader:
    """A forked process is resident with all that it shares with us, so that a sum would count this once for each.

    What is counted twice costs Linux a look at every page (10 to 30 ms for 1 GB). It is found out when the processes
    are others, else so seldom that it takes little of a core; in between it is taken to be the same.
    """
    import psutil

    process, due = psutil.Process(), 0.0
    twice: dict[int, int] = {}

    def read() -> Metrics:
        nonlocal due, twice
        now, memory = time.monotonic(), {process.pid: process.memory_info()}
        for pid in descendants(process):
            with suppress(psutil.Error):  # it has ended meanwhile
                memory[pid] = psutil.Process(pid).memory_info()
        if len(memory) == 1:
            twice = {process.pid: 0}
        elif memory.keys() != twice.keys() or now >= due:
            started = time.thread_time()
            twice = {pid: held.rss - counted(pid, held, pid == process.pid) for pid, held in memory.items()}
            due = now + (time.thread_time() - started) / LOOKING
        return {"hardware/ram_bytes": float(sum(max(0, held.rss - twice[pid]) for pid, held in memory.items()))}

    return read


def counted(pid: int, memory: Any, ours: bool) -> int:
    """Of the resident bytes of a process its part by the number of those that share a page, without files for others.

    Files are mostly the libraries that we have in memory too. On systems that don't tell, and don't fork, all bytes.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            part = {line.split()[0]: int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss_")}
        return part[b"Pss_Anon:"] + (memory.shared if ours else part[b"Pss_Shmem:"])
    except (OSError, KeyError):
        return memory.rss


def descendants(process: Any) -> list[int]:
    """The process ids of all below a psutil.Process.

    psutil looks at every process of the machine for them. Linux tells each thread's children, which is far cheaper.
    """
    if not os.path.exists(f"/proc/{process.pid}/task/{process.pid}/children"):
        return [child.pid for child in process.children(recursive=True)]
    found = [process.pid]
    for pid in found:  # it grows meanwhile
        with suppress(OSError):  # the process has ended meanwhile or, below, the thread
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
    return found[1:]


def _cpu() -> Reader:
    """psutil.cpu_percent looks back to the last call of the same thread; here `drain` and our thread take turns."""
    import psutil

    def seconds() -> tuple[float, float]:
        """Of work, and in all, summed over the cores."""
        times = psutil.cpu_times()._asdict()
        whole = sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0)  # user and nice hold them too
        return whole - times["idle"] - times.get("iowait", 0), whole

    before, enough = seconds(), 0.1 * (psutil.cpu_count() or 1)

    def read() -> Metrics:
        nonlocal before
        after = seconds()
        busy, whole = after[0] - before[0], after[1] - before[1]
        if whole < enough:  # systems count in ticks of 10 ms, too coarse for less than 0.1 s
            return {}
        before = after
        return {"hardware/cpu_percent": 100 * min(1.0, max(0.0, busy / whole))}  # the counters can step back a little

    return read


def _gpu(device: torch.device) -> list[Reader]:
    """What torch and NVML tell of a GPU, each where there is such a thing."""
    if device.type == "mps":
        return [lambda: {"hardware/device_memory_bytes": float(torch.mps.current_allocated_memory())}]
    if device.type != "cuda":
        return []
    # asked here, since the current device of another thread need not be this one
    index = torch.cuda.current_device() if device.index is None else device.index
    readers: list[Reader] = [lambda: {"hardware/device_memory_bytes": float(torch.cuda.memory_allocated(index))}]
    with suppress(Exception):  # no NVML, no driver
        readers.append(_nvml(torch.cuda.get_device_properties(index)))
    return readers


def _nvml(gpu: Any) -> Reader:
    """gpu: CUDA's properties. Found by UUID or PCI bus: CUDA_VISIBLE_DEVICES changes torch's indices, not NVML's."""
    import pynvml as nvml

    nvml.nvmlInit()
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{gpu.uuid}")
    except Exception:  # a slice of a GPU (MIG) has a UUID of its own
        bus = f"{gpu.pci_domain_id:08X}:{gpu.pci_bus_id:02X}:{gpu.pci_device_id:02X}.0"
        handle = nvml.nvmlDeviceGetHandleByPciBusId(bus)
    queries: dict[str, Callable[[], float]] = {
        "hardware/gpu_memory_used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
        "hardware/gpu_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "hardware/gpu_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,  # it tells milliwatts
    }

    def read() -> Metrics:
        found = {}
        for name, query in queries.items():
            with suppress(Exception):  # some cards don't tell their power
                found[name] = float(query())
        return found

    return read
