"""The morning report after a night and the weekly report: text, figures and a chart, all from stored rows.

It measures nothing and posts nothing: the night leaves a notice, and the bot delivers it. A chart that cannot be
drawn never costs a report.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from learning import forgetting
from storage import audit, corrections, grounds, health, nights, registry
from storage.database import Database
from storage.domain import NightlyRun, Status
from storage.grounds import Stale
from storage.health import Change, Day, Fate

log = logging.getLogger(__name__)

FOLDER = "reports"
KEPT_CHARTS = 60
MOST_LINES = 30
MOST_IDS = 8
WEEKLY = "weekly_report"
OUTCOMES = {
    "promoted": "A new model serves: {version}",
    "kept_champion": "The old model goes on; the candidate was kept out",
    "nothing_to_learn": "There was nothing to learn; the old model goes on",
    "failed": "The night failed; the old model goes on",
}
FATES = {
    Fate.LEARNT: "learnt by heart",
    Fate.KEPT: "still known by heart",
    Fate.NOT_LEARNT: "not learnt; it goes on as an approved answer",
    Fate.LOST: "no longer known by heart; it goes on as an approved answer",
    Fate.FORGOTTEN: "forgotten, because it was withdrawn or replaced",
    Fate.HELD_BACK: "trained, but the candidate was kept out; it goes on as an approved answer",
}
PRIVATE = "private"
"""Why a row of a private channel is left out, which is as it should be and worries nobody."""
LEFT_OUT = {
    "too_long": "too long to be learnt by heart",
    "format": "in a form that cannot be learnt",
    "secret": "with a secret in it",
    "contradicted": "contradicted by one that was approved later",
    "repeated": "saying the same as another one",
    "capped": "over the number that one author may have trained in a night",
    "quarantined": "approved too short a time ago",
}
COLOURS = {"answered": "#2a6fbb", "unknown": "#c9ccd1", "coverage": "#2a6fbb", "recall": "#2e8b57", "wrong": "#c0392b"}


@dataclass(frozen=True)
class Report:
    """A report for people (Markdown), its figures, and its chart (None when it could not be drawn)."""

    kind: str
    text: str
    figures: dict[str, Any]
    chart: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """The report as `nightshift report --json` has it."""
        chart = str(self.chart) if self.chart else None
        return {"kind": self.kind, **self.figures, "text": self.text, "chart": chart}


# --- leaving them for the bot ---


def leave(database: Database, told: Mapping[str, Any], in_words: str) -> None:
    """Leave the morning report of the night that just ended, and once a week the weekly one, for the bot to post.

    `in_words` is said instead when the morning report cannot be made: a night is never lost to its report.
    """
    nights.owe(database, "", "nightly_report", payload(database, morning, in_words) | {"report": dict(told)})
    if weekly_is_due(database):
        nights.owe(database, "", WEEKLY, payload(database, weekly, "The weekly report could not be made; see the log."))


def payload(database: Database, make: Callable[[Database], Report], otherwise: str) -> dict[str, Any]:
    """What a notice carries; the chart's file name is enough, it lies in the folder of reports."""
    try:
        report = make(database)
    except Exception:
        log.exception("a report could not be made")
        return {"text": otherwise, "chart": ""}
    return {"text": report.text, "chart": report.chart.name if report.chart else ""}


def weekly_is_due(database: Database) -> bool:
    """Whether the last weekly report is a week old, or the first night is."""
    last = database.value("SELECT max(created_at) FROM notices WHERE kind = ?", [WEEKLY])
    first = database.value("SELECT min(started_at) FROM nightly_runs")
    since = last or first
    return since is not None and str(since) <= (datetime.now(UTC) - timedelta(days=7) + timedelta(hours=1)).isoformat()


# --- the reports ---


def morning(database: Database, *, chart: bool = True) -> Report:
    """The report of the last night: outcome, gates, the fate of each correction, the figures of the week."""
    night = nights.latest(database)
    days = health.week(database)
    changes = health.fates(database, night) if night else ()
    changed = tuple(grounds.stale(database).values())
    approved = {row.id for row in corrections.in_status(database, Status.APPROVED)}
    text = "\n\n".join(
        part
        for part in (
            *night_parts(night, changes),
            left_out_text(left_out(night.report if night else {}), approved - {one.correction_id for one in changed}),
            stale_text(database, changed),
            figures_text(days),
            audit.head(database).in_words(),
        )
        if part
    )
    figures: dict[str, Any] = {"night": night_json(night), "gates": gates_of(night)}
    figures["stale"] = [asdict(one) for one in changed]
    figures |= {"corrections": [change_json(c) for c in changes], "days": [day_json(d) for d in days]}
    drawn = draw(database.home, f"night-{night.id}" if night else "no-night", days, gates_of(night)) if chart else None
    return Report("morning", text, figures, drawn)


def weekly(database: Database, *, chart: bool = True) -> Report:
    """The report of the last seven days: nights, reviews, figures, and what people asked in vain."""
    days = health.week(database)
    since = days[0].date
    ended = health.nights_since(database, since)
    reviewed, missing = health.reviewed_since(database, since), health.unanswered(database, since)
    outcomes = {name: sum(n.outcome == name for n in ended) for name in OUTCOMES}
    kept = forgetting.stored(database, registry.alias(database, "champion"))
    parts = [
        f"## The week {days[0].date} to {days[-1].date}",
        f"{plural(len(ended), 'night')}: " + listed(outcomes, "none ran"),
        "Corrections: " + listed(reviewed, "none"),
        figures_text(days),
        forgetting.in_words(kept),
        unanswered_text(missing),
    ]
    figures: dict[str, Any] = {"nights": outcomes, "reviewed": reviewed, "unanswered": missing}
    figures["forgetting"] = {"bwt": kept.backward, "average_accuracy": kept.average, "r": kept.named()}
    figures |= {"days": [day_json(d) for d in days], "week": day_json(health.together(days))}
    drawn = draw(database.home, f"week-{days[-1].date}", days, []) if chart else None
    return Report("weekly", "\n\n".join(part for part in parts if part), figures, drawn)


# --- in words ---


def night_parts(night: NightlyRun | None, changes: Sequence[Change]) -> list[str]:
    """A night in paragraphs."""
    if night is None:
        return ["## No night has run yet"]
    outcome = OUTCOMES.get(night.outcome, night.outcome).format(version=night.version)
    ended, reason = night.finished_at[:16].replace("T", " "), night.reason.removesuffix(".")
    head = f"## {outcome}\nThe night of {ended} UTC: {reason}."
    return [head, gates_text(gates_of(night)), changes_text(changes)]


def gates_text(gates: Sequence[Mapping[str, Any]]) -> str:
    """The gates, the failed ones first."""
    ordered = sorted(gates, key=lambda g: bool(g["passed"]))
    lines = [
        f"- {'passed' if g['passed'] else '**FAILED**'} {g['name']}: {g['value']:.4g} "
        f"(must be {str(g['rule']).replace('_', ' ')} {g['threshold']:g})"
        for g in ordered
    ]
    passed = sum(bool(g["passed"]) for g in gates)
    return "\n".join([f"**Gates: {passed} of {len(gates)} passed**", *lines]) if gates else ""


def changes_text(changes: Sequence[Change]) -> str:
    """The fate of each correction, those that changed first."""
    if not changes:
        return ""
    ordered = sorted(changes, key=lambda c: (c.fate is Fate.KEPT, list(FATES).index(c.fate), c.correction.id))
    lines = [f"- {c.correction.id} “{shortened(c.correction.question)}”: {FATES[c.fate]}" for c in ordered[:MOST_LINES]]
    if len(ordered) > MOST_LINES:
        lines.append(f"- and {len(ordered) - MOST_LINES} more")
    known = sum(c.fate in (Fate.LEARNT, Fate.KEPT) for c in changes)
    return "\n".join([f"**Corrections: {known} of {len(changes)} known by heart**", *lines])


def left_out_text(rows: Sequence[Mapping[str, Any]], answered: Collection[int]) -> str:
    """What a night did not train, by reason; `answered` are the corrections that the bot gives word for word."""
    if not rows:
        return ""
    reasons = dict.fromkeys(str(row["reason"]) for row in rows)
    ids = {reason: [int(row["correction_id"]) for row in rows if row["reason"] == reason] for reason in reasons}
    lines = [f"- {len(ids[r])} {LEFT_OUT.get(r, r.replace('_', ' '))}: {first_of(ids[r])}" for r in reasons]
    kept = sum(int(row["correction_id"]) in answered for row in rows)
    told = "answered from the approved text all the same"
    if kept < len(rows):
        told = f"{kept} of them {told}; the others are out of date, replaced or withdrawn"
    return "\n".join([f"**Left out of training: {len(rows)}**, {told}", *lines])


def first_of(ids: Sequence[int]) -> str:
    """The first of some ids, and how many more there are."""
    more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
    return ", ".join(map(str, ids[:MOST_IDS])) + more


def stale_text(database: Database, changed: Sequence[Stale]) -> str:
    """The corrections whose page was changed and that documents answer for now."""
    if not changed:
        return ""
    lines = [
        f"- {one.correction_id} “{shortened(corrections.get(database, one.correction_id).question)}”: {one.in_words}"
        for one in changed[:MOST_LINES]
    ]
    told = "answered from documents until somebody approves them again, replaces or withdraws them"
    return "\n".join([f"**Out of date: {len(changed)}**, {told}", *lines])


def figures_text(days: Sequence[Day]) -> str:
    """The figures of some days in one paragraph."""
    week = health.together(days)
    told = [
        plural(week.asked, "question") + " asked",
        spoken("coverage", week.coverage, "{:.0%}"),
        spoken("wrong by votes", week.wrong_rate, "{:.0%}"),
        spoken("satisfaction", week.satisfaction, "{:.1f} of 5") + f" ({plural(week.up + week.down, 'vote')})",
        spoken("recall", week.recall, "{:.0%}"),
        spoken("p95", None if week.p95_ms is None else week.p95_ms / 1000, "{:.1f} s"),
    ]
    return f"**Last {len(days)} days:** " + ", ".join(told) + "."


def unanswered_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """What people asked and the bot did not know."""
    if not rows:
        return ""
    lines = [f"- “{shortened(r['text'])}”: {plural(r['times'], 'time')}" for r in rows]
    return "\n".join(["**Asked and not known**", *lines])


def spoken(name: str, value: float | None, form: str) -> str:
    """A figure with its name; "not measured" where there is none."""
    return f"{name} {'not measured' if value is None else form.format(value)}"


def listed(counts: Mapping[str, int], nothing: str) -> str:
    """Counts in one line, without the zeros."""
    return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n) or nothing


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortened(text: str) -> str:
    """A question on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 120 else flat[:119] + "…"


# --- in JSON ---


def gates_of(night: NightlyRun | None) -> list[dict[str, Any]]:
    """The gates of a night; one that failed or learnt nothing has none."""
    found = night.report.get("gates") if night else None
    return list(found) if isinstance(found, list) else []


def left_out(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the night of a report left out and people are told of: all but rows of private channels."""
    return [row for row in told.get("left_out", ()) if row["reason"] != PRIVATE]


def night_json(night: NightlyRun | None) -> dict[str, Any] | None:
    """A night without its long report."""
    return None if night is None else {k: v for k, v in asdict(night).items() if k != "report"}


def change_json(change: Change) -> dict[str, Any]:
    """The fate of one correction."""
    row = change.correction
    return {"id": row.id, "question": row.question, "author": row.author, "fate": change.fate.value}


def day_json(day: Day) -> dict[str, Any]:
    """One day with its rates."""
    rates = {"coverage": day.coverage, "wrong_rate": day.wrong_rate, "satisfaction": day.satisfaction}
    return asdict(day) | rates


# --- the chart ---


def draw(home: Path, name: str, days: Sequence[Day], gates: Sequence[Mapping[str, Any]]) -> Path | None:
    """The chart as a PNG in the folder of reports; None, with the reason in the log, when it cannot be drawn."""
    folder = home / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        target = folder / f"{name}.png"
        paint(target, days, gates)
        for old in sorted(folder.glob("*.png"), key=lambda p: p.stat().st_mtime)[:-KEPT_CHARTS]:
            old.unlink()
    except Exception:
        log.exception("the chart of the report could not be drawn")
        return None
    return target


def paint(target: Path, days: Sequence[Day], gates: Sequence[Mapping[str, Any]]) -> None:
    """Draw the week: questions by day, rates by day, and the gates of the night where there are some."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 3 if gates else 2
    figure = Figure(figsize=(4.6 * panels, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    paint_questions(axes[0], days)
    paint_rates(axes[1], days)
    if gates:
        paint_gates(axes[2], gates)
    figure.savefig(target, format="png")


def paint_questions(axes: Any, days: Sequence[Day]) -> None:
    """Questions by day: answered, and not known."""
    answered = [d.answered for d in days]
    axes.bar(range(len(days)), answered, color=COLOURS["answered"], label="answered")
    missing = [d.asked - d.answered for d in days]
    axes.bar(range(len(days)), missing, bottom=answered, color=COLOURS["unknown"], label="not known")
    axes.set_title("Questions a day", fontsize=10)
    axes.set_ylim(0, max(4, 1.25 * max((d.asked for d in days), default=0)))
    finish(axes, days)


def paint_rates(axes: Any, days: Sequence[Day]) -> None:
    """Coverage, recall and wrong rate by day; a day without a value is a gap."""
    lines = (
        ("coverage", "o", [d.coverage for d in days]),
        ("recall", "s", [d.recall for d in days]),
        ("wrong", "x", [d.wrong_rate for d in days]),
    )
    for name, marker, values in lines:
        shown = [float("nan") if v is None else 100 * v for v in values]
        axes.plot(range(len(days)), shown, marker=marker, color=COLOURS[name], label=name)
    axes.set_title("Rates, %", fontsize=10)
    axes.set_ylim(-4, 118)
    finish(axes, days)


def paint_gates(axes: Any, gates: Sequence[Mapping[str, Any]]) -> None:
    """Each gate with its value and threshold; a failed one in red."""
    names = [str(g["name"]).replace("_", " ") for g in gates]
    colours = [COLOURS["recall"] if g["passed"] else COLOURS["wrong"] for g in gates]
    axes.barh(names, [1] * len(names), color=colours, alpha=0.25)
    for row, gate in enumerate(gates):
        sign = "≥" if gate["rule"] == "at_least" else "≤"
        verdict = "" if gate["passed"] else "FAILED: "
        told = f"{verdict}{gate['value']:.4g} (needs {sign} {gate['threshold']:g})"
        axes.text(0.03, row, told, va="center", fontsize=8)
    axes.set_title("Gates of the night", fontsize=10)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(labelsize=8)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def finish(axes: Any, days: Sequence[Day]) -> None:
    """Days on the axis, small labels, a legend, no frame."""
    axes.set_xticks(range(len(days)), [d.date[5:] for d in days])
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, loc="upper center", ncols=3, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
