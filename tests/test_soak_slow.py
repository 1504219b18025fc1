"""A minute of the soak test: the real bot over the local workspace's socket, cut sockets, two swaps, nothing lost.

The hour is `python -m tests.bench.soak --minutes 60`; what it gave stands in tests/bench/soak.md.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import soak


def test_the_slope_is_that_of_time_and_not_of_swaps() -> None:
    swaps = [{"minute": 20.0, "to": "v"}, {"minute": 40.0, "to": "base"}]
    grown = [(60.0 * m, 900.0 + 2 * m / 60 + 30 * (m >= 20) + 5 * (m >= 40), 0.0) for m in range(61)]
    told = soak.slope(grown, swaps, 600.0)
    assert told["slope_mb_per_hour"] == pytest.approx(2.0, abs=0.01)
    assert told["slope_with_swaps_mb_per_hour"] > soak.LARGEST_SLOPE
    assert told["grown_by_swaps_mb"] == pytest.approx([30.0, 5.0], abs=0.2)


def test_a_leak_is_a_slope() -> None:
    leaking = [(60.0 * m, 900.0 + 10 * m / 60 + (m % 7 == 0) * 80, 0.0) for m in range(61)]
    told = soak.slope(leaking, [], 600.0)
    assert told["slope_mb_per_hour"] == pytest.approx(10.0, abs=0.5), "single peaks do not count"
    assert told["slope_mb_per_hour_interval"][0] > soak.LARGEST_SLOPE


def test_a_table_names_every_miss() -> None:
    told: dict[str, Any] = json.loads((soak.HERE / "soak.json").read_text())
    assert soak.table(told) == (soak.HERE / "soak.md").read_text()
    worse = told | {"lost": 1, "slope_mb_per_hour": soak.LARGEST_SLOPE + 1}
    assert soak.table(worse).count("MISSED") == soak.table(told).count("MISSED") + (
        (told["lost"] == 0) + (told["slope_mb_per_hour"] <= soak.LARGEST_SLOPE)
    )


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to read the memory of the bot")
def test_a_minute_with_cut_sockets_and_two_swaps_loses_no_answer(home: Path) -> None:
    told = soak.run(home, minutes=1.0)
    assert (told["lost"], told["answered_twice"], told["questions"]) == (0, 0, 30)
    assert told["sockets_cut"] >= 8
    assert told["refreshes"] >= 3
    assert set(told["answers_by_version"]) == {"base", soak.SWAPPED_TO}
    assert [s["to"] for s in told["swaps"]] == [soak.SWAPPED_TO, "base"]
    assert told["rules_of_slack_broken"] == 0
    assert told["alive_at_the_end"]
    assert told["exit_code"] == 0
    assert told["mb_at_the_end"] <= 1.25 * told["mb_after_warm_up"], "caches fill; two models at once would show"
