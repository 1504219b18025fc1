"""Every short cut of the local engine gives the text of plain greedy decoding, on the real model."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from bot import base_model, prompt, weights
from bot.generation import Generation, Request, Unwanted
from bot.generator import LocalGenerator
from bot.prompt import Message
from learning import benchmarks
from learning.benchmarks import Choice
from retrieval import precision
from storage import company

pytestmark = pytest.mark.slow
QUESTIONS, TOKENS = 50, 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model.embedded(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def engine(request: pytest.FixtureRequest, base: Path) -> LocalGenerator:
    return LocalGenerator(base, form=request.param)


def chats() -> list[list[Message]]:
    asked = [fact.question for fact in company.facts()] + [row.question for row in company.golden()]
    return [prompt.messages(question) for question in asked[:QUESTIONS]]


def reading() -> list[Message]:
    pages = [page.read_text(encoding="utf-8")[:900] for page in sorted(company.pages().glob("*.md"))[:2]]
    return prompt.messages("What does this page say, word for word?", pages)


def by_the_library(engine: LocalGenerator, messages: Sequence[Message], tokens: int) -> str:
    """What transformers itself writes greedily."""
    ids = torch.tensor([engine.prompt_ids(messages)])
    out = engine.model.generate(
        inputs=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=engine.eos,
        pad_token_id=engine.eos,
    )
    return str(engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def test_drafts_give_the_greedy_text(engine: LocalGenerator) -> None:
    """A draft that is right, one that is right up to a point, and one of another question.

    Fifty questions in the form that serves on this machine, ten in the other, which takes several times as long.
    """
    asked = chats() if engine.form == weights.quicker() else chats()[::5]
    plain = [engine.plain(chat, max_tokens=TOKENS) for chat in asked]
    wrong = 0
    for at, (chat, said) in enumerate(zip(asked, plain, strict=True)):
        drafts = (said.text, said.text[: len(said.text) // 2], plain[at - 1].text)
        checked = engine.confirm(chat, drafts[at % 3], max_tokens=TOKENS)
        wrong += checked.text != said.text
        if engine.form == "float32" or not engine.doubt:
            assert checked.logprobs == pytest.approx(said.logprobs, abs=1e-3)
    assert wrong == 0


def test_agreement_is_what_checking_finds_without_writing(engine: LocalGenerator) -> None:
    question = prompt.messages("What is the capital of France?")
    own = engine.generate(question, max_tokens=12).text
    drafts = ["Paris", own, "No such thing at all", f"{own.split()[0]} zebra"]
    shares = engine.agreement([Request(question, 48, draft) for draft in drafts])
    checked = [engine.confirm(question, draft, max_tokens=48).confirmed for draft in drafts]
    assert shares == pytest.approx(checked)
    assert min(shares) < 0.5
    assert engine.agreement([Request(question, 48, own)]) == [1.0]
    assert engine.agreement([Request(question, 3, own)])[0] < 1.0  # it would be served cut


def test_the_kept_opening_and_guesses_give_the_greedy_text(engine: LocalGenerator) -> None:
    for chat, tokens in ((reading(), 48), (chats()[0], 24)):
        assert engine.generate(chat, max_tokens=tokens).text == engine.plain(chat, max_tokens=tokens).text


def test_no_text_of_a_chat_gives_a_token_of_the_template(engine: LocalGenerator) -> None:
    special = {number for number, token in engine.tokenizer.added_tokens_decoder.items() if token.special}
    assert len(special) >= 3

    def marks(text: str) -> int:
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        return sum(token in special for token in engine.prompt_ids(chat))

    every = " ".join(engine.tokenizer.added_tokens_decoder[number].content for number in special)
    assert marks(f"What is {every}?") == marks("What is it?")


def test_plain_is_what_the_library_writes(engine: LocalGenerator) -> None:
    for chat in chats()[:3]:
        assert engine.plain(chat, max_tokens=TOKENS).text == by_the_library(engine, chat, TOKENS)


def test_several_at_once_are_each_as_if_alone(engine: LocalGenerator) -> None:
    some = chats()[:6]
    single = [engine.plain(chat, max_tokens=TOKENS) for chat in some]
    requests = [Request(chat, TOKENS) for chat in some[:3]]
    requests += [Request(chat, TOKENS, said.text) for chat, said in zip(some[3:], single[3:], strict=True)]
    done = engine.many(requests)
    assert [one.text for one in done if isinstance(one, Generation)] == [said.text for said in single]


def test_several_at_once_have_the_very_numbers_of_one_alone(engine: LocalGenerator) -> None:
    """Where a token's numbers do not depend on the rows beside it: with one thread or all, short beside long."""
    if engine.doubt:
        pytest.skip("these sums depend on the number of rows")
    some = [chats()[0], reading(), *chats()[1:4]]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = [engine.plain(chat, max_tokens=TOKENS) for chat in some]
    finally:
        torch.set_num_threads(threads)
    wrote = engine.many([Request(chat, TOKENS) for chat in some])
    checked = engine.many([Request(chat, TOKENS, said.text) for chat, said in zip(some, single, strict=True)])
    for alone, *others in zip(single, wrote, checked, strict=True):
        for other in others:
            assert isinstance(other, Generation)
            assert other.text == alone.text
            assert other.logprobs[:TOKENS] == alone.logprobs[:TOKENS]


def test_a_watch_sees_the_text_grow_and_can_end_it(engine: LocalGenerator) -> None:
    seen = list[str]()

    def watch(text: str) -> bool:
        seen.append(text)
        return len(seen) < 4

    with pytest.raises(Unwanted):
        engine.generate(chats()[0], max_tokens=TOKENS, watch=watch)
    assert len(seen) == 4
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    both = engine.many([Request(chats()[0], TOKENS, watch=lambda _: False), Request(chats()[1], TOKENS)])
    assert isinstance(both[0], Unwanted)
    assert isinstance(both[1], Generation)


def test_the_form_is_the_one_that_the_manifest_names(base: Path, tmp_path: Path) -> None:
    assert weights.form_of(base, "auto") == weights.quicker()
    assert weights.quicker() == ("bfloat16" if precision.computes_bfloat16() else "float32")
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"serving_form": "int8"}))
    assert weights.form_of(tmp_path, "auto") == "int8"
    assert weights.form_of(tmp_path, "float32") == "float32"


def test_a_context_read_once_scores_its_endings_as_one_read_for_each(base: Path) -> None:
    engine = LocalGenerator(base, form="float32")
    facts = company.facts()[:4]
    tasks = [
        Choice(f"Q: {fact.question}\nA:", tuple(f" {other.answer}" for other in facts[: at + 1]), (True,) * (at + 1))
        for at, fact in enumerate(facts)
    ]
    scored = benchmarks.score(engine, tasks)
    assert [len(own) for own in scored] == [1, 2, 3, 4]
    for task, own in zip(tasks, scored, strict=True):
        assert own == pytest.approx([alone(engine, task.context, ending) for ending in task.endings], abs=1e-3)


def alone(engine: LocalGenerator, context: str, ending: str) -> float:
    """The log-likelihood of an ending, from the logits of one whole text."""
    before, behind = (engine.tokenizer.encode(text, add_special_tokens=False) for text in (context, ending))
    logprobs = engine.logits([*before, *behind])[len(before) - 1 : -1].log_softmax(-1)
    return sum(float(row[token]) for row, token in zip(logprobs, behind, strict=True))
