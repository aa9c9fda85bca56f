"""trainer.cuda_graphs: a replayed pass gives what a plain one gives; where there are no graphs the log says so."""

from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from test_loop import CPU, needs_cuda
from test_no_waits import CASES, learner_of, take_steps
from torch import nn

from iolaus.config.build import launch_graphs
from iolaus.machine.cuda_graphs import PLAIN_PASSES, CudaGraphs, Recording, check_room, clone_targets
from iolaus.machine.ranks import ALONE

GPU_CASES = pytest.mark.parametrize(("kind", "settings"), CASES.values(), ids=CASES.keys())


class Rerun:
    """Stands in for a graph on a CPU: a replay calls the pass again, and writes into the memory of the recording."""

    def __init__(self, run, parameters):
        self.run, self.parameters, self.replays = run, parameters, 0

    def replay(self):
        self.replays += 1
        results = self.run(self.recording.images, self.recording.targets)
        for memory, result in zip(self.recording.outputs, results, strict=True):
            memory.copy_(result)
        for memory, parameter in zip(self.recording.grads, self.parameters, strict=True):
            memory.copy_(parameter.grad)
            parameter.grad = None


class GraphsOfCpu(CudaGraphs):
    """CudaGraphs whose graphs are `Rerun`s."""

    def record(self, run, images, targets):
        rerun = Rerun(run, self.parameters)
        outputs = torch.full((), torch.nan), torch.full((), torch.nan)
        kept = torch.empty_like(images), clone_targets(targets)
        rerun.recording = Recording(rerun, *kept, outputs, [torch.empty_like(p) for p in self.parameters])
        return rerun.recording


def train(kind, precision, device, graphs=None, **settings):
    """The learner after 30 steps whose passes an object of the class `graphs` launches."""
    learner, data = learner_of(kind, precision, device, **settings)
    if graphs:
        learner.launch = graphs(list(learner.model.parameters()))
    for _ in take_steps(learner, data):
        pass
    return learner


def assert_same_state(one, other):
    for learner in (one, other):
        learner.schedule.settle()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    if one.ema:
        for name, value in one.ema.model.state_dict().items():
            assert torch.equal(value, other.ema.model.state_dict()[name]), name


@GPU_CASES
def test_what_is_replayed_gives_the_weights_of_plain_steps(kind, settings):
    """The batch, its targets, the share of a mixed one and the gradients go in and out as a graph needs it."""
    plain, replayed = (train(kind, "fp32", CPU, graphs, **settings) for graphs in (None, GraphsOfCpu))
    replays = [recording.graph.replays for recording in replayed.launch.recordings.values()]
    assert sum(replays) == (30 - PLAIN_PASSES) * (2 if "sam_rho" in settings else 1) + ("sam_rho" in settings) * 3
    assert_same_state(plain, replayed)


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@GPU_CASES
def test_graphs_give_the_weights_of_plain_steps(kind, settings, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = torch.device("cuda")
    plain, replayed = (train(kind, precision, device, graphs, **settings) for graphs in (None, CudaGraphs))
    assert replayed.launch.works
    assert len(replayed.launch.recordings) >= 1
    assert_same_state(plain, replayed)


@needs_cuda
def test_a_pass_that_reads_a_number_is_launched_plainly(caplog):
    learner, data = learner_of("sgd", "fp32", torch.device("cuda"))
    learner.launch = CudaGraphs(list(learner.model.parameters()))
    learner.model.register_forward_hook(lambda module, args, output: output * float(output.mean() < 1e9))
    steps = take_steps(learner, data)
    for _ in range(8):
        next(steps)
    assert not learner.launch.works
    assert "trainer.cuda_graphs: kernels are launched one by one" in caplog.text
    assert all(value.isfinite().all() for value in learner.model.state_dict().values())


def test_recording_that_fails_is_told_once_and_training_goes_on(caplog):
    class Failing(GraphsOfCpu):
        def record(self, run, images, targets):
            raise RuntimeError("operation not permitted when stream is capturing\nand a long story")

    plain, failed = (train("sgd", "fp32", CPU, graphs) for graphs in (None, Failing))
    assert_same_state(plain, failed)
    told = [r.message for r in caplog.records if "cuda_graphs" in r.message]
    assert told == [
        "trainer.cuda_graphs: kernels are launched one by one, since operation not permitted when stream is capturing"
    ]


def test_a_recording_that_might_not_fit_is_not_made(monkeypatch):
    held = 8 * 2**30
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: held)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 * 2**30))
    with pytest.raises(RuntimeError, match="would double the 8 GiB in use"):
        check_room(torch.device("cuda"))
    held = 4 * 2**30
    check_room(torch.device("cuda"))
    check_room(CPU)


class CountsCalls(nn.ReLU):
    """A module of a user's own."""


@pytest.mark.parametrize(
    ("chosen", "device", "module", "compiled", "graphs", "note"),
    [
        ("auto", "cuda", nn.ReLU, False, True, False),
        ("auto", "cuda", CountsCalls, False, False, False),
        ("auto", "cuda", nn.ReLU, "reduce-overhead", False, False),
        ("auto", "cpu", nn.ReLU, False, False, False),
        (True, "cuda", CountsCalls, False, True, False),
        (True, "cpu", nn.ReLU, False, False, True),
        (False, "cuda", nn.ReLU, False, False, False),
    ],
)
def test_graphs_are_for_one_gpu_and_by_default_for_modules_known_to_be_steady(
    chosen, device, module, compiled, graphs, note
):
    learner, _ = learner_of("sgd", "fp32", CPU, cuda_graphs=chosen, compile=compiled)
    learner.model.append(module())
    learner.device = torch.device(device)
    notes = launch_graphs(learner, nn.CrossEntropyLoss(), ALONE)
    assert isinstance(learner.launch, CudaGraphs) is graphs
    assert bool(notes) is note


def test_on_a_cpu_the_log_says_that_there_are_none(command):
    outcome = command(*TINY, "trainer.cuda_graphs=true", "trainer.device=cpu")
    assert outcome.status == 0, outcome.err
    assert "trainer.cuda_graphs: without effect on cpu" in outcome.err
    assert outcome.results["cuda_graphs"] is False


def test_graphs_and_torch_compile_are_not_given_together(command):
    refused = command(*TINY, "trainer.cuda_graphs=true", "trainer.compile=true")
    assert refused.status == 2
    assert "trainer.cuda_graphs=true: must be left out with compile" in refused.err
