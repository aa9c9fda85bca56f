"""What a person reads of a small study, as committed files: `pytest tests/report --rewrite-snapshots` writes them."""

from pathlib import Path

import pytest
from conftest import pipe
from test_report import make_run

from iolaus.report.rendering import to_markdown
from iolaus.report.runs import read_study
from iolaus.report.sections import make_document
from iolaus.report.terminal import print_study

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A grid of two models and two learning rates with two seeds each, and runs that failed or were pruned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])  # commands are written as the user gave theirs
    for i, (model, lr, seed) in enumerate((m, lr, s) for m in ("cnn", "mlp") for lr in ("0.1", "0.01") for s in "01"):
        common = ["dataset=digits", f"model={model}", f"optimizer.lr={lr}", f"seed={seed}"]
        accuracies = (0.3 + i / 50, 0.5 + i / 20)
        make_run(tmp_path / "study" / str(i), common, *accuracies, data="80 train, 20 val, 20 test", seconds=90.0 + i)
    common = ["dataset=digits", "model=a_b|c", "optimizer.lr=0.012345678901"]
    make_run(tmp_path / "study" / "8", [*common, "seed=0"], 0.2, status="pruned")
    make_run(tmp_path / "study" / "9", [*common, "seed=1"], 0.1, status="failed", error="the loss is NaN\nin epoch 2")
    return read_study(Path("study"))


def compare(request, name, text):
    path = SNAPSHOTS / name
    if request.config.getoption("--rewrite-snapshots", default=False):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), "see --rewrite-snapshots"


def test_the_markdown_of_a_report_reads_as_committed(study, request):
    compare(request, "report.md", to_markdown(make_document(study, foot="As of today.")))


def test_the_closing_table_of_a_sweep_reads_as_committed(study, request):
    console = pipe()
    print_study(study, console)
    compare(request, "table.txt", "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines()))
