"""What a run writes: results.json, what was measured, with what, and where; and the content of its checkpoints."""

import functools
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iolaus import loop
from iolaus.config.build import Parts
from iolaus.errors import first_line
from iolaus.files.layout import FAILED, FINISHED, PRUNED
from iolaus.learner import LoopState, Metrics
from iolaus.machine import hardware
from iolaus.machine.monitor import epoch_means
from iolaus.methods import stopping, tta

log = logging.getLogger(__name__)
HARDWARE = "hardware/"


def evaluate_final(
    parts: Parts, state: LoopState, load_best: Callable[[], dict[str, Any]], with_test: bool = True
) -> dict[str, Metrics]:
    """Metrics of the last and of the best epoch, with test: evaluated once for the last weights, once for the best.

    load_best: loads the content of best.pt. Where the best epoch was chosen on the test set
    (`dataset.validation=test`), its val metrics are the test ones. With `trainer.tta` test is evaluated a second time,
    as test/tta_loss and test/tta_accuracy. with_test: false leaves test out, as a search does until a trial has won.
    """
    learner, settings, data = parts.learner, parts.config.trainer, parts.data
    history, last = state.history, len(state.history) - 1
    best = stopping.best_epoch(history, parts.config.launch.objectives[0])
    assert best is not None
    metrics = {"last": dict(history[last]), "best": dict(history[best])}
    if not learner.group.broadcast(with_test):
        data.share_skipped(learner.group)
        return metrics
    for which, epoch in (("last", last), ("best", best)):
        if which == "best" and best == last:
            metrics["best"] |= {name: value for name, value in metrics["last"].items() if name.startswith("test/")}
            continue
        if which == "best" and not (data.selected_on_test and settings.tta == "none"):
            weights, problem = learner.group.broadcast(read_best(load_best))
            try:
                learner.eval_model.load_state_dict(weights)
            except RuntimeError as error:  # lost or damaged: the run can end all the same
                log.warning("no test of the best epoch: %s", problem or first_line(error))
                continue
        if data.selected_on_test:
            test = {k.removeprefix("val/"): v for k, v in history[epoch].items() if k.startswith("val/")}
        else:
            test, _ = loop.evaluate(learner, data.test, settings.eval_batch_size)
        if settings.tta != "none":
            forward = functools.partial(tta.average_logits, how=settings.tta)
            augmented, _ = loop.evaluate(learner, data.test, settings.eval_batch_size, forward)
            test |= {f"tta_{name}": value for name, value in augmented.items()}
        metrics[which] |= {f"test/{name}": value for name, value in test.items()}
    data.share_skipped(learner.group)
    return metrics


def read_best(load_best: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The weights of the best epoch, and an empty line; no weights, and why, where they can't be read."""
    try:
        return load_best()["model"], ""
    except ValueError as error:
        return {}, first_line(error)


def describe_finished(parts: Parts, state: LoopState, metrics: dict[str, Metrics]) -> dict[str, Any]:
    """The content of results.json of a finished run; accuracies are fractions, times seconds, memory bytes.

    best_test_* belong to the best epoch by the objective; the other best_* are the best of all epochs.
    """
    history = state.history
    seconds = sum(m["seconds"] for m in history)
    images = sum(m["seconds"] * m["images_per_second"] for m in history)
    early = state.epoch < parts.config.trainer.epochs
    return {
        "status": FINISHED,
        "stopped": "early stopping" if early else None,
        **describe_objectives(parts, history),
        **best_of_all_epochs(history),
        "best_test_accuracy": metrics["best"].get("test/accuracy"),
        "best_test_loss": metrics["best"].get("test/loss"),
        "selected_on_test": parts.data.selected_on_test,
        "metrics": metrics,
        "epochs": state.epoch,
        "steps": state.step,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "hardware": summarise_hardware(history),
        **describe_run(parts, history),
    }


def describe_pruned(parts: Parts, state: LoopState) -> dict[str, Any]:
    """The content of results.json of a run that its study has ended early; test is not evaluated."""
    history = state.history
    return {
        "status": PRUNED,
        **describe_objectives(parts, history),
        **best_of_all_epochs(history),
        "epochs": state.epoch,
        "steps": state.step,
        "seconds": sum(m["seconds"] for m in history),
        **describe_run(parts, history),
    }


def describe_failed(parts: Parts, state: LoopState, error: str) -> dict[str, Any]:
    """The content of results.json of a run that can't go on, so that a sweep's table can say why."""
    seconds = sum(m["seconds"] for m in state.history)
    return {"status": FAILED, "error": error, "seconds": seconds, **describe_run(parts, state.history)}


def best_of_all_epochs(history: list[Metrics]) -> Metrics:
    """The best train and val values, each of its own epoch."""
    kinds = [(split, name) for name in ("accuracy", "loss") for split in ("train", "val")]
    return {
        f"best_{split}_{name}": (max if name == "accuracy" else min)(m[f"{split}/{name}"] for m in history)
        for split, name in kinds
    }


def describe_objectives(parts: Parts, history: list[Metrics]) -> dict[str, Any]:
    """The values that a sweep compares, at the last epoch: the `objective`, and all of them in a search of several."""
    costs = {"seconds": sum(m["seconds"] for m in history), "parameters": parts.parameters}
    of_last = {**history[-1], **costs}
    values = [{"name": name, "value": of_last[name]} for name in parts.config.launch.objectives]
    return {"objective": values[0], "objectives": values}


def summarise_hardware(history: list[Metrics]) -> Metrics:
    """What the monitor saw over the whole run: the most bytes, the mean of percent and watts, each epoch alike."""
    epochs = [{k.removeprefix(HARDWARE): v for k, v in m.items() if k.startswith(HARDWARE)} for m in history]
    return epoch_means(enumerate(epochs))


def describe_run(parts: Parts, history: list[Metrics]) -> dict[str, Any]:
    """What every results.json ends with: all that the numbers depend on, the history and the configuration."""
    learner = parts.learner
    return {
        "parameters": parts.parameters,
        "data": parts.data.description,
        "folds": parts.config.dataset.folds,
        "fold": parts.config.dataset.fold,
        "data_fingerprint": parts.fingerprint,
        "precision": learner.precision,
        "device": str(learner.device),
        "device_name": hardware.device_name(learner.device),
        "world_size": learner.group.world,
        "rank_batch_size": -(-learner.settings.batch_size // learner.group.world),
        "batchnorm": parts.batchnorm,
        "channels_last": parts.channels_last,
        "compiled": parts.compiled,
        "cuda_graphs": bool(getattr(parts.learner.launch, "recordings", None)),
        "skipped_images": parts.data.skipped_images,
        "peak_memory_bytes": hardware.peak_memory(learner.device),
        "versions": hardware.versions(),
        "git": hardware.git_state(),
        "own_code": parts.own_code,
        "history": history,
        **describe_model(parts),
    }


def describe_input(parts: Parts) -> dict[str, Any]:
    """What a picture needs before the model can take it (ImageInput), and the user's own first step, if any."""
    return {**asdict(parts.data.input), "initial": parts.config.plain["dataset"].get("initial")}


def describe_model(parts: Parts) -> dict[str, Any]:
    """What it takes to use a run's weights."""
    return {"classes": parts.data.classes, "input": describe_input(parts), "config": parts.config.plain}


def pack_best(parts: Parts, state: LoopState) -> dict[str, Any]:
    """The content of best.pt: the weights that are evaluated, and what it takes to use them."""
    return {"model": parts.learner.eval_model.state_dict(), "metrics": state.history[-1], **describe_model(parts)}


def pack_last(parts: Parts, state: LoopState) -> dict[str, Any]:
    """The content of last.pt: all that a resumed run needs, and what it takes to use the weights."""
    whole = {"learner": parts.learner.state_dict(), "state": state.state_dict(), "fingerprint": parts.fingerprint}
    return {**whole, "own_code": parts.own_code, **describe_model(parts)}


def model_name(parts: Parts) -> str:
    """The name that was asked for, else the model's class."""
    return str(parts.config.model_node.arguments.get("name") or type(parts.learner.model).__name__)


def title_of(parts: Parts) -> str:
    """`resnet18 on cifar10, SGD, seed 0`"""
    node = parts.config.dataset_node
    reader, root = node.path.rpartition(".")[2], Path(str(node.arguments.get("root", ""))).name
    dataset = node.arguments.get("name") or (root if reader == "image_folder" else reader)
    optimizer = type(parts.learner.optimizer).__name__
    return f"{model_name(parts)} on {dataset}, {optimizer}, seed {parts.config.launch.seed}"
