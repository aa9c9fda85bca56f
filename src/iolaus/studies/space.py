"""The search space of a study, read in Hydra's syntax, and the sampler that draws a trial's parameters from it.

The syntax is that of Hydra's own Optuna sweeper: `key=interval(0.001,0.1)`, `key=choice(a,b)`, `key=range(1,10)`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import create_trial

from iolaus.config.node import Node
from iolaus.errors import ConfigError, first_line, nearest
from iolaus.studies.compat import enumerate_values, parse_override
from iolaus.studies.job import to_overrides
from iolaus.studies.search_parts import build_search_part
from iolaus.trust.targets import locate

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from optuna import Trial
    from optuna.samplers import BaseSampler

    from iolaus.studies.compat import Distribution

# These go through one sequence, and find their place in it in the study: another seed would be another sequence.
SEQUENCE_SAMPLERS = ("GridSampler", "QMCSampler")


@dataclass
class Space:
    """searched: key -> distribution. overrides: of every trial. extend: the user's (config, trial), or None."""

    searched: dict[str, "Distribution"] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    extend: "Callable[[DictConfig, Trial], None] | None" = None

    def draw(self, trial: "Trial", config: "DictConfig") -> None:
        """Draw the parameters that a trial does not have yet."""
        known = trial.distributions
        for key, distribution in self.searched.items():
            if key not in known:
                suggest(trial, key, distribution)
        if self.extend is not None:
            self.extend(config, trial)

    def probe_points(self) -> list[list[str]]:
        """Overrides of a few points that together have every choice and both ends of every range."""
        values = {
            key: list(d.choices) if isinstance(d, CategoricalDistribution) else [d.low, d.high]
            for key, d in self.searched.items()
        }
        first = {key: ends[0] for key, ends in values.items()}
        others = [first | {key: value} for key, ends in values.items() for value in ends[1:]]
        return [[*to_overrides(point), *self.overrides] for point in (first, *others)]

    def check_point(self, point: Mapping[str, Any]) -> None:
        """Raise ConfigError if a point that is to be tried first is not in this space; it may leave out keys."""
        for key, value in point.items():
            where = f"hydra.sweeper.enqueue: {key}={value}"
            if key in self.searched:
                try:
                    create_trial(params={key: value}, distributions={key: self.searched[key]}, value=0.0)
                except (ValueError, TypeError) as error:
                    raise ConfigError(f"{where}: not in the space {self.searched[key]}") from error
            elif self.extend is None:
                raise ConfigError(f"{where}: {key} is not searched; {nearest(key, self.searched)}")

    def grid(self) -> dict[str, list[Any]]:
        """The values of each key, for the sampler that goes through all combinations."""
        grid = {}
        for key, distribution in self.searched.items():
            try:
                grid[key] = enumerate_values(distribution)
            except ValueError as error:
                hint = f"{key} has no end of values; give choice(x,y) or range(a,b,step)"
                raise ConfigError(f"hydra/sweeper/sampler=grid: {hint}") from error
        return grid


def suggest(trial: "Trial", key: str, distribution: "Distribution") -> None:
    """Draw a parameter of a trial from a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def read_space(arguments: list[str], custom: str | None) -> Space:
    """The space of a sweep's arguments; a later argument replaces an earlier one of its key.

    custom: the dotted path of the user's function (config, trial), or None. Raises ConfigError for any mistake.
    """
    space, deletions = Space(), []
    fixed: dict[str, str] = {}
    for argument in arguments:
        try:
            searched, given, deleted = parse_override(argument)
        except Exception as error:  # of Hydra's parser, or of Optuna's distributions
            hint = "a space is interval(a,b), choice(x,y), range(a,b) or values with commas between"
            raise ConfigError(f"{argument}: {first_line(error).rstrip('.')}; {hint}") from error
        for key in (*searched, *given):
            space.searched.pop(key, None)
            fixed.pop(key, None)
        space.searched |= searched
        fixed |= given
        deletions += deleted
    space.overrides = [*to_overrides(fixed), *deletions]
    if custom:
        key, config = "hydra.sweeper.custom_search_space", {"_target_": custom}
        space.extend = Node(key, locate(key, config), config).partial()
    if not space.searched and space.extend is None:
        raise ConfigError("hydra/sweeper=optuna: nothing to search; give a space, 'optimizer.lr=interval(0.001,0.1)'")
    return space


def is_grid(sampler: Mapping[str, Any]) -> bool:
    """Whether a sampler's node names the one that goes through all combinations."""
    return str(sampler["_target_"]).endswith("GridSampler")


def make_sampler(node: Mapping[str, Any], space: Space, seed: int, number: int) -> "BaseSampler":
    """The sampler of one trial. It keeps nothing in memory: each trial has its own, seeded by the trial's number.

    So a search goes on after a restart, or in another process, as it would have without.
    """
    node = dict(node)
    if "seed" in node:
        seed = seed if node["seed"] is None else node["seed"]
        in_sequence = str(node["_target_"]).endswith(SEQUENCE_SAMPLERS)
        node["seed"] = seed if in_sequence else derive_seed(seed, number)
        if in_sequence and not node.get("independent_sampler", True):  # for the parameters of conditions
            random = {"_target_": "optuna.samplers.RandomSampler", "seed": derive_seed(seed, number)}
            node["independent_sampler"] = random
    made = build_search_part("sampler", node)
    sampler: BaseSampler = made(space.grid()) if is_grid(node) else made
    return sampler


def derive_seed(seed: int, number: int) -> int:
    """A seed of 32 bits for the sampler of one trial."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
