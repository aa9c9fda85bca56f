"""A multilayer perceptron: plain, or with residual blocks."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    "none": lambda width: [],
    "batch": lambda width: [nn.BatchNorm1d(width)],
    "layer": lambda width: [nn.LayerNorm(width)],
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Residual(nn.Module):
    """x + f(x), where f is the sequence of the given layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map features: (batch, width) to the same shape."""
        residual: Tensor = self.layers(features)
        return features + residual


class MLP(nn.Module):
    """Fully connected layers on flattened images.

    By default an activation and dropout follow each hidden layer: for 32×32 RGB images of ten classes the network is
    3072-512-256-10, with 1,707,274 parameters. With `expansion`, the first hidden layer is linear, each further one is
    a residual block x + B f(A norm(x)), `expansion` times as wide inside (the inverted bottleneck of Bachmann et al.,
    2023, arXiv 2306.13575), and a norm precedes the last layer.

    Args:
        num_classes: width of the last layer.
        in_channels: channels of the images.
        image_size: height and width of the images, in pixels.
        hidden: width of each hidden layer, from first to last; an empty one makes a linear classifier.
        dropout: probability of dropping a hidden activation in training.
        norm: BatchNorm or LayerNorm before each activation; with `expansion`, before each block.
        activation: the function after each hidden layer, or within each block.
        expansion: width of a block's inner layer over the width of its ends; None makes plain layers.

    Raises:
        ValueError: for an unknown norm or activation, and for blocks of unequal widths.
        RuntimeError: in the forward pass, for images of another size than the one given here.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.0,
        norm: Literal["none", "batch", "layer"] = "none",
        activation: Literal["relu", "gelu"] = "relu",
        expansion: int | None = None,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm}: must be one of {', '.join(NORMS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        if expansion is not None and (expansion < 1 or len(set(hidden)) != 1):
            raise ValueError(f"hidden={list(hidden)}, expansion={expansion}: must be equal widths, and 1 or more")

        def activate_and_drop() -> list[nn.Module]:
            return [ACTIVATIONS[activation](), nn.Dropout(dropout)]

        width = in_channels * image_size**2
        layers: list[nn.Module] = [nn.Flatten()]
        for i, out_width in enumerate(hidden):
            if expansion is None:
                layers += [nn.Linear(width, out_width), *NORMS[norm](out_width), *activate_and_drop()]
            elif i == 0:
                layers += [nn.Linear(width, out_width)]
            else:
                wide, narrow = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
                layers.append(Residual(*NORMS[norm](width), wide, *activate_and_drop(), narrow))
            width = out_width
        if expansion is not None:
            layers += NORMS[norm](width)
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map images: (batch, channels, height, width) float to logits: (batch, num_classes)."""
        logits: Tensor = self.layers(images)
        return logits
