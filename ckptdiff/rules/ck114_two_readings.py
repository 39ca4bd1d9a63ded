"""CK114 two-readings."""

from __future__ import annotations

from ckptdiff.rules.container import ContainerRule


class TwoReadings(ContainerRule):
    """`model.safetensors` and an index lie side by side, and the index does not name the file.

    transformers takes the whole file where there is one, others follow the index, so the
    same directory is two models. Judged here is what the index names.

    What to do: remove whichever of the two is not meant.
    """

    code = "CK114"
    name = "two-readings"
    severity = "error"
    since = "0.1"
    kind = "two-readings"
