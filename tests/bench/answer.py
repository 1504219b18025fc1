"""Measure finding, quoting, copying and routing, and write tests/bench/answer.json and answer.md: `make bench-answer`.

Each measure is a function that gives figures; a data set that is not there is named instead. Run it alone on the
machine: two of the figures are times. It judges nothing but the targets that stand beside the figures.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bot import quoting
from bot.pipeline import PASSAGES_READ
from learning import reliability, routing
from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.retriever import Retriever
from storage import company, documents, environment
from storage.database import Database
from storage.documents import NewDocument, NewPassage
from storage.domain import Route
from tests.bench import asking, exact, few, quotes, routed, speed
from tests.bench.asking import Found, Library
from tests.bench.routed import Office
from tests.bench.same_question import SETS, SHIPPED, compared

HERE = Path(__file__).parent
PAGES_FOUND = 12
"""Passages asked for, so that five different pages are among them."""
WORDINGS_INDEXED = 3
INGEST_SAMPLE, INGEST_ROUNDS = 240, 20
PASSAGES = 10_000


@dataclass(frozen=True)
class Figure:
    """One number with what it should be at least (or, where `most` is set, at most)."""

    name: str
    value: float
    target: float | None
    detail: str
    most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.most else self.value >= self.target

    @property
    def wanted(self) -> str:
        """The target as a table shows it."""
        return "" if self.target is None else f"{'at most' if self.most else 'at least'} {self.target:g}"


@dataclass
class Bench:
    """What the measures share: one embedder, a folder, and both handbooks as far as they are there."""

    embedder: Embedder
    home: Path
    handbook: Library | None = None

    @cached_property
    def office(self) -> Office:
        """The bot that was taught every fact of the demo company."""
        return routed.office(self.home / "office", self.embedder)

    def find(self, k: int) -> list[Found]:
        """The natural questions about the large handbook with their k best passages; none without it."""
        if self.handbook is None:
            return []
        return asking.find(self.embedder, self.handbook, asking.handbook_questions(), k)


def handbook_pages(bench: Bench) -> Iterator[Figure]:
    """The right page among the first one and the first five."""
    if bench.handbook is None:
        return
    places = []
    for found in bench.find(PAGES_FOUND):
        pages = list(dict.fromkeys(bench.handbook.file_of(hit) for hit in found.hits))
        places.append(next((at for at, page in enumerate(pages) if page.endswith(f"/{found.asked.page}")), 99))
    told = f"{len(places)} natural questions on {len({q.page for q in asking.handbook_questions()})} pages of 245"
    yield Figure("handbook page R@1", share(place == 0 for place in places), 0.70, told)
    yield Figure("handbook page R@5", share(place < 5 for place in places), 0.92, told)


def stackfaq(bench: Bench) -> Iterator[Figure]:
    """Question, answer and three paraphrases of every fact are indexed; the other paraphrases are asked."""
    file = asking.DATA / "stackfaq" / "stackfaq.jsonl"
    if not file.is_file():
        return
    facts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    database = Database(bench.home / "stackfaq")
    texts = [
        (fact["question"], text)
        for fact in facts
        for text in (fact["answers"][0][:900], *fact["paraphrases"][:WORDINGS_INDEXED])
    ]
    store(database, bench.embedder, texts)
    retriever = Retriever(database, bench.embedder, VectorIndex(database.home, database))
    places = []
    for fact in facts:
        for asked in fact["paraphrases"][WORDINGS_INDEXED:]:
            found = dict.fromkeys(p.document for p in retriever.search(asked, 20))
            places.append(next((at for at, title in enumerate(found) if title == fact["question"]), 99))
    told = f"{len(places)} paraphrases of {len(facts)} facts, {WORDINGS_INDEXED} others indexed"
    yield Figure("StackFAQ R@1", share(place == 0 for place in places), 0.90, told)
    yield Figure("StackFAQ R@5", share(place < 5 for place in places), 0.98, told)


def store(database: Database, embedder: Embedder, texts: Sequence[tuple[str, str]]) -> None:
    """Titled texts as documents of one passage each."""
    vectors = embedder.encode([documents.searchable(title, "", text) for title, text in texts])
    documents.set_embedder(database, embedder.name, vectors.shape[1])
    for number, ((title, text), vector) in enumerate(zip(texts, vectors, strict=True)):
        passage = NewPassage("", text, text, vector)
        documents.replace(database, NewDocument(f"/{number}", "workspace", title, "", str(number)), [passage])


def reading(bench: Bench) -> Iterator[Figure]:
    """Whether the quote holds the answer, of the questions whose answer stands in the passages given."""
    shelf = asking.library(bench.home / "company", bench.embedder, company.pages())
    found = asking.find(bench.embedder, shelf, asking.company_questions(), PASSAGES_READ) + bench.find(PASSAGES_READ)
    kinds = quotes.held_out(found, bench.embedder)
    rights = [right for own in kinds.values() for right in own]
    told = ", ".join(f"{kind} {np.mean(own):.2f} of {len(own)}" for kind, own in kinds.items())
    yield Figure(
        "reading: the quote holds the answer",
        float(np.mean(rights)),
        0.75,
        f"weights fitted on the other half of the facts; {told}",
    )
    shipped = [right for _, right in quotes.replies(found, bench.embedder, quoting.WEIGHTS)]
    yield Figure("reading, end to end", float(np.mean(shipped)), None, f"shipped weights, all {len(found)} questions")
    yield Figure("answer in the passages given", share(map(asking.given, found)), None, f"{PASSAGES_READ} passages")


def quoting_time(bench: Bench) -> Iterator[Figure]:
    """How long quoting takes, with sentences that were never read before."""
    found = bench.find(PASSAGES_READ)
    fresh = Embedder()
    fresh.encode(["warm"])
    work = [partial(quoting.best_quote, one.asked.question, one.vector, one.hits, fresh) for one in found]
    times = [timed(quote) for quote in work]
    again = [timed(quote) for quote in work]
    if times:
        told = f"{len(found)} questions; again, with the sentences known: {1000 * quantile(again, 0.95):.0f} ms"
        yield Figure("quoting, p95 in ms", 1000 * quantile(times, 0.95), None, told, most=True)


def ingest_speed(bench: Bench) -> Iterator[Figure]:
    """Passages a second against plain fp32 SentenceTransformer.encode in file order, in pairs."""
    if bench.handbook is None:
        return
    rows = bench.handbook.database.rows("SELECT titled FROM passages_fts ORDER BY rowid LIMIT ?", (INGEST_SAMPLE,))
    texts = [row["titled"] for row in rows]
    plain = Embedder(exact=True).load()
    plain.encode(texts[:32], show_progress_bar=False)
    bench.embedder.encode([f"warm {n}" for n in range(300)])
    ratios = []
    for _ in range(INGEST_ROUNDS):
        slow = timed(lambda: plain.encode(texts, show_progress_bar=False))
        fast = timed(lambda: bench.embedder.encode(texts))
        ratios.append(slow / fast)
    told = f"{len(texts)} passages, {len(ratios)} pairs, {min(ratios):.1f} to {max(ratios):.1f}"
    yield Figure("ingest: embedding against plain fp32", statistics.median(ratios), 2.0, told)


def retrieval_time(bench: Bench) -> Iterator[Figure]:
    """The whole search, embedding the question too, over 10,000 passages."""
    questions = [asked.question for asked in [*asking.handbook_questions(), *asking.company_questions()]]
    database = Database(bench.home / "large")
    chosen = np.random.default_rng(7)
    rows = bench.handbook.database.rows("SELECT heading, text FROM passages") if bench.handbook else []
    texts = [row["text"] for row in rows] or questions
    directions = chosen.normal(size=(PASSAGES, 384)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    write_large(database, bench.embedder, texts, directions)
    index = VectorIndex(database.home, database)
    if index.try_open():
        index.drain()
    retriever = Retriever(database, bench.embedder, index)
    retriever.search("warm the caches up", 5)
    fresh = [f"{question} ({n})" for n, question in enumerate(questions)]
    times = [timed(partial(retriever.search, question, 5)) for question in fresh]
    index.close()
    told = f"{len(times)} questions over {PASSAGES} passages, median {1000 * statistics.median(times):.0f} ms"
    yield Figure("retrieval, p95 in ms", 1000 * quantile(times, 0.95), 60, told, most=True)


def write_large(database: Database, embedder: Embedder, texts: Sequence[str], directions: NDArray[np.float32]) -> None:
    """Many passages: real text for the word search, random directions for the vector search."""
    documents.set_embedder(database, embedder.name, directions.shape[1])
    for start in range(0, len(directions), 100):
        passages = [
            NewPassage("", f"{texts[(start + n) % len(texts)]} {start + n}", "", row)
            for n, row in enumerate(directions[start : start + 100])
        ]
        documents.replace(database, NewDocument(f"/{start}", "workspace", f"Page {start}", "", ""), passages)


def exactness(bench: Bench) -> Iterator[Figure]:
    """URLs, e-mail addresses, commands and code that come out to the character, by each route and in Slack."""
    facts = exact.facts()
    for route, parts in (
        ("APPROVED", exact.taught(bench.home / "exact-taught")),
        ("RETRIEVED", exact.read(bench.home / "exact-read", bench.home / "exact-pages")),
    ):
        replies = [(fact, exact.reply(parts, fact, about=fact.title)) for fact in facts]
        whole = [exact.lost(fact, answer.text) == [] and answer.route == route for fact, answer in replies]
        shown = [exact.lost(fact, exact.seen(answer)) == [] for fact, answer in replies]
        yield Figure(f"exact strings, {route}", share(whole), 1.0, f"{len(facts)} facts")
        yield Figure(f"exact strings in Slack, {route}", share(shown), 1.0, f"{len(facts)} facts, as they are drawn")


def exact_memory(bench: Bench) -> Iterator[Figure]:
    """The same facts after a night that learnt them: what comes from the weights, and what anybody is given."""
    facts = exact.facts()
    parts, report = exact.learnt(bench.home / "exact-learnt", partial(click.echo, err=True))
    replies = [(fact, exact.reply(parts, fact)) for fact in facts]
    held = [(fact, answer) for fact, answer in replies if answer.route == Route.MEMORISED]
    told = f"{len(held)} of {len(facts)} from the weights after one night ({report['outcome']}), the others as approved"
    if held:
        whole = share(exact.lost(fact, answer.text) == [] for fact, answer in held)
        yield Figure("exact strings, MEMORISED", whole, 1.0, told)
    shown = [exact.lost(fact, exact.seen(answer)) == [] for fact, answer in replies]
    yield Figure("exact strings in Slack after the night", share(shown), 1.0, f"{len(facts)} facts, any route")


def mixed_traffic(bench: Bench) -> Iterator[Figure]:
    """Wordings, near-misses and unknown questions in the mix that is expected: how often a route is wrongly taken."""
    made = bench.office
    served = [made.serve(asked) for asked in routed.traffic()]
    told = f"{len(served)} questions, {made.memorised} of {len(made.ids)} facts in the weights, fitted without the fact"
    wrong = routed.rate(served, of=lambda s: s.direct, holds=lambda s: not s.right)
    direct = sum(s.direct for s in served)
    yield Figure("mixed traffic: wrong among direct", wrong, 0.02, f"{direct} direct of {told}", most=True)
    rightly = routed.rate(served, of=lambda s: s.asked.kind == "wording", holds=lambda s: s.taught and bool(s.right))
    yield Figure("wordings served directly or as closest, rightly", rightly, 0.90, "colleagues' wordings, unseen")
    anyhow = routed.rate(served, of=lambda s: s.asked.kind == "wording", holds=lambda s: bool(s.right))
    yield Figure("wordings answered rightly, by any route", anyhow, None, "a right quote counts too")
    near = routed.rate(served, of=lambda s: s.asked.kind == "wording", holds=made.a_press_away)
    yield Figure("wordings answered rightly, or a press away", near, None, "the taught question is among those offered")
    for source in dict.fromkeys(s.asked.source for s in served if s.asked.kind == "unknown"):
        own = [s for s in served if s.asked.source == source]
        offered = f"{len(own)} questions; {share(s.offered for s in own):.0%} are offered taught questions instead"
        some = share(s.answer.route is not Route.ABSTAINED for s in own)
        yield Figure(f"unknown answered, {source}", some, None, offered, most=True)
    answered = [s.answer.route is not Route.ABSTAINED for s in served if s.asked.kind == "unknown"]
    yield Figure("unknown answered", share(answered), 0.10, f"all {len(answered)}, each counting the same", most=True)
    seen = routed.candidates(served)
    left_out = f"the surest candidate for each question; {len(served) - len(seen)} quotes for near-misses have no key"
    yield Figure("router AUROC", reliability.auroc(seen), 0.92, left_out)
    yield Figure("router ECE", reliability.calibration_error(seen), 0.05, "the same", most=True)
    chart = HERE / "routing.png"
    routing.draw(chart, {"mixed traffic": seen})
    yield Figure("router AURC", reliability.risk_coverage(seen).area, None, f"drawn in {chart.name}", most=True)


def few_taught(bench: Bench) -> Iterator[Figure]:
    """One, three or ten facts taught: direct answers to near-misses, and to questions about something else."""
    rows = few.decided(bench.embedder)
    for size in few.SIZES:
        own = [d for d in rows if d.size == size]
        shares = {k: (few.share(own, k, "direct"), few.share(own, k, "offered")) for k in few.MIX}
        told = ", ".join(f"{kind} {given:.0%} direct, {both:.0%} with offers" for kind, (given, both) in shares.items())
        name = f"{size} taught: wrong among direct"
        yield Figure(name, few.wrong_among_direct(own), 0.02, f"{len(own)} questions; {told}", most=True)


def policies(bench: Bench) -> Iterator[Figure]:
    """The golden set and the facts in colleagues' wordings: one policy for all of them, the router, and an oracle."""
    found = routed.compare(bench.office)
    told = f"{found.questions} questions; each golden one and each fact counts the same"
    yield Figure("accuracy, memory only", found.memory, None, told)
    yield Figure("accuracy, documents only", found.documents, None, told)
    yield Figure("accuracy, routed", found.routed, found.best_fixed + 0.05, "the better of both and 5 points")
    yield Figure("accuracy, oracle", found.oracle, None, "right if one of both is")
    yield Figure("gap to the oracle closed", found.closed, 0.80, "of the way from the better one to the oracle")
    told = f"{found.cited_of} answers from documents, wrong ones too"
    yield Figure("cited page holds the answer", found.cited_page, 0.95, told)
    yield Figure("the answer stands under the heading that is cited", found.cited_section, None, told)


def same_question(_: Bench) -> Iterator[Figure]:
    """Is it the same question? What ships, on the hand-written pairs and on sets that are harder to please."""
    report = compared()
    told = report["methods"][SHIPPED]
    for name in SETS:
        auroc, accepted = (0.85, 0.60) if name == "pairs" else (None, None)
        yield Figure(f"same question, {name}: AUROC", told[name]["auroc"], auroc, "fitted without its fact")
        share_of = f"same question, {name}: wordings accepted while at most 5 % of near-misses are"
        yield Figure(share_of, told[name]["accepted"], accepted, "crossed: every near-miss shares as few words")
    for name, target in (("median", 30.0), ("p95", None)):
        yield Figure(f"same question, {name}, ms", report["milliseconds"][name], target, "comparing alone", most=True)


MEASURES: tuple[Callable[[Bench], Iterator[Figure]], ...] = (
    handbook_pages,
    stackfaq,
    reading,
    quoting_time,
    ingest_speed,
    retrieval_time,
    exactness,
    exact_memory,
    mixed_traffic,
    few_taught,
    same_question,
    policies,
    speed.speed,
)


def share(these: Iterable[bool]) -> float:
    """The share of true ones."""
    return float(np.mean(list(these)))


def quantile(times: Sequence[float], at: float) -> float:
    """A quantile of times."""
    return float(np.quantile(times, at))


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


VERDICTS = {True: "met", False: "MISSED", None: ""}


def table(figures: Sequence[Figure]) -> str:
    """The figures for people; a missed target is named a miss."""
    rows = [f"| {f.name} | {f.value:.3g} | {f.wanted} | {VERDICTS[f.met]} | {f.detail} |" for f in figures]
    return "\n".join(["| figure | measured | target | | how |", "|---|---|---|---|---|", *rows, ""])


@click.command()
@click.option(
    "--only",
    "chosen",
    multiple=True,
    type=click.Choice([measure.__name__ for measure in MEASURES]),
    help="Measure this and keep the other figures as they stand in answer.json; repeatable.",
)
def main(chosen: tuple[str, ...]) -> None:
    """Run every measure and write answer.json and answer.md."""
    environment.prepare()
    made: dict[str, list[Figure]] = {}
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(Embedder(), Path(home))
        if asking.handbook().is_dir():
            bench.handbook = asking.library(Path(home) / "handbook", bench.embedder, asking.handbook())
        else:
            click.echo(f"No tts_handbook under {asking.DATA}: its figures are left out.", err=True)
        for measure in MEASURES:
            if not chosen or measure.__name__ in chosen:
                start = time.perf_counter()
                made[measure.__name__] = list(measure(bench))
                click.echo(f"{measure.__name__}: {time.perf_counter() - start:.0f} s", err=True)
    known = {} if not chosen else kept(json.loads((HERE / "answer.json").read_text(encoding="utf-8")))
    measured = known | made
    figures = {m.__name__: measured[m.__name__] for m in MEASURES if m.__name__ in measured}
    rows = [
        asdict(figure) | {"met": figure.met, "measure": name} for name, own in figures.items() for figure in own
    ]
    (HERE / "answer.json").write_text(json.dumps({"figures": rows}, indent=1) + "\n", encoding="utf-8")
    told = table([figure for own in figures.values() for figure in own])
    (HERE / "answer.md").write_text(told, encoding="utf-8")
    click.echo(told)


def kept(told: dict[str, list[dict[str, Any]]]) -> dict[str, list[Figure]]:
    """The figures of answer.json by the measure they came from."""
    names = [field.name for field in fields(Figure)]
    found: dict[str, list[Figure]] = {}
    for row in told["figures"]:
        figure = Figure(**{name: row[name] for name in names})
        found.setdefault(row.get("measure", ""), []).append(figure)
    return found


if __name__ == "__main__":
    main()
