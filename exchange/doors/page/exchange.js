/**
 * The exchange as a trader sees it: what everybody may see, and an account
 * with its orders. State changes as messages arrive. The owner is told the
 * name of each part that has changed, and reads it when it draws.
 */

import { Feed, ROWS } from "./feed.js";
import { Account, tickOf } from "./market.js";

const OUR_ORDERS = "page-"; // prefix of the client_order_ids made here
const UNKNOWN = "the outcome of the order is unknown";

export class Exchange extends Feed {
  /**
   * `publish(what)` is called after each change of "connection", "market",
   * "book", "trades", "tickers", "leaderboard", "account", "news",
   * "match" or "messages";
   * `publish("reports", list)` with the unsolicited `exec` events of orders
   * placed here.
   */
  constructor(url, publish) {
    super(url, publish);
    this.isLoggedIn = false;
    this.account = null;
    this.start();
  }

  #credentials = null;
  #loggedIn = null; // called with the first reply to a login
  #reports = []; // of the frame that is being read
  #uncertain = new Map(); // client_order_id -> done: placed, without a reply

  // Actions -----------------------------------------------------------------

  /**
   * Log in, now and after each reconnect. `done` gets the first reply, a
   * `welcome` or `error`.
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

  #welcomed(reply) {
    if (!reply) return;
    if (reply.type !== "error") {
      this.isLoggedIn = true;
      this.enterRound(reply.round);
      this.setSpeed(reply.speed);
      if (this.#uncertain.size) this.#findOrders();
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

  #trade(request, done) {
    if (this.isLoggedIn) this.send([request], done);
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

  /** Take an `exec` or `account`; return whether the connection goes on. */
  #receivePrivate(event) {
    if (!this.account) return true;
    const outcome = this.account.take(event);
    if (outcome === "gap") {
      this.reconnect();
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

  #receiveTender({ ts, tender_id: name, symbol, side, qty, price }) {
    const tick = tickOf(this.instruments.get(symbol));
    const terms = `${side} ${qty} ${symbol} at ${tick.show(price)}`;
    this.note(`Offer ${name}: ${terms}`, false, ts);
  }

  /** Take any message; return false if it ended the connection. */
  receive(message) {
    switch (message.type) {
      case "welcome":
        this.account?.welcome(message);
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
        if (this.isLoggedIn && message.seq["@"] > this.account.seq) {
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
  }

  // The connection ----------------------------------------------------------

  greet() {
    if (this.#credentials) {
      const { session, seq } = this.account;
      this.send(
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
    super.greet();
  }

  dropped() {
    super.dropped();
    this.isLoggedIn = false;
  }

  ended(code, reason, wasLive) {
    if (code === 4001) this.#forgetLogin();
    if (code === 4009) {
      this.#forgetLogin();
      this.note("Signed out: another connection took over the session", true);
    }
    super.ended(code, reason, wasLive);
  }
}

function refusal(message) {
  return { type: "error", code: "", message };
}
