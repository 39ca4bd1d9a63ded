"""`write_file`: results go to a file whole or not at all, whichever front end writes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ckptdiff.errors import UsageError
from ckptdiff.jobs.staging import umask


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all. Raises `UsageError` when that fails."""
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/stdout cannot be replaced
            path.write_bytes(data)
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o666 & ~umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            "Name another file, in a directory that is there.",
        ) from error
