"""What a reviewer looks at: a correction beside all that speaks for and against it, as modals, by pure functions.

It knows nothing of clients, databases or events.
"""

import json
from typing import Any

from bot import blocks, safety
from bot.blocks import Block
from bot.teaching import Conflict
from storage.corrections import in_words
from storage.domain import Correction, Passage, Status
from storage.evidence import Asked, Dossier, Rival, proof_in_words, stamp

SIDE = 900
"""Characters of one side of a comparison; Slack takes 2,000."""
MOST_RIVALS = 3
MOST_ALIKE = 8
APPROVE, REPLACE, SAVE, REJECT, WITHDRAW = "approve", "replace", "save", "reject", "withdraw"
BOTH, RELEASE = "both", "release"
SAVE_WORDS = "Only save my wording"
LABEL = 75
"""Characters of a choice that Slack takes."""


def conflicts_in(dossier: Dossier) -> tuple[Conflict, ...]:
    """The rivals of a correction as the cards show them."""
    return tuple(Conflict(r.row.id, r.row.question, r.row.answer, r.kind, r.row.scope) for r in dossier.rivals)


def contradicted(dossier: Dossier) -> tuple[Correction, ...]:
    """What approving a correction could withdraw: all approved ones that it contradicts, else the first that waits."""
    against = [r.row for r in dossier.rivals if r.kind == "contradiction" and r.row.id != dossier.row.supersedes]
    approved = tuple(row for row in against if row.status is Status.APPROVED)
    return approved or tuple(row for row in against if row.status is Status.PENDING)[:1]


# --- the comparison ---


def comparison(dossier: Dossier, warning: str = "") -> list[Block]:
    """Everything that speaks for and against a correction, side by side."""
    row, evidence = dossier.row, dossier.evidence
    shown = [blocks.section(f":warning: {safety.clip(warning, safety.SECTION_CHARS)}")] if warning else []
    if dossier.held_with:
        shown.append(blocks.section(held_words(dossier)))
    shown += [
        blocks.section(f"*Question*\n{safety.clip(row.question, 1500)}"),
        blocks.context(f"{asked_line(evidence.asked)} · {blocks.card_line(row)}"),
    ]
    shown.append(grid(dossier))
    shown += [blocks.context(rival_line(rival)) for rival in dossier.rivals[:MOST_RIVALS]]
    shown.append(blocks.context(f"This correction · {proof_words(evidence.proof)}"))
    return [*shown, blocks.divider()]


def held_words(dossier: Dossier) -> str:
    """Why a correction is held, with the texts of those it is like; the whole group at one look."""
    lines = [f":no_entry: *Held*: it came with {len(dossier.held_with)} that say nearly the same."]
    lines += [
        f"{row.id}, {row.status.value}, by {safety.person(row.author)}: {safety.inline(row.question, 80)} "
        f"\u2192 {safety.inline(row.answer, 120)}"
        for row in dossier.held_with[:MOST_ALIKE]
    ]
    more = len(dossier.held_with) - MOST_ALIKE
    return "\n".join([*lines, *([f"and {more} more"] if more > 0 else [])])


def grid(dossier: Dossier) -> Block:
    """What a correction says, side by side with what the bot said, what its rivals say and what the page says."""
    given, page = dossier.evidence.given, dossier.evidence.page
    cells = [side("This correction says", dossier.row.answer)]
    if given is not None and given.text.strip():
        cells.append(side("The bot said", safety.redact_secrets(given.text)))
    cells += [rival_side(rival) for rival in dossier.rivals[:MOST_RIVALS]]
    if page is not None:
        cells.append(page_side(page))
    return {"type": "section", "fields": [blocks.mrkdwn(cell).to_dict() for cell in cells]}


def rival_side(rival: Rival) -> str:
    """What a correction says that the new one contradicts or repeats."""
    verb = "contradicts" if rival.kind == "contradiction" else "says the same as"
    title = f"*Correction {rival.row.id}, which this one {verb}*"
    return f"{title}\n{safety.bold(rival.row.question)}\n{safety.clip(rival.row.answer, SIDE)}"


def rival_line(rival: Rival) -> str:
    """How a rival stands: its state, its author, its use and its proof."""
    return " · ".join(
        (
            f"Correction {rival.row.id} is {rival.row.status.value}",
            f"written by {safety.person(rival.row.author)}",
            asked_line(rival.evidence.asked).lower(),
            proof_words(rival.evidence.proof),
        )
    )


def side(title: str, text: str) -> str:
    """One side of a comparison."""
    return f"*{title}*\n{safety.clip(text, SIDE)}"


def page_side(page: Passage) -> str:
    """The page that the bot had read."""
    label = f"{page.document} > {page.heading}" if page.heading else page.document
    return f"*The page says:* {safety.link(page.url, label)}\n{safety.clip(page.text, SIDE)}"


def asked_line(asked: Asked) -> str:
    """How often something was asked, in words."""
    if not asked.times:
        return "Not asked yet"
    times = "once" if asked.times == 1 else f"{asked.times} times"
    people = "1 person" if asked.people == 1 else f"{asked.people} people"
    return f"Asked {times} by {people}, last on {asked.last[:10]}"


def proof_words(proof: dict[str, Any] | None) -> str:
    """What the exam of the serving model measured of one correction, in words."""
    if proof is None:
        return "not trained yet"
    return safety.inline(proof_in_words(proof), 600)


# --- the modals ---


def edit_view(
    dossier: Dossier, metadata: dict[str, Any], *, warning: str = "", form: dict[str, str] | None = None
) -> Block:
    """The modal in which a pending correction is reworded."""
    view = blocks.edit_modal(dossier.row, metadata | {"seen": stamp(dossier.row)})
    view["blocks"] = [*comparison(dossier, warning), *wording(dossier, form or {})]
    return view


def reject_view(
    dossier: Dossier, metadata: dict[str, Any], *, warning: str = "", form: dict[str, str] | None = None
) -> Block:
    """The modal in which a correction is refused with a reason."""
    view = blocks.reject_modal(dossier.row, metadata | {"seen": stamp(dossier.row)})
    reason = blocks.text_input("reason", "Why?", (form or {}).get("reason", ""), lines=True).to_dict()
    view["blocks"] = [*comparison(dossier, warning), reason]
    return view


def look_view(
    dossier: Dossier, metadata: dict[str, Any], *, warning: str = "", form: dict[str, str] | None = None
) -> Block:
    """The modal with everything: a pending correction can be decided in it, an approved one withdrawn."""
    row, form = dossier.row, form or {}
    shown = comparison(dossier, warning)
    if row.status is Status.PENDING:
        why = blocks.text_input("reason", "Why? (the author reads it)", form.get("reason", ""), optional=True)
        shown += [*wording(dossier, form), decision_input(dossier), why.to_dict()]
        return decided(dossier, "Decide", shown, metadata)
    shown.append(blocks.decision(row, ())[0])
    if row.status is Status.APPROVED:
        why = blocks.text_input("reason", "Why withdraw it?", form.get("reason", ""), lines=True)
        return decided(dossier, "Withdraw", [*shown, why.to_dict()], metadata)
    return closed(dossier, shown, form)


def closed(dossier: Dossier, shown: list[Block], form: dict[str, str]) -> Block:
    """The modal of a correction about which nothing is left to decide; what somebody wrote is still shown."""
    written = "\n".join(text for name in ("question", "answer", "reason") if (text := form.get(name, "").strip()))
    if written:
        shown = [*shown, blocks.section("*You had written*\n" + safety.clip(written, 2500))]
    return {"type": "modal", "title": blocks.plain(title(dossier)), "close": blocks.plain("Close"), "blocks": shown}


def decided(dossier: Dossier, submit: str, shown: list[Block], metadata: dict[str, Any]) -> Block:
    """The modal around a decision; it remembers how the correction stood."""
    return {
        "type": "modal",
        "callback_id": "review_decide",
        "title": blocks.plain(title(dossier)),
        "submit": blocks.plain(submit),
        "close": blocks.plain("Cancel"),
        "private_metadata": json.dumps(metadata | {"seen": stamp(dossier.row)}),
        "blocks": shown,
    }


def title(dossier: Dossier) -> str:
    """The title of a modal; Slack takes 24 characters."""
    return f"Correction {dossier.row.id}"[:24]


def wording(dossier: Dossier, form: dict[str, str]) -> list[Block]:
    """The texts of a correction, to be reworded; what somebody typed already stays."""
    row = dossier.row
    return [
        blocks.text_input("question", "The question", form.get("question") or row.question, lines=True).to_dict(),
        blocks.text_input("answer", "The answer", form.get("answer") or row.answer, lines=True).to_dict(),
    ]


def decision_input(dossier: Dossier) -> Block:
    """What can be done with a pending correction."""
    labels = {RELEASE: "Release it, decide later"} if dossier.held_with else approvals(dossier)
    labels |= {SAVE: SAVE_WORDS, REJECT: "Reject"}
    options = [{"text": blocks.plain(label), "value": value} for value, label in labels.items()]
    element = {"type": "radio_buttons", "action_id": "value", "options": options}
    return blocks.input_of("decision", "Decision", element, optional=False)


def approvals(dossier: Dossier) -> dict[str, str]:
    """The ways to approve a correction; only what is for the same people can give way to it."""
    against = contradicted(dossier)
    stand = any(row.status is Status.APPROVED for row in against)
    labels = {} if stand else {APPROVE: "Approve"}
    if against and all(row.scope == dossier.row.scope for row in against):
        labels[REPLACE] = f"Approve, withdraw {in_words([row.id for row in against])}"[:LABEL]
    return labels | ({BOTH: "Approve, let both stand"} if stand else {})
