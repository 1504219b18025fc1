"""The shape of the code: who may import whom, one door per dependency, a light start, and papers that match."""

import ast
import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from learning import gates
from storage import settings

ROOT = Path(__file__).parent.parent
ROOMS = ("bot", "learning", "retrieval", "storage")
SOURCES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

MAY_IMPORT = {
    "storage": {"storage"},
    "retrieval": {"retrieval", "storage"},
    "bot": {"bot", "retrieval", "storage"},
    "learning": {"learning", "retrieval", "storage"}
    | {
        f"bot.{module}"
        for module in (
            "base_model", "confidence", "desk", "generation", "generator", "modelserver", "pipeline", "processors",
            "prompt", "quoting", "same_question",
        )
    },
}  # fmt: skip

SLACK = {
    f"bot/{name}.py"
    for name in ("app", "blocks", "channels", "delivery", "home", "listeners", "review_views", "reviews", "streaming")
}
MODEL = ("attention", "base_model", "decoding", "generator", "processors", "weights")
ENGINE = {f"bot/{name}.py" for name in MODEL} | {"retrieval/embedder.py", "retrieval/precision.py"}
TRAINING = {file.relative_to(ROOT).as_posix() for file in SOURCES if file.is_relative_to(ROOT / "learning")}
DOORS = {
    "chromadb": {"retrieval/index.py"},
    "gguf": set[str](),
    "huggingface_hub": {"bot/base_model.py"},
    "peft": {"learning/merge.py", "learning/train.py"},
    "pypdf": {"retrieval/pdf.py"},
    "pysqlite3": {"storage/database.py"},
    "scipy": {"learning/calibrate.py"},
    "sentence_transformers": {"retrieval/embedder.py"},
    "sklearn": {"learning/calibrate.py", "learning/classifier.py"},
    "slack_bolt": SLACK,
    "slack_sdk": SLACK,
    "sqlite3": {"storage/database.py"},
    "sqlite_utils": {"storage/database.py", "storage/documents.py", "storage/migrations.py"},
    "torch": ENGINE | TRAINING,
    "transformers": ENGINE | TRAINING,
}
"""Every dependency that only some files may touch. transformers reads GGUF through gguf; no file of ours does."""

HEAVY = ("chromadb", "peft", "sentence_transformers", "slack_bolt", "torch", "transformers")
READS_THE_ENVIRONMENT = {
    "storage/settings.py": "the table of settings",
    "bot/demo.py": "takes the proxies away, which Slack's client would ask for this very machine",
    "storage/environment.py": "tells the model libraries to stay offline and quiet, before they are imported",
}


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def for_types_alone(tree: ast.Module) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING:` and is never run."""
    guards = (n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {inner for guard in guards for line in guard.body for inner in ast.walk(line)}


def imports(file: Path, *, when_run: bool = False) -> Iterator[str]:
    """Every module that a file imports at any level, with the names taken from it: `a.b` and `a.b.c` alike."""
    tree = tree_of(file)
    passed_by = for_types_alone(tree) if when_run else set[ast.AST]()
    for node in ast.walk(tree):
        if node in passed_by:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, allowed: set[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed)


# Who may import whom


def test_the_four_rooms_import_only_downwards() -> None:
    seen = set()
    for file in SOURCES:
        room = file.relative_to(ROOT).parts[0]
        for module in imports(file):
            if module.split(".")[0] in ROOMS:
                seen.add((room, module.split(".")[0]))
                assert within(module, MAY_IMPORT[room]), f"{name_of(file)} imports {module}"
    assert {("learning", "bot"), ("bot", "retrieval"), ("retrieval", "storage")} <= seen, "the check looks at something"


def test_without_learning_the_bot_still_imports_and_every_other_command_is_there() -> None:
    script = (
        "import sys; sys.modules['learning'] = None\n"
        "import bot.app, bot.commands, bot.demo, bot.desk, bot.pipeline, retrieval.commands, storage.commands\n"
        "from storage.cli import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert {"ask", "ingest", "review", "serve"} <= listed
    assert "nightly" not in listed


def test_the_local_workspace_is_known_to_the_demo_alone_and_knows_nothing_of_the_product() -> None:
    for file in SOURCES:
        inside = name_of(file).startswith("bot/workspace/")
        for module in imports(file):
            if inside and module.split(".")[0] in ROOMS:
                assert within(module, {"bot.workspace"}), f"{name_of(file)} imports {module}"
            if not inside and within(module, {"bot.workspace"}):
                assert name_of(file) == "bot/demo.py", f"{name_of(file)} imports {module}"


@pytest.mark.parametrize("dependency", sorted(DOORS))
def test_a_dependency_has_one_door(dependency: str) -> None:
    users = {name_of(file) for file in SOURCES if any(within(m, {dependency}) for m in imports(file, when_run=True))}
    assert users <= DOORS[dependency]


def test_no_file_reads_the_environment_but_the_settings_and_two_named_exceptions() -> None:
    readers = {
        name_of(file)
        for file in SOURCES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv")
    }
    assert readers == set(READS_THE_ENVIRONMENT)


# Names and shapes


def test_there_are_four_packages_and_none_is_a_drawer_for_leftovers() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert packages == set(ROOMS)
    for file in [*SOURCES, *(ROOT / "tests").rglob("*.py")]:
        assert not {"utils", "util", "helpers", "helper", "common", "manager", "misc"} & set(
            re.split(r"[/_.]", name_of(file))
        ), name_of(file)


def test_every_module_opens_with_what_it_does() -> None:
    for file in SOURCES:
        told = ast.get_docstring(tree_of(file)) or ""
        assert len(told.split()) >= 6, f"{name_of(file)} does not say what it does"


def test_there_are_no_abstract_base_classes() -> None:
    assert not [name_of(file) for file in SOURCES if any(within(m, {"abc"}) for m in imports(file))]


# A light start


def command_lines() -> list[list[str]]:
    """Every command and subcommand, as the installed console command lists them."""
    listing = (
        "import json, click; from storage.cli import main\n"
        "top = {n: main.get_command(None, n) for n in main.list_commands(None)}\n"
        "print(json.dumps([[]] + [[n] for n in top] + "
        "[[n, s] for n, c in top.items() if isinstance(c, click.Group) for s in c.commands]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    lines: list[list[str]] = json.loads(done.stdout)
    return lines


def test_no_help_imports_anything_heavy() -> None:
    lines = command_lines()
    assert {"ask", "ingest", "nightly", "review"} <= {line[0] for line in lines if line}
    assert ["models", "rollback"] in lines
    script = (
        "import json, sys; from storage.cli import main\n"
        f"found = {{}}\nfor line in {lines!r}:\n"
        "    assert main([*line, '--help'], standalone_mode=False) in (0, None)\n"
        f"    found[' '.join(line)] = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "print(json.dumps(found), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stderr.splitlines()[-1])
    assert len(found) == len(lines)
    assert not {line: heavy for line, heavy in found.items() if heavy}


def test_help_takes_less_than_half_a_second() -> None:
    """Processor time of the whole process, so that a busy machine does not decide; the median of five."""
    command = [str(Path(sys.executable).parent / "nightshift"), "--help"]
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True, timeout=30)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert statistics.median(seconds) < 0.5


# Papers that match


def test_env_example_is_the_table_of_settings() -> None:
    kept = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert kept == settings.as_env_example(), "write .env.example anew from settings.as_env_example()"


FOLDERS_AS_ONE_LINE = ("bot/workspace/page", "storage/company/pages", "tests/bench")
NOT_OURS = {"__pycache__", ".venv", ".git", "data", "build", "dist", "scratch"}
CACHES = re.compile(r"\.(mypy|ruff|pytest)_cache|\.hypothesis|.*\.egg-info|\.env|shared")


def files_in(folder: Path) -> Iterator[str]:
    """The files of the project, a data folder as one name with a slash behind."""
    for path in sorted(folder.iterdir()):
        name = name_of(path)
        if path.name in NOT_OURS or CACHES.fullmatch(path.name):
            continue
        if name in FOLDERS_AS_ONE_LINE:
            yield f"{name}/"
        elif path.is_dir():
            yield from files_in(path)
        else:
            yield name


def tree_in(readme: str) -> list[tuple[str, str]]:
    """The paths that the README's file tree draws, with what it says of each."""
    block = re.search(r"^## Files\n.*?^```text\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert block, "README.md has no tree under '## Files'"
    drawn, folders = [], list[str]()
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, about = line.strip().partition(" ")
        folders[depth:] = [name]
        path = "".join(folders)
        if not name.endswith("/") or path.rstrip("/") in FOLDERS_AS_ONE_LINE:
            drawn.append((path, about.strip()))
    return drawn


def test_the_readme_draws_the_tree_as_it_is() -> None:
    drawn = [path for path, _ in tree_in(README)]
    there = set(files_in(ROOT))
    assert len(drawn) == len(set(drawn)), "drawn twice"
    assert {"missing in README.md": sorted(there - set(drawn)), "gone from the tree": sorted(set(drawn) - there)} == {
        "missing in README.md": [],
        "gone from the tree": [],
    }


def test_the_readme_says_one_thing_of_every_file() -> None:
    assert not [path for path, about in tree_in(README) if len(about) < 8]


def test_the_readme_names_every_command_and_every_make_target() -> None:
    for line in command_lines():
        if line:
            assert f"`{line[0]}" in README or f"nightshift {line[0]}" in README, line
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [target for target in targets if target != "help" and f"make {target}" not in README] == []


def test_the_readme_names_every_gate() -> None:
    assert [gate.name for gate in gates.TABLE if f"`{gate.name}`" not in README] == []


def test_the_readme_links_to_files_that_are_there() -> None:
    papers = [ROOT / name for name in ("README.md", "CHANGELOG.md", "DECISIONS.md")]
    for paper in papers:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", paper.read_text(encoding="utf-8")):
            assert os.access(ROOT / link, os.R_OK), f"{paper.name} links to {link}"
