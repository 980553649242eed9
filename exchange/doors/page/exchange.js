/**
 * The exchange as a trader sees it: what everybody may see, and an account
 * with its orders. State changes as messages arrive. The owner is told the
 * name of each part that has changed, and reads it when it draws.
 */

import { Account } from "./account.js";
import { ROWS } from "./board.js";
import { Feed } from "./feed.js";
import { tickOf } from "./market.js";

const OUR_ORDERS = "page-"; // prefix of the client_order_ids made here
const UNKNOWN = "the outcome of the order is unknown";
const SOON_MS = 200; // after a change of the account, to ask for tables

/** @type {(message: string) => Wire.Error} */
const refusal = (message) => ({ type: "error", code: "", message });

/** @import { Had } from "./account.js" */
/** @import { Done, Link, Publish, Request } from "./link.js" */
/** @typedef {Omit<Wire.Place, "type" | "id" | "client_order_id">} Order */

/** @typedef {(reply: Wire.Reply) => void} Answered */

export class Exchange extends Feed {
  /**
   * `publish(what)` is called after each change of "connection", "market",
   * "book", "trades", "tickers", "leaderboard", "account", "news", "match" or
   * "messages", when a connection has "opened", when a "round" begins;
   * `publish("reports", list)` with the unsolicited `exec` events of orders
   * placed here, `publish("fills", list)` with all new fills.
   * @param {URL} url
   * @param {Publish} publish
   */
  constructor(url, publish) {
    super(url, publish);
    this.isLoggedIn = false;
    this.isRecording = false; // of the past: nobody trades
    /** @type {Account | null} */
    this.account = null;
    this.start();
  }

  /** @type {{ user: string, token?: string } | null} */
  #credentials = null;
  /** @type {Answered | null} gets the first reply to a login */
  #loggedIn = null;
  /** @type {Wire.Exec[]} of the frame that is being read */
  #reports = [];
  /** @type {Wire.Exec[]} the same: fills */
  #filled = [];
  /** @type {Map<string, Answered>} by client_order_id: placed, without a reply */
  #uncertain = new Map();
  /** @type {number | null} timer of the next question for positions */
  #refreshing = null;
  /** @type {Had | null} when the session was lost */
  #before = null;

  /** Return the account, where it can trade. */
  get trader() {
    return this.isRecording ? null : this.account;
  }

  // Actions -----------------------------------------------------------------

  /**
   * Log in, now and after each reconnect. `done` gets the first reply, a
   * `welcome` or `error`.
   * @type {(user: string, token: string, done: Answered) => void}
   */
  login(user, token, done) {
    const isOnItsWay = this.isConnecting;
    if (!isOnItsWay) this.drop();
    this.#credentials = { user, ...(token && { token }) };
    this.#loggedIn = done;
    this.account = new Account(user);
    if (!isOnItsWay) this.connect();
  }

  /** Go on with public data only. Orders stay open. */
  logout() {
    this.drop();
    this.#forgetLogin();
    this.connect();
  }

  /**
   * Place an order. `done` gets the reply, an `exec` or `error`. If the
   * connection is lost before, it gets the order that is found afterwards.
   * @param {Order} order
   * @param {Answered} done
   */
  place(order, done) {
    const name = ourName();
    /** @type {Wire.Place} */
    const request = { type: "place", ...order, client_order_id: name };
    this.#trade(request, (reply) => {
      if (reply) done(reply);
      else this.#uncertain.set(name, done);
    });
  }

  /**
   * Change or cancel orders; `done` gets the reply.
   * @type {(request: Request, done: Answered) => void}
   */
  change(request, done) {
    this.#trade(request, (reply) =>
      done(reply ?? refusal("the connection was lost: check your orders")),
    );
  }

  /**
   * Convert lots of an instrument and its basket; `done` gets the reply.
   * @param {Pick<Wire.Convert, "symbol" | "side" | "qty">} terms
   * @param {Answered} done
   */
  convert(terms, done) {
    const name = ourName();
    this.change({ type: "convert", ...terms, client_order_id: name }, done);
  }

  /**
   * Accept an offer; `done` gets the reply.
   * @type {(name: string, done: Answered) => void}
   */
  accept(name, done) {
    this.change({ type: "tender", tender_id: name }, (reply) => {
      if (reply.type === "ok" || reply.code?.endsWith("tender")) {
        this.account?.tenders.delete(name);
        this.publish("account");
      }
      done(reply);
    });
  }

  // Tables ------------------------------------------------------------------

  /** Fetch all fills that the exchange keeps; `done` gets them. */
  fetchFills(done) {
    this.fetchAll({ what: "fills" }, ({ seq }) => seq, done);
  }

  /** Fetch all orders that the exchange remembers; `done` gets them. */
  fetchOrders(done) {
    this.fetchAll({ what: "orders" }, ({ order_id: id }) => id, done);
  }

  /** Ask soon for what positions cost, and how all stand. */
  #refresh() {
    this.#refreshing ??= setTimeout(() => {
      this.#refreshing = null;
      if (!this.isLoggedIn) return;
      const { account } = this;
      this.send([{ type: "get", what: "positions" }], (reply) => {
        if (!reply?.data) return;
        account?.hold(reply.data);
        this.publish("account");
      });
      this.fetchLeaderboard();
    }, SOON_MS);
  }

  // The account -------------------------------------------------------------

  /** @param {Wire.Reply} [reply] */
  #welcomed(reply) {
    if (!reply) return;
    if (reply.type !== "error") {
      this.isLoggedIn = true;
      this.enterRound(reply.round);
      this.setSpeed(reply.speed);
      if (this.#uncertain.size) this.#findOrders();
      if (!reply.resumed) this.#fillAll();
      this.#refresh();
    } else if (reply.retry_after_ms === undefined) {
      this.#forgetLogin();
      this.note(`Not signed in: ${reply.message}`, true);
    } else {
      this.later(reply, () => this.reconnect());
      return;
    }
    this.#loggedIn?.(reply);
    this.#loggedIn = null;
    this.publish("account");
  }

  #fillAll() {
    const { account } = this;
    this.fetchFills((rows) => {
      if (rows) account?.fill(rows);
      this.publish("account");
    });
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

  /** @type {(request: Request, done: Done) => void} */
  #trade(request, done) {
    if (this.isRecording) done(refusal("a recording takes no orders"));
    else if (this.isLoggedIn) this.send([request], done);
    else done(refusal("not connected: nothing was sent"));
  }

  /** Look up the orders whose replies were lost. */
  #findOrders() {
    const lost = new Map(this.#uncertain);
    this.send([{ type: "get", what: "orders", limit: ROWS }], (reply) => {
      if (!reply) return;
      if (!reply.data) {
        this.later(reply, () => this.#findOrders());
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

  // Messages ----------------------------------------------------------------

  /**
   * Take a private event; return whether the connection goes on.
   * @param {Wire.Exec | Wire.Account | Wire.Settlement} event
   */
  #receivePrivate(event) {
    if (!this.account) return true;
    const outcome = this.account.take(event);
    if (outcome === "gap") {
      this.reconnect();
      return false;
    }
    if (outcome === "taken") {
      if (event.type === "settlement") this.#noteSettlement(event);
      if (event.type === "account") this.#refresh();
      if (event.type === "exec") this.#noteReport(event);
      if (this.#before && !this.account.isStating) {
        const lost = this.account.lostSince(this.#before);
        this.#before = null;
        this.note(`The exchange started from nothing. ${lost}`, true);
      }
      this.publish("account");
    }
    return true;
  }

  /** @param {Wire.Exec} event */
  #noteReport(event) {
    const isTrade = event.exec_type === "trade";
    const isOurs = event.client_order_id?.startsWith(OUR_ORDERS);
    const isNews = isTrade || event.reason;
    const isAsked = event.id !== undefined || event.reason === "user";
    if (isTrade) this.#filled.push(event);
    if (isOurs && isNews && !isAsked) this.#reports.push(event);
  }

  /** @param {Wire.Welcome} message */
  #receiveWelcome(message) {
    if (!this.account) return;
    const { session, orders } = this.account;
    if (session && session !== message.session && !message.durable) {
      this.#before = { ...this.account, orders: new Map(orders) };
    }
    this.account.welcome(message);
  }

  /** The exchange started from nothing; an account says more. */
  restarted() {
    if (!this.account) super.restarted();
  }

  /** @param {Wire.Settlement} settlement */
  #noteSettlement({ ts, symbol, position, price }) {
    const tick = tickOf(this.instruments.get(symbol));
    this.note(
      `Settled ${position} ${symbol} at ${tick.show(price)}`,
      false,
      ts,
    );
  }

  /** @param {Wire.TenderEvent} tender */
  #receiveTender(tender) {
    const { ts, tender_id: name, symbol, side, qty, price } = tender;
    this.account?.tenders.set(name, tender);
    const tick = tickOf(this.instruments.get(symbol));
    const terms = `${side} ${qty} ${symbol} at ${tick.show(price)}`;
    this.note(`Offer ${name}: ${terms}`, false, ts);
    this.publish("account");
  }

  roundBegan() {
    super.roundBegan();
    this.account?.tenders.clear();
  }

  /**
   * Take any message; return false if it ended the connection.
   * @param {Wire.Event} message
   */
  receive(message) {
    switch (message.type) {
      case "welcome":
        this.#receiveWelcome(message);
        break;
      case "exec":
      case "account":
      case "settlement":
        return this.#receivePrivate(message);
      case "tender":
        this.#receiveTender(message);
        break;
      case "bust":
        this.account?.bust(message);
        this.publish("account");
        super.receive(message);
        break;
      case "heartbeat":
        if (this.isLoggedIn && message.seq["@"] > (this.account?.seq ?? 0)) {
          this.reconnect();
          return false;
        }
        super.receive(message);
        break;
      default:
        super.receive(message);
    }
    return true;
  }

  frameEnded() {
    if (this.#reports.length) {
      this.publish("reports", this.#reports.splice(0));
    }
    if (this.#filled.length) this.publish("fills", this.#filled.splice(0));
  }

  // The connection ----------------------------------------------------------

  restart() {
    if (this.account) this.account = new Account(this.account.user);
    super.restart();
  }

  greet() {
    for (const guest of this.guests) guest.greet();
    this.publish("opened");
    if (this.#credentials && this.account) {
      const { session, seq } = this.account;
      this.send(
        [
          {
            type: "login",
            ...this.#credentials,
            cancel_on_disconnect: false,
            ...(session && { session, last_seq: seq }),
          },
        ],
        (welcome) => this.#welcomed(welcome),
      );
    }
    super.greet();
  }

  dropped() {
    super.dropped();
    this.isLoggedIn = false;
  }

  /** @type {Link["ended"]} */
  ended(code, reason, wasLive) {
    if (code === 4001) this.#forgetLogin();
    if (code === 4009) {
      this.#forgetLogin();
      this.note("Signed out: another connection took over the session", true);
    }
    super.ended(code, reason, wasLive);
  }
}

/** Return a client_order_id that nobody else makes. */
function ourName() {
  const chance = crypto.getRandomValues(new Uint32Array(2));
  return OUR_ORDERS + chance.join("-");
}
