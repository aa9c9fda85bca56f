"""One command per habit: `nox -l` lists them, `nox -s NAME` runs one. Without a name: lint, types, tests."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; `nox -s lint -- --fix` repairs what can be repaired."""
    session.install("ruff")
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix", ".")
        session.run("ruff", "format", ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the type annotations."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, the exhaustive ones, too; arguments after -- go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", "--all", *session.posargs)


@nox.session
def strict(session: nox.Session) -> None:
    """Run the tests with every warning an error, those of the libraries included."""
    session.install("-e", ".[test]")
    session.run("pytest", "--all", "-W", "error", *session.posargs)


@nox.session(name="property")
def properties(session: nox.Session) -> None:
    """Run the property tests (hypothesis) with many examples."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "hypothesis", *session.posargs, env={"HYPOTHESIS_PROFILE": "thorough"})


@nox.session
def reference(session: nox.Session) -> None:
    """Write docs/reference.md and conf/schema.json from conf/ and the signatures of what it names."""
    session.install("-e", ".")
    session.run("python", "-m", "iolaus.config.reference", "docs/reference.md")
    with open("conf/schema.json", "w", encoding="utf-8") as file:
        session.run("iolaus", "schema", stdout=file)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site of docs/ in site/, each warning an error; `nox -s docs -- serve` shows it as you write."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def smoke(session: nox.Session) -> None:
    """Train the default, and a sweep of two, as a new user would: the quickest look at the whole."""
    session.install("-e", ".")
    session.run("python", "train.py")
    session.run("python", "train.py", "-m", "optimizer.lr=0.1,0.05", "trainer.epochs=2")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure Iolaus' loop against the bare step on one batch; prints a table and writes benchmarks/results.json."""
    session.install("-e", ".")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """Build the sdist and the wheel in dist/ and check them."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").glob("*")))


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest version of each requirement that setup.cfg allows."""
    session.install("-c", "tests/minimums.txt", "-e", ".[test]")
    session.run("pytest", *session.posargs)
