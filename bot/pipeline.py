"""The four routes: everything the bot does with a question, with no Slack in it.

    approved, not yet in the weights, surely the same question  -> APPROVED   the stored answer, verbatim
    in the weights and sure enough                              -> MEMORISED  the model's own words, taught wording
    otherwise, passages that answer it                          -> RETRIEVED  with sources
    not sure                                                    -> ABSTAINED  nearest pages

A taught answer that is only probably meant ("the closest I was taught") competes with the documents: the surer one is
given. One whose page was changed since it was taught gives way to the documents. Who gets no answer is offered the
nearest taught questions and may say which one was meant. Every decision asks a calibrated probability of
`bot.confidence`, thresholds live on the model version, and all that was weighed is stored.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bot import prompt, quoting
from bot.confidence import Confidence, Features, memory_features, pair_features
from bot.generation import Engine, Generation
from retrieval.retriever import Hit
from retrieval.taught import Encoder, Match, TaughtQuestions
from storage import grounds
from storage.domain import WORKSPACE, Answer, Memory, Question, Route, Source, Style, Suggestion
from storage.errors import EngineError, NotFoundError

PASSAGES_READ = 4
PASSAGES_SHOWN = 3
SUGGESTED, WORTH_SUGGESTING = 3, 0.6
"""Taught questions offered at most, and the least nearness of one (see `retrieval.nearness`).

Of 240 colleagues' wordings the right fact is the nearest for 0.89 and among these three for 0.94; of questions from
outside every scope 7 to 13 % are offered something (DECISIONS.md).
"""
CHOSEN = "chosen"
"""The feature of answers to a taught question that the asker chose."""
GONE = "That taught question is not there any more; please ask again."
ROUTES = ("auto", "memory", "raw", "documents")
ABSTENTION = "I don't know. If you do, teach me, and I will know it next time."
ABSTENTION_ALONE = (
    "I don't know: my language model cannot be reached just now, and no approved answer or page fits. "
    "Ask again later, or teach me."
)
log = logging.getLogger(__name__)


class Searcher(Protocol):
    """Finds passages for a question."""

    def hits(
        self, question: str, k: int, scopes: Collection[str], vector: NDArray[np.float32] | None = None
    ) -> list[Hit]:
        """The best passages first."""
        ...

    def notes(self, hits: Sequence[Hit], scopes: Collection[str]) -> list[str]:
        """What a model reads of them."""
        ...


@dataclass(frozen=True)
class Model:
    """One model version in memory: its engine, the confidence fitted for its weights, and what it memorised."""

    version: str
    engine: Engine
    confidence: Confidence
    memories: Mapping[int, Memory]


@dataclass(frozen=True)
class Tools:
    """What an answer stands on: the searches and the model that serves."""

    embedder: Encoder
    taught: TaughtQuestions
    searcher: Searcher
    model: Model
    max_tokens: int = 96
    stale: Callable[[], Collection[int]] = frozenset
    """The corrections whose page was changed since they were taught."""


@dataclass
class Work:
    """One question on its way through the routes, with the clock of its stages (milliseconds)."""

    question: Question
    scopes: Collection[str]
    vector: NDArray[np.float32]
    timings: dict[str, float] = field(default_factory=dict)
    weighed: dict[str, Features] = field(default_factory=dict)
    engine_failed: bool = False
    _mark: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.timings[stage] = round(self.timings.get(stage, 0.0) + 1000 * (now - self._mark), 2)
        self._mark = now

    def decided(self, reply: Answer) -> Answer:
        """The answer with its clock, and with the features of what was weighed and not given (`head/feature`)."""
        others = {
            f"{head}/{name}": value
            for head, features in self.weighed.items()
            if features is not reply.features
            for name, value in features.items()
        }
        total = round(sum(self.timings.values()), 2)
        return replace(reply, features=reply.features | others, timings=self.timings | {"total_ms": total})

    def without_engine(self, error: EngineError, *, forced: bool = False) -> None:
        """Go on without the model, which is said where no answer comes of it; raise when its route was forced."""
        if forced:
            raise error
        log.warning("answered without the model: %s", error)
        self.lap("model_ms")
        self.engine_failed = True


def answer(
    tools: Tools,
    question: Question,
    *,
    scopes: Collection[str] = (WORKSPACE,),
    route: str = "auto",
    meant: int | None = None,
    refused: int | None = None,
) -> Answer:
    """Answer a question by the first route that is sure enough; `route` forces one, for measuring.

    `meant` is the correction whose question the asker said was meant: NotFoundError when it is not there. `refused` is
    the one that was not meant: where no page answers, others are offered.
    """
    work = Work(question, scopes, np.zeros(0, dtype=np.float32))
    work.vector = tools.embedder.encode([question.text])[0]
    work.lap("embed_ms")
    if meant is not None:
        return work.decided(as_meant(tools, work, meant))
    reply = None
    if route == "raw":
        reply = closed_book(tools, work)
    if reply is None and route in ("auto", "memory"):
        reply = from_teaching(tools, work, forced=route == "memory")
    if route in ("auto", "documents") and (reply is None or reply.style is Style.RELATED):
        reply = surer(reply, from_documents(tools, work))
    reply = reply or abstain(tools, work, [], {}, 0.0)
    if reply.route is Route.ABSTAINED and (route == "auto" or refused is not None):
        reply = replace(reply, suggestions=suggestions(tools, work, refused))
    return work.decided(reply)


def surer(related: Answer | None, read: Answer) -> Answer:
    """What was read, unless the closest taught answer is at least as likely to be right."""
    if related is None or (read.route is Route.RETRIEVED and read.confidence > related.confidence):
        return read
    return related


def from_teaching(tools: Tools, work: Work, *, forced: bool) -> Answer | None:
    """The answer to the nearest taught question, if it is surely (or nearly) the same question."""
    match = tools.taught.nearest(work.question.text, work.vector, work.scopes)
    work.lap("taught_ms")
    if match is None:
        return None
    if not forced and gives_way(tools, work, match):
        return None
    memory = tools.model.memories.get(match.correction_id)
    if memory is not None and (memory.memorised or forced):
        reply = memorised(tools, work, match, forced=forced)
        if reply is not None:
            return reply
    return approved(tools, work, match, forced=forced)


def as_meant(tools: Tools, work: Work, correction_id: int) -> Answer:
    """The answer to the taught question that the asker chose. Raises NotFoundError when it is not there any more.

    Where its page was changed since, the documents are asked that question.
    """
    match = tools.taught.beside(work.question.text, work.vector, correction_id, work.scopes)
    work.lap("taught_ms")
    if match is not None and gives_way(tools, work, match):
        work.question = replace(work.question, text=match.question)
        work.vector = tools.embedder.encode([match.question])[0]
        work.lap("embed_ms")
        return from_documents(tools, work)
    memory = tools.model.memories.get(correction_id)
    reply = None
    if match is not None and memory is not None and memory.memorised:
        reply = memorised(tools, work, match, forced=False, chosen=True)
    if match is not None and reply is None:
        reply = approved(tools, work, match, forced=True)
    if reply is None:
        raise NotFoundError(GONE)
    return replace(reply, style=Style.DIRECT, features=reply.features | {CHOSEN: 1.0})


def gives_way(tools: Tools, work: Work, match: Match) -> bool:
    """Whether the page of a taught answer was changed since it was taught, which is noted."""
    if match.correction_id not in tools.stale():
        return False
    work.weighed["taught"] = {"stale": 1.0, "correction": float(match.correction_id)}
    return True


def suggestions(tools: Tools, work: Work, refused: int | None = None) -> tuple[Suggestion, ...]:
    """The taught questions that may have been meant, the nearest first; those that gave way to a page are not."""
    ranked = tools.taught.ranked(work.question.text, work.vector, work.scopes)
    near = [(nearness, row) for nearness, row in ranked if row["correction_id"] != refused][:SUGGESTED]
    stale = tools.stale()
    found = tuple(
        Suggestion(row["correction_id"], row["question"])
        for nearness, row in near
        if nearness >= WORTH_SUGGESTING and row["correction_id"] not in stale
    )
    work.lap("suggest_ms")
    return found


def memorised(tools: Tools, work: Work, match: Match, *, forced: bool, chosen: bool = False) -> Answer | None:
    """The model's own words, asked in the taught wording; None when it does not confirm the stored answer.

    With `chosen` the asker said that this question was meant: what the confidence says of that does not count.
    """
    chat = prompt.messages(match.question)
    try:
        generation = tools.model.engine.confirm(chat, match.answer, max_tokens=tools.max_tokens)
    except EngineError as error:
        work.without_engine(error, forced=forced)
        return None
    features = memory_features(work.question.text, match, generation)
    work.lap("model_ms")
    # A long answer is cut at the limit and confirmed so far; one that holds a special token of the tokenizer is
    # confirmed and loses it when it is written.
    whole = generation.confirmed == 1.0 and generation.stopped and generation.text.strip() == match.answer.strip()
    if not whole and not forced:
        return None
    return taught_answer(tools, work, match, Route.MEMORISED, generation.text, features, forced=forced or chosen)


def approved(tools: Tools, work: Work, match: Match, *, forced: bool) -> Answer | None:
    """The stored answer, word for word."""
    features = pair_features(work.question.text, match)
    return taught_answer(tools, work, match, Route.APPROVED, match.answer, features, forced=forced)


def taught_answer(
    tools: Tools,
    work: Work,
    match: Match,
    route: Route,
    text: str,
    features: Features,
    *,
    forced: bool,
) -> Answer | None:
    """An answer that names the taught question: direct when sure, "the closest I was taught" when half sure."""
    name = "memorised" if route is Route.MEMORISED else "same"
    head = tools.model.confidence.head(name)
    confidence = head.probability(features)
    work.weighed[name] = features
    if confidence < head.related and not forced:
        return None
    style = Style.DIRECT if confidence >= head.direct else Style.RELATED
    return Answer(
        question_id=work.question.id,
        text=text,
        route=route,
        style=style,
        confidence=confidence,
        model_version=tools.model.version,
        taught_question=match.question,
        correction_id=match.correction_id,
        sources=grounds.cited(tools.taught.database, match.correction_id),
        features=features,
    )


def from_documents(tools: Tools, work: Work) -> Answer:
    """Read the passages found: quote them or answer in own words, whichever is surer; abstain when neither is."""
    found = tools.searcher.hits(work.question.text, PASSAGES_READ, work.scopes, vector=work.vector)
    work.lap("retrieve_ms")
    candidates = [c for c in (quoted(tools, work, found), generated(tools, work, found)) if c is not None]
    if not candidates:
        return abstain(tools, work, found, {}, 0.0)
    best = max(candidates, key=lambda c: (sure_enough(tools, c), c.confidence))
    return best if sure_enough(tools, best) else abstain(tools, work, found, best.features, best.confidence)


def sure_enough(tools: Tools, read: Answer) -> bool:
    """Whether an answer from documents may be given."""
    head = tools.model.confidence.head(read.style.value)
    return read.confidence >= min(head.direct, head.related)


def quoted(tools: Tools, work: Work, found: list[Hit]) -> Answer | None:
    """The passages' own sentences."""
    quote = quoting.best_quote(work.question.text, work.vector, found, tools.embedder)
    work.lap("quote_ms")
    if quote is None:
        return None
    used = [h for h in found if h.passage.id in {p.id for p in quote.passages}]
    return documents_answer(tools, work, Style.QUOTED, quote.text, search_features(found) | quote.features, used)


def generated(tools: Tools, work: Work, found: list[Hit]) -> Answer | None:
    """The model's answer after reading; not tried where quoting was measured to be better for these weights."""
    if tools.model.confidence.reading == "quoted" or not found:
        return None
    chat = prompt.messages(work.question.text, tools.searcher.notes(found, work.scopes))
    try:
        generation = tools.model.engine.generate(chat, max_tokens=tools.max_tokens)
    except EngineError as error:
        work.without_engine(error)
        return None
    work.lap("model_ms")
    if generation.text == prompt.UNKNOWN:
        return None
    features = generated_features(search_features(found), generation)
    return documents_answer(tools, work, Style.GENERATED, generation.text, features, found)


def generated_features(search: Features, generation: Generation) -> Features:
    """How sure the search is, and how sure the model was of what it wrote."""
    return search | {
        "mean_logprob": max(-5.0, generation.mean_logprob),
        "lowest_logprob": max(-10.0, generation.lowest_logprob),
        "stopped": float(generation.stopped),
    }


def documents_answer(tools: Tools, work: Work, style: Style, text: str, features: Features, used: list[Hit]) -> Answer:
    """An answer from documents with its sources and its probability."""
    confidence = tools.model.confidence.head(style.value).probability(features)
    work.weighed[style.value] = features
    return Answer(
        question_id=work.question.id,
        text=text,
        route=Route.RETRIEVED,
        style=style,
        confidence=confidence,
        model_version=tools.model.version,
        sources=sources(used),
        features=features,
    )


def closed_book(tools: Tools, work: Work) -> Answer:
    """What the model says to the asker's own words with no help at all; for measuring, never served."""
    generation = tools.model.engine.generate(prompt.messages(work.question.text), max_tokens=tools.max_tokens)
    work.lap("model_ms")
    features = {"mean_logprob": generation.mean_logprob, "lowest_logprob": generation.lowest_logprob}
    return Answer(
        work.question.id,
        generation.text,
        Route.MEMORISED,
        Style.GENERATED,
        0.0,
        tools.model.version,
        features=features,
    )


def abstain(tools: Tools, work: Work, found: list[Hit], features: Features, confidence: float) -> Answer:
    """Say so, and show the nearest pages; `confidence` is of the answer that was held back."""
    return Answer(
        question_id=work.question.id,
        text=ABSTENTION_ALONE if work.engine_failed else ABSTENTION,
        route=Route.ABSTAINED,
        style=Style.NONE,
        confidence=confidence,
        model_version=tools.model.version,
        sources=sources(found[:PASSAGES_SHOWN]),
        features=features,
    )


def search_features(found: list[Hit]) -> Features:
    """How sure the search is: the best similarity of either kind, and the lead over the second page."""
    if not found:
        return {"best_cosine": 0.0, "best_bm25": 0.0, "lead": 0.0, "agree": 0.0}
    cosines = [h.cosine for h in found]
    top = max(found, key=lambda h: h.cosine)
    others = [h.cosine for h in found if h.passage.document_id != top.passage.document_id]
    strongest = max(found, key=lambda h: h.bm25)
    return {
        "best_cosine": max(cosines),
        "best_bm25": strongest.bm25,
        "lead": top.cosine - max(others, default=0.0),
        "agree": float(strongest.passage.document_id == top.passage.document_id),
    }


def sources(found: list[Hit]) -> tuple[Source, ...]:
    """The pages of some hits, each named once."""
    named: dict[tuple[str, str], Source] = {}
    for hit in found:
        page = hit.passage
        named.setdefault(
            (page.document, page.heading), Source(page.document, page.heading, page.url, round(hit.fused, 4))
        )
    return tuple(named.values())
