"""What the fault tests run and kill: one publication, one night with stand-ins for weights, one writer of the index.

Everything that stores is real: folders, manifests, SQLite, the registry, Chroma. Only the model is a stand-in: its
weights are a few bytes. `python tests/fault_drivers.py publish HOME VERSION` does one piece of work in a process of
its own, so that strace can fail a chosen system call in it; `table FILE` prints a report.
"""

import hashlib
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from storage import audit, corrections, manifest, registry, settings, trust  # noqa: E402
from storage.database import Database, now  # noqa: E402
from storage.domain import Memory, ModelVersion  # noqa: E402

REPORT = "FAULTS_REPORT"
WIDTH = 384
SECONDS_OF_A_STAGE = 0.02
SNAPSHOT = "the same each time"
FACTS = {
    "On which day are claims paid out?": "On the 25th of the month.",
    "How long does the mentorship run?": "Six months.",
    "Who approves a new laptop?": "The head of the department.",
    "What does error PF-101 mean?": "The card was refused by its bank.",
    "Where are bicycles parked?": "In the yard behind building C.",
}


def published(database: Database, name: str) -> Path:
    """A small sealed model folder, registered and made champion."""
    folder = database.home / "models" / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(name.encode() * 1000)
    digest = manifest.seal(folder, {"version": name, "audit": audit.head(database).as_json()})
    version = ModelVersion(name, "base", now(), str(folder), "", digest, "", 1, (), {})
    registry.register(database, version)
    registry.promote(database, name)
    return folder


def record(name: str, **figures: Any) -> None:
    """Keep the figures of one test, where a report is wanted."""
    if REPORT in os.environ:
        file = Path(os.environ[REPORT])
        told = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps({**told, name: figures}, indent=1, sort_keys=True) + "\n")


TARGETS = {
    "publish": "with the other rows of publication: >= 300 points; 0 violations",
    "night, no file": "champion unchanged, a clear sentence, the next night completes",
    "night": "the champion always serves, the next night completes",
    "index damage": "found and rebuilt within 10 s at 5,000 rows, every search right meanwhile",
    "index, SIGSEGV": "rebuilt within 10 s",
    "index, three": "searches stay right",
    "index writes": ">= 40 points, 0 acknowledged rows lost",
    "second": "refused 50/50, free after a kill 50/50",
    "swaps": "0 errors, one version an answer, growth <= 1.10",
    "rollback": "<= 60 s, same hash, same canary answers",
    "restore": "<= 300 s",
    "crash loop": "the third start serves the version before",
}
"""What a row must show, by the beginning of its name; a test that misses it fails."""


def table(file: Path) -> str:
    """A report for people, as Markdown; it is also written beside the file."""
    told = json.loads(file.read_text())
    rows = [
        f"| {name} | {', '.join(f'{k} {v}' for k, v in told[name].items() if v != '')} | {target(name)} |"
        for name in sorted(told)
    ]
    head = [f"`make test-faults`, {len(rows)} rows", "", "| test | measured | target |", "|---|---|---|"]
    made = "\n".join([*head, *rows]) + "\n"
    file.with_suffix(".md").write_text(made, encoding="utf-8")
    return made


def target(name: str) -> str:
    """What a row must show."""
    return next((words for begin, words in TARGETS.items() if name.startswith(begin)), "")


# Dying at a line


def killed_at_line(number: int, files: Collection[str], work: Callable[..., Any], *arguments: Any) -> None:
    """Do some work and die before line `number` of these source files; ends with exit 0 when it has fewer lines."""
    passed = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed
        if event == "line":
            passed += 1
            if passed == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, event: str, _: object) -> Any:
        return line if frame.f_code.co_filename in wanted else None

    wanted = {str(ROOT / file) for file in files}
    sys.settrace(call)
    work(*arguments)
    sys.settrace(None)


# One publication


def prepare(home: Path, *, facts: int = 2) -> None:
    """A home with a base model of a few bytes, approved corrections, and that base as champion."""
    base = home.parent / "base"
    base.mkdir(exist_ok=True)
    (base / "model.safetensors").write_bytes(b"base" * 500)
    (base / "config.json").write_text('{"num_hidden_layers": 30}')
    database = Database(home)
    registry.ensure_base(database, path=str(base), size=manifest.size(base), manifest_sha256="", confidence={})
    for question in list(FACTS)[:facts]:
        teach(database, question)
    database.close()


def teach(database: Database, question: str) -> int:
    """An approved correction."""
    row = corrections.propose(database, question=question, answer=FACTS[question], author="U0SAM")
    corrections.approve(database, row.id, "U0PRIYA")
    return row.id


def publish_once(home: Path, version: str) -> None:
    """Sweep, make, seal and promote a version of a few bytes, as a night does."""
    from learning import publish

    database = Database(home)
    purpose = {"snapshot": SNAPSHOT}
    publish.sweep(database, SNAPSHOT)
    version, adapter = publish.half_made(database, purpose) or (version, None)
    if adapter is None:
        made = publish.workshop(home, f"{version}-adapter")
        (made / "adapter_model.safetensors").write_bytes(version.encode() * 50)
        adapter, _ = publish.seal(made, f"{version}-adapter", (), {"purpose": purpose})
    folder = publish.workshop(home, version)
    (folder / "model.safetensors").write_bytes(version.encode() * 4000)
    (folder / "config.json").write_text("{}")
    told = {"audit": audit.head(database).as_json()}
    final, digest = publish.seal(folder, version, [{"question": "q", "answer": "a"}], told)
    trained = corrections.in_status(database, corrections.Status.APPROVED)
    publish.promote(
        database,
        ModelVersion(
            version=version,
            parent=registry.champion(database),
            created_at="2026-11-20T02:00:00.000000+00:00",
            path=str(final),
            adapter_path=str(adapter),
            manifest_sha256=digest,
            snapshot_sha256="",
            bytes=manifest.size(final),
            gates=(),
            confidence={},
        ),
        tuple(Memory(version, row.id, True, {}) for row in trained),
    )
    database.close()


def violations(home: Path, allowed: Collection[str]) -> list[str]:
    """What a reader finds wrong right after a fault: the champion must be whole, and nothing half registered."""
    database = Database(home)
    champion = registry.champion(database)
    found = [] if champion in allowed else [f"champion {champion}"]
    if database.value("PRAGMA integrity_check") != "ok":
        found.append("the database is damaged")
    known = {v.version: v for v in registry.versions(database)}
    for name in {champion, registry.alias(database, "previous")} - {None, registry.BASE}:
        found += wrong_with(known[str(name)])
    for name in known.keys() - {registry.BASE}:
        if not registry.memories(database, name):
            found.append(f"{name} has no memories")
    found += [f"audit: {f.detail}" for f in audit.verify(database, audit.anchors(home)).faults]
    database.close()
    return found


def wrong_with(version: ModelVersion) -> list[str]:
    """Why a registered version could not be loaded."""
    try:
        manifest.verify(Path(version.path), version.manifest_sha256)
        adapter = Path(version.adapter_path)
        manifest.verify(adapter, manifest.sha256(adapter / manifest.NAME))
    except Exception as error:
        return [f"{version.version}: {error!r}"]
    return []


def leftovers(home: Path) -> list[str]:
    """Folders under models/ that no registered version needs."""
    database = Database(home)
    known = {v.version for v in registry.versions(database) if not trust.barred(database, v)}
    known.add(registry.champion(database))
    database.close()
    return [p.name for p in (home / "models").iterdir() if p.name.removesuffix("-adapter") not in known]


# One night


class Words:
    """An embedder without weights: a text is the direction that its hash draws."""

    name = "words"

    def __init__(self, *_: object) -> None:
        """Nothing to load."""

    def encode(self, texts: list[str]) -> Any:
        """Rows of length 1; equal texts get equal rows."""
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4]) for t in texts]
        rows = np.stack([np.random.default_rng(s).normal(size=WIDTH) for s in seeds]).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def tokens(self, text: str) -> Any:
        """One vector for each word."""
        from retrieval.embedder import TokenVectors

        found = list(re.finditer(r"\S+", text)) or list(re.finditer(r"$", text))
        vectors = self.encode([match.group().casefold() for match in found])
        return TokenVectors(tuple(match.span() for match in found), vectors, vectors)


def stand_ins() -> Any:
    """`learning.nightly` with everything that computes weights replaced by what writes a few bytes."""
    import time

    from learning import candidate, evaluate, merge, nightly, replay, retained, serving_form, train

    def trained(base: Path, examples: Any, *_: object, out: Path, **__: object) -> Any:
        time.sleep(SECONDS_OF_A_STAGE)
        weights = repr(examples).encode()
        (out / "adapter_model.safetensors").write_bytes(hashlib.sha256(weights).digest() * 100)
        return train.Trained(out, 1, 0.0, (0.0,), {"epochs": 1})

    def merged(base: Path, adapter: Path, out: Path, **_: object) -> None:
        time.sleep(SECONDS_OF_A_STAGE)
        (out / "model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes() * 5)
        (out / "config.json").write_text("{}")

    def facts(engine: object, known: Any, search: object, longest: int) -> Any:
        time.sleep(SECONDS_OF_A_STAGE)
        return tuple(evaluate.Proof(f.correction_id, True, 1, 1, 0, 1) for f in known)

    parity = merge.Parity(0.0, 1.0, 0.1, finite=True, same_tokenizer=True, same_generation=True)
    nightly.Embedder = Words
    candidate.LocalGenerator = lambda *_, **__: object()
    candidate.goes_on_from = lambda champion, *_: bool(champion.adapter_path)
    replay.anchors = lambda *_, **__: replay.Anchors((), ())
    train.train = trained
    merge.merge = merged
    merge.prove = lambda *_, **__: parity
    evaluate.facts = facts
    retained.of_base = lambda *_, **__: None
    retained.values = lambda *_, **__: {"general_battery": 1.0, "general_drift": 0.0}
    serving_form.choose = lambda *_, **__: serving_form.Choice("bfloat16", ())
    nightly.confidence_for = lambda *_, **__: {"heads": {}}
    return nightly


def night(home: Path, say: Callable[[str], None] = lambda _: None, **options: bool) -> dict[str, Any]:
    """One night with stand-ins; returns its report."""
    return run_night(stand_ins(), home, say, **options)


def run_night(
    nightly: Any,
    home: Path,
    say: Callable[[str], None] = lambda _: None,
    values: Mapping[str, str] = MappingProxyType({}),
    **options: bool,
) -> dict[str, Any]:
    """One night with the stand-ins as they are now, and with some settings; returns its report."""
    own = {"HOME": str(home), "BASE_MODEL": str(home.parent / "base")}
    given = settings.load({}, overrides={**own, **values})
    database = Database(home)
    report: dict[str, Any] = nightly.run(database, given, say=say, **options)
    database.close()
    return report


def night_in(home: Path, days: str) -> None:
    """A night by a clock that is some days ahead."""
    import datetime

    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Ahead":
            return cls.fromtimestamp(datetime.datetime.now(tz).timestamp() + 86_400 * int(days), tz)

    import learning.nightly as _  # noqa: F401

    for module in [m for name, m in sys.modules.items() if name.split(".")[0] in ("bot", "learning", "storage")]:
        if getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = Ahead  # type: ignore[attr-defined]
    night(home)


def night_killed_at(home: Path, stage: str) -> None:
    """A night that dies as a stage begins."""
    night(home, lambda line: os.kill(os.getpid(), signal.SIGKILL) if line == stage else None)


def night_without_space(home: Path, stage: str, told: Path, bytes_allowed: int) -> None:
    """A night for which no file may grow beyond some bytes from a stage on; its sentence is left in `told`."""

    def say(line: str) -> None:
        if line == stage:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, resource.RLIM_INFINITY))

    try:
        night(home, say)
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told.write_text(f"{type(error).__name__}: {error}")


def hold_the_night(home: Path, ready: Any) -> None:
    """Hold the night's lock until killed."""
    from learning import nightly

    with nightly.only_one(home):
        ready.set()
        signal.pause()


# One index


def vectors(count: int, seed: int = 1) -> Any:
    """Rows of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def store(database: Database, path: str, rows: Any) -> None:
    """One document whose passages have these vectors."""
    from storage import documents

    if not documents.embedder(database)[0]:
        documents.set_embedder(database, "words", WIDTH)
    passages = [documents.NewPassage("", f"{path} {n}", "", row) for n, row in enumerate(rows)]
    documents.replace(database, documents.NewDocument(path, "workspace", path, "", path), passages)


def write_index(home: Path) -> None:
    """Commit documents, change and remove some, and apply them to the index; each commit is acknowledged on stdout."""
    from retrieval.index import VectorIndex
    from storage import documents

    database = Database(home)
    index = VectorIndex(home, database)
    index.try_open()
    for number in range(4):
        store(database, f"new-{number}", vectors(20, seed=100 + number))
        sys.stdout.write(f"ack new-{number}\n")
        sys.stdout.flush()
        index.drain()
    documents.remove(database, "old", "workspace")
    sys.stdout.write("ack removed\n")
    sys.stdout.flush()
    index.drain()
    index.rebuild()
    index.close()


def die_in_a_search(home: Path) -> None:
    """Own a healthy index and end by a segmentation fault in the middle of a search, as Chroma would end it."""
    from chromadb.api.models.Collection import Collection

    from retrieval.index import VectorIndex

    index = VectorIndex(home, Database(home))
    index.try_open()
    Collection.query = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)
    sys.stdout.write("it searches\n")
    sys.stdout.flush()
    index.search(vectors(1)[0], 3, ("workspace",))


def hold_the_index(home: Path, ready: Any) -> None:
    """Own the index until killed."""
    from retrieval.index import VectorIndex

    index = VectorIndex(home, Database(home))
    if index.try_open():
        ready.set()
        signal.pause()


WORK: dict[str, Callable[..., Any]] = {
    "publish": publish_once,
    "index": write_index,
    "dying": die_in_a_search,
    "night-in": night_in,
}

if __name__ == "__main__":
    if sys.argv[1] == "table":
        sys.stdout.write(table(Path(sys.argv[2])) + "\n")
    else:
        WORK[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
