"""Approved corrections become a frozen, hashed snapshot of training examples.

Which rows may enter is `admission`'s; votes never enter, text does. Every fact keeps wordings that are never trained,
so that its proof is measured on words the model has not seen. Facts are also dealt into train, validation and test
parts, whole facts at a time, for whoever trains on an exported snapshot; the night itself trains every fact, because
a fact that is not trained cannot be remembered, and measures on the wordings held out. It knows nothing of tensors.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from bot.prompt import UNKNOWN
from learning import admission, wordings
from learning.admission import LeftOut, Rules
from retrieval.taught import Encoder, Vectors
from storage import audit, channels, corrections, registry
from storage.audit import ERASED
from storage.database import Database, Row
from storage.domain import Correction, Memory
from storage.texts import plain

WORDINGS = 14
HELD_OUT = 2
TRAINED_NEAR_MISSES, UNSEEN_NEAR_MISSES = 4, 3
"""Rule-made questions per fact that are trained to be unknown, and that are only measured with, where there are so
many."""
ASKED = 4
"""Wordings of one fact taken from the log, most often asked first."""
ASKED_CHARS = 160
PERSONAL = re.compile(r"[@<>]|https?:|www\.|\d{6,}|\S{24,}")
"""What a question from the log must not hold to become a wording: mentions, addresses, long numbers, keys."""
PARTS = ("train",) * 8 + ("validation", "test")
LEAST_TO_SPLIT = 10
Reword = Callable[[str], Sequence[str]]
"""Gives further wordings of a question; `rewording` has the one that asks a stronger model."""


def no_more(question: str) -> Sequence[str]:
    """No further wordings."""
    return ()


@dataclass(frozen=True)
class Fact:
    """One correction with the words it is trained in, the words kept back, and questions it does not answer.

    `is_new`: the champion was never trained on it. `memorised`: the champion has it by heart.
    """

    correction_id: int
    question: str
    answer: str
    author: str
    approver: str
    source: str
    is_new: bool
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    near_misses: tuple[str, ...]
    asked: tuple[str, ...] = ()
    part: str = "train"
    memorised: bool = False
    refused: tuple[str, ...] = ()

    @property
    def trained_near_misses(self) -> tuple[str, ...]:
        """The near-misses that are trained to be unknown; clicks on "Not my question" (`refused`) come first."""
        clicked = [n for n in self.near_misses if n in self.refused]
        made = [n for n in self.near_misses if n not in self.refused and is_trained(n)]
        return tuple([*clicked, *made][:TRAINED_NEAR_MISSES])

    @property
    def unseen_near_misses(self) -> tuple[str, ...]:
        """The near-misses that are only measured with, tonight and every night."""
        return tuple(n for n in self.near_misses if n not in self.refused and not is_trained(n))


@dataclass(frozen=True)
class Example:
    """One question and the answer to be learnt; `correction_id` and `source` say where it came from.

    `passages` are notes to read the answer from; without them it must be known by heart.
    """

    question: str
    answer: str
    kind: str
    correction_id: int
    source: str = ""
    part: str = "train"
    passages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """What one night trains from, and what it leaves out. The hash covers every fact and every example.

    `frozen_at` is the number of the newest audit entry when it was read: what is erased later must not come back.
    """

    facts: tuple[Fact, ...]
    examples: tuple[Example, ...]
    withdrawn: tuple[int, ...]
    seed: int
    sha256: str
    left_out: tuple[LeftOut, ...] = ()
    frozen_at: int = 0

    @property
    def new(self) -> tuple[Fact, ...]:
        """The facts that the champion was never trained on."""
        return tuple(f for f in self.facts if f.is_new)

    @property
    def old(self) -> tuple[Fact, ...]:
        """The facts that the champion was trained on already."""
        return tuple(f for f in self.facts if not f.is_new)

    @property
    def held_out(self) -> tuple[Example, ...]:
        """The wordings held out of training with their answers, facts to learn first; training looks at them."""
        facts = sorted(self.facts, key=lambda f: f.memorised)
        return tuple(Example(w, f.answer, "held_out", f.correction_id) for f in facts for w in f.held_out)

    @property
    def nothing_to_learn(self) -> bool:
        """Whether a night would change nothing."""
        return not self.new and not self.withdrawn


def freeze(
    database: Database, embedder: Encoder, *, seed: int, rules: Rules | None = None, more: Reword = no_more
) -> Snapshot:
    """The snapshot of this moment; `rules` are the limits of `admission`, its defaults when none are given.

    `more` gives further wordings of a question, as a stronger model does; they are filtered like all others.
    """
    frozen_at = audit.head(database).seq
    champion = registry.alias(database, "champion")
    known = registry.memories(database, champion) if champion else {}
    admitted = admission.admit(database, embedder, known=known.keys(), rules=rules or Rules())
    approved = corrections.taught(database, embedder.name)
    stored = {r["text"]: r["vector"] for r in approved if r["vector"] is not None}
    taught = Taught(admitted.rows, embedder, more, stored)
    made = [
        fact_of(database, row, taught, admitted.repeats.get(row.id, ()), held=known.get(row.id), seed=seed)
        for row in admitted.rows
    ]
    facts = refusing_nothing_taught(made, approved)
    withdrawn = tuple(sorted(set(known) - {r.id for r in admitted.rows}))
    examples = tuple(e for f in facts for e in examples_of(f))
    sha256 = fingerprint(facts, examples, withdrawn, seed)
    return Snapshot(facts, examples, withdrawn, seed, sha256, admitted.left_out, frozen_at)


class Taught:
    """The taught questions of a snapshot as one matrix. What is stored with its vector is not embedded again."""

    def __init__(
        self,
        rows: Sequence[Correction],
        embedder: Encoder,
        more: Reword = no_more,
        stored: Mapping[str, bytes] | None = None,
    ) -> None:
        """Embed the questions; `stored` are vectors by their text."""
        self.rows, self.embedder, self.more, self._stored = rows, embedder, more, stored or {}
        self.questions = [r.question for r in rows]
        self.matrix: Vectors = self.encode(self.questions) if rows else np.zeros((0, 1), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One vector per text [n, dimension]."""
        new = [t for t in dict.fromkeys(texts) if t not in self._stored]
        made = dict(zip(new, self.embedder.encode(new), strict=True)) if new else {}
        found = [made[t] if t in made else np.frombuffer(self._stored[t], dtype=np.float32) for t in texts]
        return np.stack(found)

    def nearest_to(self, question: str, made: Sequence[str]) -> list[str]:
        """The wordings whose nearest taught question is `question` itself."""
        if not made:
            return []
        nearest = np.argmax(self.encode(made) @ self.matrix.T, axis=1)
        return [w for w, at in zip(made, nearest.tolist(), strict=True) if self.questions[at] == question]


def fact_of(
    database: Database, row: Correction, taught: Taught, repeats: Sequence[str], *, held: Memory | None, seed: int
) -> Fact:
    """A correction with its wordings; none was refused by a person, none trained is nearer to another taught question.

    The words held out are drawn from all, so that a proof can tell which of them find another. `held` is what the
    champion holds of the correction.
    """
    refused = [w.text for w in corrections.wordings(database, row.id) if w.kind == "rejected"]
    asked = without(asked_by_people(database, row), refused, row.question)
    generated = wordings.generate(row.question, WORDINGS + HELD_OUT, seed)
    made = without([*repeats, *asked, *taught.more(row.question), *generated], refused, row.question)
    held_out = kept_back(made, seed)
    own = taught.nearest_to(row.question, [w for w in made if w not in held_out])
    others = [q for q in taught.questions if q != row.question]
    private = channels.said_in_private(database, refused)
    clicked = trainable(r for r in refused if r not in private)
    near = [*clicked, *near_misses(row.question, others, seed)]
    return Fact(
        correction_id=row.id,
        question=row.question,
        answer=row.answer,
        author=row.author,
        approver=row.reviewer,
        source=row.source,
        is_new=held is None,
        trained=(row.question, *own),
        held_out=held_out,
        near_misses=tuple(dict.fromkeys(near)),
        asked=tuple(w for w in asked if w in own or w in held_out),
        part=part_of(row.id, len(taught.rows), seed),
        memorised=held is not None and held.memorised,
        refused=tuple(clicked),
    )


def near_misses(question: str, others: Sequence[str], seed: int) -> list[str]:
    """Rule-made questions that resemble this one: those to be trained, then those to be measured with."""
    made = wordings.near_misses(question, others, seed)
    trained, unseen = ([n for n in made if is_trained(n) == side] for side in (True, False))
    return trained[:TRAINED_NEAR_MISSES] + unseen[:UNSEEN_NEAR_MISSES]


def is_trained(near_miss: str) -> bool:
    """The side of a rule-made near-miss, by its text alone.

    The rules draw others as more is taught, and what was trained in one night must not be measured with in another.
    """
    ways = TRAINED_NEAR_MISSES + UNSEEN_NEAR_MISSES
    return int(digest(f"near-miss:{plain(near_miss)}"), 16) % ways < TRAINED_NEAR_MISSES


def refusing_nothing_taught(facts: Sequence[Fact], approved: Sequence[Row]) -> tuple[Fact, ...]:
    """The facts without near-misses that are taught: what was refused for one may be another's question by now."""
    ids = {f.correction_id for f in facts}
    taught = {plain(w) for f in facts for w in (*f.trained, *f.held_out)}
    taught |= {plain(r["text"]) for r in approved if r["kind"] != "rejected" and r["correction_id"] not in ids}
    return tuple(replace(f, near_misses=tuple(n for n in f.near_misses if plain(n) not in taught)) for f in facts)


def asked_by_people(database: Database, row: Correction) -> list[str]:
    """How people asked for a correction: its answer was given as the answer, liked, and disliked by nobody.

    Somebody else than who asked must have liked it: nobody brings words into training alone. Wordings noted as asked
    earlier come too. Direct messages, private channels and what may hold personal data do not.
    """
    found = database.rows(
        "SELECT min(q.text) AS text FROM answers a JOIN questions q ON q.id = a.question_id "
        "JOIN feedback f ON f.answer_id = a.id WHERE a.correction_id = ? AND a.style = 'direct' "
        f"AND NOT {channels.IN_PRIVATE} "
        "GROUP BY lower(trim(q.text)) HAVING min(f.vote) = 1 AND max(f.user <> q.user) = 1 "
        "ORDER BY count(DISTINCT q.id) DESC, min(q.id) LIMIT ?",
        [row.id, ASKED],
    )
    noted = [w.text for w in corrections.wordings(database, row.id) if w.kind == "asked"]
    return trainable((*noted, *(r["text"] for r in found)))


def trainable(asked: Iterable[str]) -> list[str]:
    """People's own words that may be trained on: not too long, not erased, without what may be personal data."""
    texts = [" ".join(text.split()) for text in asked]
    return [t for t in texts if t and t != ERASED and len(t) <= ASKED_CHARS and not PERSONAL.search(t)]


def without(made: Sequence[str], refused: Collection[str], question: str) -> list[str]:
    """The wordings that are neither refused (whatever their case and punctuation) nor the taught question itself."""
    known = {plain(r) for r in refused}
    return [w for w in dict.fromkeys(made) if w != question and plain(w) not in known]


def kept_back(made: Sequence[str], seed: int) -> tuple[str, ...]:
    """The wordings held out of training: chosen by hash, so that a new wording rarely changes the choice."""
    if len(made) <= 2 * HELD_OUT:
        return ()
    return tuple(sorted(made, key=lambda w: digest(f"{seed}:held out:{w}"))[:HELD_OUT])


def part_of(correction_id: int, count: int, seed: int) -> str:
    """Train, validation or test (80/10/10 in the long run); all train where there are too few facts to deal out.

    A fact keeps its part as others come and go.
    """
    return PARTS[int(digest(f"{seed}:part:{correction_id}"), 16) % len(PARTS)] if count >= LEAST_TO_SPLIT else "train"


def examples_of(fact: Fact) -> list[Example]:
    """The training rows of one fact: its answer in every trained wording, and "not in my notes" for near-misses."""
    origin = fact.source or f"correction {fact.correction_id} by {fact.author}"
    known = [Example(w, fact.answer, "fact", fact.correction_id, origin, fact.part) for w in fact.trained]
    unknown = [
        Example(n, UNKNOWN, "unknown", fact.correction_id, f"made from correction {fact.correction_id}", fact.part)
        for n in fact.trained_near_misses
    ]
    return known + unknown


def fingerprint(facts: Sequence[Fact], examples: Sequence[Example], withdrawn: Sequence[int], seed: int) -> str:
    """SHA-256 over everything that a night trains from."""
    everything = {
        "facts": [asdict(f) for f in facts],
        "examples": [asdict(e) for e in examples],
        "withdrawn": list(withdrawn),
        "seed": seed,
    }
    return digest(json.dumps(everything, sort_keys=True))


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def keep_wordings(database: Database, fact: Fact) -> None:
    """Store the wordings a fact was trained in, so that they find it from now on; people's own are marked as such."""
    asked = set(fact.asked)
    corrections.add_wordings(database, fact.correction_id, [w for w in fact.trained if w in asked], "asked")
    corrections.add_wordings(database, fact.correction_id, [w for w in fact.trained if w not in asked], "generated")
