"""Every file of conf/model gives a model that trains."""

import inspect
import pkgutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.nn import functional as F

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted((CONF / "model").glob("*.yaml"))
FROM_THE_DATA = {"num_classes", "in_channels", "image_size"}
LAUNCHER_KEYS = {"in_channels", "image_size", "min_image_size", "weights"}


def load(path):
    """The composed node, its callable, and the callable's parameters."""
    with initialize_config_dir(str(CONF)):
        node = OmegaConf.to_object(compose("config", [f"model={path.stem}"]).model)
    target = pkgutil.resolve_name(node.pop("_target_"))
    return node, target, inspect.signature(target).parameters


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_lists_what_may_be_set(path):
    node, _, parameters = load(path)
    assert path.read_text().startswith("# ")
    assert node.keys() >= LAUNCHER_KEYS
    assert node.keys() >= parameters.keys() - FROM_THE_DATA - {"kwargs"}


@pytest.mark.parametrize("pixels", [8, 32])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_model_trains(path, pixels):
    node, target, parameters = load(path)
    pixels = max(pixels, node["min_image_size"])
    channels = node["in_channels"] or 3
    facts = {"num_classes": 10, "in_channels": channels, "image_size": pixels}
    arguments = {key: value for key, value in node.items() if key not in LAUNCHER_KEYS}
    model = target(**arguments, **{key: facts[key] for key in facts.keys() & parameters.keys()}).train()

    logits = model(torch.randn(2, channels, pixels, pixels))
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert logits.shape == (2, 10)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
