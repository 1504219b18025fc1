"""The commands that need nothing but the database: review, models, audit, backup, restore, export, erase.

Only `review edit` needs more: what a reworded correction contradicts is found by the room of the command `correct`.
"""

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from storage import audit as audit_log
from storage import backup as backups
from storage import corrections, evidence, holds, registry, retention
from storage import export as exports
from storage.cli import Context, emit, fail, json_option, points
from storage.database import Database
from storage.domain import Correction, Status
from storage.errors import ConflictError, ContradictionError, HeldError, IntegrityError, UserError


@click.group()
def review() -> None:
    """The review queue: list, show, approve, release, edit, reject, withdraw."""


def reviewed(
    context: Context, as_json: bool, rows: tuple[Correction, ...], database: Database, *, proofs: bool = False
) -> None:
    """Print corrections as the contract of `review --json` has them; with `proofs` in the words for people too."""
    listed = [correction_json(database, row) for row in rows]
    lines = [
        f"{r['id']:>4} {state:<10} {r['author']:<12} {r['question']} -> {r['answer']}"
        for r in listed
        for state in ["held" if "held_with" in r else r["status"]]
    ]
    if proofs:
        words = [evidence.proof_in_words(r["proof"]) if r["proof"] else "not trained yet" for r in listed]
        lines = [part for line, proof in zip(lines, words, strict=True) for part in (line, f"     Proof: {proof}")]
    emit(as_json, {"corrections": listed}, "\n".join(lines) or "The queue is empty.")


def correction_json(database: Database, row: Correction) -> dict[str, Any]:
    """One correction with its proof in the champion (null when it was not trained).

    `held_with` names those that a held correction is nearly the same as, `edited_by` who changed its text.
    """
    shown = ("id", "question", "answer", "author", "reviewer", "source", "scope", "reason", "supersedes")
    return {
        **{name: getattr(row, name) for name in shown},
        "status": row.status.value,
        **({"held_with": list(held)} if (held := holds.alike(database, row.id)) else {}),
        **({"edited_by": list(by)} if (by := corrections.editors(database, row.id)) else {}),
        "proof": registry.proof(database, row.id),
    }


@review.command("list")
@click.option("--status", type=click.Choice([s.value for s in Status]), help="Only this state.")
@json_option
@click.pass_obj
def review_list(context: Context, status: str | None, as_json: bool) -> None:
    """All corrections, oldest first."""
    database = context.database()
    reviewed(context, as_json, corrections.in_status(database, *([Status(status)] if status else [])), database)


@review.command("show")
@click.argument("ids", type=int, nargs=-1, required=True)
@json_option
@click.pass_obj
def review_show(context: Context, ids: tuple[int, ...], as_json: bool) -> None:
    """Single corrections with their proof."""
    database = context.database()
    reviewed(context, as_json, tuple(corrections.get(database, i) for i in ids), database, proofs=True)


def decision(function: Any) -> Any:
    """The arguments that every decision takes."""
    function = json_option(function)
    function = click.option("--reason", default="", help="Why.")(function)
    function = click.option("--reviewer", required=True, help="Who decides.")(function)
    return click.argument("ids", type=int, nargs=-1, required=True)(function)


def decide(context: Context, as_json: bool, ids: tuple[int, ...], work: Any) -> None:
    """Apply a decision to all ids in one transaction, so that one refusal changes nothing."""
    database = context.database()
    with database.write():
        rows = tuple(work(database, i) for i in ids)
    reviewed(context, as_json, rows, database)


@review.command("approve")
@decision
@click.option("--supersedes", type=int, multiple=True, metavar="ID", help="What it takes the place of.")
@click.option("--anyway", is_flag=True, help="Leave what it contradicts in force beside it.")
@click.pass_obj
def review_approve(
    context: Context,
    ids: tuple[int, ...],
    reviewer: str,
    reason: str,
    supersedes: tuple[int, ...],
    anyway: bool,
    as_json: bool,
) -> None:
    """Approve pending corrections that somebody else wrote.

    One that contradicts an approved correction needs a choice: --supersedes ID or --anyway.
    """
    if supersedes and len(ids) > 1:
        raise UserError("Approve corrections that take the place of others one at a time.")

    def approve(database: Database, number: int) -> Correction:
        try:
            return corrections.approve(database, number, reviewer, reason=reason, supersedes=supersedes, anyway=anyway)
        except ContradictionError as error:
            options = " ".join(f"--supersedes {other}" for other in error.others)
            choice = f"{options}, or " if corrections.may_replace(database, number, error.others) else ""
            raise ConflictError(f"{error} Add {choice}--anyway.") from error

    try:
        decide(context, as_json, ids, approve)
    except HeldError as error:
        raise ConflictError(f"{error} The command is: nightshift review release ID --reviewer U.") from error


@review.command("release")
@click.argument("number", metavar="ID", type=int)
@click.option("--reviewer", required=True, help="Who decides.")
@json_option
@click.pass_obj
def review_release(context: Context, number: int, reviewer: str, as_json: bool) -> None:
    """Let one correction that is held as part of a flood be decided like any other."""
    database = context.database()
    with database.write():
        row = corrections.get(database, number)
        holds.release(database, number, corrections.clean(reviewer, "reviewer"))
    reviewed(context, as_json, (row,), database)


@review.command("edit")
@decision
@click.option("--question", help="The new question.")
@click.option("--answer", help="The new answer.")
@click.pass_obj
def review_edit(
    context: Context,
    ids: tuple[int, ...],
    reviewer: str,
    reason: str,
    question: str | None,
    answer: str | None,
    as_json: bool,
) -> None:
    """Change the text of a pending correction."""
    if question is None and answer is None:
        raise UserError("Nothing to change: give --question or --answer.")
    contacts, compared = context.settings.names("COMPANY_CONTACTS"), comparer(context)

    def masked(database: Database, text: str | None) -> str | None:
        return text if text is None else evidence.masked(database, text, contacts)

    def edit(database: Database, number: int) -> Correction:
        texts = {"question": masked(database, question), "answer": masked(database, answer)}
        row = corrections.edit(database, number, reviewer, reason=reason, **texts)
        evidence.note_conflicts(database, number, compared(database, row))
        return row

    decide(context, as_json, ids, edit)


def comparer(context: Context) -> Any:
    """What finds the conflicts of a reworded correction; found as its command is, so that nothing imports upwards."""
    return import_module(points()["correct"].module).comparer(context)


@review.command("reject")
@decision
@click.pass_obj
def review_reject(context: Context, ids: tuple[int, ...], reviewer: str, reason: str, as_json: bool) -> None:
    """Refuse pending corrections."""
    decide(context, as_json, ids, lambda db, i: corrections.reject(db, i, reviewer, reason=reason))


@review.command("withdraw")
@decision
@click.pass_obj
def review_withdraw(context: Context, ids: tuple[int, ...], reviewer: str, reason: str, as_json: bool) -> None:
    """Take corrections back; they stop answering at once and the next night forgets them."""
    decide(context, as_json, ids, lambda db, i: corrections.withdraw(db, i, reviewer, reason=reason))


@click.group()
def models() -> None:
    """The model registry: list, show, promote, rollback."""


def registry_json(database: Database) -> dict[str, Any]:
    """The registry as the contract of `models --json` has it."""
    return {
        "champion": registry.alias(database, "champion"),
        "previous": registry.alias(database, "previous"),
        "versions": [
            {
                "version": v.version,
                "parent": v.parent,
                "created": v.created_at,
                "gates": list(v.gates),
                "bytes": v.bytes,
                "path": v.path,
            }
            for v in registry.versions(database)
        ],
    }


def show_registry(database: Database, as_json: bool, note: str = "") -> None:
    """Print the registry, with a sentence in front for people."""
    told = registry_json(database)
    marks = {told["champion"]: "champion", told["previous"]: "previous"}
    lines = [
        f"{v['version']:<24} {marks.get(v['version'], ''):<9} {v['created']} {v['path']}" for v in told["versions"]
    ]
    emit(as_json, told, "\n".join([*([note] if note else []), *lines]) or "No model yet.")


@models.command("list")
@json_option
@click.pass_obj
def models_list(context: Context, as_json: bool) -> None:
    """All versions."""
    show_registry(context.database(), as_json)


@models.command("show")
@click.argument("version", required=False)
@json_option
@click.pass_obj
def models_show(context: Context, version: str | None, as_json: bool) -> None:
    """One VERSION (the champion by default) with its gates."""
    database = context.database()
    found = registry.get(database, version or registry.champion(database))
    told = registry_json(database)
    told["versions"] = [v for v in told["versions"] if v["version"] == found.version]
    lines = [f"{found.version} from {found.parent or 'nothing'}, {found.created_at}, {found.path}"]
    lines += [
        f"  {g['name']}: {g['value']} (needs {g['threshold']}) {'passed' if g['passed'] else 'FAILED'}"
        for g in found.gates
    ]
    emit(as_json, told, "\n".join(lines))


@models.command("promote")
@click.argument("version")
@json_option
@click.pass_obj
def models_promote(context: Context, version: str, as_json: bool) -> None:
    """Make a published VERSION the champion; the running bot loads it between two answers."""
    database = context.database()
    before = registry.promote(database, version)
    show_registry(database, as_json, f"{version} serves now; {before} is kept as previous.")


@models.command("rollback")
@click.argument("version", required=False)
@json_option
@click.pass_obj
def models_rollback(context: Context, version: str | None, as_json: bool) -> None:
    """Put the previous champion (or VERSION) back."""
    database = context.database()
    if version is None:
        left, back = registry.rollback(database)
    else:
        left, back = registry.promote(database, version), version
    show_registry(database, as_json, f"{back} serves again; {left} was taken out.")


@click.group()
def audit() -> None:
    """The audit log: verify."""


@audit.command("verify")
@click.option("--backups", type=click.Path(path_type=Path), help="Where backups lie that are not in the home folder.")
@json_option
@click.pass_obj
def audit_verify(context: Context, backups: Path | None, as_json: bool) -> None:
    """Check that no entry was changed, taken out, put in or cut off, and that the rows are what was logged."""
    database = context.database()
    verdict = audit_log.verify(database, audit_log.anchors(database.home, backups))
    told = {
        "intact": verdict.ok,
        "head": verdict.head.as_json(),
        "anchors": verdict.anchors,
        "restores": verdict.restores,
        "faults": [asdict(fault) for fault in verdict.faults],
    }
    lines = [f"  {fault.kind}: {fault.detail}" for fault in verdict.faults]
    if verdict.ok:
        emit(as_json, told, f"Intact; {verdict.head.in_words()}, {verdict.anchors} anchors agree.")
        return
    wrong = IntegrityError(f"The audit log is not as it was written: {len(lines)} faults.")
    fail(as_json, wrong, told, "\n".join([str(wrong), *lines]))


@click.command()
@click.option("--to", type=click.Path(path_type=Path), help="Folder of the backups (default: in the home folder).")
@click.option("--keep", type=click.IntRange(min=1), help="How many to keep (default: NIGHTSHIFT_BACKUPS_KEEP).")
@click.option("--models", "with_models", is_flag=True, help="Copy the folders of the serving models too.")
@json_option
@click.pass_obj
def backup(context: Context, to: Path | None, keep: int | None, with_models: bool, as_json: bool) -> None:
    """Copy the database, check the copy, and keep the newest ones."""
    database = context.database()
    made = backups.make(
        database,
        to=to.expanduser().absolute() if to else None,
        keep=keep or context.settings.integer("BACKUPS_KEEP"),
        models=with_models,
    )
    kept = [folder.name for folder in backups.listed(made.folder.parent)]
    told = {
        "backup": str(made.folder),
        "created": made.created_at,
        "bytes": made.bytes,
        "audit": made.head.as_json(),
        "versions": list(made.versions),
        "kept": kept,
    }
    emit(as_json, told, f"{made.folder} holds {made.bytes / 1e6:.1f} MB, checked; {len(kept)} are kept.")


@click.command()
@click.argument("source", metavar="[BACKUP]", type=click.Path(path_type=Path), required=False)
@json_option
@click.pass_obj
def restore(context: Context, source: Path | None, as_json: bool) -> None:
    """Put BACKUP (the newest one by default) in the place of the database, which is kept; the bot must not run."""
    done = backups.restore(context.home, source)
    told = {
        "restored": str(done.source),
        "replaced": str(done.replaced) if done.replaced else None,
        "champion": done.champion,
        "audit": done.head.as_json(),
    }
    kept = f" What stood there is kept in {done.replaced}." if done.replaced else ""
    serving = f"{done.champion} serves." if done.champion else "The base model is made anew at the next start."
    emit(as_json, told, f"{done.source.name} is restored. {serving}{kept}")


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="A new folder.")
@json_option
@click.pass_obj
def export(context: Context, out: Path, as_json: bool) -> None:
    """Write all corrections, and each version's with their wordings, as JSONL files."""
    lines = exports.write(context.database(), out)
    shown = "\n".join(f"{count:>6} lines {out / name}" for name, count in lines.items())
    emit(as_json, {"out": str(out), "files": lines}, shown)


@click.command()
@click.option("--user", help="Erase what this person asked and taught, and what was answered to them.")
@click.option("--expired", is_flag=True, help="Erase questions and answers older than NIGHTSHIFT_RETENTION_DAYS.")
@click.option("--copies-too", is_flag=True, help="Then put one new backup in the place of every earlier copy here.")
@json_option
@click.pass_obj
def erase(context: Context, user: str | None, expired: bool, copies_too: bool, as_json: bool) -> None:
    """Overwrite words for ever; ids and hashes stay, and corrections by that person are withdrawn."""
    if (user is None) == (not expired):
        raise UserError("Say whose words are to be erased (--user U) or erase old ones (--expired).")
    days = context.settings.integer("RETENTION_DAYS")
    if expired and days == 0:
        raise UserError("NIGHTSHIFT_RETENTION_DAYS is 0, which keeps everything; set it to a number of days.")
    database = context.database()
    gone = retention.expire(database, days) if user is None else retention.erase(database, user)
    told = {name: len(numbers) for name, numbers in retention.ids(gone).items()}
    counted = ", ".join(f"{count} {name}" for name, count in told.items())
    if copies_too:
        backups.drop_older(database)
    left = [] if copies_too else [str(copy) for copy in backups.older_copies(database.home)]
    emit(as_json, told | {"copies": left}, f"Erased the words of {counted}. {where_words_are_left(len(left), user)}")


def where_words_are_left(copies: int, user: str | None) -> str:
    """What an erasure of a person's words, or of old ones, cannot reach, and what to do about it."""
    here = f"{copies} earlier copies in the home folder keep theirs; --copies-too replaces them. " if copies else ""
    trained = "keep what they learnt" if user is None else "that were trained on them are rebuilt by the next night"
    return f"{here}Backups elsewhere are not touched; models {trained}."
