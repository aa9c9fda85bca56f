"""Starting weights from a file on this disk: a run's own checkpoint, or what others saved with torch or safetensors."""

import argparse
import difflib
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iolaus import checkpoint
from iolaus.errors import first_line
from iolaus.groups import classifier_of

AVERAGED = ("ema", "state_dict_ema", "model_ema")
# where a dict with more in it (optimizer, epoch, …) keeps the model; averaged weights first, as timm takes them
PLACES = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and AveragedModel, and of torch.compile
# by the sizes of the first convolution's filters in the file and in the model
STEMS = {"(7, 7) (3, 3)": "large", "(3, 3) (7, 7)": "small"}


def load_weights(model: nn.Module, path: str | Path, *, classes: Sequence[str] | None = None) -> str:
    """Load the weights of a local file into `model`, and return one line about what was loaded and what was not.

    Names and shapes have to be the model's. The classifier alone may differ, and then all of it stays fresh: it
    fits no weights of another number of classes. It does so as well where file and model know their classes and
    these are not the same. BatchNorm's counters may be missing. Numbers are cast to the model's dtype.

    Args:
        model: on any device, in any memory format; both stay as they are.
        path: best.pt or last.pt of a run, or the run's folder (its best.pt); or a state dict, plain or in a dict
            below one of PLACES, saved by torch or, as *.safetensors, by safetensors.
        classes: names of the model's classes in their order, where they are known.

    Raises:
        ValueError: one line, `weights=PATH: …`, when there is no such file, it can't be read (tensors only, no
            pickled objects) or does not fit; the model is then as it was.
    """
    try:
        file = _file_at(Path(path).expanduser())
        content = _read(file)
        part, theirs = _tensors_of(content, model)
        mine = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        head = classifier_of(model)
        why_fresh = _why_fresh(mine, theirs, head) or _other_classes(content, classes)
        names = _fitting(model, mine, theirs, head if why_fresh else set())
        with torch.no_grad():
            ready = {name: torch.empty_like(mine[name]).copy_(theirs[name]) for name in names}
            for name, value in ready.items():  # nothing fails from here on, and up to here the model is as it was
                mine[name].copy_(value)
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"weights={path}: {first_line(error)}") from error
    averaged = ", averaged" if part in AVERAGED else ""
    count = f"all {len(mine)}" if len(names) == len(mine) else f"{len(names)} of {len(mine)}"
    fresh = f"; the classifier starts fresh ({why_fresh})" if why_fresh else ""
    counters = "; no num_batches_tracked there" if any(map(_is_counter, mine.keys() - theirs.keys())) else ""
    return f"weights of {file}{averaged}: {count} tensors{fresh}{counters}"


def _file_at(path: Path) -> Path:
    """The file that a path means: itself, or best.pt of a folder. Raises ValueError with the nearest names there."""
    file = path / checkpoint.BEST if os.path.isdir(path) else path
    if os.path.isfile(file):
        return file
    if not os.path.isdir(file.parent):
        raise ValueError(f"no such file; there is no folder {file.parent.absolute()} either")
    near = difflib.get_close_matches(file.name, sorted(os.listdir(file.parent)), n=3, cutoff=0.5)
    what = f"a folder without {checkpoint.BEST}" if file != path else "no such file"
    nearest = f"; nearest names there: {', '.join(near)}" if near else ""
    raise ValueError(f"{what}, looked for {file.absolute()}{nearest}")


def _read(file: Path) -> Any:
    """What the file holds, tensors and plain containers only. Raises ValueError when it can't be read."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file  # comes with timm

            return load_file(file)
        # timm and many training scripts put their arguments beside the weights; a Namespace runs no code
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            if zipfile.is_zipfile(file):
                return checkpoint.load(file)
            return torch.load(file, map_location="cpu", weights_only=True)  # torch's format before 1.6, without CRCs
    except Exception as error:  # each library has its own for a broken file, some without words
        if found := re.search(r"Unsupported global: GLOBAL (\S+)", f"{error} {error.__cause__}"):
            raise ValueError(f"it holds a {found[1]}, and only tensors are read; save model.state_dict()") from error
        reason = first_line(error)
        if reason.startswith(f"{file}: "):  # checkpoint.load has said it all
            raise ValueError(reason.removeprefix(f"{file}: ")) from error
        raise ValueError(f"no file of weights, or a damaged one ({reason})") from error


def _tensors_of(content: Any, model: nn.Module) -> tuple[str, dict[str, Tensor]]:
    """The key below which a file's content keeps the weights ("" at the top), and these by the model's names."""
    content = content if isinstance(content, dict) else {}
    ours = isinstance(content.get("learner"), dict)  # last.pt
    content = content["learner"] if ours else content
    places = ("ema", "model") if ours else PLACES
    part = next((key for key in places if isinstance(content.get(key), dict) and content[key]), "")
    content = content[part] if part else content
    # AveragedModel counts its updates beside the module that it averages
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor) and k != "n_averaged"}
    if not tensors:
        raise ValueError("it holds no tensors by name")
    own = [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in model.state_dict())]
    while prefix := next((p for p in PREFIXES if p not in own and all(k.startswith(p) for k in tensors)), ""):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return part, tensors


def _within(name: str, parameters: Iterable[str]) -> bool:
    """Whether it is one of these parameters or beside one in its module: a buffer, a bias that one side lacks."""
    return any(name == its or ("." in its and name.startswith(its.rpartition(".")[0] + ".")) for its in parameters)


def _why_fresh(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], head: set[str]) -> str:
    """How the file's classifier differs from the model's in names or shapes; empty where it does not."""
    here = {name: tuple(value.shape) for name, value in mine.items() if _within(name, head)}
    there = {name: tuple(value.shape) for name, value in theirs.items() if _within(name, head)}
    if here == there:
        return ""
    if not there:
        return "the file has none"
    for name, shape in here.items():
        if there.get(name, shape)[:1] != shape[:1]:
            return f"{there[name][0]} classes there, {shape[0]} here"
    name = next(name for name in [*here, *there] if here.get(name) != there.get(name))
    return f"{name} is {there.get(name, 'not')} there and {here.get(name, 'not')} here"


def _other_classes(content: dict[str, Any], classes: Sequence[str] | None) -> str:
    """How the classes of a best.pt differ from the model's; empty where they don't, or either is not known."""
    saved = content if content.keys() >= {"model", "metrics", "classes"} else {}
    if classes is None or not isinstance(saved.get("classes"), list | tuple):
        return ""
    there, here = list(saved["classes"]), list(classes)
    if len(there) != len(here):
        return f"{len(there)} classes there, {len(here)} here"
    pairs = enumerate(zip(there, here, strict=True))
    return next((f"class {i} is {one} there and {other} here" for i, (one, other) in pairs if one != other), "")


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")  # of batches, which old files lack and default BatchNorm never reads


def _fitting(model: nn.Module, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], fresh: set[str]) -> list[str]:
    """The names to load, all but those of the parameters in `fresh` and what is beside them.

    Raises ValueError when names or shapes differ; it names the first difference and counts the others.
    """
    here = {name: tuple(value.shape) for name, value in mine.items() if not _within(name, fresh)}
    there = {name: tuple(value.shape) for name, value in theirs.items() if not _within(name, fresh)}
    shapes = [name for name in here if there.get(name, here[name]) != here[name]]
    missing = [name for name in here if name not in there and not _is_counter(name)]
    unexpected = [name for name in there if name not in here]
    count, advice = len(shapes) + len(missing) + len(unexpected), ""
    if shapes:
        name = shapes[0]
        line = f"{name} is {there[name]} there and {here[name]} here"
        noted = getattr(model, "pretrained_cfg", None)  # by timm
        if isinstance(noted, Mapping) and name == f"{noted.get('first_conv')}.weight":
            stem = STEMS.get(f"{there[name][2:]} {here[name][2:]}")
            advice = f"; model.stem={stem} takes the file's stem" if stem else ""
    elif count:
        line = f"it lacks {missing[0]}" if missing else f"it has {unexpected[0]}, which the model has not"
    elif not here:
        line = "the model is a classifier alone, and the file's is another"
    else:
        return [name for name in here if name in there]
    word = "" if count in (len(missing), len(unexpected)) else " difference" if count == 2 else " differences"
    others = f" (and {count - 1} more{word})" if count > 1 else ""
    raise ValueError(f"does not fit {type(model).__name__}: {line}{others}{advice}")
