/**
 * What everybody may see of the whole market: instruments, prices, news,
 * statuses, the leaderboard, the round. The owner is told the name of each
 * part that has changed, and reads it when it draws.
 */

import { Link } from "./link.js";
import { Notes } from "./notes.js";
import { Prices } from "./prices.js";

export const LIVE = "Live";
export const ROWS = 1_000; // most rows of a table
const TOLD = 50; // past news and statuses that are shown
const MATCH_MS = 200; // after a change, to ask once for several of them
const SPARK_ROWS = 300; // candles of a second for a spark line
const FRAME = 20; // instruments in one frame of questions

/** @import { Done, Publish, Request } from "./link.js" */
/** @import { Candle } from "./market.js" */
/**
 * A row of the leaderboard.
 * @typedef {{ rank: number, user: string, equity: number,
 *   positions: Record<string, number> }} Leader
 */
/** @typedef {Map<string, Wire.Instrument>} Instruments by symbol */
/** @typedef {Map<string, Wire.Ticker>} Tickers by symbol */

/** @abstract */
export class Board extends Link {
  /**
   * @param {URL} url
   * @param {Publish} publish
   */
  constructor(url, publish) {
    super(url, publish);
    /** @type {Instruments} */
    this.instruments = new Map();
    /** @type {Tickers} */
    this.tickers = new Map();
    this.prices = new Prices();
    /** @type {Leader[]} */
    this.leaderboard = [];
    this.notes = new Notes();
    /** @type {Wire.News | null} the newest */
    this.news = null;
    this.round = 1;
    this.speed = "1"; // of the exchange's time
    /** @type {Wire.MatchInfo | null} what is played */
    this.match = null;
    this.word = LIVE; // what it says while it is live
    /** @type {() => Promise<{ ok: boolean, json(): Promise<any> }>} */
    this.askMatch = () => fetch("v1/match");
    this.seen = { ts: 0, at: 0 }; // its time in us, and ours then in ms
  }

  /** @type {number | null} timer of the next question what is played */
  #asking = null;
  /** @type {Set<string>} symbols whose first price is known or asked for */
  #opening = new Set();

  // Those who build on it say what these do ---------------------------------

  /** The instruments are known. */
  listed() {}

  /** A new round began. */
  roundBegan() {}

  // -------------------------------------------------------------------------

  get messages() {
    return this.notes.list;
  }

  /** Return the exchange's time, in us. */
  now() {
    const { ts, at } = this.seen;
    if (!at) return Date.now() * 1_000;
    return ts + Math.round((Date.now() - at) * Number(this.speed) * 1_000);
  }

  /**
   * Show a message of the page itself.
   * @param {string} text
   */
  note(text, isBad = false, ts = this.now()) {
    this.notes.say(ts, text, isBad);
    this.publish("messages");
  }

  /** Ask for the leaderboard. */
  fetchLeaderboard() {
    if (!this.isOpen) return;
    this.send([{ type: "get", what: "leaderboard" }], (reply) => {
      if (!reply?.data) return;
      this.leaderboard = reply.data;
      this.publish("leaderboard");
    });
  }

  /**
   * Fetch a whole table, page by page. `keyOf` returns the `after` of a row;
   * `done` gets all rows, or undefined if the connection was lost.
   * @param {Pick<Wire.Get, "what" | "symbol">} request
   * @param {(row: any) => number} keyOf
   * @param {(rows?: any[]) => void} done
   * @param {any[]} rows so far
   */
  fetchAll(request, keyOf, done, rows = []) {
    if (!this.isOpen) {
      done(undefined);
      return;
    }
    const after = rows.length ? keyOf(rows.at(-1)) : 0;
    /** @type {Request} */
    const page = { type: "get", ...request, after, limit: ROWS };
    this.send([page], (reply) => {
      if (!reply) return done(undefined);
      if (!reply.data) {
        return this.later(reply, () =>
          this.fetchAll(request, keyOf, done, rows),
        );
      }
      const all = [...rows, ...reply.data];
      if (reply.data.length < ROWS) done(all);
      else this.fetchAll(request, keyOf, done, all);
    });
  }

  // Tables ------------------------------------------------------------------

  #fetchInstruments() {
    this.send(
      [
        { type: "get", what: "instruments", limit: ROWS },
        { type: "subscribe", channels: ["ticker"] },
        { type: "get", what: "statuses", limit: ROWS },
        { type: "get", what: "news", limit: TOLD },
      ],
      (reply) => {
        if (!reply) return;
        if (!reply.data) {
          this.later(reply, () => this.#fetchInstruments());
          return;
        }
        const rows = reply.data;
        this.instruments = new Map(rows.map((row) => [row.symbol, row]));
        this.tickers.clear();
        this.prices.clear();
        this.notes.forget();
        this.listed();
        this.fetchLeaderboard();
        this.#fetchMatch();
        this.#opening.clear();
        this.#fetchSparks([...this.instruments.keys()]);
        this.publish("market");
      },
      undefined,
      (reply) => this.#fillStatuses(reply?.data),
      (reply) => this.#fillNews(reply?.data),
    );
  }

  /**
   * Take all statuses that are kept; they tell the round, too.
   * @param {Wire.Status[]} [rows]
   */
  #fillStatuses(rows) {
    if (!rows) return;
    this.round = rows.at(-1)?.round ?? 1;
    this.notes.tell(...rows.slice(-TOLD));
    this.publish("market");
    this.publish("messages");
  }

  /** @param {Wire.News[]} [rows] */
  #fillNews(rows) {
    if (!rows) return;
    this.news = rows.at(-1) ?? null;
    this.notes.tell(...rows);
    this.publish("news");
    this.publish("messages");
  }

  /**
   * Ask for what opens prices and draws spark lines.
   * @param {string[]} symbols
   */
  #fetchSparks(symbols) {
    for (let start = 0; start < symbols.length; start += FRAME) {
      const some = symbols.slice(start, start + FRAME);
      /** @type {Map<string, Candle[] | undefined>} */
      const days = new Map();
      /** @type {Wire.Get} */
      const table = { type: "get", what: "candles" };
      /** @type {Wire.Get[]} */
      const requests = some.flatMap((symbol) => [
        { ...table, symbol, interval: "1d", limit: 1 },
        { ...table, symbol, interval: "1s", limit: SPARK_ROWS },
      ]);
      /** @type {Done[]} */
      const replies = some.flatMap((symbol) => [
        (reply) => days.set(symbol, reply?.data),
        (reply) => this.#fillSpark(symbol, days.get(symbol), reply),
      ]);
      for (const symbol of some) this.#opening.add(symbol);
      this.send(requests, ...replies);
    }
  }

  /**
   * @param {string} symbol
   * @param {Candle[] | undefined} day
   * @param {Wire.Reply} [reply]
   */
  #fillSpark(symbol, day, reply) {
    if (!reply) return;
    if (!day || !reply.data) {
      this.later(reply, () => this.#fetchSparks([symbol]));
      return;
    }
    // Its first trade asks again.
    if (!day.length) this.#opening.delete(symbol);
    this.prices.seed(symbol, day, reply.data);
    this.publish("tickers");
  }

  /** Ask soon what is played, and until when phases last. */
  #fetchMatch() {
    this.#asking ??= setTimeout(async () => {
      this.#asking = null;
      if (!this.isOpen) return;
      /** @type {Wire.Get} */
      const table = { type: "get", what: "instruments", limit: ROWS };
      this.send([table], (reply) => this.#updateTimes(reply?.data ?? []));
      try {
        const answer = await this.askMatch();
        if (!answer.ok) return;
        this.match = (await answer.json()).match ?? null;
        this.publish("match");
      } catch {
        // The next change, or the next connection, asks again.
      }
    }, MATCH_MS);
  }

  /**
   * Take reasons and times of instruments whose phase is as we know it.
   * @param {Wire.Instrument[]} rows
   */
  #updateTimes(rows) {
    for (const row of rows) {
      const known = this.instruments.get(row.symbol);
      if (known?.phase === row.phase) this.instruments.set(row.symbol, row);
    }
    this.publish("market");
  }

  // Messages ----------------------------------------------------------------

  greet() {
    this.seen = { ts: 0, at: 0 };
    this.#fetchInstruments();
  }

  /** @param {Wire.Event} message */
  receive(message) {
    if ("ts" in message && message.ts > this.seen.ts) {
      this.seen = { ts: message.ts, at: Date.now() };
    }
    switch (message.type) {
      case "ticker":
        this.tickers.set(message.symbol, message);
        this.prices.take(message.symbol, message.last, message.ts);
        this.#fetchOpen(message);
        this.publish("tickers");
        break;
      case "status":
        this.#receiveStatus(message);
        break;
      case "news":
        this.#receiveNews(message);
        break;
      case "match":
        this.#fetchMatch();
        break;
      case "heartbeat":
        this.setSpeed(message.speed);
        break;
      case "error":
        if (message.id === undefined) this.note(message.message, true);
        break;
    }
  }

  /**
   * Ask for the first price of an instrument that has begun to trade.
   * @param {Wire.Ticker} ticker
   */
  #fetchOpen({ symbol, last }) {
    if (last === undefined || this.#opening.has(symbol)) return;
    this.#fetchSparks([symbol]);
  }

  /** @param {Wire.Status} status */
  #receiveStatus(status) {
    const { symbol, phase, round, message: reason } = status;
    this.enterRound(round);
    const instrument = this.instruments.get(symbol ?? "");
    if (symbol && instrument && phase) {
      const { reopen_ts, close_ts, close_left_ms, ...rest } = instrument;
      this.instruments.set(symbol, { ...rest, phase, reason });
      this.#fetchMatch();
      this.publish("market");
    }
    this.notes.tell(status);
    this.publish("messages");
  }

  /** @param {Wire.News} news */
  #receiveNews(news) {
    if (this.news && news.news_id <= this.news.news_id) return;
    this.news = news;
    this.notes.tell(news);
    this.publish("messages");
    this.publish("news");
  }

  /** Note the number of the round. */
  enterRound(round = 1) {
    if (round <= this.round) return;
    this.round = round;
    this.prices.clear();
    this.#opening.clear();
    this.roundBegan();
    this.fetchLeaderboard();
    this.publish("round");
    this.publish("market");
    this.publish("news");
  }

  /** Note how many times as fast as ours the exchange's time runs. */
  setSpeed(speed = "1") {
    if (speed === this.speed) return;
    this.speed = speed;
    this.publish("connection");
  }

  /** The exchange started from nothing. */
  restarted() {
    this.note("The exchange started from nothing: its records are gone", true);
  }
}
