"""Answer by quoting: the sentences of the found passages that are nearest to the question, word for word.

A small model reads poorly; the sentence that holds the answer is worth more than its paraphrase. Sentences are ranked
by embedding similarity and by the rare words they share with the question. It knows nothing of thresholds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bot.confidence import content, share_outside
from retrieval.taught import Encoder, Vectors
from storage.domain import Passage

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n+")
MOST_SENTENCES = 40
SHORTEST = 20


@dataclass(frozen=True)
class Quote:
    """At most two neighbouring sentences of one passage; `cosine` and `overlap` (0..1) are of the best one."""

    text: str
    passage: Passage
    cosine: float
    overlap: float
    rank: int


def best_quote(question: str, vector: Vectors, passages: Sequence[Passage], embedder: Encoder) -> Quote | None:
    """The sentences that answer the question best, or None when there is nothing to quote."""
    found = [(rank, p, s) for rank, p in enumerate(passages) for s in sentences(p.text)][:MOST_SENTENCES]
    if not found:
        return None
    vectors = embedder.encode([f"{p.document} > {p.heading}: {s}" for _, p, s in found])
    words = content(question)
    scored = []
    for (rank, passage, sentence), cosine in zip(found, (vectors @ vector).tolist(), strict=True):
        overlap = 1.0 - share_outside(words, content(f"{passage.document} {passage.heading} {sentence}"))
        scored.append((cosine + 0.3 * overlap - 0.03 * rank, cosine, overlap, rank, passage, sentence))
    _, cosine, overlap, rank, passage, sentence = max(scored, key=lambda s: s[0])
    return Quote(with_neighbour(sentence, passage, scored), passage, cosine, overlap, rank)


def with_neighbour(
    sentence: str, passage: Passage, scored: Sequence[tuple[float, float, float, int, Passage, str]]
) -> str:
    """The sentence with the better-scored of its neighbours in the same passage, in the order of the text."""
    order = sentences(passage.text)
    at = order.index(sentence)
    score = {s[5]: s[0] for s in scored if s[4].id == passage.id}
    near = [i for i in (at - 1, at + 1) if 0 <= i < len(order) and order[i] in score]
    if not near:
        return sentence
    other = max(near, key=lambda i: score[order[i]])
    return "\n".join(order[i] for i in sorted((at, other)))


def sentences(text: str) -> list[str]:
    """A passage cut into sentences, list items and table rows."""
    pieces = (p.strip() for p in SENTENCE_END.split(text))
    return [p for p in pieces if len(p) >= SHORTEST or any(c.isdigit() for c in p)]
