"""The checks of the project. ``nox`` without arguments runs those of each change; the other sessions run by name."""

import functools
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "tests", "coverage", "browser"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
OLDEST = PYTHONS[0]
COUNTING = PYTHONS[-1]
"""Counts the branches. Python 3.11 can hang when it does: where the greenlets of two threads end at once, it begins a
call of coverage, which is traced, again and again."""
EXTRAS = f"[{','.join(PYPROJECT['project']['optional-dependencies'])}]"
PACKAGE = f".{EXTRAS}"
PARALLEL = ("-n4", "--dist", "worksteal", "-o", "faulthandler_timeout=300", "-o", "faulthandler_exit_on_timeout=true")
"""Four processes on any number of cores: many tests wait for sockets and databases. Most of the tests of a file run in
one of them, with one server of the file's own. A test that hangs ends its process after 300 s, with the stack of every
thread, and fails; the others go on."""
DIST = Path("dist")


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


@functools.cache
def index() -> dict[str, str | None]:
    """Return the package index of pip's configuration for uv, which does not read it."""
    if "UV_DEFAULT_INDEX" in os.environ:
        return {}
    command = [sys.executable, "-m", "pip", "config", "list"]  # an environment of uv or pipx has no pip
    listed = subprocess.run(command, capture_output=True, check=False, text=True).stdout.splitlines()  # noqa: S603  # this Python's own pip
    settings = dict(line.split("=", 1) for line in listed)
    for name in (":env:.index-url", "install.index-url", "global.index-url"):
        if name in settings:
            return {"UV_DEFAULT_INDEX": settings[name].strip("'")}
    return {}


def install(session: nox.Session, *requirements: str) -> None:
    """Install, and leave it to Python to compile the modules that are imported: few of eleven thousand are."""
    session.install("--no-compile", *requirements, env=index())
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # else each process would compile them again


def wheel(folder: Path) -> Path:
    """Return the only wheel in a folder."""
    (path,) = folder.glob("*.whl")
    return path


@nox.session
def lint(session: nox.Session) -> None:
    """Style, by ruff."""
    install(session, *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    """Types, by mypy and pyright."""
    install(session, PACKAGE, *group("typing"))
    session.run("mypy", "src", "tests", "examples", "benchmarks", "docs/_ext", "noxfile.py")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite on the newest Python, with branch coverage; on the others few of the tests that are slow."""
    # CI builds the wheel once, in another job.
    built = os.environ.get("SMILEJOBS_WHEEL")
    install(session, PACKAGE if built is None else f"{wheel(Path(built))}{EXTRAS}", *group("tests"))
    counted = ["--cov", "--cov-report=", "--cov-fail-under=0"]
    selected = counted if session.python == COUNTING else ["-m", "not slow or sample"]
    session.run("pytest", *PARALLEL, *selected, *session.posargs, env={"COVERAGE_FILE": f".coverage.{session.python}"})


@nox.session
def coverage(session: nox.Session) -> None:
    """Every branch of the package is covered by the suite."""
    if not any(Path().glob(".coverage.*")):
        session.skip(f"the branches are counted by Python {COUNTING}")
    install(session, "coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def browser(session: nox.Session) -> None:
    """The page of the sandbox and the report of a batch in headless Chromium, where it and its driver are installed."""
    if missing := [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]:
        session.skip(f"not installed: {' and '.join(missing)}")
    install(session, ".[sandbox]", *group("browser"))
    session.run("pytest", "tests/heavy/test_browser.py", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The site of the documentation, in docs/_build: warnings are errors, and every reference is resolved."""
    install(session, PACKAGE, *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-b", "html", "docs", "docs/_build", *session.posargs)
    session.run("pytest", "-q", "tests/heavy/test_site.py")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Sdist and wheel, in dist/, checked; then the session `built` on each Python, but not with ``-- --no-tests``."""
    install(session, *group("build"))
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *sorted(map(str, DIST.iterdir())))
    session.run("check-wheel-contents", str(wheel(DIST)))
    if "--no-tests" not in session.posargs:
        for python in PYTHONS:
            session.notify(f"built-{python}")


@nox.session(python=PYTHONS, default=False)
def built(session: nox.Session) -> None:
    """The tests in the sdist of dist/, against the wheel beside it."""
    install(session, f"{wheel(DIST)}{EXTRAS}", *group("tests"))
    folder = Path(session.create_tmp()) / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    with session.chdir(root):
        session.run("pytest", "-n2", "tests/core", "tests/docs/test_pages.py", "tests/docs/test_public_api.py")


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """The workflows of CI: no action without a hash, no permission that a job does not need."""
    install(session, *group("workflows"))
    session.run("zizmor", "--offline", "--no-progress", ".github")


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Changes to the core that no test notices; ``-- 'smilejobs.polling.pace*'`` looks at one module alone."""
    install(session, PACKAGE, *group("mutants"))
    # With a pattern, mutmut first runs the tests by their ids, and fails where it cannot; without one, it takes an id
    # that pytest does not find for a test that noticed.
    session.run("mutmut", "run", *(session.posargs or ["smilejobs.*"]), env={"CI": "true"})
    session.run("mutmut", "results")


@nox.session(default=False)
def recipes(session: nox.Session) -> None:
    """The recipes for Django and Celery, run."""
    install(session, PACKAGE, *group("recipes"))
    session.run("pytest", "tests/heavy/test_recipes.py", *session.posargs)


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """The tests of the core, against the source tree: under a minute on two cores, for each save."""
    install(session, "-e", PACKAGE, *group("tests"))
    session.run("pytest", "-n2", "tests/core", *session.posargs)


@nox.session(python=PYTHONS, default=False)
def full(session: nox.Session) -> None:
    """The whole suite, the slow tests included, on every Python."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(python=OLDEST, default=False, venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The tests with the lowest versions of the dependencies that pyproject.toml allows."""
    constraints = str(Path(session.create_tmp()) / "lowest.txt")
    session.run_install(
        *("uv", "pip", "compile", "--quiet", "--universal", "--resolution", "lowest-direct", "--all-extras"),
        *("--python-version", OLDEST, "--no-annotate", "--output-file", constraints, "pyproject.toml"),
        env=index(),
    )
    install(session, "--constraint", constraints, PACKAGE, *group("tests"))
    # Users may have these releases of starlette: they use a deprecated name of anyio, and leave generators open.
    ignored = (
        "The anyio.abc.BlockingPortal alias is deprecated:DeprecationWarning",
        "Async generator 'starlette.requests.Request.stream' was garbage collected:ResourceWarning",
    )
    filters = [f"-Wignore:{warning}" for warning in ignored]
    session.run("pytest", *PARALLEL, *filters, *session.posargs)


@nox.session(python=PYTHONS[-1], default=False)
def newest(session: nox.Session) -> None:
    """The tests with the newest versions of the dependencies, pre-releases included."""
    install(session, "--pre", "--upgrade", PACKAGE, *group("tests"))
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The figures that the documentation claims, measured again."""
    install(session, PACKAGE, *group("peers"))
    session.run("python", "benchmarks/overhead.py")
    session.run("python", "benchmarks/pace.py")
    session.run("python", "benchmarks/pace.py", "--learn")
    session.run("python", "benchmarks/fleet.py")
    session.run("python", "benchmarks/notify.py")
    session.run("python", "benchmarks/batch.py")
    session.run("python", "benchmarks/batch_command.py")
    session.run("python", "benchmarks/durable.py")
    session.run("python", "benchmarks/sandbox.py")
    session.run("python", "benchmarks/images.py")
    session.run("python", "benchmarks/hostile.py")


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """Our signatures and our sandbox against the vendor's own clients, in Python and, where node is, in JavaScript."""
    install(session, PACKAGE, *group("peers"))
    session.run("pytest", *sorted(map(str, Path("tests/heavy").glob("test_peers*.py"))), *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """A batch of 20,000 jobs against a server with faults, for ten minutes."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", "-s", "tests/heavy/test_soak.py", *session.posargs)


@nox.session(default=False)
def crash(session: nox.Session) -> None:
    """A batch that is killed a hundred times at random moments, and resumed."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", "tests/heavy/test_crash.py", *session.posargs)


@nox.session(default=False)
def crash_durable(session: nox.Session) -> None:
    """Workers of a watch list that are killed, stopped and sent away while 5,000 jobs end."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", "-s", "tests/heavy/test_crash_durable.py", *session.posargs)


@nox.session(default=False)
def images(session: nox.Session) -> None:
    """500 pictures, saved while their links live for 2 s."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", "tests/heavy/test_images.py", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Thousands of examples of each property, and tens of thousands of damaged responses against each HTTP carrier."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", "-n2", "-m", "hypothesis", "--hypothesis-profile=fuzz")
    session.run("pytest", "-s", "tests/heavy/test_response_fuzz.py", *session.posargs)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Cut, delay, reset and freeze the connections of a batch to the API, and of workers to their database."""
    install(session, PACKAGE, *group("tests"))
    session.run("pytest", "-s", "tests/heavy/test_chaos.py", *session.posargs)
