"""What is told after a night: figures from stored rows, fates, the reports, the chart, and how they reach Slack."""

import json
import re
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from slack_office import PRIYA, REVIEW, SAM, Office, play, until

from learning import admission, report
from storage import channels, conversations, corrections, health, nights, registry
from storage.audit import ERASED
from storage.cli import main
from storage.database import Database, now
from storage.domain import Answer, Memory, ModelVersion, Route, Style
from storage.health import Day, Fate

TODAY = datetime.now(UTC).date()
GATES = [
    {"name": "new_facts", "rule": "at_least", "threshold": 0.5, "value": 0.9, "passed": True, "reason": "r"},
    {"name": "old_facts", "rule": "at_least", "threshold": 0.95, "value": 0.5, "passed": False, "reason": "r"},
]


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    opened = Database(home)
    yield opened
    opened.close()


def asked(database: Database, route: Route = Route.RETRIEVED, ms: float = 100.0, version: str = "v1") -> int:
    """A question of today with its answer; the answer's id."""
    question = conversations.ask(database, "How long is leave?", user=SAM, channel="C0HELP", thread="")
    given = Answer(question.id, "28 days.", route, Style.QUOTED, 0.9, version, timings={"total_ms": ms})
    return conversations.answer(database, given)


def taught(database: Database, count: int) -> list[int]:
    """Approved corrections."""
    rows = [
        corrections.propose(database, question=f"Question {i}?", answer=f"Answer {i}.", author=SAM)
        for i in range(count)
    ]
    return [corrections.approve(database, row.id, PRIYA).id for row in rows]


def published(database: Database, version: str, parent: str, memorised: dict[int, bool]) -> None:
    """A version with its proofs."""
    registry.register(database, ModelVersion(version, parent, now(), "", "", "", "", 0, (), {}))
    proofs = tuple(
        Memory(version, i, known, {"taught": known, "unseen": [4 if known else 0, 5]})
        for i, known in memorised.items()
    )
    registry.remember(database, proofs)


def night(database: Database, outcome: str = "promoted", **change: Any) -> dict[str, Any]:
    """A night that ended; its report."""
    run = nights.begin(database)
    told = {"outcome": outcome, "version": "v2", "parent": "v1", "reason": "every gate passed", **change}
    full = {"gates": GATES, "corrections": [], **told}
    kept = {k: told[k] for k in ("outcome", "version", "parent", "reason")}
    nights.finish(database, run, **kept, report=full)
    return full


def ended(database: Database) -> Any:
    found = nights.latest(database)
    assert found is not None
    return found


# --- figures ---


def test_a_day_counts_questions_votes_and_time(database: Database) -> None:
    published(database, "v1", "", {})
    answers = [asked(database, ms=float(ms)) for ms in range(1, 21)]
    asked(database, Route.ABSTAINED)
    for answer, vote, reason in ((0, 1, ""), (1, 1, ""), (2, -1, "wrong"), (3, -1, "incomplete")):
        conversations.vote(database, answers[answer], PRIYA, vote, reason=reason)
    day = health.week(database)[-1]
    assert (day.date, day.asked, day.answered) == (TODAY.isoformat(), 21, 20)
    assert day.coverage == pytest.approx(20 / 21)
    assert (day.up, day.down, day.wrong) == (2, 2, 1)
    assert day.wrong_rate == 0.25
    assert day.satisfaction == 3.0
    assert day.p95_ms == 20.0


def test_a_day_without_anything_has_no_figures_and_the_week_has_seven_days(database: Database) -> None:
    days = health.week(database, until=date(2026, 3, 2))
    assert [d.date for d in days] == [
        *("2026-02-24", "2026-02-25", "2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02")
    ]
    assert {(d.coverage, d.wrong_rate, d.satisfaction, d.p95_ms, d.recall) for d in days} == {(None,) * 5}
    assert health.together(days) == Day("2026-02-24 to 2026-03-02")


def test_the_week_adds_up() -> None:
    days = (Day("a", 2, 1, 1, 0, 0, 50.0, 0.5), Day("b", 2, 2, 0, 1, 1, 20.0, None))
    assert health.together(days) == Day("a to b", 4, 3, 1, 1, 1, 50.0, 0.5)


def test_recall_counts_taught_and_unseen_wordings_of_the_serving_model(database: Database) -> None:
    first, second = taught(database, 2)
    published(database, "v1", "", {first: True, second: False})
    asked(database)
    assert health.week(database)[-1].recall == pytest.approx(5 / 12)
    odd = Memory("v1", first, True, {"something": "else"})
    assert health.recall([odd]) == 1.0
    assert health.recall([]) is None


def test_percentiles_are_nearest_rank() -> None:
    assert health.percentile([], 0.95) is None
    assert health.percentile([7.0], 0.95) == 7.0
    assert health.percentile([float(i) for i in range(1, 101)], 0.95) == 95.0


# --- fates ---


def test_every_correction_has_its_fate(database: Database) -> None:
    new, kept, failed, lost, withdrawn = taught(database, 5)
    published(database, "v1", "", {kept: True, lost: True, withdrawn: True})
    corrections.withdraw(database, withdrawn, PRIYA)
    results = {new: True, kept: True, failed: False, lost: False}
    night(database, corrections=[{"id": i, "memorised": known} for i, known in results.items()])
    fates = {c.correction.id: c.fate for c in health.fates(database, ended(database))}
    assert fates == {
        new: Fate.LEARNT,
        kept: Fate.KEPT,
        failed: Fate.NOT_LEARNT,
        lost: Fate.LOST,
        withdrawn: Fate.FORGOTTEN,
    }


def test_a_candidate_that_was_kept_out_changed_nothing(database: Database) -> None:
    (new,) = taught(database, 1)
    night(database, "kept_champion", corrections=[{"id": new, "memorised": True}, {"id": 999, "memorised": True}])
    assert [(c.correction.id, c.fate) for c in health.fates(database, ended(database))] == [(new, Fate.HELD_BACK)]


def test_a_night_that_failed_has_no_fates(database: Database) -> None:
    run = nights.begin(database)
    nights.finish(database, run, outcome="failed", version="", parent="", reason="disk full", report={})
    assert health.fates(database, ended(database)) == ()
    (alert,) = nights.owed(database)
    assert (alert.kind, alert.user) == ("alert", "")
    assert "disk full" in alert.payload["text"]


# --- reports ---


def test_the_morning_report_says_outcome_gates_fates_and_figures(database: Database) -> None:
    new, failed = taught(database, 2)
    asked(database)
    night(database, corrections=[{"id": new, "memorised": True}, {"id": failed, "memorised": False}])
    told = report.morning(database)
    assert told.text.startswith("## A new model serves: v2\n")
    assert "**Gates: 1 of 2 passed**\n- **FAILED** old_facts: 0.5 (must be at least 0.95)" in told.text
    assert "**Corrections: 1 of 2 known by heart**" in told.text
    assert "“Question 1?”: not learnt; it goes on as an approved answer" in told.text
    assert "1 question asked, coverage 100%, wrong by votes not measured" in told.text
    assert told.chart is not None
    assert png_size(told.chart)[0] > 1000


def left(reason: str, *ids: int) -> list[dict[str, Any]]:
    """Rows as a night's report has them."""
    return [{"correction_id": i, "reason": reason, "detail": "d", "because_of": None} for i in ids]


def test_the_morning_report_says_what_was_left_out_of_training_and_why(database: Database) -> None:
    ids = taught(database, 14)
    night(database, left_out=left("too_long", *ids[:10]) + left("repeated", ids[10]) + left("private", *ids[11:13]))
    told = report.morning(database, chart=False).text
    assert (
        "**Left out of training: 11**, answered from the approved text all the same\n"
        "- 10 too long to be learnt by heart: 1, 2, 3, 4, 5, 6, 7, 8 and 2 more\n"
        "- 1 saying the same as another one: 11\n\n"
    ) in told
    corrections.withdraw(database, ids[0], PRIYA)
    told = report.morning(database, chart=False).text
    assert "11**, 10 of them answered from the approved text all the same; the others are out of date," in told


def test_rows_of_private_channels_worry_nobody_in_the_morning(database: Database) -> None:
    night(database, left_out=left("private", *taught(database, 2)))
    assert "Left out" not in report.morning(database, chart=False).text


def test_every_reason_to_leave_something_out_has_its_words(database: Database) -> None:
    reasons = set(re.findall(r"""LeftOut\([\w.\[\]"]+, "(\w+)", """, Path(admission.__file__).read_text()))
    assert reasons == {*report.LEFT_OUT, report.PRIVATE}


def test_a_chart_that_cannot_be_drawn_costs_nothing_but_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(report, "paint", refuse)
    night(database)
    told = report.morning(database)
    assert told.chart is None
    assert "A new model serves" in told.text


def test_a_report_that_cannot_be_made_is_said_in_the_nights_own_words(database: Database) -> None:
    full = night(database, gates=[{"name": "odd"}])
    report.leave(database, full, "A new model serves: every gate passed.")
    notice = nights.owed(database)[0]
    assert notice.payload["text"] == "A new model serves: every gate passed."
    assert notice.payload["chart"] == ""


def test_before_the_first_night_there_is_a_report_too(database: Database) -> None:
    told = report.morning(database, chart=False)
    assert told.text.startswith("## No night has run yet")
    assert told.as_json()["night"] is None


def test_the_weekly_report_counts_nights_reviews_and_what_was_not_known(database: Database) -> None:
    taught(database, 2)
    night(database)
    night(database, "nothing_to_learn")
    for _ in range(3):
        asked(database, Route.ABSTAINED)
    told = report.weekly(database)
    assert "2 nights: 1 promoted, 1 nothing to learn" in told.text
    assert "Corrections: 2 proposed, 2 approved" in told.text
    assert "“How long is leave?”: 3 times" in told.text
    assert told.figures["week"]["coverage"] == 0.0
    assert told.chart is not None


def test_the_weekly_report_quotes_nothing_private_or_erased_and_counts_it(database: Database) -> None:
    channels.note_private(database, "C0BOARD")
    corrections.propose(database, question="Who?", answer="We.", author=SAM, scope="C0TEAM")
    for channel in ("D0SAM", "G0OLD", "C0BOARD", "C0TEAM", "C0HELP"):
        question = conversations.ask(database, f"What of {channel}?", user=SAM, channel=channel, thread="")
        conversations.answer(database, Answer(question.id, "", Route.ABSTAINED, Style.NONE, 0.1, "v1"))
    asked(database, Route.ABSTAINED)
    assert [row["text"] for row in health.unanswered(database, "2000")] == ["How long is leave?", "What of C0HELP?"]
    database.here.execute("UPDATE questions SET text = ? WHERE channel = 'C0HELP'", [ERASED])
    told = report.weekly(database, chart=False)
    assert told.figures["unanswered"] == []
    assert "Asked and not known" not in told.text
    assert "6 questions asked, coverage 0%" in told.text


def test_a_question_that_was_asked_anew_by_a_press_is_one_question(database: Database) -> None:
    first = conversations.get_answer(database, asked(database, Route.ABSTAINED)).question_id
    assert [row["times"] for row in health.unanswered(database, "2000")] == [1]
    again = conversations.ask(database, "How long is leave?", user=PRIYA, channel="C0HELP", thread="", repeats=first)
    conversations.answer(database, Answer(again.id, "Ask HR.", Route.ABSTAINED, Style.NONE, 0.1, "v1"))
    assert [row["times"] for row in health.unanswered(database, "2000")] == [1], "neither press had an answer"
    conversations.answer(database, Answer(again.id, "28 days.", Route.APPROVED, Style.DIRECT, 0.9, "v1"))
    assert health.unanswered(database, "2000") == []
    today = health.week(database)[-1]
    assert (today.asked, today.answered) == (1, 1)


def test_a_question_whose_answer_was_refused_and_that_has_no_other_is_not_answered(database: Database) -> None:
    first = conversations.get_answer(database, asked(database, Route.APPROVED)).question_id
    again = conversations.ask(database, "How long is leave?", user=PRIYA, channel="C0HELP", thread="", repeats=first)
    conversations.answer(database, Answer(again.id, "I don't know.", Route.ABSTAINED, Style.NONE, 0.1, "v1"))
    assert [(row["times"], row["people"]) for row in health.unanswered(database, "2000")] == [(1, 1)]
    today = health.week(database)[-1]
    assert (today.asked, today.answered) == (1, 0)


def test_the_weekly_report_comes_once_a_week(database: Database) -> None:
    assert not report.weekly_is_due(database)
    full = night(database)
    report.leave(database, full, "")
    assert {n.kind for n in nights.owed(database)} == {"nightly_report"}
    eight_days_ago = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    with database.write() as db:
        db.execute("UPDATE nightly_runs SET started_at = ?", [eight_days_ago])
    report.leave(database, full, "")
    report.leave(database, full, "")
    assert [n.kind for n in nights.owed(database)].count("weekly_report") == 1


def test_charts_do_not_pile_up(database: Database) -> None:
    folder = database.home / "reports"
    folder.mkdir()
    for number in range(70):
        (folder / f"night-{number}.png").write_bytes(b"")
    report.draw(database.home, "night-99", health.week(database), GATES)
    assert len(list(folder.glob("*.png"))) == report.KEPT_CHARTS
    assert (folder / "night-99.png").exists()


def png_size(file: Path) -> tuple[int, int]:
    """Width and height of a PNG in pixels."""
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return int(width), int(height)


# --- the command ---


@pytest.mark.parametrize("options", [[], ["--weekly"]])
def test_the_command_prints_one_object(home: Path, options: list[str]) -> None:
    done = CliRunner().invoke(main, ["--home", str(home), "report", *options, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["kind"] == ("weekly" if options else "morning")
    assert len(told["days"]) == 7
    assert png_size(Path(told["chart"]))
    plain = CliRunner().invoke(main, ["--home", str(home), "report", *options, "--no-chart"])
    assert "Chart:" not in plain.stdout
    assert told["text"] in plain.stdout


# --- on its way to Slack ---


async def delivered(here: Office, words: str) -> Any:
    """A message of the bot in the review channel, with the patience that the courier needs."""
    return await here.wait(PRIYA, REVIEW, words)


async def chart_in(here: Office) -> Any:
    """The file that was posted in the review channel."""

    async def found() -> Any:
        shown = await here.messages(PRIYA, REVIEW)
        return next((f for m in shown for f in m.get("files") or []), None)

    return await until(found, "the chart")


@pytest.mark.slow
def test_the_morning_report_is_posted_with_its_chart(home: Path) -> None:
    async def story(here: Office) -> None:
        full = night(here.database)
        report.leave(here.database, full, "")
        await delivered(here, "*A new model serves: v2*")
        file = await chart_in(here)
        assert file["name"].startswith("night-")
        await here.settle()
        assert nights.owed(here.database) == ()
        assert len(here.calls("files.completeUploadExternal")) == 1

    play(home, story)


@pytest.mark.slow
def test_without_an_upload_the_report_is_text_and_comes_once(home: Path) -> None:
    async def story(here: Office) -> None:
        here.ws.inject("files.getUploadURLExternal", 200, {}, {"ok": False, "error": "missing_scope"})
        full = night(here.database)
        report.leave(here.database, full, "")
        await delivered(here, "The chart could not be uploaded")
        await until(lambda: nothing_owed(here), "the delivery")
        shown = [m for m in await here.messages(PRIYA, REVIEW) if "A new model serves" in str(m)]
        assert len(shown) == 1

    play(home, story)


async def nothing_owed(here: Office) -> bool:
    return nights.owed(here.database) == ()


@pytest.mark.slow
def test_a_failure_is_told_at_once(home: Path) -> None:
    async def story(here: Office) -> None:
        run = nights.begin(here.database)
        nights.finish(here.database, run, outcome="failed", version="", parent="", reason="<disk> full", report={})
        told = await delivered(here, "The night failed")
        assert "&lt;disk&gt; full" in str(told)

    play(home, story)


def test_home_shows_what_changed_last_night(home: Path) -> None:
    async def story(here: Office) -> None:
        new, failed, gone = taught(here.database, 3)
        published(here.database, "v1", "", {gone: True})
        registry.point(here.database, "champion", "v1")
        corrections.withdraw(here.database, gone, PRIYA)
        night(here.database, corrections=[{"id": new, "memorised": True}, {"id": failed, "memorised": False}])
        await here.do("open_home", SAM)

        async def found() -> Any:
            view = str((await here.state(SAM))["home"])
            return view if "What changed last night" in view else None

        view = await until(found, "Sam's Home")
        assert "*Question 0?*: *learnt by heart*" in view
        assert "*Question 1?*: not learnt yet" in view
        assert "*Question 2?*: forgotten" in view

    play(home, story)


def test_a_changed_vote_counts_once(database: Database) -> None:
    published(database, "v1", "", {})
    answer = asked(database)
    conversations.vote(database, answer, SAM, -1, reason="wrong")
    conversations.vote(database, answer, SAM, 1)
    day = health.week(database)[-1]
    assert (day.up, day.down, day.satisfaction) == (1, 0, 5.0)
