"""What all commands share: one line for what the user got wrong, the exit status, a help page with examples."""

import argparse
import ast
import atexit
import contextlib
import errno
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from iolaus.errors import ConfigError, RunFailed, nearest, printable

# what a user's folders and disks refuse, of which a line says enough
DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)

LONGEST_WORD = 200  # characters of what was given


class CommandParser(argparse.ArgumentParser):
    """The parser of `iolaus NAME`, whose help page ends in examples, one a line.

    What it does not understand is a ConfigError: one line, as all errors.
    """

    def __init__(self, name: str, description: str, examples: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        epilog = f"examples:\n{examples}"
        super().__init__(prog=f"iolaus {name}", description=description, epilog=epilog, formatter_class=layout)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{explain_argument(message)}; {self.prog} --help shows how it is called")


def explain_argument(message: str) -> str:
    """What argparse says of an argument, as all errors say it: what was given, what is allowed, the nearest match."""
    if found := re.fullmatch(r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", message):
        option, word = found[1], ast.literal_eval(found[2])
        choices = found[3].replace("'", "").split(", ")  # quoted by Python 3.11
        return f"{option} {name_word(word)}: no such choice; {nearest(word, choices)}"
    if found := re.fullmatch(r"argument (\S+): ignored explicit argument .*", message):
        return f"{found[1]}: takes no value"
    if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        words = found[1].split(" ")  # those that are none and those that follow them
        return f"{name_word(next((word for word in words if word.startswith('-')), found[1]))}: no such argument"
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"{found[1]}: missing"
    return name_word(message.removeprefix("argument "))


def name_word(word: str) -> str:
    """A user's word for a message: printable, also where it is empty, and not a page."""
    shown = printable(word) or "''"
    return shown if len(shown) <= LONGEST_WORD else f"{shown[:LONGEST_WORD]}…"


def whole_number(least: int) -> Callable[[str], int]:
    """A reader of whole numbers of `least` or more, for an argument's `type`."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > 18 or int(text) < least:
            raise argparse.ArgumentTypeError(f"{name_word(text)} is not a whole number of {least} or more")
        return int(text)

    return read


def run_command(main: Callable[[list[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Call a command with its arguments (of the process, by default) and return its exit status.

    0; 1 where it can't go on (RunFailed, an unreadable folder); 2 for a user error (ConfigError); 130 for Ctrl-C.
    """
    with end_with_the_reader():
        try:
            return main([*(sys.argv[1:] if arguments is None else arguments)])
        except (ConfigError, RunFailed) as error:
            for line in str(error).splitlines():
                print(f"iolaus: {printable(line)}", file=sys.stderr)
            return 2 if isinstance(error, ConfigError) else 1
        except OSError as error:
            if error.errno not in DISK_ERRORS or error.filename is None:
                raise
            print(f"iolaus: {printable(str(error.filename))}: {error.strerror}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130


def train_command() -> tuple[str, ...]:
    """How the user starts a run here: `iolaus train`, or `python train.py` where that is what was called or lies."""
    program = Path(sys.argv[0])
    if program.name == "train.py":
        return ("python", "train.py")
    called = program.stem == "iolaus" or program.parent.name == "iolaus"  # the command, python -m iolaus
    return ("iolaus", "train") if called or not Path("train.py").is_file() else ("python", "train.py")


def in_notebook() -> bool:
    """Whether a notebook shows the output of this process: IPython's kernel sets these for what its cells start."""
    return os.environ.get("TERM") == "xterm-color" and os.environ.get("PAGER") == os.environ.get("GIT_PAGER") == "cat"


def can_redraw(stream: TextIO) -> bool:
    """Whether text can be redrawn in place: in a terminal, but not in a notebook, which keeps every drawing."""
    return stream.isatty() and not in_notebook()


@contextlib.contextmanager
def end_with_the_reader() -> Iterator[None]:
    """End quietly when nobody reads the output any more (`| head`), with the status of a program that SIGPIPE ends.

    And quickly: Python's last search for garbage, among all objects of torch and the rest, takes a second for nothing.
    """
    atexit.register(gc.freeze)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # what is left in the buffer goes nowhere, without a complaint
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
