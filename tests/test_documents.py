"""Documents, passages and the outbox change together or not at all, and scopes fail closed."""

from pathlib import Path

import numpy as np
import pytest
from sqlite_utils.utils import sqlite3

from storage import documents
from storage.database import Database
from storage.documents import NewDocument, NewPassage
from storage.errors import IntegrityError

PRIVATE = "C0PRIVATE"


@pytest.fixture
def database(home: Path) -> Database:
    return Database(home)


def page(path: str = "/pages/leave.md", scope: str = "workspace", sha256: str = "1") -> NewDocument:
    return NewDocument(path, scope, "Leave", "https://intra.example/leave", sha256)


def passage(text: str, *vector: float) -> NewPassage:
    return NewPassage("Carry over", text, f"around {text}", np.array(vector or (1.0, 0.0), dtype=np.float32))


def fts(database: Database, word: str) -> list[int]:
    return [row["rowid"] for row in database.rows("SELECT rowid FROM passages_fts(?) ORDER BY rowid", (word,))]


def test_a_replaced_document_leaves_nothing_of_the_old_one_behind(database: Database) -> None:
    documents.replace(database, page(), [passage("oranges"), passage("apples")])
    documents.replace(database, page(sha256="2"), [passage("pears")])
    assert documents.counts(database) == (1, 1)
    assert documents.hashes(database, "workspace") == {"/pages/leave.md": "2"}
    assert (fts(database, "oranges"), fts(database, "pears")) == ([], [3])
    outbox = [(row.passage_id, row.operation) for row in documents.pending(database, 10)]
    assert outbox == [(1, "add"), (2, "add"), (1, "remove"), (2, "remove"), (3, "add")]


def test_a_replacement_that_fails_half_way_changes_nothing(database: Database) -> None:
    documents.replace(database, page(), [passage("oranges")])
    before = documents.revision(database)
    broken = NewPassage("Heading", None, "", np.ones(2, dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        documents.replace(database, page(sha256="2"), [passage("pears"), broken])
    assert documents.hashes(database, "workspace") == {"/pages/leave.md": "1"}
    assert (fts(database, "oranges"), fts(database, "pears")) == ([1], [])
    assert (documents.revision(database), documents.backlog(database)) == (before, 1)


def test_text_is_read_only_under_its_scope(database: Database) -> None:
    documents.replace(database, page(), [passage("open")])
    documents.replace(database, page(scope=PRIVATE), [passage("secret")])
    everything = documents.passages(database, [2, 1], ("workspace", PRIVATE))
    assert [p.text for p in everything] == ["secret", "open"]
    assert [p.text for p in documents.passages(database, [1, 2], ("workspace",))] == ["open"]
    assert documents.passages(database, [1, 2], ()) == []
    assert documents.sections(database, [1, 2], ("workspace",)) == {1: "around open"}


def test_the_same_file_lives_in_two_scopes_and_is_removed_from_one(database: Database) -> None:
    documents.replace(database, page(), [passage("open")])
    documents.replace(database, page(scope=PRIVATE), [passage("secret")])
    assert documents.remove(database, "/pages/leave.md", PRIVATE)
    assert not documents.remove(database, "/pages/leave.md", PRIVATE)
    assert documents.counts(database) == (1, 1)
    assert (fts(database, "secret"), fts(database, "open")) == ([], [1])


def test_a_document_leaves_other_scopes_in_the_step_that_stores_it(database: Database) -> None:
    documents.replace(database, page(), [passage("open")])
    broken = NewPassage("Heading", None, "", np.ones(2, dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        documents.replace(database, page(scope=PRIVATE), [broken], leaving=["workspace"])
    assert documents.hashes(database, "workspace") == {"/pages/leave.md": "1"}
    documents.replace(database, page(scope=PRIVATE), [passage("secret")], leaving=["workspace"])
    assert (documents.hashes(database, "workspace"), fts(database, "open")) == ({}, [])
    assert documents.hashes(database, PRIVATE) == {"/pages/leave.md": "1"}


def test_rivals_are_the_workspace_to_a_channel_and_channels_to_the_workspace(database: Database) -> None:
    documents.replace(database, page(), [])
    documents.replace(database, page(scope=PRIVATE), [])
    documents.replace(database, page(scope="C0OTHER"), [])
    assert documents.rivals(database, "workspace") == {"/pages/leave.md": [PRIVATE, "C0OTHER"]}
    assert documents.rivals(database, PRIVATE) == {"/pages/leave.md": ["workspace"]}


def test_vectors_come_back_as_they_were_with_ids_and_scopes(database: Database) -> None:
    documents.replace(database, page(), [passage("a", 0.6, 0.8), passage("b", 0.0, 1.0)])
    documents.replace(database, page(scope=PRIVATE), [passage("c", 1.0, 0.0)])
    stored = documents.all_vectors(database)
    assert stored.ids.tolist() == [1, 2, 3]
    assert stored.scopes.tolist() == ["workspace", "workspace", PRIVATE]
    np.testing.assert_array_equal(stored.matrix, np.array([[0.6, 0.8], [0, 1], [1, 0]], dtype=np.float32))
    assert documents.vectors(database, [3, 99, 1]).ids.tolist() == [1, 3]
    assert documents.vectors(database, []).matrix.shape == (0, 0)


def test_vectors_of_two_lengths_are_refused(database: Database) -> None:
    documents.replace(database, page(), [passage("a", 1.0, 0.0), passage("b", 1.0, 0.0, 0.0)])
    with pytest.raises(IntegrityError, match="differ in length"):
        documents.all_vectors(database)


def test_the_revision_grows_with_every_change(database: Database) -> None:
    seen = [documents.revision(database)]
    documents.replace(database, page(), [passage("a")])
    seen.append(documents.revision(database))
    documents.remove(database, "/pages/leave.md", "workspace")
    seen.append(documents.revision(database))
    assert seen == sorted(set(seen))


def test_applied_rows_leave_the_outbox_and_later_ones_stay(database: Database) -> None:
    documents.replace(database, page(), [passage("a"), passage("b"), passage("c")])
    first = documents.pending(database, 2)
    documents.applied(database, first[-1].id)
    assert [row.passage_id for row in documents.pending(database, 10)] == [3]
    assert documents.last_pending(database) == 3


def test_one_model_stands_behind_all_vectors(database: Database) -> None:
    assert documents.embedder(database) == ("", 0)
    documents.replace(database, page(), [passage("a", 1.0, 0.0)])
    documents.set_embedder(database, "old*model", 2)
    documents.reembed(database, "new", [(1, np.array([0, 0, 1], dtype=np.float32))])
    assert documents.embedder(database) == ("new", 3)
    assert documents.all_vectors(database).matrix.tolist() == [[0, 0, 1]]
    assert documents.pending(database, 10)[-1].operation == "add"


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("Ask IT (https://x.example/a_(b)?q=1#c) today.", "Ask IT today."),
        ("See the page (/leave/#carry-over).", "See the page."),
        ("See leave (/leave#days), forms (/forms.pdf), home (/).", "See leave, forms, home."),
        ("Ask there (#people-ops) or remind (/remind).", "Ask there (#people-ops) or remind (/remind)."),
        (
            "Bare https://x.example/a stays (as do brackets).",
            "Bare https://x.example/a stays (as do brackets).",
        ),
    ],
)
def test_addresses_behind_words_are_not_searched(written: str, seen: str) -> None:
    assert documents.searchable("Title", "Heading", written) == f"Title > Heading\n{seen}"


def test_the_outbox_knows_two_operations(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.rows("INSERT INTO index_outbox (passage_id, operation) VALUES (1, 'paint')")
