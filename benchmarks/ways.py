"""The usual ways to train on CIFAR-10, each in the few lines that people write: what Iolaus is compared with."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms
from torchvision.transforms import v2

MEAN, STD = (0.5, 0.5, 0.5), (0.289, 0.289, 0.289)  # of noise


def make_model(name: str) -> nn.Module:
    """mlp (3072-512-256-10), cnn (the launcher's default) or resnet18 (with the stem for small images)."""
    torch.manual_seed(0)
    if name == "resnet18":
        from iolaus.models.timm import build

        return build("resnet18", 10)
    from iolaus.models.cnn import CNN
    from iolaus.models.mlp import MLP

    return MLP(10, 3, 32, hidden=(512, 256)) if name == "mlp" else CNN(10, 3)


def noise(count: int) -> tuple[np.ndarray, list[int]]:
    """Images of CIFAR-10's shape as torchvision.datasets.CIFAR10 holds them, (count, 32, 32, 3) uint8, and targets."""
    images = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    return images, [i % 10 for i in range(count)]


class Arrays(Dataset[tuple[Any, int]]):
    """Items as torchvision.datasets.CIFAR10 makes them: a PIL image out of the array, then the transform."""

    def __init__(self, data: np.ndarray, targets: list[int], transform: Callable[[Any], Any]) -> None:
        self.data, self.targets, self.transform = data, targets, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.data[index])
        return self.transform(image), self.targets[index]


def pil_loader(count: int, batch_size: int, *, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    """The tutorials' way: PIL and torchvision's first transforms, image by image."""
    transform = transforms.Compose([
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    return DataLoader(Arrays(*noise(count), transform), batch_size, shuffle=True, drop_last=True,
                      num_workers=num_workers, pin_memory=pin_memory)  # fmt: skip


def v2_loader(count: int, batch_size: int, *, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    """torchvision's second transforms, on uint8 tensors, image by image."""
    transform = v2.Compose([
        v2.ToImage(),
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ])  # fmt: skip
    return DataLoader(Arrays(*noise(count), transform), batch_size, shuffle=True, drop_last=True,
                      num_workers=num_workers, pin_memory=pin_memory)  # fmt: skip


def tensor_loader(count: int, batch_size: int, *, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    """All images in memory as float32, normalised once."""
    data, targets = noise(count)
    images = torch.from_numpy(data).permute(0, 3, 1, 2).contiguous().float().div_(255)
    images.sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))
    return DataLoader(TensorDataset(images, torch.tensor(targets)), batch_size, shuffle=True, drop_last=True,
                      num_workers=num_workers, pin_memory=pin_memory)  # fmt: skip


LOADERS = {
    "PIL, transforms v1, 2 workers": partial(pil_loader, num_workers=2),
    "PIL, transforms v1, 0 workers": partial(pil_loader, num_workers=0),
    "transforms v2, 2 workers": partial(v2_loader, num_workers=2),
    "tensors, one crop a batch": partial(tensor_loader, num_workers=0),
    "tensors, no augmentation": partial(tensor_loader, num_workers=0),
}
PER_IMAGE = tuple(name for name in LOADERS if "transforms" in name)  # those that augment each image by itself

# The usual mistake: it draws one crop and one flip for the whole batch.
AUGMENT_BATCH = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])


def make_loader(name: str, count: int, batch_size: int, device: torch.device) -> DataLoader[Any]:
    """The loader of the way `name`, over `count` images."""
    return LOADERS[name](count, batch_size, pin_memory=device.type == "cuda")


def load(name: str, loader: DataLoader[Any], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch of batches on the device."""
    for images, targets in loader:
        images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        yield AUGMENT_BATCH(images) if name == "tensors, one crop a batch" else images, targets


def trainer(
    name: str, model: nn.Module, loader: DataLoader[Any], device: torch.device, bf16: bool
) -> Callable[[], Iterator[int]]:
    """The loop that everybody writes, as a function that gives an epoch of it: the images of each step."""
    model = model.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def epoch() -> Iterator[int]:
        model.train()
        running_loss, correct = 0.0, 0
        for images, targets in load(name, loader, device):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
                outputs = model(images)
                loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            correct += (outputs.argmax(1) == targets).sum().item()
            yield len(targets)

    return epoch
