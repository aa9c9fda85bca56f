"""The monitor tells what the machine says, at the step where the run was, and whatever fails is its own affair."""

import logging
import mmap
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import alone

from iolaus.machine import monitor
from iolaus.machine.monitor import Monitor, descendants, epoch_means

pytestmark = alone
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
MIB = 2**20
NEVER = 3600.0  # seconds between samples: only those of `drain`
NVML = {"hardware/gpu_memory_used_bytes", "hardware/gpu_percent", "hardware/gpu_watts"}


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "iolaus-monitor"]


def until(condition, seconds=60.0):
    """Wait for what another thread or process does; whether it came to be."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture(autouse=True)
def _only_children_of_the_test(monkeypatch):
    """Those that earlier tests have left are not seen."""
    earlier = set(descendants(psutil.Process()))
    monkeypatch.setattr(
        monitor, "descendants", lambda process: [pid for pid in descendants(process) if pid not in earlier]
    )


def now(watch: Monitor) -> dict[str, float]:
    return watch.drain()[-1][1]


def one(device: torch.device = CPU) -> dict[str, float]:
    with Monitor(device, NEVER, lambda: 0) as watch:
        return now(watch)


class FakeNVML:
    """Two GPUs as pynvml tells them, and what has been asked; `failing` are the queries that the card refuses."""

    def __init__(self, failing: tuple[str, ...] = ()):
        self.failing, self.used = set(failing), {"GPU-aaaa": 1000, "GPU-bbbb": 2000}
        self.buses = {"00000000:1A:00.0": "GPU-aaaa", "00000002:C1:00.0": "GPU-bbbb"}

    def _answer(self, query: str, value):
        if query in self.failing:
            raise RuntimeError(f"{query}: Not Supported")
        return value

    def nvmlInit(self):
        self._answer("nvmlInit", None)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return self._answer("nvmlDeviceGetHandleByUUID", self.used.get(uuid) and uuid) or self._unknown()

    def nvmlDeviceGetHandleByPciBusId(self, bus):
        return self.buses.get(bus) or self._unknown()

    def nvmlDeviceGetMemoryInfo(self, handle):
        return self._answer("nvmlDeviceGetMemoryInfo", SimpleNamespace(used=self.used[handle]))

    def nvmlDeviceGetUtilizationRates(self, handle):
        return self._answer("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=37))

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._answer("nvmlDeviceGetPowerUsage", 250_500)

    def _unknown(self):
        raise RuntimeError("Not Found")


@pytest.fixture
def gpu(monkeypatch):
    """A machine with two GPUs of which CUDA_VISIBLE_DEVICES shows NVML's second one as cuda:0, and its NVML."""

    def pretend(*failing: str, uuid: str = "bbbb") -> FakeNVML:
        nvml = FakeNVML(failing)
        properties = SimpleNamespace(uuid=uuid, pci_domain_id=2, pci_bus_id=0xC1, pci_device_id=0)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: {0: properties}[index])
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: {0: 512}[index])
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        return nvml

    return pretend


def test_ram_grows_by_a_tensor_and_is_what_psutil_says(monkeypatch):
    monkeypatch.setattr(monitor, "own_bytes", None)  # alone, it need not ask what is shared
    with Monitor(CPU, NEVER, lambda: 0) as watch:
        before = now(watch)["hardware/ram_bytes"]
        pages = mmap.mmap(-1, 96 * MIB)  # new ones: malloc could give what an earlier test has freed
        tensor = torch.frombuffer(pages, dtype=torch.uint8).fill_(1)
        after = now(watch)["hardware/ram_bytes"]
        assert after - before == pytest.approx(tensor.nbytes, abs=4 * MIB)
        assert after == pytest.approx(psutil.Process().memory_info().rss, abs=4 * MIB)


@pytest.fixture
def family():
    """A child and a child of that one, each with 48 MiB of its own."""
    hold = "import subprocess, sys; held = bytearray(b'x') * (48 << 20); {}; print(flush=True); sys.stdin.read()"
    code = hold.format(f"below = subprocess.Popen([sys.executable, '-c', {hold.format(0)!r}])")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        assert [child.stdout.readline().strip() for _ in range(2)] == [b"", b""]  # both hold it now
        yield child
        child.stdin.close()


def test_the_memory_of_a_child_and_of_its_child_counts_until_they_end(family):
    with Monitor(CPU, NEVER, lambda: 0) as watch:
        during = now(watch)["hardware/ram_bytes"]
        assert 96 * MIB < during - psutil.Process().memory_info().rss < 128 * MIB  # and two small Pythons
        family.stdin.close()
        assert until(lambda: during - now(watch)["hardware/ram_bytes"] > 96 * MIB)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody tells what is shared")
def test_what_forked_processes_share_counts_once_and_what_they_write_for_each(monkeypatch):
    monkeypatch.setattr(monitor, "SCAN_CPU_FRACTION", 1e9)  # each time
    gate, key = os.pipe()
    code = (
        "import os, sys; held = bytearray(b'x') * (48 << 20); os.fork(); os.fork()\n"  # four, with 48 MiB in common
        "os.write(1, b'.'); sys.stdin.read()\n"
        "held[: 16 << 20] = bytes(16 << 20); os.write(1, b'.'); os.read(int(sys.argv[1]), 1)\n"  # 16 MiB for each
    )
    command = [sys.executable, "-c", code, str(gate)]
    with (
        Monitor(CPU, NEVER, lambda: 0) as watch,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[gate], bufsize=0) as child,
    ):
        assert child.stdin
        assert child.stdout
        os.close(gate)
        assert b"".join(child.stdout.read(1) for _ in range(4)) == b"...."
        shared = now(watch)["hardware/ram_bytes"] - psutil.Process().memory_info().rss
        child.stdin.close()
        assert b"".join(child.stdout.read(1) for _ in range(4)) == b"...."
        written = now(watch)["hardware/ram_bytes"] - psutil.Process().memory_info().rss
        os.close(key)
    assert 48 * MIB < shared < 80 * MIB  # with what four small Pythons hold
    assert written - shared == pytest.approx((4 - 1) * 16 * MIB, abs=6 * MIB)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody tells what is shared")
def test_what_is_shared_is_looked_at_again_only_for_other_processes_or_after_a_while(family, monkeypatch):
    looked = []
    told = monitor.own_bytes
    monkeypatch.setattr(monitor, "own_bytes", lambda pid, *rest: looked.append(pid) or told(pid, *rest))
    monkeypatch.setattr(monitor, "SCAN_CPU_FRACTION", 1e-9)  # never again
    with Monitor(CPU, NEVER, lambda: 0) as watch:
        assert now(watch)["hardware/ram_bytes"] == pytest.approx(now(watch)["hardware/ram_bytes"], abs=4 * MIB)
        known = set(looked)
        assert len(looked) == len(known) == 3
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
            now(watch)
            assert set(looked[3:]) == known | {other.pid}
    monkeypatch.setattr(monitor, "SCAN_CPU_FRACTION", 1e9)  # every time
    with Monitor(CPU, NEVER, lambda: 0) as watch:
        looked.clear()
        for _ in range(3):
            now(watch)
        assert len(looked) == 9


def test_where_nobody_tells_what_is_shared_resident_memory_is_summed(family, monkeypatch):
    monkeypatch.setattr(monitor, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError()), raising=False)
    monkeypatch.setattr(monitor.os.path, "exists", lambda path: False)
    pids = [psutil.Process().pid, *monitor.descendants(psutil.Process())]
    expected = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    assert one()["hardware/ram_bytes"] == pytest.approx(expected, abs=4 * MIB)


def test_descendants_are_those_of_psutil_with_and_without_linux_lists_of_children(family, monkeypatch):
    process = psutil.Process()
    expected = {child.pid for child in process.children(recursive=True)}
    assert family.pid in expected
    assert set(descendants(process)) == expected
    monkeypatch.setattr(monitor.os.path, "exists", lambda path: False)
    assert set(descendants(process)) == expected


def test_a_process_that_ends_while_it_is_looked_at_is_left_out(monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    monkeypatch.setattr(monitor, "descendants", lambda process: [gone.pid])
    assert one()["hardware/ram_bytes"] == pytest.approx(psutil.Process().memory_info().rss, abs=4 * MIB)


def test_cpu_percent_is_the_share_of_work_in_all_cores_time_since_the_last_sample(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    clock = {"user": 100.0, "nice": 3.0, "system": 10.0, "idle": 500.0, "iowait": 7.0, "guest": 50.0, "guest_nice": 2.0}
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(_asdict=lambda: dict(clock)))

    def passes(**seconds: float) -> None:
        for name, value in seconds.items():
            clock[name] += value

    with Monitor(CPU, NEVER, lambda: 0) as watch:
        assert "hardware/cpu_percent" not in now(watch)  # no time has passed
        passes(user=2, guest=2, system=1, idle=8, iowait=1)  # a guest's time is in user as well
        assert now(watch)["hardware/cpu_percent"] == pytest.approx(100 * 3 / 12)
        passes(user=0.1, idle=0.2)  # too short, less than 0.1 s of 4 cores: it waits for more
        assert "hardware/cpu_percent" not in now(watch)
        passes(user=0.5, idle=0.2)
        assert now(watch)["hardware/cpu_percent"] == pytest.approx(60)
        passes(idle=5, iowait=-3.5, user=-1)  # kernels do that
        assert now(watch)["hardware/cpu_percent"] == 0


def test_a_busy_loop_shows_as_at_least_one_core():
    with Monitor(CPU, NEVER, lambda: 0) as watch:
        start, started = time.process_time(), time.perf_counter()
        while time.perf_counter() - started < 0.3:
            pass
        ours = (time.process_time() - start) / (time.perf_counter() - started)  # we may get less than a core
        percent = now(watch)["hardware/cpu_percent"]
    assert 100 * 0.7 * ours / psutil.cpu_count() < percent <= 100


def test_samples_carry_the_step_at_which_they_were_taken():
    step, asked = 7, threading.Event()

    def at() -> int:
        if threading.current_thread() in threads():
            asked.set()
        return step

    with Monitor(CPU, 0.01, at) as watch:
        assert asked.wait(60)
        assert {at for at, _ in watch.drain()} == {7}
        step = 8
        asked.clear()
        assert asked.wait(60)
        steps = [at for at, _ in watch.drain()]
    assert len(steps) >= 2
    assert set(steps) == {8}


def test_drain_empties_and_always_has_a_sample_of_now():
    with Monitor(CPU, NEVER, lambda: 3) as watch:
        for _ in range(2):
            ((step, metrics),) = watch.drain()
            assert step == 3
            assert "hardware/ram_bytes" in metrics
    assert watch.drain() == []  # it is over


def test_the_thread_is_a_daemon_and_ends_promptly_also_when_the_run_fails():
    def run():
        with Monitor(CPU, NEVER, lambda: 0):
            assert [thread.daemon for thread in threads()] == [True]
            time.sleep(0.05)  # it waits an hour by now
            raise ArithmeticError

    started = time.perf_counter()
    with pytest.raises(ArithmeticError):
        run()
    assert threads() == []
    assert time.perf_counter() - started < 60  # not the hour between its samples


@pytest.mark.parametrize("off", [0, 0.0, None])
def test_switched_off_there_is_no_thread_and_nothing_is_asked(off, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with Monitor(CUDA, off, lambda: 1 // 0) as watch:
        assert threads() == []
        assert watch.drain() == []
    assert caplog.records == []


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match=r"every_seconds=-1: 0 \(off\) or more"):
        Monitor(CPU, -1, lambda: 0)


def test_a_cpu_has_no_metrics_of_a_gpu(gpu):
    gpu()
    assert set(one(CPU)) <= {"hardware/ram_bytes", "hardware/cpu_percent"}


def test_mps_tells_what_torch_holds(monkeypatch):
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 4096)
    metrics = one(torch.device("mps"))
    assert metrics["hardware/device_memory_bytes"] == 4096
    assert not NVML & set(metrics)


@pytest.mark.parametrize("device", ["cuda:0", "cuda"])
def test_nvml_is_asked_for_the_gpu_that_torch_uses_whatever_its_index(gpu, device):
    gpu()
    metrics = one(torch.device(device))
    assert metrics["hardware/device_memory_bytes"] == 512
    assert {name: metrics[name] for name in NVML} == {
        "hardware/gpu_memory_used_bytes": 2000, "hardware/gpu_percent": 37, "hardware/gpu_watts": 250.5,
    }  # fmt: skip


def test_a_gpu_whose_uuid_nvml_does_not_know_is_found_by_its_bus(gpu):
    gpu(uuid="a-slice")
    assert one(CUDA)["hardware/gpu_memory_used_bytes"] == 2000


QUERIES = {
    "nvmlDeviceGetPowerUsage": {"hardware/gpu_watts"},
    "nvmlDeviceGetUtilizationRates": {"hardware/gpu_percent"},
    "nvmlDeviceGetMemoryInfo": {"hardware/gpu_memory_used_bytes"},
    "nvmlInit": NVML,  # no driver
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_nvml_refuses_leaves_out_only_its_metric_and_says_nothing(gpu, query, caplog):
    gpu(query)
    metrics = set(one(CUDA))
    assert {"hardware/ram_bytes", "hardware/device_memory_bytes"} <= metrics
    assert metrics & NVML == NVML - QUERIES[query]
    assert caplog.records == []


def test_without_nvml_and_with_a_gpu_unknown_to_it_the_rest_is_there(gpu, monkeypatch, caplog):
    gpu().buses.clear()
    monkeypatch.setattr(torch.cuda.get_device_properties(0), "uuid", "cccc")
    assert not NVML & set(one(CUDA))
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it raises ImportError
    assert one(CUDA)["hardware/device_memory_bytes"] == 512
    assert caplog.records == []


def test_an_error_of_nvml_in_the_middle_keeps_the_others_and_passes(gpu):
    nvml = gpu()
    with Monitor(CUDA, NEVER, lambda: 0) as watch:
        assert set(now(watch)) >= NVML
        nvml.failing.add("nvmlDeviceGetUtilizationRates")
        assert set(now(watch)) & NVML == NVML - {"hardware/gpu_percent"}
        nvml.failing.clear()
        assert set(now(watch)) >= NVML


def test_an_exception_in_the_thread_ends_sampling_with_one_warning_and_nothing_else(caplog):
    calls = []

    def step() -> int:
        calls.append(0)
        if len(calls) == 3:
            raise KeyError("broken")
        return len(calls)

    with caplog.at_level(logging.WARNING), Monitor(CPU, 0.01, step) as watch:
        assert until(lambda: not watch.thread.is_alive())
        assert [at for at, _ in watch.drain()] == [1, 2]
        assert watch.drain() == []
    assert len(calls) == 3
    (record,) = caplog.records
    assert "not watched for the rest of this run: KeyError: 'broken'" in record.message


def test_a_start_that_fails_and_an_exception_in_drain_are_survived(caplog, monkeypatch):
    with Monitor(CPU, NEVER, lambda: 1 // 0) as watch:
        assert watch.drain() == []
    monkeypatch.setitem(sys.modules, "psutil", None)
    with Monitor(CPU, NEVER, lambda: 0) as watch:
        assert watch.drain() == []
        assert threads() == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_an_epoch_has_the_maximum_of_bytes_and_the_mean_of_the_rest():
    samples = [
        (1, {"hardware/ram_bytes": 3.0, "hardware/cpu_percent": 10.0, "hardware/gpu_watts": 100.0}),
        (2, {"hardware/ram_bytes": 5.0, "hardware/cpu_percent": 40.0}),
        (9, {"hardware/ram_bytes": 4.0, "hardware/cpu_percent": 70.0, "hardware/gpu_watts": 300.0}),
    ]
    assert epoch_means(samples) == {
        "hardware/ram_bytes": 5.0, "hardware/cpu_percent": 40.0, "hardware/gpu_watts": 200.0,
    }  # fmt: skip
    assert epoch_means([]) == {}


def test_importing_the_monitor_imports_neither_psutil_nor_pynvml_and_starts_no_thread():
    assert not {"psutil", "pynvml"} & set(vars(monitor))
    assert threads() == []
