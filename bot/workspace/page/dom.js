// Small building blocks for the page: elements, icons, keyed lists. Text always goes in as text nodes.

/** Makes an element: el("button", {class: "x", onclick: f}, child, "text"). Null children are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else node.setAttribute(key, String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  hash: "M9 4L7 20M17 4l-2 16M4 9h16M3 15h16",
  lock: "M7 11V8a5 5 0 0 1 10 0v3M6 11h12v9H6z",
  home: "M4 11l8-7 8 7v9h-5v-6H9v6H4z",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM3 20c0-4 2.700-6 6-6s6 2 6 6M16 4.500a3.500 3.500 0 0 1 0 6.500M17.500 14.500c2.500.600 3.500 2.500 3.500 5.500",
  reply: "M10 6L4 12l6 6M4 12h10a6 6 0 0 1 6 6",
  edit: "M4 20l1-5L16 4l4 4L9 19zM14 6l4 4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  send: "M4 12l16-8-5 16-4-6z",
  up: "M7 11v9H4v-9zM7 11l4-8c2 0 3 1 2.500 3L13 9h6c1.500 0 2 1 1.700 2.300l-1.500 7c-.200 1-1 1.700-2 1.700H7",
  down: "M17 13V4h3v9zM17 13l-4 8c-2 0-3-1-2.500-3l.500-3H5c-1.500 0-2-1-1.700-2.300l1.500-7C5 4.700 5.800 4 6.800 4H17",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7-10-7-10-7zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  moon: "M20 14.500A8 8 0 0 1 9.500 4 8 8 0 1 0 20 14.500z",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  at: "M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0zM16 8v5.500a2.500 2.500 0 0 0 5 0V12a9 9 0 1 0-4 7.500",
};

/** A line icon, hidden from screen readers. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon-svg");
  svg.dataset.name = name;
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Updates a list in place: items keep their node while `sign(item)` stays the same; focus survives a redraw. */
export function reconcile(list, items, key, sign, draw) {
  const old = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let cursor = list.firstElementChild;
  for (const item of items) {
    const id = key(item);
    const signature = sign(item);
    let node = old.get(id);
    old.delete(id);
    if (!node || node.dataset.sign !== signature) {
      const fresh = draw(item);
      fresh.dataset.key = id;
      fresh.dataset.sign = signature;
      if (node) {
        const focus = node.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
        if (cursor === node) cursor = fresh;
        node.replaceWith(fresh);
        if (focus) fresh.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
      }
      node = fresh;
    }
    if (node === cursor) cursor = cursor.nextElementSibling;
    else list.insertBefore(node, cursor);
  }
  for (const node of old.values()) node.remove();
}

/** A popup menu under a button; Escape and a click outside close it, arrows move. */
export function openMenu(button, entries) {
  document.querySelector(".menu")?.remove();
  const menu = el("div", { class: "menu", role: "menu" });
  const close = (refocus) => {
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    if (refocus) button.focus();
  };
  const outside = (event) => { if (!menu.contains(event.target) && !button.contains(event.target)) close(false); };
  for (const entry of entries) {
    const item = el("button", { type: "button", role: "menuitem", class: entry.danger ? "danger" : null }, entry.label,
      entry.description ? el("small", {}, entry.description) : null);
    item.addEventListener("click", () => { close(true); entry.run(); });
    menu.append(item);
  }
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.children];
    const at = items.indexOf(document.activeElement);
    if (event.key === "Escape") { event.stopPropagation(); event.preventDefault(); close(true); }
    else if (event.key === "ArrowDown") { event.preventDefault(); items[(at + 1) % items.length].focus(); }
    else if (event.key === "ArrowUp") { event.preventDefault(); items[(at - 1 + items.length) % items.length].focus(); }
    else if (event.key === "Tab") close(false);
  });
  (button.closest("dialog") ?? document.body).append(menu);
  const box = button.getBoundingClientRect();
  const left = Math.min(box.left, window.innerWidth - menu.offsetWidth - 8);
  const below = box.bottom + menu.offsetHeight + 8 < window.innerHeight;
  menu.style.left = `${Math.max(8, left)}px`;
  menu.style.top = `${below ? box.bottom + 4 : box.top - menu.offsetHeight - 4}px`;
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  menu.firstElementChild?.focus();
}
