"""The local engine: write an answer greedily, or check a stored one in a single pass.

Every result carries the log-probability of each answer token and its margin over the runner-up, both from the raw
logits. It knows nothing of routes, thresholds or databases; prompts come from `bot.prompt`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.generation import Generation
from bot.prompt import Message
from storage.errors import IntegrityError

log = logging.getLogger(__name__)
quiet: Any = transformers.utils.logging
quiet.set_verbosity_error()
quiet.disable_progress_bar()


class LocalGenerator:
    """One causal language model in memory. Not thread-safe: one thread owns it."""

    def __init__(self, folder: Path, *, form: str = "bfloat16") -> None:
        """Load a merged folder in the given number format ("bfloat16" or "float32")."""
        self.folder = folder
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = load_model(folder, form)
        self.device = self.model.device
        self.eos = int(self.tokenizer.eos_token_id)

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """Greedy text for a chat, at most `max_tokens` tokens."""
        return self._continue(self.prompt_ids(messages), [], [], [], max_tokens)

    def generate_many(self, chats: Sequence[Sequence[Message]], *, max_tokens: int, batch: int = 16) -> list[str]:
        """Greedy texts of many chats, batched by length; for measuring, where single timings do not matter."""
        order = sorted(range(len(chats)), key=lambda i: len(chats[i][-1]["content"]))
        texts = [""] * len(chats)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            for at, tokens in zip(
                chosen,
                self.continue_many([self.prompt_ids(chats[i]) for i in chosen], max_tokens),
                strict=True,
            ):
                texts[at] = self._text(tokens)
        return texts

    def continue_many(self, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
        """Greedy answer tokens for several prompts in one batch, each up to and with its end-of-sequence token."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self.eos] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                inputs=ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=self.eos,
                pad_token_id=self.eos,
            )
        rows = out[:, width:].tolist()
        return [row[: row.index(self.eos) + 1] if self.eos in row else row for row in rows]

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, found by checking `draft` in one forward pass and going on where the model differs.

        The tokens of the draft that the model would have chosen itself are kept, so the text is the greedy text at
        the price of a prefill. Source of the idea: speculative decoding (Leviathan et al., 2023) with a given draft.
        """
        prompt = self.prompt_ids(messages)
        tokens = [*self.tokenizer.encode(draft, add_special_tokens=False), self.eos]
        tokens = tokens[:max_tokens]
        logits = self.logits([*prompt, *tokens])[len(prompt) - 1 : -1]
        agreed = int(first_difference(logits.argmax(-1).tolist(), tokens))
        logprobs, margins = scores(logits[:agreed], tokens[:agreed])
        share = agreed / len(tokens)
        if agreed == len(tokens):
            return Generation(self._text(tokens), logprobs, margins, tokens[-1] == self.eos, share)
        rest = self._continue(prompt, tokens[:agreed], list(logprobs), list(margins), max_tokens)
        return Generation(rest.text, rest.logprobs, rest.margins, rest.stopped, share)

    def _continue(
        self,
        prompt: list[int],
        written: list[int],
        logprobs: list[float],
        margins: list[float],
        max_tokens: int,
    ) -> Generation:
        """Decode greedily behind `prompt` and the tokens written so far."""
        room = max_tokens - len(written)
        if room <= 0:
            return Generation(self._text(written), tuple(logprobs), tuple(margins), stopped=False)
        ids = torch.tensor([[*prompt, *written]], device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                inputs=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                do_sample=False,
                eos_token_id=self.eos,
                pad_token_id=self.eos,
                output_logits=True,
                return_dict_in_generate=True,
            )
        new = out.sequences[0, ids.shape[1] :].tolist()
        more_logprobs, more_margins = scores(torch.cat(out.logits).float(), new)
        tokens = [*written, *new]
        return Generation(
            self._text(tokens), (*logprobs, *more_logprobs), (*margins, *more_margins), tokens[-1] == self.eos
        )

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a chat, up to where the answer begins."""
        text = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Raw logits [tokens, vocabulary] in fp32 for one sequence."""
        with torch.inference_mode():
            return torch.as_tensor(self.model(torch.tensor([ids], device=self.device)).logits[0]).float()

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def load_model(folder: Path, form: str) -> Any:
    """The model of a folder, ready to answer. Raises IntegrityError when a weight is not finite."""
    dtype = getattr(torch, form)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise IntegrityError(f"{folder.name} holds weights that are not finite numbers.")
    return model


def scores(logits: torch.Tensor, tokens: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Log-probability of each token and the best logit's margin over the second; logits is [tokens, vocabulary]."""
    if not len(tokens):
        return (), ()
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    best = logits.topk(2, dim=-1).values
    return tuple(chosen.tolist()), tuple((best[:, 0] - best[:, 1]).tolist())


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items are equal."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))
