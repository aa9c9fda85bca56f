"""What the tests share: the command as a user gives it, run within this process; consoles; snapshots."""

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from captured import call_captured
from PIL import Image
from rich.console import Console

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SNAPSHOTS = Path(__file__).parent / "snapshots"
sys.path.insert(0, str(ROOT))

# One thread in each of the two processes that run the tests, and in the processes that tests start: on small images
# threads only wait for each other, for seconds where others use the cores too. A test that needs threads asks for them.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# For tests that measure memory or load, or start many processes: no two of them run at the same time.
alone = pytest.mark.xdist_group("alone")


@pytest.fixture(scope="module")
def cluster():
    """A real Slurm, for tests with the marks of real_slurm.py."""
    import real_slurm

    with real_slurm.start() as folder:
        yield folder


@pytest.fixture
def _nothing_is_left(cluster):
    """No job outlives its test."""
    import real_slurm

    yield
    real_slurm.cancel_all()


# Left out unless `pytest --all` asks for it: more of what others test already, or minutes of processes.
exhaustive = pytest.mark.exhaustive

# @thin(3): of a parametrized test a plain `pytest` takes every third case, the first among them.
thin = pytest.mark.thin

# One step on 16 images of noise: the shortest run. Later arguments win over these.
TINY = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=20", "dataset.test_count=6",
    "trainer.epochs=1", "trainer.batch_size=16", "dataset.validation=0.2", "tracker=none",
)  # fmt: skip

# An epoch's metrics, as the display and the tables show them.
EPOCH = {
    "train/loss": 1.25,
    "train/accuracy": 0.5,
    "val/loss": 1.5,
    "val/accuracy": 0.4567,
    "lr": 0.1,
    "seconds": 3.2,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the exhaustive tests, too: twice as many minutes")
    parser.addoption("--rewrite-golden", action="store_true", help="pin the numbers of the golden runs anew")
    parser.addoption("--rewrite-snapshots", action="store_true", help="write the texts in tests/snapshots anew")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "exhaustive: left out without --all")
    config.addinivalue_line("markers", "thin(every): without --all each `every`-th case is taken")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    counts: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        function = item.nodeid.partition("[")[0]
        every = mark.args[0] if (mark := item.get_closest_marker("thin")) else 1
        taken = counts[function] % every == 0 and not item.get_closest_marker("exhaustive")
        counts[function] += 1
        (kept if taken else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@dataclass
class Outcome:
    """What a command did: exit status, standard output and error, and the folders of runs in outputs/."""

    status: int
    out: str
    err: str
    cwd: Path

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent.parent for path in (self.cwd / "outputs").glob("**/.hydra/config.yaml"))

    @property
    def results(self) -> dict[str, Any]:
        """results.json of the only run."""
        (folder,) = self.runs
        return json.loads((folder / "results.json").read_text())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`python train.py ARGUMENTS` in an empty folder (the same one for all commands of a test)."""
    return command_in(tmp_path, monkeypatch)


def command_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`python train.py ARGUMENTS` in a folder. Pictures stay blank: to paint them is a third of a short run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    import train
    from iolaus.config.explain import exit_on_user_errors

    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.setattr(FigureCanvasAgg, "print_png", save_blank_picture)
        monkeypatch.setattr("iolaus.show.curves.save_drawing", save_blank_drawing)

        def main() -> None:
            with exit_on_user_errors():
                train.main()

        return Outcome(*call_captured(main), folder)

    return run


def checked_config(*overrides: str) -> Any:
    """The RunConfig that `python train.py OVERRIDES` checks."""
    from hydra import compose, initialize_config_dir

    from iolaus.config.check import check_composed

    with initialize_config_dir(str(ROOT / "conf")):
        return check_composed(compose("config", overrides=list(overrides)))


def save_blank_picture(canvas: object, file: str | Path | IO[bytes], **_: object) -> None:
    """What matplotlib's canvas does to save a PNG, without painting."""
    Image.new("L", (8, 6)).save(file, "png")


def save_blank_drawing(figure: object, path: Path, **_: object) -> None:
    save_blank_picture(figure, path)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    """Each test draws the same random numbers, whatever ran before it in this process, and leaves one thread behind."""
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def check_snapshot(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`check_snapshot(name, text)`: the text is that of snapshots/NAME.txt. `--rewrite-snapshots` writes that file."""

    def check(name: str, text: str) -> None:
        path = SNAPSHOTS / f"{name}.txt"
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        if request.config.getoption("--rewrite-snapshots"):
            path.write_text(text)
        saved = path.read_text() if path.exists() else ""
        assert text == saved, f"not what {path.relative_to(ROOT)} holds; if it should be: pytest --rewrite-snapshots"

    return check


def terminal(width=100):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, _environ={})


def pipe():
    return Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})


def read_console(console):
    """What was printed, without the terminal's control sequences; a redrawn line starts a new one."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", console.file.getvalue().replace("\r", "\n"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def first_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in somebody's code, in the very first training step."""
    from iolaus import loop

    original, calls = loop.train_step, []

    def train_step(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("the unexpected")
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", train_step)
