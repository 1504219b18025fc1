"""Recall against general loss, as more or less of one trained adapter is merged.

    python -m tests.bench.learning --seeds 7 && python -m tests.bench.frontier      some minutes on two cores

It merges shares of the adapter that the headline left, and measures taught wordings, near-misses, the battery, reading
and general loss against the base. Results go to tests/bench/learning.json, the plots beside it.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from bot import base_model
from bot.generator import LocalGenerator
from learning import evaluate, merge, retained
from storage import company
from tests.bench import plots
from tests.bench.learning import FORM, OUT, keep, matched, say, share, stored, texts

SCALES = (1.0, 0.9, 0.8, 0.7, 0.6)


def main() -> None:
    """Measure every share and draw."""
    given = argparse.ArgumentParser()
    given.add_argument("--seed", type=int, default=7)
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    asked = given.parse_args()
    home: Path = asked.home.resolve()
    base = base_model.folder(home, "embedded")
    before = retained.of_base(base, home / "cache", FORM, lambda: LocalGenerator(base, form=FORM))
    minutes = stored()["seeds"][str(asked.seed)]["training_minutes"]
    points = [point(home, base, before, asked.seed, scale) | {"minutes": minutes} for scale in SCALES]
    keep({"frontier": points})
    plots.draw(stored(), OUT)


def point(home: Path, base: Path, before: retained.Retained, seed: int, scale: float) -> dict[str, Any]:
    """What one share of the adapter knows, and what it cost."""
    folder = home / "frontier"
    shutil.rmtree(folder, ignore_errors=True)
    merge.merge(base, home / f"adapter-{seed}", folder, scale=scale)
    engine = LocalGenerator(folder, form=FORM)
    facts = company.facts()
    now = retained.of(engine)
    near = [(n, f) for f in facts for n in f.near_misses][::2]
    told = {
        "setting": f"{scale:g} of the adapter",
        "recall": matched(texts(engine, [f.question for f in facts]), facts),
        "exact": share(evaluate.recalls(engine, f.question, f.answer, 96) for f in facts),
        "near_miss_bluffed": matched(texts(engine, [n for n, _ in near]), [f for _, f in near]),
        "general_loss_rise": round(now.loss - before.loss, 4),
        "battery": sum(now.battery.values()),
        "battery_base": sum(before.battery.values()),
        "reading": sum(now.reading.values()),
        "reading_base": sum(before.reading.values()),
    }
    say(str(told))
    return told


if __name__ == "__main__":
    main()
