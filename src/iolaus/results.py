"""results.json: what a run has measured, with what, and where."""

import functools
from typing import Any

from iolaus import hardware, loop, stopping, tta
from iolaus.checkpoint import FAILED, FINISHED, PRUNED
from iolaus.monitor import epoch_means
from iolaus.parts import Parts


def measure(parts: Parts, state: loop.State, best_weights: Any) -> dict[str, dict[str, float]]:
    """Metrics of the last and of the best epoch, with test: evaluated once for the last weights, once for the best.

    best_weights: a function that gives the state dict of the best epoch. Where the best epoch was chosen on the
    test set (`dataset.validation=test`), its val metrics are the test ones. With `trainer.tta` test is evaluated a
    second time, as test/tta_loss and test/tta_accuracy.
    """
    history, last = state.history, len(state.history) - 1
    best = stopping.best_epoch(history, parts.launch.objectives[0])
    assert best is not None
    metrics = {"last": dict(history[last]), "best": dict(history[best])}
    for which, epoch in (("last", last), ("best", best)):
        if which == "best" and best == last:
            metrics["best"] |= {name: value for name, value in metrics["last"].items() if name.startswith("test/")}
            continue
        if which == "best" and not (parts.data.selected_on_test and parts.settings.tta == "none"):
            parts.learner.evaluated.load_state_dict(best_weights())
        if parts.data.selected_on_test:
            test = {name: history[epoch][f"val/{name}"] for name in ("loss", "accuracy")}
        else:
            test, _ = loop.evaluate(parts.learner, parts.data.test, parts.settings.eval_batch_size)
        if parts.settings.tta != "none":
            forward = functools.partial(tta.logits, how=parts.settings.tta)
            better, _ = loop.evaluate(parts.learner, parts.data.test, parts.settings.eval_batch_size, forward)
            test |= {f"tta_{name}": value for name, value in better.items()}
        metrics[which] |= {f"test/{name}": value for name, value in test.items()}
    return metrics


def finished(parts: Parts, state: loop.State, metrics: dict[str, dict[str, float]], config: Any) -> dict[str, Any]:
    """The content of results.json of a finished run; accuracies are fractions, times seconds, memory bytes.

    best_test_* belong to the best epoch by the objective; the other best_* are the best of all epochs.
    """
    history = state.history
    seconds = sum(m["seconds"] for m in history)
    images = sum(m["seconds"] * m["images_per_second"] for m in history)
    early = state.epoch < parts.settings.epochs
    return {
        "status": FINISHED,
        "stopped": "early stopping" if early else None,
        **objectives(parts, history),
        **best_of_all_epochs(history),
        "best_test_accuracy": metrics["best"]["test/accuracy"],
        "best_test_loss": metrics["best"]["test/loss"],
        "selected_on_test": parts.data.selected_on_test,
        "metrics": metrics,
        "epochs": state.epoch, "steps": state.step, "seconds": seconds, "images_per_second": images / seconds,
        "hardware": watched(history), **environment(parts), "history": history, "config": config,
    }  # fmt: skip


def best_of_all_epochs(history: list[dict[str, float]]) -> dict[str, float]:
    """The best train and val values, each of its own epoch."""
    return {f"best_{split}_{name}": best(m[f"{split}/{name}"] for m in history)
            for name, best in (("accuracy", max), ("loss", min)) for split in ("train", "val")}  # fmt: skip


def objectives(parts: Parts, history: list[dict[str, float]]) -> dict[str, Any]:
    """What a sweep compares, at the last epoch: the `objective`, and all of them where a search has several."""
    costs = {"seconds": sum(m["seconds"] for m in history), "parameters": parts.parameters}
    of_last = {**history[-1], **costs}
    values = [{"name": name, "value": of_last[name]} for name in parts.launch.objectives]
    return {"objective": values[0], "objectives": values}


def pruned(parts: Parts, state: loop.State, config: Any) -> dict[str, Any]:
    """The content of results.json of a run that its study has ended early; test is not evaluated."""
    history = state.history
    return {
        "status": PRUNED,
        **objectives(parts, history),
        **best_of_all_epochs(history),
        "epochs": state.epoch, "steps": state.step, "seconds": sum(m["seconds"] for m in history),
        **environment(parts), "history": history, "config": config,
    }  # fmt: skip


def failed(parts: Parts, state: loop.State, error: str, config: Any) -> dict[str, Any]:
    """The content of results.json of a run that can't go on, so that a sweep's table can say why."""
    seconds = sum(m["seconds"] for m in state.history)
    return {"status": FAILED, "error": error, "seconds": seconds, **environment(parts), "history": state.history,
            "config": config}  # fmt: skip


def watched(history: list[dict[str, float]]) -> dict[str, float]:
    """What the monitor saw over the whole run: the most bytes, the mean of percent and watts, each epoch alike."""
    prefix = "hardware/"
    epochs = ({k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)} for metrics in history)
    return epoch_means(enumerate(epochs))


def environment(parts: Parts) -> dict[str, Any]:
    """What the numbers depend on besides the configuration."""
    learner = parts.learner
    return {
        "parameters": parts.parameters, "data": parts.data.description, "precision": learner.precision,
        "device": str(learner.device), "device_name": hardware.device_name(learner.device),
        "channels_last": parts.channels_last, "compiled": parts.compiled,
        "skipped_images": parts.data.skipped_images, "peak_memory_bytes": hardware.peak_memory(learner.device),
        "versions": hardware.versions(), "git": hardware.git_state(),
    }  # fmt: skip
