"""The form that serves is the quickest one that loses nothing."""

from pathlib import Path

import pytest

from bot import commands
from learning import serving_form
from learning.serving_form import Measured, judge, quickest

EXACT = Measured("float32", recall=1.0, reading=0.5, check_ms=150, token_ms=45)


def form(name: str, **change: float) -> Measured:
    return judge(Measured(name, **{"recall": 1.0, "reading": 0.5, "check_ms": 50, "token_ms": 20, **change}), EXACT)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ((EXACT, form("bfloat16")), "bfloat16"),
        ((EXACT, form("bfloat16", recall=0.994)), "float32"),
        ((EXACT, form("bfloat16", recall=0.996)), "bfloat16"),
        ((EXACT, form("bfloat16", reading=0.4)), "float32"),
        ((EXACT, form("bfloat16", reading=0.6)), "bfloat16"),
        ((EXACT, form("bfloat16", check_ms=148, token_ms=45)), "float32"),
        ((EXACT, form("bfloat16"), form("int8", check_ms=49)), "bfloat16"),
        ((EXACT, form("bfloat16"), form("int8", token_ms=12)), "int8"),
        ((EXACT, form("bfloat16"), form("int8", token_ms=12, recall=0.15)), "bfloat16"),
        ((EXACT, form("bfloat16", check_ms=1400), form("int8", token_ms=12)), "int8"),
        ((EXACT, judge(Measured("bfloat16", None, None, check_ms=1400, token_ms=9), EXACT)), "float32"),
        ((EXACT,), "float32"),
    ],
)
def test_the_quickest_that_loses_nothing_serves(rows: tuple[Measured, ...], chosen: str) -> None:
    assert quickest(rows) == chosen


class TenTimesSlower:
    """An engine of any form that must not be asked for answers."""

    def __init__(self, folder: Path, *, form: str) -> None: ...


def test_a_form_that_is_too_slow_is_timed_and_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_form, "LocalGenerator", TenTimesSlower)
    monkeypatch.setattr(serving_form, "speeds", lambda _: (1500.0, 450.0))
    row, said = serving_form.measure(tmp_path, "bfloat16", (), ["kept"], 96, most_ms=EXACT.answer_ms)
    assert (row.recall, row.reading, said) == (None, None, ["kept"])
    assert not judge(row, EXACT).allowed


def test_passages_hold_what_is_asked() -> None:
    items = serving_form.readings()
    assert 24 < len(items) <= serving_form.MOST_READINGS
    assert all(item.holds(item.passage) and not item.holds("I do not know.") for item in items)


def test_a_terminal_shows_an_answer_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    typed = commands.Typed(shown=True)
    for so_far in ("The", "The limit is", "The limit is 14"):
        typed.take(so_far)
    assert capsys.readouterr().out == "The limit is "
    assert typed.rest("The limit is 140 euros.\n[how]") == "140 euros.\n[how]"
    assert typed.rest("I don't know.").endswith("instead:]\nI don't know.")
    hidden = commands.Typed(shown=False)
    hidden.take("The limit is")
    assert capsys.readouterr().out == ""
    assert hidden.rest("Whole.") == "Whole."
