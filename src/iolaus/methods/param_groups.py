"""Parameter groups: parts of a model with their own learning rate and weight decay, under Muon, or frozen."""

import fnmatch
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from iolaus.methods.depth import classifier_of, depth_blocks, hidden_weights

ParamGroup = dict[str, Any]
Spans = dict[str, tuple[set[str], float]]  # by their name in the log: (parameter names, factor of the learning rate)

FIRST_BLOCK, CLASSIFIER, NO_DECAY = "block 1", "classifier", ", no decay"


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float | None,
    no_decay_on_norm_and_bias: bool = False,
    lr_factors: Sequence[float] | None = None,
    classifier_lr_factor: float | None = None,
    classifier_weight_decay: float | None = None,
    first_block_epochs: float | None = None,
    rest: Mapping[str, Any] | None = None,
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
        classifier_weight_decay: of the classifier, in place of the others'; None is theirs.
        first_block_epochs: the first block has a group of its own, the last, with these `epochs`: it learns for so long
            (see schedules.Schedule). None is the whole run.
        rest: for Muon: lr and weight_decay of all but the hidden weights (see depth.hidden_weights), and the `kind` of
            optimizer that updates them. The hidden weights then have `lr` and `weight_decay`, and `use_muon` in each
            group says which it is.

    Raises:
        ValueError: the factors are empty, negative, or more than the blocks; there is no first block, or no weight
            decay to replace; nothing is left to train.
    """
    apart = first_block_epochs is not None
    whole = all(given is None for given in (lr_factors, classifier_lr_factor, classifier_weight_decay)) and not apart
    spans = _whole(model) if whole else _spans(model, lr_factors, classifier_lr_factor, apart)
    if apart and FIRST_BLOCK not in spans:
        name = type(model).__name__
        raise ValueError(
            f"first_block_epochs={first_block_epochs:g}: {name} has no block before its classifier; leave it null"
        )
    if classifier_weight_decay is not None and weight_decay is None:
        raise ValueError(
            f"classifier_weight_decay={classifier_weight_decay:g}: the optimizer has no weight decay; leave it null"
        )
    decays = classifier_weight_decay or (rest["weight_decay"] if rest else weight_decay)
    kinds = _kinds(model, lr, weight_decay, no_decay_on_norm_and_bias and bool(decays), rest)
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
                group = {"params": params, "name": span + kind, **settings, "lr": settings["lr"] * factor}
                if span == CLASSIFIER and classifier_weight_decay is not None and not kind.endswith(NO_DECAY):
                    group["weight_decay"] = classifier_weight_decay
                if span == FIRST_BLOCK and apart:
                    group["epochs"] = first_block_epochs
                groups.append(group)
    if not groups:
        given = "" if lr_factors is None else f"lr_factors={list(lr_factors)}: "
        raise ValueError(f"{given}{type(model).__name__} has no parameter that is trained")
    groups.sort(key=lambda group: "epochs" in group)  # the first group's rate is what logs call the learning rate
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    return groups


def _whole(model: nn.Module) -> Spans:
    return {"all": ({name for name, _ in model.named_parameters()}, 1.0)}


def _spans(
    model: nn.Module, factors: Sequence[float] | None, classifier_factor: float | None, first_apart: bool
) -> Spans:
    """The parts of the model with one factor each. first_apart: the first block is one of them."""
    blocks = depth_blocks(model)
    if factors is not None:
        _check_factors(list(factors), len(blocks), type(model).__name__)
    if classifier_factor is not None and not 0 <= classifier_factor < math.inf:
        raise ValueError(f"classifier_lr_factor={classifier_factor}: must be 0 or more, or null for the last block's")
    factors = factors or [1.0]
    of_blocks = [factors[max(0, i + len(factors) - len(blocks))] for i in range(len(blocks))]
    spans: Spans = {}
    first = 0
    alike = [(factor, first_apart and i == 0) for i, factor in enumerate(of_blocks)]
    for (factor, _), run in itertools.groupby(alike):
        last = first + len(list(run))
        name = f"block {last}" if last == first + 1 else f"blocks {first + 1}-{last}"
        spans[name], first = (set().union(*blocks[first:last]), factor), last
    spans[CLASSIFIER] = classifier_of(model), factors[-1] if classifier_factor is None else classifier_factor
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
    model: nn.Module, lr: float, weight_decay: float | None, no_decay: bool, of_rest: Mapping[str, Any] | None
) -> dict[str, tuple[set[str], ParamGroup]]:
    """The kinds of parameters within a span, by the suffix of the group's name: (parameter names, settings)."""
    ndim = {name: p.ndim for name, p in model.named_parameters()}
    kinds: dict[str, tuple[set[str], ParamGroup]] = {}
    rest, suffix, more = set(ndim), "", {}
    if of_rest is not None:
        hidden = hidden_weights(model)
        kinds[", muon"] = hidden, {"lr": lr, "weight_decay": weight_decay, "use_muon": True}
        rest, suffix, more = rest - hidden, f", {of_rest['kind']}", {"use_muon": False}
        lr, weight_decay = of_rest["lr"], of_rest["weight_decay"]
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    vectors = {name for name in rest if ndim[name] <= 1 or _spares(model, name)} if no_decay else set()
    kinds[suffix] = rest - vectors, {"lr": lr, **decay, **more}
    kinds[suffix + NO_DECAY] = vectors, {"lr": lr, "weight_decay": 0.0, **more}
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
        until = f", for {group['epochs']:g} epochs" if "epochs" in group else ""
        count = f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}, {sum(p.numel() for p in tensors):,} parameters"
        lines.append(f"{group['name']} (lr {group['lr']:g}{decay}{until}): {count}")
    return lines
