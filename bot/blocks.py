"""Answers, review cards and modals as Block Kit, by pure functions.

Everything untrusted passes `safety` on its way in, every text is verbatim, and Slack's size limits hold
whatever the input. It knows nothing of clients, databases or events.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slack_sdk.models.blocks import (
    ActionsBlock,
    ButtonElement,
    ConfirmObject,
    ContextActionsBlock,
    ContextBlock,
    DividerBlock,
    FeedbackButtonObject,
    FeedbackButtonsElement,
    HeaderBlock,
    InputBlock,
    MarkdownTextObject,
    Option,
    PlainTextInputElement,
    SectionBlock,
    StaticSelectElement,
)
from slack_sdk.models.views import View

from bot import safety
from bot.teaching import Conflict
from storage.domain import Answer, Correction, Route, Source, Style

Block = dict[str, Any]

INPUT_CHARS = 3000
PIECES_A_MESSAGE = 3
"""Sections of answer text in one message; with the lines around them it stays under 13,200 characters."""

REASONS = {
    "wrong": "It is wrong",
    "outdated": "It is outdated",
    "incomplete": "It is incomplete",
    "not_for_me": "It answers another question",
}
UNKNOWN = "I don't know this yet, and I would rather say so than guess."


@dataclass(frozen=True)
class Post:
    """One message: the plain text that notifications show, and the blocks."""

    text: str
    blocks: tuple[Block, ...] = ()


# --- small parts ---


def mrkdwn(text: str) -> MarkdownTextObject:
    """Formatted text in which Slack looks for nothing by itself."""
    return MarkdownTextObject(text=text if text.strip() else "-", verbatim=True)


def section(text: str, accessory: ButtonElement | None = None, fields: Sequence[str] = ()) -> Block:
    """A paragraph, with a button beside it or columns under it."""
    block = SectionBlock(text=mrkdwn(text), accessory=accessory, fields=[mrkdwn(f) for f in fields] or None)
    return block.to_dict()


def context(text: str) -> Block:
    """A line of small print."""
    return ContextBlock(elements=[mrkdwn(text)]).to_dict()


def header(text: str) -> Block:
    """A headline; the text is ours."""
    return HeaderBlock(text=text).to_dict()


def divider() -> Block:
    """A rule."""
    return DividerBlock().to_dict()


def button(label: str, action: str, value: str, style: str | None = None, confirm: str = "") -> ButtonElement:
    """A button; `confirm` asks a question first."""
    dialog = ConfirmObject(title="Are you sure?", text=confirm, confirm="Yes", deny="No") if confirm else None
    return ButtonElement(text=label, action_id=action, value=value, style=style, confirm=dialog)


def actions(*buttons: ButtonElement) -> Block:
    """A row of buttons."""
    return ActionsBlock(elements=list(buttons)).to_dict()


def sentence(text: str) -> Post:
    """One of our own sentences; names and texts of others inside it are shown as they stand."""
    shown = safety.clip(text.strip(), safety.SECTION_CHARS) or "-"
    return Post(shown, (section(shown),))


def longer(text: str) -> tuple[Post, ...]:
    """A text of ours of any length, such as a report, in as many messages as it needs."""
    text = text if safety.visible(text).strip() else "(empty)"
    pieces = safety.split(safety.to_mrkdwn(text))
    return tuple(
        Post(safety.clip(text, 300), tuple(section(p) for p in pieces[i : i + PIECES_A_MESSAGE]))
        for i in range(0, len(pieces), PIECES_A_MESSAGE)
    )


# --- answers ---


def answer_posts(answer: Answer, *, ask_a_person: str = "", private: bool = False) -> tuple[Post, ...]:
    """An answer as messages: text, where it comes from, how sure, the taught question, what to press."""
    text = safety.redact_secrets(answer.text.strip()) or UNKNOWN
    lead = (
        [section(f"The closest I was taught: {safety.bold(answer.taught_question)}")]
        if related(answer)
        else []
    )
    pieces = [section(p) for p in safety.split(safety.to_mrkdwn(text))] or [section(UNKNOWN)]
    batches = [pieces[i : i + PIECES_A_MESSAGE] for i in range(0, len(pieces), PIECES_A_MESSAGE)]
    batches[0] = lead + batches[0]
    batches[-1] = batches[-1] + foot(answer, ask_a_person, private)
    notice = f"The closest I was taught: {answer.taught_question}" if related(answer) else text
    return tuple(Post(safety.inline(notice), tuple(batch)) for batch in batches)


def related(answer: Answer) -> bool:
    """Whether the answer belongs to a neighbouring question and must not be claimed as the answer."""
    return answer.style is Style.RELATED and bool(answer.taught_question)


def foot(answer: Answer, ask_a_person: str, private: bool) -> list[Block]:
    """Everything under the text of an answer."""
    blocks = []
    if answer.taught_question and answer.route in (Route.APPROVED, Route.MEMORISED):
        blocks.append(taught_line(answer))
    if answer.sources:
        blocks.append(context(sources_line(answer)))
    blocks.append(context(provenance(answer)))
    if answer.route is Route.ABSTAINED:
        blocks.append(actions(button("Teach me", "teach", str(answer.id), "primary")))
        if ask_a_person:
            blocks.append(context(f"Or ask a person: {safety.person(ask_a_person)}"))
    if private:
        blocks.append(actions(button("Share in the channel", "share", str(answer.id))))
    return [*blocks, feedback(answer.id)]


def taught_line(answer: Answer) -> Block:
    """The taught question that an answer belongs to, with the way to say that it was another one."""
    shown = (
        "Not quite what you asked?" if related(answer) else f"Taught: {safety.bold(answer.taught_question)}"
    )
    return section(shown, button("Not my question", "not_mine", str(answer.id)))


def sources_line(answer: Answer) -> str:
    """The pages behind an answer, or the nearest ones when there is none."""
    named = dict.fromkeys(source_link(s) for s in answer.sources[:5])
    return ("Nearest pages: " if answer.route is Route.ABSTAINED else "Sources: ") + ", ".join(named)


def source_link(source: Source) -> str:
    """A page with its heading, as a link when it is stored with an https address."""
    label = f"{source.document} > {source.heading}" if source.heading else source.document
    return safety.link(source.url, label)


def provenance(answer: Answer) -> str:
    """Where an answer comes from and how sure it is, in words, with the model version."""
    parts = [origin(answer)]
    if answer.route is not Route.ABSTAINED:
        parts.append(certainty(answer.confidence))
    return " · ".join([*parts, f"model {safety.inline(answer.model_version, 60)}"])


def origin(answer: Answer) -> str:
    """Where an answer comes from, in words."""
    if related(answer):
        return "The answer to a neighbouring question"
    if answer.style is Style.QUOTED:
        return "Quoted from documents"
    return {
        Route.APPROVED: "From an approved answer",
        Route.MEMORISED: "From memory",
        Route.RETRIEVED: "From documents",
        Route.ABSTAINED: "I don't know",
    }[answer.route]


def certainty(confidence: float) -> str:
    """A calibrated probability in words."""
    steps = ((0.95, "very sure"), (0.8, "fairly sure"), (0.5, "not very sure"))
    return next((words for least, words in steps if confidence >= least), "unsure")


def feedback(answer_id: int) -> Block:
    """Slack's own thumbs."""
    up = FeedbackButtonObject(text="Good answer", accessibility_label="Good answer", value=f"up:{answer_id}")
    down = FeedbackButtonObject(
        text="Bad answer", accessibility_label="Bad answer", value=f"down:{answer_id}"
    )
    thumbs = FeedbackButtonsElement(action_id="feedback", positive_button=up, negative_button=down)
    return ContextActionsBlock(elements=[thumbs]).to_dict()


# --- modals ---


def modal(
    callback: str, title: str, submit: str, blocks: Sequence[Block | InputBlock], metadata: Any
) -> Block:
    """A modal view; `metadata` comes back with the submission."""
    view = View(
        type="modal",
        callback_id=callback,
        title=title,
        submit=submit,
        close="Cancel",
        blocks=list(blocks),
        private_metadata=json.dumps(metadata),
    )
    return view.to_dict()


def text_input(
    block_id: str,
    label: str,
    initial: str = "",
    *,
    lines: bool = False,
    optional: bool = False,
    hint: str = "",
) -> InputBlock:
    """A text field, prefilled as far as Slack's 3,000 characters go."""
    element = PlainTextInputElement(
        action_id="value",
        multiline=lines,
        max_length=INPUT_CHARS,
        initial_value=safety.visible(initial)[:INPUT_CHARS] or None,
    )
    return InputBlock(block_id=block_id, label=label, element=element, optional=optional, hint=hint or None)


def correction_modal(*, question: str, answer: str, metadata: dict[str, Any], ask_why: bool) -> Block:
    """The modal in which a better answer is written; after a thumbs-down it also asks what was wrong."""
    choices = [Option(value=value, label=label) for value, label in REASONS.items()]
    select = StaticSelectElement(action_id="value", options=choices, placeholder="Choose one")
    why = InputBlock(block_id="reason", label="What was wrong?", element=select)
    hint = "Leave it as it is if you only want to say what was wrong." if ask_why else ""
    label = "The better answer" if ask_why else "The answer"
    fields: list[Block | InputBlock] = [
        *([why] if ask_why else []),
        text_input("question", "The question", question, lines=True),
        text_input("answer", label, answer, lines=True, optional=ask_why, hint=hint),
        text_input("source", "Where does it stand? (a link or a name)", optional=True),
    ]
    return modal("correction", "Correct the answer" if ask_why else "Teach me", "Send", fields, metadata)


def edit_modal(row: Correction, metadata: dict[str, Any]) -> Block:
    """The modal in which an admin rewords a pending correction."""
    fields = [
        text_input("question", "The question", row.question, lines=True),
        text_input("answer", "The answer", row.answer, lines=True),
    ]
    return modal("review_edit", f"Edit correction {row.id}", "Save", fields, metadata)


def reject_modal(row: Correction, metadata: dict[str, Any]) -> Block:
    """The modal in which an admin says why a correction is refused."""
    fields: list[Block | InputBlock] = [
        section(f"*Question*\n{safety.clip(row.question, 600)}"),
        text_input("reason", "Why?", lines=True),
    ]
    return modal("review_reject", f"Reject correction {row.id}", "Reject", fields, metadata)


def notice_modal(text: str) -> Block:
    """A modal that only says something: for a click in a place where no message can be shown."""
    view = View(type="modal", title="Nightshift", close="OK", blocks=[section(safety.clip(text, 2900))])
    return view.to_dict()


# --- review cards ---


def review_card(
    row: Correction,
    conflicts: Sequence[Conflict] = (),
    *,
    given: str = "",
    proof: dict[str, Any] | None = None,
) -> Post:
    """A correction with all that a reviewer needs: buttons while it is pending, else who decided."""
    blocks = [
        header(f"Correction {row.id}: {row.status.value}"),
        section(f"*Question*\n{safety.clip(row.question, 1500)}"),
        *(section(p) for p in safety.split("*Better answer*\n" + safety.clip(row.answer, 5000))),
    ]
    if given.strip():
        blocks.append(section(f"*The bot said*\n{safety.clip(given, 900)}"))
    blocks += [versus(row, conflict) for conflict in conflicts[:2]]
    blocks.append(context(card_line(row)))
    if proof:
        blocks.append(context(proof_line(proof)))
    return Post(f"Correction {row.id}: {safety.inline(row.question)}", (*blocks, *decision(row, conflicts)))


def versus(row: Correction, conflict: Conflict) -> Block:
    """A correction beside the one it contradicts or repeats."""
    title = "Contradicts" if conflict.kind == "contradiction" else "Says the same as"
    ours = column("This correction", row.question, row.answer)
    theirs = column(f"Correction {conflict.correction_id}", conflict.question, conflict.answer)
    return section(f":warning: *{title} correction {conflict.correction_id}*", fields=(ours, theirs))


def column(title: str, question: str, answer: str) -> str:
    """One side of a comparison."""
    return f"*{title}*\n{safety.bold(question)}\n{safety.clip(answer, 700)}"


def card_line(row: Correction) -> str:
    """Who wrote a correction, on what ground, for whom, and what it replaces."""
    parts = [f"Written by {safety.person(row.author)}"]
    if row.source:
        parts.append(f"source: {safety.link(row.source, row.source)}")
    if row.scope != "workspace":
        parts.append(f"only for {safety.person(row.scope)}")
    if row.supersedes is not None:
        parts.append(f"approving it replaces correction {row.supersedes}")
    return " · ".join(parts)


def decision(row: Correction, conflicts: Sequence[Conflict]) -> list[Block]:
    """The buttons of a pending correction, or who decided and why."""
    if row.status == "pending":
        return [actions(*review_buttons(row, conflicts))]
    why = f": {safety.inline(row.reason)}" if row.reason else ""
    when = row.reviewed_at[:16].replace("T", " ")
    return [context(f"{row.status.value.capitalize()} by {safety.person(row.reviewer)}, {when} UTC{why}")]


def review_buttons(row: Correction, conflicts: Sequence[Conflict] = ()) -> list[ButtonElement]:
    """Approve, edit, reject; and one press for replacing the correction that this one contradicts."""
    value = card_value(row.id, conflicts)
    rivals = [c for c in conflicts if c.kind == "contradiction" and c.correction_id != row.supersedes]
    replace = (
        [button(f"Approve, withdraw {rivals[0].correction_id}", "approve_replacing", value)] if rivals else []
    )
    return [
        button("Approve", "approve", value, "primary"),
        *replace,
        button("Edit", "edit", value),
        button("Reject", "reject", value, "danger"),
    ]


def card_value(correction_id: int, conflicts: Sequence[Conflict]) -> str:
    """What a review button carries: the correction and the conflicts that its card shows."""
    return json.dumps([correction_id, [[c.correction_id, c.kind] for c in conflicts[:2]]])


def proof_line(proof: dict[str, Any]) -> str:
    """What was measured of a correction in the serving model."""
    held = "in the weights" if proof.get("memorised") else "not in the weights yet"
    told = {k: v for k, v in proof.items() if k != "memorised" and isinstance(v, str | int | float)}
    figures = "; ".join(
        f"{k.replace('_', ' ')} {round(v, 3) if isinstance(v, float) else v}" for k, v in told.items()
    )
    return f"Proof: {held}" + (f" ({safety.inline(figures, 600)})" if figures else "")
