"""The plots of the learning benchmark, drawn from its JSON.

    python tests/bench/plots.py                         reads and writes beside itself
    python tests/bench/plots.py learning.json FOLDER

`frontier` shows what each setting recalls against what it costs in general loss; `nights` follows three policies over
five nights. It measures nothing, and leaves out a plot whose figures are not in the file.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TARGET_RISE, TARGET_RECALL = 0.05, 0.97
POLICIES = {
    "stacked": ("stacked merges", "#c0392b", "x", "--"),
    "warm": ("warm start and replay", "#2a6fbb", "o", "-"),
    "rebuild": ("rebuild", "#2e8b57", "s", "-."),
}
"""What each policy is called, and its colour, marker and line, which differ in grey too."""


def draw(told: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every plot that has figures; returns the PNG files."""
    made = []
    if told.get("frontier"):
        made.append(save(frontier(told["frontier"]), folder / "learning_frontier.png"))
    if told.get("nights"):
        made.append(save(nights(told["nights"]), folder / "learning_nights.png"))
    return made


def frontier(points: Sequence[Mapping[str, Any]]) -> Any:
    """Recall against the rise of general loss, one labelled point per setting; the best ones are joined."""
    figure = canvas(1, 7.2)
    axes = figure.subplots()
    for point in points:
        axes.scatter(point["general_loss_rise"], point["recall"], s=30, color="#2a6fbb", zorder=3)
        label = f"{point['setting']} ({point['minutes']:.1f} min)"
        axes.annotate(
            label, (point["general_loss_rise"], point["recall"]), (5, 4), textcoords="offset points", fontsize=7
        )
    best = undominated(points)
    axes.step([p["general_loss_rise"] for p in best], [p["recall"] for p in best], where="post", color="#9aa4b1")
    axes.axvline(TARGET_RISE, color="#c0392b", linewidth=0.8, linestyle=":")
    axes.axhline(TARGET_RECALL, color="#c0392b", linewidth=0.8, linestyle=":")
    axes.set(xlabel="rise of general loss, nats per token", ylabel="recall of taught wordings")
    axes.set_title("Recall against forgetting; dotted: the targets", fontsize=10)
    axes.margins(x=0.18, y=0.1)
    plain(axes)
    return figure


def undominated(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The settings that no other one beats on both figures, by rising loss."""
    best: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["general_loss_rise"], -p["recall"])):
        if not best or point["recall"] > best[-1]["recall"]:
            best.append(point)
    return best


def nights(policies: Mapping[str, Mapping[str, Any]]) -> Any:
    """Three panels over the nights: recall of the first night's facts, the battery, and the minutes a night took."""
    figure = canvas(3, 4.4)
    panels = figure.subplots(1, 3)
    for name, run in policies.items():
        label, colour, marker, line = POLICIES.get(name, (name, "#555555", "d", ":"))
        style = {"label": label, "color": colour, "marker": marker, "linestyle": line}
        for axes, values in zip(panels, (first_night(run["R"]), run["battery"], run["minutes"]), strict=True):
            axes.plot(range(1, len(values) + 1), values, **style)
    titles = ("Recall of the first night's facts", "Simple questions right", "Minutes of the night")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("night")
        axes.xaxis.get_major_locator().set_params(integer=True)
        plain(axes)
    panels[0].set_ylim(-0.03, 1.05)
    panels[2].set_ylim(bottom=0)
    panels[0].legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def first_night(r: Sequence[Sequence[float | None]]) -> list[float]:
    """The first column of R: what each night's model holds of the first night's facts; a gap where unmeasured."""
    return [float("nan") if not row or row[0] is None else row[0] for row in r]


def canvas(panels: int, width: float) -> Any:
    """A figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(panels * width, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Any) -> None:
    """Small labels and no box."""
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Any, target: Path) -> Path:
    """Write a figure as PNG, without the date that would make every run differ."""
    figure.savefig(target, format="png", metadata={"Software": None})
    return target


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "learning.json"
    for path in draw(json.loads(source.read_text()), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE):
        sys.stderr.write(f"{path}\n")
