/**
 * What the page saw and no table of the exchange has: how the own equity went,
 * and the best bids and offers. The tab keeps it when it is loaded again. With
 * another match or round it begins again.
 */

const SAVED = "exchange-record"; // in sessionStorage
const CURVE_KEPT = 3_600; // points of the equity curve
const QUOTES_KEPT = 800; // changes of the best prices of one instrument
const SYMBOLS_SAVED = 50; // 1.5 MB, of the 5 that a tab may keep

/** @import { Exchange } from "./exchange.js" */
/** @typedef {[number, number | null, number | null]} Quote time, bid, ask */

export class Recorder {
  constructor() {
    /** @type {string | null} what is played */
    this.name = null;
    /** @type {string | null} whose equity it is */
    this.user = null;
    /** @type {[number, number][]} time and equity, oldest first */
    this.curve = [];
    /** @type {Map<string, Quote[]>} by symbol, oldest first */
    this.quotes = new Map();
  }

  /**
   * Note how all stands now; called once a second.
   * @param {Exchange} exchange
   */
  sample(exchange) {
    const { account, isLive, isLoggedIn, tickers, instruments } = exchange;
    if (!isLive) return;
    const now = exchange.now();
    this.#begin(exchange, now);
    for (const [symbol, { bid = null, ask = null }] of tickers) {
      const rows = this.quotes.get(symbol) ?? [];
      this.quotes.set(symbol, rows);
      dropFrom(rows, now);
      const [, ...before] = rows.at(-1) ?? [];
      if (before[0] === bid && before[1] === ask) continue;
      rows.push([now, bid, ask]);
      thin(rows, QUOTES_KEPT);
    }
    if (!account) this.#forget(); // after signing out nothing stays
    if (!account || !isLoggedIn || account.isStating) return;
    dropFrom(this.curve, now);
    this.curve.push([now, account.worth(tickers, instruments)]);
    thin(this.curve, CURVE_KEPT);
  }

  /**
   * Return the quote in force at each of these times, which ascend.
   * @param {string | null} symbol
   * @param {number[]} times
   */
  quotesAt(symbol, times) {
    const rows = this.quotes.get(symbol ?? "") ?? [];
    let next = 0;
    return times.map((ts) => {
      while (next < rows.length && rows[next][0] <= ts) next += 1;
      return rows[next - 1];
    });
  }

  /**
   * Begin again if another round or account is shown.
   * @param {Exchange} exchange
   * @param {number} now
   */
  #begin({ match, round, account }, now) {
    const name = `${match?.name ?? ""} ${round}`;
    const isSame = name === this.name;
    if (isSame && (!account || account.user === this.user)) return;
    const saved = load(now);
    const isKept = saved?.name === name;
    if (!isSame) {
      this.name = name;
      this.quotes = new Map(isKept ? saved.quotes : []);
    }
    if (!account) return;
    this.user = account.user;
    this.curve = isKept && saved.user === this.user ? saved.curve : [];
  }

  #forget() {
    this.user = null;
    this.curve = [];
  }

  /**
   * Keep all for when the page is loaded again.
   * @param {Exchange} exchange
   */
  save({ account }) {
    if (this.name === null) return;
    if (!account) this.#forget(); // signed out since the last sample
    const { name, user, curve } = this;
    const quotes = [...this.quotes].slice(0, SYMBOLS_SAVED);
    const text = JSON.stringify({ name, user, curve, quotes });
    sessionStorage.setItem(SAVED, text);
  }
}

/**
 * Return what was saved, without what is later than now.
 * @param {number} now
 */
function load(now) {
  try {
    const saved = JSON.parse(sessionStorage.getItem(SAVED) ?? "");
    for (const [, rows] of saved.quotes) dropFrom(rows, now);
    dropFrom(saved.curve, now);
    return saved;
  } catch {
    return null; // nothing, or by another version of this page
  }
}

/**
 * Drop the rows from a time on: a replay may jump back.
 * @param {[number, ...any][]} rows
 * @param {number} ts
 */
function dropFrom(rows, ts) {
  while ((rows.at(-1)?.[0] ?? -Infinity) >= ts) rows.pop();
}

/**
 * If there are more rows than `most`, drop every other one of the older.
 * @param {any[]} rows
 * @param {number} most
 */
function thin(rows, most) {
  if (rows.length <= most) return;
  const kept = rows.filter((_, n) => n % 2 || n > most / 2);
  rows.splice(0, rows.length, ...kept);
}
