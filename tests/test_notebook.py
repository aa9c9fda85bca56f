"""notebooks/iolaus.ipynb: clean in the repository, and it runs as it stands, on the digits."""

import json
import os

import pytest
from conftest import ROOT
from processes import write_program

NOTEBOOK = ROOT / "notebooks" / "iolaus.ipynb"


def test_the_notebook_holds_no_output():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert {(str(cell["outputs"]), cell["execution_count"]) for cell in code} == {("[]", None)}
    assert len(NOTEBOOK.read_text()) < 20_000
    assert not any(word in NOTEBOOK.read_text() for word in ("/home/", "/root/", "api_key="))


def test_the_notebook_runs_and_each_epoch_is_one_line(tmp_path, monkeypatch):
    for name in ("ipykernel", "pandas"):
        pytest.importorskip(name, reason="the extra notebook is not installed (pip install -e '.[notebook]')")
    nbclient = pytest.importorskip("nbclient", reason="the extra notebook is not installed")
    nbformat = pytest.importorskip("nbformat")
    write_program(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("TERM", "PAGER", "GIT_PAGER"):  # the kernel's own, whatever this terminal has
        monkeypatch.delenv(name, raising=False)
    book = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.source: cell.outputs for cell in book.cells if cell.cell_type == "code"}

    def outputs(word):
        (found,) = [outputs for source, outputs in cells.items() if word in source]
        return "".join(o.get("text", "") for o in found), {kind for o in found for kind in o.get("data", {})}

    def epochs(text):
        return sum(line.startswith("epoch ") for line in text.splitlines())

    train, kinds = outputs("result = iolaus.train")
    assert (epochs(train), "image/png" in kinds) == (5, True)
    sweep, _ = outputs("!iolaus train -m")
    assert (epochs(sweep), sweep.count("finished")) == (8 * 5, 8)
    assert not set("\r\x07") & set(sweep.replace("\r\n", "\n"))
    assert "\x1b[2K" not in sweep  # nothing is drawn in place
    assert "text/html" in outputs("<iframe")[1] & outputs("pandas")[1]
    assert "calibration error" in outputs("!iolaus evaluate")[0]
    assert "image/png" in outputs("mistakes.png")[1]
    assert len(nbformat.writes(book)) < 1_000_000
    assert len([*tmp_path.glob("outputs/eight/*/results.json")]) == 8
