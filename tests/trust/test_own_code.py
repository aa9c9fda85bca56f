"""A model of one's own: allowed where the user names it on the command line, refused where a file does."""

import os

import pytest
from conftest import TINY
from omegaconf import OmegaConf

from iolaus.trust.command_line import CommandLine

NET = (
    "from torch import nn\n"
    "class Net(nn.Sequential):\n"
    "    def __init__(self, num_classes, in_channels, **ignored):\n"
    "        super().__init__(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))\n"
    "class Other(Net): ...\n"
    "def darker(image):\n"
    "    return image // 2\n"
)
PARAMETERS = 3 * 64 * 2 + 2


@pytest.fixture
def module(tmp_path, request, monkeypatch):
    """The name of a module in the command's folder, another one in each test."""
    name = f"own_{abs(hash(request.node.name)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(NET)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    yield name
    CommandLine.instance().read([])


def refusal(outcome):
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    return line


def test_a_module_of_the_folder_that_the_command_names_is_the_users_word(command, module):
    outcome = command(*TINY, f"model._target_={module}.Net")
    assert outcome.status == 0, outcome.err
    assert outcome.results["parameters"] == PARAMETERS


def test_in_a_grid_too(command, module):
    outcome = command(*TINY, "-m", f"model._target_={module}.Net,{module}.Other")
    assert outcome.status == 0, outcome.err
    assert len(outcome.runs) == 2


def test_and_a_function_for_images(command, module):
    assert command(*TINY, f"dataset.initial={module}.darker").status == 0
    assert command(*TINY, f"augmentation.transform={{_target_: {module}.darker}}").status == 0


def test_in_worker_processes_too(command, module):
    outcome = command(*TINY, "-m", f"model._target_={module}.Net", "seed=0,1", "hydra/launcher=joblib",
                      "hydra.launcher.n_jobs=2")  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert len(outcome.runs) == 2


@pytest.mark.parametrize("arguments", [("experiment=own",), ("-m", "seed=0,1", "experiment=own")])
def test_a_recipe_may_not_name_it_and_the_line_says_how_to_allow_it(command, module, tmp_path, arguments):
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    text = f"# @package _global_\nmodel: {{_target_: {module}.Net}}\n"
    (tmp_path / "more" / "experiment" / "own.yaml").write_text(text)
    outcome = command(*TINY, "--config-dir", "more", *arguments)
    assert outcome.status == 2
    line = outcome.err.splitlines()[0]
    assert line.startswith(f"iolaus: model._target_={module}.Net: not among the packages that may be run")
    assert f"name it on the command line itself (model._target_={module}.Net)" in line
    assert f"IOLAUS_ALLOW='{module}.*' in the environment" in line


def test_another_name_of_the_same_module_is_not_allowed_with_it(command, module, tmp_path):
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    text = f"# @package _global_\ndataset: {{initial: {module}.darker}}\n"
    (tmp_path / "more" / "experiment" / "own.yaml").write_text(text)
    line = refusal(command(*TINY, "--config-dir", "more", "experiment=own", f"model._target_={module}.Net"))
    assert f"dataset.initial={module}.darker: not among" in line


def test_what_the_sweeper_of_a_recipe_varies_is_a_file_too(command, module, tmp_path):
    (tmp_path / "more" / "experiment").mkdir(parents=True)
    text = f"# @package _global_\nhydra: {{sweeper: {{params: {{model._target_: '{module}.Net,{module}.Other'}}}}}}\n"
    (tmp_path / "more" / "experiment" / "own.yaml").write_text(text)
    outcome = command(*TINY, "-m", "--config-dir", "more", "experiment=own")
    assert outcome.status == 2
    assert f"model._target_={module}.Net: not among" in outcome.err


def test_a_run_with_it_is_resumed_when_the_command_names_it_again(command, module, tmp_path):
    target = f"model._target_={module}.Net"
    assert command(*TINY, target, "hydra.run.dir=outputs/a").status == 0
    (tmp_path / "outputs" / "a" / "results.json").unlink()
    assert f"{target}: not among" in refusal(command("resume=outputs/a"))
    assert f"drop {target[:-3]}Other" in refusal(command("resume=outputs/a", f"{target[:-3]}Other"))
    outcome = command("resume=outputs/a", target)
    assert outcome.status == 0, outcome.err
    assert outcome.results["parameters"] == PARAMETERS


def test_an_installed_module_is_not_the_users_by_a_file_of_its_name(command, tmp_path):
    (tmp_path / "shutil.py").write_text("")
    assert f"an installed module has that name; rename {tmp_path}/shutil.py" in refusal(
        command(*TINY, "model._target_=shutil.rmtree")
    )


SECRETS = {"MY_API_KEY": "hunter22", "PGPASSWORD": "hunter23", "PLAIN_DIR": "shown", "PWD": "/some/where"}


def test_values_of_secret_variables_stay_out_of_all_that_is_written(command, tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    outcome = command(
        *TINY[:-1], "tracker=tensorboard", "+mine.key=${oc.env:MY_API_KEY}", "+mine.copy=['a ${mine.key}']",
        "+mine.word='${oc.decode:${oc.env:PGPASSWORD}}'", "+mine.dir=${oc.env:PLAIN_DIR}",
        "+hydra.job.env_set.WANDB_MODE=${oc.env:PGPASSWORD}", "+mine.root=/some/where/images",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (folder,) = outcome.runs
    for path in folder.rglob("*"):
        assert path.is_dir() or b"hunter" not in path.read_bytes(), path
    mine = outcome.results["config"]["mine"]
    assert mine["key"] == "${oc.env:MY_API_KEY}"
    assert mine["copy"] == ["a ${oc.env:MY_API_KEY}"]
    assert mine["dir"] == "shown"
    assert "+mine.root=/some/where/images\n" in (folder / ".hydra/overrides.yaml").read_text()  # PWD is no password
    assert OmegaConf.create({"x": "${oc.env:MY_API_KEY}"}).x == "hunter22"  # outside of it, as ever
    assert os.environ["MY_API_KEY"] == "hunter22"


def test_a_secret_is_real_where_it_is_used_and_no_folder_is_named_by_one(command, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_TOKEN", "somewhere")
    outcome = command("dataset=mnist", "dataset.root=${oc.env:DATA_TOKEN}")
    assert "root=somewhere" in refusal(outcome)
    assert "a folder is not named by a variable that looks secret" in refusal(
        command(*TINY, "hydra.run.dir=outputs/${oc.env:DATA_TOKEN}")
    )
    for typed in ("study=somewhere", "study=somewhere/b", "study=a/somewhere", "hydra.run.dir=outputs/somewhere"):
        key = typed.partition("=")[0]
        line = f"iolaus: {key}: is the value of DATA_TOKEN, a variable that looks secret; give another name\n"
        assert command(*TINY, typed).err == line
    assert command("-m", *TINY, "study=somewhere", "seed=0,1").err.startswith("iolaus: study: is the value of")
    assert list(tmp_path.iterdir()) == []
