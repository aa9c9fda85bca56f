"""All augmentations of training images: the group `augmentation`.

All random numbers for an image in an epoch are drawn beforehand, on the CPU, from `(seed, epoch)`: they depend neither
on the batch size, nor on the device, nor on the number of reading processes. λ of mixup and cutmix is one number for a
batch, drawn from `(seed, epoch, batch)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from iolaus.augment import color, erasing, policies, resized_crop
from iolaus.augment.crop import PaddingMode, alternate_flips, crop_and_flip
from iolaus.augment.mix import Mix
from iolaus.images import as_uint8
from iolaus.seeds import FLIP, seed_of, seed_sample

Draws = dict[str, Tensor]  # one row for each image, on the CPU
ERASING_SCALE, ERASING_RATIO = (0.02, 0.33), (0.3, 3.3)  # the paper's ranges of area and aspect of the rectangle


@dataclass(frozen=True)
class Augmentation:
    """Settings of every augmentation; 0, null or none switches one off.

    crop_padding: pixels added on each side before a random crop; null is an eighth of the image (4 at 32 × 32), or none
    if images are kept larger than the model takes them (dataset.crop_fraction) or `scale` is given. padding_mode: what
    they are, zeros or a reflection of the image (`crop.pad`).
    flip: probability of a mirror image; 0 if that changes the class (dataset.mirror). flip_mode: random, in each epoch
    anew; or alternate, in epoch 0 only and from there every other epoch (`crop.alternate_flips`).
    scale, ratio: smallest and largest area (fraction of the image) and aspect of a random resized crop.
    policy: trivial_augment (Müller & Hutter 2021) or rand_augment (Cubuk et al. 2019) with `num_ops` ops of
    `magnitude` (0 to 30). brightness, contrast, saturation, hue: strengths of a color jitter, as torchvision's.
    erasing: probability of a rectangle in the dataset's mean color (Zhong et al. 2017).
    mixup_alpha, cutmix_alpha, mix_probability: see `iolaus.augment.mix.Mix`.
    transform: the user's function, applied image by image: (channels, height, width) uint8 to uint8, or to floats in
    [0, 1], of the same shape. Any per-sample transform of torchvision's v2 will do.
    Raises ValueError for a value out of its range.
    """

    crop_padding: int | None = None
    padding_mode: PaddingMode = "zeros"
    flip: float = 0.5
    flip_mode: Literal["random", "alternate"] = "random"
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (0.75, 4 / 3)
    policy: Literal["none", "trivial_augment", "rand_augment"] = "none"
    num_ops: int = 2
    magnitude: int = 9
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erasing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    transform: Any = None
    mirror: bool = True

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, allowed: str) -> None:
            if not ok:
                raise ValueError(f"{name}={getattr(self, name)}: must be {allowed}")

        require((self.crop_padding or 0) >= 0, "crop_padding", "0 or more, or null")
        for name in ("flip", "erasing", "mix_probability"):
            require(0 <= getattr(self, name) <= 1, name, "a probability, 0 to 1")
        for name in ("brightness", "contrast", "saturation", "mixup_alpha", "cutmix_alpha"):
            require(getattr(self, name) >= 0, name, "0 or more")
        require(0 <= self.hue <= 0.5, "hue", "0 to 0.5")
        require(self.num_ops >= 1, "num_ops", "1 or more")
        require(0 <= self.magnitude <= 30, "magnitude", "0 to 30")
        area = self.scale is None or (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1)
        require(area, "scale", "[smallest, largest] area, fractions of the image above 0, or null")
        require(len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1], "ratio", "[smallest, largest], above 0")

    @property
    def mix(self) -> Mix:
        return Mix(self.mixup_alpha, self.cutmix_alpha, self.mix_probability)

    @property
    def reads(self) -> bool:
        """Whether the processes that read images have a part of it to do (see `read`)."""
        return self.scale is not None or self.transform is not None

    @property
    def jitters(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0

    def padding(self, kept_size: int, size: int) -> int:
        """The padding before the crop, in pixels."""
        if self.crop_padding is not None:
            return self.crop_padding
        return max(1, size // 8) if kept_size == size and self.scale is None else 0

    def check_size(self, kept_size: int, size: int) -> None:
        """Raise ValueError if images kept at `kept_size` pixels, of which the model takes `size`, are too small."""
        padding, pixels = self.padding(kept_size, size), kept_size if self.scale is None else size
        if self.padding_mode == "reflect" and padding >= pixels:
            raise ValueError(f"crop_padding={padding}: must be below {pixels} pixels, the image that is reflected")

    def draw(self, count: int, kept_size: int, size: int, generator: torch.Generator) -> Draws:
        """Draw for `count` images that are kept at `kept_size` pixels; the model takes `size` of these."""
        drawn: Draws = {}
        if self.scale is not None:
            drawn["box"] = resized_crop.draw_boxes(count, self.scale, self.ratio, generator)
            kept_size = size
        flip = self.flip if self.mirror else 0.0
        corners = kept_size + 2 * self.padding(kept_size, size) - size + 1
        if corners > 1 or flip:
            top_left = torch.randint(corners, (count, 2), generator=generator)
            flips = torch.rand(count, 1, generator=generator) < flip
            drawn["crop"] = torch.cat([top_left, flips.long()], dim=1)
        if self.policy == "trivial_augment":
            drawn |= _add_prefix("policy", policies.draw_trivial_augment(count, generator))
        elif self.policy == "rand_augment":
            ops = policies.draw_rand_augment(count, (size, size), generator, self.num_ops, self.magnitude)
            drawn |= _add_prefix("policy", ops)
        if self.jitters:
            strengths = (self.brightness, self.contrast, self.saturation, self.hue)
            drawn |= _add_prefix("jitter", color.draw_color_jitter(count, *strengths, generator))
        if self.erasing:
            drawn["erasing"] = erasing.draw_erasing(count, size, self.erasing, ERASING_SCALE, ERASING_RATIO, generator)
        return drawn

    def alternate(self, drawn: Draws, order: Tensor, seed: int, epoch: int) -> None:
        """Put the flips of `flip_mode=alternate`, functions of (seed, image, epoch), in place of those drawn.

        order: (count,) int64, the image of each row of `drawn`.
        """
        if self.flip_mode == "alternate" and self.flip and self.mirror:
            generator = torch.Generator().manual_seed(seed_of(seed, 0, FLIP))
            drawn["crop"][:, 2] = alternate_flips(len(order), self.flip, epoch, generator)[order]

    def boxes(self, drawn: Draws, height: int, width: int) -> Tensor:
        """The boxes of the resized crops (`scale`) in images of this size: see `resized_crop.boxes`."""
        return resized_crop.boxes(drawn["box"], height, width, self.ratio)

    def read(self, images: Tensor, boxes: Tensor | None, size: int, seeds: list[int]) -> Tensor:
        """The first part, which streaming leaves to the reading processes: resized crop, then the user's transform.

        images: (batch, channels, height, width) uint8; boxes: their crops in pixels; seeds: one for each image.
        Returns uint8.
        """
        if boxes is not None:
            images = resized_crop.resized_crop(images, boxes.to(images.device, non_blocking=True), size)
        return images if self.transform is None else per_sample(self.transform, images, seeds)

    def apply(self, images: Tensor, drawn: Draws, size: int) -> Tensor:
        """The second part, on uint8: crop and flip, policy, color jitter."""
        if "crop" in drawn:
            crop = drawn["crop"].to(images.device, non_blocking=True)
            images = crop_and_flip(images, crop, self.padding(images.shape[-1], size), size, self.padding_mode)
        if ops := _select("policy", drawn):
            images = policies.apply_ops(images, ops)
        factors = _select("jitter", drawn)
        return color.color_jitter(images, factors) if factors else images

    def erase(self, images: Tensor, drawn: Draws) -> Tensor:
        """The last part, in place, on normalised floats, where 0 is the mean color."""
        if "erasing" in drawn:
            erasing.erase(images, drawn["erasing"].to(images.device, non_blocking=True))
        return images


def _add_prefix(stage: str, drawn: Draws) -> Draws:
    return {f"{stage}/{name}": values for name, values in drawn.items()}


def _select(stage: str, drawn: Draws) -> Draws:
    """The draws of a stage with several tensors."""
    return {name.removeprefix(f"{stage}/"): values for name, values in drawn.items() if name.startswith(f"{stage}/")}


def per_sample(transform: Callable[[Tensor], object], images: Tensor, seeds: list[int]) -> Tensor:
    """Apply a transform to one image at a time, and seed the global random generators before each.

    torchvision's v2 draws once for all images that it gets, so it can't take a batch. Raises ValueError when the
    transform changes an image's shape.
    """
    made = []
    for image, seed in zip(images, seeds, strict=True):
        seed_sample(seed, images.device)
        result = transform(image)
        if not isinstance(result, Tensor) or result.shape != image.shape:
            got = "x".join(map(str, result.shape)) if isinstance(result, Tensor) else type(result).__name__
            given = "x".join(map(str, image.shape))
            raise ValueError(
                f"transform={name_of(transform)}: gives {got} for an image of {given}; must keep the shape"
            )
        made.append(as_uint8(result))
    return torch.stack(made)


def name_of(function: object) -> str:
    """The name under which the user knows a function or object."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", None) or type(function).__name__)
