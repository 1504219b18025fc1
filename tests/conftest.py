"""What every test stands on: a clean environment, nothing from the network, and a home folder of its own."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from storage import environment

# Before any test module imports a library that reads these once, at import.
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
environment.prepare()

# A machine that is busy takes longer over an example, which says nothing of the product.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

OURS = ("NIGHTSHIFT_", "SLACK_")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker of the tests in which an app misbehaves towards Slack on purpose."""
    config.addinivalue_line("markers", "breaks_slack_rules: an app breaks Slack's rules on purpose")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run; in CI a missing browser is a failure."""
    browser_missing = os.environ.get("CI") != "true" and not any(map(shutil.which, BROWSERS))
    gpu_missing = shutil.which("nvidia-smi") is None
    for item in items:
        if browser_missing and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="no Chromium here: install the package chromium"))
        if gpu_missing and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting and no Slack token of the person who runs the tests reach a test."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)


class Sentences(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record.getMessage())


@pytest.fixture(autouse=True)
def slack_rules_are_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail every test in which a call to the local workspace broke a rule of Slack's."""
    broken, judge = Sentences(), logging.getLogger("bot.workspace.web_api")
    judge.addHandler(broken)
    yield
    judge.removeHandler(broken)
    allowed = request.node.get_closest_marker("breaks_slack_rules") is not None
    assert allowed or not broken.kept


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a test's Nightshift keeps its state; nothing has made the folder yet."""
    return tmp_path / "home"


@pytest.fixture
def home_in_memory(tmp_path: Path) -> Iterator[Path]:
    """A home whose every commit costs nothing, where the machine has such a place: for thousands of commits."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path / "home"
        return
    with tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "home"
