"""What a person does on the page: write, edit, click, submit, open Home, run the night.

Turns each deed into the state change and the payload that Slack would send to the app. Knows nothing of HTTP.
"""

import html
import re
import uuid
from collections.abc import Callable
from typing import Any

from bot.workspace import elements, events, views
from bot.workspace.chat import announce, announce_change, read_content, remove, rewrite
from bot.workspace.directory import new_group
from bot.workspace.nouns import BOT_USER, Channel, Message, Person, SlackError, View
from bot.workspace.socket import NotAcknowledgedError, SocketMode
from bot.workspace.state import State

JSON = dict[str, Any]

_TOKEN = re.compile(r"<(?:[@#]\w+|!\w+)>")
_URL = re.compile(r"https?://[^\s<>]+")
_TROUBLE = "We had some trouble connecting. Try again?"
MOST_CHARACTERS = 40_000


class People:
    """The deeds of the people in one workspace."""

    def __init__(self, state: State, socket: SocketMode, clock: Callable[[], float]) -> None:
        """Acts on this state and tells the app through this socket."""
        self._state = state
        self._socket = socket
        self._clock = clock

    # ---- writing -------------------------------------------------------------------------------------------

    async def message(self, body: JSON) -> JSON:
        """Posts as a person; a mention in a channel causes `message` and `app_mention`."""
        person, channel = self._where(body)
        text = encode(self._state, _text(body))
        thread = body.get("thread_ts")
        root = self._state.root_of(channel.id, thread) if thread else None
        posted = Message(
            channel.id,
            self._state.new_ts(),
            person.id,
            text,
            thread_ts=root,
            client_msg_id=str(uuid.uuid4()),
            team=person.team,
        )
        self._state.post(posted)
        announce(self._state, posted)
        if f"<@{BOT_USER}>" in text and channel.kind != "im" and BOT_USER in channel.members:
            parent = self._state.messages[channel.id][root] if root else None
            self._state.emit(events.mention(events.message(channel, posted, parent)))
        return {"ts": posted.ts, "channel": channel.id}

    async def group(self, body: JSON) -> JSON:
        """Opens a group message with these people and the bot."""
        person, others = self._human(body), body.get("users")
        if not isinstance(others, list) or not others:
            raise SlackError("not_enough_users")
        members = {person.id, BOT_USER, *(self._state.person(str(other)).id for other in others)}
        return {"channel": new_group(self._state, members).id}

    async def edit(self, body: JSON) -> JSON:
        """Changes one's own message."""
        message = self._own(body)
        before = message.to_api()
        message.text = encode(self._state, _text(body))
        message.edited = {"user": message.user, "ts": f"{self._clock():.6f}"}
        self._state.changed(message)
        announce_change(self._state, message, before)
        return {"ts": message.ts}

    async def delete(self, body: JSON) -> JSON:
        """Deletes one's own message, or dismisses an ephemeral one."""
        person, channel = self._where(body)
        message = self._state.message(channel.id, str(body.get("ts")))
        if message.only_for == person.id:
            del self._state.messages[channel.id][message.ts]
            self._state.changed()
        else:
            remove(self._state, self._own(body))
        return {"ts": message.ts}

    async def command(self, body: JSON) -> JSON:
        """Runs a slash command; an acknowledgement with text is posted, by default for the person alone."""
        person, channel = self._where(body)
        name = str(body.get("command") or "")
        name = name if name.startswith("/") else f"/{name}"
        payload = events.slash_command(
            person,
            channel,
            name,
            _text(body, empty=True),
            trigger=self._state.new_trigger(person.id),
            hook=self._state.new_hook(person.id, channel.id, None),
        )
        try:
            answer = await self._socket.ask("slash_commands", payload)
        except NotAcknowledgedError as error:
            failed = f"{name} failed with the error `{error.code}`"
            self._state.post(Message(channel.id, self._state.new_ts(), BOT_USER, failed, only_for=person.id))
            return {"ok": False, "error": error.code}
        if answer.get("text") or answer.get("blocks"):
            self.respond(person.id, channel.id, None, answer)
        return {}

    def respond(self, user: str, channel: str, ts: str | None, body: JSON) -> None:
        """Does what a post to a response_url asks: replace, delete, or add a message.

        As in Slack a new message goes to the channel, not to the thread of the click, unless the body
        has a `thread_ts`.
        """
        original = self._state.messages[channel].get(ts or "")
        if body.get("delete_original") and original is not None:
            remove(self._state, original)
            return
        content = read_content(body)
        if body.get("replace_original") and original is not None:
            self._replace(original, content)
            return
        thread = body.get("thread_ts")
        root = self._state.root_of(channel, thread) if thread else None
        private = None if body.get("response_type") == "in_channel" else user
        posted = Message(channel, self._state.new_ts(), BOT_USER, thread_ts=root, only_for=private, **content)
        self._state.post(posted)
        if private is None:
            announce(self._state, posted)

    def _replace(self, original: Message, content: JSON) -> None:
        before = original.to_api()
        rewrite(self._state, original, content)
        if original.only_for is None:
            announce_change(self._state, original, before)

    # ---- clicking ------------------------------------------------------------------------------------------

    async def click(self, body: JSON) -> JSON:
        """Presses or chooses something in a message, a modal or a Home tab."""
        payload = self._view_click(body) if body.get("view_id") else self._message_click(body)
        try:
            await self._socket.ask("interactive", payload)
        except NotAcknowledgedError as error:
            return {"ok": False, "error": error.code, "message": _TROUBLE}
        return {}

    def _message_click(self, body: JSON) -> JSON:
        person, channel = self._where(body)
        message = self._state.message(channel.id, str(body.get("ts")))
        if message.only_for not in (None, person.id):
            raise SlackError("message_not_found")
        action = self._action(message.blocks, body)
        if action["type"] == "feedback_buttons":
            message.pressed.setdefault(person.id, {})[action["action_id"]] = action["value"]
            self._state.changed(message)
        return events.message_action(
            person,
            channel,
            message,
            action,
            elements.state(message.blocks, _values(body)),
            trigger=self._state.new_trigger(person.id),
            hook=self._state.new_hook(person.id, channel.id, message.ts),
        )

    def _view_click(self, body: JSON) -> JSON:
        view = self._view(body)
        action = self._action(view.data["blocks"], body)
        shown = _with_state(view, _values(body))
        return events.view_action(self._state.people[view.user], shown, action, self._state.new_trigger(view.user))

    def _action(self, blocks: list[JSON], body: JSON) -> JSON:
        found = elements.find(blocks, str(body.get("action_id")), body.get("block_id"))
        if found is None:
            raise SlackError("action_not_found")
        return elements.action(*found, body.get("value"), self._clock())

    # ---- modals and Home -----------------------------------------------------------------------------------

    async def submit(self, body: JSON) -> JSON:
        """Submits a modal; `errors` maps block ids to the client's or the app's complaint."""
        view = self._view(body)
        shown = _with_state(view, _values(body))
        if errors := elements.refused(view.data["blocks"], shown["state"]["values"]):
            return {"ok": False, "errors": errors}
        person = self._state.people[view.user]
        payload = events.view_submission(person, shown, self._state.new_trigger(person.id))
        try:
            answer = await self._socket.ask("interactive", payload)
        except NotAcknowledgedError as error:
            return {"ok": False, "error": error.code, "message": _TROUBLE}
        return self._after_submit(view, answer)

    def _after_submit(self, view: View, answer: JSON) -> JSON:
        asked = answer.get("response_action")
        if asked == "errors":
            return {"ok": False, "errors": self._named_errors(view, answer.get("errors") or {})}
        if asked == "update":
            views.replace(self._state, view, answer.get("view") or {})
        elif asked == "push":
            views.push(self._state, view.user, answer.get("view") or {})
        elif asked == "clear":
            views.close_all(self._state, view.user)
        else:
            views.close(self._state, view)
        return {}

    def _named_errors(self, view: View, errors: JSON) -> JSON:
        inputs = {block["block_id"] for block in view.data["blocks"] if block["type"] == "input"}
        if not errors or set(errors) - inputs:
            raise SlackError(
                "invalid_errors",
                [f"view_submission errors name {sorted(errors)}, inputs are {sorted(inputs)}"],
            )
        return errors

    async def close_view(self, body: JSON) -> JSON:
        """Closes a modal; the app hears of it when it asked to."""
        view = self._view(body)
        clear = bool(view.data["clear_on_close"])
        closed = views.close_all(self._state, view.user) if clear else [view]
        views.close(self._state, view)
        for gone in closed:
            if gone.data["notify_on_close"]:
                payload = events.view_closed(self._state.people[view.user], gone.data, cleared=clear)
                await self._tell(payload)
        return {}

    async def _tell(self, payload: JSON) -> None:
        try:
            await self._socket.ask("interactive", payload)
        except NotAcknowledgedError:
            return

    async def open_home(self, body: JSON) -> JSON:
        """Opens the Home tab, or the Messages tab with `tab: messages`."""
        person = self._human(body)
        tab = "messages" if body.get("tab") == "messages" else "home"
        channel = self._state.channel(person.id)
        view = self._state.views.get(self._state.homes.get(person.id, ""))
        self._state.emit(events.home_opened(person.id, channel.id, tab, view, self._state.new_ts()))
        return {}

    # ---- who and where -------------------------------------------------------------------------------------

    def _human(self, body: JSON) -> Person:
        person = self._state.person(str(body.get("user")))
        if person.is_bot:
            raise SlackError("user_not_found")
        return person

    def _where(self, body: JSON) -> tuple[Person, Channel]:
        person = self._human(body)
        return person, self._state.joined(str(body.get("channel")), person.id)

    def _own(self, body: JSON) -> Message:
        person, channel = self._where(body)
        message = self._state.message(channel.id, str(body.get("ts")))
        if message.user != person.id:
            raise SlackError("cant_update_message")
        return message

    def _view(self, body: JSON) -> View:
        person = self._human(body)
        view = self._state.views.get(str(body.get("view_id")))
        if view is None or view.user != person.id:
            raise SlackError("not_found")
        return view


def encode(state: State, typed: str) -> str:
    """What a person typed as Slack stores it: escaped; @names, #channels, addresses in angle brackets."""
    parts, end = [], 0
    for token in _TOKEN.finditer(typed):
        parts += [_encode_plain(state, typed[end : token.start()]), token.group()]
        end = token.end()
    return "".join([*parts, _encode_plain(state, typed[end:])])


def _encode_plain(state: State, typed: str) -> str:
    text = html.escape(typed, quote=False)
    for person in state.people.values():
        text = re.sub(rf"(?<![\w@])@{re.escape(person.real_name)}\b", f"<@{person.id}>", text, flags=re.IGNORECASE)
    for channel in state.channels.values():
        if channel.kind in ("channel", "group"):
            text = re.sub(rf"(?<![\w#&])#{re.escape(channel.name)}(?![\w-])", f"<#{channel.id}|{channel.name}>", text)
    return _URL.sub(lambda found: f"<{found.group()}>", text)


def _text(body: JSON, *, empty: bool = False) -> str:
    text = str(body.get("text") or "").strip()
    if not text and not empty:
        raise SlackError("no_text")
    if len(text) > MOST_CHARACTERS:
        raise SlackError("msg_too_long")
    return text


def _values(body: JSON) -> JSON:
    values = body.get("values") or {}
    if not isinstance(values, dict) or not all(isinstance(held, dict) for held in values.values()):
        raise SlackError("invalid_arguments")
    return values


def _with_state(view: View, values: JSON) -> JSON:
    return {**view.data, "state": {"values": elements.state(view.data["blocks"], values)}}
