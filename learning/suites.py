"""`nightshift evaluate`: the suites by name, measured on one version without touching the registry.

Each suite is a function from a `Bench`, which loads what it needs when it needs it, to figures with names. Nothing is
decided here; what can stop a promotion is `gates`'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from bot import base_model, confidence, desk, quoting
from bot.generator import LocalGenerator
from bot.pipeline import Model, Tools
from bot.same_question import Comparer
from learning import (
    admission,
    benchmarks,
    cached,
    consistency,
    dataset,
    evaluate,
    forgetting,
    paired,
    replay,
    retained,
    rewording,
    routing,
)  # fmt: skip
from learning.consistency import NoPages, Route
from learning.dataset import Fact, Snapshot
from learning.evaluate import Proof
from learning.retained import Retained
from retrieval.embedder import Embedder
from retrieval.retriever import Hit
from retrieval.taught import TaughtQuestions
from storage import corrections, registry
from storage.company import answer_matches
from storage.database import Database
from storage.domain import ModelVersion, Passage
from storage.errors import NotFoundError
from storage.settings import Settings

Metrics = dict[str, float]


@dataclass
class Bench:
    """One version with what the suites need; every part is made once, when it is first asked for."""

    database: Database
    settings: Settings
    version: ModelVersion

    @cached_property
    def engine(self) -> LocalGenerator:
        """The version's weights."""
        return self.load(Path(self.version.path))

    @cached_property
    def base(self) -> Path:
        """The folder of the base model."""
        return base_model.folder(self.database.home, self.settings.text("BASE_MODEL"))

    @cached_property
    def before(self) -> Retained:
        """The base's own results on what is retained."""
        form = self.settings.text("SERVING_FORM")
        return retained.of_base(self.base, self.cache, form, lambda: self.load(self.base))

    @cached_property
    def now(self) -> Retained:
        """The version's results on the same."""
        return self.before if self.version.version == registry.BASE else retained.of(self.engine)

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder that serves."""
        return Embedder(self.settings.text("EMBEDDER"))

    @cached_property
    def snapshot(self) -> Snapshot:
        """The approved corrections with their wordings, as a night would train them now."""
        rules = admission.rules_of(self.settings)
        more = rewording.configured(self.settings, self.database.home).of
        seed = self.settings.integer("SEED")
        return dataset.freeze(self.database, self.embedder, seed=seed, rules=rules, more=more)

    @cached_property
    def proofs(self) -> dict[int, Proof]:
        """The proof of every approved correction, by its id."""
        longest = self.settings.integer("MAX_ANSWER_TOKENS")
        search = TaughtQuestions(self.database, self.embedder)
        found = evaluate.facts(self.engine, self.snapshot.facts, search, longest)
        return {proof.correction_id: proof for proof in found}

    @cached_property
    def route(self) -> Route:
        """The memory route as this version would serve it, without pages."""
        held = registry.memories(self.database, self.version.version)
        model = Model(self.version.version, self.engine, confidence.from_json(self.version.confidence), held)
        taught = TaughtQuestions(self.database, self.embedder, Comparer(self.embedder))
        longest = self.settings.integer("MAX_ANSWER_TOKENS")
        return Route(Tools(self.embedder, taught, NoPages(), model, max_tokens=longest))

    @property
    def cache(self) -> Path:
        """Where results of the base are kept."""
        return self.database.home / "cache"

    def load(self, folder: Path) -> LocalGenerator:
        """The weights of a folder in the form that serves."""
        return LocalGenerator(folder, form=self.settings.text("SERVING_FORM"))

    def trained(self) -> list[Fact]:
        """The facts of the snapshot that this version was trained on."""
        held = registry.memories(self.database, self.version.version)
        return [f for f in self.snapshot.facts if f.correction_id in held]

    def unseen(self, fact: Fact) -> list[str]:
        """Wordings of a fact that no version was trained in."""
        stored = {w.text for w in corrections.wordings(self.database, fact.correction_id)}
        return [w for w in fact.held_out if w not in stored]


def measure(
    database: Database, settings: Settings, version: str, suite: str | None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Metrics]:
    """The metrics of one suite, or of all; `say` gets a sentence for one that is left out.

    Raises NotFoundError when the suite that is named needs data that is not there.
    """
    desk.ensure_base(database, settings)
    bench = Bench(database, settings, registry.get(database, version))
    if suite is not None:
        return {suite: SUITES[suite](bench)}
    told: dict[str, Metrics] = {}
    for name, run in SUITES.items():
        try:
            told[name] = run(bench)
        except NotFoundError as error:
            say(f"{name} is left out: {error}")
    return told


def known(suite: str | None) -> None:
    """Raise NotFoundError for a suite that does not exist."""
    if suite is not None and suite not in SUITES:
        raise NotFoundError(f"There is no suite {suite!r}; there are {', '.join(SUITES)}.")


# --- facts ---


def facts(bench: Bench) -> Metrics:
    """Every approved correction: its taught wording, unseen wordings, near-misses."""
    return proved(list(bench.proofs.values()))


def new_facts(bench: Bench) -> Metrics:
    """The same of the facts that this version was the first to be trained on."""
    before = registry.memories(bench.database, bench.version.parent)
    return proved([bench.proofs[f.correction_id] for f in bench.trained() if f.correction_id not in before])


def old_facts(bench: Bench) -> Metrics:
    """The same of the facts that the version before it was trained on too."""
    before = registry.memories(bench.database, bench.version.parent)
    return proved([bench.proofs[f.correction_id] for f in bench.trained() if f.correction_id in before])


def proved(proofs: Sequence[Proof]) -> Metrics:
    """Proofs added up."""
    if not proofs:
        return {"facts": 0}
    return {
        "facts": len(proofs),
        "taught_wording": sum(p.taught for p in proofs) / len(proofs),
        "unseen_wording": ratio(sum(p.unseen_right for p in proofs), sum(p.unseen_asked for p in proofs)),
        "near_miss_bluffed": ratio(
            sum(p.near_misses_bluffed for p in proofs), sum(p.near_misses_asked for p in proofs)
        ),
    }


def same_answer(bench: Bench) -> Metrics:
    """Whether the wordings of a fact get one answer; the source documents ask 0.90, we 0.95."""
    asked = bench.trained()
    unseen = {f.correction_id: bench.unseen(f) for f in asked}
    found = consistency.same_in_all_wordings(bench.engine, bench.route, asked, unseen, bench.embedder)
    return {"facts": len(asked), **found}


def edge_cases(bench: Bench) -> Metrics:
    """Typos, slang, half a question, and questions too vague to answer."""
    asked = bench.trained()
    if not asked:
        return {"facts": 0}
    found = consistency.at_the_edge(bench.engine, bench.route, asked, bench.settings.integer("SEED"))
    return {"facts": len(asked), **found}


def transfer(bench: Bench) -> Metrics:
    """What later nights made of what earlier ones taught: R, average accuracy, BWT, FWT (Lopez-Paz and Ranzato)."""
    found = forgetting.stored(bench.database, bench.version.version)
    told = {"average_accuracy": found.average, "bwt": found.backward, "fwt": forward_transfer(bench, found)}
    named = {name: value for name, value in told.items() if value is not None}
    return {"nights": len(found.versions), **named, **found.named()}


def forward_transfer(bench: Bench, found: forgetting.Matrix) -> float | None:
    """FWT, asked of weights that are still on disk: each night's facts, of the version before and of the base."""
    later = [c for c in found.columns if c.row > 0]
    paths = {c.row: Path(registry.get(bench.database, found.versions[c.row - 1]).path) for c in later}
    there = [c for c in later if paths[c.row].is_dir()]
    untrained = bench.load(bench.base) if there else None
    before = [recalled(bench, bench.load(paths[c.row]), c.facts) for c in there]
    return forgetting.forward(before, [recalled(bench, untrained, c.facts) for c in there] if untrained else [])


def recalled(bench: Bench, engine: LocalGenerator, ids: Sequence[int]) -> float:
    """The share of facts whose taught wording gives the stored answer."""
    longest = bench.settings.integer("MAX_ANSWER_TOKENS")
    rows = [corrections.get(bench.database, i) for i in ids]
    return ratio(sum(evaluate.recalls(engine, row.question, row.answer, longest) for row in rows), len(rows))


# --- everything else ---


def general(bench: Bench) -> Metrics:
    """The simple general questions, in all and by category, against the base."""
    right, before = bench.now.battery, bench.before.battery
    by_category = {name: ratio(*counts) for name, counts in bench.now.by_category().items()}
    return {
        "right": sum(right.values()),
        "asked": len(right),
        "share": ratio(sum(right.values()), len(right)),
        **by_category,
        "of_base": ratio(sum(right.values()), sum(before.values())),
        "mcnemar_p": paired.mcnemar(*retained.both(before, right)),
    }


def hellaswag(bench: Bench) -> Metrics:
    """HellaSwag: length-normalised accuracy, against the base on the same tasks."""
    tasks = benchmarks.hellaswag(benchmarks.folder(bench.settings), bench.settings.integer("BENCH_ITEMS"))
    return against_base(bench, "acc_norm", "hellaswag", lambda engine: benchmarks.by_length(engine, tasks))


def truthfulqa(bench: Bench) -> Metrics:
    """TruthfulQA: mc1 and mc2 with no example answers in front, against the base on the same questions."""
    folder, count = benchmarks.folder(bench.settings), bench.settings.integer("BENCH_ITEMS")
    one, two = (benchmarks.truthfulqa(folder, count, kind) for kind in ("mc1", "mc2"))
    both = cache(lambda engine: benchmarks.truthful(engine, one, two))
    return {
        **against_base(bench, "mc1", "truthfulqa-mc1", lambda engine: both(engine)[0]),
        **against_base(bench, "mc2", "truthfulqa-mc2", lambda engine: both(engine)[1]),
    }


def against_base(bench: Bench, metric: str, name: str, run: Callable[[LocalGenerator], Sequence[float]]) -> Metrics:
    """A benchmark's mean, and its drop from the base with both ends of the paired 95 % bootstrap."""
    before = of_base(bench, name, run)
    now = before if bench.version.version == registry.BASE else [float(x) for x in run(bench.engine)]
    drop = paired.dropped(before, now)
    told = {"": sum(now) / max(1, len(now)), "_items": len(now)}
    told |= {"_drop": drop.mean, "_drop_at_least": drop.at_least, "_drop_at_most": drop.at_most}
    return {f"{metric}{end}": value for end, value in told.items()}


def of_base(bench: Bench, name: str, run: Callable[[LocalGenerator], Sequence[float]]) -> list[float]:
    """The base's scores by item, measured once for its weights."""
    about = f"{replay.weights_of(bench.base)[:16]}-{bench.settings.text('SERVING_FORM')}"
    stored = bench.cache / f"{name}-{bench.settings.integer('BENCH_ITEMS')}-{about}.json"
    kept: list[float] | None = cached.read(stored)
    if kept is None:
        cached.write(stored, kept := [float(x) for x in run(bench.load(bench.base))])
    return kept


def general_loss(bench: Bench) -> Metrics:
    """Nats per token on general texts, and the rise over the base with both ends of its 95 % interval."""
    fall = paired.dropped(bench.before.losses, bench.now.losses)
    return {
        "nats_per_token": bench.now.loss,
        "rise": -fall.mean,
        "rise_at_least": -fall.at_most,
        "rise_at_most": -fall.at_least,
    }


def drift(bench: Bench) -> Metrics:
    """KL to the base on general answers that were never trained on."""
    anchors = replay.anchors(bench.base, bench.cache, lambda _: None, prompts=0)
    return {"nats_per_token": evaluate.drift(bench.engine, anchors.held_out)}


def reading(bench: Bench) -> Metrics:
    """Answers that stand in a given passage: written by the model, and quoted word for word."""
    items, right = retained.reading_items(), bench.now.reading
    lost = paired.lost(*retained.both(bench.before.reading, right))
    return {
        "asked": len(items),
        "generated": ratio(sum(right.values()), len(right)),
        "generated_drop": lost.mean,
        "generated_drop_at_least": lost.at_least,
        "generated_drop_at_most": lost.at_most,
        "quoted": ratio(sum(quoted(bench.embedder, item) for item in items), len(items)),
        "well_formed": ratio(sum(bench.now.formed.values()), len(bench.now.formed)),
    }


def quoted(embedder: Embedder, item: Mapping[str, Any]) -> bool:
    """Whether the sentences quoted from the passage hold the answer."""
    passage = Passage(1, 1, "", "", item["passage"], "", "workspace")
    found = quoting.best_quote(
        item["question"], embedder.encode([item["question"]])[0], [Hit(passage, 1.0, 1.0, 1.0)], embedder
    )
    return found is not None and answer_matches(found.text, item["keys"])


def router(bench: Bench) -> Metrics:
    """Whether the confidence is to be believed, from labelled rows and votes; with a chart in the home folder."""
    return routing.measure(bench.database, bench.version.version, bench.embedder)


def ratio(part: int, whole: int) -> float:
    """A share, 0 of nothing."""
    return part / whole if whole else 0.0


SUITES: Mapping[str, Callable[[Bench], Metrics]] = {
    "facts": facts,
    "new_facts": new_facts,
    "old_facts": old_facts,
    "consistency": same_answer,
    "edge_cases": edge_cases,
    "forgetting": transfer,
    "general": general,
    "general_loss": general_loss,
    "drift": drift,
    "reading": reading,
    "hellaswag": hellaswag,
    "truthfulqa": truthfulqa,
    "routing": router,
}
