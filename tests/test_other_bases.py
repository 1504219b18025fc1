"""Bases of other families: training computes what they compute or says so, and short cuts give their greedy text.

The models are tiny and random; each is one of transformers' own, with windows that slide, rotations that differ from
layer to layer, or factors outside of the layers.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from bot import attention, decoding, prompt
from bot.decoding import Writing, Written
from bot.generation import Generation, Request
from bot.generator import LocalGenerator
from learning import train
from learning.dataset import Example
from learning.recipe import Recipe
from learning.train import SAME, TrainingError
from learning.upper import apart, part_of
from tests.test_merge import WORDS, tiny

SIZES = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
SLIDES, SEES_ALL = "sliding_attention", "full_attention"
MIXED = [SLIDES, SLIDES, SEES_ALL, SLIDES]
LONG, SHORT = 64, 8
"""Windows longer and shorter than the texts here."""
PREFIX = [5, 6, 7]
TEXT = ([*PREFIX, *((7 * n * n + 3 * n) % 60 + 3 for n in range(20))], [11, 12, 13, 14])


def made(model: Callable[[Any], PreTrainedModel], config: Callable[..., Any], **own: Any) -> PreTrainedModel:
    torch.manual_seed(7)
    return model(config(**SIZES | own)).eval()


llama = partial(made, LlamaForCausalLM, LlamaConfig)
smollm3 = partial(made, SmolLM3ForCausalLM, SmolLM3Config, no_rope_layers=[1, 1, 0, 1])
granite = partial(made, GraniteForCausalLM, GraniteConfig, embedding_multiplier=12.0, logits_scaling=8.0)
gemma2 = partial(made, Gemma2ForCausalLM, Gemma2Config, head_dim=8)
gemma3 = partial(made, Gemma3ForCausalLM, Gemma3TextConfig, head_dim=8, layer_types=MIXED)
olmo3 = partial(made, Olmo3ForCausalLM, Olmo3Config, layer_types=MIXED)
mistral = partial(made, MistralForCausalLM, MistralConfig, sliding_window=SHORT)
qwen2 = partial(made, Qwen2ForCausalLM, Qwen2Config, use_sliding_window=True, sliding_window=SHORT, max_window_layers=2)
SLIDING = {
    "mistral": mistral,
    "qwen2": qwen2,
    "gemma3": partial(gemma3, sliding_window=SHORT),
    "olmo3": partial(olmo3, sliding_window=SHORT),
}
every_sliding = pytest.mark.parametrize("build", SLIDING.values(), ids=SLIDING)


# Training


@pytest.mark.parametrize("first_layer", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "build",
    [llama, smollm3, partial(gemma3, sliding_window=LONG), partial(olmo3, sliding_window=LONG)],
    ids=["llama", "smollm3", "gemma3", "olmo3"],
)
def test_what_is_trained_gives_the_logits_of_the_model(build: Callable[[], Any], first_layer: int) -> None:
    """Where layers differ, each part looks up its own: in Gemma 3 a window goes with another rotation."""
    model = build()
    usual = model.config._attn_implementation
    assert apart(model, first_layer, PREFIX, TEXT) < SAME / 10
    assert model.config._attn_implementation == usual


def test_a_part_has_what_the_configuration_says_of_its_layers() -> None:
    body = smollm3(use_sliding_window=True, sliding_window=LONG, layer_types=MIXED).model
    part = part_of(body, 1, 3, final_norm=False).config
    assert (part.num_hidden_layers, part.layer_types, part.no_rope_layers) == (2, [SLIDES, SEES_ALL], [1, 0])
    assert (body.config.num_hidden_layers, body.config.layer_types) == (4, MIXED)


@pytest.mark.parametrize(
    "build", [granite, gemma2, *SLIDING.values()], ids=["factors", "caps", *(f"{name}'s window" for name in SLIDING)]
)
@pytest.mark.parametrize("first_layer", [0, 2])
def test_a_family_that_computes_something_else_is_told_by_its_logits(
    build: Callable[[], Any], first_layer: int
) -> None:
    assert apart(build(), first_layer, PREFIX, TEXT) > 2 * SAME


def folder_of(model: PreTrainedModel, folder: Path) -> Path:
    tiny(folder)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_refuses_a_base_that_it_would_compute_wrongly(tmp_path: Path, method: str) -> None:
    base, told = folder_of(granite(), tmp_path / "base"), []
    with pytest.raises(TrainingError, match=r"^A granite model computes .* another base"):
        train.train(
            base, [Example("w1 w2", "w3 w4", "fact", 0), Example("w5", "w6", "fact", 1)], (), Recipe(2, method=method),
            warm_from=None, out=tmp_path / "adapter", progress=told.append,
        )  # fmt: skip
    assert not told
    assert not (tmp_path / "adapter").exists()


def test_the_longest_of_all_sequences_is_compared() -> None:
    short, long = ([3], [4]), ([3, 4, 5], [6, 7])
    for at in range(3):
        sequences = [[short] for _ in range(3)]
        sequences[at].append(long)
        assert train.Lessons(*sequences, (), (), [], []).longest == long


# Writing


PROMPT = [5, 17, 3] * 6


def written(model: Any, text: list[int] | None) -> list[int]:
    reader = decoding.opened(model)
    reader.read(PROMPT)
    writing = Writing(reader, Written(), eos=-1, limit=30, text=text)
    decoding.write([writing])
    return writing.written.tokens


def greedily(model: Any) -> list[int]:
    """What the whole text in one pass says at each place, without any memory."""
    tokens = list(PROMPT)
    for _ in range(30):
        with torch.inference_mode():
            tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[len(PROMPT) :]


@every_sliding
def test_guesses_leave_the_text_as_it_is_where_a_window_slides(build: Callable[[], Any]) -> None:
    model = build()
    plain = written(model, None)
    misleading = [*plain[:3], *((token + 1) % len(WORDS) for token in plain[3:])]
    assert written(model, PROMPT) == written(model, misleading) == plain == greedily(model)


def test_guesses_are_made_only_where_a_wrong_one_can_be_forgotten() -> None:
    separate = llama()
    attention.separate(separate)
    for model, guesses in ((llama(), True), (separate, True), (mistral(), False)):
        reader = decoding.opened(model)
        reader.read(PROMPT)
        reader.row = torch.eye(len(WORDS))[PROMPT[0]]
        assert reader.can_unread == guesses
        read = Writing(reader, Written(), eos=-1, limit=30, text=PROMPT).next()
        assert (len(read) > 1) == guesses


@pytest.mark.parametrize("build", [SLIDING["mistral"], SLIDING["gemma3"]], ids=["mistral", "gemma3"])
def test_an_engine_whose_base_slides_writes_the_plain_text(build: Callable[[], Any], tmp_path: Path) -> None:
    """A draft, guesses, the opening and several chats at once; no close choice is made again plainly here."""
    engine = LocalGenerator(folder_of(build(), tmp_path), form="float32")
    engine.doubt, engine.eos = 0.0, -1
    chats = [prompt.messages(" ".join(words * 5)) for words in (["w7", "w8", "w9"], ["w20"], ["w31", "w2"])]
    for chat in chats:
        plain = engine.plain(chat, max_tokens=24).text
        assert len(plain.split()) > SHORT
        assert engine.generate(chat, max_tokens=24).text == plain
        words = plain.split()
        for draft in (words, words[:12], [*words[:5], "w1", *words[6:]], ["w1"]):
            assert engine.confirm(chat, " ".join(draft), max_tokens=24).text == plain
    together = engine.many([Request(tuple(chat), 24, None) for chat in chats])
    assert texts(together) == texts([engine.plain(chat, max_tokens=24) for chat in chats])


def texts(found: list[Any]) -> list[str]:
    return [one.text for one in found if isinstance(one, Generation)]
