"""Does a version say the same whatever the words? Asked closed-book, and through the route that serves people.

The wordings are never-trained ones and trained ones, and questions at the edge (`edges`). Two closed-book texts are the
same answer when they are near (cosine, the source documents' 0.85) and state the same numbers, names and codes.
Through the memory route nothing but the very same text counts. It decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bot import pipeline, prompt
from bot.generator import LocalGenerator
from bot.pipeline import Tools
from learning import edges
from learning.dataset import Fact
from retrieval.quantities import values
from retrieval.retriever import Hit
from retrieval.taught import Encoder
from storage.domain import Question, Style
from storage.texts import plain

NEAR = 0.85
TRAINED_ASKED = 3
"""Trained wordings asked of each fact, besides the taught one."""


@dataclass(frozen=True)
class NoPages:
    """A search that finds nothing, so that only what was taught can answer."""

    def hits(self, *_: object, **__: object) -> list[Hit]:
        """Nothing."""
        return []

    def notes(self, *_: object) -> list[str]:
        """Nothing."""
        return []


@dataclass
class Route:
    """The memory route of one version; an answer is asked for once."""

    tools: Tools
    _known: dict[str, str] = field(default_factory=dict)

    def text(self, asked: str) -> str:
        """What the route says, whatever its confidence."""
        if asked not in self._known:
            self._known[asked] = pipeline.answer(self.tools, question(asked), route="memory").text
        return self._known[asked]

    def is_sure(self, asked: str) -> bool:
        """Whether the question would be answered as surely the taught one."""
        return pipeline.answer(self.tools, question(asked)).style is Style.DIRECT


def question(text: str) -> Question:
    """A question that nobody asked and that is not stored."""
    return Question(0, text, "", "", "", "")


def same_in_all_wordings(
    engine: LocalGenerator, route: Route, facts: Sequence[Fact], unseen: Mapping[int, Sequence[str]], embedder: Encoder
) -> dict[str, float]:
    """The shares of wordings that get the answer which the taught wording gets; `unseen` by correction.

    The names say how it was asked (closed-book or memory route) and in which wordings (trained or unseen).
    """
    trained = {f.correction_id: tuple(w for w in f.trained if w != f.question)[:TRAINED_ASKED] for f in facts}
    told: dict[str, float] = {}
    for name, wordings in (("trained", trained), ("unseen", unseen)):
        asked = [(f.question, w) for f in facts for w in wordings.get(f.correction_id, ())]
        if asked:
            alike = same_answers(closed_book(engine, asked, route.tools.max_tokens), embedder)
            told[f"closed_book_{name}"] = share(alike)
            told[f"memory_route_{name}"] = share([route.text(w) == route.text(taught) for taught, w in asked])
    return told


def closed_book(engine: LocalGenerator, asked: Sequence[tuple[str, str]], max_tokens: int) -> list[tuple[str, str]]:
    """The model's own answers to pairs of questions; a question is asked once."""
    known = list(dict.fromkeys(q for pair in asked for q in pair))
    texts = engine.generate_many([prompt.messages(q) for q in known], max_tokens=max_tokens)
    said = dict(zip(known, texts, strict=True))
    return [(said[left], said[right]) for left, right in asked]


def same_answers(pairs: Sequence[tuple[str, str]], embedder: Encoder) -> list[bool]:
    """Which pairs of texts are the same answer."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = dict(zip(texts, embedder.encode(texts), strict=True))
    return [
        plain(left) == plain(right) or (float(vectors[left] @ vectors[right]) > NEAR and values(left) == values(right))
        for left, right in pairs
    ]


def at_the_edge(engine: LocalGenerator, route: Route, facts: Sequence[Fact], seed: int) -> dict[str, float]:
    """The share of stored answers given to each kind of edge question, and of vague ones answered as sure."""
    told: dict[str, float] = {}
    for kind in edges.CLEAR:
        asked = [
            (f, text) for f in facts if (text := edges.clear(f.question, seed).get(kind)) and text not in f.trained
        ]
        if asked:
            said = engine.generate_many([prompt.messages(q) for _, q in asked], max_tokens=route.tools.max_tokens)
            told[f"{kind}_closed_book"] = share(
                [plain(s) == plain(f.answer) for (f, _), s in zip(asked, said, strict=True)]
            )
            told[f"{kind}_memory_route"] = share([plain(route.text(q)) == plain(f.answer) for f, q in asked])
            told[f"{kind}_answered_as_sure"] = share([route.is_sure(q) for _, q in asked])
    told["ambiguous_answered_as_sure"] = share([route.is_sure(edges.vague(f.question, seed)) for f in facts])
    return told


def share(results: Sequence[bool]) -> float:
    """The share of true results, 0 of none."""
    return sum(results) / len(results) if results else 0.0
