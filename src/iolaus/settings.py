"""Settings of our own: dataclasses whose fields are config keys, with their defaults, types and ranges.

Names and types are checked as those of every `_target_` node, against the signature; ranges when one is made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

MONITORS = (
    "val/accuracy", "val/loss", "val/balanced_accuracy", "val/f1", "val/top5_accuracy", "train/accuracy", "train/loss",
)  # fmt: skip
COSTS = ("seconds", "parameters")  # further objectives of a search: seconds of training, size of the model


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise ValueError, `name=value: must be …`, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}={value}: must be {allowed}")


def require_folder(name: str, value: str) -> None:
    """Raise ValueError for an empty name of a folder, which is not the current one."""
    require(bool(value.strip()), name, value, "a folder; . is the current one")


def require_fraction(name: str, value: float) -> None:
    """Raise ValueError for a share that leaves nothing, on either side."""
    require(0 < value < 1, name, value, "between 0 and 1")


def objectives_of(objective: str | Sequence[str]) -> list[str]:
    """The key `objective` as a list: one metric, or those of a search of several."""
    return [objective] if isinstance(objective, str) else list(objective)


@dataclass
class Launch:
    """The keys at the top of the configuration.

    objective: the metric that picks the best epoch and that a sweep compares. A list is for a search with several
    objectives; the first of them picks the best epoch.
    """

    seed: int = 0
    objective: str | list[str] = "val/accuracy"
    study: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(self.study != "", "study", self.study, "the name of a folder in outputs/, or null")
        require(self.resume != "", "resume", self.resume, "the folder of a run, or last")
        first, others = self.objectives[:1], set(self.objectives[1:])
        require(first != [] and first[0] in MONITORS, "objective", self.objective, f"one of {', '.join(MONITORS)}")
        allowed = (*MONITORS, *COSTS)
        require(others <= set(allowed), "objective", self.objective, f"of {', '.join(allowed)}")

    @property
    def objectives(self) -> list[str]:
        """All objectives; the first is that of the best epoch."""
        return objectives_of(self.objective)


@dataclass
class Trainer:
    """Settings of the training loop (the group `trainer`).

    epochs: passes over the training data. max_minutes: of the command, after which its run ends with a checkpoint;
    null for no limit. batch_size: images per step. batch_size_schedule: {epoch: size}, the size from that epoch on
    (the first is 0). drop_last: leave out an epoch's last batch if it is not full. shuffle: another order each epoch.
    eval_batch_size: images per batch of validation and test. tta: the views of a second evaluation of test
    (methods/tta.py). device: auto, cpu, cuda, cuda:1, mps. devices: how many share each batch. sync_batchnorm:
    whether BatchNorm sees all of it. precision: auto, fp32, bf16, fp16. channels_last: memory order of images and
    weights; auto is true for convolutions on a CPU, and on CUDA under bf16 or fp16. compile: torch.compile, which
    takes up to a minute before the first step; reduce-overhead and max-autotune are modes of it. cuda_graphs: launch
    a pass over a batch as one CUDA graph. keep_freed_memory: let the C library keep the memory that tensors give back
    (Linux). deterministic: bit-equal reruns on a GPU as well. micro_batch_size: images that go through the model at
    once (gradient accumulation). scale_lr_with_batch: how the learning rate follows batch_size_schedule.
    grad_clip_norm: largest total gradient norm, null for none. sam_rho: radius of sharpness-aware minimisation, null
    for none. sam_adaptive: ASAM. ema_decay: decay of the moving average of the weights, which is then evaluated and
    kept; null for none. log_every: steps between logged batch losses and gradient norms. checkpoint_every: seconds
    between checkpoints within an epoch, null for one at its end alone. monitor_every: seconds between samples of
    memory, utilisation and power; 0 for none.
    """

    epochs: int = 30
    max_minutes: float | None = None
    batch_size: int = 128
    batch_size_schedule: dict[int, int] | None = None
    drop_last: bool = True
    shuffle: bool = True
    eval_batch_size: int = 500
    tta: Literal["none", "flip", "flip_translate", "resize_center_crop"] = "none"
    device: str = "auto"
    devices: Literal["auto"] | int = 1
    sync_batchnorm: bool = True
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    compile: Literal["reduce-overhead", "max-autotune"] | bool = False
    cuda_graphs: Literal["auto"] | bool = "auto"
    keep_freed_memory: bool = True
    deterministic: bool = False
    micro_batch_size: int | None = None
    scale_lr_with_batch: Literal["none", "linear", "sqrt"] = "none"
    grad_clip_norm: float | None = None
    sam_rho: float | None = None
    sam_adaptive: bool = False
    ema_decay: float | None = None
    log_every: int = 10
    checkpoint_every: float | None = 600.0
    monitor_every: float = 5.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size", "log_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.epochs <= 10**6, "epochs", self.epochs, "1,000,000 or less")  # schedules add up steps by epoch
        for epoch, size in (self.batch_size_schedule or {}).items():
            require(epoch >= 0 and size >= 1, "batch_size_schedule", {epoch: size}, "{epoch: size}, from epoch 0")
        for name in ("grad_clip_norm", "sam_rho", "micro_batch_size", "max_minutes", "checkpoint_every"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "above 0, or null for none")
        fraction = self.ema_decay is None or 0 < self.ema_decay < 1
        require(fraction, "ema_decay", self.ema_decay, "between 0 and 1, or null for none")
        require(self.sam_rho is not None or not self.sam_adaptive, "sam_adaptive", "true", "given with sam_rho")
        both = self.cuda_graphs is True and self.compile
        require(not both, "cuda_graphs", "true", "left out with compile; reduce-overhead makes graphs of its own")
        require(self.monitor_every >= 0, "monitor_every", self.monitor_every, "0 or more seconds")
        known = bool(re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device))
        require(known, "device", self.device, "auto, cpu, cuda, cuda:N or mps")
        require(self.devices == "auto" or self.devices >= 1, "devices", self.devices, "1 or more, or auto")


@dataclass
class DatasetSettings:
    """Keys that every dataset has besides its reader's own arguments.

    validation: the fraction of train that is held out, stratified; or `test`, to select on the test set; a dataset's
    own validation set comes before the fraction. validation_seed: which part. folds, fold: of so many stratified parts
    of train the one that is held out instead, counted from 0. sampler: balanced draws every class as often as any other
    in training. image_size: pixels that images are resized to; null keeps the source's. crop_fraction: the part of the
    kept image's side that the model sees, a random window in training and the centre in evaluation; null is all, or the
    pretrained model's. interpolation: of the resizing. resizing: fast, in whole numbers, for which large JPEG files are
    decoded at a reduced scale, or exact, in floats from all pixels. initial: a function of the user's, once per image,
    before all else. residency: resident (uint8 on the device), streaming (read while training), or auto by size.
    cache_dir: a folder that keeps images after the initial step. exif: whether cameras' orientation is applied.
    value_range: [black, white] of pictures of more than 8 bits; null finds it. max_pixels: of the largest picture that
    is read; null is Pillow's limit. on_bad_image: whether a file that can't be read ends the run or is left out.
    verify: read all before training, and name those that can't be. num_workers: reading processes; null is one a core,
    4 at most. persistent_workers: whether they outlive an epoch. prefetch_factor: batches that each reads ahead.
    pin_memory: null is true under CUDA. mirror: whether a mirrored image keeps its class. mean, std: per channel, of
    pixels in [0, 1]; null computes them from the training images.
    """

    validation: float | str = 0.1
    validation_seed: int = 0
    folds: int | None = None
    fold: int | None = None
    sampler: Literal["balanced"] | None = None
    image_size: int | None = None
    crop_fraction: float | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resizing: Literal["fast", "exact"] = "fast"
    initial: Any = None
    residency: Literal["auto", "resident", "streaming"] = "auto"
    cache_dir: str | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    verify: bool = False
    exif: Literal["apply", "ignore"] = "apply"
    value_range: list[float] | None = None
    max_pixels: int | None = None
    num_workers: int | None = None
    persistent_workers: bool = True
    prefetch_factor: int = 2
    pin_memory: bool | None = None
    mirror: bool = True
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        fraction = isinstance(self.validation, int | float) and 0 < self.validation < 1
        allowed = fraction or self.validation == "test"
        require(allowed, "validation", self.validation, "a fraction between 0 and 1, or test")
        require(self.folds is None or self.folds >= 2, "folds", self.folds, "2 or more, or null for none")
        if self.folds is None:
            require(self.fold is None, "fold", self.fold, "given with dataset.folds")
        else:
            inside = self.fold is not None and 0 <= self.fold < self.folds
            several = f"from 0 to {self.folds - 1}; all of them: -m 'dataset.fold=range({self.folds})'"
            require(inside, "fold", "null" if self.fold is None else self.fold, several)
            default, instead = self.validation == DatasetSettings.validation, "left out with dataset.folds"
            require(default, "validation", self.validation, f"{instead}: the fold is the validation set")
        if self.cache_dir is not None:
            require_folder("cache_dir", self.cache_dir)
        require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        part = self.crop_fraction is None or 0 < self.crop_fraction <= 1
        require(part, "crop_fraction", self.crop_fraction, "above 0, up to 1, or null")
        require(self.num_workers is None or self.num_workers >= 0, "num_workers", self.num_workers, "0 or more")
        require(self.prefetch_factor >= 1, "prefetch_factor", self.prefetch_factor, "1 or more")
        black, white = (self.value_range or [0, 1]) if len(self.value_range or [0, 1]) == 2 else (1, 0)
        require(black < white, "value_range", self.value_range, "[black, white], in this order, or null")
        require(self.max_pixels is None or self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more, or null")
        require((self.mean is None) == (self.std is None), "mean", self.mean, "given together with std")
        require(min(self.std or [1.0]) > 0, "std", self.std, "above 0")


@dataclass
class ModelSettings:
    """Keys that every model has besides its own arguments: the images that it takes, and its starting weights.

    in_channels: 3 turns grey images into RGB, 1 the other way, null takes the dataset's. image_size: pixels that
    images are resized to, null takes the dataset's. min_image_size: smaller images are enlarged to this. weights: a
    file to start from: an Iolaus best.pt, a run's folder, or weights of timm or torch for the same model.
    """

    in_channels: Literal[1, 3] | None = None
    image_size: int | None = None
    min_image_size: int = 1
    weights: str | None = None

    def __post_init__(self) -> None:
        require(self.image_size is None or self.image_size >= 1, "image_size", self.image_size, "1 or more")
        require(self.min_image_size >= 1, "min_image_size", self.min_image_size, "1 or more")


@dataclass
class OptimizerGroups:
    """How the parameters are put into groups (methods/param_groups.py).

    no_decay_on_norm_and_bias: norms and biases have no weight decay. lr_factors: factors of the learning rate for the
    blocks of the model by depth, counted from the end: [0.25, 0.5, 1.0] is 1 for the last block, 0.5 for the one before
    and 0.25 for all earlier ones; 0 freezes. classifier_lr_factor: null takes the factor of the last block.
    classifier_weight_decay: null takes the optimizer's. first_block_epochs: the block nearest to the input learns for
    these epochs only, at a rate that falls in a line to 0; null is the whole run.
    """

    no_decay_on_norm_and_bias: bool = False
    lr_factors: list[float] | None = None
    classifier_lr_factor: float | None = None
    classifier_weight_decay: float | None = None
    first_block_epochs: float | None = None

    def __post_init__(self) -> None:
        for name, factors in (("lr_factors", self.lr_factors), ("classifier_lr_factor", [self.classifier_lr_factor])):
            allowed = all(factor is None or factor >= 0 for factor in factors or [])
            require(allowed and factors != [], name, getattr(self, name), "0 or more, or null")
        decay, epochs = self.classifier_weight_decay, self.first_block_epochs
        require(decay is None or decay >= 0, "classifier_weight_decay", decay, "0 or more, or null")
        require(epochs is None or epochs > 0, "first_block_epochs", epochs, "above 0, or null for the whole run")
