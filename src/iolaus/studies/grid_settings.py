"""The keys of a grid, `hydra/sweeper=basic`, checked before anything is made."""

from dataclasses import dataclass
from typing import Any

from iolaus.settings import require


@dataclass(frozen=True)
class GridSettings:
    """The keys of conf/hydra/sweeper/basic.yaml, which says what each means."""

    max_batch_size: int | None = None
    n_jobs: int | None = None
    timeout: float | None = None
    params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        size, minutes = self.max_batch_size, self.timeout
        require(size is None or size >= 1, "max_batch_size", size, "1 or more, or null")
        require(minutes is None or minutes > 0, "timeout", minutes, "minutes above 0, or null for no limit")
