"""The tracker of one's own in docs/trackers.md: its code, as it stands there, runs in a command, with a fake MLflow."""

import re
import sys
import types

from conftest import ROOT, TINY


def documented_code():
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trackers.md").read_text(), re.DOTALL)
    return code


def fake_mlflow(monkeypatch):
    """A module in mlflow's place; each call is noted as (name, arguments)."""
    module, calls = types.ModuleType("mlflow"), []
    for name in ("set_experiment", "start_run", "log_params", "log_metrics", "log_text", "end_run"):

        def call(*args, name=name, **kwargs):
            calls.append((name, (*args, *kwargs.values())))

        setattr(module, name, call)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return calls


def test_the_documented_tracker_gets_a_studys_runs(command, tmp_path, monkeypatch):
    calls = fake_mlflow(monkeypatch)
    (tmp_path / "my_tracker.py").write_text(documented_code())
    monkeypatch.syspath_prepend(tmp_path)
    own = "+tracker.mlflow._target_=my_tracker.MLflow"
    try:
        outcome = command("-m", *TINY, own, "study=mine", "seed=0,1", "lr=0.01")
    finally:
        sys.modules.pop("my_tracker", None)
    assert outcome.status == 0, outcome.err
    assert [arguments for name, arguments in calls if name == "set_experiment"] == [("mine",)] * 2
    assert [arguments[0] for name, arguments in calls if name == "log_params"] == [{"seed": "0"}, {"seed": "1"}]
    assert [name for name, _ in calls].count("end_run") == 2
    logged = {key: arguments[1] for name, arguments in calls if name == "log_metrics" for key in arguments[0]}
    assert logged["val/accuracy"] == logged["test/accuracy"] == 1  # the only step
    assert [arguments[1] for name, arguments in calls if name == "log_text"] == ["optimizer.txt"] * 2


def test_the_documented_code_is_short():
    assert len([line for line in documented_code().splitlines() if line.strip()]) <= 12
