"""How people lay out pictures in folders: which are splits, which are classes, and what is neither."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from iolaus.data.listing import SUFFIXES, FolderTree, suffix_of
from iolaus.errors import printable

TRAIN, VAL, TEST = "train", "val", "test"
SPLIT_NAMES = {
    "train": TRAIN, "training": TRAIN, "trainset": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "valset": VAL,
    "dev": VAL, "test": TEST, "testing": TEST, "testset": TEST, "eval": TEST, "evaluation": TEST,
}  # fmt: skip
FILLERS = frozenset({"set", "data", "dataset", "images", "imgs", "pictures", "split"})  # training_set, images_train
MOST_WRAPS = 4  # a zip in a zip, each with a folder of its own name
MAPPING_SUFFIXES = (".txt", ".csv", ".tsv")
MOST_MAPPING_BYTES = 64 * 2**20


@dataclass
class SplitFolder:
    """One split. path: its folder; classes: {class name: folder}, or for a flat one labels: {file's stem: class}."""

    path: str
    classes: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class FolderLayout:
    """What the folders mean. splits: by train, val and test, or only train where nothing is split yet.

    words: the layout for the run's first line; notes: what was left out.
    """

    splits: dict[str, SplitFolder]
    words: str
    notes: list[str] = field(default_factory=list)


def find_layout(tree: FolderTree) -> FolderLayout:
    """The layout of the tree. Raises ValueError with what was seen where it can't be a set of labelled pictures."""
    top, wrapped = unwrap(tree, tree.root)
    inside = f" in {tree.relative(top)}/" if wrapped else ""
    roles: dict[str, list[str]] = {}
    others = []
    for path in tree.folders(top):
        role = role_of(path)
        roles.setdefault(role, []).append(path) if role else others.append(path)
    others = [path for path in others if holds_pictures(tree, path)]
    train = [path for path in roles.get(TRAIN, []) if class_folders(tree, path)]
    if others and train and len(roles) == 1:
        if any(map(tree.has_pictures, train)):  # bus/, car/ and train/ are three classes
            return class_layout(tree, top, inside)
        seen = f"holds {names(train)}{inside} with folders in it, beside {names(others)}"
        raise ValueError(f"{seen}: rename it if it is a class, or move the others away if it is a split")
    layout = split_layout(tree, roles, inside) if train else class_layout(tree, top, inside)
    if train and others:
        layout.notes.append(f"left out: {names(others)} beside the splits")
    for path in [top, *(split.path for split in layout.splits.values() if split.classes and split.path != top)]:
        if loose := sum(suffix_of(name) in SUFFIXES for name in tree.entries(path).files):
            where = "" if path == tree.root else f" in {tree.relative(path)}/"
            layout.notes.append(f"left out: {loose:,} pictures beside the class folders{where}")
    check_inside(tree, layout)
    return layout


def split_layout(tree: FolderTree, roles: dict[str, list[str]], inside: str) -> FolderLayout:
    """Train, and of val and test those that have labels: class folders, or a file that maps names to classes."""
    for paths in roles.values():
        if len(paths) > 1:
            raise ValueError(f"holds {names(paths)}{inside}: two folders for one split; keep one of them")
    splits: dict[str, SplitFolder] = {}
    notes, taken = [], list[str]()
    for role in (TRAIN, VAL, TEST):
        if role not in roles:
            continue
        (path,) = roles[role]
        split = SplitFolder(path, class_folders(tree, path))
        if not split.classes:
            split.labels = read_mapping(tree, path, splits[TRAIN])
        if split.classes or split.labels:
            splits[role], taken = split, [*taken, path]
        elif holds_pictures(tree, path):
            notes.append(f"left out: {names([path])}, which holds pictures without labels (no class folders)")
        else:
            notes.append(f"left out: {names([path])}, which holds no pictures")
    words = f"{names(taken, ' ')} folder{'s' if len(taken) > 1 else ''} of {{classes}} classes{inside}"
    if TEST not in splits and VAL in splits:
        splits[TEST] = splits.pop(VAL)
        words += f", {names([splits[TEST].path])} as test"
    return FolderLayout(splits, words, notes)


def class_layout(tree: FolderTree, top: str, inside: str) -> FolderLayout:
    """Class folders that nobody has split. Raises ValueError where they look like something else."""
    classes = {os.path.basename(path): path for path in tree.folders(top)}
    files = tree.entries(top).files
    if not classes:
        hint = f", but {len(files):,} files" if files else ""
        raise ValueError(f"it holds no class folders{inside}{hint}; each class needs a folder of its own")
    # seg_train/ and seg_test/ are splits; a test_tube/ beside a train/ is a class
    hints = {path: word for path in classes.values() for word in words_of(path) & SPLIT_NAMES.keys()}
    rests = {path: words_of(path) - {word} for path, word in hints.items()}
    pairs = [(a, b) for a in hints for b in hints if rests[a] == rests[b]]
    like_splits = sorted({a for a, b in pairs if SPLIT_NAMES[hints[a]] != SPLIT_NAMES[hints[b]]})
    if like_splits:
        flat = all(not tree.folders(path) for path in like_splits)
        why = "hold pictures, not class folders" if flat else "are named like splits, and no train/ holds class folders"
        raise ValueError(f"{names(like_splits)}{inside} {why}; put each class into a folder: train/cat/, test/cat/")
    if len(classes) == 1:
        tables = [name for name in chain(files, tree.entries(*classes.values()).files) if name.endswith(".csv")]
        hint = f"; {printable(tables[0])} is not read" if tables else ""
        raise ValueError(f"one class, {names(classes.values())}{inside}: nothing to tell apart{hint}")
    return FolderLayout({TRAIN: SplitFolder(top, classes)}, f"class folders{inside}")


def unwrap(tree: FolderTree, path: str) -> tuple[str, bool]:
    """Go down through folders that hold nothing but one folder of folders. Returns (path, whether there were any)."""
    top = path
    for _ in range(MOST_WRAPS):
        below = tree.folders(path)
        if len(below) != 1 or role_of(below[0]) or not tree.folders(below[0]):
            break
        (path,) = below
    return path, path != top


def class_folders(tree: FolderTree, path: str) -> dict[str, str]:
    """{class: folder} of a split's folder; a folder of its own name within it, or images/, is passed through."""
    below = tree.folders(path)
    if len(below) == 1 and not tree.has_pictures(path) and (role_of(below[0]) or words_of(below[0]) == set()):
        return class_folders(tree, below[0])
    return {os.path.basename(folder): folder for folder in below}


def holds_pictures(tree: FolderTree, path: str, depth: int = 3) -> bool:
    return tree.has_pictures(path) or (
        depth > 0 and any(holds_pictures(tree, p, depth - 1) for p in tree.folders(path))
    )


def check_inside(tree: FolderTree, layout: FolderLayout) -> None:
    """Raise ValueError if a class folder holds splits of its own: cat/train and cat/test would be one class, cat."""
    for role, split in layout.splits.items():
        below = [path for folder in split.classes.values() for path in tree.folders(folder)]
        inner = {path: found for path in below if (found := role_of(path))}
        roles = set(inner.values()) | ({role} if len(layout.splits) > 1 else set())
        if inner and len(roles) > 1:
            shown = ", ".join(f"{tree.relative(path)}/" for path in list(inner)[:2])
            raise ValueError(f"{shown}: splits within a class; put them outside: train/CLASS/, test/CLASS/")


def read_mapping(tree: FolderTree, path: str, train: SplitFolder) -> dict[str, str]:
    """The class of each picture of a flat folder, from a text file in it or beside it; empty if none has them all.

    A line is the file's name, with or without suffix, then its class: the name of train's folder, or its number in the
    order of the names (as in ImageNet's val.txt, LOC_val_solution.csv, and Tiny ImageNet's val_annotations.txt).
    """
    folders = [path, *tree.folders(path)] if len(tree.folders(path)) <= 1 else [path]
    every = [name for folder in folders for name in tree.entries(folder).files]
    stems = {os.path.splitext(name)[0] for name in every if suffix_of(name) not in MAPPING_SUFFIXES}
    classes = sorted(train.classes)
    for folder in (path, os.path.dirname(path)):
        for name in tree.entries(folder).files:
            file = os.path.join(folder, name)
            if suffix_of(name) not in MAPPING_SUFFIXES or os.path.getsize(file) > MOST_MAPPING_BYTES:
                continue
            with open(file, encoding="utf-8", errors="replace") as lines:
                labels = dict(filter(None, (read_label(line, stems, classes) for line in lines)))
            if stems and labels.keys() == stems:
                return labels
    return {}


def read_label(line: str, stems: set[str], classes: list[str]) -> tuple[str, str] | None:
    """(stem, class) of a line of a mapping file; None if it says nothing of a picture."""
    words = re.split(r"[,\s]+", line.strip())
    stem = os.path.splitext(os.path.basename(words[0]))[0]
    if len(words) < 2 or stem not in stems:
        return None
    if words[1] in classes:
        return stem, words[1]
    return (stem, classes[int(words[1])]) if words[1].isdecimal() and int(words[1]) < len(classes) else None


def words_of(path: str) -> set[str]:
    """The words of a folder's name in lower case, without those that say nothing."""
    return {word for word in re.split(r"[\W_]+", os.path.basename(path).casefold()) if word} - FILLERS


def role_of(path: str) -> str | None:
    """train, val or test, if that is all that a folder's name says; in any case, under the usual names."""
    words = words_of(path)
    return SPLIT_NAMES.get(next(iter(words))) if len(words) == 1 else None


def names(paths: Iterable[str], joint: str = " and ") -> str:
    """`train/ and test/`, for messages: at most six names."""
    every = [f"{printable(os.path.basename(path))}/" for path in paths]
    return joint.join(every) if len(every) <= 2 or joint == " " else ", ".join(every[:6]) + (" …" if every[6:] else "")
