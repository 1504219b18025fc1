"""`nightshift evaluate`: the suites by name, measured on one version without touching the registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bot import base_model, desk
from bot.generator import LocalGenerator
from learning import admission, dataset, evaluate, replay
from retrieval.embedder import Embedder
from storage import registry
from storage.database import Database
from storage.errors import NotFoundError
from storage.settings import Settings

Metrics = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """One version in memory with what the suites need."""

    database: Database
    settings: Settings
    engine: LocalGenerator


def measure(database: Database, settings: Settings, version: str, suite: str | None) -> dict[str, Metrics]:
    """The metrics of one suite, or of all."""
    desk.ensure_base(database, settings)
    found = registry.get(database, version)
    bench = Bench(database, settings, LocalGenerator(Path(found.path), form=settings.text("SERVING_FORM")))
    return {name: run(bench) for name, run in SUITES.items() if suite in (None, name)}


def known(suite: str | None) -> None:
    """Raise NotFoundError for a suite that does not exist."""
    if suite is not None and suite not in SUITES:
        raise NotFoundError(f"There is no suite {suite!r}; there are {', '.join(SUITES)}.")


def facts(bench: Bench) -> Metrics:
    """Every approved correction: its taught wording, unseen wordings, near-misses."""
    embedder = Embedder(bench.settings.text("EMBEDDER"))
    rules = admission.rules_of(bench.settings)
    snapshot = dataset.freeze(bench.database, embedder, seed=bench.settings.integer("SEED"), rules=rules)
    if not snapshot.facts:
        return {"facts": 0}
    proofs = evaluate.facts(bench.engine, snapshot.facts, embedder, bench.settings.integer("MAX_ANSWER_TOKENS"))
    return {
        "facts": len(proofs),
        "taught_wording": sum(p.taught for p in proofs) / len(proofs),
        "unseen_wording": ratio(sum(p.unseen_right for p in proofs), sum(p.unseen_asked for p in proofs)),
        "near_miss_bluffed": ratio(
            sum(p.near_misses_bluffed for p in proofs), sum(p.near_misses_asked for p in proofs)
        ),
    }


def general(bench: Bench) -> Metrics:
    """The simple general questions that ship with the project."""
    right = evaluate.general(bench.engine)
    return {
        "right": sum(right.values()),
        "asked": len(right),
        "share": ratio(sum(right.values()), len(right)),
    }


def drift(bench: Bench) -> Metrics:
    """KL to the base on general answers that were never trained on."""
    base = base_model.folder(bench.database.home, bench.settings.text("BASE_MODEL"))
    anchors = replay.anchors(base, bench.database.home / "cache", lambda _: None)
    return {"nats_per_token": evaluate.drift(bench.engine, anchors.held_out)}


def ratio(part: int, whole: int) -> float:
    """A share, 0 of nothing."""
    return part / whole if whole else 0.0


SUITES: Mapping[str, Callable[[Bench], Metrics]] = {"facts": facts, "general": general, "drift": drift}
