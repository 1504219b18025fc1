"""Files to titled sections: Markdown, plain text, HTML, PDF, Word, and CSV of questions and answers.

A loader gives the words that a reader of the finished page would see. It knows nothing of passages.
"""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retrieval import docx, markdown, markup, pdf
from storage.errors import UserError

LARGEST = 20_000_000
"""Bytes of the largest file that is read."""


@dataclass(frozen=True)
class Section:
    """The text under one heading; `heading` is a path like "Leave > Carry over", "" above the first."""

    heading: str
    text: str


@dataclass(frozen=True)
class LoadedDocument:
    """A page as a reader would see it."""

    title: str
    url: str
    sections: tuple[Section, ...]


def load(path: Path) -> LoadedDocument:
    """Read a file. Raises UserError with one sentence when it cannot be read or holds nothing."""
    return parse(path, read(path))


def read(path: Path) -> bytes:
    """The bytes of a file that has a loader. Raises UserError when there is none, or it cannot be read."""
    if path.suffix.lower() not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise UserError(f"{path.name} is of a kind that cannot be read (known: {known}).")
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path.name} is larger than {LARGEST // 1_000_000} MB.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror or error}).") from error


def parse(path: Path, content: bytes) -> LoadedDocument:
    """The document in these bytes. Raises UserError when they cannot be read, or no words are left."""
    kind = path.suffix.lower()
    loaded = load_pages(path, content, PAGES[kind]) if kind in PAGES else TEXTS[kind](path, decode(path, content))
    if not loaded.sections:
        raise UserError(f"{path.name} holds no text.")
    return loaded


def decode(path: Path, content: bytes) -> str:
    """UTF-8 text with plain newlines, no control characters. Raises UserError for anything else."""
    if b"\0" in content:
        raise UserError(f"{path.name} is a binary file, not text.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text (byte {error.start}).") from error
    text = re.sub(r"\r\n?", "\n", text)
    return markdown.without_marks(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text))


def load_markdown(path: Path, text: str) -> LoadedDocument:
    """Front matter or the first heading gives the title; a page that only moved says where to."""
    about, body = markdown.front_matter(text)
    title, found = markdown.sections(body, about.get("title", ""))
    url = about.get("url") or about.get("redirect_to", "")
    if not found and url:
        found = [("", f"See {url}")]
    return LoadedDocument(title or name_of(path), url, tuple(Section(*pair) for pair in found))


def load_text(path: Path, text: str) -> LoadedDocument:
    """One section without headings, under the file's name."""
    body = text.strip()
    return LoadedDocument(name_of(path), "", (Section("", body),) if body else ())


def load_html(path: Path, text: str) -> LoadedDocument:
    """The body as a browser shows it, under the page's title."""
    page = markup.read(text)
    title, found = markdown.page_sections(page.lines, page.title)
    return LoadedDocument(title or name_of(path), page.url, tuple(Section(*pair) for pair in found))


def load_pages(path: Path, content: bytes, reader: "Reader") -> LoadedDocument:
    """A file that is no text: its own title, else one made of its name."""
    title, found = reader(path.name, content)
    return LoadedDocument(title or name_of(path), "", tuple(Section(*pair) for pair in found))


def load_csv(path: Path, text: str) -> LoadedDocument:
    """One section per row: the question as heading, the answer as text. Raises UserError without both."""
    try:
        rows = list(csv.DictReader(io.StringIO(text), restkey=""))
    except csv.Error as error:
        raise UserError(f"{path.name} is not a readable CSV file ({error}).") from error
    lowered = [{str(k).strip().lower(): v for k, v in row.items() if isinstance(v, str)} for row in rows]
    if lowered and not any({"question", "answer"} <= row.keys() for row in lowered):
        raise UserError(f"{path.name} needs the columns question and answer in its first row.")
    pairs = [(" ".join(row.get("question", "").split()), row.get("answer", "").strip()) for row in lowered]
    return LoadedDocument(name_of(path), "", tuple(Section(q, a) for q, a in pairs if q and a))


def name_of(path: Path) -> str:
    """A title made of the file's name."""
    words = re.sub(r"[-_\s]+", " ", path.stem).strip() or path.name
    return words[:1].upper() + words[1:]


Reader = Callable[[str, bytes], tuple[str, list[tuple[str, str]]]]
"""From a file's name and bytes to its title and its (heading path, text) pairs."""
TEXTS: dict[str, Callable[[Path, str], LoadedDocument]] = {
    ".md": load_markdown,
    ".markdown": load_markdown,
    ".txt": load_text,
    ".html": load_html,
    ".htm": load_html,
    ".csv": load_csv,
}
PAGES: dict[str, Reader] = {".pdf": pdf.read, ".docx": docx.read}
KINDS = TEXTS.keys() | PAGES.keys()
"""Every suffix that has a loader."""
