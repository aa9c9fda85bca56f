"""The network of airbench94, which learns CIFAR-10 in few seconds."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 2  # height and width of the first convolution's filters


class ShiftNorm(nn.BatchNorm2d):
    """BatchNorm without a learned scale, whose shift learns `lr_factor` times as fast (section 3.4).

    The parameter is the shift divided by √lr_factor. This multiplies its gradient by √lr_factor, and the effect of
    SGD's step by √lr_factor again; weight decay shrinks it by the same factor as any other parameter.
    """

    def __init__(self, channels: int, momentum: float, eps: float, lr_factor: float) -> None:
        super().__init__(channels, momentum=momentum, eps=eps)
        self.weight.requires_grad_(False)  # a constant 1, which the fused kernels require
        self.scale = math.sqrt(lr_factor)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps, (batch, channels, height, width), by BatchNorm's statistics."""
        statistics = (self.running_mean, self.running_var)
        shift = self.scale * self.bias
        return F.batch_norm(maps, *statistics, self.weight, shift, self.training, self.momentum or 0.0, self.eps)


def convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3×3 convolution whose first filters start as the identity, the others random (section 3.3)."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.detach()[:in_channels])
    return layer


class AirbenchNet(nn.Module):
    """Whitened patches, then groups of two 3×3 convolutions that each halve the map, then a global max-pool.

    The architecture of "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (Keller Jordan 2024, arXiv 2404.00498,
    section 3.1): seven convolutions, 1.97 million parameters at the default widths. The filters of the first layer are
    not trained; they are random until `initialise` gets images. Three groups take images of 9×9 pixels or more. The
    defaults are the paper's; its later variant under Muon (airbench94_muon) has bias_lr_factor=1, head_std=1,
    logit_scale=1/256 and whitening_bias=random.

    Args:
        num_classes: width of the last layer.
        in_channels: channels of the images.
        widths: channels of each group, from first to last.
        batchnorm_momentum: weight of the newest batch in the running statistics; large, since runs are short.
        batchnorm_eps: added to the variances in BatchNorm.
        bias_lr_factor: factor of the learning rate of BatchNorm's shifts (under SGD).
        head_std: standard deviation that the last layer's first weights are scaled to; None leaves torch's.
        logit_scale: fixed factor of the logits.
        whitening_bias: the first layer's first biases, zeros or random (torch's).
        whitening_eps: added to the variances of the patches before the division.

    Raises:
        IndexError: when `widths` is empty.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int] = (64, 256, 256),
        batchnorm_momentum: float = 0.4,
        batchnorm_eps: float = 1e-12,
        bias_lr_factor: float = 64.0,
        head_std: float | None = None,
        logit_scale: float = 1 / 9,
        whitening_bias: Literal["zeros", "random"] = "zeros",
        whitening_eps: float = 5e-4,
    ) -> None:
        super().__init__()

        def norm_and_gelu(channels: int) -> list[nn.Module]:
            return [ShiftNorm(channels, batchnorm_momentum, batchnorm_eps, bias_lr_factor), nn.GELU()]

        def group(narrow: int, wide: int) -> nn.Sequential:
            first, second = convolution(narrow, wide), convolution(wide, wide)
            return nn.Sequential(first, nn.MaxPool2d(2), *norm_and_gelu(wide), second, *norm_and_gelu(wide))

        filters = 2 * in_channels * PATCH**2
        self.whiten = nn.Conv2d(in_channels, filters, PATCH)
        self.whiten.weight.requires_grad_(False)
        if whitening_bias == "zeros":
            nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # it has a bias
        pairs = zip([filters, *widths], widths, strict=False)
        self.groups = nn.Sequential(nn.GELU(), *(group(narrow, wide) for narrow, wide in pairs))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        if head_std is not None:
            weight = self.head.weight.detach()
            weight *= head_std / weight.std()
        self.logit_scale = logit_scale
        self.whitening_eps = whitening_eps

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Set the first layer to whiten the patches of images: (n, channels, height, width), normalised (section 3.2).

        The outputs of the first half of the filters are uncorrelated and have mean square 1 over all patches of these
        images. The filters are the eigenvectors of the patches' second moments by falling eigenvalue, each with its
        largest component positive. The second half are their negatives, so that GELU loses nothing. A few thousand
        images are enough.
        """
        # in float64, so that a seed gives the same filters with any number of threads and on any device (MPS has none)
        device = "cpu" if images.device.type == "mps" else images.device
        moments = torch.zeros(2 * [self.whiten.out_channels // 2], dtype=torch.float64, device=device)
        for chunk in torch.split(images, 50):  # fits into a processor's cache
            patches = F.unfold(chunk.to(device, torch.float64), PATCH)  # (chunk, pixels × channels, positions)
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
        # the last map of a 32×32 image is 3×3: this is the paper's max-pool of 3
        logits: Tensor = self.head(maps.amax(dim=(2, 3)))
        return self.logit_scale * logits
