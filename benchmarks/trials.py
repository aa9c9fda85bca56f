"""What a trial of a search costs over its training, at the study's beginning and after hundreds of trials.

    python benchmarks/trials.py [--trials 500] [--storage journal] [KEY=VALUE ...]

One search of one-step runs in this process. A trial's cost is the time from its begin to the next trial's, without
what `loop.train` took: asking, composing, building, validating, writing and telling. Prints the median of eleven trials
around each mark, in milliseconds, and the seconds that writing the report takes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from typing import Any

from ours import ROOT

SEARCH = (
    "dataset=synthetic", "dataset.num_classes=2", "dataset.size=8", "dataset.train_count=16", "dataset.test_count=8",
    "dataset.validation=0.25", "trainer.batch_size=12", "trainer.epochs=1", "tracker=none", "study=trials",
    "hydra/sweeper=optuna", "hydra/sweeper/pruner=median", "optimizer.lr=tag(log,interval(0.001,0.3))",
)  # fmt: skip
AROUND = 5  # trials on either side of a mark
MARKS = (10, 100, 250, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--storage", choices=("journal", "sqlite"), default="journal")
    parser.add_argument("overrides", nargs="*", help="more of train.py's arguments")
    options = parser.parse_args()

    sys.path.insert(0, str(ROOT))
    import train
    from iolaus import loop
    from iolaus.studies import folders
    from iolaus.studies.study import SharedStudy

    begun: list[tuple[float, float]] = []  # the time, and the seconds of training until then
    trained = 0.0
    real_train, real_begin, real_report = loop.train, SharedStudy.next_trial, folders.report_sweep
    report_seconds = 0.0

    def timed_train(*args: Any, **kwargs: Any) -> None:
        nonlocal trained
        start = time.perf_counter()
        real_train(*args, **kwargs)
        trained += time.perf_counter() - start

    def timed_begin(*args: Any) -> Any:
        begun.append((time.perf_counter(), trained))
        return real_begin(*args)

    def timed_report(*args: Any) -> None:
        nonlocal report_seconds
        start = time.perf_counter()
        real_report(*args)
        report_seconds = time.perf_counter() - start

    loop.train, SharedStudy.next_trial, folders.report_sweep = timed_train, timed_begin, timed_report  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        storage = [f"hydra.sweeper.storage=sqlite:///{folder}/s.db"] if options.storage == "sqlite" else []
        sys.argv = ["train.py", "-m", *SEARCH, *storage, f"hydra.sweeper.n_trials={options.trials}", *options.overrides]
        train.main()
        os.chdir(ROOT)
    costs = [1000 * ((b[0] - a[0]) - (b[1] - a[1])) for a, b in pairwise(begun)]
    assert len(costs) == options.trials
    for mark in (m for m in MARKS if m <= options.trials):
        last = min(mark + AROUND, options.trials)
        some = costs[last - 2 * AROUND - 1 : last]
        print(f"trial {mark}: {statistics.median(some):.0f} ms ({min(some):.0f} to {max(some):.0f}) over its training")
    print(f"report: {report_seconds:.1f} s")


if __name__ == "__main__":
    main()
