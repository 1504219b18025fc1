"""The remote engine against a server that misbehaves in every way: one sentence each time, in time, and never a key."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import scripted_server
from scripted_server import ScriptedServer, chat, drip, hang, raw, status, stream

from bot import modelserver, prompt
from bot.generation import Engine, Generation, Request, Unwanted
from bot.modelserver import ModelServer
from bot.remote import LONGEST_REST, TOLD_AGAIN, ProvenEngine, RemoteEngine, Watch, agreement
from storage import settings
from storage.errors import EngineAwayError, EngineError, IntegrityError, UserError

ASKED = prompt.messages("How long does the mentorship run?")
KEY = "sk-do-not-show-this-1234567890"
SECONDS = 0.4


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server.running("base", "v1") as running:
        yield running


def at(server: ScriptedServer, **changes: object) -> ModelServer:
    return replace(ModelServer(server.address, seconds=5.0, pauses=(0.01, 0.01)), **changes)  # type: ignore[arg-type]


def written(server: ScriptedServer, **changes: object) -> Generation:
    return RemoteEngine(at(server, **changes), "v1").generate(ASKED, max_tokens=16)


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


# What is asked and what comes back


def test_the_request_is_greedy_and_asks_for_what_confidence_needs(server: ScriptedServer) -> None:
    generation = written(server, key=KEY)
    ((path, headers, told),) = server.asked
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert told == {
        "model": "v1",
        "messages": ASKED,
        "max_tokens": 16,
        "temperature": 0,
        "seed": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert generation == Generation("Six months.", (-0.5,) * 3, (1.5,) * 3, stopped=True)


def test_without_a_key_none_is_sent(server: ScriptedServer) -> None:
    written(server)
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize(
    ("text", "ended", "draft", "share"),
    [
        ("Six months.", "stop", "Six months.", 1.0),
        (" Six months.\n", "stop", "Six months. ", 1.0),
        ("Six months.", "length", "Six months. Then a talk.", 1.0),
        ("Six months.", "stop", "Six months. Then a talk.", 11 / 25),
        ("Six months. Then a talk.", "stop", "Six months.", 11 / 12),
        ("Six weeks.", "stop", "Six months.", 4 / 12),
        ("", "stop", "Six months.", 0.0),
        ("", "length", "Six months.", 0.0),
    ],
)
def test_a_draft_is_confirmed_when_the_model_writes_it(
    server: ScriptedServer, text: str, ended: str, draft: str, share: float
) -> None:
    server.replies = [chat(text, ended=ended)]
    generation = RemoteEngine(at(server), "v1").confirm(ASKED, draft, max_tokens=16)
    assert generation.confirmed == pytest.approx(share)
    assert generation.text == text.strip()
    assert agreement(generation, draft.strip()) == generation.confirmed


def test_a_server_that_names_no_runner_up_gives_no_margin(server: ScriptedServer) -> None:
    row = {"token": "Six", "logprob": -0.1, "top_logprobs": []}
    server.replies = [chat("Six", logprobs={"content": [row]})]
    assert written(server).margins == (0.0,)


# Several at once, and as they are written


def test_several_chats_are_asked_side_by_side(server: ScriptedServer) -> None:
    together = threading.Barrier(4, timeout=5)

    def all_there(handler: scripted_server.Handler) -> None:
        together.wait()
        chat(handler.told["messages"][1]["content"])(handler)

    server.replies = [all_there]
    asked = [Request(prompt.messages(f"Question {n}?"), 16, draft) for n, draft in enumerate([None, "Question 1?"] * 2)]
    engine = ProvenEngine(RemoteEngine(at(server), "v1"), lambda _: None, Watch())
    made = [one for one in engine.many(asked) if isinstance(one, Generation)]
    assert [one.text for one in made] == [f"Question {n}?" for n in range(4)]
    assert [one.confirmed for one in made] == [0.0, 1.0, 0.0, 9 / 12]


def test_a_text_is_seen_as_it_grows_and_is_the_same_in_the_end(server: ScriptedServer) -> None:
    server.replies = [stream("Six", " months", ".")]
    seen: list[str] = []
    request = Request(ASKED, 16, watch=lambda text: seen.append(text) is None)
    (made,) = RemoteEngine(at(server), "v1").many([request])
    assert made == Generation("Six months.", (-0.5,) * 3, (0.0,) * 3, stopped=True)
    assert seen == ["Six", "Six months", "Six months.", "Six months."]
    assert server.asked[0][2]["stream"] is True


def test_who_has_gone_ends_the_writing(server: ScriptedServer) -> None:
    server.replies = [stream(*["on and on "] * 500, pause=0.005)]
    request = Request(ASKED, 600, watch=lambda text: len(text) < 20)
    (made,) = RemoteEngine(at(server), "v1").many([request])
    assert isinstance(made, Unwanted)
    assert server.sent < 400, "the server was hung up on"


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (stream("Six", ended=None), "cannot be reached"),
        (status(503, {"error": "Loading model"}), r"failed \(503: Loading model\)"),
        (raw(b"<html>hello</html>"), "not JSON"),
        (scripted_server.cut, "cannot be reached"),
    ],
)
def test_a_stream_that_goes_wrong_is_one_sentence(
    server: ScriptedServer, behaviour: scripted_server.Behaviour, sentence: str
) -> None:
    server.replies = [behaviour]
    with pytest.raises(EngineAwayError, match=sentence):
        RemoteEngine(at(server), "v1").generate(ASKED, max_tokens=16, watch=lambda _: True)


def test_a_server_that_does_not_stream_is_read_all_the_same(server: ScriptedServer) -> None:
    made = RemoteEngine(at(server), "v1").generate(ASKED, max_tokens=16, watch=lambda _: True)
    assert made.text == "Six months."


# Faults


AWAY = {
    "cut before a word": (scripted_server.cut, "cannot be reached"),
    "cut within the body": (scripted_server.cut_within, "cannot be reached"),
    "500": (status(500, {"error": {"message": "CUDA out\nof memory."}}), r"failed \(500: CUDA out of memory\)"),
    "503": (status(503, {"error": "Loading model"}), r"failed \(503: Loading model\)"),
    "429": (status(429, b"slow down"), r"failed \(429\)"),
    "401": (status(401, {"error": {"message": f"Incorrect API key: {KEY}"}}), r"refuses the key \(401\)"),
    "404": (status(404, {"error": {"message": "The model `v1` does not exist."}}), "does not offer v1 .*404"),
    "404 of another path": (status(404, {"detail": "Not Found"}), "address ends in /v1"),
    "moved": (status(307, Location="http://127.0.0.1:1/"), r"redirects \(307\)"),
    "garbage": (raw(b"<html>hello</html>"), "not JSON"),
    "deep": (raw(b"[" * 100_000), "not JSON"),
    "a list": (raw(b"[]"), "not an object"),
    "too much": (raw(b" " * (modelserver.MOST_BYTES + 1)), "more than 8 MB"),
    "no choices": (raw(b'{"choices": []}'), "without a chat reply"),
    "choices of another kind": (raw(b'{"choices": [7]}'), "without a chat reply"),
    "thoughts only": (chat("x", message={"content": None}), "without text"),
    "no log-probabilities": (chat("Six", logprobs=None), "gives no log-probabilities"),
    "an empty list of them": (chat("Six", logprobs={"content": []}), "gives no log-probabilities"),
    "one that is no number": (chat("Six", logprobs={"content": [{"token": "a", "logprob": None}]}), "cannot be read"),
    "NaN": (chat("Six", logprobs={"content": [{"token": "a", "logprob": float("nan")}]}), "cannot be read"),
    "rows of another kind": (chat("Six", logprobs={"content": ["a"]}), "cannot be read"),
    "another model": (chat("Six", model="/srv/models/v7.gguf"), r"answers as v7.gguf and not as v1; .*--alias v1"),
}


@pytest.mark.parametrize(("behaviour", "sentence"), AWAY.values(), ids=AWAY.keys())
def test_a_fault_becomes_one_sentence_without_the_key(
    server: ScriptedServer, behaviour: scripted_server.Behaviour, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies = [behaviour]
    with pytest.raises(EngineAwayError, match=sentence) as caught:
        written(server, key=KEY)
    told = str(caught.value)
    assert told.startswith(f"The model server {server.address} ")
    assert told.endswith(".")
    assert "\n" not in told
    assert KEY not in told + caplog.text


def test_a_request_that_is_refused_says_nothing_about_the_server(server: ScriptedServer) -> None:
    said = {"error": {"message": f"maximum context length is 8192 {KEY}", "type": "BadRequestError"}}
    server.replies = [status(400, said)]
    with pytest.raises(EngineError, match=r"refused the request \(400: maximum context length is 8192 \[key\]\)") as no:
        written(server, key=KEY)
    assert not isinstance(no.value, EngineAwayError)
    assert len(server.asked) == 1


@pytest.mark.parametrize("behaviour", [hang(5.0), drip(5.0)], ids=["silent", "a byte at a time"])
def test_a_server_that_hangs_is_given_up_at_the_deadline(
    server: ScriptedServer, behaviour: scripted_server.Behaviour
) -> None:
    server.replies = [behaviour]
    started = time.monotonic()
    with pytest.raises(EngineAwayError, match=r"did not answer within 0\.4 seconds"):
        written(server, seconds=SECONDS)
    assert SECONDS <= time.monotonic() - started < 4 * SECONDS


def test_a_dead_server_is_said_to_be_away() -> None:
    with scripted_server.running() as gone:
        pass
    with pytest.raises(EngineAwayError, match=r"cannot be reached \(Connection refused\)"):
        written(gone)


@pytest.mark.parametrize("fault", [scripted_server.cut, scripted_server.cut_within, status(500), status(503)])
def test_what_may_pass_is_tried_three_times(server: ScriptedServer, fault: scripted_server.Behaviour) -> None:
    server.replies = [fault, fault, chat("Six months.")]
    assert written(server).text == "Six months."
    assert len(server.asked) == 3


@pytest.mark.parametrize("fault", [status(401), status(404), raw(b"?")])
def test_what_does_not_pass_is_tried_once(server: ScriptedServer, fault: scripted_server.Behaviour) -> None:
    server.replies = [fault, chat("Six months.")]
    with pytest.raises(EngineAwayError):
        written(server)
    assert len(server.asked) == 1


def test_a_redirect_is_not_followed(server: ScriptedServer) -> None:
    with scripted_server.running("v1") as elsewhere:
        server.replies = [status(302, Location=f"{elsewhere.address}/chat/completions")]
        with pytest.raises(EngineAwayError, match="redirects"):
            written(server)
        assert not elsewhere.asked


# Proof, rest, and who is told


def proven(server: ScriptedServer, told: list[str], clock: Clock, answer: str = "Six months.") -> ProvenEngine:
    def prove(engine: Engine) -> None:
        if engine.confirm(ASKED, answer, max_tokens=16).confirmed < 1.0:
            raise IntegrityError("0 of 1 canary answers came back.")

    return ProvenEngine(RemoteEngine(at(server, pauses=()), "v1"), prove, Watch(told.append, clock))


def test_the_weights_are_proved_once_and_again_after_the_server_was_away(server: ScriptedServer) -> None:
    clock, told = Clock(), list[str]()
    engine = proven(server, told, clock)
    for _ in range(3):
        engine.generate(ASKED, max_tokens=16)
    assert len([1 for path, *_ in server.asked if path == "/v1/models"]) == 1
    assert len(server.asked) == 5  # the list, the proof, three answers
    server.replies = [status(500), chat("Six weeks.")]
    for sentence in ("failed", "serves other weights under the name v1: 0 of 1 canary answers came back"):
        with pytest.raises(EngineAwayError, match=sentence):
            engine.generate(ASKED, max_tokens=16)
        clock.now += LONGEST_REST
    server.replies = [chat("Six months.")]
    assert engine.confirm(ASKED, "Six months.", max_tokens=16).confirmed == 1.0
    assert [t.split(".")[-2].strip() for t in told] == [
        "Until that is mended, approved answers and quotes go on, word for word",
        "The model server is back, and the model answers again",
    ]


def test_a_version_that_is_not_offered_yet_answers_as_soon_as_it_is(server: ScriptedServer) -> None:
    clock, told = Clock(), list[str]()
    engine = proven(server, told, clock)
    server.listing = status(200, {"data": [{"id": "base"}, {"id": "/srv/models/x.gguf"}]})
    assert not engine.greet()
    assert "offers base, x.gguf and not v1; serve the version's folder under its name" in told[0]
    server.listing = status(200, {"data": [{"id": "v1"}]})
    clock.now += 1.0
    assert engine.greet()
    assert engine.generate(ASKED, max_tokens=16).text == "Six months."


def test_a_server_that_is_away_is_left_alone_longer_each_time(server: ScriptedServer) -> None:
    clock, told = Clock(), list[str]()
    engine = proven(server, told, clock)
    server.listing = status(503)
    tries = []
    while len(tries) < 8:
        before = len(server.asked)
        with pytest.raises(EngineAwayError, match="503"):
            engine.generate(ASKED, max_tokens=16)
        if len(server.asked) > before:
            tries.append(clock.now)
        clock.now += 0.5
    assert [b - a for a, b in pairwise(tries)] == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_REST, LONGEST_REST]
    assert len(told) == 1, "one sentence for one outage"


def test_a_server_that_comes_and_goes_is_told_of_once_an_hour() -> None:
    clock, told = Clock(), list[str]()
    watch = Watch(told.append, clock)

    def fail() -> None:
        raise EngineAwayError("Gone.")

    for minutes in (0, 1, 2, TOLD_AGAIN / 60):
        clock.now = 1000.0 + 60 * minutes
        with pytest.raises(EngineAwayError):
            watch.call(fail)
        clock.now += LONGEST_REST
        watch.call(lambda: None)
    assert [t.startswith("Gone.") for t in told] == [True, False, True, False]


# Settings


@pytest.mark.parametrize(
    "address",
    [
        "host:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://host:99999/v1",
        "http://h/v1?x=1",
        "http://h /v1",
        "http://h/ä",
    ],
)
def test_an_address_that_cannot_be_used_is_a_users_mistake(address: str) -> None:
    with pytest.raises(UserError, match="is no address like http://host:8000/v1"):
        modelserver.configured(settings.load({"NIGHTSHIFT_ENGINE": address}))


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="NIGHTSHIFT_ENGINE_KEY") as caught:
        modelserver.configured(settings.load({"NIGHTSHIFT_ENGINE": f"https://me:{KEY}@host/v1"}))
    assert KEY not in str(caught.value)


def test_a_key_is_shown_nowhere_and_must_fit_a_header() -> None:
    told = settings.load({"NIGHTSHIFT_ENGINE": "https://host/v1/", "NIGHTSHIFT_ENGINE_KEY": KEY})
    server = modelserver.configured(told)
    assert server is not None
    assert (server.address, server.key, server.seconds) == ("https://host/v1", KEY, 30.0)
    assert KEY not in repr(server)
    with pytest.raises(UserError, match="cannot be sent in a header"):
        ModelServer("http://host/v1", "a\nb")
    with pytest.raises(UserError, match="NIGHTSHIFT_ENGINE_SECONDS"):
        modelserver.configured(settings.load({"NIGHTSHIFT_ENGINE": "http://h/v1", "NIGHTSHIFT_ENGINE_SECONDS": "0"}))


def test_an_engine_that_helps_does_not_serve() -> None:
    values = {"NIGHTSHIFT_ENGINE": "http://host/v1"}
    assert modelserver.serving(settings.load(values)) is not None
    assert modelserver.serving(settings.load(values | {"NIGHTSHIFT_ENGINE_ROLE": "help"})) is None
    assert modelserver.serving(settings.load({})) is None
