"""Reading a study never raises, whatever its files hold; and what they hold is shown as text, never as markup."""

import html.parser
import json
import re
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from conftest import pipe
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import make_run, page

from iolaus.report import report_study, sections, to_csv
from iolaus.report.document import Cell, Column, Document, Facts, Section, Table, Text
from iolaus.report.rendering import to_html, to_markdown
from iolaus.report.runs import read_study
from iolaus.report.terminal import print_study

few = settings(max_examples=50, deadline=None)
numbers = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([1e308, -1e308, 5e-324, 10**400, -(10**400), 2.5, 0, -1, 1, 2, 3]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8))
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
METRICS = ("epoch", "train/loss", "val/loss", "val/accuracy", "seconds", "images_per_second", "lr")
epochs = st.dictionaries(st.sampled_from(METRICS), numbers | anything, max_size=7)
objectives = st.fixed_dictionaries(
    {"name": st.sampled_from(["val/accuracy", "val/loss", "seconds", "epochs", ""]) | anything, "value": anything}
)
results = anything | st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["finished", "pruned", "failed", "running"]) | anything,
        "error": anything,
        "objective": objectives | anything,
        "objectives": st.lists(objectives, max_size=3) | anything,
        "history": st.lists(epochs, max_size=4) | anything,
        "metrics": st.fixed_dictionaries({"last": epochs, "best": epochs}) | anything,
        **dict.fromkeys(("seconds", "epochs", "best_val_accuracy", "peak_memory_bytes"), numbers | anything),
        **dict.fromkeys(("data", "device_name", "precision", "versions", "git", "selected_on_test"), anything),
    },
)
overrides = anything | st.lists(st.text(max_size=12) | st.sampled_from(["lr=1", "lr=0.123456789012", "seed=1"]))
runs = st.tuples(results, st.lists(epochs | anything, max_size=3), overrides, anything)


def write_run(folder, result, history, overrides, config):
    """A run's folder with these contents; the YAML files are JSON, which YAML includes."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
    (folder / ".hydra" / "config.yaml").write_text(json.dumps({"trainer": config}))
    (folder.parent / "multirun.yaml").write_text(json.dumps({"hydra": {"sweeper": config}}))


def show_everything(folder, pictures=True):
    """All that is made of a study, each of which may be what raises."""
    study, console = read_study(folder), pipe()
    print_study(study, console)
    assert console.file.getvalue().encode()
    to_csv(study)
    with mock.patch.object(sections, "draw_pictures", return_value=[]) if not pictures else mock.MagicMock():
        return report_study(study)


@few
@given(st.lists(runs, min_size=1, max_size=4))
def test_no_shape_of_a_files_content_raises(contents):
    with tempfile.TemporaryDirectory() as folder:
        for i, content in enumerate(contents):
            write_run(Path(folder) / str(i), *content)
        show_everything(Path(folder), pictures=False)


measured = st.lists(st.fixed_dictionaries(dict.fromkeys(METRICS, numbers)), min_size=1, max_size=3)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(measured, st.sampled_from(["finished", "pruned", "failed"])), min_size=1, max_size=4))
def test_numbers_of_any_size_are_drawn(histories):
    with tempfile.TemporaryDirectory() as folder:
        for i, (history, status) in enumerate(histories):
            history = [{**metrics, "epoch": epoch} for epoch, metrics in enumerate(history)]
            result = {"status": status, "history": history, "metrics": {"last": {"test/accuracy": i}}}
            write_run(Path(folder) / str(i), result, [], [f"lr={i % 2}", f"seed={i // 2}"], None)
        show_everything(Path(folder))


@few
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode(errors="replace")))
def test_no_bytes_raise(content):
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "0", ["lr=1"], 0.5)
        for name in ("results.json", "metrics.jsonl", ".hydra/overrides.yaml", ".hydra/config.yaml"):
            (run / name).write_bytes(content)
        (Path(folder) / "multirun.yaml").write_bytes(content)
        show_everything(Path(folder), pictures=False)


UNREADABLE = {
    "lists": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "digits": '{"epoch": 1' + "0" * 5000,
    "circle": "&a [*a]",
    "hex": "{trainer: {epochs: 0x" + "f" * 9000 + "}}",
    "tag": "!!bool maybe",
    "timestamp": "!!timestamp now",
    "key": "{[]: 1}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_nesting_and_tags_that_parsers_refuse_are_files_that_cannot_be_read(tmp_path, content):
    run = make_run(tmp_path / "0", ["lr=1"], 0.5)
    for name in ("results.json", ".hydra/overrides.yaml", ".hydra/config.yaml"):
        (run / name).write_text(content)
    (tmp_path / "multirun.yaml").write_text(content)
    show_everything(tmp_path, pictures=False)
    assert read_study(tmp_path).runs[0].numbers["val/accuracy"] == 0.5  # from metrics.jsonl


def test_seconds_whose_sum_is_no_float_are_not_shown(tmp_path):
    for i in range(2):
        make_run(tmp_path / str(i), [f"lr={i}", "seed=0"], 0.5, seconds=1e308)
    study = read_study(tmp_path)
    assert [run.numbers["seconds"] for run in study.runs] == [30.0, 30.0]  # of the history
    show_everything(tmp_path)


def test_what_could_control_a_terminal_is_replaced(tmp_path):
    make_run(tmp_path / "\x1b[2Jrun", ["name=\x1b]0;title\x07", "x=\ud800"], 0.5)
    make_run(tmp_path / "other", ["name=b", "x=1"], status="failed", error="\x1b[31mred\x9b")
    console = pipe()
    print_study(read_study(tmp_path), console)
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", console.file.getvalue())
    assert "�[31mred�" in console.file.getvalue()


cells = st.builds(Cell, st.text(max_size=12), link=st.none() | st.just("0/"), strong=st.booleans())


def document_of(texts, rows):
    """A document with these five texts, and a table of the rows."""
    name, value, title, column, text = texts
    columns = [Column(column, column_cells, numeric=False) for column_cells in zip(*rows, strict=True)]
    blocks = [Text(text), Text(text, "lead"), Text(text, "command"), Facts([(name, value)]), Table(columns, heads=1)]
    return Document(title, [Text(text)], [Section(title, blocks)], foot=text)


@few
@given(
    st.lists(st.text(max_size=12), min_size=5, max_size=5),
    st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=4)),
)
def test_any_text_keeps_a_markdown_table_in_its_columns_and_lines(texts, rows):
    text = to_markdown(document_of(texts, rows))
    [table] = re.findall(r"^\|.*\n\|[-:|]+\|\n(?:\|.*\n)+", text, re.MULTILINE)
    lines = table.splitlines()
    assert len(lines) == 2 + len(rows)
    unescaped = [re.sub(r"\\.", "", line) for line in lines]  # a backslash takes the next character with it
    assert {line.count("|") for line in unescaped} == {len(rows[0]) + 1}
    assert not any(re.search(r"[<>$`&~]", line) for line in unescaped)


@few
@given(st.lists(st.text(max_size=12), min_size=5, max_size=5))
def test_any_text_is_text_in_html(texts):
    class Reader(html.parser.HTMLParser):
        tags, data = (), ()

        def handle_starttag(self, tag, attrs):
            self.tags += (tag,)

        def handle_data(self, data):
            self.data += (data,)

    def read(texts):
        reader = Reader()
        reader.feed(to_html(document_of(texts, [[Cell(texts[0], link=texts[1], whole=texts[2])]])))
        reader.close()
        return reader

    found, plain = read(texts), read(["a"] * 5)
    assert set(found.tags) - {"a"} == set(plain.tags) - {"a"}
    lines = {text.replace("\r\n", "\n").replace("\r", "\n") for text in texts}
    everything = "".join(found.data).replace("\r\n", "\n").replace("\r", "\n")
    assert all(text.replace(", %", ",\u00a0%") in everything or text in everything for text in lines)


def test_a_value_with_markup_in_every_place_adds_no_element(tmp_path):
    attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    make_run(tmp_path / "0", [f"name={attack}"], 0.5, data=attack, device_name=attack, versions={attack: attack})
    make_run(tmp_path / "1", ["name=b"], status="failed", error=attack)
    found = page(tmp_path)
    assert found.scripts == 1
    assert "<img" not in (tmp_path / "report.html").read_text()
    assert attack in found.text
