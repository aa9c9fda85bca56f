"""The table of a study: in its order, whole, while it runs and at its end, in a terminal and in a pipe."""

import json
import os
import re
import time

import pytest
from conftest import pipe, read_console, terminal
from test_report import make_run

from iolaus import watch as command
from iolaus.errors import ConfigError
from iolaus.report import terminal as watch
from iolaus.report.runs import read_study, short_names


def run(folder, *accuracies, status="finished", **overrides):
    objective = {"name": "val/accuracy", "value": accuracies[-1] if accuracies else None}
    return make_run(folder, [f"{k.replace('__', '.')}={v}" for k, v in overrides.items()], *accuracies, status=status,
                    **({"objective": objective} if status == "finished" else {}))  # fmt: skip


def closing(folder, console):
    watch.print_study(read_study(folder), console)
    return read_console(console).splitlines()


@pytest.mark.parametrize("console", [terminal(width=130), pipe()])
def test_the_best_at_the_last_epoch_comes_first_with_all_columns(tmp_path, console):
    run(tmp_path / "a", 0.9, 0.5, optimizer__lr="0.1")  # its best epoch is not its last
    best = run(tmp_path / "b", 0.6, 0.75, optimizer__lr="[1]")
    lines = closing(tmp_path, console)
    rows = [line.split() for line in lines if "finished" in line]
    assert rows == [
        ["*", "[1]", *["75.00", "%", "75.00", "%", "74.00", "%", "0.2500", "0.5000", "2", "1.00", "finished"]],
        ["0.1", *["50.00", "%", "90.00", "%", "49.00", "%", "0.1000", "0.5000", "2", "1.00", "finished"]],
    ]
    assert lines[-1] == f"Best: {best}"


def test_the_table_says_which_epoch_each_column_is_of(tmp_path):
    make_run(tmp_path / "a", ["lr=1"], 0.5, objective={"name": "val/f1", "value": 0.5})
    first, _, _, *_, note, _ = closing(tmp_path, pipe())
    assert first.split() == ["last", "max", "best", "min", "best"]
    assert note.startswith("last: the last epoch")
    assert "best: that of the best val/f1" in note
    assert note.endswith("max, min: over all epochs")


def test_of_a_loss_the_lowest_is_the_best(tmp_path):
    for name, loss in (("a", 0.5), ("b", 0.25)):
        make_run(tmp_path / name, [f"seed={name}"], 0.5, objective={"name": "val/loss", "value": loss})
    lines = [line.split()[:3] for line in closing(tmp_path, pipe()) if "finished" in line]
    assert lines == [["*", "b", "0.2500"], ["a", "0.5000", "50.00"]]


def test_the_best_of_repeated_runs_is_called_a_single_run(tmp_path):
    _, better = (make_run(tmp_path / str(seed), [f"seed={seed}"], 0.5 + seed / 10) for seed in (0, 1))
    assert closing(tmp_path, pipe())[-1] == f"Best single run: {better}"


def test_several_objectives_have_a_column_each(tmp_path):
    objectives = [{"name": "val/accuracy", "value": 0.5}, {"name": "parameters", "value": 288170}]
    make_run(tmp_path / "0", ["seed=0"], 0.5, objectives=objectives)
    [line] = [line for line in closing(tmp_path, pipe()) if "finished" in line]
    assert line.split()[:5] == ["*", "0", "50.00", "%", "288,170"]


def test_failed_runs_come_last_with_their_errors_beneath_and_are_never_the_best(tmp_path):
    folder = run(tmp_path / "b", 0.5, lr=0.1)
    make_run(tmp_path / "a", ["lr=10"], 0.9, status="failed", error="loss is NaN [x]\nmore")
    *_, last, _, message, best = closing(tmp_path, pipe())
    assert (last.split()[0], last.split()[-1]) == ("10", "failed")
    assert (message, best) == ("lr=10: loss is NaN [x]", f"Best: {folder}")


def test_a_sweep_in_which_every_run_failed_has_no_best(tmp_path):
    for i in range(watch.MOST_ERRORS + 2):
        make_run(tmp_path / str(i), [f"lr={i}"], status="failed", error="no")
    lines = closing(tmp_path, pipe())
    assert "*" not in "".join(lines)
    assert lines[-2:] == ["lr=4: no", "and 2 more failed"]


def test_of_hundreds_the_table_shows_the_best_and_how_many_more_there_are(tmp_path):
    for i in range(45):
        run(tmp_path / str(i), i / 100, lr=i, status="pruned" if i < 5 else "finished")
    lines = closing(tmp_path, pipe())
    shown = [line for line in lines if re.search("  (finished|pruned) *$", line)]
    assert [line.split()[:2] for line in shown[:2]] == [["*", "44"], ["43", "43"]]
    assert len(shown) == watch.MOST_ROWS
    assert "and 25 more: 40 finished, 5 pruned" in lines


@pytest.mark.parametrize("console", [terminal(width=40), pipe()])
def test_no_column_is_lost_where_the_table_is_wider_than_the_console(tmp_path, console):
    key, value = "trainer.a_long_name_of_a_key_that_is_varied", "augmentations"
    make_run(tmp_path / "a", [f"{key}={value}", "m=resnet18"], 0.5)
    run(tmp_path / "b", 0.25)
    line = next(line for line in closing(tmp_path, console) if "finished" in line)
    numbers = ["50.00", "%", "50.00", "%", "49.00", "%", "0.5000", "0.5000", "1", "30.0", "finished"]
    assert line.split() == ["*", value, "resnet18", *numbers]


def test_columns_take_the_short_name_of_a_key_unless_two_would_be_the_same():
    assert short_names(["optimizer.lr", "model.depth", "data.depth"]) == ["lr", "model.depth", "data.depth"]


def test_a_running_study_shows_how_far_it_is_its_best_and_the_runs_at_work_first(tmp_path):
    run(tmp_path / "0", 0.5, lr=1)
    at_work = run(tmp_path / "1", 0.25, 0.125, lr=2, status=None)
    console = terminal(width=130)
    with watch.show_live(tmp_path, 9, console) as look:
        look()
        first = read_console(console)
        (at_work / "results.json").write_text(json.dumps({"status": "pruned", "history": []}))
        run(tmp_path / "2", 0.75, lr=3)
        look()
        assert read_console(console) == first  # not yet: reading must not become what the machine does
    lines = first.splitlines()
    assert any(f"{tmp_path.name}: 1 finished, 1 running of 9; best val/accuracy 50.00 %: lr=1" in li for li in lines)
    rows = [line.split() for line in lines if re.search("(finished|running) *$", line)]
    assert [row[0] for row in rows] == ["1", "*"]
    assert rows[0] == ["1", "2", *["12.50", "%", "25.00", "%", "–", "0.7500", "–", "2", "1.00", "running"]]


def test_a_view_reads_again_only_what_is_not_over(tmp_path):
    run(tmp_path / "0", 0.5, lr=1)
    run(tmp_path / "1", 0.25, lr=2, status=None)
    known = {}
    read_study(tmp_path, known)
    assert [path.name for path in known] == ["0"]
    (tmp_path / "0" / "results.json").unlink()
    (tmp_path / "1" / "metrics.jsonl").write_text("")
    first, second = read_study(tmp_path, known).runs
    assert (first.status, second.numbers["epochs"]) == ("finished", 0)


def test_a_view_is_never_higher_than_its_terminal(tmp_path):
    for i in range(60):
        run(tmp_path / str(i), i / 100, lr=i, status=None if i < 3 else "finished")
    console = terminal(width=130)
    console.height = 24
    with console.capture() as captured:
        console.print(watch.live_view(read_study(tmp_path), None, console))
    lines = captured.get().splitlines()
    assert 20 < len(lines) < 24
    assert lines[-1] == f"and {57 - (24 - watch.LINES_AROUND - 3)} more"


@pytest.mark.parametrize(("width", "columns"), [(120, 8), (80, 7), (60, 4)])
def test_a_narrow_terminal_sees_fewer_columns_none_of_them_cut(tmp_path, width, columns):
    make_run(tmp_path / "a", ["model=mlp", "optimizer.lr=0.05"], 0.79)
    make_run(tmp_path / "b", ["model=cnn", "optimizer.lr=0.1"], 0.38)
    console = terminal(width=width)
    with console.capture() as captured:
        console.print(watch.live_view(read_study(tmp_path), None, console))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    (row,) = [line.replace(" %", "").split() for line in lines if line.lstrip().startswith("* ")]
    assert (row[:3], row[-1], len(row) - 3) == (["*", "mlp", "0.05"], "finished", columns)


def test_a_view_ends_when_no_run_has_trained_for_a_while(tmp_path, monkeypatch):
    folder = run(tmp_path / "0", 0.5, lr=1)
    assert not command.is_over(read_study(tmp_path))  # the next run may be about to begin
    long_ago = time.time() - 2 * command.PAUSE_SECONDS
    for file in folder.iterdir():
        if file.is_file():
            os.utime(file, (long_ago, long_ago))
    assert command.is_over(read_study(tmp_path))
    run(tmp_path / "1", 0.25, lr=2, status=None)
    assert not command.is_over(read_study(tmp_path))


def test_in_a_pipe_nothing_is_shown_in_place(tmp_path):
    console = pipe()
    with watch.show_live(tmp_path, 9, console) as look:
        look()
    assert console.file.getvalue() == ""


def test_the_command_shows_the_table_and_says_what_it_misses(tmp_path, capsys):
    run(tmp_path / "0", 0.5, lr=1)
    assert command.main([str(tmp_path)]) == 0
    assert "finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=f"^{tmp_path / 'none'}: no such folder$"):
        command.main([str(tmp_path / "none")])
