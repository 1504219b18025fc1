"""The bot and its models: swaps under load, damaged and foreign folders, crash loops, rollback.

The engine is the real one (safetensors, transformers, greedy decoding); only the weights are small and random, so
that each version has an answer of its own by which it can be told. Those marked `faults` take minutes.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fault_drivers
import pytest

from bot import confidence, desk
from bot.desk import Asked, Desk
from learning import calibrate, publish
from retrieval import crashes
from storage import audit, backup, conversations, corrections, manifest, nights, registry, settings, trust
from storage.database import Database
from storage.domain import Answer, Memory, ModelVersion, Route, Style
from storage.errors import ConflictError, IntegrityError
from storage.settings import Settings

FULL = (pytest.mark.faults, pytest.mark.slow)
QUICK = (pytest.mark.slow,)
QUESTION = "How long does the mentorship run?"
WORDS = ("how", "long", "does", "the", "mentorship", "run", "six", "months", "days", "paid", "on", "in", "yard", "of")
SWAPS, REQUESTS, ASKERS = 20, 1000, 4
GROWTH = 1.10
ROLLBACK_SECONDS = 60
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


# Small real models


def weights(folder: Path, seed: int, *, width: int = 64, layers: int = 2) -> None:
    """A Llama of random weights with a tokenizer of a few words, as safetensors."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {word: i for i, word in enumerate([*special, *dict.fromkeys(WORDS)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, eos_token_id=2, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)


def answer_of(folder: Path, question: str) -> str:
    """What a folder's weights say to a question; empty when that text is not their own again once it was tokenized."""
    from bot import prompt
    from bot.generator import LocalGenerator

    engine = LocalGenerator(folder)
    text = engine.generate(prompt.messages(question), max_tokens=8).text
    own = text and engine.confirm(prompt.messages(question), text, max_tokens=8).confirmed == 1.0
    return text if own else ""


def published(database: Database, version: str, seed: int, **size: int) -> Path:
    """Publish a version with random weights and its own answer as canary; returns its folder."""
    folder, adapter = publish.workshop(database.home, version), publish.workshop(database.home, f"{version}-adapter")
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    answer = ""
    while not answer:
        weights(folder, seed, **size)
        answer, seed = answer_of(folder, QUESTION), seed + 100
    canary = {"question": QUESTION, "answer": answer}
    adapter, _ = publish.seal(adapter, f"{version}-adapter", (), {})
    final, digest = publish.seal(folder, version, [canary], {})
    model = ModelVersion(
        version=version,
        parent=registry.champion(database),
        created_at="2026-11-20T02:00:00.000000+00:00",
        path=str(final),
        adapter_path=str(adapter),
        manifest_sha256=digest,
        snapshot_sha256="",
        bytes=manifest.size(final),
        gates=(),
        confidence=confidence.shipped(),
    )
    trained = corrections.in_status(database, corrections.Status.APPROVED)
    publish.promote(database, model, tuple(Memory(version, row.id, False, {}) for row in trained))
    return final


def values(home: Path) -> Settings:
    return settings.load({}, overrides={"HOME": str(home), "MAX_ANSWER_TOKENS": 8, "QUEUE_LIMIT": 100})


@pytest.fixture
def database(home: Path, tmp_path: Path) -> Iterator[Database]:
    """A home whose base is a small model; v1 serves, the base is previous."""
    base = tmp_path / "base"
    base.mkdir()
    weights(base, seed=0)
    opened = Database(home)
    row = corrections.propose(opened, question=QUESTION, answer="Six months.", author="U0SAM")
    corrections.approve(opened, row.id, "U0PRIYA")
    seal = manifest.seal(base, {})
    registry.ensure_base(
        opened, path=str(base), size=manifest.size(base), manifest_sha256=seal, confidence=confidence.shipped()
    )
    published(opened, "v1", seed=1)
    yield opened
    opened.close()


@pytest.fixture
def opened(database: Database) -> Iterator[Callable[[], Desk]]:
    """Opens desks and closes them."""
    kept: list[Desk] = []

    def start() -> Desk:
        made = Desk(database, values(database.home))
        made.start()
        kept.append(made)
        return made

    yield start
    for made in kept:
        made.close()


def asked(text: str = QUESTION) -> Asked:
    return Asked(text, "U0SAM", "C0HELP", route="raw")


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alerts(database: Database) -> list[str]:
    return [n.payload["text"] for n in nights.owed(database) if n.kind == "alert"]


def resident() -> int:
    """Bytes of memory that this process holds."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


# Confidence


@pytest.mark.slow
def test_a_confidence_fitted_anew_is_taken_up_without_a_restart(
    database: Database, opened: Callable[[], Desk]
) -> None:
    started = opened()
    question = Asked(QUESTION, "U0SAM", "C0HELP")
    assert started.submit(question).result(60).route is Route.APPROVED
    never = {"same": dict(calibrate.REFUSES), "quoted": dict(calibrate.REFUSES)}
    registry.recalibrate(database, "v1", {"heads": never})
    until(lambda: started.submit(question).result(60).route is Route.ABSTAINED)
    assert started.version == "v1"


# Swaps


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to read the resident memory")
@pytest.mark.parametrize(
    ("swaps", "requests", "size"),
    [
        pytest.param(SWAPS, REQUESTS, {"width": 512, "layers": 6}, marks=FULL),
        pytest.param(3, 20, {"width": 64, "layers": 2}, marks=QUICK),
    ],
)
def test_swaps_under_load(
    database: Database, opened: Callable[[], Desk], swaps: int, requests: int, size: dict[str, int]
) -> None:
    versions = ["v2", "v3"]
    said = {v: answer_of(published(database, v, seed=i, **size), QUESTION) for i, v in enumerate(versions, 2)}
    assert len(set(said.values())) == len(versions)
    bot = opened()
    wrong, memory, seen = list[str](), list[int](), set[str]()
    left = itertools.count()
    done = threading.Event()

    def ask() -> None:
        while next(left) < requests or not done.is_set():
            answer = bot.submit(asked()).result(timeout=120)
            seen.add(answer.model_version)
            if answer.text != said[answer.model_version]:
                wrong.append(f"{answer.model_version}: {answer.text}")

    with ThreadPoolExecutor(ASKERS) as pool:
        working = [pool.submit(ask) for _ in range(ASKERS)]
        try:
            for number in range(swaps):
                version = versions[number % 2]
                registry.promote(database, version)
                until(lambda version=version: bot.version == version)  # type: ignore[misc]
                time.sleep(0.2)
                memory.append(resident())
        finally:
            done.set()
        for worker in working:
            worker.result(timeout=600)
    growth = memory[-1] / memory[2]
    if swaps == SWAPS:
        fault_drivers.record(
            "swaps under load", swaps=swaps, requests=next(left) - ASKERS, errors=len(wrong),
            weights_mb=round(registry.get(database, "v2").bytes / 1e6), mb_after_3=memory[2] >> 20,
            mb_after_last=memory[-1] >> 20, growth=round(growth, 3),
        )  # fmt: skip
    assert wrong == []
    assert seen == set(versions)
    assert growth <= GROWTH


LARGER = {"width": 512, "layers": 6}


@pytest.mark.parametrize("size", [pytest.param(LARGER, marks=FULL), pytest.param({}, marks=QUICK)])
def test_rollback_brings_the_same_bytes_and_answers_back(
    database: Database, opened: Callable[[], Desk], size: dict[str, int]
) -> None:
    folder = published(database, "v2", seed=2, **size)
    bot = opened()
    before = bot.submit(asked()).result(timeout=60)
    digest = manifest.sha256(folder / manifest.NAME)
    published(database, "v3", seed=3, **size)
    until(lambda: bot.version == "v3")
    other = bot.submit(asked()).result(timeout=60)
    started = time.monotonic()
    done = subprocess.run(rollback_command(database.home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    until(lambda: bot.version == "v2", ROLLBACK_SECONDS)
    after = bot.submit(asked()).result(timeout=60)
    seconds = time.monotonic() - started
    assert (after.text, after.model_version) == (before.text, "v2")
    assert other.text != before.text
    assert manifest.sha256(folder / manifest.NAME) == digest
    assert manifest.verify(folder, digest)["canaries"] == [{"question": QUESTION, "answer": after.text}]
    if size:
        fault_drivers.record(
            "rollback by command, bot running", seconds=round(seconds, 1), same_hash=True, same_canary_answers="1/1",
            weights_mb=round(registry.get(database, "v2").bytes / 1e6),
        )  # fmt: skip
    assert seconds <= ROLLBACK_SECONDS


def rollback_command(home: Path) -> list[str]:
    return [str(Path(sys.executable).parent / "nightshift"), "--home", str(home), "models", "rollback"]


# The restore drill

CORRECTIONS, QUESTIONS, PASSAGES = 500, 5000, 5000
DRILL_SECONDS = 300


def a_year(database: Database) -> None:
    """Corrections, questions with answers, and passages with vectors, as a company gathers them."""
    for part in range(0, PASSAGES, 500):
        fault_drivers.store(database, f"page-{part}", fault_drivers.vectors(500, seed=part + 1))
    with database.write():
        for number in range(CORRECTIONS):
            row = corrections.propose(database, question=f"What is {number}?", answer=f"It is {number}.", author="U1")
            corrections.approve(database, row.id, "U2")
    with database.write():
        for number in range(QUESTIONS):
            question = conversations.ask(database, f"Tell me of {number}", user="U1", channel="C1", thread="")
            conversations.answer(
                database, Answer(question.id, f"Of {number}: much.", Route.RETRIEVED, Style.QUOTED, 0.9, "v1")
            )


@pytest.mark.faults
@pytest.mark.slow
def test_the_drill_a_home_that_is_gone_comes_back_whole_in_minutes(
    database: Database, opened: Callable[[], Desk], tmp_path: Path
) -> None:
    published(database, "v2", seed=2, **LARGER)
    a_year(database)
    bot = opened()
    before = bot.submit(asked()).result(timeout=60)
    bot.close()
    made = backup.make(database, to=tmp_path / "elsewhere", keep=3, models=True)
    counted, home = rows_of(database), database.home
    database.close()
    shutil.rmtree(home)
    started = time.monotonic()
    command = [str(Path(sys.executable).parent / "nightshift"), "--home", str(home), "restore", str(made.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = opened()
    after = again.submit(asked()).result(timeout=60)
    seconds = time.monotonic() - started
    assert (after.text, after.model_version) == (before.text, "v2")
    assert {**rows_of(database), "questions": counted["questions"], "answers": counted["answers"]} == counted
    verdict = audit.verify(database, audit.anchors(home))
    assert (verdict.ok, verdict.restores) == (True, 1)
    fault_drivers.record(
        "restore drill, home deleted, until the first answer", seconds=round(seconds, 1),
        backup_mb=round(made.bytes / 1e6), corrections=CORRECTIONS, questions=QUESTIONS, passages=PASSAGES,
    )  # fmt: skip
    assert seconds <= DRILL_SECONDS


def rows_of(database: Database) -> dict[str, int]:
    tables = ("corrections", "questions", "answers", "passages", "memories", "model_versions")
    return {table: int(database.value(f"SELECT count(*) FROM {table}")) for table in tables}


# Damage


def flip(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def foreign(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"code")


def code(folder: Path) -> None:
    (folder / "modeling.py").write_text("raise SystemExit('this ran')")


def gone(folder: Path) -> None:
    manifest.discard(folder)


def other_config(folder: Path) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"auto_map": {"AutoModelForCausalLM": "modeling.X"}}))


DAMAGE = (flip, cut, foreign, code, gone, other_config)


@pytest.mark.parametrize("damage", [pytest.param(d, marks=QUICK if d in (flip, foreign) else FULL) for d in DAMAGE])
def test_a_damaged_champion_never_serves_and_the_previous_one_starts(
    database: Database, opened: Callable[[], Desk], damage: Callable[[Path], None]
) -> None:
    damage(published(database, "v2", seed=2))
    bot = opened()
    assert bot.version == "v1"
    assert registry.champion(database) == "v1"
    assert bot.submit(asked()).result(timeout=60).model_version == "v1"
    (alert,) = alerts(database)
    assert alert.startswith("v2 is not served: ")
    assert alert.endswith("v1 serves.")
    with pytest.raises(ConflictError, match=r"may not serve|no longer kept"):
        registry.promote(database, "v2")


@pytest.mark.slow
def test_a_version_that_fails_while_the_bot_runs_changes_nothing(
    database: Database, opened: Callable[[], Desk], tmp_path: Path
) -> None:
    bot = opened()
    with database.write():
        flip(published(database, "v2", seed=2))
    until(lambda: bool(alerts(database)))
    assert (bot.version, registry.champion(database)) == ("v1", "v1")
    assert bot.submit(asked()).result(timeout=60).model_version == "v1"


@pytest.mark.slow
def test_weights_that_lost_their_canaries_are_refused(database: Database) -> None:
    folder = published(database, "v2", seed=2)
    told = json.loads((folder / manifest.NAME).read_text())
    (folder / manifest.NAME).unlink()
    digest = manifest.seal(folder, told | {"canaries": [{"question": QUESTION, "answer": "yard yard yard"}]})
    with database.write() as db:
        db.table("model_versions").update("v2", {"manifest_sha256": digest})
    with pytest.raises(IntegrityError, match="Only 0 of 1 canary answers came back"):
        desk.load_version(database, values(database.home), "v2")


@pytest.mark.slow
def test_a_version_that_does_not_load_for_now_stays_champion(
    database: Database, opened: Callable[[], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, folder = desk.load_engine, published(database, "v2", seed=2)

    def load(path: Path, form: str) -> Any:
        if path == folder:
            raise RuntimeError("not enough memory")
        return real(path, form)

    with monkeypatch.context() as patched:
        patched.setattr(desk, "load_engine", load)
        bot = opened()
        assert bot.version == "v1"
        assert registry.champion(database) == "v2"
        assert alerts(database) == [
            "v2 is not served: not enough memory v1 serves. It is tried again at the next start."
        ]
        bot.close()
    assert opened().version == "v2"


# Crash loops

SERVE = """
import os, pathlib, signal, sys, time
from bot import desk
from storage import settings
from storage.database import Database

home, dies_with = pathlib.Path(sys.argv[1]), sys.argv[2]
real = desk.load_engine
def load(folder, form):
    if folder.name == dies_with:
        os.kill(os.getpid(), signal.SIGSEGV)
    return real(folder, form)
desk.load_engine = load
values = settings.load({}, overrides={"HOME": str(home), "MAX_ANSWER_TOKENS": 8})
bot = desk.Desk(Database(home), values)
print(bot.start(), flush=True)
bot.close()
"""


@pytest.mark.faults
@pytest.mark.slow
def test_the_third_start_after_two_crashes_serves_the_previous_version(database: Database) -> None:
    published(database, "v2", seed=2)
    ends = []
    for _ in range(3):
        command = [sys.executable, "-c", SERVE, str(database.home), "v2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        ends.append((done.returncode, done.stdout.strip()))
    assert ends == [(-signal.SIGSEGV, ""), (-signal.SIGSEGV, ""), (0, "v1")]
    assert alerts(database) == ["v2 is not served: The bot ended 2 times while it served v2. v1 serves."]
    assert registry.champion(database) == "v1"
    with pytest.raises(ConflictError, match="crashed the bot"):
        registry.promote(database, "v2")
    fault_drivers.record("crash loop", starts=len(ends), crashes=2, third_start_serves=ends[-1][1])


@pytest.mark.slow
def test_a_death_in_the_vector_index_is_not_the_new_models_fault(
    database: Database, opened: Callable[[], Desk]
) -> None:
    for _ in range(trust.CRASHES):
        trust.begin_trial(database, "v1")
    (database.home / "index").mkdir(exist_ok=True)
    (database.home / "index" / crashes.MARK).write_text(crashes.SEARCHING, encoding="ascii")
    assert opened().version == "v1"
    assert trust.trials(database, "v1") == 1
    assert alerts(database) == []


@pytest.mark.slow
def test_a_death_beside_the_upkeep_of_the_index_is_held_against_the_new_model(
    database: Database, opened: Callable[[], Desk]
) -> None:
    for _ in range(trust.CRASHES):
        trust.begin_trial(database, "v1")
    (database.home / "index").mkdir(exist_ok=True)
    (database.home / "index" / crashes.MARK).write_text(crashes.KEEPING, encoding="ascii")
    assert opened().version == "base"
    assert len(alerts(database)) == 1


@pytest.mark.slow
def test_a_bot_that_nobody_asks_hands_free_memory_back(
    opened: Callable[[], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    bot = opened()
    monkeypatch.setattr(desk.memory, "give_back", lambda: given.append(time.monotonic()))
    time.sleep(2 * desk.IDLE_SECONDS)
    assert given == []
    monkeypatch.setattr(desk, "TIDY_SECONDS", 0.5)
    until(lambda: len(given) >= 2)
    assert given[1] - given[0] >= 0.5
    assert bot.submit(asked()).result(timeout=60).model_version == "v1"


@pytest.mark.slow
def test_a_version_is_proved_by_time_and_answers(
    database: Database, opened: Callable[[], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "TRIAL_SECONDS", 0.0)
    bot = opened()
    for _ in range(desk.TRIAL_ANSWERS):
        assert trust.trials(database, "v1") == 1
        bot.submit(asked()).result(timeout=60)
    until(lambda: trust.trials(database, "v1") == trust.PROVED)
