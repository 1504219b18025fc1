"""How an answer reaches a place: in one post, as a stream when it is long, or in the place of an older one.

Whatever happens to a stream, the whole answer stands at the end: in its message, or in posts. It knows nothing of
events and of how an answer is found.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from bot import answer_views, experts, streaming
from bot.blocks import Post
from bot.delivery import UNREACHABLE, Parts, Place, say, send
from bot.growing import Growing
from bot.streaming import Stream, StreamError
from storage import conversations
from storage.domain import Answer

log = logging.getLogger(__name__)

STREAM_FROM = 600
"""Characters from which an answer is streamed; a shorter one is read sooner when it comes at once."""
STREAM_TO = 9000


@dataclass(frozen=True)
class Target:
    """Where an answer goes: a thread, and for whom it is (a stream in a channel names its reader)."""

    channel: str
    thread: str
    user: str = ""


async def send_answer(
    parts: Parts, answer: Answer, target: Target, *, understood: str = "", growing: Growing | None = None
) -> None:
    """Post an answer into a thread, in the message that its asker watched if there is one."""
    posts = await posts_of(parts, answer, understood=understood)
    begun = None if growing is None else await growing.ended()
    if growing is not None and begun is not None:
        sent = await grown(parts, answer, posts, target, begun, growing.written)
    else:
        sent = await streamed(parts, answer, posts, target) if worth_streaming(answer, target) else []
    await remember(parts, answer, target.channel, sent)
    for post in posts if not sent else ():
        where, ts = await send(parts, target.channel, post, target.thread)
        await remember(parts, answer, where, [ts])


async def whisper_answer(parts: Parts, answer: Answer, place: Place, *, share: bool, understood: str = "") -> None:
    """Show an answer to one person, with a button that shares it."""
    await say(parts, place, await posts_of(parts, answer, private=share, understood=understood))


async def replace_answer(
    parts: Parts, answer: Answer, target: Target, old: Sequence[str], *, understood: str = ""
) -> None:
    """Put an answer in the place of an older one, whose posts are given."""
    posts = await posts_of(parts, answer, understood=understood)
    for post, ts in zip(posts, old, strict=False):
        await remember(parts, answer, target.channel, [await updated(parts, target, ts, post)])
    for post in posts[len(old) :]:
        where, ts = await send(parts, target.channel, post, target.thread)
        await remember(parts, answer, where, [ts])
    for ts in old[len(posts) :]:
        with contextlib.suppress(*UNREACHABLE):
            await parts.client.chat_delete(channel=target.channel, ts=ts)


async def posts_of(parts: Parts, answer: Answer, *, private: bool = False, understood: str = "") -> tuple[Post, ...]:
    """An answer as messages, with a way to ask a person where somebody is named for it."""
    question = await parts.stored(conversations.get_question, answer.question_id)
    person = await experts.expert_for(parts, question)
    return answer_views.answer_posts(answer, ask_a_person=person, private=private, understood=understood)


async def remember(parts: Parts, answer: Answer, channel: str, posts: Sequence[str]) -> None:
    """Note which messages carry an answer."""
    for ts in posts:
        await parts.stored(conversations.remember_post, channel, ts, answer_id=answer.id)


async def updated(parts: Parts, target: Target, ts: str, post: Post) -> str:
    """Change a message; where Slack does not let us, post it anew. Returns the time stamp of what stands."""
    try:
        await parts.client.chat_update(
            channel=target.channel,
            ts=ts,
            text=post.text,
            blocks=list(post.blocks),
            parse="none",
            link_names=False,
        )
    except UNREACHABLE as error:
        log.warning("message %s could not be changed (%s); it is posted anew", ts, error)
        _, ts = await send(parts, target.channel, post, target.thread)
    return ts


# --- streams ---


def worth_streaming(answer: Answer, target: Target) -> bool:
    """Whether an answer is long enough to be watched while it grows, and short enough for one message."""
    return bool(target.thread and target.user) and STREAM_FROM < len(answer.text) <= STREAM_TO


async def streamed(parts: Parts, answer: Answer, posts: Sequence[Post], target: Target) -> list[str]:
    """Let a message grow to the whole answer; the time stamps of what stands, none when no stream could begin."""
    stream = Stream(parts.client, parts.streams, target.channel, target.thread, target.user, parts.team)
    try:
        if not await stream.begin():
            return []
    except UNREACHABLE as error:
        log.info("no stream began: %s", error)
        return []
    try:
        async for piece in streaming.pieces(answer_views.streamed_text(answer)):
            await stream.write(piece)
        await stream.finish(answer_views.streamed_foot(posts))
    except (*UNREACHABLE, StreamError) as error:
        log.info("a stream ended early (%s); its message is completed", error)
        return await completed(parts, stream, posts, target)
    return [stream.ts]


async def grown(
    parts: Parts, answer: Answer, posts: Sequence[Post], target: Target, stream: Stream, written: str
) -> list[str]:
    """End a message that was watched while it grew; it is replaced where the answer became another one."""
    whole = answer_views.streamed_text(answer)
    try:
        if not whole.startswith(written):
            raise StreamError("the answer is not what was being written")
        await stream.write(whole[len(written) :])
        await stream.finish(answer_views.streamed_foot(posts))
    except (*UNREACHABLE, StreamError) as error:
        log.info("what was watched is replaced: %s", error)
        return await completed(parts, stream, posts, target)
    return [stream.ts]


async def completed(parts: Parts, stream: Stream, posts: Sequence[Post], target: Target) -> list[str]:
    """Put the whole answer in the place of a stream that ended early."""
    with contextlib.suppress(*UNREACHABLE):
        await stream.stop()
    first = await updated(parts, target, stream.ts, posts[0])
    rest = [await send(parts, target.channel, post, target.thread) for post in posts[1:]]
    return [first, *(ts for _, ts in rest)]
