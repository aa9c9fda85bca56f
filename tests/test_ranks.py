"""Several processes train the run that one process trains: the same weights, history and test figures.

Sums over a batch are added up in another order, so the numbers agree to a few roundings of float32 and not to the bit.
The other ranks of a world live from one run of this process to the next: a case costs a training, not a start.
"""

import json
import os
import signal

import numpy as np
import optuna
import pytest
import torch
from conftest import TINY, checked_config, command_in, exhaustive
from PIL import Image

from iolaus import loop
from iolaus.config.build import build_parts
from iolaus.machine import followers

pytestmark = pytest.mark.xdist_group("ranks")

BASE = (
    *TINY, "dataset.num_classes=3", "dataset.train_count=75", "dataset.test_count=22", "trainer.epochs=3",
    "trainer.precision=fp32", "trainer.device=cpu", "trainer.monitor_every=0", "trainer.eval_batch_size=5",
    "model=mlp", "model.hidden=[16]", "model.norm=none", "trainer.log_every=2",
)  # fmt: skip
CASES = {
    "SGD, cosine": ("optimizer=sgd", "scheduler=cosine"),
    "AdamW, odd shards, the last batch kept": (
        "optimizer=adamw", "trainer.drop_last=false", "trainer.batch_size=7", "augmentation=basic",
        "dataset.mirror=true",
    ),
    "a last batch of one image": ("optimizer=sgd", "trainer.drop_last=false", "trainer.batch_size=59"),
    "mixup, cutmix, EMA, clipping, erasing": (
        "augmentation=advanced", "augmentation.mixup_alpha=0.2", "augmentation.cutmix_alpha=1.0",
        "augmentation.erasing=0.5", "trainer.ema_decay=0.9", "trainer.grad_clip_norm=0.5", "trainer.drop_last=false",
        "trainer.batch_size=13", "loss.label_smoothing=0.1",
    ),
    "SAM in micro-batches": ("optimizer=sam", "trainer.micro_batch_size=3"),
    "Muon, a batch-size schedule, test-time augmentation": (
        "optimizer=muon", "trainer.batch_size_schedule={1: 24}", "trainer.scale_lr_with_batch=linear",
        "trainer.tta=flip", "dataset.mirror=true",
    ),
    "plateau and early stopping": (
        "scheduler=plateau", "scheduler.patience=0", "early_stopping=patience", "early_stopping.patience=1",
        "trainer.epochs=8", "optimizer=sgd", "optimizer.lr=0.5",
    ),
    "checkpoints within an epoch": ("optimizer=sgd", "scheduler=cosine", "trainer.checkpoint_every=1e-9"),
    "streaming, mixed": ("dataset.residency=streaming", "dataset.num_workers=1", "augmentation=mixup"),
}  # fmt: skip
TIMES = ("seconds", "images_per_second", "steps_per_second", "hardware/")


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """`python train.py ARGUMENTS` with a number of ranks; returns the run's folder. One folder for all tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = tmp_path_factory.mktemp("ranks")
        command = command_in(root, monkeypatch)

        def run(name, ranks, *arguments):
            folder = root / "outputs" / f"{name}-{ranks}"
            if not folder.exists():
                done = command(*BASE, *arguments, f"trainer.devices={ranks}", f"hydra.run.dir={folder}")
                assert done.status == 0, done.err
            return folder

        run.command, run.root = command, root
        yield run


def tensors_of(content, name=""):
    """The tensors and numbers of nested containers, by their places."""
    if isinstance(content, dict):
        pairs = [(f"{name}/{key}", value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        pairs = [(f"{name}/{i}", value) for i, value in enumerate(content)]
    else:
        return {name: torch.as_tensor(content)} if isinstance(content, torch.Tensor | int | float) else {}
    return {place: tensor for key, value in pairs for place, tensor in tensors_of(value, key).items()}


def assert_close(one, other, tolerance, case):
    a, b = tensors_of(one), tensors_of(other)
    assert a.keys() == b.keys()
    for place in a:
        torch.testing.assert_close(
            a[place].double(), b[place].double(), rtol=tolerance, atol=tolerance, msg=f"{case}: {place}"
        )


def results_of(folder):
    """What a run has measured, without times."""
    results = json.loads((folder / "results.json").read_text())
    rows = [*results["history"], *results["metrics"].values()]
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows], results


def learner_of(folder):
    return torch.load(folder / "last.pt", weights_only=True)["learner"]


def assert_same_run(alone, shared, case):
    # Muon's iteration is in bfloat16 on some processors, and a rounding there is 0.4 % of a step
    tolerance = 5e-3 if "Muon" in case else 2e-5
    assert_close(learner_of(alone), learner_of(shared), tolerance, case)
    assert_close(results_of(alone)[0], results_of(shared)[0], tolerance, case)


# Switching the number of ranks starts others: few tests do it, and the one of three ranks is the last.


def test_two_ranks_train_what_one_trains(train):
    pairs = [[train(case.split(",")[0], world, *CASES[case]) for case in CASES] for world in (2, 1)]
    for case, shared, alone in zip(CASES, *pairs, strict=True):
        assert_same_run(alone, shared, case)
        (_, results), (_, results_shared) = results_of(alone), results_of(shared)
        assert (results["world_size"], results_shared["world_size"]) == (1, 2)
        assert (results["rank_batch_size"] + 1) // 2 == results_shared["rank_batch_size"]
        assert (shared / "metrics.jsonl").read_text().count("\n") == len(results["history"])


def test_a_run_of_one_rank_has_the_processor_for_itself_again(train):
    train("shared", 2, *CASES["SGD, cosine"])
    crew = followers._crew
    assert os.environ["LOCAL_WORLD_SIZE"] == "2"  # by which a rank counts its reading processes
    train("alone", 1, *CASES["SGD, cosine"])
    assert "LOCAL_WORLD_SIZE" not in os.environ
    assert crew.over
    assert [process.poll() for process in crew.processes] == [0]
    assert crew.threads == torch.get_num_threads()


def test_batchnorm_on_a_cpu_is_each_ranks_own_and_all_evaluate_its_mean(train):
    arguments = ("model.norm=batch", "trainer.ema_decay=0.9", "trainer.epochs=2", "dataset.validation=test")
    folder = train("batchnorm", 2, *arguments)
    results = results_of(folder)[1]
    assert results["batchnorm"] == "ghost"
    parts = build_parts(checked_config(*BASE, *arguments))
    assert parts.batchnorm == "batch"
    parts.learner.load_state_dict(learner_of(folder))
    measured, _ = loop.evaluate(parts.learner, parts.data.test, 5)
    assert measured["loss"] == pytest.approx(results["history"][-1]["val/loss"], rel=1e-6)


def stop_at(monkeypatch, step):
    """Let SIGTERM reach this process during a step."""
    original = loop.train_step

    def train_step(learner, images, targets, number, *rest):
        if number == step:
            signal.raise_signal(signal.SIGTERM)
        return original(learner, images, targets, number, *rest)

    monkeypatch.setattr(loop, "train_step", train_step)


def test_a_run_goes_on_with_another_number_of_ranks_and_to_the_bit_with_the_same(train, monkeypatch):
    whole = train("SGD", 2, *CASES["SGD, cosine"])
    started = []
    for name, worlds in (("same", (2, 2)), ("other", (1, 2, 1))):
        folder = train.root / "outputs" / name
        for part, world in enumerate(worlds):
            given = (f"resume={folder}",) if part else (*BASE, *CASES["SGD, cosine"], f"hydra.run.dir={folder}")
            with monkeypatch.context() as patch:
                if part + 1 < len(worlds):
                    stop_at(patch, 3 + 3 * part)  # in the middle of the second and of the third epoch
                done = train.command(*given, f"trainer.devices={world}")
            assert done.status == (143 if part + 1 < len(worlds) else 0), done.err
            started.append(followers._crew.processes)
    assert started[0] is started[1]  # a run that stops leaves them ready for the next
    for place, tensor in tensors_of(learner_of(whole)).items():
        assert torch.equal(tensor, tensors_of(learner_of(train.root / "outputs" / "same"))[place]), place
    assert_same_run(
        train("SGD", 1, *CASES["SGD, cosine"]), train.root / "outputs" / "other", "from one rank to two and back"
    )


def test_a_mistake_or_a_nan_is_told_once_and_the_other_ranks_are_there_for_the_next_run(train):
    train("before", 2, "trainer.epochs=1")
    before = followers._crew.processes
    wrong = train.command(*BASE, "trainer.devices=2", "model.widths=[4]", "hydra.run.dir=outputs/wrong")
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    wrong = train.command(*BASE, "trainer.devices=2", "dataset.mean=[0.5,0.5]", "dataset.std=[1,1]")
    assert wrong.status == 2, wrong.err
    assert wrong.err.startswith("iolaus: dataset"), wrong.err
    assert wrong.err.count("\n") == 1
    nan = train.command(*BASE, "trainer.devices=2", "optimizer=sgd", "optimizer.lr=1e30", "hydra.run.dir=outputs/nan")
    assert (nan.status, nan.err.count("the training loss is")) == (1, 1), nan.err
    assert results_status(train.root / "outputs" / "nan") == "failed"
    train("after", 2, "trainer.epochs=1")
    assert followers._crew.processes is before


def results_status(folder):
    return json.loads((folder / "results.json").read_text())["status"]


LINEAR = """import os, torch
class {name}(torch.nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
"""


def own_model(train, name, rest):
    """Write a linear model of the user's own, whose lines end with `rest`. Returns the arguments of a run of it."""
    module = name.lower()
    (train.root / f"{module}.py").write_text(LINEAR.format(name=name) + rest)
    given = [argument for argument in BASE if not argument.startswith("model.")]
    return [*given, "model=cnn", f"model._target_={module}.{name}", "~model.widths", "~model.dropout"]


def test_what_fails_on_one_rank_alone_is_told_by_rank_0_in_one_line(train):
    own = own_model(
        train,
        "Narrow",
        "    def forward(self, images):\n"
        "        if self.training and os.environ.get('RANK') == '1':\n"
        "            raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')\n"
        "        return super().forward(images)\n",
    )
    full = train.command(*own, "trainer.devices=2", "hydra.run.dir=outputs/memory")
    assert (full.status, full.err.count("out of memory"), full.err.count("iolaus:")) == (1, 1, 1), full.err
    assert "trainer.micro_batch_size" in full.err
    assert results_status(train.root / "outputs" / "memory") == "failed"


def test_a_branch_of_the_model_that_no_batch_goes_through_is_one_line(train):
    own = own_model(
        train,
        "Branched",
        "        self.unused = [torch.nn.Linear(3, 4)]\n"
        "        self.register_module('branch', self.unused[0])\n"
        "    def forward(self, images):\n"
        "        return self[1](self[0](images))\n",
    )
    outcome = train.command(*own, "trainer.devices=2", "hydra.run.dir=outputs/branched")
    assert (outcome.status, outcome.err.count("iolaus:"), outcome.err.count("Traceback")) == (1, 1, 0), outcome.err
    assert "the loss must depend on all parameters of the model" in outcome.err


def test_images_that_any_rank_has_left_out_are_counted_once(train):
    folder = train.root / "pictures"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            path = folder / name / f"{i}.png"
            Image.new("L", (8, 8), i * 10 + (name == "a")).save(path)
            if i % 7 == 3:
                path.write_bytes(path.read_bytes()[:40])
    given = [argument for argument in BASE if not argument.startswith("dataset")]
    given += ["dataset=image_folder", f"dataset.root={folder}", "dataset.on_bad_image=skip", "dataset.num_workers=0",
              "dataset.residency=streaming", "dataset.mean=[0.5]", "dataset.std=[0.2]", "tracker=none",
              "trainer.epochs=1"]  # fmt: skip
    skipped = []
    for ranks in (1, 2):
        outcome = train.command(*given, f"trainer.devices={ranks}", f"hydra.run.dir=outputs/skipped-{ranks}")
        assert outcome.status == 0, outcome.err
        results = json.loads((train.root / "outputs" / f"skipped-{ranks}" / "results.json").read_text())
        skipped.append(results["skipped_images"])
    assert skipped == [4, 4]


def test_a_search_prunes_runs_of_two_ranks_and_takes_up_one_that_has_lost_a_rank(train, monkeypatch):
    train_step, killed = loop.train_step, []

    def lose_a_rank(learner, *given):
        if learner.group.rank == 0 and learner.group.world == 2 and not killed and given[2] == 7:
            killed.append(followers._crew.processes[0])
            killed[0].kill()
            killed[0].wait()
        return train_step(learner, *given)

    monkeypatch.setattr(loop, "train_step", lose_a_rank)
    # as Optuna's pruners answer, with a number of numpy's
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: np.bool_(trial.number == 1))
    search = ("-m", "study=search", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra/sweeper/pruner=median",
              "optimizer=sgd", "optimizer.lr=interval(0.01,0.1)")  # fmt: skip
    outcome = train.command(*BASE, *search, "trainer.devices=2")
    assert outcome.status == 0, outcome.err
    assert len(killed) == 1
    assert "trial 0 was cut off: taken up again" in outcome.out + outcome.err
    first, second = (train.root / "outputs" / "search" / str(number) for number in range(2))
    assert (results_status(first), results_status(second)) == ("finished", "pruned")
    history = json.loads((first / "results.json").read_text())["history"]
    assert [row["epoch"] for row in history] == [0, 1, 2]


@exhaustive
def test_three_ranks_train_what_one_trains_and_take_up_what_one_began(train, monkeypatch):
    for case in list(CASES)[:4]:
        name = case.split(",")[0]
        assert_same_run(train(name, 1, *CASES[case]), train(name, 3, *CASES[case]), case)
    folder = train.root / "outputs" / "third"
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert train.command(*BASE, *CASES["SGD, cosine"], f"hydra.run.dir={folder}").status == 143
    assert train.command(f"resume={folder}", "trainer.devices=3").status == 0
    assert_same_run(train("SGD", 1), folder, "from one rank to three")
    assert followers._crew is not None
    followers._crew.end(kill=False)
