"""Train one model, or many: `python train.py --help`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from iolaus.config.explain import exit_on_user_errors
from iolaus.follow import take_rank
from iolaus.run import run
from iolaus.trust.hydra_node import HYDRA_TARGETS
from iolaus.trust.targets import ALLOWED

CONF = str(Path(__file__).parent / "conf")


@hydra.main(config_path=CONF, config_name="config", execution_whitelist=[*HYDRA_TARGETS, *ALLOWED])
def main(cfg: DictConfig) -> float:
    return run(cfg)


if __name__ == "__main__":
    with exit_on_user_errors(), take_rank():
        main()
