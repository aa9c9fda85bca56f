"""The lowest versions that setup.cfg allows are those that `nox -s minimums` installs."""

import configparser

from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version


def test_minimums_txt_has_the_lowest_version_that_each_requirement_allows():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = (setup["options"]["install_requires"] + setup["options.extras_require"]["test"]).splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    lowest = {r.name: Version(s.version) for r in requirements for s in r.specifier if s.operator == ">="}
    assert lowest.keys() == {requirement.name for requirement in requirements}

    lines = (ROOT / "tests" / "minimums.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: Version(version) for name, version in pinned.items()} == lowest
