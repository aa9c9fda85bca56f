"""What a search gains by ending bad trials early: the same search with its pruner and without, seed by seed.

    python benchmarks/pruning.py [--seeds 3] [--experiment digits_search] [KEY=VALUE ...]

For each seed both searches run in turn. Both find a best value; the worse of the two is one that both have reached, and
the times until each reached it are compared, beside the times and epochs of the whole searches.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
from ours import ROOT

WAYS = {"pruned": [], "not pruned": ["hydra/sweeper/pruner=none"]}


def search(experiment: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Run one search. Returns its epochs, pruned trials, and (seconds from the first trial's start, value) of each."""
    import optuna

    from iolaus.files.atomic import read_json
    from iolaus.files.optuna_storage import open_storage

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", f"experiment={experiment}", f"seed={seed}", "study=search", *overrides]
        done = subprocess.run([sys.executable, ROOT / "train.py", *arguments], cwd=folder, text=True,
                              capture_output=True)  # fmt: skip
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        sweep = Path(folder) / "outputs" / "search"
        study = optuna.load_study(study_name="search", storage=open_storage(None, sweep))
        trials, best, maximize = study.trials, study.best_trial, study.direction.name == "MAXIMIZE"
        results = [read_json(path) for path in sweep.glob("*/results.json")]
        of_best = read_json(sweep / str(best.number) / "results.json")
    begun = trials[0].datetime_start
    return {
        "maximize": maximize, "best": best.value,
        "test": of_best["metrics"]["last"]["test/accuracy"],
        "pruned": sum(trial.state.name == "PRUNED" for trial in trials),
        "epochs": sum(len(result["history"]) for result in results),
        "seconds": (max(trial.datetime_complete for trial in trials) - begun).total_seconds(),
        "values": [((trial.datetime_complete - begun).total_seconds(), trial.value)
                   for trial in trials if trial.state.name == "COMPLETE"],
    }  # fmt: skip


def compare(pair: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The rows of one seed, with the seconds until the value that both have reached."""
    maximize = next(iter(pair.values()))["maximize"]
    both = (min if maximize else max)(way["best"] for way in pair.values())
    for way in pair.values():
        reached = [seconds for seconds, value in way.pop("values") if (value >= both if maximize else value <= both)]
        way["seconds to the best of both"] = min(reached)
        del way["maximize"]
    return pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--experiment", default="digits_search", help="a search with a pruner")
    parser.add_argument("overrides", nargs="*", help="more of train.py's arguments")
    options = parser.parse_args()
    load = report.load_average()
    seeds = []
    for seed in range(options.seeds):
        pair = {name: search(options.experiment, seed, [*more, *options.overrides]) for name, more in WAYS.items()}
        seeds.append(compare(pair))
        print(f"seed {seed}: {seeds[-1]}", file=sys.stderr)
    print(report.heading(f"Pruning, {options.experiment}", report.about("cpu", load), markdown=True))
    columns = list(seeds[0]["pruned"])
    rows = []
    for name in WAYS:
        samples = {column: [seed[name][column] for seed in seeds] for column in columns}
        rows.append([name, *(f"{statistics.mean(v):.4g} ± {statistics.stdev(v):.2g}" for v in samples.values())])
    print(report.table(["", *columns], rows, markdown=True))


if __name__ == "__main__":
    main()
