"""Five nights of new facts under three policies: stacked merges, warm start with replay, rebuild.

    python -m tests.bench.nights                        12 facts a night, five nights, three policies (an hour)
    python -m tests.bench.nights --facts 6 --nights 3   something smaller

`stacked` trains only what is new on top of yesterday's merged weights, as the source documents do. `warm` goes on from
yesterday's adapter and repeats known rows in turn, `rebuild` trains everything from the pristine base; both merge onto
the pristine base. Same facts, same seed, same recipe and anchors, and as by night the largest share of the adapter is
merged that passes the gates of what may not be forgotten; where none does, the first is, and the night goes on with its
reason noted. R[i][j] is the share of night j's facts that the model of night i gives in their taught wording; FWT is
what each night's facts gained from the nights before, over the base. Results go to tests/bench/learning.json.
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
from learning import evaluate, forgetting, gates, merge, replay, retained, train
from learning.candidate import SCALES
from learning.recipe import Recipe, epochs_for, rate_for
from storage import company
from storage.company import answer_matches
from tests.bench.learning import FORM, examples, held_out, keep, say, share, texts

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
    before = Before(base, None)
    of_base = retained.of_base(base, home / "cache", FORM, lambda: LocalGenerator(base, form=FORM))
    untouched = LocalGenerator(base, form=FORM)
    untrained = [share(right(untouched, facts)) for facts in groups[1:]]
    early: list[float] = []
    told: dict[str, Any] = {"facts_a_night": len(groups[0]), "seed": seed, "battery": [], "drift": [], "scale": []}
    told |= {"refused": [], "minutes": [], "battery_base": sum(of_base.battery.values())}
    held: list[tuple[str, dict[int, bool]]] = []
    for number, new in enumerate(groups):
        started = time.monotonic()
        known = [fact for group in groups[: number + 1] for fact in group]
        learnt = known if policy == "rebuild" else new
        rate = warm_rate if policy == "warm" and number else rate_for(len(learnt))
        folder = home / f"{policy}-{rate:g}-{number}"
        anchors = replay.anchors(base, home / "cache", say, replay.prompts_for(len(known)))
        stands = resume and (folder / "adapter").is_dir()
        if not stands:
            shutil.rmtree(folder, ignore_errors=True)
            one_night(policy, folder, before, groups[: number + 1], anchors, seed, rate)
        engine, found = passing(folder, before.base, of_base, anchors)
        told["minutes"].append(None if stands else round((time.monotonic() - started) / 60, 2))
        held.append((f"{number + 1}", dict(enumerate(right(engine, known)))))
        if number + 1 < len(groups):
            early.append(share(right(engine, groups[number + 1])))
        for name, value in found.items():
            told[name].append(value)
        say(f"{policy}, night {number + 1} ({len(new)} new): {forgetting.matrix(held).shares[-1]}, {found}")
        before = Before(folder / "merged", None) if policy == "stacked" else Before(base, folder / "adapter")
    matrix = forgetting.matrix(held)
    told["R"] = [[share for share in row if share is not None] for row in matrix.shares]
    told["bwt"] = matrix.backward
    told["fwt"] = forgetting.forward(early, untrained)
    return told


def right(engine: LocalGenerator, facts: Sequence[Any]) -> list[bool]:
    """Which facts a model gives in their taught wording."""
    answers = texts(engine, [f.question for f in facts])
    return [answer_matches(a, f.keys) for a, f in zip(answers, facts, strict=True)]


def passing(*night: Any) -> tuple[LocalGenerator, dict[str, Any]]:
    """The largest share of a night's adapter that passes, merged and measured; the first share where none does."""
    for scale in (*SCALES, SCALES[0]):
        engine, found = merged(*night, scale)
        if not found["refused"]:
            break
    return engine, found


def merged(
    folder: Path, base: Path, of_base: retained.Retained, anchors: replay.Anchors, scale: float
) -> tuple[LocalGenerator, dict[str, Any]]:
    """Merge a share of a night's adapter; the model, and what it kept of the base and which gate refuses that."""
    merge.merge(base, folder / "adapter", folder / "merged", scale=scale)
    engine = LocalGenerator(folder / "merged", form=FORM)
    now, drift = retained.of(engine), evaluate.drift(engine, anchors.held_out)
    verdict = gates.judge(retained.compared(of_base, now) | {"general_drift": drift})
    found = {"battery": sum(now.battery.values()), "drift": round(drift, 4), "scale": scale}
    return engine, found | {"refused": "" if verdict.passed else verdict.reason}


def one_night(
    policy: str,
    folder: Path,
    before: Before,
    groups: Sequence[Sequence[Any]],
    anchors: replay.Anchors,
    seed: int,
    rate: float,
) -> None:
    """Train one night, to `adapter` in a folder; one that was killed there goes on from its last epoch."""
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


if __name__ == "__main__":
    main()
