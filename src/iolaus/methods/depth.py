"""A model by depth: its blocks from the input to the last features, its classifier, and the weights between.

Parameters are identified by their names in `named_parameters()`, which lists a shared parameter once.
"""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

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
