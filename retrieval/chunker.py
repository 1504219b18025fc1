"""Sections to passages: at most 200 word pieces under their heading, cut where a reader would pause.

Cuts fall between paragraphs, list items, table rows and code lines, then between sentences, and only in need
between words. It knows the tokenizer as a function that counts, and nothing of vectors or files.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed

from retrieval import markdown
from retrieval.loaders import LoadedDocument, Section

VERSION = 4
"""Raised whenever loaders or chunker give other passages for the same file, so that it is ingested again."""
LIMIT = 200
"""Word pieces of a passage with its `title > heading` line; MiniLM reads 256 and silently drops the rest."""
SPECIAL = 2
"""The tokens that the model puts around a text."""
TITLE_LIMIT, HEADING_LIMIT = 32, 64
SECTION_CHARS = 2500

Counter = Callable[[Sequence[str]], list[int]]
SENTENCE_END = re.compile(
    r"((?:(?<=[.!?])|(?<=[.!?][\"')\]]))(?<!\b[A-Z]\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)\s+"
    "|(?<=[\u3002\uff01\uff1f]))"  # the full stops of Chinese and Japanese, after which no space follows
)
ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s")


@dataclass(frozen=True)
class Piece:
    """A passage before it has a vector."""

    heading: str
    text: str
    section: str


@dataclass(frozen=True)
class Unit:
    """What is not cut if it fits; `glue` joins it to the unit before.

    A passage that it begins is led by `repeat`, one that it ends is closed by `close`: table headers and fences.
    """

    text: str
    glue: str
    repeat: str = ""
    close: str = ""


def split(document: LoadedDocument, count: Counter) -> tuple[str, tuple[Piece, ...]]:
    """The title (shortened if it is very long) and the passages of a document."""
    count = remembering(count)
    count([unit.text for section in document.sections for unit in units_of(section.text)])
    title = shorten(document.title, TITLE_LIMIT, count)
    pieces = (piece for section in document.sections for piece in split_section(title, section, count))
    return title, tuple(pieces)


def remembering(count: Counter) -> Counter:
    """The same counter, asked once for each text: a tokenizer is fast only in batches."""
    known: dict[str, int] = {}

    def counted(texts: Sequence[str]) -> list[int]:
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(fresh, count(fresh), strict=True))
        return [known[text] for text in texts]

    return counted


def split_section(title: str, section: Section, count: Counter) -> Iterator[Piece]:
    """The passages of one section."""
    heading = shorten(section.heading, HEADING_LIMIT, count)
    room = LIMIT - SPECIAL - count([f"{title} > {heading}" if heading else title])[0]
    units = [part for unit in units_of(section.text) for part in fitted(unit, room, count)]
    for start, end in spans(units, room, count):
        yield Piece(heading, joined(units[start:end]), around(units, start, end))


def spans(units: Sequence[Unit], room: int, count: Counter) -> Iterator[tuple[int, int]]:
    """Which units go together: as many as fit, in order."""
    sizes = count([unit.text for unit in units])
    again = sorted({mark for unit in units for mark in (unit.repeat, unit.close)})
    leads = dict(zip(again, count(again), strict=True))
    start, used = 0, 0
    for number, (unit, size) in enumerate(zip(units, sizes, strict=True)):
        if used and used + size + leads[unit.close] > room:
            yield start, number
            start, used = number, 0
        used += size if used else size + leads[unit.repeat]
    if start < len(units):
        yield start, len(units)


def joined(units: Sequence[Unit]) -> str:
    """Units as one text, with the table header or fences again where it begins or ends within a table or code."""
    first = f"{units[0].repeat}\n{units[0].text}" if units[0].repeat else units[0].text
    last = f"\n{units[-1].close}" if units[-1].close else ""
    return first + "".join(unit.glue + unit.text for unit in units[1:]) + last


def around(units: Sequence[Unit], start: int, end: int) -> str:
    """The units from start to end with as many neighbours on both sides as the section limit allows."""
    size = sum(len(unit.text) + 2 for unit in units[start:end])
    while True:
        before, after = start, end
        if end < len(units) and size + len(units[end].text) + 2 <= SECTION_CHARS:
            size += len(units[end].text) + 2
            end += 1
        if start and size + len(units[start - 1].text) + 2 <= SECTION_CHARS:
            start -= 1
            size += len(units[start].text) + 2
        if (before, after) == (start, end):
            return joined(units[start:end])


def units_of(text: str) -> Iterator[Unit]:
    """Paragraphs, list items, table rows and code blocks, in order."""
    for block in blocks(text):
        lines = block.split("\n")
        if markdown.fence_of(lines[0]):
            yield Unit(block, "\n\n")
        elif lines[0].lstrip().startswith("|"):
            yield Unit(lines[0], "\n\n")
            yield from (Unit(line, "\n", repeat=lines[0]) for line in lines[1:])
        else:
            for number, item in enumerate(items(lines)):
                yield Unit(item, "\n" if number else "\n\n")


def blocks(text: str) -> Iterator[str]:
    """The text between empty lines; code, and a table after a line of text, are blocks of their own."""
    current: list[str] = []
    for line, code in markdown.pieces(text):
        apart = current and line.lstrip().startswith("|") != current[-1].lstrip().startswith("|")
        if code or apart or not line.strip():
            yield from flushed(current)
            current = []
        if code:
            yield line
        elif line.strip():
            current.append(line)
    yield from flushed(current)


def flushed(lines: list[str]) -> Iterator[str]:
    """The lines as one block, if there are any."""
    if lines:
        yield "\n".join(lines)


def items(lines: Sequence[str]) -> Iterator[str]:
    """A paragraph as it is, or the single items of a list."""
    current: list[str] = []
    for line in lines:
        if ITEM.match(line) and current:
            yield "\n".join(current)
            current = []
        current.append(line)
    yield "\n".join(current)


def fitted(unit: Unit, room: int, count: Counter) -> Iterator[Unit]:
    """The unit, or parts of it that fit: lines of code, sentences, else words."""
    room -= count([unit.repeat])[0] if unit.repeat else 0
    if room < LIMIT // 4:  # a table header that leaves no room is not repeated
        room, unit = room + count([unit.repeat])[0], changed(unit, repeat="")
    if count([unit.text])[0] <= room:
        yield unit
        return
    if fence := markdown.fence_of(unit.text.split("\n", 1)[0]):
        yield from code_lines(unit, fence, room, count)
        return
    glue = unit.glue
    for after, part in sentences(unit.text, room, count):
        for cut in by_words(part, room, count):
            yield Unit(cut, glue, unit.repeat)
            glue = " "
        glue = after


def sentences(text: str, room: int, count: Counter) -> Iterator[tuple[str, str]]:
    """Each sentence with what follows it; of one that does not fit each line, as in a list of commands."""
    parts = [*SENTENCE_END.split(text), ""]
    for sentence, space in zip(parts[::2], parts[1::2], strict=True):
        after = "\n" if "\n" in space else space and " "
        lines = [sentence] if count([sentence])[0] <= room else sentence.split("\n")
        lines = [line for line in lines if line.strip()]
        yield from ((after if number == len(lines) else "\n", line) for number, line in enumerate(lines, 1))


def code_lines(unit: Unit, fence: str, room: int, count: Counter) -> Iterator[Unit]:
    """A fenced block line by line, also the empty ones; a passage that begins or ends within it is fenced again."""
    opening, *lines = unit.text.split("\n")
    closing = lines.pop() if lines and markdown.closes(lines[-1], fence) else fence
    if count([opening])[0] > LIMIT // 4:  # what leaves no room for code is not repeated
        opening, lines = fence, [opening, *lines]
    room -= sum(count([opening, closing]))
    cuts = [cut for line in lines for cut in by_words(line, room, count)] or [""]
    cuts[0], last = f"{opening}\n{cuts[0]}", len(cuts) - 1
    cuts[last] += f"\n{closing}"
    for number, cut in enumerate(cuts):
        first = number == 0
        yield Unit(cut, unit.glue if first else "\n", "" if first else opening, closing if number < last else "")


def by_words(text: str, room: int, count: Counter) -> Iterator[str]:
    """The text in halves of halves until each fits, cut at a space if there is one."""
    if count([text])[0] <= room or len(text) < 2:
        yield text
        return
    middle = len(text) // 2
    space = text.rfind(" ", 1, middle + 1)
    cut = space if space > 0 else middle
    yield from by_words(text[:cut].rstrip(), room, count)
    yield from by_words(text[cut:].lstrip(), room, count)


def shorten(words: str, limit: int, count: Counter) -> str:
    """A title or heading that fits: the last steps of its path, else its beginning."""
    words = " ".join(words.split())
    while count([words])[0] > limit:
        _, step, rest = words.partition(" > ")
        words = rest if step else words[: len(words) * 3 // 4].rstrip()
    return words
