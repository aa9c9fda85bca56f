"""confusion.png and mistakes.png: what is in them, and that they can be read."""

import pytest
import torch
from PIL import Image

from iolaus.data.shape import ImageShape
from iolaus.use.confusion import choose_classes, colour_cells, draw_confusion, shorten_name
from iolaus.use.evaluation import Evaluation
from iolaus.use.mistakes import draw_mistakes, most_confident
from iolaus.use.rows import Ranking


def evaluation_of(classes, targets, preds, probs, size=8):
    images = torch.zeros(len(targets), 3, size, size, dtype=torch.uint8)
    ranking = Ranking(preds[:, None], probs[:, None])
    names = [f"class {k}" for k in range(classes)]
    return Evaluation(names, images, torch.arange(len(targets)), targets, ranking, {"accuracy": 0.5}, [], 0, "")


def test_the_mistakes_are_those_that_the_model_is_most_sure_of():
    targets, preds = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 0, 1, 1, 1])
    evaluation = evaluation_of(3, targets, preds, torch.tensor([0.99, 0.5, 0.9, 0.7, 0.95]))
    assert most_confident(evaluation).tolist() == [2, 3, 1]
    assert most_confident(evaluation, most=2).tolist() == [2, 3]


def test_without_mistakes_there_is_no_picture_of_them(tmp_path):
    targets = torch.tensor([0, 1])
    (tmp_path / "mistakes.png").write_bytes(b"of before")
    draw_mistakes(evaluation_of(2, targets, targets, torch.ones(2)), ImageShape(3, 8, 8), tmp_path / "mistakes.png")
    assert not (tmp_path / "mistakes.png").exists()


def test_a_hundred_classes_are_all_drawn_and_of_more_those_with_the_most_mistakes():
    assert choose_classes(torch.eye(100, dtype=torch.int64)).tolist() == list(range(100))
    counts = torch.eye(150, dtype=torch.int64)
    counts[120, 7] = counts[3, 149] = 5
    chosen = choose_classes(counts).tolist()
    assert len(chosen) == 100
    assert {120, 7, 3, 149} <= set(chosen)
    assert chosen == sorted(chosen)


def test_a_full_row_has_the_full_colour_and_an_empty_cell_none():
    colours = colour_cells(torch.tensor([[4, 0], [3, 0]]))
    blue, orange = (0x00 / 255, 0x72 / 255, 0xB2 / 255), (0xD5 / 255, 0x5E / 255, 0x00)
    assert tuple(colours[0, 0]) == pytest.approx(blue)
    assert tuple(colours[1, 0]) == pytest.approx(orange)
    assert tuple(colours[0, 1]) == (1, 1, 1)


def test_the_name_of_a_class_is_shown_as_it_is_and_on_one_line(tmp_path):
    assert shorten_name("a\nb\x1b[31m") == "a b\ufffd[31m"
    assert len(shorten_name("x" * 300)) <= 24
    targets = torch.tensor([0, 1, 1])
    evaluation = evaluation_of(2, targets, torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.8, 0.7]))
    evaluation.classes[:] = ["$\\frac{", "<b>_^"]  # no formula of matplotlib's
    draw_confusion(evaluation, tmp_path / "confusion.png")
    draw_mistakes(evaluation, ImageShape(3, 8, 8), tmp_path / "mistakes.png")
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
