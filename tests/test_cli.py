"""The command `iolaus`: its table of commands, its help, and how it ends."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, TINY
from processes import write_program
from test_architecture import modules_after

from iolaus import __version__, cli


def call(*arguments, cwd, stdout=subprocess.PIPE):
    return subprocess.run([sys.executable, "-m", "iolaus", *arguments], cwd=cwd, stdout=stdout, stderr=subprocess.PIPE,
                          text=True, check=False)  # fmt: skip


def test_a_folder_that_may_not_be_read_is_one_line(capsys, monkeypatch):
    def refuse(arguments: object) -> int:
        raise PermissionError(13, "Permission denied", "theirs")

    monkeypatch.setattr(cli, "find_command", lambda name: refuse)
    assert cli.main(["predict", "theirs", "a.png"]) == 1
    assert capsys.readouterr().err == "iolaus: theirs: Permission denied\n"


def test_without_a_command_the_help_lists_them_all(capsys):
    for arguments in ([], ["--help"], ["help"]):
        assert cli.main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if re.match("  [a-z]+ .*[a-z]", line)][: len(cli.COMMANDS)] == [
            *cli.COMMANDS
        ]
        assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_each_command_is_there_and_its_help_gives_examples_of_it(name, tmp_path):
    done = call(name, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"(?is)examples?:?\n.*(iolaus {name}|python train.py)", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["trian"], "trian: no such command; did you mean train? allowed: "),
        (["lr=0.1"], "lr=0.1: no such command; a run is started by iolaus train lr=0.1"),
        (["version", "now"], "now: no such argument; iolaus version --help shows how it is called"),
        (["watch"], "FOLDER: missing; iolaus watch --help shows how it is called"),
        (["report", "nowhere"], "nowhere: no such folder"),
        (["export", "x", "--to", "onn"], "--to onn: no such choice; did you mean onnx? allowed: onnx, pt2,"),
        (["export", "x", "--to", "it's"], "--to it's: no such choice; allowed: onnx, pt2, safetensors"),
        (["export", "x", "--to", ""], "--to '': no such choice; allowed: onnx, pt2, safetensors"),
        (["predict", "x", "y", "--json=3"], "--json: takes no value; iolaus predict --help"),
        (["predict", "x", "y", "--foo", "a\nb"], "--foo: no such argument; iolaus predict --help"),
        (["version", "a\nb"], "a\\nb: no such argument; iolaus version --help"),
        (["a\nb"], "a\\nb: no such command; allowed: "),
        ([""], "'': no such command; allowed: "),
        (["predict", "x", "y", "--top", "9" * 5000], "--top: 99999"),
        (["predict", "x", "y", "--top", "0"], "--top: 0 is not a whole number of 1 or more; iolaus predict --help"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, answer, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"iolaus: {answer}")
    assert len(err.splitlines()) == 1


def test_the_version_is_that_of_the_package(capsys):
    assert [cli.main(["version"]), cli.main(["--version"])] == [0, 0]
    assert capsys.readouterr().out == f"iolaus {__version__}\n" * 2


def test_train_is_train_py_with_the_same_errors(tmp_path):
    done = call("train", *TINY, "hydra.run.dir=outputs/run", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "outputs/run"), done.stderr
    done = call("train", "--epochs=3", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "iolaus: --epochs=3: no such option; a key is given as epochs=3\n")


@pytest.mark.parametrize(
    "command", [["-m", "iolaus"], ["-m", "iolaus", "train", "--help"], [ROOT / "train.py", "--help"]]
)
def test_a_reader_that_has_gone_ends_a_command_quietly(command, tmp_path):
    reader = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    reader.wait()  # nobody reads the pipe from here on
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, stdout=reader.stdin, stderr=subprocess.PIPE, check=False
    )
    reader.stdin.close()
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_process_ends_without_a_last_search_for_garbage():
    code = (
        "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from iolaus import cli\nraise SystemExit(cli.main(['nothing']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "True\n")


def test_a_shell_completes_commands_and_what_hydra_completes(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(cli, "find_command", lambda name: lambda given: asked.append((name, given)) or 0)

    def complete(line):
        monkeypatch.setenv("COMP_LINE", line)
        assert cli.main(["-sc", "query=bash"]) == 0
        return capsys.readouterr().out.split() or (asked and (*asked.pop(), os.environ["COMP_LINE"]))

    assert complete("iolaus ") == complete("iolaus ev") == [*cli.COMMANDS]
    hydras = ("train", ["-sc", "query=bash"])
    assert complete("iolaus train model=res") == (*hydras, "iolaus model=res")
    assert complete("iolaus show -m lr=1 ") == (*hydras, "iolaus -m lr=1 ")
    assert not complete("iolaus evaluate outp")
    assert cli.main(["-sc", "install=fish"]) == 0
    assert asked == [("train", ["-sc", "install=fish"])]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_an_option(tmp_path):
    write_program(tmp_path)
    script = (
        f'PATH={tmp_path}:$PATH; eval "$(iolaus -sc install=bash)"; export COMP_LINE="iolaus train model=resnet" '
        'COMP_CWORD=2 COMP_POINT=25; hydra_bash_completion; echo "${COMPREPLY[@]}"; complete -p iolaus'
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    options, rule = done.stdout.splitlines()
    assert (options, "hydra_bash_completion" in rule) == ("model=resnet18 model=resnet50", True), done.stderr


def test_a_command_imports_what_it_needs_and_no_more(tmp_path):
    loaded = modules_after("from iolaus import cli\ncli.main(['version'])", tmp_path)
    assert loaded & {"hydra", "omegaconf", "torch", "rich", "numpy", "iolaus.run"} == set()
