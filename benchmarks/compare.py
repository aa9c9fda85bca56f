"""What run.py says of a group of ways: the row of each, and the ratios that the benchmark is about."""

import operator
from dataclasses import asdict
from typing import Any

import report
from child import Way
from report import Samples

DEFAULTS, FP32, STOCK = "Iolaus, defaults", "Iolaus, fp32", "floor, stock settings"


def rows_of(ways: list[Way], samples: Samples, notes: dict[str, str]) -> list[dict[str, Any]]:
    """A dict for each way: its speed, its ratios to the best floor and to the best usual way, and Iolaus' to it.

    The best is the one with the best median; its samples of the same repeats are divided by.
    """
    floor = report.best(samples, ways, kind="floor")
    usual = report.best(samples, ways, kind="usual") or report.best(samples, ways, kind="loader")
    iolaus = DEFAULTS if DEFAULTS in samples else report.best(samples, ways, kind="batches")
    rows = []
    for way in (way for way in ways if way.name in samples):
        mine = samples[way.name]
        ratios = {
            "to_best_floor": report.ratio(mine, samples[floor]) if floor else None,
            "to_best_usual": report.ratio(mine, samples[usual]) if usual else None,
            "iolaus_to_this": report.ratio(samples[iolaus], mine) if iolaus else None,
        }
        rows.append({**asdict(way), "note": notes[way.name], "images_per_second": report.spread(mine), **ratios})
    return rows


def ratios_of(ways: list[Way], samples: Samples) -> dict[str, dict[str, Any]]:
    """{"this ÷ what it is compared with": spread}, of those pairs that were measured.

    Per image: of the usual ways those that draw crop and flip for each image by itself, as Iolaus does.
    """

    def best(**wanted: Any) -> str | None:
        return report.best(samples, ways, **wanted)

    pairs: list[tuple[str, str, str | None]] = [
        (DEFAULTS, "best floor", best(kind="floor")),
        (DEFAULTS, "stock floor", STOCK),
        (DEFAULTS, "best usual", best(kind="usual")),
        (DEFAULTS, "best usual per image", best(kind="usual", per_image=True)),
        (FP32, "best fp32 floor", best(kind="floor", precision="fp32")),
        (FP32, "best fp32 usual", best(kind="usual", precision="fp32")),
        (FP32, "best fp32 usual per image", best(kind="usual", precision="fp32", per_image=True)),
    ]
    for way in (way for way in ways if way.kind == "batches"):
        pairs.append((way.name, "best usual", best(kind="loader")))
        pairs.append((way.name, "best usual per image", best(kind="loader", per_image=True)))
    return {
        f"{above} ÷ {what} ({below.removeprefix('floor, ')})": report.ratio(samples[above], samples[below])
        for above, what, below in pairs if above in samples and below in samples
    }  # fmt: skip


def printed(rows: list[dict[str, Any]], ratios: dict[str, dict[str, Any]], markdown: bool) -> str:
    """The two tables of a group, as text of at most 100 columns or as Markdown."""
    header = ["way", "images/s", "min", "max", "n", "÷ floor", "÷ usual", "Iolaus ÷"]
    columns = ("to_best_floor", "to_best_usual", "iolaus_to_this")
    lines = []
    for row in rows:
        name = row["name"] + (f" ({row['note']})" if row["note"] else "")
        speeds = [f"{value:,.0f}" for value in operator.itemgetter("median", "min", "max")(row["images_per_second"])]
        medians = [f"{row[key]['median']:.2f}" if row[key] else "-" for key in columns]
        lines.append([name, *speeds, str(row["images_per_second"]["n"]), *medians])
    text = report.table(header, lines, markdown)
    if not ratios:
        return text
    shown = [[name, *(f"{value[key]:.2f}" for key in ("median", "min", "max"))] for name, value in ratios.items()]
    return f"{text}\n\n{report.table(['ratio', 'median', 'min', 'max'], shown, markdown)}"
