"""`ckptdiff rule` as text: the table of rules, and the manual of one."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.finding import RuleInfo
from ckptdiff.report.lines import wrap


def rules_text(rules: Sequence[RuleInfo], *, color: bool = False) -> str:
    """The manual of a single rule; the table of several."""
    return _manual(rules[0]) if len(rules) == 1 else _table(rules)


def _table(rules: Sequence[RuleInfo]) -> str:
    lines: list[str] = []
    for rule in rules:
        row = f"{rule.code} {rule.severity:<7} {rule.name:<21} {rule.summary}"
        lines += wrap(row, "", " " * 36)
    return "\n".join(lines) + "\n"


def _manual(rule: RuleInfo) -> str:
    needs = ", ".join(rule.needs) or "nothing but the directory"
    head = f"{rule.code} {rule.name} ({rule.severity})\n\n"
    tail = f"\n\nNeeds: {needs}. Since: {rule.since}. Fix: {rule.fix}.\n"
    return head + rule.manual + tail
