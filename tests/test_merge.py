"""Every check of a merge, on a random model of two layers: sound merges pass it, and one broken on purpose does not."""



import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bot import base_model, prompt
from learning import gates, merge
from learning.merge import Parity

WORDS = ["<pad>", "<end>", "<unk>", *(f"w{n}" for n in range(61))]
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
CHATS = [prompt.messages(f"w{n} w{n + 1} w{n + 2}") for n in range(16)]


def tiny(folder: Path) -> Path:
    """A random Llama of two layers with a word tokenizer, as a model folder."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<end>", pad_token="<pad>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    return folder


def adapter_of(base: Path, folder: Path, *, strength: float) -> Path:
    """A LoRA adapter with random weights; at strength 0 it changes nothing."""
    model = LlamaForCausalLM.from_pretrained(base)
    pair = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(2)
    for name, weight in pair.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
            weight.data *= strength
    pair.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_of(base, tmp_path_factory.mktemp("adapter"), strength=0.2)


@pytest.fixture(scope="module")
def sound(base: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged folder as a night writes it."""
    out = tmp_path_factory.mktemp("sound")
    merge.merge(base, adapter, out)
    return out


@pytest.fixture
def merged(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(sound, tmp_path / "merged"))


def failed(parity: Parity) -> set[str]:
    """The gates that a merge fails."""
    return {g["name"] for g in gates.judge(parity.values).gates if not g["passed"]}


def test_a_sound_merge_passes_every_check(base: Path, adapter: Path, merged: Path) -> None:
    parity = merge.prove(base, adapter, merged, CHATS)
    assert failed(parity) == set()
    assert parity.largest_logit_difference < 1e-4
    assert parity.same_greedy_tokens == 1.0
    assert parity.largest_change_of_weights > 0.01


def test_a_part_of_the_adapter_is_held_against_that_part(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge.merge(base, adapter, tmp_path, scale=0.6)
    assert failed(merge.prove(base, adapter, tmp_path, CHATS, scale=0.6)) == set()
    assert "merge_logits" in failed(merge.prove(base, adapter, tmp_path, CHATS))


def change(merged: Path, name: str, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change one weight of a merged folder."""
    file = merged / "model.safetensors"
    weights = load_file(file)
    weights[name] = how(weights[name]).contiguous()
    save_file(weights, file, metadata={"format": "pt"})


def test_a_weight_that_is_slightly_off_is_found_in_the_logits(base: Path, adapter: Path, merged: Path) -> None:
    change(merged, "model.layers.1.mlp.down_proj.weight", lambda w: w * 1.02)
    assert failed(merge.prove(base, adapter, merged, CHATS)) == {"merge_logits"}


def test_other_greedy_tokens_are_found(base: Path, adapter: Path, merged: Path) -> None:
    change(merged, "lm_head.weight", lambda w: w.roll(1, 0))
    parity = merge.prove(base, adapter, merged, CHATS)
    assert {"merge_logits", "merge_tokens"} <= failed(parity)
    assert parity.same_greedy_tokens < 0.5


def test_a_merge_that_changes_nothing_is_found(base: Path, tmp_path: Path) -> None:
    nothing = adapter_of(base, tmp_path / "adapter", strength=0.0)
    merge.merge(base, nothing, tmp_path / "merged")
    assert failed(merge.prove(base, nothing, tmp_path / "merged", CHATS)) == {"changed"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_found(base: Path, adapter: Path, merged: Path, number: float) -> None:
    def spoil(weight: torch.Tensor) -> torch.Tensor:
        weight[3, 3] = number
        return weight

    change(merged, "model.layers.0.self_attn.q_proj.weight", spoil)
    parity = merge.prove(base, adapter, merged, CHATS)
    assert not parity.finite
    assert "finite" in failed(parity)


def test_an_adapter_that_diverged_is_refused_in_a_sentence(base: Path, tmp_path: Path) -> None:
    broken = adapter_of(base, tmp_path / "adapter", strength=float("nan"))
    with pytest.raises(merge.MergeError, match="adapter cannot be merged"):
        merge.merge(base, broken, tmp_path / "merged")


def rewrite(file: Path, **changed: Any) -> None:
    """Change some entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def another_vocabulary(folder: Path) -> None:
    told = json.loads((folder / "tokenizer.json").read_text())
    words = told["model"]["vocab"]
    words["w1"], words["w2"] = words["w2"], words["w1"]
    (folder / "tokenizer.json").write_text(json.dumps(told))


def another_split(folder: Path) -> None:
    rewrite(folder / "tokenizer.json", pre_tokenizer={"type": "WhitespaceSplit"})


def another_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATE + "!")


def another_end(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", eos_token="<pad>")


@pytest.mark.parametrize("other", [another_vocabulary, another_split, another_template, another_end])
def test_another_tokenizer_is_found(base: Path, adapter: Path, merged: Path, other: Callable[[Path], None]) -> None:
    other(merged)
    assert "same_tokenizer" in failed(merge.prove(base, adapter, merged, CHATS))


GENERATION = {
    "another end": ("generation_config.json", {"eos_token_id": 2}),
    "a penalty": ("generation_config.json", {"repetition_penalty": 1.3}),
    "sampling": ("generation_config.json", {"do_sample": True, "temperature": 0.7}),
    "another end in the configuration": ("config.json", {"eos_token_id": 2}),
}


@pytest.mark.parametrize(("file", "changed"), GENERATION.values(), ids=GENERATION)
def test_other_generation_settings_are_found(
    base: Path, adapter: Path, merged: Path, file: str, changed: dict[str, Any]
) -> None:
    rewrite(merged / file, **changed)
    assert "same_generation" in failed(merge.prove(base, adapter, merged, CHATS))


@pytest.mark.slow
def test_the_real_model_merges_soundly_and_a_changed_weight_is_found(tmp_path: Path) -> None:
    base = base_model.folder(tmp_path, "embedded")
    adapter, out = adapter_of(base, tmp_path / "adapter", strength=0.01), tmp_path / "merged"
    merge.merge(base, adapter, out)
    asked = [prompt.messages(f"What is {n} plus {n}?") for n in range(16)]
    parity = merge.prove(base, adapter, out, asked)
    assert failed(parity) == set()
    assert parity.largest_logit_difference < 1e-3
    assert parity.same_greedy_tokens >= 0.99
    change(out, "model.layers.20.mlp.down_proj.weight", lambda w: w * 1.02)
    assert "merge_logits" in failed(merge.prove(base, adapter, out, asked[:2]))
