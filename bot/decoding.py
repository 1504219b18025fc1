"""Greedy decoding over what a model has read: guesses taken from the prompt itself, and many chats at once.

A guess costs almost nothing to check and is kept only where the model would have written the same, and texts that are
written together attend each to itself, so both change the speed and never the text. It knows nothing of chats, drafts
or files: it is given tokens and returns tokens.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from bot import attention
from bot.attention import Memory

Tokens = list[int]
OnStep = Callable[[Tokens], bool]
"""Gets the tokens written so far after each step; False ends the writing."""

NGRAMS = (3, 2)
"""Lengths of the last words that are looked for earlier in the text, longest first. Source of the idea: prompt lookup
decoding, https://github.com/apoorvumang/prompt-lookup-decoding."""
FIRST_GUESS, MOST_GUESSED = 3, 8
"""Tokens guessed at first and at most: the number follows how many of the last ones were right."""


@dataclass
class Written:
    """Tokens that the model chose, with the log-probability of each and its margin over the runner-up."""

    tokens: Tokens = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    ended: bool = False
    """Whether somebody ended it before its end."""

    def add(self, logits: Tensor, tokens: Sequence[int]) -> None:
        """Note tokens with the logits [tokens, vocabulary] that they were chosen by."""
        logprobs, margins = scores(logits, tokens)
        self.tokens += tokens
        self.logprobs += logprobs
        self.margins += margins

    @property
    def least_margin(self) -> float:
        """How near the model was to writing something else at its least certain token."""
        return min(self.margins, default=float("inf"))


class Reader(Protocol):
    """A model with one text that it has read; `row` holds the logits [vocabulary] of what comes next."""

    model: Any
    row: Tensor

    @property
    def length(self) -> int:
        """How many tokens were read."""
        ...

    @property
    def can_unread(self) -> bool:
        """Whether what was read can be forgotten again; where it cannot, nothing is guessed."""
        ...

    def read(self, tokens: Sequence[int], keep: int = 1) -> Tensor:
        """Read on; the logits [keep, vocabulary] behind the last `keep` tokens, in fp32."""
        ...

    def unread(self, count: int, row: Tensor) -> None:
        """Forget the last `count` tokens; `row` is what came behind the one before them."""
        ...

    def copied(self) -> "Reader":
        """A reader that goes on from here by itself."""
        ...


@dataclass
class Separate:
    """A reader whose model reads several texts in one pass."""

    model: Any
    memory: Memory = field(default_factory=Memory)
    row: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return self.memory.length

    @property
    def can_unread(self) -> bool:
        """Always: every token is held."""
        return True

    def read(self, tokens: Sequence[int], keep: int = 1) -> Tensor:
        """Read on; the logits [keep, vocabulary] behind the last `keep` tokens, in fp32."""
        return next(read_all([self], [tokens], [keep]))

    def unread(self, count: int, row: Tensor) -> None:
        """Forget the last `count` tokens; `row` is what came behind the one before them."""
        self.memory.length -= count
        self.row = row

    def copied(self) -> "Separate":
        """A reader that goes on from here by itself."""
        return Separate(self.model, self.memory.copied(), self.row)


@dataclass
class Single:
    """A reader of any other model, which reads one text at a time."""

    model: Any
    cache: Any
    row: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return int(self.cache.get_seq_length())

    @property
    def can_unread(self) -> bool:
        """Not where a layer lets go of what it read: a window that slides has dropped what lay before it."""
        drops = any(hasattr(layer, "activate_past_recording") for layer in self.cache.layers)
        return self.cache.is_croppable and not drops

    def read(self, tokens: Sequence[int], keep: int = 1) -> Tensor:
        """Read on; the logits [keep, vocabulary] behind the last `keep` tokens, in fp32."""
        ids = torch.tensor([list(tokens)], device=self.model.device)
        with torch.inference_mode():
            out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=keep)
        logits = torch.as_tensor(out.logits[0]).float()
        self.row = logits[-1]
        return logits

    def unread(self, count: int, row: Tensor) -> None:
        """Forget the last `count` tokens; `row` is what came behind the one before them."""
        if count:
            self.cache.crop(-count)
        self.row = row

    def copied(self) -> "Single":
        """A reader that goes on from here by itself."""
        return Single(self.model, copy.deepcopy(self.cache), self.row)


def opened(model: Any) -> Reader:
    """A reader that has read nothing."""
    return Separate(model) if attention.is_separate(model) else Single(model, DynamicCache(config=model.config))


def read_all(readers: Sequence[Reader], tokens: Sequence[Sequence[int]], keep: Sequence[int]) -> Iterator[Tensor]:
    """What `read` gives for each reader of one model, in turn; in one pass where the model can."""
    together = [reader for reader in readers if isinstance(reader, Separate)]
    if not together:
        yield from (reader.read(own, count) for reader, own, count in zip(readers, tokens, keep, strict=True))
        return
    texts = [(reader.memory, own) for reader, own in zip(together, tokens, strict=True)]
    for reader, logits in zip(together, attention.read(together[0].model, texts, keep), strict=True):
        reader.row = logits[-1].clone()
        yield logits


@dataclass
class Writing:
    """One text that is being written behind what a reader has read, up to `limit` tokens in all.

    With `text`, the tokens read before those written, guesses are taken from it and from what was written, as far as
    the reader can forget wrong ones.
    """

    reader: Reader
    written: Written
    eos: int
    limit: int
    text: Sequence[int] | None = None
    on_step: OnStep | None = None
    going: bool = True
    _most: int = FIRST_GUESS
    _tokens: Tokens = field(default_factory=list)
    _first: Tensor = field(default_factory=lambda: torch.zeros(0))

    def next(self) -> Tokens:
        """The token chosen and those guessed behind it, to be read; none where the text ends with it."""
        self._first, room = self.reader.row, self.limit - len(self.written.tokens) - 1
        token = int(self._first.argmax())
        if token == self.eos or room <= 0:
            self.written.add(self._first[None], [token])
            self.going = False
            return []
        self._tokens = [token]
        if self.text is not None and self.reader.can_unread:
            self._tokens += continued([*self.text, *self.written.tokens, token], min(self._most, room))
        return self._tokens

    def judge(self, rows: Tensor) -> None:
        """Keep the guesses that the model would have chosen; rows [tokens, vocabulary] came behind each token."""
        guesses = self._tokens[1:]
        right = first_difference(rows.argmax(-1).tolist(), guesses)
        chosen = self._tokens[: right + 1]
        if self.eos in chosen:
            chosen = chosen[: chosen.index(self.eos) + 1]
        self.written.add(torch.cat([self._first[None], rows])[: len(chosen)], chosen)
        if chosen[-1] == self.eos:
            self.going = False
            return
        self.reader.unread(len(guesses) - right, rows[right])
        self._most = min(MOST_GUESSED, 2 + 2 * right) if guesses else self._most
        self.going = len(self.written.tokens) < self.limit
        if self.on_step is not None and not self.on_step(self.written.tokens):
            self.written.ended, self.going = True, False


def write(texts: Sequence[Writing], before_pass: Callable[[], None] = lambda: None) -> None:
    """Go on greedily in several texts, one pass a step for all of them; who is done leaves."""
    live = [text for text in texts if text.limit > len(text.written.tokens)]
    while live:
        before_pass()
        steps = [(text, tokens) for text in live if (tokens := text.next())]
        live = [text for text, _ in steps]
        rows = read_all([text.reader for text in live], [t for _, t in steps], [len(t) for _, t in steps])
        for text, own in zip(live, rows, strict=True):
            text.judge(own)
        live = [text for text in live if text.going]


def likelihoods(model: Any, tasks: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> list[list[float]]:
    """Summed log-probability (nats) of every ending behind its context; a context is read once for all of them."""
    contexts = [opened(model) for _ in tasks]
    for _ in read_all(contexts, [context for context, _ in tasks], [1] * len(tasks)):
        pass
    branches = [(at, ending) for at, (_, endings) in enumerate(tasks) for ending in endings]
    behind = read_all(
        [contexts[at].copied() for at, _ in branches],
        [ending for _, ending in branches],
        [len(ending) for _, ending in branches],
    )
    found: list[list[float]] = [[] for _ in tasks]
    for (at, ending), rows in zip(branches, behind, strict=True):
        logprobs, _ = scores(torch.cat([contexts[at].row[None], rows[:-1]]), ending)
        found[at].append(math.fsum(logprobs))
    return found


def continued(tokens: Sequence[int], most: int) -> Tokens:
    """What followed the last few tokens where they stood before, at most `most` tokens; none where they are new."""
    for size in NGRAMS:
        if most <= 0 or len(tokens) <= size:
            continue
        last = list(tokens[-size:])
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start] == last[0] and list(tokens[start : start + size]) == last:
                return list(tokens[start + size : start + size + most])
    return []


def scores(logits: Tensor, tokens: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Log-probability of each token and the best logit's margin over the second; logits is [tokens, vocabulary]."""
    if not len(tokens):
        return (), ()
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    best = logits.topk(2, dim=-1).values
    return tuple(chosen.tolist()), tuple((best[:, 0] - best[:, 1]).tolist())


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items are equal."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))
