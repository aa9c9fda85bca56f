"""What options a group has, and what a user meant who chose one that there is not, or that can't be taken there."""

import re
import sys
from collections.abc import Iterable

from iolaus.config.places import CONF, HOME, own_folder
from iolaus.errors import nearest

CHOICES = ("dataset", "model", "optimizer", "scheduler", "loss")  # groups of which a run has one option
NOT_LOADED = re.compile(r"Could not load '(?P<group>.+)/(?P<option>[^/']+)'")  # of a list: augmentation=[basic,nix]
TOO_LATE = re.compile(r"'(?P<group>.+)' must be selected before the sweep .* from '.*' to '(?P<option>[^']*)'")


def list_options(group: str) -> list[str]:
    """The options of a group in the user's folders and in ours, the shortest first; empty for what is no group."""
    place, inside = ("experiments", "") if group == "experiment" else ("conf", group)
    folders = [folder / inside for folder in (own_folder(place), HOME / place) if folder]
    names = {path.stem for folder in folders for path in folder.glob("*.yaml") if not path.name.startswith("_")}
    return sorted(names, key=lambda name: (len(name), name))


def explain_option(path: str, options: Iterable[str]) -> str:
    """The line for an option that there is not. path: `group/option`, as Hydra names it."""
    group, _, option = path.rpartition("/")
    if group == "model" and is_timm_model(option):
        return f"model={option}: no such option; it is a network of timm's: model=timm model.name={option}"
    public = [name for name in options if not name.startswith("_")]
    return f"{group}={option}: no such option; {nearest(option, public)}"


def is_timm_model(name: str) -> bool:
    """Whether timm has a network of this name, perhaps with a tag: resnet10t, resnet18.a1_in1k."""
    try:
        import timm
    except ImportError:
        return False
    return bool(timm.is_model(name.partition(".")[0]))


def explain_choice(message: str) -> str | None:
    """The line for what Hydra says of an option that can't be taken; None for another message."""
    if (found := NOT_LOADED.search(message)) and (options := list_options(found["group"])):
        return explain_option(f"{found['group']}/{found['option']}", options)
    if found := TOO_LATE.search(message):
        given = next((word for word in sys.argv[1:] if word.startswith("experiment=")), found["group"])
        chosen = f"{found['group']}={found['option']}"
        return f"{given}: {chosen} holds for a whole sweep, so a recipe with it is given alone, not as one of several"
    return None


def explain_list(override: str) -> str | None:
    """The line for several of our options of a group that has one: `optimizer=[sgd,adam]`. None for any other override.

    One of the user's own may be made to change another.
    """
    group, _, value = override.partition("=")
    if group not in CHOICES or not re.fullmatch(r"\[[\w, ]+\]", value):
        return None
    names = [name.strip() for name in value[1:-1].split(",")]
    ours = {path.stem for path in (CONF / group).glob("*.yaml")}
    if len(names) < 2 or not ours.issuperset(names):
        return None
    return f"{override}: a run has one option of this group; a sweep over several is -m {group}={','.join(names)}"


def explain_group(override: str) -> str | None:
    """The line for an override that gives a group a number or null: `batch_size=256`. None for any other override."""
    group, _, value = override.partition("=")
    options = list_options(group) if group.isidentifier() else []
    if not options or not re.fullmatch(r"null|~|true|false|[\d.e+-]+", value.strip()):
        return None
    likely = [name for name in options if (name == "none" and value in ("null", "~", "false")) or name.endswith(value)]
    meant = f"trainer.batch_size={value}" if group == "batch_size" else f"{group}={likely[0]}" if likely else ""
    hint = f"did you mean {meant}? " if meant else ""
    return f"{override}: no such option; {hint}allowed: {', '.join(sorted(options))}"


def find_option(word: str, group: str) -> str | None:
    """`optimizer.momentum with optimizer=sgd` where only other options of a group than the chosen one have a key."""
    files = sorted((CONF / group).glob("*.yaml")) if group.isidentifier() else []
    names = [file.stem for file in files if re.search(rf"^{re.escape(word)}:", file.read_text(), re.MULTILINE)]
    return f"{group}.{word} with {group}={' or '.join(names)}" if names else None
