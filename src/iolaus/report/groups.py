"""Runs that can be compared: those of one dataset, with the same images held out, and of one objective."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from iolaus.report.defaults import config_of, spell_value
from iolaus.report.parsing import get_nested, read_objectives
from iolaus.report.runs import DEFAULT_OBJECTIVE, Run, Study, varied_keys
from iolaus.show.numbers import MISSING

# the keys of `dataset` that say which images are trained on and which are held out; the others say how they are seen
WHICH = ("_target_", "name", "path", "file", "config", "split", "validation", "validation_seed", "test_fraction",
         "folds", "num_classes", "train_count", "test_count")  # fmt: skip
Kind = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]  # the dataset and the objectives


def split_study(study: Study) -> list[Study]:
    """The study's groups of comparable runs, each as a study with a name, in alphabetical order.

    A run that does not tell its objective, as it has no results yet, is with the others of its dataset.
    """
    kinds = [(describe_dataset(run), objectives_of_run(run)) for run in study.runs]
    counts = Counter(kind for kind in kinds if kind[1])
    groups: dict[Kind, list[Run]] = {}
    for run, (dataset, objectives) in zip(study.runs, kinds, strict=True):
        if not objectives:
            likely = [names for (other, names), _ in counts.most_common() if other == dataset]
            objectives = likely[0] if likely else (DEFAULT_OBJECTIVE,)
        groups.setdefault((dataset, objectives), []).append(run)
    names = name_apart([*groups], [dataset_name(runs[0]) for runs in groups.values()])
    found = [
        replace(study, runs=runs, varied=varied_keys(runs), objectives=list(objectives), name=name)
        for name, ((_, objectives), runs) in zip(names, groups.items(), strict=True)
    ]
    return sorted(found, key=lambda group: group.name.casefold())


def name_apart(kinds: Sequence[Kind], names: Sequence[str]) -> list[str]:
    """Groups of one dataset get what tells them apart into their names: `digits, val/loss, validation 0.2`."""
    parts = [{**dict.fromkeys(objectives, ""), **dict(dataset)} for dataset, objectives in kinds]
    apart = []
    for name, own in zip(names, parts, strict=True):
        alike = [other for other, its in zip(parts, names, strict=True) if its == name]
        differs = [(key, value) for key, value in own.items() if not all((key, value) in o.items() for o in alike)]
        apart.append(", ".join([name, *(f"{key} {value}".strip() for key, value in differs)]))
    return apart


def describe_dataset(run: Run) -> tuple[tuple[str, str], ...]:
    """What says which images a run trains on; a folder by its name, since one dataset lies elsewhere elsewhere."""
    node = get_nested(config_of(run), "dataset")
    if not isinstance(node, dict):
        return (("dataset", run.settings.get("dataset", "")),)
    values = {key: spell_value(node[key]) or "" for key in WHICH if node.get(key) is not None}  # null: as if left out
    if not node.get("name"):
        values["root"] = PurePath(str(node.get("root", ""))).name
    return tuple(values.items())


def dataset_name(run: Run) -> str:
    """`CIFAR10`, the last part of a folder's path, or the option of the group `dataset`."""
    node = get_nested(config_of(run), "dataset")
    for key in ("name", "root", "path", "file"):
        if isinstance(value := get_nested(node, key), str) and value and "${" not in value:
            return PurePath(value).name or value
    target = get_nested(node, "_target_")
    return target.rpartition(".")[2] if isinstance(target, str) else run.settings.get("dataset", MISSING)


def objectives_of_run(run: Run) -> tuple[str, ...]:
    """The objectives that a run's results name, else its configuration; empty where neither does."""
    if names := tuple(read_objectives(run.result)):
        return names
    given = get_nested(config_of(run), "objective")
    values: list[object] = given if isinstance(given, list) else [given]
    return tuple(map(str, values)) if all(isinstance(value, str) for value in values) else ()
