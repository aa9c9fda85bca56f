"""One command per habit: `nox -l` lists them, `nox -s NAME` runs one. Without a name: lint, types, tests."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; `nox -s lint -- --fix` mends what can be mended."""
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
    """Run the tests; arguments after -- go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


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
