"""Samples to medians, ratios, tables and results.json."""

import json
import os
import statistics
import sys
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results.json"
Samples = dict[str, list[float]]


def spread(values: list[float]) -> dict[str, Any]:
    """Median, least, most and number of the values, and the values."""
    return {
        "median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values),
        "samples": values,
    }  # fmt: skip


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
    """The spread of the ratios of two ways' samples, those of one repeat with each other."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def difference(above: list[float], below: list[float]) -> dict[str, Any]:
    """The spread of the differences of two ways' samples, those of one repeat with each other."""
    return spread([a - b for a, b in zip(above, below, strict=True)])


def best(samples: Samples, ways: list[Any], **wanted: Any) -> str | None:
    """The way with the largest median among those whose attributes are as `wanted`; None of none."""
    names = [w.name for w in ways if w.name in samples and all(getattr(w, k) == v for k, v in wanted.items())]
    return max(names, key=lambda name: statistics.median(samples[name]), default=None)


def show(value: dict[str, Any], form: str) -> str:
    """`0.95 (0.93 to 0.97)`: median, least and most."""
    return f"{value['median']:{form}} ({value['min']:{form}} to {value['max']:{form}})"


def table(header: list[str], rows: list[list[str]], markdown: bool) -> str:
    """Rows of text under a header: the first column to the left, the others to the right."""
    if markdown:
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in [header, *rows]
    )


def heading(title: str, facts: dict[str, Any], markdown: bool) -> str:
    """A title, and where and when its table was measured."""
    line = (
        f"{facts['date']}, {facts['device']}, torch {facts['versions']['torch']}, Python "
        f"{facts['versions']['python']}, load {facts['load_average_before'][0]:.2f} before"
    )
    return f"### {title}\n\n{line}\n" if markdown else f"\n{title}\n{line}\n"


def about(device: str, load: tuple[float, float, float]) -> dict[str, Any]:
    """What numbers depend on: date, device, versions, and `load`, the load average before the start."""
    from iolaus.machine import hardware

    return {
        "date": str(date.today()), "device": hardware.device_name(hardware.pick_device(device)),
        "versions": hardware.versions(), "git": hardware.git_state(), "load_average_before": load,
    }  # fmt: skip


def load_average() -> tuple[float, float, float]:
    """Of the last 1, 5 and 15 minutes, with a warning when it is high; zeros where the system does not tell."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    if load[0] > 0.3 * (os.cpu_count() or 1):
        # a thread that waits for its turn holds up all others at the end of every parallel loop
        print(f"load {load[0]:.2f}: another busy process can make steps ten times as slow", file=sys.stderr)
    return load


def write(path: Path, section: str, content: dict[str, Any]) -> None:
    """Put a section into the JSON file; the others stay as they were measured."""
    everything = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**everything, section: content}, indent=2) + "\n")
