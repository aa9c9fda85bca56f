"""Memory, load and power while a run trains, sampled by a thread beside the loop."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import psutil

log = logging.getLogger(__name__)

Reading = dict[str, float]
Sensor = Callable[[], Reading]

SCAN_CPU_FRACTION = 0.002  # of a core, for scanning which memory the processes share


class Monitor:
    """Samples the hardware every `every_seconds` within a `with` statement; `drain` hands the samples over.

    step: gives the run's current step, which each sample is stamped with. every_seconds: 0 or None is off, without a
    thread. Raises ValueError if it is negative. A failure ends the sampling with a warning, never the run.
    Numbers that a machine does not report are left out; the last three are of the whole GPU with all its users (NVML).

    hardware/ram_bytes: resident memory of this process and its descendants, which read data; shared memory counts once.
    hardware/cpu_percent: of all cores of the machine, 0-100, since the previous sample.
    hardware/device_memory_bytes: what torch has allocated on the GPU.
    hardware/gpu_memory_used_bytes, hardware/gpu_percent (0-100, of the time), hardware/gpu_watts.
    """

    def __init__(self, device: torch.device, every_seconds: float | None, step: Callable[[], int]) -> None:
        if every_seconds and every_seconds < 0:
            raise ValueError(f"every_seconds={every_seconds}: 0 (off) or more")
        self.device, self.every_seconds, self.step = device, every_seconds, step
        self.sensors: list[Sensor] = []
        self.samples: list[tuple[int, Reading]] = []
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._watch, name="iolaus-monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        if self.every_seconds:
            try:
                self.sensors = [_ram_sensor(), _cpu_sensor(), *_gpu_sensors(self.device)]
                self.thread.start()
            except Exception as error:
                self._give_up(error)
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join(timeout=2)  # a driver that hangs blocks the daemon thread only

    def drain(self) -> list[tuple[int, Reading]]:
        """The (step, reading) samples since the last call and one of now, so that even a short epoch has one."""
        self._sample()
        with self.lock:
            samples, self.samples = self.samples, []
        return samples

    def _watch(self) -> None:
        while not self.ended.wait(self.every_seconds):
            self._sample()

    def _sample(self) -> None:
        with self.lock:
            if not self.sensors or self.ended.is_set():
                return
            try:
                step, parts = self.step(), [sense() for sense in self.sensors]
                self.samples.append((step, {name: value for part in parts for name, value in part.items()}))
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.ended.set()
        log.warning("the hardware is not watched for the rest of this run: %s: %s", type(error).__name__, error)


def epoch_means(samples: Iterable[tuple[int, Reading]]) -> Reading:
    """One number for each name in `Monitor.drain()`: the maximum of bytes, the mean of percent and of watts."""
    series: dict[str, list[float]] = {}
    for _, reading in samples:
        for name, value in reading.items():
            series.setdefault(name, []).append(value)
    return {name: max(all_) if name.endswith("_bytes") else sum(all_) / len(all_) for name, all_ in series.items()}


def _ram_sensor() -> Sensor:
    """The sum of all resident bytes would count memory shared with a forked process once for each process.

    To find what is shared, Linux scans every page (10 to 30 ms for 1 GB). The scan runs when processes start or end,
    else rarely enough (SCAN_CPU_FRACTION); in between the shared bytes are taken to be the same.
    """
    import psutil

    process, due = psutil.Process(), 0.0
    shared: dict[int, int] = {}

    def sense() -> Reading:
        nonlocal due, shared
        now, memory = time.monotonic(), {process.pid: process.memory_info()}
        for pid in descendants(process):
            with suppress(psutil.Error):  # the process has ended meanwhile
                memory[pid] = psutil.Process(pid).memory_info()
        if len(memory) == 1:
            shared = {process.pid: 0}
        elif memory.keys() != shared.keys() or now >= due:
            started = time.thread_time()
            shared = {pid: its.rss - own_bytes(pid, its, pid == process.pid) for pid, its in memory.items()}
            due = now + (time.thread_time() - started) / SCAN_CPU_FRACTION
        return {"hardware/ram_bytes": float(sum(max(0, its.rss - shared[pid]) for pid, its in memory.items()))}

    return sense


def own_bytes(pid: int, memory: "psutil._ntuples.pmem", ours: bool) -> int:
    """A process's resident bytes, each page divided by the number of processes that share it (its Pss).

    The files of other processes than ours are left out: they are mostly the libraries that we have in memory too.
    Without /proc (on systems that don't fork) it is all resident bytes.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            part = {line.split()[0]: int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss_")}
        return part[b"Pss_Anon:"] + (memory.shared if ours else part[b"Pss_Shmem:"])
    except (OSError, KeyError):
        return int(memory.rss)


def descendants(process: "psutil.Process") -> list[int]:
    """The process ids of a process's children, their children, and so on.

    psutil scans every process of the machine for them; Linux lists the children of each thread, which is far cheaper.
    """
    if not os.path.exists(f"/proc/{process.pid}/task/{process.pid}/children"):
        return [child.pid for child in process.children(recursive=True)]
    found = [process.pid]
    for pid in found:  # the list grows meanwhile
        with suppress(OSError):  # the process has ended meanwhile or, below, the thread
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    found += map(int, file.read().split())
    return found[1:]


def _cpu_sensor() -> Sensor:
    """psutil.cpu_percent compares with the last call of the same thread; here `drain` and our thread take turns."""
    import psutil

    def seconds() -> tuple[float, float]:
        """Busy seconds and all seconds, summed over the cores."""
        times = psutil.cpu_times()._asdict()
        whole = sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0)  # user and nice include them
        return whole - times["idle"] - times.get("iowait", 0), whole

    before, enough = seconds(), 0.1 * (psutil.cpu_count() or 1)

    def sense() -> Reading:
        nonlocal before
        after = seconds()
        busy, whole = after[0] - before[0], after[1] - before[1]
        if whole < enough:  # the ticks of 10 ms are too coarse for less than 0.1 s
            return {}
        before = after
        return {"hardware/cpu_percent": 100 * min(1.0, max(0.0, busy / whole))}  # the counters can step back a little

    return sense


def _gpu_sensors(device: torch.device) -> list[Sensor]:
    """What torch and NVML report about a GPU, if there is one."""
    if device.type == "mps":
        return [lambda: {"hardware/device_memory_bytes": float(torch.mps.current_allocated_memory())}]
    if device.type != "cuda":
        return []
    # asked here, since another thread can have another current device
    index = torch.cuda.current_device() if device.index is None else device.index
    sensors: list[Sensor] = [lambda: {"hardware/device_memory_bytes": float(torch.cuda.memory_allocated(index))}]
    with suppress(Exception):  # no NVML, no driver
        sensors.append(_nvml_sensor(torch.cuda.get_device_properties(index)))
    return sensors


def _nvml_sensor(gpu: "torch._C._CudaDeviceProperties") -> Sensor:
    """Find the GPU by UUID or PCI bus: CUDA_VISIBLE_DEVICES changes torch's indices, not NVML's."""
    import pynvml as nvml

    nvml.nvmlInit()
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{gpu.uuid}")
    except Exception:  # a slice of a GPU (MIG) has its own UUID
        domain, bus, slot = (getattr(gpu, f"pci_{part}_id") for part in ("domain", "bus", "device"))
        handle = nvml.nvmlDeviceGetHandleByPciBusId(f"{domain:08X}:{bus:02X}:{slot:02X}.0")
    queries: dict[str, Callable[[], float]] = {
        "hardware/gpu_memory_used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
        "hardware/gpu_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "hardware/gpu_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,  # from milliwatts
    }

    def sense() -> Reading:
        found = {}
        for name, query in queries.items():
            with suppress(Exception):  # some cards don't report their power
                found[name] = float(query())
        return found

    return sense
