"""The Slack side over a real socket: Bolt and the local workspace, with a scripted desk for the models."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from slack_office import (
    HELP,
    PRIYA,
    REVIEW,
    SAM,
    Change,
    Office,
    ScriptedDesk,
    play,
    settings_for,
    until,
    words_of,
)

from bot import app, delivery, demo, desk, reviews
from bot.app import SlackBot, check_tokens
from bot.confidence import Confidence
from bot.delivery import BROKEN, Place
from bot.listeners import NOTHING_ASKED
from bot.pipeline import Model, Tools
from bot.teaching import Conflict, Proposal
from bot.workspace.server import Workspace
from retrieval.index import VectorIndex
from retrieval.taught import TaughtQuestions
from storage import conversations, corrections, evidence, holds, nights, registry, settings, trust
from storage.audit import ERASED
from storage.database import Database
from storage.domain import Correction, Route, Status, Style, Suggestion
from storage.errors import BusyError, OutOfSpaceError, UserError
from tests.bench.exact import WordHashes

PROBATION = "How long is probation?"


def test_a_mention_is_answered_once_although_it_arrives_twice(home: Path) -> None:
    async def story(here: Office) -> None:
        ts = await here.write(SAM, HELP, "<@U0BOT> how many days of leave?")
        answer = await here.wait(SAM, HELP, "Twenty-eight")
        await here.settle()
        assert answer["thread_ts"] == ts
        assert "From documents · fairly sure" in words_of(answer)
        assert "https://handbook.example/leave|Leave &gt; Annual leave" in words_of(answer)
        assert [a.text for a in here.desk.asked] == ["how many days of leave?"]
        assert here.desk.asked[0].scopes == ("workspace", HELP)
        assert len(here.calls("chat.postMessage")) == 1

    play(home, story)


def test_the_whole_correction_story(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.write(SAM, HELP, "<@U0BOT> how many days of leave?")
        answer = await here.wait(SAM, HELP, "Twenty-eight")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        sent = await here.submit(SAM, reason="outdated", answer="Thirty days since May.", source="https://x.example/p")
        assert sent["ok"]
        await here.wait(SAM, HELP, "sent for review")
        card = await here.wait(PRIYA, REVIEW, "Thirty days since May.")
        assert "Twenty-eight" in words_of(card)
        assert [(v.vote, v.reason) for v in conversations.votes(here.database, 1)] == [(-1, "outdated")]
        await here.click(PRIYA, REVIEW, card["ts"], "approve")
        await here.wait(PRIYA, REVIEW, "Approved by <@U0PRIYA>")
        await here.wait(SAM, "D0SAM", "was approved")
        row = corrections.get(here.database, 1)
        assert (row.status, row.author, row.reviewer) == (Status.APPROVED, SAM, PRIYA)
        assert row.question == "how many days of leave?"

    play(home, story)


def test_an_admin_may_not_approve_their_own(home: Path) -> None:
    async def story(here: Office) -> None:
        row = await card_of(here, PRIYA)
        card = await here.wait(PRIYA, REVIEW, "Thirty days")
        await here.click(PRIYA, REVIEW, card["ts"], "approve")
        told = await here.wait(PRIYA, REVIEW, "You wrote correction 1 and may not approve it.")
        assert told["ephemeral"]
        assert corrections.get(here.database, row.id).status is Status.PENDING

    play(home, story)


def test_only_reviewers_decide_and_it_is_asked_again_at_the_click(home: Path) -> None:
    async def story(here: Office) -> None:
        await card_of(here, SAM)
        card = await here.wait(PRIYA, REVIEW, "Thirty days")
        for action in ("approve", "edit", "reject"):
            await here.click(PRIYA, REVIEW, card["ts"], action)
        await here.settle()
        refused = [m for m in await here.messages(PRIYA, REVIEW) if "Only reviewers can decide" in words_of(m)]
        assert [m["ephemeral"] for m in refused] == [True] * 3
        assert corrections.get(here.database, 1).status is Status.PENDING
        assert (await here.state(PRIYA))["modal"] is None

    play(home, story, ADMINS="U0OTHER")


def test_a_reviewer_edits_then_approves(home: Path) -> None:
    async def story(here: Office) -> None:
        await card_of(here, SAM)
        card = await here.wait(PRIYA, REVIEW, "Thirty days")
        await here.click(PRIYA, REVIEW, card["ts"], "edit")
        refused = await here.submit(PRIYA, answer="AKIA" + "IOSFODNN7EXAMPLE")
        assert "secret (AWS key)" in refused["errors"]["answer"]
        assert (await here.submit(PRIYA, answer="Thirty-one days."))["ok"]
        await here.wait(PRIYA, REVIEW, "Thirty-one days.")
        await here.click(PRIYA, REVIEW, card["ts"], "approve")
        await here.wait(PRIYA, REVIEW, "Approved by")
        assert corrections.get(here.database, 1).answer == "Thirty-one days."

    play(home, story)


def test_a_reviewer_rejects_with_a_reason_and_the_author_hears_it(home: Path) -> None:
    async def story(here: Office) -> None:
        await card_of(here, SAM)
        card = await here.wait(PRIYA, REVIEW, "Thirty days")
        await here.click(PRIYA, REVIEW, card["ts"], "reject")
        await here.submit(PRIYA, reason="The page <says> 28.")
        told = await here.wait(SAM, "D0SAM", "was rejected")
        assert "The page &lt;says&gt; 28." in told["blocks"][0]["text"]["text"]
        await here.wait(PRIYA, REVIEW, "Rejected by <@U0PRIYA>")
        assert corrections.get(here.database, 1).status is Status.REJECTED

    play(home, story)


def test_a_contradiction_stands_on_the_card_and_can_be_withdrawn_with_one_press(home: Path) -> None:
    async def story(here: Office) -> None:
        old = corrections.propose(here.database, question="leave?", answer="28 days.", author=SAM)
        corrections.approve(here.database, old.id, PRIYA)
        here.desk.conflicts = (Conflict(old.id, old.question, old.answer, "contradiction"),)
        await card_of(here, SAM)
        card = await here.wait(PRIYA, REVIEW, "Contradicts correction 1")
        assert "28 days." in words_of(card)
        await here.click(PRIYA, REVIEW, card["ts"], "approve_replacing")
        await here.wait(PRIYA, REVIEW, "Approved by")
        await here.settle()
        assert corrections.get(here.database, old.id).status is Status.WITHDRAWN
        assert corrections.get(here.database, 2).status is Status.APPROVED

    play(home, story)


def test_correcting_a_taught_answer_replaces_its_row(home: Path) -> None:
    async def story(here: Office) -> None:
        old = corrections.propose(here.database, question="How many days of leave?", answer="28 days.", author=SAM)
        corrections.approve(here.database, old.id, PRIYA)
        taught = {
            "route": Route.APPROVED,
            "style": Style.DIRECT,
            "taught_question": old.question,
            "correction_id": 1,
        }
        here.desk.script = [taught]
        await correct(here, SAM, "Thirty days.")
        card = await here.wait(PRIYA, REVIEW, "approving it replaces correction 1")
        await here.click(PRIYA, REVIEW, card["ts"], "approve")
        await here.wait(PRIYA, REVIEW, "Approved by")
        assert corrections.get(here.database, 1).status is Status.SUPERSEDED

    play(home, story)


@pytest.mark.parametrize(
    ("reason", "question"),
    [
        ("wrong", "how long is parental leave?"),
        ("not_for_me", "how long is parental leave?"),
        ("not_for_me", PROBATION),
    ],
)
def test_correcting_the_answer_to_another_question_takes_no_answer_away(home: Path, reason: str, question: str) -> None:
    async def story(here: Office) -> None:
        await mistaken(here)
        assert (await here.submit(SAM, reason=reason, question=question, answer="14 weeks."))["ok"]
        await here.wait(PRIYA, REVIEW, "14 weeks.")
        row = corrections.get(here.database, 2)
        assert (row.question, row.answer, row.supersedes) == (question, "14 weeks.", None)
        rejected = [w.text for w in corrections.wordings(here.database, 1) if w.kind == "rejected"]
        assert rejected == (["how long is parental leave?"] if reason == "not_for_me" else [])

    play(home, story)


def test_saying_that_it_answers_another_question_needs_no_review(home: Path) -> None:
    async def story(here: Office) -> None:
        await mistaken(here)
        assert (await here.submit(SAM, reason="not_for_me"))["ok"]
        await here.wait(SAM, HELP, "Thank you, noted.")
        assert [row.id for row in corrections.in_status(here.database)] == [1]
        assert corrections.wordings(here.database, 1)[-1].kind == "rejected"

    play(home, story)


def test_a_question_that_was_erased_meanwhile_is_no_wording_of_another(home: Path) -> None:
    async def story(here: Office) -> None:
        await mistaken(here)
        here.database.here.execute("UPDATE questions SET text = ?", [ERASED])
        assert (await here.submit(SAM, reason="not_for_me"))["ok"]
        await here.wait(SAM, HELP, "Thank you, noted.")
        assert [w.text for w in corrections.wordings(here.database, 1) if w.kind == "rejected"] == []

    play(home, story)


def test_a_card_that_is_decided_before_it_is_noted_shows_the_decision(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reviewer may press the button while the bot still writes down where it put the card."""
    note = conversations.remember_post

    def late(*given: Any, **rest: Any) -> None:
        time.sleep(0.6 if "correction_id" in rest else 0)
        note(*given, **rest)

    async def story(here: Office) -> None:
        await correct(here, SAM, "Thirty days.")
        card = await here.wait(PRIYA, REVIEW, "Thirty days.")
        await here.click(PRIYA, REVIEW, card["ts"], "approve")
        await here.wait(PRIYA, REVIEW, "Approved by")

    monkeypatch.setattr(conversations, "remember_post", late)
    play(home, story)


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries without long waits."""
    monkeypatch.setattr(delivery, "COURIER_SECONDS", 0.05)


@pytest.mark.usefixtures("brisk")
def test_a_card_that_slack_refuses_is_posted_later_and_the_author_need_not_know(home: Path) -> None:
    async def story(here: Office) -> None:
        answer = await asked(here, SAM, "how many days of leave?")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        for _ in range(2):
            here.ws.inject("chat.postMessage", 200, {}, {"ok": False, "error": "internal_error"})
        assert (await here.submit(SAM, reason="wrong", answer="Thirty days."))["ok"]
        await here.wait(PRIYA, REVIEW, "Thirty days.")
        await here.wait(SAM, HELP, "sent for review")
        assert not [m for m in await here.messages(SAM, HELP) if BROKEN in words_of(m)]
        assert len(cards_in(here)) == 3, "twice in vain"

    play(home, story)


@pytest.mark.usefixtures("brisk")
def test_what_the_command_line_proposes_gets_one_card_each(home: Path) -> None:
    database = Database(home)
    for number in range(5):
        corrections.propose(database, question=f"question {number}?", answer="30 days.", author="ana")
    evidence.note_conflicts(database, 2, [(1, "contradiction")])
    holds.begin(database, 5, [1, 2])
    assert delivery.without_card(database, delivery.Courier()) == [1, 2], "a channel takes a message a second"
    database.close()

    async def posted(here: Office) -> None:
        await here.wait(PRIYA, REVIEW, "Contradicts correction 1")
        await here.wait(PRIYA, REVIEW, "nearly the same as corrections 1 and 2")
        await rounds(here)
        assert [call["text"] for call in cards_in(here)] == [f"Correction {n + 1}: question {n}?" for n in range(5)]

    async def posted_before(here: Office) -> None:
        await rounds(here)
        assert cards_in(here) == []

    play(home, posted)
    play(home, posted_before)


@pytest.mark.usefixtures("brisk")
def test_without_a_review_channel_no_card_is_missed(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author="ana")
        await rounds(here)
        assert here.calls("chat.postMessage") == []

    with caplog.at_level(logging.WARNING):
        play(home, story, REVIEW_CHANNEL="")
    assert "card" not in caplog.text


def test_a_card_is_posted_once_whoever_comes_first(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        assert here.bot._parts is not None
        await asyncio.gather(*(delivery.try_card(here.bot._parts, row.id) for _ in range(3)))
        assert len(cards_in(here)) == 1

    play(home, story)


@pytest.mark.usefixtures("brisk")
def test_a_full_disk_repeats_no_post(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(module: ModuleType, name: str) -> None:
        note, failures = getattr(module, name), iter(range(3))

        def noting(*given: Any, **rest: Any) -> None:
            if next(failures, None) is not None:
                raise OutOfSpaceError("the disk is full")
            note(*given, **rest)

        monkeypatch.setattr(module, name, noting)

    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author="ana")
        nights.owe(here.database, "", "alert", {"text": "look"})
        await until(lambda: truth(nights.owed(here.database) == ()), "the delivery")
        await until(lambda: truth(bool(conversations.posts_of(here.database, correction_id=1))), "the card's note")
        told = [call["text"] for call in here.calls("chat.postMessage")]
        assert sorted(told) == ["Correction 1: leave?", "look"]

    full(nights, "delivered")
    full(conversations, "remember_post")
    play(home, story)


def test_saying_only_what_was_wrong_needs_no_review(home: Path) -> None:
    async def story(here: Office) -> None:
        answer = await asked(here, SAM, "how many days of leave?")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        assert (await here.submit(SAM, reason="incomplete"))["ok"]
        await here.wait(SAM, HELP, "Thank you, noted.")
        assert corrections.in_status(here.database) == ()
        assert conversations.votes(here.database, 1)[0].reason == "incomplete"
        await here.click(SAM, HELP, answer["ts"], "feedback", "up:1")
        await here.settle()
        assert [v.vote for v in conversations.votes(here.database, 1)] == [1]

    play(home, story)


def test_the_modal_shows_at_the_field_what_is_wrong(home: Path) -> None:
    async def story(here: Office) -> None:
        answer = await asked(here, SAM, "wifi?")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        refused = await here.submit(SAM, reason="wrong", answer="The password is Horse-77-blue")
        assert refused["errors"] == {"answer": "This holds a secret (password); remove it and send it again."}
        refused = await here.submit(SAM, reason="wrong", question="   ", answer="Ask the front desk.")
        assert refused["errors"] == {"question": "The question is empty."}
        assert corrections.in_status(here.database) == ()

    play(home, story)


def test_a_direct_message_is_answered_in_a_thread_with_a_status(home: Path) -> None:
    async def story(here: Office) -> None:
        ts = await here.write(SAM, "D0SAM", "how many days of leave?")
        answer = await here.wait(SAM, "D0SAM", "Twenty-eight")
        assert answer["thread_ts"] == ts
        assert here.desk.asked[0].scopes == ("workspace",)
        assert here.calls("assistant.threads.setStatus")[0]["status"] == "is thinking..."

    play(home, story)


def test_a_failing_status_does_not_stop_an_answer(home: Path) -> None:
    async def story(here: Office) -> None:
        here.ws.inject("assistant.threads.setStatus", 200, {}, {"ok": False, "error": "not_allowed"})
        await here.write(SAM, "D0SAM", "leave?")
        await here.wait(SAM, "D0SAM", "Twenty-eight")

    play(home, story)


def test_a_thread_goes_on_without_a_mention_but_people_may_talk(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.write(SAM, HELP, "good morning everybody")
        ts = await here.write(SAM, HELP, "<@U0BOT> leave?")
        await here.wait(SAM, HELP, "Twenty-eight")
        await here.write(PRIYA, HELP, "<@U0SAM> shall we have lunch?", thread_ts=ts)
        await here.write(PRIYA, HELP, "and in the first year?", thread_ts=ts)
        await until(lambda: truth(len(here.desk.asked) == 2), "a second question")
        await here.write(PRIYA, HELP, "a remark in no thread")
        await here.settle()
        assert [a.text for a in here.desk.asked] == ["leave?", "leave in the first year?"]
        assert {a.thread for a in here.desk.asked} == {ts}

    play(home, story)


def test_ask_answers_privately_and_can_be_shared(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.do("command", SAM, channel=HELP, command="/ask", text="how many days of leave?")
        answer = await here.wait(SAM, HELP, "Twenty-eight")
        assert answer["ephemeral"]
        assert not [m for m in await here.messages(PRIYA, HELP) if "Twenty-eight" in words_of(m)]
        await here.click(SAM, HELP, answer["ts"], "share")
        shared = await here.wait(PRIYA, HELP, "Twenty-eight")
        assert shared["thread_ts"]
        await here.wait(PRIYA, HELP, "<@U0SAM> asked: *how many days of leave?*")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        assert (await here.modal(SAM))["callback_id"] == "correction"

    play(home, story)


def test_not_my_question_becomes_a_hard_negative_and_documents_answer(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="How long is probation?", answer="6 months.", author=SAM)
        corrections.approve(here.database, row.id, PRIYA)
        taught = {
            "text": "6 months.",
            "route": Route.MEMORISED,
            "style": Style.DIRECT,
            "correction_id": row.id,
        }
        here.desk.script = [{**taught, "taught_question": "How long is probation?", "sources": ()}]
        answer = await asked(here, SAM, "how long is parental leave?", "6 months.")
        assert "Taught: *How long is probation?*" in words_of(answer)
        await here.click(SAM, HELP, answer["ts"], "not_mine")
        await here.wait(SAM, HELP, "Twenty-eight")
        await here.click(SAM, HELP, answer["ts"], "not_mine")
        await here.wait(SAM, HELP, "That is noted already")
        looks = [(a.route, a.refused, a.repeats) for a in here.desk.asked]
        assert looks == [("auto", None, None), ("documents", row.id, 1)]
        kinds = {w.text: w.kind for w in corrections.wordings(here.database, row.id)}
        assert kinds["how long is parental leave?"] == "rejected"

    play(home, story)


def test_an_abstention_can_be_taught(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [{"route": Route.ABSTAINED, "style": Style.NONE, "text": "I don't know."}]
        answer = await asked(here, SAM, "who waters the plants?", "I don't know.")
        await here.click(SAM, HELP, answer["ts"], "teach")
        assert (await here.submit(SAM, answer="Facilities, on Mondays."))["ok"]
        await here.wait(PRIYA, REVIEW, "Facilities, on Mondays.")
        assert corrections.get(here.database, 1).question == "who waters the plants?"

    play(home, story)


def test_who_gets_no_answer_may_say_which_taught_question_was_meant(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="Who waters plants?", answer="Facilities.", author="U9")
        none = {"route": Route.ABSTAINED, "style": Style.NONE, "text": "I don't know."}
        given = {"route": Route.APPROVED, "style": Style.DIRECT, "text": "Facilities.", "correction_id": row.id}
        given |= {"taught_question": row.question, "features": {"chosen": 1.0}}
        none["suggestions"] = (Suggestion(row.id, row.question),)
        here.desk.script = [none, BusyError("64 questions are waiting already."), given]
        answer = await asked(here, SAM, "the ficus is dry, whose job?", "Did you mean")
        value = f"1:{row.id}"
        await here.click(SAM, HELP, answer["ts"], "meant", value)
        await here.wait(SAM, HELP, "64 questions are waiting")
        await here.click(SAM, HELP, answer["ts"], "meant", value)
        told = words_of(await here.wait(SAM, HELP, "Facilities."))
        assert "Taught: *Who waters plants?*" in told
        assert "very sure" not in told, "the asker chose; nothing was guessed"
        pressed = here.desk.asked[-1]
        assert (pressed.text, pressed.meant, pressed.repeats) == ("the ficus is dry, whose job?", row.id, 1)
        await here.click(SAM, HELP, answer["ts"], "meant", value)
        await here.wait(SAM, HELP, "was given already")
        assert len(here.desk.asked) == 2

    play(home, story)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            BusyError("64 questions are waiting already; please ask again in a minute."),
            "64 questions are waiting",
        ),
        (UserError("The question has 50,000 characters; please ask in at most 4,000."), "at most 4,000"),
        (RuntimeError("secret detail of a defect"), BROKEN),
    ],
)
def test_every_failure_has_its_sentence(
    home: Path, step: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(here: Office) -> None:
        for channel, text in ((HELP, "<@U0BOT> leave?"), ("D0SAM", "leave?")):
            here.desk.script = [step]
            await here.write(SAM, channel, text)
            told = await here.wait(SAM, channel, words)
            assert "secret detail" not in words_of(told)
        here.desk.script = [step]
        await here.do("command", SAM, channel=HELP, command="/ask", text="leave?")
        await until(lambda: here.wait(SAM, HELP, words), words)

    with caplog.at_level(logging.ERROR):
        play(home, story)
    assert ("secret detail of a defect" in caplog.text) is isinstance(step, RuntimeError)


def test_an_empty_question_is_answered_with_a_hint(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.write(SAM, HELP, "<@U0BOT>")
        await here.wait(SAM, HELP, NOTHING_ASKED)
        await here.do("command", SAM, channel=HELP, command="/ask", text="  ")
        await here.settle()
        assert here.desk.asked == []

    play(home, story)


def test_an_edit_is_answered_again_only_when_the_text_changed(home: Path) -> None:
    async def story(here: Office) -> None:
        ts = await here.write(SAM, "D0SAM", "leave?")
        await here.wait(SAM, "D0SAM", "Twenty-eight")
        await here.do("edit", SAM, channel="D0SAM", ts=ts, text="leave?")
        here.desk.script = [{"text": "Six weeks."}]
        await here.do("edit", SAM, channel="D0SAM", ts=ts, text="parental leave?")
        await here.wait(SAM, "D0SAM", "Six weeks.")
        await here.settle()
        assert [a.text for a in here.desk.asked] == ["leave?", "parental leave?"]

    play(home, story)


def test_a_deleted_question_is_not_answered(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.hold = Future()
        ts = await here.write(SAM, "D0SAM", "leave?")
        await until(lambda: truth(bool(here.desk.asked)), "the question")
        await here.do("delete", SAM, channel="D0SAM", ts=ts)
        await until(lambda: truth(here.desk.given[-1].cancelled()), "the cancelling")
        await here.settle()
        assert here.calls("chat.postMessage") == []

    play(home, story)


def test_a_click_is_acknowledged_while_questions_wait(home: Path) -> None:
    async def story(here: Office) -> None:
        answer = await asked(here, SAM, "leave?")
        here.desk.hold = Future()
        for number in range(50):
            await here.write(SAM, "D0SAM", f"question {number}?")
        start = time.monotonic()
        assert (await here.click(SAM, HELP, answer["ts"], "feedback", "up:1"))["ok"]
        assert time.monotonic() - start < 0.5
        here.desk.hold.cancel()

    play(home, story)


@pytest.mark.slow
def test_an_answer_survives_refused_blocks_and_a_rate_limit(home: Path) -> None:
    async def story(here: Office) -> None:
        here.ws.inject("chat.postMessage", 200, {}, {"ok": False, "error": "invalid_blocks"})
        here.ws.inject("chat.postMessage", 429, {"Retry-After": "1"}, {"ok": False, "error": "ratelimited"})
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        answer = await here.wait(SAM, HELP, "Twenty-eight days.")
        assert answer["blocks"] == []

    play(home, story)


def test_a_hostile_answer_pings_nobody(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [{"text": "<!channel> see <https://evil.example|here> ping <@U0PRIYA>"}]
        answer = await asked(here, SAM, "leave?", "&lt;!channel&gt;")
        assert "<!channel>" not in words_of(answer)
        assert "<https://evil" not in words_of(answer)

    play(home, story)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message", "message": "no object", "subtype": "message_changed", "channel": "C0HELP"},
        {"type": "message", "user": {"id": 1}, "text": ["<@U0BOT>"], "ts": 5, "channel": "C0HELP"},
        {
            "type": "message",
            "user": "U0SAM",
            "ts": "1.1",
            "channel": "C0HELP",
            "bot_id": "B9",
            "text": "<@U0BOT>",
        },
        {"type": "message", "user": "U0SAM", "ts": "1.1", "channel": "C0HELP", "subtype": "channel_join"},
        {"type": "app_home_opened"},
        {"type": "reaction_added", "user": "U0SAM"},
    ],
)
def test_odd_events_are_acknowledged_and_harm_nothing(home: Path, event: Change) -> None:
    async def story(here: Office) -> None:
        here.ws.state.emit(event)
        answer = await asked(here, SAM, "leave?")
        assert answer
        await here.settle()
        assert [a.text for a in here.desk.asked] == ["leave?"]

    play(home, story)


@pytest.mark.slow
def test_the_bot_comes_back_after_a_dropped_socket(home: Path) -> None:
    async def story(here: Office) -> None:
        assert here.ws.drop_sockets() == 1
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        await until_slowly(lambda: here.messages(SAM, HELP), "Twenty-eight")

    play(home, story)


@pytest.mark.slow
def test_notices_are_delivered_once_slack_accepted_them(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        payload = {"correction_id": row.id, "question": row.question, "version": "v2"}
        here.ws.inject("conversations.open", 200, {}, {"ok": False, "error": "internal_error"})
        for user in (SAM, "ana", "U0GONE"):
            nights.owe(here.database, user, "fix_live", payload)
        nights.owe(here.database, "", "nightly_report", {"text": "## The night\n**promoted** v2"})
        await until_slowly(lambda: here.messages(PRIYA, REVIEW), "*The night*")
        told = await until_slowly(lambda: here.messages(SAM, "D0SAM"), "Your fix is live")
        assert "30 days." in words_of(told)
        assert "v2" in words_of(told)
        await until(lambda: truth(nights.owed(here.database) == ()), "the last of them")
        assert [c["users"] for c in here.calls("conversations.open")] == [SAM, "U0GONE", SAM]
        assert len([c for c in here.calls("chat.postMessage") if "fix is live" in str(c)]) == 1

    play(home, story)


def test_of_reports_that_piled_up_only_the_latest_is_posted(home: Path) -> None:
    database = Database(home)
    for kind, text in {"nightly_report": "old", "alert": "look", "weekly_report": "week"}.items():
        nights.owe(database, "", kind, {"text": text})
    nights.owe(database, "", "nightly_report", {"text": "new"})
    database.close()

    async def story(here: Office) -> None:
        await until(lambda: truth(nights.owed(here.database) == ()), "the delivery")
        told = [c["text"] for c in here.calls("chat.postMessage")]
        assert told == ["look", "week", "new"]

    play(home, story)


def test_app_home_shows_the_queue_to_reviewers_only(home: Path) -> None:
    async def story(here: Office) -> None:
        for number in range(7):
            corrections.propose(here.database, question=f"question {number}?", answer="An answer.", author=SAM)
        await here.do("open_home", SAM)
        await here.do("open_home", PRIYA)
        mine = await until(lambda: home_of(here, SAM), "Sam's Home")
        queue = await until(lambda: home_of(here, PRIYA), "Priya's Home")
        assert "To review" not in str(mine)
        assert "waiting for review" in str(mine)
        assert "To review: 7" in str(queue)
        assert "question 4?" in str(queue)
        assert "question 5?" not in str(queue)
        await here.do("click", PRIYA, view_id=queue["id"], action_id="home_page")
        queue = await until(lambda: home_of(here, PRIYA, "question 6?"), "page two")
        await here.do("click", PRIYA, view_id=queue["id"], action_id="approve")
        await until(lambda: home_of(here, PRIYA, "To review: 6"), "a shorter queue")
        assert corrections.get(here.database, 6).status is Status.APPROVED

    play(home, story)


def test_a_refusal_on_app_home_opens_a_modal(home: Path) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=PRIYA)
        await here.do("open_home", PRIYA)
        queue = await until(lambda: home_of(here, PRIYA, "To review: 1"), "the queue")
        await here.do("click", PRIYA, view_id=queue["id"], action_id="approve")
        assert "may not approve it" in str(await here.modal(PRIYA))

    play(home, story)


def test_the_messages_tab_suggests_questions(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="How long is probation?", answer="6 months.", author=SAM)
        corrections.approve(here.database, row.id, PRIYA)
        await here.do("open_home", SAM, tab="messages")
        await here.settle()
        call = here.calls("assistant.threads.setSuggestedPrompts")[0]
        assert call["prompts"][0]["message"] == "How long is probation?"
        assert "thread_ts" not in call
        assert len(call["prompts"]) == 4

    play(home, story)


# --- starting ---


@pytest.mark.parametrize(
    ("bot_token", "app_token", "named"),
    [
        ("", "", ["SLACK_BOT_TOKEN is missing", "SLACK_APP_TOKEN is missing"]),
        ("xapp-1-wrong-way-round", "xoxb-1-wrong-way-round", ["SLACK_BOT_TOKEN is malformed", "xapp-"]),
        ("xoxb-123456789-abc", "", ["SLACK_APP_TOKEN is missing"]),
        ("xoxb-", "xapp-1-A0-123456", ["SLACK_BOT_TOKEN is malformed"]),
    ],
)
def test_tokens_are_named_in_one_sentence(bot_token: str, app_token: str, named: list[str]) -> None:
    given = settings.load({}, overrides={"SLACK_BOT_TOKEN": bot_token, "SLACK_APP_TOKEN": app_token})
    with pytest.raises(UserError) as refused:
        check_tokens(given)
    assert all(words in str(refused.value) for words in named)
    assert str(refused.value).count(".") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SLACK_BOT_TOKEN": "xoxb-" + "not-this-one"}, "Slack refuses SLACK_BOT_TOKEN: invalid_auth"),
        ({"SLACK_APP_TOKEN": "xapp-" + "not-this-one"}, "Slack refuses SLACK_APP_TOKEN: invalid_auth"),
        pytest.param(
            {"SLACK_API_URL": "http://127.0.0.1:9/api/"},
            "Slack cannot be reached at http://127.0.0.1:9",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_refused_token_and_a_missing_slack_are_said(home: Path, change: dict[str, str], words: str) -> None:
    async def run() -> None:
        ws = Workspace(port=0)
        await ws.start()
        database = Database(home)
        bot = SlackBot(database, settings_for(ws, **change), ScriptedDesk(database))
        with pytest.raises(UserError, match=words):
            await bot.start()
        await ws.stop()
        database.close()

    asyncio.run(run())


class Gate:
    """A search that finds nothing, and that waits while it is shut."""

    def __init__(self) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.open.set()

    def hits(self, *_: Any, **__: Any) -> list[Any]:
        self.reached.set()
        self.open.wait(20)
        return []

    notes = hits


def opens(monkeypatch: pytest.MonkeyPatch, gate: Gate, embedder: Any, loading: Callable[[], None] = list) -> None:
    """Let a desk find these instead of models; the version is on trial."""

    def open_tools(database: Database, *_: Any, **__: Any) -> tuple[Tools, VectorIndex]:
        registry.ensure_base(database, path="x", size=1, manifest_sha256="", confidence={})
        trust.begin_trial(database, "v2")
        loading()
        model = Model("v2", None, Confidence({}), {})  # type: ignore[arg-type]
        index = VectorIndex(database.home, database)
        return Tools(embedder, TaughtQuestions(database, embedder), gate, model), index

    monkeypatch.setattr(desk, "open_tools", open_tools)


def test_who_waits_when_the_bot_stops_is_told_and_what_was_taught_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    opens(monkeypatch, gate, WordHashes())
    monkeypatch.setattr(reviews, "PATIENCE", 0.05)

    def started(database: Database) -> desk.Desk:
        made = desk.Desk(database, settings.load({}, overrides={"ANSWERS_TOGETHER": 1}))
        made.start()
        return made

    async def story(here: Office) -> None:
        answer = await asked(here, SAM, "who waters the plants?", "teach me")
        await here.click(SAM, HELP, answer["ts"], "teach", "1")
        gate.open.clear()
        gate.reached.clear()
        await here.write(SAM, HELP, "<@U0BOT> in hand?")
        await until(lambda: truth(gate.reached.is_set()), "the question in hand")
        await here.write(PRIYA, HELP, "<@U0BOT> waiting?")
        await until(lambda: truth(len(here.desk._line) == 1), "the question in the line")  # type: ignore[attr-defined]
        assert (await here.submit(SAM, answer="Facilities."))["ok"]
        stopping = asyncio.create_task(app.let_go(here.bot, here.desk))  # type: ignore[arg-type]
        await here.wait(PRIYA, HELP, "The bot is stopping")
        gate.open.set()
        await stopping
        assert corrections.get(here.database, 1).answer == "Facilities."
        assert nights.owed(here.database) == ()
        await here.wait(SAM, HELP, "was sent for review")
        await here.wait(PRIYA, REVIEW, "Facilities.")
        assert len([m for m in await here.messages(SAM, HELP) if "teach me" in words_of(m)]) == 2

    play(home, story, desk=started)


class Busy(ScriptedDesk):
    """Stores no correction while it lives."""

    def teach(self, **proposal: Any) -> "Future[Proposal]":
        return Future()


@pytest.mark.usefixtures("brisk")
def test_a_correction_that_was_acknowledged_survives_a_bot_that_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviews, "PATIENCE", 0.05)
    monkeypatch.setattr(app, "GRACE_SECONDS", 0.05)

    async def killed(here: Office) -> None:
        await correct(here, SAM, "Ask jo.brown@gmail.com.")
        await asyncio.sleep(10 * delivery.COURIER_SECONDS)
        (notice,) = nights.owed(here.database)
        assert "jo.brown@" not in str(notice.payload)

    async def started_again(here: Office) -> None:
        await here.wait(SAM, "D0SAM", "Your correction 1 was sent for review")
        card = await here.wait(PRIYA, REVIEW, "how many days of leave?")
        assert "jo.brown@" not in words_of(card)
        assert corrections.get(here.database, 1).answer_id == 1
        assert nights.owed(here.database) == ()

    play(home, killed, desk=Busy)
    play(home, started_again)


def test_who_stops_waiting_for_a_correction_does_not_take_it_back() -> None:
    async def run() -> None:
        pending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        telling = asyncio.create_task(reviews.proposed(None, Place(SAM), pending))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        assert not pending.cancelled()

    asyncio.run(run())


TOKENS = {"SLACK_BOT_TOKEN": "xoxb-1234567890", "SLACK_APP_TOKEN": "xapp-1234567890"}


def test_a_start_that_fails_beside_the_model_is_no_crash_of_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(WordHashes):
        def encode(self, texts: Any) -> Any:
            raise OSError("the hub cannot be reached")

    opens(monkeypatch, Gate(), Unreachable())
    database = Database(home)
    with pytest.raises(OSError, match="hub"):
        asyncio.run(app.serve(database, settings.load({}, overrides=TOKENS)))
    assert trust.trials(database, "v2") == 0
    database.close()


def test_a_start_that_is_interrupted_is_no_crash_of_the_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, Gate(), WordHashes(), lambda: os.kill(os.getpid(), signal.SIGTERM))
    database = Database(home)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        asyncio.run(app.serve(database, settings.load({}, overrides=TOKENS | {"SLACK_API_URL": "http://127.0.0.1:9/"})))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trust.trials(database, "v2") == 0
    database.close()


def test_the_manifest_asks_for_what_the_bot_listens_to() -> None:
    manifest = json.loads((Path(app.__file__).parent / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest["display_information"]["long_description"]) >= 174
    assert len(manifest["display_information"]["description"]) <= 140
    assert len(manifest["display_information"]["name"]) <= 35
    assert manifest["settings"]["socket_mode_enabled"]
    assert manifest["settings"]["interactivity"]["is_enabled"]
    assert set(manifest["settings"]["event_subscriptions"]["bot_events"]) == {
        *(
            "app_home_opened",
            "app_mention",
            "message.channels",
            "message.groups",
            "message.im",
            "message.mpim",
        )
    }
    scopes = set(manifest["oauth_config"]["scopes"]["bot"])
    assert scopes >= {
        "app_mentions:read",
        "assistant:write",
        "chat:write",
        "commands",
        "im:history",
        "im:write",
    }
    assert [c["command"] for c in manifest["features"]["slash_commands"]] == ["/ask"]
    assert 1 <= len(manifest["features"]["agent_view"]["suggested_prompts"]) <= 4


# --- the demo ---


def test_a_night_is_told_in_lines_and_one_sentence() -> None:
    async def lines(text: str) -> list[str]:
        stream = asyncio.StreamReader()
        stream.feed_data(text.encode())
        stream.feed_eof()
        return [line async for line in demo.lines_of(stream)]

    told = asyncio.run(lines("2026-11-20 02:00:00,123 INFO learning.nightly: training\r10 %\r20 %\n\nend"))
    assert told == ["training", "10 %", "20 %", "end"]
    assert demo.outcome(b'{"ok": true, "outcome": "promoted", "version": "v2"}', 0).startswith("Done: model v2")
    assert "locked" in demo.outcome(b'{"ok": false, "error": {"code": "conflict", "message": "locked"}}', 1)
    assert "exit code 3" in demo.outcome(b"", 3)


def test_the_demo_keeps_to_a_folder_of_its_own() -> None:
    assert demo.home_of(settings.load({})).parts[-2:] == ("data", "demo")
    assert demo.home_of(settings.load({}, overrides={"HOME": "/tmp/x"})) == Path("/tmp/x")


def test_a_taken_port_is_no_obstacle() -> None:
    async def run() -> None:
        first = await demo.opened(0, no_night)
        second = await demo.opened(first.port, no_night)
        assert second.port not in (0, first.port)
        await second.stop()
        await first.stop()

    asyncio.run(run())


# --- steps ---


async def no_night() -> AsyncIterator[str]:
    """A night that ends at once."""
    yield "done"


async def truth(value: bool) -> bool:
    """A value as a probe."""
    return value


async def asked(here: Office, user: str, question: str, words: str = "Twenty-eight") -> Any:
    """Ask in the channel; the answer's message."""
    await here.write(user, HELP, f"<@U0BOT> {question}")
    return await here.wait(user, HELP, words)


async def correct(here: Office, user: str, better: str) -> None:
    """Ask, press the thumb down, write a better answer."""
    answer = await asked(here, user, "how many days of leave?")
    await here.click(user, HELP, answer["ts"], "feedback", "down:1")
    assert (await here.submit(user, reason="wrong", answer=better))["ok"]


async def mistaken(here: Office) -> None:
    """An answer to another question than the one that was asked, and the modal to correct it."""
    row = corrections.propose(here.database, question=PROBATION, answer="6 months.", author=SAM)
    corrections.approve(here.database, row.id, PRIYA)
    taught = {"route": Route.APPROVED, "style": Style.DIRECT, "text": row.answer, "sources": ()}
    here.desk.script = [{**taught, "taught_question": row.question, "correction_id": row.id}]
    answer = await asked(here, SAM, "how long is parental leave?", row.answer)
    await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")


async def rounds(here: Office) -> None:
    """Let the courier come by a few times."""
    await asyncio.sleep(10 * delivery.COURIER_SECONDS)
    await here.settle()


def cards_in(here: Office) -> list[Any]:
    """The calls that post a review card."""
    return [call for call in here.calls("chat.postMessage") if call["channel"] == REVIEW]


async def card_of(here: Office, author: str) -> Correction:
    """A correction by somebody, on a card in the review channel."""
    await correct(here, author, "Thirty days since May.")
    await here.wait(author, HELP, "sent for review")
    return corrections.in_status(here.database, Status.PENDING)[-1]


async def home_of(here: Office, user: str, words: str = "") -> Any:
    """A person's Home tab once it holds these words."""
    view = (await here.state(user))["home"]
    return view if view and words in str(view) else None


async def until_slowly(messages: Callable[[], Awaitable[list[Any]]], words: str) -> Any:
    """The message with these words, within the ten seconds that a reconnection may take."""
    for _ in range(200):
        for message in await messages():
            if message["user"] == "U0BOT" and words in words_of(message):
                return message
        await asyncio.sleep(0.05)
    raise AssertionError(f"{words} did not appear within 10 s")
