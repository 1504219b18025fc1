"""The night, on one screen.

    lock -> snapshot -> replay -> train -> merge -> evaluate -> gate -> calibrate -> publish -> report

It ends in one of three outcomes: promoted, kept_champion (a gate failed, and says which), nothing_to_learn.
The running bot is another process; it sees the new champion in the registry and swaps by itself. A night that was
cut short leaves the champion as it is, and its trained adapter to the next night if that would train the same.
"""

import errno
import logging
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot import base_model, desk
from bot.generator import LocalGenerator
from learning import admission, calibrate, dataset, labels, own_words, publish, replay, rewording, serving_form
from learning import candidate as candidates
from learning import report as reports
from learning.dataset import Snapshot
from learning.stages import Night
from retrieval.embedder import Embedder
from storage import audit, backup, corrections, grounds, nights, registry, retention, trust
from storage.database import Database, Row, file_lock, now
from storage.domain import Memory, ModelVersion, Status
from storage.errors import ConflictError, NightshiftError, OutOfSpaceError
from storage.settings import Settings

log = logging.getLogger(__name__)

CANARIES = 8
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_IN_WORDS = ("No space left on device", "File too large", "Disk quota exceeded")
"""What libraries written in other languages say of it."""


@dataclass(frozen=True)
class Ready:
    """What a version serves with besides its weights. `held`: questions and answers that it has by heart."""

    memories: tuple[Memory, ...]
    held: tuple[tuple[str, str], ...]
    form: dict[str, Any]
    confidence: dict[str, Any]


def run(
    database: Database,
    settings: Settings,
    *,
    say: Callable[[str], None],
    dry_run: bool = False,
    rebuild: bool = False,
    minutes: float | None = None,
) -> dict[str, Any]:
    """One night; returns its report. A dry run only says what it would do, and is no night in any record.

    Raises ConflictError when another night is running, OutOfSpaceError when the disk is full.
    """
    night = Night(database, settings, say, minutes)
    with only_one(database.home):
        if dry_run:
            return learn(night, dry_run=True, rebuild=rebuild)
        settle(database, "It was cut short: killed, or the machine went down.")
        run_id = nights.begin(database)
        try:
            keep_house(night)
            report = learn(night, dry_run=False, rebuild=rebuild)
        except BaseException as error:
            named = in_a_sentence(error, database.home)
            with suppress(NightshiftError):  # a full disk cannot take this note either
                settle(database, str(named) or type(named).__name__)
            if named is error:
                raise
            raise named from error
        tell(database, run_id, report)
    return report


def tell(database: Database, run_id: int, report: dict[str, Any]) -> None:
    """Note how a night ended, and leave its report for the reviewers."""
    told = {k: report[k] for k in ("outcome", "version", "parent", "reason")}
    nights.finish(database, run_id, **told, report=report)
    reports.leave(database, report, in_words(report))


def settle(database: Database, reason: str) -> None:
    """Note how a night ended that did not end well: it failed, unless it had published its version before."""
    for run_id, began in nights.unfinished(database):
        made = [v for v in registry.versions(database) if v.created_at >= began and v.version != registry.BASE]
        if made:
            tell(database, run_id, told_afterwards(database, made[-1], reason))
        else:
            nights.finish(database, run_id, outcome="failed", version="", parent="", reason=reason, report={})


def told_afterwards(database: Database, version: ModelVersion, reason: str) -> dict[str, Any]:
    """The report of a night that published a version and could not make its own."""
    held = registry.memories(database, version.version).values()
    return {
        "outcome": "promoted",
        "version": version.version,
        "parent": version.parent,
        "reason": f"its model was published before this: {reason}",
        "gates": list(version.gates),
        "corrections": [{"id": m.correction_id, "memorised": m.memorised, **m.proof} for m in held],
        "left_out": [],
        "timings": {},
    }


def keep_house(night: Night) -> None:
    """Before anything changes: a verified backup, old words erased, and pages that changed looked at again."""
    with night.stage("backup"):
        retention.expire(night.database, night.settings.integer("RETENTION_DAYS"))
        backup.make(night.database, keep=night.settings.integer("BACKUPS_KEEP"))
        grounds.recheck(night.database, corrections.in_status(night.database, Status.APPROVED))


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
    champion = registry.get(night.database, desk.ensure_base(night.database, night.settings))
    rebuild = rebuild or must_start_anew(night, champion)
    with night.stage("snapshot"):
        embedder = Embedder(night.settings.text("EMBEDDER"))
        more = rewording.configured(night.settings, night.home)
        snapshot = dataset.freeze(
            night.database,
            embedder,
            seed=night.settings.integer("SEED"),
            rules=admission.rules_of(night.settings),
            more=more.of,
        )
        more.forget_the_rest()
    night.left_out = tuple(asdict(left) for left in snapshot.left_out)
    if not dry_run:
        desk.follow_base(night.database, base_of(night))
        publish.sweep(night.database, snapshot.sha256)
    idle = None if rebuild else no_need_to_train(night, snapshot, champion)
    if idle:
        if not dry_run:
            refit(night, embedder)
        return report_of(night, *idle)
    if dry_run:
        return report_of(night, "kept_champion", "", f"dry run: {plan_in_words(snapshot)}")
    if not snapshot.facts:
        return back_to_base(night, snapshot)
    candidate = candidates.make(night, snapshot, embedder, champion, rebuild=rebuild)
    if not candidate.verdict.passed:
        remember_refusal(night, snapshot, champion, rebuild=rebuild)
        return keep_champion(night, candidate, candidate.verdict.reason, embedder)
    try:
        with night.stage("calibrate"):
            ready = made_ready(night, snapshot, candidate, champion, embedder)
        with night.stage("publish"):
            publish_candidate(night, snapshot, candidate, champion, ready)
    except ConflictError as error:  # something was withdrawn, erased or rolled back meanwhile
        return keep_champion(night, candidate, str(error), embedder)
    publish.sweep(night.database, snapshot.sha256)  # what was withdrawn leaves the disk with the version that knew it
    return report_of(night, "promoted", candidate.version, candidate.verdict.reason, candidate)


def must_start_anew(night: Night, champion: ModelVersion) -> bool:
    """Whether nothing may be built on the champion: it holds words that were erased, say, or stands on another base."""
    return bool(trust.barred(night.database, champion)) or candidates.of_another_base(champion, base_of(night))


def base_of(night: Night) -> Path:
    """The folder of the base model that the settings name."""
    return base_model.folder(night.home, night.settings.text("BASE_MODEL"))


def no_need_to_train(night: Night, snapshot: Snapshot, champion: ModelVersion) -> tuple[str, str, str] | None:
    """The outcome, version and reason of a night that trains nothing; None where there is something to train.

    A model that somebody rolled back is not made again from the very corrections that it knew, and what a gate refused
    is not trained again in the very same way.
    """
    if snapshot.nothing_to_learn:
        return "nothing_to_learn", "", "no correction was approved or withdrawn since the last night"
    left, ways_out = registry.rolled_back(night.database), "approve or withdraw a correction, or use --rebuild"
    if left and registry.memories(night.database, left).keys() == {f.correction_id for f in snapshot.facts}:
        return "kept_champion", "", f"{left} knew just these corrections and was rolled back; {ways_out}"
    if nights.was_refused(night.database, plan_of(night, snapshot, champion)):
        return "kept_champion", "", f"a gate refused this very training in an earlier night; {ways_out}"
    return None


def remember_refusal(night: Night, snapshot: Snapshot, champion: ModelVersion, *, rebuild: bool) -> None:
    """Note that a gate refused tonight's training; of one that was told to rebuild nothing follows for the others."""
    if not rebuild:
        nights.note_refused(night.database, plan_of(night, snapshot, champion))


def plan_of(night: Night, snapshot: Snapshot, champion: ModelVersion) -> str:
    """A hash of everything that decides what a night would make of a snapshot."""
    settings = {name: value for name, value in night.settings.values.items() if name.startswith(("TRAIN_", "SERVING"))}
    told = [snapshot.sha256, champion.version, str(base_of(night)), settings]
    return audit.digest(audit.canonical(told))


def made_ready(
    night: Night,
    snapshot: Snapshot,
    candidate: candidates.Candidate,
    champion: ModelVersion,
    embedder: Embedder,
) -> Ready:
    """Store the new wordings, choose the serving form and fit the confidence.

    Raises ConflictError when somebody's words were erased while they were trained.
    """
    with night.database.write():
        retention.check_unerased(night.database, snapshot.frozen_at)
        for fact in snapshot.facts:
            dataset.keep_wordings(night.database, fact)
    before = registry.memories(night.database, champion.version)
    memories = tuple(
        Memory(candidate.version, p.correction_id, p.memorised, p.as_json(before.get(p.correction_id)))
        for p in candidate.proofs
    )
    learnt = {m.correction_id for m in memories if m.memorised}
    held = tuple((f.question, f.answer) for f in snapshot.facts if f.correction_id in learnt)
    longest = night.settings.integer("MAX_ANSWER_TOKENS")
    form = serving_form.choose(
        candidate.folder, held, setting=night.settings.text("SERVING_FORM"), max_tokens=longest
    ).as_json()
    labelled = labels.collect(night.database, snapshot, embedder, candidate.version)
    return Ready(memories, held, form, fitted_now(night, labelled, candidate.folder, form["form"]))


def publish_candidate(
    night: Night, snapshot: Snapshot, candidate: candidates.Candidate, champion: ModelVersion, ready: Ready
) -> None:
    """Seal the folder and switch from the champion that the night began with.

    Raises ConflictError when, while it was trained, one of its rows was withdrawn, somebody's words were erased, or
    another champion came in.
    """
    folder, digest = publish.seal(
        candidate.folder,
        candidate.version,
        [{"question": question, "answer": answer} for question, answer in ready.held[:CANARIES]],
        {
            "audit": audit.head(night.database).as_json(),
            "snapshot": snapshot.sha256,
            "trained": [f.correction_id for f in snapshot.facts],
            "serving_form": ready.form["form"],
            "forms": ready.form["table"],
            **candidate.about,
        },
    )
    version = ModelVersion(
        version=candidate.version,
        parent=champion.version,
        created_at=now(),
        path=str(folder),
        adapter_path=str(candidate.adapter),
        manifest_sha256=digest,
        snapshot_sha256=snapshot.sha256,
        bytes=sum(p.stat().st_size for p in folder.iterdir()),
        gates=candidate.verdict.gates,
        confidence=ready.confidence,
    )
    with night.database.write():
        retention.check_unerased(night.database, snapshot.frozen_at)
        check_still_champion(night.database, champion)
        publish.promote(night.database, version, ready.memories)


def check_still_champion(database: Database, champion: ModelVersion) -> None:
    """Raise ConflictError when the champion that a night began with gave way to another, as in a rollback."""
    serving = registry.champion(database)
    if serving != champion.version:
        raise ConflictError(
            f"{champion.version}, with which this night began, gave way to {serving} while it trained; "
            f"the next night starts from {serving}."
        )


def keep_champion(
    night: Night, candidate: candidates.Candidate, reason: str, embedder: Embedder
) -> dict[str, Any]:
    """The candidate goes, the champion stays, and knows better how sure it may be."""
    publish.discard(night.home, candidate.version)
    refit(night, embedder)
    return report_of(night, "kept_champion", candidate.version, reason, candidate)


def refit(night: Night, embedder: Embedder) -> None:
    """Fit the champion's confidence anew where there is more to fit on than there was, or other targets are set."""
    champion = registry.get(night.database, registry.champion(night.database))
    labels.hear(night.database, champion.version)
    if outdated(night, champion.confidence):
        own, form = labels.in_force(night.database, embedder), night.settings.text("SERVING_FORM")
        registry.recalibrate(night.database, champion.version, fitted_now(night, own, Path(champion.path), form))


def outdated(night: Night, confidence: dict[str, Any]) -> bool:
    """Whether rows were stored since a confidence was fitted, by whichever night, or it was fitted for other targets.

    One of an earlier release does not say what it was fitted on, and counts as fitted on none. Of another base than the
    shipped one nobody knows how it reads until a night has asked it.
    """
    newer = nights.newest_calibration(night.database) > confidence.get("fitted_on", 0)
    other_targets = confidence.get("targets") != calibrate.targets(night.settings)
    shipped = night.settings.text("BASE_MODEL") == base_model.SHIPPED
    return newer or other_targets or not (shipped or confidence.get("reads_as") == replay.weights_of(base_of(night)))


def fitted_now(night: Night, own: list[Row], folder: Path, form: str) -> dict[str, Any]:
    """The confidence of some weights, with the newest row that it could be fitted on, and whose reading it knows.

    Only nights store rows.
    """
    about = {"fitted_on": nights.newest_calibration(night.database), "reads_as": replay.weights_of(base_of(night))}
    return confidence_for(night, own, folder, form) | about


def confidence_for(night: Night, own: list[Row], folder: Path, form: str) -> dict[str, Any]:
    """The confidence that goes with new weights, fitted on every labelled row there is, and on how these read."""
    base = base_of(night)
    longest = night.settings.integer("MAX_ANSWER_TOKENS")
    read: list[Row] = []
    if own_words.reads_well(base, night.home / "cache", longest, lambda: LocalGenerator(base, form=form)):
        read = own_words.answered(LocalGenerator(folder, form=form), own_words.questions(), longest)
    return calibrate.fit([*calibrate.shipped_rows(), *own, *read], **calibrate.targets(night.settings))


def back_to_base(night: Night, snapshot: Snapshot) -> dict[str, Any]:
    """Everything that was trained is withdrawn: the pristine base serves again."""
    if registry.champion(night.database) == registry.BASE:
        return report_of(night, "nothing_to_learn", "", "no correction is approved, and the base model serves already")
    before = registry.promote(night.database, registry.BASE)
    publish.sweep(night.database, snapshot.sha256)
    reason = "every trained correction was withdrawn; the base model serves"
    return report_of(night, "promoted", registry.BASE, reason) | {"parent": before}  # the base itself has none


def report_of(
    night: Night, outcome: str, version: str, reason: str, candidate: candidates.Candidate | None = None
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
    told = f"{words[report['outcome']]}: {report['reason'].removesuffix('.')}."
    return told + (
        f" {learnt} of {len(report['corrections'])} corrections are memorised." if report["corrections"] else ""
    )


def plan_in_words(snapshot: Snapshot) -> str:
    """What a night would do."""
    return (
        f"{len(snapshot.new)} new and {len(snapshot.old)} known corrections, "
        f"{len(snapshot.withdrawn)} withdrawn, {len(snapshot.examples)} examples"
    )


@contextmanager
def only_one(home: Path) -> Any:
    """Hold the night's lock. Raises ConflictError when another process holds it."""
    try:
        with file_lock(home / "nightly.lock", wait=False):
            yield
    except BlockingIOError:
        raise ConflictError("Another nightly run is in progress in this home folder; this one did nothing.") from None
