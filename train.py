"""Train one model, or many: `python train.py --help`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from iolaus.config import allowed_targets
from iolaus.errors import errors_for_people
from iolaus.run import run

CONF = str(Path(__file__).parent / "conf")


@hydra.main(config_path=CONF, config_name="config", execution_whitelist=allowed_targets())
def main(cfg: DictConfig) -> float:
    return run(cfg)


if __name__ == "__main__":
    with errors_for_people():
        main()
