"""The initial, deterministic step, once per image: bring it to the channels and the size that the model takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iolaus.data.decode import Whole
from iolaus.data.split import LazyImages, read_image
from iolaus.images import PIL_LUMA, as_uint8

THIN = 8  # times as long as wide: such images are cropped before they are resized
REDUCTIONS = (8, 4, 2)  # scales of libjpeg's decoder: an eighth, a quarter, half
# How many times as long as the result the shorter side of a picture that was decoded smaller is, at least. Bicubic is
# what pretrained models were made with: there the filter, not the decoder, decides on the pixels.
SPARE = {"bilinear": 1, "bicubic": 2}


@dataclass(frozen=True)
class ImageShape:
    """The shape of images before augmentation (`kept_size`) and as the model sees them (`size`).

    size: pixels of the square that the model takes: a random window of the kept square in training, its centre in
    evaluation. kept_size: pixels of the square that is kept, `size` or more. interpolation: bilinear or bicubic.
    initial: the user's function, applied first: (channels, height, width) uint8 to uint8, or to floats in [0, 1],
    of any height and width. resizing: exact, in floats and from every pixel, or fast (dataset.resizing).
    """

    channels: int
    size: int
    kept_size: int
    interpolation: str = "bilinear"
    initial: Callable[[Tensor], Tensor] | None = None
    resizing: str = "fast"

    @property
    def reduces(self) -> bool:
        """Whether pictures may be decoded smaller than they are; not for a function that expects all pixels."""
        return self.resizing == "fast" and self.initial is None

    def reduction(self, height: int, width: int) -> int:
        """By how much a picture of this size may be decoded smaller: 1, 2, 4 or 8."""
        shorter, longer = min(height, width), max(height, width)
        if not self.reduces or longer > THIN * shorter:
            return 1
        return find_reduction(shorter, self.kept_size * SPARE[self.interpolation])

    def read(self, images: Tensor | LazyImages, index: int) -> Tensor:
        """Image `index` after the initial step: (1, channels, kept_size, kept_size) uint8. Raises BrokenImage."""
        pixels, whole = read_image(images, index, self.reduction)
        return self.preprocess(pixels, whole=whole)

    def preprocess(self, images: Tensor, resize: bool = True, whole: Whole | None = None) -> Tensor:
        """images: (batch, 1 or 3, height, width) uint8. Returns (batch, channels, kept_size, kept_size) uint8.

        resize: False keeps height and width, for a random crop of the whole photograph. whole: of images that were
        decoded smaller.
        """
        size, fast = self.kept_size if resize else None, self.resizing == "fast"
        if self.initial is None:
            return to_shape(images, self.channels, size, self.interpolation, fast, whole)
        made = [as_uint8(self.initial(image)).unsqueeze(0) for image in images]
        return torch.cat([to_shape(image, self.channels, size, self.interpolation, fast) for image in made])

    def centre(self, images: Tensor) -> Tensor:
        """The part of kept images that evaluation sees."""
        first = (images.shape[-1] - self.size) // 2
        return images if first == 0 else images[..., first : first + self.size, first : first + self.size]


def find_reduction(pixels: int, needed: int) -> int:
    """The largest factor by which so many pixels can be decoded smaller and `needed` of them are left; 1 for none."""
    return next((factor for factor in REDUCTIONS if pixels >= factor * needed), 1)


def to_shape(
    images: Tensor,
    channels: int,
    size: int | None,
    interpolation: str = "bilinear",
    fast: bool = True,
    whole: Whole | None = None,
) -> Tensor:
    """Bring a batch to (batch, channels, size, size), or only to its channels if size is None.

    images: (batch, 1 or 3, height, width) uint8. Grey becomes RGB by repetition, RGB grey by its luma. A square image
    that is at most a quarter too small is padded with zeros (28 to 32 for MNIST, as LeNet did); any other is resized
    by its shorter side (antialiased) and cropped to its centre, as torchvision does. fast: in whole numbers, rounded
    after each of the two directions as Pillow does, else in floats. whole: of images that were decoded smaller.
    Returns uint8.
    """
    if images.shape[1] != channels:
        if channels == 3:
            images = images.expand(-1, 3, -1, -1)
        else:
            weights = torch.tensor(PIL_LUMA).view(1, 3, 1, 1)
            images = (images * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)
    height, width = images.shape[-2:]
    if size is None or height == width == size:
        return images
    if height == width and 0.75 * size <= height < size:
        before = (size - height) // 2
        return F.pad(images, (before, size - height - before) * 2)
    if max(height, width) > THIN * min(height, width):
        images = middle(images)
        height, width = images.shape[-2:]
    if whole is not None:
        height, width = whole.height, whole.width
    shorter = min(height, width)
    shape = [size * height // shorter, size * width // shorter]
    scales: list[float] | None = None
    if whole is not None and whole.factor > 1:
        # the last row and column that were decoded may stand for less than `factor` pixels: the scale is the whole's
        scales = [whole.factor * new / old * (1 + 1e-9) for new, old in zip(shape, (height, width), strict=True)]
    pixels, target = images if fast else images.float(), None if scales else shape
    resized = F.interpolate(pixels, target, scales, mode=interpolation, antialias=True)
    top, left = (round((length - size) / 2) for length in shape)
    window = resized[..., top : top + size, left : left + size]
    return window if fast else window.round().clamp(0, 255).to(torch.uint8)


def middle(images: Tensor) -> Tensor:
    """The middle of thin images, more than a centre crop sees of them.

    Resized whole they would take memory by the square of their aspect: 1.7 GiB for one of 3000 × 1 pixels at 224.
    """
    height, width = images.shape[-2:]
    shorter, longer = min(height, width), max(height, width)
    cut = (
        (longer - THIN * shorter) // 2 // shorter * shorter
    )  # whole squares, so that the resized pixels keep their grid
    return images.narrow(-2 if height > width else -1, cut, longer - 2 * cut)


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1]; images: (n, channels, height, width) uint8."""
    count = images.shape[0] * images.shape[2] * images.shape[3]
    chunks = torch.split(images, 100)
    mean = torch.stack([chunk.double().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0) / count
    squares = torch.stack([chunk.double().square().sum(dim=(0, 2, 3)) for chunk in chunks]).sum(dim=0)
    std = (squares / count - mean.square()).clamp(min=1.0).sqrt()  # no division by 0 for a constant channel
    return (mean / 255).tolist(), (std / 255).tolist()
