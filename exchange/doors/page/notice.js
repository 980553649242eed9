/** A bad message over the page, if the list of messages is out of sight. */

import { byId, put } from "./dom.js";

/** @import { Exchange } from "./exchange.js" */
/** @import { Note } from "./notes.js" */

const SHOWN_MS = 10_000;

export class Notice {
  /** @type {Note | undefined} the newest bad message that was considered */
  #seen;
  /** @type {number | undefined} timer */
  #end;

  constructor() {
    byId("notice-close").onclick = () => this.#hide();
  }

  /** @param {Exchange} exchange */
  draw({ messages, isOpen }) {
    const newest = messages.find(({ isBad }) => isBad);
    if (newest === this.#seen) return;
    this.#seen = newest;
    // The head says what is wrong with the connection.
    if (!newest || !isOpen || isInSight(byId("news"))) return;
    // So does the ticket with its own orders.
    const result = byId("ticket-result");
    if (result.textContent === newest.text && isInSight(result)) return;
    put(byId("notice-text"), newest.text);
    byId("notice").hidden = false;
    clearTimeout(this.#end);
    this.#end = setTimeout(() => this.#hide(), SHOWN_MS);
  }

  #hide() {
    clearTimeout(this.#end);
    byId("notice").hidden = true;
  }
}

/** @param {HTMLElement} node */
function isInSight(node) {
  const { top, bottom } = node.getBoundingClientRect();
  return node.checkVisibility() && bottom > 0 && top < innerHeight;
}
