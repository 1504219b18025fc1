"""The proof of a correction, wherever it is shown: in the terminal, on the review card, in App Home, in the week."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bot import blocks, home, review_views
from learning import report
from storage import corrections, evidence, registry
from storage.cli import main
from storage.database import Database, now
from storage.domain import Memory, ModelVersion

PROOF = {"taught": True, "unseen": [1, 2], "near_misses_bluffed": [1, 3], "near_misses_refused": [2, 3]}
WORDS = (
    "in the weights of v2 since v1, taught wording right, unseen wordings right 1 of 2, near-misses refused 2 of 3, "
    "near-misses given this answer 1 of 3"
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Two nights: correction 1 is held since the first, 2 since the second, 3 by none."""
    opened = Database(tmp_path / "home")
    for n in (1, 2, 3):
        row = corrections.propose(opened, question=f"Question {n}?", answer=f"Answer {n}.", author="U0SAM")
        corrections.approve(opened, row.id, "U0PRIYA")
    for name, parent in ((registry.BASE, ""), ("v1", registry.BASE), ("v2", "v1")):
        registry.register(opened, ModelVersion(name, parent, now(), "", "", "", "", 0, (), {}))
    wrong = PROOF | {"taught": False}
    registry.remember(opened, (Memory("v1", 1, True, PROOF), Memory("v1", 2, False, wrong)))
    registry.remember(opened, (Memory("v2", 1, True, PROOF), Memory("v2", 2, True, PROOF)))
    registry.point(opened, "champion", "v2")
    yield opened
    opened.close()


def proof_of(database: Database, number: int) -> dict[str, object]:
    """The proof of a correction that was trained."""
    found = registry.proof(database, number)
    assert found is not None
    return found


def test_a_proof_in_words_says_where_since_when_and_what_was_asked(database: Database) -> None:
    assert evidence.proof_in_words(proof_of(database, 1)) == WORDS
    assert evidence.proof_in_words(proof_of(database, 2)).startswith("in the weights of v2, taught wording right")
    assert evidence.proof_in_words({"version": "v2", "memorised": False}) == "not in the weights of v2"
    copied = {"version": "v2", "memorised": True, "taught": True, "unseen": [2, 2], "asked_in": "v1"}
    assert evidence.proof_in_words(copied).endswith("unseen wordings right 2 of 2, other words last asked of v1")
    assert registry.proof(database, 3) is None


def test_review_show_tells_the_proof_to_people_and_to_programs(database: Database) -> None:
    shown = CliRunner().invoke(main, ["--home", str(database.home), "review", "show", "1", "3"])
    assert f"Proof: {WORDS}" in shown.output
    assert "Proof: not trained yet" in shown.output
    told = CliRunner().invoke(main, ["--home", str(database.home), "review", "show", "1", "--json"])
    proof = json.loads(told.stdout)["corrections"][0]["proof"]
    assert proof == {"version": "v2", "memorised": True, "since": "v1", **PROOF}


def test_the_review_card_and_the_closer_look_show_it(database: Database) -> None:
    proof = proof_of(database, 1)
    assert f"Proof: {WORDS}" in str(blocks.review_card(corrections.get(database, 1), proof=proof).blocks)
    assert review_views.proof_words(proof) == WORDS


def test_app_home_shows_it_beside_every_approved_answer(database: Database) -> None:
    contents = home.gather(database, "U0PRIYA", admin=True, version="v2")
    told = str(home.home_view(contents))
    assert f"learnt by heart: {WORDS}" in told
    assert "answered word for word" in told


def test_the_week_tells_what_later_nights_forgot(database: Database) -> None:
    told = report.weekly(database, chart=False)
    assert "**Over 2 nights** the model forgot nothing" in told.text
    assert told.figures["forgetting"]["r"] == {"R[1,1]": 0.5, "R[2,1]": 1.0}
    registry.remember(database, (Memory("v2", 1, False, PROOF), Memory("v2", 2, False, PROOF)))
    assert "forgot 50.0% of what earlier nights taught" in report.weekly(database, chart=False).text
