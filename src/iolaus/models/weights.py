"""Starting weights from a local file: a run's checkpoint, or one that others saved with torch or safetensors."""

import argparse
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from iolaus.errors import first_line
from iolaus.files import checkpoint
from iolaus.files.layout import BEST
from iolaus.files.run_folder import similar_names
from iolaus.methods.depth import classifier_of

AVERAGED = ("ema", "state_dict_ema", "model_ema")
# the keys under which a larger dict (optimizer, epoch, …) keeps the model; averaged weights first, as in timm
PLACES = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and AveragedModel, and of torch.compile
# the file's stem, by the sizes of the first convolution's filters in the file and in the model
STEMS = {"(7, 7) (3, 3)": "large", "(3, 3) (7, 7)": "small"}


def load_weights(model: nn.Module, path: str | Path, *, classes: Sequence[str] | None = None) -> str:
    """Load the weights of a local file into `model`, and return one line about what was loaded and what was not.

    Names and shapes must equal the model's. Only the classifier may differ; it then keeps its initial weights. It also
    does so if file and model know their classes and these differ. BatchNorm's counters may be missing. Numbers are cast
    to the model's dtype.

    Args:
        model: on any device, in any memory format; both stay as they are.
        path: best.pt or last.pt of a run, or the run's folder (its best.pt); or a state dict, plain or in a dict
            under one of PLACES, saved by torch or, as *.safetensors, by safetensors.
        classes: names of the model's classes in their order, if known.

    Raises:
        ValueError: one line, `weights=PATH: …`, if the file is missing, unreadable (only tensors are read, no
            pickled objects) or does not fit; the model is then unchanged.
    """
    try:
        file = _file_at(Path(path).expanduser())
        content = _read_file(file)
        part, theirs = _tensors_of(content, model)
        mine = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        head = classifier_of(model)
        why_fresh = _compare_heads(mine, theirs, head) or _compare_classes(content, classes)
        names = _select_names(model, mine, theirs, head if why_fresh else set())
        with torch.no_grad():
            ready = {name: torch.empty_like(mine[name]).copy_(theirs[name]) for name in names}
            for name, value in ready.items():  # nothing fails from here on, and so far the model is unchanged
                mine[name].copy_(value)
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"weights={path}: {first_line(error)}") from error
    averaged = ", averaged" if part in AVERAGED else ""
    count = f"all {len(mine)}" if len(names) == len(mine) else f"{len(names)} of {len(mine)}"
    fresh = f"; the classifier starts fresh ({why_fresh})" if why_fresh else ""
    counters = "; no num_batches_tracked there" if any(map(_is_counter, mine.keys() - theirs.keys())) else ""
    return f"weights of {file}{averaged}: {count} tensors{fresh}{counters}"


def _file_at(path: Path) -> Path:
    """The path itself, or best.pt in it if it is a folder. Raises ValueError with the nearest names there."""
    file = path / BEST if os.path.isdir(path) else path
    if os.path.isfile(file):
        return file
    if not os.path.isdir(file.parent):
        raise ValueError(f"no such file; there is no folder {file.parent.absolute()} either")
    what = f"a folder without {BEST}" if file != path else "no such file"
    raise ValueError(f"{what}, looked for {file.absolute()}{similar_names(file)}")


def _read_file(file: Path) -> object:
    """The file's content, tensors and plain containers only. Raises ValueError if it can't be read."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file  # comes with timm

            return load_file(file)
        # timm and many training scripts save their arguments with the weights; a Namespace runs no code
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            if zipfile.is_zipfile(file):
                return checkpoint.load(file)
            return torch.load(file, map_location="cpu", weights_only=True)  # torch's format before 1.6, without CRCs
    except Exception as error:  # each library has its own error for a broken file, some without a message
        if found := re.search(r"Unsupported global: GLOBAL (\S+)", f"{error} {error.__cause__}"):
            raise ValueError(f"it holds a {found[1]}, and only tensors are read; save model.state_dict()") from error
        reason = first_line(error)
        if reason.startswith(f"{file}: "):  # checkpoint.load's message is complete
            raise ValueError(reason.removeprefix(f"{file}: ")) from error
        raise ValueError(f"no file of weights, or a damaged one ({reason})") from error


def _tensors_of(content: object, model: nn.Module) -> tuple[str, dict[str, Tensor]]:
    """The key under which a file's content keeps the weights ("" at the top), and these by the model's names."""
    content = content if isinstance(content, dict) else {}
    ours = isinstance(content.get("learner"), dict)  # last.pt
    content = content["learner"] if ours else content
    places = ("ema", "model") if ours else PLACES
    part = next((key for key in places if isinstance(content.get(key), dict) and content[key]), "")
    content = content[part] if part else content
    # AveragedModel saves its count of updates with the module that it averages
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor) and k != "n_averaged"}
    if not tensors:
        raise ValueError("it holds no tensors by name")
    own = [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in model.state_dict())]
    while prefix := next((p for p in PREFIXES if p not in own and all(k.startswith(p) for k in tensors)), ""):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return part, tensors


def _is_beside(name: str, parameters: Iterable[str]) -> bool:
    """Whether it is one of these parameters, or in the same module: a buffer, or a bias that one side lacks."""
    return any(name == its or ("." in its and name.startswith(its.rpartition(".")[0] + ".")) for its in parameters)


def _compare_heads(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], head: set[str]) -> str:
    """How the file's classifier differs from the model's in names or shapes; empty if it does not."""
    here = {name: tuple(value.shape) for name, value in mine.items() if _is_beside(name, head)}
    there = {name: tuple(value.shape) for name, value in theirs.items() if _is_beside(name, head)}
    if here == there:
        return ""
    if not there:
        return "the file has none"
    for name, shape in here.items():
        if there.get(name, shape)[:1] != shape[:1]:
            return f"{there[name][0]} classes there, {shape[0]} here"
    name = next(name for name in [*here, *there] if here.get(name) != there.get(name))
    return f"{name} is {there.get(name, 'not')} there and {here.get(name, 'not')} here"


def _compare_classes(content: object, classes: Sequence[str] | None) -> str:
    """How the classes of a best.pt differ from the model's; empty if they don't, or either is unknown."""
    saved = content if isinstance(content, dict) and content.keys() >= {"model", "metrics", "classes"} else {}
    if classes is None or not isinstance(saved.get("classes"), list | tuple):
        return ""
    there, here = list(saved["classes"]), list(classes)
    if len(there) != len(here):
        return f"{len(there)} classes there, {len(here)} here"
    pairs = enumerate(zip(there, here, strict=True))
    return next((f"class {i} is {one} there and {other} here" for i, (one, other) in pairs if one != other), "")


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")  # old files lack it, and BatchNorm does not read it by default


def _select_names(
    model: nn.Module, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], fresh: set[str]
) -> list[str]:
    """The names to load: all but the parameters in `fresh` and what is beside them in their modules.

    Raises ValueError if names or shapes differ, with the first difference and the number of others.
    """
    here = {name: tuple(value.shape) for name, value in mine.items() if not _is_beside(name, fresh)}
    there = {name: tuple(value.shape) for name, value in theirs.items() if not _is_beside(name, fresh)}
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
        line = f"it lacks {missing[0]}" if missing else f"it has {unexpected[0]}, which the model does not have"
    elif not here:
        line = "the model is a classifier alone, and the file's is another"
    else:
        return [name for name in here if name in there]
    word = "" if count in (len(missing), len(unexpected)) else " difference" if count == 2 else " differences"
    others = f" (and {count - 1} more{word})" if count > 1 else ""
    raise ValueError(f"does not fit {type(model).__name__}: {line}{others}{advice}")
