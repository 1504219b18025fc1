"""One night's run: what it works with, and the clock of its stages. It knows nothing of what happens in them."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.database import Database
from storage.errors import UserError
from storage.settings import Settings


@dataclass
class Night:
    """One run: what it works with, and the clock of its stages (seconds)."""

    database: Database
    settings: Settings
    say: Callable[[str], None]
    minutes: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    left_out: tuple[dict[str, Any], ...] = ()

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.database.home

    @contextmanager
    def stage(self, name: str) -> Any:
        """Time a stage and say its name; raises UserError when the night's minutes are over."""
        if self.minutes is not None and sum(self.timings.values()) > 60 * self.minutes:
            raise UserError(f"The night was given {self.minutes:g} minutes and they are over; the champion stays.")
        self.say(name)
        started = time.monotonic()
        yield
        self.timings[name] = round(self.timings.get(name, 0.0) + time.monotonic() - started, 1)
