"""Admins over a real socket: App Home, decisions in modals, channel settings, who is an admin, rolling back."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from slack_office import HELP, PRIYA, REVIEW, SAM, Office, play, until, words_of

from bot import channels as bot_channels
from bot import home as app_home
from bot import review_views
from bot.admins import People, is_outsider
from bot.workspace import rules
from bot.workspace.nouns import Person
from storage import channels, conversations, corrections, documents, evidence, registry, settings
from storage.channels import ChannelSettings
from storage.database import Database, now
from storage.documents import NewDocument, NewPassage
from storage.domain import Answer, Correction, Memory, ModelVersion, Passage, Route, Source, Status, Style, Suggestion
from storage.errors import ConflictError, NotAllowedError, UserError
from storage.evidence import Asked, Dossier, Evidence, Rival

LEAVE = "How many days of leave do I have?"


def model(version: str, parent: str) -> ModelVersion:
    """A version as a night publishes it."""
    return ModelVersion(version, parent, now(), "", "", "", "", 0, (), {})


def two_models(database: Database) -> None:
    """Version v2, made from v1, serves."""
    for version, parent in (("v1", ""), ("v2", "v1")):
        registry.register(database, model(version, parent))
    registry.point(database, "champion", "v1")
    registry.promote(database, "v2")


def asked(database: Database, text: str, user: str = SAM, **change: Any) -> Answer:
    """A question with its stored answer."""
    question = conversations.ask(database, text, user=user, channel=HELP, thread="1.1")
    given = {"text": "Twenty-eight days.", "route": Route.RETRIEVED, "style": Style.QUOTED, "confidence": 0.9}
    answer = Answer(question.id, model_version="v-test", **{**given, **change})
    return replace(answer, id=conversations.answer(database, answer))


def page(database: Database, text: str, scope: str = "workspace") -> None:
    """A page of the handbook."""
    vector = np.ones(4, dtype=np.float32)
    document = NewDocument(f"{text}.md", scope, "Leave", "https://handbook.example/leave", text)
    documents.replace(database, document, [NewPassage("Annual leave", text, text, vector)])


def contradicting(database: Database) -> Correction:
    """A pending correction by Sam against an approved one by Ann, with everything that stands beside it."""
    page(database, "Everybody has twenty-eight days of annual leave a year.")
    source = Source("Leave", "Annual leave", "https://handbook.example/leave", 0.9)
    answer = asked(database, LEAVE, sources=(source,))
    asked(database, LEAVE.lower(), user=PRIYA)
    old = corrections.propose(database, question="How much leave?", answer="28 days.", author="U0ANN")
    corrections.approve(database, old.id, PRIYA)
    two_models(database)
    proof = {"taught": True, "unseen": [4, 5], "near_misses_bluffed": [0, 3]}
    registry.remember(database, (Memory("v2", old.id, True, proof),))
    row = corrections.propose(
        database, question=LEAVE, answer="Thirty days since May.", author=SAM, answer_id=answer.id
    )
    evidence.note_conflicts(database, row.id, [(old.id, "contradiction")])
    return row


async def home_of(here: Office, user: str, words: str) -> Any:
    """A person's App Home once it holds these words."""

    async def found() -> Any:
        view = (await here.state(user))["home"]
        return view if view and words in str(view) else None

    return await until(found, words)


async def opened(here: Office, user: str, words: str) -> Any:
    """Open App Home and wait for it."""
    await here.do("open_home", user)
    return await home_of(here, user, words)


async def pressed(here: Office, user: str, view: Any, action: str, **more: Any) -> Any:
    """Press a button in a view."""
    return await here.do("click", user, view_id=view["id"], action_id=action, **more)


# --- the home page ---


def test_home_shows_health_changes_and_the_model(home: Path) -> None:
    async def story(here: Office) -> None:
        row = contradicting(here.database)
        conversations.vote(here.database, 1, SAM, 1)
        conversations.vote(here.database, 1, PRIYA, -1, reason="wrong")
        view = str(await opened(here, PRIYA, "To review: 1"))
        assert "Contradicts correction 1" in view
        assert "*Wrong* 50%" in view
        assert "*Satisfaction* 3.0" in view
        assert "*Coverage* 100%" in view
        assert "Roll back" in view
        assert "Are you sure?" in view
        assert "Approved answers: 1" in view
        assert row.status is Status.PENDING

    play(home, story)


def test_home_of_an_employee_has_no_levers_but_the_own_corrections(home: Path) -> None:
    async def story(here: Office) -> None:
        contradicting(here.database)
        view = await opened(here, SAM, "waiting for review")
        for words in ("Roll back", "To review", "Channel settings", "Health", "Approved answers"):
            assert words not in str(view)
        await pressed(here, SAM, view, "take_back")
        await home_of(here, SAM, "withdrawn")
        assert corrections.get(here.database, 2).reason == "taken back by its author"

    play(home, story)


def test_nobody_takes_back_what_somebody_else_wrote(home: Path) -> None:
    database = Database(home)
    contradicting(database)
    from bot.decisions import take_back_row

    with pytest.raises(NotAllowedError, match="Only who wrote"):
        take_back_row(database, 2, PRIYA)
    assert corrections.get(database, 2).status is Status.PENDING


def test_the_page_stays_turned_after_a_decision(home: Path) -> None:
    async def story(here: Office) -> None:
        for number in range(7):
            corrections.propose(here.database, question=f"question {number}?", answer="An answer.", author=SAM)
        view = await opened(here, PRIYA, "To review: 7")
        await pressed(here, PRIYA, view, "home_page")
        view = await home_of(here, PRIYA, "question 6?")
        await pressed(here, PRIYA, view, "approve")
        view = await home_of(here, PRIYA, "To review: 6")
        assert "Page 2 of 2" in str(view)

    play(home, story)


def test_an_old_home_does_not_replace_a_newer_one(home: Path) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="first?", answer="An answer.", author=SAM)
        old = await opened(here, PRIYA, "To review: 1")
        corrections.propose(here.database, question="second?", answer="An answer.", author=SAM)
        await opened(here, PRIYA, "To review: 2")
        parts = here.bot._parts
        assert parts is not None
        await app_home.publish(parts, PRIYA, seen=old)
        assert "hash_conflict" in str([c["response"] for c in here.ws.calls if c["method"] == "views.publish"])
        await home_of(here, PRIYA, "second?")

    play(home, story)


# --- decisions in modals ---


def test_the_modal_shows_everything_side_by_side_and_approves(home: Path) -> None:
    async def story(here: Office) -> None:
        row = contradicting(here.database)
        view = await opened(here, PRIYA, "To review: 1")
        await pressed(here, PRIYA, view, "look")
        modal = await here.modal(PRIYA)
        shown = json.dumps(modal["blocks"], ensure_ascii=False)
        assert "Asked 2 times by 2 people" in shown
        assert "Written by <@U0SAM>" in shown
        assert "Correction 1, which this one contradicts" in shown
        assert "written by <@U0ANN>" in shown
        assert "unseen wordings right 4 of 5" in shown
        assert "The bot said*\\nTwenty-eight days." in shown
        assert "<https://handbook.example/leave|Leave &gt; Annual leave>" in shown
        assert "twenty-eight days of annual leave a year" in shown
        assert (await here.submit(PRIYA, decision="replace", answer="Thirty days, since May."))["ok"]
        await here.wait(SAM, "D0SAM", "was approved")
        decided = corrections.get(here.database, row.id)
        assert (decided.status, decided.answer) == (Status.APPROVED, "Thirty days, since May.")
        assert corrections.get(here.database, 1).status is Status.WITHDRAWN
        await home_of(here, PRIYA, "Nothing waits for you")

    play(home, story)


def test_the_older_of_two_rivals_can_be_approved_too(home: Path) -> None:
    async def story(here: Office) -> None:
        old = corrections.propose(here.database, question=LEAVE, answer="28 days.", author=SAM)
        new = corrections.propose(here.database, question="How much leave?", answer="<30> " * 599, author=SAM)
        evidence.note_conflicts(here.database, new.id, [(old.id, "contradiction")])
        await pressed(here, PRIYA, await opened(here, PRIYA, "Contradicts correction 2"), "look")
        assert "Correction 2, which this one contradicts" in str(await here.modal(PRIYA))
        corrections.approve(here.database, new.id, "U0OTHER")
        assert (await here.submit(PRIYA, decision="approve", answer="27 days."))["ok"]
        modal = await here.modal(PRIYA)
        assert "&lt;30&gt;" in modal["blocks"][0]["text"]["text"]
        assert "27 days." in str(modal)
        assert (await here.submit(PRIYA, decision="replace"))["ok"]
        await home_of(here, PRIYA, "Nothing waits for you")
        assert [corrections.get(here.database, n).status for n in (1, 2)] == [Status.APPROVED, Status.WITHDRAWN]

    play(home, story)


def test_a_later_rival_that_was_rejected_stands_against_nothing(home: Path) -> None:
    database = Database(home)
    old = corrections.propose(database, question=LEAVE, answer="28 days.", author=SAM)
    new = corrections.propose(database, question=LEAVE, answer="30 days.", author=SAM)
    evidence.note_conflicts(database, new.id, [(old.id, "contradiction")])
    assert evidence.conflicts_of(database, old.id) == [(new.id, "contradiction")]
    corrections.reject(database, new.id, PRIYA)
    assert evidence.conflicts_of(database, old.id) == []
    assert evidence.conflicts_of(database, new.id) == [(old.id, "contradiction")]


def test_a_rejection_needs_a_reason_and_an_own_correction_another_reviewer(home: Path) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=PRIYA)
        view = await opened(here, PRIYA, "To review: 1")
        await pressed(here, PRIYA, view, "look")
        refused = await here.submit(PRIYA, decision="reject")
        assert refused["errors"] == {"reason": "Please give a reason; the author reads it."}
        refused = await here.submit(PRIYA, decision="approve")
        assert "You wrote correction 1" in refused["errors"]["decision"]
        refused = await here.submit(PRIYA, decision="save", answer="password: hunter2-Blue")
        assert "secret" in refused["errors"]["answer"]
        assert (await here.submit(PRIYA, decision="save", answer="31 days."))["ok"]
        await home_of(here, PRIYA, "31 days.")
        assert corrections.get(here.database, 1).status is Status.PENDING

    play(home, story)


def test_an_approved_answer_is_withdrawn_with_a_reason(home: Path) -> None:
    async def story(here: Office) -> None:
        row = corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        corrections.approve(here.database, row.id, PRIYA)
        view = await opened(here, PRIYA, "Approved answers: 1")
        await pressed(here, PRIYA, view, "look")
        assert (await here.modal(PRIYA))["submit"]["text"] == "Withdraw"
        assert (await here.submit(PRIYA, reason="The page says 28."))["ok"]
        await here.wait(SAM, "D0SAM", "was withdrawn. Reason: The page says 28.")
        await home_of(here, PRIYA, "*Approved answers*")
        assert corrections.get(here.database, row.id).status is Status.WITHDRAWN

    play(home, story)


@pytest.mark.parametrize("action", ["edit", "look"])
def test_an_edit_in_between_is_shown_and_nothing_typed_is_lost(home: Path, action: str) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        view = await opened(here, PRIYA, "To review: 1")
        await pressed(here, PRIYA, view, action)
        await here.modal(PRIYA)
        corrections.edit(here.database, 1, "U0OTHER", answer="29 days.")
        typed = {"answer": "31 days."} | ({"decision": "approve"} if action == "look" else {})
        assert (await here.submit(PRIYA, **typed))["ok"]
        modal = str(await here.modal(PRIYA))
        assert "Somebody changed correction 1 meanwhile" in modal
        assert "29 days." in modal
        assert "31 days." in modal
        assert corrections.get(here.database, 1).answer == "29 days."
        assert (await here.submit(PRIYA, **typed))["ok"]
        await here.settle()
        assert corrections.get(here.database, 1).answer == "31 days."

    play(home, story)


@pytest.mark.parametrize("action", ["edit", "reject", "look"])
def test_a_decision_in_between_gives_a_sentence_and_keeps_what_was_typed(home: Path, action: str) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        view = await opened(here, PRIYA, "To review: 1")
        await pressed(here, PRIYA, view, action)
        await here.modal(PRIYA)
        corrections.approve(here.database, 1, "U0OTHER")
        typed = {"reject": {"reason": "No, because."}, "edit": {"answer": "No, because."}}
        await here.submit(PRIYA, **typed.get(action, {"decision": "reject", "reason": "No, because."}))
        modal = await here.modal(PRIYA)
        assert "Correction 1 is approved already." in str(modal)
        assert "No, because." in str(modal)
        assert not modal["submit"]
        assert corrections.get(here.database, 1).reviewer == "U0OTHER"

    play(home, story)


def test_a_quick_approval_of_a_text_that_changed_is_refused(home: Path) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        view = await opened(here, PRIYA, "To review: 1")
        corrections.edit(here.database, 1, "U0OTHER", answer="Sixty days.")
        await pressed(here, PRIYA, view, "approve")
        assert "Somebody changed correction 1 meanwhile" in str(await here.modal(PRIYA))
        await home_of(here, PRIYA, "Sixty days.")
        assert corrections.get(here.database, 1).status is Status.PENDING

    play(home, story)


def test_a_right_lost_while_a_modal_is_open_is_lost(home: Path) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        view = await opened(here, PRIYA, "To review: 1")
        await pressed(here, PRIYA, view, "look")
        await here.modal(PRIYA)
        parts = here.bot._parts
        assert parts is not None
        parts.people.settings = settings.load({}, overrides={"ADMINS": "U0OTHER"})
        refused = await here.submit(PRIYA, decision="approve")
        assert "Only reviewers can decide" in refused["errors"]["decision"]
        assert corrections.get(here.database, 1).status is Status.PENDING

    play(home, story)


# --- rolling back ---


def test_rolling_back_asks_first_and_is_told(home: Path) -> None:
    async def story(here: Office) -> None:
        two_models(here.database)
        view = await opened(here, PRIYA, "Roll back")
        lever = next(e for b in view["blocks"] if b["type"] == "actions" for e in b["elements"] if "confirm" in e)
        assert "v1 will serve again and v2 no longer" in lever["confirm"]["text"]["text"]
        await pressed(here, PRIYA, view, "rollback")
        await here.wait(PRIYA, REVIEW, "<@U0PRIYA> rolled back. Model v1 serves again; v2 was taken out.")
        assert registry.champion(here.database) == "v1"
        assert "Roll back" not in str(await home_of(here, PRIYA, "changing to v1"))

    play(home, story)


def test_a_model_that_was_put_in_place_meanwhile_is_not_rolled_back(home: Path) -> None:
    async def story(here: Office) -> None:
        two_models(here.database)
        view = await opened(here, PRIYA, "Roll back")
        registry.register(here.database, model("v3", "v2"))
        registry.promote(here.database, "v3")
        await pressed(here, PRIYA, view, "rollback")
        assert "Model v3 was put in place meanwhile" in str(await here.modal(PRIYA))
        await home_of(here, PRIYA, "changing to v3")
        assert registry.champion(here.database) == "v3"

    play(home, story)


def test_only_admins_roll_back(home: Path) -> None:
    async def story(here: Office) -> None:
        two_models(here.database)
        view = await opened(here, PRIYA, "Roll back")
        parts = here.bot._parts
        assert parts is not None
        parts.people.settings = settings.load({}, overrides={"ADMINS": ""})
        await pressed(here, PRIYA, view, "rollback")
        assert "Only reviewers can decide" in str(await here.modal(PRIYA))
        assert registry.champion(here.database) == "v2"

    play(home, story)


# --- who is who ---


class Slack:
    """Answers who somebody is, and counts how often it was asked."""

    def __init__(self) -> None:
        self.group = ["U0PRIYA"]
        self.person: dict[str, Any] = {"team_id": "T1"}
        self.broken = False
        self.asked: list[str] = []

    async def auth_test(self) -> dict[str, Any]:
        return {"team_id": "T1", "enterprise_id": None}

    async def users_info(self, *, user: str) -> dict[str, Any]:
        return {"user": self.told(user, self.person)}

    async def usergroups_users_list(self, *, usergroup: str) -> dict[str, Any]:
        return {"users": self.told(usergroup, list(self.group))}

    def told(self, name: str, answer: Any) -> Any:
        self.asked.append(name)
        if self.broken:
            raise ConnectionError("Slack is away")
        return answer


def people(slack: Slack, clock: list[float], admins: str = "U0ANN, S0ADMINS") -> People:
    return People(slack, settings.load({}, overrides={"ADMINS": admins}), clock=lambda: clock[0])


def test_an_admin_is_named_or_in_a_named_group_and_a_right_ends_within_half_a_minute() -> None:
    async def story() -> None:
        slack, clock = Slack(), [0.0]
        who = people(slack, clock)
        assert await who.is_admin("U0ANN")
        assert slack.asked == []
        assert await who.is_admin("U0PRIYA")
        assert not await who.is_admin("U0SAM")
        assert slack.asked == ["S0ADMINS"]
        slack.group = []
        clock[0] = 31.0
        assert not await who.is_admin("U0PRIYA")

    asyncio.run(story())


def test_nobody_is_an_admin_while_slack_cannot_tell_and_failures_are_not_remembered() -> None:
    async def story() -> None:
        slack = Slack()
        who = people(slack, [0.0])
        slack.broken = True
        assert not await who.is_admin("U0PRIYA")
        with pytest.raises(UserError, match="could not find out"):
            await who.must_be_member("U0SAM")
        slack.broken = False
        assert await who.is_admin("U0PRIYA")
        await who.must_be_member("U0SAM")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("person", "outside"),
    [
        ({"team_id": "T1"}, False),
        ({"team_id": "T1", "is_restricted": True}, True),
        ({"team_id": "T1", "is_ultra_restricted": True}, True),
        ({"team_id": "T1", "deleted": True}, True),
        ({"team_id": "T9", "is_stranger": False}, True),
        ({"team_id": "T1", "is_stranger": True}, True),
        ({"team_id": "T9", "enterprise_user": {"enterprise_id": "E1"}}, False),
        ({"team_id": "T9", "enterprise_user": {"enterprise_id": "E2"}}, True),
    ],
)
def test_guests_and_other_organisations_are_outsiders(person: dict[str, Any], outside: bool) -> None:
    assert is_outsider(person, {"team_id": "T1", "enterprise_id": "E1"}) is outside


def test_guests_are_let_in_only_when_the_settings_say_so() -> None:
    async def story() -> None:
        slack = Slack()
        slack.person = {"team_id": "T1", "is_restricted": True}
        with pytest.raises(NotAllowedError, match="members of this workspace"):
            await people(slack, [0.0]).must_be_member("U0GUEST")
        open_doors = settings.load({}, overrides={"GUESTS": "allow"})
        await People(slack, open_doors).must_be_member("U0GUEST")

    asyncio.run(story())


def test_a_user_group_makes_admins_in_slack(home: Path) -> None:
    async def story(here: Office) -> None:
        corrections.propose(here.database, question="leave?", answer="30 days.", author=SAM)
        view = await opened(here, PRIYA, "To review: 1")
        await pressed(here, PRIYA, view, "approve")
        await home_of(here, PRIYA, "Nothing waits for you")
        await here.do("open_home", SAM)
        assert "To review" not in str(await home_of(here, SAM, "My corrections"))

    play(home, story, ADMINS="S0ADMINS")


# --- settings of channels ---


async def set_channel(here: Office, **values: Any) -> Any:
    """Change the settings of #help on App Home."""
    view = await opened(here, PRIYA, "Channel settings")
    await pressed(here, PRIYA, view, "channel_settings")
    modal = await here.modal(PRIYA)
    await pressed(here, PRIYA, modal, "channel_chosen", value=HELP)

    async def chosen() -> Any:
        shown = (await here.state(PRIYA))["modal"]
        return shown if shown and shown["submit"] else None

    modal = await until(chosen, "the settings of the channel")
    filled = {f"{name}:{HELP}": {"value": value} for name, value in values.items()}
    return await here.do("submit", PRIYA, view_id=modal["id"], values=filled)


def test_settings_are_chosen_stored_and_told(home: Path) -> None:
    async def story(here: Office) -> None:
        done = await set_channel(
            here, switches=["mention_only", "private_answers"], allowed=[SAM, PRIYA], person=PRIYA
        )
        assert done["ok"]
        told = await here.wait(PRIYA, REVIEW, "<@U0PRIYA> set <#C0HELP>")
        assert "only when mentioned, only for the asker, 2 people may ask, ask <@U0PRIYA>" in words_of(told)
        stored = channels.settings_of(here.database, HELP)
        assert (stored.mention_only, stored.questions_only, stored.private_answers) == (True, False, True)
        assert (stored.allowed, stored.person, stored.changed_by) == ((PRIYA, SAM), PRIYA, PRIYA)
        assert (await set_channel(here, switches=[]))["ok"]
        await until(lambda: revised(here, 2), "the second change")
        stored = channels.settings_of(here.database, HELP)
        assert (stored.mention_only, stored.allowed) == (False, (PRIYA, SAM))

    play(home, story)


async def revised(here: Office, revision: int) -> bool:
    return channels.settings_of(here.database, HELP).revision == revision


def test_settings_that_changed_meanwhile_are_not_overwritten(home: Path) -> None:
    async def story(here: Office) -> None:
        view = await opened(here, PRIYA, "Channel settings")
        await pressed(here, PRIYA, view, "channel_settings")
        await pressed(here, PRIYA, await here.modal(PRIYA), "channel_chosen", value=HELP)

        async def chosen() -> Any:
            shown = (await here.state(PRIYA))["modal"]
            return shown if shown["submit"] else None

        modal = await until(chosen, "the settings of the channel")
        channels.change(here.database, ChannelSettings(HELP, questions_only=True), "U0OTHER")
        refused = await here.do("submit", PRIYA, view_id=modal["id"], values={})
        assert "Somebody else changed the settings" in refused["errors"][f"switches:{HELP}"]
        assert channels.settings_of(here.database, HELP).changed_by == "U0OTHER"

    play(home, story)


def test_only_admins_open_and_store_settings(home: Path) -> None:
    async def story(here: Office) -> None:
        view = await opened(here, PRIYA, "Channel settings")
        parts = here.bot._parts
        assert parts is not None
        parts.people.settings = settings.load({}, overrides={"ADMINS": ""})
        await pressed(here, PRIYA, view, "channel_settings")
        assert "Only reviewers" in str(await here.modal(PRIYA))

    play(home, story)


def in_help(here: Office, **change: Any) -> None:
    """Settings of #help, as an admin stored them."""
    channels.change(here.database, ChannelSettings(HELP, **change), PRIYA)


def test_mention_only_leaves_follow_ups_alone(home: Path) -> None:
    async def story(here: Office) -> None:
        in_help(here, mention_only=True)
        ts = await here.write(SAM, HELP, "<@U0BOT> leave?")
        await here.wait(SAM, HELP, "Twenty-eight")
        await here.write(SAM, HELP, "and in the first year?", thread_ts=ts)
        await here.settle()
        await here.write(SAM, HELP, "<@U0BOT> who waters the plants?", thread_ts=ts)
        await until(lambda: heard(here, 2), "the mention")
        await here.settle()
        assert [a.text for a in here.desk.asked] == ["leave?", "who waters the plants?"]

    play(home, story)


async def heard(here: Office, count: int) -> bool:
    return len(here.desk.asked) >= count


def test_questions_only_refuses_a_remark_in_words_for_its_author_alone(home: Path) -> None:
    async def story(here: Office) -> None:
        in_help(here, questions_only=True)
        await here.write(SAM, HELP, "<@U0BOT> the printer is on fire")
        told = await here.wait(SAM, HELP, "I answer questions only")
        assert told["ephemeral"]
        await here.write(SAM, HELP, "<@U0BOT> who mends printers?")
        await here.wait(SAM, HELP, "Twenty-eight")
        assert [a.text for a in here.desk.asked] == ["who mends printers?"]

    play(home, story)


def test_where_sources_are_required_documents_answer(home: Path) -> None:
    async def story(here: Office) -> None:
        in_help(here, citations_required=True)
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        await here.wait(SAM, HELP, "Twenty-eight")
        await here.do("command", SAM, channel=HELP, command="/ask", text="leave?")
        await here.write(SAM, "D0SAM", "leave?")
        await until(lambda: heard(here, 3), "all three questions")
        assert [(a.channel, a.route) for a in here.desk.asked if a.channel == HELP] == [(HELP, "documents")] * 2
        assert [a.route for a in here.desk.asked if a.channel == "D0SAM"] == ["auto"]

    play(home, story)


def test_private_answers_are_seen_by_the_asker_until_shared(home: Path) -> None:
    async def story(here: Office) -> None:
        in_help(here, private_answers=True)
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        answer = await here.wait(SAM, HELP, "Twenty-eight")
        assert answer["ephemeral"]
        assert not [m for m in await here.messages(PRIYA, HELP) if "Twenty-eight" in words_of(m)]
        await here.click(SAM, HELP, answer["ts"], "share")
        await here.wait(PRIYA, HELP, "Twenty-eight")

    play(home, story)


def test_a_button_answers_its_presser_alone_where_answers_are_private(home: Path) -> None:
    async def story(here: Office) -> None:
        here.desk.script = [{"taught_question": "Leave?", "route": Route.APPROVED}]
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        answer = await here.wait(PRIYA, HELP, "Twenty-eight")
        in_help(here, private_answers=True)
        for user in (PRIYA, SAM):
            here.desk.script = [{"text": f"Found for {user}."}]
            await here.click(user, HELP, answer["ts"], "not_mine")
            found = await here.wait(user, HELP, f"Found for {user}.")
            assert found["ephemeral"]
            assert "Share in the channel" in words_of(found)
        assert len(here.calls("chat.postMessage")) == 1

    play(home, story)


def test_a_button_answers_only_people_who_may_ask(home: Path) -> None:
    async def story(here: Office) -> None:
        none = {"route": Route.ABSTAINED, "style": Style.NONE, "suggestions": (Suggestion(1, "Leave?"),)}
        here.desk.script = [none, {"text": "28 days."}]
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        answer = await here.wait(SAM, HELP, "Did you mean")
        in_help(here, allowed=(PRIYA,))
        await here.click(SAM, HELP, answer["ts"], "meant", "1:1")
        assert (await here.wait(SAM, HELP, "whom an admin has listed"))["ephemeral"]
        await here.click(PRIYA, HELP, answer["ts"], "meant", "1:1")
        await here.wait(PRIYA, HELP, "28 days.")
        assert [a.user for a in here.desk.asked] == [SAM, PRIYA]

    play(home, story)


def test_only_listed_people_are_answered_in_a_channel_and_everybody_directly(home: Path) -> None:
    async def story(here: Office) -> None:
        in_help(here, allowed=(PRIYA,))
        await here.write(SAM, HELP, "<@U0BOT> leave?")
        assert (await here.wait(SAM, HELP, "whom an admin has listed"))["ephemeral"]
        await here.do("command", SAM, channel=HELP, command="/ask", text="leave?")
        await here.settle()
        await here.write(PRIYA, HELP, "<@U0BOT> leave?")
        await here.wait(PRIYA, HELP, "Twenty-eight")
        await here.write(SAM, "D0SAM", "leave?")
        await here.wait(SAM, "D0SAM", "Twenty-eight")
        assert [a.user for a in here.desk.asked] == [PRIYA, SAM]

    play(home, story)


@pytest.mark.parametrize(
    "who", [{"is_restricted": True}, {"is_restricted": True, "is_ultra_restricted": True}, {"team": "T0OTHER"}]
)
def test_guests_and_other_organisations_are_refused_everywhere(home: Path, who: dict[str, Any]) -> None:
    async def story(here: Office) -> None:
        here.ws.state.add_person(Person("U0GUEST", "guest", "Guest", "Visitor", **who), [HELP])
        await here.write("U0GUEST", HELP, "<@U0BOT> leave?")
        assert (await here.wait("U0GUEST", HELP, "members of this workspace only"))["ephemeral"]
        await here.write("U0GUEST", "D0GUEST", "leave?")
        await here.wait("U0GUEST", "D0GUEST", "members of this workspace only")
        await here.do("command", "U0GUEST", channel=HELP, command="/ask", text="leave?")
        await here.do("open_home", "U0GUEST")
        await here.settle()
        assert here.desk.asked == []
        assert "My corrections" not in str((await here.state("U0GUEST"))["home"])

    play(home, story)


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("how many days of leave", True),
        ("Leave in the first year?", True),
        ("What's the wifi", True),
        ("The printer: see this page (https://x.example/?n=1)", False),
        ("thanks, that helped", False),
        ("the printer is on fire", False),
        ("", False),
    ],
)
def test_questions_are_told_from_remarks(text: str, asks: bool) -> None:
    assert bot_channels.is_question(text) is asks


def test_a_list_of_people_and_questions_only_refuse_in_words() -> None:
    listed = ChannelSettings(HELP, allowed=(PRIYA,), questions_only=True)
    with pytest.raises(UserError, match="whom an admin has listed"):
        bot_channels.refuse_by(listed, SAM, "leave?")
    with pytest.raises(UserError, match="questions only"):
        bot_channels.refuse_by(listed, PRIYA, "thanks")
    bot_channels.refuse_by(listed, PRIYA, "leave?")


# --- storage ---


def test_settings_of_an_unknown_channel_are_the_defaults_and_two_changes_conflict(home: Path) -> None:
    database = Database(home)
    assert channels.settings_of(database, "C9") == ChannelSettings("C9")
    first = channels.change(database, ChannelSettings("C9", mention_only=True), PRIYA)
    assert first.revision == 1
    with pytest.raises(ConflictError, match="Somebody else"):
        channels.change(database, ChannelSettings("C9"), SAM)
    with pytest.raises(UserError, match="at most 500"):
        channels.change(database, replace(first, allowed=tuple(f"U{i}" for i in range(501))), SAM)
    assert channels.configured(database) == (first,)


def test_a_page_of_a_private_channel_stays_out_of_a_public_review(home: Path) -> None:
    database = Database(home)
    page(database, "The secret plan has twenty-eight days.", scope="C0PRIVATE")
    answer = asked(database, LEAVE, sources=(Source("Leave", "Annual leave", "", 0.9),))
    row = corrections.propose(database, question=LEAVE, answer="30.", author=SAM, answer_id=answer.id)
    assert evidence.gather(database, row).page is None
    page(database, "Twenty-eight days for everybody.")
    found = evidence.gather(database, row).page
    assert found is not None
    assert found.text == "Twenty-eight days for everybody."


def test_how_often_counts_the_same_words_and_what_the_correction_answered(home: Path) -> None:
    database = Database(home)
    row = corrections.propose(database, question=LEAVE, answer="30.", author=SAM)
    assert evidence.asked(database, row) == Asked(0, 0, "")
    asked(database, f"  {LEAVE.upper()} ")
    asked(database, "leave days?", user=PRIYA, correction_id=row.id)
    asked(database, "something else?")
    found = evidence.asked(database, row)
    assert (found.times, found.people) == (2, 2)
    assert found.last > "2026"


# --- whatever text comes ---

HOSTILE = st.text(st.sampled_from("<>&|*`_!@#\n -.;/:aé😀\u202e\u0000\ud800"), max_size=120) | st.sampled_from(
    ["<!channel> <@U0EVIL> <https://evil.example|x>", "&" * 3000, "x" * 3000, "word " * 600, "<" * 3000, ""]
)
ROWS = st.builds(
    Correction,
    id=st.integers(1, 9999),
    question=HOSTILE.map(lambda t: t or "x"),
    answer=HOSTILE.map(lambda t: t or "x"),
    author=st.sampled_from(["U0SAM", "cli", "<!channel>"]),
    source=HOSTILE,
    scope=st.just("workspace"),
    status=st.sampled_from(Status),
    created_at=st.just(""),
    reviewer=st.sampled_from(["U0PRIYA", "ann<b>"]),
    reason=HOSTILE,
)
PROOFS = st.none() | st.fixed_dictionaries(
    {"version": HOSTILE, "memorised": st.booleans(), "unseen": st.just([1, 2]) | HOSTILE}
)
PASSAGES = st.none() | st.builds(
    Passage, st.just(1), st.just(1), HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.just("workspace")
)
EVIDENCE = st.builds(
    Evidence,
    asked=st.builds(Asked, st.integers(0, 3), st.integers(0, 3), st.just("2026-11-20")),
    given=st.none() | HOSTILE.map(lambda t: Answer(1, t, Route.RETRIEVED, Style.QUOTED, 0.5, "v")),
    page=PASSAGES,
    proof=PROOFS,
)
DOSSIERS = st.builds(
    Dossier,
    row=ROWS,
    evidence=EVIDENCE,
    rivals=st.lists(
        st.builds(Rival, st.sampled_from(["contradiction", "duplicate"]), ROWS, EVIDENCE), max_size=4
    ).map(tuple),
)


@hypothesis(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(DOSSIERS, HOSTILE)
def test_review_modals_fit_and_escape_whatever_comes(dossier: Dossier, typed: str) -> None:
    form = {"question": typed, "answer": typed, "reason": typed}
    told = {"value": "[1, []]", "channel": "C0HELP", "thread": "1.1"}
    for view in (review_views.look_view, review_views.edit_view, review_views.reject_view):
        shown = view(dossier, told, warning=f"Somebody changed it: {typed}", form=form)
        assert rules.view_problems(shown) == []
        assert "<!channel>" not in "".join(mrkdwn(shown))
        assert "<@U0EVIL>" not in "".join(mrkdwn(shown))


@hypothesis(max_examples=20)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.sampled_from([(), (SAM,), (SAM, PRIYA)]))
def test_the_form_of_a_channel_gives_back_what_it_shows(on: list[bool], allowed: tuple[str, ...]) -> None:
    given_ = ChannelSettings(HELP, *on, allowed=allowed, person=PRIYA if on[0] else "", revision=3)
    view = bot_channels.form(given_)
    assert rules.view_problems(view) == []
    chosen = [n for n in bot_channels.SWITCHES if getattr(given_, n)]
    state = {
        f"switches:{HELP}": {"value": {"selected_options": [{"value": n} for n in chosen]}},
        f"allowed:{HELP}": {"value": {"selected_users": list(allowed)}},
        f"person:{HELP}": {"value": {"selected_user": given_.person or None}},
    }
    assert bot_channels.read(json.loads(view["private_metadata"]), state) == given_


def mrkdwn(node: Any) -> list[str]:
    """Every formatted text in a view."""
    if isinstance(node, list):
        return [text for item in node for text in mrkdwn(item)]
    if not isinstance(node, dict):
        return []
    own = [node["text"]] if node.get("type") == "mrkdwn" else []
    return own + [text for value in node.values() for text in mrkdwn(value)]
