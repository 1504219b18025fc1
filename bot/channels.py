"""How the bot behaves in a channel: what the settings allow, and the modal in which admins change them.

The settings themselves are `storage.channels`'. Who is an admin is asked at every step. It knows nothing of answers.
"""

import json
import re
from typing import TYPE_CHECKING, Any

from bot import blocks, delivery, home, safety, threads
from bot.blocks import Block
from bot.delivery import Parts, Place, guarded
from storage import channels
from storage.channels import ChannelSettings, settings_of
from storage.errors import UserError

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp

Body = dict[str, Any]

SWITCHES = {
    "mention_only": ("Only when mentioned", "Follow-ups in a thread need a new mention too."),
    "questions_only": ("Only questions", "Remarks are left alone."),
    "citations_required": ("Only with a source", "Answers come from documents, or not at all."),
    "private_answers": ("Only for the asker", "Others see an answer when the asker shares it."),
}
ONLY_QUESTIONS = "In this channel I answer questions only. Please put it as a question."
NOT_LISTED = "In this channel I answer only people whom an admin has listed. You can write to me directly."
QUESTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """who whom whose what when where why which how is are am was were can could do does did may might must
        shall should will would has have had tell explain show list name describe""",
    )
)
WORD = re.compile(r"[a-z']+")


# --- what the settings allow ---


async def allows(parts: Parts, place: Place, question: str, *, named: bool) -> bool:
    """Whether a question may be answered where it was asked; who `named` the bot hears why not, at `place`."""
    settings = await of(parts, place.channel)
    if settings.mention_only and not named:
        return False
    try:
        await parts.people.must_be_member(place.user)
        refuse_by(settings, place.user, question)
    except UserError as error:
        if named:
            await delivery.tell(parts, place, str(error))
        return False
    return True


def refuse_by(settings: ChannelSettings, user: str, question: str) -> None:
    """Raise UserError when a channel's settings keep the bot from answering this person this question."""
    if settings.allowed and user not in settings.allowed:
        raise UserError(NOT_LISTED)
    if settings.questions_only and not is_question(question):
        raise UserError(ONLY_QUESTIONS)


def is_question(text: str) -> bool:
    """Whether a text asks something: it has a question mark, or begins as English questions do."""
    first = WORD.match(text.strip().lower())
    return "?" in threads.ADDRESS.sub(" ", text) or (first is not None and first[0].split("'")[0] in QUESTION_WORDS)


async def of(parts: Parts, channel: str) -> ChannelSettings:
    """The settings of a channel; direct messages have the defaults."""
    if not channel or channel.startswith("D"):
        return ChannelSettings(channel)
    return await parts.stored(settings_of, channel)


async def discreet(parts: Parts, channel: str) -> bool:
    """Whether only its asker sees an answer: admins set it so, or another organisation reads the channel."""
    return (await of(parts, channel)).private_answers or await parts.stored(channels.is_shared, channel)


async def shareable(parts: Parts, channel: str) -> bool:
    """Whether an answer may be shared where it was asked: in a channel that no other organisation reads."""
    direct = not channel or channel.startswith("D")
    return not direct and not await parts.stored(channels.is_shared, channel)


async def route_for(parts: Parts, channel: str) -> str:
    """The route that questions of a channel take: documents alone where a source is required."""
    return "documents" if (await of(parts, channel)).citations_required else "auto"


# --- the modal ---


def register(app: "AsyncApp", parts: Parts) -> None:
    """Register the listeners of the settings modal."""
    from bot.listeners import clicked

    async def on_submit(ack: "AsyncAck", body: Body) -> None:
        await submit(parts, ack, body)

    app.action("channel_settings")(clicked(parts, open_settings))
    app.action("channel_chosen")(clicked(parts, choose))
    app.view("channel_settings")(on_submit)


async def open_settings(parts: Parts, body: Body) -> None:
    """Open the modal, for a channel that is still to be chosen."""
    from bot.listeners import open_modal

    await parts.people.must_be_admin(body["user"]["id"])
    known = await parts.stored(channels.configured)
    await open_modal(parts, body, chooser(known))


async def choose(parts: Parts, body: Body) -> None:
    """Show the settings of the channel that was chosen."""
    await parts.people.must_be_admin(body["user"]["id"])
    channel = str(body["actions"][0].get("selected_conversation") or "")
    if channel:
        await home.replace_modal(parts, body, form(await parts.stored(settings_of, channel)))


async def submit(parts: Parts, ack: "AsyncAck", body: Body) -> None:
    """Store the settings, or say in the open modal why not; what was chosen stays chosen."""
    user, view = str(body["user"]["id"]), body["view"]
    told = json.loads(view["private_metadata"] or "{}")
    try:
        await parts.people.must_be_admin(user)
        wanted = read(told, view["state"]["values"])
        stored = await parts.stored(channels.change, wanted, user)
    except UserError as error:
        again = f"{error} Nothing was stored; close this and open it again to see how it stands."
        await ack(response_action="errors", errors={f"switches:{told.get('channel')}": again})
        return
    await ack()
    parts.begin(guarded(parts, Place(user), changed(parts, stored, user)))


async def changed(parts: Parts, settings: ChannelSettings, user: str) -> None:
    """Tell the other admins, and show the change on this one's Home."""
    if channel := parts.settings.text("REVIEW_CHANNEL"):
        text = f"{safety.person(user)} set {safety.person(settings.channel)}: {in_words(settings)}."
        await delivery.send(parts, channel, blocks.Post(text, (blocks.section(text),)))
    await home.publish(parts, user)


def in_words(settings: ChannelSettings) -> str:
    """The settings of a channel in one line."""
    parts = [SWITCHES[name][0].lower() for name in SWITCHES if getattr(settings, name)]
    if settings.allowed:
        parts.append(f"{len(settings.allowed)} people may ask")
    if settings.person:
        parts.append(f"ask {safety.person(settings.person)}")
    return ", ".join(parts) or "answers everybody, as by default"


def chooser(known: tuple[ChannelSettings, ...]) -> Block:
    """The modal before a channel is chosen, with the channels that have settings."""
    lines = [f"{safety.person(s.channel)}: {in_words(s)}" for s in known[:20]]
    more = [f"and {len(known) - 20} more"] if len(known) > 20 else []
    shown = "\n".join([*lines, *more]) or "No channel has settings of its own yet."
    return view_of([select_line(""), blocks.context(shown)])


def form(settings: ChannelSettings) -> Block:
    """The modal with the settings of one channel.

    Block ids name the channel: Slack keeps what stands in an input as long as its id stays.
    """
    inputs = [switches(settings), allowed_people(settings), person_to_ask(settings)]
    shown: list[Block] = [select_line(settings.channel), *inputs]
    if settings.changed_by:
        when = settings.changed_at[:16].replace("T", " ")
        shown.append(blocks.context(f"Last changed by {safety.person(settings.changed_by)}, {when} UTC"))
    return view_of(shown, {"channel": settings.channel, "revision": settings.revision})


def view_of(shown: list[Block], metadata: Body | None = None) -> Block:
    """The modal around some blocks; without metadata it has nothing to submit."""
    view: Block = {"type": "modal", "callback_id": "channel_settings", "title": blocks.plain("Channel settings")}
    if metadata is not None:
        view |= {"submit": blocks.plain("Save"), "private_metadata": json.dumps(metadata)}
    return view | {"close": blocks.plain("Cancel"), "blocks": shown}


def select_line(channel: str) -> Block:
    """The line in which a channel is chosen."""
    element: Block = {
        "type": "conversations_select",
        "action_id": "channel_chosen",
        "placeholder": blocks.plain("Choose a channel"),
        "filter": {"include": ["public", "private"], "exclude_bot_users": True},
    }
    if channel:
        element["initial_conversation"] = channel
    return blocks.section("*Which channel?*") | {"accessory": element}


def switches(settings: ChannelSettings) -> Block:
    """The four switches."""
    options = {
        name: {"text": blocks.plain(label), "description": blocks.plain(about), "value": name}
        for name, (label, about) in SWITCHES.items()
    }
    element: Block = {"type": "checkboxes", "action_id": "value", "options": list(options.values())}
    if on := [option for name, option in options.items() if getattr(settings, name)]:
        element["initial_options"] = on
    return blocks.input_of(f"switches:{settings.channel}", "I answer", element)


def allowed_people(settings: ChannelSettings) -> Block:
    """The list of the people who may ask."""
    element: Block = {"type": "multi_users_select", "action_id": "value", "placeholder": blocks.plain("Everybody")}
    if settings.allowed:
        element["initial_users"] = list(settings.allowed)
    return blocks.input_of(f"allowed:{settings.channel}", "Only these people may ask", element)


def person_to_ask(settings: ChannelSettings) -> Block:
    """Whom to send people to when the bot does not know."""
    element: Block = {"type": "users_select", "action_id": "value", "placeholder": blocks.plain("Nobody in particular")}
    if settings.person:
        element["initial_user"] = settings.person
    return blocks.input_of(f"person:{settings.channel}", "When I do not know, ask", element)


def read(told: Body, values: Body) -> ChannelSettings:
    """The settings that a submitted modal holds. Raises UserError for a modal without a channel."""
    channel = str(told.get("channel") or "")
    if not channel:
        raise UserError("No channel was chosen.")
    chosen = (values.get(f"switches:{channel}") or {}).get("value") or {}
    on = {str(option.get("value")) for option in chosen.get("selected_options") or []}
    people = ((values.get(f"allowed:{channel}") or {}).get("value") or {}).get("selected_users") or []
    person = ((values.get(f"person:{channel}") or {}).get("value") or {}).get("selected_user") or ""
    return ChannelSettings(
        channel=channel,
        mention_only="mention_only" in on,
        questions_only="questions_only" in on,
        citations_required="citations_required" in on,
        private_answers="private_answers" in on,
        allowed=tuple(str(p) for p in people if safety.is_person(str(p))),
        person=str(person),
        revision=int(told.get("revision") or 0),
    )
