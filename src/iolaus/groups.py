"""Parameter groups: parts of a model that learn at rates of their own, without weight decay, by Muon, or not at all.

A model is a row of blocks from its input to its last features, and a classifier. Everything here goes by the names
that `named_parameters()` gives, which name a shared parameter once.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

Group = dict[str, Any]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # their children are the parts, not they


def classifier_of(model: nn.Module) -> set[str]:
    """Names of the classifier's parameters: of what timm calls so, else of the last linear layer.

    Without any linear layer it is the last layer that has a weight of more than one dimension, a 1×1 convolution say.
    """
    found: Any = getattr(model, "get_classifier", tuple)()
    found = found if isinstance(found, tuple | list) else [found]  # distilled models have two
    its = {id(p) for module in found if isinstance(module, nn.Module) for p in module.parameters()}
    if not its:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        layers = [module for module in model.modules() if any(p.ndim >= 2 for p in module.parameters(recurse=False))]
        its = {id(p) for module in (linear or layers)[-1:] for p in module.parameters(recurse=False)}
    return {name for name, p in model.named_parameters() if id(p) in its}


def depth_blocks(model: nn.Module) -> list[list[str]]:
    """Names of the parameters by depth, from the input to the last block, without the classifier.

    timm's models say themselves what their blocks are (`group_matcher`); of others it is their children, with those
    of an nn.Sequential in its place. What holds vectors alone, such as a last norm, is no block of its own.
    """
    classifier = classifier_of(model)
    ndim = {name: p.ndim for name, p in model.named_parameters()}
    blocks: list[list[str]] = []
    for part in _parts(model, [name for name in ndim if name not in classifier]):
        if blocks and (_all_vectors(part, ndim) or _all_vectors(blocks[-1], ndim)):  # the second: a norm of the input
            blocks[-1] += part
        elif part:
            blocks.append(part)
    return blocks


def _all_vectors(names: Iterable[str], ndim: Mapping[str, int]) -> bool:
    return all(ndim[name] <= 1 for name in names)


def _parts(model: nn.Module, names: Sequence[str]) -> list[list[str]]:
    """The names by the part of the model that they are in, in order; a part can be empty."""
    if layers := _timm_layers(model):
        return [[name for name in layer if name in names] for layer in layers]
    modules: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        opened = child.named_children() if isinstance(child, CONTAINERS) else [("", child)]
        modules |= {f"{name}.{inner}." if inner else f"{name}.": module for inner, module in opened}
    parts = {prefix: [name for name in names if name.startswith(prefix)] for prefix in modules}
    held = {prefix: part for prefix, part in parts.items() if part}
    loose = [name for name in names if not name.startswith(tuple(modules))]
    if len(held) == 1 and not loose:  # a backbone under a classifier of one's own: the blocks are the backbone's
        ((prefix, part),) = held.items()
        if not isinstance(modules[prefix], CONTAINERS) and any(modules[prefix].children()):
            inside = _parts(modules[prefix], [name.removeprefix(prefix) for name in part])
            return [[prefix + name for name in names] for names in inside]
    first, *others = held.values() if held else [[]]
    return [loose + first, *others]  # a model's own parameters are tokens and positions, which belong to its input


def _timm_layers(model: Any) -> list[list[str]]:
    """The blocks of a timm model with its classifier among them; none for a model that does not know any."""
    if not hasattr(model, "group_matcher"):
        return []
    from timm.models import group_parameters  # loaded already: the model is timm's

    try:
        layers = group_parameters(model, model.group_matcher(coarse=True))
    except AssertionError:  # RDNet knows layers only
        return []
    return [layers[number] for number in sorted(layers)]


def hidden_weights(model: nn.Module) -> set[str]:
    """Names of the weights between stem and classifier: matrices, and convolutions that are one when flattened.

    These are what Muon is for (Jordan et al. 2024); the first convolution, the classifier, embeddings, norms and
    biases are left to AdamW. So are depthwise convolutions and matrices with a side below 4, since there is nothing
    in them to make orthogonal. A weight is what is named so: tables of positions are none.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters = dict(model.named_parameters())
    weights = [(name, parameters[name]) for block in depth_blocks(model) for name in block if name.endswith("weight")]
    weights = [(name, p) for name, p in weights if p.ndim >= 2 and id(p) not in embeddings]
    if weights and weights[0][1].ndim >= 3:
        del weights[0]  # the stem; an MLP, which has none, keeps its first matrix
    depthwise = {name for name, p in weights if p.ndim >= 3 and p.shape[1] == 1}
    return {name for name, p in weights if name not in depthwise and min(p.flatten(1).shape) >= 4}


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float | None, no_decay_on_norm_and_bias: bool = False,
    lr_factors: Sequence[float] | None = None, classifier_lr_factor: float | None = None,
    muon: Mapping[str, float] | None = None,
) -> list[Group]:  # fmt: skip
    """The trained parameters as groups for a torch optimizer, by depth; each has a `name` and a rate of its own.

    Lower rates towards the input are the discriminative fine-tuning of Howard & Ruder (2018, section 3.1).

    Args:
        model: its parameters under a factor of 0 get `requires_grad=False` and are in no group.
        lr: what the factors are of.
        weight_decay: None for an optimizer that has none.
        no_decay_on_norm_and_bias: weight decay only for what has more than one dimension.
        lr_factors: of the last blocks, ending with the last one (see depth_blocks); all blocks before these have the
            first factor.
        classifier_lr_factor: None is the last of `lr_factors`.
        muon: adamw_lr and adamw_weight_decay of all but the hidden weights (see hidden_weights); lr and weight_decay
            are the hidden weights' then, and each group says whether it is theirs in `use_muon`.

    Raises:
        ValueError: factors that are none, negative or more than there are blocks; nothing is left to train.
    """
    spans = _spans(model, lr_factors, classifier_lr_factor)
    kinds = _kinds(model, lr, weight_decay, no_decay_on_norm_and_bias, muon)
    parameters = dict(model.named_parameters())
    groups: list[Group] = []
    for span, (its, factor) in spans.items():
        if factor == 0:
            for name in its:
                parameters[name].requires_grad_(False)
        for kind, (names, settings) in kinds.items():
            names = its & names
            params = [p for name, p in parameters.items() if name in names and p.requires_grad]  # in the model's order
            if params:
                groups.append({"params": params, "name": span + kind, **settings, "lr": settings["lr"] * factor})
    if not groups:
        given = "" if lr_factors is None else f"lr_factors={list(lr_factors)}: "
        raise ValueError(f"{given}{type(model).__name__} has no parameter that is trained")
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    return groups


def _spans(
    model: nn.Module, factors: Sequence[float] | None, classifier_factor: float | None
) -> dict[str, tuple[set[str], float]]:
    """The parts of the model that have one factor, by what a log calls them: (names, factor)."""
    if factors is None and classifier_factor is None:
        return {"all": ({name for name, _ in model.named_parameters()}, 1.0)}
    blocks = depth_blocks(model)
    if factors is not None:
        _check_factors(list(factors), len(blocks), type(model).__name__)
    if classifier_factor is not None and not 0 <= classifier_factor < math.inf:
        raise ValueError(f"classifier_lr_factor={classifier_factor}: must be 0 or more, or null for the last block's")
    factors = factors or [1.0]
    of_blocks = [factors[max(0, i + len(factors) - len(blocks))] for i in range(len(blocks))]
    spans: dict[str, tuple[set[str], float]] = {}
    first = 0
    for factor, run in itertools.groupby(of_blocks):
        last = first + len(list(run))
        name = f"block {last}" if last == first + 1 else f"blocks {first + 1}-{last}"
        spans[name], first = (set().union(*blocks[first:last]), factor), last
    spans["classifier"] = classifier_of(model), factors[-1] if classifier_factor is None else classifier_factor
    return spans


def _check_factors(factors: list[float], blocks: int, model: str) -> None:
    given = f"lr_factors={factors}"
    if not factors:
        raise ValueError(f"{given}: give one factor for each of the last blocks, or null")
    if not all(0 <= factor < math.inf for factor in factors):
        raise ValueError(f"{given}: must be 0 or more; 0 freezes a block")
    if len(factors) > blocks:
        most = f"give at most {blocks}" if blocks else "leave it null"
        raise ValueError(f"{given}: {model} has {blocks} block{'s' * (blocks != 1)} before its classifier; {most}")


def _kinds(
    model: nn.Module, lr: float, weight_decay: float | None, no_decay: bool, muon: Mapping[str, float] | None
) -> dict[str, tuple[set[str], dict[str, Any]]]:
    """What is treated alike within a span, by the suffix of its name: (names, settings)."""
    ndim = {name: p.ndim for name, p in model.named_parameters()}
    kinds: dict[str, tuple[set[str], dict[str, Any]]] = {}
    rest, suffix, more = set(ndim), "", {}
    if muon is not None:
        hidden = hidden_weights(model)
        kinds[", muon"] = hidden, {"lr": lr, "weight_decay": weight_decay, "use_muon": True}
        rest, suffix, more = rest - hidden, ", adamw", {"use_muon": False}
        lr, weight_decay = muon["adamw_lr"], muon["adamw_weight_decay"]
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    vectors = {name for name in rest if ndim[name] <= 1} if no_decay and weight_decay else set()
    kinds[suffix] = rest - vectors, {"lr": lr, **decay, **more}
    kinds[f"{suffix}, no decay"] = vectors, {"lr": lr, "weight_decay": 0.0, **more}
    return kinds


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules with parameters of their own that hold frozen parameters only.

    In eval mode the BatchNorms among them keep the statistics that their frozen weights were trained with. None of
    them has anything below it that is trained, as a ViT with frozen tokens has: `.eval()` reaches what is below.
    """
    owners = (module for module in model.modules() if any(True for _ in module.parameters(recurse=False)))
    return [module for module in owners if not any(p.requires_grad for p in module.parameters())]


def describe(groups: Iterable[Group]) -> list[str]:
    """One line for the log for each group: its name, its settings, and how much is in it."""
    lines = []
    for group in groups:
        tensors: list[nn.Parameter] = group["params"]
        decay = "" if group.get("weight_decay") is None else f", weight decay {group['weight_decay']:g}"
        count = f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}, {sum(p.numel() for p in tensors):,} parameters"
        lines.append(f"{group['name']} (lr {group['lr']:g}{decay}): {count}")
    return lines
