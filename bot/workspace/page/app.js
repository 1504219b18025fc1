// The page: one person's view of the workspace, kept fresh over a WebSocket, and everything they can do in it.
import { el, icon, reconcile } from "/page/dom.js";
import { renderBlocks } from "/page/blocks.js";
import { arrange, avatar, drawMessage, signature, statusLine } from "/page/messages.js";
import { ask, showModal } from "/page/modal.js";
import { composer } from "/page/composer.js";

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const linked = /^\/archives\/(\w+)\/p(\d+)(\d{6})$/.exec(location.pathname);

let user = query.get("user") ?? "U0SAM";
let place = linked?.[1] ?? query.get("channel") ?? "C0HELP";
let thread = null;
let store = null;
let socket = null;
let retry = 0;
let editing = null;
let nightOpen = false;
let wanted = linked ? `${linked[2]}.${linked[3]}` : null;
const drafts = {};
const inputs = {};
const homeValues = {};
const awaiting = new Set();

// ---- talking to the workspace ------------------------------------------------------------------------------

async function post(name, body) {
  try {
    const response = await fetch(`/workspace/${name}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user, ...body }) });
    return await response.json();
  } catch {
    return { ok: false, error: "offline", message: "The workspace does not answer." };
  }
}

async function does(name, body) {
  const answer = await post(name, body);
  if (!answer.ok && !answer.errors) toast(answer.message ?? SENTENCES[answer.error] ?? `That did not work (${answer.error}).`);
  return answer;
}

const SENTENCES = {
  not_in_channel: "You are not in that channel.", message_not_found: "That message is gone.", msg_too_long: "That message is too long.",
  dispatch_failed: "Nightshift is not connected. Try again in a moment.", operation_timeout: "Nightshift did not answer in time.",
  night_already_running: "A night run is already under way.",
};

function connect() {
  const mine = new WebSocket(`${location.origin.replace("http", "ws")}/workspace/live?user=${encodeURIComponent(user)}`);
  socket = mine;
  mine.addEventListener("message", (event) => {
    if (mine !== socket) return;
    retry = 0;
    $("offline").hidden = true;
    receive(JSON.parse(event.data));
  });
  mine.addEventListener("close", () => {
    if (mine !== socket) return;
    $("offline").hidden = false;
    if (!store) fetch(`/workspace/state?user=${encodeURIComponent(user)}`).then((answer) => { if (answer.status === 400) user = "U0SAM"; }, () => {});
    retry = Math.min(retry + 1, 5);
    setTimeout(() => mine === socket && connect(), retry * 400);
  });
}

function receive(next) {
  const before = store?.me === next.me ? store : null;
  store = next;
  if (place !== "home" && !store.channels.some((channel) => channel.id === place)) { place = "C0HELP"; thread = null; }
  followOwnQuestion();
  if (before) announceNews(before);
  else opened();
  draw();
}

function followOwnQuestion() {
  for (const ts of awaiting) {
    const found = (store.messages[place] ?? []).some((message) => message.thread_ts === ts && message.ts !== ts && message.user === store.bot)
      || store.statuses.some((status) => status.thread_ts === ts);
    if (!found) continue;
    awaiting.delete(ts);
    if (window.innerWidth >= 1040 && (!thread || thread.channel === place)) thread = { channel: place, ts };
  }
}

function announceNews(before) {
  for (const [channel, messages] of Object.entries(store.messages)) {
    const last = before.messages[channel]?.at(-1)?.ts ?? "0";
    for (const message of messages) {
      if (Number(message.ts) > Number(last) && message.user !== user && !message.streaming) {
        $("announcer").textContent = `${person(message.user)?.name} in ${placeName(channelOf(channel))}: ${message.text.slice(0, 200)}`;
      }
    }
  }
}

function toast(text) {
  const node = el("p", {}, text);
  $("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

// ---- names -------------------------------------------------------------------------------------------------

const person = (id) => store.people.find((one) => one.id === id);
const channelOf = (id) => store.channels.find((one) => one.id === id);
const names = { person: (id) => person(id)?.name, channel: (id) => store.channels.find((one) => one.id === id)?.name };
const withText = (channel) => channel.with.map((id) => person(id)?.name).join(", ");
const placeName = (channel) => (channel.kind === "channel" || channel.kind === "group" ? `#${channel.name}` : withText(channel));
const homeChannel = () => store.channels.find((one) => one.kind === "im" && one.with[0] === store.bot);
const asTyped = (text) => text.replace(/<@(\w+)>/g, (whole, id) => `@${names.person(id) ?? id}`).replace(/<#\w+\|([^>]+)>/g, "#$1")
  .replace(/<(https?:[^>|]+)(?:\|[^>]*)?>/g, "$1").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

// ---- reading state -----------------------------------------------------------------------------------------

const readKey = (channel) => `read:${store.me}:${channel}`;
const session = `${performance.timeOrigin / 1000 - 3600}`;
function lastRead(channel) { return Number(localStorage.getItem(readKey(channel)) ?? session); }
function markRead(channel) {
  const last = store.messages[channel]?.at(-1)?.ts;
  if (last && document.visibilityState === "visible") localStorage.setItem(readKey(channel), last);
}
function unread(channel) {
  const since = lastRead(channel);
  return (store.messages[channel] ?? []).filter((message) => message.user !== store.me && Number(message.ts) > since).length;
}

// ---- going places ------------------------------------------------------------------------------------------

function go(next) {
  place = next;
  thread = null;
  editing = null;
  closeMenu();
  opened();
  draw();
  requestAnimationFrame(() => { $("scroll").scrollTop = next === "home" ? 0 : $("scroll").scrollHeight; if (matchMedia("(hover: hover)").matches) $("composer")?.focus({ preventScroll: true }); });
}

function opened() {
  const address = new URLSearchParams({ user });
  if (place !== "C0HELP") address.set("channel", place);
  history.replaceState(null, "", `/?${address}`);
  if (place === "home") post("open_home", { tab: "home" });
  else if (channelOf(place)?.kind === "im") post("open_home", { tab: "messages" });
}

function become(next) {
  if (next === user) return;
  user = next;
  store = null;
  thread = null;
  editing = null;
  if (place !== "home" && place.startsWith("D")) place = { U0SAM: "D0SAM", U0PRIYA: "D0PRIYA" }[next] ?? "C0HELP";
  for (const key of Object.keys(homeValues)) delete homeValues[key];
  $("messages").replaceChildren();
  $("home").replaceChildren();
  delete $("home").dataset.hash;
  delete $("dock").dataset.key;
  delete $("who").dataset.user;
  delete $("places").dataset.sign;
  showModal(null);
  socket?.close();
  connect();
}

function openThread(ts, focus = false) {
  thread = { channel: place, ts };
  draw();
  requestAnimationFrame(() => {
    $("thread-scroll").scrollTop = $("thread-scroll").scrollHeight;
    if (focus) $("thread-composer")?.focus();
    else $("close-thread").focus();
  });
}

function closeThread() {
  const from = thread?.ts;
  thread = null;
  draw();
  (document.querySelector(`[data-focus="thread-${from}"]`) ?? $("composer"))?.focus();
}

function menuOpen(open) {
  $("app").classList.toggle("menu-open", open);
  $("shade").hidden = !open;
  $("main").inert = open;
}
const openMenu = () => { menuOpen(true); $("close-menu").focus(); };
const closeMenu = () => menuOpen(false);

/** Keeps a list of messages at its end while it is read there, also when the room around it changes its size. */
function stick(box) {
  let low = true;
  box.addEventListener("scroll", () => { low = box.scrollHeight - box.scrollTop - box.clientHeight < 140; });
  new ResizeObserver(() => { if (low && (box.id !== "scroll" || place !== "home")) box.scrollTop = box.scrollHeight; }).observe(box);
}

// ---- drawing -----------------------------------------------------------------------------------------------

function draw() {
  if (!store) return;
  const channel = channelOf(place);
  if (channel) markRead(place);
  if (thread) markRead(thread.channel);
  drawSidebar();
  drawTop(channel);
  $("home").hidden = place !== "home";
  $("messages").hidden = place === "home";
  if (place === "home") drawHome();
  else drawMessages(channel);
  drawDock(channel);
  drawThread();
  drawNight();
  const context = { names, people: store.people, channels: store.channels, act };
  showModal(store.modal, context, {
    close: (view) => does("close_view", { view_id: view.id }),
    submit: (view, values) => does("submit", { view_id: view.id, values }),
  });
  const waiting = store.channels.reduce((sum, one) => sum + (one.id === place ? 0 : unread(one.id)), 0);
  document.title = `${waiting ? `(${waiting}) ` : ""}${place === "home" ? "Nightshift" : placeName(channel)} · ${store.workspace}`;
}

function drawSidebar() {
  $("workspace-name").textContent = store.workspace;
  const counts = store.channels.map((one) => `${one.id}:${one.id === place ? 0 : unread(one.id)}`).join();
  const sign = `${user}|${place}|${counts}|${store.channels.length}`;
  if ($("places").dataset.sign !== sign) {
    const focus = $("places").contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    $("places").dataset.sign = sign;
    const rooms = store.channels.filter((one) => one.kind === "channel" || one.kind === "group");
    const direct = store.channels.filter((one) => one.kind === "im" || one.kind === "mpim");
    $("places").replaceChildren(
      group("Channels", rooms.map((one) => entry(one.id, icon(one.kind === "group" ? "lock" : "hash"), one.name, one.kind === "group" ? "private channel" : "channel"))),
      group("Direct messages", direct.map((one) => entry(one.id, one.kind === "im" ? avatar(person(one.with[0]), "small") : icon("people"), withText(one), "direct message"))),
      group("Apps", [entry("home", icon("home"), "Nightshift Home", "app")]));
    if (focus) $("places").querySelector(`[data-focus="${focus}"]`)?.focus();
  }
  if ($("who").dataset.user !== user) {
    $("who").dataset.user = user;
    const people = store.people.filter((one) => !one.is_bot);
    $("who").replaceChildren(...people.map((one) => el("button", {
      type: "button", "aria-pressed": one.id === user ? "true" : "false", title: one.title, onclick: () => become(one.id),
    }, avatar(one, "small"), el("span", {}, one.name.split(" ")[0], el("small", {}, one.is_admin ? "admin" : "employee")))));
    const other = people.find((one) => one.id !== user);
    $("second-window").href = `/?user=${other.id}`;
    $("second-window").textContent = `Open ${other.name.split(" ")[0]} beside`;
  }
}

const group = (name, entries) => el("section", {}, el("h2", {}, name), el("ul", {}, entries));

function entry(id, picture, name, kind) {
  const count = id === "home" || id === place ? 0 : unread(id);
  return el("li", {}, el("button", {
    type: "button", class: count ? "has-unread" : null, "aria-current": id === place ? "page" : null, "data-focus": `place-${id}`, onclick: () => go(id),
    "aria-label": count ? `${name}, ${kind}, ${count} unread` : `${name}, ${kind}`,
  }, picture, el("span", { class: "grow" }, name), count ? el("span", { class: "count" }, count > 99 ? "99+" : count) : null));
}

function drawTop(channel) {
  const bot = place === "home" || channel?.kind === "im";
  $("title").textContent = bot ? "Nightshift" : placeName(channel);
  $("topic").textContent = bot ? "Learns overnight from what you correct by day" : channel.topic;
  $("members").hidden = bot;
  if (!bot) {
    const key = channel.members.join();
    if ($("members").dataset.key !== key) {
      $("members").dataset.key = key;
      $("members").replaceChildren(...channel.members.map((id) => avatar(person(id), "small")));
      $("members").setAttribute("title", channel.members.map((id) => person(id)?.name).join(", "));
    }
  }
  $("tabs").hidden = !bot;
  const key = `${user}|${place}`;
  if (bot && $("tabs").dataset.key !== key) {
    $("tabs").dataset.key = key;
    const tab = (id, label) => el("button", { type: "button", "aria-pressed": place === id ? "true" : "false", onclick: () => go(id) }, label);
    $("tabs").replaceChildren(tab(homeChannel().id, "Messages"), tab("home", "Home"));
  }
}

function room(extra = {}) {
  return {
    names, person, me: store.me, bot: store.bot, asTyped,
    context: (message) => ({
      names, people: store.people, channels: store.channels, surface: "message", pressed: message.pressed, errors: {},
      values: (inputs[message.ts] ??= {}),
      act: (body, node, confirm) => act({ ...body, channel: thread && extra.inThread ? thread.channel : place, ts: message.ts, values: inputs[message.ts] }, node, confirm),
    }),
    edit: (message) => { editing = message?.ts ?? null; draw(); },
    saveEdit: async (message, text) => { if ((await does("edit", { channel: message.channel, ts: message.ts, text })).ok) { editing = null; draw(); } },
    remove: async (message) => {
      const sure = await ask({ title: { text: "Delete this message?" }, text: { text: "Nightshift will be told that it is gone." }, confirm: { text: "Delete" }, deny: { text: "Keep" }, style: "danger" }, names);
      if (sure) does("delete", { channel: message.channel, ts: message.ts });
    },
    dismiss: (message) => does("delete", { channel: message.channel, ts: message.ts }),
    copyLink: async (message) => {
      const where = message.thread_ts && message.thread_ts !== message.ts ? `?thread_ts=${message.thread_ts}` : "";
      const address = `${location.origin}/archives/${message.channel}/p${message.ts.replace(".", "")}${where}`;
      try { await navigator.clipboard.writeText(address); toast("Link copied."); } catch { toast(address); }
    },
    ...extra,
  };
}

function drawMessages(channel) {
  const all = store.messages[place] ?? [];
  const statuses = new Map(store.statuses.filter((one) => one.channel === place).map((one) => [one.thread_ts, one]));
  const roots = all.filter((message) => !message.thread_ts || message.thread_ts === message.ts).map((message) => ({
    ...message, channel: place, editing: editing === message.ts && !thread, status: statuses.get(message.ts),
    replies: all.filter((reply) => reply.thread_ts === message.ts && reply.ts !== message.ts && !reply.ephemeral),
  }));
  const scroll = $("scroll");
  const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 140 || roots.at(-1)?.ts !== $("messages").lastElementChild?.dataset.ts && roots.at(-1)?.user === user;
  const where = room({ openThread });
  reconcile($("messages"), arrange(roots), (message) => message.ts, (message) => `${place}|${signature(message)}`, (message) => drawMessage(message, where));
  drawEmpty(channel, roots.length);
  if (near) scroll.scrollTop = scroll.scrollHeight;
  showLinked(all);
}

function drawEmpty(channel, count) {
  $("empty").hidden = count > 0;
  if (count || $("empty").dataset.key === place) return;
  $("empty").dataset.key = place;
  const direct = channel.kind === "im";
  $("empty").replaceChildren(
    direct ? el("img", { src: "/page/moon.svg", alt: "", width: 64, height: 64 }) : icon(channel.kind === "group" ? "lock" : "hash"),
    el("h2", {}, direct ? "Ask Nightshift" : `This is #${channel.name}`),
    el("p", {}, direct ? "Answers come from the company handbook and from what colleagues taught it. Say so when one is wrong: it learns overnight."
      : channel.kind === "group" ? "Corrections that people propose arrive here, for an admin to decide." : "Write @Nightshift and a question, or /ask for an answer only you can see."));
}

function showLinked(all) {
  const target = wanted && all.find((message) => message.ts === wanted);
  if (!target) return;
  wanted = null;
  if (target.thread_ts && target.thread_ts !== target.ts) thread = { channel: place, ts: target.thread_ts };
  requestAnimationFrame(() => {
    const node = document.querySelector(`[data-ts="${target.ts}"]`);
    node?.scrollIntoView({ block: "center" });
    node?.classList.add("found");
  });
}

function drawHome() {
  const view = store.home;
  const hash = view?.hash ?? "none";
  $("empty").hidden = true;
  if ($("home").dataset.hash === hash) return;
  const focus = $("home").contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  $("home").dataset.hash = hash;
  const ctx = { names, people: store.people, channels: store.channels, surface: "home", values: homeValues, errors: {}, act: (body, node, confirm) => act({ ...body, view_id: view.id, values: homeValues }, node, confirm) };
  $("home").replaceChildren(...(view ? renderBlocks(view.blocks, ctx) : [el("p", { class: "muted" }, "Nightshift is preparing this page…")]));
  if (focus) $("home").querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
}

function offers(kind) {
  if (kind === "/") return store.commands.map((one) => ({ insert: one.name, hint: one.hint }));
  const here = channelOf(place)?.members ?? [];
  const known = store.people.filter((one) => here.includes(one.id) && one.id !== user).sort((a, b) => Number(b.is_bot) - Number(a.is_bot));
  return known.map((one) => ({ insert: `@${one.name}`, hint: one.title }));
}

async function send(channel, text, root) {
  const command = /^\/(\w+)(?:\s+(.*))?$/s.exec(text);
  if (command) return (await does("command", { channel, command: `/${command[1]}`, text: command[2] ?? "" })).ok;
  const answer = await does("message", { channel, text, ...(root ? { thread_ts: root } : {}) });
  if (answer.ok && !root) awaiting.add(answer.ts);
  return answer.ok;
}

function drawDock(channel) {
  const prompts = channel?.kind === "im" ? store.prompts[place] : null;
  const key = place === "home" ? "home" : `${user}|${place}|${JSON.stringify(prompts ?? null)}`;
  if ($("dock").dataset.key === key) return;
  const focused = $("dock").contains(document.activeElement);
  $("dock").dataset.key = key;
  if (place === "home") { $("dock").replaceChildren(); return; }
  const chips = prompts?.prompts.length ? el("div", { class: "prompts", role: "group", "aria-label": prompts.title || "Suggested questions" },
    el("span", {}, prompts.title || "Try asking"),
    prompts.prompts.map((one) => el("button", { type: "button", title: one.message, onclick: () => send(place, one.message, null) }, one.title))) : "";
  $("dock").replaceChildren(chips, composer({
    id: "composer", label: `Message ${channel.kind === "im" ? "Nightshift" : placeName(channel)}`, offers, draft: drafts[`${user}:${place}`] ?? "",
    onDraft: (text) => { drafts[`${user}:${place}`] = text; }, send: (text) => send(place, text, null),
  }));
  if (focused) $("composer").focus();
}

function drawThread() {
  const panel = $("thread");
  const root = thread && (store.messages[thread.channel] ?? []).find((message) => message.ts === thread.ts);
  panel.hidden = !root;
  $("app").classList.toggle("with-thread", Boolean(root));
  if (!root) { thread = null; delete $("thread-dock").dataset.key; return; }
  const channel = channelOf(thread.channel);
  const title = store.titles.find((one) => one.channel === thread.channel && one.thread_ts === thread.ts)?.title;
  $("thread-place").textContent = title ? `${placeName(channel)} · ${title}` : placeName(channel);
  const held = store.messages[thread.channel].filter((message) => message.ts === thread.ts || message.thread_ts === thread.ts)
    .map((message) => ({ ...message, channel: thread.channel, editing: editing === message.ts }));
  const scroll = $("thread-scroll");
  const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 140 || held.at(-1)?.user === user;
  const where = room({ inThread: true });
  reconcile($("thread-messages"), arrange(held), (message) => message.ts, (message) => `${user}|${thread.ts}|${signature(message)}`, (message) => drawMessage(message, where));
  const status = store.statuses.find((one) => one.channel === thread.channel && one.thread_ts === thread.ts);
  const sign = status ? `${status.text}${status.loading}` : "";
  if ($("thread-status").dataset.sign !== sign) {
    $("thread-status").dataset.sign = sign;
    $("thread-status").hidden = !status;
    $("thread-status").replaceChildren(...(status ? statusLine(status, where).childNodes : []));
  }
  if (near) scroll.scrollTop = scroll.scrollHeight;
  const key = `${user}|${thread.ts}`;
  if ($("thread-dock").dataset.key === key) return;
  $("thread-dock").dataset.key = key;
  const { channel: home, ts } = thread;
  $("thread-dock").replaceChildren(composer({
    id: "thread-composer", label: "Reply in the thread", offers: (kind) => (kind === "/" ? [] : offers(kind)), draft: drafts[`${user}:${ts}`] ?? "",
    onDraft: (text) => { drafts[`${user}:${ts}`] = text; }, send: (text) => send(home, text, ts),
  }));
}

async function act(body, node, confirm) {
  if (confirm && !(await ask(confirm, names))) return;
  node?.classList.add("busy");
  await does("click", body);
  node?.classList.remove("busy");
}

// ---- night, theme, keys ------------------------------------------------------------------------------------

const NIGHT = { idle: "Run the night", running: "The night is running…", done: "Run the night", failed: "Run the night" };

function drawNight() {
  const { available, state, lines } = store.night;
  const button = $("night-button");
  button.hidden = !available;
  if (button.dataset.state !== state) {
    button.dataset.state = state;
    button.replaceChildren(icon("moon"), NIGHT[state]);
  }
  $("night").hidden = !nightOpen;
  $("night").dataset.state = state;
  $("night-title").textContent = { idle: "Night run", running: "The night is running", done: "The night is over", failed: "The night stopped" }[state];
  const near = $("night-lines").scrollHeight - $("night-lines").scrollTop - $("night-lines").clientHeight < 60;
  reconcile($("night-lines"), lines.map((line, index) => ({ line, index })), (one) => String(one.index), (one) => one.line, (one) => el("li", {}, one.line));
  if (near) $("night-lines").scrollTop = $("night-lines").scrollHeight;
}

$("night-button").addEventListener("click", async () => {
  closeMenu();
  nightOpen = true;
  if (store.night.state !== "running") await does("night", {});
  draw();
});
$("close-night").addEventListener("click", () => { nightOpen = false; draw(); $("night-button").focus(); });
$("close-thread").addEventListener("click", closeThread);
$("open-menu").addEventListener("click", openMenu);
$("close-menu").addEventListener("click", () => { closeMenu(); $("open-menu").focus(); });
$("shade").addEventListener("click", closeMenu);
stick($("scroll"));
stick($("thread-scroll"));
for (const id of ["close-menu", "close-thread", "close-night"]) $(id).append(icon("close"));
$("open-menu").append(icon("menu"));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if ($("app").classList.contains("menu-open")) { closeMenu(); $("open-menu").focus(); }
  else if (nightOpen) { nightOpen = false; draw(); }
  else if (thread && !$("main").contains(document.activeElement)) closeThread();
});
document.addEventListener("visibilitychange", () => store && draw());

const THEMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
function theme(next) {
  localStorage.setItem("theme", next);
  document.documentElement.dataset.theme = next;
  $("theme").textContent = THEMES[next];
}
$("theme").addEventListener("click", () => {
  const order = Object.keys(THEMES);
  theme(order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length]);
});
theme(query.get("theme") ?? localStorage.getItem("theme") ?? "auto");

let tick = 0;
setInterval(() => {
  tick += 1;
  for (const node of document.querySelectorAll("[data-steps]")) {
    const steps = JSON.parse(node.dataset.steps);
    node.textContent = steps[tick % steps.length];
  }
}, 2200);

connect();
