"""The one console command `nightshift`, composed from the entry points of all rooms.

Commands are found through the entry-point group `nightshift.commands`, so nothing here imports upwards, and a
command's module is imported only when the command is named or listed. How results and errors leave the process
(one JSON object on stdout, one sentence on stderr, exit codes) is decided here, once.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from storage import audit, corrections, environment
from storage import settings as settings_table
from storage.database import Database
from storage.domain import WORKSPACE
from storage.errors import NightshiftError, UserError
from storage.settings import Settings

GROUP = "nightshift.commands"
JSON = "nightshift.as_json"
CLICKS_OWN = (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError)
"""What click turns into words and exit codes itself."""
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

    def database(self, *, serving: bool = False) -> Database:
        """Open the database in the home folder and log changed settings. Raises UserError when it cannot be written.

        Only the bot (`serving`) takes a second pair of eyes away again: a shell may lack the bot's settings.
        """
        database = Database(self.home)
        audit.note_settings(database, self.settings)
        asked = self.settings.text("FOUR_EYES") == "text"
        if asked or serving:
            corrections.four_eyes_on_text(database, asked)
        return database


class Commands(click.Group):
    """A group whose commands are entry points, loaded when needed; its errors leave as the contract says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names."""
        return sorted(points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        point = points().get(cmd_name)
        return None if point is None else point.load()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether JSON is asked for: what goes wrong before the command runs must be told in JSON too."""
        options = args[: args.index("--")] if "--" in args else args
        ctx.meta[JSON] = "--json" in options
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a NightshiftError becomes one sentence (or one JSON object) and exit 1.

        A defect keeps its traceback on stderr; whoever asked for JSON gets an object on stdout all the same.
        """
        try:
            return super().invoke(ctx)
        except NightshiftError as error:
            report(error, as_json=ctx.meta[JSON])
            raise click.exceptions.Exit(1) from error
        except CLICKS_OWN:
            raise
        except Exception:
            if ctx.meta[JSON]:
                report(NightshiftError("Nightshift failed; the log tells where."), as_json=True)
            raise


@cache
def points() -> dict[str, EntryPoint]:
    """The registered commands by name, without those of a room that was taken out; looked up once a process."""
    return {p.name: p for p in entry_points(group=GROUP) if is_there(p.module)}


def is_there(module: str) -> bool:
    """Whether a module can be found; only the package around it is imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", help="Home folder (default: NIGHTSHIFT_HOME or ./data).")
@click.version_option(package_name="nightshift")
@click.pass_context
def main(ctx: click.Context, home: str | None) -> None:
    """Nightshift answers in Slack, is corrected by day and retrains itself by night."""
    ctx.obj = Context(settings_table.load(overrides={"HOME": home} if home else {}))
    environment.prepare(hub=names_a_hub_model(ctx.obj.settings))
    level = ctx.obj.settings.text("LOG_LEVEL").upper()
    logging.basicConfig(
        level=level if level in logging.getLevelNamesMapping() else "INFO",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "sentence_transformers", "chromadb", "transformers", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def names_a_hub_model(settings: Settings) -> bool:
    """Whether a setting names a model that is neither embedded nor a local folder."""
    named = (settings.text("BASE_MODEL"), settings.text("EMBEDDER"))
    return any(n != "embedded" and not Path(n).expanduser().is_dir() for n in named)


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


def fail(as_json: bool, error: NightshiftError, payload: dict[str, Any], text: str) -> NoReturn:
    """Print a result that is a failure, all the same, and exit 1: one JSON object with its `error`, or the text."""
    emit(as_json, payload | failure(error), text)
    raise click.exceptions.Exit(1)


def failure(error: NightshiftError) -> dict[str, Any]:
    """An error as the contract has it."""
    return {"ok": False, "error": {"code": error.code, "message": str(error)}}


def report(error: NightshiftError, *, as_json: bool) -> None:
    """Print an error: one JSON object on stdout, or one sentence on stderr."""
    if as_json:
        click.echo(json.dumps(failure(error), ensure_ascii=False))
    else:
        click.echo(f"Error: {error}", err=True)


def check_scope(scope: str) -> None:
    """Raise UserError for what is neither the workspace nor a Slack channel id."""
    if scope != WORKSPACE and not re.fullmatch(r"[CDG][A-Z0-9]{2,}", scope):
        raise UserError(f"{scope!r} is no scope; give 'workspace' or a channel id such as C0123ABCD.")


def check_batch(source: Path | None, target: Path | None) -> None:
    """Raise UserError for a batch that cannot run, before anything heavy is loaded."""
    if source is None:
        if target is not None:
            raise UserError("--out needs --batch IN.jsonl.")
        return
    if target is None:
        raise UserError("--batch needs --out OUT.jsonl.")
    for _ in read_lines(source):
        pass
    if target.exists() and target.samefile(source):
        raise UserError(f"--out would overwrite the input {source}; name another file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error}).") from error


def run_batch(source: Path, target: Path | None, work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Apply `work` to every line of a JSONL file and write each input with its result merged in; returns the count.

    A line whose work fails by an error of ours carries `ok: false` and the error; the other lines go on.
    """
    if target is None:
        raise UserError("--batch needs --out OUT.jsonl.")
    inputs = list(read_lines(source))
    with target.open("w", encoding="utf-8") as out:
        for row in inputs:
            try:
                result = {"ok": True, **work(row)}
            except NightshiftError as error:
                result = failure(error)
            out.write(json.dumps(row | result, ensure_ascii=False) + "\n")
            out.flush()
    return len(inputs)


def read_lines(source: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Raises UserError that names the first bad line."""
    try:
        lines = source.read_text(encoding="utf-8").split("\n")  # other line ends may stand in a JSON text
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{source} cannot be read as text ({reason}).") from error
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
