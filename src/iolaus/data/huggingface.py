"""Datasets of the Hugging Face hub, or local ones in its formats, by the library `datasets` (`dataset=huggingface`)."""

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.data.csv_file import LABEL_COLUMNS, PATH_COLUMNS, assemble, find_column, order_labels
from iolaus.data.folder_layout import TEST, TRAIN, VAL
from iolaus.data.hub_tables import choose_splits, open_tables
from iolaus.data.listing import known_formats
from iolaus.data.make_source import split_of
from iolaus.data.split import Source, Split
from iolaus.errors import nearest, printable
from iolaus.settings import require, require_fraction

if TYPE_CHECKING:
    from datasets import Dataset
    from datasets.features.features import FeatureType
    from PIL.Image import Image

IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values", *PATH_COLUMNS)
NO_LABEL = -1  # ClassLabel's in test sets that are kept secret


def from_huggingface(
    name: str,
    config: str | None = None,
    revision: str | None = None,
    download: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    test_split: str | None = None,
    test_fraction: float = 0.2,
) -> Source:
    """A dataset of the hub (`owner/name`), or a local folder or file: Parquet, Arrow, pictures, `save_to_disk`.

    config, revision: the library's. Without `download` only what the library's own cache holds is used. Images are an
    Image feature, bytes or paths; labels a ClassLabel, words or whole numbers. Columns with usual names or of these
    features are found. Splits are known by the usual names; train_split, val_split and test_split name others, several
    joined by a plus. Without test images val is the test set, and without both a stratified `test_fraction` of train.
    Images without a label are left out and told. Raises ValueError.
    """
    require_fraction("test_fraction", test_fraction)
    require(bool(name.strip()), "name", name.strip(), "a folder, a file, or OWNER/NAME of the hub")
    if importlib.util.find_spec("datasets") is None:
        raise ValueError("needs the library datasets: pip install 'iolaus[huggingface]'")
    path = Path(name).expanduser()
    tables = open_tables(name, path if path.exists() else None, config, revision, download)
    parts, notes = choose_splits(tables, {TRAIN: train_split, VAL: val_split, TEST: test_split})
    features = parts[TRAIN].features
    image_key = image_column_of(features, image_column)
    label_key = label_column_of(features, label_column, image_key)
    base = path if path.is_dir() else path.parent
    labels = {role: read_labels(part, label_key, role) for role, part in parts.items()}
    classes = name_classes(features[label_key], labels, label_key)
    number = {label: place for place, label in enumerate(classes)}
    splits: dict[str, Split] = {}
    for role, part in parts.items():
        known = [row for row, label in enumerate(labels[role]) if label is not None]
        if left := len(part) - len(known):
            notes.append(f"left out: {left:,} of {len(part):,} images of {role} without a label")
        if known:
            targets = [number[str(labels[role][row])] for row in known]
            images = part.select_columns([image_key])
            images = images if len(known) == len(part) else images.select(known)
            splits[role] = split_of(RecordImages(images, image_key, role, base, targets))
    source = assemble(splits, classes, test_fraction)
    counts = ", ".join(f"{role} {len(part):,}" for role, part in parts.items())
    source.layout, source.notes = f"{printable(name)} ({counts}): {printable(image_key)}, {printable(label_key)}", notes
    return source


class RecordImages:
    """The pictures of a table's column, items of (PIL image as the table has it, class). table: a `datasets.Dataset`.

    role: the split, for names such as `train[17]`. base: the folder that paths in the column are relative to.
    """

    def __init__(self, table: "Dataset", column: str, role: str, base: Path, targets: list[int]) -> None:
        from datasets import Image as ImageFeature

        decodes = isinstance(table.features[column], ImageFeature)
        self.table = table.cast_column(column, ImageFeature(decode=False)) if decodes else table
        self.column, self.base, self.targets = column, base, targets
        self.samples = RecordNames(role, len(table))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple["Image", int]:
        from PIL import Image

        with Image.open(io.BytesIO(self.file_bytes(index)), formats=known_formats()) as image:
            image.load()
        return image, self.targets[index]

    def file_bytes(self, index: int) -> bytes:
        """The bytes of a picture's file: those of the table, or of the file that it names."""
        value = self.table[index][self.column]
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return (self.base / value).read_bytes()
        if not isinstance(value, bytes):
            raise ValueError(f"holds {type(value).__name__} in the column {self.column}, not a picture")
        return value


class RecordNames:
    """The names of a split's rows: `train[0]`, `train[1]`, …"""

    def __init__(self, role: str, length: int) -> None:
        self.role, self.length = role, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> str:
        return f"{self.role}[{index}]"


def image_column_of(features: Mapping[str, "FeatureType"], given: str | None) -> str:
    """The column that the user named, or the only Image feature, or the one with a usual name."""
    from datasets import Image as ImageFeature

    images = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
    if given is None and len(images) == 1:
        return images[0]
    candidates = images if images and given is None else list(features)
    return find_column("image_column", given, IMAGE_COLUMNS, candidates)


def label_column_of(features: Mapping[str, "FeatureType"], given: str | None, image_key: str) -> str:
    """The column that the user named, or the only ClassLabel, or the one with a usual name."""
    from datasets import ClassLabel

    others = [name for name in features if name != image_key]
    labels = [name for name in others if isinstance(features[name], ClassLabel)]
    if given is None and len(labels) == 1:
        return labels[0]
    return find_column("label_column", given, (*LABEL_COLUMNS, "labels", "fine_label", "cls"), others)


def read_labels(table: "Dataset", column: str, role: str) -> list[str | None]:
    """The label of each row as text, None where there is none. Raises ValueError for a column of something else."""
    from datasets import ClassLabel

    if column not in table.features:
        raise ValueError(f"label_column={column}: {role} lacks it; {nearest(column, table.features)}")
    feature, values = table.features[column], table.select_columns([column])[:][column]
    if isinstance(feature, ClassLabel):
        return [None if v is None or v == NO_LABEL else feature.names[v] for v in values]
    if wrong := next((v for v in values if not isinstance(v, str | int | None)), None):
        kind = type(wrong).__name__
        raise ValueError(f"label_column={column}: holds {kind} ({wrong!s:.40}); a label is a word or a whole number")
    return [None if v is None or v == "" else str(v) for v in values]


def name_classes(feature: "FeatureType", labels: Mapping[str, Sequence[str | None]], column: str) -> list[str]:
    """A ClassLabel's names, in its order; else the labels of train, numbers by value. Raises ValueError.

    The other splits may have no others.
    """
    from datasets import ClassLabel

    present = {label for label in labels[TRAIN] if label is not None}
    if not present:
        raise ValueError(f"label_column={column}: no image of train has a label")
    classes = list(feature.names) if isinstance(feature, ClassLabel) else order_labels(present)
    if len(classes) < 2:
        raise ValueError(f"label_column={column}: one class, {printable(classes[0])}: nothing to tell apart")
    for role, part in labels.items():
        if others := sorted({label for label in part if label is not None} - set(classes)):
            shown = ", ".join(map(printable, others[:10]))
            raise ValueError(f"label_column={column}: {role} has classes that train lacks: {shown}")
    return classes
