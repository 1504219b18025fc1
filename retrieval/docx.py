"""Word documents to titled sections, with the standard library alone: a .docx is a zip of XML.

Headings are found by the built-in names of their styles, whatever language Word speaks; lists, tables and links are
kept as a reader would see them, text that was deleted under track changes is not. It knows nothing of passages.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from storage.errors import UserError

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
DC_TITLE = "{http://purl.org/dc/elements/1.1/}title"
LARGEST = 100_000_000
"""Bytes of the largest part once unpacked; a small zip can hold gigabytes of zeros."""
DEEPEST = 9
"""Levels of headings that Word has."""


@dataclass
class Written:
    """What was read so far: sections as (path of headings, lines), and the title if the text itself names one."""

    title: str = ""
    path: list[tuple[int, str]] = field(default_factory=list)
    sections: list[tuple[str, list[str]]] = field(default_factory=lambda: [("", [])])

    def heading(self, level: int, words: str) -> None:
        """Open a section; level 0 is the document's title."""
        if level == 0 and not self.title:
            self.title = words
            return
        self.path = [step for step in self.path if step[0] < level] + [(level, words)]
        self.sections.append((" > ".join(step[1] for step in self.path), []))

    def line(self, text: str) -> None:
        """Add a paragraph, a list item or a table row to the open section."""
        self.sections[-1][1].append(text)


def read(name: str, content: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The title ("" if none is named) and (heading path, text) of every section. Raises UserError if it is broken."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            body = part(parts, "word/document.xml")
            if body is None:
                raise UserError(f"{name} is no Word document (word/document.xml is missing).")
            levels, targets = styles(parts), links(parts)
            titled = part(parts, "docProps/core.xml")
    except UserError:
        raise
    except Exception as error:  # a torn zip fails in many ways: zlib, struct, XML, missing keys
        raise UserError(f"{name} is a broken Word document ({error}).") from error
    written = Written()
    for block in blocks(body):
        if block.tag == W + "tbl":
            written.line(table(block, targets))
        else:
            add(written, block, levels, targets)
    named = " ".join((titled.findtext(DC_TITLE) or "").split()) if titled is not None else ""
    found = [(heading, text(lines)) for heading, lines in written.sections]
    return written.title or named, [(heading, body) for heading, body in found if body]


def part(parts: zipfile.ZipFile, name: str) -> Element | None:
    """One XML part, None when it is not there. Raises ValueError when it is too large or declares entities."""
    if name not in parts.namelist():
        return None
    if parts.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is larger than {LARGEST // 1_000_000} MB")
    content = parts.read(name)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{name} declares entities")
    return ElementTree.fromstring(content)


def styles(parts: zipfile.ZipFile) -> dict[str, int]:
    """The heading level of each style id that is a heading or is based on one; 0 is the title."""
    root = part(parts, "word/styles.xml")
    levels: dict[str, int] = {}
    bases: dict[str, str] = {}
    for style in root.iter(W + "style") if root is not None else ():
        key = style.get(W + "styleId", "")
        level = level_of(value(style.find(W + "name")), value(style.find(f"{W}pPr/{W}outlineLvl")))
        if level is not None:
            levels[key] = level
        bases[key] = value(style.find(W + "basedOn"))
    for key in bases:
        base, seen = bases[key], {key}
        while key not in levels and base and base not in seen:
            seen.add(base)
            levels |= {key: levels[base]} if base in levels else {}
            base = bases.get(base, "")
    return levels


def level_of(name: str, outline: str) -> int | None:
    """The heading level that a style's built-in name or outline level stands for."""
    if name.lower() == "title":
        return 0
    if found := re.fullmatch(r"heading (\d)", name.lower()):
        return int(found[1])
    return int(outline) + 1 if outline.isdigit() and int(outline) < DEEPEST else None


def links(parts: zipfile.ZipFile) -> dict[str, str]:
    """The addresses that the document links to, by relationship id."""
    root = part(parts, "word/_rels/document.xml.rels")
    outside = (one for one in root if one.get("TargetMode") == "External") if root is not None else ()
    return {one.get("Id", ""): one.get("Target", "").removeprefix("mailto:") for one in outside}


def blocks(element: Element) -> Iterator[Element]:
    """The paragraphs and tables in order, also those inside content controls and insertions."""
    for child in element:
        if child.tag in (W + "p", W + "tbl"):
            yield child
        elif child.tag not in PASSED_BY:
            yield from blocks(child)


def parts_of(element: Element, tag: str) -> Iterator[Element]:
    """The rows of a table or the cells of a row, not those of tables within."""
    for child in element:
        if child.tag == tag:
            yield child
        else:
            yield from parts_of(child, tag)


def add(written: Written, paragraph: Element, levels: Mapping[str, int], targets: Mapping[str, str]) -> None:
    """One paragraph: a heading, a list item, or text."""
    words = said(paragraph, targets).strip()
    if not words:
        return
    about = paragraph.find(W + "pPr")
    style = value(about.find(W + "pStyle")) if about is not None else ""
    own = level_of("", value(about.find(W + "outlineLvl"))) if about is not None else None
    level = levels.get(style, own)
    if level is not None:
        written.heading(level, " ".join(words.split()))
        return
    listed = about.find(W + "numPr") if about is not None else None
    if listed is None and not re.match(r"List ?(Bullet|Number|Paragraph)", style):
        written.line(words)
        return
    depth = value(listed.find(W + "ilvl")) if listed is not None else ""
    written.line(f"{'  ' * int(depth) if depth.isdigit() else ''}- {words}")


def said(element: Element, targets: Mapping[str, str]) -> str:
    """The text of a paragraph or a run, links with their address behind them."""
    shown: list[str] = []
    for child in element:
        if child.tag == W + "t":
            shown.append(child.text or "")
        elif child.tag in MARKS:
            shown.append(MARKS[child.tag])
        elif child.tag == W + "hyperlink":
            shown.append(linked(said(child, targets), targets.get(child.get(R + "id", ""), "")))
        elif child.tag not in PASSED_BY:
            shown.append(said(child, targets))
    return "".join(shown)


MARKS = {W + "tab": " ", W + "br": "\n", W + "cr": "\n", W + "noBreakHyphen": "-"}
PASSED_BY = {W + name for name in ("del", "moveFrom", "pPr", "rPr", "instrText", "p", "tbl")} | {FALLBACK}
"""Deleted and moved text, formatting and field codes; a text box in a paragraph is left out."""


def linked(words: str, address: str) -> str:
    """A link as a person would write it."""
    if not address or words.strip() == address:
        return words
    return f"{words} ({address})" if words.strip() else address


def table(element: Element, targets: Mapping[str, str]) -> str:
    """A table as rows of cells between bars, and below it the tables that stand in its cells."""
    rows, inner = [], []
    for row in parts_of(element, W + "tr"):
        cells = []
        for cell in parts_of(row, W + "tc"):
            held = list(blocks(cell))
            cells.append(" ".join(" ".join(said(p, targets) for p in held if p.tag == W + "p").split()))
            inner += [table(one, targets) for one in held if one.tag == W + "tbl"]
        if any(cells):
            rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n\n".join(filter(None, ["\n".join(rows), *inner]))


def text(lines: list[str]) -> str:
    """Paragraphs with an empty line between them; list items stay together."""
    out = ""
    for line in lines:
        together = line.lstrip().startswith("- ") and out.rsplit("\n", 1)[-1].lstrip().startswith("- ")
        out += ("\n" if together else "\n\n") + line
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", out).strip()


def value(element: Element | None) -> str:
    """The `w:val` of an element, "" when there is none."""
    return element.get(W + "val", "") if element is not None else ""
