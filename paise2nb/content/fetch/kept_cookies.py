"""Cookies that servers have set and that outlive a request, in a file that only the user can read.

With ``fetch.keep_cookies`` they are kept until they expire. Without it, those of a host with a
login are here while a fetch waits for its next host: they must not be in the row of its job.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import product
from pathlib import Path

from paise2nb.content.fetch.cookies import Stored, above
from paise2nb.core.damage import storage_error

FILE_NAME = "cookies.db"  # in the data directory
KEPT = 0  # in place of the id of a job
MOST = 50  # cookies of a host (RFC 6265, section 6.1)
BUSY_SECONDS = 30.0
DAY = 86400.0
KEPT_DAYS = 400  # at most (RFC 6265bis, section 5.5)
WAITING_DAYS = 7  # after which a fetch that still waits goes on without its cookies

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cookies (
    job INTEGER, host TEXT, key TEXT, cookie TEXT, expires REAL, set_at REAL,
    PRIMARY KEY (job, host, key)
) WITHOUT ROWID
"""
_OF_HOST = "FROM cookies WHERE job = ? AND host = ?"


class KeptCookies:
    """The cookies in one file. Processes may use it at the same time.

    Args:
        directory: The data directory. The file is created when the first cookie is put into it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME

    def put(self, job: int, cookies: Iterable[Stored], removed: Iterable[Stored] = ()) -> None:
        """Store cookies of a job, or of all jobs (`KEPT`), and remove others."""
        with self._open(create=True) as connection:
            for cookie in removed:
                key = (job, cookie.host, _key(cookie))
                connection.execute(f"DELETE {_OF_HOST} AND key = ?", key)
            for cookie in cookies:
                where = (job, cookie.host)
                values = (*where, _key(cookie), json.dumps(cookie), cookie.expires, time.time())
                connection.execute("REPLACE INTO cookies VALUES (?, ?, ?, ?, ?, ?)", values)
                newest = f"SELECT set_at {_OF_HOST} ORDER BY set_at DESC LIMIT 1 OFFSET {MOST - 1}"
                for (oldest,) in connection.execute(newest, where).fetchall():
                    connection.execute(f"DELETE {_OF_HOST} AND set_at < ?", (*where, oldest))

    def of(self, jobs: Sequence[int], host: str) -> list[tuple[float, Stored]]:
        """The cookies of jobs for a host, each with the time of its setting."""
        if not (jobs and self.path.exists()):
            return []
        found = []
        with self._open() as connection:
            for where in product(jobs, [host, *above(host)]):
                rows = connection.execute(f"SELECT set_at, cookie {_OF_HOST}", where)
                found += [(float(at), Stored(*json.loads(cookie))) for at, cookie in rows]
        return [(at, cookie) for at, cookie in found if cookie.below or cookie.host == host]

    def forget(self, job: int) -> None:
        """Remove the cookies of a job that has ended."""
        self._delete("job = ?", job)

    def remove_expired(self) -> None:
        """Remove expired cookies, and those of jobs that wait for too long."""
        now = time.time()
        self._delete("expires <= ? OR set_at < ?", now, now - KEPT_DAYS * DAY)
        self._delete(f"job != {KEPT} AND set_at < ?", now - WAITING_DAYS * DAY)

    def clear(self) -> None:
        """Delete the file. No process may use it."""
        for path in (self.path, self.path.with_name(f"{FILE_NAME}-journal")):
            path.unlink(missing_ok=True)

    def _delete(self, condition: str, *values: float) -> None:
        if self.path.exists():
            with self._open() as connection:
                connection.execute(f"DELETE FROM cookies WHERE {condition}", values)

    @contextmanager
    def _open(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction."""
        try:
            if create:
                # Only a missing file: closing it would release the locks that other threads have.
                with suppress(FileExistsError):
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
                connection.execute("PRAGMA secure_delete=ON")
                connection.execute(_SCHEMA)
                with connection:
                    yield connection
        except (sqlite3.DatabaseError, OSError) as error:
            raise storage_error(self.path, error) from error


def _key(cookie: Stored) -> str:
    return json.dumps([cookie.below, cookie.path, cookie.name])
