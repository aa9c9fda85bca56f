import math
import sys
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from iolaus.show import curves
from iolaus.show.curves import draw_curves, draw_or_warn
from iolaus.show.png import save_drawing, save_figure


def history(epochs, lr=lambda epoch: 0.1, **more):
    return [
        {
            "epoch": epoch,
            "step": 90 * (epoch + 1),
            "train/loss": 2.0 / (epoch + 1),
            "train/accuracy": 1 - 0.9 / (epoch + 1),
            "val/loss": 2.2 / (epoch + 1),
            "val/accuracy": 0.9 - 0.8 / (epoch + 1),
            "lr": lr(epoch),
            **more,
        }
        for epoch in range(epochs)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look at what is in them."""
    figures = []

    def save(figure, *args, **kwargs):
        figures.append(figure)
        save_drawing(figure, *args, **kwargs)

    monkeypatch.setattr(curves, "save_drawing", save)
    return figures


def data(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


@pytest.mark.parametrize("epochs", [1, 5, 200])
def test_any_number_of_epochs_becomes_a_png_with_ink_and_nothing_beside_it(tmp_path, epochs):
    path = tmp_path / "run" / "curves.png"
    draw_curves(history(epochs), path, "a title with $ and _", best_epoch=epochs - 1)
    image = imread(path)
    assert image.shape[1] > 2 * image.shape[0]
    assert image[..., :3].std() > 0.05
    assert list(path.parent.iterdir()) == [path]


def test_a_drawing_in_few_shades_is_what_matplotlib_draws_and_white_stays_white(tmp_path, drawn):
    draw_curves(history(30, **{f"lr/{i}": 0.01 * i for i in range(1, 5)}), tmp_path / "few.png", "a title", 29)
    save_figure(drawn[0], tmp_path / "all.png", dpi=110, compress_level=1)
    few, whole = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("few.png", "all.png"))
    assert few.shape == whole.shape
    assert few[whole.min(axis=2) == 255].min() == 255
    difference = np.abs(few - whole).max(axis=2)
    assert difference.mean() < 1
    assert np.quantile(difference, 0.9999) < 64  # where two colours meet
    assert (tmp_path / "few.png").stat().st_size < (tmp_path / "all.png").stat().st_size / 2


def test_epochs_count_from_1_and_accuracies_are_percent(tmp_path, drawn):
    draw_curves(history(2), tmp_path / "curves.png")
    loss, accuracy, lr = drawn[0].axes
    assert data(loss) == {"train": [[1, 2.0], [2, 1.0]], "val": [[1, 2.2], [2, 1.1]]}
    assert data(accuracy)["val"] == [[1, pytest.approx(10)], [2, pytest.approx(50)]]
    assert data(lr) == {"lr": [[1, 0.1], [2, 0.1]]}
    assert all(tick == int(tick) for tick in loss.get_xticks())
    assert accuracy.yaxis.get_major_formatter()(50).startswith("50")


def test_the_best_epoch_is_marked_with_its_validation_values(tmp_path, drawn):
    draw_curves(history(5), tmp_path / "curves.png", best_epoch=3)
    loss, accuracy, _ = drawn[0].axes
    assert [text.get_text() for text in loss.texts] == ["best by val accuracy: epoch 4, 0.5500"]
    assert [text.get_text() for text in accuracy.texts] == ["best: epoch 4, 70.00 %"]
    assert [x for x, _ in loss.lines[-1].get_xydata()] == [4, 4]


def test_no_legend_and_no_mark_covers_the_lines(tmp_path, drawn):
    draw_curves(history(30), tmp_path / "curves.png", best_epoch=29)
    for axes in drawn[0].axes[:2]:
        for above in (axes.get_legend(), *axes.texts):
            assert above.get_window_extent().y0 >= axes.get_window_extent().y1
        mark, legend = axes.texts[0].get_window_extent(), axes.get_legend().get_window_extent()
        assert not mark.overlaps(legend)


@pytest.mark.parametrize(
    ("rates", "scale"),
    [
        ([0.1, 0.1, 0.1 / 40, 0.1 / 40], "linear"),
        ([0.1, 0.1, 0.1 / 60, 0.1 / 60], "log"),
        ([0.1, 0.05, 0.01, 1e-6], "linear"),
    ],
)
def test_a_learning_rate_that_falls_in_steps_over_50_times_has_a_log_axis(tmp_path, drawn, rates, scale):
    draw_curves(history(4, lr=lambda epoch: rates[epoch]), tmp_path / "curves.png")
    assert drawn[0].axes[2].get_yscale() == scale


def test_a_learning_rate_that_ends_at_zero_is_drawn(tmp_path, drawn):
    draw_curves(history(3, lr=lambda epoch: (0.1, 0.05, 0.0)[epoch]), tmp_path / "curves.png")
    assert data(drawn[0].axes[2])["lr"][-1] == [3, 0.0]
    assert drawn[0].axes[2].get_yscale() == "linear"


def test_each_group_of_parameters_has_its_learning_rate(tmp_path, drawn):
    draw_curves(history(2, **{"lr/1": 0.05, "lr/2": 0.025}), tmp_path / "curves.png")
    lr = drawn[0].axes[2]
    assert list(data(lr)) == ["lr", "1", "2"]
    assert [text.get_text() for text in lr.get_legend().get_texts()] == ["lr", "1", "2"]
    assert len({line.get_color() for line in lr.lines}) == 3


def test_epochs_without_validation_and_losses_that_are_nan_are_left_out(tmp_path, drawn):
    rows = history(3)
    del rows[1]["val/loss"]
    rows[2]["train/loss"] = math.nan
    draw_curves(rows, tmp_path / "curves.png", best_epoch=1)
    loss = drawn[0].axes[0]
    assert [x for x, _ in data(loss)["val"]] == [1, 3]
    assert [text.get_text() for text in loss.texts] == ["best by val accuracy: epoch 2"]


def test_an_empty_history_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no epoch"):
        draw_curves([], tmp_path / "curves.png")


def test_a_failed_drawing_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def half(self, file, **kwargs):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        draw_curves(history(2), path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "setting", [{"savefig.bbox": "tight"}, {"savefig.facecolor": "#fff0c0"}, {"text.usetex": True}, {"font.size": 30}],
    ids=str,
)  # fmt: skip
def test_a_users_settings_of_matplotlib_change_no_picture_and_stay(tmp_path, setting):
    draw_curves(history(3), tmp_path / "plain.png")
    with matplotlib.rc_context(setting):
        draw_curves(history(3), tmp_path / "own.png")
        assert {key: matplotlib.rcParams[key] for key in setting} == setting
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_a_run_has_its_results_without_a_picture(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(curves, "draw_curves", fail)
    draw_or_warn(history(3), tmp_path / "curves.png", "a title", 2, "val/accuracy")
    assert "curves.png can't be drawn: RuntimeError: no fonts" in caplog.text


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 0.5, 0.0001, 0.9999])
def test_an_accuracy_that_hardly_changes_spans_two_points_and_nothing_beyond_0_to_100(tmp_path, drawn, accuracy):
    draw_curves(history(4, **{"train/accuracy": accuracy, "val/accuracy": accuracy}), tmp_path / "curves.png")
    low, high = drawn[0].axes[1].get_ylim()
    assert high - low >= 2 - 1e-9
    assert -0.03 * 11 <= low < 100 * accuracy < high <= 100 + 0.03 * 11


def test_drawing_needs_no_pyplot(tmp_path):
    import subprocess

    code = (
        "import sys; from pathlib import Path; from iolaus.show.curves import draw_curves;"
        "draw_curves([{'epoch': 0, 'train/loss': 1.0}], Path(sys.argv[1]));"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "curves.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_picture_is_the_same_whatever_was_drawn_before_it(tmp_path):
    """The figure is used again; a thread of its own begins with a new one."""
    steps = history(20, lr=lambda epoch: 0.1 ** (1 + epoch // 5))
    groups = history(30, **{"lr/1": 0.3})
    pictures = [(history(3), "short", 1), (steps, "steps", 19), (groups, "long", None), (steps[:7], "", 2)]

    def draw(index, name):
        history, title, best = pictures[index]
        draw_curves(history, tmp_path / name, title, best_epoch=best)
        return (tmp_path / name).read_bytes()

    alone = []
    for index in range(len(pictures)):
        thread = threading.Thread(target=lambda index=index: alone.append(draw(index, f"alone{index}.png")))
        thread.start()
        thread.join()
    for order in ((0, 1, 2, 3), (3, 2, 1, 0, 2)):
        for index in order:
            assert draw(index, "again.png") == alone[index], order
