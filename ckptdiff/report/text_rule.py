"""`ckptdiff rule` as text: the table of rules, and the manual of one."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdiff.records.finding import RuleInfo


def rule_table_text(rules: Sequence[RuleInfo]) -> str:
    """The rule table, one line a rule."""
    return "".join(
        f"{rule.code}  {rule.severity:<8} {rule.name:<24} {rule.summary}"
        + (" (planned)\n" if rule.since == "planned" else "\n")
        for rule in rules
    )


def rule_text(rule: RuleInfo) -> str:
    """The manual of one rule."""
    needs = ", ".join(rule.needs) or "nothing but the directory"
    head = f"{rule.code} {rule.name} ({rule.severity})\n\n"
    tail = f"\n\nNeeds: {needs}. Since: {rule.since}. Fix: {rule.fix}.\n"
    return head + (rule.manual or f"{rule.summary}. Planned; this version does not look.") + tail
