"""Five nights of new facts under three policies: stacked merges, warm start with replay, rebuild.

    python -m tests.bench.nights                        12 facts a night, five nights, three policies (an hour)
    python -m tests.bench.nights --facts 6 --nights 3   something smaller

`stacked` trains only what is new on top of yesterday's merged weights, as the source documents do. `warm` goes on from
yesterday's adapter and repeats known rows in turn, `rebuild` trains everything from the pristine base; both merge onto
the pristine base. Same facts, same seed, same recipe and anchors. R[i][j] is the share of night j's facts that the
model of night i gives in their taught wording. Results go to tests/bench/learning.json.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot import base_model
from bot.generator import LocalGenerator
from learning import evaluate, merge, replay, train
from learning.recipe import Recipe, epochs_for
from storage import company
from tests.bench.learning import FORM, examples, held_out, keep, matched, say, texts

POLICIES = ("stacked", "warm", "rebuild")


@dataclass(frozen=True)
class Before:
    """What a night starts from: the folder that it trains on, and yesterday's adapter if it goes on from it."""

    base: Path
    adapter: Path | None


def main() -> None:
    """Run the policies and write the figures after each."""
    given = argparse.ArgumentParser()
    given.add_argument("--facts", type=int, default=12)
    given.add_argument("--nights", type=int, default=5)
    given.add_argument("--seed", type=int, default=7)
    given.add_argument("--warm-rate", type=float, default=Recipe.rate, help="peak rate of warm nights after the first")
    given.add_argument("--name", default="", help="note the run under this name instead of the policy's")
    given.add_argument("--policies", nargs="+", default=POLICIES)
    given.add_argument("--resume", action="store_true", help="go on behind the nights whose merged models stand")
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    asked = given.parse_args()
    home: Path = asked.home.resolve()
    base = base_model.folder(home, "embedded")
    facts = company.facts()[: asked.facts * asked.nights]
    groups = [facts[i :: asked.nights] for i in range(asked.nights)]
    for policy in asked.policies:
        run = nights_of(policy, home, base, groups, asked.seed, asked.warm_rate, resume=asked.resume)
        keep({"nights": {asked.name or policy: run}})


def nights_of(
    policy: str,
    home: Path,
    base: Path,
    groups: Sequence[Sequence[Any]],
    seed: int,
    warm_rate: float,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """All nights of one policy; with `resume` nothing is trained again, and such a night has no minutes."""
    anchors = replay.anchors(base, home / "cache", say)
    before = Before(base, None)
    told: dict[str, Any] = {"facts_a_night": len(groups[0]), "seed": seed, "R": [], "battery": [], "drift": []}
    told |= {"minutes": [], "battery_base": sum(evaluate.general(LocalGenerator(base, form=FORM)).values())}
    for number, new in enumerate(groups):
        started = time.monotonic()
        rate = warm_rate if policy == "warm" and number else Recipe.rate
        folder = home / f"{policy}-{rate:g}-{number}"
        stands = resume and (folder / "merged").is_dir()
        if not stands:
            one_night(policy, folder, before, groups[: number + 1], anchors, seed, rate)
        merged, adapter = folder / "merged", folder / "adapter"
        told["minutes"].append(None if stands else round((time.monotonic() - started) / 60, 2))
        engine = LocalGenerator(merged, form=FORM)
        told["R"].append([recalled(engine, group) for group in groups[: number + 1]])
        told["battery"].append(sum(evaluate.general(engine).values()))
        told["drift"].append(round(evaluate.drift(engine, anchors.held_out), 4))
        say(f"{policy}, night {number + 1} ({len(new)} new): {told['R'][-1]}, battery {told['battery'][-1]}")
        before = Before(merged, None) if policy == "stacked" else Before(base, adapter)
    last, diagonal = told["R"][-1], [row[-1] for row in told["R"]]
    changes = [end - own for end, own in zip(last[:-1], diagonal, strict=False)]
    told["bwt"] = round(sum(changes) / max(1, len(changes)), 4)
    return told


def one_night(
    policy: str,
    folder: Path,
    before: Before,
    groups: Sequence[Sequence[Any]],
    anchors: replay.Anchors,
    seed: int,
    rate: float = Recipe.rate,
) -> None:
    """Train and merge one night, to `merged` and `adapter` in a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    old = [fact for group in groups[:-1] for fact in group]
    new = list(groups[-1])
    learnt = [*old, *new] if policy == "rebuild" else new
    rows = examples(learnt, seed, others=old if learnt is new else ())
    train.train(
        before.base,
        rows,
        anchors.trained,
        Recipe(epochs=epochs_for(len(learnt), len(rows)), rate=rate, seed=seed),
        known=examples(old, seed, others=new) if policy == "warm" else (),
        held_out=held_out(learnt, seed),
        watched=anchors.held_out,
        warm_from=before.adapter if policy == "warm" else None,
        out=folder / "adapter",
        progress=say,
    )
    merge.merge(before.base, folder / "adapter", folder / "merged")


def recalled(engine: LocalGenerator, facts: Sequence[Any]) -> float:
    """The share of facts given in their taught wording."""
    return matched(texts(engine, [f.question for f in facts]), facts)


if __name__ == "__main__":
    main()
