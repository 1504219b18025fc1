"""Several texts in one pass are each as if alone: on a small random model, against the library's own attention."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from bot import attention, decoding
from bot.attention import Memory
from bot.decoding import Reader, Separate, Single, Writing, Written
from bot.processors import Processors

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 101}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
TEXTS = [[5, 17, 3], [88, 2, 41, 7, 9, 64, 12], [30]]


def random_model() -> Any:
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, attn_implementation="eager")).eval()


@pytest.fixture(scope="module")
def usual() -> Any:
    return random_model()


@pytest.fixture(scope="module")
def model() -> Any:
    made = random_model()
    assert attention.separate(made)
    return made


def whole(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(torch.tensor([tokens])).logits[0])


def test_texts_together_have_the_logits_of_each_alone(model: Any, usual: Any) -> None:
    memories = [(Memory(), tokens) for tokens in TEXTS]
    made = list(attention.read(model, memories, [len(tokens) for tokens in TEXTS]))
    for logits, tokens, (memory, _) in zip(made, TEXTS, memories, strict=True):
        torch.testing.assert_close(logits, whole(usual, tokens), atol=1e-5, rtol=0)
        assert memory.length == len(tokens)


def test_reading_on_forgetting_and_copying(model: Any, usual: Any) -> None:
    reader = decoding.opened(model)
    assert isinstance(reader, Separate)
    reader.read([5, 17])
    other = reader.copied()
    kept = reader.read([3, 99, 98])
    reader.unread(2, kept[-1])
    other.read([40])
    torch.testing.assert_close(reader.read([8], keep=1)[0], whole(usual, [5, 17, 3, 8])[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(other.row, whole(usual, [5, 17, 40])[-1], atol=1e-5, rtol=0)


def test_a_text_may_outgrow_its_room(model: Any, usual: Any) -> None:
    tokens = [(7 * n) % 101 for n in range(3 * attention.ROOM)]
    reader = decoding.opened(model)
    reader.read(tokens[:5])
    for token in tokens[5:]:
        reader.read([token])
    torch.testing.assert_close(reader.row, whole(usual, tokens)[-1], atol=1e-4, rtol=0)


def test_a_call_without_a_layout_goes_to_the_usual_attention(model: Any, usual: Any) -> None:
    ids = torch.tensor([[0, 0, 5], [9, 4, 7]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    with torch.inference_mode():
        ours, theirs = (m(ids, attention_mask=mask).logits for m in (model, usual))
    torch.testing.assert_close(ours, theirs)


def test_logits_of_single_tokens_are_made_together_and_those_of_long_drafts_alone() -> None:
    counts = [1] * (attention.HEAD_ROWS + 2) + [attention.HEAD_ROWS + 5, 3, 2]
    texts = [torch.full((count, 2), float(at)) for at, count in enumerate(counts)]
    groups = list(attention.few_at_once(texts))
    assert [len(group) for group in groups] == [attention.HEAD_ROWS, 2, 1, 2]
    assert [rows[0, 0].item() for group in groups for rows in group] == list(range(len(counts)))


def test_an_attention_that_slides_reads_one_text_at_a_time() -> None:
    sliding = MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=4)).eval()
    assert not attention.separate(sliding)
    reader = decoding.opened(sliding)
    assert isinstance(reader, Single)
    assert reader.read([1, 2, 3, 4, 5, 6], keep=2).shape == (2, 101)


@pytest.fixture(params=["separate", "single"])
def reader_of(request: pytest.FixtureRequest, model: Any, usual: Any) -> Any:
    return model if request.param == "separate" else usual


def written(model: Any, prompts: list[list[int]], limit: int = 9) -> list[list[int]]:
    readers: list[Reader] = [decoding.opened(model) for _ in prompts]
    list(decoding.read_all(readers, prompts, [1] * len(prompts)))
    texts = [Writing(r, Written(), eos=-1, limit=limit, text=p) for r, p in zip(readers, prompts, strict=True)]
    decoding.write(texts)
    return [text.written.tokens for text in texts]


def test_texts_written_together_are_those_written_alone(reader_of: Any) -> None:
    """Guesses are taken from the prompts, which repeat themselves; no text is longer than its limit."""
    prompts = [[*tokens, *tokens, *tokens] for tokens in TEXTS]
    together = written(reader_of, prompts)
    assert together == [written(reader_of, [prompt])[0] for prompt in prompts]
    plain = []
    for prompt in prompts:
        tokens = list(prompt)
        for _ in range(9):
            tokens.append(int(whole(reader_of, tokens)[-1].argmax()))
        plain.append(tokens[len(prompt) :])
    assert together == plain


def test_two_who_compute_at_once_have_half_of_the_processors_each() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        processors = Processors()
        with processors.shared():
            processors.take()
            assert torch.get_num_threads() == 4
            with processors.shared():
                processors.take()
                assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
