"""Images as they are after the initial step, kept in a file for the next run (`dataset.cache_dir`)."""

import hashlib
import inspect
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iolaus.checkpoint import write_atomically
from iolaus.data.reading import read_all
from iolaus.data.shape import ImageShape
from iolaus.hardware import installed

log = logging.getLogger("iolaus")

FORMAT = 1  # to be raised when what `ImageShape.bring` makes of an image changes


def cached(images: Any, shape: ImageShape, settings: Any, folder: Path) -> tuple[Tensor, Tensor]:
    """`read_all(images, shape, settings)`, from a file in `folder` where one was made of the same images before.

    Returns (n, channels, kept_size, kept_size) uint8, mapped from the file so that only what is used is read, and
    (n,) bool, False for images that could not be read. The file is written under a name of its process's own and
    then moved: several processes may make it at once, and a kill leaves none that is half full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key_of(images, shape, settings)}.npy"
    try:
        stored = np.load(path, mmap_mode="c")
        readable = np.load(path.with_suffix(".readable.npy"))
        expected = (len(images), shape.channels, shape.kept_size, shape.kept_size)
        if stored.shape == expected and len(readable) == len(images):
            log.info("images from %s", path)
            return torch.from_numpy(stored), torch.from_numpy(readable)
        log.warning("%s is not what it should be: made anew", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s can't be read (%s): made anew", path, error)

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        side = shape.kept_size
        mapped = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(images), shape.channels, side, side))
        _, readable_now = read_all(images, shape, settings, into=torch.from_numpy(mapped))
        mapped.flush()
        write_atomically(path.with_suffix(".readable.npy"), lambda file: np.save(file, readable_now.numpy()))
        os.replace(temporary, path)  # after the other one, as the images' file says that both are there
    finally:
        temporary.unlink(missing_ok=True)
    log.info("images kept in %s", path)
    return torch.from_numpy(np.load(path, mmap_mode="c")), readable_now


def key_of(images: Any, shape: ImageShape, settings: Any) -> str:
    """A hash of all that the stored images depend on: the files or pixels, the shape, the initial step, versions."""
    about = [FORMAT, shape.channels, shape.kept_size, shape.interpolation, source_of(shape.initial),
             settings.on_bad_image, installed("torch", "torchvision", "pillow")]  # fmt: skip
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    if isinstance(images, Tensor):
        digest.update(images.contiguous().numpy().data)
        return digest.hexdigest()
    for index in range(len(images)):
        name = images.name(index)
        digest.update(f"{name}\n".encode())
        if os.path.exists(name):
            status = os.stat(name)
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        else:  # a dataset that keeps its images elsewhere: their pixels are all that can be asked for
            digest.update(images[index].contiguous().numpy().data)
    return digest.hexdigest()


def source_of(function: Any) -> str | None:
    """The code of a user's function and its arguments, or an object's own words: another one makes other images."""
    if function is None:
        return None
    inner = getattr(function, "func", function)
    try:
        code = inspect.getsource(inner if inspect.isroutine(inner) else type(inner))
    except (OSError, TypeError):  # built in, or typed at a prompt
        code = ""
    bound = (getattr(function, "args", ()), getattr(function, "keywords", {}))
    own = {} if inspect.isroutine(inner) else vars(inner)
    plain = {k: v for k, v in own.items() if isinstance(v, str | int | float | bool | list | tuple)}
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{type(inner).__module__} {name} {bound} {plain} {code}"
