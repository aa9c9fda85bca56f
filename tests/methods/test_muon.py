"""Muon is torch's and timm's method, and AdamW for what is no matrix, with one state that resumes exactly."""

import copy
import io

import pytest
import timm.optim
import torch
from torch import nn

from iolaus.methods import muon
from iolaus.methods.muon import FACTORS, Muon, iteration_dtype, orthogonalise

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# What bf16 (8 bits) may do to an update whose entries are at most 1: over 5 iterations about 2 % of that.
BF16 = 0.02


def weights(*shapes, dtype=torch.float32):
    return [nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]


def copies(params):
    return [nn.Parameter(p.detach().clone()) for p in params]


def values(params):
    return [p.detach().clone() for p in params]


def steps(optimizers, lists, count=5, seed=0):
    """Give the optimizers the same drawn gradients for their lists of parameters, step by step."""
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for alike in zip(*lists, strict=True):
            gradient = torch.randn(alike[0].shape, generator=drawn)
            for p in alike:
                p.grad = torch.empty_like(p).copy_(gradient)
        for optimizer in optimizers:
            optimizer.step()


def equal(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.fixture
def in_fp32(monkeypatch):
    monkeypatch.setattr(muon, "iteration_dtype", lambda device: torch.float32)


@pytest.fixture
def in_bf16(monkeypatch):
    monkeypatch.setattr(muon, "iteration_dtype", lambda device: torch.bfloat16)


def small_model():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 5)]
    return nn.Sequential(*layers)


SHAPES = [(20, 30), (30, 20), (12, 12), (20, 30), (1, 5)]


@pytest.mark.parametrize("adjust_lr", list(FACTORS))
@pytest.mark.parametrize("nesterov", [True, False])
def test_on_matrices_it_is_torchs_muon(in_bf16, nesterov, adjust_lr):
    ours = weights(*SHAPES)
    theirs = copies(ours)
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov, "ns_steps": 4}
    optimizers = [
        Muon(ours, **options, adjust_lr=adjust_lr),
        torch.optim.Muon(theirs, **options, adjust_lr_fn=adjust_lr),
    ]
    steps(optimizers, [ours, theirs], count=5)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=5 * BF16 * 0.02 * FACTORS[adjust_lr](*p.shape))


@pytest.mark.parametrize("adjust_lr", list(FACTORS))
def test_on_convolutions_it_is_timms_muon(in_bf16, adjust_lr):
    ours = weights((16, 4, 3, 3), (40, 4, 3, 3), (16, 4, 3, 3), (24, 8, 1, 1), (8, 6, 5))
    theirs = copies(ours)
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": True}
    same = {"conv_mode": "flatten", "ns_coefficients": "original", "adjust_lr_fn": adjust_lr}
    optimizers = [
        Muon(ours, **options, adjust_lr=adjust_lr),
        timm.optim.Muon([{"params": theirs, "use_muon": True}], **options, **same),
    ]
    steps(optimizers, [ours, theirs], count=5)
    for p, q in zip(ours, theirs, strict=True):
        factor = FACTORS[adjust_lr](len(p), p[0].numel())
        torch.testing.assert_close(p, q, rtol=0, atol=5 * BF16 * 0.02 * factor)


@pytest.mark.parametrize(("rows", "columns"), [(20, 30), (30, 20), (16, 16)])
def test_the_update_is_the_formula_in_double_precision(in_fp32, rows, columns):
    (p,) = weights((rows, columns))
    start, gradients = p.detach().double(), torch.randn(3, rows, columns, dtype=torch.float64)
    optimizer = Muon([p], lr=0.1, weight_decay=0.2, momentum=0.8)
    expected, mean = start, torch.zeros(rows, columns, dtype=torch.float64)
    for gradient in gradients:
        p.grad = gradient.float()
        optimizer.step()
        mean = 0.8 * mean + 0.2 * gradient
        u, s, vt = torch.linalg.svd(0.2 * gradient + 0.8 * mean, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5  # the iteration moves nothing but singular values
        expected = (1 - 0.1 * 0.2) * expected - 0.1 * max(1, rows / columns) ** 0.5 * (u * s) @ vt
    torch.testing.assert_close(p.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (100, 30), (30, 100), (3, 20, 50)])
def test_an_update_has_all_its_singular_values_near_one(shape, dtype):
    result = orthogonalise(torch.randn(shape).to(dtype), 5)
    assert (result.shape, result.dtype) == (shape, dtype)
    singular = torch.linalg.svdvals(result.float())
    # a square one of noise has a singular value near zero, which five iterations lift to a part of one only
    assert singular.max() < 1.3
    assert singular.quantile(0.05) > 0.5
    if shape[-1] != shape[-2]:
        assert singular.min() > 0.5


def test_the_iteration_is_that_of_the_wide_form_and_of_any_scale():
    wide = torch.randn(30, 200)
    assert torch.equal(orthogonalise(wide.mT, 5), orthogonalise(wide, 5).mT)  # 30 x 30 squares for both
    torch.testing.assert_close(orthogonalise(wide * 1e-6, 5), orthogonalise(wide, 5), rtol=1e-3, atol=1e-5)


def test_a_gradient_of_zeros_moves_a_weight_by_its_decay_alone():
    (p,) = weights((6, 4))
    (start,) = values([p])
    p.grad = torch.zeros_like(p)
    Muon([p], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(p.detach(), start * (1 - 0.5 * 0.1))


def test_weights_of_one_shape_are_updated_in_one_batch_as_each_by_itself(in_fp32, monkeypatch):
    together = weights(*[(8, 5, 3, 3)] * 3, *[(10, 7)] * 2)
    alone = copies(together)
    sizes = []
    plain = muon.orthogonalise
    monkeypatch.setattr(muon, "orthogonalise", lambda m, n: sizes.append(tuple(m.shape)) or plain(m, n))
    steps([Muon(together)], [together], count=1)
    assert sizes == [(3, 8, 45), (2, 10, 7)]
    steps([Muon([p]) for p in alone], [alone], count=1)
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_channels_last_weights_are_updated_in_place_to_the_same_values():
    plain = weights((8, 4, 3, 3), (8, 4, 3, 3), (6, 8, 1, 1))
    last = [nn.Parameter(p.detach().clone(memory_format=torch.channels_last)) for p in plain]
    places = [p.data_ptr() for p in last]
    steps([Muon(plain), Muon(last)], [plain, last])
    assert [p.data_ptr() for p in last] == places
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in last)
    for p, q in zip(plain, last, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_group_without_muon_is_torchs_adamw_bit_for_bit(memory_format):
    ours = [nn.Parameter(p.detach().clone(memory_format=memory_format)) for p in weights((8, 4, 3, 3), (5, 8, 1, 1))]
    ours += weights((8,), (4, 6), ())
    theirs = copies(ours)
    options = {"lr": 0.01, "weight_decay": 0.1}
    groups = [{"params": ours[:3], "use_muon": False, **options}, {"params": ours[3:], "use_muon": False}]
    other = torch.optim.AdamW(
        [{"params": theirs[:3], **options}, {"params": theirs[3:]}], lr=0.003, weight_decay=0.2, betas=(0.8, 0.9),
        eps=1e-6, fused=True,
    )  # fmt: skip
    mine = Muon(groups, adamw_lr=0.003, adamw_weight_decay=0.2, adamw_betas=(0.8, 0.9), adamw_eps=1e-6)
    steps([mine, other], [ours, theirs])
    assert equal(ours, theirs)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.85, True), (0.9, False), (0.0, False)])
def test_the_rest_under_sgd_is_torchs_sgd_bit_for_bit(momentum, nesterov):
    ours = weights((8, 4, 3, 3), (5, 8), (8,), ())
    theirs = copies(ours)
    options = {"lr": 0.01, "weight_decay": 0.1}
    groups = [{"params": ours[:2], "use_muon": False, **options}, {"params": ours[2:], "use_muon": False}]
    form = {"momentum": momentum, "nesterov": nesterov}
    other = torch.optim.SGD(
        [{"params": theirs[:2], **options}, {"params": theirs[2:]}], lr=0.3, weight_decay=0.2, fused=True, **form
    )
    sgd = {"sgd_lr": 0.3, "sgd_weight_decay": 0.2, "sgd_momentum": momentum, "sgd_nesterov": nesterov}
    mine = Muon(groups, rest="sgd", **sgd)
    steps([mine, other], [ours, theirs])
    assert equal(ours, theirs)
    assert [sorted(g.keys() & mine.defaults.keys()) for g in mine.param_groups] == 2 * [
        ["lr", "rest", "sgd_momentum", "sgd_nesterov", "weight_decay"]
    ]


def test_sgd_begins_for_each_parameter_with_its_own_first_gradient():
    ours = weights((3,), (4,))
    theirs = copies(ours)
    mine = Muon(ours, rest="sgd", sgd_lr=0.1)
    others = [torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True) for p in theirs]
    steps([mine, others[0]], [ours[:1], theirs[:1]], count=1)
    ours[0].grad = theirs[0].grad = None
    steps([mine, others[1]], [ours[1:], theirs[1:]], count=2)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)


def test_a_normalised_weight_has_the_norm_of_the_root_of_its_rows_before_its_update(in_fp32):
    ours = weights((16, 4, 3, 3), (16, 4, 3, 3), (5, 8))
    theirs = copies(ours)
    for step in range(3):
        for q in theirs:
            q.data.mul_(len(q) ** 0.5 / q.data.norm())
        options = {"lr": 0.3, "weight_decay": 0.1}
        if step == 0:
            mine, other = Muon(ours, **options, normalise_weights=True), Muon(theirs, **options)
        steps([mine, other], [ours, theirs], count=1, seed=step)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)
    still = nn.Parameter(3 * torch.ones(4, 6))
    still.grad = torch.zeros(4, 6)
    Muon([still], normalise_weights=True).step()
    assert still.norm().item() == pytest.approx(2)


def test_a_weight_of_zeros_is_normalised_to_zeros():
    p = nn.Parameter(torch.zeros(4, 6))
    p.grad = torch.zeros(4, 6)
    Muon([p], normalise_weights=True).step()
    assert not p.any()


def test_a_state_that_was_saved_before_there_was_a_choice_goes_on_as_it_was():
    params = weights((4, 6), (5,))
    optimizer = Muon(params)
    steps([optimizer], [params])
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group.pop("rest", None)
        group.pop("normalise_weights", None)
    resumed = copies(params)
    other = Muon(resumed)
    other.load_state_dict(saved)
    steps([optimizer, other], [params, resumed], seed=1)
    assert equal(params, resumed)


def test_the_factor_is_the_shapes_under_either_rule(in_fp32):
    for shape, rows, columns in [((8, 3, 3, 3), 8, 27), ((27, 8), 27, 8)]:
        (p,) = weights(shape)
        (start,) = values([p])
        moves = []
        for rule in FACTORS:
            q = nn.Parameter(start.clone())
            steps([Muon([q], lr=0.5, adjust_lr=rule)], [[q]], count=1)
            moves.append((start - q.detach()).reshape(rows, columns))
        of_one = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)).reshape(rows, columns), 5)
        torch.testing.assert_close(moves[0], 0.5 * max(1, rows / columns) ** 0.5 * of_one, rtol=0, atol=1e-5)
        torch.testing.assert_close(moves[1], 0.5 * 0.2 * max(rows, columns) ** 0.5 * of_one, rtol=0, atol=1e-5)


def test_plain_parameters_are_split_by_their_dimensions():
    model = small_model()
    optimizer = Muon(model.parameters(), lr=0.3, weight_decay=0.1, adamw_lr=0.02, adamw_weight_decay=0.03)
    under_muon, under_adamw = optimizer.param_groups
    assert [p.ndim for p in under_muon["params"]] == [4, 4, 2]
    assert [p.ndim for p in under_adamw["params"]] == [1] * 5
    assert (under_muon["use_muon"], under_muon["lr"], under_muon["weight_decay"]) == (True, 0.3, 0.1)
    assert (under_adamw["use_muon"], under_adamw["lr"], under_adamw["weight_decay"]) == (False, 0.02, 0.03)
    assert not set(under_adamw) & {"momentum", "nesterov", "ns_steps", "adjust_lr", "adamw_lr", "normalise_weights"}
    assert not any(key.startswith("sgd") for key in under_adamw)
    assert not any(key.startswith(("adamw", "sgd", "rest")) for key in under_muon)
    (only,) = Muon([model[1].weight]).param_groups
    assert only["use_muon"] is False


def test_groups_keep_what_they_state_and_stay_as_they_were_given():
    model = small_model()
    convolution, norm, head = model[0], model[1], model[5]
    given = [
        {"params": [convolution.weight], "use_muon": True, "name": "conv", "lr": 0.4},
        {"params": head.parameters(), "lr": 0.5, "momentum": 0.5, "adamw_eps": 1e-3},
        {"params": norm.weight, "use_muon": False, "weight_decay": 0.25},
    ]
    before = [dict(group) for group in given]
    optimizer = Muon(given, lr=0.3, adamw_lr=0.02)
    assert given == before
    assert [(g["use_muon"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (True, 0.4, 0.0), (True, 0.5, 0.0), (False, 0.5, 0.0), (False, 0.02, 0.25),
    ]  # fmt: skip
    assert optimizer.param_groups[0]["name"] == "conv"
    assert [g.get("momentum") for g in optimizer.param_groups] == [0.95, 0.5, None, None]
    assert [g.get("adamw_eps") for g in optimizer.param_groups] == [None, None, 1e-3, 1e-8]
    optimizer.add_param_group({"params": model[3].parameters()})
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 1, 1, 1, 1, 1]


def test_named_parameters_are_split_with_their_names():
    optimizer = Muon(small_model().named_parameters())
    assert [g["param_names"] for g in optimizer.param_groups] == [
        ["0.weight", "3.weight", "5.weight"],
        ["0.bias", "1.weight", "1.bias", "3.bias", "5.bias"],
    ]


def test_parameters_without_a_gradient_are_left_alone():
    params = weights((4, 3), (4, 3), (3,), (3,))
    optimizer = Muon(params, weight_decay=0.5, adamw_weight_decay=0.5)
    before = values(params)
    params[0].grad, params[2].grad = torch.ones(4, 3), torch.ones(3)
    optimizer.step()
    assert [torch.equal(p, q) for p, q in zip(params, before, strict=True)] == [False, True, False, True]
    assert [p in optimizer.state for p in params] == [True, False, True, False]


def test_a_learning_rate_set_from_outside_holds_from_the_next_step():
    params = weights((4, 6), (5,))
    optimizer = Muon(params)
    steps([optimizer], [params])
    before = values(params)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps([optimizer], [params])
    assert equal(params, before)


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned():
    model = nn.Linear(3, 2)
    before = values(model.parameters())

    def closure():
        loss = model(torch.ones(4, 3)).square().sum()
        loss.backward()
        return loss

    optimizer = Muon(model.parameters())
    loss = optimizer.step(closure)
    assert float(loss.detach()) == pytest.approx(float(4 * (before[0].sum(1) + before[1]).square().sum()), rel=1e-5)
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert optimizer.step() is None


@pytest.mark.parametrize("rest", ["adamw", "sgd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_resumed_from_a_saved_state_goes_on_bit_for_bit(dtype, rest):
    params = weights((8, 4, 3, 3), (6, 5), (6, 5), (7,), dtype=dtype)
    optimizer = Muon(params, momentum=0.9, weight_decay=0.1, rest=rest)
    steps([optimizer], [params])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    resumed = copies(params)
    other = Muon(resumed, lr=9.0)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    deep = copy.deepcopy((params, optimizer))
    steps([optimizer, other, deep[1]], [params, resumed, deep[0]], seed=1)
    assert equal(params, resumed)
    assert equal(params, deep[0])
    buffers = [other.state[p]["momentum_buffer"] for p in resumed[:3]]
    assert [buffer.dtype for buffer in buffers] == [torch.float32] * 3


def test_a_step_with_gradients_that_overflowed_is_skipped_and_others_are_unscaled():
    model = small_model()
    reference = copy.deepcopy(model)
    optimizer, other = Muon(model.parameters()), Muon(reference.parameters())
    scaler, images = torch.amp.GradScaler("cpu", init_scale=2.0**10), torch.randn(4, 3, 6, 6)
    before = values(model.parameters())
    scaler.scale(model(images).square().mean()).backward()
    model[0].weight.grad[0, 0, 0, 0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert equal(model.parameters(), before)
    assert all(not value.any() for state in optimizer.state.values() for value in state.values())
    assert scaler.get_scale() == 2.0**9
    reference.load_state_dict(model.state_dict())
    optimizer.zero_grad()
    scaler.scale(model(images).square().mean()).backward()
    scaler.step(optimizer)
    reference(images).square().mean().backward()
    other.step()
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rest", ["adamw", "sgd"])
def test_a_step_that_the_device_skips_leaves_weights_and_state_and_a_taken_one_is_as_ever(rest):
    params = weights((8, 4, 3, 3), (6, 5), (7,))
    optimizer = Muon(params, weight_decay=0.1, rest=rest, normalise_weights=rest == "sgd")
    steps([optimizer], [params])
    taken = copies(params)
    plain = Muon(taken, weight_decay=0.1, rest=rest, normalise_weights=rest == "sgd")
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy((values(params), optimizer.state_dict()["state"]))
    for found_inf in (1.0, 0.0):
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(found_inf)
        torch.manual_seed(5)
        for p, q in zip(params, taken, strict=True):
            q.grad = torch.randn_like(q)
            p.grad = q.grad * 8
        if found_inf:
            params[0].grad[0, 0, 0, 0] = torch.nan
        optimizer.step()
        if found_inf:
            assert equal(params, before[0])
            state = optimizer.state_dict()["state"]
            assert all(torch.equal(state[i][k], v) for i, old in before[1].items() for k, v in old.items())
    plain.step()
    assert equal(params, taken)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0: must be 0 or more"),
        ({"lr": float("nan")}, "lr=nan: must be 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: must be 0 or more"),
        ({"momentum": 1.5}, "momentum=1.5: must be 0 or more, and below 1"),
        ({"momentum": -0.1}, "momentum=-0.1: must be 0 or more, and below 1"),
        ({"ns_steps": 0}, "ns_steps=0: must be 1 or more"),
        ({"adjust_lr": "none"}, "adjust_lr=none: must be original or match_rms_adamw"),
        ({"adamw_lr": -1}, "adamw_lr=-1: must be 0 or more"),
        ({"adamw_weight_decay": -1}, "adamw_weight_decay=-1: must be 0 or more"),
        ({"adamw_eps": -1}, "adamw_eps=-1: must be 0 or more"),
        ({"adamw_betas": (0.9, 1.0)}, "adamw_betas=(0.9, 1.0): must be two numbers from 0 to below 1"),
        ({"rest": "adam"}, "rest=adam: must be adamw or sgd"),
        ({"sgd_lr": -1}, "sgd_lr=-1: must be 0 or more"),
        ({"sgd_weight_decay": -1}, "sgd_weight_decay=-1: must be 0 or more"),
        ({"sgd_momentum": 1.0}, "sgd_momentum=1.0: must be 0 or more, and below 1"),
        ({"adamw_betas": [0.9]}, "adamw_betas=[0.9]: must be two numbers from 0 to below 1"),
    ],
)
def test_a_number_out_of_its_range_is_told_by_its_name(arguments, message):
    with pytest.raises(ValueError, match="must be") as error:
        Muon(weights((2, 2)), **arguments)
    assert str(error.value) == message
    if not next(iter(arguments)).startswith(
        ("adamw_lr", "adamw_weight", "sgd_lr", "sgd_weight", "rest")
    ):  # what a group may state itself
        with pytest.raises(ValueError, match="must be"):
            Muon([{"params": weights((2, 2)), "use_muon": True, **arguments}])


def test_a_parameter_that_is_no_matrix_is_refused_under_muon_with_its_shape():
    optimizer = Muon(weights((2, 2)))
    with pytest.raises(ValueError, match=r"^params=\(64,\): must have two dimensions or more under Muon"):
        optimizer.add_param_group({"params": weights((2, 2), (64,)), "use_muon": True})
    assert len(optimizer.param_groups) == 1


@CUDA
def test_on_a_gpu_steps_wait_for_nothing_and_are_the_cpus():
    params = weights((8, 4, 3, 3), (6, 5), (6, 5), (7,))
    on_gpu = [nn.Parameter(p.detach().cuda()) for p in params]
    mine, other = Muon(params), Muon(on_gpu)
    steps([mine, other], [params, on_gpu], count=2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        other.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    mine.step()
    for p, q in zip(params, on_gpu, strict=True):
        torch.testing.assert_close(p, q.cpu(), rtol=0, atol=3 * BF16 * 0.02 * 2)


@CUDA
def test_a_state_saved_on_a_cpu_goes_on_on_a_gpu():
    params = weights((8, 4, 3, 3), (7,))
    mine = Muon(params)
    steps([mine], [params])
    on_gpu = [nn.Parameter(p.detach().cuda()) for p in params]
    other = Muon(on_gpu)
    other.load_state_dict(copy.deepcopy(mine.state_dict()))
    steps([mine, other], [params, on_gpu], seed=1)
    for p, q in zip(params, on_gpu, strict=True):
        torch.testing.assert_close(p, q.cpu(), rtol=0, atol=5 * BF16 * 0.02 * 2)


def test_the_iteration_is_in_bf16_only_where_that_is_fast(monkeypatch):
    cpu = torch.device("cpu")
    for avx512, amx, dtype in [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ]:
        iteration_dtype.cache_clear()
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx512: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has)
        assert iteration_dtype(cpu) == dtype
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)  # a T4
    assert iteration_dtype(torch.device("cuda")) == torch.float32
    assert iteration_dtype(torch.device("mps")) == torch.float32
    iteration_dtype.cache_clear()
