"""Predictions as rows: of predictions.csv, and of what `iolaus predict` prints."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iolaus.show.tables import safe_cell

MOST_SHOWN = 5  # classes of a row, the most likely first
DIGITS = 6  # of a probability


@dataclass(frozen=True)
class Ranking:
    """The most likely classes of some images, in order. labels: (n, k) int64; probs: (n, k) float32."""

    labels: Tensor
    probs: Tensor


def rank(logits: Tensor, most: int = MOST_SHOWN) -> Ranking:
    """The `most` likely classes and their probabilities, on the CPU. logits: (batch, classes) float32.

    Among equal logits the one that comes first in the classes is first, as for argmax.
    """
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, :most]
    return Ranking(order.cpu(), logits.softmax(dim=1).gather(1, order).cpu())


def join_rankings(rankings: Sequence[Ranking]) -> Ranking:
    """The rankings of several batches as one."""
    return Ranking(torch.cat([r.labels for r in rankings]), torch.cat([r.probs for r in rankings]))


def make_head(columns: Sequence[str], shown: int) -> list[str]:
    """The names of the columns: `file`, `true` and the like, then class and probability, the most likely first."""
    others = [f"{name}_{k}" for k in range(2, shown + 1) for name in ("class", "probability")]
    return [*columns, "predicted", "probability", *others]


def make_rows(ranking: Ranking, classes: Sequence[str]) -> Iterator[list[object]]:
    """For each picture: class, probability (with DIGITS), second class, its probability, and so on."""
    for labels, probs in zip(ranking.labels.tolist(), ranking.probs.tolist(), strict=True):
        yield [cell for k, p in zip(labels, probs, strict=True) for cell in (classes[k], shorten_probability(p))]


def shorten_probability(probability: float) -> float:
    """A probability with as many digits as mean something."""
    return float(f"{probability:.{DIGITS}g}")


def format_csv(row: Sequence[object]) -> str:
    """A line of CSV in which no text can be taken for a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([safe_cell(c) if isinstance(c, str) else c for c in row])
    return text.getvalue()


def format_json(name: str, row: Sequence[object]) -> str:
    """A picture's row as JSON: {"file": …, "predicted": …, "probability": …, "top": {class: probability}}."""
    top = dict(zip(row[::2], row[1::2], strict=True))
    return json.dumps({"file": name, "predicted": row[0], "probability": row[1], "top": top}, ensure_ascii=True)
