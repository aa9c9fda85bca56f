"""Where a search's trials are kept, by Optuna: a journal file in the study's folder, or a database."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

from iolaus import locks
from iolaus.errors import first_line

JOURNAL = "optuna.journal"


def opened(url: str | None, folder: Path) -> Any:
    """The journal in a study's folder, or what an SQLAlchemy URL names.

    The journal's lock is one that ends with its process (flock); Optuna's own would be left behind by kill -9.
    Raises ValueError, one line, when the database can't be opened; its URL, which may hold a password, is not shown.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        path = (folder / JOURNAL).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=journal_lock(path)))
    from sqlalchemy.pool import NullPool

    # a connection for each question: an epoch may last longer than firewalls let an idle one live, and hundreds of
    # workers would hold more than a server has. SQLite's own wait of 5 s is short where many write.
    options: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    try:
        return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=options))
    except ImportError as error:
        hint = "; pip install -e '.[postgresql]'" if url.startswith("postgresql") else ""
        raise ValueError(f"{first_line(error.__cause__ or error)}{hint}") from error
    except Exception as error:  # of SQLAlchemy, of the database
        raise ValueError(first_line(error)) from error


def journal_lock(journal: Path) -> Any:
    """A lock as Optuna's journal wants it (acquire, release), of locks.held."""
    from optuna.storages.journal._file import BaseJournalFileLock

    class Lock(BaseJournalFileLock):
        def acquire(self) -> bool:
            stack = contextlib.ExitStack()
            stack.enter_context(locks.held(journal.with_suffix(".lock"), wait=math.inf))
            drop_torn_line(journal)
            self.stack = stack
            return True

        def release(self) -> None:
            self.stack.close()

    return Lock()


def drop_torn_line(journal: Path, longest: int = 1 << 20) -> None:
    """Cut off the part of a line that a killed process has left: with the next line behind it, none could be read."""
    with open(journal, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) in (b"", b"\n"):
            return
        file.seek(max(0, size - longest))
        torn = file.read().rpartition(b"\n")[2]
        file.truncate(size - len(torn))
