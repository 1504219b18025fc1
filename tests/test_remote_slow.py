"""The remote engine against a real model server: llama.cpp with the weights that ship, in a process of its own.

The contract is asserted and never the text: which fields come, how long they are, what a dead server is.
"""

import importlib.util
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import llama_server
import pytest

from bot import base_model, judge, prompt
from bot.generation import Generation, Request
from bot.judge import ServerJudge
from bot.modelserver import ModelServer
from bot.remote import ProvenEngine, RemoteEngine, Watch
from learning import rewording
from learning.rewording import Rewording
from storage.errors import EngineAwayError, EngineError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None,
        reason="xllamacpp, a llama.cpp server as a wheel, is not installed: run 'make setup'",
    ),
]

VERSION = "v7"
HELLO = prompt.messages("Say hello.")
Running = tuple[str, "Popen[str]"]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with llama_server.running(base_model.gguf_file(), VERSION) as (address, process):
        yield address, process


@pytest.fixture
def server(running: Running) -> ModelServer:
    return ModelServer(running[0], seconds=180.0)


def test_it_offers_the_version_by_name(server: ModelServer) -> None:
    assert server.models() == (VERSION,)


def test_a_finished_answer_has_one_logprob_and_margin_for_each_token_and_its_end(server: ModelServer) -> None:
    reply = server.chat(VERSION, HELLO, max_tokens=48)
    assert reply.stopped
    assert "".join(t.text for t in reply.tokens[:-1]).strip() == reply.text.strip(), "the last one is the end"
    generation = RemoteEngine(server, VERSION).generate(HELLO, max_tokens=48)
    assert generation.text == reply.text.strip()
    assert len(generation.logprobs) == len(generation.margins) == len(reply.tokens)
    assert all(math.isfinite(p) and p <= 0 for p in generation.logprobs)
    assert all(m >= 0 for m in generation.margins)
    assert generation.lowest_logprob <= generation.mean_logprob <= 0


def test_an_answer_that_is_cut_says_so(server: ModelServer) -> None:
    generation = RemoteEngine(server, VERSION).generate(HELLO, max_tokens=3)
    assert not generation.stopped
    assert len(generation.logprobs) == 3


def test_the_same_chat_gives_the_same_text_and_confirms_it(server: ModelServer) -> None:
    engine = RemoteEngine(server, VERSION)
    first = engine.generate(HELLO, max_tokens=48)
    assert engine.confirm(HELLO, first.text, max_tokens=48).confirmed == 1.0
    other = engine.confirm(HELLO, "The depot in Vilnius opens at six.", max_tokens=48)
    assert other.confirmed < 0.2
    assert other.text == first.text


def test_a_text_that_is_watched_is_the_same(server: ModelServer) -> None:
    engine = RemoteEngine(server, VERSION)
    seen: list[str] = []
    watched = engine.generate(HELLO, max_tokens=48, watch=lambda text: seen.append(text) is None)
    alone = engine.generate(HELLO, max_tokens=48)
    assert (watched.text, watched.stopped) == (alone.text, alone.stopped)
    assert len(alone.logprobs) - len(watched.logprobs) <= 1, "llama.cpp leaves the end out of a stream"
    assert watched.logprobs == pytest.approx(alone.logprobs[: len(watched.logprobs)], abs=1e-3)
    assert len(seen) > 2
    assert seen[-1] == watched.text
    several = [Request(HELLO, 48), Request(HELLO, 48, draft=alone.text)]
    assert [one.text for one in engine.many(several) if isinstance(one, Generation)] == [alone.text] * 2


def test_another_version_is_refused_although_the_server_answers(server: ModelServer) -> None:
    with pytest.raises(EngineAwayError, match=f"answers as {VERSION} and not as v8"):
        RemoteEngine(server, "v8").generate(HELLO, max_tokens=3)
    told: list[str] = []
    assert not ProvenEngine(RemoteEngine(server, "v8"), lambda _: None, Watch(told.append)).greet()
    assert f"offers {VERSION} and not v8" in told[0]


def test_a_prompt_that_is_too_long_is_a_sentence_and_the_next_one_is_answered(server: ModelServer) -> None:
    with pytest.raises(EngineError, match=r"refused the request \(400") as caught:
        server.chat(VERSION, prompt.messages("depot " * 3000), max_tokens=3)
    assert not isinstance(caught.value, EngineAwayError)
    assert server.chat(VERSION, HELLO, max_tokens=3).tokens


def test_the_judge_and_the_wordings_work_over_it(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewording, "MOST_TOKENS", 40)
    asked = judge.messages("how long is it", "How long does it run?", "Six months.")
    likeliest = server.chat(VERSION, asked, max_tokens=1, likeliest=judge.LIKELIEST).tokens[0].likeliest
    assert len(likeliest) == judge.LIKELIEST
    assert 0 <= ServerJudge(server, VERSION).same("how long is it", "How long does it run?", "Six months.") <= 1
    more = Rewording(server, VERSION, tmp_path)
    first = more.of("How long does the mentorship run?")
    assert all(isinstance(w, str) and w for w in first)
    assert more.of("How long does the mentorship run?") == first


def test_a_server_that_stands_still_or_dies_is_away(running: Running) -> None:
    """The last test: it ends the server."""
    address, process = running
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(EngineAwayError, match=r"did not answer within 0\.5 seconds"):
        ModelServer(address, seconds=0.5).chat(VERSION, HELLO, max_tokens=3)
    process.kill()
    process.wait(timeout=10)
    with pytest.raises(EngineAwayError, match="cannot be reached"):
        ModelServer(address).chat(VERSION, HELLO, max_tokens=3)
