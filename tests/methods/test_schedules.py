"""Learning rates and batch sizes over a run equal torch's own, with totals counted by hand."""

import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from iolaus.config.build import build_schedule
from iolaus.config.check import split_settings
from iolaus.config.loss_and_scheduler import SchedulerSettings
from iolaus.config.node import Node
from iolaus.errors import ConfigError
from iolaus.methods.schedules import (
    Schedule,
    batch_size_at,
    fill_totals,
    is_plateau,
    lr_scale,
    part_bounds,
    smallest_part,
    stand_in,
    steps_at,
    total_steps,
    warmup_steps,
)  # fmt: skip
from iolaus.settings import Trainer
from iolaus.trust.targets import locate

LR = 0.5
RUN = Trainer(epochs=3, batch_size=10)  # over 47 images: 4 steps an epoch, 12 in all
GROWING = Trainer(epochs=5, batch_size=10, batch_size_schedule={3: 100, 1: 20})  # 4 + 2 + 2 + 1 + 1 steps
COUNT = 47


def an_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=LR, momentum=0.9)


def schedule_of(option: str, settings: Trainer = RUN, count: int = COUNT, **changes: Any) -> Schedule:
    """What `scheduler=OPTION` builds, with some of its keys changed."""
    optimizer = changes.pop("optimizer", None) or an_optimizer()
    node = {}
    for name in ("common/scheduler", f"scheduler/{option}"):
        node |= yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text())
    node |= {"max_lr": LR} if option == "one_cycle" else {}  # the file has it from optimizer.lr
    return schedule_from({**node, **changes}, optimizer, settings, count)


def schedule_from(config: dict[str, Any], optimizer: torch.optim.Optimizer, settings: Trainer, count: int) -> Schedule:
    """What the node of a scheduler builds."""
    own, node = split_settings(config, SchedulerSettings)
    checked = SimpleNamespace(trainer=settings, scheduler=SchedulerSettings(**own),
                              scheduler_node=Node("scheduler", locate("scheduler", node), node))  # fmt: skip
    return build_schedule(checked, optimizer, count)


def curve(schedule: Schedule, settings: Trainer = RUN, metrics: list[dict[str, float]] | None = None) -> list[float]:
    """The learning rate of each step of a run, and the one after the last."""
    return [rates[0] for rates in curves(schedule, settings, metrics)]


def curves(schedule: Schedule, settings: Trainer = RUN, metrics: list[dict[str, float]] | None = None) -> list[Any]:
    """The learning rates of all groups in each step of a run, and after the last."""
    optimizer, lrs = schedule.optimizer, []

    def rates() -> list[float]:
        schedule.before_step(len(lrs))
        return [group["lr"] for group in optimizer.param_groups]

    for epoch in range(settings.epochs):
        for _ in range(steps_at(epoch, COUNT, settings.batch_size, settings.batch_size_schedule)[1]):
            lrs.append(rates())
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch({"step": len(lrs), **(metrics[epoch] if metrics else {})})
    return [*lrs, rates()]


def reference(scheduler_class: Any, steps: int, **arguments: Any) -> list[float]:
    """The learning rates of torch's scheduler by itself."""
    optimizer = an_optimizer()
    scheduler, lrs = scheduler_class(optimizer, **arguments), []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*lrs, optimizer.param_groups[0]["lr"]]


@given(
    epochs=st.integers(1, 8),
    count=st.integers(1, 60),
    initial=st.integers(1, 80),
    schedule=st.none() | st.dictionaries(st.integers(0, 9), st.integers(1, 80), max_size=4),
    drop_last=st.booleans(),
    fraction=st.floats(0, 0.999),
)
@settings(max_examples=50, deadline=None, database=None)
def test_batch_sizes_steps_and_totals_are_those_of_a_plain_loop(epochs, count, initial, schedule, drop_last, fraction):
    batches, size, taken = (count, initial, schedule, drop_last), initial, 0
    for epoch in range(epochs):
        size = (schedule or {}).get(epoch, size)
        batch, left, steps = min(size, count), count, 0
        while left >= (batch if drop_last else 1):
            left, steps = left - batch, steps + 1
        assert batch_size_at(epoch, initial, schedule) == size
        assert steps_at(epoch, *batches) == (batch, steps)
        assert total_steps(epoch, *batches) == taken
        assert warmup_steps(epoch + fraction, *batches) == taken + round((epoch + fraction - epoch) * steps)
        taken += steps
    assert total_steps(epochs, *batches) == taken


@pytest.mark.parametrize(("settings", "steps"), [(RUN, 12), (GROWING, 10)], ids=["constant", "growing"])
def test_one_cycle_and_cosine_span_the_real_number_of_steps(settings, steps):
    one_cycle = curve(schedule_of("one_cycle", settings), settings)
    assert one_cycle == reference(lr_scheduler.OneCycleLR, steps, max_lr=LR, total_steps=steps)
    assert one_cycle[-2] == min(one_cycle) == pytest.approx(LR / 25 / 1e4)  # the last step is the smallest
    assert max(one_cycle) == pytest.approx(LR, rel=0.05)

    cosine = curve(schedule_of("cosine", settings, eta_min=0.1), settings)
    assert cosine == reference(lr_scheduler.CosineAnnealingLR, steps, T_max=steps, eta_min=0.1)
    assert cosine == pytest.approx([0.1 + 0.4 * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps + 1)])
    assert cosine[-1] == pytest.approx(0.1)


def test_cosine_per_epoch_spans_the_epochs():
    lrs = curve(schedule_of("cosine", interval="epoch"))
    of_epoch = [LR * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(4)]
    assert lrs == pytest.approx([lr for lr in of_epoch[:3] for _ in range(4)] + of_epoch[3:])


def test_a_length_that_is_given_is_kept():
    lrs = curve(schedule_of("cosine", T_max=4))
    assert lrs[4:9] == pytest.approx([0, *lrs[3::-1]])  # half the period down, half of it up
    assert fill_totals(dict.fromkeys(("total_steps", "T_max")), {"total_steps": None, "T_max": 4}, 12) == {
        "total_steps": 12
    }
    assert fill_totals(dict.fromkeys(("T_max",)), {}, 12) == {}


@pytest.mark.parametrize("settings", [RUN, GROWING], ids=["constant", "growing"])
def test_step_multiplies_by_gamma_every_step_size_epochs(settings):
    lrs = curve(schedule_of("step", settings, step_size=2, gamma=0.3), settings)
    steps = [steps_at(e, COUNT, settings.batch_size, settings.batch_size_schedule)[1] for e in range(settings.epochs)]
    formula = [LR * 0.3 ** (epoch // 2) for epoch, n in enumerate(steps) for _ in range(n)]
    assert lrs == pytest.approx([*formula, LR * 0.3 ** (settings.epochs // 2)])


def test_constant_stays_what_the_optimizer_has():
    assert set(curve(schedule_of("constant"))) == {LR}


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("train/accuracy", "max"), ("val/accuracy", "max")])
def test_a_plateau_knows_from_the_monitors_name_which_way_is_better(monitor, mode):
    for values, end in (([1, 2, 3], "max"), ([3, 2, 1], "min")):
        schedule = schedule_of("plateau", monitor=monitor, patience=0)
        lrs = curve(schedule, metrics=[{monitor: value, "other": -value} for value in values])
        worse_twice = [LR] * 8 + [LR * 0.1] * 4 + [LR * 0.01]
        assert schedule.scheduler.mode == mode
        assert lrs == pytest.approx([LR] * 13 if end == mode else worse_twice)


def test_a_plateaus_mode_can_be_given():
    assert schedule_of("plateau", monitor="val/loss", mode="max").scheduler.mode == "max"
    assert [is_plateau(c) for c in (lr_scheduler.ReduceLROnPlateau, lr_scheduler.StepLR, schedule_of)] == [1, 0, 0]


def test_a_plateau_per_step_is_refused():
    with pytest.raises(ConfigError, match=r"scheduler\.interval=step"):
        schedule_of("plateau", interval="step")


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("option", ["one_cycle", "cosine"])
def test_the_shortest_runs_have_a_schedule(option, steps):
    settings = Trainer(epochs=steps, batch_size=COUNT)
    lrs = curve(schedule_of(option, settings), settings)
    assert len(lrs) == steps + 1
    assert all(0 <= lr <= LR for lr in lrs)


def test_a_warm_up_of_exactly_one_step_is_one_line_and_no_division_by_zero():
    settings = Trainer(epochs=2, batch_size=COUNT)
    with pytest.raises(ConfigError, match=r"scheduler: OneCycleLR .* 2 steps") as caught:
        schedule_of("one_cycle", settings, pct_start=0.5)
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_a_schedule_goes_on_from_its_state_dict():
    with warnings.catch_warnings(action="ignore"):  # torch wants an optimizer's step before a scheduler's
        whole, first, second = (schedule_of("cosine") for _ in range(3))
        for _ in range(7):
            whole.after_step()
        for _ in range(5):
            first.after_step()
        second.load_state_dict(first.state_dict())
        for _ in range(2):
            second.after_step()
    for schedule in (whole, second):
        schedule.before_step(7)
    assert second.scheduler.get_last_lr() == whole.scheduler.get_last_lr()
    assert second.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_a_rehearsal_leaves_scheduler_and_optimizer_as_they_were():
    import copy

    import torch

    from iolaus.methods.schedules import dry_run

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=7)
    before = copy.deepcopy((scheduler.state_dict(), optimizer.state_dict()))
    dry_run(scheduler, 7)
    assert (scheduler.state_dict(), optimizer.state_dict()) == before
    with pytest.raises(ValueError, match="8"):
        dry_run(scheduler, 8)
    assert (scheduler.state_dict(), optimizer.state_dict()) == before


OPTIONS = ("constant", "cosine", "one_cycle", "plateau", "step")
# what would break the ratios if a scheduler moved the groups themselves
FLOORS = {"cosine": {"eta_min": 0.1}, "plateau": {"min_lr": 0.1, "patience": 0}}


def three_groups() -> torch.optim.Optimizer:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": LR * factor} for factor in (0.25, 0.5, 1.0)]
    return torch.optim.SGD(groups, lr=LR, momentum=0.9)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_scheduler_keeps_the_ratios_of_the_groups(option):
    metrics = [{"val/loss": 1.0}] * 3
    changes = {**FLOORS.get(option, {}), "warmup_epochs": 1.5}
    lrs = curves(schedule_of(option, optimizer=three_groups(), **changes), metrics=metrics)
    alone = curve(schedule_of(option, **changes), metrics=metrics)
    assert len(lrs) == 13
    assert [rates[2] for rates in lrs] == alone
    for quarter, half, whole in lrs:
        assert (quarter, half) == (pytest.approx(whole / 4), pytest.approx(whole / 2))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (0.5, 2), (1.75, 7)])
def test_a_warm_up_multiplies_any_schedule_by_a_line_that_ends_at_one(option, epochs, steps):
    metrics = [{"val/loss": 1.0}] * 3
    plain = curve(schedule_of(option), metrics=metrics)
    warm = curve(schedule_of(option, warmup_epochs=epochs), metrics=metrics)
    ramp = [min(1.0, (step + 1) / steps) for step in range(13)]
    assert warm == pytest.approx([lr * factor for lr, factor in zip(plain, ramp, strict=True)])


def test_warm_up_steps_are_counted_under_a_growing_batch():
    counted = [warmup_steps(epochs, COUNT, 10, {1: 20, 3: 100}) for epochs in (0, 0.5, 1, 1.5, 3, 4)]
    assert counted == [0, 2, 4, 5, 8, 9]


def test_a_group_that_ends_early_goes_in_a_line_to_0_and_the_others_follow_the_scheduler():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.4)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(stand_in(optimizer), gamma=0.9)
    schedule = Schedule(scheduler, optimizer, "step", warmup_steps=2, ends=[None, 5])
    for step in range(9):
        schedule.before_step(step)
        ramp = min(1, (step + 1) / 2)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([ramp * 0.1 * 0.9**step, ramp * 0.4 * max(0, 1 - step / 5)])
        schedule.after_step()
    assert rates[1] == 0


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_epochs=3: must be less than trainer\.epochs=3"):
        schedule_of("cosine", warmup_epochs=3)


def test_the_rate_follows_the_batch_linearly_by_its_root_or_not_at_all():
    assert [lr_scale(512, 128, rule) for rule in ("none", "linear", "sqrt")] == [1, 4, 2]
    schedule = schedule_of("constant", optimizer=three_groups())
    schedule.scale = 4.0
    assert curves(schedule)[0] == [LR, 2 * LR, 4 * LR]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_one_cycle_moves_the_momentum_of_every_group_as_torch_does_itself(make):
    arguments = {"lr": LR, "momentum": 0.9} if make is torch.optim.SGD else {"lr": LR}
    name = "momentum" if make is torch.optim.SGD else "betas"

    def parameters() -> list[dict[str, Any]]:
        return [{"params": nn.Linear(1, 1).parameters()} for _ in range(2)]

    ours, theirs = (make(parameters(), **arguments) for _ in range(2))
    schedule = schedule_of("one_cycle", optimizer=ours, cycle_momentum=True)
    scheduler = lr_scheduler.OneCycleLR(theirs, LR, total_steps=12)
    seen = set()
    for step in range(12):
        schedule.before_step(step)
        for one, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert (one["lr"], one[name]) == (pytest.approx(other["lr"]), pytest.approx(other[name]))
        seen.add(ours.param_groups[0][name])
        theirs.step()
        scheduler.step()
        schedule.after_step()
    assert len(seen) > 6


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_one_cycle_leaves_the_momentum_to_the_optimizer(make):
    optimizer = make(nn.Linear(1, 1).parameters(), lr=LR)
    before = {name: optimizer.param_groups[0].get(name) for name in ("momentum", "betas")}
    schedule = schedule_of("one_cycle", optimizer=optimizer)
    for step in range(12):
        schedule.before_step(step)
        assert {name: optimizer.param_groups[0].get(name) for name in before} == before
        schedule.after_step()


def test_one_cycle_of_a_single_step_is_not_at_its_end():
    once = Trainer(epochs=1, batch_size=COUNT)
    rate, _ = curve(schedule_of("one_cycle", once), once)
    assert rate > LR / 2


def test_a_plateau_counts_from_the_end_of_the_warm_up():
    worse = [{"val/loss": 1.0 + epoch} for epoch in range(5)]
    settings = Trainer(epochs=5, batch_size=10)
    rates = curve(schedule_of("plateau", settings, patience=0, warmup_epochs=2), settings, worse)
    # the third epoch is the first that is looked at, the fourth the first without an improvement
    assert rates[8:] == pytest.approx([LR] * 8 + [LR / 10] * 4 + [LR / 100])


def test_a_single_image_that_is_left_of_a_batch_joins_the_part_before_it():
    assert part_bounds(9, 4) == [(0, 4), (4, 9)]
    assert part_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert part_bounds(3, 1) == [(0, 1), (1, 2), (2, 3)]
    assert part_bounds(1, 4) == [(0, 1)]


@pytest.mark.parametrize(
    ("settings", "smallest"),
    [
        ({"batch_size": 16}, 16),
        ({"batch_size": 16, "drop_last": False}, 15),  # 47 = 2 x 16 + 15
        ({"batch_size": 23, "drop_last": False}, 1),
        ({"batch_size": 1}, 1),
        ({"batch_size": 16, "micro_batch_size": 5}, 5),
        ({"batch_size": 16, "micro_batch_size": 1}, 1),
        ({"batch_size": 16, "batch_size_schedule": {1: 1}}, 1),
        ({"batch_size": 500, "drop_last": False}, 47),
    ],
)
def test_the_smallest_part_of_a_run_is_known_before_it(settings, smallest):
    assert smallest_part(Trainer(epochs=2, **settings), COUNT) == smallest
