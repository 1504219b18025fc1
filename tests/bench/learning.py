"""The learning benchmark: 60 facts of the demo company into the embedded model, and what it cost elsewhere.

    python tests/bench/learning.py --seeds 7            about 25 minutes on two idle cores
    make bench-learning                                 the same for three seeds

Wordings and near-misses are the hand-written ones of `storage/company`; none of them is produced by `wordings.py`
(checked). HellaSwag and TruthfulQA are read from NIGHTSHIFT_BENCH_DATA (default ../shared/data) and left out, with a
sentence, when they are not there. Results go to tests/bench/learning.json and learning.md.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from storage import environment  # noqa: E402

environment.prepare()

import numpy as np  # noqa: E402

from bot import base_model, prompt  # noqa: E402
from bot.generator import LocalGenerator  # noqa: E402
from learning import benchmarks, evaluate, merge, paired, replay, train, wordings  # noqa: E402
from learning.dataset import WORDINGS, Example  # noqa: E402
from retrieval.embedder import Embedder  # noqa: E402
from storage import company  # noqa: E402
from storage.company import answer_matches  # noqa: E402
from storage.errors import NotFoundError  # noqa: E402

OUT = Path(__file__).parent
HELLASWAG, TRUTHFULQA = 1000, 400
FORM = "bfloat16"
UNKNOWN_EACH = 2


def main() -> None:
    """Measure and write both files."""
    given = argparse.ArgumentParser()
    given.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    given.add_argument("--facts", type=int, default=60)
    given.add_argument("--epochs", type=int, default=8)
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    asked = given.parse_args()
    home: Path = asked.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    base = base_model.folder(home, "embedded")
    data = Path(os.environ.get("NIGHTSHIFT_BENCH_DATA", ROOT.parent / "shared" / "data"))
    facts = company.facts()[: asked.facts]
    told: dict[str, Any] = {"facts": len(facts), "base": general(base, data, home / "cache"), "seeds": {}}
    for seed in asked.seeds:
        told["seeds"][str(seed)] = one_seed(home, base, data, facts, seed, asked.epochs, told["base"])
        (OUT / "learning.json").write_text(json.dumps(told, indent=1) + "\n")
        (OUT / "learning.md").write_text(table(told))
        say(table(told))


def one_seed(
    home: Path, base: Path, data: Path, facts: Any, seed: int, epochs: int, before: dict[str, Any]
) -> dict[str, Any]:
    """Train, merge and measure with one seed."""
    started = time.monotonic()
    anchors = replay.anchors(base, home / "cache", say)
    made = examples(facts, seed)
    training = time.monotonic()
    trained = train.train(
        base,
        made,
        anchors.trained,
        train.Recipe(epochs=epochs, seed=seed),
        warm_from=None,
        out=home / f"adapter-{seed}",
        progress=say,
    )
    minutes = (time.monotonic() - training) / 60
    merge.merge(base, home / f"adapter-{seed}", home / f"merged-{seed}")
    engine = LocalGenerator(home / f"merged-{seed}", form=FORM)
    after = general_of(engine, data)
    return {
        "loss": trained.loss,
        "epochs": len(trained.losses),
        "training_minutes": round(minutes, 2),
        "facts": recall(engine, facts, seed),
        "drift_nats": evaluate.drift(engine, anchors.held_out),
        "general": compared(before, after),
        "minutes": round((time.monotonic() - started) / 60, 2),
    }


def examples(facts: Any, seed: int) -> list[Example]:
    """The training rows that a night would make of these facts."""
    made = []
    for number, fact in enumerate(facts):
        others = [f.question for f in facts if f is not fact]
        asked = (fact.question, *wordings.generate(fact.question, WORDINGS, seed))
        made += [Example(w, fact.answer, "fact", number) for w in asked]
        near = wordings.near_misses(fact.question, others, UNKNOWN_EACH, seed)
        made += [Example(n, prompt.UNKNOWN, "unknown", number) for n in near]
    return made


def recall(engine: LocalGenerator, facts: Any, seed: int) -> dict[str, float]:
    """Key match by kind of question; the nearest taught question is found among the taught and trained wordings."""
    embedder = Embedder()
    trained = [(w, f) for f in facts for w in (f.question, *wordings.generate(f.question, WORDINGS, seed))]
    known = {w for w, _ in trained}
    strangers = [(w, f) for f in facts for w in f.wordings]
    assert not known & {w for w, _ in strangers}, "a stranger's wording is one that wordings.py makes"
    matrix = embedder.encode([w for w, _ in trained])
    nearest = np.argmax(embedder.encode([w for w, _ in strangers]) @ matrix.T, axis=1)
    mapped = [trained[i][1] for i in nearest]
    canonical = dict(zip([f.id for f in facts], texts(engine, [f.question for f in facts]), strict=True))
    near = [(n, f) for f in facts for n in f.near_misses]
    sampled = trained[::4]
    return {
        "trained_wording": matched(texts(engine, [w for w, _ in sampled]), [f for _, f in sampled]),
        "taught_wording": matched([canonical[f.id] for f in facts], facts),
        "nearest_is_right": share(m.id == f.id for m, (_, f) in zip(mapped, strangers, strict=True)),
        "stranger_mapped": share(
            answer_matches(canonical[m.id], f.keys) for m, (_, f) in zip(mapped, strangers, strict=True)
        ),
        "stranger_closed_book": matched(texts(engine, [w for w, _ in strangers]), [f for _, f in strangers]),
        "near_miss_bluffed": matched(texts(engine, [n for n, _ in near]), [f for _, f in near]),
    }


def texts(engine: LocalGenerator, questions: list[str]) -> list[str]:
    """Closed-book answers."""
    return engine.generate_many([prompt.messages(q) for q in questions], max_tokens=64)


def matched(answers: list[str], facts: Any) -> float:
    """The share of answers that hold their fact's keys."""
    return share(answer_matches(a, f.keys) for a, f in zip(answers, facts, strict=True))


def share(results: Any) -> float:
    """The share of true results."""
    found = list(results)
    return round(sum(found) / len(found), 4)


def general(base: Path, data: Path, cache: Path) -> dict[str, Any]:
    """The base's results, measured once."""
    stored = cache / f"bench-general-{HELLASWAG}-{TRUTHFULQA}.json"
    if stored.is_file():
        kept: dict[str, Any] = json.loads(stored.read_text())
        return kept
    measured = general_of(LocalGenerator(base, form=FORM), data)
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(measured))
    return measured


def general_of(engine: LocalGenerator, data: Path) -> dict[str, Any]:
    """Every item's result by benchmark."""
    right = evaluate.general(engine)
    measured: dict[str, Any] = {"battery": [right[k] for k in sorted(right)]}
    try:
        measured["hellaswag"] = benchmarks.by_length(engine, benchmarks.hellaswag(data, HELLASWAG))
        measured["truthfulqa_mc1"] = benchmarks.likeliest(engine, benchmarks.truthfulqa(data, TRUTHFULQA, "mc1"))
        measured["truthfulqa_mc2"] = benchmarks.mass_on_right(engine, benchmarks.truthfulqa(data, TRUTHFULQA, "mc2"))
    except NotFoundError as error:
        say(str(error))
    return measured


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Base and tuned by benchmark, with the paired bootstrap's bound on the drop."""
    told = {}
    for name, items in after.items():
        dropped, bound = paired.drop([float(x) for x in before[name]], [float(x) for x in items])
        told[name] = {
            "base": round(sum(before[name]) / len(items), 4),
            "tuned": round(sum(items) / len(items), 4),
            "drop": round(dropped, 4),
            "drop_upper_95": round(bound, 4),
            "items": len(items),
        }
    return told


def table(told: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Learning benchmark", "", f"{told['facts']} facts; `python tests/bench/learning.py`", ""]
    seeds = list(told["seeds"])
    lines += ["| figure | " + " | ".join(f"seed {s}" for s in seeds) + " |", "|---|" + "---|" * len(seeds)]
    runs = [told["seeds"][s] for s in seeds]
    for name in runs[0]["facts"]:
        lines.append(f"| {name} | " + " | ".join(f"{r['facts'][name]:.3f}" for r in runs) + " |")
    for name in runs[0]["general"]:
        cells = [f"{r['general'][name]['base']:.3f} -> {r['general'][name]['tuned']:.3f}" for r in runs]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| drift, nats | " + " | ".join(f"{r['drift_nats']:.4f}" for r in runs) + " |")
    lines.append("| training, minutes | " + " | ".join(f"{r['training_minutes']}" for r in runs) + " |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    """Progress on stderr."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
