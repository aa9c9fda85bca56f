"""What can be configured, read from the comments of the YAML files: for `--help` and for docs/reference.md.

The first comment of an option says what it is; the comment behind a key says what the key means, and goes on in the
indented comments below it. A comment that stands at the margin between keys is a heading for readers of the file.
"""

import functools
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iolaus.config.places import CONF

COMMON = "common"  # the folder of the keys that all options of a group share
NO_GROUPS = (COMMON, "local", "hydra")
SWEEPERS = ("hydra/sweeper", "hydra/sweeper/pruner", "hydra/launcher")
ALIASES = "hydra.aliases."
HELP_WIDTH = 98  # characters in a line of the help
TITLE = """\
# Reference

Every group, option and key of [`conf/`](../conf), with its default and its meaning. `nox -s reference` makes this page
from the comments in those files. `group=option` picks an option, `key=value` changes a value, and `+key=value` gives an
argument that the file does not list. A default of `???` is none: the key has to be given. Recipes (`experiment=NAME`):
[experiments/](../experiments/README.md).
"""

KEY = re.compile(r"(?P<indent> *)(?P<name>[\w.]+):(?: +(?P<value>[^#\s].*?))??(?: *# (?P<meaning>.*))?")
MORE = re.compile(r" +# (?P<meaning>.*)")
EXTENDS = re.compile(r"  - (\w+)(?:@[\w.]+)?")
CHOOSES = re.compile(r"  - override /(\w+)@[\w.]+: (\w+)\b.*")
PICKS = re.compile(r"  - (\w+): (\w+)\b.*")
PACKAGE_LINE = re.compile(r"# @package (\S+)")
EDITOR_LINE = "# yaml-language-server:"  # says which schema an editor checks the file by
ENVIRONMENT = re.compile(r"\$\{oc\.env:\w+,(\w+)\}")


@dataclass(frozen=True)
class Key:
    """A key as it is typed on the command line, its default as YAML, and its meaning (empty where none is given)."""

    name: str
    default: str
    meaning: str = ""


@dataclass
class Option:
    """One file of a group. keys: those of the file alone. extends: names of the options that it starts from. chooses:
    the options of other groups that come with it, as group=option.
    """

    group: str
    name: str
    meaning: str = ""
    target: str = ""
    extends: list[str] = field(default_factory=list)
    chooses: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


def read_option(file: Path, group: str, name: str) -> Option:
    """Read one YAML file of `group` (a path with slashes; "" for the file at the top)."""
    option, package, parents = Option(group, name), group.replace("/", "."), list[tuple[int, str]]()
    head = True
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := PACKAGE_LINE.fullmatch(line):
            package = found[1].replace("_global_", "")
        elif line.startswith(EDITOR_LINE):
            continue
        elif head and line.startswith("#"):
            option.meaning = f"{option.meaning} {line[1:].strip()}".strip()
        elif found := EXTENDS.fullmatch(line):
            option.extends.append(found[1])
        elif found := CHOOSES.fullmatch(line):
            option.chooses.append(f"{found[1]}={found[2]}")
        elif (found := MORE.fullmatch(line)) and option.keys:
            last = option.keys.pop()
            option.keys.append(Key(last.name, last.default, f"{last.meaning} {found['meaning']}".strip()))
        elif found := KEY.fullmatch(line):
            indent = len(found["indent"])
            parents = [parent for parent in parents if parent[0] < indent]
            if found["value"] is None:
                parents.append((indent, found["name"]))
            elif found["name"] == "_target_":
                option.target = found["value"]
            elif found["name"] != "_partial_":
                name = ".".join(filter(None, (package, *(parent for _, parent in parents), found["name"])))
                default = ENVIRONMENT.sub(r"\1", found["value"])
                option.keys.append(Key(name, default, found["meaning"] or ""))
        head = head and line.startswith("#")
    return option


class Reference:
    """The groups, options and keys of folders laid out as conf/; of two files of one name the first folder's counts."""

    def __init__(self, folders: Sequence[Path], recipes: Sequence[Path]) -> None:
        self.folders = [folder for folder in folders if folder.is_dir()]
        config = self.find_files("config.yaml")[0]
        self.top = read_option(config, "", "config")
        self.defaults = dict(PICKS.findall(config.read_text(encoding="utf-8")))
        names = {path.name for folder in self.folders for path in folder.iterdir() if path.is_dir()} - {*NO_GROUPS}
        order = ["dataset", *self.defaults, *sorted(names)]  # what a run is about comes first
        self.groups = {group: self.read_options(group) for group in sorted(names, key=order.index)}
        self.recipes = sorted({path.stem for folder in recipes for path in folder.glob("[!_]*.yaml")})
        top = {key.name: key.default for key in self.top.keys}
        self.aliases = {key: name.removeprefix(ALIASES) for name, key in top.items() if name.startswith(ALIASES)}

    def find_files(self, pattern: str) -> list[Path]:
        """All files of that name, the one that counts first."""
        return [file for folder in self.folders for file in sorted(folder.glob(pattern))]

    def read_options(self, group: str) -> dict[str, Option]:
        """The options of a group by name, its default first."""
        files = {file.stem: file for file in reversed(self.find_files(f"{group}/*.yaml"))}
        names = sorted(files, key=lambda name: (name != self.defaults.get(group), name))
        return {name: read_option(files[name], group, name) for name in names}

    def read_common_option(self, group: str) -> Option:
        """What all options of a group share."""
        files = self.find_files(f"{COMMON}/{group}.yaml")
        return read_option(files[0], group, COMMON) if files else Option(group, COMMON)

    def read_common(self, group: str) -> list[Key]:
        """The keys that all options of a group share."""
        return self.read_common_option(group).keys

    def list_keys(self) -> list[Key]:
        """Every key of every option, once, the default option's first."""
        keys = [key for key in self.top.keys if not key.name.startswith("hydra.")]
        for group, options in self.groups.items():
            keys += [key for own in (self.read_common(group), *(o.keys for o in options.values())) for key in own]
        return [*{key.name: key for key in reversed(keys)}.values()][::-1]

    def find_key(self, name: str) -> tuple[Key, str]:
        """A key, and the option that must be picked for it, with … where others extend that one.

        It is empty where the default option or several have the key.
        """
        found = [(key, "") for key in self.top.keys if key.name == name]
        for group, options in self.groups.items():
            default = options.get(self.defaults.get(group, ""), Option(group, ""))
            found += [(key, "") for key in (*default.keys, *self.read_common(group)) if key.name == name]
            having = [(key, o.name) for o in options.values() if not o.extends for key in o.keys if key.name == name]
            for key, option in having:
                more = ", …" if any(option in other.extends for other in options.values()) else ""
                found.append((key, f"{group}={option}{more}" if len(having) == 1 else ""))
        return found[0]

    def format_groups(self) -> Iterator[str]:
        """Each group with its options, in lines for the terminal."""
        for group, names in [*self.groups.items(), ("experiment", self.recipes)]:
            indents = f"  {group:<18}", " " * 20
            yield from textwrap.wrap(
                ", ".join(names), HELP_WIDTH, initial_indent=indents[0], subsequent_indent=indents[1]
            )
        for option in (option for options in self.groups.values() for option in options.values() if option.chooses):
            chosen = f"{option.group}={option.name} chooses {' '.join(option.chooses)}, unless you name others"
            yield from textwrap.wrap(chosen, HELP_WIDTH, initial_indent="  ", subsequent_indent=" " * 4)

    def format_key(self, name: str, value: object = None) -> str:
        """A key with its short name, its default and the first clause of its meaning, in a line for the terminal.

        value: what it is in the default run, where the dataset chooses another option than the group's default.
        """
        (key, option), alias = self.find_key(name), self.aliases.get(name)
        typed = f"{name} [{alias}]" if alias else name
        note = f" ({option})" if option else ""
        default = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else key.default
        return f"  {typed:<31} {default:<12} {key.meaning.split('; ')[0]}{note}"


@functools.cache
def read_reference(folders: tuple[str, ...], recipes: tuple[str, ...] = ()) -> Reference:
    """The reference of some folders, read once."""
    return Reference([*map(Path, folders)], [*map(Path, recipes)])


def format_markdown(conf: Path = CONF) -> str:
    """docs/reference.md: every group, option and key of conf/."""
    reference = read_reference((str(conf),))
    lines = [TITLE, "## At the top", ""]
    lines += format_table([key for key in reference.top.keys if not key.name.startswith("hydra.")])
    lines += ["", "Short names: " + ", ".join(f"`{v}` is `{k}`" for k, v in reference.aliases.items()) + "."]
    for group in (*reference.groups, *SWEEPERS):
        options, common = reference.read_options(group), reference.read_common(group)
        lines += ["", f"## {group}"]
        if common:
            lines += ["", "Every option has these keys:", "", *format_table(common)]
        for option in options.values():
            default = " (default)" if option.name == reference.defaults.get(group) else ""
            parents = [options[name] for name in option.extends if name in options]
            extends = "".join(f" Extends `{group}={parent.name}`." for parent in parents)
            builds = f" Builds `{option.target}`." if option.target else ""
            chosen = ", ".join(f"`{choice}`" for choice in option.chooses)
            chooses = f" Chooses {chosen}, unless you name others." if chosen else ""
            lines += ["", f"### {group}={option.name}{default}", "", f"{option.meaning}{extends}{builds}{chooses}"]
            explained = {key.name: key.meaning for key in (*common, *(k for parent in parents for k in parent.keys))}
            lines += ["", *format_table(option.keys, explained, option.target)] if option.keys else []
    return "\n".join(lines) + "\n"


def format_table(keys: Iterable[Key], explained: Mapping[str, str] | None = None, target: str = "") -> list[str]:
    """Keys as a Markdown table. A key without a meaning has that of the same key in `explained`, else its target's."""
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for key in keys:
        meaning = (key.meaning or (explained or {}).get(key.name) or f"see `{target}`").replace("|", r"\|")
        rows.append(f"| `{key.name}` | `{key.default}` | {meaning} |")
    return rows


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(format_markdown(), encoding="utf-8")
