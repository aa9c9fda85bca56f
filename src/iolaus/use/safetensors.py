"""Weights as safetensors, in timm's `local-dir:` form where timm can build the model."""

import inspect
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from iolaus.config.build_data import TIMM_BUILDER
from iolaus.errors import RunFailed
from iolaus.files.atomic import write_atomically, write_json
from iolaus.models.timm import build
from iolaus.settings import ModelSettings
from iolaus.use.classifier import Classifier
from iolaus.use.find import SavedModel
from iolaus.use.graph import example_images, largest_difference

WEIGHTS, CONFIG, DESCRIPTION = "model.safetensors", "config.json", "iolaus.json"


def write_safetensors(saved: SavedModel, model: Classifier, out: Path) -> list[str]:
    """Write a folder with the weights and what they are of; returns how it is used.

    config.json is timm's, and is there only if timm makes the same logits of it. iolaus.json holds classes, input and
    the model's configuration.
    """
    from safetensors.torch import save  # comes with timm

    out.mkdir(exist_ok=True)
    weights = {name: value.contiguous() for name, value in model.model.state_dict().items()}
    write_atomically(out / WEIGHTS, lambda file: file.write(save(weights, metadata={"format": "pt"})))
    described = {"classes": model.classes, "input": asdict(model.input), "model": saved.config["model"]}
    write_json(out / DESCRIPTION, described)
    (out / CONFIG).unlink(missing_ok=True)
    if saved.config["model"].get("_target_") == TIMM_BUILDER:
        write_json(out / CONFIG, timm_config(saved.config["model"], model))
        if (difference := compare_with_timm(model, out)) is not None:
            checked = f"# timm against the run's model: logits differ by at most {difference:.1e}"
            create = f'model = timm.create_model("local-dir:{out}", pretrained=True).eval()'
            transform = "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
            return [checked, "import timm", create, transform]
        (out / CONFIG).unlink()
    return [
        "# the weights alone: timm does not build this model (another library's, or with a stem for small images)",
        "from safetensors.torch import load_file",
        f"model.load_state_dict(load_file({str(out / WEIGHTS)!r}))  # {DESCRIPTION} says of what model",
    ]


def timm_config(node: dict[str, Any], model: Classifier) -> dict[str, Any]:
    """What timm reads from config.json. node: the model's configuration, of iolaus.models.timm.build."""
    ours = {"_target_", *(field.name for field in fields(ModelSettings)), *inspect.signature(build).parameters}
    arguments = {key: value for key, value in node.items() if key not in ours}
    arguments["in_chans"] = model.input.channels
    pretrained_cfg = dict(getattr(model.model, "pretrained_cfg", {}))
    if pretrained_cfg.get("fixed_input_size"):
        arguments.setdefault("img_size", model.input.size)
    names = ("first_conv", "classifier", "pool_size", "fixed_input_size")
    return {
        "architecture": str(node["name"]).partition(".")[0],
        "num_classes": len(model.classes),
        "num_features": getattr(model.model, "num_features", None),
        "pretrained_cfg": {
            **{name: pretrained_cfg[name] for name in names if name in pretrained_cfg},
            "num_classes": len(model.classes),
            "label_names": model.classes,
            "input_size": [model.input.channels, model.input.size, model.input.size],
            "interpolation": model.input.interpolation,
            "crop_pct": model.input.size / model.input.kept_size,
            "crop_mode": "center",
            "mean": model.input.mean,
            "std": model.input.std,
        },
        "model_args": arguments,
    }


def compare_with_timm(model: Classifier, folder: Path) -> float | None:
    """The largest difference between the logits of the run's model and timm's; None if timm builds another model."""
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            other = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return largest_difference(model.model, other, example_images(model, "float", 2))
    except (RuntimeError, ValueError, TypeError, RunFailed):
        return None
