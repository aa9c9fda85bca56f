"""How much memory training takes: weights, gradients, the optimizer's numbers, and what the backward pass needs."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from iolaus.augment.mix import Targets
from iolaus.learner import Learner


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while a run trains. activations: kept by one forward pass for its backward pass."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


def estimate_memory(learner: Learner, images: Tensor, targets: Targets, batch_size: int) -> Memory:
    """Measure a real step on a few images, and scale what grows with the batch to `batch_size` images.

    Two forward passes, over half of `images` and over all of them, give the bytes of an image and those that every
    batch needs. The step changes the learner's weights. images: (batch, channels, height, width), 4 or more.

    What a library takes for itself is not in it: workspaces, the CUDA context, fragments of the allocator, the
    gradients of activations.
    """
    from iolaus import loop

    half = len(images) // 2
    # copies, since a part of a tensor keeps the storage of the whole
    few, many = (saved_bytes(learner, images[:n].clone(), targets[:n]) for n in (half, 2 * half))
    per_image = (many - few) / half
    loop.train_step(learner, images, targets, step=0, want_norm=False)
    parameters = list(learner.model.parameters())
    state = (value for values in learner.optimizer.state.values() for value in values.values())
    weights = bytes_of([*parameters, *learner.model.buffers()])
    return Memory(
        weights=weights,
        gradients=bytes_of(p for p in parameters if p.requires_grad),
        optimizer=bytes_of(value for value in state if isinstance(value, Tensor)),
        average=weights if learner.ema else 0,
        activations=round(few + per_image * (batch_size - half)),
    )


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def saved_bytes(learner: Learner, images: Tensor, targets: Targets) -> int:
    """The bytes of all storages that autograd keeps in a forward pass, without those of parameters and buffers."""
    ours = [*learner.model.parameters(), *learner.model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in ours}
    kept: dict[int, torch.UntypedStorage] = {}  # which keeps them alive, so that no address comes twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    learner.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), learner.autocast():
        loss = learner.loss_fn(learner.model(images), targets)
    total = sum(storage.nbytes() for storage in kept.values())
    del loss
    return total
