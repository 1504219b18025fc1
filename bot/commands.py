"""The commands of the bot: ask, correct, serve, demo, doctor.

Heavy parts are imported inside the functions, so that `--help` stays quick.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storage.cli import Context, batch_options, check_batch, check_scope, emit, fail, json_option, run_batch
from storage.database import Database
from storage.domain import WORKSPACE, Answer, Correction
from storage.errors import NightshiftError, UserError

if TYPE_CHECKING:
    from bot.pipeline import Tools
    from bot.teaching import Pairs, Proposal

ROUTES = ("auto", "memory", "raw", "documents")


@click.command()
@click.argument("question", required=False)
@click.option("--user", default="cli", show_default=True, help="Who asks.")
@click.option("--channel", default="", help="Channel id whose private documents may be used.")
@click.option(
    "--route", type=click.Choice(ROUTES), default="auto", show_default=True, help="Force a route, to measure."
)
@batch_options
@json_option
@click.pass_obj
def ask(
    context: Context,
    question: str | None,
    user: str,
    channel: str,
    route: str,
    batch: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Answer one QUESTION, or every line of a --batch."""
    from bot.asking import check

    check_batch(batch, out)
    if batch is None:
        check(question or "", context.settings.integer("MAX_QUESTION_CHARS"))
    given = {"question": "", "user": user, "channel": channel}
    typed = Typed(sys.stdout.isatty() and batch is None and not as_json)
    with open_tools(context) as (database, tools):

        def one(row: dict[str, Any]) -> dict[str, Any]:
            asked = {name: str(row.get(name) or default) for name, default in given.items()}
            return answer_json(reply_to(context, database, tools, asked, route, typed))

        if batch is not None:
            count = run_batch(batch, out, one)
            emit(as_json, {"count": count, "out": str(out)}, f"{count} answers in {out}.")
            return
        result = one({"question": question})
    emit(as_json, result, typed.rest(spoken(result)))


@dataclass
class Typed:
    """Shows an answer at a terminal while the model writes it."""

    shown: bool
    so_far: str = ""

    def take(self, text: str) -> None:
        """The text so far: its last word may still change, so it waits. Nothing is shown that begins anew."""
        ready = text[: text.rfind(" ") + 1]
        if self.shown and ready.startswith(self.so_far):
            click.echo(ready[len(self.so_far) :], nl=False)
            self.so_far = ready

    def rest(self, answer: str) -> str:
        """What is still to be shown of an answer, or all of it where it became another one."""
        if answer.startswith(self.so_far):
            return answer[len(self.so_far) :]
        return f"\n[not sure enough of that; instead:]\n{answer}"


def reply_to(
    context: Context, database: Database, tools: "Tools", row: dict[str, str], route: str, typed: Typed
) -> Answer:
    """Answer one input row with the keys question, user and channel."""
    from bot.asking import Asked, answer_and_store, check

    text, channel = row["question"], row["channel"]
    check(text, context.settings.integer("MAX_QUESTION_CHARS"))
    scopes = (WORKSPACE, channel) if channel else (WORKSPACE,)
    partly = typed.take if typed.shown else None
    asked = Asked(text, row["user"], channel, scopes=scopes, route=route, partial=partly)
    return answer_and_store(database, tools, asked, context.settings.names("COMPANY_CONTACTS"))


@contextmanager
def open_tools(context: Context) -> Iterator[tuple[Database, "Tools"]]:
    """The database and everything an answer stands on."""
    from bot import desk

    database = context.database()
    tools, index = desk.open_tools(database, context.settings, serving=False)
    try:
        yield database, tools
    finally:
        index.close()
        database.close()


def answer_json(reply: Answer) -> dict[str, Any]:
    """An answer as the contract of `ask --json` has it."""
    return {
        "question_id": reply.question_id,
        "answer_id": reply.id,
        "answer": reply.text,
        "route": reply.route.value,
        "style": reply.style.value,
        "taught_question": reply.taught_question,
        "confidence": round(reply.confidence, 4),
        "model_version": reply.model_version,
        "correction_id": reply.correction_id,
        "sources": [asdict(s) for s in reply.sources],
        "suggestions": [asdict(s) for s in reply.suggestions],
        "timings": reply.timings,
    }


def spoken(result: dict[str, Any]) -> str:
    """An answer for a person at a terminal."""
    lines = []
    if result["style"] == "related":
        lines.append(f"The closest I was taught: {result['taught_question']}")
    elif result["taught_question"]:
        lines.append(f"I was taught: {result['taught_question']}")
    lines.append(result["answer"])
    how = f"[{result['route']}, {result['style']}, confidence {result['confidence']:.2f}, {result['model_version']}]"
    lines.append(how)
    lines += [f"  {s['document']} > {s['heading']} {s['url']}".rstrip() for s in result["sources"]]
    lines += [f"  Did you mean: {s['question']}" for s in result["suggestions"]]
    return "\n".join(lines)


@click.command()
@click.option("--question", help="What was asked.")
@click.option("--answer", help="The right answer.")
@click.option("--author", help="Who says so.")
@click.option("--source", default="", help="Where it stands, if anywhere.")
@click.option("--scope", default=WORKSPACE, show_default=True, help="'workspace', or the channel id that may see it.")
@click.option("--supersedes", type=int, help="The correction that this one replaces.")
@batch_options
@json_option
@click.pass_obj
def correct(
    context: Context,
    question: str | None,
    answer: str | None,
    author: str | None,
    source: str,
    scope: str,
    supersedes: int | None,
    batch: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Propose a correction; another person must approve it."""
    check_batch(batch, out)
    database = context.database()
    embed = load_embedder(context)
    given = {"source": source, "scope": scope, "supersedes": supersedes}

    def one(row: dict[str, Any]) -> dict[str, Any]:
        return proposal_json(propose(context, database, embed, {**given, **row}))

    if batch is not None:
        count = run_batch(batch, out, one)
        emit(as_json, {"count": count, "out": str(out)}, f"{count} corrections in {out}.")
        return
    result = one({"question": question, "answer": answer, "author": author})
    state = "held with those it is like" if "held_with" in result else result["status"]
    emit(as_json, result, f"Correction {result['correction_id']} is {state}.")


def load_embedder(context: Context) -> Any:
    """The sentence embedder of the settings."""
    from retrieval.embedder import Embedder

    return Embedder(context.settings.text("EMBEDDER"))


def comparer(context: Context) -> Callable[[Database, Correction], "Pairs"]:
    """What finds the conflicts of a correction that `review edit` rewords; its model is loaded before any lock."""
    from bot import teaching

    embed = load_embedder(context)
    embed.encode(["The first call loads the embedder, so that nobody waits for a transaction that waits for it."])

    def compared(database: Database, row: Correction) -> "Pairs":
        return teaching.reworded(database, embed, row, teaching.claim_of(row)).pairs

    return compared


def propose(context: Context, database: Database, embedder: Any, row: dict[str, Any]) -> "Proposal":
    """Propose the correction of one input row."""
    from bot import teaching

    for name in ("question", "answer", "author"):
        if not str(row.get(name) or "").strip():
            raise UserError(f"A correction needs --{name}.")
    scope = str(row.get("scope") or WORKSPACE)
    check_scope(scope)
    return teaching.propose(
        database,
        embedder,
        question=str(row["question"]),
        answer=str(row["answer"]),
        author=str(row["author"]),
        source=str(row.get("source") or ""),
        scope=scope,
        supersedes=an_id(row.get("supersedes")),
        **teaching.rules_of(context.settings),
    )


def an_id(given: Any) -> int | None:
    """The id of a correction, or None. Raises UserError for what is no whole number."""
    if given is None or isinstance(given, int):
        return given
    if isinstance(given, str) and given.isdecimal():
        return int(given)
    raise UserError(f"{given!r} is no correction id; give a whole number.")


def proposal_json(proposal: "Proposal") -> dict[str, Any]:
    """A proposal as the contract of `correct --json` has it; it says when one is held, or personal data was masked."""
    return {
        "correction_id": proposal.correction.id,
        "status": proposal.correction.status.value,
        "conflicts": [{n: v for n, v in asdict(c).items() if n != "scope"} for c in proposal.conflicts],
        **({"held_with": list(proposal.held_with)} if proposal.held_with else {}),
        **({"masked": True} if proposal.masked else {}),
    }


@click.command()
@click.pass_obj
def serve(context: Context) -> None:
    """Run the bot against Slack."""
    import asyncio

    from bot import app

    app.check_tokens(context.settings)
    asyncio.run(app.serve(context.database(serving=True), context.settings))


@click.command()
@click.option("--port", default=8765, show_default=True, help="Port of the local workspace page.")
@click.pass_obj
def demo(context: Context, port: int) -> None:
    """Run the bot in a workspace on this machine, with a demo company loaded."""
    import asyncio

    from bot import demo as demonstration

    asyncio.run(demonstration.demo(context.settings, port))


@click.command()
@json_option
@click.pass_obj
def doctor(context: Context, as_json: bool) -> None:
    """Check versions, database, index, models and tokens."""
    from bot import checkup

    checks = checkup.run(context.database(), context.settings)
    lines = [f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {c['detail']}" for c in checks]
    told, text = {"checks": checks}, "\n".join(lines)
    if failed := [c["name"] for c in checks if not c["ok"]]:
        fail(as_json, NightshiftError(f"Something is wrong with: {', '.join(failed)}."), told, text)
    emit(as_json, told, text)
