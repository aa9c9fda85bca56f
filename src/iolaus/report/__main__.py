"""`iolaus report FOLDER`, also `python -m iolaus.report`: writes the report of a folder's runs, and says where."""

import sys
from collections.abc import Sequence
from pathlib import Path

from iolaus.command import CommandParser, run_command
from iolaus.errors import ConfigError
from iolaus.files.run_folder import newest_run
from iolaus.report import CSV, MARKDOWN, PLOTS, write_report

EXAMPLES = """\
  iolaus report outputs/STUDY  a sweep, also while its runs go on
  iolaus report last           the newest run
  iolaus report outputs        all runs below a folder
"""


def main(arguments: Sequence[str]) -> int:
    """The command. Raises ConfigError where there is nothing to report."""
    what = "Write report.html, report.md, results.csv and plots/ into a folder with runs below it."
    parser = CommandParser("report", what, EXAMPLES)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of a sweep, or with any runs below it; or last")
    parser.add_argument("--storage", metavar="URL", help="the server that holds a search's study: postgresql://…")
    given = parser.parse_args(arguments)
    folder = newest_run() if str(given.folder) == "last" else given.folder
    try:
        page = write_report(folder, given.storage)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    for path in (page, folder / MARKDOWN, folder / CSV, *sorted((folder / PLOTS).glob("*.png"))):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
