"""`iolaus show`: the same configuration and checks as `iolaus train`, but nothing is trained."""

import sys
from dataclasses import replace

from omegaconf import DictConfig

from iolaus.command import CommandParser, whole_number
from iolaus.config.check import RunConfig, check_composed
from iolaus.config.explain import exit_on_user_errors
from iolaus.errors import ConfigError, RunFailed
from iolaus.files.locks import file_lock
from iolaus.files.run_folder import RunFolder
from iolaus.machine.process import collect_as_usual
from iolaus.start import start
from iolaus.studies.job import Job

EXAMPLES = """\
  iolaus show                                             the default run: images, classes, layers, memory, schedule
  iolaus show dataset=image_folder dataset.root=my_images model=resnet18 'augmentation=[heavy,mixup]'
  iolaus show --lr-range model=resnet18 optimizer=sgd     a learning-rate range test: plot and suggestion
"""
DESCRIPTION = """\
Show a run before it trains. Takes what iolaus train takes, and writes into a new folder of outputs/:
batch.png, augmented training images as the model sees them with their labels, and learning_rate.png.
Prints the classes and sizes of the images, the layers with parameters, MACs and activations, and the
memory of the tensors that a training step keeps (what libraries take for themselves is not in it)."""


def main(arguments: list[str]) -> int:
    """The command. Returns its exit status."""
    parser = CommandParser("show", DESCRIPTION, EXAMPLES.rstrip("\n"))
    parser.add_argument("overrides", nargs="*", metavar="group=option or key=value", help="as for iolaus train")
    parser.add_argument("--lr-range", action="store_true", help="find a learning rate; also lr-range=true")
    parser.add_argument(
        "--steps", type=whole_number(20), metavar="N", default=150, help="batches of the range test (150)"
    )
    parser.add_argument("--config-dir", help="a folder with groups, options and recipes of your own")
    parser.allow_abbrev = False  # --lr 0.1 is a mistake, not --lr-range
    if sweeps := [word for word in arguments if word in ("-m", "--multirun")]:
        raise ConfigError(f"{sweeps[0]}: one run is shown, not a sweep; give each key one value")
    given = parser.parse_args([{"lr-range=true": "--lr-range"}.get(word, word) for word in arguments])
    if resume := [word for word in given.overrides if word.startswith("resume=")]:
        raise ConfigError(f"{resume[0]}: a run that has begun is shown by its own report; iolaus report FOLDER")

    def show(cfg: DictConfig) -> None:
        preview(cfg, given.steps if given.lr_range else None)

    sys.argv[1:] = [*given.overrides, *(["--config-dir", given.config_dir] if given.config_dir else [])]
    with exit_on_user_errors():
        start(show)
    return 0


def preview(cfg: DictConfig, range_steps: int | None) -> None:
    """Check and build what `cfg` says, and show it in Hydra's output folder. User errors leave no folder.

    range_steps: the batches of a learning-rate range test, which is then all that is done; None for everything else.
    """
    folder = Job.from_hydra().folder
    try:
        with file_lock(folder.lock):
            show_all(check_composed(cfg), folder, range_steps)
    except BaseException as error:
        folder.discard()
        if isinstance(error, ConfigError | RunFailed):  # an exit, as Hydra would put a line of its own before it
            raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
        raise


def show_all(config: RunConfig, folder: RunFolder, range_steps: int | None) -> None:
    """Build the parts of a run and show them."""
    from iolaus.config.build import build_parts  # torch and the rest, not before the checks
    from iolaus.preview import page

    collect_as_usual()
    config = replace(config, trainer=replace(config.trainer, compile=False))
    parts = build_parts(config)
    try:
        if range_steps is None:
            page.show_parts(parts, folder)
        else:
            page.show_range(parts, folder, range_steps)
    finally:
        parts.data.close()
