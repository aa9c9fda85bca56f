"""The page that `python train.py --help` and `iolaus train --help` print."""

from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from iolaus.command import train_command
from iolaus.config.places import HOME
from iolaus.config.reference import read_reference

if TYPE_CHECKING:
    from omegaconf import DictConfig

PAGE = """\
{header}

Usage: {command} [group=option] [key=value] ...

Groups: each is a folder in conf/, each option a commented file; the default comes first
{groups}

Keys that are typed most (short name in brackets); all of them: docs/reference.md
{keys}

Examples
  {command} dataset=cifar10 dataset.download=true model=resnet18 optimizer=sgd
  {command} -m optimizer.lr=0.01,0.003 seed=0,1,2
  {command} resume=last

{footer}
"""
KEYS = (
    "trainer.epochs", "trainer.batch_size", "trainer.batch_size_schedule", "trainer.device", "trainer.precision",
    "trainer.tta", "trainer.compile", "trainer.grad_clip_norm", "trainer.sam_rho", "trainer.sam_adaptive",
    "trainer.ema_decay", "trainer.micro_batch_size", "trainer.scale_lr_with_batch", "trainer.deterministic",
    "optimizer.lr", "optimizer.weight_decay", "optimizer_groups.lr_factors", "scheduler.warmup_epochs", "model.name",
    "model.pretrained", "model.weights", "dataset.root", "dataset.download", "dataset.validation",
    "dataset.image_size", "dataset.residency", "dataset.initial", "dataset.cache_dir", "dataset.on_bad_image",
    "augmentation.transform", "early_stopping.monitor", "early_stopping.patience", "early_stopping.min_delta",
    "objective", "seed", "study", "resume",
)  # fmt: skip


def format_help(*names: str, _root_: "DictConfig") -> str:
    """The page; with names, as a conf/ of one's own may give them, a line for each key that is named, all groups and
    options for `groups`, or the command that starts a run for `command`.

    _root_: the composed configuration, whose search path has the folders. The text goes through a string.Template, so a
    dollar is doubled.
    """
    command = " ".join(train_command())
    if names == ("command",):
        return command
    sources = _root_.hydra.runtime.config_sources
    files, recipes = (tuple(s.path for s in sources if s.schema == schema) for schema in ("file", "experiments"))
    # a relative folder is ours (experiments.py)
    reference = read_reference(files, tuple(str(HOME / folder) for folder in recipes))
    groups = "\n".join(reference.format_groups())
    keys = "\n".join(reference.format_key(name, OmegaConf.select(_root_, name)) for name in names or KEYS)
    parts = {"command": command, "header": _root_.hydra.help.header, "footer": _root_.hydra.help.footer}
    text = groups if names == ("groups",) else keys if names else PAGE.format(**parts, groups=groups, keys=keys)
    return text.replace("$", "$$")
