"""Parameter groups: parts of a model with their own learning rate, without weight decay, under Muon, or frozen.

A model is a sequence of blocks from its input to its last features, and a classifier. Parameters are identified by
their names in `named_parameters()`, which lists a shared parameter once.
"""

import fnmatch
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

ParamGroup = dict[str, Any]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # their children are the parts


def classifier_of(model: nn.Module) -> set[str]:
    """Names of the classifier's parameters: of timm's `get_classifier`, else of the last linear layer.

    Without a linear layer it is the last layer with a weight of two or more dimensions, for example a 1×1 convolution.
    """
    heads = model.get_classifier() if hasattr(model, "get_classifier") else ()  # type: ignore[operator]
    heads = heads if isinstance(heads, tuple | list) else [heads]  # distilled models have two
    its = {id(p) for head in heads if isinstance(head, nn.Module) for p in head.parameters()}
    if not its:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        layers = [module for module in model.modules() if any(p.ndim >= 2 for p in module.parameters(recurse=False))]
        its = {id(p) for module in (linear or layers)[-1:] for p in module.parameters(recurse=False)}
    return {name for name, p in model.named_parameters() if id(p) in its}


def depth_blocks(model: nn.Module) -> list[list[str]]:
    """Names of the parameters by depth, from the input to the last block, without the classifier.

    timm's models define their blocks (`group_matcher`). The blocks of other models are their children; the children of
    an nn.Sequential stand in its place. A part that holds only vectors, such as a last norm, joins its neighbour.
    """
    classifier = classifier_of(model)
    ndim = {name: p.ndim for name, p in model.named_parameters()}
    blocks: list[list[str]] = []
    for part in _parts(model, [name for name in ndim if name not in classifier]):
        if blocks and (_all_vectors(part, ndim) or _all_vectors(blocks[-1], ndim)):  # the latter: a norm of the input
            blocks[-1] += part
        elif part:
            blocks.append(part)
    return blocks


def _all_vectors(names: Iterable[str], ndim: Mapping[str, int]) -> bool:
    return all(ndim[name] <= 1 for name in names)


def _parts(model: nn.Module, names: Sequence[str]) -> list[list[str]]:
    """The names by the model's parts, in order; a part can be empty."""
    if layers := _timm_layers(model):
        return [[name for name in layer if name in names] for layer in layers]
    modules: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        opened = child.named_children() if isinstance(child, CONTAINERS) else [("", child)]
        modules |= {f"{name}.{inner}." if inner else f"{name}.": module for inner, module in opened}
    parts = {prefix: [name for name in names if name.startswith(prefix)] for prefix in modules}
    filled = {prefix: part for prefix, part in parts.items() if part}
    loose = [name for name in names if not name.startswith(tuple(modules))]
    if len(filled) == 1 and not loose:  # a backbone under the user's own classifier: the blocks are the backbone's
        ((prefix, part),) = filled.items()
        if not isinstance(modules[prefix], CONTAINERS) and any(modules[prefix].children()):
            inside = _parts(modules[prefix], [name.removeprefix(prefix) for name in part])
            return [[prefix + name for name in names] for names in inside]
    first, *others = filled.values() if filled else [[]]
    return [loose + first, *others]  # a model's direct parameters are tokens and positions, which belong to its input


def _timm_layers(model: nn.Module) -> list[list[str]]:
    """The blocks of a timm model, its classifier among them; none for a model that does not define any."""
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        return []
    from timm.models import group_parameters  # loaded already: the model is timm's

    try:
        layers = group_parameters(model, matcher(coarse=True))
    except AssertionError:  # RDNet defines layers only
        return []
    return [layers[number] for number in sorted(layers)]


def hidden_weights(model: nn.Module) -> set[str]:
    """Names of the weights between stem and classifier: matrices, and convolutions as flattened matrices.

    Muon is for these (Jordan et al. 2024); the first convolution, the classifier, embeddings, norms and biases are left
    to AdamW. So are depthwise convolutions and matrices with a side below 4, which have nothing to orthogonalise. A
    weight is a parameter of that name, so tables of positions are not among them.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters = dict(model.named_parameters())
    weights = [(name, parameters[name]) for block in depth_blocks(model) for name in block if name.endswith("weight")]
    weights = [(name, p) for name, p in weights if p.ndim >= 2 and id(p) not in embeddings]
    if weights and weights[0][1].ndim >= 3:
        del weights[0]  # the stem; an MLP has none and keeps its first matrix
    depthwise = {name for name, p in weights if p.ndim >= 3 and p.shape[1] == 1}
    return {name for name, p in weights if name not in depthwise and min(p.flatten(1).shape) >= 4}


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float | None,
    no_decay_on_norm_and_bias: bool = False,
    lr_factors: Sequence[float] | None = None,
    classifier_lr_factor: float | None = None,
    muon: Mapping[str, float] | None = None,
) -> list[ParamGroup]:
    """The trained parameters as groups for a torch optimizer, by depth; each has a `name` and its own `lr`.

    Lower rates towards the input are the discriminative fine-tuning of Howard & Ruder (2018, section 3.1).

    Args:
        model: its parameters with a factor of 0 get `requires_grad=False` and are in no group.
        lr: the learning rate at a factor of 1.
        weight_decay: None for an optimizer without weight decay.
        no_decay_on_norm_and_bias: whether vectors (parameters of one dimension) have no weight decay, nor what a timm
            model names itself (`no_weight_decay()`: tokens, positions).
        lr_factors: of the last blocks, up to the very last (see depth_blocks); all earlier blocks have the first one.
        classifier_lr_factor: None is the last of `lr_factors`.
        muon: adamw_lr and adamw_weight_decay, for all but the hidden weights (see hidden_weights). The hidden weights
            then have lr and weight_decay, and `use_muon` in each group says which kind it is.

    Raises:
        ValueError: the factors are empty, negative, or more than the blocks; nothing is left to train.
    """
    spans = _spans(model, lr_factors, classifier_lr_factor)
    kinds = _kinds(model, lr, weight_decay, no_decay_on_norm_and_bias, muon)
    parameters = dict(model.named_parameters())
    groups: list[ParamGroup] = []
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
    """The parts of the model with one factor each, by their name in the log: (parameter names, factor)."""
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
) -> dict[str, tuple[set[str], ParamGroup]]:
    """The kinds of parameters within a span, by the suffix of the group's name: (parameter names, settings)."""
    ndim = {name: p.ndim for name, p in model.named_parameters()}
    kinds: dict[str, tuple[set[str], ParamGroup]] = {}
    rest, suffix, more = set(ndim), "", {}
    if muon is not None:
        hidden = hidden_weights(model)
        kinds[", muon"] = hidden, {"lr": lr, "weight_decay": weight_decay, "use_muon": True}
        rest, suffix, more = rest - hidden, ", adamw", {"use_muon": False}
        lr, weight_decay = muon["adamw_lr"], muon["adamw_weight_decay"]
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    vectors = {name for name in rest if ndim[name] <= 1 or _spares(model, name)} if no_decay and weight_decay else set()
    kinds[suffix] = rest - vectors, {"lr": lr, **decay, **more}
    kinds[f"{suffix}, no decay"] = vectors, {"lr": lr, "weight_decay": 0.0, **more}
    return kinds


def _spares(model: nn.Module, name: str) -> bool:
    """Whether a model itself wants no weight decay on a parameter, as timm's do on tokens and positions."""
    patterns: Iterable[str] = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules with direct parameters, all of whose parameters are frozen, and the statistics that follow these.

    In eval mode the BatchNorms among them keep the statistics that their frozen weights were trained with. A BatchNorm
    without parameters goes with the module before it. A module with a trained part (a ViT with frozen tokens) is not
    among them, since `.eval()` reaches all its parts.
    """
    frozen, after_frozen = [], False
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            after_frozen = not any(p.requires_grad for p in module.parameters())
        elif any(True for _ in module.children()) or not any(True for _ in module.buffers(recurse=False)):
            continue
        if after_frozen:
            frozen.append(module)
    return frozen


def describe(groups: Iterable[ParamGroup]) -> list[str]:
    """One line of the log for each group: its name, its settings, and the size of its parameters."""
    lines = []
    for group in groups:
        tensors: list[nn.Parameter] = group["params"]
        decay = "" if group.get("weight_decay") is None else f", weight decay {group['weight_decay']:g}"
        count = f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}, {sum(p.numel() for p in tensors):,} parameters"
        lines.append(f"{group['name']} (lr {group['lr']:g}{decay}): {count}")
    return lines
