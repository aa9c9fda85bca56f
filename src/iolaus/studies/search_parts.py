"""The sampler and the pruner of a search: what a configuration may name as one, and how it is built."""

from typing import Any

from omegaconf import OmegaConf

from iolaus.config.node import build_within
from iolaus.config.schema import parameters_of, takes_keywords
from iolaus.errors import ConfigError, nearest
from iolaus.trust.policy import Policy
from iolaus.trust.targets import is_hydras, locate

IMPL = "hydra_plugins.hydra_optuna_sweeper._impl."
PLUGIN_FUNCTIONS = (
    f"{IMPL}create_nsgaii_sampler",
    f"{IMPL}create_nsgaiii_sampler",
    "hydra_plugins.hydra_optuna_sweeper.config.raise_motpe_removed",  # which says what to take instead
)


def is_search_part(path: str, found: object) -> bool:
    """Whether a target is a sampler, a pruner or a crossover of Optuna's, or a function that makes one."""
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.samplers.nsgaii import BaseCrossover

    if not isinstance(found, type):
        return path in PLUGIN_FUNCTIONS
    return issubclass(found, BaseSampler | BasePruner | BaseCrossover) and found.__module__.startswith("optuna.")


SEARCH_PARTS = Policy(
    packages=("optuna.samplers.", "optuna.pruners.", *PLUGIN_FUNCTIONS),
    permits=is_search_part,
    kinds="samplers and pruners of Optuna's",
)


def build_search_part(part: str, node: object) -> Any:
    """Build `hydra.sweeper.sampler` or `.pruner`. Raises ConfigError where it may not be, or refuses its arguments."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    key = f"hydra.sweeper.{part}"
    if isinstance(plain, dict) and not takes_keywords(target := locate(key, plain, SEARCH_PARTS)):
        names = parameters_of(target)
        unknown = [name for name in plain if name not in names and not is_hydras(str(name))]
        if unknown:
            raise ConfigError(*(f"{key}.{n}={plain[n]}: no such key; {nearest(str(n), names)}" for n in unknown))
    return build_within(key, plain, SEARCH_PARTS)
