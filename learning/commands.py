"""The commands of learning: nightly, evaluate and report. Heavy parts are imported inside the functions."""

import logging
from typing import Any

import click

from storage import registry
from storage.cli import Context, emit, json_option

log = logging.getLogger(__name__)


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
    emit(as_json, report, "\n".join(lines))


@click.command()
@click.argument("version", required=False)
@click.option("--suite", help="Only this suite: facts, general or drift.")
@json_option
@click.pass_obj
def evaluate(context: Context, version: str | None, suite: str | None, as_json: bool) -> None:
    """Measure a VERSION (the champion by default) without promoting anything."""
    database = context.database()
    if version is not None:
        registry.get(database, version)
    from learning import suites

    suites.known(suite)
    measured = suites.measure(database, context.settings, version or registry.champion(database), suite)
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
