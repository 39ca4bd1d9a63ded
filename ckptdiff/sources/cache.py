"""A small store of results on disk: key -> blob, shared by processes, never in the way.

Whatever goes wrong with it (no home, read-only, full, corrupt, locked) means only that
results are computed again: no call here raises. What keys and blobs mean is the caller's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import xxhash

_SCHEMA = """
create table if not exists blobs (
    key blob primary key, blob blob not null, stored integer not null
) without rowid
"""
_TIMEOUT_SECONDS = 2.0
_KEEP_SECONDS = 180 * 24 * 3600
_CHECK_BYTES = 16
# Variables in one statement; SQLite's own limit was 999 for long.
_AT_ONCE = 500


def default_path() -> Path | None:
    """`$XDG_CACHE_HOME/ckptdiff/results.sqlite`, or below `~/.cache`; None without a home."""
    given, home = (Path(os.environ.get(name, "")) for name in ("XDG_CACHE_HOME", "HOME"))
    if given.is_absolute():  # the specification asks to pass over a relative path
        return given / "ckptdiff" / "results.sqlite"
    return home / ".cache" / "ckptdiff" / "results.sqlite" if home.is_absolute() else None


class Cache:
    """A store at `path`. It is opened for each call, so that nothing is held between."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path() or Path(os.devnull) / "nowhere"

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The blobs that are there for `keys`; an entry whose check fails is not there."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, bytes] = {}
        try:
            with closing(self._open("ro")) as database:
                for at in range(0, len(wanted), _AT_ONCE):
                    part = wanted[at : at + _AT_ONCE]
                    marks = ",".join("?" * len(part))
                    rows = database.execute(
                        f"select key, blob from blobs where key in ({marks})", part
                    )
                    found.update(rows)
        except (sqlite3.Error, OSError):
            return {}
        return {key: blob for key, sealed in found.items() if (blob := _unseal(key, sealed))}

    def put(self, blobs: Mapping[bytes, bytes]) -> None:
        """Store `blobs`, all or none; old entries are thrown away on the way."""
        if not blobs:
            return
        try:
            self._store(blobs)
        except sqlite3.DatabaseError as error:
            # A file that is no database will never be one: begin anew, once.
            if not isinstance(error, sqlite3.OperationalError):
                with suppress(OSError, sqlite3.Error):
                    self.path.unlink()
                    self._store(blobs)
        except OSError:
            pass

    def _store(self, blobs: Mapping[bytes, bytes]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = int(time.time())
        with closing(self._open("rwc")) as database, database:
            database.execute(_SCHEMA)
            database.executemany(
                "insert or replace into blobs values (?, ?, ?)",
                [(key, _seal(key, blob), now) for key, blob in blobs.items()],
            )
            database.execute("delete from blobs where stored < ?", (now - _KEEP_SECONDS,))

    def _open(self, mode: str) -> sqlite3.Connection:
        # A fifo under its name would make SQLite wait for ever.
        if self.path.exists() and not self.path.is_file():
            raise OSError(f"{self.path} is no file")
        # By hand, because Path.as_uri imports the whole of urllib.
        name = str(self.path.absolute())
        for char in "%?#":
            name = name.replace(char, f"%{ord(char):02x}")
        address = f"file:{name}?mode={mode}"
        return sqlite3.connect(address, timeout=_TIMEOUT_SECONDS, uri=True)


class RunCache(Cache):
    """A store for this run alone, in memory: what is read again and again is read once."""

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The blobs that are there for `keys`."""
        return {key: self._blobs[key] for key in keys if key in self._blobs}

    def put(self, blobs: Mapping[bytes, bytes]) -> None:
        """Store `blobs`."""
        self._blobs.update(blobs)


def _seal(key: bytes, blob: bytes) -> bytes:
    """A blob with a check in front: a damaged page must not pass for a result."""
    return xxhash.xxh3_128_digest(key + blob) + blob


def _unseal(key: bytes, sealed: object) -> bytes | None:
    if not isinstance(sealed, bytes) or len(sealed) < _CHECK_BYTES:
        return None
    check, blob = sealed[:_CHECK_BYTES], sealed[_CHECK_BYTES:]
    return blob if xxhash.xxh3_128_digest(key + blob) == check else None
