"""HTML as a reader sees it: whole pages as lines, and the tags that people leave in Markdown as Markdown.

Built on the standard library's parser. It knows nothing of files or sections.
"""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}


def names(words: str) -> frozenset[str]:
    """A set of tag names."""
    return frozenset(re.findall(r"\w+", words))


BLOCKS = names(
    "address article blockquote caption dd details div dl dt figure figcaption footer header main p section summary"
)
SILENT = names("button iframe nav noscript script style svg template")
INLINE = names("abbr b cite em font i kbd mark q s small span strong sub sup time u var")
TABLE_STARTS = names("table tr td th")
STRUCTURE = names("a body br code head hr html img li link meta ol pre tbody tfoot thead title ul") | TABLE_STARTS
KNOWN = BLOCKS | SILENT | INLINE | STRUCTURE | HEADINGS.keys()


@dataclass(frozen=True)
class Page:
    """The lines of a page, each a heading of its level or 0 and text; `url` is its canonical address, if it names one.

    A fenced block of code is one line, the only kind that holds line breaks.
    """

    title: str
    url: str
    lines: tuple[tuple[int, str], ...]


@dataclass
class Table:
    """An open table: its rows, the cell that is being written, and the tables that ended within its cells."""

    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] | None = None
    inner: list[str] = field(default_factory=list)

    def end_cell(self) -> None:
        """Put the open cell into its row."""
        if self.cell is not None:
            self.rows = self.rows or [[]]
            self.rows[-1].append(" ".join("".join(self.cell).split()).replace("|", "/"))
        self.cell = None

    def text(self) -> str:
        """The rows between bars, and below them the tables that stood in the cells."""
        rows = ["| " + " | ".join(row) + " |\n" for row in self.rows if any(row)]
        return "\n".join(["".join(rows), *self.inner])


def read(page: str) -> Page:
    """The readable part of an HTML page."""
    parser = Converter(whole_page=True)
    parser.feed(page)
    parser.close()
    text = [(0, line) for line in parser.text().split("\n")]
    return Page(" ".join(parser.title.split()), parser.url, (*parser.lines, *text))


def fenced(code: str) -> str:
    """Code between fences that are longer than any within it."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", code))])
    return f"{fence}\n{code}\n{fence}"


def without_tags(text: str) -> str:
    """Markdown with its HTML tags turned into Markdown or dropped; `<name>` that is no tag stays."""
    if "<" not in text and "&" not in text:
        return text
    parser = Converter(whole_page=False)
    parser.feed(text)
    parser.close()
    return parser.text()


class Converter(HTMLParser):
    """Collects Markdown, of a whole page also finished lines, while the parser walks through tags."""

    def __init__(self, *, whole_page: bool) -> None:
        """`whole_page` folds white space as a browser does; otherwise Markdown's own lines are kept."""
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.url = ""
        self.lines: list[tuple[int, str]] = []
        self._whole = whole_page
        self._out: list[str] = []
        self._silent = 0
        self._in_title = self._titled = False
        self._verbatim: list[str] = []
        self._level = 0
        self._lists: list[str] = []
        self._tables: list[Table] = []
        self._links: list[tuple[str, int]] = []

    def text(self) -> str:
        """What was collected and is no finished line."""
        while self._tables:
            self._end_table()
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a block, a list, a table or a link."""
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") == "canonical":
            self.url = given.get("href", "")
        elif tag == "title":
            self._in_title = True
        elif tag in SILENT and self._hides(tag):
            self._silent += 1
        elif tag not in KNOWN and not self._whole:
            self._write(self.get_starttag_text() or "")
        elif tag in TABLE_STARTS:
            self._start_in_table(tag)
        else:
            self._start_in_text(tag, given)

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened."""
        if tag == "title":
            self._in_title, self._titled = False, bool(self.title.strip())
        elif tag in SILENT and self._hides(tag):
            self._silent = max(0, self._silent - 1)
        elif tag in TABLE_STARTS:
            self._end_in_table(tag)
        else:
            self._end_in_text(tag)

    def _end_in_table(self, tag: str) -> None:
        if self._tables:
            self._tables[-1].end_cell()
            if tag == "table":
                self._end_table()

    def _end_in_text(self, tag: str) -> None:
        if tag == "a" and self._links:
            self._end_link()
        elif tag in ("ul", "ol"):
            self._lists = self._lists[:-1]
            self._break()
        elif tag in ("pre", "code"):
            self._end_code(tag)
        elif tag in BLOCKS or tag in HEADINGS:
            self._break()
            self._level = 0

    def handle_data(self, data: str) -> None:
        """Keep words."""
        if self._in_title:
            self.title += "" if self._titled or self._silent else data
        elif self._whole and not self._verbatim:
            folded = re.sub(r"\s+", " ", data)
            self._write(folded.lstrip() if self._at_line_start() else folded)
        elif not self._tables or self._tables[-1].cell is not None or data.strip():
            self._write(data)

    def unknown_decl(self, data: str) -> None:
        """Leave out CDATA and the like."""

    def _hides(self, tag: str) -> bool:
        return self._whole or tag in ("script", "style", "iframe", "svg", "template")

    def _start_in_table(self, tag: str) -> None:
        if tag == "table":
            if self._tables and self._tables[-1].cell is None:
                self._end_table()
            self._break()
            self._tables.append(Table())
        elif self._tables:
            self._tables[-1].end_cell()
            if tag == "tr":
                self._tables[-1].rows.append([])
            else:
                self._tables[-1].cell = []

    def _start_in_text(self, tag: str, given: dict[str, str]) -> None:
        if tag == "a":
            self._links.append((given.get("href", ""), len(self._sink)))
        elif tag == "br":
            self._write("\n" if self._sink is self._out else " ")
        elif tag == "img":
            self._write(given.get("alt", ""))
        elif tag in ("ul", "ol"):
            self._lists.append("1. " if tag == "ol" else "- ")
        elif tag == "li":
            self._write("\n" + "  " * max(0, len(self._lists) - 1) + (self._lists[-1:] or ["- "])[0])
        elif tag in ("pre", "code"):
            self._start_code(tag)
        elif tag in BLOCKS or tag in HEADINGS:
            self._break()
            self._start_heading(tag)

    def _start_heading(self, tag: str) -> None:
        if not self._whole:
            self._write(HEADINGS.get(tag, ""))
        elif tag in HEADINGS and self._sink is self._out and not self._silent and not self._verbatim:
            self._finish_text()
            self._level = int(tag[1])

    def _finish_text(self) -> None:
        self.lines += [(0, line) for line in self._taken().split("\n")]

    def _taken(self) -> str:
        """What was collected; open links begin anew with what follows."""
        words = "".join(self._out)
        self._out.clear()
        self._links = [(url, 0) for url, _ in self._links]
        return words

    def _start_code(self, tag: str) -> None:
        self._verbatim.append(tag)
        if tag == "pre":
            self._break()
            self._open_fence()
        elif len(self._verbatim) == 1:
            self._write("`")

    def _open_fence(self) -> None:
        if self._whole and self._sink is self._out:
            self._finish_text()
        else:
            self._write("```\n")

    def _end_code(self, tag: str) -> None:
        if tag not in self._verbatim:
            return
        self._verbatim.remove(tag)
        if tag == "pre":
            self._close_fence()
        elif not self._verbatim:
            self._write("`")

    def _close_fence(self) -> None:
        if not self._whole or self._sink is not self._out:
            self._write("\n```\n\n")
        elif (code := self._taken().strip("\n")).strip():
            self.lines += [(0, ""), (0, fenced(code)), (0, "")]

    def _end_link(self) -> None:
        url, start = self._links.pop()
        if self._whole and self._verbatim:
            return  # code stays as it stands
        words = " ".join("".join(self._sink[start:]).split())
        del self._sink[start:]
        if self._whole:
            self._write(readable_link(words, url))
        else:
            self._write(f"[{words}]({url})" if words and url else words)

    def _end_table(self) -> None:
        table = self._tables.pop()
        table.end_cell()
        if self._tables:
            self._tables[-1].inner.append(table.text())
        else:
            self._break()
            self._out.append(table.text() + "\n")

    @property
    def _sink(self) -> list[str]:
        return next((table.cell for table in reversed(self._tables) if table.cell is not None), self._out)

    def _write(self, words: str) -> None:
        if not self._silent and words:
            self._sink.append(words)

    def _break(self) -> None:
        if self._level and "".join(self._out).strip():
            self.lines.append((self._level, " ".join(self._taken().replace("`", "").split())))
            self._level = 0
        self._write("\n\n" if self._sink is self._out else " ")

    def _at_line_start(self) -> bool:
        return not self._sink or self._sink[-1].endswith(("\n", " "))


def readable_link(words: str, url: str) -> str:
    """Words and URL as a person would write them; a link within the page keeps its words only."""
    target = url.removeprefix("mailto:")
    if not words or not target or target.startswith("#") or words == target:
        return words
    return f"{words} ({target})"
