"""Make tonight's candidate: train, merge, measure and judge a version, which nobody serves yet.

An adapter that a night was killed after is taken up again if this night would train the same, and training itself goes
on from its last epoch. Less of the adapter is merged, step by step, when all of it forgets too much. Publishing is
`nightly`'s; it knows nothing of confidence or routes.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot import base_model, prompt
from bot.generator import LocalGenerator
from learning import evaluate, gates, merge, paired, publish, replay, retained, train
from learning.dataset import Snapshot
from learning.recipe import Recipe, epochs_for, rate_for
from learning.stages import Night
from retrieval.embedder import Embedder
from retrieval.taught import TaughtQuestions
from storage import manifest, registry
from storage.database import Database
from storage.domain import ModelVersion
from storage.settings import Settings

PARITY_PROMPTS = 16
SCALES = (0.9, 0.8, 0.7)
"""Shares of the adapter that are merged in turn until one passes: less of it forgets less (WiSE-FT). All of it was
never better than nine tenths, and under seven tenths little is remembered (DECISIONS.md)."""
WATCHED_WORDINGS = 64
"""Held-out wordings that training looks at after each epoch, those of facts to learn first."""


@dataclass(frozen=True)
class Adapter:
    """A trained adapter in its sealed folder, and what is noted of its training."""

    version: str
    folder: Path
    about: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A trained, merged and measured version that is not published yet."""

    version: str
    folder: Path
    adapter: Path
    verdict: gates.Verdict
    proofs: tuple[evaluate.Proof, ...]
    about: dict[str, Any]


def make(
    night: Night, snapshot: Snapshot, embedder: Embedder, champion: ModelVersion, *, rebuild: bool
) -> Candidate:
    """Train, merge, measure and judge a version that goes on from the champion and is held against it."""
    base = base_model.folder(night.home, night.settings.text("BASE_MODEL"))
    publish.preflight(night.home, base, night.settings.text("TRAIN_METHOD"))
    with night.stage("replay"):
        prompts = replay.prompts_for(len(snapshot.facts))
        anchors = replay.anchors(base, night.home / "cache", night.say, prompts)
    with night.stage("train"):
        anew = recipe(night.settings, snapshot, warm=False)
        warm = not (rebuild or snapshot.withdrawn) and goes_on_from(champion, anew, base)
        chosen = recipe(night.settings, snapshot, warm=True) if warm else anew
        adapter = adapter_for(night, snapshot, base, anchors, chosen, champion if warm else None)
    search = TaughtQuestions(night.database, embedder)
    tried = []
    for scale in SCALES:
        tried.append(measured(night, snapshot, search, anchors, base, adapter, champion, scale))
        if tried[-1].verdict.passed:
            return tried[-1]
        if not tried[-1].verdict.only_forgot:
            break
    return tried[0]


def measured(
    night: Night,
    snapshot: Snapshot,
    search: TaughtQuestions,
    anchors: replay.Anchors,
    base: Path,
    adapter: Adapter,
    champion: ModelVersion,
    scale: float,
) -> Candidate:
    """Merge base + scale * adapter and hold it against every gate."""
    folder = publish.workshop(night.home, adapter.version)
    with night.stage("merge"):
        merge.merge(base, adapter.folder, folder, scale=scale)
        chats = [prompt.messages(f.question) for f in snapshot.facts]
        chats += [prompt.messages(a.question) for a in anchors.held_out]
        parity = merge.prove(base, adapter.folder, folder, chats[:PARITY_PROMPTS], scale=scale)
    about = adapter.about | {"scale": scale}
    if not parity.finite:  # such weights do not load, so there is nothing more to measure
        return Candidate(adapter.version, folder, adapter.folder, gates.judge(parity.values), (), about)
    with night.stage("evaluate"):
        form = night.settings.text("SERVING_FORM")
        engine = LocalGenerator(folder, form=form)
        longest = night.settings.integer("MAX_ANSWER_TOKENS")
        proofs = evaluate.facts(engine, snapshot.facts, search, longest)
        before = retained.of_base(base, night.home / "cache", form, lambda: LocalGenerator(base, form=form))
        values = {
            **fact_values(night, snapshot, proofs, champion),
            **retained.values(engine, before, anchors.held_out),
            **parity.values,
        }
    verdict = gates.judge(values)
    if not verdict.passed:
        night.say(f"with {scale:g} of the adapter: {verdict.reason}")
    return Candidate(adapter.version, folder, adapter.folder, verdict, proofs, about)


def adapter_for(
    night: Night, snapshot: Snapshot, base: Path, anchors: replay.Anchors, chosen: Recipe, warm: ModelVersion | None
) -> Adapter:
    """The adapter of this snapshot: trained and sealed now, or left whole by a night that was cut short."""
    purpose = {
        "snapshot": snapshot.sha256,
        "recipe": asdict(chosen),
        "base": replay.weights_of(base),
        "warm_from": warm.version if warm else registry.BASE,
    }
    found = publish.half_made(night.database, purpose)
    if found:
        night.say("the adapter of a night that was cut short is taken up")
        told = json.loads((found[1] / manifest.NAME).read_text())
        return Adapter(*found, {name: told[name] for name in ("recipe", "losses", "warm_from")})
    version = new_name(night.database)
    known = known_to(snapshot, warm=warm is not None)
    trained = train.train(
        base,
        [e for e in snapshot.examples if e.correction_id not in known],
        anchors.trained,
        chosen,
        known=[e for e in snapshot.examples if e.correction_id in known],
        held_out=snapshot.held_out[:WATCHED_WORDINGS],
        watched=anchors.held_out,
        warm_from=Path(warm.adapter_path) if warm else None,
        out=publish.workshop(night.home, f"{version}{publish.ADAPTER}"),
        progress=night.say,
        checkpoints=publish.checkpoints(night.home, purpose),
    )
    about = {"recipe": trained.recipe, "losses": trained.losses, "warm_from": purpose["warm_from"]}
    folder, _ = publish.seal(trained.adapter, f"{version}{publish.ADAPTER}", (), {"purpose": purpose, **about})
    return Adapter(version, folder, about)


def of_another_base(champion: ModelVersion, base: Path) -> bool:
    """Whether a version was trained on other weights than those in the base model's folder."""
    purpose = publish.sealed_for(Path(champion.adapter_path)) if champion.adapter_path else None
    trained_on = (purpose or {}).get("base")
    return trained_on is not None and trained_on != replay.weights_of(base)


def goes_on_from(champion: ModelVersion, chosen: Recipe, base: Path) -> bool:
    """Whether the champion's adapter is of the kind that the recipe trains."""
    if not champion.adapter_path:
        return False
    layers = json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    return train.goes_on(Path(champion.adapter_path), chosen, layers)


def fact_values(
    night: Night, snapshot: Snapshot, proofs: tuple[evaluate.Proof, ...], champion: ModelVersion
) -> dict[str, float]:
    """The gates that are about facts; a kind that has no items is left out.

    A night that learns nothing new must still carry out a withdrawal.
    """
    new = {f.correction_id for f in snapshot.new}
    memorised = {p.correction_id for p in proofs if p.memorised}
    asked = sum(p.near_misses_asked for p in proofs)
    bluffed = sum(p.near_misses_bluffed for p in proofs)
    values = {"near_misses": paired.least_share(bluffed, asked)} if asked else {}
    learnt = len(memorised & new)
    if new and (learnt or not snapshot.withdrawn):
        values["new_facts"] = learnt
    known = {i: m for i, m in registry.memories(night.database, champion.version).items() if i not in new}
    values |= evaluate.old_fact_values(proofs, known)
    return values


def recipe(settings: Settings, snapshot: Snapshot, *, warm: bool) -> Recipe:
    """The recipe for a snapshot: epochs and rate by the size of what is learnt, unless the settings name them.

    A night that goes on from the champion (`warm`) learns what it does not know, and repeats as many of the known
    examples.
    """
    known = known_to(snapshot, warm=warm)
    new = sum(e.correction_id not in known for e in snapshot.examples)
    examples, facts = new + min(new, len(snapshot.examples) - new), len(snapshot.facts) - len(known)
    return Recipe(
        epochs=settings.integer("TRAIN_EPOCHS") or epochs_for(facts, examples),
        rate=settings.number("TRAIN_RATE") or rate_for(facts, warm=warm),
        seed=snapshot.seed,
        method=settings.text("TRAIN_METHOD"),
        schedule=settings.text("TRAIN_SCHEDULE"),
    )


def known_to(snapshot: Snapshot, *, warm: bool) -> set[int]:
    """The facts that training begins with: those the champion has by heart, or none where it does not go on from it."""
    return {f.correction_id for f in snapshot.facts if f.memorised} if warm else set()


def new_name(database: Database) -> str:
    """A version name that is never used twice, even if the clock is set back: the moment, in UTC."""
    name = f"v{datetime.now(UTC):%Y%m%d-%H%M%S}"
    known = {v.version for v in registry.versions(database)}
    known |= {p.name.removesuffix(publish.ADAPTER) for p in (database.home / "models").glob("v*")}
    return name if name not in known else next(f"{name}-{n}" for n in range(2, 1000) if f"{name}-{n}" not in known)
