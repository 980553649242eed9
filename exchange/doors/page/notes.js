/**
 * The messages shown: what the page says itself, and what the exchange told
 * everybody, in the order of time. Pure: no clock, no document.
 */

import { describeNews } from "./market.js";

const KEPT = 100;
const NAMED = 3; // instruments in one message

/** @typedef {{ ts: number, text: string, isBad: boolean, body: string }} Note */

export class Notes {
  /** @type {Note[]} */
  #own = [];
  /** @type {Map<string, Note & { symbols?: Set<string> }>} by a key that a message has in an event and in a table */
  #told = new Map();

  /** @type {Note[]} the newest first */
  list = [];

  /**
   * Add what the page says itself.
   * @param {number} ts
   * @param {string} text
   * @param {boolean} isBad
   */
  say(ts, text, isBad) {
    this.#own.push({ ts, text, isBad, body: "" });
    this.#own.splice(0, this.#own.length - KEPT);
    this.#sort();
  }

  /**
   * Add a `news` or `status` of the exchange.
   * @param {(Wire.News | Wire.Status)[]} messages
   */
  tell(...messages) {
    for (const message of messages) {
      if (message.type === "news") {
        this.#told.set(`news ${message.ts} ${message.news_id}`, ofNews(message));
      } else this.#tellStatus(message);
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

  /**
   * Add a status; those of one command about many instruments are one.
   * @param {Wire.Status} status
   */
  #tellStatus({ ts, symbol, phase, message }) {
    const words = [phase?.replaceAll("_", " "), message].filter(Boolean);
    const key = `status ${ts} ${words.join()}`;
    const symbols = new Set(this.#told.get(key)?.symbols);
    if (symbol) symbols.add(symbol);
    const [shown, rest] = [[...symbols].slice(0, NAMED), symbols.size - NAMED];
    const more = rest > 0 ? ` and ${rest} more` : "";
    const text = [shown.join(", ") + more, ...words].filter(Boolean).join(": ");
    if (text) this.#told.set(key, { ts, text, isBad: false, body: "", symbols });
  }

  /** The status that goes with news, with its reason, says nothing more. */
  #sort() {
    const told = [...this.#told.values()];
    const news = new Set(told.filter((n) => !n.symbols).map(({ ts }) => ts));
    const more = told.filter((n) => !n.symbols || !news.has(n.ts));
    this.list = [...this.#own, ...more]
      .sort((a, b) => b.ts - a.ts)
      .slice(0, KEPT);
  }
}

/** @param {Wire.News} news */
function ofNews(news) {
  const { ts, body = "" } = news;
  return { ts, text: `News: ${describeNews(news)}`, isBad: false, body };
}
