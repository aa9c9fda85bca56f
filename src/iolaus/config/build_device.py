"""The device of a run, and what holds for its whole process."""

import torch

from iolaus.errors import problems_of
from iolaus.machine import hardware
from iolaus.machine.compile import defer_compiler, load_compiler
from iolaus.machine.ranks import Alone
from iolaus.settings import Trainer


def prepare_device(settings: Trainer, group: Alone) -> tuple[torch.device, str]:
    """Pick device and precision, and set what holds for the whole process."""
    with problems_of("trainer"):
        device = group.device or hardware.pick_device(settings.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # for what asks for no device: pinned memory, libraries' workspaces
        precision = hardware.pick_precision(settings.precision, device)
    hardware.keep_freed_memory(settings.keep_freed_memory)
    hardware.set_deterministic(settings.deterministic)
    (load_compiler if settings.compile else defer_compiler)()
    return device, precision
