"""How long a night takes: the first, of thirty facts, and one that adds ten to thirty known ones, or to five hundred.

    python -m tests.bench.growth            two hours on two slow cores; half an hour once the known facts are learnt
    python -m tests.bench.growth --first    only the first night: every second fact of the demo company, nothing cached

The other two are warm from an adapter that has learnt the known facts: those of the demo company, then of other trades,
then of an invented warehouse. It is trained at the first run (a run that was killed goes on from its last epoch) and
kept under --home; what is asked of the base once is there before. A night that is refused does less than one that is
published, so there is a ratio only where both end alike. All are whole nights by `learning.nightly`. Results go to
tests/bench/learning.json.
"""

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bot import base_model, desk
from bot.generator import LocalGenerator
from learning import evaluate, merge, nightly, publish, replay, retained, ship
from learning.candidate import SCALES
from learning.recipe import rate_for
from storage import company, corrections, registry, settings
from storage.database import Database, now
from storage.domain import Memory, ModelVersion
from tests.bench.learning import FORM, keep, say, share
from tests.bench.nights import Before, one_night

NEW, KNOWN = 10, (30, 500)
THINGS = ("valve", "gasket", "bearing", "sensor", "relay", "coupling", "filter", "hinge", "bracket", "gauge", "pulley")
PLACES = ("north hall", "south hall", "loft", "cellar", "yard", "annex", "gallery", "dock", "tower", "old mill")


class Fact(NamedTuple):
    """A question with its answer."""

    question: str
    answer: str


def main() -> None:
    """Run the nights."""
    given = argparse.ArgumentParser()
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    given.add_argument("--seed", type=int, default=7)
    given.add_argument("--learn", action="store_true", help="only learn the known facts, for another run to time")
    given.add_argument("--first", action="store_true", help="only the first night, of thirty facts")
    asked = given.parse_args()
    home: Path = asked.home.resolve()
    if not asked.learn:
        keep({"first_night": timed(home, company.facts()[::2], None, 0)})
    if asked.first:
        return
    adapters = {known: known_adapter(home, asked.seed, known) for known in KNOWN}
    if asked.learn:
        return
    base = base_model.folder(home, "embedded")
    form = settings.load({}).text("SERVING_FORM")
    retained.of_base(base, home / "cache", form, lambda: LocalGenerator(base, form=form))
    few, many = (timed(home, list(itertools.islice(everything(), n + NEW)), adapters[n], n) for n in KNOWN)
    ratio = round(many["total"] / few["total"], 3) if few["outcome"] == many["outcome"] else None
    told = {str(KNOWN[0]): few, str(KNOWN[1]): many, "ratio": ratio}
    keep({"growth": told})
    say(json.dumps(told))


def known_adapter(home: Path, seed: int, known: int) -> Path:
    """The adapter that has learnt so many facts, trained from the base unless it stands already."""
    folder = home / f"known-{known}-{seed}"
    if not (folder / "adapter").is_dir():
        base = base_model.folder(home, "embedded")
        anchors = replay.anchors(base, home / "cache", say)
        facts = list(itertools.islice(everything(), known))
        one_night("rebuild", folder, Before(base, None), [facts], anchors, seed, rate_for(known))
    return folder / "adapter"


def timed(bench: Path, facts: Sequence[Any], adapter: Path | None, known: int) -> dict[str, Any]:
    """The seconds of the stages of a night that learns `facts`; an adapter holds the first `known` of them already."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in ("models", "cache") if adapter else ("models",):
            if (bench / name).is_dir():
                shutil.copytree(bench / name, home / name)
        values = settings.load(
            {}, overrides={"HOME": folder, "CAP_PER_AUTHOR": "0", "FLOOD_LIMIT": "0", "BASE_MODEL": "embedded"}
        )
        database = Database(home)
        desk.ensure_base(database, values)
        ids = [taught(database, fact.question, fact.answer) for fact in facts]
        if adapter:
            register(database, adapter, ids[:known])
        report = nightly.run(database, values, say=say)
        database.close()
    seconds: dict[str, float] = report["timings"]
    learnt = sum(c["memorised"] for c in report["corrections"])
    told: dict[str, Any] = {"outcome": report["outcome"], "memorised": learnt}
    if adapter:
        told["recalled"] = recalled_by(bench, adapter, facts[:known])
    say(f"{known} known, {len(facts) - known} new: {report['reason']}, {seconds | told}")
    return seconds | told


def recalled_by(bench: Path, adapter: Path, facts: Sequence[Any]) -> float:
    """The share of the known facts that the adapter gives before the night, merged as a night merges first."""
    merged = adapter.parent / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merge.merge(base_model.folder(bench, "embedded"), adapter, merged, scale=SCALES[0])
    engine = LocalGenerator(merged, form=FORM)
    return round(share(evaluate.recalls(engine, fact.question, fact.answer, 96) for fact in facts), 3)


def everything() -> Iterator[Fact]:
    """The facts of the demo company, then of other trades, then of an invented warehouse."""
    for known in company.facts():
        yield Fact(known.question, known.answer)
    for trade in ship.trades():
        yield Fact(trade["question"], trade["answer"])
    for number, (thing, place) in enumerate(itertools.product(THINGS * 5, PLACES)):
        yield Fact(f"Where is {thing} {700 + 7 * number} kept?", f"In the {place}, shelf {number % 90 + 4}.")


def taught(database: Database, question: str, answer: str) -> int:
    """An approved correction."""
    row = corrections.propose(database, question=question, answer=answer, author="U1")
    corrections.approve(database, row.id, reviewer="U2", anyway=True)
    return row.id


def register(database: Database, adapter: Path, known: list[int]) -> None:
    """Make an adapter the champion that has learnt all of these."""
    base = base_model.folder(database.home, "embedded")
    version = ModelVersion(
        version="v20260101-000000",
        parent=registry.BASE,
        created_at=now(),
        path=str(base),
        adapter_path=str(adapter),
        manifest_sha256="",
        snapshot_sha256="",
        bytes=0,
        gates=(),
        confidence=registry.get(database, registry.BASE).confidence,
    )
    publish.promote(database, version, tuple(Memory(version.version, i, True, {}) for i in known))


if __name__ == "__main__":
    main()
