"""Answer by quoting: the two sentences of the found passages that answer the question best, word for word.

A small model reads poorly; the sentence that holds the answer is worth more than its paraphrase. Each sentence gets
a score from similarities, shared words and what it offers to a question of that kind. It knows nothing of thresholds.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bot import cues
from bot.confidence import Features, codes, content
from bot.sentences import Sentence, sentences
from retrieval.retriever import Hit
from retrieval.taught import Encoder, Vectors
from storage.domain import Passage

WEIGHTS: Mapping[str, float] = {
    "amount": 0.58,
    "asked_amount": 1.72,
    "asked_contact": 2.40,
    "asked_duration": 1.99,
    "asked_howto": 1.49,
    "asked_moment": 1.91,
    "asked_person": 1.71,
    "asked_place": 3.52,
    "asked_remedy": 2.32,
    "bm25": 2.22,
    "cosine": 6.15,
    "cosine_bare": 3.53,
    "cosine_heading": 1.69,
    "cosine_passage": 7.76,
    "length": -0.53,
    "new_codes": 0.91,
    "new_words": 0.65,
    "opens_list": -2.80,
    "overlap": -2.27,
    "overlap_titled": 5.52,
    "remedy": 1.98,
}
"""What each feature of a sentence is worth; `python -m tests.bench.quotes` fits them and says how well they hold on
the half of the facts that they were not fitted on."""
SAME_PASSAGE = 1.0
"""Lead that a second sentence from the first one's own passage has over one from another passage."""
MOST_SENTENCES = 80


@dataclass(frozen=True)
class Candidate:
    """A sentence of a found passage; `rank` is the passage's place among the hits, 0 for the first."""

    sentence: Sentence
    hit: Hit
    rank: int
    at: int


@dataclass(frozen=True)
class Quote:
    """At most two sentences, with the passages that they stand in and the features that its confidence asks for."""

    text: str
    passages: tuple[Passage, ...]
    features: Features


def best_quote(question: str, vector: Vectors, found: Sequence[Hit], embedder: Encoder) -> Quote | None:
    """The sentences that answer the question best, or None when there is nothing to quote."""
    all_of_them = candidates(question, found)
    if not all_of_them:
        return None
    features = described(question, vector, all_of_them, embedder)
    scores = [score(row) for row in features]
    first = max(range(len(scores)), key=scores.__getitem__)
    second = companion(all_of_them, scores, first)
    chosen = [all_of_them[i] for i in sorted({first, second})]
    return Quote(
        text="\n".join(c.sentence.text for c in chosen),
        passages=tuple({c.hit.passage.id: c.hit.passage for c in chosen}.values()),
        features=sureness(question, all_of_them[first], features[first], scores, scores[second]),
    )


def candidates(question: str, found: Sequence[Hit]) -> list[Candidate]:
    """Every sentence of the hits that may be about the question, each once, as far as MOST_SENTENCES goes."""
    seen: dict[str, Candidate] = {}
    asked = errors(question)
    for rank, hit in enumerate(found):
        headed = errors(hit.passage.heading)
        if asked and headed and not asked & headed:  # it tells how to mend something else
            continue
        for at, sentence in enumerate(sentences(hit.passage.text)):
            seen.setdefault(sentence.text, Candidate(sentence, hit, rank, at))
    return list(seen.values())[:MOST_SENTENCES]


def errors(text: str) -> set[str]:
    """The error codes that a text names."""
    return {code for code in codes(text) if code[0].isalpha()}


def companion(all_of_them: Sequence[Candidate], scores: Sequence[float], first: int) -> int:
    """The sentence that goes with the first one: the next best, rather one of the same passage; itself if alone."""
    own = all_of_them[first].hit.passage.id
    worth = {
        i: scores[i] + SAME_PASSAGE * (one.hit.passage.id == own) for i, one in enumerate(all_of_them) if i != first
    }
    return max(worth, key=worth.__getitem__, default=first)


def score(features: Features) -> float:
    """How well a sentence answers, on a scale of log-odds between the sentences of one question."""
    return sum(weight * features[name] for name, weight in WEIGHTS.items())


def described(question: str, vector: Vectors, all_of_them: Sequence[Candidate], embedder: Encoder) -> list[Features]:
    """The features of every candidate."""
    pages = [f"{c.hit.passage.document} > {c.hit.passage.heading}" for c in all_of_them]
    bare = [c.sentence.introduced for c in all_of_them]
    under = [f"{page}: {text}" for page, text in zip(pages, bare, strict=True)]
    texts = list(dict.fromkeys([*under, *bare, *pages]))
    cosine = dict(zip(texts, (embedder.encode(texts) @ vector).tolist(), strict=True))
    asked, known = cues.asked(question), codes(question)
    worth = rarity(question, bare)
    rows = []
    for c, page, text, titled in zip(all_of_them, pages, bare, under, strict=True):
        words = set(content(text))
        rows.append(
            offers(asked, c.sentence)
            | {
                "cosine": cosine[titled],
                "cosine_bare": cosine[text],
                "cosine_heading": cosine[page],
                "cosine_passage": c.hit.cosine,
                "bm25": c.hit.bm25 / 10,
                "overlap": covered(worth, words),
                "overlap_titled": covered(worth, words | set(content(page))),
                "length": math.log(1 + len(c.sentence.bare.split())),
                "new_words": math.log(1 + len(words - worth.keys())),
                "new_codes": float(bool(codes(c.sentence.bare) - known)),
            }
        )
    return rows


def offers(asked: frozenset[str], sentence: Sentence) -> Features:
    """Which kinds of thing that were asked for the sentence offers, and what it offers unasked."""
    told = cues.told(sentence.bare)
    return {f"asked_{kind}": float(kind in asked and kind in told) for kind in cues.ASKED} | {
        "amount": float("amount" in told),
        "remedy": float("remedy" in told),
        "opens_list": float(sentence.bare.rstrip().endswith(":")),
    }


def rarity(question: str, texts: Sequence[str]) -> dict[str, float]:
    """The question's words with their weight (inverse document frequency among the texts), which sum to 1."""
    counts = Counter(word for text in texts for word in set(content(text)))
    worth = {word: math.log((len(texts) + 1) / (0.5 + counts[word])) for word in content(question)}
    total = sum(worth.values()) or 1.0
    return {word: weight / total for word, weight in worth.items()}


def covered(worth: Mapping[str, float], words: set[str]) -> float:
    """The share (0..1) of the question's weight that stands in these words."""
    return sum(weight for word, weight in worth.items() if word in words)


def sureness(question: str, first: Candidate, features: Features, scores: Sequence[float], second: float) -> Features:
    """What the confidence of a quote is made of: the best sentence, and how far it leads over the others."""
    top = np.sort(np.array(scores))[::-1]
    shares = np.exp(top - top[0])
    asked = cues.asked(question)
    return {
        "sentence_cosine": features["cosine"],
        "sentence_bare": features["cosine_bare"],
        "sentence_overlap": features["overlap_titled"],
        "sentence_score": score(features),
        "sentence_share": float(1.0 / shares.sum()),
        "pair_share": float((1.0 + math.exp(min(0.0, second - top[0]))) / shares.sum()) if len(top) > 1 else 1.0,
        "kind_told": len(asked & cues.told(first.sentence.bare)) / len(asked) if asked else 0.5,
        "rank": float(first.rank),
    }
