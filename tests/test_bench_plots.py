"""The table and the plots of the learning benchmark: what they show of the JSON, and that they can be drawn."""

from pathlib import Path
from typing import Any

from tests.bench import learning, plots

POINTS: list[dict[str, Any]] = [
    {"setting": "much replay", "recall": 0.90, "general_loss_rise": 0.02, "minutes": 9.0},
    {"setting": "little replay", "recall": 0.99, "general_loss_rise": 0.08, "minutes": 6.0},
    {"setting": "beaten", "recall": 0.85, "general_loss_rise": 0.03, "minutes": 6.5},
]
NIGHTS: dict[str, Any] = {
    "stacked": {"R": [[1.0], [0.8, 1.0], [None, 0.9, 1.0]], "battery": [34, 30, 28], "minutes": [3, 3, 3]},
    "warm": {"R": [[1.0], [1.0, 1.0], [0.9, 1.0, 1.0]], "battery": [35, 35, 34], "minutes": [3, 4, 4]},
}


def test_the_headline_has_a_column_for_each_seed_and_the_mean() -> None:
    dropped = {"base": 0.42, "tuned": 0.41, "drop": 0.01, "drop_upper_95": 0.02}
    rest = {"merged": 0.9, "drift_nats": 0.02, "steps": 400, "training_minutes": 20.0}
    runs = {
        "7": {"facts": {"taught_exact": 0.9}, "general": {"hellaswag": dropped}, **rest},
        "8": {"facts": {"taught_exact": 1.0}, "general": {"hellaswag": dropped | {"drop": 0.03}}, **rest},
        "9": {"facts": {"taught_exact": 1.0}, "general": {}, **rest},
    }
    lines = learning.headline({"seeds": runs})
    assert lines[0] == "| figure | seed 7 | seed 8 | seed 9 | mean | target |"
    assert lines[2] == "| taught_exact | 0.900 | 1.000 | 1.000 | 0.967 |  |"
    missed = "| - | drop 0.020 | drop of at most 0.01: MISSED |"
    assert lines[3].endswith(missed), "a seed without the benchmark's data has no part in the mean"
    assert learning.told_of("battery", 0.05) == "drop of at most 0.05 of the base: met"
    assert [learning.told_of(n, 0.3).rsplit(" ")[-1] for n in ("near_miss_bluffed", "stranger_mapped")] == [
        "met", "MISSED"
    ]


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
