"""The command `iolaus`, also `python -m iolaus`: one table of its commands, each imported only when it is called."""

import os
import pkgutil
from collections.abc import Callable, Sequence

import iolaus
from iolaus.command import CommandParser, name_word, run_command
from iolaus.errors import ConfigError, nearest, printable
from iolaus.machine.process import collect_rarely, spin_briefly

# name -> ("module:function", what it does, for `iolaus --help`). A function takes its arguments and returns an exit
# status; it answers --help itself, and what the user got wrong is a ConfigError.
COMMANDS = {
    "train": ("iolaus.start:main", "train one model, or many (-m): what python train.py does"),
    "show": ("iolaus.preview.command:main", "show a run before it trains: images, layers, memory, learning rates"),
    "evaluate": ("iolaus.use.evaluate:main", "a run's model on test: figures, confusion, its mistakes"),
    "predict": ("iolaus.use.predict:main", "the classes of pictures, by a run's model"),
    "export": ("iolaus.use.export:main", "a run's model as ONNX, torch.export or safetensors"),
    "report": ("iolaus.report.__main__:main", "write the report of a folder's runs"),
    "watch": ("iolaus.watch:main", "show the table of a study while it runs"),
    "schema": ("iolaus.config.json_schema:main", "print a JSON schema of recipes and options, for editors"),
    "version": ("iolaus.cli:print_version", "print the version"),
}
COMPLETION = ("-sc", "--shell-completion")  # as Hydra has it: `eval "$(iolaus -sc install=bash)"`
TAKES_OVERRIDES = ("train", "show")
EXAMPLES = """\
examples:
  iolaus train                                              the default: a small CNN on 1,797 digits, in seconds
  iolaus train dataset=image_folder dataset.root=my_images  your own images
  iolaus train -m optimizer.lr=0.1,0.05 seed=0,1,2          every combination, one table at the end
  iolaus train --help                                       groups, options, keys
  iolaus show model=resnet18                                what a run would train on, and with what
  iolaus evaluate last                                      what the newest run gets wrong
  iolaus predict last my_images > labels.csv                its answers for other pictures
  iolaus watch outputs/STUDY                                a study, while it runs
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `iolaus`; returns its exit status."""
    return run_command(call_command, arguments)


def call_command(arguments: list[str]) -> int:
    """Call the command that the first argument names with the others."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(format_help_page())
        return 0
    if name in COMPLETION:
        return complete(rest)
    return find_command("version" if name == "--version" else name)(rest)


def find_command(name: str) -> Callable[[list[str]], int]:
    """The function of a command. Raises ConfigError for a name that is none."""
    if name not in COMMANDS:
        if "=" in name or name == "-m":
            raise ConfigError(f"{printable(name)}: no such command; a run is started by iolaus train {printable(name)}")
        raise ConfigError(f"{name_word(name)}: no such command; {nearest(name, COMMANDS)}")
    spin_briefly()
    collect_rarely()
    command: Callable[[list[str]], int] = pkgutil.resolve_name(COMMANDS[name][0])
    return command


def complete(arguments: list[str]) -> int:
    """What a shell asks for at the tabulator key (`query=SHELL`, the line in COMP_LINE), and how it is told to ask.

    The commands' names are ours; the groups, options and keys behind `iolaus train` are Hydra's to complete.
    """
    if arguments[:1] and arguments[0].startswith("query="):
        line = os.environ.get("COMP_LINE", "")
        program, *words = line.split() or [""]
        if not words or (len(words) == 1 and not line.endswith(" ")):
            print("\n".join(COMMANDS))
            return 0
        if words[0] not in TAKES_OVERRIDES:
            return 0  # a path, which the shell completes itself
        os.environ["COMP_LINE"] = " ".join([program, *words[1:]]) + (" " if line.endswith(" ") else "")
    return find_command("train")([COMPLETION[0], *arguments])


def format_help_page() -> str:
    """What `iolaus --help` prints."""
    lines = [f"  {name:<10}{summary}" for name, (_, summary) in COMMANDS.items()]
    usage = "usage: iolaus COMMAND ...    iolaus COMMAND --help says more\n\nTrain and compare image classifiers.\n"
    return "\n".join([usage, "commands:", *lines, "", EXAMPLES.rstrip()])


def print_version(arguments: Sequence[str]) -> int:
    """`iolaus version`."""
    CommandParser("version", "Print the version.", "  iolaus version").parse_args(arguments)
    print(f"iolaus {iolaus.__version__}")
    return 0
