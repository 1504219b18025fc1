"""The matrix R of a company's nights and what is read from it, on stored proofs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from learning import forgetting
from storage import corrections, registry
from storage.database import Database, now
from storage.domain import Memory, ModelVersion

AUTHOR, REVIEWER = "U0SAM", "U0PRIYA"


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    opened = Database(home)
    for n in range(6):
        row = corrections.propose(opened, question=f"What is {n}?", answer=f"It is {n}.", author=AUTHOR)
        corrections.approve(opened, row.id, REVIEWER)
    registry.register(opened, ModelVersion(registry.BASE, "", now(), "", "", "", "", 0, (), {}))
    yield opened
    opened.close()


def night(database: Database, version: str, parent: str, held: dict[int, bool]) -> None:
    """A promoted version with what it memorised."""
    registry.register(database, ModelVersion(version, parent, now(), "", "", "", "", 0, (), {}))
    registry.remember(database, tuple(Memory(version, i, known, {}) for i, known in held.items()))


def test_r_bwt_and_average_accuracy_by_hand() -> None:
    found = forgetting.matrix(
        [
            ("v1", {1: True, 2: True}),
            ("v2", {1: True, 2: False, 3: True, 4: True}),
            ("v3", {1: True, 2: False, 3: True, 4: False, 5: True}),
        ]
    )
    assert found.shares == ((1.0, None, None), (0.5, 1.0, None), (0.5, 0.5, 1.0))
    assert found.backward == pytest.approx(((0.5 - 1.0) + (0.5 - 1.0)) / 2)
    assert found.average == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert found.named()["R[2,1]"] == 0.5
    assert "R[1,2]" not in found.named()
    assert forgetting.in_words(found).startswith("**Over 3 nights** the model forgot 50.0%")


def test_what_is_learnt_later_is_backward_transfer_above_zero() -> None:
    found = forgetting.matrix([("v1", {1: False, 2: True}), ("v2", {1: True, 2: True, 3: True})])
    assert found.backward == 0.5
    assert "forgot nothing" in forgetting.in_words(found)


def test_forward_transfer_is_what_the_nights_before_gave() -> None:
    assert forgetting.forward([0.25, 0.5], [0.0, 0.25]) == 0.25
    assert forgetting.forward([], []) is None


def test_what_was_taken_back_is_not_forgetting() -> None:
    found = forgetting.matrix([("v1", {1: True, 2: True}), ("v2", {1: True})])
    assert found.columns == (forgetting.Column(0, (1,)),)
    assert found.backward == 0.0


def test_a_night_that_taught_nothing_has_a_row_and_no_column() -> None:
    found = forgetting.matrix([("v1", {1: True}), ("v2", {1: False}), ("v3", {1: True, 2: True})])
    assert [c.row for c in found.columns] == [0, 2]
    assert found.shares == ((1.0, None), (0.0, None), (1.0, 1.0))
    assert set(found.named()) == {"R[1,1]", "R[2,1]", "R[3,1]", "R[3,3]"}


def test_the_line_of_a_version_leaves_out_what_was_rolled_back(database: Database) -> None:
    night(database, "v1", registry.BASE, {1: True, 2: True})
    night(database, "v2", "v1", {1: False, 2: False, 3: True})
    night(database, "v3", "v1", {1: True, 2: True, 4: True})
    found = forgetting.stored(database, "v3")
    assert found.versions == ("v1", "v3")
    assert found.backward == 0.0
    worse = forgetting.stored(database, "v2")
    assert (worse.backward, worse.average) == (-1.0, 0.5)


def test_the_base_alone_has_nothing_to_tell(database: Database) -> None:
    found = forgetting.stored(database, registry.BASE)
    assert (found.average, found.backward, found.named(), forgetting.in_words(found)) == (None, None, {}, "")
    assert forgetting.matrix([]).backward is None
