"""Which taught question is nearest to what was asked?

Holds every wording of every approved correction as one matrix of embeddings, and its answer as another, renewed when
the database's revision moves. Finding is done here, by the sum of similarities in `nearness`; deciding whether it IS
the same question is `bot.confidence`'s.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.nearness import AskedWords, Vocabulary
from storage import corrections
from storage.database import Database, Row
from storage.domain import WORKSPACE
from storage.texts import plain

Vectors = NDArray[np.float32]
UNRELATED = 0.4
"""Cosine that two unrelated questions often have; with few taught questions the second best says nothing."""
UNRELATED_NEARNESS = 0.6
"""The same of nearness, whose second best has a median of 0.57 among ten taught questions and 0.76 among sixty."""


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors [n, dimension]."""

    @property
    def name(self) -> str:
        """The model's name; vectors of different names are never compared."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text."""
        ...


@dataclass(frozen=True)
class Match:
    """The nearest taught question.

    `gap` is the cosine distance to the best wording of any other correction; `nearness` the sum that ranks it, `lead`
    the distance in it to the next correction, and `word_lead` that distance in shared words alone; `unseen` the share
    of the asked words that nothing taught has; `answer_cosine` the similarity of what was asked to the stored answer;
    `compared` what comparing word by word gave, where that is done.
    """

    correction_id: int
    question: str
    answer: str
    wording: str
    cosine: float
    gap: float
    taught_cosine: float
    wordings: tuple[str, ...] = field(default=())
    nearness: float = 0.0
    lead: float = 0.0
    word_lead: float = 0.0
    unseen: float = 0.0
    answer_cosine: float = 0.0
    compared: Mapping[str, float] = field(default_factory=dict)


@dataclass
class TaughtQuestions:
    """The matrix of taught wordings. One thread owns it."""

    database: Database
    embedder: Encoder
    compare: Callable[[str, Sequence[str]], Mapping[str, float]] | None = None
    _revision: int = -1
    _rows: tuple[Row, ...] = ()
    _matrix: Vectors = field(default_factory=lambda: np.zeros((0, 1), dtype=np.float32))
    _answers: dict[str, Vectors] = field(default_factory=dict)
    _vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary.of({}))

    def nearest(
        self, text: str, vector: Vectors, scopes: Collection[str] = (WORKSPACE,), *, without: int | None = None
    ) -> Match | None:
        """The approved correction nearest to a question that the asker may see, or None.

        `without` names a correction that is passed over, as if it had not been taught.
        Of two that are equally near the newer one wins. A correction whose rejected wording ("Not my question") is
        nearer than any accepted one is passed over; nobody's click rejects the taught question itself, whatever its
        case and punctuation.
        """
        self._renew()
        best = self._best_by_correction(vector, scopes)
        best.pop(without or 0, None)
        if not best:
            return None
        return self._nearest(text, vector, best, None)

    def beside(
        self,
        text: str,
        vector: Vectors,
        correction_id: int,
        scopes: Collection[str] = (WORKSPACE,),
        *,
        without: Collection[int] = (),
    ) -> Match | None:
        """The match that one correction would be if it were the nearest of all but `without`; None if it is not taught.

        For a question whose asker said which taught one was meant, and for measuring what decides.
        """
        self._renew()
        best = {k: told for k, told in self._best_by_correction(vector, scopes).items() if k not in without}
        return self._nearest(text, vector, best, correction_id) if correction_id in best else None

    def ranked(self, text: str, vector: Vectors, scopes: Collection[str] = (WORKSPACE,)) -> list[tuple[float, Row]]:
        """Every taught question that the asker may see, the nearest first, each with its nearness.

        The rows hold `correction_id` and `question`.
        """
        self._renew()
        best = self._best_by_correction(vector, scopes)
        near = self._weighed(AskedWords.of(text), vector, best)[0]
        return [(near[key], best[key][1]) for key in sorted(near, key=lambda key: (near[key], key), reverse=True)]

    def _weighed(
        self, asked: AskedWords, vector: Vectors, best: Mapping[int, tuple[float, Row]]
    ) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
        """Nearness, similarity to the stored answer, and share of words, by correction."""
        answers = {key: float(self._answers[row["answer"]] @ vector) for key, (_, row) in best.items()}
        words = {key: self._vocabulary.shared(asked.words, key) for key in best}
        near = {k: self._vocabulary.nearness(asked, k, cosine, answers[k], words[k]) for k, (cosine, _) in best.items()}
        return near, answers, words

    def _nearest(self, text: str, vector: Vectors, best: dict[int, tuple[float, Row]], chosen: int | None) -> Match:
        asked = AskedWords.of(text)
        near, answers, words = self._weighed(asked, vector, best)
        first = chosen or max(best, key=lambda key: (near[key], key))
        match = replace(
            self._match(vector, best, first),
            nearness=near[first],
            lead=ahead(near, first, UNRELATED_NEARNESS),
            word_lead=ahead(words, first, 0.0),
            unseen=self._vocabulary.unseen(asked.words),
            answer_cosine=answers[first],
        )
        if self.compare is None:
            return match
        return replace(match, compared=self.compare(text, (match.question, *match.wordings)))

    def _match(self, vector: Vectors, best: dict[int, tuple[float, Row]], first: int) -> Match:
        cosine, row = best[first]
        own = [r for r in self._rows if r["correction_id"] == first and r["kind"] != "rejected"]
        taught = next((r["cosine"] for r in self._scored(vector, own) if r["text"] == row["question"]), cosine)
        gap = cosine - max([UNRELATED, *(found[0] for key, found in best.items() if key != first)])
        return Match(
            correction_id=first,
            question=row["question"],
            answer=row["answer"],
            wording=row["text"],
            cosine=cosine,
            gap=gap,
            taught_cosine=taught,
            wordings=tuple(r["text"] for r in own),
        )

    def _best_by_correction(self, vector: Vectors, scopes: Collection[str]) -> dict[int, tuple[float, Row]]:
        best: dict[int, tuple[float, Row]] = {}
        refused: dict[int, float] = {}
        if not self._rows:
            return best
        for row, score in zip(self._rows, (self._matrix @ vector).tolist(), strict=True):
            key = row["correction_id"]
            if row["scope"] not in scopes:
                continue
            if row["kind"] == "rejected":
                if plain(row["text"]) != plain(row["question"]):
                    refused[key] = max(score, refused.get(key, -1.0))
            elif key not in best or score > best[key][0]:
                best[key] = (score, row)
        return {k: found for k, found in best.items() if found[0] >= refused.get(k, -1.0)}

    def _scored(self, vector: Vectors, rows: Sequence[Row]) -> list[Row]:
        return [r | {"cosine": float(np.frombuffer(r["vector"], dtype=np.float32) @ vector)} for r in rows]

    def _renew(self) -> None:
        revision = corrections.taught_revision(self.database)
        if revision == self._revision:
            return
        self._embed_new()
        self._rows = tuple(r for r in corrections.taught(self.database, self.embedder.name) if r["vector"] is not None)
        stacked = [np.frombuffer(r["vector"], dtype=np.float32) for r in self._rows]
        self._matrix = np.stack(stacked) if stacked else np.zeros((0, 1), dtype=np.float32)
        self._answers = self._embedded_answers()
        texts: dict[int, list[str]] = {}
        for row in self._rows:
            own = texts.setdefault(row["correction_id"], [row["question"], row["answer"]])
            own += [row["text"]] if row["kind"] != "rejected" else []
        self._vocabulary = Vocabulary.of(texts)
        self._revision = revision

    def _embedded_answers(self) -> dict[str, Vectors]:
        """The vector of every stored answer; those that are known already are not embedded again."""
        wanted = list(dict.fromkeys(row["answer"] for row in self._rows))
        new = [answer for answer in wanted if answer not in self._answers]
        made = dict(zip(new, self.embedder.encode(new), strict=True)) if new else {}
        return {answer: made[answer] if answer in made else self._answers[answer] for answer in wanted}

    def _embed_new(self) -> None:
        name = self.embedder.name
        waiting = corrections.wordings_to_embed(self.database, name)
        if not waiting:
            return
        vectors = self.embedder.encode([r["text"] for r in waiting]).astype(np.float32)
        made = [(r["id"], v.tobytes()) for r, v in zip(waiting, vectors, strict=True)]
        corrections.store_vectors(self.database, name, made)


def ahead(scores: Mapping[int, float], first: int, least: float) -> float:
    """How far one correction's score lies above the best of the others, which counts as `least` at least."""
    return scores[first] - max([least, *(score for key, score in scores.items() if key != first)])
