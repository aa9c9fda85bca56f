"""A trained model with all that it needs to judge a picture: `iolaus.load(RUN)`."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from torch import Tensor, nn

from iolaus.data.epoch import EpochSettings
from iolaus.data.image_input import ImageInput
from iolaus.data.reading import SKIP_HINT
from iolaus.data.shape import ImageShape
from iolaus.data.split import BrokenImage, LazyImages, Split
from iolaus.data.streaming import Streaming
from iolaus.machine import hardware
from iolaus.methods.tta import TTA, average_logits
from iolaus.settings import DatasetSettings
from iolaus.use.pictures import Pictures

if TYPE_CHECKING:
    from PIL.Image import Image

AnyPicture = Union[str, Path, "Image", np.ndarray, Tensor]

# The kernels of a CPU add in another order for a handful of images: with so many at least, the rest blank, an image's
# logits are the same bits whatever is judged beside it.
LEAST_IMAGES = 16


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture. probabilities: of each class by name, the most likely first."""

    label: str
    probability: float
    probabilities: dict[str, float] = field(repr=False)


@dataclass(frozen=True, repr=False)
class Classifier:
    """A run's model in evaluation mode, and what a picture needs before it.

    shape: the run's initial step. device, precision: where and how it computes. tta: the views whose logits are
    averaged (trainer.tta of the run). file: the checkpoint.
    """

    model: nn.Module
    classes: list[str]
    input: ImageInput
    shape: ImageShape
    device: torch.device
    precision: str
    tta: TTA
    memory_format: torch.memory_format
    file: Path

    def __repr__(self) -> str:
        kind = f"{len(self.classes)} classes, {self.input.channels}x{self.input.size}x{self.input.size}"
        return f"Classifier({self.file}: {type(self.model).__name__}, {kind}, {self.precision} on {self.device})"

    def transform(self, image: AnyPicture) -> Tensor:
        """One picture as the model takes it: (channels, size, size) float32 on the CPU.

        image: a path, a PIL image, (height, width) or (height, width, channels) uint8, or a uint8 tensor (channels,
        height, width). Raises ValueError for a file that can't be read.
        """
        pictures = LazyImages(Pictures([image]), [0], self.input.pixels)
        return self.input.normalise()(self.shape.centre(self.shape.read(pictures, 0)))[0]

    def predict(self, images: AnyPicture | Sequence[AnyPicture]) -> list[Prediction]:
        """The prediction for each picture (see `transform`), read and judged in batches.

        Raises ValueError for a file that can't be read.
        """
        many = images if isinstance(images, Sequence) and not isinstance(images, str) else [images]
        settings = DatasetSettings(num_workers=0)
        pictures, found = Pictures(many), []
        if folders := [name for name in many if isinstance(name, str | Path) and Path(name).is_dir()]:
            raise ValueError(
                f"{folders[0]}: is a folder; give the pictures in it, such as sorted(Path(…).glob('*.jpg'))"
            )
        try:
            for _, logits in self.judge(LazyImages(pictures, range(len(pictures)), self.input.pixels), settings):
                found += [self._describe(row) for row in logits.softmax(dim=1)]
        except BrokenImage as error:  # no key of a configuration helps here
            raise BrokenImage(str(error).removesuffix(f"; {SKIP_HINT}")) from None
        return found

    def _describe(self, probs: Tensor) -> Prediction:
        order = probs.sort(descending=True, stable=True)
        named = {self.classes[k]: p for p, k in zip(order.values.tolist(), order.indices.tolist(), strict=True)}
        label = next(iter(named))
        return Prediction(label, named[label], named)

    def judge(
        self,
        images: Tensor | LazyImages,
        settings: DatasetSettings,
        batch_size: int = 64,
        skipped: set[str] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The logits of images in order, a batch at a time: ((batch,) int64 places, (batch, classes) float32).

        They are read as a run reads its test images, by `settings`; with settings.on_bad_image=skip the places of
        unreadable ones are missing, and `skipped` gets a line for each. The logits are on the device.
        """
        if not len(images):
            return
        split = Split(images, torch.arange(len(images)))  # in place of targets: which image it is
        steps = EpochSettings(self.shape, self.input.statistics)
        stream = Streaming(split, steps, settings, self.device, self.memory_format)
        try:
            for batch, places in stream.batches(batch_size, epoch=0, train=False):
                assert isinstance(places, Tensor)
                yield places, self.forward(batch)
        finally:
            if skipped is not None:
                skipped |= stream.reader.skipped
            stream.close()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images on the device, as the run evaluates: (batch, classes) float32."""
        count = len(images)
        if count < LEAST_IMAGES:
            blank = images.new_zeros(LEAST_IMAGES - count, *images.shape[1:])
            images = torch.cat([images, blank]).contiguous(memory_format=self.memory_format)
        dtype = hardware.DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext():
            logits = average_logits(self.model, images, self.tta) if self.tta != "none" else self.model(images)
        return logits[:count].float()
