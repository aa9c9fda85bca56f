"""A dataset that lives on the device as uint8, and whose batches are gathered and augmented there."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from iolaus.data.epoch import Batch, EpochPlan, EpochSettings, Normalise
from iolaus.images import is_channels_last
from iolaus.machine.ranks import ALONE, Alone


class Resident:
    """Images on the device, in batches (`epoch.Batches`).

    images: (n, channels, kept_size, kept_size) uint8 on the device; batches have their memory order.
    targets: (n,) int64. indices: those of them that belong to this split, None for all.
    """

    def __init__(self, images: Tensor, targets: Tensor, settings: EpochSettings, indices: Tensor | None = None) -> None:
        self.device = images.device
        self.images, self.settings = images, settings
        self.indices = None if indices is None else indices.to(self.device)
        self.targets = (targets if indices is None else targets[indices]).to(self.device)
        self.normalise = Normalise(*settings.statistics, settings.shape.size, self.device)
        # index_select copies an image at once where it lies in one piece, so it gets the dimensions in memory's order
        self.memory = images.permute(0, 2, 3, 1) if is_channels_last(images) else images
        # A GPU trains an epoch while the next one is drawn; on a CPU both would want the same cores.
        self.ahead = self.device.type == "cuda"
        self.thread = ThreadPoolExecutor(1, "draw")
        self.next: tuple[int, EpochSettings, Alone, Future[EpochPlan]] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, chosen: Tensor) -> Tensor:
        """A copy of the images with these numbers in the split. chosen: (batch,) int64 on the device."""
        chosen = chosen if self.indices is None else self.indices.index_select(0, chosen)
        taken = self.memory.index_select(0, chosen)
        return taken.permute(0, 3, 1, 2) if self.memory is not self.images else taken

    def plan(self, epoch: int, train: bool, group: Alone) -> EpochPlan:
        """The plan of an epoch, on the device; a training epoch's may have been drawn during the one before."""

        def draw(epoch: int) -> EpochPlan:
            return EpochPlan(settings, len(self), epoch, train, group).place(self.device)

        settings = self.settings
        if not (train and self.ahead):
            return draw(epoch)
        following = self.next
        if following and following[0] == epoch and following[1] is settings and following[2] is group:
            plan = following[3].result()
        else:
            plan = draw(epoch)
        self.next = epoch + 1, settings, group, self.thread.submit(draw, epoch + 1)
        return plan

    def batches(
        self, batch_size: int, epoch: int, train: bool, start: int = 0, group: Alone = ALONE
    ) -> Iterator[Batch]:
        plan = self.plan(epoch, train, group)
        order, augmentation = plan.placed, plan.augmentation
        for number, part in enumerate(plan.parts(batch_size, start), start):
            images, drawn = self.take(order[part]), plan.rows(part)
            if augmentation is not None and augmentation.reads:
                seeds = plan.seeds(part) if augmentation.transform is not None else []
                boxes = augmentation.boxes(drawn, *images.shape[-2:]) if augmentation.scale is not None else None
                images = augmentation.read(images, boxes, plan.shape.size, seeds)
            images = self.normalise(plan.augment(images, drawn))
            yield plan.erase_and_mix(images, self.targets.index_select(0, order[part]), drawn, number)

    def close(self) -> None:
        """End the thread; the images are freed with the object."""
        self.next = None
        self.thread.shutdown()
