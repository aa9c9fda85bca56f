"""From a checked configuration to the model, tried on blank images, and to the weights that it starts from."""

import warnings

import torch
from torch import Tensor, nn

from iolaus.config.build_data import TIMM_BUILDER, Inputs
from iolaus.config.check import RunConfig
from iolaus.errors import ConfigError, first_line, problems_of
from iolaus.seeds import WEIGHTS, seed_device, seed_of


def build_model(config: RunConfig, inputs: Inputs, device: torch.device) -> nn.Module:
    """The model on the device, its initial weights drawn from the seed, tried on two blank images."""
    node, num_classes = config.model_node, len(inputs.source.classes)
    if config.model.weights and node.arguments.get("pretrained"):
        weights = config.model.weights
        raise ConfigError(f"model.weights={weights}: a file to start from, and model.pretrained=true; drop one")
    seed_device(seed_of(config.launch.seed, 0, WEIGHTS), device)
    channels, size = inputs.shape.channels, inputs.shape.size
    with warnings.catch_warnings(record=True) as caught:  # of a model that is refused they would be noise
        model: nn.Module = node.build(num_classes=num_classes, in_channels=channels, image_size=size).to(device)
    name = type(model).__name__
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, channels, size, size, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        why = f" ({first_line(error)})" if str(error).strip() else ""  # HaloNet asserts without a word
        advice = "try another model.image_size or model.in_channels"
        if node.path == TIMM_BUILDER:
            from iolaus.models.timm import sizes_that_fit

            advice = sizes_that_fit(image_size=size, in_channels=channels, **node.arguments) or advice
        raise ConfigError(f"model: {name} does not take {channels}x{size}x{size} images{why}; {advice}") from error
    if not isinstance(logits, Tensor):
        raise ConfigError(f"model: {name} gives a {type(logits).__name__}, not logits, a tensor of (2, {num_classes})")
    if (shape := tuple(logits.shape)) != (2, num_classes):
        raise ConfigError(f"model: {name} gives {shape} for two images, not (2, {num_classes})")
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model


def load_starting_weights(config: RunConfig, model: nn.Module, inputs: Inputs) -> str:
    """Load `model.weights`; returns a line for the log."""
    from iolaus.models.weights import load_weights

    assert config.model.weights is not None
    with problems_of("model"):
        return load_weights(model, config.model.weights, classes=inputs.source.classes)
