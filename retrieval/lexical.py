"""BM25 over the passages, through SQLite's full-text index.

It knows nothing of vectors. Whatever a person types becomes a query of plain quoted words.
"""

import json
import re
from collections.abc import Collection, Sequence

from storage.database import Database

MOST_WORDS = 64
"""Words of a question that are searched; SQLite refuses expressions that nest too deep."""

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about after all also am an and any are as at be because been before but by can could did do does
        doing don for from get had has have how i if in into is it its just me my no not of on or our please
        s should so some t than that the their them then there these they this to up us was we were what
        when where which while who whom whose why will with would you your""",
    )
)


def search(database: Database, question: str, k: int, scopes: Collection[str]) -> list[tuple[int, float]]:
    """The best k (passage id, BM25 score) of the scopes, best first; a higher score is nearer."""
    expression = query(question)
    if not expression:
        return []
    rows = database.rows(
        "SELECT f.rowid AS id, -bm25(passages_fts) AS score FROM passages_fts f "
        "JOIN passages p ON p.id = f.rowid JOIN documents d ON d.id = p.document_id "
        "WHERE passages_fts MATCH ? AND d.scope IN (SELECT value FROM json_each(?)) "
        "ORDER BY score DESC, f.rowid LIMIT ?",
        (expression, json.dumps(list(scopes)), k),
    )
    return [(row["id"], row["score"]) for row in rows]


def scores(database: Database, question: str, ids: Sequence[int]) -> dict[int, float]:
    """The BM25 scores of chosen passages; one that shares no word with the question is left out."""
    expression = query(question)
    if not expression or not ids:
        return {}
    rows = database.rows(
        "SELECT rowid AS id, -bm25(passages_fts) AS score FROM passages_fts "
        "WHERE passages_fts MATCH ? AND rowid IN (SELECT value FROM json_each(?))",
        (expression, json.dumps(list(ids))),
    )
    return {row["id"]: row["score"] for row in rows}


def query(question: str) -> str:
    """An FTS5 expression that matches any word of the question; "" when it holds none.

    Stop words are dropped unless nothing else is left.
    """
    words = list(dict.fromkeys(re.findall(r"\w+", question.lower())))
    telling = [word for word in words if word not in STOP_WORDS] or words
    return " OR ".join(f'"{word}"' for word in telling[:MOST_WORDS])
