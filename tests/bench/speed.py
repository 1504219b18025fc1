"""Measure how fast whole answers are: alone, beside llama.cpp in the same run, and sixteen at once.

What the base model says by itself is taught as a fact, so that it is memorised without a night, and llama.cpp writes
the same tokens from the GGUF that the base was made of. Every ratio is of a pair measured one after the other.
`python -m tests.bench.speed` measures this alone; both engines get as many threads as torch has here.
"""

import json
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from bot import asking, base_model, desk, pipeline, prompt
from bot.asking import Asked
from bot.confidence import Confidence, Head
from bot.desk import Desk
from bot.generation import Generation, Request, Unwanted
from bot.generator import LocalGenerator
from bot.pipeline import Model, Tools
from bot.same_question import Comparer
from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import company, corrections, environment, registry, settings
from storage.database import Database
from storage.domain import WORKSPACE, Answer, Memory
from tests import llama_server
from tests.bench import asking as asking_

if TYPE_CHECKING:
    from tests.bench.answer import Bench, Figure

PAIRS = 20
TOKENS, READ_TOKENS, BURST_TOKENS = 40, 64, 24
ASKERS = 16
SURE = Head((), (), (), (), 30.0, 0.5, 0.5)
"""Certain of everything: the routes are forced, the times are not."""
CONTEXT = "bench"


class Ending(LocalGenerator):
    """The base, whose own words are taken to end where the limit cut them; what they cost is the same."""

    def confirm(self, messages: Sequence[prompt.Message], draft: str, *, max_tokens: int) -> Generation:
        """As it is, but for the end."""
        return ended(super().confirm(messages, draft, max_tokens=max_tokens))

    def many(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        """The same of several."""
        return [ended(one) if isinstance(one, Generation) else one for one in super().many(requests)]


def ended(one: Generation) -> Generation:
    """A confirmed text as one that ended by itself."""
    return replace(one, stopped=True) if one.confirmed == 1.0 else one


@dataclass(frozen=True)
class Shop:
    """A bot that has memorised what its base model says, and holds the demo company's handbook."""

    database: Database
    tools: Tools
    index: VectorIndex
    engine: LocalGenerator
    memorised: tuple[tuple[str, str], ...]
    asked: tuple[str, ...]

    def forget(self) -> None:
        """As if nothing had ever been asked: no vector and no verdict is remembered."""
        self.engine._checked.clear()
        for kept in ("_known", "_recent", "_layers"):
            vars(self.tools.embedder)[kept].clear()


def open_shop(home: Path, embedder: Embedder) -> Shop:
    """Teach the base model's own words, approve them, ingest the handbook."""
    database = Database(home)
    engine = Ending(base_model.embedded(home))
    facts = company.facts()
    taught = []
    for fact in facts:
        said = engine.generate(prompt.messages(fact.question), max_tokens=TOKENS).text
        again = engine.confirm(prompt.messages(fact.question), said, max_tokens=TOKENS)
        if again.confirmed < 1.0:  # cut so that its text has fewer tokens than were written
            continue
        row = corrections.propose(database, question=fact.question, answer=said, author="U0SAM")
        corrections.approve(database, row.id, "U0PRIYA")
        taught.append((row.id, fact.question, said))
        if len(taught) == PAIRS + ASKERS:
            break
    ingest(database, embedder, [company.pages()])
    index = VectorIndex(home, database)
    if index.try_open():
        index.drain()
    heads = dict.fromkeys(("same", "memorised", "quoted", "generated"), SURE)
    memories = {number: Memory(registry.BASE, number, True, {}) for number, _, _ in taught}
    model = Model(registry.BASE, engine, Confidence(heads), memories)
    known = TaughtQuestions(database, embedder, Comparer(embedder))
    tools = Tools(embedder, known, Retriever(database, embedder, index), model, TOKENS)
    asked = tuple(row.question for row in company.golden() if row.keys)
    return Shop(database, tools, index, engine, tuple((q, a) for _, q, a in taught), asked)


# --- beside llama.cpp ---


@dataclass(frozen=True)
class Llama:
    """llama.cpp's server on this machine."""

    address: str

    def write(self, text: str, tokens: int) -> int:
        """Continue a prompt greedily by so many tokens, nothing remembered from before; how many it wrote."""
        body = {"prompt": text, "n_predict": tokens, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
        request = urllib.request.Request(
            f"{self.address.removesuffix('/v1')}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return int(json.loads(reply.read())["tokens_predicted"])


def whole(shop: Shop, question: str, tools: Tools, route: str = "auto") -> tuple[float, Answer]:
    """Seconds of one whole answer, stored and all, and the answer."""
    began = time.perf_counter()
    made = asking.answer_and_store(shop.database, tools, Asked(question, "U0SAM", "C0", route=route))
    return time.perf_counter() - began, made


def ratios(shop: Shop, llama: Llama) -> Iterator[tuple[str, float, list[float], list[float]]]:
    """(name, target, our seconds, llama.cpp's seconds), in pairs."""
    ours, theirs = list[float](), list[float]()
    for question, said in shop.memorised[: PAIRS + 1]:
        shop.forget()
        taken, made = whole(shop, question, shop.tools)
        assert (made.route.value, made.text) == ("MEMORISED", said), made
        ours.append(taken)
        theirs.append(timed_llama(shop, llama, prompt.messages(question), said))
    yield "whole memorised answer against llama.cpp", 0.20, ours[1:], theirs[1:]
    tools = writing(shop)
    ours, theirs = [], []
    for question in shop.asked[: PAIRS + 1]:
        shop.forget()
        taken, made = whole(shop, question, tools, "documents")
        assert made.style.value == "generated", made
        hits = tools.searcher.hits(question, pipeline.PASSAGES_READ, (WORKSPACE,))
        ours.append(taken)
        notes = tools.searcher.notes(hits, (WORKSPACE,))
        theirs.append(timed_llama(shop, llama, prompt.messages(question, notes), made.text))
    yield "whole retrieved answer, written, against llama.cpp", 0.60, ours[1:], theirs[1:]


def writing(shop: Shop) -> Tools:
    """Tools that answer from documents in the model's own words, as a stronger one does."""
    heads = {**shop.tools.model.confidence.heads, "quoted": replace(SURE, intercept=0.0)}
    model = replace(shop.tools.model, confidence=Confidence(heads, "generated"))
    return replace(shop.tools, model=model, max_tokens=READ_TOKENS)


def timed_llama(shop: Shop, llama: Llama, messages: Sequence[prompt.Message], said: str) -> float:
    """Seconds in which llama.cpp writes as many tokens behind the same prompt."""
    text = shop.engine.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    tokens = len(shop.engine.tokenizer.encode(said, add_special_tokens=False)) + 1
    began = time.perf_counter()
    assert llama.write(text, tokens) == tokens
    return time.perf_counter() - began


# --- the same text ---


def same_text(folder: Path, forms: Sequence[str], count: int) -> "Iterator[Figure]":
    """Drafts of three kinds, checked: how often the text is that of plain greedy decoding, and how near the scores."""
    from tests.bench.answer import Figure

    asked = [row.question for row in [*asking_.company_questions(), *asking_.handbook_questions()]]
    chats = [prompt.messages(question) for question in dict.fromkeys(asked)][:count]
    for form in forms:
        engine, same, apart, again = LocalGenerator(folder, form=form), 0, 0.0, 0
        said = [engine.plain(chat, max_tokens=BURST_TOKENS) for chat in chats]
        for at, (chat, plain) in enumerate(zip(chats, said, strict=True)):
            drafts = (plain.text, plain.text[: len(plain.text) // 2], said[at - 1].text)
            checked = engine.confirm(chat, drafts[at % len(drafts)], max_tokens=BURST_TOKENS)
            same += checked.text == plain.text
            again += min(plain.margins) < engine.doubt
            if checked.text == plain.text:
                near = zip(checked.logprobs, plain.logprobs, strict=True)
                apart = max(apart, *(abs(a - b) for a, b in near))
        told = f"{len(chats)} questions, {again} of them written again for a close choice"
        yield Figure(f"text of plain greedy, {form}", same / len(chats), 1.0, told)
        limit = 1e-3 if form == "float32" else None
        yield Figure(f"largest difference of a log-probability, {form}", apart, limit, told, most=True)


# --- many at once ---


def crowd(shop: Shop) -> Iterator[tuple[str, list[float], list[float]]]:
    """(kind, how many times the answers a second of one at a time, worst wait over the median one), per burst."""
    values = settings.load({}, overrides={"HOME": str(shop.database.home), "ANSWER_DEADLINE": 0.0})
    desk.ensure_base(shop.database, values)
    opened, desk.open_tools = desk.open_tools, lambda *_, **__: (shop.tools, shop.index)  # type: ignore[assignment]
    bot = Desk(shop.database, values)
    try:
        bot.start()
        for kind, questions in bursts(shop).items():
            gains, spreads = list[float](), list[float]()
            for _ in range(PAIRS + 1):
                shop.forget()
                one_by_one = seconds_of(bot, questions, together=False)[0]
                shop.forget()
                at_once, waits = seconds_of(bot, questions, together=True)
                gains.append(one_by_one / at_once)
                spreads.append(max(waits) / statistics.median(waits))
            yield kind, gains[1:], spreads[1:]
    finally:
        bot.close()
        desk.open_tools = opened


def bursts(shop: Shop) -> dict[str, list[tuple[str, str]]]:
    """Sixteen (question, route) of each kind."""
    memorised = [(question, "auto") for question, _ in shop.memorised[:ASKERS]]
    quoted = [(question, "documents") for question in shop.asked[:ASKERS]]
    written = [(question, "raw") for question in shop.asked[:ASKERS]]
    mixed = [*memorised[:8], *quoted[:6], *written[:2]]
    return {"mixed": mixed, "memorised": memorised, "quoted": quoted, "written": written}


def seconds_of(bot: Desk, questions: Sequence[tuple[str, str]], *, together: bool) -> tuple[float, list[float]]:
    """Seconds until all are answered, and how long each waited."""
    began, ends, all_done = time.perf_counter(), dict[int, float](), threading.Event()

    def note(number: int) -> Callable[["Future[Answer]"], None]:
        def done(_: "Future[Answer]") -> None:
            ends[number] = time.perf_counter() - began
            if len(ends) == len(questions):
                all_done.set()

        return done

    for number, (question, route) in enumerate(questions):
        ticket = bot.submit(Asked(question, f"U{number}", "C0", route=route))
        ticket.add_done_callback(note(number))
        if not together:
            ticket.result(timeout=300)
    all_done.wait(timeout=300)
    return max(ends.values()), list(ends.values())


# --- figures ---


def speed(bench: "Bench") -> "Iterator[Figure]":
    """Whole answers: against llama.cpp, 95th percentile for one user, and sixteen at once."""
    from tests.bench.answer import Figure

    shop = open_shop(bench.home / CONTEXT, bench.embedder)
    threads = torch.get_num_threads()
    with llama_server.running(base_model.gguf_file(), "bench", threads) as (address, _):
        llama = Llama(address)
        llama.write("Warm up.", 8)
        for name, target, ours, theirs in ratios(shop, llama):
            pairs = [mine / other for mine, other in zip(ours, theirs, strict=True)]
            mine, other = (1000 * statistics.median(times) for times in (ours, theirs))
            told = f"{spread(pairs)}; medians {mine:.0f} and {other:.0f} ms, {threads} threads"
            yield Figure(name, statistics.median(pairs), target, told, most=True)
    for name, target, times in alone(shop):
        told = f"{len(times)} answers, median {statistics.median(times):.2f} s"
        yield Figure(f"{name}, one user, p95 in s", float(np.quantile(times, 0.95)), target, told, most=True)
    for kind, gains, spreads in crowd(shop):
        headline = kind == "mixed"
        name = f"{ASKERS} askers at once, {kind}"
        yield Figure(
            f"{name}: times the answers a second", statistics.median(gains), 2.5 if headline else None, spread(gains)
        )
        yield Figure(
            f"{name}: worst wait over median",
            statistics.median(spreads),
            4.0 if headline else None,
            spread(spreads),
            most=True,
        )


def alone(shop: Shop) -> Iterator[tuple[str, float, list[float]]]:
    """(route, target, seconds) of one user who asks what nobody has asked before."""
    unlearnt = replace(shop.tools, model=replace(shop.tools.model, memories={}))
    for name, target, tools, route in (
        ("memorised", 1.0, shop.tools, "auto"),
        ("approved", 1.0, unlearnt, "auto"),
        ("retrieved, quoted", 2.0, shop.tools, "documents"),
        ("retrieved, written", 2.0, writing(shop), "documents"),
    ):
        questions = shop.asked if route == "documents" else [question for question, _ in shop.memorised]
        times = []
        for question in questions[: 2 * PAIRS]:
            shop.forget()
            times.append(whole(shop, question, tools, route)[0])
        yield name, target, times[1:]


def spread(these: Sequence[float]) -> str:
    """How many, and between which tenths of them."""
    low, high = np.quantile(these, [0.1, 0.9])
    return f"{len(these)} pairs, {low:.2f} to {high:.2f} (tenths)"


@click.command()
@click.option("--same-text", "count", type=int, help="Instead, compare the texts for so many questions (500: slow).")
@click.option("--form", "forms", multiple=True, default=("float32", "bfloat16"), help="The forms to compare.")
def main(count: int | None, forms: tuple[str, ...]) -> None:
    """Measure and print."""
    from tests.bench import answer

    environment.prepare()
    with tempfile.TemporaryDirectory() as home:
        if count:
            figures = list(same_text(base_model.embedded(Path(home)), forms, count))
        else:
            figures = list(speed(answer.Bench(Embedder(), Path(home))))
        click.echo(answer.table(figures))


if __name__ == "__main__":
    main()
