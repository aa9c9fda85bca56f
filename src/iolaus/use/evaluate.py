"""`iolaus evaluate RUN`: which pictures a model gets wrong, and by how much; evaluation.json and what is beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.command import CommandParser
from iolaus.errors import ConfigError
from iolaus.files.atomic import write_json, write_text
from iolaus.files.layout import CONFUSION, EVALUATION, MISTAKES, PREDICTIONS, folder_name
from iolaus.files.run_folder import RunFolder, make_folder
from iolaus.use.predict import add_model_arguments

if TYPE_CHECKING:
    from iolaus.use.classifier import Classifier
    from iolaus.use.evaluation import Evaluation

EXAMPLES = """\
  iolaus evaluate last                                the newest run, on its own test set
  iolaus evaluate outputs/STUDY --split val           a study's best run, on the images that it was chosen by
  iolaus evaluate RUN dataset.root=other_images       the same classes, other images
  iolaus evaluate RUN dataset=cifar10 trainer.tta=flip
"""


def evaluate_parser() -> CommandParser:
    """The arguments of `iolaus evaluate`."""
    what = "Evaluate the model of a run: figures, a confusion matrix, its mistakes, a prediction for every image."
    parser = CommandParser("evaluate", what, EXAMPLES)
    add_model_arguments(parser)
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help="other data: dataset.KEY=…")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="(default: test)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the run's folder)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command. Raises ConfigError, and BrokenImage for a file that can't be read."""
    given = evaluate_parser().parse_intermixed_args(arguments)
    from iolaus.config.saved import replace_data
    from iolaus.trust.command_line import CommandLine
    from iolaus.use.evaluation import evaluate_split
    from iolaus.use.find import choose_run, read_model
    from iolaus.use.load import load_model

    CommandLine.instance().read(given.overrides)
    saved = read_model(choose_run(given.run), given.weights)
    config = replace_data(saved.config, given.overrides)
    if given.out and RunFolder(given.out).is_run() and not given.out.samefile(saved.folder):
        raise ConfigError(f"--out {given.out}: is the folder of another run; give a folder of its own")
    model = load_model(replace(saved, config=config), given.device, given.precision)
    asked = [*([given.split] if given.split != "test" else []), *([given.weights] if given.weights != "best" else [])]
    out = given.out or default_folder(saved.folder, [*asked, *given.overrides])
    evaluation = evaluate_split(saved, model, config, given.split, given.batch_size, given.workers)
    about = {
        "run": str(RunFolder(saved.folder.absolute())),
        "weights": saved.file.name,
        "epoch": saved.metrics.get("epoch"),
        "within_epoch": saved.within_epoch,
        "split": given.split,
        "overrides": given.overrides,
        "precision": model.precision,
        "device": str(model.device),
        "tta": model.tta,
    }
    written = write_evaluation(evaluation, model, out, about)
    from iolaus.use.summary import print_evaluation

    print_evaluation(evaluation, about, written)
    return 0


def default_folder(run: Path, asked: Sequence[str]) -> Path:
    """The run's own folder, or one in its `evaluations` for another question than the usual."""
    return run / "evaluations" / folder_name(",".join(asked)) if asked else run


def write_evaluation(evaluation: "Evaluation", model: "Classifier", out: Path, about: dict[str, Any]) -> list[Path]:
    """Write all files of an evaluation; evaluation.json is the last. Returns those that there are to look at."""
    from iolaus.use.confusion import draw_confusion
    from iolaus.use.mistakes import draw_mistakes
    from iolaus.use.rows import format_csv, make_head, make_rows

    classes, ranking = evaluation.classes, evaluation.ranking
    lines: list[Sequence[object]] = [make_head(["image", "true"], ranking.labels.shape[1])]
    pictures = zip(evaluation.places.tolist(), evaluation.targets.tolist(), make_rows(ranking, classes), strict=True)
    lines += [[evaluation.name(place), classes[target], *row] for place, target, row in pictures]
    content = {
        **about,
        "data": evaluation.data,
        "images": len(evaluation.places),
        "skipped_images": evaluation.skipped,
        **evaluation.figures,
        "per_class": evaluation.table,
        "confusion": evaluation.confusion.tolist(),
    }
    try:
        make_folder(out)
        write_text(out / PREDICTIONS, "".join(map(format_csv, lines)))
        draw_confusion(evaluation, out / CONFUSION)
        draw_mistakes(evaluation, model.shape, out / MISTAKES)
        write_json(out / EVALUATION, content)
    except OSError as error:
        raise ConfigError(f"{out}: can't be written ({error.strerror}); --out FOLDER writes elsewhere") from error
    return [path for name in (EVALUATION, PREDICTIONS, CONFUSION, MISTAKES) if (path := out / name).exists()]
