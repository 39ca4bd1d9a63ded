"""Rules, manuals, the table in the README and the tests themselves, held equal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ckptdiff
from ckptdiff import api
from ckptdiff.records.finding import SEVERITIES, RuleInfo

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
TABLE = api.rule_table()


def test_codes_and_names_are_unique_and_well_formed() -> None:
    assert len({rule.code for rule in TABLE}) == len(TABLE)
    assert len({rule.name for rule in TABLE}) == len(TABLE)
    for rule in TABLE:
        assert re.fullmatch(r"CK[1-6]\d\d", rule.code)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
        assert rule.severity in SEVERITIES
        assert rule.summary and not rule.summary.endswith(".")


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.code)
def test_every_rule_has_a_manual(rule: RuleInfo) -> None:
    assert "What to do:" in rule.manual
    assert len(rule.summary) <= 100


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.code)
def test_every_rule_has_a_firing_and_a_clean_case(rule: RuleInfo) -> None:
    tests = "".join(path.read_text() for path in HERE.glob("test_ck*.py"))
    family = rule.code[:3].lower()
    assert f"def test_{rule.code.lower()}_fires" in tests
    assert f"def test_all_{family}_clean" in tests


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.code)
def test_every_rule_has_a_file_of_its_own(rule: RuleInfo) -> None:
    name = f"{rule.code.lower()}_{rule.name.replace('-', '_')}.py"
    package = Path(ckptdiff.__file__).parent / "rules"
    assert (package / name).is_file()


def test_the_readme_has_the_table() -> None:
    rows = [f"| {rule.code} | {rule.name} | {rule.severity} | {rule.summary} |" for rule in TABLE]
    table = re.findall(r"^\| CK\d.*$", README.read_text(), re.MULTILINE)
    assert table == rows
