"""Between two logged steps nobody waits for a number from the device.

On a GPU torch itself watches (`set_sync_debug_mode`). On a CPU, where nothing is waited for, the calls are counted by
which a GPU would be: a number that is read, an index from a mask.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from test_loop import CPU, make_data, make_learner, needs_cuda
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from iolaus import loop
from iolaus.augment.pipeline import Augmentation
from iolaus.data.resident import Resident
from iolaus.machine.late import LateNumber
from iolaus.methods.ema import ModelEma
from iolaus.methods.muon import Muon
from iolaus.methods.schedules import Schedule, stand_in

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, 0.01, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda params: torch.optim.AdamW(params, 1e-3, fused=True),
    "muon": lambda params: Muon(params, 1e-3),
}
MIXED = Augmentation(mixup_alpha=0.2, cutmix_alpha=1.0, erasing=0.25)
CASES = {
    "sgd": ("sgd", {}),
    "adamw": ("adamw", {}),
    "muon": ("muon", {}),
    "clipping": ("sgd", {"grad_clip_norm": 0.1}),
    "sam": ("sgd", {"sam_rho": 0.05}),
    "sam and adamw": ("adamw", {"sam_rho": 0.05}),
    "asam and muon": ("muon", {"sam_rho": 0.5, "sam_adaptive": True}),
    "ema": ("sgd", {"ema_decay": 0.99}),
    "mixing and erasing": ("sgd", {"augmentation": MIXED}),
    "parts of a batch": ("sgd", {"micro_batch_size": 5}),
}
READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2")


class Reads(TorchDispatchMode):
    """Counts the calls that wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        if name in READS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def small_cnn() -> nn.Sequential:
    torch.manual_seed(0)
    block = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    return nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, 2))


def learner_of(kind: str, precision: str, device: torch.device, **settings) -> tuple[loop.Learner, Resident]:
    """A learner of a case, and data for 30 steps of 16 images."""
    ema_decay, augmentation = settings.pop("ema_decay", None), settings.pop("augmentation", Augmentation())
    learner = make_learner(precision, device, model=small_cnn(), **settings)
    learner.optimizer = OPTIMIZERS[kind](learner.model.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(stand_in(learner.optimizer), 0.99)
    learner.schedule = Schedule(scheduler, learner.optimizer, "step")
    learner.ema = ModelEma(learner.model, ema_decay) if ema_decay else None
    return learner, make_data(16 * 30, device, augmentation).train


def take_steps(learner: loop.Learner, data: Resident) -> Iterator[None]:
    """Steps of an epoch, one at each `next`, as train_epoch takes them where nothing is logged."""
    state = loop.LoopState()
    for images, targets in data.batches(16, 0, train=True):
        loss, correct, norm = loop.train_step(learner, images, targets, state.step, want_norm=False)
        state.stats.add(learner.mean_over_images(loss, 16), correct, 16, norm)
        state.step += 1
        if learner.ema:
            learner.ema.update(state.step)
        yield
    assert state.step == 30


class OnItsWay(LateNumber):
    """As of a GPU: read when the next step needs it; the wait for it is no wait for the work since."""

    @property
    def here(self) -> bool:
        return False

    def read(self) -> float:
        with torch._C._DisableTorchDispatch():
            return super().read()


@pytest.mark.parametrize(("kind", "settings"), CASES.values(), ids=CASES.keys())
def test_a_step_reads_no_number(kind, settings, monkeypatch):
    monkeypatch.setattr("iolaus.methods.skipping.LateNumber", OnItsWay)
    steps = take_steps(*learner_of(kind, "bf16", CPU, **settings))
    next(steps)  # the first makes the optimizer's state
    with Reads() as reads:
        for _ in range(5):
            next(steps)
    assert reads.found == {}


@needs_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("kind", "settings"), CASES.values(), ids=CASES.keys())
def test_twenty_steps_on_a_gpu_wait_for_nothing(kind, settings, precision):
    steps = take_steps(*learner_of(kind, precision, torch.device("cuda"), **settings))
    for _ in range(5):  # libraries begin, pinned memory is made, the optimizer's state
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


VIEWS = {"view", "slice", "permute", "as_strided", "_unsafe_view", "detach", "unbind", "unsqueeze", "expand", "alias"}


class Launches(TorchDispatchMode):
    """Counts the calls that are a kernel on a GPU, or a few: all but views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        self.names += [] if name in VIEWS else [name]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_cropped_flipped_and_normalised_batch_takes_few_launches(memory_format):
    """Two gathers of images and targets, eight for crop and flip, three to normalise; 23 before places were kept."""
    data = make_data(160, mixed=Augmentation()).train
    data.memory = data.images = data.images.contiguous(memory_format=memory_format)
    if memory_format == torch.channels_last:
        data.memory = data.images.permute(0, 2, 3, 1)
    batches = data.batches(16, 0, train=True)
    next(batches)
    with Launches() as launches:
        next(batches)
    assert len(launches.names) <= 13, launches.names


def test_the_count_of_reads_sees_them():
    with Reads() as reads:
        value = torch.ones(3)
        value.sum().item()
        assert value.any()
        value[value > 0].tolist()
    assert reads.found["_local_scalar_dense"] >= 2
