"""What every test stands on: a clean environment, nothing from the network, and a home folder of its own."""

import os
import shutil
from pathlib import Path

import pytest

from storage import environment

# Before any test module imports a library that reads these once, at import.
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
environment.prepare()

OURS = ("NIGHTSHIFT_", "SLACK_")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a test's Nightshift keeps its state; nothing has made the folder yet."""
    return tmp_path / "home"
