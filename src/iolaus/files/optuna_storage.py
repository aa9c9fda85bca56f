"""Optuna's storage of a search: a journal file in the study's folder, or a database."""

import contextlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iolaus.errors import first_line
from iolaus.files import locks

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

JOURNAL = "optuna.journal"


def open_storage(url: str | None, folder: Path, existing: bool = False) -> "BaseStorage":
    """Open the database of an SQLAlchemy URL; without a URL, the journal in a study's folder.

    Optuna's own lock of a journal would survive kill -9, hence JournalLock. existing: make no tables in a database that
    has none. Raises ValueError, one line, when the database can't be opened; the message leaves out the URL, which may
    hold a password.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        path = (folder / JOURNAL).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # moved away: the study begins anew
            size_file(path).unlink(missing_ok=True)
        # the annotation names a private class; the backend needs no more than acquire and release
        backend = JournalFileBackend(str(path), lock_obj=JournalLock(path))  # type: ignore[arg-type]
        try:
            storage = optuna.storages.JournalStorage(backend)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise ValueError(explain_damage(path)) from error
        check_length_of(path)
        return storage
    from sqlalchemy.pool import NullPool

    # a new connection for each query: firewalls may close an idle one within an epoch, and hundreds of workers would
    # hold more than a server has; SQLite's default timeout of 5 s is short for many writers
    options: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    try:
        database = optuna.storages.RDBStorage(url, engine_kwargs=options, skip_table_creation=existing)
        return optuna.storages.get_storage(database)
    except ImportError as error:
        hint = "; pip install -e '.[postgresql]'" if url.startswith("postgresql") else ""
        raise ValueError(f"{first_line(error.__cause__ or error)}{hint}") from error
    except Exception as error:  # SQLAlchemy's or the driver's
        raise ValueError(first_line(error)) from error


def explain_damage(journal: Path) -> str:
    """The line for a journal that Optuna can't read: the file, its first line that is no entry, and the way out."""
    way_out = "put back a copy of the file, or move it away: the study then begins anew"
    for number, line in enumerate(journal.read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "op_code" not in entry:
            return f"{journal}, line {number}: is no entry of Optuna's journal; {way_out}"
    return f"{journal}: its entries do not fit together; {way_out}"


def size_file(journal: Path) -> Path:
    """Holds how long a journal was after its last entry."""
    return journal.with_name(f".{journal.name}.size")


def check_length_of(journal: Path) -> None:
    """Raise ValueError where a journal has lost lines since it was written: Optuna would not miss a trial's value."""
    file = size_file(journal)
    try:
        lost = int(file.read_text()) - journal.stat().st_size
    except (OSError, ValueError):  # of before there was such a file, or of a kill as it was written
        return
    if lost > 0:
        way_out = f"put back a copy of the file, or remove {file} to go on with what is left"
        raise ValueError(f"{journal}: has lost {lost} bytes since the study wrote it; {way_out}")


class JournalLock:
    """A lock for Optuna's journal, which calls acquire and release: a file lock, which ends with its process."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def acquire(self) -> bool:
        stack = contextlib.ExitStack()
        stack.enter_context(locks.file_lock(self.journal.with_suffix(".lock"), timeout=math.inf))
        drop_torn_line(self.journal)
        self.stack = stack  # only now: until here another thread may hold the lock, and release it by its own stack
        return True

    def release(self) -> None:
        size_file(self.journal).write_text(str(self.journal.stat().st_size))
        self.stack.close()


def drop_torn_line(journal: Path, longest: int = 1 << 20) -> None:
    """Cut off the incomplete last line that a killed process left: a line appended to it would be unreadable."""
    with open(journal, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) in (b"", b"\n"):
            return
        file.seek(max(0, size - longest))
        torn = file.read().rpartition(b"\n")[2]
        file.truncate(size - len(torn))


def load_study(folder: Path, url: str | None, name: str | None) -> "Study":
    """Load a study of a database; without a URL, the only study of the folder's journal, whatever its name.

    Raises what Optuna, SQLAlchemy or a driver raise.
    """
    import optuna

    storage = open_storage(url, folder, existing=True)
    return optuna.load_study(study_name=name if url else storage.get_all_studies()[0].study_name, storage=storage)


def param_importances(study: "Study", objective: int = 0) -> dict[str, float]:
    """The importance of each parameter for good values of one objective, the largest first; the sum is 1.

    Optuna's default, PED-ANOVA (Watanabe, Bansal and Hutter, 2023): what sets the best tenth of the trials apart.
    """
    import optuna

    # given a target, the evaluator takes lower values as better, and warns of that
    sign = -1 if study.directions[objective].name == "MAXIMIZE" else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[objective])
