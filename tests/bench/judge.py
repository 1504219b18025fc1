"""How well a model judges "is this the same question?": `python -m tests.bench.judge [--engine URL --model NAME]`.

Without an engine it starts llama.cpp with the model that ships. It asks about the 300 labelled pairs of
storage/company/pairs.jsonl, which nothing is fitted on, and prints the AUROC, over all and by kind of near-miss
against all true wordings, as JSON. The pairs have no answers, so the judge sees the two questions alone.
"""

import json
import statistics
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path

import click
from sklearn.metrics import roc_auc_score

from bot import base_model
from bot.judge import ServerJudge
from bot.modelserver import ModelServer
from storage import company

sys.path.insert(0, str(Path(__file__).parents[1]))
import llama_server

PAIRS = Path(company.__file__).parent / "pairs.jsonl"
SHIPPED = "smollm2-135m-instruct"


@click.command()
@click.option("--engine", help="An OpenAI-compatible server; without it llama.cpp is started here.")
@click.option("--model", default=SHIPPED, show_default=True, help="The model's name there.")
@click.option("--key", default="", envvar="NIGHTSHIFT_ENGINE_KEY", help="Its API key.")
@click.option("--every", default=1, show_default=True, help="Judge only each so many-th pair.")
def main(engine: str | None, model: str, key: str, every: int) -> None:
    """Judge the pairs and print the figures."""
    here = llama_server.running(base_model.gguf_file(), model) if engine is None else nullcontext((engine, None))
    with here as (address, _):
        click.echo(json.dumps(figures(ServerJudge(ModelServer(address, key), model), model, every), indent=1))


def figures(judge: ServerJudge, model: str, every: int) -> dict[str, object]:
    """AUROC over all pairs and by kind, what it says on average, and milliseconds for one verdict."""
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()][::every]
    verdicts, took = [], []
    for pair in pairs:
        started = time.perf_counter()
        verdicts.append(judge.same(pair["asked"], pair["taught"], ""))
        took.append(1000 * (time.perf_counter() - started))
    by_kind: dict[str, list[float]] = defaultdict(list)
    for pair, verdict in zip(pairs, verdicts, strict=True):
        by_kind[pair["kind"]].append(verdict)
    same = by_kind.pop("wording")
    return {
        "model": model,
        "pairs": len(pairs),
        "auroc": auroc(same, [v for kind in by_kind.values() for v in kind]),
        "auroc_by_kind": {kind: auroc(same, found) for kind, found in sorted(by_kind.items())},
        "mean_same": round(statistics.mean(same), 3),
        "mean_other": round(statistics.mean(v for kind in by_kind.values() for v in kind), 3),
        "median_ms": round(statistics.median(took)),
    }


def auroc(same: list[float], other: list[float]) -> float:
    """How often a true wording gets the higher probability than a near-miss."""
    return round(float(roc_auc_score([1] * len(same) + [0] * len(other), same + other)), 3)


if __name__ == "__main__":
    main()
