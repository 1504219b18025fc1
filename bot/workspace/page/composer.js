// The message box: Enter sends, Shift+Enter breaks the line, "@" offers people and "/" offers commands.
import { el, icon } from "/page/dom.js";

/** Makes a composer; `offers(kind)` lists what "@" or "/" may complete to, `send(text)` resolves when it was taken. */
export function composer({ id, label, offers, send, draft, onDraft }) {
  const box = el("textarea", {
    id, rows: 1, "aria-label": label, placeholder: label, maxlength: 40000, autocomplete: "off", "data-focus": id,
    "aria-autocomplete": "list", "aria-controls": `${id}-offers`,
  });
  const list = el("ul", { class: "offers", id: `${id}-offers`, role: "listbox", "aria-label": "Suggestions", hidden: true });
  const button = el("button", { type: "submit", class: "send", "aria-label": "Send" }, icon("send"));
  const mention = el("button", { type: "button", class: "icon", "aria-label": "Mention somebody", title: "Mention somebody" }, icon("at"));
  const form = el("form", { class: "composer" }, list, box, el("div", { class: "composer-tools" }, mention, el("span", { class: "hint" }, "Enter sends, Shift+Enter for a new line"), button));
  let active = -1;

  const grow = () => {
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight, 220)}px`;
    button.disabled = !box.value.trim();
  };
  const word = () => /(^|\s)([@/][\w. ]*)$/.exec(box.value.slice(0, box.selectionStart));
  const hide = () => { list.hidden = true; active = -1; box.removeAttribute("aria-activedescendant"); };
  const mark = () => {
    [...list.children].forEach((item, index) => item.setAttribute("aria-selected", index === active ? "true" : "false"));
    if (active >= 0) box.setAttribute("aria-activedescendant", list.children[active].id);
  };
  const take = (offer) => {
    const found = word();
    const start = box.selectionStart - found[2].length;
    box.setRangeText(`${offer.insert} `, start, box.selectionStart, "end");
    hide(); changed(); box.focus();
  };
  const suggest = () => {
    const found = word();
    const atStart = found && box.selectionStart === found[2].length;
    const typed = found?.[2].toLowerCase();
    const fitting = found && (typed[0] === "@" || atStart)
      ? offers(typed[0]).filter((offer) => offer.insert.toLowerCase().startsWith(typed)) : [];
    if (!fitting.length) { hide(); return; }
    list.replaceChildren(...fitting.map((offer, index) => {
      const item = el("li", { role: "option", id: `${id}-offer-${index}` }, el("strong", {}, offer.insert), el("span", {}, offer.hint));
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(offer); });
      return item;
    }));
    list.fitting = fitting;
    list.hidden = false;
    active = 0;
    mark();
  };
  const changed = () => { grow(); onDraft(box.value); };
  box.addEventListener("input", () => { changed(); suggest(); });
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    if (!list.hidden) {
      const count = list.children.length;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        active = (active + (event.key === "ArrowDown" ? 1 : count - 1)) % count;
        mark();
        return;
      }
      if (event.key === "Enter" || event.key === "Tab") { event.preventDefault(); take(list.fitting[active]); return; }
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); hide(); return; }
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  });
  mention.addEventListener("click", () => {
    const gap = box.value && !/\s$/.test(box.value.slice(0, box.selectionStart)) ? " @" : "@";
    box.setRangeText(gap, box.selectionStart, box.selectionEnd, "end");
    box.focus(); changed(); suggest();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text) return;
    box.value = "";
    hide(); changed();
    if (!(await send(text)) && !box.value) { box.value = text; changed(); }
  });
  box.value = draft;
  requestAnimationFrame(grow);
  return form;
}
