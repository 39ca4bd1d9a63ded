"""`ckptdiff rule` as text: the table of rules, and the manual of one."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.finding import RuleInfo


def rules_text(rules: Sequence[RuleInfo], *, color: bool = False) -> str:
    """The manual of a single rule; the table of several."""
    return _manual(rules[0]) if len(rules) == 1 else _table(rules)


def _table(rules: Sequence[RuleInfo]) -> str:
    return "".join(
        f"{rule.code}  {rule.severity:<8} {rule.name:<24} {rule.summary}"
        + (" (planned)\n" if rule.since == "planned" else "\n")
        for rule in rules
    )


def _manual(rule: RuleInfo) -> str:
    needs = ", ".join(rule.needs) or "nothing but the directory"
    head = f"{rule.code} {rule.name} ({rule.severity})\n\n"
    tail = f"\n\nNeeds: {needs}. Since: {rule.since}. Fix: {rule.fix}.\n"
    return head + (rule.manual or f"{rule.summary}. Planned; this version does not look.") + tail
