"""The top of a report: the best configuration and its command; what was varied, by how many runs, on what."""

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from iolaus.display import duration
from iolaus.report.document import Block, Command, Facts, Text
from iolaus.report.groups import MISSING, Group, best_group, best_run, mean_std
from iolaus.report.runs import NOT_A_CHOICE, Run, Study, inside, natural, setting
from iolaus.report.wording import counted, label, metric, values_of

TRAIN = ("python", "train.py")
ON_TEST = (
    "Selected on the test set: best epochs and this ranking were chosen by test accuracy (dataset.validation=test), "
    "which makes the test numbers too favourable."
)


def head(study: Study, groups: Sequence[Group]) -> list[Block]:
    best = best_group(study, groups)
    on_test = any(run.result.get("selected_on_test") for run in study.runs)
    return [
        *([Text(ON_TEST, "warning")] if on_test else []),
        *([Text("No run has finished yet.", "lead")] if best is None else praise(study, groups, best)),
        Facts([(name, value) for name, value in facts(study) if value]),
    ]


def praise(study: Study, groups: Sequence[Group], best: Group) -> list[Block]:
    """The best configuration, its numbers, how far it is ahead, and how to repeat it."""
    numbers = [
        f"{measure.cell(values).text}{measure.unit} {measure.word}"
        for measure in map(metric, dict.fromkeys((study.objective, "test/accuracy")))
        if (values := best.values(measure.get))
    ]
    seeds = len(best.counted)
    text = ", ".join(numbers) + (f" (mean ± standard deviation of {seeds} seeds)" if seeds > 1 else "")
    if times := [run.seconds for run in best.counted if run.seconds]:
        text += f", {duration(statistics.fmean(times))} of training{' each' if seeds > 1 else ''}"
    return [
        *([Text(f"Best: {label(best.settings, study.keys)}", "lead")] if study.keys else []),
        Text(f"{text}. {ahead(study, groups)}".strip()),
        *map(Command, commands(study, best)),
    ]


def commands(study: Study, best: Group) -> list[str]:
    """What repeats the best run, and where there are several seeds, all of them."""
    run = best_run(study, best)
    typed = [override for override in run.overrides if setting(override)[0] not in NOT_A_CHOICE]
    seeds = sorted({r.settings["seed"] for r in best.counted if "seed" in r.settings}, key=natural)
    found = [shlex.join([*TRAIN, *typed])]
    if len(seeds) > 1:
        others = [override for override in typed if setting(override)[0] != "seed"]
        found.append(shlex.join([*TRAIN, "-m", *others, f"seed={','.join(seeds)}"]))
    return found


def ahead(study: Study, groups: Sequence[Group]) -> str:
    """By how much the first is better than the second, and what the seeds say about that."""
    if len(groups) < 2 or not groups[1].is_finished:
        return ""
    second = groups[1]
    (first, scatter), (value, other) = (mean_std(group.values(study.value)) for group in groups[:2])
    if first is None or value is None:
        return ""
    measure = metric(study.objective)
    gap = f"{measure.written(abs(first - value))}{' points' if measure.unit else ''}"
    text = f"{gap} ahead of {label(second.settings, study.keys)}"
    if scatter is None or other is None:
        return f"{text}; with one run each, how much seeds scatter is not known."
    return f"{text}; seeds scatter by {measure.written(scatter)} and {measure.written(other)}."


def facts(study: Study) -> list[tuple[str, str]]:
    """What was done, by how many runs, for how long, on what."""
    total = sum(run.seconds or 0.0 for run in study.runs)
    commits = {str(commit)[:9] for run in study.runs if (commit := inside(run.result, "git", "commit"))}
    dirty = any(inside(run.result, "git", "dirty") for run in study.runs)
    shared = [o for o in study.runs[0].overrides if all(o in run.overrides for run in study.runs)]
    return [
        *((key, values_of(sorted({r.settings.get(key, MISSING) for r in study.runs}, key=natural)))
          for key in study.varied),
        ("The same for all", " ".join(shared) if len(study.runs) > 1 else ""),
        ("Runs", counted(Counter(run.status for run in study.runs))),
        ("Training", f"{duration(total)} in all" if total else ""),
        ("Objective", f"{study.objective} at the last epoch, the {'higher' if study.maximize else 'lower'} the better"),
        ("Data", several(study, lambda run: run.result.get("data"))),
        ("Device", several(study, device)),
        ("Versions", several(study, versions)),
        ("Code", ", ".join(sorted(commits)) + (", with uncommitted changes" if dirty else "")),
    ]  # fmt: skip


def device(run: Run) -> str | None:
    name, precision = run.result.get("device_name"), run.result.get("precision")
    return f"{name}, {precision}" if name and precision else name


def versions(run: Run) -> str | None:
    found = run.result.get("versions")
    return ", ".join(f"{name} {version}" for name, version in found.items()) if isinstance(found, dict) else None


def several(study: Study, get: Callable[[Run], object]) -> str:
    """What the runs say, the most frequent first, each once."""
    found = Counter(str(value) for run in study.runs if (value := get(run)))
    return "; ".join(value for value, _ in found.most_common(4)) + ("; …" if len(found) > 4 else "")
