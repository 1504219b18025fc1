// Block Kit as DOM nodes, for messages, modals and the Home tab.
// ctx: {names, people, channels, act(body, button), values, pressed, errors, surface}
import { el, icon, openMenu } from "/page/dom.js";
import { markdown, mrkdwn, plain } from "/page/mrkdwn.js";

/** The nodes of a list of blocks. */
export function renderBlocks(blocks, ctx) {
  return blocks.map((block) => {
    const node = drawBlock(block, ctx);
    node.classList.add("block", `block-${block.type}`);
    return node;
  });
}

/** One block; one that cannot be drawn leaves a note instead of breaking the page. */
function drawBlock(block, ctx) {
  try {
    const draw = BLOCKS[block.type];
    if (draw) return draw(block, ctx);
  } catch (error) {
    console.error("cannot draw a block", block, error);
  }
  return el("p", { class: "muted" }, `[${block.type}]`);
}

/** A text object's nodes. */
function text(object, ctx) {
  if (!object) return [];
  return object.type === "mrkdwn" ? mrkdwn(object.text, ctx.names) : [plain(object.text)];
}
const label = (object) => plain(object?.text ?? "");

const BLOCKS = {
  section: (block, ctx) => el("div", {},
    el("div", { class: "section-text" },
      block.text ? el("div", { class: "rich" }, text(block.text, ctx)) : null,
      block.fields ? el("div", { class: "fields" }, block.fields.map((field) => el("div", { class: "rich" }, text(field, ctx)))) : null),
    block.accessory ? el("div", { class: "accessory" }, element(block.accessory, block, ctx)) : null),
  divider: () => el("hr"),
  header: (block, ctx) => el(ctx.surface === "message" ? "h3" : "h2", {}, text(block.text, ctx)),
  context: (block, ctx) => el("div", {}, block.elements.map((item) => item.type === "image"
    ? image(item, "tiny") : el("span", { class: "rich" }, text(item, ctx)))),
  actions: (block, ctx) => el("div", {}, block.elements.map((item) => element(item, block, ctx))),
  context_actions: (block, ctx) => el("div", {}, block.elements.map((item) => element(item, block, ctx))),
  image: (block, ctx) => el("figure", {}, block.title ? el("figcaption", {}, text(block.title, ctx)) : null, image(block, "wide")),
  markdown: (block, ctx) => el("div", { class: "rich" }, markdown(block.text, ctx.names)),
  rich_text: (block) => el("div", { class: "rich" }, richText(block.elements)),
  table: (block, ctx) => el("div", { class: "table" }, el("table", {}, block.rows.map((row, index) => el("tr", {},
    row.map((cell) => el(index ? "td" : "th", {}, cell.type === "rich_text" ? richText(cell.elements) : text(cell, ctx))))))),
  input: (block, ctx) => input(block, ctx),
};

const richText = (elements) => (elements ?? []).map((part) => part.elements ? el("span", {}, richText(part.elements)) : (part.text ?? part.url ?? ""));

/** The path of a file of this workspace, null for an address elsewhere, which is never fetched. */
export function ownFile(source) {
  const path = source.replace(/^http:\/\/(127\.0\.0\.1|localhost):\d+/, "");
  return path.startsWith("/files/") ? path : null;
}

function image(item, size) {
  const source = item.image_url ?? item.slack_file?.url ?? (item.slack_file?.id ? `/files/${item.slack_file.id}/image` : "");
  const address = ownFile(source);
  if (!address) return el("span", { class: "image-outside" }, icon("file"), plain(item.alt_text ?? "image"));
  const node = el("img", { src: address, alt: plain(item.alt_text ?? ""), class: size, loading: "lazy" });
  return size === "wide" ? el("a", { href: address, target: "_blank", rel: "noopener" }, node) : node;
}

// ---- interactive elements ----------------------------------------------------------------------------------

const address = (block, item) => ({ block_id: block.block_id, action_id: item.action_id });
const focusKey = (block, item, extra = "") => `${block.block_id}/${item.action_id}${extra}`;

function element(item, block, ctx) {
  const draw = ELEMENTS[item.type];
  return draw ? draw(item, block, ctx) : el("span", { class: "muted" }, `[${item.type}]`);
}

const ELEMENTS = {
  image: (item) => image(item, "thumb"),
  button: (item, block, ctx) => {
    const node = el(item.url ? "a" : "button", {
      type: item.url ? null : "button", href: item.url && /^https?:/.test(item.url) ? item.url : null,
      target: item.url ? "_blank" : null, rel: item.url ? "noopener noreferrer" : null,
      class: `button ${item.style ?? ""}`, "aria-label": item.accessibility_label ?? null, "data-focus": focusKey(block, item),
    }, label(item.text));
    node.addEventListener("click", () => ctx.act({ ...address(block, item), value: item.value }, node, item.confirm));
    return node;
  },
  icon_button: (item, block, ctx) => {
    const node = el("button", { type: "button", class: "icon", "aria-label": item.accessibility_label ?? label(item.text), "data-focus": focusKey(block, item) }, icon("trash"));
    node.addEventListener("click", () => ctx.act({ ...address(block, item), value: item.value }, node, item.confirm));
    return node;
  },
  feedback_buttons: (item, block, ctx) => el("span", { class: "feedback", role: "group", "aria-label": "Was this answer helpful?" },
    [["positive", item.positive_button, "up"], ["negative", item.negative_button, "down"]].map(([side, button, sign]) => {
      const pressed = ctx.pressed?.[item.action_id] === button.value;
      const node = el("button", {
        type: "button", class: `thumb ${sign}`, "aria-pressed": pressed ? "true" : "false",
        "aria-label": button.accessibility_label ?? label(button.text), title: label(button.text), "data-focus": focusKey(block, item, sign),
      }, icon(sign));
      node.addEventListener("click", () => ctx.act({ ...address(block, item), value: side }, node));
      return node;
    })),
  overflow: (item, block, ctx) => {
    const node = el("button", { type: "button", class: "icon", "aria-label": "More", "aria-haspopup": "menu", "aria-expanded": "false", "data-focus": focusKey(block, item) }, icon("more"));
    node.addEventListener("click", () => openMenu(node, item.options.map((option) => ({
      label: label(option.text), description: option.description ? label(option.description) : null,
      run: () => ctx.act({ ...address(block, item), value: option.value }, node, item.confirm),
    }))));
    return node;
  },
};
for (const type of ["static_select", "multi_static_select", "users_select", "multi_users_select", "channels_select", "conversations_select",
  "radio_buttons", "checkboxes", "datepicker", "timepicker", "plain_text_input", "number_input", "email_text_input", "url_text_input"]) {
  ELEMENTS[type] = (item, block, ctx) => field(item, block, ctx, {
    "aria-label": label(item.placeholder) || item.action_id.replaceAll("_", " "),
    chosen: block.type === "input" ? null : (value) => ctx.act({ ...address(block, item), value }, null, item.confirm),
  });
}

function held(item, block, ctx) {
  const typed = ctx.values[block.block_id]?.[item.action_id];
  if (typed !== undefined) return typed;
  if (item.initial_option) return item.initial_option.value;
  if (item.initial_options) return item.initial_options.map((option) => option.value);
  return item.initial_value ?? item.initial_user ?? item.initial_users ?? item.initial_channel ?? item.initial_conversation
    ?? item.initial_date ?? item.initial_time ?? null;
}

function keep(item, block, ctx, value) {
  (ctx.values[block.block_id] ??= {})[item.action_id] = value;
}

const optionsOf = (item, ctx) => {
  if (item.type.includes("users")) return ctx.people.filter((person) => !person.is_bot).map((person) => ({ value: person.id, text: { text: person.name } }));
  if (item.type.startsWith("channels") || item.type.startsWith("conversations")) {
    return ctx.channels.filter((channel) => channel.kind !== "im").map((channel) => ({ value: channel.id, text: { text: `#${channel.name}` } }));
  }
  return item.options ?? (item.option_groups ?? []).flatMap((group) => group.options);
};

/** The control of one input element; `chosen` is called when a choice is made outside an input block. */
function field(item, block, ctx, { chosen, ...attributes }) {
  const value = held(item, block, ctx);
  const set = (next) => { keep(item, block, ctx, next); chosen?.(next); };
  const common = { ...attributes, "data-focus": focusKey(block, item), autofocus: item.focus_on_load ?? null };
  if (item.type === "radio_buttons" || item.type === "checkboxes") return choices(item, block, ctx, value, set, common);
  if (item.type.endsWith("select")) {
    const many = item.type.startsWith("multi");
    const chosenNow = many ? value ?? [] : [value];
    const node = el("select", { ...common, multiple: many }, many ? null : el("option", { value: "" }, label(item.placeholder) || "Choose…"),
      optionsOf(item, ctx).map((option) => el("option", { value: option.value, selected: chosenNow.includes(option.value) }, label(option.text))));
    node.addEventListener("change", () => set(many ? [...node.selectedOptions].map((option) => option.value) : node.value || null));
    return node;
  }
  const types = { datepicker: "date", timepicker: "time", number_input: "number", email_text_input: "email", url_text_input: "url" };
  const more = { placeholder: label(item.placeholder) || null, maxlength: item.max_length ?? (item.type === "plain_text_input" ? 3000 : null) };
  const node = item.multiline ? el("textarea", { ...common, ...more, rows: 5 }) : el("input", { ...common, ...more, type: types[item.type] ?? "text", step: item.is_decimal_allowed ? "any" : null });
  node.value = value ?? "";
  node.addEventListener("input", () => keep(item, block, ctx, node.value));
  if (types[item.type] === "date" || types[item.type] === "time") node.addEventListener("change", () => set(node.value));
  return node;
}

function choices(item, block, ctx, value, set, common) {
  const many = item.type === "checkboxes";
  const group = el("div", { class: "choices", role: many ? "group" : "radiogroup", ...common, "data-focus": null });
  const name = `${ctx.surface}-${block.block_id}-${item.action_id}`;
  item.options.forEach((option, index) => {
    const box = el("input", { type: many ? "checkbox" : "radio", name, value: option.value, "data-focus": focusKey(block, item, index) });
    box.checked = many ? (value ?? []).includes(option.value) : value === option.value;
    box.addEventListener("change", () => set(many ? [...group.querySelectorAll("input:checked")].map((one) => one.value) : option.value));
    group.append(el("label", {}, box, el("span", { class: "rich" }, text(option.text, ctx),
      option.description ? el("small", {}, label(option.description)) : null)));
  });
  return group;
}

function input(block, ctx) {
  const item = block.element;
  const id = `${ctx.surface}-${block.block_id}-${item.action_id}`;
  const error = ctx.errors?.[block.block_id];
  const described = [block.hint ? `${id}-hint` : null, error ? `${id}-error` : null].filter(Boolean).join(" ");
  const grouped = item.type === "radio_buttons" || item.type === "checkboxes";
  const control = field(item, block, ctx, {
    id, "aria-describedby": described || null, "aria-invalid": error ? "true" : null, "aria-labelledby": grouped ? `${id}-label` : null,
    chosen: block.dispatch_action ? (value) => ctx.act({ ...address(block, item), value }) : null,
  });
  if (block.dispatch_action && item.type === "plain_text_input") {
    control.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !item.multiline) { event.preventDefault(); ctx.act({ ...address(block, item), value: control.value }); }
    });
  }
  return el("div", { class: error ? "field wrong" : "field" },
    el(grouped ? "span" : "label", { for: grouped ? null : id, id: `${id}-label`, class: "label" }, text(block.label, ctx),
      block.optional ? el("small", {}, " optional") : null),
    control,
    error ? el("p", { class: "error", id: `${id}-error` }, error) : null,
    block.hint ? el("p", { class: "hint", id: `${id}-hint` }, text(block.hint, ctx)) : null);
}
