"""A yes/no judge over a model server: is what was asked the question that was taught?

The verdict is the probability of "yes" against "no" as the first word of the reply, so it can be calibrated like any
other feature; how good it is depends on the model alone (`tests/bench/judge.py` measures one). It knows nothing of
routes and thresholds, and a text that tells it what to say may well be obeyed: it is evidence, never permission.
"""

import math
from collections.abc import Sequence
from typing import Protocol

from bot import modelserver
from bot.modelserver import ModelServer, Token
from bot.prompt import Message
from bot.remote import Watch
from storage.errors import EngineError
from storage.settings import Settings

LIKELIEST = 20
"""Alternatives asked for; vLLM gives at most so many unless told otherwise."""
TASK = "You compare two questions and reply with one word: yes or no."
CASE = "A colleague asked: {asked}\n\nThe notes hold this question: {taught}\n"
ANSWERED = "with this answer: {answer}\n"
VERDICT = (
    "\nAre both the same question, so that one answer fits both as it stands? A question about another thing, place, "
    "number or property is not the same. Reply yes or no."
)


class Judge(Protocol):
    """Says how probably two questions are the same."""

    def same(self, asked: str, taught: str, answer: str) -> float:
        """The probability (0..1) that `asked` is the question `taught`, whose answer may be left empty.

        Raises EngineError.
        """
        ...


class ServerJudge:
    """A judge that asks one model of a server. Not thread-safe: one thread owns it."""

    def __init__(self, server: ModelServer, model: str, watch: Watch | None = None) -> None:
        """`watch` leaves a server alone while it is away."""
        self._server, self._model, self._watch = server, model, watch or Watch()

    def same(self, asked: str, taught: str, answer: str) -> float:
        """The probability (0..1) of "yes" against "no". Raises EngineError, also when the reply is neither."""
        chat = messages(asked, taught, answer)
        reply = self._watch.call(lambda: self._server.chat(self._model, chat, max_tokens=1, likeliest=LIKELIEST))
        return yes_against_no(self._model, reply.tokens)


def configured(settings: Settings) -> ServerJudge | None:
    """The judge of the settings: ENGINE_MODEL on ENGINE, or None when either is empty."""
    server, model = modelserver.configured(settings), settings.text("ENGINE_MODEL")
    return ServerJudge(server, model) if server is not None and model else None


def messages(asked: str, taught: str, answer: str) -> list[Message]:
    """The chat that asks for a verdict; each text on one line, so that none looks like the frame."""
    lines = {"asked": asked, "taught": taught, "answer": answer}
    frame = CASE + (ANSWERED if answer else "") + VERDICT
    case = frame.format(**{name: " ".join(text.split()) for name, text in lines.items()})
    return [{"role": "system", "content": TASK}, {"role": "user", "content": case}]


def yes_against_no(model: str, tokens: Sequence[Token]) -> float:
    """The share of "yes" in the probability of both at the first place. Raises EngineError when neither is likely."""
    likeliest = tokens[0].likeliest if tokens else ()
    masses = {"yes": 0.0, "no": 0.0}
    for text, logprob in likeliest:
        word = text.strip(" \n\t.,:!*\"'").casefold()
        if word in masses:
            masses[word] += math.exp(min(0.0, logprob))
    both = sum(masses.values())
    if not both:
        raise EngineError(f"The model {model} replies neither yes nor no, so it cannot judge.")
    return masses["yes"] / both
