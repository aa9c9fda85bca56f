"""What processes that were killed have left behind: found and removed by the next start beside it."""

import os
import re
import time
from pathlib import Path

from iolaus.files.layout import HYDRA, LOCK
from iolaus.files.locks import file_lock, is_locked_here
from iolaus.files.run_folder import RunFolder

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # of files/atomic.py
BEFORE_A_RUN = {LOCK, HYDRA, "run.log"}  # what a run's folder holds before its configuration is written
START_SECONDS = 60.0  # in which a run that has begun may not hold its lock yet


def remove_leftovers(parent: Path) -> None:
    """Remove what killed runs have left in the folders below `parent`, a study or a day of outputs/.

    Temporary files, and folders of runs that were killed before their configuration was written; of runs of this
    machine that no process trains. Also the temporary files of a study's tables and reports.
    """
    for path in (*parent.glob(".*.tmp"), *parent.glob("plots/.*.tmp")):
        if TEMPORARY.fullmatch(path.name) and is_quiet(path):
            path.unlink(missing_ok=True)
    for lock in parent.glob(f"*/{LOCK}"):
        folder = RunFolder(lock.parent)
        names = os.listdir(folder.path)
        kept = {name for name in names if not TEMPORARY.fullmatch(name)}
        dead = kept <= BEFORE_A_RUN and not folder.is_run()
        if (dead or len(kept) < len(names)) and is_quiet(folder.path) and is_locked_here(lock) is False:
            with file_lock(lock) as ours:
                if ours:
                    folder.remove_stale_files()
                if ours and dead:
                    folder.remove_dead()


def is_quiet(path: Path) -> bool:
    """Whether nothing has happened to a file, or to the names in a folder, for a while."""
    try:
        return time.time() - path.stat().st_mtime > START_SECONDS
    except FileNotFoundError:
        return False
