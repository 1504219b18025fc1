"""Is the right route taken? A bot that was taught sixty facts and has read the handbook, asked by all sorts of people.

Colleagues' wordings, near-misses, and questions that nobody here can answer: three kinds of those, of which the
near-topic ones were written for this bench alone. The confidence that decides about a fact was fitted without that
fact. With a merged model at hand the facts it knows are asked of its weights; without one they are approved answers.
It draws nothing and sets no target.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from bot import confidence, pipeline, prompt
from bot.confidence import Confidence
from bot.generation import Engine, Generation
from bot.generator import LocalGenerator
from bot.pipeline import Model, Tools
from bot.prompt import Message
from bot.same_question import Comparer
from learning import calibrate, wordings
from learning.reliability import Outcomes, outcomes
from retrieval.embedder import Embedder
from retrieval.taught import TaughtQuestions
from storage import company, corrections
from storage.database import Row
from storage.domain import Answer, Memory, Question, Route, Style
from tests.bench import asking

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "data" / "bench"
FOLDS = 5
UNKNOWN_OF_A_KIND = 60
TRAFFIC = {"wording": 0.8, "near_miss": 0.1, "unknown": 0.1}
SEED = 7
TAUGHT_WORDINGS = 8


@dataclass(frozen=True)
class Asked:
    """A question with what makes an answer right: a fact taught, a key, or (with neither) only silence."""

    kind: str
    source: str
    fact: str
    text: str
    keys: company.Keys = ()


@dataclass(frozen=True)
class Served:
    """What the bot said, and the surest thing it could have said; whether each was right (None: there is no key)."""

    asked: Asked
    answer: Answer
    right: bool | None
    surest: Answer
    surest_right: bool | None

    @property
    def direct(self) -> bool:
        """Whether it was given as the answer, from memory or as approved."""
        return self.answer.style is Style.DIRECT

    @property
    def offered(self) -> bool:
        """Whether it was not answered, and taught questions were offered instead."""
        return bool(self.answer.suggestions)

    @property
    def taught(self) -> bool:
        """Whether a taught answer was given, directly or as the closest."""
        return self.answer.style in (Style.DIRECT, Style.RELATED)


class Remembering:
    """An engine that is asked the same thing only once."""

    def __init__(self, engine: LocalGenerator) -> None:
        self._confirm = cache(lambda question, draft, n: engine.confirm(prompt.messages(question), draft, max_tokens=n))

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text for a question without passages."""
        return self._confirm(messages[-1]["content"], draft, max_tokens)


@dataclass
class Office:
    """The taught bot, with one set of heads for each fold of the facts."""

    tools: Tools
    ids: dict[str, int]
    heads: list[Confidence]
    pages: dict[tuple[str, str | None], str]
    memorised: int
    folds: dict[str, int] = field(default_factory=dict)

    def ask(self, asked: Asked, *, route: str = "auto", always: bool = False) -> Answer:
        """An answer under the confidence that never saw the fact; with `always` no threshold holds one back."""
        heads = self.heads[self.folds.setdefault(asked.fact, len(self.folds) % FOLDS)]
        model = replace(self.tools.model, confidence=willing(heads) if always else heads)
        question = Question(1, asked.text, "U1", "C1", "", "2026-11-20T00:00:00+00:00")
        return pipeline.answer(replace(self.tools, model=model), question, route=route)

    def serve(self, asked: Asked) -> Served:
        """An answer, and the surest candidate."""
        answer, surest = self.ask(asked), self.ask(asked, always=True)
        return Served(asked, answer, self.right(asked, answer), surest, self.right(asked, surest))

    def a_press_away(self, served: Served) -> bool:
        """Whether the answer was right, or the taught question that was meant is among those offered."""
        offered = {one.correction_id for one in served.answer.suggestions}
        return bool(served.right) or self.ids.get(served.asked.fact) in offered

    def right(self, asked: Asked, answer: Answer) -> bool | None:
        """Whether an answer is right; silence is right where nothing is known. None for what has no key."""
        if answer.route is Route.ABSTAINED:
            return asked.kind == "unknown"
        if asked.kind == "unknown":
            return False
        if answer.correction_id is not None and asked.kind in ("wording", "near_miss"):
            return asked.kind == "wording" and answer.correction_id == self.ids[asked.fact]
        return company.answer_matches(answer.text, asked.keys) if asked.keys else None


def office(home: Path, embedder: Embedder) -> Office:
    """Read the handbook, teach every fact, and fit the folds."""
    shelf = asking.library(home, embedder, company.pages())
    ids = {}
    for fact in company.facts():
        row = corrections.propose(shelf.database, question=fact.question, answer=fact.answer, author="author")
        corrections.approve(shelf.database, row.id, "reviewer")
        asked = wordings.generate(fact.question, TAUGHT_WORDINGS, SEED)
        corrections.add_wordings(shelf.database, row.id, asked, "generated")
        ids[fact.id] = row.id
    engine, memories = weights(ids)
    made = Tools(
        embedder=embedder,
        taught=TaughtQuestions(shelf.database, embedder, Comparer(embedder)),
        searcher=shelf.retriever,
        model=Model("bench", engine, Confidence({}), memories),
    )
    rows = shelf.database.rows(
        "SELECT d.title, p.heading, p.section FROM passages p JOIN documents d ON d.id = p.document_id"
    )
    pages: dict[tuple[str, str | None], str] = {(r["title"], r["heading"]): r["section"] for r in rows}
    for found in rows:
        pages[found["title"], None] = f"{pages.get((found['title'], None), '')}\n{found['section']}"
    folds = {fact: n % FOLDS for n, fact in enumerate(sorted(ids))}
    return Office(made, ids, [heads_without(folds, k) for k in range(FOLDS)], pages, len(memories), folds)


def weights(ids: dict[str, int]) -> tuple[Engine, dict[int, Memory]]:
    """The newest merged model with the facts that it confirms; without one nothing is memorised."""
    found = sorted(p for p in MODELS.glob("merged-*") if (p / "config.json").is_file())
    if not found:
        return cast(Engine, None), {}
    engine = Remembering(LocalGenerator(found[-1]))
    known = {}
    for fact in company.facts():
        told = engine.confirm(prompt.messages(fact.question), fact.answer, max_tokens=96)
        if told.confirmed == 1.0:
            known[ids[fact.id]] = Memory("bench", ids[fact.id], True, {})
    return cast(Engine, engine), known


def heads_without(folds: dict[str, int], left_out: int) -> Confidence:
    """The confidence fitted on the shipped rows of all other folds; rows of no fact are dealt out in turn.

    Rows that ask of another fact in the words of one that is left out are left out too.
    """
    rows = calibrate.shipped_rows()
    others = sorted({str(r["fact"]) for r in rows} - folds.keys())
    place = folds | {name: n % FOLDS for n, name in enumerate(others)}
    gone = texts_of(f for f in company.facts() if folds[f.id] == left_out)
    kept = [r for r in rows if place[str(r["fact"])] != left_out and r["asked"] not in gone]
    return fitted(kept)


def texts_of(facts: Iterable[company.CompanyFact]) -> set[str]:
    """Everything that is asked of some facts, and what is nearly that."""
    return {text for f in facts for text in (f.question, *f.wordings, *f.near_misses)}


def fitted(rows: Sequence[Row]) -> Confidence:
    """The confidence from some rows, for the risks that are allowed where nothing is set."""
    return confidence.from_json(calibrate.fit(rows, target_wrong=0.02, target_wrong_documents=0.05))


def willing(heads: Confidence) -> Confidence:
    """The same heads without a threshold below which they are silent."""
    return replace(heads, heads={name: replace(head, related=0.0) for name, head in heads.heads.items()})


# --- who asks what ---


def traffic() -> Iterator[Asked]:
    """Wordings, near-misses and unknown questions, all of them."""
    for fact in company.facts():
        yield from (Asked("wording", "colleague", fact.id, text, fact.keys) for text in fact.wordings)
        yield from (Asked("near_miss", "near-miss", fact.id, text) for text in fact.near_misses)
    yield from unknown()


def unknown() -> Iterator[Asked]:
    """Questions that nothing here answers: near-topic ones of our own, and two public sets where they are there."""
    rows = [json.loads(line) for line in (HERE / "near_topic.jsonl").read_text(encoding="utf-8").splitlines()]
    yield from (Asked("unknown", "near-topic", row["id"], row["question"]) for row in rows)
    for source, texts in (("selfaware", selfaware()), ("clinc150", clinc())):
        chosen = np.random.default_rng(SEED).permutation(len(texts))[:UNKNOWN_OF_A_KIND]
        yield from (Asked("unknown", source, f"{source}-{at}", texts[at]) for at in chosen.tolist())


def selfaware() -> list[str]:
    """Questions that nobody can answer."""
    file = asking.DATA / "selfaware" / "SelfAware.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["example"] if file.is_file() else []
    return [row["question"] for row in rows if not row["answerable"]]


def clinc() -> list[str]:
    """Questions out of every scope."""
    file = asking.DATA / "clinc150" / "data_full.json"
    return [text for text, _ in json.loads(file.read_text(encoding="utf-8"))["oos_test"]] if file.is_file() else []


def golden() -> Iterator[tuple[Asked, float]]:
    """The golden set, and the facts in colleagues' wordings; each question or fact counts 1 in all."""
    for row in company.golden():
        yield Asked("golden" if row.keys else "unknown", "golden", row.id, row.question, row.keys), 1.0
    for fact in company.facts():
        for text in fact.wordings:
            yield Asked("fact", "wording", fact.id, text, fact.keys), 1.0 / len(fact.wordings)


# --- what came of it ---


def weight(served: Sequence[Served]) -> list[float]:
    """Weights that give the kinds their share of the traffic."""
    counts = {kind: sum(s.asked.kind == kind for s in served) for kind in TRAFFIC}
    return [TRAFFIC[s.asked.kind] / counts[s.asked.kind] for s in served]


def candidates(served: Sequence[Served]) -> Outcomes:
    """How sure the bot was of the surest thing it could say, and whether that was right, weighted by the traffic.

    An unknown question has no right answer. Near-misses whose surest candidate is a quote have no key and are left out.
    """
    judged = [(s, w) for s, w in zip(served, weight(served), strict=True) if s.surest_right is not None]
    right = [bool(s.surest_right) and s.surest.route is not Route.ABSTAINED for s, _ in judged]
    return outcomes([s.surest.confidence for s, _ in judged], right, [w for _, w in judged])


def cited(made: Office, answer: Answer, keys: company.Keys, *, whole: bool) -> bool:
    """Whether one of the pages that an answer names holds the answer; under the heading it names unless `whole`."""
    places = [(s.document, None if whole else s.heading) for s in answer.sources]
    return any(company.answer_matches(made.pages.get(place, ""), keys) for place in places)


def rate(served: Sequence[Served], of: Callable[[Served], bool], holds: Callable[[Served], bool]) -> float:
    """Of the answers that one thing is true of, the share of which another is, weighted by the traffic; 0 of none."""
    chosen = [(s, w) for s, w in zip(served, weight(served), strict=True) if of(s)]
    total = sum(w for _, w in chosen)
    return sum(w for s, w in chosen if holds(s)) / total if total else 0.0


@dataclass(frozen=True)
class Compared:
    """How often each policy is right, each golden question and each fact counting 1; `oracle` is right if one is."""

    memory: float
    documents: float
    routed: float
    oracle: float
    questions: int
    cited_page: float
    cited_section: float
    cited_of: int

    @property
    def best_fixed(self) -> float:
        """The better of the two policies that always do the same."""
        return max(self.memory, self.documents)

    @property
    def closed(self) -> float:
        """The share of the way from the better fixed policy to the oracle."""
        return (self.routed - self.best_fixed) / (self.oracle - self.best_fixed)


def compare(made: Office) -> Compared:
    """Ask everything three times: from memory only, from documents only, and routed."""
    rights: list[tuple[bool, bool, bool]] = []
    weights_of: list[float] = []
    sources: list[tuple[bool, ...]] = []
    for asked, counts in golden():
        answers = [made.ask(asked, route=route) for route in ("memory", "documents", "auto")]
        memory, read, routed = (bool(made.right(asked, answer)) for answer in answers)
        rights.append((memory, read, routed))
        weights_of.append(counts)
        if asked.keys and answers[1].route is Route.RETRIEVED:
            sources.append(tuple(cited(made, answers[1], asked.keys, whole=w) for w in (True, False)))
    table = np.array(rights, dtype=float)
    either = table[:, :2].max(axis=1)
    memory, read, routed, oracle = (np.average(v, weights=weights_of) for v in (*table.T, either))
    told = float(memory), float(read), float(routed), float(oracle)
    page, section = np.mean(sources, axis=0).tolist()
    return Compared(*told, len(rights), page, section, len(sources))
