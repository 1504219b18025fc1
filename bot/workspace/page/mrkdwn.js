// Slack's mrkdwn and plain Markdown as DOM nodes. Nothing is ever parsed as HTML.
import { el } from "/page/dom.js";

const EMOJI = {
  white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", warning: "⚠️", "+1": "👍", thumbsup: "👍", "-1": "👎",
  thumbsdown: "👎", eyes: "👀", crescent_moon: "🌙", moon: "🌙", sparkles: "✨", tada: "🎉", wave: "👋", bulb: "💡",
  question: "❓", books: "📚", book: "📖", memo: "📝", mag: "🔍", lock: "🔒", star: "⭐", rocket: "🚀", hourglass: "⌛",
  hourglass_flowing_sand: "⏳", no_entry: "⛔", information_source: "ℹ️", robot_face: "🤖", seedling: "🌱", speech_balloon: "💬",
  bell: "🔔", chart_with_upwards_trend: "📈", arrow_right: "➡️", raised_hands: "🙌", pray: "🙏", heart: "❤️", red_circle: "🔴",
  large_green_circle: "🟢", large_yellow_circle: "🟡", page_facing_up: "📄", link: "🔗", brain: "🧠", rewind: "⏪", zzz: "💤",
};

const unescape = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
export const emoji = (name) => EMOJI[name] ?? `:${name}:`;
const withEmoji = (text) => text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] ?? whole);

/** Nodes of Slack mrkdwn; `names` turns ids into names. */
export const mrkdwn = (text, names) => blocks(text, names, MRKDWN);
/** Nodes of standard Markdown, as in markdown_text. */
export const markdown = (text, names) => blocks(text, names, MARKDOWN);
/** A plain_text object's text with its emoji. */
export const plain = (text) => withEmoji(unescape(text));

const EDGE = "(?<![\\w*~_`])";
const END = "(?![\\w*~_`])";
const MRKDWN = {
  rules: [
    [/`([^`\n]+)`/, (m) => el("code", {}, unescape(m[1]))],
    [/<([^<>\n]+)>/, (m, names) => entity(m[1], names)],
    [new RegExp(`${EDGE}\\*(\\S(?:[^*\\n]*\\S)?)\\*${END}`), (m, names) => el("strong", {}, inline(m[1], names, MRKDWN))],
    [new RegExp(`${EDGE}_(\\S(?:[^_\\n]*\\S)?)_${END}`), (m, names) => el("em", {}, inline(m[1], names, MRKDWN))],
    [new RegExp(`${EDGE}~(\\S(?:[^~\\n]*\\S)?)~${END}`), (m, names) => el("s", {}, inline(m[1], names, MRKDWN))],
  ],
};
const MARKDOWN = {
  headings: true,
  tables: true,
  rules: [
    [/`([^`\n]+)`/, (m) => el("code", {}, unescape(m[1]))],
    [/\[([^\]\n]+)\]\(([^)\s]+)\)/, (m, names) => anchor(unescape(m[2]), inline(m[1], names, MARKDOWN))],
    [/<([^<>\n]+)>/, (m, names) => entity(m[1], names)],
    [/\*\*(\S(?:.*?\S)?)\*\*/, (m, names) => el("strong", {}, inline(m[1], names, MARKDOWN))],
    [/~~(\S(?:.*?\S)?)~~/, (m, names) => el("s", {}, inline(m[1], names, MARKDOWN))],
    [new RegExp(`${EDGE}[*_](\\S(?:[^*_\\n]*\\S)?)[*_]${END}`), (m, names) => el("em", {}, inline(m[1], names, MARKDOWN))],
  ],
};

function inline(text, names, grammar) {
  const nodes = [];
  let rest = text;
  while (rest) {
    let best = null;
    for (const [pattern, make] of grammar.rules) {
      const found = pattern.exec(rest);
      if (found && (best === null || found.index < best.found.index)) best = { found, make };
    }
    if (!best) { nodes.push(withEmoji(unescape(rest))); break; }
    if (best.found.index) nodes.push(withEmoji(unescape(rest.slice(0, best.found.index))));
    nodes.push(best.make(best.found, names));
    rest = rest.slice(best.found.index + best.found[0].length);
  }
  return nodes;
}

function entity(inside, names) {
  const [target, label] = inside.split(/\|(.*)/s);
  if (target.startsWith("@")) return el("span", { class: "mention" }, `@${names.person(target.slice(1)) ?? label ?? target.slice(1)}`);
  if (target.startsWith("#")) return el("span", { class: "mention" }, `#${names.channel(target.slice(1)) ?? label ?? target.slice(1)}`);
  if (target.startsWith("!date")) return unescape(label ?? "");
  if (target.startsWith("!")) return el("span", { class: "mention loud" }, `@${target.slice(1).split("^")[0]}`);
  return anchor(unescape(target), [withEmoji(unescape(label ?? target))]);
}

function anchor(address, content) {
  if (!/^(https?:|mailto:)/i.test(address)) return el("span", {}, content);
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, content);
}

function blocks(text, names, grammar) {
  const nodes = [];
  text.split(/```(?:[a-z]+\n|\n)?/).forEach((part, index, all) => {
    const open = index % 2 === 1;
    if (open && (index < all.length - 1 || grammar.headings)) {
      nodes.push(el("pre", { tabindex: "0" }, el("code", {}, unescape(part.replace(/\n$/, "")))));
    } else nodes.push(...lines((open ? "```" : "") + part, names, grammar));
  });
  return nodes;
}

const kindOf = (line, grammar) => {
  if (/^\s*(?:&gt;|>)/.test(line)) return "quote";
  if (/^\s*(?:•|◦|-|\*(?= ))\s+/.test(line)) return "bullets";
  if (/^\s*\d+[.)]\s+/.test(line)) return "numbers";
  if (grammar.headings && /^#{1,6}\s/.test(line)) return "heading";
  if (grammar.tables && /^\s*\|.*\|\s*$/.test(line)) return "table";
  return line.trim() ? "text" : "blank";
};

function lines(text, names, grammar) {
  const groups = [];
  for (const line of text.replace(/^\n+|\n+$/g, "").split("\n")) {
    const kind = kindOf(line, grammar);
    if (groups.at(-1)?.kind === kind && kind !== "heading") groups.at(-1).lines.push(line);
    else groups.push({ kind, lines: [line] });
  }
  const say = (line) => inline(line, names, grammar);
  return groups.filter((group) => group.kind !== "blank").map(({ kind, lines: held }) => {
    if (kind === "quote") return el("blockquote", {}, lines(held.map((line) => line.replace(/^\s*(?:&gt;|>)\s?/, "")).join("\n"), names, grammar));
    if (kind === "bullets") return el("ul", {}, held.map((line) => el("li", {}, say(line.replace(/^\s*(?:•|◦|-|\*)\s+/, "")))));
    if (kind === "numbers") return el("ol", { start: parseInt(held[0], 10) }, held.map((line) => el("li", {}, say(line.replace(/^\s*\d+[.)]\s+/, "")))));
    if (kind === "heading") return el("p", { class: "md-heading" }, say(held[0].replace(/^#+\s/, "")));
    if (kind === "table") return table(held, say);
    return el("p", {}, held.flatMap((line, index) => [index ? el("br") : null, ...say(line)]));
  });
}

function table(held, say) {
  const rows = held.filter((line) => !/^[\s|:-]+$/.test(line)).map((line) => line.trim().slice(1, -1).split("|"));
  const row = (cells, tag) => el("tr", {}, cells.map((cell) => el(tag, {}, say(cell.trim()))));
  const [head, ...body] = rows;
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, row(head ?? [], "th")), el("tbody", {}, body.map((cells) => row(cells, "td")))));
}
