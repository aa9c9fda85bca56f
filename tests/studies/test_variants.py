"""A job that is one of many with other values is, to the last character, the job that Hydra composes by itself."""

import random

import pytest
from conftest import exhaustive
from omegaconf import OmegaConf, open_dict

from iolaus.config.check import check_composed
from iolaus.config.unchanged import as_text
from iolaus.errors import ConfigError
from iolaus.studies import variants
from iolaus.studies.checks import JobChecks
from iolaus.studies.grid import GridSweeper
from iolaus.studies.job import take_job_config
from iolaus.studies.leaves import is_constant, overlap, replace_value
from iolaus.trust.folder_names import read_folders

# Axes of a grid: single values, values that others refer to, mistakes, and all that must not be taken for single ones.
AXES = (
    "seed=0,1,2", "seed=1,x,null", "optimizer.lr=0.1,0.2,1,true", "optimizer.weight_decay=0,0.0,-0.0,1e-3",
    "scheduler.max_lr=0.5,0.25", "scheduler.max_lr=0.5,${optimizer.lr}", "trainer.epochs=1,2,0", "trainer.epochs=3",
    "trainer.batch_size=${seed},16", "+trainer.batch_size=5,6", "model=cnn,mlp", "model.widths=[4],[4,8]",
    "optimizer=sgd,adamw", "loss.label_smoothing=0,0.1", "objective=val/loss,train/loss,val/los", "study=a,b",
    "dataset.root=${oc.env:HOME},/tmp", "dataset.cache_dir=${oc.env:MY_API_KEY},x", "augmentation.flip=0.0,1.0",
    "~optimizer.amsgrad", "+table={a: 1}", "+table={a: 1,b: 2},{a: 3}", "trainer.precision=fp32,'f p'",
    "optimizer._target_=torch.optim.SGD,torch.optim.Adam", "dataset.validation=0.1,0.2,test", "early_stopping=plateau",
    "trainer.batch_size_schedule={2: 64},null", "experiment=null", "resume=null,last", "objective='a b',\"c,d\",ä",
    "hydra.sweep.subdir=n${hydra.job.num}", "hydra.sweep.subdir=s${seed}", "hydra.sweep.dir=x/${trainer.epochs}",
    "tracker=none", "tracker=tensorboard,csv", "dataset.std=[0.5],[0.25]", "loss._target_=torch.nn.NLLLoss",
    "trainer.ema_decay=0.9,null", "model.dropout=???,0.1", "+model=3,{x: 1}", "scheduler.pct_start=${.div_factor},0.3",
)  # fmt: skip
JOBS = 12  # of a grid, at most


def compose_alone(self, number, job):
    """The job as Hydra composes it, and as it was checked before there were variants."""
    composed = self.loader.loader.load_sweep_config(self.config, job)
    with open_dict(composed):
        composed.hydra.job.num = number
    folders = read_folders(composed)
    assert folders.given["hydra.sweep.subdir"] == str(composed.hydra.sweep.subdir)
    overrides = take_job_config(composed)
    return folders, overrides, as_text(composed), composed


def outcome_of(check, *arguments):
    """What a check finds, as text in which 1, 1.0 and True differ."""
    try:
        config = check(*arguments)
    except ConfigError as error:
        return list(error.problems)
    return repr((config.plain, config.launch, config.trainer, config.optimizer_node.config, config.dataset))


@pytest.fixture
def compare(command, monkeypatch):
    """Compose every job of a command both ways and compare; returns how many of them a variant gave."""
    monkeypatch.setenv("MY_API_KEY", "a secret")
    by_variant = []

    def compare_jobs(self, jobs):
        checks = JobChecks(self.loader, self.config)
        made = variants.Variants(checks)
        for number in sorted(random.Random(0).sample(range(len(jobs)), min(len(jobs), JOBS))):
            job = jobs[number]
            try:
                folders, overrides, text, composed = compose_alone(self, number, job)
            except Exception:
                with pytest.raises(Exception, match=r"."):
                    made.compose(number, job)
                continue
            fast = made.compose(number, job)
            assert (fast.folders, fast.overrides, repr(fast.text)) == (folders, overrides, repr(text)), job
            expected = outcome_of(check_composed, composed)
            assert outcome_of(check_composed, fast.config, fast.plain, checks.known) == expected, job
            by_variant.append(fast.plain is not None)
        raise SystemExit(0)

    monkeypatch.setattr(GridSweeper, "_check_jobs", compare_jobs)

    def run(*arguments):
        by_variant.clear()
        outcome = command("-m", *arguments)
        assert outcome.status in (0, 2), outcome.err
        return sum(by_variant), len(by_variant)

    return run


def draw(seed):
    """A grid of a few axes, one of each key, of which most have several values."""
    generator = random.Random(seed)
    axes = {axis.partition("=")[0].lstrip("+~"): axis for axis in generator.sample(AXES, generator.randint(2, 5))}
    return list(axes.values())


@pytest.mark.parametrize("seed", range(6))
def test_every_job_of_a_grid_is_the_one_that_hydra_composes(compare, seed):
    compare(*draw(seed))


@exhaustive
@pytest.mark.parametrize("seed", range(6, 100))
def test_every_job_of_more_grids_is_the_one_that_hydra_composes(compare, seed):
    compare(*draw(seed))


@pytest.mark.parametrize(("arguments", "expected"), [
    (["seed=0,1,2", "optimizer.lr=0.1,0.2", "study=s"], (6, 6)),
    (["model=cnn,mlp", "seed=0,1"], (4, 4)),
    (["optimizer.lr=0.1,0.2", "optimizer.weight_decay=${optimizer.lr}"], (2, 2)),
    (["optimizer.lr=0.1,${seed}", "seed=0,1"], (4, 4)),
    (["model.widths=[4],[8]"], (2, 2)),
    (["dataset.cache_dir=${oc.env:MY_API_KEY}", "seed=0,1"], (0, 2)),
    (["objective=${hydra:job.name}", "seed=0,1"], (0, 2)),
    (["optimizer._target_=torch.optim.SGD", "seed=0,1"], (0, 2)),
    (["seed=0,1", "hydra.sweep.subdir=run-${hydra.job.num}"], (2, 2)),
])  # fmt: skip
def test_what_is_taken_for_single_values(compare, arguments, expected):
    assert compare(*arguments) == expected


def test_a_mistake_in_one_job_of_many_is_told_before_the_first_begins(command):
    outcome = command("-m", "trainer.epochs=range(1,40)", "optimizer.lr=0.1,0.2,-1", "tracker=none")
    assert outcome.status == 2
    assert outcome.err.splitlines() == ["iolaus: optimizer.lr=-1: must be 0 or more"]
    assert not (outcome.cwd / "outputs").exists()


def test_keys_overlap_where_one_is_within_another():
    assert overlap(["a.b", "c", "a.b.c"])
    assert overlap(["a", "a"])
    assert not overlap(["a.b", "a.bc", "ab"])


def test_replacing_a_value_leaves_the_other_parts_as_the_same_objects():
    before = {"a": {"x": 1, "y": [1, {"z": 2}]}, "b": {"x": 1}}
    after = replace_value(before, ("a", "y", 1, "z"), 3)
    assert after == {"a": {"x": 1, "y": [1, {"z": 3}]}, "b": {"x": 1}}
    assert before["a"]["y"][1]["z"] == 2
    assert after["b"] is before["b"]
    assert replace_value(before, ("a", "x"), 1) is before
    assert repr(replace_value(before, ("b", "x"), True)["b"]) == "{'x': True}"
    assert repr(replace_value({"x": 0.0}, ("x",), -0.0)) == "{'x': -0.0}"


def test_a_name_is_constant_that_leads_to_no_varied_key():
    whole = OmegaConf.to_container(OmegaConf.create({"a": "x/${b}", "b": "${c.d}", "c": {"d": 1}, "e": "${now:%Y}",
                                                     "f": "${g:}", "h": "${c}"}), resolve=False)  # fmt: skip
    assert is_constant(whole, "a", ["seed"])
    assert is_constant(whole, "e", ["seed"])
    assert not is_constant(whole, "a", ["c.d"])
    assert not is_constant(whole, "f", [])
    assert not is_constant(whole, "h", ["c.d"])
