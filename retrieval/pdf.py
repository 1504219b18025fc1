"""PDF files to titled sections: the only door of pypdf.

A PDF knows letters and places, not headings or tables. Lines larger than the body text become headings, lines with
wide gaps in the same places become table rows, and what repeats on every page is left out. It knows nothing of
passages.
"""

import io
import logging
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from storage.errors import UserError

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

LARGER = 1.15
"""How much larger than the body text a heading is set."""
LONGEST_HEADING = 120
GAP = 1.6
"""A gap between two words that separates columns, in letter heights; words of a line are about 0.3 apart."""
LETTER = 0.5
"""Mean width of a letter in letter heights, for a font whose widths are not asked for."""
MOST_PAGES = 2000

logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns about every oddity that it can read all the same


@dataclass(frozen=True)
class Run:
    """A piece of text at its place on a page, in points."""

    text: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Line:
    """One line of a page: its cells from left to right, the size of its letters, its top edge, its page."""

    cells: tuple[str, ...]
    size: float
    y: float
    page: int

    @property
    def text(self) -> str:
        """The cells as one text."""
        return " ".join(self.cells)


def read(name: str, content: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The title ("" if none is named) and (heading path, text) of every section. Raises UserError if it is broken."""
    try:
        reader = opened(name, content)
        pages = [lines(page, number) for number, page in enumerate(reader.pages[:MOST_PAGES])]
        title = " ".join(str(reader.metadata.title or "").split()) if reader.metadata else ""
    except UserError:
        raise
    except Exception as error:  # a broken file makes pypdf fail in any way: missing keys, recursion, wrong types
        raise UserError(f"{name} is a broken PDF file ({type(error).__name__}: {first_line(error)}).") from error
    if not any(pages):
        raise UserError(f"{name} holds no text that can be read; it may be pictures of pages.")
    return sections(without_repeats(pages), "" if re.search(r"(?i)untitled|\.(docx?|pdf|indd)\b", title) else title)


def opened(name: str, content: bytes) -> "PdfReader":
    """The file, opened with an empty password if it is locked. Raises UserError when that is not enough."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise UserError(f"{name} is locked with a password.")
    return reader


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return (str(error).splitlines() or [""])[0][:100]


def lines(page: "PageObject", number: int) -> list[Line]:
    """The lines of a page from top to bottom."""
    runs: list[Run] = []

    def visit(text: str, outer: Sequence[float], inner: Sequence[float], _: Any, size: float) -> None:
        for offset, piece in enumerate(text.split("\n")):
            if piece.strip():
                scale = abs(inner[3] * outer[3]) or abs(inner[0] * outer[0]) or 1.0
                x = inner[4] * outer[0] + outer[4]
                y = inner[5] * outer[3] + outer[5]
                height = size * scale
                runs.append(Run(piece, x, y - offset * 1.2 * height, height))

    page.extract_text(visitor_text=visit)
    rows: list[list[Run]] = []
    for run in runs:
        if rows and abs(rows[-1][-1].y - run.y) < 0.4 * max(run.size, 1.0):
            rows[-1].append(run)
        else:
            rows.append([run])
    return [line for row in rows if (line := line_of(row, number)).text]


def line_of(row: Sequence[Run], page: int) -> Line:
    """The runs of one line, joined to cells where no wide gap is between them."""
    cells: list[str] = []
    end = 0.0
    for run in sorted(row, key=lambda r: r.x):
        if cells and run.x - end < GAP * run.size:
            cells[-1] += run.text
        else:
            cells.append(run.text)
        end = run.x + LETTER * run.size * len(run.text)
    pieces = [re.split(r"\s{3,}", cell.strip()) for cell in cells]
    clean = tuple(" ".join(piece.split()) for group in pieces for piece in group if piece.strip())
    return Line(clean, max(run.size for run in row), max(run.y for run in row), page)


def without_repeats(pages: Sequence[Sequence[Line]]) -> list[Line]:
    """All lines but running heads, running feet and page numbers."""
    edges = Counter(key for page in pages for key in {faceless(line) for line in edge(page)})
    often = {key for key, count in edges.items() if count >= 3 and count > len(pages) / 2}
    return [
        line
        for page in pages
        for line in page
        if not (line in edge(page) and (faceless(line) in often or is_page_number(line)))
    ]


def edge(page: Sequence[Line]) -> list[Line]:
    """The lines at the top and at the foot of a page; of a short page fewer, since they may be all it says."""
    depth = 2 if len(page) >= 6 else int(len(page) >= 3)
    return [*page[:depth], *page[len(page) - depth :]]


def faceless(line: Line) -> str:
    """A line without its numbers, which change from page to page."""
    return re.sub(r"\d+", "#", line.text)


def is_page_number(line: Line) -> bool:
    """Whether a line says nothing but which page it is on."""
    return bool(re.fullmatch(r"(?:page )?\d{1,4}(?: ?(?:/|of) ?\d{1,4})?", line.text.casefold()))


def sections(found: Sequence[Line], title: str) -> tuple[str, list[tuple[str, str]]]:
    """The title and the sections under the lines that are set larger than the body."""
    body = body_size(found)
    sizes = sorted({round(line.size, 1) for line in found if is_heading(line, body)}, reverse=True)
    path: list[tuple[int, str]] = []
    out: list[tuple[str, list[Line]]] = [("", [])]
    for level, line in headings(found, body, sizes):
        if level is None:
            out[-1][1].append(line)
        elif not path and not title and len(out) == 1:
            title = line.text
        elif not (not path and line.text.casefold() == title.casefold()):
            path = [step for step in path if step[0] < level] + [(level, line.text)]
            out.append((" > ".join(step[1] for step in path), []))
    filled = [(heading, text_of(own)) for heading, own in out]
    return title, [(heading, text) for heading, text in filled if text]


def headings(found: Sequence[Line], body: float, sizes: Sequence[float]) -> Iterator[tuple[int | None, Line]]:
    """Every line with its heading level, None for text; a heading of two lines is one."""
    waiting: Line | None = None
    for line in found:
        if not is_heading(line, body):
            if waiting:
                yield sizes.index(round(waiting.size, 1)), waiting
            waiting = None
            yield None, line
        elif waiting and goes_on(waiting, line):
            waiting = Line((f"{waiting.text} {line.text}",), waiting.size, line.y, line.page)
        else:
            if waiting:
                yield sizes.index(round(waiting.size, 1)), waiting
            waiting = line
    if waiting:
        yield sizes.index(round(waiting.size, 1)), waiting


def goes_on(before: Line, line: Line) -> bool:
    """Whether a heading's line belongs to the heading line above it."""
    near = before.page == line.page and before.y - line.y < 1.7 * line.size
    return near and abs(before.size - line.size) < 0.5


def body_size(found: Iterable[Line]) -> float:
    """The letter size that most of the text is set in."""
    letters: Counter[float] = Counter()
    for line in found:
        letters[round(line.size, 1)] += len(line.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def is_heading(line: Line, body: float) -> bool:
    """Whether a line is set as a heading: larger than the body, short, and with words in it."""
    return (
        round(line.size, 1) >= LARGER * body and len(line.text) <= LONGEST_HEADING and bool(re.search(r"\w", line.text))
    )


def text_of(own: Sequence[Line]) -> str:
    """The lines of a section as paragraphs and tables."""
    usual = statistics.median([step for step in steps(own) if step > 0] or [0.0])
    shown = [f"| {' | '.join(line.cells)} |" if in_table(own, n) else line.text for n, line in enumerate(own)]
    pieces = shown[:1]
    for number in range(1, len(own)):
        pieces += [joint(own[number - 1], own[number], shown[number - 1], shown[number], usual), shown[number]]
    out = re.sub(r"(?<=[a-z])-\0(?=[a-z])", "", "".join(pieces)).replace("\0", " ")  # once: a text can be long
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", out).strip()


def steps(own: Sequence[Line]) -> list[float]:
    """How far each line is below the one before it, on the same page."""
    return [a.y - b.y for a, b in pairwise(own) if a.page == b.page]


def in_table(own: Sequence[Line], number: int) -> bool:
    """Whether a line has as many cells as a neighbour, and more than one."""
    count = len(own[number].cells)
    near = [*own[max(0, number - 1) : number], *own[number + 1 : number + 2]]
    return count > 1 and any(len(line.cells) == count for line in near)


def joint(before: Line, line: Line, above: str, shown: str, usual: float) -> str:
    """What goes between two lines: nothing torn stays torn (NUL), items and rows stand alone, gaps are paragraphs."""
    row, was_row = shown.startswith("| "), above.startswith("| ")
    if row or was_row:
        return "\n" if row and was_row else "\n\n"
    if re.match(r"[-*•\u2013◦▪]\s|\d{1,2}[.)]\s", shown):
        return "\n"
    far = before.page == line.page and before.y - line.y > 1.4 * usual
    return "\n\n" if far else "\0"
