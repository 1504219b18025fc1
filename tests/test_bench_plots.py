"""The plots of the learning benchmark: what they draw from the JSON, and that they can be drawn."""

from pathlib import Path
from typing import Any

from tests.bench import plots

POINTS: list[dict[str, Any]] = [
    {"setting": "much replay", "recall": 0.90, "general_loss_rise": 0.02, "minutes": 9.0},
    {"setting": "little replay", "recall": 0.99, "general_loss_rise": 0.08, "minutes": 6.0},
    {"setting": "beaten", "recall": 0.85, "general_loss_rise": 0.03, "minutes": 6.5},
]
NIGHTS: dict[str, Any] = {
    "stacked": {"R": [[1.0], [0.8, 1.0], [None, 0.9, 1.0]], "battery": [34, 30, 28], "minutes": [3, 3, 3]},
    "warm": {"R": [[1.0], [1.0, 1.0], [0.9, 1.0, 1.0]], "battery": [35, 35, 34], "minutes": [3, 4, 4]},
}


def test_the_frontier_joins_the_settings_that_nothing_beats() -> None:
    assert [p["setting"] for p in plots.undominated(POINTS)] == ["much replay", "little replay"]
    axes = plots.frontier(POINTS).axes[0]
    assert {t.get_text().split(" (")[0] for t in axes.texts} == {p["setting"] for p in POINTS}


def test_each_policy_is_one_line_in_each_panel() -> None:
    panels = plots.nights(NIGHTS).axes
    assert len(panels) == 3
    assert [line.get_label() for line in panels[0].lines] == ["stacked merges", "warm start and replay"]
    assert panels[0].lines[1].get_ydata().tolist() == [1.0, 1.0, 0.9]
    assert panels[1].lines[0].get_ydata().tolist() == [34, 30, 28]
    assert str(plots.first_night(NIGHTS["stacked"]["R"])) == "[1.0, 0.8, nan]"


def test_only_plots_with_figures_are_drawn_and_they_are_pictures(tmp_path: Path) -> None:
    assert plots.draw({"seeds": {}}, tmp_path) == []
    made = plots.draw({"frontier": POINTS, "nights": NIGHTS}, tmp_path)
    assert [p.name for p in made] == ["learning_frontier.png", "learning_nights.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") and p.stat().st_size > 5000 for p in made)
