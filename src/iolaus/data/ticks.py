"""Long work on many files says now and then how far it is."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

FIRST_SECONDS, EVERY_SECONDS = 1.0, 10.0
Listed = TypeVar("Listed")


def tell_progress(items: Iterable[Listed], what: str, total: int | None = None, size: int = 1) -> Iterator[Listed]:
    """The items; the log has a line after a second and then every ten: `what` and how many there were.

    total: their number, where it is known; size: what each item counts.
    """
    next_time, of = time.monotonic() + FIRST_SECONDS, "" if total is None else f" of {total:,}"
    for number, item in enumerate(items):
        yield item
        if time.monotonic() >= next_time:
            log.info("%s: %s%s", what, f"{min((number + 1) * size, total or 2**63):,}", of)
            next_time = time.monotonic() + EVERY_SECONDS
