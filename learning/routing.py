"""Does the router know what it knows? `nightshift evaluate --suite routing`.

Two kinds of evidence. Labelled rows, shipped and collected by the nights: what each head would have said of them
without having seen their facts. Stored decisions that people voted on: what was said to them at the time. Both become
a reliability table, a calibration error, an AUROC and a curve of risk over coverage, and all of it one chart. It
decides nothing and fits nothing that is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learning import calibrate, labels, reliability
from learning.reliability import Outcomes, outcomes
from storage.database import Database

FOLDER = "reports"
COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Where the risk is told in figures; the chart has the whole curve."""
COLOURS = ("#2a6fbb", "#2e8b57", "#c0392b", "#8a6d3b")
VOTED = "voted"


def measure(database: Database, version: str, embedder: labels.Reader) -> dict[str, Any]:
    """The figures of every kind of evidence, flat (`same_ece`, `quoted_bin_8_right`), and the path of the chart.

    The bins are tenths of probability, 0 to 9. Whatever has no rows yet is left out.
    """
    rows = [*calibrate.shipped_rows(), *labels.in_force(database, embedder)]
    seen = {head: calibrate.held_out(rows, head) for head in calibrate.HEADS if calibrate.of_head(rows, head)}
    seen[VOTED] = voted(database)
    seen = {name: told for name, told in seen.items() if len(told)}
    figures: dict[str, Any] = {}
    for name, told in seen.items():
        figures |= {f"{name}_{key}": value for key, value in figures_of(told).items()}
    folder = database.home / FOLDER
    folder.mkdir(exist_ok=True)
    target = folder / f"routing-{version}.png"
    draw(target, seen)
    return figures | {"chart": str(target)}


def voted(database: Database) -> Outcomes:
    """Answers that people judged: by votes, where more were up or down, or by a click on "Not my question"."""
    rows = database.rows(
        "SELECT a.confidence, coalesce((SELECT sum(vote) FROM feedback f WHERE f.answer_id = a.id), 0) AS votes, "
        "EXISTS (SELECT 1 FROM wordings w WHERE w.correction_id = a.correction_id AND w.kind = 'rejected' "
        "AND w.text = q.text) AS refused FROM answers a JOIN questions q ON q.id = a.question_id "
        "WHERE a.route <> 'ABSTAINED' ORDER BY a.id"
    )
    judged = [r for r in rows if r["refused"] or r["votes"]]
    return outcomes([r["confidence"] for r in judged], [r["votes"] > 0 and not r["refused"] for r in judged])


def figures_of(seen: Outcomes) -> dict[str, float]:
    """The figures of one kind of evidence."""
    curve = reliability.risk_coverage(seen)
    told = {
        "rows": float(len(seen)),
        "right": reliability.mean(seen, seen.right),
        "auroc": reliability.auroc(seen),
        "ece": reliability.calibration_error(seen),
        "aurc": curve.area,
    }
    for share in COVERAGES:
        told[f"risk_at_{share * 100:.0f}"] = curve.at(share)
    for row in reliability.table(seen):
        name = f"bin_{row.low * reliability.BINS:.0f}"
        told |= {f"{name}_rows": float(row.answers), f"{name}_said": row.said, f"{name}_right": row.right}
    return told


# --- the chart ---


def draw(target: Path, seen: Mapping[str, Outcomes]) -> None:
    """Draw what was said against what was right, and the share of wrong answers over the share answered, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="#c9ccd1", linewidth=1)
    for colour, (name, told) in zip(COLOURS, seen.items(), strict=False):
        bins = reliability.table(told)
        points = [b.said for b in bins], [b.right for b in bins]
        left.plot(*points, marker="o", color=colour, label=f"{name} ({len(told)})")
        curve = reliability.risk_coverage(told)
        right.plot(100 * curve.coverage, 100 * curve.risk, color=colour, label=f"{name}, area {curve.area:.3f}")
    finish(left, "Right, of what was said", "probability said", "share right")
    finish(right, "Wrong among answered, %", "answered, %", "wrong, %")
    figure.savefig(target, format="png")


def finish(axes: Any, title: str, across: str, up: str) -> None:
    """Title, names of the axes, a legend, no frame."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across, fontsize=8)
    axes.set_ylabel(up, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
