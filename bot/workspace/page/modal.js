// Modals and confirmations, on the browser's own <dialog>: nothing behind it can be reached and Escape closes it.
import { el, icon } from "/page/dom.js";
import { renderBlocks } from "/page/blocks.js";
import { mrkdwn, plain } from "/page/mrkdwn.js";

const dialog = document.getElementById("modal");
const question = document.getElementById("confirm");
const REACHABLE = "button:not([disabled]), a[href], input, select, textarea, [tabindex='0']";
let open = { id: null, hash: null };
let opener = null;
let values = {};
let errors = {};
let busy = false;

/** Shows the view (or hides the dialog for null); redraws only when the view changed. */
export function showModal(view, context, calls) {
  if (!view) {
    open = { id: null, hash: null };
    if (dialog.open) leave();
    return;
  }
  if (view.id === open.id && view.hash === open.hash) return;
  if (view.id !== open.id) values = {};
  open = { id: view.id, hash: view.hash };
  errors = {};
  busy = false;
  draw(view, context, calls);
}

/** Opens the modal and remembers which control had the focus: that control may be drawn anew in the meantime. */
function enter() {
  opener = document.activeElement?.dataset.focus ?? null;
  dialog.showModal();
}

function leave() {
  dialog.close();
  if (opener && document.activeElement === document.body) document.querySelector(`[data-focus="${CSS.escape(opener)}"]`)?.focus();
}

/** Tab goes round inside the dialog; without this it would leave for the browser's own buttons. */
function goRound(event) {
  if (event.key !== "Tab") return;
  const stops = [...event.currentTarget.querySelectorAll(REACHABLE)].filter((node) => node.checkVisibility());
  const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
  if (document.activeElement !== from) return;
  event.preventDefault();
  to.focus();
}
for (const box of [dialog, question]) box.addEventListener("keydown", goRound);

function draw(view, context, calls) {
  const focused = dialog.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const scrolled = dialog.querySelector(".modal-body")?.scrollTop ?? 0;
  const ctx = { ...context, surface: "modal", values, errors, act: (body, node, confirm) => context.act({ ...body, view_id: view.id, values }, node, confirm) };
  const shut = () => calls.close(view);
  const inputs = view.blocks.some((block) => block.type === "input");
  const form = el("form", { novalidate: true },
    el("header", {}, el("h2", { id: "modal-title" }, plain(view.title?.text ?? "")),
      el("button", { type: "button", class: "icon", "aria-label": "Close", onclick: shut }, icon("close"))),
    el("div", { class: "modal-body" }, renderBlocks(view.blocks, ctx), errors.general ? el("p", { class: "error", role: "alert" }, errors.general) : null),
    el("footer", {},
      el("button", { type: "button", class: "button", onclick: shut, "data-focus": "modal-close" }, plain(view.close?.text ?? (view.submit ? "Cancel" : "Close"))),
      view.submit || inputs ? el("button", { type: "submit", class: "button primary", "data-focus": "modal-submit" }, plain(view.submit?.text ?? "Submit")) : null));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    form.classList.add("busy");
    const answer = await calls.submit(view, values);
    busy = false;
    form.classList.remove("busy");
    if (answer.ok || open.id !== view.id) return;
    errors = answer.errors ?? { general: answer.message ?? "That did not work. Please try again." };
    draw(view, context, calls);
    (dialog.querySelector("[aria-invalid], .wrong input, .wrong select") ?? dialog.querySelector(".button.primary"))?.focus();
  });
  dialog.replaceChildren(form);
  dialog.oncancel = (event) => { event.preventDefault(); shut(); };
  if (!dialog.open) enter();
  dialog.querySelector(".modal-body").scrollTop = scrolled;
  const again = focused ? dialog.querySelector(`[data-focus="${CSS.escape(focused)}"]`) : null;
  (again ?? dialog.querySelector("[autofocus], .modal-body textarea, .modal-body input, .modal-body select, footer .primary, footer button"))?.focus();
}

/** Asks before something is done; resolves true when the person agrees. */
export function ask({ title, text, confirm, deny, style }, names) {
  return new Promise((resolve) => {
    const answer = (yes) => { question.close(); resolve(yes); };
    const rich = text?.type === "mrkdwn" ? mrkdwn(text.text, names) : plain(text?.text ?? "");
    question.replaceChildren(el("form", { method: "dialog" },
      el("header", {}, el("h2", { id: "confirm-title" }, plain(title?.text ?? "Are you sure?"))),
      el("div", { class: "modal-body rich" }, rich),
      el("footer", {},
        el("button", { type: "button", class: "button", onclick: () => answer(false) }, plain(deny?.text ?? "Cancel")),
        el("button", { type: "button", class: `button ${style ?? "primary"}`, onclick: () => answer(true) }, plain(confirm?.text ?? "Yes")))));
    question.oncancel = (event) => { event.preventDefault(); answer(false); };
    question.showModal();
    question.querySelector("footer .button").focus();
  });
}
