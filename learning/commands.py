"""The commands of learning: nightly, evaluate, report, knowledge, dataset. Heavy parts are imported when run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from storage import registry
from storage.cli import Context, emit, json_option

log = logging.getLogger(__name__)

MOST_LINES = 30


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be trained.")
@click.option("--rebuild", is_flag=True, help="Train everything from the pristine base.")
@click.option("--max-minutes", type=float, help="Stop before the next stage when these are over.")
@json_option
@click.pass_obj
def nightly(context: Context, dry_run: bool, rebuild: bool, max_minutes: float | None, as_json: bool) -> None:
    """Train approved corrections into the weights, prove it, and promote the result."""
    database = context.database()
    from learning import nightly as night
    from learning import report as reports

    report = night.run(
        database,
        context.settings,
        say=lambda line: click.echo(line, err=True),
        dry_run=dry_run,
        rebuild=rebuild,
        minutes=max_minutes,
    )
    lines = [night.in_words(report)]
    lines += [f"  {g['name']:<16} {g['value']:.4g} ({'passed' if g['passed'] else 'FAILED'})" for g in report["gates"]]
    lines += not_trained(reports.left_out(report))
    emit(as_json, report, "\n".join(lines))


def not_trained(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a night leaves out, in lines under a head; none of nothing."""
    if not rows:
        return []
    more = [f"  and {len(rows) - MOST_LINES} more; --json lists all"] if len(rows) > MOST_LINES else []
    head = f"Left out of training, going on as approved answers: {len(rows)}"
    return [head, *left_out_lines(rows[:MOST_LINES]), *more]


def left_out_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Corrections that are not trained, each with the reason."""
    return [f"  correction {row['correction_id']} left out ({row['reason']}): {row['detail']}" for row in rows]


@click.command()
@click.argument("version", required=False)
@click.option("--suite", help="Only this suite, such as facts, consistency or general.")
@json_option
@click.pass_obj
def evaluate(context: Context, version: str | None, suite: str | None, as_json: bool) -> None:
    """Measure a VERSION (the champion by default) without promoting anything."""
    database = context.database()
    if version is not None:
        registry.get(database, version)
    from learning import suites

    suites.known(suite)
    measured = suites.measure(
        database,
        context.settings,
        version or registry.champion(database),
        suite,
        say=lambda line: click.echo(line, err=True),
    )
    lines = [f"{name}.{metric}: {value}" for name, metrics in measured.items() for metric, value in metrics.items()]
    told: dict[str, Any] = {"version": version or registry.champion(database), "suites": measured}
    emit(as_json, told, "\n".join(lines))


@click.command()
@click.option("--weekly", is_flag=True, help="The last seven days instead of the last night.")
@click.option("--no-chart", is_flag=True, help="Do not draw the chart.")
@json_option
@click.pass_obj
def report(context: Context, weekly: bool, no_chart: bool, as_json: bool) -> None:
    """Tell how the last night (or week) went, with a chart as a PNG in the home folder."""
    database = context.database()
    from learning import report as reports

    made = (reports.weekly if weekly else reports.morning)(database, chart=not no_chart)
    lines = [made.text, *([f"Chart: {made.chart}"] if made.chart else [])]
    emit(as_json, made.as_json(), "\n\n".join(lines))


@click.command()
@click.option("--version", help="Only what this version was trained on.")
@json_option
@click.pass_obj
def knowledge(context: Context, version: str | None, as_json: bool) -> None:
    """List what was taught: in which model, since when, from whom, approved by whom, with which proof."""
    from learning import knowledge as shelves

    told = shelves.inventory(context.database(), version)
    emit(as_json, told, shelves.in_words(told))


@click.command()
@click.option("--format", "form", type=click.Choice(["messages", "instruction"]), default="messages", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The JSONL file.")
@json_option
@click.pass_obj
def dataset(context: Context, form: str, out: Path, as_json: bool) -> None:
    """Freeze what the next night would train on and write it as JSONL, with what is left out and why."""
    from learning import admission, exports, rewording
    from learning import dataset as datasets
    from retrieval.embedder import Embedder

    values = context.settings
    embedder = Embedder(values.text("EMBEDDER"))
    rules = admission.rules_of(values)
    more = rewording.configured(values, values.home).of
    snapshot = datasets.freeze(context.database(), embedder, seed=values.integer("SEED"), rules=rules, more=more)
    left_out = [asdict(left) for left in snapshot.left_out]
    told = {
        "out": str(out),
        "format": form,
        "sha256": snapshot.sha256,
        "file_sha256": exports.write(snapshot, form, out),
        "seed": snapshot.seed,
        "facts": len(snapshot.facts),
        "examples": len(snapshot.examples),
        "held_out": sum(len(f.held_out) for f in snapshot.facts),
        "parts": {part: sum(f.part == part for f in snapshot.facts) for part in ("train", "validation", "test")},
        "left_out": left_out,
    }
    lines = [f"{told['examples']} examples of {told['facts']} corrections in {out} (snapshot {snapshot.sha256[:12]})."]
    lines += left_out_lines(left_out)
    emit(as_json, told, "\n".join(lines))
