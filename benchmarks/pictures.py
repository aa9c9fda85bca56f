"""Read folders of pictures as people have them, with these sources and with those of another tree: what is read wrong.

python benchmarks/pictures.py [--before FOLDER]

Wrong is what a run would train on without a word: pictures that are missing, twice, in a class or split that is not
theirs, or that look other than a viewer shows them. The folders are those of tests/pictures.py.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.pictures import (  # noqa: E402
    COLORS,
    DEEP,
    ORIENTATIONS,
    REFUSED,
    UNDERSTOOD,
    each,
    noise,
    write_deep,
    write_oriented,
    write_picture,
    write_tree,
)

RIGHT, TOLD, WRONG = "right", "told", "wrong"
# (kind, what is tried, function that makes a folder and says what becomes of it)
Try = tuple[str, str, Callable[[Path], str]]
JUNK = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", ".git", "__pycache__")
SUFFIXES = (".png", ".jpg", ".bmp", ".gif", ".jfif", ".jpe", ".avif", ".jp2", ".webp", ".tiff", "", ".heic")
NO_PIXELS = {"12 bits": [0, 4095], "negative": [-1, 3], "0 to 255": [0.0, 255.0], "normalised": [-2.1, 2.6],
             "NaN": [0.0, float("nan")]}  # fmt: skip


def tries() -> Iterator[Try]:
    """All that is tried."""
    for name in UNDERSTOOD:
        yield "layouts that have a meaning", name, partial(try_layout, name)
    for name in REFUSED:
        yield "layouts that have none", name, partial(try_nonsense, name)
    for name in JUNK:
        yield "junk beside the classes", name, partial(try_junk, name)
    for suffix in SUFFIXES:
        yield "kinds of files", suffix, partial(try_suffix, suffix)
    for name, make in {"a folder's, back into the tree": link_back, "names of one file": link_files}.items():
        yield "links", name, partial(try_links, make)
    yield "one picture in train and test", "a copy", try_copy
    for suffix in ("jpg", "png", "tiff", "webp", "avif"):
        for orientation in ORIENTATIONS:
            yield "EXIF orientations", f"{orientation}.{suffix}", partial(try_orientation, suffix, orientation)
    for name in DEEP:
        yield "depths, palettes, transparency", name, partial(try_depth, name)
    for place in (3, 20, 41, 62, 83):
        yield "one in color among grey ones", str(place), partial(try_color, place)
    for name in NO_PIXELS:
        yield "tensors that are no pixels", name, partial(try_tensor, name)


def read(root: Path) -> Any:
    """The source of a folder, its pictures made into bytes as a run does."""
    from iolaus.data.sources import image_folder

    source = image_folder(str(root), 0.34)
    try:
        from iolaus.config.build_data import set_pixel_rules
    except ImportError:  # of before the rules
        return source
    from iolaus.settings import DatasetSettings

    source.notes += set_pixel_rules(source, DatasetSettings())
    return source


def splits(source: Any) -> list[Any]:
    return [source.train, getattr(source, "val", None), source.test]


def notes(source: Any) -> str:
    return " ".join(getattr(source, "notes", []))


def misplaced(source: Any) -> int:
    """Pictures whose class is not among their folders."""
    return sum(
        source.classes[label] not in split.images.name(k).split(os.sep)
        for split in splits(source)
        if split
        for k, label in enumerate(split.targets.tolist())
    )


def counts(source: Any) -> tuple[int, ...]:
    return tuple(len(split.targets) if split else 0 for split in splits(source))


def try_layout(name: str, root: Path) -> str:
    places, expected, _ = UNDERSTOOD[name]
    source = read(write_tree(root, places))
    return RIGHT if counts(source) == expected and not misplaced(source) else WRONG


def try_nonsense(name: str, root: Path) -> str:
    read(write_tree(root, REFUSED[name][0]))
    return WRONG


def try_junk(name: str, root: Path) -> str:
    return RIGHT if read(write_tree(root, ["a", "b", f"{name}/x"])).classes == ["a", "b"] else WRONG


def try_suffix(suffix: str, root: Path) -> str:
    write_tree(root, ["a", "b"])
    write_picture(root / "a" / f"other{suffix}", seed=99)
    source = read(root)
    return RIGHT if sum(counts(source)) == 7 else TOLD if f"1 {suffix} in a/" in notes(source) else WRONG


def try_links(make: Callable[[Path], None], root: Path) -> str:
    make(write_tree(root, ["a", "b", "c"]))
    source = read(root)
    return RIGHT if sum(counts(source)) == 9 and not misplaced(source) else WRONG


def link_back(root: Path) -> None:
    (root / "a" / "up").symlink_to(root)


def link_files(root: Path) -> None:
    os.link(root / "a" / "0.png", root / "a" / "again.png")
    (root / "b" / "link.png").symlink_to("0.png")


def try_copy(root: Path) -> str:
    write_tree(root, each(["train", "test"]))
    (root / "test" / "b" / "copy.png").write_bytes((root / "train" / "a" / "0.png").read_bytes())
    return TOLD if "test has 1 picture of train" in notes(read(root)) else WRONG


def try_orientation(suffix: str, orientation: int, root: Path) -> str:
    pixels = np.kron(noise(2, 3, 3), np.ones((8, 8, 1), np.uint8))  # even blocks, which JPEG keeps
    for label in "ab":
        for k in range(3):
            write_oriented(root / label / f"{k}.{suffix}", pixels, orientation)
    found = picture(read(root))
    return RIGHT if found.shape == pixels.shape and np.abs(found - pixels).mean() <= 6 else WRONG


def try_depth(name: str, root: Path) -> str:
    expected = np.atleast_3d(DEEP[name][2])
    found = picture(read(write_deep(root, name)))
    return RIGHT if found.shape == expected.shape and np.abs(found - expected).max() <= 1 else WRONG


def try_color(place: int, root: Path) -> str:
    write_tree(root, each(["test"]))
    for label in "ab":
        (root / "train" / label).mkdir(parents=True)
        for k in range(100):
            color = COLORS if (label, k) == ("a", place) else noise(8, 8, seed=k)
            Image.fromarray(color).save(root / "train" / label / f"{k:02}.png")
    return RIGHT if read(root).channels == 3 else WRONG


def try_tensor(name: str, root: Path) -> str:
    from iolaus.images import as_uint8

    as_uint8(torch.tensor(NO_PIXELS[name]))
    return WRONG


def picture(source: Any) -> Any:
    """The first training picture: (height, width, channels) int64."""
    return source.train.images[0][0].permute(1, 2, 0).numpy().astype(np.int64)


def outcomes() -> dict[str, list[list[str]]]:
    """{kind: [[what is tried, what becomes of it], …]} with the sources that this process imports."""
    found: dict[str, list[list[str]]] = {}
    for kind, name, attempt in tries():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            try:
                outcome = attempt(Path(folder) / "own")
            except ValueError:  # an error of one line with the file's or folder's name
                outcome = TOLD
            except (RecursionError, OSError):
                outcome = WRONG
        found.setdefault(kind, []).append([name, outcome])
    return found


def outcomes_of(tree: Path) -> dict[str, list[list[str]]]:
    """`outcomes` in a process with the sources of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    command = [sys.executable, __file__, "--json"]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[list[str]]] = json.loads(answer.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another tree, to compare with")
    parser.add_argument("--json", action="store_true", help="print what becomes of each with the imported sources")
    given = parser.parse_args()
    if given.json:
        print(json.dumps(outcomes()))
        return
    trees = [*([given.before.resolve()] if given.before else []), ROOT]
    results = [outcomes_of(tree) for tree in trees]
    names = ["before: right", "told", "wrong", "after: right", "told", "wrong"][-3 * len(trees) :]
    print("| Kind | Tried | " + " | ".join(names) + " |\n" + "|---|" + "---|" * (1 + len(names)))
    total: collections.Counter[tuple[int, str]] = collections.Counter()
    for kind, tried in results[-1].items():
        cells = []
        for number, result in enumerate(results):
            found = collections.Counter(outcome for _, outcome in result[kind])
            cells += [found[outcome] for outcome in (RIGHT, TOLD, WRONG)]
            total.update({(number, outcome): found[outcome] for outcome in found})
        print(f"| {kind} | {len(tried)} | " + " | ".join(map(str, cells)) + " |")
    sums = [total[number, outcome] for number in range(len(results)) for outcome in (RIGHT, TOLD, WRONG)]
    print(f"| all | {sum(map(len, results[-1].values()))} | " + " | ".join(map(str, sums)) + " |")
    for kind, tried in results[-1].items():
        for name, outcome in tried:
            if outcome == WRONG:
                print(f"wrong: {kind}: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
