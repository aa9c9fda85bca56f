"""What has to be quoted on the command line, and how: for Hydra's syntax of values, and for the shell."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from iolaus.errors import nearest
from iolaus.files.layout import HYDRA
from iolaus.files.run_folder import OUTPUTS

UNREAD = re.compile(r"Error when parsing index: \d+, string: (?P<override>.*?) out of \[", re.DOTALL)


def quote_value(key: str, value: object) -> str:
    """`key=value` as it is typed in a shell so that the value is a text: `"study='123'"`."""
    # Hydra's grammar: backslashes are doubled before a quotation mark alone
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(value))
    override = f"{key}='{escaped}'"
    return shlex.quote(override) if re.search(r'["$`\\!]', override) else f'"{override}"'


def paste(key: str, text: object) -> str:
    """`key=text` to be pasted into a shell: quoted only where the shell or Hydra would read another text."""
    plain = re.fullmatch(r"[\w./:+-]*[A-Za-z/][\w./:+-]*", str(text), re.ASCII)
    value = re.fullmatch(r"null|true|false|[+-]?(nan|inf)|[+-]?[\d._]+e[+-]?[\d_]+", str(text), re.IGNORECASE)
    return f"{key}={text}" if plain and not value else quote_value(key, text)


def explain_unread(message: str, reason: str) -> str | None:
    """The line for an override that Hydra can't read, from its message and the reason; None for another message."""
    if (found := UNREAD.match(message)) is None:
        return None
    override = found["override"]
    key, equals, value = override.partition("=")
    if override == "last" or Path(override).is_relative_to(OUTPUTS) or (Path(override) / HYDRA).is_dir():
        run = shlex.quote(override)
        return f"{run}: a run that has begun is shown by iolaus evaluate {run} and iolaus report {run}"
    if value.startswith("~"):
        return f"{override}: the shell knows ~ only at the beginning of a word; give {key}=$HOME{value[1:]}"
    if not equals:
        return f"{override}: must be key=value; a value with a space is quoted twice: {quote_value('key', 'a b')}"
    if re.match(r"choice\(.*\bnull\b", value):
        listed = value.removeprefix("choice(").removesuffix(")")
        return f"{override}: choice() takes no null; give a list: {key}={listed}"
    if bracket := missing_bracket(value):
        return f"{override}: a {bracket} is missing"
    if re.search(r"\s[\w./@+~-]+=", value) and not re.search("['\"]", value):
        apart = " ".join(map(shlex.quote, override.split()))
        return f"{override}: two overrides stand in one pair of quotes; each has its own: {apart}"
    if (name := re.match(r"(\w+)\(", value)) and (known := re.search(r"Available: ([\w,]+)", reason)):
        return f"{override}: no such function; {nearest(name[1], known[1].split(','))}"
    if name:  # a function of Hydra's: range(1,x), interval(a)
        return f"{override}: {reason.splitlines()[-1].strip() if reason.strip() else 'can not be read'}"
    return f"{override}: a value with such characters is quoted: {quote_value(key, value)}"


def find_spaces(arguments: Sequence[str]) -> list[str]:
    """A line for each override that spaces have cut apart: `lr = 0.1`, `lr= 0.1`, `seed=0, 1, 2`."""
    lines = []
    for i, argument in enumerate(arguments):
        before = arguments[i - 1] if i else ""
        if argument.startswith("-") or before.startswith(("--c", "-c")):  # an option, or the folder or name it is given
            continue
        parts = [before, argument] if argument.startswith("=") and before else [argument]
        for following in arguments[i + 1 :]:
            if "=" not in argument or not parts[-1].endswith(("=", ",")) or re.search("^[-~+]|=", following):
                break
            parts.append(following)
        if len(parts) > 1:
            lines.append(f"{' '.join(parts)}: spaces cut an override apart; give {''.join(parts)}")
    return lines


def missing_bracket(value: str) -> str | None:
    """The bracket that closes the innermost open one; None where none is open, or a quotation may hold it."""
    pairs, awaited = {"[": "]", "(": ")", "{": "}"}, list[str]()
    for sign in value:
        if sign in "'\"\\":
            return None
        if sign in pairs:
            awaited.append(pairs[sign])
        elif sign in pairs.values() and (not awaited or awaited.pop() != sign):
            return None
    return awaited[-1] if awaited else None
