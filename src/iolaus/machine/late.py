"""Numbers of a device that are read when they have arrived, while it works on."""

import torch
from torch import Tensor


class LateNumber:
    """A number of a device, on its way to memory from now on; so that `read` waits for the work given before, at most.

    value: a tensor of one number. here: whether there is nothing to wait for.
    """

    def __init__(self, value: Tensor) -> None:
        self.value, self.event = value, None
        if value.device.type == "cuda":
            self.value = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
            self.event = torch.cuda.current_stream(value.device).record_event()

    @property
    def here(self) -> bool:
        return self.event is None

    def read(self) -> float:
        if self.event is not None:
            self.event.synchronize()
        return float(self.value)
