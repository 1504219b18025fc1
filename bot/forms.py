"""A long text over several fields of a form, and back: Slack's fields take 3,000 characters each.

Pure functions on text; it knows nothing of Slack.
"""

from collections.abc import Mapping, Sequence

from bot import safety

MOST_FIELDS = 10


def cut(text: str, limit: int) -> tuple[list[str], list[str]]:
    """Pieces of at most `limit` characters, cut at paragraphs, lines or words, and the white space between them."""
    pieces, gaps = list[str](), list[str]()
    while len(text) > limit and len(pieces) < MOST_FIELDS - 1:
        at = safety.cut_before(text, limit)
        piece, rest = text[:at].rstrip(), text[at:].lstrip()
        gaps.append(text[len(piece) : len(text) - len(rest)])
        pieces.append(piece)
        text = rest
    return [*pieces, text[:limit]], gaps


def joined(fields: Mapping[str, str], name: str, gaps: Sequence[str]) -> str:
    """The text of a field that was cut: the first piece stands under its name, the next under `name_2`, `name_3`."""
    text = fields.get(name, "")
    for number, gap in enumerate(gaps, 2):
        more = fields.get(f"{name}_{number}", "")
        text = f"{text}{gap}{more}" if text and more else text or more
    return text
