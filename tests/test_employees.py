"""What employees meet in Slack: threads, group messages, streams, votes, a person to ask, edits, and always a reply."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_office import HELP, PRIYA, REVIEW, SAM, Office, play, until, words_of

from bot import answer_views, answers, experts, forms, greeting, growing, questions, streaming, threads
from bot.app import SlackBot
from bot.delivery import BROKEN
from bot.listeners import NOTHING_ASKED, prefill
from bot.questions import WELCOME
from bot.streaming import Limiter, Stream, StreamError
from bot.workspace.nouns import Channel
from storage import asked, conversations, corrections, handoffs, retention
from storage.audit import ERASED
from storage.database import Database
from storage.domain import Answer, Route, Status, Style, Suggestion
from storage.errors import BusyError, ConflictError, OutOfSpaceError, UserError

LONG = "".join(f"Rule {n} of the handbook says that everybody keeps the receipts of trip {n}. " for n in range(30))
NOT_KNOWN = {"route": Route.ABSTAINED, "style": Style.NONE, "text": "I don't know."}
LEAVE = "How many days of leave do I have?"


def taught(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """An answer from teaching."""
    return {"route": Route.APPROVED, "style": Style.DIRECT, "text": answer, "taught_question": question, **more}


async def asks(here: Office, user: str = SAM, question: str = LEAVE, words: str = "Twenty-eight") -> tuple[str, Any]:
    """Ask in the channel; the time stamp of the question and the answer's message."""
    ts = await here.write(user, HELP, f"<@U0BOT> {question}")
    return ts, await here.wait(user, HELP, words)


def texts(here: Office) -> list[str]:
    """What the desk was asked."""
    return [a.text for a in here.desk.asked]


# --- threads ---


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("and for part-timers?", "How many days of leave do I have for part-timers?"),
        ("What about Berlin?", "How many days of leave do I have for Berlin?"),
        ("and in the second year", "How many days of leave do I have in the second year?"),
        ("if I am ill?", "How many days of leave do I have if I am ill?"),
        ("same for interns", "How many days of leave do I have for interns?"),
        ("for interns?", "How many days of leave do I have for interns?"),
        ("and how many sick days do I have?", None),
        ("who approves it?", None),
        ("so what?", None),
        ("and thanks", None),
        ("what about the notice period during probation, can it be shortened?", None),
    ],
)
def test_a_follow_up_is_completed_from_the_question_before(text: str, completed: str | None) -> None:
    found = threads.follow_up(text, LEAVE)
    assert (found.question if found else None) == completed
    assert threads.follow_up(text, "") is None


def test_a_phrase_of_the_same_kind_is_exchanged_and_nothing_else_is_dropped() -> None:
    found = threads.follow_up("and in the second year?", "How many days do I have in the first year?")
    assert found
    assert found.question == "How many days do I have in the second year?"
    found = threads.follow_up("and for part-timers?", "How do I apply for leave?")
    assert found
    assert found.question == "How do I apply for leave for part-timers?"
    assert threads.covers("Do part-timers have leave?", found.added)
    assert not threads.covers("How do I apply for leave?", found.added)
    assert not threads.covers("How do I apply for leave?", frozenset())


@pytest.mark.parametrize(
    "text",
    [
        *("how long is it", "is there a limit?", "tell me more", "do we have a gym", "and for interns"),
        *("explain the rule", "that holds for this form (https://forms.example/abc)?"),
    ],
)
def test_questions(text: str) -> None:
    assert threads.is_question(text)


@pytest.mark.parametrize(
    "text",
    [
        *("thanks!", "great, thanks", "will do", "at your desk", "I think that is outdated", "in a meeting now", "ok"),
        *("", "see x://y?z=1"),
    ],
)
def test_remarks_are_no_questions(text: str) -> None:
    assert not threads.is_question(text)


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("are you coming?", True),
        ("shall we have lunch?", True),
        ("can you have a look at my draft?", True),
        ("can you tell me how long it is?", False),
        ("do you know how long it is?", False),
        ("do we have a gym?", False),
    ],
)
def test_a_question_to_people_is_told_from_one_to_the_bot(text: str, people: bool) -> None:
    assert threads.speaks_to_people(text) is people


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_can_follow_any_text(text: str, previous: str) -> None:
    found = threads.follow_up(text, previous)
    assert found is None or found.question.endswith("?")
    assert threads.is_question(text) in (True, False)
    assert threads.is_courtesy(text) in (True, False)


def test_a_follow_up_needs_no_mention_and_knows_its_question(home: Path) -> None:
    async def story(here: Office) -> None:
        ts, _ = await asks(here)
        here.desk.script = [{"text": "Fourteen days."}, {"text": "Seven days."}]
        await here.write(PRIYA, HELP, "and for part-timers?", thread_ts=ts)
        answer = await here.wait(SAM, HELP, "Fourteen days.")
        assert "Understood as: *How many days of leave do I have for part-timers?*" in words_of(answer)
        await here.write(PRIYA, HELP, "what about interns", thread_ts=ts)
        await here.wait(SAM, HELP, "Seven days.")
        assert texts(here)[1:] == [
            "How many days of leave do I have for part-timers?",
            "How many days of leave do I have for interns?",
        ]
        assert [a.route for a in here.desk.asked] == ["auto", "documents", "documents"]

    play(home, story)


def test_a_follow_up_gets_a_taught_answer_only_when_that_is_about_it(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="Do part-timers have leave?", answer="14.", author=SAM)
        corrections.approve(here.database, row.id, PRIYA)
        ts, _ = await asks(here)
        here.desk.script = [taught("How much leave do part-timers have?", "Fourteen days.")]
        await here.write(SAM, HELP, "and for part-timers?", thread_ts=ts)
        await here.wait(SAM, HELP, "Fourteen days.")
        here.desk.script = [taught(LEAVE, "The wrong one."), {"text": "Ten days."}]
        await here.write(SAM, HELP, "and for part-timers?", thread_ts=ts)
        await here.wait(SAM, HELP, "Ten days.")
        assert not [m for m in await here.messages(SAM, HELP) if "The wrong one." in words_of(m)]
        assert [a.route for a in here.desk.asked] == ["auto", "auto", "auto", "documents"]

    play(home, story)


def test_people_who_talk_among_themselves_are_left_alone(home: Path) -> None:
    async def story(here: Office) -> None:
        ts, _ = await asks(here)
        for user, text in (
            (PRIYA, "<@U0SAM> is that still right?"),
            (SAM, "where does it stand?"),
            (PRIYA, "<!here> who knows?"),
            (PRIYA, "are you coming to lunch?"),
            (SAM, "I think so"),
            (PRIYA, "thanks!"),
        ):
            await here.write(user, HELP, text, thread_ts=ts)
        await here.settle()
        assert texts(here) == [LEAVE]
        await here.write(PRIYA, HELP, "<@U0BOT> how long is probation?", thread_ts=ts)
        await until(lambda: seen(here, 2), "the bot is called back")
        await here.write(SAM, HELP, "how long is parental leave?", thread_ts=ts)
        await until(lambda: seen(here, 3), "a follow-up")

    play(home, story)


def test_thanks_are_welcome_and_a_greeting_is_no_question(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.write(SAM, "D0SAM", "Hello Nightshift!")
        await here.wait(SAM, "D0SAM", WELCOME)
        await here.write(SAM, HELP, "<@U0BOT> thank you so much")
        await here.wait(SAM, HELP, WELCOME)
        assert here.desk.asked == []

    play(home, story)


def test_a_group_message_is_answered_when_it_knows_and_when_it_is_called(home: Path) -> None:
    async def story(here: Office) -> None:
        group = (await here.do("group", SAM, users=[PRIYA]))["channel"]
        here.desk.script = [{}, NOT_KNOWN, {"text": "Called."}, NOT_KNOWN]
        await here.write(SAM, group, LEAVE)
        answer = await here.wait(PRIYA, group, "Twenty-eight")
        await here.write(SAM, group, "who has the key of the bike room?")
        await until(lambda: seen(here, 2), "a question that is overheard")
        await here.write(SAM, group, "see you tomorrow")
        await here.write(PRIYA, group, "<@U0SAM> is it you?")
        await here.settle()
        assert len(here.calls("chat.postMessage")) == 1
        await here.write(SAM, group, "<@U0BOT> who has the key?")
        await here.wait(SAM, group, "Called.")
        await here.write(SAM, group, "and for guests?", thread_ts=answer["thread_ts"])
        await here.wait(SAM, group, "I don't know")
        assert here.desk.asked[0].scopes == ("workspace", group)

    play(home, story)


def test_a_thread_in_which_the_bot_kept_silent_is_peoples_own(home: Path) -> None:
    async def story(here: Office) -> None:
        group = (await here.do("group", SAM, users=[PRIYA]))["channel"]
        here.desk.script = [NOT_KNOWN, NOT_KNOWN]
        ts = await here.write(SAM, group, "who has the key?")
        await until(lambda: seen(here, 1), "a question that is overheard")
        await here.write(PRIYA, group, "Maybe Carla?", thread_ts=ts)
        await here.settle()
        assert texts(here) == ["who has the key?"]
        assert here.calls("chat.postMessage") == []
        await here.write(PRIYA, group, "<@U0BOT> does Carla have it?", thread_ts=ts)
        await here.wait(SAM, group, "I don't know")
        await here.write(SAM, group, "and for the bike room?", thread_ts=ts)
        await here.wait(SAM, group, "Twenty-eight")

    play(home, story)


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_a_follow_up_may_come_before_the_answer(home: Path, in_a_thread: bool) -> None:
    async def story(here: Office) -> None:
        root = await here.write(PRIYA, HELP, "the handbook is long") if in_a_thread else ""
        here.desk.hold = Future()
        ts = await here.write(SAM, HELP, f"<@U0BOT> {LEAVE}", **({"thread_ts": root} if root else {}))
        await until(lambda: seen(here, 1), "the question")
        await here.write(SAM, HELP, "and for part-timers?", thread_ts=root or ts)
        await asyncio.sleep(0.2)
        here.desk.hold = None
        here.desk.given[0].set_result(here.desk.reply(here.desk.asked[0], {}))
        await until(lambda: seen(here, 2), "the follow-up")
        assert texts(here)[1] == "How many days of leave do I have for part-timers?"

    play(home, story)


def test_a_failure_nobody_asked_for_stays_in_the_log(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(here: Office) -> None:
        group = (await here.do("group", SAM, users=[PRIYA]))["channel"]
        here.desk.script = [BusyError("Too many questions wait."), RuntimeError("a defect")]
        for text in ("who has the key?", "who has the other key?"):
            await here.write(SAM, group, text)
            await here.settle()
        assert here.calls("chat.postMessage") == []

    with caplog.at_level(logging.INFO):
        play(home, story)
    assert "Too many questions wait." in caplog.text
    assert "a defect" in caplog.text


# --- always a reply ---


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OutOfSpaceError("The database cannot be written; free disk space."), "free disk space"),
        (sqlite3.OperationalError("database is locked"), BROKEN),
    ],
)
def test_a_database_that_fails_before_a_question_is_taken_up_is_told_once(
    home: Path, failure: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise failure

    async def story(here: Office) -> None:
        for channel, text in ((HELP, "<@U0BOT> leave?"), ("D0SAM", "leave?")):
            await here.write(SAM, channel, text)
            await here.wait(SAM, channel, words)
        await here.settle()
        assert len(here.calls("chat.postMessage")) == 2
        assert here.desk.asked == []

    monkeypatch.setattr(conversations, "first_time", fail)
    play(home, story)


def test_what_is_out_of_scope_is_said_so(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [NOT_KNOWN | {"features": {"best_cosine": 0.05}}]
        _, answer = await asks(here, question="who won the cup in 1954?", words="I have nothing on this")
        assert "Nearest pages" not in words_of(answer)
        here.desk.script = [NOT_KNOWN | {"features": {"best_cosine": 0.6}}]
        _, answer = await asks(here, question="who waters the plants?", words="Nearest pages")
        assert "I have nothing on this" not in words_of(answer)

    play(home, story)


def test_who_has_to_wait_is_told_their_number(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.hold = Future()
        for number in range(4):
            await here.write(SAM, HELP, f"<@U0BOT> question {number}?")
        for number in (3, 4):
            await here.wait(SAM, HELP, f"you are number {number}")
        told = [m for m in await here.messages(SAM, HELP) if "you are number" in words_of(m)]
        assert len(told) == 2
        assert all(m["ephemeral"] for m in told)
        here.desk.hold.cancel()

    play(home, story, QUEUE_NOTICE=2)


def test_a_guest_is_refused_with_a_sentence_and_nothing_is_asked(home: Path) -> None:
    async def story(here: Office) -> None:
        person = here.ws.state.people[SAM]
        here.ws.state.people[SAM] = replace(person, is_restricted=True)
        for channel, text in ((HELP, f"<@U0BOT> {LEAVE}"), ("D0SAM", LEAVE)):
            await here.write(SAM, channel, text)
            assert (await here.wait(SAM, channel, "members of this workspace only"))["ephemeral"]
        await here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE)
        await here.settle()
        assert here.desk.asked == []
        assert here.calls("assistant.threads.setSuggestedPrompts") == []

    play(home, story)


def test_a_guest_may_neither_vote_nor_correct(home: Path) -> None:
    async def story(here: Office) -> None:
        _, answer = await asks(here, PRIYA)
        here.ws.state.people[SAM] = replace(here.ws.state.people[SAM], is_ultra_restricted=True)
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        await here.wait(SAM, HELP, "members of this workspace only")
        assert (await here.state(SAM))["modal"] is None
        assert conversations.votes(here.database, 1) == ()

    play(home, story)


def test_in_a_channel_shared_with_others_only_the_asker_sees_the_answer(home: Path) -> None:
    async def story(here: Office) -> None:
        channel = here.ws.state.channels[HELP]
        here.ws.state.channels[HELP] = replace(channel, shared_with=("T0OTHER",))
        _, answer = await asks(here)
        assert answer["ephemeral"]
        assert "Share" not in words_of(answer)
        assert not [m for m in await here.messages(PRIYA, HELP) if "Twenty-eight" in words_of(m)]

    play(home, story)


def test_in_a_channel_shared_with_others_no_button_shows_them_an_answer(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE)
        before = await here.wait(SAM, HELP, "Share in the channel")
        here.ws.state.channels[HELP] = replace(here.ws.state.channels[HELP], shared_with=("T0OTHER",))
        here.desk.script = [taught("Leave?", "28 days."), {"text": "Found."}, {"text": "Asked."}]
        _, answer = await asks(here, words="28 days.")
        await here.click(SAM, HELP, answer["ts"], "not_mine")
        found = await here.wait(SAM, HELP, "Found.")
        await here.do("command", SAM, channel=HELP, command="/ask", text="and sick leave?")
        commanded = await here.wait(SAM, HELP, "Asked.")
        assert not [m for m in (answer, found, commanded) if "Share" in words_of(m)]
        await here.click(SAM, HELP, before["ts"], "share")
        await here.wait(SAM, HELP, "People of another organisation")
        assert here.calls("chat.postMessage") == []
        here.ws.state.channels[HELP] = replace(here.ws.state.channels[HELP], shared_with=())
        await here.write(PRIYA, HELP, "they have left")
        await here.settle()
        await here.click(SAM, HELP, before["ts"], "share")
        await here.wait(PRIYA, HELP, "Twenty-eight")

    play(home, story)


# --- questions in hand ---


def test_who_asked_a_bot_that_was_killed_hears_so_once(home: Path) -> None:
    async def story(here: Office) -> None:
        parts = here.bot._parts
        assert parts is not None
        here.desk.hold = Future()
        ts = await here.write(SAM, HELP, f"<@U0BOT> {LEAVE}")
        await here.write(SAM, "D0SAM", "sick leave?")
        await until(lambda: seen(here, 2), "the questions")
        old = asked.InHand(HELP, "1.5", "1.5", SAM)
        asked.take(here.database, old, "an old one")
        here.database.here.execute("UPDATE events_seen SET seen_at = '2026-01-01' WHERE key = ?", [old.key])
        for task in set(parts.tasks):
            task.cancel()
        await here.settle()
        assert len(asked.left(here.database)) == 3
        for _ in range(2):
            again = SlackBot(here.database, here.settings, here.desk)
            await again.start()
            await again.stop()
        told = [call for call in here.calls("chat.postMessage") if call["text"] == questions.INTERRUPTED]
        assert sorted(call["channel"] for call in told) == [HELP, "D0SAM"]
        assert [call["thread_ts"] for call in told if call["channel"] == HELP] == [ts]
        assert asked.left(here.database) == ()

    play(home, story)


def test_who_asked_by_command_a_bot_that_was_killed_hears_so_alone(home: Path) -> None:
    async def story(here: Office) -> None:
        parts = here.bot._parts
        assert parts is not None
        here.desk.hold = Future()
        await here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE)
        await until(lambda: seen(here, 1), "the question")
        for task in set(parts.tasks):
            task.cancel()
        await here.settle()
        assert [one.is_private for one in asked.left(here.database)] == [True]
        again = SlackBot(here.database, here.settings, here.desk)
        await again.start()
        await again.stop()
        told = [call for call in here.calls("chat.postEphemeral") if call["text"] == questions.INTERRUPTED]
        assert [(call["channel"], call["user"]) for call in told] == [(HELP, SAM)]
        assert not [call for call in here.calls("chat.postMessage") if call["text"] == questions.INTERRUPTED]
        assert asked.left(here.database) == ()

    play(home, story)


def test_what_was_asked_by_command_and_answered_or_refused_is_in_hand_no_longer(home: Path) -> None:
    async def story(here: Office) -> None:
        await in_hand_no_longer(here, HELP, lambda: here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE))

    play(home, story)


async def in_hand_no_longer(here: Office, channel: str, ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask in a channel three times, to be answered, refused and failed; no question stays in hand."""
    here.desk.script = [{}, BusyError("Too many questions wait."), RuntimeError("a defect")]
    for words in ("Twenty-eight", "Too many", BROKEN):
        await ask()
        await here.wait(SAM, channel, words)
    await here.settle()
    assert asked.left(here.database) == ()


def test_what_was_answered_refused_reworded_or_deleted_is_in_hand_no_longer(home: Path) -> None:
    async def story(here: Office) -> None:
        await in_hand_no_longer(here, "D0SAM", lambda: here.write(SAM, "D0SAM", LEAVE))
        here.desk.hold = Future()
        ts = await here.write(SAM, HELP, f"<@U0BOT> {LEAVE}")
        await until(lambda: seen(here, 3), "the question")
        await here.do("edit", SAM, channel=HELP, ts=ts, text="<@U0BOT> sick leave?")
        await until(lambda: seen(here, 4), "its new words")
        assert [one.ts for one in asked.left(here.database)] == [ts]
        await here.do("delete", SAM, channel=HELP, ts=ts)
        await here.settle()
        assert asked.left(here.database) == ()

    play(home, story)


# --- edits and deletions ---


def test_an_edit_changes_the_old_answer_in_its_place(home: Path) -> None:
    async def story(here: Office) -> None:
        ts, first = await asks(here)
        here.desk.script = [{"text": "Six months."}]
        await here.do("edit", SAM, channel=HELP, ts=ts, text="<@U0BOT> How long is probation?")
        changed = await here.wait(SAM, HELP, "Six months.")
        assert changed["ts"] == first["ts"]
        assert len(here.calls("chat.postMessage")) == 1
        await here.click(PRIYA, HELP, changed["ts"], "feedback", "up:2")
        await here.settle()
        assert [v.user for v in conversations.votes(here.database, 2)] == [PRIYA]

    play(home, story)


def test_an_edit_that_keeps_the_words_is_not_answered_again(home: Path) -> None:
    async def story(here: Office) -> None:
        ts, _ = await asks(here)
        await here.do("edit", SAM, channel=HELP, ts=ts, text=f"<@U0BOT>   {LEAVE} ")
        await here.settle()
        assert texts(here) == [LEAVE]

    play(home, story)


def test_an_answer_that_grew_or_shrank_by_an_edit_is_whole(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [{"text": "many words " * 2000}, {"text": "Short."}, {"text": "again many " * 2000}]
        ts, _ = await asks(here, words="many words")
        await here.settle()
        before = len([m for m in await here.messages(SAM, HELP) if m["user"] == "U0BOT"])
        assert before > 1
        await here.do("edit", SAM, channel=HELP, ts=ts, text="<@U0BOT> how short?")
        await here.wait(SAM, HELP, "Short.")
        await here.settle()
        assert len([m for m in await here.messages(SAM, HELP) if m["user"] == "U0BOT"]) == 1
        await here.do("edit", SAM, channel=HELP, ts=ts, text="<@U0BOT> how long?")
        await here.wait(SAM, HELP, "again many")
        await here.settle()
        shown = "".join(words_of(m) for m in await here.messages(SAM, HELP) if m["user"] == "U0BOT")
        assert shown.count("again many ") >= 1990
        assert "Short." not in shown

    play(home, story)


def test_a_question_deleted_before_it_is_taken_up_is_never_asked(home: Path) -> None:
    async def story(here: Office) -> None:
        parts = here.bot._parts
        assert parts is not None
        gone = {"type": "message", "subtype": "message_deleted", "channel": HELP, "deleted_ts": "1.5", "ts": "2.0"}
        here.ws.state.emit(gone)
        await until(lambda: truth((HELP, "1.5") in parts.deleted), "the deletion")
        late = {"type": "message", "user": SAM, "ts": "1.5", "channel": HELP, "text": "<@U0BOT> leave?"}
        here.ws.state.emit(late)
        await here.settle()
        assert here.desk.asked == []
        tomb = {"type": "message", "subtype": "message_changed", "channel": HELP, "ts": "3.0"}
        assert questions.deleted(tomb | {"message": {"subtype": "tombstone", "ts": "1.7"}}) == (HELP, "1.7")

    play(home, story)


# --- votes and corrections ---


def test_a_bystander_may_vote_change_the_vote_and_correct(home: Path) -> None:
    async def story(here: Office) -> None:
        _, answer = await asks(here)
        await here.click(SAM, HELP, answer["ts"], "feedback", "up:1")
        await here.click(PRIYA, HELP, answer["ts"], "feedback", "up:1")
        await here.click(PRIYA, HELP, answer["ts"], "feedback", "down:1")
        assert (await here.submit(PRIYA, reason="incomplete", answer="Twenty-eight, and the 24th of December."))["ok"]
        await here.wait(PRIYA, REVIEW, "and the 24th of December")
        votes = {v.user: (v.vote, v.reason) for v in conversations.votes(here.database, 1)}
        assert votes == {SAM: (1, ""), PRIYA: (-1, "incomplete")}
        assert corrections.get(here.database, 1).author == PRIYA

    play(home, story)


def test_a_vote_counts_even_when_its_modal_came_too_late(home: Path) -> None:
    async def story(here: Office) -> None:
        _, answer = await asks(here)
        here.ws.inject("views.open", 200, {}, {"ok": False, "error": "expired_trigger_id"})
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        await here.wait(SAM, HELP, "That click took too long")
        assert [v.vote for v in conversations.votes(here.database, 1)] == [-1]

    play(home, story)


def test_the_menu_tells_the_model_and_opens_the_correction(home: Path) -> None:
    async def story(here: Office) -> None:
        _, answer = await asks(here)
        menu = next(e for b in answer["blocks"] if b["type"] == "actions" for e in b["elements"])
        assert menu["type"] == "overflow"
        assert [o["text"]["text"] for o in menu["options"]] == ["Model v-test", "Correct this answer"]
        await here.click(SAM, HELP, answer["ts"], "more", "details:1")
        told = await here.wait(SAM, HELP, "model v-test, answer 1")
        assert told["ephemeral"]
        assert "90 of 100 such are right" in words_of(told)
        await here.click(SAM, HELP, answer["ts"], "more", "correct:1")
        assert (await here.modal(SAM))["callback_id"] == "correction"

    play(home, story)


def test_a_long_answer_is_split_over_inputs_and_put_together_again(home: Path) -> None:
    text = "\n\n".join(f"Paragraph {n} " + " ".join(["of many words"] * 60) for n in range(8))

    async def story(here: Office) -> None:
        here.desk.script = [{"text": text}]
        _, answer = await asks(here, words="From documents")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        inputs = {b["block_id"]: b for b in (await here.modal(SAM))["blocks"] if b["type"] == "input"}
        assert {"answer", "answer_2", "answer_3"} <= set(inputs)
        assert "(2 of 3)" in inputs["answer_2"]["label"]["text"]
        assert all(len(b["element"].get("initial_value") or "") <= 3000 for b in inputs.values())
        assert (await here.submit(SAM, reason="outdated"))["ok"]
        await here.wait(SAM, HELP, "Thank you, noted.")
        await here.click(SAM, HELP, answer["ts"], "feedback", "down:1")
        await here.submit(SAM, reason="outdated", answer="First part.", answer_2="Second part.", answer_3="")
        await here.wait(PRIYA, REVIEW, "Second part.")
        assert corrections.get(here.database, 1).answer == "First part.\n\nSecond part."

    play(home, story)


@given(st.text(max_size=300), st.integers(10, 50))
def test_cut_and_joined_again_a_text_is_the_same(text: str, limit: int) -> None:
    text = text.strip()[: 9 * limit // 2]
    pieces, gaps = forms.cut(text, limit)
    fields = {"a" if n == 1 else f"a_{n}": piece for n, piece in enumerate(pieces, 1)}
    assert all(len(piece) <= limit for piece in pieces)
    assert forms.joined(fields, "a", gaps) == text


def test_a_secret_in_an_answer_is_not_prefilled() -> None:
    answer = Answer(1, "The password: hunter2", Route.RETRIEVED, Style.QUOTED, 0.9, "v1")
    assert "hunter2" not in prefill(answer)


def test_an_answer_is_shared_once_and_the_shared_thread_goes_on(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE)
        answer = await here.wait(SAM, HELP, "Twenty-eight")
        await here.click(SAM, HELP, answer["ts"], "share")
        shared = await here.wait(PRIYA, HELP, "Twenty-eight")
        await here.click(SAM, HELP, answer["ts"], "share")
        await here.wait(SAM, HELP, "shared already")
        here.desk.script = [{"text": "Fourteen days."}]
        await here.write(PRIYA, HELP, "and for part-timers?", thread_ts=shared["thread_ts"])
        await here.wait(PRIYA, HELP, "Fourteen days.")
        assert texts(here)[-1] == "How many days of leave do I have for part-timers?"

    play(home, story)


def test_a_share_that_failed_can_be_repeated(home: Path) -> None:
    async def story(here: Office) -> None:
        channel = here.ws.state.channels[HELP]
        here.ws.state.channels[HELP] = replace(channel, members=(SAM, PRIYA))
        await here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE)
        answer = await here.wait(SAM, HELP, "Twenty-eight")
        await here.click(SAM, HELP, answer["ts"], "share")
        await here.wait(SAM, HELP, "invite me first")
        here.ws.state.channels[HELP] = channel
        await here.click(SAM, HELP, answer["ts"], "share")
        await here.wait(PRIYA, HELP, "Twenty-eight")

    play(home, story)


@pytest.mark.parametrize("erased", [False, True])
def test_an_answer_that_holds_no_longer_is_not_shared(home: Path, erased: bool) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question=LEAVE, answer="28 days.", author=PRIYA)
        corrections.approve(here.database, row.id, "U0OTHER")
        here.desk.script = [{} if erased else taught(LEAVE, "28 days.", correction_id=row.id)]
        await here.do("command", SAM, channel=HELP, command="/ask", text=LEAVE)
        answer = await here.wait(SAM, HELP, "days.")
        if erased:
            retention.erase(here.database, SAM)
        else:
            corrections.withdraw(here.database, row.id, PRIYA)
        await here.click(SAM, HELP, answer["ts"], "share")
        await here.wait(SAM, HELP, "does not hold any more")
        assert here.calls("chat.postMessage") == []

    play(home, story)


@pytest.mark.parametrize(
    ("answer", "action", "value"),
    [
        (taught("Leave?", "28 days."), "not_mine", "1"),
        (NOT_KNOWN | {"suggestions": (Suggestion(1, "Leave?"),)}, "meant", "1:1"),
        (NOT_KNOWN, "teach", "1"),
        (NOT_KNOWN, "ask_person", "1"),
        ({}, "more", "person:1"),
        ({}, "more", "correct:1"),
        ({}, "more", "details:1"),
    ],
)
def test_nothing_is_done_with_words_that_were_erased(
    home: Path, answer: dict[str, Any], action: str, value: str
) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="Leave?", answer="28 days.", author=PRIYA)
        corrections.approve(here.database, row.id, "U0OTHER")
        here.desk.script = [answer | ({"correction_id": row.id} if action == "not_mine" else {})]
        _, shown = await asks(here, words=answer.get("text", "Twenty-eight")[:5])
        retention.erase(here.database, SAM)
        await here.click(SAM, HELP, shown["ts"], action, value)
        await here.wait(SAM, HELP, "does not hold any more")
        assert (await here.state(SAM))["modal"] is None
        assert len(here.desk.asked) == len(here.calls("chat.postMessage")) == 1
        assert ERASED not in [w.text for w in corrections.wordings(here.database, row.id)]

    play(home, story, ASK_A_PERSON=PRIYA)


# --- ask a person ---


def test_the_table_of_people_is_read() -> None:
    table = experts.read("default=U0ANN, C0HELP=U0BOB, topic:payroll=U0CAT, topic:payroll tax=C0TAX")
    assert (table.default, table.channels) == ("U0ANN", {"C0HELP": "U0BOB"})
    assert table.by_topic("When does PAYROLL run?") == "U0CAT"
    assert table.by_topic("Who does payroll tax?") == "C0TAX"
    assert table.by_topic("payrolls") == ""
    assert experts.read("U0ANN").default == "U0ANN"
    assert experts.read("") == experts.Experts()
    with pytest.raises(UserError, match="C0HELP=ann; topic:=U0X"):
        experts.read("U0ANN, C0HELP=ann, topic:=U0X")


def test_a_person_is_asked_answers_and_the_answer_becomes_a_correction(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [NOT_KNOWN]
        ts, answer = await asks(here, question="who waters the plants?", words="I don't know")
        await here.click(SAM, HELP, answer["ts"], "ask_person")
        asked_post = await here.wait(PRIYA, HELP, "<@U0PRIYA>, <@U0SAM> needs a person for this")
        assert asked_post["thread_ts"] == ts
        await here.click(SAM, HELP, answer["ts"], "ask_person")
        await here.wait(SAM, HELP, "A person was asked already")
        await here.write(SAM, HELP, "it is about the third floor, who does it?", thread_ts=ts)
        await here.write(PRIYA, HELP, "Facilities &amp; friends do, on Mondays.", thread_ts=ts)
        await here.settle()
        assert len(here.desk.asked) == 1
        await here.click(PRIYA, HELP, asked_post["ts"], "resolved")
        modal = await here.modal(PRIYA)
        held = {b["block_id"]: b["element"].get("initial_value") for b in modal["blocks"] if b["type"] == "input"}
        assert held["question"] == "who waters the plants?"
        assert held["answer"] == "Facilities &amp; friends do, on Mondays."
        assert (await here.submit(PRIYA, answer="Facilities, on Mondays."))["ok"]
        await here.wait(PRIYA, REVIEW, "Facilities, on Mondays.")
        await here.wait(SAM, HELP, "Resolved by <@U0PRIYA>")
        assert handoffs.get(here.database, 1).resolved_by == PRIYA
        assert corrections.in_status(here.database, Status.PENDING)[0].author == PRIYA
        await here.write(SAM, HELP, "how many days of leave?", thread_ts=ts)
        await here.wait(SAM, HELP, "Twenty-eight")

    play(home, story, ASK_A_PERSON="default=U0OTHER,C0HELP=U0PRIYA")


def test_a_private_question_goes_to_the_person_alone_and_comes_back(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [NOT_KNOWN]
        await here.write(SAM, "D0SAM", "who runs payroll?")
        answer = await here.wait(SAM, "D0SAM", "I don't know")
        await here.click(SAM, "D0SAM", answer["ts"], "ask_person")
        request = await here.wait(PRIYA, "D0PRIYA", "<@U0SAM> needs a person")
        await here.wait(SAM, "D0SAM", "I asked <@U0PRIYA> for you.")
        await here.write(PRIYA, "D0PRIYA", "Dana does.", thread_ts=request["ts"])
        await here.settle()
        assert len(here.desk.asked) == 1
        await here.click(PRIYA, "D0PRIYA", request["ts"], "resolved")
        assert "Dana does." in str(await here.modal(PRIYA))
        await here.wait(SAM, "D0SAM", "Dana does.")
        await here.wait(PRIYA, "D0PRIYA", "Resolved by")

    play(home, story, ASK_A_PERSON="topic:payroll=U0PRIYA")


@pytest.mark.parametrize("place", ["direct message", "ephemeral answer", "private channel"])
def test_a_private_question_is_not_posted_in_a_channel(home: Path, place: str) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [NOT_KNOWN]
        where = {"direct message": "D0SAM", "ephemeral answer": HELP, "private channel": "C0BOARD"}[place]
        if place == "private channel":
            here.ws.state.add_channel(Channel(where, "board", "group", (SAM, "U0BOT")))
        if place == "ephemeral answer":
            await here.do("command", SAM, channel=where, command="/ask", text="who is laid off?")
        else:
            await here.write(SAM, where, "<@U0BOT> who is laid off?")
        answer = await here.wait(SAM, where, "I don't know")
        before = len(here.calls("chat.postMessage"))
        await here.click(SAM, where, answer["ts"], "ask_person")
        told = await here.wait(SAM, where, f"I do not post it in <#{REVIEW}>")
        assert told["ephemeral"] or place == "direct message"
        posted = here.calls("chat.postMessage")[before:]
        assert [call for call in posted if call["channel"] == REVIEW] == []
        assert here.database.rows("SELECT * FROM handoffs") == []

    play(home, story, ASK_A_PERSON=REVIEW)


def test_a_press_of_resolved_that_came_too_late_can_be_repeated(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [NOT_KNOWN]
        ts, answer = await asks(here, question="who waters the plants?", words="I don't know")
        await here.click(SAM, HELP, answer["ts"], "ask_person")
        request = await here.wait(PRIYA, HELP, "needs a person for this")
        await here.write(PRIYA, HELP, "Facilities do.", thread_ts=ts)
        here.ws.inject("views.open", 200, {}, {"ok": False, "error": "expired_trigger_id"})
        await here.click(PRIYA, HELP, request["ts"], "resolved")
        await here.wait(PRIYA, HELP, "please press it again")
        await here.settle()
        assert handoffs.get(here.database, 1).resolved_at == ""
        await here.click(PRIYA, HELP, request["ts"], "resolved")
        assert "Facilities do." in str(await here.modal(PRIYA))
        await here.wait(SAM, HELP, "Resolved by <@U0PRIYA>")

    play(home, story, ASK_A_PERSON=PRIYA)


def test_without_a_person_there_is_no_button_and_a_failed_request_can_be_repeated(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [NOT_KNOWN, NOT_KNOWN]
        _, answer = await asks(here, question="who waters the plants?", words="I don't know")
        assert "ask_person" not in words_of(answer)
        here.database.here.execute("DELETE FROM handoffs")
        row = handoffs.begin(here.database, 1, asker=SAM, person=PRIYA)
        with pytest.raises(ConflictError):
            handoffs.begin(here.database, 1, asker=PRIYA, person=PRIYA)
        handoffs.withdraw(here.database, row.id)
        again = handoffs.begin(here.database, 1, asker=SAM, person=PRIYA)
        handoffs.resolve(here.database, again.id, PRIYA)
        with pytest.raises(ConflictError):
            handoffs.resolve(here.database, again.id, SAM)

    play(home, story)


# --- the agent view ---


def test_the_first_visit_is_greeted_once_and_often_asked_questions_are_suggested(home: Path) -> None:
    async def story(here: Office) -> None:
        for user, channel in (("U1", "C1"), ("U2", "C2"), ("U3", "C2")):
            ask_once(here.database, user, channel, "Where is the printer?")
            ask_once(here.database, user, "C1", "Who is the mole in team five?")
            ask_once(here.database, user, channel, ERASED)
        ask_once(here.database, "U1", "C3", "my own words")
        for _ in range(2):
            await here.do("open_home", SAM, tab="messages")
            await here.settle()
        assert len([m for m in await here.messages(SAM, "D0SAM") if "Hello, I am Nightshift" in words_of(m)]) == 1
        prompts = here.calls("assistant.threads.setSuggestedPrompts")[0]["prompts"]
        assert prompts[0]["message"] == "Where is the printer?"
        assert len(prompts) == 4
        assert "mole" not in str(prompts)
        assert ERASED not in str(prompts)
        assert "own words" not in str(prompts)

    play(home, story)


def test_taught_questions_that_answer_often_are_suggested_first(home: Path) -> None:
    database = Database(home)
    for number, times in ((1, 1), (2, 3)):
        row = corrections.propose(database, question=f"question {number}?", answer="An answer.", author=SAM)
        corrections.approve(database, row.id, PRIYA)
        for _ in range(times):
            told = {"style": Style.DIRECT, "route": Route.APPROVED, "correction_id": row.id}
            ask_once(database, SAM, HELP, "in some words", **told)
    assert greeting.suggestions(database)[:2] == ("question 2?", "question 1?")
    corrections.withdraw(database, 2, PRIYA, reason="gone")
    assert "question 2?" not in greeting.suggestions(database)
    database.close()


def test_the_status_is_shown_and_taken_back_when_a_question_fails(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.hold = Future()
        ts = await here.write(SAM, HELP, f"<@U0BOT> {LEAVE}")
        await until(lambda: truth(bool(here.calls("assistant.threads.setStatus"))), "the status")
        await here.do("delete", SAM, channel=HELP, ts=ts)
        await here.settle()
        told = here.calls("assistant.threads.setStatus")
        assert [t["status"] for t in told] == ["is thinking...", ""]
        assert told[0]["thread_ts"] == ts
        assert len(told[0]["loading_messages"]) == 3

    play(home, story)


# --- streams ---


def test_a_long_answer_is_streamed_whole_with_its_foot(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [{"text": LONG}]
        ts, answer = await asks(here, words="From documents")
        start = here.calls("chat.startStream")[0]
        assert (start["thread_ts"], start["recipient_user_id"], start["recipient_team_id"]) == (ts, SAM, "T0LUMEN")
        assert len(here.calls("chat.appendStream")) >= 3
        assert here.calls("chat.postMessage") == []
        assert here.ws.state.messages[HELP][answer["ts"]].markdown == LONG.strip()
        assert "feedback_buttons" in words_of(answer)
        await here.click(SAM, HELP, answer["ts"], "feedback", "up:1")
        await here.settle()
        assert len(conversations.votes(here.database, 1)) == 1
        here.desk.script = [{"text": "Six months."}]
        await here.do("edit", SAM, channel=HELP, ts=ts, text="<@U0BOT> How long is probation?")
        assert (await here.wait(SAM, HELP, "Six months."))["ts"] == answer["ts"]

    play(home, story)


@pytest.mark.parametrize("method", ["chat.startStream", "chat.appendStream", "chat.stopStream"])
def test_a_stream_that_dies_leaves_the_whole_answer(home: Path, method: str) -> None:
    async def story(here: Office) -> None:
        here.ws.inject(method, 200, {}, {"ok": False, "error": "internal_error"})
        here.desk.script = [{"text": LONG}]
        await asks(here, words="trip 29")
        await here.settle()
        shown = [m for m in await here.messages(SAM, HELP) if m["user"] == "U0BOT" and "trip 29" in words_of(m)]
        assert len(shown) == 1
        assert "From documents" in words_of(shown[0])
        stamps = asked.message(here.database, HELP, shown[0]["thread_ts"])
        assert stamps
        assert stamps.posts == (shown[0]["ts"],)

    play(home, story)


def test_without_streams_left_the_answer_is_posted_at_once(home: Path) -> None:
    async def story(here: Office) -> None:
        parts = here.bot._parts
        assert parts is not None
        parts.streams = Limiter()
        while parts.streams.begin():
            parts.streams.end()
        here.desk.script = [{"text": LONG}]
        await asks(here, words="trip 29")
        assert here.calls("chat.startStream") == []
        assert len(here.calls("chat.postMessage")) == 1

    play(home, story)


def test_short_answers_are_posted_once_and_very_long_ones_are_not_streamed() -> None:
    target = answers.Target("C1", "1.1", SAM)
    for length, streams in ((100, False), (700, True), (9000, True), (9001, False), (20_000, False)):
        answer = Answer(1, "x" * length, Route.RETRIEVED, Style.QUOTED, 0.9, "v1")
        assert answers.worth_streaming(answer, target) is streams


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Growing:
    """Slack's three methods; keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.stopped = 0

    async def chat_startStream(self, **told: Any) -> dict[str, str]:
        return {"ts": "1.1"}

    async def chat_appendStream(self, *, markdown_text: str, **told: Any) -> None:
        self.sent.append(markdown_text)

    async def chat_stopStream(self, *, markdown_text: str = "", **told: Any) -> None:
        self.sent.append(markdown_text)
        self.stopped += 1


def grown(pieces: list[str], seconds: float = 0.6) -> Growing:
    """What Slack gets when a text is written in these pieces, so many seconds apart."""

    async def run() -> Growing:
        clock, slack = Clock(), Growing()
        stream = Stream(slack, Limiter(clock), "C1", "1.0", clock=clock)
        assert await stream.begin()
        for piece in pieces:
            await stream.write(piece)
            clock.now += seconds
        await stream.finish()
        return slack

    return asyncio.run(run())


def test_tokens_are_sent_on_the_streams_own_timer() -> None:
    tokens = [f"word{n} " for n in range(200)]
    slack = grown(tokens, seconds=0.1)
    assert "".join(slack.sent) == "".join(tokens)
    assert 20 < len(slack.sent) < 45
    assert slack.stopped == 1


def test_a_secret_that_comes_in_pieces_is_never_sent() -> None:
    slack = grown([*["word " * 30] * 3, "The pass", "word: hunt", "er2 ", *["and on " * 30] * 3])
    assert "hunter2" not in "".join(slack.sent)
    assert "(password removed)" in "".join(slack.sent)


def test_an_append_that_is_on_its_way_when_the_answer_is_there_is_not_sent_again() -> None:
    class Slow(Growing):
        async def chat_appendStream(self, *, markdown_text: str, **told: Any) -> None:
            await super().chat_appendStream(markdown_text=markdown_text, **told)
            await asyncio.sleep(0.2)  # it has arrived, and Slack has not said so yet

    async def run() -> tuple[str, str]:
        slack, text = Slow(), "and on and on it goes " * 20
        parts = SimpleNamespace(client=slack, streams=Limiter(Clock()), team="T1", begin=asyncio.ensure_future)
        watched = growing.Growing(parts, "C1", "1.0", SAM)  # type: ignore[arg-type]
        watched.take(text)
        while not slack.sent:
            await asyncio.sleep(0.01)
        stream = await watched.ended()
        assert stream is not None
        await stream.write(text[len(watched.written) :])
        await stream.finish()
        return "".join(slack.sent), text

    sent, text = asyncio.run(run())
    assert sent == text


def test_a_stream_ends_before_slack_ends_it() -> None:
    with pytest.raises(StreamError, match="die of age"):
        grown(["a word "] * 600)


@pytest.mark.parametrize(
    "text",
    [
        "see https://evil.example/x?q=1 now",
        "[click](https://evil.example) ![p](http://evil.example/p.png)",
        "a ` stray https://evil.example and `code` then www.evil.example",
        "open ```https://evil.example and no end",
        "four ````https://evil.example```` ticks",
        "[a][b]\n\n[b]: https://evil.example",
        "mailto:x@evil.example and bob@evil.example and evil.example/path",
        "<https://evil.example|x> <!channel> <@U0PRIYA>",
    ],
)
def test_no_address_in_a_stream_stands_outside_code(text: str) -> None:
    shown = streaming.harmless(text)
    assert not set(shown) & set("<>")
    outside = "".join(part for part in streaming._CODE.split(shown) if not streaming._CODE.fullmatch(part))
    assert "evil" not in outside
    assert "](" not in outside
    assert "`" not in outside


@given(st.lists(st.text(st.sampled_from("ab .`*<>&[]()\n/:w"), max_size=90), max_size=12))
def test_whatever_is_streamed_stands_as_a_whole_or_is_given_up(pieces: list[str]) -> None:
    try:
        slack = grown(pieces)
    except StreamError:
        return
    assert "".join(slack.sent) == streaming.harmless("".join(pieces))


def test_the_limits_of_the_workspace_hold_for_all_streams() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    begun = [limiter.begin() for _ in range(12)]
    assert begun == [True] * 10 + [False] * 2, "each stream's stop is booked when it begins"
    for _ in range(10):
        limiter.end()
    assert not limiter.begin()
    assert [limiter.append() for _ in range(101)].count(True) == 100
    clock.now += 61
    assert limiter.begin()
    assert limiter.append()


def test_the_foot_of_a_stream_holds_the_taught_question() -> None:
    answer = Answer(1, LONG, Route.APPROVED, Style.DIRECT, 0.97, "v3", "What about receipts?", 4, id=9)
    foot = answer_views.streamed_foot(answer_views.answer_posts(answer))
    assert "Taught: *What about receipts?*" in str(foot)
    assert "trip 29" not in str(foot)
    related = replace(answer, style=Style.RELATED)
    assert answer_views.streamed_text(related).startswith("The closest I was taught: What about receipts?")


# --- steps ---


async def truth(value: bool) -> bool:
    """A value as a probe."""
    return value


async def seen(here: Office, questions_: int) -> bool:
    """Whether the desk has been asked so many questions."""
    return len(here.desk.asked) == questions_


def ask_once(database: Database, user: str, channel: str, text: str, **change: Any) -> None:
    """A question with its answer in the log."""
    question = conversations.ask(database, text, user=user, channel=channel, thread="")
    answer = Answer(question.id, "Here.", Route.RETRIEVED, Style.QUOTED, 0.9, "v1")
    conversations.answer(database, replace(answer, **change))


def test_an_empty_mention_gets_a_hint(home: Path) -> None:
    async def story(here: Office) -> None:
        await here.write(SAM, HELP, "<@U0BOT>")
        await here.wait(SAM, HELP, NOTHING_ASKED)

    play(home, story)
