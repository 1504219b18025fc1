"""What an engine gives back: the answer and what the model thought of it, and the interface every engine has.

It knows nothing of torch, so that the pipeline and its tests stay light.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bot.prompt import Message


@dataclass(frozen=True)
class Generation:
    """An answer and what the model thought of it.

    `logprobs` and `margins` have one entry per answer token, the end-of-sequence token included; `confirmed` is the
    share of a draft's tokens (0..1) that the model itself would have written, and 0 when there was no draft.
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
    """Writes answers greedily; a local model, a remote server, or a scripted one in tests."""

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """Greedy text for a chat, at most `max_tokens` tokens."""
        ...

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, found by checking `draft` first."""
        ...
