"""A pass over a batch as one CUDA graph: the GPU gets all of its kernels in one launch, not one by one from Python.

Worth it where the GPU waits for Python: a small model, small batches. Unlike torch.compile it takes no compiler and no
minute before the first step, and the kernels are those of a plain step, so the numbers are, too.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iolaus.augment.mix import Mixed, Targets
from iolaus.errors import first_line

log = logging.getLogger(__name__)
Outputs = tuple[Tensor, Tensor]
Pass = Callable[[Tensor, Targets], Outputs]
HowToLaunch = Callable[[Pass, Tensor, Targets], Outputs]
PLAIN_PASSES = 3  # of a shape, before it is recorded: libraries choose their algorithms, modules make their buffers
# Their modules do the same in every pass, but for the device's random numbers; one of a user's own may count its calls.
STEADY = ("torch", "torchvision", "timm", "iolaus")


def launch_each(run: Pass, images: Tensor, targets: Targets) -> Outputs:
    """A pass as Python comes to it, kernel by kernel."""
    return run(images, targets)


@dataclass
class Recording:
    """A graph, the memory that it reads and writes, and the gradients that it leaves, None where it leaves none."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    targets: Targets
    outputs: Outputs
    grads: list[Tensor | None]


class CudaGraphs:
    """Launches a pass that adds gradients to parameters: recorded at the fourth batch of a shape, then replayed.

    The parameters must have no gradient before a pass, and keep their memory. Random numbers come from the seeds that
    are set before the call, as in a plain pass. A recording has memory of its own for all that a pass keeps until its
    gradient. Where there is none, or recording fails, passes are launched plainly from then on, and the log says why.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.seen: Counter[object] = Counter()
        self.recordings: dict[object, Recording] = {}
        self.works = True

    def __call__(self, run: Pass, images: Tensor, targets: Targets) -> Outputs:
        shape = images.shape, images.dtype, images.stride(), type(targets)
        if shape not in self.recordings and self.works and self.seen[shape] >= PLAIN_PASSES:
            try:
                check_room(images.device)
                self.recordings[shape] = self.record(run, images, targets)
            except RuntimeError as error:
                self.works = False
                # a pass that reads a number, say, which torch tells in the first of two errors
                reason = first_line(error.__context__ or error)
                log.warning("trainer.cuda_graphs: kernels are launched one by one, since %s", reason)
        if recording := self.recordings.get(shape):
            return self.replay(recording, images, targets)
        self.seen[shape] += 1
        return run(images, targets)

    def record(self, run: Pass, images: Tensor, targets: Targets) -> Recording:
        """Record a pass; nothing is computed, and the parameters have no gradient afterwards, as before."""
        kept = images.clone(), clone_targets(targets)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: checkpoints and the monitor go on in their own threads
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = run(*kept)
            return Recording(graph, *kept, outputs, [p.grad for p in self.parameters])
        except RuntimeError:
            with torch.cuda.graph(torch.cuda.CUDAGraph()):  # else torch's generator takes itself to be recorded still
                torch.zeros(1, device=images.device)
            raise
        finally:
            for parameter in self.parameters:
                parameter.grad = None

    def replay(self, recording: Recording, images: Tensor, targets: Targets) -> Outputs:
        """Compute a recorded pass for another batch."""
        recording.images.copy_(images)
        copy_targets(recording.targets, targets)
        recording.graph.replay()
        for parameter, grad in zip(self.parameters, recording.grads, strict=True):
            parameter.grad = grad
        loss, correct = recording.outputs
        return loss.clone(), correct.clone()  # the next replay writes into the same memory


def check_room(device: torch.device) -> None:
    """Raise RuntimeError where what torch holds of a GPU's memory, once more, might not fit beside it."""
    if device.type == "cuda":
        held, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        if held > 0.4 * total:
            raise RuntimeError(f"a recording would double the {held / 2**30:.0f} GiB in use")


def is_steady(*modules: nn.Module) -> bool:
    """Whether all that modules consist of comes from libraries whose passes are known to be alike (STEADY)."""
    parts = (part for module in modules for part in module.modules())
    return all(type(part).__module__.partition(".")[0] in STEADY for part in parts)


def clone_targets(targets: Targets) -> Targets:
    """Targets in memory of their own; the share of mixed ones, too, for it changes from batch to batch."""
    if isinstance(targets, Tensor):
        return targets.clone()
    share = torch.tensor(float(targets.share), dtype=torch.float64, device=targets.targets.device)
    return Mixed(targets.targets.clone(), targets.partners.clone(), share)


def copy_targets(into: Targets, targets: Targets) -> None:
    """Write targets over those of `clone_targets`, of the same kind."""
    if isinstance(into, Mixed):
        assert isinstance(targets, Mixed)
        assert isinstance(into.share, Tensor)
        into.targets.copy_(targets.targets)
        into.partners.copy_(targets.partners)
        into.share.fill_(targets.share)
    else:
        assert isinstance(targets, Tensor)
        into.copy_(targets)
