"""Messages and streams as the app writes them: post, update, delete, stream, react.

Knows nothing of HTTP, tokens or argument types, which the server has checked before a method runs.
"""

from typing import Any

from bot.workspace import events, rules
from bot.workspace.nouns import BOT_ID, BOT_USER, STREAM_SECONDS, Channel, Message, SlackError, with_block_ids
from bot.workspace.state import State

JSON = dict[str, Any]


def read_content(args: JSON) -> JSON:
    """Text, blocks and markdown of a message to be, or Slack's refusal of them."""
    text, markdown, blocks = args.get("text") or "", args.get("markdown_text") or "", args.get("blocks") or []
    if markdown and (text or blocks):
        raise SlackError("markdown_text_conflict", ["markdown_text beside text or blocks"])
    if not (text or markdown or blocks or args.get("attachments")):
        raise SlackError("no_text", ["a message without text or blocks"])
    if len(markdown) > rules.limit("message", "markdown_text"):
        raise SlackError("msg_too_long", [f"markdown_text: {len(markdown)} characters"])
    if len(text) > rules.limit("message", "text"):
        raise SlackError("msg_too_long", [f"text: {len(text)} characters"])
    check_blocks(blocks)
    return {"text": text, "markdown": markdown, "blocks": blocks}


def check_blocks(blocks: list[JSON]) -> None:
    """Refuses blocks that Slack would refuse in a message."""
    if problems := rules.block_problems(blocks, "message"):
        raise SlackError("invalid_blocks", problems)
    length = rules.text_length(blocks)
    if length > rules.limit("message", "blocks_text"):
        raise SlackError("msg_blocks_too_long", [f"{length} characters in blocks"])


def announce(state: State, message: Message) -> None:
    """Sends the `message` event that every lasting message causes."""
    parent = message.thread_ts and message.thread_ts != message.ts
    root = state.messages[message.channel].get(message.thread_ts or "") if parent else None
    state.emit(events.message(state.channels[message.channel], message, root))


def announce_change(state: State, message: Message, before: JSON) -> None:
    """Sends the `message_changed` event."""
    channel = state.channels[message.channel]
    state.emit(events.message_changed(channel, message.to_api(), before, state.new_ts()))


def place(state: State, args: JSON) -> tuple[Channel, str | None]:
    """The channel and the thread that a new message goes to."""
    channel = state.joined(args["channel"], BOT_USER)
    thread = args.get("thread_ts")
    return channel, state.root_of(channel.id, thread) if thread else None


def post_message(state: State, args: JSON) -> JSON:
    """Posts as the bot."""
    channel, thread = place(state, args)
    content = read_content(args)
    posted = Message(channel.id, state.new_ts(), BOT_USER, thread_ts=thread, metadata=args.get("metadata"), **content)
    state.post(posted)
    announce(state, posted)
    return {"channel": channel.id, "ts": posted.ts, "message": posted.to_api()}


def post_ephemeral(state: State, args: JSON) -> JSON:
    """Posts for one person's eyes; Slack takes one for a thread that nobody answered yet, and shows it to nobody."""
    channel, thread = place(state, args)
    if args["user"] not in channel.members:
        raise SlackError("user_not_in_channel")
    content = read_content(args)
    posted = Message(channel.id, state.new_ts(), BOT_USER, thread_ts=thread, only_for=args["user"], **content)
    if thread is None or state.replies(channel.id, thread):
        state.post(posted)
    return {"message_ts": posted.ts}


def own_message(state: State, channel: str, ts: str, code: str) -> Message:
    """The bot's own lasting message; `code` is the refusal for somebody else's."""
    message = state.message(state.channel(channel).id, ts)
    if message.only_for is not None:
        raise SlackError("message_not_found")
    if message.user != BOT_USER:
        raise SlackError(code)
    return message


def update(state: State, args: JSON) -> JSON:
    """Changes the bot's own message; what is not given stays, except that new text takes old blocks away."""
    message = own_message(state, args["channel"], args["ts"], "cant_update_message")
    if message.streaming and _stream_alive(state, message):
        raise SlackError("streaming_state_conflict")
    message.streaming = False
    if len(args.get("text") or "") > rules.limit("message", "update_text"):
        raise SlackError("msg_too_long", [f"text of an update: {len(args['text'])} characters"])
    content = read_content(args)
    before = message.to_api()
    rewrite(state, message, content)
    announce_change(state, message, before)
    shown = message.to_api()
    return {"channel": message.channel, "ts": message.ts, "text": shown["text"], "message": shown}


def rewrite(state: State, message: Message, content: JSON) -> None:
    """Replaces what a message says and keeps its place."""
    message.text, message.markdown = content["text"], content["markdown"]
    message.blocks = with_block_ids(content["blocks"])
    message.edited = {"user": BOT_ID, "ts": f"{state.clock():.6f}"}
    state.changed(message)


def delete(state: State, args: JSON) -> JSON:
    """Deletes the bot's own message."""
    message = own_message(state, args["channel"], args["ts"], "cant_delete_message")
    remove(state, message)
    return {"channel": message.channel, "ts": message.ts}


def remove(state: State, message: Message) -> None:
    """Takes a message away; one that has replies leaves a tombstone, as in Slack."""
    channel, before = state.channels[message.channel], message.to_api()
    if state.replies(message.channel, message.ts):
        message.tombstone, message.blocks, message.markdown = True, [], ""
        message.text = "This message was deleted."
        announce_change(state, message, before)
    else:
        del state.messages[message.channel][message.ts]
        if message.only_for is None:
            state.emit(events.message_deleted(channel, before, state.new_ts()))
    state.changed(message)


def permalink(state: State, args: JSON) -> JSON:
    """An address of this page that opens the message."""
    channel = state.joined(args["channel"], BOT_USER)
    message = state.message(channel.id, args["message_ts"])
    link = f"{state.origin}/archives/{channel.id}/p{message.ts.replace('.', '')}"
    if message.thread_ts and message.thread_ts != message.ts:
        link += f"?thread_ts={message.thread_ts}&cid={channel.id}"
    return {"channel": channel.id, "permalink": link}


# ---- streams -----------------------------------------------------------------------------------------------


def start_stream(state: State, args: JSON) -> JSON:
    """Begins a message that grows."""
    channel, thread = place(state, args)
    if channel.kind != "im":
        for key in ("recipient_user_id", "recipient_team_id"):
            if not args.get(key):
                raise SlackError(f"missing_{key}", [f"chat.startStream in a channel needs {key}"])
    text = _streamed(args)
    posted = Message(channel.id, state.new_ts(), BOT_USER, markdown=text, thread_ts=thread, streaming=True)
    state.stream_started[posted.ts] = state.clock()
    state.post(posted)
    return {"channel": channel.id, "ts": posted.ts}


def append_stream(state: State, args: JSON) -> JSON:
    """Adds text to a growing message."""
    message = _open_stream(state, args)
    message.markdown += _streamed(args)
    state.changed(message)
    return {"channel": message.channel, "ts": message.ts}


def stop_stream(state: State, args: JSON) -> JSON:
    """Ends a growing message, optionally with blocks under its text."""
    message = _open_stream(state, args)
    check_blocks(args.get("blocks") or [])
    message.markdown += _streamed(args)
    message.blocks = with_block_ids(args.get("blocks") or [])
    message.streaming = False
    message.metadata = args.get("metadata") or message.metadata
    state.changed(message)
    announce(state, message)
    return {"channel": message.channel, "ts": message.ts, "message": message.to_api()}


def _open_stream(state: State, args: JSON) -> Message:
    message = own_message(state, args["channel"], args["ts"], "message_not_owned_by_app")
    if not message.streaming or not _stream_alive(state, message):
        message.streaming = False
        raise SlackError("message_not_in_streaming_state")
    return message


def _stream_alive(state: State, message: Message) -> bool:
    return state.clock() - state.stream_started.get(message.ts, 0.0) < STREAM_SECONDS


def _streamed(args: JSON) -> str:
    text = args.get("markdown_text") or ""
    if len(text) > rules.limit("message", "markdown_text"):
        raise SlackError("msg_too_long", [f"markdown_text: {len(text)} characters"])
    chunks = args.get("chunks") or []
    if not all(isinstance(chunk, dict) and isinstance(chunk.get("type"), str) for chunk in chunks):
        raise SlackError("invalid_chunks", ["every chunk is an object with a type"])
    return text + "".join(str(chunk.get("text", "")) for chunk in chunks if chunk["type"] == "markdown_text")


# ---- reactions ---------------------------------------------------------------------------------------------


def reactions_add(state: State, args: JSON) -> JSON:
    """Adds the bot's reaction."""
    message = state.message(state.joined(args["channel"], BOT_USER).id, args["timestamp"])
    users = message.reactions.setdefault(args["name"].strip(":"), [])
    if BOT_USER in users:
        raise SlackError("already_reacted")
    users.append(BOT_USER)
    state.changed(message)
    return {}


def reactions_remove(state: State, args: JSON) -> JSON:
    """Takes the bot's reaction away."""
    message = state.message(state.joined(args["channel"], BOT_USER).id, args["timestamp"])
    users = message.reactions.get(args["name"].strip(":"), [])
    if BOT_USER not in users:
        raise SlackError("no_reaction")
    users.remove(BOT_USER)
    message.reactions = {name: who for name, who in message.reactions.items() if who}
    state.changed(message)
    return {}
