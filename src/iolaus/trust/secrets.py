"""Variables of the environment that look secret: their values stay out of what a run writes and hands on."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import cast

from omegaconf import DictConfig, OmegaConf
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


def mask_config(config: DictConfig) -> DictConfig:
    """A configuration as it is saved: without the secrets that stand in it, typed or resolved by Hydra."""
    plain = OmegaConf.to_container(config, resolve=False)
    masked = mask(plain)
    return config if masked == plain else OmegaConf.create(cast("dict[str, object]", masked))


def secret_values() -> dict[str, str]:
    """The values of variables that look secret, by name, without those too short to be one."""
    return {n: value for n, value in os.environ.items() if len(value) >= SHORTEST_SECRET and looks_secret(n)}


def mask(value: object) -> object:
    """A copy of plain containers in which a secret variable's value is its name again, and a URL has no password."""
    secrets = secret_values()

    def mask_within(value: object) -> object:
        if isinstance(value, dict):
            return {key: mask_within(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [mask_within(inner) for inner in value]
        if not isinstance(value, str):
            return value
        for name, secret in secrets.items():
            value = value.replace(secret, f"${{oc.env:{name}}}")
        return PASSWORD.sub(r"\1\2***", value)

    return mask_within(value)
