"""The main job, end to end, on real parts: the 135M model, MiniLM, Chroma, SQLite, Bolt over the workspace's socket.

Sam asks and gets a wrong answer from a page, corrects it in the modal; Priya approves; the night trains; Sam asks in
words nobody trained and is answered from the weights; a rollback brings the old model, route and answer back.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot import base_model
from bot.app import SlackBot
from bot.asking import Asked
from bot.demo import settings_for
from bot.desk import Desk
from bot.generator import LocalGenerator
from bot.workspace.server import Workspace
from retrieval.embedder import Embedder
from retrieval.ingest import ingest
from storage import company, conversations, corrections, manifest, registry, settings
from storage.database import Database
from storage.domain import Answer, Route

pytestmark = pytest.mark.slow

SAM, PRIYA, HELP, REVIEW = "U0SAM", "U0PRIYA", "C0HELP", "C0REVIEW"
TAUGHT = company.corrections()[:4]
BOARD, PRIVATE = "C0BOARD", 20
NIGHT_SECONDS = 240
"""Four minutes, on two cores that read READ_TOKENS tokens in REFERENCE_SECONDS (bfloat16 in hardware, FACTS)."""
READ_TOKENS, REFERENCE_SECONDS = 638, 0.6
SERVED_SECONDS = 5


def nightshift(home: Path, *arguments: str) -> dict[str, Any]:
    """Run a command in a process of its own, as cron does."""
    program = [str(Path(sys.executable).parent / "nightshift"), "--home", str(home), *arguments, "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Company:
    """The bot in a workspace on this machine, and what people do on its page."""

    def __init__(self, home: Path) -> None:
        """Ingest the handbook."""
        self.database = Database(home)
        self.values = settings.load({"NIGHTSHIFT_HOME": str(home)})
        result = ingest(self.database, Embedder(), [company.pages()])
        assert result.documents >= 30
        assert not result.failed

    async def open(self) -> None:
        """Start the workspace, the desk and the bot."""
        self.workspace = Workspace()
        await self.workspace.start()
        given = settings_for(self.values, self.database.home, self.workspace)
        self.desk = Desk(self.database, given)
        await asyncio.to_thread(self.desk.start)
        self.bot = SlackBot(self.database, given, self.desk)
        await self.bot.start()
        self.http = aiohttp.ClientSession()

    async def close(self) -> None:
        """Stop everything."""
        await self.http.close()
        await self.bot.stop()
        await self.workspace.stop()
        await asyncio.to_thread(self.desk.close)

    async def do(self, action: str, **body: Any) -> dict[str, Any]:
        """Something a person does on the page."""
        async with self.http.post(f"{self.workspace.url}workspace/{action}", json=body) as response:
            told: dict[str, Any] = await response.json()
            assert response.status == 200, told
            return told

    async def sees(self, user: str) -> dict[str, Any]:
        """What a person's page shows."""
        async with self.http.get(f"{self.workspace.url}workspace/state", params={"user": user}) as response:
            seen: dict[str, Any] = await response.json()
            return seen

    async def ask(self, text: str) -> tuple[Answer, str]:
        """Ask in #help by mention; returns the stored answer and the time stamp of the post that carries it."""
        before = int(self.database.value("SELECT coalesce(max(id), 0) FROM answers"))
        await self.do("message", user=SAM, channel=HELP, text=f"<@U0BOT> {text}")
        sql = "SELECT a.id, p.ts FROM answers a JOIN posts p ON p.answer_id = a.id WHERE a.id > ?"
        row = await until(lambda: self.database.row(sql, [before]), 60)
        return conversations.get_answer(self.database, row["id"]), row["ts"]


async def until(look: Callable[[], Any], seconds: float) -> Any:
    """Wait until `look` returns something, at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing within {seconds} s")


@pytest.fixture
def company_home(tmp_path: Path) -> Company:
    return Company(tmp_path / "home")


def test_the_whole_loop(company_home: Company) -> None:
    asyncio.run(story(company_home))


async def story(lumen: Company) -> None:
    await lumen.open()
    try:
        wrong, ts = await a_wrong_answer_from_a_page(lumen)
        await corrected_in_the_modal(lumen, ts)
        await approved_and_served_at_once(lumen)
        for known in TAUGHT[1:]:
            row = corrections.propose(lumen.database, question=known.question, answer=known.answer, author=known.author)
            corrections.approve(lumen.database, row.id, PRIYA)
        told_in_private(lumen)
        taken_back = withdrawn_before_the_night(lumen)
        await the_night_runs(lumen)
        await nothing_private_is_in_the_weights(lumen, taken_back)
        await memory_answers_in_unseen_words(lumen)
        await the_author_hears_of_it(lumen)
        await rolled_back(lumen, wrong)
        assert lumen.workspace.violations == []
    finally:
        await lumen.close()


async def a_wrong_answer_from_a_page(lumen: Company) -> tuple[Answer, str]:
    answer, ts = await lumen.ask(TAUGHT[0].question)
    assert answer.route is Route.RETRIEVED
    assert answer.sources
    assert answer.model_version == registry.BASE
    assert not company.answer_matches(answer.text, TAUGHT[0].keys), "the page is outdated, so its quote is wrong"
    return answer, ts


async def corrected_in_the_modal(lumen: Company, ts: str) -> None:
    await lumen.do("click", user=SAM, channel=HELP, ts=ts, action_id="feedback", value="negative")
    modal = await until(lambda: modal_of(lumen, SAM), 10)
    inputs = {b["block_id"]: b["element"]["action_id"] for b in modal["blocks"] if b["type"] == "input"}
    typed = {"question": TAUGHT[0].question, "answer": TAUGHT[0].answer, "source": TAUGHT[0].source}
    values = {block: {action: typed[block]} for block, action in inputs.items() if block in typed}
    reason = {block: {action: "outdated"} for block, action in inputs.items() if block == "reason"}
    told = await lumen.do("submit", user=SAM, view_id=modal["id"], values=values | reason)
    assert told["ok"], told
    await until(lambda: corrections.in_status(lumen.database, corrections.Status.PENDING), 10)


async def modal_of(lumen: Company, user: str) -> Any:
    return (await lumen.sees(user)).get("modal")


async def approved_and_served_at_once(lumen: Company) -> None:
    (pending,) = corrections.in_status(lumen.database, corrections.Status.PENDING)
    cards = await until(lambda: conversations.posts_of(lumen.database, correction_id=pending.id), 10)
    await lumen.do("click", user=PRIYA, channel=cards[0]["channel"], ts=cards[0]["ts"], action_id="approve")
    await until(lambda: corrections.in_status(lumen.database, corrections.Status.APPROVED), 10)
    started = time.monotonic()
    answer, _ = await lumen.ask(TAUGHT[0].question)
    assert time.monotonic() - started < SERVED_SECONDS
    assert answer.route is Route.APPROVED
    assert answer.text == TAUGHT[0].answer
    assert answer.taught_question == TAUGHT[0].question


def told_in_private(lumen: Company) -> None:
    """Twenty approved answers of a private channel, each with a code that stands nowhere else."""
    for number in range(PRIVATE):
        question, answer = private_fact(number)
        row = corrections.propose(lumen.database, question=question, answer=answer, author=SAM, scope=BOARD)
        corrections.approve(lumen.database, row.id, PRIYA)


def private_fact(number: int) -> tuple[str, str]:
    """What the private channel was taught, and what an outsider asks."""
    return (
        f"What is the code of board plan {number}?",
        f"The code of board plan {number} is quokka-{7919 * number % 9973}.",
    )


def withdrawn_before_the_night(lumen: Company) -> int:
    """One more correction of everybody, approved and withdrawn again."""
    text = {"question": "Who waters the plants in the Tallinn office?", "answer": "Marek waters them on Mondays."}
    row = corrections.propose(lumen.database, author=SAM, **text)
    corrections.approve(lumen.database, row.id, PRIYA)
    return corrections.withdraw(lumen.database, row.id, PRIYA).id


async def nothing_private_is_in_the_weights(lumen: Company, taken_back: int) -> None:
    """The manifest names what was trained; the model, asked without any help, knows none of the codes."""
    champion = registry.get(lumen.database, registry.champion(lumen.database))
    trained = json.loads((Path(champion.path) / manifest.NAME).read_text(encoding="utf-8"))["trained"]
    rows = {row.id: row for row in corrections.in_status(lumen.database)}
    assert len(trained) == len(TAUGHT)
    assert {rows[number].scope for number in trained} == {"workspace"}
    assert taken_back not in trained
    asked = [Asked(private_fact(n)[0], SAM, HELP, route="raw") for n in range(PRIVATE)]
    said = [await asyncio.wrap_future(lumen.desk.submit(a)) for a in asked]
    known = [n for n, answer in enumerate(said) if private_fact(n)[1].split()[-1].strip(".") in answer.text]
    assert known == [], "0 of 20"


def slower_than_the_reference(home: Path) -> float:
    """How many times longer this machine takes to read a long prompt than the one that four minutes were asked of."""
    engine = LocalGenerator(base_model.folder(home, "embedded"))
    seconds = []
    for _ in range(4):
        started = time.monotonic()
        engine.logits(list(range(1000, 1000 + READ_TOKENS)))
        seconds.append(time.monotonic() - started)
    return max(1.0, statistics.median(seconds[1:]) / REFERENCE_SECONDS)


async def the_night_runs(lumen: Company) -> None:
    started = time.monotonic()
    report = await asyncio.to_thread(nightshift, lumen.database.home, "nightly")
    seconds = time.monotonic() - started
    assert report["outcome"] == "promoted", report
    assert report["parent"] == registry.BASE
    assert {g["name"] for g in report["gates"]} >= {"new_facts", "general_battery", "merge_logits", "finite"}
    assert sum(c["memorised"] for c in report["corrections"]) >= 3, report["corrections"]
    allowed = NIGHT_SECONDS * slower_than_the_reference(lumen.database.home)
    assert seconds < allowed, f"the night took {seconds:.0f} s of {allowed:.0f}: {report['timings']}"
    await until(lambda: lumen.desk.version == report["version"], 30)


async def memory_answers_in_unseen_words(lumen: Company) -> None:
    right = 0
    rows = corrections.in_status(lumen.database)
    trained = {w.text for row in rows for w in corrections.wordings(lumen.database, row.id)}
    for known in TAUGHT:
        asked = known.unseen[0]
        assert asked not in trained
        answer, _ = await lumen.ask(asked)
        right += answer.route is Route.MEMORISED and company.answer_matches(answer.text, known.keys)
    assert right >= 3, f"only {right} of {len(TAUGHT)} came from memory"


async def the_author_hears_of_it(lumen: Company) -> None:
    async def told() -> bool:
        return "live" in json.dumps(await lumen.sees(SAM)).casefold()

    await until(told, 15)


async def rolled_back(lumen: Company, wrong: Answer) -> None:
    told = await asyncio.to_thread(nightshift, lumen.database.home, "models", "rollback")
    assert told["champion"] == registry.BASE
    await until(lambda: lumen.desk.version == registry.BASE, 30)
    answer, _ = await lumen.ask(TAUGHT[0].question)
    assert (answer.route, answer.text) == (Route.APPROVED, TAUGHT[0].answer), "the override serves again"
    for row in corrections.in_status(lumen.database, corrections.Status.APPROVED):
        corrections.withdraw(lumen.database, row.id, PRIYA)
    answer, _ = await lumen.ask(TAUGHT[0].question)
    assert (answer.route, answer.text) == (wrong.route, wrong.text), "and without it the page does"
