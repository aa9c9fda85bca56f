"""What may import what: rooms in one order, Hydra at the door, a light start, files short enough to read."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "iolaus"
FILES = sorted(SOURCE.rglob("*.py"))

# A room is a folder, or one file at the top. Each may import itself and the rooms above it, never one below.
ROOMS = ("errors", "command", "settings", "seeds", "images", "files", "augment", "machine", "methods", "data", "models",
         "show", "learner", "loop", "report", "trust", "config", "results", "studies", "resume", "follow", "run",
         "use", "watch", "start", "api", "preview", "cli", "__main__")  # fmt: skip
HYDRA = ("trust", "config", "studies", "run", "start", "api", "preview")
OPTUNA = ("studies/", "files/optuna_storage.py")


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def runtime_imports(path: Path) -> set[str]:
    """The dotted names of all that a file imports when it runs, anywhere in it; `from a import b` gives a and a.b."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update({str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in runtime_imports(path)}


def modules_after(code: str, cwd: Path) -> set[str]:
    """The modules that a new Python has in memory after some code."""
    code += "\nimport json, sys; print(); print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in FILES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_a_file_imports_its_own_room_and_those_above_it(path):
    ours = {name.split(".")[1] for name in runtime_imports(path) if name.startswith("iolaus.")}
    if path.name == "__init__.py" and path.parent == SOURCE:
        assert ours == set()
        return
    allowed = ROOMS[: ROOMS.index(room_of(path)) + 1]
    assert ours <= set(allowed), f"imports {ours - set(allowed)}"


def test_hydra_stays_at_the_door_and_optuna_in_the_studies():
    for path in FILES:
        where = str(path.relative_to(SOURCE))
        if "hydra" in packages(path):
            assert room_of(path) in HYDRA, where
        if "optuna" in packages(path):
            assert where.startswith(OPTUNA), where


def test_the_loop_knows_only_what_it_needs():
    assert packages(SOURCE / "loop.py") - set(sys.stdlib_module_names) == {"iolaus", "torch"}


def test_what_every_start_imports_is_light(tmp_path):
    light = ("studies.folders", "config.check", "run", "files.checkpoint", "show.trackers", "methods.stopping",
             "methods.schedules")  # fmt: skip
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
    assert len(path.read_text().splitlines()) <= 250


def functions_of(path: Path) -> list[str]:
    """The names of all functions of a file, methods and inner ones too."""
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


PARTICIPLE = re.compile(r"(ed|wn|ept|eld|uilt|tten|old|aken|gun|ound|ade|een|lost)$")
NOT_A_PARTICIPLE = {"seed", "speed", "need", "feed", "embed", "fold", "threshold"}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_no_function_is_named_by_a_participle(path):
    """`held`, `shown` and `not_finished` say what has happened, not what the function does; `is_held` asks."""
    names = [name.strip("_").removeprefix("not_") for name in functions_of(path)]
    assert [
        name for name in names if PARTICIPLE.search(name) and "_" not in name and name not in NOT_A_PARTICIPLE
    ] == []


# the function of a command and the examples of its help; a file's log; iolaus.train and the loop;
# iolaus.load and a checkpoint's
EVERYBODYS = ("main", "EXAMPLES", "log", "train", "load")


def test_no_two_files_define_one_name():
    """A reader who looks for a name finds one place."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            names += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            for name in names:
                places.setdefault(name, []).append(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in EVERYBODYS} == {}


def test_formatting_is_switched_off_for_tables_alone():
    count = sum(path.read_text().count("# fmt: skip") for path in FILES)
    assert count <= 15


def test_bare_any_is_rare():
    """`Any` as a whole annotation, of a parameter, a result or a variable, says nothing: at most 40 in all."""
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
            found += [f"{path.name}:{h.lineno}" for h in hints if isinstance(h, ast.Name) and h.id == "Any"]
    assert len(found) <= 40, found


def test_the_names_of_tests_are_unique_since_their_folders_are_no_packages():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
    assert list((ROOT / "tests").rglob("__init__.py")) == []
