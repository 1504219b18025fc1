"""Slack's rate limits: how many calls a minute each method takes, and one post a second in each channel.

Knows nothing of what the methods do. The numbers are the tiers in rules.json.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from bot.workspace import rules

MINUTE = 60.0


class RateLimits:
    """Counts the calls of the last minute."""

    def __init__(self, clock: Callable[[], float], minute: float = MINUTE) -> None:
        """Starts with no calls; `clock` gives seconds, a shorter `minute` lets a test wait less."""
        self._clock = clock
        self._minute = minute
        self._calls: dict[str, deque[float]] = {}

    def wait(self, method: str, args: dict[str, Any]) -> int:
        """Seconds to wait before this call may be made, 0 when it is counted and may go on now."""
        key, most = method, rules.calls_a_minute(method)
        if method == "chat.postMessage":
            key, most = f"{method} {args.get('channel')}", int(MINUTE)
        now, calls = self._clock(), self._calls.setdefault(key, deque())
        while calls and calls[0] <= now - self._minute:
            calls.popleft()
        if len(calls) >= most:
            return math.ceil(calls[0] + self._minute - now)
        calls.append(now)
        return 0
