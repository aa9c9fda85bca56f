"""What the files of a run's folder are called, what a folder is called, and what results.json says of a run."""

import hashlib
import re

LAST, BEST, RESULTS, METRICS, CURVES = "last.pt", "best.pt", "results.json", "metrics.jsonl", "curves.png"
EVALUATION, CONFUSION, MISTAKES = "evaluation.json", "confusion.png", "mistakes.png"  # what evaluate leaves
PREDICTIONS = "predictions.csv"
HYDRA = ".hydra"  # a folder of YAML files: config, overrides, hydra
TRIALS = ".trials"  # in a search's: the locks of its trials
SLURM_FOLDER = ".slurm"  # in a study's: the scripts of its workers, and what they print
LOCK = ".lock"  # locked by the process that trains in the folder

# the keys of results.json that tables and reports show
RESULT_COLUMNS = (
    "best_train_accuracy", "best_val_accuracy", "best_test_accuracy",
    "best_train_loss", "best_val_loss", "best_test_loss",
)  # fmt: skip

# `status` of results.json; a run that is done is not continued when its sweep is started again
DONE = FINISHED, PRUNED = "finished", "pruned"
FAILED = "failed"
ENDED = (*DONE, FAILED)


def folder_name(text: str) -> str:
    """Overrides as the name of one folder, another one for every other text.

    A text that is not a safe name as it is (`a/b`, `ä`, too long) becomes a readable part and a hash of the whole.
    """
    name = readable_name(text, 120)
    return name if name and name == text else f"{name[:109]}-{short_hash(text, 10)}".lstrip("-")


def readable_name(text: str, longest: int) -> str:
    """A text as a part of a folder's name: all but letters, digits and `._,=+-` become dashes, and it is cut."""
    return re.sub(r"[^A-Za-z0-9._,=+-]+", "-", text).strip("-")[:longest]


def short_hash(text: str, digits: int = 6) -> str:
    """Hexadecimal digits that tell one text from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
