"""Trackio as a tracker (`tracker=trackio`): W&B's calls, a database of this machine, a dashboard without an account."""

import contextlib
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.show.wandb_service import read_or_create_id

if TYPE_CHECKING:
    from iolaus.show.trackers import Picture


class Trackio:
    """A run of Trackio, kept on this machine: in `$TRACKIO_DIR`, else where the library keeps its data.

    A server or a Space of the user's own is used where the environment names one (`TRACKIO_SERVER_URL`,
    `TRACKIO_SPACE_ID`), as the library does; a configuration can't. The run's name ends in an id from
    `folder/trackio-id`, under which a resumed run continues. Its group is the study. Raises ValueError where the
    library is not installed, and for a name that leads to another folder.

    name: the folder's name if None. project: Trackio shows the runs of one project beside each other.
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: dict[str, Any],
        study: str | None = None,
        project: str = "iolaus",
        name: str | None = None,
    ):
        if importlib.util.find_spec("trackio") is None:
            raise ValueError("needs the library trackio: pip install 'iolaus[trackio]'")
        for key, value in (("project", project), ("name", name)):
            if value is not None and (value != Path(value).name or "\\" in value):
                raise ValueError(f"{key}={value}: must be a plain name, which can be that of a folder")
        import trackio

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        run_id = read_or_create_id(folder / "trackio-id")
        with no_chatter():
            self.run = trackio.init(
                project=project,
                name=f"{name or folder.resolve().name}-{run_id}",
                group=study,
                config=config,
                resume="allow",
                embed=False,  # no dashboard in a notebook's cell
                auto_log_gpu=False,  # the hardware is in our metrics
                auto_log_cpu=False,
            )

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)

    def text(self, name: str, value: str) -> None: ...  # it is in the configuration

    def image(self, name: str, picture: "Picture", step: int) -> None:
        import trackio

        self.run.log({name: trackio.Image(picture)}, step=step)

    def close(self) -> None:
        import trackio

        finish: Callable[[], None] = trackio.finish
        with no_chatter():
            finish()


def no_chatter() -> contextlib.AbstractContextManager[object]:
    """Keep what the library prints off the terminal, where a run's own lines are."""
    return contextlib.redirect_stdout(io.StringIO())
