/**
 * What everybody may see: instruments, prices, one book with its trades and
 * candles, the leaderboard and the news. It follows the sequence rules of
 * docs/PROTOCOL.md. The owner is told the name of each part that has changed,
 * and reads it when it draws.
 */

import { Link } from "./link.js";
import { Book, Candles, describeNews, TRADES_KEPT, Trades } from "./market.js";

const MESSAGES_KEPT = 50;
const NEWS = 5; // past ones that are shown
export const ROWS = 1_000; // most rows of a table
const MATCH_MS = 200; // after a change, to ask once for several of them

export class Feed extends Link {
  constructor(url, publish) {
    super(url, publish);
    this.instruments = new Map(); // by symbol
    this.tickers = new Map(); // by symbol
    this.leaderboard = [];
    this.messages = []; // { ts, text, isBad }, the newest first
    this.news = null; // the newest
    this.round = 1;
    this.speed = "1"; // of the exchange's time
    this.match = null; // what is played
    this.closes = new Map(); // by symbol: close_ts or close_left_ms
    this.seen = { ts: 0, at: 0 }; // its time in us, and ours then in ms
    this.symbol = null; // the instrument shown
    this.interval = "1s";
    this.#begin();
  }

  #isBack = true; // false between "Connection lost" and "Connected again"
  #asking = null; // timer of the next question what is played
  #awaitsBook = false; // subscribed, and no snapshot has arrived yet
  #isAnswer = false; // the next snapshot answers our subscribe
  #awaitsHistory = false;

  /** Return the instrument shown, or undefined. */
  get instrument() {
    return this.instruments.get(this.symbol);
  }

  /** Show another instrument; the first one if it is not listed. */
  show(name) {
    const [first] = this.instruments.keys();
    const isListed = first === undefined || this.instruments.has(name);
    const symbol = isListed ? name : first;
    if (symbol === this.symbol) return;
    const before = this.symbol;
    this.symbol = symbol;
    this.#begin();
    if (this.isOpen && first !== undefined) this.#follow(before);
    this.publish("market");
  }

  /** Show candles of another interval. */
  showCandles(interval) {
    this.interval = interval;
    this.candles = new Candles(interval);
    if (this.isOpen && this.symbol) this.fetchHistory();
    this.publish("trades");
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

  /** Show a message. */
  note(text, isBad = false, ts = Date.now() * 1_000) {
    this.messages.unshift({ ts, text, isBad });
    this.messages.length = Math.min(this.messages.length, MESSAGES_KEPT);
    this.publish("messages");
  }

  // Subscriptions -----------------------------------------------------------

  /** Forget all data of the instrument shown. */
  #begin() {
    this.book = new Book();
    this.trades = new Trades();
    this.candles = new Candles(this.interval);
    this.isLive = false;
  }

  #fetchInstruments() {
    this.send(
      [
        { type: "get", what: "instruments", limit: ROWS },
        { type: "subscribe", channels: ["ticker"] },
        { type: "get", what: "news", limit: NEWS },
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
        if (!this.instruments.has(this.symbol)) {
          this.symbol = rows[0]?.symbol ?? null;
        }
        this.#begin();
        if (this.symbol) this.#follow(null);
        this.fetchLeaderboard();
        this.fetchMatch();
        this.publish("market");
      },
      undefined,
      (reply) => reply?.data?.forEach((news) => this.#receiveNews(news)),
    );
  }

  /** Subscribe to the instrument shown, and unsubscribe from `before`. */
  #follow(before) {
    const channels = ["book", "trades"];
    const requests = [
      { type: "subscribe", channels, symbols: [this.symbol] },
    ];
    if (before) {
      requests.push({ type: "unsubscribe", channels, symbols: [before] });
    }
    this.#subscribe(requests, () => this.#follow(before));
    this.fetchHistory();
  }

  /** Ask for a new snapshot of the book, because an update is missing. */
  #followBook() {
    if (this.#awaitsBook) return;
    this.isLive = false;
    this.publish("connection");
    const symbols = [this.symbol];
    this.#subscribe(
      [{ type: "subscribe", channels: ["book"], symbols }],
      () => this.#followBook(),
    );
  }

  #subscribe(requests, again) {
    const { symbol } = this;
    this.#awaitsBook = true;
    this.send(requests, (reply) => {
      if (!reply || symbol !== this.symbol) return;
      if (reply.type === "ok") this.#isAnswer = true;
      else {
        this.#awaitsBook = false;
        this.later(reply, again);
      }
    });
  }

  /** Ask for trades and candles of the same moment. */
  fetchHistory() {
    const { symbol, interval } = this;
    let rows;
    this.#awaitsHistory = true;
    this.send(
      [
        { type: "get", what: "trades", symbol, limit: TRADES_KEPT },
        { type: "get", what: "candles", symbol, interval, limit: ROWS },
      ],
      (reply) => (rows = reply?.data),
      (reply) => {
        if (!reply || symbol !== this.symbol) return;
        if (interval !== this.interval) return; // a newer request is sent
        this.#awaitsHistory = false;
        if (!rows || !reply.data) {
          this.later(reply, () => this.fetchHistory());
          return;
        }
        this.trades.fill(rows);
        this.candles.fill(reply.data, rows.at(-1)?.trade_id ?? 0);
        this.publish("trades");
      },
    );
  }

  /** Ask soon over HTTP what is played, and until when. */
  fetchMatch() {
    this.#asking ??= setTimeout(async () => {
      this.#asking = null;
      if (!this.isOpen) return;
      try {
        const answer = await fetch("v1/match");
        if (!answer.ok) return;
        const { ts, match, instruments } = await answer.json();
        this.match = match ?? null;
        this.closes = new Map(instruments.map((row) => [row.symbol, row]));
        this.seen = { ts, at: Date.now() };
        this.publish("match");
      } catch {
        // The next change, or the next connection, asks again.
      }
    }, MATCH_MS);
  }

  // Messages ----------------------------------------------------------------

  #receiveBook(message) {
    if (message.symbol !== this.symbol) return;
    const isAnswer = this.#isAnswer && message.snapshot === true;
    const outcome = this.book.take(message, isAnswer);
    if (isAnswer) {
      this.#isAnswer = this.#awaitsBook = false;
      this.isLive = true;
      if (!this.#isBack) this.note("Connected again");
      this.#isBack = true;
      this.publish("connection");
    }
    if (outcome === "gap") this.#followBook();
    if (outcome === "taken") this.publish("book");
  }

  #receiveTrade(trade) {
    if (trade.symbol !== this.symbol) return;
    const outcome = this.trades.take(trade);
    if (outcome === "old") return;
    this.candles.take(trade);
    if (outcome === "gap" && !this.#awaitsHistory) this.fetchHistory();
    this.publish("trades");
  }

  #receiveNews(news) {
    if (this.news && news.news_id <= this.news.news_id) return;
    this.news = news;
    this.note(`News: ${describeNews(news)}`, false, news.ts);
    this.publish("news");
  }

  #receiveStatus({ ts, symbol, phase, message, round }) {
    this.enterRound(round);
    const instrument = this.instruments.get(symbol);
    if (instrument && phase) {
      this.instruments.set(symbol, { ...instrument, phase });
      this.fetchMatch();
      this.publish("market");
    }
    const words = [symbol, phase?.replaceAll("_", " "), message];
    this.note(words.filter(Boolean).join(": "), false, ts);
  }

  /** Note the number of the round; a new one has candles of its own. */
  enterRound(round = 1) {
    if (round <= this.round) return;
    this.round = round;
    if (this.isOpen && this.symbol) this.fetchHistory();
    this.publish("news");
  }

  /** Note how many times as fast as ours the exchange's time runs. */
  setSpeed(speed = "1") {
    if (speed === this.speed) return;
    this.speed = speed;
    this.publish("connection");
  }

  /** Take a message that everybody gets. */
  receive(message) {
    switch (message.type) {
      case "book":
        this.#receiveBook(message);
        break;
      case "trade":
        this.#receiveTrade(message);
        break;
      case "ticker":
        this.tickers.set(message.symbol, message);
        this.publish("tickers");
        break;
      case "status":
        this.#receiveStatus(message);
        break;
      case "news":
        this.#receiveNews(message);
        break;
      case "match":
        this.fetchMatch();
        break;
      case "bust":
        if (message.symbol === this.symbol) this.fetchHistory();
        break;
      case "heartbeat":
        this.setSpeed(message.speed);
        if (this.isLive && message.seq[this.symbol] > this.book.held) {
          this.#followBook();
        }
        break;
      case "error":
        if (message.id === undefined) this.note(message.message, true);
        break;
    }
  }

  greet() {
    this.#fetchInstruments();
  }

  dropped() {
    this.isLive = false;
    this.#awaitsBook = this.#awaitsHistory = this.#isAnswer = false;
  }

  ended(code, reason, wasLive) {
    if (!wasLive) return;
    this.#isBack = false;
    this.note(`Connection lost${reason ? `: ${reason}` : ""}`, true);
  }
}
