"""The night, on one screen.

    lock -> snapshot -> replay -> train -> merge -> evaluate -> gate -> calibrate -> publish -> report

It ends in one of three outcomes: promoted, kept_champion (a gate failed, and says which), nothing_to_learn.
The running bot is another process; it sees the new champion in the registry and swaps by itself.
"""

import logging
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot import base_model, desk, prompt
from bot.generator import LocalGenerator
from learning import calibrate, dataset, evaluate, gates, merge, publish, replay, train
from learning.dataset import Snapshot
from retrieval.embedder import Embedder
from storage import nights, registry
from storage.database import Database, file_lock, now
from storage.domain import Memory, ModelVersion
from storage.errors import ConflictError, UserError
from storage.settings import Settings

log = logging.getLogger(__name__)

PARITY_PROMPTS = 16
CANARIES = 8
EPOCHS = ((30, 10), (120, 8), (10_000, 6))
"""Epochs by number of facts: few facts need more passes (DECISIONS.md)."""


@dataclass
class Night:
    """One run: what it works with, and the clock of its stages (seconds)."""

    database: Database
    settings: Settings
    say: Callable[[str], None]
    minutes: float | None = None
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.database.home

    @contextmanager
    def stage(self, name: str) -> Any:
        """Time a stage and say its name; raises UserError when the night's minutes are over."""
        if self.minutes is not None and sum(self.timings.values()) > 60 * self.minutes:
            raise UserError(f"The night was given {self.minutes:g} minutes and they are over; the champion stays.")
        self.say(name)
        started = time.monotonic()
        yield
        self.timings[name] = round(time.monotonic() - started, 1)


@dataclass(frozen=True)
class Candidate:
    """A trained, merged and measured version that is not published yet."""

    version: str
    folder: Path
    adapter: Path
    verdict: gates.Verdict
    proofs: tuple[evaluate.Proof, ...]
    about: dict[str, Any]


def run(
    database: Database,
    settings: Settings,
    *,
    say: Callable[[str], None],
    dry_run: bool = False,
    rebuild: bool = False,
    minutes: float | None = None,
) -> dict[str, Any]:
    """One night; returns its report. Raises ConflictError when another night is running."""
    night = Night(database, settings, say, minutes)
    with only_one(database.home):
        run_id = nights.begin(database)
        try:
            report = learn(night, dry_run=dry_run, rebuild=rebuild)
        except BaseException as error:
            sentence = str(error) or type(error).__name__
            nights.finish(database, run_id, outcome="failed", version="", parent="", reason=sentence, report={})
            raise
        told = {k: report[k] for k in ("outcome", "version", "parent", "reason")}
        nights.finish(database, run_id, **told, report=report)
        nights.owe(database, "", "nightly_report", {"text": in_words(report), "report": report})
    return report


def learn(night: Night, *, dry_run: bool, rebuild: bool) -> dict[str, Any]:
    """The story of a night."""
    desk.ensure_base(night.database, night.settings)
    publish.sweep(night.database)
    with night.stage("snapshot"):
        embedder = Embedder(night.settings.text("EMBEDDER"))
        snapshot = dataset.freeze(night.database, embedder, seed=night.settings.integer("SEED"))
    if snapshot.nothing_to_learn and not rebuild:
        return report_of(night, "nothing_to_learn", "", "no correction was approved or withdrawn since the last night")
    if dry_run:
        return report_of(night, "kept_champion", "", f"dry run: {plan_in_words(snapshot)}")
    if not snapshot.facts:
        return back_to_base(night)
    candidate = make(night, snapshot, embedder, rebuild=rebuild)
    if not candidate.verdict.passed:
        return report_of(night, "kept_champion", candidate.version, candidate.verdict.reason, candidate)
    with night.stage("publish"):
        publish_candidate(night, snapshot, candidate)
    return report_of(night, "promoted", candidate.version, candidate.verdict.reason, candidate)


def make(night: Night, snapshot: Snapshot, embedder: Embedder, *, rebuild: bool) -> Candidate:
    """Train, merge, measure and judge a version."""
    champion = registry.get(night.database, registry.champion(night.database))
    base = base_model.folder(night.home, night.settings.text("BASE_MODEL"))
    version = new_name()
    folder, adapter = (
        publish.workshop(night.home, version),
        publish.workshop(night.home, f"{version}-adapter"),
    )
    with night.stage("replay"):
        anchors = replay.anchors(base, night.home / "cache", night.say)
    with night.stage("train"):
        warm = None if rebuild or snapshot.withdrawn or not champion.adapter_path else Path(champion.adapter_path)
        trained = train.train(
            base,
            snapshot.examples,
            anchors.trained,
            recipe(night.settings, snapshot),
            warm_from=warm,
            out=adapter,
            progress=night.say,
        )
    with night.stage("merge"):
        merge.merge(base, adapter, folder)
        chats = [prompt.messages(f.question) for f in snapshot.facts] + [
            prompt.messages(a.question) for a in anchors.held_out
        ]
        parity = merge.prove(base, adapter, folder, chats[:PARITY_PROMPTS])
    with night.stage("evaluate"):
        form = night.settings.text("SERVING_FORM")
        engine = LocalGenerator(folder, form=form)
        proofs = evaluate.facts(engine, snapshot.facts, embedder, night.settings.integer("MAX_ANSWER_TOKENS"))
        before = evaluate.general_of_base(base, night.home / "cache", form, lambda: LocalGenerator(base, form=form))
        values = {
            **fact_values(night, snapshot, proofs, champion),
            "general_battery": sum(evaluate.general(engine).values()) / max(1, sum(before.values())),
            "general_drift": evaluate.drift(engine, anchors.held_out),
            **parity_values(parity),
        }
    about = {
        "recipe": trained.recipe,
        "losses": trained.losses,
        "warm_from": champion.version if warm else "base",
    }
    return Candidate(version, folder, adapter, gates.judge(values), proofs, about)


def fact_values(
    night: Night, snapshot: Snapshot, proofs: tuple[evaluate.Proof, ...], champion: ModelVersion
) -> dict[str, float]:
    """The gates that are about facts; a kind that has no items is left out."""
    known = registry.memories(night.database, champion.version)
    new = {f.correction_id for f in snapshot.new}
    old = {i for i, m in known.items() if m.memorised} - new
    memorised = {p.correction_id for p in proofs if p.memorised}
    still = {p.correction_id for p in proofs} & old
    asked = sum(p.near_misses_asked for p in proofs)
    values = {"near_misses": sum(p.near_misses_bluffed for p in proofs) / asked} if asked else {}
    if new:
        values["new_facts"] = len(memorised & new) / len(new)
    if still:
        values["old_facts"] = len(memorised & still) / len(still)
    return values


def parity_values(parity: merge.Parity) -> dict[str, float]:
    """The gates that are about the merge."""
    return {
        "merge_logits": parity.largest_logit_difference,
        "merge_tokens": parity.same_greedy_tokens,
        "changed": parity.largest_change_of_weights,
        "finite": float(parity.finite),
        "same_tokenizer": float(parity.same_tokenizer),
    }


def publish_candidate(night: Night, snapshot: Snapshot, candidate: Candidate) -> None:
    """Store the new wordings, seal both folders, fit the confidence and switch the champion."""
    for fact in snapshot.facts:
        dataset.keep_wordings(night.database, fact)
    memories = tuple(Memory(candidate.version, p.correction_id, p.memorised, p.as_json()) for p in candidate.proofs)
    learnt = {m.correction_id for m in memories if m.memorised}
    canaries = [{"question": f.question, "answer": f.answer} for f in snapshot.facts if f.correction_id in learnt]
    adapter, _ = publish.seal(candidate.adapter, f"{candidate.version}-adapter", (), candidate.about)
    folder, digest = publish.seal(
        candidate.folder,
        candidate.version,
        canaries[:CANARIES],
        {
            "snapshot": snapshot.sha256,
            "trained": [f.correction_id for f in snapshot.facts],
            **candidate.about,
        },
    )
    version = ModelVersion(
        version=candidate.version,
        parent=registry.champion(night.database),
        created_at=now(),
        path=str(folder),
        adapter_path=str(adapter),
        manifest_sha256=digest,
        snapshot_sha256=snapshot.sha256,
        bytes=sum(p.stat().st_size for p in folder.iterdir()),
        gates=candidate.verdict.gates,
        confidence=confidence_for(night),
    )
    publish.promote(night.database, version, memories)


def confidence_for(night: Night) -> dict[str, Any]:
    """The confidence that goes with new weights, fitted on every labelled row there is."""
    rows = [*calibrate.shipped_rows(), *nights.calibration(night.database)]
    return calibrate.fit(
        rows,
        target_wrong=night.settings.number("TARGET_WRONG"),
        target_wrong_documents=night.settings.number("TARGET_WRONG_DOCUMENTS"),
    )


def back_to_base(night: Night) -> dict[str, Any]:
    """Everything that was trained is withdrawn: the pristine base serves again."""
    if registry.champion(night.database) != registry.BASE:
        registry.promote(night.database, registry.BASE)
    return report_of(night, "promoted", registry.BASE, "every trained correction was withdrawn; the base model serves")


def recipe(settings: Settings, snapshot: Snapshot) -> train.Recipe:
    """The recipe for a snapshot: epochs by its size unless the settings name them."""
    chosen = settings.integer("TRAIN_EPOCHS")
    by_size = next(epochs for limit, epochs in EPOCHS if len(snapshot.facts) <= limit)
    return train.Recipe(epochs=chosen or by_size, rate=settings.number("TRAIN_RATE"), seed=snapshot.seed)


def report_of(
    night: Night, outcome: str, version: str, reason: str, candidate: Candidate | None = None
) -> dict[str, Any]:
    """The report as the contract of `nightly --json` has it."""
    proofs = candidate.proofs if candidate else ()
    return {
        "outcome": outcome,
        "version": version,
        "parent": registry.champion(night.database) if outcome != "promoted" else parent_of(night, version),
        "reason": reason,
        "gates": list(candidate.verdict.gates) if candidate else [],
        "corrections": [{"id": p.correction_id, "memorised": p.memorised, **p.as_json()} for p in proofs],
        "timings": night.timings | {"total": round(sum(night.timings.values()), 1)},
    }


def parent_of(night: Night, version: str) -> str:
    """The version a version was made from."""
    return registry.get(night.database, version).parent


def in_words(report: dict[str, Any]) -> str:
    """The morning report for people."""
    words = {
        "promoted": "A new model serves",
        "kept_champion": "The champion stays",
        "nothing_to_learn": "Nothing to learn",
    }
    learnt = sum(c["memorised"] for c in report["corrections"])
    told = f"{words[report['outcome']]}: {report['reason']}."
    return told + (
        f" {learnt} of {len(report['corrections'])} corrections are memorised." if report["corrections"] else ""
    )


def plan_in_words(snapshot: Snapshot) -> str:
    """What a night would do."""
    return (
        f"{len(snapshot.new)} new and {len(snapshot.old)} known corrections, "
        f"{len(snapshot.withdrawn)} withdrawn, {len(snapshot.examples)} examples"
    )


def new_name() -> str:
    """A version name that is never used twice: the moment, in UTC."""
    return f"v{datetime.now(UTC):%Y%m%d-%H%M%S}"


@contextmanager
def only_one(home: Path) -> Any:
    """Hold the night's lock. Raises ConflictError when another process holds it."""
    try:
        with file_lock(home / "nightly.lock", wait=False):
            yield
    except BlockingIOError:
        raise ConflictError("Another nightly run is in progress in this home folder; this one did nothing.") from None
