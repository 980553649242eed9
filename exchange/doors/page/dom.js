/** The document: elements, rows that are reused, forms. Only text, no markup. */

import { tickOf } from "./market.js";

/**
 * Return an element of the page, of whatever kind it is there.
 * @returns {any}
 */
export const byId = (id) => document.getElementById(id);

/** Change the text of an element if it differs. */
export function put(node, text) {
  if (node.shownText === text) return;
  node.shownText = text;
  node.textContent = text;
}

export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) put(node, text);
  return node;
}

export function makeButton(text, act) {
  const button = make("button", "", text);
  button.type = "button";
  button.onclick = act;
  return button;
}

/** Rows of cells with these classes: `count`, and more when needed first. */
export class Rows {
  constructor(body, classes, count = 0) {
    this.body = body;
    this.classes = classes;
    this.empty = body.closest(".rows")?.querySelector(".empty");
    this.rows = [];
    while (this.rows.length < count) this.#add();
  }

  /** Show the texts of each row, and its class; words if there is none. */
  draw(items) {
    while (this.rows.length < items.length) this.#add();
    for (const [index, row] of this.rows.entries()) {
      const item = items[index];
      row.hidden = !item;
      if (!item) continue;
      item.texts.forEach((text, column) => put(row.cells[column], text));
      if (row.className !== item.className) row.className = item.className;
    }
    if (this.empty) this.empty.hidden = items.length > 0;
  }

  #add() {
    const row = make("tr");
    row.hidden = true;
    row.append(...this.classes.map((name) => make("td", name)));
    this.body.append(row);
    this.rows.push(row);
  }
}

/**
 * Call `act` with the fields of a form, and the button pressed, instead of
 * leaving the page. `clear` is called when the browser finds a field invalid:
 * an older result must not stand below its words.
 */
export function onSubmit(form, act, clear = () => {}) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(form.elements, event.submitter);
  });
  form.addEventListener("invalid", clear, true);
  // A key that is held down submits again and again.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.repeat) event.preventDefault();
  });
}

export function onClose(dialog) {
  dialog.querySelector("[value=close]").onclick = () => dialog.close();
}

/** Give a field the bounds of an instrument's price. */
export function boundPrice(field, instrument) {
  const tick = tickOf(instrument);
  field.step = tick.size;
  field.min = tick.plain(instrument.min_price);
  field.max = tick.plain(instrument.max_price);
}

/** Show a field, or hide it where it means nothing. */
export function offer(field, isOffered) {
  field.disabled = !isOffered;
  field.closest(".field, label").hidden = !isOffered;
}

/** Offer these values in a select; keep the choice if it is still there. */
export function offerValues(select, values) {
  const kept = [...select.options].filter(({ value }) => !value);
  const known = [...select.options].map(({ value }) => value).filter(Boolean);
  if (known.join() === values.join()) return;
  const chosen = select.value;
  select.replaceChildren(
    ...kept,
    ...values.map((value) => new Option(value, value)),
  );
  select.value = values.includes(chosen) ? chosen : (kept[0]?.value ?? "");
}

/** Tabs: a click or an arrow key shows the panel of one of them. */
export function setUpTabs(list) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.ariaSelected = isChosen;
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
  };
  for (const [n, tab] of tabs.entries()) {
    tab.onclick = () => choose(tab);
    tab.onkeydown = ({ key }) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (!by) return;
      const next = tabs.at((n + by) % tabs.length);
      choose(next);
      next.focus();
    };
  }
  choose(tabs[0]);
}

/** Hand the reader a file. */
export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Return rows of objects as CSV, with a column for each of these fields. */
export function toCsv(fields, rows) {
  const quote = (value) => {
    const text = String(value ?? "");
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = rows.map((row) => fields.map((name) => quote(row[name])));
  return [fields, ...lines].map((cells) => `${cells.join()}\n`).join("");
}
