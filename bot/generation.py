"""What an engine gives back: the answer and what the model thought of it, and the interface every engine has.

It knows nothing of torch, so that the pipeline and its tests stay light.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeVar, runtime_checkable

from bot.prompt import Message

Watch = Callable[[str], bool]
"""Gets the text written so far, whole, after each step; False ends the writing. It may begin anew once."""
Given = TypeVar("Given")
Found = TypeVar("Found")
Batches = Callable[[Callable[[Sequence[Given]], Sequence[Found]], Sequence[Sequence[Given]]], Iterable[Sequence[Found]]]
"""How batches are computed: one after the other (`map`), or side by side (`each` of an engine)."""


class Unwanted(Exception):
    """Whoever asked has gone, so the answer was not finished."""


@dataclass(frozen=True)
class Generation:
    """An answer and what the model thought of it.

    `logprobs` and `margins` have one entry per answer token, the end-of-sequence token included; `confirmed` is the
    share of a draft's tokens (0..1; of its characters, where tokens are not known) that the model itself would have
    written, and 0 when there was no draft.
    """

    text: str
    logprobs: tuple[float, ...]
    margins: tuple[float, ...]
    stopped: bool
    confirmed: float = 0.0

    @property
    def mean_logprob(self) -> float:
        """Mean natural log-probability of the answer's tokens."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else -20.0

    @property
    def lowest_logprob(self) -> float:
        """The least likely token's log-probability."""
        return min(self.logprobs, default=-20.0)

    @property
    def lowest_margin(self) -> float:
        """The smallest distance (in logits) between a chosen token and its runner-up."""
        return min(self.margins, default=0.0)


class Engine(Protocol):
    """Writes answers greedily; a local model, a remote server, or a scripted one in tests.

    A remote one raises EngineError when it cannot; what needs no model goes on then.
    """

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """Greedy text for a chat, at most `max_tokens` tokens."""
        ...

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, found by checking `draft` first."""
        ...


@dataclass(frozen=True)
class Request:
    """One thing to write: greedy text for a chat, found by checking `draft` first where there is one."""

    messages: Sequence[Message]
    max_tokens: int
    draft: str | None = None
    watch: Watch | None = None


@runtime_checkable
class ManyAtOnce(Protocol):
    """An engine that does several things in fewer passes than one by one, and tells how far it is."""

    def many(self, requests: Sequence[Request]) -> "list[Generation | Unwanted]":
        """The outcome of each request, in order; the texts are those of `generate` and `confirm`."""
        ...


def in_batches(
    each: Batches[Given, Found],
    compute: Callable[[Sequence[Given]], Sequence[Found]],
    items: Sequence[Given],
    size: int,
    length: Callable[[Given], int] = len,  # type: ignore[assignment]
) -> list[Found]:
    """What is computed of each item, in their order, where those of like length go through together, `size` at most."""
    order = sorted(range(len(items)), key=lambda i: length(items[i]))
    batches = [[items[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    found = dict(zip(order, chain.from_iterable(each(compute, batches)), strict=True))
    return [found[i] for i in range(len(items))]
