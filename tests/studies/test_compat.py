"""Private parts of Hydra, its plugins, omegaconf and Optuna are touched in two files alone."""

import ast

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "iolaus"
COMPAT = SOURCE / "studies" / "compat.py"
PRIVATE = (COMPAT, SOURCE / "trust" / "hydra_guard.py")
FILES = sorted(SOURCE.rglob("*.py"))
LIBRARIES = {"hydra", "hydra_plugins", "omegaconf", "optuna"}
OWN = {"self", "cls"}
PUBLIC = {("os", "_exit")}  # documented, in spite of its name


def private_imports(path):
    """What a file imports of the four libraries by a name with a leading underscore, for its types too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return [".".join(part) for part in parts if part[0] in LIBRARIES and any(p.startswith("_") for p in part)]


def private_members(path):
    """The attributes with a leading underscore that a file takes from anything but its own objects."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            if owner not in OWN and (owner, node.attr) not in PUBLIC and node.attr != "_target_":
                found.append(f"{owner}.{node.attr}")
    return found


def test_compat_has_what_the_other_tests_look_for():
    assert private_imports(COMPAT) != []
    assert private_members(COMPAT) != []


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_no_file_but_compat_imports_a_private_module(path):
    assert path in PRIVATE or private_imports(path) == []


@pytest.mark.parametrize("path", sorted(COMPAT.parent.glob("*.py")), ids=lambda path: path.name)
def test_no_file_of_studies_but_compat_takes_a_private_member(path):
    assert path in PRIVATE or private_members(path) == []


def test_threads_that_start_joblibs_pool_at_once_all_find_it_whole(monkeypatch):
    """joblib #1794: a second thread found the pool before it had its folders."""
    import threading
    import time

    from joblib.executor import MemmappingExecutor
    from joblib.externals.loky.reusable_executor import _ReusablePoolExecutor

    from iolaus.studies.compat import serialise_pool_starts

    make = _ReusablePoolExecutor.get_reusable_executor.__func__

    def make_slowly(cls, *args, **kwargs):
        made = make(cls, *args, **kwargs)
        time.sleep(0.05)
        return made

    monkeypatch.setattr(_ReusablePoolExecutor, "get_reusable_executor", classmethod(make_slowly))
    serialise_pool_starts()
    pools, errors = [], []

    def start(number):
        try:
            pools.append(MemmappingExecutor.get_memmapping_executor(2, context_id=f"context-{number}"))
        except AttributeError as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pools[0].shutdown(kill_workers=True)
    assert errors == []
    assert len({id(pool) for pool in pools}) == 1


def test_jobs_that_share_their_options_are_composed_as_each_by_itself(command, monkeypatch):
    """Values, deletions, additions, a short name, options, and a value that others refer to."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from iolaus.studies.grid import GridSweeper, combine

    seen = []

    def compare(self, jobs):
        for job in jobs:
            made = self.loader.load_sweep_config(self.config, job)
            expected = self.loader.loader.load_sweep_config(self.config, job)
            assert made == expected
            assert made.hydra.overrides == expected.hydra.overrides
            assert str(made.hydra.sweep.subdir) == str(expected.hydra.sweep.subdir)
            seen.append(job)
        raise SystemExit(0)

    assert combine(OverridesParser.create().parse_overrides(["seed=1,2"])) == [["seed=1"], ["seed=2"]]
    monkeypatch.setattr(GridSweeper, "_check_jobs", compare)
    command("-m", "model=cnn,mlp", "optimizer=sgd", "lr=0.1,0.2", "seed=0,1", "~optimizer.dampening",
            "+loss.reduction=mean", "objective=val/loss", "trainer.batch_size_schedule={2: 64}")  # fmt: skip
    assert len(seen) == 8
