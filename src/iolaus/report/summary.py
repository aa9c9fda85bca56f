"""The head of a report: the best configuration with the commands that repeat it, and the facts about the study."""

import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from iolaus.command import train_command
from iolaus.files.changes import edited_files
from iolaus.files.layout import DONE
from iolaus.report.configurations import (
    Configuration,
    best_configuration,
    mean_std,
    merit_of,
    metric_cell,
    name_settings,
)
from iolaus.report.document import Block, Facts, Text
from iolaus.report.parsing import get_nested, text_in
from iolaus.report.runs import NOT_A_CHOICE, REPEATS, Run, Study, format_counts, natural_key
from iolaus.report.significance import LEVEL, MOST_SEEDS, compare_means, expected_maximum, seeds_needed
from iolaus.show.numbers import MISSING, format_duration, metric_of, shorten_number

MANY = 5  # configurations, of which the best is lucky, too
ON_TEST = (
    "Selected on the test set: best epochs and this ranking were chosen by test accuracy (dataset.validation=test), "
    "which makes the test numbers too favourable."
)


def head_blocks(study: Study, ranking: Sequence[Configuration]) -> list[Block]:
    """The best configuration, and the facts about the study."""
    on_test = ON_TEST if any(run.result.get("selected_on_test") for run in study.runs) else ""
    best, none = best_configuration(study, ranking), [Text("No run has finished yet.", "lead")]
    lead = none if best is None else describe_best(study, ranking, best)
    warnings = [Text(line, "warning") for line in (on_test, describe_edits(study)) if line]
    return [*warnings, *lead, list_facts(study)]


def describe_edits(study: Study) -> str:
    """That runs of one study were trained by different code of the user's; empty where they were not."""
    edited = edited_files(run.result.get("own_code") for run in study.runs)
    were = "was" if len(edited) == 1 else "were"
    return f"{', '.join(edited)} {were} edited between these runs: they are not of one code." if edited else ""


def describe_best(study: Study, ranking: Sequence[Configuration], best: Configuration) -> list[Text]:
    """The best configuration, its numbers, its lead over the second, and the commands that repeat it."""
    several = len(best.compared_runs) > 1
    numbers = [
        f"{metric_cell(m, values).text}{' %' if m.percent else ''} {m.word}"
        for m in map(metric_of, dict.fromkeys((study.objective, "test/accuracy")))
        if (values := best.values(m.name))
    ]
    text = f"{', '.join(numbers)} at the last epoch" + (
        f" (mean ± standard deviation of {count_repeats(best.compared_runs)})" if several else ""
    )
    if times := [seconds for seconds in best.values("seconds") if seconds]:
        text += f", {format_duration(statistics.fmean(times))} of training{' each' if several else ''}"

    run = min(best.compared_runs, key=lambda run: merit_of(study, run))
    typed = {key: override for key, override in run.overrides.items() if key not in NOT_A_CHOICE}
    commands = [shlex.join([*train_command(), *typed.values()])]
    if repeats := repeats_of(best.compared_runs):
        others = [override for key, override in typed.items() if key not in repeats]
        again = [f"{key}={','.join(values)}" for key, values in repeats.items()]
        commands.append(shlex.join([*train_command(), "-m", *others, *again]))
    return [
        *([Text(f"Best: {name_settings(best.settings, study.keys)}", "lead")] if study.keys else []),
        Text(f"{text}. {describe_lead(study, ranking)}".strip()),
        *([Text(luck)] if (luck := describe_luck(study, ranking)) else []),
        *(Text(command, "command") for command in commands),
    ]


def repeats_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The values of seed and fold, of each where it has several."""
    found = {key: {run.settings[key] for run in runs if key in run.settings} for key in REPEATS}
    return {key: sorted(values, key=natural_key) for key, values in found.items() if len(values) > 1}


def count_repeats(runs: Sequence[Run]) -> str:
    """`5 folds`, `3 seeds`, `15 runs: 3 seeds, 5 folds`"""
    counts = [f"{len(values)} {REPEATS[key]}s" for key, values in repeats_of(runs).items()]
    return counts[0] if len(counts) == 1 else f"{len(runs)} runs{': ' if counts else ''}{', '.join(counts)}"


def list_repeats(study: Study) -> str:
    """`the seed`, `the fold`, `the seed and the fold`: those that differ between the study's runs."""
    return " and ".join(f"the {name}" for key, name in REPEATS.items() if key in study.varied) or "nothing"


def describe_lead(study: Study, ranking: Sequence[Configuration]) -> str:
    """The lead of the first over the second, and whether the data can tell the two apart."""
    if len(ranking) < 2 or best_configuration(study, ranking[1:]) is None:
        return ""
    m, (first, second) = metric_of(study.objective), ranking[:2]
    sign = 1 if study.maximize else -1
    gap = sign * (mean_std(first.values(m.name))[0] - mean_std(second.values(m.name))[0])
    values = [{seed: sign * value for seed, value in place.by_repeat(m.name).items()} for place in (first, second)]
    difference, unit = compare_means(*values), " points" if m.percent else ""
    lead, other = difference.mean if difference else gap, name_settings(second.settings, study.keys)
    is_tie = m.format(abs(lead)) == m.format(0.0)
    # the first in the mean of all its runs can be behind in the seeds that both have
    text = f"{m.format(abs(lead))}{unit} {'behind' if lead < 0 else 'ahead of'} {other}"
    text = f"{other} is as good" if is_tie else text
    of = " and ".join(f"{REPEATS[key]}s" for key in repeats_of(study.runs)) or "seeds"
    if difference is None:
        if is_tie:
            single = len(first.compared_runs) == 1
            return f"{text}. To tell the two apart, {describe_doubt(study, first)}." if single else f"{text}."
        return f"{text}. Whether that is more than the scatter of {of} can't be told: {describe_doubt(study, first)}."
    pairs = f", in pairs of {difference.pairs} common {of}" if difference.pairs else ""
    low, high = (m.format(value).replace("-", "−") for value in (difference.low, difference.high))
    text += f" ({100 * LEVEL:.0f} % confidence interval {low} to {high}{pairs}): "
    if difference.is_clear:
        return f"{text}the data tell the two apart."
    if is_tie or lead < 0:
        return f"{text}the data can't tell the two apart."
    seeds = seeds_needed(difference)
    many = f"about {seeds}" if seeds else f"more than {MOST_SEEDS:,}"
    return f"{text}the data can't tell the two apart. If the lead is as large as it looks, it takes {many} {of} each."


def describe_doubt(study: Study, best: Configuration) -> str:
    """What a configuration without repeats leaves open."""
    why = "repeat both with several seeds, such as seed=0,1,2,3,4"
    found = re.search(r"([\d,]+) val\b", text_in(best.compared_runs[0].result.get("data")))
    share, _ = mean_std(best.values(study.objective))
    if study.objective == "val/accuracy" and found and 0 < share < 1 and (images := int(found[1].replace(",", ""))):
        error = metric_of(study.objective).format(math.sqrt(share * (1 - share) / images))
        why += f" (on {images:,} images alone an accuracy is uncertain by ± {error} points)"
    return why


def describe_luck(study: Study, ranking: Sequence[Configuration]) -> str:
    """How much of the winner's lead is luck, as it was picked from many."""
    # a pruned trial was tried, too
    places = [p for p in ranking if p.compared_runs[0].status in DONE and p.values(study.objective)]
    if len(places) < MANY or not places[0].finished_runs:
        return ""
    m, best = metric_of(study.objective), places[0]
    spreads = [std for place in places if (std := mean_std(place.values(m.name))[1]) is not None]
    of = f"The winner is the best of {len(places)} configurations"
    if spreads:
        error = statistics.median(spreads) / math.sqrt(len(best.values(m.name)))
        luck = f"{m.format(error * expected_maximum(len(places)))}{' points' if m.percent else ''}"
        text = f"{of}: were all equal, the luckiest would still look {luck} better than it is."
    else:
        text = f"{of}, with one run each: some of its lead is luck. New seeds show how much."
    fair = study.objective.startswith("val/") and not any(run.result.get("selected_on_test") for run in study.runs)
    return text + (" Its test accuracy took no part in the choice." if fair and best.values("test/accuracy") else "")


def list_facts(study: Study) -> Facts:
    """The settings, the number of runs, their time, data, devices and versions."""
    runs, results = study.runs, [run.result for run in study.runs]
    total = sum(run.numbers.get("seconds", 0.0) for run in runs)
    shared = set.intersection(*(set(run.overrides.values()) for run in runs)) if len(runs) > 1 else set()
    better = "higher" if study.maximize else "lower"
    devices = [[text_in(result.get(key)) for key in ("device_name", "precision")] for result in results]
    versions = [numbered for result in results if isinstance(numbered := result.get("versions"), dict)]
    commits = sorted({text_in(get_nested(result, "git", "commit"))[:9] for result in results} - {""})
    dirty = any(get_nested(result, "git", "dirty") for result in results)
    facts = {key: list_values({run.settings.get(key, MISSING) for run in runs}) for key in study.varied} | {
        "The same for all": " ".join(override for override in runs[0].overrides.values() if override in shared),
        "Runs": format_counts(Counter(run.status for run in runs)),
        "Training": f"{format_duration(total)} in all" if total else "",
        "Objective": f"{study.objective} at the last epoch, the {better} the better",
        "Data": join_distinct(text_in(result.get("data")) for result in results),
        "Device": join_distinct(", ".join(filter(None, device)) for device in devices),
        "Versions": join_distinct(", ".join(f"{k} {text_in(v)}" for k, v in each.items()) for each in versions),
        "Code": ", ".join(commits) + (", with uncommitted changes" if dirty else ""),
    }
    return Facts([(name, value) for name, value in facts.items() if value])


def join_distinct(texts: Iterable[str]) -> str:
    """`a; b` of several texts, each once, the empty ones left out."""
    return "; ".join(filter(None, dict.fromkeys(texts)))


def list_values(values: Iterable[str]) -> str:
    """A few values in full; for many, their number, the first and the last."""
    ordered = list(map(shorten_number, sorted(values, key=natural_key)))
    many = f"{len(ordered)} values from {ordered[0]} to {ordered[-1]}"
    return ", ".join(ordered) if len(ordered) <= 8 else many
