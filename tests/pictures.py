"""Folders of tiny pictures as people have them: every layout, every mode, every orientation."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 8


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def write_picture(path, seed=0, size=(SIDE, SIDE)):
    """A picture of noise, in the format of its suffix; a name without one is a PNG, one of no picture is text."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".txt", ".csv", ".heic", ".md"):
        path.write_text("no picture")
    else:
        Image.fromarray(noise(*size, 3, seed=seed)).save(path, None if path.suffix else "PNG")


def write_tree(root, places: Iterable[str], count=3):
    """`count` pictures in each folder of `places`; a place that ends in a suffix is one file. No two are the same."""
    seed = 0
    for place in places:
        for name in [place] if Path(place).suffix else [f"{place}/{k}.png" for k in range(count)]:
            seed += 1
            write_picture(Path(root) / name, seed)
    return Path(root)


def each(splits, classes="ab"):
    """`train/a`, `train/b`, … for write_tree."""
    return [f"{split}/{name}" for split in splits for name in classes]


# name: (the places of write_tree, how many images train, val and test have, words of the layout)
UNDERSTOOD = {
    "class folders": (["a", "b"], (4, 0, 2), "class folders, 20% of them as test"),
    "train and test": (each(["train", "test"]), (6, 0, 6), "train/ test/ folders of 2 classes"),
    "any case": (each(["Train", "TEST"]), (6, 0, 6), "Train/ TEST/ folders of 2 classes"),
    "Training and Test": (each(["Training", "Test"]), (6, 0, 6), "Training/ Test/ folders of 2 classes"),
    "Train and Val": (each(["Train", "Val"]), (6, 0, 6), "Train/ Val/ folders of 2 classes, Val/ as test"),
    "training_set and test_set": (each(["training_set", "test_set"]), (6, 0, 6), "training_set/ test_set/ folders"),
    "three-way": (each(["train", "val", "test"]), (6, 6, 6), "train/ val/ test/ folders of 2 classes"),
    "three-way, other names": (each(["Training", "validation", "eval"]), (6, 6, 6), "Training/ validation/ eval/ "),
    "valid and testing": (each(["train", "valid", "testing"]), (6, 6, 6), "train/ valid/ testing/ folders"),
    "dev": (each(["train", "dev", "test"]), (6, 6, 6), "train/ dev/ test/ folders"),
    "train alone": (each(["train"]), (4, 0, 2), "train/ folder of 2 classes, 20% of them as test"),
    "one wrapping folder": (each(["pets/train", "pets/test"]), (6, 0, 6), "folders of 2 classes in pets/"),
    "a zip in a zip": (["data/data/a", "data/data/b"], (4, 0, 2), "class folders in data/data/"),
    "junk of a zip": ([*each(["own"]), "__MACOSX/own/a", "own/.git/a", "@eaDir/b"], (4, 0, 2), "class folders in own/"),
    "train within train": (each(["train/train", "test/test"]), (6, 0, 6), "train/ test/ folders of 2 classes"),
    "images within train": (each(["train/images", "val/images"]), (6, 0, 6), "train/ val/ folders of 2 classes"),
    "a class named train": (["bus", "car", "train"], (6, 0, 3), "class folders"),
    "a class named test_tube": (["train", "test_tube", "flask"], (6, 0, 3), "class folders"),
    "unlabelled test": ([*each(["train", "val"]), "test"], (6, 0, 6), "train/ val/ folders of 2 classes, val/ as test"),
    "unlabelled test alone": ([*each(["train"]), "test"], (4, 0, 2), "train/ folder of 2 classes, 20% of them as test"),
    "deeper folders": (["a/x", "a/y", "b/x"], (6, 0, 3), "class folders"),
}  # fmt: skip

# name: (the places of write_tree, what the message says)
REFUSED = {
    "one class": (["a"], "one class, a/: nothing to tell apart"),
    "one class in train": (["train/a", "test/a"], "one class"),
    "images and labels.csv": (["images", "labels.csv"], "nothing to tell apart; labels.csv is not read"),
    "flat splits": (["train", "test"], "test/ and train/ hold pictures, not class folders"),
    "splits under other names": (each(["seg_train", "seg_test", "seg_pred"]), "seg_test/ and seg_train/ are named"),
    "no train": (each(["val", "test"]), "test/ and val/ are named like splits, and no train/"),
    "splits within classes": (["a/train", "a/test", "b/train", "b/test"], "a/test/, a/train/: splits within a class"),
    "one split in another": ([*each(["train", "test"]), "train/a/test"], "train/a/test/: splits within a class"),
    "two folders for a split": (each(["train", "Training", "test"]), "Training/ and train/: two folders for one split"),
    "another class in val": ([*each(["train", "test"]), *each(["val"], "abc")], "val/ differ in their classes: c"),
    "a split beside classes": ([*each(["train"]), "c"], "holds train/ with folders in it, beside c/"),
    "loose pictures": (["0.png", "1.png"], "it holds no class folders, but 2 files"),
    "a class of other files":
        (["a", "b/0.heic"], "no images for the classes b (left out: 1 .heic in b/; convert HEIC to JPEG first)"),
}  # fmt: skip


# ---- pixels ----------------------------------------------------------------------------------------------------

LEVELS = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE) * 4 + 1  # 1 to 253, no two the same
COLORS = np.stack([LEVELS, 255 - LEVELS, LEVELS // 2], axis=2)
ORIENTATIONS = range(1, 9)


def orient(pixels, orientation):
    """What a camera stores, (height, width, …), so that a viewer who follows `orientation` sees `pixels`.

    EXIF 2.3, tag 274: the 0th row of the stored image is seen at the top, right, bottom or left, and its 0th column.
    """
    undo = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
            5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
            8: lambda x: np.rot90(x, -1)}  # fmt: skip
    return np.ascontiguousarray(undo[orientation](pixels))


def write_oriented(path, pixels, orientation):
    """Save pixels as a camera does that was held in another way: stored turned, with EXIF's tag 274."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    picture = Image.fromarray(orient(pixels, orientation))
    name = {".jpg": "JPEG"}.get(path.suffix, path.suffix[1:].upper())
    picture.save(path, exif=exif, **options.get(name, {}))


def shape_of_alpha(level, alpha):
    """A picture of one level whose shape is in its alpha channel alone."""
    return Image.fromarray(np.dstack([np.full_like(LEVELS, level)] * 3 + [alpha]))


def spread(white):
    """LEVELS in 16 bits, of which `white` is the largest that a camera gives."""
    return np.rint(LEVELS * (white / 255)).astype(np.uint16)


# name: (function that gives the picture number k, its suffix, the levels that the model must see)
DEEP = {
    "16-bit PNG": (lambda k: Image.fromarray(LEVELS.astype(np.uint16) * 257), "png", LEVELS),
    "12 bits in a 16-bit PNG": (
        lambda k: Image.fromarray(np.rint(LEVELS * (4095 / 255)).astype(np.uint16)),
        "png",
        LEVELS,
    ),
    "10 bits in a 16-bit TIFF": (
        lambda k: Image.fromarray(np.rint(LEVELS * (1023 / 255)).astype(np.uint16)),
        "tif",
        LEVELS,
    ),
    "8 bits in a 16-bit PNG": (lambda k: Image.fromarray(LEVELS.astype(np.uint16)), "png", LEVELS),
    "8 bits in a 32-bit TIFF": (lambda k: Image.fromarray(LEVELS.astype(np.int32)), "tif", LEVELS),
    "16 bits in a 32-bit TIFF": (lambda k: Image.fromarray(LEVELS.astype(np.int32) * 257), "tif", LEVELS),
    "floats from 0 to 1": (lambda k: Image.fromarray((LEVELS / 255).astype(np.float32)), "tif", LEVELS),
    "floats from 0 to 255": (lambda k: Image.fromarray(LEVELS.astype(np.float32)), "tif", LEVELS),
    "floats from -1 to 1": (lambda k: Image.fromarray((LEVELS / 127.5 - 1).astype(np.float32)), "tif", LEVELS),
    "palette": (lambda k: Image.fromarray(COLORS).quantize(64), "png", COLORS),
    "CMYK": (lambda k: Image.fromarray(COLORS).convert("CMYK"), "tif", COLORS),
    "grey with alpha": (lambda k: Image.fromarray(np.dstack([LEVELS, np.full_like(LEVELS, 255)]), "LA"), "png", LEVELS),
    "one bit": (lambda k: Image.fromarray(LEVELS > 99), "png", (LEVELS > 99) * np.uint8(255)),
    "black shape in alpha": (lambda k: shape_of_alpha(0, 255 - LEVELS), "png", np.dstack([LEVELS] * 3)),
    "white shape in alpha": (lambda k: shape_of_alpha(255, LEVELS), "png", np.dstack([LEVELS] * 3)),
}


def write_deep(root, name, count=3):
    """Two classes of `count` pictures of a kind of DEEP."""
    make, suffix, _ = DEEP[name]
    for label in "ab":
        (Path(root) / label).mkdir(parents=True)
        for k in range(count):
            make(k).save(Path(root) / label / f"{k}.{suffix}")
    return Path(root)
