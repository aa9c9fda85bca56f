"""What may import what: Hydra stays at the door, a start is light, and a file is short enough to read."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "iolaus"
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The dotted names of all that a file imports, anywhere in it; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def modules_after(code: str, cwd: Path) -> set[str]:
    """The modules that a new Python has in memory after some code."""
    code += "\nimport json, sys; print(); print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_hydra_stays_at_the_door():
    with_hydra = {path.name for path in FILES if packages(path) & {"hydra", "omegaconf"}}
    assert with_hydra == {"config.py", "errors.py", "folders.py", "grid.py", "run.py", "space.py", "sweeper.py",
                          "trial.py"}  # fmt: skip


def test_the_loop_knows_only_what_it_needs():
    ours = {name.split(".")[1] for name in imports(SOURCE / "loop.py") if name.startswith("iolaus.")}
    assert ours == {"learner", "monitor", "sam", "schedules", "seeds", "stopping"}
    assert packages(SOURCE / "loop.py") - set(sys.stdlib_module_names) == {"iolaus", "torch"}


@pytest.mark.parametrize(
    "rule",
    ["stopping", "schedules", "seeds", "losses", "optim", "checkpoint", "settings", "sam", "ema", "groups", "monitor"],
)
def test_a_rule_stands_on_its_own(rule):
    """Below the loop a file needs nothing of ours, so that it can be read, tested and taken elsewhere alone."""
    assert "iolaus" not in packages(SOURCE / f"{rule}.py")


def test_what_every_start_imports_is_light(tmp_path):
    light = ("folders", "config", "run", "checkpoint", "trackers", "stopping", "schedules")
    loaded = modules_after("".join(f"import iolaus.{name}\n" for name in light), tmp_path)
    heavy = {"torch", "torchvision", "timm", "numpy", "sklearn", "matplotlib", "wandb", "tensorboard"}
    assert {f"iolaus.{name}" for name in light} <= loaded
    assert loaded & heavy == set()


def test_a_default_run_imports_no_library_that_it_does_not_use(tmp_path):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['train.py', 'tracker=none', 'trainer.epochs=1', 'trainer.device=cpu', 'model.widths=[8]']\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    loaded = modules_after(code, tmp_path)
    assert {"torch", "iolaus.loop"} <= loaded
    libraries = {"torchvision", "timm", "wandb", "tensorboard", "iolaus.models.timm", "sklearn"}
    assert loaded & {*libraries, "sympy", "torch._inductor"} == set()
    assert len(list(tmp_path.glob("outputs/*/*/results.json"))) == 1


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_a_file_is_read_in_one_sitting(path):
    """320 lines are six screens, what the longest needs (the readers of data): the next idea gets its own file."""
    assert len(path.read_text().splitlines()) <= 320


def test_the_names_of_tests_are_unique_since_their_folders_are_no_packages():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
    assert list((ROOT / "tests").rglob("__init__.py")) == []
