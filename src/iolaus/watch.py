"""`iolaus watch outputs/STUDY`: the table of a study while it runs, in any terminal."""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from iolaus.command import CommandParser, can_redraw, run_command
from iolaus.errors import ConfigError
from iolaus.files.layout import METRICS, RESULTS
from iolaus.machine.process import collect_as_usual
from iolaus.report.runs import RUNNING, Study, read_study
from iolaus.report.terminal import EVERY_SECONDS, print_study, show_live

PAUSE_SECONDS = 30.0  # without a run, after which a study is over
EXAMPLES = """\
  iolaus watch outputs/STUDY              the table, redrawn while the runs train
  iolaus watch outputs/STUDY > table.txt  the table as it is now
"""


def main(arguments: Sequence[str]) -> int:
    """The command. Raises ConfigError where there is no study."""
    what = "Show the table of a study while it runs; it ends when no run has trained for half a minute."
    parser = CommandParser("watch", what, EXAMPLES)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="outputs/STUDY")
    folder = parser.parse_args(arguments).folder
    try:
        study = read_study(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    collect_as_usual()
    if can_redraw(sys.stdout):
        with contextlib.suppress(KeyboardInterrupt), show_live(folder) as look:
            while not is_over(look() or study):
                time.sleep(EVERY_SECONDS / 4)
        study = read_study(folder)
    print_study(study)
    return 0


def is_over(study: Study) -> bool:
    """Whether no run trains, and none has for a while: else the next may be about to begin."""
    if any(run.status == RUNNING for run in study.runs):
        return False
    files = (run.folder / name for run in study.runs for name in (RESULTS, METRICS))
    newest = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    return time.time() - newest > PAUSE_SECONDS


if __name__ == "__main__":
    sys.exit(run_command(main))
