"""What an earlier run had finished before it was stopped, so that it need not be made again.

A directory counts when it has its final name, when its provenance says that it was made of the
same inputs, and when it passes again: nothing is believed that was not read. What is made, and
in which order, is not known here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.errors import Cancelled, CkptdiffError
from ckptdiff.events import CancelToken, Sink
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.formats.configs import CONFIG_NAME
from ckptdiff.formats.documents import read_object
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.jobs.placing import How, size_of
from ckptdiff.jobs.planning import PROVENANCE, companions
from ckptdiff.records.checkpoint import Defect, Unread
from ckptdiff.records.export import ExportOrder
from ckptdiff.records.plan import Outcome

NOTE = "an earlier run finished it from the same inputs, so it is checked again and used"
# What decides, beside the order and its base, which bytes an export has.
_PACKAGES = ("nvidia-modelopt", "torch", "transformers")


def inputs_of(
    order: ExportOrder, hashing: Hashing, sink: Sink, cancel: CancelToken
) -> tuple[str | None, str | None]:
    """(the fingerprint of the base, a digest of all that decides what an export becomes): the
    order without its paths, tensors and files of the base, images of the rows and versions of
    the packages. None for what cannot be told, because something cannot be read."""
    base = read_checkpoint(Path(order.base), order.base)
    digests = digest_shards(base.shards, hashing, sink=sink, cancel=cancel)
    evidence = scheme_evidence(base, digests)
    if evidence.fingerprint is None:
        return None, None
    document: dict[str, Any] = asdict(order) | {"base": evidence.fingerprint, "target": ""}
    files = {name: path for name, (path, _) in companions(evidence)}
    files[CONFIG_NAME] = Path(order.base) / CONFIG_NAME
    try:
        document["files"] = {name: _digest(path) for name, path in sorted(files.items())}
        for row in document["calibration"]["rows"]:
            row["images"] = [_digest(Path(image)) for image in row["images"]]
    except OSError:
        return evidence.fingerprint, None
    document["packages"] = {name: _version(name) for name in _PACKAGES}
    text = json.dumps(document, sort_keys=True).encode("ascii")
    return evidence.fingerprint, hashlib.sha256(text).hexdigest()


def finished(target: Path, how: How, made: Callable[[Mapping[str, Any]], bool]) -> Outcome | None:
    """The outcome of an earlier run whose result lies at `target`; None where there is none,
    where `made` says of its provenance that it is of other inputs, or where it does not pass."""
    provenance = provenance_of(target)
    if not provenance or not made(provenance):
        return None
    try:
        fingerprint = how.verify(target)
    except Cancelled:
        raise
    except CkptdiffError:
        return None
    if fingerprint is None or fingerprint != provenance.get("fingerprint"):
        return None
    size = size_of(target)
    return Outcome(target.name, str(target), "written", fingerprint, size, notes=(NOTE,))


def provenance_of(target: Path) -> Mapping[str, Any]:
    """What a checkpoint says of how it was made; empty when it says nothing."""
    found = read_object(target, PROVENANCE)
    return {} if isinstance(found, Defect | Unread) else found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
