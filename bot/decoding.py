"""Greedy decoding over a key-value cache: one chat with guesses taken from its own prompt, or many chats at once.

A guess costs almost nothing to check and is kept only where the model would have written the same, so guesses change
the speed and never the text. It knows nothing of chats, drafts or files: it is given tokens and returns tokens.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

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


@dataclass
class Reader:
    """A model with the text that it has read: the cache holds it, `row` the logits [vocabulary] of what comes next."""

    model: Any
    cache: Any
    row: Tensor = field(default_factory=lambda: torch.zeros(0))

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

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return int(self.cache.get_seq_length())

    def copied(self) -> "Reader":
        """A reader that goes on from here by itself."""
        return Reader(self.model, copy.deepcopy(self.cache), self.row)


def opened(model: Any) -> Reader:
    """A reader that has read nothing."""
    return Reader(model, DynamicCache(config=model.config))


def write(
    reader: Reader,
    written: Written,
    *,
    eos: int,
    limit: int,
    text: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> bool:
    """Go on greedily behind what was read, up to `limit` tokens in all; whether it ran to its end.

    With `text`, the tokens read before those written, guesses are taken from it and from what was written.
    """
    most = FIRST_GUESS
    while len(written.tokens) < limit:
        first = reader.row
        token = int(first.argmax())
        room = limit - len(written.tokens) - 1
        seen = None if text is None else [*text, *written.tokens, token]
        guesses = [] if seen is None or token == eos else continued(seen, min(most, room))
        rows = reader.read([token, *guesses], keep=1 + len(guesses)) if token != eos and room else first[None]
        right = first_difference(rows.argmax(-1).tolist(), guesses)
        chosen = [token, *guesses[:right]]
        if eos in chosen:
            chosen = chosen[: chosen.index(eos) + 1]
        written.add(torch.cat([first[None], rows])[: len(chosen)], chosen)
        if chosen[-1] == eos:
            return True
        reader.unread(len(guesses) - right, rows[right])
        most = min(MOST_GUESSED, 2 + 2 * right) if guesses else most
        if on_step is not None and not on_step(written.tokens):
            return False
    return True


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


def write_many(
    model: Any, prompts: Sequence[Tokens], *, eos: int, limits: Sequence[int], on_steps: Sequence[OnStep | None] = ()
) -> list[Written]:
    """Greedy tokens for several prompts, one pass a token for all of them; who is done leaves the batch."""
    done = [Written() for _ in prompts]
    live = list(range(len(prompts)))
    width = max(map(len, prompts))
    ids = torch.tensor([[eos] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        while live:
            places = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            out = model(
                input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1
            )
            rows = out.logits[:, -1].float()
            chosen = rows.argmax(-1).tolist()
            for row, at, token in zip(rows, live, chosen, strict=True):
                done[at].add(row[None], [token])
            stay = [i for i, at in enumerate(live) if goes_on(done[at], eos, limits[at], on_steps[at : at + 1])]
            if len(stay) < len(live):
                kept = torch.tensor(stay, dtype=torch.long, device=model.device)
                cache.batch_select_indices(kept)
                live, mask, chosen = [live[i] for i in stay], mask[kept], [chosen[i] for i in stay]
            ids = torch.tensor(chosen, device=model.device)[:, None]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1)
    return done


def goes_on(written: Written, eos: int, limit: int, on_step: Sequence[OnStep | None]) -> bool:
    """Whether a text of a batch is to be continued."""
    if written.tokens[-1] == eos or len(written.tokens) >= limit:
        return False
    watch = on_step[0] if on_step else None
    written.ended = watch is not None and not watch(written.tokens)
    return not written.ended


def check_many(opening: Reader, prompts: Sequence[Tokens], drafts: Sequence[Tokens]) -> list[Tensor]:
    """The logits [draft tokens, vocabulary] by which each draft's tokens would be chosen, all in one pass.

    The prompts come without what `opening` has read. Rows are filled up on the right, where a causal model never
    looks, so no mask is needed.
    """
    model, cache = opening.model, copy.deepcopy(opening.cache)
    texts = [[*prompt, *draft[:-1]] for prompt, draft in zip(prompts, drafts, strict=True)]
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=model.device)
    spans = [range(len(p) - 1, len(p) - 1 + len(d)) for p, d in zip(prompts, drafts, strict=True)]
    needed = sorted(set().union(*spans))
    if cache.get_seq_length():
        cache.batch_repeat_interleave(len(texts))
    with torch.inference_mode():
        keep = torch.tensor(needed, device=model.device)
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits
        place = {column: at for at, column in enumerate(needed)}
        return [logits[row, [place[c] for c in span]].float() for row, span in enumerate(spans)]


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
