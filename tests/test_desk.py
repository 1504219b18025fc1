"""The line before the desk, and several questions at once: fair, bounded, in one pass, and each as if it were alone."""

import gc
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import asking, confidence, together
from bot.asking import Asked
from bot.generation import Engine, Generation, Request, Unwanted
from bot.line import Line, Ticket
from bot.pipeline import Model, Tools
from bot.prompt import Message
from bot.together import Table
from retrieval.taught import TaughtQuestions
from storage import conversations
from storage.database import Database
from storage.domain import Answer
from storage.errors import BusyError, EngineError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(limit: int = 64, seconds: float = 0.0) -> tuple[Line[str], Clock]:
    clock = Clock()
    return Line(limit, seconds, clock), clock


def taken(waiting: Line[str], most: int = 1) -> list[str]:
    return [one.work for one in waiting.take(most, 0)]


# --- the line ---


def test_who_asks_thirty_waits_for_who_asks_one() -> None:
    waiting, _ = line(limit=200)
    for number in range(30):
        waiting.join(f"a{number}", "ann")
    for name in ("bob", "cid"):
        waiting.join(name, name)
    assert taken(waiting, 4) == ["a0", "bob", "cid", "a1"]


def test_nobody_fills_the_line_alone() -> None:
    waiting, _ = line(limit=8)
    waiting.join("1", "ann")
    waiting.join("2", "ann")
    with pytest.raises(BusyError, match="2 of your questions"):
        waiting.join("3", "ann")
    for name in "bcdefg":
        waiting.join(name, name)
    with pytest.raises(BusyError, match="8 questions are waiting"):
        waiting.join("h", "h")


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(1, 5))
def test_the_place_is_the_number_of_answers_until_ones_own(users: list[str], together_: int) -> None:
    waiting, _ = line(limit=1000)
    tickets = {f"{user}{at}": waiting.join(f"{user}{at}", user) for at, user in enumerate(users)}
    told = {name: waiting.place(ticket) for name, ticket in tickets.items()}
    served: list[str] = []
    while len(waiting):
        served += taken(waiting, together_)
    assert {name: at for at, name in enumerate(served, 1)} == told
    assert all(waiting.place(ticket) == 0 for ticket in tickets.values())


def test_those_being_answered_stand_before_the_first_in_the_line() -> None:
    waiting, _ = line()
    for name in ("ann", "bob"):
        waiting.join(name, name)
    taken(waiting, 2)
    assert waiting.place(waiting.join("cid", "cid")) == 3


def test_who_has_left_is_not_served() -> None:
    waiting, _ = line()
    gone, stays = waiting.join("gone", "ann"), waiting.join("stays", "bob")
    assert gone.cancel()
    assert taken(waiting, 5) == ["stays"]
    assert not stays.cancel()
    assert stays.unwanted


def test_who_waited_too_long_hears_a_sentence() -> None:
    waiting, clock = line(seconds=60)
    late = waiting.join("late", "ann")
    clock.now = 61.0
    waiting.join("new", "bob")
    assert taken(waiting, 5) == ["new"]
    with pytest.raises(BusyError, match="waited 61 seconds"):
        late.result(timeout=0)


def test_other_work_is_done_alone() -> None:
    waiting, _ = line()
    waiting.join("question 1", "ann")
    waiting.join("correction", "bob", alone=True)
    waiting.join("question 2", "cid")
    waiting.join("question 3", "dan")
    assert [taken(waiting, 9) for _ in range(3)] == [["question 1"], ["correction"], ["question 2", "question 3"]]


def test_a_closed_line_tells_everybody() -> None:
    waiting, _ = line()
    ticket = waiting.join("question", "ann")
    waiting.close()
    with pytest.raises(BusyError, match="stopping"):
        ticket.result(timeout=0)
    with pytest.raises(BusyError, match="stopping"):
        waiting.join("another", "bob")


def test_other_work_is_never_lost() -> None:
    waiting, clock = line(seconds=60)
    question, correction = waiting.join("question", "ann"), waiting.join("correction", "ann", alone=True)
    clock.now = 61.0
    waiting.close()
    with pytest.raises(BusyError, match="stopping"):
        question.result(timeout=0)
    assert waiting.place(correction) == 1
    assert taken(waiting, 9) == ["correction"]
    assert len(waiting) == 0


# --- together ---


class Letters:
    """An embedder that counts letters, and its calls."""

    name = "letters"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Any:
        self.calls.append(list(texts))
        rows = np.array([[text.count(c) + 0.01 for c in "aeiourstln"] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Parrot:
    """An engine that repeats the question, many at once; it cannot say what holds a 'q'."""

    def __init__(self) -> None:
        self.passes: list[int] = []

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        return Generation(messages[-1]["content"], (-0.1,), (1.0,), stopped=True)

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        raise NotImplementedError

    def many(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        self.passes.append(len(requests))
        if any("q" in r.messages[-1]["content"] for r in requests):
            raise EngineError("There is a q in it.")
        return [
            Unwanted() if r.watch and not r.watch("so far") else self.generate(r.messages, max_tokens=r.max_tokens)
            for r in requests
        ]


@pytest.fixture
def tools(home: Path) -> Tools:
    database, embedder = Database(home), Letters()
    model = Model("v-test", Parrot(), confidence.Confidence({}), {})
    return Tools(embedder, TaughtQuestions(database, embedder), Nothing(), model)


class Nothing:
    def hits(self, *_: Any, **__: Any) -> list[Any]:
        return []

    notes = hits


def ask_all(tools: Tools, questions: Sequence[str], unwanted: Sequence[str] = ()) -> dict[int, Answer | BaseException]:
    database = tools.taught.database
    table, outcomes = Table(database.close), dict[int, Answer | BaseException]()
    several = [(Asked(q, f"U{i}", "C0", route="raw"), lambda q=q: q in unwanted) for i, q in enumerate(questions)]
    asking.answer_together(database, tools, table, several, (), outcomes.__setitem__)
    table.close()
    assert not [t for t in threading.enumerate() if t.name == "answer"]
    return outcomes


def test_sixteen_questions_go_through_each_model_once(tools: Tools) -> None:
    questions = [f"number {n}?" for n in range(16)]
    outcomes = ask_all(tools, questions)
    assert [outcomes[i].text for i in range(16)] == questions  # type: ignore[union-attr]
    assert [len(texts) for texts in tools.embedder.calls] == [16]  # type: ignore[attr-defined]
    assert tools.model.engine.passes == [16]  # type: ignore[attr-defined]


def test_each_answer_is_stored_with_its_own_question(tools: Tools) -> None:
    database = tools.taught.database
    for outcome in ask_all(tools, ["one?", "two?", "three?"]).values():
        assert isinstance(outcome, Answer)
        assert conversations.get_answer(database, outcome.id).text == outcome.text
        assert conversations.get_question(database, outcome.question_id).text == outcome.text


def test_one_failure_is_one_failure(tools: Tools) -> None:
    outcomes = ask_all(tools, ["one?", "a q?", "three?"])
    assert isinstance(outcomes[1], EngineError)
    assert [outcomes[i].text for i in (0, 2)] == ["one?", "three?"]  # type: ignore[union-attr]


def test_who_has_gone_ends_only_their_own_answer(tools: Tools) -> None:
    outcomes = ask_all(tools, ["one?", "two?"], unwanted=["two?"])
    assert isinstance(outcomes[1], Unwanted)
    assert isinstance(outcomes[0], Answer)


class Weights:
    """Stands for a model in memory."""


def test_a_defect_in_one_question_is_its_own(tools: Tools) -> None:
    table, seen = Table(), dict[int, Any]()
    works = [lambda given: given.embedder.encode(["a"]), lambda given: 1 / 0, lambda given: "done"]
    table.run(tools, works, [None] * 3, lambda ended: seen.update(ended))
    table.close()
    assert isinstance(seen[1], ZeroDivisionError)
    assert seen[2] == "done"
    assert seen[0].shape == (1, 10)


def test_a_table_at_rest_holds_no_model(tools: Tools) -> None:
    """Its workers wait for the next questions, perhaps for hours, while the model is swapped."""
    table, engine = Table(), cast(Engine, Weights())
    model = replace(tools, model=replace(tools.model, engine=engine))
    works = [lambda given: given.model.engine.real, lambda given: given.model.engine.nothing]
    table.run(model, works, [None] * 2, lambda ended: None)
    seen = weakref.ref(engine)
    del model, engine
    gc.collect()
    assert seen() is None
    table.close()


def test_a_partial_text_is_shown_redacted(tools: Tools) -> None:
    shown = list[str]()
    asked = Asked("What?", "U1", "C0", partial=shown.append)
    look = asking.watch(tools.taught.database, asked, (), lambda: False)
    secret = "xoxb-" + "1234567890-" * 2 + "abcdefghijklmnopqrstuvwx"
    end = asking.time.monotonic() + 2
    while not shown and asking.time.monotonic() < end:
        assert look(f"The token is {secret}")
    assert shown
    assert secret not in shown[0]


def test_a_single_answer_ends_when_nobody_waits(tools: Tools) -> None:
    with pytest.raises(Unwanted):
        asking.answer_and_store(
            tools.taught.database, tools, Asked("Why?", "U1", "C0", route="raw"), unwanted=lambda: True
        )


def test_a_ticket_says_that_it_is_unwanted_while_it_is_worked_on() -> None:
    ticket = Ticket()
    assert ticket.set_running_or_notify_cancel()
    assert not ticket.cancel()
    assert ticket.unwanted
    assert isinstance(ticket, Future)


class TwoKinds:
    """An engine for several at once: drafts are checked while a chat is still being written."""

    def __init__(self) -> None:
        self.checked = threading.Event()
        self.calls: list[int] = []

    def many(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        self.calls.append(len(requests))
        if requests[0].draft is None:
            assert self.checked.wait(timeout=30)  # so it ends only if the drafts do not wait for it
            return [Generation("written", (), (), stopped=True)] * len(requests)
        if requests[0].draft == "broken":
            raise RuntimeError("broken")
        return [Generation("checked", (), (), stopped=True)] * len(requests)


def test_drafts_do_not_wait_for_what_is_written(tools: Tools) -> None:
    engine, table, seen = TwoKinds(), Table(), dict[int, Any]()
    model = replace(tools, model=replace(tools.model, engine=cast(Engine, engine)))

    def write(given: Tools) -> str:
        return given.model.engine.generate([], max_tokens=4).text

    def check(draft: str, given: Tools) -> str:
        return given.model.engine.confirm([], draft, max_tokens=4).text

    def done(ended: Sequence[tuple[int, Any]]) -> None:
        seen.update(ended)
        if {1, 2} <= set(seen):
            engine.checked.set()

    table.run(model, [write, partial(check, "a"), partial(check, "b")], [None] * 3, done)
    assert seen == {0: "written", 1: "checked", 2: "checked"}
    assert sorted(engine.calls) == [1, 2]
    table.run(model, [write, partial(check, "broken"), lambda _: "else"], [None] * 3, done)
    assert isinstance(seen[1], RuntimeError)
    assert seen[0] == "written"
    table.close()


def test_large_calls_share_a_pass_up_to_a_limit(tools: Tools) -> None:
    calls = [together.Call(["text"] * size) for size in (100, 2, 50, 20)]
    together.serve(tools, calls)
    assert [len(texts) for texts in tools.embedder.calls] == [2, 150, 20]  # type: ignore[attr-defined]
    assert [len(c.result) for c in calls] == [100, 2, 50, 20]


def test_large_calls_are_not_mixed_with_small_ones(tools: Tools) -> None:
    calls = [together.Call(["a"]), together.Call(["text"] * 20), together.Call(["b", "c"])]
    together.serve(tools, calls)
    assert [len(texts) for texts in tools.embedder.calls] == [3, 20]  # type: ignore[attr-defined]
    assert [len(c.result) for c in calls] == [1, 20, 2]
