"""CK604 shape-against-base."""

from __future__ import annotations

from ckptdiff.rules.against_base import BaseRule


class ShapeAgainstBase(BaseRule):
    """A tensor has another shape than the base's, packing taken into account.

    A byte of FP4 holds two columns, a byte of INT4 two rows; the shape before packing must
    be that of the base.

    What to do: find out which model the scheme was exported from.
    """

    code = "CK604"
    name = "shape-against-base"
    severity = "error"
    since = "0.1"
    kind = "shapes"
    message = "tensors of another shape than base's: {count}"
