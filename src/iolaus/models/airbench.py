"""The network of airbench94, made to learn CIFAR-10 in the fewest seconds."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 2  # height and width of the first convolution's filters


class ShiftNorm(nn.BatchNorm2d):
    """BatchNorm without a learned scale, whose shift learns `lr_factor` times as fast (section 3.4).

    The parameter is the shift divided by √lr_factor: that multiplies its gradient by √lr_factor, and what a step of
    SGD moves by √lr_factor once more, while weight decay takes the same part of it as of any other parameter.
    """

    def __init__(self, channels: int, momentum: float, eps: float, lr_factor: float) -> None:
        super().__init__(channels, momentum=momentum, eps=eps)
        self.weight.requires_grad_(False)  # a constant 1, kept since the fused kernels ask for it
        self.scale = math.sqrt(lr_factor)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps: (batch, channels, height, width) by their own statistics in training, else by those kept."""
        statistics = (self.running_mean, self.running_var)
        shift = self.scale * self.bias
        return F.batch_norm(maps, *statistics, self.weight, shift, self.training, self.momentum or 0.0, self.eps)


def convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3×3 convolution that at first passes its input on in its first filters, the others random (section 3.3)."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.detach()[:in_channels])
    return layer


class AirbenchNet(nn.Module):
    """Whitened patches, then groups of two 3×3 convolutions that each halve the map, then the largest of each channel.

    The architecture of "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (Keller Jordan 2024, arXiv 2404.00498,
    section 3.1): seven convolutions, 1.97 million numbers at the default widths. The filters of the first layer are not
    trained; they are random until `initialise` has seen images. Three groups take images of any size from 9×9 on.

    Args:
        num_classes: width of the last layer.
        in_channels: channels of the images.
        widths: channels of each group, from first to last.
        batchnorm_momentum: weight of the newest batch in the running statistics; the large one suits short runs.
        batchnorm_eps: added to the variances in BatchNorm.
        bias_lr_factor: how many times faster than other parameters BatchNorm's shifts learn (under SGD).
        logit_scale: fixed factor of the logits.
        whitening_eps: added to the variances of the patches before they are divided by.

    Raises:
        IndexError: when `widths` is empty.
    """

    def __init__(
        self, num_classes: int, in_channels: int, widths: Sequence[int] = (64, 256, 256),
        batchnorm_momentum: float = 0.4, batchnorm_eps: float = 1e-12, bias_lr_factor: float = 64.0,
        logit_scale: float = 1 / 9, whitening_eps: float = 5e-4,
    ) -> None:  # fmt: skip
        super().__init__()

        def activated(channels: int) -> list[nn.Module]:
            return [ShiftNorm(channels, batchnorm_momentum, batchnorm_eps, bias_lr_factor), nn.GELU()]

        def group(narrow: int, wide: int) -> nn.Sequential:
            first, second = convolution(narrow, wide), convolution(wide, wide)
            return nn.Sequential(first, nn.MaxPool2d(2), *activated(wide), second, *activated(wide))

        filters = 2 * in_channels * PATCH**2
        self.whiten = nn.Conv2d(in_channels, filters, PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # there is one
        pairs = zip([filters, *widths], widths, strict=False)
        self.groups = nn.Sequential(nn.GELU(), *(group(narrow, wide) for narrow, wide in pairs))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.logit_scale = logit_scale
        self.whitening_eps = whitening_eps

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Set the first layer to whiten the patches of images: (n, channels, height, width), normalised (section 3.2).

        The filters of its first half give, over all patches of these images, uncorrelated numbers of mean square 1;
        they are the eigenvectors of the patches' second moments by falling eigenvalue, each with its largest component
        positive. Those of the second half are their negatives, so that GELU loses nothing. A few thousand images do.
        """
        # in float64, so that one seed gives the same filters with any number of threads and on any device that has it
        device = "cpu" if images.device.type == "mps" else images.device
        moments = torch.zeros(2 * [self.whiten.out_channels // 2], dtype=torch.float64, device=device)
        for few in images.split(50):  # few enough for a processor's cache
            patches = F.unfold(few.to(device, torch.float64), PATCH)  # (few, numbers of a patch, positions)
            moments += (patches @ patches.mT).sum(dim=0)
        moments /= len(images) * patches.shape[-1]
        eigenvalues, eigenvectors = torch.linalg.eigh(moments.cpu())
        rows = eigenvectors.T.flip(0)
        rows = rows * rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
        rows = rows / (eigenvalues.flip(0).clamp(min=0) + self.whitening_eps).sqrt()[:, None]
        self.whiten.weight.copy_(torch.cat([rows, -rows]).view_as(self.whiten.weight))

    def forward(self, images: Tensor) -> Tensor:
        """Map images: (batch, channels, height, width) float to logits: (batch, num_classes)."""
        maps = self.groups(self.whiten(images))
        # of a 32×32 image the last map is 3×3: this is the paper's max-pool of 3
        return self.logit_scale * self.head(maps.amax(dim=(2, 3)))
