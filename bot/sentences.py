"""A passage as the sentences that can be quoted from it.

Lines that were only wrapped are joined again, list items know the line that introduces them, and table rows carry
the names of their columns. Nothing is reworded. It knows nothing of questions or vectors.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval import markdown
from storage.documents import ADDRESS

END = re.compile(
    r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\bNo\.)[\"')\]*]*\s+(?=[A-Z0-9\"'(\[`€$£])"
    "|(?<=[\u3002\uff01\uff1f])"
)
ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s+")
FENCES = ("```", "~~~")
WRAPPED = 45
"""Characters that a wrapped line has at least; after a shorter one a capital letter begins something new."""


@dataclass(frozen=True)
class Sentence:
    """What can be quoted: `text` word for word, `lead` the line that introduces its list or code, if any."""

    text: str
    lead: str = ""

    @property
    def bare(self) -> str:
        """The text without list marks and without the addresses that stand behind words."""
        return ADDRESS.sub("", ITEM.sub("", self.text, count=1) if ITEM.match(self.text) else self.text)

    @property
    def introduced(self) -> str:
        """The bare text behind its lead."""
        return f"{ADDRESS.sub('', self.lead)} {self.bare}" if self.lead else self.bare


def sentences(passage: str) -> tuple[Sentence, ...]:
    """A passage cut into sentences, list items, table rows and code blocks, in order."""
    found: list[Sentence] = []
    leads: list[tuple[int, str]] = []
    header = ""
    for line in unwrapped(passage):
        if line.startswith("|"):
            found += [Sentence(row(header, line))] if header else []
            header = header or line
            continue
        header = ""
        if line.startswith(FENCES):
            found.append(Sentence(line, leads[-1][1] if leads else ""))
        elif line.strip():
            leads = introducing(leads, line, found)
    return tuple(found)


def introducing(leads: Sequence[tuple[int, str]], line: str, found: list[Sentence]) -> list[tuple[int, str]]:
    """Add the sentences of a line to `found`; returns the lines (indent, text) that introduce the next one."""
    item = ITEM.match(line)
    indent = len(line) - len(line.lstrip()) if item else -1
    above = [lead for lead in leads if lead[0] < indent]
    parts = [part.strip() for part in END.split(line.strip()) if re.search(r"\w", ITEM.sub("", part))]
    found += [Sentence(part, above[-1][1] if above else "") for part in parts]
    opens = parts and (not item or parts[-1].endswith(":"))
    return [*above, (indent, parts[-1])] if opens else above


def row(header: str, line: str) -> str:
    """A table row with each cell behind the name of its column."""
    names, cells = ([cell.strip() for cell in re.split(r"(?<!\\)\|", text.strip("|"))] for text in (header, line))
    if len(names) != len(cells):
        return line.strip("| ")
    return " · ".join(f"{name}: {cell}" if name else cell for name, cell in zip(names, cells, strict=True) if cell)


def unwrapped(passage: str) -> Iterator[str]:
    """The lines of a passage, wrapped ones joined; a code block is one line, an empty line ends a paragraph."""
    waiting = ""
    for line, _ in markdown.pieces(passage):
        if waiting and goes_on(waiting, line):
            waiting = f"{waiting.rstrip()} {line.strip()}"
            continue
        if waiting:
            yield waiting
        waiting = line.strip() if line.lstrip().startswith(("|", *FENCES)) else line
        if not line.strip():
            yield ""
            waiting = ""
    if waiting:
        yield waiting


def goes_on(before: str, line: str) -> bool:
    """Whether a line is the rest of a wrapped one rather than a line of its own."""
    text = line.strip()
    if not text or text.startswith(("|", *FENCES)) or ITEM.match(line):
        return False
    if before.startswith(("|", *FENCES)) or before.rstrip().endswith(":"):
        return False
    return len(before) >= WRAPPED or before.rstrip()[-1] in ",;" or not text[0].isupper()
