"""Variables of the environment that look secret: their values stay out of what a run writes and hands on."""

import contextlib
import os
import re
from collections.abc import Iterator

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(KEY|PASS|PWD)S?(?=[_\d]|$)", re.IGNORECASE)
# In a URL: //user:PASSWORD@host, ?password=PASSWORD
PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+(?=@)|([?&]password=)[^&\s]+")
WORKING_FOLDERS = ("PWD", "OLDPWD")  # a shell's own: print working directory
SHORTEST_SECRET = 4  # a shorter value stands in other words too
REFERENCE = re.compile(r"\$\{oc\.env:([^,}]+)")


def looks_secret(name: str) -> bool:
    """Whether the name of an environment variable is one that people give to secrets: WANDB_API_KEY, PGPASSWORD."""
    return SECRET.search(name) is not None and name not in WORKING_FOLDERS


def is_secret_text(text: str) -> bool:
    """Whether a text refers to a variable that looks secret."""
    return any(looks_secret(name) for name in REFERENCE.findall(text))


@contextlib.contextmanager
def hide_secrets() -> Iterator[set[str]]:
    """Within it `${oc.env:NAME}` resolves to itself where NAME looks secret. Yields the names that were asked for."""
    asked: set[str] = set()

    def resolve_env(key: str, *default: object) -> str | None:
        if not looks_secret(str(key)):
            return oc.env(key, *default)
        asked.add(str(key))
        return f"${{oc.env:{key}}}"

    OmegaConf.register_resolver("oc.env", resolve_env, replace=True)
    try:
        yield asked
    finally:
        OmegaConf.register_resolver("oc.env", oc.env, replace=True, annotation_validation="off")


def mask_variables(node: object) -> object:
    """A configuration to be saved, as text: without the secrets that stand in it, typed or resolved by Hydra."""
    return mask(OmegaConf.to_container(node, resolve=False))


def mask(value: object) -> object:
    """A copy of plain containers in which a secret variable's value is its name again, and a URL has no password."""
    if isinstance(value, dict):
        return {key: mask(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask(inner) for inner in value]
    text = value if isinstance(value, str) else ""
    for name, secret in os.environ.items():
        if len(secret) >= SHORTEST_SECRET and looks_secret(name):
            text = text.replace(secret, f"${{oc.env:{name}}}")
    return PASSWORD.sub(r"\1\2***", text) if text else value
