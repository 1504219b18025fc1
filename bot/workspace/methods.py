"""The Web API by name, and its smaller methods: the agent's status and prompts, and files.

Knows nothing of HTTP, tokens or argument types, which the server has checked before a method runs.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bot.workspace import chat, directory, rules, views
from bot.workspace.nouns import BOT_USER, STATUS_SECONDS, Message, SlackError, Status, Upload
from bot.workspace.state import State

JSON = dict[str, Any]

IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}


def call(state: State, name: str, args: JSON) -> JSON:
    """The answer of a method, `ok` included; raises SlackError with Slack's code."""
    return {"ok": True, **METHODS[name](state, args)}


def set_status(state: State, args: JSON) -> JSON:
    """Shows or clears "is thinking..." under a thread, for two minutes at most."""
    channel = state.joined(args["channel_id"], BOT_USER)
    if args["thread_ts"] not in state.messages[channel.id]:
        raise SlackError("invalid_thread_ts")
    key = (channel.id, args["thread_ts"])
    if args["status"]:
        loading = tuple(args.get("loading_messages") or ())
        if len(loading) > 10 or any(not isinstance(line, str) or not 0 < len(line) <= 50 for line in loading):
            raise SlackError("invalid_arguments", ["loading_messages: at most 10 lines of 1 to 50 characters"])
        state.statuses[key] = Status(args["status"], loading, state.clock() + STATUS_SECONDS)
    else:
        state.statuses.pop(key, None)
    state.changed()
    return {}


def set_prompts(state: State, args: JSON) -> JSON:
    """Offers up to four questions above the composer of a direct message."""
    channel = state.joined(args["channel_id"], BOT_USER)
    prompts = args["prompts"]
    good = all(isinstance(p, dict) and p.get("title") and p.get("message") for p in prompts)
    if not good or len(prompts) > rules.limit("message", "prompts"):
        raise SlackError("invalid_arguments", ["prompts: one to four, each with title and message"])
    state.prompts[channel.id] = {"title": args.get("title") or "", "prompts": prompts}
    state.changed()
    return {}


def set_title(state: State, args: JSON) -> JSON:
    """Names a thread in the list of a person's conversations with the app."""
    channel = state.joined(args["channel_id"], BOT_USER)
    if args["thread_ts"] not in state.messages[channel.id]:
        raise SlackError("invalid_thread_ts")
    state.titles[(channel.id, args["thread_ts"])] = args["title"]
    state.changed()
    return {}


def upload_url(state: State, args: JSON) -> JSON:
    """An address that takes the bytes of one file."""
    upload = Upload("F" + secrets.token_hex(5).upper(), args["filename"], int(args["length"]))
    state.uploads[upload.id] = upload
    return {"upload_url": f"{state.origin}/upload/{upload.id}", "file_id": upload.id}


def complete_upload(state: State, args: JSON) -> JSON:
    """Shares uploaded files, in a channel when one is given."""
    files = [_uploaded(state, item) for item in args["files"]]
    if args.get("channel_id"):
        channel, thread = chat.place(state, {**args, "channel": args["channel_id"]})
        chat.check_blocks(args.get("blocks") or [])
        text, blocks = args.get("initial_comment") or "", args.get("blocks") or []
        posted = Message(channel.id, state.new_ts(), BOT_USER, text, blocks, thread_ts=thread, files=files)
        chat.announce(state, state.post(posted))
    return {"files": files}


def _uploaded(state: State, item: JSON) -> JSON:
    upload = state.uploads.get(str(item.get("id"))) if isinstance(item, dict) else None
    if upload is None or upload.content is None:
        raise SlackError("file_not_found")
    upload.title = item.get("title") or upload.name
    link = f"{state.origin}/files/{upload.id}/{upload.name}"
    size = {"size": len(upload.content), "mode": "hosted", "user": BOT_USER}
    kind = {"mimetype": mimetype(upload.name), "filetype": Path(upload.name).suffix.lower().lstrip(".")}
    links = {"url_private": link, "url_private_download": link, "permalink": link}
    return {"id": upload.id, "name": upload.name, "title": upload.title, **kind, **links, **size}


def mimetype(name: str) -> str:
    """The type under which a file is served: pictures as such, everything else as a download."""
    return IMAGES.get(Path(name).suffix.lower(), "application/octet-stream")


METHODS: dict[str, Callable[[State, JSON], JSON]] = {
    "chat.postMessage": chat.post_message,
    "chat.postEphemeral": chat.post_ephemeral,
    "chat.update": chat.update,
    "chat.delete": chat.delete,
    "chat.getPermalink": chat.permalink,
    "chat.startStream": chat.start_stream,
    "chat.appendStream": chat.append_stream,
    "chat.stopStream": chat.stop_stream,
    "auth.test": directory.auth_test,
    "team.info": directory.team_info,
    "conversations.open": directory.conversations_open,
    "conversations.info": directory.conversations_info,
    "conversations.members": directory.conversations_members,
    "conversations.replies": directory.conversations_replies,
    "users.conversations": directory.users_conversations,
    "users.info": directory.users_info,
    "users.lookupByEmail": directory.users_lookup,
    "usergroups.list": directory.usergroups_list,
    "usergroups.users.list": directory.usergroups_users,
    "reactions.add": chat.reactions_add,
    "reactions.remove": chat.reactions_remove,
    "assistant.threads.setStatus": set_status,
    "assistant.threads.setSuggestedPrompts": set_prompts,
    "assistant.threads.setTitle": set_title,
    "files.getUploadURLExternal": upload_url,
    "files.completeUploadExternal": complete_upload,
    "views.open": views.views_open,
    "views.push": views.views_push,
    "views.update": views.views_update,
    "views.publish": views.views_publish,
}
