"""Tables of the library `datasets`, from the hub or a local folder, by its builders that read data alone."""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iolaus.command import can_redraw
from iolaus.data.folder_layout import TRAIN, role_of
from iolaus.errors import nearest, printable

if TYPE_CHECKING:
    from datasets import Dataset

# The builders of the library that read pictures and tables and decode nothing else, and its own cache. Others unpickle
# (pandas, before version 5), decode whatever an archive holds (webdataset) or ask servers (sql, iceberg).
BUILDERS = frozenset({"arrow", "cache", "imagefolder", "parquet"})
BUILDER_HOME = "datasets.packaged_modules."
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = {".parquet": "parquet", ".arrow": "arrow"}
SAVED = ("dataset_dict.json", "state.json")  # of `save_to_disk`


def open_tables(
    name: str, path: Path | None, config: str | None, revision: str | None, download: bool
) -> dict[str, "Dataset"]:
    """{split: table} of a dataset. Raises ValueError for a builder that is not among BUILDERS, before it reads data."""
    import datasets

    local = path is not None
    if not local and not HUB_NAME.fullmatch(name):
        raise ValueError(f"name={name}: no such folder or file here, and a name on the hub is OWNER/NAME")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs as errors, it raises as well
    if not can_redraw(sys.stderr):
        datasets.disable_progress_bars()
    try:
        with stay_offline(local or not download):
            if path is not None and any((path / mark).is_file() for mark in SAVED):
                opened = datasets.load_from_disk(str(path))
                return dict(opened) if isinstance(opened, datasets.DatasetDict) else {TRAIN: opened}
            if path is not None and path.is_file():
                if path.suffix not in FILES:
                    raise ValueError(f"name={name}: {nearest(path.suffix, FILES)}")
                builder = datasets.load_dataset_builder(FILES[path.suffix], data_files=str(path))
            else:
                where = str(path.absolute()) if path is not None else name
                builder = datasets.load_dataset_builder(where, config, revision=revision)
            check_builder(name, builder)
            if path is not None and path.is_dir():
                check_files(name, path, builder.config.data_files or {})
            builder.download_and_prepare()
            return dict(builder.as_dataset())
    except Exception as error:  # whatever the library raises on a dataset that is not there, or not whole
        if isinstance(error, ValueError) and str(error).startswith("name="):
            raise
        raise ValueError(explain_refusal(name, config, error, local or download)) from error


def check_builder(name: str, builder: object) -> None:
    """Raise ValueError unless a builder is one of the library's own that are known to read data alone."""
    homes = [base.__module__ for base in type(builder).__mro__ if base.__module__.startswith(BUILDER_HOME)]
    kind = homes[0].removeprefix(BUILDER_HOME).split(".")[0] if homes else type(builder).__name__
    if kind not in BUILDERS:
        allowed = ", ".join(sorted(BUILDERS - {"cache"}))
        raise ValueError(
            f"name={name}: is read by the builder {kind}; allowed: {allowed}. The hub keeps most datasets as Parquet, "
            "too: dataset.revision=refs/convert/parquet"
        )


def check_files(name: str, folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where a folder's README names files outside of the folder as its splits.

    files: those of each split, as the library has found them.
    """
    inside = folder.resolve()
    for file in (file for of_split in files.values() for file in of_split):
        if not Path(file).resolve().is_relative_to(inside):
            raise ValueError(f"name={name}: its README names {printable(str(file))}, which lies outside of the folder")


@contextlib.contextmanager
def stay_offline(wanted: bool) -> Iterator[None]:
    """Let the library use its cache alone: no request is made."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if wanted:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def explain_refusal(name: str, config: str | None, error: Exception, complete: bool) -> str:
    """The line for an error of the library. complete: whether more than its cache was looked at."""
    why = " ".join(str(error).split("Example of usage")[0].split()) or type(error).__name__
    if "Config name" in why or "BuilderConfig" in why:
        return f"config={config}: {printable(why)}"
    if complete:
        return f"name={name}: {printable(why)}"
    return f"name={name}: not in the library's cache; dataset.download=true gets it ({printable(why)})"


def choose_splits(
    tables: Mapping[str, "Dataset"], chosen: Mapping[str, str | None]
) -> tuple[dict[str, "Dataset"], list[str]]:
    """({train, val, test: table}, notes on splits that are left out). Raises ValueError."""
    import datasets

    found: dict[str, list[str]] = {}
    for role, given in chosen.items():
        if given is not None:
            found[role] = given.split("+")
            for part in found[role]:
                if part not in tables:
                    raise ValueError(f"{role}_split={given}: no such split; {nearest(part, tables)}")
        else:
            found[role] = [split for split in tables if role_of(split) == role]
            if len(found[role]) > 1:
                raise ValueError(f"{role}_split=null: which of them is it? {', '.join(map(printable, found[role]))}")
    if not found[TRAIN] and len(tables) == 1:
        found[TRAIN] = list(tables)
    if not found[TRAIN]:
        raise ValueError(f"train_split=null: which of the splits is it? {', '.join(map(printable, tables))}")
    named = [part for parts in found.values() for part in parts]
    twice = sorted({part for part in named if named.count(part) > 1})
    if twice:
        raise ValueError(f"the split {printable(twice[0])} is taken more than once; see dataset.train_split")
    others = [split for split in tables if split not in named]
    notes = [f"left out: the splits {', '.join(map(printable, others))}"] if others else []
    joined = {role: [tables[part] for part in parts] for role, parts in found.items() if parts}
    return {
        role: parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts) for role, parts in joined.items()
    }, notes
