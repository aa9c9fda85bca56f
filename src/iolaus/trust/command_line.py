"""What the user typed: read once when a command starts, and the same in its worker processes.

A file can say what it likes; what stands on the command line itself is the user's word.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

from iolaus.errors import ConfigError, printable

# The keys, beside `_target_`, whose value is a dotted path.
FUNCTION_KEYS = ("dataset.initial", "augmentation.transform", "hydra.sweeper.custom_search_space")
# Groups without which there is no run; of the others `none` is an option, or leaving them out means that.
NEEDED = ("dataset", "model", "optimizer", "optimizer_groups", "scheduler", "loss", "trainer", "batch_size")
DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


class CommandLine(metaclass=Singleton):
    """The overrides of this command and the folder that it was given in. Hydra hands its singletons to its workers."""

    def __init__(self) -> None:
        self.overrides: tuple[tuple[str, str], ...] = ()
        self.folder = Path.cwd()

    def read(self, arguments: Sequence[str]) -> None:
        """Take the command's arguments, without the program's name."""
        pairs = (argument.partition("=") for argument in arguments if not argument.startswith("-"))
        self.overrides = tuple((key.lstrip("+~"), value) for key, equals, value in pairs if equals)
        self.folder = Path.cwd()

    def gives(self, key: str) -> bool:
        """Whether the user gave a value to this very key."""
        return any(given == key for given, _ in self.overrides)

    def names(self, target: str) -> bool:
        """Whether the user named this dotted path as something to build."""
        return any(
            target in DOTTED_PATH.findall(value)
            for key, value in self.overrides
            if key in FUNCTION_KEYS or key.endswith("_target_") or "_target_" in value
        )

    def file_of(self, target: str) -> Path | None:
        """The module or package of the command's folder that a dotted path begins with; None where it has none."""
        module = self.folder / target.split(".")[0]
        candidates = (module.with_suffix(".py"), module / "__init__.py")
        return next((file for file in candidates if file.is_file()), None)

    def import_from_folder(self, target: str) -> None:
        """Make the command's folder a place to import from, the last one: it takes no library's place."""
        if self.file_of(target) is not None and str(self.folder) not in sys.path:
            sys.path.append(str(self.folder))


def check_left_out(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a group that is left out (~GROUP) though a run needs one of its options."""
    words = [
        (argument, argument[1:].partition("=")[0].partition("@")[0]) for argument in arguments if argument[:1] == "~"
    ]
    left_out = [(argument, group) for argument, group in words if group in NEEDED]
    if left_out:
        raise ConfigError(
            *(f"{given}: a run needs an option of this group; give {key}=OPTION" for given, key in left_out)
        )


def check_hidden_files(folders: Sequence[tuple[str, Path]]) -> None:
    """Raise ConfigError for files of --config-dir or hydra.searchpath that others hide, which Hydra finds first.

    folders: (who has named it, as Hydra calls him, and the folder) in Hydra's order.
    """
    problems = []
    for place, (name, given) in enumerate(folders):
        key = "--config-dir" if name == "command-line" else "hydra.searchpath"
        if name != "command-line" and not name.startswith(key):
            continue
        earlier = [(folder, file) for _, folder in folders[:place] for file in sorted(folder.glob("**/*.yaml"))]
        for folder, file in earlier:
            hidden = given / file.relative_to(folder)
            if hidden.is_file() and hidden.read_bytes() != file.read_bytes():
                way = "give it another name, or put it into conf/ of the current folder, which comes first"
                problems.append(f"{key}: {printable(str(hidden))} is hidden by {printable(str(file))}; {way}")
    if problems:
        raise ConfigError(*problems)


def repeats_target(override: str, config_file: Path) -> bool:
    """Whether an override names a target as the saved configuration of a run does: the user's word that it may run."""
    key, _, value = override.partition("=")
    if not (key.endswith("_target_") or key in FUNCTION_KEYS) or not config_file.is_file():
        return False
    return str(OmegaConf.select(OmegaConf.load(config_file), key)) == value
