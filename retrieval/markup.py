"""HTML to Markdown: whole pages, and the tags that people leave in Markdown.

Built on the standard library's parser. It knows nothing of files or sections.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser

HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}


def names(words: str) -> frozenset[str]:
    """A set of tag names."""
    return frozenset(re.findall(r"\w+", words))


BLOCKS = names(
    "address article blockquote dd details div dl dt figure figcaption footer header main p section summary"
)
SILENT = names("button head iframe nav noscript script style svg template")
INLINE = names("abbr b cite em font i kbd mark q s small span strong sub sup time u var")
TABLE_STARTS = names("table tr td th")
STRUCTURE = names("a body br code hr html img li link meta ol pre tbody tfoot thead title ul") | TABLE_STARTS
KNOWN = BLOCKS | SILENT | INLINE | STRUCTURE | HEADINGS.keys()


@dataclass(frozen=True)
class Page:
    """A page as Markdown; `url` is its canonical address, if it names one."""

    title: str
    url: str
    text: str


def to_markdown(page: str) -> Page:
    """The readable part of an HTML page."""
    parser = Converter(whole_page=True)
    parser.feed(page)
    parser.close()
    return Page(" ".join(parser.title.split()), parser.url, parser.text())


def without_tags(text: str) -> str:
    """Markdown with its HTML tags turned into Markdown or dropped; `<name>` that is no tag stays."""
    if "<" not in text and "&" not in text:
        return text
    parser = Converter(whole_page=False)
    parser.feed(text)
    parser.close()
    return parser.text()


class Converter(HTMLParser):
    """Collects Markdown while the parser walks through tags."""

    def __init__(self, *, whole_page: bool) -> None:
        """`whole_page` folds white space as a browser does; otherwise Markdown's own lines are kept."""
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.url = ""
        self._whole = whole_page
        self._out: list[str] = []
        self._silent = 0
        self._in_title = False
        self._verbatim = 0
        self._lists: list[str] = []
        self._rows: list[list[str]] | None = None
        self._cell: list[str] | None = None
        self._links: list[tuple[str, int]] = []

    def text(self) -> str:
        """What was collected."""
        if self._rows is not None:
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
            self._in_title = False
        elif tag in SILENT and self._hides(tag):
            self._silent = max(0, self._silent - 1)
        elif tag in TABLE_STARTS:
            self._end_in_table(tag)
        else:
            self._end_in_text(tag)

    def _end_in_table(self, tag: str) -> None:
        self._end_cell()
        if tag == "table" and self._rows is not None:
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

    def handle_data(self, data: str) -> None:
        """Keep words."""
        if self._in_title:
            self.title += data
        elif self._whole and not self._verbatim:
            folded = re.sub(r"\s+", " ", data)
            self._write(folded.lstrip() if self._at_line_start() else folded)
        elif self._rows is None or self._cell is not None or data.strip():
            self._write(data)

    def unknown_decl(self, data: str) -> None:
        """Leave out CDATA and the like."""

    def _hides(self, tag: str) -> bool:
        return self._whole or tag in ("script", "style", "iframe", "svg", "template")

    def _start_in_table(self, tag: str) -> None:
        if tag == "table":
            if self._rows is not None:
                self._end_table()
            self._break()
            self._rows = []
        elif self._rows is not None and tag == "tr":
            self._end_cell()
            self._rows.append([])
        elif self._rows is not None and tag in ("td", "th"):
            self._end_cell()
            self._cell = []

    def _start_in_text(self, tag: str, given: dict[str, str]) -> None:
        if tag == "a":
            self._links.append((given.get("href", ""), len(self._sink)))
        elif tag == "br":
            self._write(" " if self._cell is not None else "\n")
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
            self._write(HEADINGS[tag] + " " if tag in HEADINGS else "")

    def _start_code(self, tag: str) -> None:
        self._verbatim += 1
        if tag == "pre":
            self._break()
            self._write("```\n")
        elif self._verbatim == 1:
            self._write("`")

    def _end_code(self, tag: str) -> None:
        if not self._verbatim:
            return
        self._verbatim -= 1
        if tag == "pre":
            self._write("\n```\n\n")
        elif self._verbatim == 0:
            self._write("`")

    def _end_link(self) -> None:
        url, start = self._links.pop()
        words = " ".join("".join(self._sink[start:]).split())
        del self._sink[start:]
        self._write(f"[{words}]({url})" if words and url else words)

    def _end_cell(self) -> None:
        if self._rows is not None and self._cell is not None:
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append(" ".join("".join(self._cell).split()).replace("|", "/"))
        self._cell = None

    def _end_table(self) -> None:
        self._end_cell()
        rows, self._rows = self._rows or [], None
        for row in rows:
            if any(row):
                self._out.append("| " + " | ".join(row) + " |\n")
        self._out.append("\n")

    @property
    def _sink(self) -> list[str]:
        return self._out if self._cell is None else self._cell

    def _write(self, words: str) -> None:
        if not self._silent and words:
            self._sink.append(words)

    def _break(self) -> None:
        self._write(" " if self._cell is not None else "\n\n")

    def _at_line_start(self) -> bool:
        return not self._sink or self._sink[-1].endswith(("\n", " "))
