"""The layers of a model with their parameters, multiply-accumulates and activations, counted without computing."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

MOST_LAYERS = 40  # rows; a model of more is told by its blocks
aten = torch.ops.aten
# what fvcore and timm count as activations: the outputs of convolutions and matrix products
PRODUCTS = (aten.convolution, aten._convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm)


@dataclass(frozen=True)
class Layer:
    """A module of a model, or the whole of it (name ""), for one image.

    shape: of its output without the batch, None where that is no tensor or where it was not called. macs: None where
    they can't be counted. activations: numbers in the outputs of convolutions and matrix products.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    trained: int
    macs: int | None
    activations: int | None


def list_layers(model: nn.Module, channels: int, size: int, most: int = MOST_LAYERS) -> list[Layer]:
    """The whole model first, then its modules as deep as `most` rows allow.

    MACs are half of the FLOPs of torch's FlopCounterMode, without biases, norms and activation functions, as timm and
    the papers give them. The model is copied to the meta device, which has shapes but no numbers; a model that can't
    be run there has no counts.
    """
    names = choose_names(model, most)
    modules = dict(model.named_modules())
    shapes: dict[str, tuple[int, ...]] = {}
    macs, activations = count_products(model, channels, size, names, shapes)
    root = type(model).__name__
    layers = []
    for name in names:
        module, key = modules[name], f"{root}.{name}" if name else root
        parameters = [p.numel() for p in module.parameters()]
        trained = [p.numel() for p in module.parameters() if p.requires_grad]
        layers.append(
            Layer(
                name,
                type(module).__name__,
                shapes.get(name),
                sum(parameters),
                sum(trained),
                None if macs is None else macs.get(key, 0) // 2,
                None if activations is None else activations.get(key, 0),
            )
        )
    return layers


def choose_names(model: nn.Module, most: int) -> list[str]:
    """The names of the modules to show: one level after another is opened while they fit into `most` rows."""
    shown = [""]
    children = [name for name, _ in model.named_children()]
    level = children
    while level and len(shown) + len(level) <= most + 1:
        shown += level
        deeper = []
        for name in level:
            deeper += [f"{name}.{child}" for child, _ in model.get_submodule(name).named_children()]
        level = deeper
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(shown if len(shown) > 1 else ["", *children[:most]], key=lambda name: order.get(name, 0))


def count_products(
    model: nn.Module, channels: int, size: int, names: Sequence[str], shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, int] | None, dict[str, int] | None]:
    """(FLOPs, activations) by module for one image; `shapes` gets the shapes of outputs by name."""

    def numbers_out(*_: object, out_shape: Sequence[int], **__: object) -> int:
        return math.prod(out_shape)

    flops = FlopCounterMode(display=False)
    outputs = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(PRODUCTS, numbers_out))
    try:
        bare = copy.deepcopy(model).to("meta").eval()
        image = torch.zeros(1, channels, size, size, device="meta")
        for name in names:

            def keep_shape(module: nn.Module, given: object, output: object, name: str = name) -> None:
                if isinstance(output, Tensor):
                    shapes[name] = tuple(output.shape[1:])

            bare.get_submodule(name).register_forward_hook(keep_shape)
        with torch.no_grad():
            for counter in (flops, outputs):
                with counter:
                    bare(image)
    except Exception:  # whatever a model does that needs numbers, or a layer that the meta device does not have
        return None, None
    return total_by_module(flops), total_by_module(outputs)


def total_by_module(counter: FlopCounterMode) -> dict[str, int]:
    """The counts of all operations together, by module."""
    return {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
