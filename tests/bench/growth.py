"""How long a night takes that adds ten facts to thirty known ones, and to five hundred.

    python -m tests.bench.learning --seeds 7 && python -m tests.bench.growth        some ten minutes on two cores

Both are whole nights by `learning.nightly`, warm from the adapter of the headline, in homes where so many corrections
are registered as known. Most of the five hundred were never trained (parts of an invented warehouse), so that night is
kept out by its gate for old facts, as it should be; what is compared is the time, every stage but publication and
calibration. Results go to tests/bench/learning.json.
"""

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bot import base_model, desk
from learning import nightly, publish
from storage import company, corrections, registry, settings
from storage.database import Database, now
from storage.domain import Memory, ModelVersion
from tests.bench.learning import keep, say

NEW, KNOWN = 10, (30, 500)
STAGES = ("snapshot", "replay", "train", "merge", "evaluate")
THINGS = ("valve", "gasket", "bearing", "sensor", "relay", "coupling", "filter", "hinge", "bracket", "gauge", "pulley")
PLACES = ("north hall", "south hall", "loft", "cellar", "yard", "annex", "gallery", "dock", "tower", "old mill")


def main() -> None:
    """Run both nights."""
    given = argparse.ArgumentParser()
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    given.add_argument("--seed", type=int, default=7)
    asked = given.parse_args()
    home: Path = asked.home.resolve()
    told: dict[str, Any] = {str(known): timed(home, asked.seed, known) for known in KNOWN}
    told["ratio"] = round(told["500"]["total"] / told["30"]["total"], 3)
    keep({"growth": told})
    say(json.dumps(told))


def timed(bench: Path, seed: int, known: int) -> dict[str, float]:
    """The seconds of a night's stages on top of so many known facts."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in ("models", "cache"):
            if (bench / name).is_dir():
                shutil.copytree(bench / name, home / name)
        values = settings.load(
            {}, overrides={"HOME": folder, "CAP_PER_AUTHOR": "0", "FLOOD_LIMIT": "0", "BASE_MODEL": "embedded"}
        )
        database = Database(home)
        desk.ensure_base(database, values)
        facts = list(itertools.islice(everything(), known + NEW))
        ids = [taught(database, question, answer) for question, answer in facts]
        register(database, bench, seed, ids[:known])
        report = nightly.run(database, values, say=say)
        database.close()
    seconds = {stage: report["timings"].get(stage, 0.0) for stage in STAGES}
    say(f"{known} known: {report['outcome']}, {report['reason']}, {seconds}")
    return seconds | {"total": round(sum(seconds.values()), 1)}


def everything() -> Iterator[tuple[str, str]]:
    """The facts of the demo company, then of an invented warehouse."""
    for fact in company.facts():
        yield fact.question, fact.answer
    for number, (thing, place) in enumerate(itertools.product(THINGS * 5, PLACES)):
        yield f"Where is {thing} {700 + 7 * number} kept?", f"In the {place}, shelf {number % 90 + 4}."


def taught(database: Database, question: str, answer: str) -> int:
    """An approved correction."""
    row = corrections.propose(database, question=question, answer=answer, author="U1")
    corrections.approve(database, row.id, reviewer="U2", anyway=True)
    return row.id


def register(database: Database, bench: Path, seed: int, known: list[int]) -> None:
    """Make the headline's adapter the champion, as if all of these had been learnt with it."""
    base = base_model.folder(database.home, "embedded")
    version = ModelVersion(
        version="v20260101-000000",
        parent=registry.BASE,
        created_at=now(),
        path=str(base),
        adapter_path=str(bench / f"adapter-{seed}"),
        manifest_sha256="",
        snapshot_sha256="",
        bytes=0,
        gates=(),
        confidence=registry.get(database, registry.BASE).confidence,
    )
    publish.promote(database, version, tuple(Memory(version.version, i, True, {}) for i in known))


if __name__ == "__main__":
    main()
