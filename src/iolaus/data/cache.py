"""A file of images as they are after the initial step, for the next run (`dataset.cache_dir`)."""

import hashlib
import inspect
import json
import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iolaus.data.reading import read_all
from iolaus.data.shape import ImageShape
from iolaus.data.split import LazyImages
from iolaus.files.atomic import write_atomically
from iolaus.machine.hardware import package_versions
from iolaus.settings import DatasetSettings

log = logging.getLogger(__name__)

FORMAT = 3  # raise it when ImageShape.preprocess gives other images


def read_through_cache(
    images: Tensor | LazyImages, shape: ImageShape, settings: DatasetSettings, folder: Path
) -> tuple[Tensor, Tensor]:
    """`read_all(images, shape, settings)`, from a file in `folder` if an earlier run wrote it for the same images.

    Returns (n, channels, kept_size, kept_size) uint8, mapped from the file so that only what is used is read, and
    (n,) bool, False for unreadable images. Each process writes a temporary file and then moves it: several processes
    may do so at once, and a killed one leaves no partial file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cache_key(images, shape, settings)}.npy"
    readable_path, side = path.with_suffix(".readable.npy"), shape.kept_size
    expected = (len(images), shape.channels, side, side)
    try:
        stored = np.load(path, mmap_mode="c")
        readable = np.load(readable_path)
        if stored.shape == expected and len(readable) == len(images):
            log.info("images from %s", path)
            return torch.from_numpy(stored), torch.from_numpy(readable)
        log.warning("%s holds other images than expected: made anew", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s can't be read (%s): made anew", path, error)

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mapped = np.lib.format.open_memmap(temporary, "w+", np.uint8, expected)
        _, readable_now = read_all(images, shape, settings, into=torch.from_numpy(mapped))
        mapped.flush()
        write_atomically(readable_path, lambda file: np.save(file, readable_now.numpy()))
        os.replace(temporary, path)  # last, since this file stands for both
    finally:
        temporary.unlink(missing_ok=True)
    log.info("images kept in %s", path)
    return torch.from_numpy(np.load(path, mmap_mode="c")), readable_now


def cache_key(images: Tensor | LazyImages, shape: ImageShape, settings: DatasetSettings) -> str:
    """A hash of all that the stored images depend on: the files or pixels, the shape, the initial step, versions."""
    steps = [FORMAT, shape.channels, shape.kept_size, shape.interpolation, shape.resizing, code_of(shape.initial)]
    about = [*steps, settings.on_bad_image, package_versions("torch", "torchvision", "pillow")]
    about += [repr(images.rules)] if isinstance(images, LazyImages) else []
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    if isinstance(images, Tensor):
        digest.update(images.contiguous().numpy().data)
        return digest.hexdigest()
    file_bytes = getattr(images.dataset, "file_bytes", None)  # of a table's pictures: no need to decode them
    for index in range(len(images)):
        name = images.name(index)
        digest.update(f"{name}\n".encode())
        if file_bytes is not None:
            digest.update(file_bytes(images.indices[index]))
            continue
        if os.path.exists(name):
            status = os.stat(name)
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        else:  # the dataset keeps its images elsewhere: only their pixels tell them apart
            digest.update(images[index].contiguous().numpy().data)
    return digest.hexdigest()


def code_of(function: object) -> str | None:
    """The source code, arguments and plain attributes of the user's function: if they differ, so may the images."""
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
