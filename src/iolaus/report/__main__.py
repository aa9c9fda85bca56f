"""`python -m iolaus.report FOLDER`: writes the report of a folder's runs, and says where."""

import argparse
import sys
from pathlib import Path

from iolaus.report import CSV, MARKDOWN, PLOTS, write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m iolaus.report", description="Write the report of a study's runs.")
    parser.add_argument("folder", type=Path, help="a sweep's folder, or any folder with runs below it")
    folder = parser.parse_args().folder
    try:
        page = write_report(folder)
    except (ValueError, OSError) as error:
        print(f"iolaus: {error}", file=sys.stderr)
        return 2
    for path in (page, folder / MARKDOWN, folder / CSV, *sorted((folder / PLOTS).glob("*.png"))):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
