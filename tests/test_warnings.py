"""A warning that our own code causes fails a test; one in a library's own code does not, except under -W error."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

# `iolaus` and `library` with the same mistakes: what the suite must notice in the one and not in the other
MISTAKES = """
import gc, threading, warnings
from old_library import old

def call_what_is_deprecated(path):
    old()

def leave_a_file_open(path):
    file = path.open("w")
    del file

def fail_in_a_destructor(path):
    class Broken:
        def __del__(self):
            raise RuntimeError
    broken = Broken()
    del broken
    gc.collect()

def fail_in_a_thread(path):
    def fail():
        raise RuntimeError
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
"""
TESTS = """
import sys
from pathlib import Path
sys.path[:0] = [str(Path(__file__).parent / "src"), str(Path(__file__).parent)]
import pytest, iolaus.mistakes, library

MISTAKES = ["call_what_is_deprecated", "leave_a_file_open", "fail_in_a_destructor", "fail_in_a_thread"]

@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("module", [iolaus.mistakes, library], ids=["iolaus", "library"])
def test(module, mistake, tmp_path):
    getattr(module, mistake)(tmp_path / "file")
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The outcome of each test, in a suite with our settings and with arguments: {name: PASSED or FAILED}."""
    folder = tmp_path_factory.mktemp("suite")
    package = folder / "src" / "iolaus"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "mistakes.py").write_text(MISTAKES)
    (folder / "library.py").write_text(MISTAKES)
    (folder / "old_library.py").write_text(
        "import warnings\ndef old():\n    warnings.warn('old is deprecated', DeprecationWarning, stacklevel=2)\n"
    )
    (folder / "test_mistakes.py").write_text(TESTS)

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-c", ROOT / "setup.cfg", "--rootdir", folder, "-n0", "-rA", "-q",
                   "-p", "no:cacheprovider", folder / "test_mistakes.py", *arguments]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        print(done.stdout, done.stderr)
        return {name: outcome for outcome, name in re.findall(r"^(PASSED|FAILED) \S+?::(\S+)", done.stdout, re.M)}

    return run


MISTAKES_BY_NAME = re.findall(r"^def (\w+)", MISTAKES, re.M)


def test_only_what_our_own_code_causes_fails(outcomes):
    seen = outcomes()
    assert {name for name, outcome in seen.items() if outcome == "FAILED"} == {
        f"test[iolaus-{mistake}]" for mistake in MISTAKES_BY_NAME
    }
    assert len(seen) == 2 * len(MISTAKES_BY_NAME)


def test_with_w_error_a_librarys_warnings_fail_too(outcomes):
    assert set(outcomes("-W", "error").values()) == {"FAILED"}
