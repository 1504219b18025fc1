"""The local engine: write an answer greedily, or check a stored one in a single pass.

Every result carries the log-probability of each answer token and its margin over the runner-up, both from the raw
logits. What is quicker than plain decoding (the fixed opening kept as read, guesses, drafts, batches) gives the text
of plain decoding: where a choice was so close that rounding could have turned it, the text is written again plainly.
It knows nothing of routes, thresholds or databases; prompts come from `bot.prompt`.
"""

import logging
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import AutoTokenizer

from bot import decoding, weights
from bot.decoding import Reader, Tokens, Writing, Written, first_difference
from bot.generation import Found, Generation, Given, Request, Unwanted, Watch, in_batches
from bot.processors import Processors
from bot.prompt import Message, messages

log = logging.getLogger(__name__)
quiet: Any = transformers.utils.logging
quiet.set_verbosity_error()
quiet.disable_progress_bar()

DOUBT = {"float32": 1e-3, "bfloat16": 0.5, "int8": 0.5}
"""Margins (logits) under which another order of the same sums could choose another token, by form (DECISIONS.md)."""
OPENS = "Which of these days of leave, if any, may be carried over into the year that follows, and until when?"
"""Read behind the opening when it is read for keeping, and forgotten: a few rows alone are summed in another order."""
PASS_TEXTS, PASS_TOKENS = 16, 4096
"""Most chats, and most tokens of them, that go through the model together."""
REMEMBERED = 2000
"""Checked drafts whose outcome is kept: it depends on nothing but the weights, the prompt and the draft."""
Check = tuple[tuple[int, ...], str, int]
"""A prompt's tokens, a draft, and the most tokens of an answer."""
Unfinished = tuple[Tokens, Written, int, Watch | None]
"""A prompt's tokens, what is written behind it already, the most tokens of its answer, and who watches."""
Name = TypeVar("Name", bound=Hashable)


class LocalGenerator:
    """One causal language model in memory. One thread owns it, but `many` may check in one and write in another."""

    def __init__(self, folder: Path, *, form: str = "auto") -> None:
        """Load a merged folder in a form of `bot.weights`, or in the one chosen for it ("auto")."""
        self.folder, self.form = folder, weights.form_of(folder, form)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = weights.load(folder, self.form)
        self.device = self.model.device
        self.eos = int(self.tokenizer.eos_token_id)
        self.doubt = 0.0 if weights.reproducible(self.model) else DOUBT[self.form]
        self._marks = marks_of(self.tokenizer)
        self._lock = threading.RLock()  # fast tokenizers fail when two threads use one
        self._processors = Processors()
        self._fixed: tuple[int, ...] = ()
        self._read: Reader | None = None
        self._checked: dict[Check, Generation] = {}

    # --- one chat ---

    def generate(self, messages: Sequence[Message], *, max_tokens: int, watch: Watch | None = None) -> Generation:
        """Greedy text for a chat, at most `max_tokens` tokens. Raises Unwanted when `watch` ends it."""
        return self._generation(self._go_on(self.prompt_ids(messages), Written(), max_tokens, watch))

    def plain(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """The same text without any short cut: the whole prompt in one pass, then token by token."""
        return self._generation(self._plain(self.prompt_ids(messages), max_tokens, None))

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, found by checking `draft` in one forward pass and going on where the model differs.

        The tokens of the draft that the model would have chosen itself are kept, so the text is the greedy text at
        the price of a prefill. Source of the idea: speculative decoding (Leviathan et al., 2023) with a given draft.
        """
        return self._confirm([Request(tuple(messages), max_tokens, draft)])[0]

    # --- several chats ---

    def many(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        """What `confirm` and `generate` give for each request, with as few passes as possible."""
        done: dict[int, Generation | Unwanted] = {}
        drafts = [i for i, r in enumerate(requests) if r.draft is not None]
        prompts = {i: self.prompt_ids(r.messages) for i, r in enumerate(requests) if r.draft is None}
        with self._processors.shared():
            done.update(zip(drafts, self._confirm([requests[i] for i in drafts]), strict=True))
            for chosen in passes({i: len(p) + requests[i].max_tokens for i, p in prompts.items()}):
                done.update(zip(chosen, self._write([requests[i] for i in chosen]), strict=True))
        return [done[i] for i in range(len(requests))]

    def agreement(self, requests: Sequence[Request]) -> list[float]:
        """The share (0..1) of each draft's tokens, its end included, that the model would write; nothing is written.

        An answer that is longer than `max_tokens` would be cut, and is not whole.
        """
        keys = {i: (tuple(self.prompt_ids(r.messages)), r.draft or "", r.max_tokens) for i, r in enumerate(requests)}
        drafts = {i: self._draft(key[1]) for i, key in keys.items()}
        shares: dict[int, float] = {}

        def read(chosen: Sequence[int]) -> None:
            group = {keys[i]: drafts[i] for i in chosen}
            agreed = dict(zip(group, self._agreed(list(group), group), strict=True))
            for i in chosen:
                shares[i] = min(len(agreed[keys[i]].tokens), requests[i].max_tokens) / len(drafts[i])

        self.each(read, passes({i: len(key[0]) + len(drafts[i]) for i, key in keys.items()}))
        return [shares[i] for i in range(len(requests))]

    def generate_many(self, chats: Sequence[Sequence[Message]], *, max_tokens: int, batch: int = 16) -> list[str]:
        """Greedy texts of many chats, batched by length; for measuring, where single timings do not matter."""

        def write(some: Sequence[Sequence[Message]]) -> list[list[int]]:
            return self.continue_many([self.prompt_ids(chat) for chat in some], max_tokens)

        written = in_batches(self.each, write, chats, batch, lambda chat: len(chat[-1]["content"]))
        return [self._text(tokens) for tokens in written]

    def continue_many(self, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
        """Greedy answer tokens for several prompts in one batch, each up to and with its end-of-sequence token."""
        return [text.written.tokens for text in self._continued([(p, Written(), max_tokens, None) for p in prompts])]

    def likelihoods(self, tasks: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> list[list[float]]:
        """Summed log-probability (nats) of every ending behind its context, for several contexts at once."""
        return decoding.likelihoods(self.model, tasks)

    def each(self, compute: Callable[[Given], Found], given: Iterable[Given]) -> list[Found]:
        """What is computed with this model of each, in their order: side by side on processors, in turn on a GPU."""
        if self.device.type == "cpu":
            return self._processors.each(compute, given)
        return [compute(one) for one in given]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a chat, up to where the answer begins. No text in it gives a token of the template."""
        said = [{**message, "content": self._marks.sub(apart, message["content"])} for message in messages]
        with self._lock:
            text = self.tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
            return list(self.tokenizer.encode(text, add_special_tokens=False))

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Raw logits [tokens, vocabulary] in fp32 for one sequence."""
        with torch.inference_mode():
            return torch.as_tensor(self.model(torch.tensor([ids], device=self.device)).logits[0]).float()

    # --- writing ---

    def _go_on(self, prompt: Tokens, written: Written, limit: int, watch: Watch | None) -> Written:
        """Greedy tokens behind a prompt and what is written already; a close choice is made again plainly."""
        return self._finished(self._continued([(prompt, written, limit, watch)])[0], watch)

    def _finished(self, text: Writing, watch: Watch | None) -> Written:
        """What was written, made sure. Raises Unwanted when somebody ended it."""
        if text.written.ended:
            raise Unwanted
        return self._sure(list(text.text or ()), text.written, text.limit, watch)

    def _continued(self, several: Sequence[Unfinished]) -> list[Writing]:
        """Prompts with what is written behind them already, read together and then written to their ends."""
        texts, rests = [], []
        for prompt, written, limit, watch in several:
            reader, rest = self._opened(prompt)
            told = None if watch is None else partial(self._tell, watch)
            texts.append(Writing(reader, written, self.eos, limit, prompt, told))
            rests.append([*rest, *written.tokens])
        self._processors.take()
        for _ in decoding.read_all([text.reader for text in texts], rests, [1] * len(texts)):
            pass  # the readers keep what comes next
        decoding.write(texts, self._processors.take)
        return texts

    def _sure(self, prompt: Tokens, written: Written, limit: int, watch: Watch | None) -> Written:
        """What was written, or what plain decoding writes where rounding could have turned a choice."""
        return written if written.least_margin >= self.doubt else self._plain(prompt, limit, watch)

    def _plain(self, prompt: Tokens, limit: int, watch: Watch | None) -> Written:
        told = None if watch is None else partial(self._tell, watch)
        text = Writing(decoding.opened(self.model), Written(), self.eos, limit, None, told)
        text.reader.read(prompt)
        decoding.write([text])
        if text.written.ended:
            raise Unwanted
        return text.written

    def _tell(self, watch: Watch, tokens: Tokens) -> bool:
        return watch(self._text(tokens))

    def _write(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        """The texts of some chats, written together."""
        prompts = [self.prompt_ids(r.messages) for r in requests]
        texts = self._continued(
            [(prompt, Written(), r.max_tokens, r.watch) for prompt, r in zip(prompts, requests, strict=True)]
        )
        return [self._end(text, r.watch) for text, r in zip(texts, requests, strict=True)]

    def _end(self, text: Writing, watch: Watch | None) -> Generation | Unwanted:
        try:
            return self._generation(self._finished(text, watch))
        except Unwanted as ended:
            return ended

    # --- checking ---

    def _confirm(self, requests: Sequence[Request]) -> list[Generation]:
        keys = [(tuple(self.prompt_ids(r.messages)), r.draft or "", r.max_tokens) for r in requests]
        found = {key: self._checked[key] for key in keys if key in self._checked}
        fresh = [key for key in dict.fromkeys(keys) if key not in found]
        drafts = {key: self._draft(key[1])[: key[2]] for key in fresh}
        for chosen in passes({key: len(key[0]) + len(drafts[key]) for key in fresh}):
            for key, agreed in zip(chosen, self._agreed(chosen, drafts), strict=True):
                found[key] = self._checked[key] = self._judged(list(key[0]), drafts[key], agreed, key[2])
        while len(self._checked) > REMEMBERED:
            del self._checked[next(iter(self._checked))]
        return [found[key] for key in keys]

    def _draft(self, text: str) -> Tokens:
        with self._lock:
            return [*self.tokenizer.encode(text, add_special_tokens=False), self.eos]

    def _agreed(self, keys: Sequence[Check], drafts: Mapping[Check, Tokens]) -> Iterator[Written]:
        """The part of each draft that the model would have written itself."""
        opened = [self._opened(key[0]) for key in keys]
        read = [[*rest, *drafts[key][:-1]] for key, (_, rest) in zip(keys, opened, strict=True)]
        self._processors.take()
        rows = decoding.read_all([reader for reader, _ in opened], read, [len(drafts[key]) for key in keys])
        for key, logits in zip(keys, rows, strict=True):
            agreed = first_difference(logits.argmax(-1).tolist(), drafts[key])
            written = Written()
            written.add(logits[:agreed], drafts[key][:agreed])
            yield written

    def _judged(self, prompt: Tokens, draft: Tokens, agreed: Written, limit: int) -> Generation:
        """The outcome of a check: the draft itself, or the greedy text from where the model differs."""
        whole = len(agreed.tokens) == len(draft)
        written = self._sure(prompt, agreed, limit, None) if whole else self._go_on(prompt, agreed, limit, None)
        return replace(self._generation(written), confirmed=first_difference(written.tokens, draft) / len(draft))

    # --- the opening that every prompt shares ---

    def _opened(self, prompt: Sequence[int]) -> tuple[Reader, Tokens]:
        """A reader that has read as much of a prompt as was read before, and the rest of the prompt."""
        fixed = self._opening()
        if not self._opens(prompt):
            return decoding.opened(self.model), list(prompt)
        return fixed.copied(), list(prompt[fixed.length :])

    def _opens(self, prompt: Sequence[int]) -> bool:
        return tuple(prompt[: len(self._fixed)]) == self._fixed

    def _opening(self) -> Reader:
        """A reader of the tokens that all prompts begin with: the system prompt and what the template puts there.

        It has read nothing where the model cannot forget what was read behind them.
        """
        with self._lock:
            if self._read is None:
                first, second = (self.prompt_ids(messages(word)) for word in ("Why?", "How many?"))
                self._fixed = tuple(first[: first_difference(first, second)])
                read = decoding.opened(self.model)
                if self._fixed and read.can_unread:
                    whole = self.prompt_ids(messages(OPENS))
                    read.read(whole)
                    read.unread(len(whole) - len(self._fixed), read.row)
                self._read = read
            return self._read

    # --- out ---

    def _generation(self, written: Written) -> Generation:
        tokens = written.tokens
        stopped = bool(tokens) and tokens[-1] == self.eos
        return Generation(self._text(tokens), tuple(written.logprobs), tuple(written.margins), stopped)

    def _text(self, tokens: Sequence[int]) -> str:
        with self._lock:
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def marks_of(tokenizer: Any) -> re.Pattern[str]:
    """Finds whatever a tokenizer reads as one of its special tokens."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")


def apart(mark: re.Match[str]) -> str:
    """A mark that is read as text: a space behind its first character."""
    return f"{mark[0][0]} {mark[0][1:]}"


def passes(sizes: Mapping[Name, int]) -> Iterator[list[Name]]:
    """Things of given lengths in groups of about the same length, each small enough for one pass."""
    group: list[Name] = []
    for name in sorted(sizes, key=lambda n: sizes[n]):
        if len(group) == PASS_TEXTS or (group and sizes[name] + sum(sizes[n] for n in group) > PASS_TOKENS):
            yield group
            group = []
        group.append(name)
    if group:
        yield group
