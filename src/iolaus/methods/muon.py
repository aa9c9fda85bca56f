"""Muon for weight matrices and AdamW for all other parameters, in one optimizer."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from iolaus.machine.hardware import pick_precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic: steep at zero, so that small singular values grow fast
SMALLEST_NORM = 1e-7  # so that a gradient of zeros stays zero
FUSED_DEVICES = ("cpu", "cuda", "mps")

# Factors of lr: Jordan's; Liu et al.'s (2025), which gives updates of AdamW's root mean square at AdamW's lr.
FACTORS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
}
NOT_NEGATIVE: tuple[Callable[[Any], bool], str] = (lambda value: value >= 0, "0 or more")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("lr", "weight_decay", "adamw_lr", "adamw_weight_decay", "adamw_eps"), NOT_NEGATIVE),
    "momentum": (lambda value: 0 <= value < 1, "0 or more, and below 1"),
    "ns_steps": (lambda value: value >= 1, "1 or more"),
    "adjust_lr": (lambda value: value in FACTORS, " or ".join(FACTORS)),
    "adamw_betas": (lambda value: len(value) == 2 and all(0 <= b < 1 for b in value), "two numbers from 0 to below 1"),
}


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) and AdamW (Loshchilov & Hutter 2019).

    Muon's update is the momentum with all its singular values brought near 1. Groups with `use_muon=True` use Muon:
    weights of (out, in), and convolutions flattened to (out, in × height × width). Groups with `use_muon=False` use
    AdamW. A group without `use_muon` becomes two: parameters of two or more dimensions use Muon, the others AdamW. (The
    paper's authors also use AdamW for embeddings and the last layer, which takes groups.) A group may set any of the
    other arguments; in an AdamW group, learning rate and decay are `lr` and `weight_decay`.

    Args:
        params: parameters, or groups of them as dicts.
        lr, weight_decay: of Muon's groups. The decay is decoupled: a weight loses lr × weight_decay of itself a step.
        momentum: decay of the moving average of gradients. nesterov: look a step ahead.
        ns_steps: iterations of Newton–Schulz.
        adjust_lr: factor of lr for a matrix of (rows, columns): `original` is √max(1, rows / columns),
            `match_rms_adamw` is 0.2 √max(rows, columns).
        adamw_lr, adamw_weight_decay: of AdamW's groups. adamw_betas, adamw_eps: as in torch.optim.AdamW.

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
        adamw_lr: float = 1e-3,
        adamw_weight_decay: float = 0.0,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        muon = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        forms = {"nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr": adjust_lr}
        rest = {"lr": adamw_lr, "weight_decay": adamw_weight_decay, "betas": adamw_betas, "eps": adamw_eps}
        defaults = muon | forms | {f"adamw_{name}": value for name, value in rest.items()}
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
        own = {} if param_group["use_muon"] else {k: self.defaults[f"adamw_{k}"] for k in ("lr", "weight_decay")}
        group = own | param_group
        check_settings(group)
        super().add_param_group(group)
        if group["use_muon"]:
            if flat := [tuple(p.shape) for p in group["params"] if p.ndim < 2]:
                self.param_groups.pop()
                raise ValueError(f"params={flat[0]}: must have two dimensions or more under Muon (use_muon=True)")
            dropped = [name for name in self.defaults if name.startswith("adamw_")]
        else:
            # the key also tells torch on which device to put a loaded step count
            group["fused"] = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in group["params"])
            dropped = ["momentum", "nesterov", "ns_steps", "adjust_lr", "adamw_lr", "adamw_weight_decay"]
        for name in dropped:  # torch has filled in all defaults; a group keeps those that it uses
            del group[name]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but momentum stays float32, which torch would cast to the dtype of 16-bit weights."""
        super().load_state_dict(state_dict)
        numbers = (number for group in state_dict["param_groups"] for number in group["params"])
        parameters = (p for group in self.param_groups for p in group["params"])
        for number, p in zip(numbers, parameters, strict=True):
            if "momentum_buffer" in (saved := state_dict["state"].get(number, {})):
                self.state[p]["momentum_buffer"] = saved["momentum_buffer"].to(p.device, torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient. Returns the loss of `closure`, if any, which is called first."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            if params := [p for p in group["params"] if p.grad is not None]:
                (self._step_muon if group["use_muon"] else self._step_adamw)(group, params)
        return loss

    def _step_muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"momentum_buffer": torch.zeros_like(p, dtype=torch.float32)}
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        gradients = [p.grad.float() for p in params if p.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
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
        adamw(params, gradients, means, squares, [], steps, fused=group["fused"] or None, **options)


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
