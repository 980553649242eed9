/**
 * The messages shown: what the page says itself, and what the exchange told
 * everybody, in the order of time. Pure: no clock, no document.
 */

import { describeNews } from "./market.js";

const KEPT = 100;

export class Notes {
  #own = []; // { ts, text, isBad, body }
  #told = new Map(); // by key, which a message has in an event and in a table

  /** The newest first. */
  list = [];

  /** Add what the page says itself. */
  say(ts, text, isBad) {
    this.#own.push({ ts, text, isBad, body: "" });
    this.#own.splice(0, this.#own.length - KEPT);
    this.#sort();
  }

  /** Add a `news` or `status` of the exchange. */
  tell(...messages) {
    for (const message of messages) {
      const note = message.type === "news" ? ofNews(message) : ofStatus(message);
      if (note.text) this.#told.set(`${message.ts} ${note.text}`, note);
    }
    const keys = [...this.#told.keys()];
    for (const key of keys.slice(0, Math.max(0, keys.length - 2 * KEPT))) {
      this.#told.delete(key);
    }
    this.#sort();
  }

  /** Forget what the exchange told: its tables follow. */
  forget() {
    this.#told.clear();
  }

  #sort() {
    this.list = [...this.#own, ...this.#told.values()]
      .sort((a, b) => b.ts - a.ts)
      .slice(0, KEPT);
  }
}

function ofNews(news) {
  const { ts, body = "" } = news;
  return { ts, text: `News: ${describeNews(news)}`, isBad: false, body };
}

function ofStatus({ ts, symbol, phase, message }) {
  const words = [symbol, phase?.replaceAll("_", " "), message];
  return { ts, text: words.filter(Boolean).join(": "), isBad: false, body: "" };
}
