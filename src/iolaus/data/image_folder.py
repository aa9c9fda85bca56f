"""A folder of pictures as a Source: what its folders mean, which files are read, what is told of the rest."""

import os
from collections import Counter
from pathlib import Path

from iolaus.data.folder_layout import TEST, TRAIN, VAL, FolderLayout, find_layout
from iolaus.data.image_files import ImageFiles, count_copies, list_split, order_classes
from iolaus.data.listing import FolderTree
from iolaus.data.make_source import make_source, split_of
from iolaus.data.split import LazyImages, Source, Split
from iolaus.data.stratify import stratify
from iolaus.errors import printable

MOST_COMPARED = 100_000  # files; in more than these nobody looks for one picture in two splits


def read_folder(base: Path, test_fraction: float, natural: bool, fewest: int) -> Source:
    """The pictures below `base`; the arguments are those of `sources.image_folder`. Raises ValueError."""
    tree = FolderTree(base)
    tree.claim(tree.root)
    layout = find_layout(tree)
    check_classes(layout)
    every = order_classes(list(layout.splits[TRAIN].classes), natural)
    listed = {role: list_split(tree, split, every) for role, split in layout.splits.items()}
    tree.keep()
    notes = [*layout.notes, *filter(None, [tree.describe_left_out()])]
    counts = Counter(listed[TRAIN].targets)
    rare = [label for label in range(len(every)) if counts[label] < fewest]
    if len(every) < 2:
        raise ValueError(f"one class, {printable(every[0])}: nothing to tell apart")
    if len(every) - len(rare) < 2:
        raise ValueError(f"{len(every) - len(rare)} of {len(every)} classes have min_per_class={fewest} images")
    if rare:
        left = ", ".join(printable(every[label]) for label in rare[:10]) + (" …" if rare[10:] else "")
        notes.append(f"left out: {len(rare)} classes of fewer than {fewest} training images ({left})")
        listed = {role: leave_out(files, rare) for role, files in listed.items()}
    classes = listed[TRAIN].classes
    splits = {role: split_of(files) for role, files in listed.items()}
    words = layout.words.format(classes=len(classes))
    if TEST not in splits:
        train, test = stratify(splits[TRAIN].targets, test_fraction, seed=0, classes=classes)
        splits[TEST], splits[TRAIN] = splits[TRAIN].take(test), splits[TRAIN].take(train)
        words += f", {test_fraction:.0%} of them as test"
    source = make_source(splits[TRAIN], splits[TEST], classes, splits.get(VAL))
    for role in (VAL, TEST):
        if role in splits and len(splits[role].targets) + len(source.train.targets) <= MOST_COMPARED:
            count, example = count_copies(paths_of(splits[role]), paths_of(source.train))
            if count:
                noun = "picture" if count == 1 else "pictures"
                notes.append(f"{role} has {count:,} {noun} of train, byte by byte, as {tree.relative(example)}")
    source.layout, source.notes = words, notes
    return source


def check_classes(layout: FolderLayout) -> None:
    """Raise ValueError if val or test has classes that train lacks; note those that they lack themselves."""
    train = layout.splits[TRAIN].classes
    for role, split in layout.splits.items():
        if role == TRAIN or split.labels:
            continue
        own, name = split.classes, f"{printable(os.path.basename(split.path))}/"
        differ = ", ".join(printable(name) for name in [*sorted(train.keys() - own), *sorted(own.keys() - train)][:10])
        if own.keys() - train.keys():
            raise ValueError(f"train/ and {name} differ in their classes: {differ}")
        if differ:
            layout.notes.append(f"{name} has no pictures of the classes {differ}")


def leave_out(files: ImageFiles, rare: list[int]) -> ImageFiles:
    """The files of all other classes, numbered anew."""
    rest = [label for label in range(len(files.classes)) if label not in set(rare)]
    number = {label: new for new, label in enumerate(rest)}
    samples = [(path, number[label]) for path, label in files.samples if label in number]
    return ImageFiles(samples, [files.classes[label] for label in rest])


def paths_of(split: Split) -> list[str]:
    """The files of a split."""
    assert isinstance(split.images, LazyImages)
    return [split.images.name(index) for index in range(len(split.images))]
