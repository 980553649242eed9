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

export class Exchange extends Feed {
  /**
   * `publish(what)` is called after each change of "connection", "market",
   * "book", "trades", "tickers", "leaderboard", "account", "news",
   * "match" or "messages", with "opened" when a connection opens, with "round" when a round begins;
   * `publish("reports", list)` with the unsolicited `exec` events of orders
   * placed here, `publish("fills", list)` with all new fills.
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
  #filled = []; // the same: fills
  #uncertain = new Map(); // client_order_id -> done: placed, without a reply
  #refreshing = null; // timer of the next question for positions
  #before = null; // what we had when the session that is gone was lost

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
    const name = ourName();
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

  /** Convert lots of an instrument and its basket; `done` gets the reply. */
  convert(symbol, side, qty, done) {
    const name = ourName();
    this.change(
      { type: "convert", symbol, side, qty, client_order_id: name },
      done,
    );
  }

  /** Accept an offer; `done` gets the reply. */
  accept(name, done) {
    this.change({ type: "tender", tender_id: name }, (reply) => {
      if (reply.type === "ok" || reply.code.endsWith("tender")) {
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
        account.hold(reply.data);
        this.publish("account");
      });
      this.fetchLeaderboard();
    }, SOON_MS);
  }

  // The account -------------------------------------------------------------

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
      if (rows) account.fill(rows);
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

  // Messages ----------------------------------------------------------------

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
      if (event.type === "account") this.#refresh();
      if (event.exec_type === "trade") this.#filled.push(event);
      if (isOurs && isNews && !isAsked) this.#reports.push(event);
      if (this.#before && !this.account.isStating) this.#sayWhatIsLost();
      this.publish("account");
    }
    return true;
  }

  #receiveWelcome(message) {
    if (!this.account) return;
    const { session, orders, fills, positions, cash } = this.account;
    if (session && session !== message.session && !message.durable) {
      const held = Object.entries(positions).filter(([, lots]) => lots);
      this.#before = { held, cash, orders: orders.size, fills: fills.length };
    }
    this.account.welcome(message);
  }

  /** Say what an exchange that keeps no journal has forgotten of ours. */
  #sayWhatIsLost() {
    const { held, cash, orders, fills } = this.#before;
    this.#before = null;
    const had = [
      ...held.map(([symbol, lots]) => `your position of ${lots} ${symbol}`),
      ...(orders ? [`${orders} open ${orders > 1 ? "orders" : "order"}`] : []),
      ...(fills ? [`${fills} ${fills > 1 ? "fills" : "fill"}`] : []),
      ...(cash !== this.account.cash ? ["your cash"] : []),
    ];
    const lost = had.length ? `Lost: ${had.join(", ")}` : "You had nothing";
    this.note(`The exchange started from nothing. ${lost}`, true);
  }

  /** The exchange started from nothing; an account says more. */
  restarted() {
    if (!this.account) super.restarted();
  }

  #noteSettlement({ ts, symbol, position, price }) {
    const tick = tickOf(this.instruments.get(symbol));
    this.note(
      `Settled ${position} ${symbol} at ${tick.show(price)}`,
      false,
      ts,
    );
  }

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

  /** Take any message; return false if it ended the connection. */
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

function refusal(message) {
  return { type: "error", code: "", message };
}
