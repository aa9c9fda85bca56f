"""Test-time augmentation: the mean of a model's logits over several views of an image."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

TTA = Literal["none", "flip", "flip_translate", "resize_center_crop"]


def views(images: Tensor, how: TTA) -> list[tuple[float, Tensor]]:
    """The views of normalised images and the weight of each; the weights sum to 1.

    images: (batch, channels, size, size), floating; each view has their shape, dtype and memory order.
    how: `none`: the images themselves. `flip`: also their mirror images. `flip_translate`: half the weight is on these,
    half on both shifted by a pixel up-left and down-right, with reflected edges (`infer_mirror_translate` of Keller
    Jordan's cifar10-airbench, 2024). `resize_center_crop`: enlarged by 256/224 and cropped to the centre, as fine-tuned
    models are evaluated (torchvision's Resize and CenterCrop). Raises ValueError for another name.
    """
    if how == "none":
        return [(1.0, images)]
    if how == "flip":
        return [(0.5, images), (0.5, images.flip(-1))]
    if how == "flip_translate":
        up_left, down_right = _shift_diagonally(images)
        weighted = [(0.5, images), (0.25, up_left), (0.25, down_right)]
        return [(weight / 2, view) for weight, shifted in weighted for view in (shifted, shifted.flip(-1))]
    if how == "resize_center_crop":
        return [(1.0, _enlarge_centre(images))]
    raise ValueError(f"tta={how}: must be one of {', '.join(get_args(TTA))}")


def average_logits(model: Callable[[Tensor], Tensor], images: Tensor, how: TTA) -> Tensor:
    """The weighted mean of `model`'s logits over the `views` of images: (batch, classes) float32.

    The model is called once for each view, one after the other; for `none` once, on `images` itself.
    """
    weighted = views(images, how)
    # Weighted at once: a model replayed as a CUDA graph overwrites these logits in its next call
    return torch.stack([weight * model(view).float() for weight, view in weighted]).sum(dim=0)


def _shift_diagonally(images: Tensor) -> list[Tensor]:
    size = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    # With the images' own strides, so that a compiled model is not compiled again for these views
    return [torch.empty_like(images).copy_(padded[..., first : first + size, first : first + size]) for first in (0, 2)]


def _enlarge_centre(images: Tensor) -> Tensor:
    size = images.shape[-1]
    enlarged = round(size * 8 / 7)
    first = round((enlarged - size) / 2)
    # Without antialiasing, which changes nothing when enlarging and is missing for some devices and dtypes
    resized = F.interpolate(images, (enlarged, enlarged), mode="bilinear")
    return torch.empty_like(images).copy_(resized[..., first : first + size, first : first + size])
