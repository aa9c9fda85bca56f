"""What a picture needs before a model can take it, as plain numbers that are saved with the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from iolaus.data.epoch import Normalise
from iolaus.data.shape import ImageShape
from iolaus.images import PixelRules


@dataclass(frozen=True)
class ImageInput:
    """The `input` of checkpoints and results.json.

    channels, size, kept_size, interpolation, resizing: see ImageShape; runs that saved no resizing had the exact one.
    mean, std: per channel, of pixels in [0, 1]. pixels: how a picture in a file becomes bytes, as it was decided for
    the run's training images.
    """

    channels: int
    size: int
    kept_size: int
    interpolation: str
    mean: list[float]
    std: list[float]
    pixels: PixelRules = field(default_factory=PixelRules)
    resizing: str = "exact"

    @classmethod
    def from_plain(cls, saved: Mapping[str, Any]) -> "ImageInput":
        """From a saved dict, which may have more keys. Raises TypeError where one is missing."""
        known = {each.name: saved[each.name] for each in fields(cls) if each.name in saved}
        if "pixels" in known:
            rules = known["pixels"]
            ranges = {kind: (black, white) for kind, (black, white) in rules["ranges"].items()}
            known["pixels"] = PixelRules(**{**rules, "ranges": ranges})
        return cls(**known)

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """mean and std, (1, channels, 1, 1) each."""
        return torch.tensor(self.mean).view(1, -1, 1, 1), torch.tensor(self.std).view(1, -1, 1, 1)

    def shape(self, initial: Callable[[Tensor], Tensor] | None = None) -> ImageShape:
        """The initial step. initial: the user's function of the run's configuration."""
        return ImageShape(self.channels, self.size, self.kept_size, self.interpolation, initial, self.resizing)

    def normalise(self, device: torch.device | str = "cpu") -> Normalise:
        return Normalise(*self.statistics, self.size, torch.device(device))
