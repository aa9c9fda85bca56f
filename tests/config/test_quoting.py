"""What has to be quoted is told with the command that works, to be pasted into a shell."""

import shlex

import pytest
from conftest import TINY

from iolaus.config.quoting import explain_unread, paste, quote_value

VALUES = ["123", "bilder/ä", "a b", "it's", 'say "x"', "$HOME", "a,b=c", "back\\slash", "end\\", "a\\'b"]
PLAIN_NAMES = ("outputs/2026-11-26/08-37-27", "-x", "../x", "C:/x")
QUOTED = "a value with such characters is quoted"
AS_NUMBER = """'trainer.batch_size="${oc.decode:${oc.env:NAME}}"'"""
CASES = {
    ("study=123",): "study=123: expected a text or null; to give it as a text: \"study='123'\"",
    ("dataset=image_folder", "dataset.root=2024"): "expected a text; to give it as a text: \"dataset.root='2024'\"",
    ("dataset.root=bilder/ä",): f"dataset.root=bilder/ä: {QUOTED}: \"dataset.root='bilder/ä'\"",
    (
        "dataset=image_folder",
        "dataset.root=my",
        "images",
    ): "images: must be key=value; a value with a space is quoted twice",
    ("optimizer.lr=0.01 trainer.epochs=2",): "each has its own: optimizer.lr=0.01 trainer.epochs=2",
    ("model.widths=[8,16",): "model.widths=[8,16: a ] is missing",
    ("experiment=[debug,digits_quick",): "experiment=[debug,digits_quick: a ] is missing",
    ("-m", "optimizer.lr=tag(log,interval(0.001,0.3)"): "a ) is missing",
    ("last",): "last: a run that has begun is shown by iolaus evaluate last and iolaus report last",
    ("outputs/a b/0",): "'outputs/a b/0': a run that has begun is shown by iolaus evaluate 'outputs/a b/0' and",
    ("-m", "trainer.grad_clip_norm=choice(null,1.0)"): "no null; give a list: trainer.grad_clip_norm=null,1.0",
    (
        "trainer.batch_size=${oc.env:SIZE}",
    ): f"expected a whole number; it is a text; a variable as a number: {AS_NUMBER}",
}


@pytest.mark.parametrize("value", VALUES)
def test_a_quoted_value_is_the_text_itself_after_the_shell_and_hydra(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (typed,) = shlex.split(quote_value("key", value))
    assert OverridesParser.create().parse_override(typed).value() == value


@pytest.mark.parametrize("name", ["outputs/2026-11-26/08-37-27", "/data/a b", "a,b=c", "it's $HOME", "runs/[1]", "123",
                                  "null", "1e5", "2026", "ä", "-x", "../x", "C:/x", "a:b,c"])  # fmt: skip
def test_a_hint_that_is_pasted_gives_the_folder_as_it_is_called(name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (typed,) = shlex.split(paste("resume", name))
    assert OverridesParser.create().parse_override(typed).value() == name
    assert (paste("resume", name) == f"resume={name}") == (name in PLAIN_NAMES)


@pytest.mark.parametrize(("arguments", "line"), CASES.items())
def test_a_value_that_needs_quotes_is_told_in_a_line_with_the_quotes(command, monkeypatch, arguments, line):
    monkeypatch.setenv("SIZE", "16")
    outcome = command("tracker=none", *arguments)
    assert outcome.status == 2
    assert [line in told for told in outcome.err.splitlines()] == [True], outcome.err


def test_what_the_lines_propose_works(command, monkeypatch):
    monkeypatch.setenv("SIZE", "16")
    assert command(*TINY, 'trainer.batch_size="${oc.decode:${oc.env:SIZE}}"').status == 0
    assert command("-m", *TINY, "trainer.grad_clip_norm=null,1.0", "study='123'").status == 0
    assert explain_unread("anything else", "") is None
