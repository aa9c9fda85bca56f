"""The wheel, installed into an environment of its own, from folders that hold nothing, or the user's own files."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY

pytest.importorskip("setuptools", minversion="77", reason="the wheel is built by the setuptools that is installed")
OWN_MODEL = "# A smaller CNN.\n_target_: iolaus.models.cnn.CNN\nwidths: [4]\n"
OWN_RECIPE = "# @package _global_\nmodel:\n  widths: [6]\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the checkout, built from a copy of it: a build leaves files in the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("src", "conf", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "conf" / "local").mkdir(exist_ok=True)
    (source / "conf" / "local" / "default.yaml").write_text("seed: 1\n")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`installed(*words, cwd=...)`: a program of the new environment, which finds all other packages in this one's."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = [str(programs / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(python, check=True, capture_output=True, text=True).stdout.strip())
    install = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in others))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(program, *arguments, cwd):
        done = subprocess.run(
            [programs / program, *arguments], cwd=cwd, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def compose(installed, cwd, *arguments, program=("iolaus", "train")):
    """The configuration that a command composes."""
    return yaml.safe_load(installed(*program, *arguments, "--cfg", "job", cwd=cwd))


def test_the_wheel_holds_every_file_of_the_package_conf_and_experiments(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        f"iolaus/{path.relative_to(base)}"
        for base, pattern in ((ROOT / "src" / "iolaus", "*.py"), (ROOT, "conf/**/*.yaml"), (ROOT, "experiments/*.yaml"))
        for path in base.rglob(pattern)
        if "local" not in path.parts
    }
    assert files <= names, "a new folder of the package has a line in setup.cfg"
    assert "iolaus/report/templates/style.css" in names
    assert "iolaus/py.typed" in names
    assert "iolaus/conf/schema.json" in names
    assert not any(name.startswith(("tests", "conf", "iolaus/conf/local")) for name in names)


def test_the_installed_command_trains_from_an_empty_folder_and_finds_recipes_and_help(installed, tmp_path):
    where = installed("python", "-c", "import iolaus; print(iolaus.__file__)", cwd=tmp_path)
    assert not Path(where.strip()).is_relative_to(ROOT)
    out = installed("iolaus", "train", *TINY, "trainer.device=cpu", "experiment=digits_quick", cwd=tmp_path)
    result = json.loads((tmp_path / out.splitlines()[-1] / "results.json").read_text())
    assert (result["status"], result["config"]["loss"]["label_smoothing"]) == ("finished", 0.1)
    page = installed("iolaus", "train", "--help", cwd=tmp_path)
    assert "resnet18" in page
    assert "digits_quick" in page
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_own_folders_come_first_and_ours_fill_in(installed, tmp_path):
    for file, text in (("conf/model/cnn_small.yaml", OWN_MODEL), ("experiments/mine.yaml", OWN_RECIPE)):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text)
    assert compose(installed, tmp_path)["model"]["widths"] == [4]  # the model of the default dataset
    assert compose(installed, tmp_path, "experiment=mine")["model"]["widths"] == [6]
    page = installed("iolaus", "train", "--help", cwd=tmp_path)
    assert "digits_search, mine, mnist_mlp" in " ".join(page.split())


def test_train_py_works_beside_a_conf_of_ones_own(installed, tmp_path):
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for folder in (work / "conf" / "model", work / "experiments", elsewhere):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "train.py", work)
    (work / "conf" / "model" / "own.yaml").write_text(OWN_MODEL)
    (work / "experiments" / "mine.yaml").write_text(OWN_RECIPE)
    program = ("python", str(work / "train.py"))
    assert compose(installed, elsewhere, "model=own", program=program)["model"]["widths"] == [4]
    assert compose(installed, elsewhere, "experiment=mine", program=program)["model"]["widths"] == [6]
