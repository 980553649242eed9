/**
 * One connection to the exchange, and the state that it has received.
 *
 * It speaks only docs/PROTOCOL.md, follows its sequence rules, and reconnects
 * by itself. State changes as messages arrive. The owner is told the name of
 * each part that has changed, and reads it when it draws.
 */

import {
  Account,
  Book,
  Candles,
  describeNews,
  tickOf,
  TRADES_KEPT,
  Trades,
} from "./market.js";

const BACKOFF_MIN_MS = 250; // longest pause before the first reconnect
const BACKOFF_MAX_MS = 10_000; // each failure doubles the pause up to this
const ABUSE_MS = 60_000; // added to the pause after close code 4002
const SILENCE_MS = 16_000; // three heartbeats of 5 s, and some delay
const RETRY_MS = 2_000; // after a refusal without retry_after_ms
const MESSAGES_KEPT = 50;
const NEWS = 5; // past ones that are shown
const ROWS = 1_000; // most rows of a table
const OUR_ORDERS = "page-"; // prefix of the client_order_ids made here
const MATCH_MS = 200; // after a change, to ask once for several of them
export const LIVE = "Live";
const UNKNOWN = "the outcome of the order is unknown";

export class Exchange {
  /**
   * `publish(what)` is called after each change of "connection", "market",
   * "book", "trades", "tickers", "leaderboard", "account", "news",
   * "match" or "messages";
   * `publish("reports", list)` with the unsolicited `exec` events of orders
   * placed here.
   */
  constructor(url, publish) {
    this.url = url;
    this.publish = publish;
    this.isLive = false; // the book shown is up to date
    this.isLoggedIn = false;
    this.trouble = ""; // why no connection opens; "": unknown
    this.retryAt = null; // time of the next try, ms since the epoch
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
    this.account = null;
    this.word = LIVE; // what it says while it is live
    this.guests = []; // other views: { greet(), receive(message) }
    this.askMatch = () => fetch("v1/match"); // answers as `fetch` does
    this.#begin();
    this.heard = Date.now();
    setInterval(() => this.#listen(), 1_000);
    this.#connect();
  }

  #socket = null;
  #credentials = null;
  #loggedIn = null; // called with the first reply to a login
  #replies = new Map(); // id -> called with the reply
  #id = 0;
  #failures = 0; // since the last heartbeat
  #hasOpened = false; // this connection has been open
  #isBack = true; // false between "Connection lost" and "Connected again"
  #retry = null; // timer of the next try
  #asking = null; // timer of the next question what is played
  #awaitsBook = false; // subscribed, and no snapshot has arrived yet
  #isAnswer = false; // the next snapshot answers our subscribe
  #awaitsHistory = false;
  #reports = []; // of the frame that is being read
  #uncertain = new Map(); // client_order_id -> done: placed, without a reply

  /** Return the instrument shown, or undefined. */
  get instrument() {
    return this.instruments.get(this.symbol);
  }

  // Actions -----------------------------------------------------------------

  /** Show another instrument; the first one if it is not listed. */
  show(name) {
    const [first] = this.instruments.keys();
    const isListed = first === undefined || this.instruments.has(name);
    const symbol = isListed ? name : first;
    if (symbol === this.symbol) return;
    const before = this.symbol;
    this.symbol = symbol;
    this.#begin();
    if (this.#isOpen && first !== undefined) this.#follow(before);
    this.publish("market");
  }

  /** Show candles of another interval. */
  showCandles(interval) {
    this.interval = interval;
    this.candles = new Candles(interval);
    if (this.#isOpen && this.symbol) this.#fetchHistory();
    this.publish("trades");
  }

  /**
   * Log in, now and after each reconnect. `done` gets the first reply, a
   * `welcome` or `error`.
   */
  login(user, token, done) {
    const isOnItsWay = this.#socket?.readyState === WebSocket.CONNECTING;
    if (!isOnItsWay) this.#drop();
    this.#credentials = { user, ...(token && { token }) };
    this.#loggedIn = done;
    this.account = new Account(user);
    if (!isOnItsWay) this.#connect();
  }

  /** Go on with public data only. Orders stay open. */
  logout() {
    this.#drop();
    this.#forgetLogin();
    this.#connect();
  }

  /**
   * Place an order. `done` gets the reply, an `exec` or `error`. If the
   * connection is lost before, it gets the order that is found afterwards.
   */
  place(order, done) {
    const chance = crypto.getRandomValues(new Uint32Array(2));
    const name = OUR_ORDERS + chance.join("-");
    const request = { type: "place", ...order, client_order_id: name };
    this.#trade(request, (reply) => {
      if (reply) done(reply);
      else this.#uncertain.set(name, done);
    });
  }

  /** Change or cancel orders; `done` gets the reply. */
  change(request, done) {
    this.#trade(request, (reply) =>
      done(reply ?? refusal("the connection was lost: check your orders")),
    );
  }

  /** Ask for the leaderboard. */
  fetchLeaderboard() {
    if (!this.#isOpen) return;
    this.#send([{ type: "get", what: "leaderboard" }], (reply) => {
      if (!reply?.data) return;
      this.leaderboard = reply.data;
      this.publish("leaderboard");
    });
  }

  /** Send requests of a guest, if connected; `replies` as in `#send`. */
  ask(requests, ...replies) {
    if (this.#isOpen) this.#send(requests, ...replies);
  }

  /** Ask for everything again: the connection is as a new one. */
  restart() {
    this.#forgetMoment();
    this.messages.length = 0;
    this.news = null;
    this.round = 1;
    if (this.account) this.account = new Account(this.account.user);
    this.publish("messages");
    this.publish("news");
    this.#greet();
  }

  /** Show a message. */
  note(text, isBad = false, ts = Date.now() * 1_000) {
    this.messages.unshift({ ts, text, isBad });
    this.messages.length = Math.min(this.messages.length, MESSAGES_KEPT);
    this.publish("messages");
  }

  // The connection ----------------------------------------------------------

  get #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #connect() {
    clearTimeout(this.#retry);
    this.retryAt = null;
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#hasOpened = false;
    this.heard = Date.now();
    socket.onopen = () => {
      this.#hasOpened = true;
      this.trouble = "";
      this.#greet();
    };
    socket.onmessage = ({ data }) => {
      this.heard = Date.now();
      const frame = JSON.parse(data);
      for (const message of Array.isArray(frame) ? frame : [frame]) {
        // An earlier message of the frame may have ended the connection.
        if (socket === this.#socket) this.#receive(message);
      }
      if (this.#reports.length) {
        this.publish("reports", this.#reports.splice(0));
      }
    };
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.publish("connection");
  }

  #greet() {
    for (const guest of this.guests) guest.greet();
    if (this.#credentials) {
      const { session, seq } = this.account;
      this.#send(
        [
          {
            type: "login",
            ...this.#credentials,
            cancel_on_disconnect: false,
            ...(session && { session, last_seq: seq }),
          },
          { type: "get", what: "fills" },
        ],
        (welcome) => this.#welcomed(welcome),
        (fills) => {
          if (fills?.data) this.account.fill(fills.data);
          this.publish("account");
        },
      );
    }
    this.#fetchInstruments();
  }

  #welcomed(reply) {
    if (!reply) return;
    if (reply.type !== "error") {
      this.isLoggedIn = true;
      this.#enterRound(reply.round);
      this.#setSpeed(reply.speed);
      if (this.#uncertain.size) this.#findOrders();
    } else if (reply.retry_after_ms === undefined) {
      this.#forgetLogin();
      this.note(`Not signed in: ${reply.message}`, true);
    } else {
      this.#later(reply, () => this.#reconnect());
      return;
    }
    this.#loggedIn?.(reply);
    this.#loggedIn = null;
    this.publish("account");
  }

  #forgetLogin() {
    this.#credentials = null;
    this.account = null;
    this.isLoggedIn = false;
    for (const done of this.#uncertain.values()) {
      done(refusal(UNKNOWN));
    }
    this.#uncertain.clear();
    this.publish("account");
  }

  /** Replace this connection by a new one, at once. */
  #reconnect() {
    this.#drop();
    this.#connect();
  }

  /** Drop the connection, without waiting for its close. */
  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#socket = null;
    this.#forgetMoment();
  }

  /** Forget what belongs to the connection; requests have no reply now. */
  #forgetMoment() {
    this.isLive = this.isLoggedIn = false;
    this.#awaitsBook = this.#awaitsHistory = this.#isAnswer = false;
    const replies = [...this.#replies.values()];
    this.#replies.clear();
    for (const done of replies) done(undefined);
  }

  #lost(code, reason) {
    const wasLive = this.isLive;
    this.#drop();
    if (code === 4001) this.#forgetLogin();
    if (code === 4009) {
      this.#forgetLogin();
      this.note("Signed out: another connection took over the session", true);
    }
    if (wasLive) {
      this.#isBack = false;
      this.note(`Connection lost${reason ? `: ${reason}` : ""}`, true);
    }
    const ceiling = Math.min(
      BACKOFF_MIN_MS * 2 ** this.#failures,
      BACKOFF_MAX_MS,
    );
    this.#failures += 1;
    // The first failure may be a restart of the exchange.
    if (!this.#hasOpened && this.#failures > 1) this.#findTrouble();
    const pause = code === 4002 ? ABUSE_MS : 0;
    const delay = pause + ceiling * (0.5 + Math.random() / 2);
    this.retryAt = Date.now() + delay;
    this.#retry = setTimeout(() => this.#connect(), delay);
    this.publish("connection");
  }

  /** Ask over HTTP why no websocket opens: the browser gives no reason. */
  async #findTrouble() {
    const page = encodeURIComponent(location.origin);
    let trouble = "";
    try {
      const answer = await fetch(`v1/access?origin=${page}`);
      const type = answer.headers.get("Content-Type") ?? "";
      if (answer.ok) trouble = "HTTP works, websockets do not";
      else if (type.startsWith("text/plain")) {
        trouble = (await answer.text()).trim();
      }
    } catch {
      // The exchange or the network is down.
    }
    if (this.#isOpen) return;
    this.trouble = trouble;
    this.publish("connection");
  }

  /** End a connection on which nothing has arrived for SILENCE_MS. */
  #listen() {
    if (this.#socket && Date.now() - this.heard > SILENCE_MS) {
      this.#lost(1006, "no heartbeat arrived");
    }
  }

  /** Send requests in one frame; each of `replies` gets its reply. */
  #send(requests, ...replies) {
    for (const [index, request] of requests.entries()) {
      request.id = ++this.#id;
      if (replies[index]) this.#replies.set(request.id, replies[index]);
    }
    this.#socket.send(
      JSON.stringify(requests.length === 1 ? requests[0] : requests),
    );
  }

  #trade(request, done) {
    if (this.isLoggedIn) this.#send([request], done);
    else done(refusal("not connected: nothing was sent"));
  }

  /** Look up the orders whose replies were lost. */
  #findOrders() {
    const lost = new Map(this.#uncertain);
    this.#send([{ type: "get", what: "orders", limit: ROWS }], (reply) => {
      if (!reply) return;
      if (!reply.data) {
        this.#later(reply, () => this.#findOrders());
        return;
      }
      const orders = reply.data;
      const isAll = orders.length < ROWS;
      const verdict = isAll ? "the order is not open: it was lost" : UNKNOWN;
      for (const [name, done] of lost) {
        this.#uncertain.delete(name);
        const order = orders.find((row) => row.client_order_id === name);
        done(order ?? refusal(verdict));
      }
    });
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
    this.#send(
      [
        { type: "get", what: "instruments", limit: ROWS },
        { type: "subscribe", channels: ["ticker"] },
        { type: "get", what: "news", limit: NEWS },
      ],
      (reply) => {
        if (!reply) return;
        if (!reply.data) {
          this.#later(reply, () => this.#fetchInstruments());
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
        this.#fetchMatch();
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
    this.#fetchHistory();
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
    this.#send(requests, (reply) => {
      if (!reply || symbol !== this.symbol) return;
      if (reply.type === "ok") this.#isAnswer = true;
      else {
        this.#awaitsBook = false;
        this.#later(reply, again);
      }
    });
  }

  /** Ask for trades and candles of the same moment. */
  #fetchHistory() {
    const { symbol, interval } = this;
    let rows;
    this.#awaitsHistory = true;
    this.#send(
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
          this.#later(reply, () => this.#fetchHistory());
          return;
        }
        this.trades.fill(rows);
        this.candles.fill(reply.data, rows.at(-1)?.trade_id ?? 0);
        this.publish("trades");
      },
    );
  }

  /** Call `again` after the time that a refusal asks to wait. */
  #later(reply, again) {
    const socket = this.#socket;
    setTimeout(() => {
      if (socket === this.#socket && this.#isOpen) again();
    }, reply.retry_after_ms ?? RETRY_MS);
  }

  /** Ask soon over HTTP what is played, and until when. */
  #fetchMatch() {
    this.#asking ??= setTimeout(async () => {
      this.#asking = null;
      if (!this.#isOpen) return;
      try {
        const answer = await this.askMatch();
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

  #receive(message) {
    for (const guest of this.guests) guest.receive(message);
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
      case "welcome":
        this.account?.welcome(message);
        break;
      case "exec":
      case "account":
      case "settlement":
        if (!this.#receivePrivate(message)) return;
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
      case "tender":
        this.#receiveTender(message);
        break;
      case "bust":
        this.account?.bust(message);
        this.publish("account");
        if (message.symbol === this.symbol) this.#fetchHistory();
        break;
      case "heartbeat":
        this.#failures = 0;
        this.#setSpeed(message.speed);
        this.#compare(message.seq);
        break;
      case "error":
        if (message.id === undefined) this.note(message.message, true);
        break;
    }
    if (message.id !== undefined) {
      const done = this.#replies.get(message.id);
      this.#replies.delete(message.id);
      done?.(message);
    }
  }

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
    if (outcome === "gap" && !this.#awaitsHistory) this.#fetchHistory();
    this.publish("trades");
  }

  /** Take an `exec` or `account`; return whether the connection goes on. */
  #receivePrivate(event) {
    if (!this.account) return true;
    const outcome = this.account.take(event);
    if (outcome === "gap") {
      this.#reconnect();
      return false;
    }
    if (outcome === "taken") {
      const isOurs = event.client_order_id?.startsWith(OUR_ORDERS);
      const isNews = event.exec_type === "trade" || event.reason;
      const isAsked = event.id !== undefined || event.reason === "user";
      if (event.type === "settlement") this.#noteSettlement(event);
      if (isOurs && isNews && !isAsked) this.#reports.push(event);
      this.publish("account");
    }
    return true;
  }

  #noteSettlement({ ts, symbol, position, price }) {
    const tick = tickOf(this.instruments.get(symbol));
    this.note(
      `Settled ${position} ${symbol} at ${tick.show(price)}`,
      false,
      ts,
    );
  }

  #receiveNews(news) {
    if (this.news && news.news_id <= this.news.news_id) return;
    this.news = news;
    this.note(`News: ${describeNews(news)}`, false, news.ts);
    this.publish("news");
  }

  #receiveTender({ ts, tender_id: name, symbol, side, qty, price }) {
    const tick = tickOf(this.instruments.get(symbol));
    const terms = `${side} ${qty} ${symbol} at ${tick.show(price)}`;
    this.note(`Offer ${name}: ${terms}`, false, ts);
  }

  /** Note the number of the round; a new one has candles of its own. */
  #enterRound(round = 1) {
    if (round <= this.round) return;
    this.round = round;
    if (this.#isOpen && this.symbol) this.#fetchHistory();
    this.publish("news");
  }

  /** Note how many times as fast as ours the exchange's time runs. */
  #setSpeed(speed = "1") {
    if (speed === this.speed) return;
    this.speed = speed;
    this.publish("connection");
  }

  #receiveStatus({ ts, symbol, phase, message, round }) {
    this.#enterRound(round);
    const instrument = this.instruments.get(symbol);
    if (instrument && phase) {
      this.instruments.set(symbol, { ...instrument, phase });
      this.#fetchMatch();
      this.publish("market");
    }
    const words = [symbol, phase?.replaceAll("_", " "), message];
    this.note(words.filter(Boolean).join(": "), false, ts);
  }

  /** Compare the seqs of a heartbeat with ours; recover lost messages. */
  #compare(sent) {
    const { account, book } = this;
    if (this.isLoggedIn && sent["@"] > account.seq) {
      this.#reconnect();
    } else if (this.isLive && sent[this.symbol] > book.held) {
      this.#followBook();
    }
  }
}

function refusal(message) {
  return { type: "error", code: "", message };
}
