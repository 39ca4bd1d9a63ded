"""CK106 no-weights."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class NoWeights(ContainerRule):
    """The directory looks like a scheme and holds no weights.

    ModelOpt writes configs first and weights last, so an export that was killed leaves
    just this.

    What to do: export the scheme again, or remove the directory.
    """

    code = "CK106"
    name = "no-weights"
    severity = "error"
    since = "0.1"
    fix = "reexport"
    kind = "no-weights"
