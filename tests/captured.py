"""A command called within this process, as the command line calls it: for tests and benchmarks."""

import contextlib
import io
import logging
import os
from collections.abc import Callable


def call_captured(main: Callable[[], object]) -> tuple[int, str, str]:
    """Call a command. Returns its exit status (what it returns, or exits with), standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    os.environ.pop("HYDRA_FULL_ERROR", None)  # a command before this one may have set it
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            returned = main()
            status = returned if isinstance(returned, int) else 0
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
            close_log_files()
    return status, out.getvalue(), err.getvalue()


def close_log_files() -> None:
    """Close run.log, which the next command's logging configuration would drop without closing."""
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler | logging.StreamHandler):
            logging.getLogger().removeHandler(handler)
            handler.close()
