"""A model and its normalisation as one module, to be exported, and how an exported one is compared with it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iolaus.errors import RunFailed
from iolaus.use.classifier import Classifier

LOGIT_TOLERANCE = 1e-3  # of the largest logit


class Graph(nn.Module):
    """Images of `kind` uint8, or floats in [0, 1], to logits: (batch, channels, size, size) to (batch, classes)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, classifier: Classifier, kind: str) -> None:
        super().__init__()
        mean, std = classifier.input.statistics
        scale = 1 / (std * 255) if kind == "uint8" else 1 / std
        self.model = classifier.model.to(memory_format=torch.contiguous_format)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images.float() * self.scale + self.shift).contiguous())
        return logits


def example_images(classifier: Classifier, kind: str, count: int) -> Tensor:
    """Noise in the shape that the model takes, always the same."""
    generator = torch.Generator().manual_seed(count)
    shape = (count, classifier.input.channels, classifier.input.size, classifier.input.size)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return pixels if kind == "uint8" else pixels / 255


@torch.no_grad()
def largest_difference(expected: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """The largest difference of two models' logits. Raises RunFailed where it is more than rounding explains."""
    own, other = expected(images), run(images)
    difference, largest = float((own - other).abs().max()), float(own.abs().max())
    if own.shape != other.shape or not difference <= LOGIT_TOLERANCE * max(1.0, largest):
        raise RunFailed(f"the exported model differs from the run's: logits by {difference:g}, of up to {largest:g}")
    return difference
