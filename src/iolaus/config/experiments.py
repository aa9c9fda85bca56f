"""Recipes: `experiment=NAME` is experiments/NAME.yaml, a folder whose name is not its group's."""

import builtins
import re
from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from iolaus.config.places import HOME

GROUP = "experiment"
PACKAGE = re.compile(r"(?m)^#\s*@package\s+(\S+)")


class ExperimentsSource(ConfigSource):
    """A source of Hydra's for the group `experiment`: `experiments://FOLDER`.

    A relative folder is ours, wherever the command is given. A name that begins with an underscore is not an option.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.folder = HOME / self.path

    @staticmethod
    def scheme() -> str:
        return "experiments"

    def _inside(self, config_path: str) -> Path | None:
        """The path in the folder that a config path of the group means, without a suffix; None for another group."""
        group, _, name = config_path.partition("/")
        return self.folder / name.removesuffix(".yaml") if group == GROUP else None

    def _file(self, config_path: str) -> Path | None:
        path = self._inside(config_path)
        return None if path is None else path.with_name(path.name + ".yaml")

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if file is None or not file.is_file():
            raise ConfigLoadError(f"Config not found: {config_path}")
        package = PACKAGE.search(file.read_text(encoding="utf-8"))
        config = OmegaConf.load(file)
        if not OmegaConf.is_dict(config):
            raise ConfigCompositionException(f"{file}: must be a mapping of keys to values")
        header = {"package": package[1] if package else None}
        return ConfigResult(provider=self.provider, path=self.full_path(), config=config, header=header)

    def available(self) -> bool:
        return self.folder.is_dir()

    def is_group(self, config_path: str) -> bool:
        path = self._inside(config_path)
        return config_path == "" or (path is not None and path.is_dir())

    def is_config(self, config_path: str) -> bool:
        file = self._file(config_path)
        return file is not None and file.is_file() and not file.name.startswith("_")

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """Options, and folders of options, below a config path; an option has no suffix."""
        path = self._inside(config_path)
        if path is None:
            return [GROUP] if config_path == "" else []
        groups = [entry.name for entry in path.iterdir() if entry.is_dir()]
        options = [entry.stem for entry in path.glob("*.yaml")]
        found = {None: groups + options, ObjectType.GROUP: groups, ObjectType.CONFIG: options}[results_filter]
        return sorted({name for name in found if not name.startswith(("_", "."))})


def resolve_help(*names: str, _root_: DictConfig) -> str:
    """`${help:}`, the page of `--help`. Hydra resolves it at each start while it merges, when nobody reads it yet."""
    if OmegaConf.select(_root_, "hydra.runtime.config_sources", default=None, throw_on_missing=False) is None:
        return ""
    from iolaus.config.help_page import format_help

    return format_help(*names, _root_=_root_)


OmegaConf.register_resolver("help", resolve_help, replace=True)  # Hydra imports this file at every start
