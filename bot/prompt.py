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


MARK = re.compile(
    r"<\|(?P<bar>[^\s|<>]{1,40})\|>|<(?P<turn>start_of_turn|end_of_turn|bos|eos|/?s)>"
    r"|\[(?P<inst>/?INST)\]|<<(?P<sys>/?SYS)>>|<\uff5c(?P<wide>[^\s\uff5c<>]{1,40})\uff5c>"
)
"""A mark of a chat template (ChatML, Llama, Gemma, Mistral, DeepSeek): in a page or a question it would end the turn
and speak in another role. A local engine takes every mark of its own tokenizer apart besides."""


def messages(question: str, passages: Sequence[str] = ()) -> list[Message]:
    """The chat for a question: closed-book, or with the text of passages to read. No text in it holds a role's mark."""
    asked = READING.format(notes="\n\n".join(passages), question=question) if passages else question
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": MARK.sub(harmless, asked)}]


def harmless(mark: re.Match[str]) -> str:
    """The word within a mark, which no template reads as a mark."""
    return f"({mark[mark.lastgroup or 0]})"
