"""Settings of our own: dataclasses whose fields are config keys, with their defaults, types and ranges.

Each is checked as every `_target_` node is, against its signature; ranges when it is made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
COSTS = ("seconds", "parameters")  # further objectives of a search: of training, of the model


def _require(ok: bool, name: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{name}={value}: must be {allowed}")


def objectives_of(objective: str | Sequence[str]) -> list[str]:
    """The key `objective` as a list: one metric, or those of a search of several."""
    return [objective] if isinstance(objective, str) else list(objective)


@dataclass
class Launch:
    """The keys at the top of the configuration.

    objective: the metric that picks the best epoch and that a sweep compares; a list for a search of several, of
    which the first picks the best epoch.
    """

    seed: int = 0
    objective: str | list[str] = "val/accuracy"
    study: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(bool(self.objectives) and self.objectives[0] in METRICS, "objective", self.objective,
                 f"one of {', '.join(METRICS)}")  # fmt: skip
        _require(set(self.objectives[1:]) <= {*METRICS, *COSTS}, "objective", self.objective,
                 f"of {', '.join((*METRICS, *COSTS))}")  # fmt: skip

    @property
    def objectives(self) -> list[str]:
        """All of them; the first is that of the best epoch."""
        return objectives_of(self.objective)


@dataclass
class Trainer:
    """Settings of the training loop (the group `trainer`).

    epochs: passes over the training data. batch_size: images per step; batch_size_schedule: {epoch: size}, from
    that epoch on (the first is 0), or null. drop_last: leave out an epoch's last batch where it is not full.
    shuffle: another order each epoch. eval_batch_size: images per batch of validation and test. tta: how test is
    evaluated a second time (see iolaus.tta). device: auto, cpu, cuda, cuda:1, mps. precision: auto, fp32, bf16,
    fp16. channels_last: memory layout of images and weights; auto is for convolutions on a CPU, and on CUDA under
    bf16 or fp16. compile: by torch.compile, which takes up to a minute before the first step.
    keep_freed_memory: let the C library keep what tensors give back (Linux). deterministic: torch's deterministic
    algorithms, for bit-equal reruns on a GPU as well. micro_batch_size: images that go through the model at once,
    where a whole batch has no room; their gradients add up to the batch's (gradient accumulation). scale_lr_with_batch:
    how the learning rate follows batch_size_schedule. grad_clip_norm: largest total gradient norm, null for none.
    sam_rho: radius of sharpness-aware minimisation, null for none; sam_adaptive: ASAM. ema_decay: of the moving average
    of the weights, which is then what is evaluated and kept; null for none. log_every: steps between the logged batch
    losses and gradient norms. monitor_every: seconds between looks at memory, utilisation and power; 0 for none.
    """

    epochs: int = 30
    batch_size: int = 128
    batch_size_schedule: dict[int, int] | None = None
    drop_last: bool = True
    shuffle: bool = True
    eval_batch_size: int = 500
    tta: Literal["none", "flip", "flip_translate", "resize_center_crop"] = "none"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    compile: bool = False
    keep_freed_memory: bool = True
    deterministic: bool = False
    micro_batch_size: int | None = None
    scale_lr_with_batch: Literal["none", "linear", "sqrt"] = "none"
    grad_clip_norm: float | None = None
    sam_rho: float | None = None
    sam_adaptive: bool = False
    ema_decay: float | None = None
    log_every: int = 10
    monitor_every: float = 5.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size", "log_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for epoch, size in (self.batch_size_schedule or {}).items():
            _require(epoch >= 0 and size >= 1, "batch_size_schedule", {epoch: size}, "{epoch: size}, from epoch 0")
        for name in ("grad_clip_norm", "sam_rho", "micro_batch_size"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "above 0, or null for none")
        fraction = self.ema_decay is None or 0 < self.ema_decay < 1
        _require(fraction, "ema_decay", self.ema_decay, "between 0 and 1, or null for none")
        _require(self.sam_rho is not None or not self.sam_adaptive, "sam_adaptive", "true", "given with sam_rho")
        _require(self.monitor_every >= 0, "monitor_every", self.monitor_every, "0 or more seconds")
        known = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device)
        _require(known is not None, "device", self.device, "auto, cpu, cuda, cuda:N or mps")


@dataclass
class DatasetSettings:
    """Keys that every dataset has besides its reader's own arguments.

    validation: the part of train that is held out, a fraction, stratified; or `test`, to select on the test set
    as many papers do (the results say so). validation_seed: which part. image_size: pixels that images are
    brought to; null keeps the source's. crop_fraction: part of the kept image's side that the model sees, a random
    window in training and the centre in evaluation (0.875: of 256 pixels 224); null is all, or what a pretrained
    model was made for. interpolation: of the resizing. initial: a function of one's own, applied once to each image
    before all else. residency: resident (uint8 on the device), streaming (read while training), or auto by size.
    cache_dir: a folder for images as they are after the initial step; null for none. on_bad_image: whether a file
    that can't be read ends the run or is left out. num_workers: reading processes; null takes the cores, 4 at most.
    persistent_workers, prefetch_factor: whether they outlive an epoch, and batches that each reads ahead.
    pin_memory: null for under CUDA. mirror: whether a mirrored image keeps its class (a digit does not). mean, std:
    per channel, of pixels in [0, 1]; null computes them from the training images.
    """

    validation: float | str = 0.1
    validation_seed: int = 0
    image_size: int | None = None
    crop_fraction: float | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    initial: Any = None
    residency: Literal["auto", "resident", "streaming"] = "auto"
    cache_dir: str | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    num_workers: int | None = None
    persistent_workers: bool = True
    prefetch_factor: int = 2
    pin_memory: bool | None = None
    mirror: bool = True
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        fraction = isinstance(self.validation, int | float) and 0 < self.validation < 1
        _require(fraction or self.validation == "test", "validation", self.validation,
                 "a fraction between 0 and 1, or test")  # fmt: skip
        _require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        part = self.crop_fraction is None or 0 < self.crop_fraction <= 1
        _require(part, "crop_fraction", self.crop_fraction, "above 0, up to 1, or null")
        _require(self.num_workers is None or self.num_workers >= 0, "num_workers", self.num_workers, "0 or more")
        _require(self.prefetch_factor >= 1, "prefetch_factor", self.prefetch_factor, "1 or more")
        _require((self.mean is None) == (self.std is None), "mean", self.mean, "given together with std")
        for deviation in self.std or []:
            _require(deviation > 0, "std", self.std, "above 0")


@dataclass
class ModelSettings:
    """Keys that every model has besides its own arguments: what images it takes.

    in_channels: 3 turns grey images into RGB, 1 the other way, null takes the dataset's. image_size: pixels that
    images are brought to, null for the dataset's; min_image_size: smaller images are enlarged to this. weights: a
    file to start from: an Iolaus best.pt, a run's folder, or weights of timm or torch for the same model.
    """

    in_channels: Literal[1, 3] | None = None
    image_size: int | None = None
    min_image_size: int = 1
    weights: str | None = None

    def __post_init__(self) -> None:
        _require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        _require(self.min_image_size >= 1, "min_image_size", self.min_image_size, "1 or more")


@dataclass
class OptimizerGroups:
    """How the parameters are put into groups (iolaus.groups).

    no_decay_on_norm_and_bias: their weight decay is 0. lr_factors: of the learning rate, for the blocks of the model
    by depth, counted from the end: [0.25, 0.5, 1.0] is 1 for the last block, 0.5 for the one before and 0.25 for all
    earlier ones; 0 freezes. classifier_lr_factor: null for that of the last block.
    """

    no_decay_on_norm_and_bias: bool = False
    lr_factors: list[float] | None = None
    classifier_lr_factor: float | None = None

    def __post_init__(self) -> None:
        for name, factors in (("lr_factors", self.lr_factors), ("classifier_lr_factor", [self.classifier_lr_factor])):
            allowed = all(factor is None or factor >= 0 for factor in factors or [])
            _require(allowed and factors != [], name, getattr(self, name), "0 or more, or null")


@dataclass
class LossSettings:
    """one_hot: whether the loss takes float one-hot targets (mse), or class indices (cross_entropy)."""

    one_hot: bool = False


@dataclass
class SchedulerSettings:
    """interval: whether the scheduler moves after each step or each epoch. monitor: what a plateau watches.

    warmup_epochs: in these (or a part of one) the rate rises in a line to what the scheduler says.
    """

    interval: Literal["step", "epoch"] = "epoch"
    monitor: str = "val/loss"
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "0 or more")
        _require(self.monitor in METRICS, "monitor", self.monitor, f"one of {', '.join(METRICS)}")
