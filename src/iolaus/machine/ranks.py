"""Several processes, one run: each has a device of its own and its part of every batch.

Rank 0 is the run, with its folder, its log and its display; the others follow it (follow.py). The loop asks `Alone` or
`Ranks` the same questions. Whatever the number of ranks, the batches, their order and their augmentation are those of
one process, and so is each sum over a batch, up to the order of its additions.
"""

import io
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, Work
    from torch.nn.parallel import DistributedDataParallel

LONGEST_WAIT = timedelta(hours=2)  # of one rank for the others; a dead one is noticed at once
Value = TypeVar("Value")
Row = TypeVar("Row")


class Alone:
    """A run in one process. device: None is for `hardware.pick_device` to choose."""

    rank, world = 0, 1

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as training calls it; its state, and evaluation, stay with the bare one."""
        return model

    def rows(self, batch: slice, mixes: bool) -> slice | Tensor:
        """The places in the epoch of this rank's part of a training batch. mixes: with the place before them first."""
        return batch

    def turns(self, batches: list[slice]) -> list[slice]:
        """Those of the batches of an evaluation that are this rank's."""
        return batches

    def gather(self, value: Value) -> list[Value]:
        """The value of each rank: plain containers and tensors of the CPU."""
        return [value]

    def merge(self, rows: list[Row]) -> list[Row]:
        """One row for each batch of an evaluation, of all ranks, in order."""
        return rows

    def count_images(self, here: int, planned: int) -> int:
        """The images of a whole training batch. here: those of this rank; planned: all, if none is unreadable."""
        return here

    def copies(self, count: int) -> int:
        """How many ranks compute each image of a batch of `count` images."""
        return 1

    def reduce_gradients(self, now: bool) -> None:
        """Whether the next backward pass ends a step's gradient, which then becomes the mean over the ranks."""

    def undo_mean(self, loss: Tensor) -> Tensor:
        """A loss whose gradients add up over the ranks, of which torch takes the mean."""
        return loss

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, element by element."""
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of this rank by their means over the ranks."""

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value: plain containers and tensors, which arrive on the CPU."""
        return value

    def agree(self, number: int) -> int:
        """The largest number that any rank gave at the call before this one, so that nobody waits for the answer."""
        return number


ALONE = Alone()


class Ranks(Alone):
    """One of several processes that share a run. store: what they find each other by."""

    model: "DistributedDataParallel"

    def __init__(self, rank: int, world: int, device: torch.device, store: "Store") -> None:
        super().__init__(device)
        self.rank, self.world, self.store = rank, world, store
        self.pending: tuple[Work | None, Tensor] | None = None

    def connect(self) -> None:
        """Form the process group; every rank calls it once."""
        from torch.distributed import init_process_group

        backend = "cpu:gloo,cuda:nccl" if self.device is not None and self.device.type == "cuda" else "gloo"
        init_process_group(backend, store=self.store, rank=self.rank, world_size=self.world, timeout=LONGEST_WAIT)

    def wrap(self, model: nn.Module) -> nn.Module:
        """torch's own DDP. Each rank keeps its BatchNorm statistics within an epoch (`average`)."""
        from torch.nn.parallel import DistributedDataParallel

        with warnings.catch_warnings(action="ignore"):  # torch 2.14 gives the argument another name
            self.model = DistributedDataParallel(model, broadcast_buffers=False)
        return self.model

    def rows(self, batch: slice, mixes: bool) -> slice | Tensor:
        count = batch.stop - batch.start
        if self.copies(count) > 1:
            first, stop = 0, count
        else:
            first, stop = count * self.rank // self.world, count * (self.rank + 1) // self.world
        if not mixes:
            return slice(batch.start + first, batch.start + stop)
        before = torch.tensor([(first - 1) % count])
        return torch.cat([before, torch.arange(first, stop)]).add_(batch.start)

    def turns(self, batches: list[slice]) -> list[slice]:
        return batches[self.rank :: self.world]

    def gather(self, value: Value) -> list[Value]:
        from torch.distributed import all_gather_object

        values: list[Value] = [value] * self.world
        all_gather_object(values, value)
        return values

    def merge(self, rows: list[Row]) -> list[Row]:
        of_rank = self.gather(rows)
        return [of_rank[i % self.world][i // self.world] for i in range(sum(map(len, of_rank)))]

    def count_images(self, here: int, planned: int) -> int:
        return planned

    def copies(self, count: int) -> int:
        """Every rank computes the whole of a batch that has fewer images than there are ranks."""
        return self.world if count < self.world else 1

    def reduce_gradients(self, now: bool) -> None:
        self.model.require_backward_grad_sync = now

    def undo_mean(self, loss: Tensor) -> Tensor:
        return loss * self.world

    def total(self, values: Tensor) -> Tensor:
        from torch.distributed import all_reduce

        values = values.clone()
        all_reduce(values)
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        # in float64 the mean of equal numbers is that number, whatever the number of ranks
        exact = torch.float64 if tensors[0].device.type != "mps" else torch.float32
        means = self.total(torch.cat([tensor.detach().flatten().to(exact) for tensor in tensors])) / self.world
        for tensor, mean in zip(tensors, means.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def broadcast(self, value: Value) -> Value:
        from torch.distributed import broadcast

        content = to_bytes(value) if self.rank == 0 else b""
        size = torch.tensor([len(content)])
        broadcast(size, 0)
        data = torch.frombuffer(bytearray(content or int(size)), dtype=torch.uint8)
        broadcast(data, 0)
        return value if self.rank == 0 else from_bytes(data.numpy().tobytes())

    def agree(self, number: int) -> int:
        from torch.distributed import ReduceOp, all_reduce

        before, largest = self.pending, torch.tensor([number])
        self.pending = all_reduce(largest, ReduceOp.MAX, async_op=True), largest
        return wait_for_largest(before)

    def end_of_run(self) -> None:
        """Take the answer that nobody has asked for yet, before the ranks go on to another run."""
        wait_for_largest(self.pending)
        self.pending = None


def wait_for_largest(pending: "tuple[Work | None, Tensor] | None") -> int:
    if pending is None:
        return 0
    work, largest = pending
    if work is not None:
        work.wait()
    return int(largest)


def to_bytes(value: object) -> bytes:
    """Plain containers and tensors as bytes, for another rank."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def from_bytes(content: bytes) -> Any:
    """What `to_bytes` was given; tensors are on the CPU."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def running_statistics(*models: nn.Module | None) -> list[Tensor]:
    """The floating buffers of models: those that each rank moves by its own part of the batches."""
    return [b for model in models if model is not None for b in model.buffers() if b.is_floating_point()]


def share_batchnorm(model: nn.Module, synced: bool, group: Alone, device: torch.device) -> tuple[nn.Module, str | None]:
    """The model, its BatchNorms synced over the ranks if wanted and possible, and what they see; None without any.

    `batch`: the whole batch, on one device. `synced`: the same, over several. `ghost`: each rank's part of the batch,
    on its own (Hoffer et al. 2017); torch has no synced BatchNorm on a CPU.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return model, None
    if group.world == 1:
        return model, "batch"
    if device.type != "cuda" or not synced:
        return model, "ghost"
    return nn.SyncBatchNorm.convert_sync_batchnorm(model), "synced"
