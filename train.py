"""Train one model, or many: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from iolaus import config
from iolaus.run import run


@hydra.main(config_path="conf", config_name="config", execution_whitelist=config.allowed_targets())
def main(cfg: DictConfig) -> float:
    return run(cfg)


if __name__ == "__main__":
    with config.errors_for_people():
        main()
