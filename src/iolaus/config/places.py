"""Where conf/ and experiments/ are: first the user's, in the current folder, then the command's, then ours."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

INSIDE = Path(__file__).parents[1]
# in an installation they are inside the package, in a checkout beside src/
HOME = INSIDE if (INSIDE / "conf").is_dir() else INSIDE.parents[1]
CONF, EXPERIMENTS = HOME / "conf", HOME / "experiments"

_composing: ContextVar[bool] = ContextVar("composing", default=False)


@contextlib.contextmanager
def all_folders() -> Iterator[None]:
    """Within it Hydra composes from all folders; outside of it another program's Hydra may be at work."""
    Plugins.instance().register(Places)
    token = _composing.set(True)
    try:
        yield
    finally:
        _composing.reset(token)


def own_folder(name: str) -> Path | None:
    """The current folder's conf/ or experiments/; None where it has none, or is the checkout's."""
    folder = Path.cwd() / name
    return folder if folder.is_dir() and not folder.samefile(HOME / name) else None


class Places(SearchPathPlugin):
    """Adds the folders to Hydra's search path, of which the first that has a file counts."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not _composing.get():
            return
        mains = [Path(entry.path) for entry in search_path.get_path() if entry.provider == "main" and entry.path]
        own = own_folder("conf")
        if own is not None and own not in mains:
            search_path.prepend("own", f"file://{own}", anchor="main")
        if CONF not in mains:
            search_path.append("iolaus", f"file://{CONF}")
        for folder in dict.fromkeys([own_folder("experiments"), *(main.parent / "experiments" for main in mains)]):
            if folder is not None and folder != EXPERIMENTS and folder.is_dir():
                search_path.append("own", f"experiments://{folder}")
