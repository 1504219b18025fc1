"""What a correction rests on: the pages it was taken from, as they were, so that a changed page is noticed.

A correction rests on what its source names (a page by title, file or address; one heading of it, if that is named too),
or else on the sections that state its answer. Their text is noted as a fingerprint when it is approved. When a page
reads otherwise, the answer is stale: documents are asked instead until the next night has looked again (`recheck`), or
a reviewer approves it anew. It knows nothing of models and of searching.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from storage.database import Database, Row, now
from storage.domain import WORKSPACE, Correction, Source
from storage.texts import plain

STATES = 0.7
"""Share of an answer's words that a section must hold (and all of its numbers) to count as stating it."""
SHORTEST, STEM = 4, 4
"""A word of fewer letters says little; words count as the same when they begin alike."""
LOOKED_AT = 8
"""Sections, found by the answer's words, that are asked whether they state it."""
CITED = 3
"""Pages that are named under a taught answer."""
ADDRESS = re.compile(r"https?://\S+")
TITLE_ENDS = r"(?=$|\s*[>#:,.;(\"'/|-])"


@dataclass(frozen=True)
class Section:
    """The text under one heading of a page, or of all the page when `heading` is None."""

    path: str
    scope: str
    title: str
    heading: str | None
    text: str

    @property
    def titled(self) -> str:
        """The text under its title and heading."""
        return f"{self.title}\n{self.heading or ''}\n{self.text}"

    @property
    def sha256(self) -> str:
        """Stands for the words, however they were cut and wrapped."""
        return hashlib.sha256(" ".join(self.text.split()).encode()).hexdigest()


@dataclass(frozen=True)
class Stale:
    """A correction whose page reads otherwise now; `gone` when the page or the heading is not there any more."""

    correction_id: int
    document: str
    heading: str
    since: str
    gone: bool

    @property
    def in_words(self) -> str:
        """What a reviewer reads."""
        place = f"{self.document} > {self.heading}" if self.heading else self.document
        return f"{place} {'is gone' if self.gone else 'was changed'}"


@dataclass
class Staleness:
    """Which corrections are stale now, looked up again only after a document or a correction changed."""

    database: Database
    _seen: tuple[int, ...] = ()
    _stale: frozenset[int] = field(default_factory=frozenset)

    def __call__(self) -> frozenset[int]:
        """The ids of all stale corrections."""
        moved = tuple(r["value"] for r in self.database.rows(REVISIONS))
        if moved != self._seen:
            self._stale, self._seen = frozenset(stale(self.database)), moved
        return self._stale


REVISIONS = "SELECT value FROM state WHERE name IN ('documents_revision', 'taught_revision') ORDER BY name"


def note(database: Database, row: Correction) -> None:
    """Note what a correction rests on, as it reads now, in place of what was noted before."""
    found = [(section, best_share(database, section, row.answer)) for section in rests_on(database, row)]
    with database.write() as db:
        db.execute("DELETE FROM grounds WHERE correction_id = ?", [row.id])
        for section, stated in found:
            told: Row = {"correction_id": row.id, "path": section.path, "scope": section.scope, "title": section.title}
            told |= {"heading": section.heading, "sha256": section.sha256, "stated": stated, "noted_at": now()}
            db.table("grounds").insert(told)
        db.execute("UPDATE state SET value = value + 1 WHERE name = 'taught_revision'")


def cited(database: Database, correction_id: int) -> tuple[Source, ...]:
    """What an approved correction is answered with as its source: the pages it rests on, else what its author named."""
    pages = database.rows(
        "SELECT d.title AS document, coalesce(g.heading, '') AS heading, d.url FROM grounds g "
        "JOIN documents d ON d.path = g.path AND d.scope = g.scope WHERE g.correction_id = ? "
        "GROUP BY d.id, g.heading ORDER BY min(g.id) LIMIT ?",
        [correction_id, CITED],
    )
    told = str(database.value("SELECT source FROM corrections WHERE id = ?", [correction_id]) or "").strip()
    if not pages and told:
        pages = [{"document": told, "heading": "", "url": told if ADDRESS.fullmatch(told) else ""}]
    return tuple(Source(**page, score=1.0) for page in pages)


def stale(database: Database) -> dict[int, Stale]:
    """Every approved correction whose ground reads otherwise than it was noted, by id."""
    found: dict[int, Stale] = {}
    for ground in noted(database):
        section = now_reads(database, ground)
        if section is None or section.sha256 != ground["sha256"]:
            since = changed_at(database, ground, section)
            key = ground["correction_id"]
            found[key] = Stale(key, ground["title"], ground["heading"] or "", since, section is None)
    return found


def recheck(database: Database, approved: Iterable[Correction]) -> tuple[int, ...]:
    """What the night does: look again at stale corrections and at those without a ground; returns those still stale.

    A changed page that says as much of the answer as before leaves it as good as it was. A page that says less of it
    takes it back for as long as no reviewer approves it anew: training it once more would not make it true.
    """
    now_stale = stale(database)
    known: dict[int, list[Row]] = {}
    for ground in noted(database):
        known.setdefault(ground["correction_id"], []).append(ground)
    for row in approved:
        grounds = known.get(row.id, [])
        if not grounds or (row.id in now_stale and all(holds(database, row, g) for g in grounds)):
            note(database, row)
    return tuple(sorted(stale(database)))


def holds(database: Database, row: Correction, ground: Row) -> bool:
    """Whether the page of a ground, wherever on it, says no less of the answer than the ground did."""
    page = page_of(database, ground)
    return page is not None and best_share(database, under(database, page, None), row.answer) >= ground["stated"]


# --- what a correction rests on ---


def rests_on(database: Database, row: Correction) -> list[Section]:
    """The sections that the source names, else those that state the answer."""
    scopes = tuple({WORKSPACE, row.scope})
    return named(database, row.source, scopes) or stating(database, row, scopes)


def named(database: Database, source: str, scopes: Collection[str]) -> list[Section]:
    """The pages that a source names, narrowed to the headings that it names of them."""
    if not source.strip():
        return []
    found: list[Section] = []
    headings = headings_by_page(database)
    for page in database.rows(f"{PAGES} WHERE d.scope IN (SELECT value FROM json_each(?))", [json.dumps(list(scopes))]):
        own = [h for h in headings.get(page["id"], ()) if speaks_of(source, h)]
        if not names_page(source, page):
            own = [h for h in own if plain(source) == plain(h)]
        elif not own:
            found.append(under(database, page, None))
        found += [under(database, page, heading) for heading in own]
    return found


def names_page(source: str, page: Row) -> bool:
    """Whether a source names a page: by address, by path or file name, or by title.

    A title of one word is a common word, so it must open the source and end there or before a mark ("Pension > Fees").
    """
    low, file = source.casefold(), str(page["path"]).rsplit("/", 1)[-1].casefold()
    if (page["url"] and page["url"].casefold() in low) or re.search(rf"(?<![\w.-]){re.escape(file)}(?![\w-])", low):
        return True
    title = plain(page["title"])
    if " " in title:
        return speaks_of(source, title)
    return bool(title and re.match(rf"\W*{re.escape(title)}{TITLE_ENDS}", low))


def stating(database: Database, row: Correction, scopes: Collection[str]) -> list[Section]:
    """The sections that state the answer of a correction, among those that share most words with it."""
    wanted = {word for word in re.findall(r"\w+", row.answer.casefold()) if len(word) >= SHORTEST or word.isdigit()}
    if not wanted:
        return []
    hits = database.rows(
        "SELECT DISTINCT d.id, d.path, d.scope, d.title, d.url, p.heading FROM "
        "(SELECT p.id FROM passages_fts f JOIN passages p ON p.id = f.rowid JOIN documents d ON d.id = p.document_id "
        "WHERE passages_fts MATCH ? AND d.scope IN (SELECT value FROM json_each(?)) ORDER BY f.rank LIMIT ?) found "
        "JOIN passages p ON p.id = found.id JOIN documents d ON d.id = p.document_id",
        [" OR ".join(f'"{word}"' for word in sorted(wanted)), json.dumps(list(scopes)), LOOKED_AT],
    )
    return [s for hit in hits for s in [under(database, hit, hit["heading"])] if states(s, row.answer)]


def states(section: Section, answer: str) -> bool:
    """Whether a section holds every number of an answer and most of its words."""
    numbers = {word for word in tokens(answer) if any(c.isdigit() for c in word)}
    return numbers <= tokens(section.titled) and share_held(section, answer) >= STATES


def best_share(database: Database, section: Section, answer: str) -> float:
    """The share of an answer's words and numbers that one heading's text of a section holds, at best."""
    page = database.row(f"{PAGES} WHERE d.path = ? AND d.scope = ?", [section.path, section.scope])
    headings = headings_by_page(database).get(page["id"], []) if page else []
    parts = [section] if section.heading is not None else [under(database, page or {}, h) for h in headings]
    return max((share_held(part, answer) for part in parts), default=0.0)


def share_held(section: Section, answer: str) -> float:
    """The share (0..1) of an answer's words and numbers that a section holds, its title and heading included."""
    asked = tokens(answer)
    return len(asked & tokens(section.titled)) / len(asked) if asked else 0.0


def tokens(text: str) -> frozenset[str]:
    """Whole numbers and codes, and the beginnings of longer words."""
    words = re.findall(r"\d+(?:[.,:]\d+)*|\w+", text.casefold())
    long = [w for w in words if len(w) >= SHORTEST or w[0].isdigit()]
    return frozenset(w if any(c.isdigit() for c in w) else w[:STEM] for w in long)


def speaks_of(source: str, name: str) -> bool:
    """Whether a name stands in a source as whole words."""
    return bool(plain(name)) and f" {plain(name)} " in f" {plain(source)} "


# --- pages as they read now ---

PAGES = "SELECT d.id, d.path, d.scope, d.title, d.url FROM documents d"


def noted(database: Database) -> list[Row]:
    """The grounds of all approved corrections."""
    return database.rows(
        "SELECT g.* FROM grounds g JOIN corrections c ON c.id = g.correction_id WHERE c.status = 'approved' "
        "ORDER BY g.correction_id, g.id"
    )


def now_reads(database: Database, ground: Row) -> Section | None:
    """The section of a ground as it reads now; None when it is gone."""
    page = page_of(database, ground)
    section = under(database, page, ground["heading"]) if page else None
    return section if section and section.text else None


def page_of(database: Database, ground: Row) -> Row | None:
    """The page of a ground; one that was moved is found by its title."""
    for column, name in (("path", ground["path"]), ("title", ground["title"])):
        page = database.row(f"{PAGES} WHERE d.{column} = ? AND d.scope = ?", [name, ground["scope"]])
        if page:
            return page
    return None


def changed_at(database: Database, ground: Row, section: Section | None) -> str:
    """When the page came in as it reads now; when its old text was noted, for a page that is gone."""
    found = section and database.value(
        "SELECT ingested_at FROM documents WHERE path = ? AND scope = ?", [section.path, section.scope]
    )
    return str(found or ground["noted_at"])


def under(database: Database, page: Row, heading: str | None) -> Section:
    """The text of a page under a heading (None: all of it); empty when there is no such heading."""
    rows = database.rows(
        "SELECT text FROM passages WHERE document_id = ? AND (? IS NULL OR heading = ?) ORDER BY position",
        [page["id"], heading, heading],
    )
    return Section(page["path"], page["scope"], page["title"], heading, "\n".join(r["text"] for r in rows))


def headings_by_page(database: Database) -> dict[int, list[str]]:
    """The headings of every page, by its id."""
    found: dict[int, list[str]] = {}
    sql = "SELECT document_id, heading FROM passages GROUP BY document_id, heading ORDER BY min(id)"
    for row in database.rows(sql):
        found.setdefault(row["document_id"], []).append(row["heading"])
    return found
