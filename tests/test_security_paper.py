"""SECURITY.md: every promise names the tests that hold it, and these tests are there."""

import re
from pathlib import Path

import pytest

from storage import settings

ROOT = Path(__file__).parent.parent
PAPER = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAPER.splitlines()
    if line.startswith("|") and line.count("|") == 4 and not line.startswith(("|---", "| promise", "| **"))
]


def test_the_table_is_read() -> None:
    assert len(PROMISES) >= 25


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p[0][:40])
def test_every_promise_names_tests_that_exist(promise: list[str]) -> None:
    files = re.findall(r"`((?:test_|bench/)\w+\.py)`", promise[2])
    assert files, "no test is named"
    for name in files:
        tests = (ROOT / "tests" / name).read_text(encoding="utf-8")
        assert "assert" in tests or name.startswith("bench/")


def test_every_setting_and_page_it_names_exists() -> None:
    known = {setting.variable for setting in settings.TABLE}
    assert set(re.findall(r"\b(?:NIGHTSHIFT|SLACK)_[A-Z_]+", PAPER)) <= known
    for link in re.findall(r"\]\(([\w./]+)\)", PAPER):
        assert (ROOT / link).exists(), link
