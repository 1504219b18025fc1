"""The commands that need nothing but the database: review and models."""

from typing import Any

import click

from storage import corrections, registry
from storage.cli import Context, emit, json_option
from storage.database import Database
from storage.domain import Correction, Status
from storage.errors import UserError


@click.group()
def review() -> None:
    """The review queue: list, show, approve, edit, reject, withdraw."""


def reviewed(context: Context, as_json: bool, rows: tuple[Correction, ...], database: Database) -> None:
    """Print corrections as the contract of `review --json` has them."""
    listed = [correction_json(database, row) for row in rows]
    lines = [f"{r['id']:>4} {r['status']:<10} {r['author']:<12} {r['question']} -> {r['answer']}" for r in listed]
    emit(as_json, {"corrections": listed}, "\n".join(lines) or "The queue is empty.")


def correction_json(database: Database, row: Correction) -> dict[str, Any]:
    """One correction with its proof in the champion (null when it was not trained)."""
    shown = ("id", "question", "answer", "author", "reviewer", "source", "scope", "reason", "supersedes")
    return {
        **{name: getattr(row, name) for name in shown},
        "status": row.status.value,
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
    reviewed(context, as_json, tuple(corrections.get(database, i) for i in ids), database)


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
@click.pass_obj
def review_approve(context: Context, ids: tuple[int, ...], reviewer: str, reason: str, as_json: bool) -> None:
    """Approve pending corrections that somebody else wrote."""
    decide(context, as_json, ids, lambda db, i: corrections.approve(db, i, reviewer, reason=reason))


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
    decide(
        context,
        as_json,
        ids,
        lambda db, i: corrections.edit(db, i, reviewer, question=question, answer=answer),
    )


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
