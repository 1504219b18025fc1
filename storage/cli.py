"""The one console command `nightshift`, composed from the entry points of all rooms.

Commands are found through the entry-point group `nightshift.commands`, so nothing here imports upwards, and a
command's module is imported only when the command is named or listed. How results and errors leave the process
(one JSON object on stdout, one sentence on stderr, exit codes) is decided here, once.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

import click

from storage import settings as settings_table
from storage.database import Database
from storage.errors import NightshiftError, UserError
from storage.settings import Settings

GROUP = "nightshift.commands"
F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """What a command needs of the outside: settings, home folder, database."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings; nothing is opened yet."""
        self.settings = settings

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.settings.home

    def database(self) -> Database:
        """Open the database in the home folder. Raises UserError when it cannot be written."""
        return Database(self.home)


class Commands(click.Group):
    """A group whose commands are entry points, loaded when needed; its errors leave as the contract says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names."""
        return sorted(points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        point = points().get(cmd_name)
        return None if point is None else point.load()

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a NightshiftError becomes one sentence (or one JSON object) and exit 1."""
        try:
            return super().invoke(ctx)
        except NightshiftError as error:
            report(error, as_json="--json" in sys.argv)
            raise click.exceptions.Exit(1) from error


def points() -> dict[str, EntryPoint]:
    """The registered commands by name."""
    return {p.name: p for p in entry_points(group=GROUP)}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", type=click.Path(path_type=Path), help="Home folder (default: NIGHTSHIFT_HOME or ./data).")
@click.version_option(package_name="nightshift")
@click.pass_context
def main(ctx: click.Context, home: Path | None) -> None:
    """Nightshift answers in Slack, is corrected by day and retrains itself by night."""
    ctx.obj = Context(settings_table.load(**({"HOME": str(home)} if home else {})))
    level = ctx.obj.settings.text("LOG_LEVEL").upper()
    logging.basicConfig(
        level=level if level in logging.getLevelNamesMapping() else "INFO",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "sentence_transformers", "chromadb", "transformers", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def json_option(function: F) -> F:
    """The flag `--json`, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(function)


def batch_options(function: F) -> F:
    """The flags `--batch IN.jsonl --out OUT.jsonl`."""
    path = click.Path(dir_okay=False, path_type=Path)
    function = click.option("--out", type=path, help="Where --batch writes its lines (JSONL).")(function)
    return click.option("--batch", type=path, help="Read many inputs from a JSONL file.")(function)


def emit(as_json: bool, payload: dict[str, Any], text: str) -> None:
    """Print a result: one JSON object with `ok`, or the text for people."""
    click.echo(json.dumps({"ok": True, **payload}, ensure_ascii=False) if as_json else text)


def report(error: NightshiftError, *, as_json: bool) -> None:
    """Print an error: one JSON object on stdout, or one sentence on stderr."""
    if as_json:
        click.echo(json.dumps({"ok": False, "error": {"code": error.code, "message": str(error)}}, ensure_ascii=False))
    else:
        click.echo(f"Error: {error}", err=True)


def run_batch(source: Path, target: Path | None, work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Apply `work` to every line of a JSONL file and write each input with its result merged in; returns the count.

    A line whose work fails by a UserError carries `ok: false` and the error; the other lines go on.
    """
    if target is None:
        raise UserError("--batch needs --out OUT.jsonl.")
    inputs = list(read_lines(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as out:
        for row in inputs:
            try:
                result = {"ok": True, **work(row)}
            except UserError as error:
                result = {"ok": False, "error": {"code": error.code, "message": str(error)}}
            out.write(json.dumps(row | result, ensure_ascii=False) + "\n")
            out.flush()
    return len(inputs)


def read_lines(source: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Raises UserError that names the first bad line."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source} cannot be read as text: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"Line {number} of {source} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise UserError(f"Line {number} of {source} is not a JSON object.")
        yield row
