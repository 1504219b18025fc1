"""A passage as the sentences that can be quoted from it.

Lines that were only wrapped are joined again, commands and addresses on lines of their own stay there, list items
know the line that introduces them, and table rows carry the names of their columns. Nothing is reworded.
It knows nothing of questions or vectors.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval import markdown
from storage.documents import ADDRESS

END = re.compile(
    r"(?<=[.!?])(?<!\s\.)(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\bNo\.)[\"')\]*]*\s+(?=[A-Z0-9\"'(\[`€$£])"
    "|(?<=[\u3002\uff01\uff1f])"
)
ITEM = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s+")
FENCES = ("```", "~~~")
WRAPPED = 45
"""Characters that a wrapped line has at least; after a shorter one a capital letter begins something new."""
LEADS_ON = re.compile(
    r"(?:[,;&/\u2013\u2014]|[\w\s]-|(?<!\S)(?:a|after|an|and|any|are|as|at|be|been|before|but|by|can|each|every|for|from|had"
    r"|has|have|if|in|into|is|its|may|must|no|not|of|on|or|our|over|per|should|than|that|the|their|these|this|to"
    r"|under|until|was|were|when|which|who|will|with|within|without|your))$",
    re.IGNORECASE,
)
"""How no line ends that is complete."""
FOLLOWS = re.compile(
    r"(?:after|and|are|at|because|before|but|by|can|for|from|has|have|if|in|is|may|must|not|of|on|or|should|than|that"
    r"|to|unless|until|was|were|when|which|while|will|with|within|without)\s|.*[^\s.!?][.!?][\"')\]*_]*$"
)
"""How the rest of a sentence begins or ends, when it begins in lower case."""
ADDRESS_LINE = re.compile(
    r"[<(\"']?(?:[^\s@]+@[^\s@]+|[a-z][a-z0-9+.-]*://\S+|(?:[\w-]+\.)+\w+(?:[:/]\S*)?|[~.]{0,2}/\S+)(?<![.!?])"
)
"""An e-mail address, URL, host or path alone; with a full stop behind it, it ends a sentence."""
COMMAND = re.compile(
    r"(?:[$%]\s)?(?:(?:apk|apt|apt-get|aws|az|brew|cargo|chmod|chown|conda|cp|curl|dnf|docker|docker-compose|gcloud|gh"
    r"|git|helm|journalctl|kubectl|mkdir|mv|mysql|npm|npx|openssl|pip|pip3|pipx|pnpm|poetry|psql|python|python3"
    r"|redis-cli|rm|rsync|scp|sed|ssh|sudo|systemctl|tar|terraform|uv|wget|yarn|yum)\s"
    r"|[~.]{0,2}/\S|(?:export\s)?[A-Za-z_]\w*=\S|[a-z][\w.-]*(?:\s\w\S*){0,3}\s--?[A-Za-z])"
)
"""A well-known command, a path, a variable that is set, or a name that is followed by options."""
PROSE = re.compile(
    r"(?<!\S)(?:a|an|and|are|be|can|if|is|it|may|must|of|or|our|should|that|the|their|this|was|we|when|which|will|with"
    r"|you|your)(?!\S)|\w[.,;!?]$"
)
"""What stands in sentences and, outside of quotation marks, hardly in commands."""
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
BEHIND = ",;>)\"'"
"""What may stand behind an address in a list of them."""


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
            waiting = together(waiting, line)
            continue
        if waiting:
            yield waiting
        waiting = line.strip() if line.lstrip().startswith(("|", *FENCES)) else line
        if not line.strip():
            yield ""
            waiting = ""
    if waiting:
        yield waiting


def together(before: str, line: str) -> str:
    """A line with its rest; a command that a backslash continues keeps its line break."""
    if unfinished(before):
        return f"{before.rstrip()}\n{line.rstrip()}"
    return f"{before.rstrip()} {line.strip()}"


def goes_on(before: str, line: str) -> bool:
    """Whether a line is the rest of a wrapped one rather than a line of its own."""
    text = line.strip()
    if not text or text.startswith(("|", *FENCES)) or ITEM.match(line):
        return False
    if before.startswith(("|", *FENCES)) or before.rstrip().endswith(":"):
        return False
    return unfinished(before) or (wrapped(before.strip(), text) and not apart(before.strip(), text))


def wrapped(before: str, text: str) -> bool:
    """Whether a line looks as if it had no room for the next one, or the next one as if it began within a sentence."""
    if before[-1] in ",;" or (len(before) >= WRAPPED and not is_address(before)):
        return True
    if not text[0].islower():
        return not text[0].isupper()
    begun = before[-1] not in ".!?" and (len(text) >= WRAPPED or FOLLOWS.match(text))
    return bool(begun or ITEM.match(before) or LEADS_ON.search(before))


def apart(before: str, text: str) -> bool:
    """Whether one of two lines is a command or an address by itself; an address may stand within wrapped prose."""
    if is_command(before) or is_command(text):
        return True
    if is_address(before):
        return is_address(text) or not text[0].islower()
    return is_address(text) and not (LEADS_ON.search(before) or breaks_off(before))


def breaks_off(before: str) -> bool:
    """Whether a line is long, ends no sentence, and does not end in an address, of which more may follow."""
    return len(before) >= WRAPPED and before[-1] not in ".!?" and not is_address(before.split()[-1])


def is_address(text: str) -> bool:
    """Whether a text is an address and nothing else."""
    return bool(ADDRESS_LINE.fullmatch(text.rstrip(BEHIND)))


def is_command(text: str) -> bool:
    """Whether a line, or what stands in a list item, is typed rather than read."""
    item = ITEM.match(text)
    text = text[item.end() :] if item else text
    return bool(COMMAND.match(text)) and not PROSE.search(QUOTED.sub("", text))


def unfinished(before: str) -> bool:
    """Whether a command goes on in the next line."""
    return before.rstrip().endswith("\\") and is_command(before.strip())
