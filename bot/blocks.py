"""Messages, review cards and modals as Block Kit, by pure functions. Answers are in `answer_views`.

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
    OverflowMenuElement,
    PlainTextInputElement,
    PlainTextObject,
    SectionBlock,
    StaticSelectElement,
)
from slack_sdk.models.views import View

from bot import forms, safety
from bot.teaching import Conflict
from storage.corrections import in_words
from storage.domain import Correction
from storage.evidence import proof_in_words, stamp

Block = dict[str, Any]
Pressable = ButtonElement | OverflowMenuElement

INPUT_CHARS = 3000
PIECES_A_MESSAGE = 3
"""Sections of answer text in one message; with the lines around them it stays under 13,200 characters."""

REASONS = {
    "wrong": "It is wrong",
    "outdated": "It is outdated",
    "incomplete": "It is incomplete",
    "not_for_me": "It answers another question",
}


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
    asked = PlainTextObject(text=safety.plain(confirm, 300))
    dialog = ConfirmObject(title="Are you sure?", text=asked, confirm="Yes", deny="No") if confirm else None
    return ButtonElement(text=label, action_id=action, value=value, style=style, confirm=dialog)


def menu(action: str, options: Sequence[tuple[str, str]]) -> OverflowMenuElement:
    """A menu behind three dots: values with their labels."""
    return OverflowMenuElement(action_id=action, options=[Option(value=value, text=text) for value, text in options])


def feedback(answer_id: int) -> Block:
    """Slack's own thumbs."""
    up = FeedbackButtonObject(text="Good answer", accessibility_label="Good answer", value=f"up:{answer_id}")
    down = FeedbackButtonObject(text="Bad answer", accessibility_label="Bad answer", value=f"down:{answer_id}")
    thumbs = FeedbackButtonsElement(action_id="feedback", positive_button=up, negative_button=down)
    return ContextActionsBlock(elements=[thumbs]).to_dict()


def actions(*buttons: Pressable) -> Block:
    """A row of buttons."""
    return ActionsBlock(elements=list(buttons)).to_dict()


def plain(text: str) -> Block:
    """Text of ours that Slack does not format."""
    return {"type": "plain_text", "text": text}


def input_of(block_id: str, label: str, element: Block, *, optional: bool = True) -> Block:
    """An input around an element."""
    return {"type": "input", "block_id": block_id, "label": plain(label), "element": element, "optional": optional}


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


# --- modals ---


def modal(callback: str, title: str, submit: str, blocks: Sequence[Block | InputBlock], metadata: Any) -> Block:
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


def split_input(
    block_id: str, label: str, text: str, *, optional: bool = False, hint: str = ""
) -> tuple[list[InputBlock], list[str]]:
    """A text of any length in as many fields as it needs, and what stood where it was cut.

    The first field has the id itself, the next ones `id_2`, `id_3`; `forms.joined` puts them together again.
    """
    pieces, gaps = forms.cut(safety.visible(text).strip(), INPUT_CHARS)
    title = f"{label} (1 of {len(pieces)})" if gaps else label
    first = text_input(block_id, title, pieces[0], lines=True, optional=optional, hint=hint)
    more = [
        text_input(f"{block_id}_{n}", f"{label} ({n} of {len(pieces)})", piece, lines=True, optional=True)
        for n, piece in enumerate(pieces[1:], 2)
    ]
    return [first, *more], gaps


def correction_modal(*, question: str, answer: str, metadata: dict[str, Any], ask_why: bool) -> Block:
    """The modal in which a better answer is written; after a thumbs-down it also asks what was wrong."""
    choices = [Option(value=value, label=label) for value, label in REASONS.items()]
    select = StaticSelectElement(action_id="value", options=choices, placeholder="Choose one")
    why = InputBlock(block_id="reason", label="What was wrong?", element=select)
    hint = "Leave it as it is if you only want to say what was wrong." if ask_why else ""
    label = "The better answer" if ask_why else "The answer"
    questions, question_gaps = split_input("question", "The question", question)
    answers, answer_gaps = split_input("answer", label, answer, optional=ask_why, hint=hint)
    fields: list[Block | InputBlock] = [
        *([why] if ask_why else []),
        *questions,
        *answers,
        text_input("source", "Where does it stand? (a link or a name)", optional=True),
    ]
    gaps = {"question": question_gaps, "answer": answer_gaps}
    title = "Correct the answer" if ask_why else "Teach me"
    return modal("correction", title, "Send", fields, metadata | {"gaps": {k: v for k, v in gaps.items() if v}})


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
    held_with: Sequence[int] = (),
) -> Post:
    """A correction with all that a reviewer needs: buttons while it is pending, else who decided."""
    blocks = [
        header(f"Correction {row.id}: {row.status.value}"),
        section(f"*Question*\n{safety.clip(row.question, 1500)}", closer_look(row)),
        *(section(p) for p in safety.split("*Better answer*\n" + safety.clip(row.answer, 5000))),
    ]
    if given.strip():
        blocks.append(section(f"*The bot said*\n{safety.clip(given, 900)}"))
    blocks += [versus(row, conflict) for conflict in conflicts[:2]]
    if held_with:
        blocks.append(section(f":no_entry: *Held*: nearly the same as {in_words(held_with)}. Look closer first."))
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
    """Approve, edit, reject; and one press for replacing what this one contradicts, if it is for the same people."""
    value = card_value(row)
    rivals = [c for c in conflicts if c.kind == "contradiction" and c.correction_id != row.supersedes]
    replaced = rivals[:1] if all(c.scope == row.scope for c in rivals) else []
    replace = [button(f"Approve, withdraw {c.correction_id}", "approve_replacing", value) for c in replaced]
    return [
        button("Approve", "approve", value, "primary"),
        *replace,
        button("Edit", "edit", value),
        button("Reject", "reject", value, "danger"),
    ]


def card_value(row: Correction) -> str:
    """What a review button carries: the correction, and how it stood; in the middle older cards had its conflicts."""
    return json.dumps([row.id, [], stamp(row)])


def closer_look(row: Correction) -> ButtonElement:
    """The button that opens everything a reviewer weighs, and the decision."""
    return button("Look closer", "look", card_value(row))


def proof_line(proof: dict[str, Any]) -> str:
    """What was measured of a correction in the serving model."""
    return f"Proof: {safety.inline(proof_in_words(proof), 600)}"
