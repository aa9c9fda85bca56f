"""The keys of a search, `hydra/sweeper=optuna`, checked before anything is made."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from omegaconf import OmegaConf

from iolaus.errors import ConfigError, nearest
from iolaus.studies.limits import check_minutes


@dataclass(frozen=True)
class SearchSettings:
    """The keys of conf/hydra/sweeper/optuna.yaml, which says what each means, in plain containers.

    direction: one for each objective. sampler, pruner: nodes with a `_target_`. Raises ConfigError for a mistake.
    """

    sampler: dict[str, Any]
    pruner: dict[str, Any]
    direction: list[Literal["minimize", "maximize"]]
    storage: str | None
    study_name: str | None
    n_trials: int
    timeout: float | None
    n_jobs: int | None
    max_failure_rate: float
    enqueue: list[dict[str, Any]] | None
    retry_failed: bool
    custom_search_space: str | None
    params: dict[str, Any] | None

    @classmethod
    def from_keys(cls, keys: Mapping[str, Any]) -> "SearchSettings":
        """Read the node `hydra.sweeper`, as Hydra hands it to a sweeper."""
        names = {field.name for field in fields(cls)}
        for key in sorted(keys.keys() ^ names):
            what = f"{key}={keys[key]}: no such key; {nearest(key, names)}" if key in keys else f"{key}: missing"
            raise ConfigError(f"hydra.sweeper.{what}")
        plain: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in keys.items()
        }
        if not isinstance(plain["direction"], list):
            plain["direction"] = [plain["direction"]]
        return cls(**plain)

    def __post_init__(self) -> None:
        check_minutes("hydra.sweeper.timeout", self.timeout)
        count, rate, points = "a whole number, 1 or more", self.max_failure_rate, self.enqueue or []
        listed = isinstance(points, list) and all(isinstance(point, dict) for point in points)
        for key, ok, allowed in (
            ("n_trials", is_count(self.n_trials), count),
            ("n_jobs", self.n_jobs is None or is_count(self.n_jobs), count),
            ("max_failure_rate", isinstance(rate, int | float) and 0 <= rate <= 1, "between 0 and 1"),
            ("direction", all(way in ("minimize", "maximize") for way in self.direction), "minimize or maximize"),
            ("retry_failed", isinstance(self.retry_failed, bool), "true or false"),
            ("enqueue", listed, "a list of points, each {key: value}"),
        ):
            if not ok:
                raise ConfigError(f"hydra.sweeper.{key}={getattr(self, key)}: must be {allowed}")


def is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1
