// One message as a list item: avatar, name, time, content, files, reactions, thread link and tools.
import { el, icon, openMenu } from "/page/dom.js";
import { ownFile, renderBlocks } from "/page/blocks.js";
import { emoji, markdown, mrkdwn } from "/page/mrkdwn.js";

const GROUP_SECONDS = 300;
const HUES = { U0SAM: "teal", U0PRIYA: "rose" };

export const clock = (ts) => new Date(Number(ts) * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export function day(ts) {
  const date = new Date(Number(ts) * 1000);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return "Today";
  return days === 1 ? "Yesterday" : date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}

/** A person's picture: initials, or the moon for the bot. */
export function avatar(person, size = "") {
  if (person?.is_bot) return el("span", { class: `avatar bot ${size}` }, el("img", { src: "/page/moon.svg", alt: "" }));
  const initials = (person?.name ?? "?").split(" ").map((part) => part[0]).join("").slice(0, 2);
  return el("span", { class: `avatar ${HUES[person?.id] ?? "teal"} ${size}`, "aria-hidden": "true" }, initials);
}

/** Adds to each message what its place in the list decides: whether it opens a group or a day. */
export function arrange(messages) {
  let before = null;
  return messages.map((message) => {
    const newDay = !before || day(before.ts) !== day(message.ts);
    const follows = !newDay && before.user === message.user && !before.ephemeral && !message.ephemeral && !before.replies?.length
      && Number(message.ts) - Number(before.ts) < GROUP_SECONDS;
    before = message;
    return { ...message, newDay, follows };
  });
}

/** What decides whether a message must be drawn again. */
export const signature = (m) => [m.revision, m.newDay, m.follows, m.replies?.length, m.replies?.at(-1)?.ts, m.status?.text, m.editing].join("|");

/** The list item of one message; `room` holds people, names and what can be done. */
export function drawMessage(message, room) {
  const person = room.person(message.user);
  const classes = ["message", message.follows ? "follows" : "", message.ephemeral ? "ephemeral" : "", message.streaming ? "streaming" : "", message.editing ? "editing" : ""];
  return el("li", { class: classes.join(" "), "data-ts": message.ts, "data-user": message.user },
    message.newDay ? el("div", { class: "day", role: "separator" }, el("span", {}, day(message.ts))) : null,
    el("article", { class: "message-row", "aria-label": `${person?.name}, ${clock(message.ts)}` },
      el("div", { class: "gutter" }, message.follows ? el("time", {}, clock(message.ts)) : avatar(person)),
      el("div", { class: "message-body" },
        message.ephemeral ? el("p", { class: "only-you" }, icon("eye"), "Only visible to you") : null,
        message.follows ? null : el("p", { class: "byline" }, el("strong", {}, person?.name ?? message.user),
          person?.is_bot ? el("span", { class: "badge" }, "App") : null, el("time", {}, clock(message.ts))),
        message.editing ? editor(message, room) : content(message, room),
        files(message),
        message.reactions.length ? el("p", { class: "reactions" }, message.reactions.map((one) => el("span", {}, emoji(one.name), ` ${one.users.length}`))) : null,
        summary(message, room),
        message.status ? statusLine(message.status, room) : null),
      message.editing ? null : tools(message, room)));
}

function content(message, room) {
  if (message.tombstone) return el("p", { class: "muted" }, "This message was deleted.");
  const nodes = [];
  if (message.markdown) nodes.push(el("div", { class: "rich" }, markdown(message.markdown, room.names)));
  if (message.blocks.length) nodes.push(...renderBlocks(message.blocks, room.context(message)));
  else if (message.text) nodes.push(el("div", { class: "rich" }, mrkdwn(message.text, room.names)));
  if (message.edited) nodes.push(el("small", { class: "muted" }, "edited"));
  return el("div", { class: "content" }, nodes);
}

function files(message) {
  return message.files.map((file) => {
    const source = ownFile(file.url_private);
    if (/\.(png|jpe?g|gif)$/i.test(file.name)) {
      return el("figure", { class: "upload" }, el("figcaption", {}, file.title), el("a", { href: source, target: "_blank", rel: "noopener" }, el("img", { src: source, alt: file.title, class: "wide" })));
    }
    return el("a", { class: "upload-file", href: source, download: file.name }, icon("file"), file.title);
  });
}

function summary(message, room) {
  if (!message.replies?.length || !room.openThread) return null;
  const faces = [...new Set(message.replies.map((reply) => reply.user))].slice(0, 3);
  const count = message.replies.length;
  return el("button", { type: "button", class: "replies", "data-focus": `thread-${message.ts}`, onclick: () => room.openThread(message.ts) },
    faces.map((user) => avatar(room.person(user), "small")), el("strong", {}, count === 1 ? "1 reply" : `${count} replies`),
    el("span", {}, `last at ${clock(message.replies.at(-1).ts)}`));
}

/** "Nightshift is thinking…" with moving dots and, in turn, what it is doing. */
export function statusLine(status, room) {
  const steps = status.loading.length ? el("span", { class: "steps", "data-steps": JSON.stringify(status.loading) }, status.loading[0]) : null;
  return el("p", { class: "status" }, el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i")),
    el("span", {}, `${room.person(room.bot)?.name} ${status.text.replace(/\.\.\.$/, "…")}`), steps);
}

function tools(message, room) {
  if (message.tombstone) return null;
  const own = message.user === room.me;
  const deeds = message.ephemeral ? [["close", "Dismiss this message", () => room.dismiss(message)]] : [
    room.openThread ? ["reply", "Reply in thread", () => room.openThread(message.thread_ts ?? message.ts, true)] : null,
    ["link", "Copy a link to this message", () => room.copyLink(message)],
    own ? ["edit", "Edit", () => room.edit(message)] : null,
    own ? ["trash", "Delete", () => room.remove(message)] : null,
  ].filter(Boolean);
  const bar = el("div", { class: "tools", role: "group", "aria-label": "Message" }, deeds.map(([name, label, run]) => el("button", {
    type: "button", class: "icon", "aria-label": label, title: label, "data-focus": `${name}-${message.ts}`, onclick: run }, icon(name))));
  if (!message.ephemeral) {
    const more = el("button", { type: "button", class: "icon touch", "aria-label": "What to do with this message", "aria-haspopup": "menu", "aria-expanded": "false" }, icon("more"));
    more.addEventListener("click", () => openMenu(more, deeds.map(([, label, run]) => ({ label, run }))));
    bar.append(more);
  }
  return bar;
}

function editor(message, room) {
  const box = el("textarea", { rows: 2, "aria-label": "Edit your message", "data-focus": `editor-${message.ts}` });
  box.value = room.asTyped(message.text);
  const form = el("form", { class: "editor" }, box, el("div", {},
    el("button", { type: "button", class: "button", onclick: () => room.edit(null) }, "Cancel"), el("button", { type: "submit", class: "button primary" }, "Save")));
  form.addEventListener("submit", (event) => { event.preventDefault(); room.saveEdit(message, box.value); });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); form.requestSubmit(); }
    if (event.key === "Escape") { event.stopPropagation(); room.edit(null); }
  });
  requestAnimationFrame(() => box.focus());
  return form;
}
