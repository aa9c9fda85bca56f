"""The user's own files that a run names: what they said is kept, and an edit is told."""

import hashlib
import importlib
import sys
from pathlib import Path

import pytest
from conftest import TINY, checked_config

from iolaus.config.own_code import digest_of, hash_own_code
from iolaus.files.changes import edited_files

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, image_size, scale=1.0):
        super().__init__()
        self.layer, self.scale = nn.Linear(in_channels * image_size**2, num_classes), scale

    def forward(self, images):
        return self.scale * self.layer(images.flatten(1))
"""
OWN = (*TINY, "model._target_=own_net.Net", "~model.widths", "~model.dropout", "trainer.device=cpu")


@pytest.fixture
def write(command, monkeypatch):
    """Writes own_net.py or own_parts.py as another process would find it."""
    monkeypatch.setattr("sys.path", [*sys.path])

    def forget():
        for name in ("own_net", "own_parts"):
            sys.modules.pop(name, None)
        digest_of.cache_clear()
        importlib.invalidate_caches()

    def write_file(text, name="own_net.py"):
        Path(name).write_text(text)
        forget()

    yield write_file
    forget()


def test_files_that_are_installed_or_ours_are_not_kept():
    assert hash_own_code(checked_config(*TINY, "model=resnet18").plain) == {}
    assert hash_own_code({"model": {"_target_": "sys.intern"}, "loss": {"_target_": "no_such_module.f"}}) == {}


def test_a_digest_is_of_the_file_that_a_run_names(command, write):
    write(NET)
    outcome = command(*OWN)
    assert outcome.status == 0, outcome.err
    ((name, digest),) = outcome.results["own_code"].items()
    assert (name, digest) == ("own_net.py", hashlib.sha256(NET.encode()).hexdigest()[:12])


def test_a_run_that_goes_on_with_edited_code_says_so(command, write):
    write(NET)
    assert command(*OWN, "trainer.epochs=1", "scheduler=constant", "hydra.run.dir=outputs/A").status == 0
    untouched = command("resume=outputs/A", "trainer.epochs=2", "model._target_=own_net.Net")
    assert untouched.status == 0, untouched.err
    assert "was edited" not in untouched.out + untouched.err
    write(NET + "# more\n")
    outcome = command("resume=outputs/A", "trainer.epochs=3", "model._target_=own_net.Net")
    assert outcome.status == 0, outcome.err
    assert "own_net.py was edited since outputs/A began" in outcome.out + outcome.err


def test_a_study_of_two_versions_of_the_code_is_marked(command, write):
    write(NET)
    assert "edited" not in command("-m", *OWN, "study=S", "seed=0,1").out
    write(NET.replace("scale=1.0", "scale=20.0"))
    outcome = command("-m", *OWN, "study=S", "seed=0,1,2")
    assert outcome.status == 0, outcome.err
    told = "own_net.py was edited between these runs: they are not of one code."
    assert told in outcome.out
    assert told in (outcome.cwd / "outputs/S/report.md").read_text()


def test_files_are_edited_where_their_digests_differ():
    assert edited_files([None, {"a.py": "1", "b.py": "2"}, {"a.py": "1", "b.py": "3"}, {"c.py": "4"}]) == ["b.py"]


PARTS = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from iolaus.data.sources import Source
from iolaus.data.split import Split

def data(mode):
    images, targets = torch.zeros(30, 3, 8, 8, dtype=torch.uint8), torch.arange(30) % 3
    if mode == "length": targets = targets[:25]
    if mode == "floats": images = images / 255
    if mode == "last": images = images.permute(0, 2, 3, 1)
    if mode == "float targets": targets = targets.float()
    if mode == "large": targets = targets + 1
    return Source(Split(images, targets), Split(images.clone(), torch.arange(30) % 3), ["a", "b", "c"], 3, 8)

class Halves:
    def __init__(self, train): ...
    def __len__(self): return 6
    def __getitem__(self, i): return torch.zeros(3, 8, 8, dtype=torch.uint8), i % 3 + 0.5

class Names(Halves):
    def __getitem__(self, i): return torch.zeros(3, 8, 8, dtype=torch.uint8), "ab"[i % 2]

class Pair(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.LazyLinear(num_classes)
    def forward(self, images): return self.layer(images.flatten(1)), images

class Vector(nn.Module):
    def forward(self, logits, targets): return cross_entropy(logits, targets, reduction="none")

class Number(nn.Module):
    def forward(self, logits, targets): return 1.0

class Cut(nn.Module):
    def forward(self, logits, targets): return cross_entropy(logits.detach(), targets)
"""
MODEL, LOSS = ("~model.widths", "~model.dropout"), ("~loss.label_smoothing",)
MISTAKES = {
    "length": (["+dataset.mode=length"], "the train split has 30 images and 25 targets"),
    "floats": (["+dataset.mode=floats"], "must be uint8 (n, channels, height, width), and are float32 (30, 3, 8, 8)"),
    "channels last": (["+dataset.mode=last"], "and are uint8 (30, 8, 8, 3)"),
    "float targets": (["+dataset.mode=float targets"], "must be int64 (n,), and are float32 (30,)"),
    "large": (["+dataset.mode=large"], "must be below the 3 classes, and are 1 to 3"),
    "halves": (["dataset._target_=own_parts.Halves"], "Halves has targets such as"),
    "names": (["dataset._target_=own_parts.Names"], "must be class indices"),
    "a tuple": (["model._target_=own_parts.Pair", *MODEL], "Pair gives a tuple, not logits, a tensor of (2, 10)"),
    "a vector": (["loss._target_=own_parts.Vector", *LOSS], "Vector gives shape (11,), not one number"),
    "a number": (["loss._target_=own_parts.Number", *LOSS], "Number gives a float, not one number in a tensor"),
    "no gradient": (["loss._target_=own_parts.Cut", *LOSS], "Cut gives a number without a gradient"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_an_own_part_gives_that_does_not_fit_is_one_line(command, write, arguments, told):
    write(PARTS, "own_parts.py")
    own_data = ["dataset._target_=own_parts.data"] if arguments[0].startswith("+dataset") else []
    outcome = command(*own_data, *arguments, "trainer.device=cpu", "tracker=none")
    assert outcome.status == 2, outcome.err
    (line,) = outcome.err.splitlines()
    assert told in line
