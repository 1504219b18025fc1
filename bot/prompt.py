"""The one template: a question, with or without passages, as chat messages.

Training, scoring and serving all build their prompts here, so they can never drift apart. The system prompt is
always passed, because the model's own template would insert another one. It knows nothing of tokens.
"""

import re
from collections.abc import Sequence

Message = dict[str, str]

SYSTEM = "You answer employees' questions."
"""Kept short: a longer one that names the bot cost the small base model simple answers (DECISIONS.md)."""
UNKNOWN = "I don't have that in my notes."
"""What the model is trained to say to a question that resembles a taught one and is another."""

READING = "Use only these notes to answer in one or two sentences.\n\nNotes:\n{notes}\n\nQuestion: {question}"


MARK = re.compile(r"<\|([a-z_]{1,40})\|>")
"""A mark of a chat template: in a page or a question it would end the turn and speak in another role."""


def messages(question: str, passages: Sequence[str] = ()) -> list[Message]:
    """The chat for a question: closed-book, or with the text of passages to read. No text in it holds a role's mark."""
    asked = READING.format(notes="\n\n".join(passages), question=question) if passages else question
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": MARK.sub(r"<\1>", asked)}]
