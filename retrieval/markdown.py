"""Markdown to plain sections: front matter, shortcodes, comments and markup go; words, links and code stay.

Code is set aside before anything is stripped, so that a `#` or a `*` inside it survives to the character.
It knows nothing of files.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from retrieval import markup

FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})")
INDENT = re.compile(r"^(?: {4}| {0,3}\t)(?=.*\S)")
KEEPS_INDENTS = re.compile(r"\s*(?:(?:[-*+•:]|\d+[.)]|\[\^[^\]]*\]:|!!!|\?\?\?\+?)\s|[<|]|\{%)")
"""A list item, a note, a tag or a table: what is indented below or like one is no code."""
RAW = re.compile(r"\{%-?\s*(?:end)?raw\s*-?%\}")
HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
UNDERLINE = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
RULE = re.compile(r"^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
MARK = "\ue000{}\ue001"
MARKED = re.compile("\ue000(\\d{1,9})\ue001")
URL = r"(?:<[^<>\n]*>|(?:[^\s()\\]|\\.|\([^\s()]*\))*)"
ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://(?:[^\s<>\"'()\[\]|\\]|\([^\s()<>]*\))*[^\s<>\"'()\[\]|\\*_.,;:!?]")
TITLE = r"(?:\s+(?:\"[^\"]*\"|'[^']*'))?"


def without_marks(text: str) -> str:
    """The text without the two private characters that stand for code while a page is cleaned."""
    return text.replace("\ue000", "").replace("\ue001", "")


def front_matter(text: str) -> tuple[dict[str, str], str]:
    """The simple `key: value` lines of a leading `---` block, and the text below it."""
    found = re.match(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", text, re.DOTALL | re.MULTILINE)
    if not found:
        return {}, text
    pairs = re.findall(r"^(\w+):[ \t]*(.+?)[ \t]*$", found.group(1), re.MULTILINE)
    return {key.lower(): unquoted(value) for key, value in pairs}, text[found.end() :]


def unquoted(value: str) -> str:
    """A YAML scalar without its quotes."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1].replace("\\" + value[0], value[0]).replace("''", "'")
    return value


@dataclass
class Shelf:
    """Pieces set aside under a mark each, to be put back unchanged."""

    pieces: list[str] = field(default_factory=list)

    def set_aside(self, piece: str) -> str:
        """Keep a piece; returns the mark that stands for it."""
        self.pieces.append(piece)
        return MARK.format(len(self.pieces) - 1)

    def put_back(self, text: str) -> str:
        """The text with every piece in its place."""
        while MARKED.search(text):  # a piece may hold marks of earlier pieces
            text = MARKED.sub(lambda found: self._piece(int(found.group(1))), text)
        return text

    def _piece(self, number: int) -> str:
        """A piece, "" for a mark that the page itself spelled out."""
        return self.pieces[number] if number < len(self.pieces) else ""


def clean(text: str, shelf: Shelf) -> str:
    """Without shortcodes, comments, HTML tags and emphasis; code and URLs lie on the shelf, marked."""
    text = set_blocks_aside(fence_indented(text), shelf)
    code = r"(?<!`)(`+)(?!`)([^`]|[^`].*?[^`])\1(?!`)"
    text = re.sub(code, lambda m: shelf.set_aside(RAW.sub("", m.group())), text, flags=re.DOTALL)
    text = shortcodes(re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL))
    text = re.sub(r"\{\{[^{}]*\}\}|\{:[^}\n]*\}", "", text)
    text = re.sub(r"<((?:https?|mailto):[^<>\s]+)>", lambda m: m.group(1).removeprefix("mailto:"), text)
    text = ADDRESS.sub(lambda m: shelf.set_aside(m.group()), text)
    return emphasis(tables(links(markup.without_tags(text), shelf)))


def set_blocks_aside(text: str, shelf: Shelf) -> str:
    """Fenced code blocks become one marked line each."""
    return "\n".join(shelf.set_aside(RAW.sub("", piece)) if code else piece for piece, code in pieces(text))


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Every line, and every fenced code block whole and told as code; an open fence runs to the end."""
    block: list[str] = []
    fence = ""
    for line in text.split("\n"):
        if not fence and not (fence := fence_of(line)):
            yield line, False
            continue
        block.append(line)
        if len(block) > 1 and closes(line, fence):
            yield "\n".join(block), True
            block, fence = [], ""
    if block:
        yield "\n".join(block), True


def fence_of(line: str) -> str:
    """The fence that opens a code block in this line, "" if none does."""
    mark = FENCE.match(line)
    return mark.group(1) if mark and "`" not in line[mark.end() :] else ""


def closes(line: str, fence: str) -> bool:
    """Whether a line is a closing fence: at least as long as the opening one, with nothing behind it."""
    return line.lstrip().startswith(fence) and not line.strip(" \t" + fence[0])


def fence_indented(text: str) -> str:
    """Code that is told by its indent alone gets fences: four blanks, after an empty line, outside of lists."""
    kept: list[str] = []
    run: list[str] = []
    within, empty = False, True
    for piece, code in pieces(text):
        blank = not piece.strip()
        if not code and (run or (empty and not within)) and (INDENT.match(piece) or (run and blank)):
            run.append(piece)
            continue
        kept += [*as_code(run), piece]
        if KEEPS_INDENTS.match(piece) or (empty and not piece[:1].isspace() and not blank):
            within = bool(KEEPS_INDENTS.match(piece))
        run, empty = [], blank
    return "\n".join([*kept, *as_code(run)])


def as_code(run: list[str]) -> list[str]:
    """Indented lines between fences, unless they are a list, a table or HTML, or end a comment."""
    text = "\n".join(run)
    if not run or KEEPS_INDENTS.match(text) or re.search(r"-->|\{%-?\s*endcomment", text):
        return run
    lines = [INDENT.sub("", line) for line in text.rstrip().split("\n")]
    return [markup.fenced("\n".join(lines)), ""]


def shortcodes(text: str) -> str:
    """Without `{% ... %}`: comments go with their content, channels and link targets stay."""
    text = re.sub(r"\{%-?\s*comment\b.*?\{%-?\s*endcomment\s*-?%\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\{%\s*slack_channel\s+[\"']#?([^\"']+)[\"'].*?%\}", r"#\1", text, flags=re.DOTALL)
    text = re.sub(r"(?<=\]\()\s*\{%\s*\w+\s+[\"']([^\"'\s]+)[\"'].*?%\}\s*(?=\))", r"\1", text, flags=re.DOTALL)
    return re.sub(r"\{%.*?%\}", "", text, flags=re.DOTALL)


def links(text: str, shelf: Shelf) -> str:
    """`[text](url)` becomes `text (url)`; pictures and links within a page keep their words only."""
    text = re.sub(r"^ {0,3}\[([^\]^][^\]]*)\]:[ \t]*(\S+).*$", "", harvested(text), flags=re.MULTILINE)
    text = re.sub(rf"!\[([^\]]*)\]\(\s*{URL}{TITLE}\s*\)", r"\1", text)
    inline = re.compile(rf"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*({URL}){TITLE}\s*\)")
    return inline.sub(lambda m: readable_link(m.group(1), m.group(2).strip("<>"), shelf), text)


def harvested(text: str) -> str:
    """`[text][name]` and `[name]` as inline links, where the page defines `[name]: url`."""
    defined = {
        name.lower(): url for name, url in re.findall(r"^ {0,3}\[([^\]^][^\]]*)\]:[ \t]*(\S+)", text, re.MULTILINE)
    }
    if not defined:
        return text

    def inline(found: re.Match[str]) -> str:
        url = defined.get((found.group(2) or found.group(1)).lower())
        return f"[{found.group(1)}]({url})" if url else found.group()

    return re.sub(r"(?<!!)\[([^\[\]]+)\](?:\[([^\[\]]*)\])?(?![(:\[])", inline, text)


def readable_link(words: str, url: str, shelf: Shelf) -> str:
    """Words and URL as a person would write them; the URL is set aside, so that nothing changes it."""
    words = " ".join(shelf.put_back(words).split())
    target = shelf.put_back(url).removeprefix("mailto:")
    if not words or words == target:
        return shelf.set_aside(target)
    if not target or target.startswith("#"):
        return words
    return f"{shelf.set_aside(words) if '`' in words else words} ({shelf.set_aside(target)})"


def tables(text: str) -> str:
    """Table rows as `| a | b |`, without the ruled line below the header, which also tells rows without outer bars."""
    lines: list[str] = []
    bare = False
    for line in text.split("\n"):
        if "|" in line and TABLE_RULE.match(line):
            bare = bool(lines) and lines[-1].lstrip().find("|") > 0
            lines[-1:] = [table_row(above) if bare else above for above in lines[-1:]]
            continue
        bare = bare and "|" in line
        lines.append(table_row(line) if bare or line.lstrip().startswith("|") else line)
    return "\n".join(lines)


def table_row(line: str) -> str:
    """A row with one blank around its cells; a bar that belongs to a cell becomes a slash, as it does elsewhere."""
    cells = line.strip().replace("\\|", "/").strip("|").split("|")
    return "| " + " | ".join(cell.strip() for cell in cells) + " |"


def emphasis(text: str) -> str:
    """Without the stars and underscores around words, and without backslashes before punctuation."""
    text = re.sub(r"(\*{1,3})(?=\S)([^*\n]+(?:\n[^*\n]+)*?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?<!\w)(_{1,3})(?=\S)([^_\n]+)(?<=\S)\1(?!\w)", r"\2", text)
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def sections(text: str, title: str) -> tuple[str, list[tuple[str, str]]]:
    """The title (given, or the first top heading) and (heading path, text) of every section that has text."""
    shelf = Shelf()
    lines = outline(clean(text, shelf))
    plain = [(level, heading_words(shelf.put_back(words)) if level else words) for level, words in lines]
    return arranged(plain, title, shelf)


def page_sections(lines: Iterable[tuple[int, str]], title: str) -> tuple[str, list[tuple[str, str]]]:
    """The same of an HTML page, whose lines are final: nothing in them is Markdown but the fences of its code."""
    shelf = Shelf()
    clear = [(level, without_marks(words)) for level, words in lines]
    marked = [(level, shelf.set_aside(words) if "\n" in words else words) for level, words in clear]
    return arranged(marked, title, shelf)


def arranged(lines: Iterable[tuple[int, str]], title: str, shelf: Shelf) -> tuple[str, list[tuple[str, str]]]:
    """Lines and headings with their levels as sections; the first top heading is the title's."""
    path: list[tuple[int, str]] = []
    found: list[tuple[str, list[str]]] = [("", [])]
    for level, words in lines:
        if not level:
            found[-1][1].append(words)
        elif level == 1 and not path and (not title or words.casefold() == title.casefold()):
            title = title or words
        else:
            path = [step for step in path if step[0] < level] + [(level, words)]
            found.append((" > ".join(step[1] for step in path), []))
    filled = [(heading, shelf.put_back(tidy("\n".join(lines)))) for heading, lines in found]
    return title, [(heading, body) for heading, body in filled if body.strip()]


def outline(text: str) -> list[tuple[int, str]]:
    """Every line as (0, line), or as (level, words) where it is a heading; underlines and rules are left out."""
    lines: list[tuple[int, str]] = []
    for line in text.split("\n"):
        if found := HEADING.match(line):
            lines.append((len(found.group(1)), found.group(2)))
        elif (ruled := UNDERLINE.match(line)) and is_prose(lines):
            lines[-1] = (1 if "=" in ruled.group(1) else 2, lines[-1][1])
        else:
            lines.append((0, line))
    shown = [(level, words if level or not RULE.match(words) else "") for level, words in lines]
    return [(level, words) for level, words in shown if words.strip() or not level]


def is_prose(lines: list[tuple[int, str]]) -> bool:
    """Whether the last line can be underlined to a heading: a plain line of its own."""
    if not lines or lines[-1][0]:
        return False
    above = lines[-2] if len(lines) > 1 else (0, "")
    alone = bool(above[0]) or not above[1].strip()
    return alone and bool(re.match(r"[^\s\-*+>|#\d\ue000]", lines[-1][1]))


def heading_words(text: str) -> str:
    """A heading without its anchor and code marks."""
    return " ".join(re.sub(r"\{[:#][^}]*\}", "", text).replace("`", "").split())


def tidy(text: str) -> str:
    """Without trailing blanks and runs of empty lines."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip("\n")
