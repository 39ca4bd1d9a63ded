"""Who wrote a checkpoint: as few dialects as explain every weight."""

from __future__ import annotations

from ckptdiff.analysis.proving.writers import proof_row, writers
from ckptdiff.quant.dialects import ALL
from ckptdiff.records.proof import Proof, ProofStatus

BOTH = ("BF16 cpu", "BF16 cuda")


def proof(scales: tuple[str, ...], codes: tuple[str, ...], status: ProofStatus = "proven") -> Proof:
    return Proof(
        key="k", module="m", weight="w", shard="s", status=status,
        scale_dialects=scales, code_dialects=codes,
    )  # fmt: skip


def test_a_weight_that_both_explain_counts_for_the_one_that_others_need() -> None:
    """Also where the scales' host is only one that has the same numbers."""
    cuda = proof(("BF16 cuda",), ("F32 cpu", "F32 cuda"))
    either = proof(BOTH, ("F16 cpu", "F16 cuda", "F32 cpu", "F32 cuda"))
    assert writers([either, cuda, either]) == ("F32 cuda",)


def test_a_device_that_never_showed_is_not_named() -> None:
    assert writers([proof(BOTH, BOTH)] * 3) == ("BF16",)
    assert writers([proof(BOTH, BOTH), proof(("BF16 cpu",), BOTH)]) == ("BF16 cpu",)


def test_a_mixture_names_all_its_writers_the_largest_part_first() -> None:
    cpu, cuda = proof(("BF16 cpu",), BOTH), proof(BOTH, ("BF16 cuda",))
    assert writers([cpu, cuda, cuda]) == ("BF16 cuda", "BF16 cpu")


def test_scales_and_codes_may_come_from_two_devices() -> None:
    mixed = proof(("BF16 cpu",), ("BF16 cuda",))
    assert writers([mixed]) == ("BF16 cuda with scales of cpu",)


def test_the_row_counts_what_is_wrong_together() -> None:
    statuses: list[ProofStatus] = ["proven", "codes", "scale", "searched", "unknown", "unknown"]
    row = proof_row(proof(BOTH, BOTH, status) for status in statuses)
    assert (row.proven, row.wrong, row.searched, row.unknown) == (1, 2, 1, 2)
    assert row.dialects == ("BF16",)
    assert proof_row([]).dialects == ()


def test_ties_go_to_the_likeliest() -> None:
    """In the order of the dialects that the arithmetic knows, which as text is that of names."""
    ways = tuple(f"{dialect.host} {dialect.device}" for dialect in ALL)
    assert sorted(ways) == list(ways)
    assert writers([proof(ways, ways)]) == ("BF16",)
