"""A model on a whole split: every image once, and all figures that its predictions give."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iolaus.config.build import build_losses
from iolaus.config.check import check
from iolaus.data.reading import FEW_PIXELS
from iolaus.data.split import LazyImages
from iolaus.data.streaming import Streaming
from iolaus.errors import ConfigError
from iolaus.methods.metrics import ClassCounts, calibration_error, confusion_matrix, precision_and_recall
from iolaus.settings import DatasetSettings
from iolaus.use.classifier import Classifier
from iolaus.use.find import SavedModel
from iolaus.use.load import open_saved_data
from iolaus.use.rows import Ranking, join_rankings, rank


@dataclass(frozen=True)
class Evaluation:
    """What a model says of a split, and how right it is.

    images: of the split. places: (n,) int64, those that could be read; targets: (n,) int64 by the model's classes;
    ranking: the predictions. figures: accuracy, loss and so on, by name; table: of each class, see `describe_classes`.
    data: in words.
    """

    classes: list[str]
    images: Tensor | LazyImages
    places: Tensor
    targets: Tensor
    ranking: Ranking
    figures: dict[str, float]
    table: list[dict[str, Any]]
    skipped: int
    data: str

    @property
    def preds(self) -> Tensor:
        return self.ranking.labels[:, 0]

    @property
    def confusion(self) -> Tensor:
        """(true, predicted) counts, (classes, classes) int64."""
        return confusion_matrix(self.targets, self.preds, len(self.classes))

    def name(self, place: int) -> str:
        """The file of an image of the split, or its number."""
        return self.images.name(place) if isinstance(self.images, LazyImages) else str(place)


def evaluate_split(
    saved: SavedModel,
    model: Classifier,
    config: Mapping[str, Any],
    split: str,
    batch_size: int = 64,
    workers: int | None = None,
) -> Evaluation:
    """Evaluate a model on the train, val or test images of a configuration. Raises ConfigError and BrokenImage."""
    checked = check(dict(config))
    data = open_saved_data(saved, config)
    stream = getattr(data, split)
    assert isinstance(stream, Streaming)  # as open_saved_data asks for
    images, targets = stream.images, align_targets(stream.targets, data.classes, model.classes)
    settings, skipped = choose_workers(checked.dataset, images, workers, model.input.kept_size), set[str]()
    every_class = torch.arange(len(model.classes))  # weights of classes are for training
    loss_fn = build_losses(checked, len(model.classes), model.device, every_class, ranks=1)[1]
    counts, loss_sum, rankings, seen = ClassCounts(), 0.0, [], []
    for places, logits in model.judge(images, settings, batch_size, skipped):
        own = targets[places.cpu()].to(model.device)
        counts.add(logits, own)
        loss_sum += float(loss_fn(logits, own)) * len(own)
        rankings.append(rank(logits))
        seen.append(places.cpu())
    places, ranking = torch.cat(seen), join_rankings(rankings)
    targets = targets[places]
    correct = ranking.labels[:, 0] == targets
    figures = {"accuracy": float(correct.double().mean()), "loss": loss_sum / len(places), **counts.metrics()}
    figures["ece"] = calibration_error(ranking.probs[:, 0], correct)
    table = describe_classes(model.classes, counts)
    description = data.description.replace(", streaming", "")  # of the run itself that need not be true
    return Evaluation(model.classes, images, places, targets, ranking, figures, table, len(skipped), description)


def align_targets(targets: Tensor, theirs: list[str], ours: list[str]) -> Tensor:
    """Class indices of some data as those of the model, by name. Raises ConfigError for a class it does not know."""
    if unknown := [name for name in theirs if name not in ours]:
        more = f" and {len(unknown) - 3} more" if unknown[3:] else ""
        known = ", ".join(ours[:10]) + (f", … ({len(ours)} in all)" if ours[10:] else "")
        raise ConfigError(f"dataset: the model does not know {', '.join(unknown[:3])}{more}; its classes are {known}")
    return torch.tensor([ours.index(name) for name in theirs])[targets]


def choose_workers(
    settings: DatasetSettings, images: Tensor | LazyImages, workers: int | None, side: int
) -> DatasetSettings:
    """The settings of a single pass: no processes for images in memory, nor for a few."""
    few = isinstance(images, Tensor) or (settings.num_workers is None and len(images) * side**2 < FEW_PIXELS)
    number = workers if workers is not None else 0 if few else settings.num_workers
    return replace(settings, num_workers=number, persistent_workers=False)


def describe_classes(classes: list[str], counts: ClassCounts) -> list[dict[str, Any]]:
    """For each class: name, images, times predicted; precision, recall and F1, None if undefined."""
    assert counts.table is not None
    rows = []
    for name, images, taken, hits in zip(classes, *counts.table[:3].tolist(), strict=True):
        precision, recall = precision_and_recall(images, taken, hits)
        f1 = 2 * hits / (images + taken) if images + taken else None
        row = {"class": name, "count": images, "predicted": taken, "precision": precision, "recall": recall, "f1": f1}
        rows.append(row)
    return rows
