"""Give every hostile configuration as a real command, and count what was run or written: both must be 0.

python benchmarks/hostile.py [--tree FOLDER] [--jobs 2]
"""

import argparse
import collections
import concurrent.futures
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.hostile_cases import REFUSAL, ROOT, Case, cases, make_stage, saved_config

LIMIT_SECONDS = 300


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def give(case: Case, tree: Path) -> collections.Counter[str]:
    """Run one case's command with the sources of `tree`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "stage"
        work, outside, arguments = make_stage(case, folder)
        before = contents(outside)
        program = ["-m", "iolaus.report"] if case.report else [str(tree / "train.py")]
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [sys.executable, *program, *arguments],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
            status, lines = done.returncode, done.stderr.splitlines()
        except subprocess.TimeoutExpired:
            status, lines = -1, []
        executed, written = (folder / "executed").exists(), contents(outside) != before
    refused = status == 2 and len(lines) == 1 and REFUSAL.search(lines[0]) is not None
    found = {
        "tried": True,
        "executed": executed,
        "written": written,
        "status 0": status == 0 and not case.report,
        "tracebacks": any(line.startswith("Traceback") for line in lines),
        "refused in a line": refused or (case.report and status == 0),
    }
    if executed or written:
        print(f"  {case}: {'executed' if executed else 'written'}", flush=True)
    return collections.Counter({name: int(value) for name, value in found.items()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="a checkout whose train.py is given the commands")
    parser.add_argument("--jobs", type=int, default=2, help="commands at once")
    options = parser.parse_args()
    saved_config()  # once, before the threads
    found, table = cases(), collections.defaultdict[str, collections.Counter[str]](collections.Counter)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for case, counts in zip(found, pool.map(lambda case: give(case, options.tree.resolve()), found), strict=True):
            table[case.entry].update(counts)
            table["all"].update(counts)
    columns = ("tried", "executed", "written", "status 0", "tracebacks", "refused in a line")
    print(f"| {'where it comes in':18} | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * len(columns))
    for entry, counts in table.items():
        print(f"| {entry:18} | " + " | ".join(f"{counts[name]:{len(name)}}" for name in columns) + " |")
    return int(bool(table["all"]["executed"] or table["all"]["written"]))


if __name__ == "__main__":
    sys.exit(main())
