"""The golden run: a dozen short runs measure what they measured when the numbers were pinned.

What is meant to leave the numbers alone is proved by it. What is meant to change them rewrites the file, by
`pytest tests/golden --rewrite-golden`, and says why in its commit.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PINNED = HERE / "golden.json"
# Another torch, or another kind of processor, may add in another order: then only what is grossly other is found.
EXACT, ELSEWHERE = 1e-6, 0.05


@pytest.fixture(scope="session")
def measured():
    done = subprocess.run([sys.executable, HERE / "runs.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_short_runs_measure_what_was_pinned(measured, request):
    if request.config.getoption("--rewrite-golden"):
        PINNED.write_text(json.dumps(measured, indent=1) + "\n")
    pinned = json.loads(PINNED.read_text())
    tolerance = EXACT if measured["made_with"] == pinned["made_with"] else ELSEWHERE
    assert measured["runs"].keys() == pinned["runs"].keys()
    different = list(differences(measured["runs"], pinned["runs"], tolerance))
    assert not different, "\n".join(different[:20])


def differences(found, expected, tolerance, place=""):
    """One line for each value that is another, `place` being the keys that lead to it."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        for key in expected:
            yield from differences(found[key], expected[key], tolerance, f"{place}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for i, pair in enumerate(zip(found, expected, strict=True)):
            yield from differences(*pair, tolerance, f"{place}/{i}")
    elif isinstance(expected, float) and isinstance(found, float):
        if found != pytest.approx(expected, rel=tolerance, abs=tolerance):
            yield f"{place}: {found}, pinned {expected}"
    elif found != expected:
        yield f"{place}: {found}, pinned {expected}"


def test_a_difference_of_a_millionth_is_found():
    pinned = {"run": {"epochs": [{"train/loss": 1.0, "step": 3}]}}
    other = {"run": {"epochs": [{"train/loss": 1.0 + 2.5e-6, "step": 3}]}}
    assert list(differences(pinned, pinned, EXACT)) == []
    assert len(list(differences(other, pinned, EXACT))) == 1
    assert len(list(differences({"run": {"epochs": []}}, pinned, EXACT))) == 1
