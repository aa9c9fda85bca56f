"""Saved configurations as they would be saved now: a run's folder outlives the files and the keys of its config."""

from typing import Any

# before the first release all files lay in one folder
MOVED_TARGETS = {
    "iolaus.augment.Basic": "iolaus.augment.pipeline.Augmentation",
    "iolaus.muon.Muon": "iolaus.methods.muon.Muon",
    "iolaus.stopping.Patience": "iolaus.methods.stopping.Patience",
    "iolaus.trackers.TensorBoard": "iolaus.show.trackers.TensorBoard",
    "iolaus.trackers.WandB": "iolaus.show.trackers.WandB",
    "iolaus.trackers.JSONL": "iolaus.show.trackers.JSONL",
    "iolaus.grid.Grid": "iolaus.studies.grid.GridSweeper",
    "iolaus.sweeper.OptunaSweeper": "iolaus.studies.search.OptunaSweeper",
    "iolaus.folders.Folders": "iolaus.studies.folders.Folders",
}

# keys that came later, by group, and what was done before there was a choice
LATER_KEYS = {"dataset": {"resizing": "exact"}}


def update_config(saved: object) -> dict[str, Any]:
    """A copy of a saved configuration, as plain containers, that means today what it meant when it was saved."""
    config: dict[str, Any] = rename_targets(saved)
    for group, keys in LATER_KEYS.items():
        if isinstance(config.get(group), dict):
            config[group] = {**keys, **config[group]}
    return config


def rename_targets(node: Any) -> Any:
    """A copy of a saved configuration, as plain containers, in which every `_target_` is where it lives now."""
    if isinstance(node, dict):
        return {
            key: MOVED_TARGETS.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else rename_targets(value)
            for key, value in node.items()
        }
    return [rename_targets(value) for value in node] if isinstance(node, list) else node
