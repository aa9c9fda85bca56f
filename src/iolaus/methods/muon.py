"""Muon for weight matrices and AdamW or SGD for all other parameters, in one optimizer."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from iolaus.machine.hardware import pick_precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic: steep at zero, so that small singular values grow fast
SMALLEST_NORM = 1e-7  # so that a gradient or a weight of zeros stays zero
FUSED_DEVICES = ("cpu", "cuda", "mps")

# Factors of lr: Jordan's; Liu et al.'s (2025), which gives updates of AdamW's root mean square at AdamW's lr.
FACTORS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
}
# What updates the parameters that are not Muon's; its arguments begin with its name.
RESTS = ("adamw", "sgd")
NOT_NEGATIVE: tuple[Callable[[Any], bool], str] = (lambda value: value >= 0, "0 or more")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("lr", "weight_decay", "adamw_lr", "adamw_weight_decay", "adamw_eps"), NOT_NEGATIVE),
    **dict.fromkeys(("sgd_lr", "sgd_weight_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("momentum", "sgd_momentum"), (lambda value: 0 <= value < 1, "0 or more, and below 1")),
    "rest": (lambda value: value in RESTS, " or ".join(RESTS)),
    "ns_steps": (lambda value: value >= 1, "1 or more"),
    "adjust_lr": (lambda value: value in FACTORS, " or ".join(FACTORS)),
    "adamw_betas": (lambda value: len(value) == 2 and all(0 <= b < 1 for b in value), "two numbers from 0 to below 1"),
}


# The arguments that a group of each kind keeps.
OPTIONS = {
    "muon": {"lr", "weight_decay", "momentum", "nesterov", "ns_steps", "adjust_lr", "normalise_weights"},
    "adamw": {"lr", "weight_decay", "rest", "adamw_betas", "adamw_eps"},
    "sgd": {"lr", "weight_decay", "rest", "sgd_momentum", "sgd_nesterov"},
}


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), and AdamW (Loshchilov & Hutter 2019) or SGD.

    Muon's update is the momentum with all its singular values brought near 1. Groups with `use_muon=True` use Muon:
    weights of (out, in), and convolutions flattened to (out, in × height × width). Groups with `use_muon=False` use
    AdamW, or SGD where `rest` says so. A group without `use_muon` becomes two: parameters of two or more dimensions use
    Muon, the others AdamW or SGD. (The paper's authors also use AdamW for embeddings and the last layer, which takes
    groups.) A group may set any of the other arguments; in a group that is not Muon's, learning rate and decay are `lr`
    and `weight_decay`.

    Args:
        params: parameters, or groups of them as dicts.
        lr, weight_decay: of Muon's groups. The decay is decoupled: a weight loses lr × weight_decay of itself a step.
        momentum: decay of the moving average of gradients. nesterov: look a step ahead.
        ns_steps: iterations of Newton–Schulz.
        normalise_weights: before its update a weight of (out, …) is scaled to the Frobenius norm √out, so that its
            rows have norms of about 1, and lr is the size of an update relative to them (airbench94_muon, Jordan 2024).
        adjust_lr: factor of lr for a matrix of (rows, columns): `original` is √max(1, rows / columns),
            `match_rms_adamw` is 0.2 √max(rows, columns).
        rest: adamw or sgd, for the groups that are not Muon's.
        adamw_lr, adamw_weight_decay: of AdamW's groups. adamw_betas, adamw_eps: as in torch.optim.AdamW.
        sgd_lr, sgd_weight_decay: of SGD's groups; the decay is added to the gradient. sgd_momentum, sgd_nesterov: as in
            torch.optim.SGD; without momentum there is nothing to look ahead by.

    Raises ValueError for a number out of its range, and for a parameter in a Muon group with fewer than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr: Literal["original", "match_rms_adamw"] = "original",
        normalise_weights: bool = False,
        rest: Literal["adamw", "sgd"] = "adamw",
        adamw_lr: float = 1e-3,
        adamw_weight_decay: float = 0.0,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        sgd_lr: float = 0.1,
        sgd_weight_decay: float = 0.0,
        sgd_momentum: float = 0.9,
        sgd_nesterov: bool = True,
    ) -> None:
        muon = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        forms = {"ns_steps": ns_steps, "adjust_lr": adjust_lr, "normalise_weights": normalise_weights}
        of_adamw = {"lr": adamw_lr, "weight_decay": adamw_weight_decay, "betas": adamw_betas, "eps": adamw_eps}
        of_sgd = {"lr": sgd_lr, "weight_decay": sgd_weight_decay, "momentum": sgd_momentum, "nesterov": sgd_nesterov}
        defaults = muon | forms | {"rest": rest} | {f"adamw_{name}": value for name, value in of_adamw.items()}
        defaults |= {f"sgd_{name}": value for name, value in of_sgd.items()}
        check_settings(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, or the two that a group without `use_muon` becomes, and fill in the defaults."""
        if "use_muon" not in param_group:
            given = param_group["params"]
            parts: dict[bool, list[Any]] = {True: [], False: []}
            for item in [given] if isinstance(given, Tensor) else given:
                parts[(item[1] if isinstance(item, tuple) else item).ndim >= 2].append(item)  # or (name, parameter)
            for use_muon, part in parts.items():
                if part:
                    self.add_param_group({**param_group, "params": part, "use_muon": use_muon})
            return
        kind = "muon" if param_group["use_muon"] else param_group.get("rest", self.defaults["rest"])
        check_settings({"rest": kind} if kind != "muon" else {})
        own = {} if kind == "muon" else {k: self.defaults[f"{kind}_{k}"] for k in ("lr", "weight_decay")}
        group = own | param_group
        check_settings(group)
        super().add_param_group(group)
        if kind == "muon":
            if flat := [tuple(p.shape) for p in group["params"] if p.ndim < 2]:
                self.param_groups.pop()
                raise ValueError(f"params={flat[0]}: must have two dimensions or more under Muon (use_muon=True)")
        else:
            # the key also tells torch on which device to put a loaded step count
            group["fused"] = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in group["params"])
        for name in self.defaults.keys() - OPTIONS[kind]:  # torch has filled in all; a group keeps those that it uses
            del group[name]
        # The tensors that GradScaler then sets for a step, grad_scale and found_inf; AdamW and SGD take them if fused.
        self._step_supports_amp_scaling = all(group.get("fused", True) for group in self.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but Muon's momentum stays float32, which torch would cast to the dtype of 16-bit weights.

        A state that was saved when there was no choice of them has neither `normalise_weights` nor `rest`.
        """
        super().load_state_dict(state_dict)
        for group, saved_group in zip(self.param_groups, state_dict["param_groups"], strict=True):
            name, value = ("normalise_weights", False) if group["use_muon"] else ("rest", "adamw")
            group.setdefault(name, value)
            for number, p in zip(saved_group["params"], group["params"], strict=True):
                saved = state_dict["state"].get(number, {})
                if group["use_muon"] and "momentum_buffer" in saved:
                    self.state[p]["momentum_buffer"] = saved["momentum_buffer"].to(p.device, torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient. Returns the loss of `closure`, if any, which is called first.

        As in torch's fused optimizers: gradients are divided by the tensor `grad_scale`, if it is set, and the step is
        skipped if the tensor `found_inf` is 1, on the device, without a wait.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            if params := [p for p in group["params"] if p.grad is not None]:
                if group["use_muon"]:
                    self._step_muon(group, params)
                else:
                    (self._step_adamw if group["rest"] == "adamw" else self._step_sgd)(group, params)
        return loss

    def _step_muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"momentum_buffer": torch.zeros_like(p, dtype=torch.float32)}
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        gradients = [p.grad.float() for p in params if p.grad is not None]
        if (grad_scale := getattr(self, "grad_scale", None)) is not None:
            gradients = list(torch._foreach_mul(gradients, grad_scale.reciprocal()))
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        before = [] if found_inf is None else [tensor.clone() for tensor in (*params, *momenta)]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        if group["normalise_weights"]:
            norms = [norm.clamp(min=SMALLEST_NORM) for norm in torch._foreach_norm(params)]
            torch._foreach_mul_(params, [len(p) ** 0.5 / norm for p, norm in zip(params, norms, strict=True)])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        alike = defaultdict(list)
        for p, update in zip(params, updates, strict=True):
            alike[p.shape, p.dtype, p.device].append((p, update))
        for (shape, dtype, device), pairs in alike.items():
            # no batch dimension for a single one: it costs a CPU up to a third more time
            batch = torch.stack([update for _, update in pairs]) if len(pairs) > 1 else pairs[0][1]
            matrices = batch.flatten(1 - len(shape)).to(iteration_dtype(device))  # (…, out, in × height × width)
            directions = orthogonalise(matrices, group["ns_steps"]).to(dtype).reshape(-1, *shape)
            length = group["lr"] * FACTORS[group["adjust_lr"]](*matrices.shape[-2:])
            torch._foreach_add_([p for p, _ in pairs], directions.unbind(), alpha=-length)
        if found_inf is not None:
            for now, then in zip((*params, *momenta), before, strict=True):
                now.copy_(torch.where(found_inf.bool(), then, now))

    def _step_adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                home = p.device if group["fused"] else "cpu"
                step = torch.zeros((), dtype=torch.float32, device=home)
                self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        gradients = [p.grad for p in params if p.grad is not None]
        steps, means, squares = ([self.state[p][k] for p in params] for k in ("step", "exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["adamw_betas"]
        rates = {"lr": group["lr"], "weight_decay": group["weight_decay"], "beta1": beta1, "beta2": beta2}
        options: dict[str, Any] = {**rates, "eps": group["adamw_eps"], "amsgrad": False, "maximize": False}
        options |= {name: getattr(self, name, None) for name in ("grad_scale", "found_inf")}
        adamw(params, gradients, means, squares, [], steps, fused=group["fused"] or None, **options)

    def _step_sgd(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:  # from zeros the first momentum is the gradient, as in torch
                self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
        gradients = [p.grad for p in params if p.grad is not None]
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        rates = {"lr": group["lr"], "weight_decay": group["weight_decay"], "momentum": group["sgd_momentum"]}
        nesterov = group["sgd_nesterov"] and group["sgd_momentum"] > 0
        options: dict[str, Any] = {**rates, "nesterov": nesterov, "dampening": 0.0, "maximize": False}
        options |= {name: getattr(self, name, None) for name in ("grad_scale", "found_inf")}
        sgd(params, gradients, momenta, fused=group["fused"] or None, **options)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise ValueError for the first of these arguments of Muon that is out of its range."""
    for name, (allows, words) in RANGES.items():
        if name in settings and not allows(settings[name]):
            raise ValueError(f"{name}={settings[name]}: must be {words}")


@functools.cache
def iteration_dtype(device: torch.device) -> torch.dtype:
    """The dtype of Newton–Schulz: bf16, as in the paper, on devices where it is faster than fp32."""
    return torch.bfloat16 if pick_precision("auto", device) == "bf16" else torch.float32


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """Approximate U V' for each U S V': (…, rows, columns) to the same shape and dtype, singular values 0.7 to 1.2.

    The quintic Newton–Schulz iteration of Jordan et al. (2024): X ← a X + (b XX' + c (XX')²) X, from a Frobenius norm
    of 1. The singular values end near 1, not at it: by their experiments this does no harm and saves iterations.
    """
    a, b, c = COEFFICIENTS
    add_product = torch.addmm if matrices.ndim == 2 else torch.baddbmm
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # XX' is the smaller of the two squares
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.mT
        x = add_product(x, add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
