"""What no night may take away: simple knowledge, reading, fluent text, and answers that end where they should.

The base model and a candidate do the same items, and the differences are compared item by item (`paired`). The base's
own results are kept under the hash of its weights and of the items. It knows nothing of taught facts, and decides
nothing; `gates` does.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from bot import prompt
from bot.generation import in_batches
from bot.generator import LocalGenerator
from learning import cached, paired
from learning.evaluate import BATTERY_TOKENS, battery, drift
from learning.replay import Anchor, weights_of
from storage.company import answer_matches

READING_TOKENS = 32
TOGETHER = 20
MARKS = re.compile(r"<\|[a-z_]+\|>|^\s*(?:system|user|assistant)\s*$", re.MULTILINE)
"""What belongs to the chat template and not into an answer."""
LOOP_WORDS, LOOP_TIMES = 4, 3
"""An answer that says the same four words in a row three times runs in circles."""


@dataclass(frozen=True)
class Retained:
    """One model's results: the battery and reading by item, well-formed answers by item, nats per token by text."""

    battery: Mapping[str, bool]
    reading: Mapping[str, bool]
    formed: Mapping[str, bool]
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean nats per token over the general texts, each text counting the same."""
        return sum(self.losses) / len(self.losses)

    def by_category(self) -> dict[str, tuple[int, int]]:
        """(right, asked) of the battery by category."""
        rows = battery()
        names = dict.fromkeys(r["category"] for r in rows)
        chosen = {name: [self.battery[r["id"]] for r in rows if r["category"] == name] for name in names}
        return {name: (sum(right), len(right)) for name, right in chosen.items()}


@dataclass(frozen=True)
class Written:
    """A greedy answer, and whether it ended by itself."""

    text: str
    ended: bool


def reading_items() -> list[dict[str, Any]]:
    """The passages that ship with the project, each with a question whose answer stands in it, and its keys."""
    return [json.loads(line) for line in shipped("reading.jsonl").splitlines() if line.strip()]


def general_texts() -> list[str]:
    """The short texts of many kinds that ship with the project."""
    return [" ".join(text.split()) for text in shipped("general_texts.txt").split("\n\n") if text.strip()]


def shipped(name: str) -> str:
    """A data file of this package."""
    return (files("learning") / name).read_text(encoding="utf-8")


def of(engine: LocalGenerator) -> Retained:
    """Measure a model: some fifteen seconds on two cores."""
    simple, passages = battery(), reading_items()
    said = written(engine, [prompt.messages(r["question"]) for r in simple], BATTERY_TOKENS)
    read = written(engine, [prompt.messages(r["question"], [r["passage"]]) for r in passages], READING_TOKENS)
    return Retained(
        battery={r["id"]: answer_matches(w.text, r["keys"]) for r, w in zip(simple, said, strict=True)},
        reading={r["id"]: answer_matches(w.text, r["keys"]) for r, w in zip(passages, read, strict=True)},
        formed={r["id"]: well_formed(w.text) for r, w in zip(simple, said, strict=True)}
        | {r["id"]: w.ended and well_formed(w.text) for r, w in zip(passages, read, strict=True)},
        losses=tuple(engine.each(partial(loss, engine), general_texts())),
    )


def of_base(base: Path, cache: Path, form: str, load: Callable[[], LocalGenerator]) -> Retained:
    """The base's own result, measured once for its weights and these items."""
    items = json.dumps([battery(), reading_items(), general_texts(), prompt.messages("", [""])]).encode()
    key = f"{weights_of(base)[:16]}-{hashlib.sha256(items).hexdigest()[:8]}-{form}"
    stored = cache / f"retained-{key}.json"
    kept = cached.read(stored)
    if kept is None:
        cached.write(stored, kept := asdict(of(load())))
    return Retained(kept["battery"], kept["reading"], kept["formed"], tuple(kept["losses"]))


def values(engine: LocalGenerator, before: Retained, anchors: Sequence[Anchor]) -> dict[str, float]:
    """What the gates ask of a candidate: its results against those of the base, by the names of the gates."""
    return compared(before, of(engine)) | {"general_drift": drift(engine, anchors)}


def compared(before: Retained, now: Retained) -> dict[str, float]:
    """Two models' results, item by item, by the names of the gates."""
    simple, read, formed = (both(getattr(before, n), getattr(now, n)) for n in ("battery", "reading", "formed"))
    return {
        "general_battery": relative(*simple),
        "battery_worse": paired.mcnemar(*simple),
        "reading": relative(*read),
        "reading_drop": paired.lost(*read).at_least,
        "stop_format": paired.lost(*formed).at_least,
        "general_loss": -paired.dropped(before.losses, now.losses).at_most,
    }


def both(before: Mapping[str, bool], now: Mapping[str, bool]) -> tuple[list[bool], list[bool]]:
    """The results of two models in one order. Raises KeyError when they did other items."""
    return [before[name] for name in now], list(now.values())


def relative(before: Sequence[bool], now: Sequence[bool]) -> float:
    """How many are right as a share of how many were; 1 where none was, for nothing can be lost."""
    return sum(now) / sum(before) if any(before) else 1.0


def written(engine: LocalGenerator, chats: Sequence[Sequence[prompt.Message]], max_tokens: int) -> list[Written]:
    """Greedy answers, batched by length."""
    prompts = [engine.prompt_ids(chat) for chat in chats]
    made = []
    for tokens in in_batches(engine.each, lambda some: engine.continue_many(some, max_tokens), prompts, TOGETHER):
        ended = bool(tokens) and tokens[-1] == engine.eos
        text = engine.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=False)
        made.append(Written(str(text).strip(), ended))
    return made


def well_formed(text: str) -> bool:
    """Whether an answer has words, no marks of the chat template, and does not run in circles."""
    words = re.findall(r"\w+", text.casefold())
    runs = [tuple(words[i : i + LOOP_WORDS]) for i in range(len(words) - LOOP_WORDS + 1)]
    return bool(words) and not MARKS.search(text) and max(map(runs.count, runs), default=0) < LOOP_TIMES


def loss(engine: LocalGenerator, text: str) -> float:
    """Mean negative log-likelihood of a text, in nats per token; its first token is given."""
    import torch

    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    wanted = torch.tensor(ids[1:], device=engine.device)[:, None]
    return -float(engine.logits(ids)[:-1].log_softmax(-1).gather(-1, wanted).mean())
