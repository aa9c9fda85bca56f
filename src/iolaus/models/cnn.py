"""A small convolutional network for images of any size."""

from collections.abc import Sequence

from torch import Tensor, nn


def stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 convolutions with BatchNorm and ReLU, then a max-pool that halves height and width."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        # no bias: the BatchNorm that follows would remove it
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)]
        layers += [nn.ReLU()]
    # ceil_mode leaves a map of one pixel as it is, where a plain pool fails, so 8×8 digits pass any depth
    return nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True))


class CNN(nn.Module):
    """VGG-like stages, global average pooling and one linear layer (after Simonyan & Zisserman, 2014).

    It takes images of any size, since the last map is averaged.

    Args:
        num_classes: width of the last layer.
        in_channels: channels of the images.
        widths: channels of each stage, from first to last; every stage halves the resolution.
        dropout: probability of dropping a feature before the last layer in training.

    Raises:
        ValueError: when `widths` is empty.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int] = (32, 64, 128),
        dropout: float = 0.0,
    ) -> None:
        if not widths:
            raise ValueError("widths=[]: must be the channels of one stage or more")
        super().__init__()
        pairs = zip([in_channels, *widths], widths, strict=False)
        self.stages = nn.Sequential(*(stage(narrow, wide) for narrow, wide in pairs))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images: (batch, channels, height, width) float to logits: (batch, num_classes)."""
        logits: Tensor = self.head(self.stages(images))
        return logits
