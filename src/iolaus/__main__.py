"""`python -m iolaus` is the command `iolaus`."""

import sys

from iolaus.cli import main

if __name__ == "__main__":
    sys.exit(main())
