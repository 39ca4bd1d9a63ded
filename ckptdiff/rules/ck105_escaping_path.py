"""CK105 escaping-path."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class EscapingPath(ContainerRule):
    """The index names a file outside its checkpoint.

    Paths are judged as they are written: absolute ones, and any with `..`, are refused and
    never opened, whatever they lead to. A shard that is a symbolic link is fine.

    What to do: do not load this checkpoint; find out who wrote the index.
    """

    code = "CK105"
    name = "escaping-path"
    severity = "error"
    since = "0.1"
    kind = "escaping-path"
