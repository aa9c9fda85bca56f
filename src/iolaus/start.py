"""A run or a study as Hydra starts it from the arguments of this process: what train.py does, called from anywhere."""

import sys
from collections.abc import Callable, Sequence

import hydra
from omegaconf import DictConfig

from iolaus.config.explain import exit_on_user_errors
from iolaus.config.places import CONF
from iolaus.follow import take_rank
from iolaus.run import run
from iolaus.trust.hydra_node import HYDRA_TARGETS
from iolaus.trust.targets import ALLOWED


def start(task: Callable[[DictConfig], object]) -> None:
    """Compose what `sys.argv` says and call `task` with it, once for each run."""
    hydra.main(config_path=str(CONF), config_name="config", execution_whitelist=[*HYDRA_TARGETS, *ALLOWED])(task)()


def main(arguments: Sequence[str]) -> int:
    """`iolaus train`. Hydra and the checks at its door read the arguments where a program's stand."""
    sys.argv[1:] = arguments
    with exit_on_user_errors(), take_rank():
        start(run)
    return 0
