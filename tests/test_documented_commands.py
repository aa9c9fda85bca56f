"""Every `python …` and `iolaus …` line of the documents works: it is checked as it stands, then run in short.

In short means: one epoch of one step on noise, two values of one swept key, two trials. The folders and files that a
command needs (a study, weights, pictures, the user's own package) are made under the names that the command gives them.
"""

import contextlib
import importlib.util
import io
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, thin
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import save_file

from iolaus import cli
from iolaus.config import check as config
from iolaus.trust.command_line import CommandLine

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")),
             *sorted(ROOT.glob("*/README.md"))]  # fmt: skip
NOISE, SHORT = TINY[:5], (*TINY[5:], "trainer.device=cpu", "trainer.precision=fp32")
# what a short run does without: other processes, a compiler, a download, a tracker
LEFT_OUT = ("hydra/launcher", "hydra.launcher", "hydra.sweeper.n_", "trainer.compile", "model.pretrained", "tracker.")
MY_PACKAGE = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes, in_channels):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
"""


@dataclass(frozen=True)
class Documented:
    """A command in a document: where it stands, its words as a shell splits them, and its environment variables."""

    place: str
    words: tuple[str, ...]
    environment: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def read_commands(path: Path) -> Iterator[Documented]:
    """The commands in a document's `sh` blocks that start Python or Iolaus; `iolaus train` is `python train.py`."""
    inside, environment, begun = False, [], ""
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside, environment = not inside and line.strip() in ("```sh", "```bash", "```shell"), []
        elif inside and line.endswith("\\"):
            begun += line[:-1]
        elif inside:
            for words in split_at_operators(shlex.split(begun + line, comments=True)):
                settings = [*itertools.takewhile(re.compile(r"[A-Z_]+=").match, words)]  # NAME=VALUE python train.py
                if words[0] == "export":
                    environment += words[1:]
                    continue
                words = words[len(settings) :]
                if words[:1] == ["iolaus"]:
                    words = [
                        "python",
                        *(["train.py"] if words[1] == "train" else ["-m", "iolaus", words[1]]),
                        *words[2:],
                    ]
                if words[0] in ("python", "python3"):
                    yield Documented(f"{name}:{number}", tuple(words), (*environment, *settings))
            begun = ""


def split_at_operators(words: list[str]) -> list[list[str]]:
    """The commands of a line: [[pip, install], [python, train.py]] of `pip install && python train.py`."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "||", ";", "|", "&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


COMMANDS = list({(c.words, c.environment): c for path in DOCUMENTS for c in reversed([*read_commands(path)])}.values())


# ---- as it stands: every value is composed and checked


def parse(arguments: list[str]) -> list[tuple[str, list[str], bool]]:
    """The key of each override, an override for each of its values (for an interval its start), is it an interval."""
    parsed = []
    for override in OverridesParser.create().parse_overrides(arguments):
        text = str(override.input_line)
        key = text.partition("=")[0]
        values = [text]
        if override.is_sweep_override():
            swept = [override.value().start] if override.is_interval_sweep() else override.sweep_string_iterator()
            values = [f"{key}={value}" for value in swept]
        parsed.append((key.lstrip("+~"), values, override.is_interval_sweep()))
    return parsed


def compose_run(arguments: list[str]) -> DictConfig:
    """What Hydra composes of a run's overrides, its own node included."""
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("config", arguments, return_hydra_config=True)


def check_values(arguments: list[str]) -> DictConfig:
    """Compose and check runs in which the first and last value of each override occur, and of a config group each.

    Returns what the first one composes. Raises ConfigError, or an error of Hydra's.
    """
    values = [values for _, values, _ in parse(arguments)]
    first, last = ([options[i] for options in values] for i in (0, -1))
    composed = [compose_run(first)]
    groups = composed[0].hydra.runtime.choices.keys()
    others = [
        [*first[:i], option, *first[i + 1 :]]
        for i, options in enumerate(values) if options[0].partition("=")[0] in groups for option in options[1:-1]
    ]  # fmt: skip
    composed += [compose_run(job) for job in (*([last] if last != first else []), *others)]
    for cfg in composed:
        ours = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        config.check(OmegaConf.to_container(ours, resolve=True, throw_on_missing=True))
    return composed[0]


# ---- in short: what it needs is made, and it runs


def shorten(arguments: list[str], composed: DictConfig) -> list[str]:
    """The same command for one epoch, on noise in place of data that are not here, with two of the values it varies."""
    noise = composed.hydra.runtime.choices.dataset != "image_folder"
    noise &= not composed["dataset"]["_target_"].startswith("my_")
    added = (*NOISE, *SHORT) if noise else SHORT
    if composed["scheduler"]["warmup_epochs"] >= 1:
        added = (*added, "scheduler.warmup_epochs=0.5")
    if composed["dataset"]["folds"]:  # which are the validation sets
        added = tuple(argument for argument in added if not argument.startswith("dataset.validation="))
    dropped = {argument.partition("=")[0] for argument in added}
    known = {f"dataset.{key}" for key in compose_run(list(NOISE))["dataset"]} if noise else set()
    short, varied = [], False
    for argument, (key, values, is_interval) in zip(arguments, parse(arguments), strict=True):
        key = composed.hydra.aliases.get(key, key)
        if key in dropped or key.startswith(LEFT_OUT) or (noise and key.startswith("dataset.") and key not in known):
            continue
        if is_interval:
            short.append(argument)
        elif varied or len(values) == 1:
            short.append(values[0])
        else:
            varied = True
            short.append(f"{values[0]},{values[1].partition('=')[2]}")
    if composed.hydra.runtime.choices["hydra/sweeper"] == "optuna":
        short.append("hydra.sweeper.n_trials=2")
    return [*short, *added]


def make_pictures(root: Path) -> None:
    """Folders of two classes with 15 pictures each."""
    for label, value in (("cat", 60), ("dog", 200)):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(15):
            Image.new("RGB", (32, 32), (value, i, i)).save(root / label / f"{i}.png")


def make_what_is_named(arguments: list[str], composed: DictConfig, command) -> None:
    """Make the pictures, weights and unfinished run that a command's arguments name."""
    if (root := composed["dataset"].get("root")) and composed.hydra.runtime.choices.dataset == "image_folder":
        make_pictures(Path(root))
    if weights := composed["model"].get("weights"):
        others = [argument for argument in arguments if not argument.startswith("model.weights=")]
        run = weights if not Path(weights).suffix else "outputs/start"
        made = command(*(values[0] for _, values, _ in parse(others)), f"hydra.run.dir={run}")
        assert made.status == 0, made.err
        if Path(weights).suffix:
            model = torch.load(f"{run}/best.pt", weights_only=True)["model"]
            save_file({name: value.contiguous() for name, value in model.items()}, weights)
    if resume := composed["resume"]:
        folder = Path("outputs/cut" if resume == "last" else resume)
        assert command(*TINY, f"hydra.run.dir={folder}").status == 0
        (folder / "results.json").unlink()


def run_train(documented: Documented, command, in_short: bool) -> None:
    """Check `python train.py ARGUMENTS` as it stands, or run it in short."""
    arguments = ["-m" if word == "--multirun" else word for word in documented.words[2:]]
    if any(argument.startswith("--") for argument in arguments):  # --help, --cfg job
        outcome = command(*arguments)
        assert outcome.status == 0, outcome.err
        return
    flags = [argument for argument in arguments if argument == "-m"]
    overrides = [argument for argument in arguments if argument != "-m"]
    CommandLine.instance().read(arguments)
    if not in_short:
        check_values(overrides)
        return
    composed = compose_run([values[0] for _, values, _ in parse(overrides)])
    choices = composed.hydra.runtime.choices
    if choices.get("experiment") and choices.dataset != "digits":
        return  # tests/test_recipes.py trains it, on noise like its dataset
    short = shorten(overrides, composed) if not composed["resume"] else overrides
    make_what_is_named(short, composed, command)
    outcome = command(*flags, *short)
    assert outcome.status == 0, f"{documented}\nin short: {shlex.join([*flags, *short])}\n{outcome.err}"


def run_module(documented: Documented, command) -> None:
    """`iolaus report FOLDER`, `python -m iolaus.report FOLDER` and their like, with what they need in each folder."""
    module, *arguments = documented.words[2:]
    if module.partition(".")[0] != "iolaus":  # python -m venv
        assert importlib.util.find_spec(module), f"no module {module}"
        return
    name, *arguments = arguments if module == "iolaus" else [module.removeprefix("iolaus."), *arguments]
    if name == "show" and not any(argument.startswith("dataset=") for argument in arguments):
        arguments += TINY[:7]  # noise
    if "--lr-range" in arguments:
        arguments += ["--steps", "20"]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    if "onnx" in arguments and importlib.util.find_spec("onnxruntime") is None:
        return  # an extra
    for folder in arguments:
        if folder.startswith("dataset.root="):
            make_pictures(Path(folder.partition("=")[2]))
        if Path(folder).suffix == ".jpg" or folder == "my_images":
            picture = Path(folder, "1.png") if folder == "my_images" else Path(folder)
            picture.parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 32)).save(picture)
        if folder.startswith("outputs"):
            many = ["-m", f"hydra.sweep.dir={folder}", "seed=0,1"]
            one = [f"hydra.run.dir={folder}"]
            assert command(*TINY, *(many if name in ("report", "watch") else one)).status == 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        assert cli.main([name, *arguments]) == 0, err.getvalue()


def run_documented(documented: Documented, command, monkeypatch, in_short: bool) -> None:
    """Check a command or run it in short; AssertionError says which one failed and why."""
    for setting in documented.environment:
        monkeypatch.setenv(*setting.split("=", 1))
    program = documented.words[1]
    try:
        if program == "train.py":
            run_train(documented, command, in_short)
        elif program == "-m":
            run_module(documented, command)
        else:  # benchmarks/run.py takes minutes
            assert (ROOT / program).is_file(), f"no file {program}"
            text = (ROOT / program).read_text()
            options = [word for word in documented.words if word.startswith("--")]
            assert [option for option in options if option not in text] == []
    except Exception as error:
        raise AssertionError(f"{documented}\n{error}") from error


@pytest.fixture(autouse=True)
def my_net(tmp_path, monkeypatch):
    """The modules that the documents call a user's own, in the folder of the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(MY_PACKAGE)
    page = (ROOT / "docs/configuration.md").read_text()
    (tmp_path / "my_parts.py").write_text(re.search(r"```python\n(# my_parts.py\n.*?)```", page, re.DOTALL)[1])
    (tmp_path / "my_tracker.py").write_text("def MLflow(folder, config): ...")  # its code: show/test_own_tracker.py
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_net", "my_parts", "my_tracker"):
        sys.modules.pop(name, None)


TRAIN = [documented for documented in COMMANDS if documented.words[1] == "train.py"]


def skip_without_its_extra(documented):
    for extra in ("submitit", "ray"):
        if any(word.startswith(f"hydra/launcher={extra}") for word in documented.words):
            pytest.importorskip(f"hydra_plugins.hydra_{extra}_launcher", reason=f"the extra {extra} is not installed")


@pytest.mark.parametrize("documented", TRAIN, ids=attrgetter("place"))
def test_a_documented_command_is_understood(documented, command, monkeypatch):
    skip_without_its_extra(documented)
    run_documented(documented, command, monkeypatch, in_short=False)


@thin(3)
@pytest.mark.parametrize("documented", COMMANDS, ids=attrgetter("place"))
def test_a_documented_command_works(documented, command, monkeypatch):
    skip_without_its_extra(documented)
    run_documented(documented, command, monkeypatch, in_short=True)


WRONG = """
```sh
pip install -e . && python train.py trainer.epoch=3
export IOLAUS_ALLOW='my_package.*'
python train.py -m optimizer.lr=0.1,0.05 \\
  scheduler=cosine,nothing            # the last of the values
python train.py model._target_=other.Net '~model.widths' '~model.dropout'
A=1 B='2 3' python -m iolaus.reports outputs
iolaus wach outputs
python nothing.py
python benchmarks/run.py --nothing
python train.py optimizer=sgd 'optimizer.lr=0.1'
```
```
$ python train.py what=a block of output shows
```
"""


def test_a_wrong_command_is_named_with_its_line_and_its_mistake(tmp_path, command, monkeypatch):
    (tmp_path / "wrong.md").write_text(WRONG)
    *wrong, right = read_commands(tmp_path / "wrong.md")
    assert wrong[3].environment == ("IOLAUS_ALLOW=my_package.*", "A=1", "B=2 3")
    told = [(3, "trainer.epoch"), (6, "scheduler=nothing|nothing"), (7, "other.Net"), (8, "reports"), (9, "wach"),
            (10, "nothing.py"), (11, "--nothing")]  # fmt: skip
    for documented, (number, mistake) in zip(wrong, told, strict=True):
        with pytest.raises(AssertionError, match=rf"wrong.md:{number}: python (?s:.*)({mistake})"):
            run_documented(documented, command, monkeypatch, in_short=False)
    run_documented(right, command, monkeypatch, in_short=False)


def test_the_documents_hold_commands():
    assert ("python", "train.py") in {documented.words for documented in COMMANDS}
    assert {documented.words[1] for documented in COMMANDS} >= {"train.py", "-m"}
    assert len(COMMANDS) > 20
