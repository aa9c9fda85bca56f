"""A plain multilayer perceptron."""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected layers with ReLU and dropout in between, on flattened images.

    The defaults on 32×32 RGB images with ten classes give 3072-512-256-10: 1,707,274 parameters.

    Args:
        num_classes: width of the last layer.
        in_channels: channels of the images.
        image_size: height and width of the images, in pixels.
        hidden: width of each hidden layer, from first to last; an empty one makes a linear classifier.
        dropout: probability with which a hidden activation is dropped in training.

    Raises:
        RuntimeError: in the forward pass, when the images are not of the size given here.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        hidden: Sequence[int] = (512, 256),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = in_channels * image_size**2
        layers: list[nn.Module] = [nn.Flatten()]
        for out_width in hidden:
            layers += [nn.Linear(width, out_width), nn.ReLU(), nn.Dropout(dropout)]
            width = out_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Map images: (batch, channels, height, width) float to logits: (batch, num_classes)."""
        return self.layers(images)
