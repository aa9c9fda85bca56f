"""`iolaus predict RUN PATH…`: what a run's model says of pictures, as CSV or JSON on standard output."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.command import CommandParser, whole_number
from iolaus.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from iolaus.use.classifier import Classifier

FEW = 64  # pictures that are read sooner than worker processes start
MOST_NAMED = 5  # of files that are not there
EXAMPLES = """\
  iolaus predict last cat.jpg dog.png                  pictures
  iolaus predict outputs/STUDY my_images > labels.csv  a study's best run; a folder, and those below it
  iolaus predict RUN 'photos/**/*.jpg' --json          a pattern, as JSON
  find . -name '*.png' | iolaus predict RUN -          a list of files
"""


def predict_parser() -> CommandParser:
    """The arguments of `iolaus predict`."""
    parser = CommandParser("predict", "Predict the classes of pictures with the model of a run.", EXAMPLES)
    add_model_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a picture, a folder, a pattern; -: a list on stdin")
    parser.add_argument("--json", action="store_true", help="a JSON array, one line a picture, in place of CSV")
    parser.add_argument("--top", type=whole_number(1), metavar="K", default=5, help="classes a picture (default: 5)")
    return parser


def add_model_arguments(parser: CommandParser) -> None:
    """RUN, and how its model is used: what `evaluate` and `predict` share."""
    add_run_arguments(parser)
    size: dict[str, Any] = {"type": whole_number(1), "metavar": "N", "default": 64}
    parser.add_argument("--batch-size", **size, help="pictures at once (default: 64)")
    parser.add_argument("--workers", type=whole_number(0), metavar="N", help="processes that read pictures")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--precision", help="auto, fp32, bf16 or fp16 (default: the run's own)")


def add_run_arguments(parser: CommandParser) -> None:
    """RUN and its weights: what each command that uses a model takes."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, a study's (its best run), or last")
    parser.add_argument("--weights", choices=("best", "last"), default="best", help="of the best epoch, or the last")


def main(arguments: Sequence[str]) -> int:
    """The command. Returns 1 if a picture could not be read; raises ConfigError."""
    given = predict_parser().parse_intermixed_args(arguments)
    from iolaus.use.find import choose_run
    from iolaus.use.load import load
    from iolaus.use.pictures import list_files

    files = list_files(given.paths, sys.stdin)
    if not files:
        raise ConfigError("-: no file is named on standard input")
    if not any(Path(file).exists() for file in files):  # before the model, which takes a while
        raise ConfigError(*(f"{file}: no such file" for file in files[:MOST_NAMED]))
    model = load(choose_run(given.run), weights=given.weights, device=given.device, precision=given.precision)
    skipped: set[str] = set()
    print_rows(model, files, judge_files(model, files, given.batch_size, given.workers, skipped), given.top, given.json)
    if skipped:
        print(f"iolaus: {len(skipped)} of {len(files)} pictures could not be read", file=sys.stderr)
    return 1 if skipped else 0


def judge_files(
    model: "Classifier", files: Sequence[str], batch_size: int, workers: int | None, skipped: set[str]
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Classifier.judge for files; the unreadable ones are left out, each with a warning, and `skipped` gets them."""
    from iolaus.data.split import BrokenImage, LazyImages
    from iolaus.settings import DatasetSettings
    from iolaus.use.pictures import Pictures

    workers = 0 if workers is None and len(files) < FEW else workers
    settings = DatasetSettings(on_bad_image="skip", num_workers=workers, persistent_workers=False)
    images = LazyImages(Pictures(files), range(len(files)), model.input.pixels)
    with contextlib.suppress(BrokenImage):  # of none that can be read: then there is no row
        yield from model.judge(images, settings, batch_size, skipped)


def print_rows(
    model: "Classifier",
    files: Sequence[str],
    judged: Iterator[tuple["Tensor", "Tensor"]],
    most: int,
    as_json: bool,
) -> None:
    """Print a row for each picture as soon as it is judged."""
    from iolaus.use.rows import format_csv, format_json, make_head, make_rows, rank

    head = format_csv(make_head(["file"], min(most, len(model.classes))))
    lines, between = 0, "["
    for places, logits in judged:
        for place, row in zip(places.tolist(), make_rows(rank(logits, most), model.classes), strict=True):
            line = between + "\n" + format_json(files[place], row) if as_json else format_csv([files[place], *row])
            sys.stdout.write(line if as_json or lines else head + line)
            lines, between = lines + 1, ","
        sys.stdout.flush()
        show_count(lines, len(files))
    if as_json:
        sys.stdout.write("\n]\n" if lines else "[]\n")


def show_count(done: int, total: int) -> None:
    """Tell how far it is, where someone looks on and the rows go elsewhere."""
    if sys.stderr.isatty() and not sys.stdout.isatty():
        print(f"\r{done:,} of {total:,} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)
