"""What accuracy does not say: figures that treat all classes alike, from counts that are summed on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from iolaus.augment.mix import Targets
from iolaus.machine.ranks import ALONE, Alone

TOP = 5
# Figures beside loss and accuracy; TOP_ACCURACY only of more than TOP classes, since of fewer it is always 1.
TOP_ACCURACY, BALANCED_ACCURACY, F1 = "top5_accuracy", "balanced_accuracy", "f1"


class ClassCounts:
    """For each class: its images, the images taken for it, its hits, and its hits among the TOP most likely classes.

    The sums stay on the device, so that a batch costs no wait for it.
    """

    def __init__(self) -> None:
        self.table: Tensor | None = None  # (4, classes) int64

    def add(self, logits: Tensor, targets: Targets) -> None:
        """Count a batch. logits: (batch, classes); targets: (batch,) int64."""
        assert isinstance(targets, Tensor)  # nothing is mixed in evaluation
        classes = logits.shape[1]
        if self.table is None:
            self.table = torch.zeros(4, classes, dtype=torch.int64, device=logits.device)
        top = logits.topk(min(TOP, classes), dim=1).indices
        preds, own = logits.argmax(dim=1), targets[:, None]
        images, taken, hits, top_hits = self.table
        images.index_add_(0, targets, torch.ones_like(targets))
        taken.index_add_(0, preds, torch.ones_like(preds))
        hits.index_add_(0, targets, (preds == targets).long())
        top_hits.index_add_(0, targets, (top == own).any(dim=1).long())

    def metrics(self, group: Alone = ALONE) -> dict[str, float]:
        """The figures of all batches so far, fractions. group: the ranks that took turns at them."""
        own = None if self.table is None else self.table.cpu()  # the only wait for the device
        tables = [table for table in group.gather(own) if table is not None]  # a rank may have had no turn
        images, taken, hits, top_hits = sum(tables[1:], tables[0]).tolist()
        figures = {BALANCED_ACCURACY: balanced_accuracy(images, hits), F1: macro_f1(images, taken, hits)}
        if len(images) > TOP:
            figures[TOP_ACCURACY] = sum(top_hits) / sum(images)
        return figures


def balanced_accuracy(images: Sequence[int], hits: Sequence[int]) -> float:
    """The mean recall of the classes that have images (scikit-learn's balanced_accuracy_score)."""
    recalls = [hit / count for hit, count in zip(hits, images, strict=True) if count]
    return sum(recalls) / len(recalls)


def macro_f1(images: Sequence[int], taken: Sequence[int], hits: Sequence[int]) -> float:
    """The mean F1 of the classes that have images or were predicted (scikit-learn's f1_score, average="macro")."""
    sums = [(hit, count + guesses) for hit, count, guesses in zip(hits, images, taken, strict=True) if count + guesses]
    return sum(2 * hit / total for hit, total in sums) / len(sums)


def precision_and_recall(images: int, taken: int, hits: int) -> tuple[float | None, float | None]:
    """(precision, recall) of a class; None where it was never predicted, or has no image."""
    return hits / taken if taken else None, hits / images if images else None


def confusion_matrix(targets: Tensor, preds: Tensor, num_classes: int) -> Tensor:
    """(true class, predicted class) counts, (classes, classes) int64. targets, preds: (n,) int64 on the CPU."""
    cells = torch.bincount(targets * num_classes + preds, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def calibration_error(confidences: Tensor, correct: Tensor, bins: int = 15) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3), in `bins` of equal width.

    confidences: (n,) the probability of the predicted class; correct: (n,) bool.
    """
    places = (confidences.double() * bins).ceil().long().clamp(1, bins) - 1  # the upper bound belongs to a bin
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, places, correct.double() - confidences.double())
    return float(gaps.abs().sum() / len(confidences))
