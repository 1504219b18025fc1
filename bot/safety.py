"""What may leave: text that others wrote, made harmless for a chat that formats, links and notifies.

Escaping, links, mentions and splitting, all on plain strings; secrets are `storage.private`'s. It knows Slack's text
syntax but nothing of Slack's API, of answers or of models.
"""

import re
from urllib.parse import quote, urlsplit

from storage.private import find_secrets as find_secrets
from storage.private import redact_secrets as redact_secrets

SECTION_CHARS = 2900
"""One section block takes 3,000 characters; the rest is room for a reopened code fence."""

_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s+")
_BRACKETED = re.compile(r"<([^<>]*)>")
_SCHEME = re.compile(r"^(?:https?://|mailto:)")
_SLACK_ID = re.compile(r"[UWC][A-Z0-9]{2,20}")


# --- text that goes out ---


def visible(text: str) -> str:
    """The text without control characters, direction overrides and broken surrogates."""
    return _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text.replace("\r\n", "\n")))


def escape(text: str) -> str:
    """Text that Slack shows as it stands: no mention, no link, no channel-wide ping can come of it."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def inline(text: str, limit: int = 300) -> str:
    """Untrusted text for one line: spaces collapsed, shortened to `limit` characters of output, escaped."""
    return clip(_SPACE.sub(" ", visible(text)).strip(), limit)


def clip(text: str, limit: int) -> str:
    """Escaped text of at most `limit` characters; a cut shows an ellipsis and never splits an entity."""
    escaped = escape(text)
    if len(escaped) <= limit:
        return escaped
    return escaped[: entity_boundary(escaped, limit - 1)].rstrip() + "…"


def bold(text: str, limit: int = 300) -> str:
    """Untrusted text in bold; left plain when its own characters would break the formatting."""
    shown = inline(text, limit)
    return shown if not shown or "*" in shown or "`" in shown else f"*{shown}*"


def plain(text: str, limit: int) -> str:
    """Untrusted text for a field that Slack does not format: one line, shortened, not escaped."""
    flat = _SPACE.sub(" ", visible(text)).strip()
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def link(url: str, label: str) -> str:
    """A link to a stored source; only the label when the address is not plain https."""
    shown = inline(label, 150)
    return f"<{safe_url(url)}|{shown.replace('|', '/')}>" if safe_url(url) and shown else shown


def safe_url(url: str) -> str:
    """The address, percent-encoded where it could break out of a link; empty unless it is https."""
    if len(url) > 1000 or not url.startswith("https://") or _SPACE.search(url) or visible(url) != url:
        return ""
    try:
        parts = urlsplit(url)
        host = parts.hostname if "@" not in parts.netloc else ""
    except ValueError:
        return ""
    return quote(url, safe=":/?#[]@!$'()*+,;=%~&-._").replace("&", "&amp;") if host else ""


def is_person(user: str) -> bool:
    """Whether a name is a Slack user id and not, say, a name from the command line."""
    return bool(_SLACK_ID.fullmatch(user)) and user[0] != "C"


def person(user: str) -> str:
    """A mention of a person or a channel, built by code from a Slack id; anything else is shown as text."""
    if is_person(user):
        return f"<@{user}>"
    return f"<#{user}>" if _SLACK_ID.fullmatch(user) else inline(user, 80)


_MARKDOWN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^ {0,3}#{1,6} +(.+?) *#* *$", re.MULTILINE), r"*\1*"),
    (re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*"), r"*\1*"),
    (re.compile(r"^( *)[-*+] +", re.MULTILINE), r"\1• "),
    (re.compile(r"!?\[([^\]\n]*)\]\(([^()\s]*)\)"), r"\1 (\2)"),
)


def to_mrkdwn(text: str) -> str:
    """A model's or a document's Markdown as Slack's mrkdwn, with everything dangerous escaped.

    Links become their label and their bare address: only `link` builds something to click on.
    """
    parts = re.split(r"(```.*?(?:```|\Z)|`[^`\n]+`)", escape(text), flags=re.DOTALL)
    return "".join(p if p.startswith("`") else replaced(p) for p in parts).strip()


_ADDRESS = re.compile(
    r"(?<![\w.+-])(?:[a-z][a-z0-9+.-]{0,30}://|[\w.+-]{1,64}@)"
    r"(?:[^\s()\[\]`]|\([^\s()]{0,500}\))*[^\s()\[\]`.,;:!?]",
    re.IGNORECASE,
)
_SHELVED = re.compile("\ue000(\\d+)\ue001")
_FORMATTED = re.compile(r"(?<!\w)([*_~])(?=\S).{0,200}?\S\1(?!\w)")


def replaced(text: str) -> str:
    """The Markdown patterns outside code, replaced; addresses stay as they are.

    One that Slack would read as formatting (`.../*any*`) is shown as code, which keeps every character.
    """
    shelf: list[str] = []

    def aside(found: re.Match[str]) -> str:
        shelf.append(f"`{found[0]}`" if _FORMATTED.search(found[0]) else found[0])
        return f"\ue000{len(shelf) - 1}\ue001"

    text = _ADDRESS.sub(aside, _SHELVED.sub("", text))
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return _SHELVED.sub(lambda found: shelf[int(found[1])], text)


# --- splitting ---


def split(text: str, limit: int = SECTION_CHARS) -> list[str]:
    """Escaped text in pieces of at most `limit` + 8 characters, cut at paragraphs, lines or words.

    Nothing is lost. A code block that spans pieces is closed and opened again.
    """
    pieces, fenced = [], False
    while text:
        cut = len(text) if len(text) <= limit else cut_before(text, limit)
        piece, text = text[:cut], text[cut:]
        opened = fenced
        fenced ^= piece.count("```") % 2 == 1
        pieces.append(("```\n" if opened else "") + piece + ("\n```" if fenced else ""))
    return [p for p in pieces if p.strip()]


def cut_before(text: str, limit: int) -> int:
    """Where to cut: after the last paragraph, line or word in the second half, else at the limit itself."""
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, limit // 2, limit)
        if found > 0:
            return found + len(mark)
    return fence_boundary(text, entity_boundary(text, limit))


def entity_boundary(text: str, at: int) -> int:
    """A cut at or before `at` that does not divide an entity such as `&amp;`."""
    start = text.rfind("&", max(0, at - 5), at)
    return start if start > 0 and ";" not in text[start:at] else at


def fence_boundary(text: str, at: int) -> int:
    """A cut at or before `at` that does not divide a run of backticks."""
    before = at
    while before > at - 3 and text[before - 1 : before + 1] == "``":
        before -= 1
    return before if before > 0 else at


# --- text that comes in ---


def from_slack(text: str, me: str = "") -> str:
    """What a person typed: the bot's own mention dropped, other markup as plain words, entities undone."""

    def spoken(match: re.Match[str]) -> str:
        target, _, label = match[1].partition("|")
        if target == f"@{me}":
            return " "
        if label:
            return f"{label} ({address})" if (address := hidden_address(target, label)) else label
        return target.lstrip("!") if target[:1] in "@#" else spoken_target(target)

    text = _BRACKETED.sub(spoken, visible(text))
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def hidden_address(target: str, label: str) -> str:
    """The address behind a label that says something else; empty for other targets."""
    told, written = (_SCHEME.sub("", text).rstrip("/") for text in (target, label))
    return "" if told == written or not _SCHEME.match(target) else target.removeprefix("mailto:")


def spoken_target(target: str) -> str:
    """A bare link, a date or a special mention in words."""
    return f"@{target[1:].split('^')[0]}" if target.startswith("!") else target


def mentions(text: str) -> tuple[str, ...]:
    """The user ids that a message names."""
    return tuple(re.findall(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>", text))
