"""The night, on one screen.

    lock -> snapshot -> replay -> train -> merge -> evaluate -> gate -> calibrate -> publish -> report

It ends in one of three outcomes: promoted, kept_champion (a gate failed, and says which), nothing_to_learn.
The running bot is another process; it sees the new champion in the registry and swaps by itself. A night that was
cut short leaves the champion as it is, and its trained adapter to the next night if that would train the same.
"""

import errno
import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot import base_model, desk, prompt
from bot.generator import LocalGenerator
from learning import admission, calibrate, dataset, evaluate, gates, labels, merge, publish, replay, train
from learning import report as reports
from learning.dataset import Snapshot
from retrieval.embedder import Embedder
from storage import audit, backup, manifest, nights, registry, retention
from storage.database import Database, Row, file_lock, now
from storage.domain import Memory, ModelVersion
from storage.errors import ConflictError, NightshiftError, OutOfSpaceError, UserError
from storage.settings import Settings

log = logging.getLogger(__name__)

PARITY_PROMPTS = 16
SCALES = (1.0, 0.8, 0.6)
"""Shares of the adapter that are merged in turn until one passes: less of it forgets less (WiSE-FT, DECISIONS.md)."""
CANARIES = 8
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_IN_WORDS = ("No space left on device", "File too large", "Disk quota exceeded")
"""What libraries written in other languages say of it."""
LEAST_STEPS, MOST_EPOCHS = 80, 30
"""One single fact makes three steps an epoch; too few steps never separate it from its near-misses (DECISIONS.md)."""
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
    left_out: tuple[dict[str, Any], ...] = ()

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
        self.timings[name] = round(self.timings.get(name, 0.0) + time.monotonic() - started, 1)


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


def run(
    database: Database,
    settings: Settings,
    *,
    say: Callable[[str], None],
    dry_run: bool = False,
    rebuild: bool = False,
    minutes: float | None = None,
) -> dict[str, Any]:
    """One night; returns its report.

    Raises ConflictError when another night is running, OutOfSpaceError when the disk is full.
    """
    night = Night(database, settings, say, minutes)
    with only_one(database.home):
        for cut_short in nights.unfinished(database):
            failed(database, cut_short, "It was cut short: killed, or the machine went down.")
        run_id = nights.begin(database)
        try:
            if not dry_run:
                keep_house(night)
            report = learn(night, dry_run=dry_run, rebuild=rebuild)
        except BaseException as error:
            named = in_a_sentence(error, database.home)
            with suppress(NightshiftError):  # a full disk cannot take this note either
                failed(database, run_id, str(named) or type(named).__name__)
            if named is error:
                raise
            raise named from error
        told = {k: report[k] for k in ("outcome", "version", "parent", "reason")}
        nights.finish(database, run_id, **told, report=report)
        if not dry_run:
            reports.leave(database, report, in_words(report))
    return report


def keep_house(night: Night) -> None:
    """Before anything changes: a verified backup, and the words that have outlived their time are erased."""
    with night.stage("backup"):
        retention.expire(night.database, night.settings.integer("RETENTION_DAYS"))
        backup.make(night.database, keep=night.settings.integer("BACKUPS_KEEP"))


def failed(database: Database, run_id: int, reason: str) -> None:
    """Note that a night failed, and tell the reviewers."""
    with database.write():
        nights.finish(database, run_id, outcome="failed", version="", parent="", reason=reason, report={})
        nights.owe(database, "", "alert", {"text": f"The night failed and the champion goes on serving. {reason}"})


def in_a_sentence(error: BaseException, home: Path) -> BaseException:
    """What the operator is told: a full disk by name, whichever library met it first; everything else as it is."""
    full = isinstance(error, OSError) and error.errno in FULL
    if isinstance(error, NightshiftError) or not (full or any(words in str(error) for words in FULL_IN_WORDS)):
        return error
    return OutOfSpaceError(
        f"The disk that holds {home} is full; free some space and run the night again. The champion goes on serving."
    )


def learn(night: Night, *, dry_run: bool, rebuild: bool) -> dict[str, Any]:
    """The story of a night."""
    desk.ensure_base(night.database, night.settings)
    publish.sweep(night.database)
    with night.stage("snapshot"):
        embedder = Embedder(night.settings.text("EMBEDDER"))
        snapshot = dataset.freeze(
            night.database,
            embedder,
            seed=night.settings.integer("SEED"),
            rules=admission.rules_of(night.settings),
        )
    night.left_out = tuple(asdict(left) for left in snapshot.left_out)
    if snapshot.nothing_to_learn and not rebuild:
        return report_of(night, "nothing_to_learn", "", "no correction was approved or withdrawn since the last night")
    if dry_run:
        return report_of(night, "kept_champion", "", f"dry run: {plan_in_words(snapshot)}")
    if not snapshot.facts:
        return back_to_base(night)
    candidate = make(night, snapshot, embedder, rebuild=rebuild)
    if not candidate.verdict.passed:
        return keep_champion(night, candidate, candidate.verdict.reason)
    try:
        with night.stage("publish"):
            publish_candidate(night, snapshot, candidate, embedder)
    except ConflictError as error:  # a row was withdrawn while it was trained
        return keep_champion(night, candidate, str(error))
    return report_of(night, "promoted", candidate.version, candidate.verdict.reason, candidate)


def make(night: Night, snapshot: Snapshot, embedder: Embedder, *, rebuild: bool) -> Candidate:
    """Train, merge, measure and judge a version."""
    champion = registry.get(night.database, registry.champion(night.database))
    base = base_model.folder(night.home, night.settings.text("BASE_MODEL"))
    publish.preflight(night.home, base)
    with night.stage("replay"):
        anchors = replay.anchors(base, night.home / "cache", night.say)
    with night.stage("train"):
        fresh = rebuild or snapshot.withdrawn or not champion.adapter_path
        adapter = adapter_for(night, snapshot, base, anchors, None if fresh else champion)
    tried = []
    for scale in SCALES:
        tried.append(measured(night, snapshot, embedder, anchors, base, adapter, scale))
        if tried[-1].verdict.passed:
            return tried[-1]
        if not tried[-1].verdict.only_forgot:
            break
    return tried[0]


def measured(
    night: Night,
    snapshot: Snapshot,
    embedder: Embedder,
    anchors: replay.Anchors,
    base: Path,
    adapter: Adapter,
    scale: float,
) -> Candidate:
    """Merge base + scale * adapter and hold it against every gate."""
    folder = publish.workshop(night.home, adapter.version)
    with night.stage("merge"):
        merge.merge(base, adapter.folder, folder, scale=scale)
        chats = [prompt.messages(f.question) for f in snapshot.facts]
        chats += [prompt.messages(a.question) for a in anchors.held_out]
        parity = merge.prove(base, adapter.folder, folder, chats[:PARITY_PROMPTS], scale=scale)
    with night.stage("evaluate"):
        form = night.settings.text("SERVING_FORM")
        engine = LocalGenerator(folder, form=form)
        proofs = evaluate.facts(engine, snapshot.facts, embedder, night.settings.integer("MAX_ANSWER_TOKENS"))
        before = evaluate.general_of_base(base, night.home / "cache", form, lambda: LocalGenerator(base, form=form))
        champion = registry.get(night.database, registry.champion(night.database))
        values = {
            **fact_values(night, snapshot, proofs, champion),
            "general_battery": sum(evaluate.general(engine).values()) / max(1, sum(before.values())),
            "general_drift": evaluate.drift(engine, anchors.held_out),
            **parity_values(parity),
        }
    verdict = gates.judge(values)
    if not verdict.passed:
        night.say(f"with {scale:g} of the adapter: {verdict.reason}")
    return Candidate(adapter.version, folder, adapter.folder, verdict, proofs, adapter.about | {"scale": scale})


def adapter_for(
    night: Night, snapshot: Snapshot, base: Path, anchors: replay.Anchors, warm: ModelVersion | None
) -> Adapter:
    """The adapter of this snapshot: trained and sealed now, or left whole by a night that was cut short."""
    chosen = recipe(night.settings, snapshot)
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
    known = {f.correction_id for f in snapshot.old} if warm else set()
    trained = train.train(
        base,
        [e for e in snapshot.examples if e.correction_id not in known],
        anchors.trained,
        chosen,
        known=[e for e in snapshot.examples if e.correction_id in known],
        warm_from=Path(warm.adapter_path) if warm else None,
        out=publish.workshop(night.home, f"{version}{publish.ADAPTER}"),
        progress=night.say,
    )
    about = {"recipe": trained.recipe, "losses": trained.losses, "warm_from": purpose["warm_from"]}
    folder, _ = publish.seal(trained.adapter, f"{version}{publish.ADAPTER}", (), {"purpose": purpose, **about})
    return Adapter(version, folder, about)


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
    bluffed = sum(p.near_misses_bluffed for p in proofs)
    values = {"near_misses": calibrate.at_least(bluffed, asked, 0.95)} if asked else {}
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


def publish_candidate(night: Night, snapshot: Snapshot, candidate: Candidate, embedder: Embedder) -> None:
    """Store the new wordings, seal both folders, fit the confidence and switch the champion."""
    for fact in snapshot.facts:
        dataset.keep_wordings(night.database, fact)
    memories = tuple(Memory(candidate.version, p.correction_id, p.memorised, p.as_json()) for p in candidate.proofs)
    learnt = {m.correction_id for m in memories if m.memorised}
    canaries = [{"question": f.question, "answer": f.answer} for f in snapshot.facts if f.correction_id in learnt]
    folder, digest = publish.seal(
        candidate.folder,
        candidate.version,
        canaries[:CANARIES],
        {
            "audit": audit.head(night.database).as_json(),
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
        adapter_path=str(candidate.adapter),
        manifest_sha256=digest,
        snapshot_sha256=snapshot.sha256,
        bytes=sum(p.stat().st_size for p in folder.iterdir()),
        gates=candidate.verdict.gates,
        confidence=confidence_for(night, labels.collect(night.database, snapshot, embedder, candidate.version)),
    )
    publish.promote(night.database, version, memories)


def keep_champion(night: Night, candidate: Candidate, reason: str) -> dict[str, Any]:
    """The candidate goes, the champion stays."""
    publish.discard(night.home, candidate.version)
    return report_of(night, "kept_champion", candidate.version, reason, candidate)


def confidence_for(night: Night, own: list[Row]) -> dict[str, Any]:
    """The confidence that goes with new weights, fitted on every labelled row there is."""
    return calibrate.fit(
        [*calibrate.shipped_rows(), *own],
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
    an_epoch = math.ceil(max(1, len(snapshot.examples)) / train.Recipe.batch)
    enough = min(MOST_EPOCHS, max(by_size, math.ceil(LEAST_STEPS / an_epoch)))
    return train.Recipe(epochs=chosen or enough, rate=settings.number("TRAIN_RATE"), seed=snapshot.seed)


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
        "left_out": list(night.left_out),
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


def new_name(database: Database) -> str:
    """A version name that is never used twice, even if the clock is set back: the moment, in UTC."""
    name = f"v{datetime.now(UTC):%Y%m%d-%H%M%S}"
    known = {v.version for v in registry.versions(database)}
    known |= {p.name.removesuffix(publish.ADAPTER) for p in (database.home / "models").glob("v*")}
    return name if name not in known else next(f"{name}-{n}" for n in range(2, 1000) if f"{name}-{n}" not in known)


@contextmanager
def only_one(home: Path) -> Any:
    """Hold the night's lock. Raises ConflictError when another process holds it."""
    try:
        with file_lock(home / "nightly.lock", wait=False):
            yield
    except BlockingIOError:
        raise ConflictError("Another nightly run is in progress in this home folder; this one did nothing.") from None
