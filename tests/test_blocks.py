"""Whatever text comes, every builder gives blocks that Slack takes and in which only we link and mention."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot import answer_views, blocks, home
from bot.blocks import Post
from bot.home import Contents
from bot.teaching import Conflict
from bot.workspace import rules
from storage.domain import Answer, Correction, NightlyRun, Route, Source, Status, Style, Suggestion

HOSTILE = st.text(
    st.sampled_from("<>&|*`_!@#\n -.;/:aé😀\u202e\u0000\ud800"), max_size=200
) | st.sampled_from(
    [
        "<!channel> <@U0EVIL> <https://evil.example|click>",
        "&lt;!here&gt; &amp;lt;",
        "[label](https://evil.example) ![x](https://evil.example/p.png)",
        "```\n<script>\n" * 40,
        "&" * 9000,
        "word " * 4000,
        "<" * 20000,
        "x" * 13000,
        "",
        "   ",
    ]
)
SHORT = HOSTILE.map(lambda text: text[:3000] or "x")
ALLOWED = re.compile(r"<(?:@U0[A-Z]+|#C0[A-Z]+|https://wiki\.example/[^<>|\s]*\|[^<>|]*)>")
ADDRESSES = st.sampled_from(["", "http://evil.example", "javascript:x"]) | HOSTILE.map(
    "https://wiki.example/{}".format
)
SOURCES = st.lists(st.builds(Source, HOSTILE, HOSTILE, ADDRESSES, st.just(0.5)), max_size=8).map(tuple)
ANSWERS = st.builds(
    Answer,
    question_id=st.just(1),
    text=HOSTILE,
    route=st.sampled_from(Route),
    style=st.sampled_from(Style),
    confidence=st.floats(0, 1),
    model_version=HOSTILE,
    taught_question=HOSTILE,
    sources=SOURCES,
    id=st.just(7),
)
CORRECTIONS = st.builds(
    Correction,
    id=st.integers(1, 9999),
    question=SHORT,
    answer=SHORT,
    author=st.sampled_from(["U0SAM", "cli", "<!channel>"]),
    source=HOSTILE | st.just("https://wiki.example/p"),
    scope=st.sampled_from(["workspace", "C0HELP"]),
    status=st.sampled_from(Status),
    created_at=st.just(""),
    supersedes=st.none() | st.integers(1, 99),
    reviewer=st.sampled_from(["", "U0PRIYA", "ann<b>"]),
    reason=HOSTILE,
)
CONFLICTS = st.lists(
    st.builds(Conflict, st.integers(1, 99), SHORT, SHORT, st.sampled_from(["contradiction", "duplicate"])),
    max_size=4,
)
relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def texts(node: Any) -> Iterator[str]:
    """Every formatted text in some blocks."""
    if isinstance(node, dict):
        if node.get("type") == "mrkdwn":
            assert node["verbatim"] is True
            yield node["text"]
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from texts(value)


def must_be_safe(blocks_: Any) -> None:
    """Only our own mentions, and links to stored https pages."""
    for text in texts(blocks_):
        assert not set(ALLOWED.sub("", text)) & set("<>"), text
    json.dumps(blocks_).encode()


def must_fit(post: Post) -> None:
    """A message within Slack's limits."""
    shown = json.loads(json.dumps(post.blocks))
    must_be_safe(shown)
    assert not set(ALLOWED.sub("", post.text)) & set("<>")
    assert 0 < len(post.text) <= 4000
    assert rules.block_problems(shown, "message") == []
    assert rules.text_length(shown) <= 13_200


@relaxed
@given(ANSWERS, HOSTILE | st.just("U0PRIYA"), st.booleans())
def test_answers(answer: Answer, person: str, private: bool) -> None:
    posts = answer_views.answer_posts(answer, ask_a_person=person, private=private)
    for post in posts:
        must_fit(post)
    assert sum("feedback_buttons" in json.dumps(p.blocks) for p in posts) == 1


@relaxed
@given(
    CORRECTIONS,
    CONFLICTS,
    HOSTILE,
    st.dictionaries(HOSTILE, HOSTILE | st.floats(allow_nan=False), max_size=4),
)
def test_review_cards(row: Correction, conflicts: list[Conflict], given_: str, proof: dict[str, Any]) -> None:
    must_fit(blocks.review_card(row, conflicts, given=given_, proof=proof))


@relaxed
@given(CORRECTIONS, HOSTILE)
def test_modals(row: Correction, text: str) -> None:
    metadata = {"answer": 1, "channel": "C0HELP", "thread": "1.1", "scope": "workspace"}
    for view in (
        blocks.correction_modal(question=text, answer=text, metadata=metadata, ask_why=True),
        blocks.correction_modal(question=text, answer="", metadata=metadata, ask_why=False),
        blocks.edit_modal(row, metadata),
        blocks.reject_modal(row, metadata),
        blocks.notice_modal(text or "x"),
    ):
        must_be_safe(view)
        assert rules.view_problems(view) == []


@relaxed
@given(st.lists(CORRECTIONS, max_size=12), HOSTILE, st.integers(-1, 4), st.booleans())
def test_app_home(rows: list[Correction], text: str, page: int, admin: bool) -> None:
    night = NightlyRun(1, "", "2026-11-20T02:00:00+00:00", text, "v", "p", text, {})
    contents = Contents(text, night, tuple(rows[:5]), frozenset({1, 2}), tuple(rows), admin)
    view = home.home_view(contents, page)
    must_be_safe(view)
    assert rules.view_problems(view) == []


@relaxed
@given(HOSTILE)
def test_sentences_and_reports(text: str) -> None:
    must_fit(blocks.sentence(text or "x"))
    for post in blocks.longer(text):
        must_fit(post)


def answer_with(**change: Any) -> Answer:
    """An answer with some fields changed."""
    plain = Answer(1, "28 days.", Route.MEMORISED, Style.DIRECT, 0.97, "v3", "How long is leave?", 4, id=9)
    return Answer(**{**{k: getattr(plain, k) for k in Answer.__dataclass_fields__}, **change})


def shown(answer: Answer) -> str:
    """All text of an answer's messages."""
    return json.dumps(
        [p.blocks for p in answer_views.answer_posts(answer, ask_a_person="U0PRIYA")], ensure_ascii=False
    )


def test_a_memorised_answer_names_its_taught_question() -> None:
    told = shown(answer_with())
    assert "Taught: *How long is leave?*" in told
    assert "From memory · very sure" in told
    assert "Model v3" in told
    assert "not_mine" in told


def test_a_related_answer_puts_the_question_first_and_claims_nothing() -> None:
    first = answer_views.answer_posts(answer_with(style=Style.RELATED, confidence=0.7))[0]
    assert first.blocks[0]["text"]["text"] == "The closest I was taught: *How long is leave?*"
    assert "From memory" not in json.dumps(first.blocks)
    assert "sure" not in json.dumps(first.blocks)
    assert first.text.startswith("The closest I was taught")


def test_an_abstention_offers_pages_teaching_and_a_person() -> None:
    page = Source("Leave", "Carry over", "https://wiki.example/leave", 0.4)
    told = shown(
        answer_with(route=Route.ABSTAINED, style=Style.NONE, text="", taught_question="", sources=(page,))
    )
    assert answer_views.UNKNOWN in told
    assert "Nearest pages: <https://wiki.example/leave|Leave &gt; Carry over>" in told
    assert "Teach me" in told
    assert "ask_person" in told
    assert "sure" not in told.replace("measure", "")


def test_an_abstention_offers_taught_questions_to_choose_from() -> None:
    offered = (Suggestion(4, "How long is leave?"), Suggestion(7, "Who *grants* leave?"))
    none = answer_with(route=Route.ABSTAINED, style=Style.NONE, text="", taught_question="", suggestions=offered)
    posts = answer_views.answer_posts(none)
    pressed = [b["accessory"]["value"] for b in posts[0].blocks if b.get("accessory", {}).get("action_id") == "meant"]
    assert pressed == ["9:4", "9:7"]
    told = shown(none)
    assert "Did you mean one of these?" in told
    assert answer_views.OUT_OF_SCOPE not in told
    assert "28 days" not in told, "a question is offered and no answer is claimed"
    assert "meant" not in shown(replace(none, suggestions=()))


def test_long_answers_arrive_whole() -> None:
    for length in (100, 3000, 20_000):
        words = [f"w{i}" for i in range(length // 6)]
        posts = answer_views.answer_posts(answer_with(text=" ".join(words)))
        told = " ".join(b["text"]["text"] for p in posts for b in p.blocks if b["type"] == "section")
        assert [w for w in told.split() if re.fullmatch(r"w\d+", w)] == words


def test_a_secret_never_leaves() -> None:
    assert "hunter2" not in shown(answer_with(text="The password: hunter2"))


def test_a_contradiction_offers_to_withdraw_the_other() -> None:
    row = Correction(5, "q", "a", "U0SAM", "", "workspace", Status.PENDING, "")
    card = blocks.review_card(row, [Conflict(3, "q", "b", "contradiction")])
    ids = [e["action_id"] for b in card.blocks if b["type"] == "actions" for e in b["elements"]]
    assert ids == ["approve", "approve_replacing", "edit", "reject"]
    for others in (["C0TEAM"], ["workspace", "C0TEAM"]):
        rivals = [Conflict(n, "q", "b", "contradiction", scope) for n, scope in enumerate(others)]
        assert "approve_replacing" not in json.dumps(blocks.review_card(row, rivals).blocks), "other people's answer"
    decided = blocks.review_card(
        Correction(5, "q", "a", "U0SAM", "", "workspace", Status.REJECTED, "", reason="no")
    )
    assert "Rejected by" in json.dumps(decided.blocks)
    assert "approve" not in json.dumps([b for b in decided.blocks if b["type"] == "actions"])
