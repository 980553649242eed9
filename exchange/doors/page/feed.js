/**
 * The instrument shown: its book, trades and candles, by the sequence rules of
 * docs/PROTOCOL.md.
 */

import { Board, ROWS } from "./board.js";
import {
  Book,
  Candles,
  CANDLES_KEPT,
  INTERVALS,
  Trades,
  TRADES_KEPT,
} from "./market.js";

/** @import { Publish, Request } from "./link.js" */
/** @import { Interval } from "./market.js" */

/** @abstract */
export class Feed extends Board {
  /**
   * @param {URL} url
   * @param {Publish} publish
   */
  constructor(url, publish) {
    super(url, publish);
    this.showsEarlier = false; // trades and fills of earlier rounds too
    /** @type {string | null} the instrument shown */
    this.symbol = null;
    /** @type {Interval} */
    this.interval = "1s";
    this.book = new Book();
    this.trades = new Trades();
    this.candles = new Candles(this.interval);
  }

  #isBack = true; // false between "Connection lost" and "Connected again"
  #awaitsBook = false; // subscribed, and no snapshot has arrived yet
  #isAnswer = false; // the next snapshot answers our subscribe
  #awaitsHistory = false;
  /** @type {[string, number] | null} the last trade before a reconnect */
  #traded = null;

  /** Return the instrument shown, or undefined. */
  get instrument() {
    return this.symbol === null ? undefined : this.instruments.get(this.symbol);
  }

  /**
   * Return whether a trade or fill belongs to what is shown.
   * @param {{ round?: number }} row
   */
  isShown({ round = 1 }) {
    return this.showsEarlier || round === this.round;
  }

  /**
   * Show another instrument; the first one if it is not listed.
   * @param {string} name
   */
  show(name) {
    const [first] = this.instruments.keys();
    const isListed = first === undefined || this.instruments.has(name);
    const symbol = isListed ? name : first;
    if (name && !isListed) this.note(`${name} is not listed`, true);
    if (symbol !== this.symbol) {
      const before = this.symbol;
      this.symbol = symbol;
      this.#begin();
      if (this.isOpen && first !== undefined) this.#follow(before);
    }
    this.publish("market");
  }

  /**
   * Show candles of another interval.
   * @param {Interval} interval
   */
  showCandles(interval) {
    this.interval = interval;
    this.candles = new Candles(interval);
    if (this.isOpen && this.symbol) this.fetchHistory();
    this.publish("trades");
  }

  /** Show trades and fills of earlier rounds, or hide them. */
  showEarlier(isWanted) {
    this.showsEarlier = isWanted;
    this.publish("market");
  }

  // Subscriptions -----------------------------------------------------------

  /** Forget all data of the instrument shown. */
  #begin() {
    this.book = new Book();
    this.trades = new Trades();
    this.candles = new Candles(this.interval);
    this.isLive = false;
  }

  /**
   * Subscribe to the instrument shown, and unsubscribe from `before`.
   * @param {string | null} before
   */
  #follow(before) {
    if (this.symbol === null) return;
    /** @type {Wire.Subscribe["channels"]} */
    const channels = ["book", "trades"];
    /** @type {Request[]} */
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
    if (this.#awaitsBook || this.symbol === null) return;
    this.isLive = false;
    this.publish("connection");
    const symbols = [this.symbol];
    this.#subscribe(
      [{ type: "subscribe", channels: ["book"], symbols }],
      () => this.#followBook(),
    );
  }

  /**
   * @param {Request[]} requests
   * @param {() => void} again
   */
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
    if (symbol === null) return;
    /** @type {Wire.Trade[] | undefined} */
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
        this.#compareTrades(rows);
        this.trades.fill(rows);
        const isWhole = reply.data.length < ROWS;
        this.candles.fill(reply.data, rows.at(-1)?.trade_id ?? 0, isWhole);
        if (!isWhole) this.#fetchOlder();
        this.publish("trades");
      },
    );
  }

  /** Ask for candles that are kept and were too many for one answer. */
  #fetchOlder() {
    const { symbol, interval, candles } = this;
    const newest = candles.rows.at(-1)?.[0] ?? 0;
    const after = newest - CANDLES_KEPT * INTERVALS[interval];
    if (!symbol) return;
    /** @type {Request} */
    const table = {
      ...{ type: "get", what: "candles", symbol, interval },
      ...{ after, limit: ROWS },
    };
    this.send([table], (reply) => {
      if (!reply?.data || candles !== this.candles) return;
      candles.extend(reply.data);
      this.publish("trades");
    });
  }

  /**
   * Say so if the exchange no longer knows the trades that we saw.
   * @param {Wire.Trade[]} rows
   */
  #compareTrades(rows) {
    const [symbol, last = 0] = this.#traded ?? [];
    this.#traded = null;
    if (symbol !== this.symbol || (rows.at(-1)?.trade_id ?? 0) >= last) return;
    this.restarted();
  }

  // Messages ----------------------------------------------------------------

  /** @param {Wire.Book} message */
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

  /** @param {Wire.Trade} trade */
  #receiveTrade(trade) {
    if (trade.symbol !== this.symbol) return;
    const outcome = this.trades.take(trade);
    if (outcome === "old") return;
    this.candles.take(trade);
    if (!trade.is_self) this.prices.take(trade.symbol, trade.price, trade.ts);
    if (outcome === "gap" && !this.#awaitsHistory) this.fetchHistory();
    this.publish("trades");
  }

  /**
   * Take a message that everybody gets.
   * @param {Wire.Event} message
   */
  receive(message) {
    super.receive(message);
    switch (message.type) {
      case "book":
        this.#receiveBook(message);
        break;
      case "trade":
        this.#receiveTrade(message);
        break;
      case "bust":
        if (message.symbol === this.symbol) this.fetchHistory();
        break;
      case "heartbeat":
        this.#compareBook(message.seq[this.symbol ?? ""]);
        break;
    }
  }

  /**
   * Ask for the book again if messages about it are missing.
   * @param {number} [seq] of the last one that was sent
   */
  #compareBook(seq = 0) {
    if (this.isLive && seq > (this.book.held ?? 0)) this.#followBook();
  }

  /** The list of instruments came: follow the one shown, or the first. */
  listed() {
    if (!this.instrument) {
      if (this.symbol) this.note(`${this.symbol} is not listed`, true);
      [this.symbol = null] = this.instruments.keys();
    }
    this.#begin();
    if (this.symbol) this.#follow(null);
  }

  /** A new round is a new picture. */
  roundBegan() {
    this.trades = new Trades();
    this.candles = new Candles(this.interval);
    if (this.isOpen && this.symbol) this.fetchHistory();
  }

  /** Ask for everything again: another moment is shown. */
  restart() {
    this.trades = new Trades(); // of another time: they are not missing
    this.news = null;
    this.round = 1;
    this.greetAgain();
  }

  dropped() {
    const { symbol, trades } = this;
    if (symbol && trades.last) this.#traded = [symbol, trades.last];
    this.isLive = false;
    this.#awaitsBook = this.#awaitsHistory = this.#isAnswer = false;
  }

  /**
   * @param {number} code
   * @param {string} reason
   * @param {boolean} wasLive
   */
  ended(code, reason, wasLive) {
    if (!wasLive) return;
    this.#isBack = false;
    this.note(`Connection lost${reason ? `: ${reason}` : ""}`, true);
  }
}
