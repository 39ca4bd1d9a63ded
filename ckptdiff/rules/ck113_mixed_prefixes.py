"""CK113 mixed-prefixes."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class MixedPrefixes(ContainerRule):
    """Tensors of one part of the model are named with different prefixes.

    `model.layers.0…` beside `layers.1…`: ckptdiff compares names without their prefixes,
    a loader compares them whole and would leave parameters at their random start.

    What to do: export again, or give the tensors the names that the rest has.
    """

    code = "CK113"
    name = "mixed-prefixes"
    severity = "error"
    since = "0.1"
    kind = "mixed-prefixes"
