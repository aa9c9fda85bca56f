"""What a study searches, read in Hydra's syntax, and the sampler that draws a trial's point of it.

The syntax is that of Hydra's own Optuna sweeper: `key=interval(0.001,0.1)`, `key=choice(a,b)`, `key=range(1,10)`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from iolaus import config
from iolaus.errors import ConfigError, first_line, nearest

PLUGINS = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", "optuna.pruners.*")
# Where they are in their sequence they know from the study: with another seed each trial's would be another one
ONE_SEED = ("GridSampler", "QMCSampler")


@dataclass
class Space:
    """searched: key -> optuna distribution. overrides: of every trial. extend: the user's (config, trial), or None."""

    searched: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    extend: Callable[..., None] | None = None

    def draw(self, trial: Any, composed: Any) -> None:
        """Give a trial all its parameters; those that it has already stay."""
        for key, distribution in self.searched.items():
            trial._suggest(key, distribution)
        if self.extend is not None:
            self.extend(composed, trial)

    def some_point(self) -> list[str]:
        """Overrides of one point, for a look at whether such a run can be composed at all."""
        of = {key: getattr(d, "choices", None) or (d.low,) for key, d in self.searched.items()}
        return [*(f"{key}={choices[0]}" for key, choices in of.items()), *self.overrides]

    def check_point(self, point: Mapping[str, Any]) -> None:
        """Raise ConfigError where a point that is to be tried first is none of this space; a part of one is."""
        for key, value in point.items():
            where = f"hydra.sweeper.enqueue: {key}={value}"
            if key not in self.searched:
                if self.extend is None:
                    raise ConfigError(f"{where}: {key} is not searched; {nearest(key, self.searched)}")
                continue
            try:
                inside = self.searched[key]._contains(self.searched[key].to_internal_repr(value))
            except (ValueError, TypeError):  # what is none of a choice
                inside = False
            if not inside:
                raise ConfigError(f"{where}: not in the space {self.searched[key]}")


def read(arguments: list[str], custom: str | None) -> Space:
    """The space of a sweep's arguments, of which a later one takes the place of an earlier one with its key."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    space, deletions = Space(), []
    fixed: dict[str, Any] = {}
    for argument in arguments:
        try:
            searched, given, deleted = create_params_from_overrides([argument])
        except (ValueError, AssertionError, NotImplementedError) as error:
            raise ConfigError(f"{argument}: {first_line(error)}; a space is interval(a,b), choice(x,y), range(a,b) "
                              "or values with commas between") from error  # fmt: skip
        for key in (*searched, *given):
            space.searched.pop(key, None)
            fixed.pop(key, None)
        space.searched |= searched
        fixed |= given
        deletions += deleted
    space.overrides = [*(f"{key}={value}" for key, value in fixed.items()), *deletions]
    if custom:
        node = {"_target_": custom}
        config.locate("hydra.sweeper.custom_search_space", node)
        space.extend = config.factory("hydra.sweeper.custom_search_space", node)
    if not space.searched and space.extend is None:
        raise ConfigError("hydra/sweeper=optuna: nothing to search; give a space, 'optimizer.lr=interval(0.001,0.1)'")
    return space


def grid_of(space: Space) -> dict[str, list[Any]]:
    """The values of each key, for the sampler that goes through all combinations."""
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    grid = {}
    for key, distribution in space.searched.items():
        try:
            grid[key] = list(OptunaSweeperImpl._to_grid_sampler_choices(distribution))
        except ValueError as error:
            raise ConfigError(f"hydra/sweeper/sampler=grid: {key} has no end of values; "
                              "give choice(x,y) or range(a,b,step)") from error  # fmt: skip
    return grid


def is_grid(node: Mapping[str, Any]) -> bool:
    return str(node["_target_"]).endswith("GridSampler")


def sampler(node: Any, space: Space, seed: int, number: int) -> Any:
    """The sampler for one trial. It keeps nothing in memory: each trial has its own, seeded by the trial's number.

    So a search goes on after a restart, or in another process, as it would have without.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    node = OmegaConf.to_container(node, resolve=True)
    if "seed" in node:
        seed = seed if node["seed"] is None else node["seed"]
        one = str(node["_target_"]).endswith(ONE_SEED)
        node["seed"] = seed if one else seed_of_trial(seed, number)
        if one and not node.get("independent_sampler", True):  # for what its sequence can't give, conditions
            node["independent_sampler"] = {"_target_": "optuna.samplers.RandomSampler",
                                           "seed": seed_of_trial(seed, number)}  # fmt: skip
    try:
        made = instantiate(node, _execution_whitelist_=PLUGINS)
        return made(grid_of(space)) if is_grid(node) else made
    except InstantiationException as error:
        raise ConfigError(f"hydra/sweeper/sampler: {first_line(error.__cause__ or error)}") from error


def seed_of_trial(seed: int, number: int) -> int:
    """A seed of 32 bits for a trial's sampler."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
