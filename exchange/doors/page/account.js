/**
 * An account: its orders, fills, positions and profit. Pure: no socket, no
 * clock, no document. `take` answers as in market.js.
 */

const FILLS_KEPT = 10_000; // as many as the exchange keeps

/** @import { Instruments, Tickers } from "./board.js" */
/** @import { Outcome } from "./market.js" */
/** @typedef {Wire.Exec & { busted?: boolean }} Fill */
/** @typedef {Wire.Exec["side"]} Side */
/** @typedef {Pick<Account, "positions" | "orders" | "fills" | "cash">} Had */

export class Account {
  /** @param {string} user */
  constructor(user) {
    this.user = user;
    /** @type {string | undefined} */
    this.session = undefined;
    this.seq = 0; // the last one received
    this.isStating = false; // receiving the state that follows a welcome
    /** @type {Map<number, Wire.Exec>} the last report of each open one */
    this.orders = new Map();
    /** @type {Fill[]} oldest first */
    this.fills = [];
    /** @type {Map<string, Wire.TenderEvent>} offers that are open */
    this.tenders = new Map();
    this.cash = 0;
    /** @type {Record<string, number>} */
    this.positions = {};
    /** @type {Map<string, number>} by symbol: what its lots cost, in units */
    this.costs = new Map();
    this.equity = 0;
    this.realized = 0;
    this.paidIn = 0; // cash at the start, which is no profit
  }

  /**
   * Take a `welcome`: go on, or start from the state that follows.
   * @param {Wire.Welcome} message
   */
  welcome({ session, seq, resumed }) {
    this.session = session;
    this.tenders.clear(); // those that are still open follow
    if (resumed) return;
    this.seq = seq;
    this.isStating = true;
    this.orders.clear();
    this.fills = [];
    this.costs.clear();
  }

  /**
   * Take an `exec`, `settlement` or `account`.
   * @param {Wire.Exec | Wire.Settlement | Wire.Account} event
   * @returns {Outcome}
   */
  take(event) {
    if (!this.isStating) {
      if (event.seq <= this.seq) return "old";
      if (event.seq > this.seq + 1) return "gap";
      // The account report after a settlement has the same number.
      if (event.type !== "settlement") this.seq = event.seq;
    }
    if (event.type === "settlement") return "taken";
    if (event.type === "account") {
      this.isStating = false;
      this.cash = event.cash;
      this.positions = event.positions;
      this.equity = event.equity;
      const { realized = 0, unrealized = 0 } = event;
      this.realized = realized;
      this.paidIn = event.equity - realized - unrealized;
      return "taken";
    }
    if (event.leaves_qty > 0) this.orders.set(event.order_id, event);
    else this.orders.delete(event.order_id);
    if (event.exec_type === "trade") {
      this.fills.push(event);
      if (this.fills.length > FILLS_KEPT) this.fills.shift();
    }
    return "taken";
  }

  /**
   * Mark the fills of a trade that was undone.
   * @param {Wire.Bust} bust
   */
  bust({ symbol, trade_id: id }) {
    this.fills = this.fills.map((fill) =>
      fill.symbol === symbol && fill.trade_id === id
        ? { ...fill, busted: true }
        : fill,
    );
  }

  /**
   * Take fills of the table; newer ones stay.
   * @param {Fill[]} rows
   */
  fill(rows) {
    const last = rows.at(-1)?.seq ?? 0;
    const newer = this.fills.filter((fill) => fill.seq > last);
    this.fills = [...rows, ...newer].slice(-FILLS_KEPT);
  }

  /**
   * Take the table of positions.
   * @param {{ symbol: string, cost: number }[]} rows
   */
  hold(rows) {
    this.costs = new Map(rows.map(({ symbol, cost }) => [symbol, cost]));
  }

  /**
   * Say what an exchange that keeps no journal has forgotten of an account.
   * @param {Had} before
   */
  lostSince({ positions, orders, fills, cash }) {
    const had = Object.entries(positions)
      .filter(([, lots]) => lots)
      .map(([symbol, lots]) => `your position of ${lots} ${symbol}`);
    if (orders.size) {
      had.push(`${orders.size} open ${orders.size > 1 ? "orders" : "order"}`);
    }
    if (fills.length) {
      had.push(`${fills.length} ${fills.length > 1 ? "fills" : "fill"}`);
    }
    if (cash !== this.cash) had.push("your cash");
    return had.length ? `Lost: ${had.join(", ")}` : "You had nothing";
  }

  /**
   * Return lots of a symbol, negative when short.
   * @param {string} symbol
   */
  lots(symbol) {
    return this.positions[symbol] ?? 0;
  }

  /**
   * Return equity at the marks of these tickers, in units of cash.
   * @param {Tickers} tickers
   * @param {Instruments} instruments
   */
  worth(tickers, instruments) {
    let sum = this.cash;
    for (const [symbol, lots] of Object.entries(this.positions)) {
      if (!lots) continue;
      const price = mark(tickers.get(symbol));
      if (price === undefined) return this.equity;
      sum += lots * price * valueOf(instruments.get(symbol));
    }
    return sum;
  }

  /**
   * Return the profit at the marks of these tickers, in units of cash.
   * @param {Tickers} tickers
   * @param {Instruments} instruments
   */
  profit(tickers, instruments) {
    return this.worth(tickers, instruments) - this.paidIn;
  }

  /**
   * Return the open orders of a symbol that are in the book, by price.
   * @param {string} symbol
   */
  resting(symbol) {
    /** @type {Record<Side, Map<number, Wire.Exec[]>>} */
    const levels = { buy: new Map(), sell: new Map() };
    for (const order of this.orders.values()) {
      if (order.symbol !== symbol || order.price === undefined) continue;
      if (order.order_status === "waiting") continue;
      const level = levels[order.side];
      level.set(order.price, [...(level.get(order.price) ?? []), order]);
    }
    return levels;
  }
}

/**
 * Return units of cash of one tick of one lot.
 * @param {Wire.Instrument} [instrument]
 */
export const valueOf = (instrument) => instrument?.tick_value ?? 1;

/**
 * Return the price that values a position; undefined if there is none.
 * @param {Pick<Wire.Ticker, "bid" | "ask" | "last">} [ticker]
 */
export function mark(ticker) {
  const { bid, ask, last } = ticker ?? {};
  if (bid === undefined || ask === undefined || last === undefined) {
    return last;
  }
  return [bid, last, ask].sort((a, b) => a - b)[1];
}

/**
 * Return the taker fee of a number of lots at a price, in units.
 * @param {Wire.Instrument} instrument
 * @param {number} qty
 * @param {number} price
 */
export function takerFee(instrument, qty, price) {
  const { taker_fee: perLot = 0, taker_fee_bp: bp = 0 } = instrument;
  const notional = Math.abs(price * qty * valueOf(instrument));
  return perLot * qty + Math.floor((notional * bp) / 10_000 + 0.5);
}

/**
 * Return the profit that fills realized, by symbol, in units: average cost, as
 * docs/PROTOCOL.md says under Profit. `round`: only fills of this round.
 * @param {Fill[]} fills
 * @param {Instruments} instruments
 * @param {number} round
 */
export function realizedBySymbol(fills, instruments, round) {
  const books = new Map();
  for (const fill of fills) {
    if (fill.busted || (fill.round ?? 1) !== round) continue;
    const { symbol, side, fee = 0 } = fill;
    const { last_qty: qty = 0, last_price: price = 0 } = fill;
    const book = books.get(symbol) ?? { lots: 0, cost: 0, realized: 0 };
    const value = price * valueOf(instruments.get(symbol));
    const bought = side === "buy" ? qty : -qty;
    const isCloser = book.lots * bought < 0;
    const closed = isCloser ? Math.min(qty, Math.abs(book.lots)) : 0;
    if (closed) {
      const sign = Math.sign(book.lots);
      const share = Math.floor((book.cost * closed) / Math.abs(book.lots));
      book.realized += sign * closed * value - share;
      book.cost -= share;
      book.lots -= sign * closed;
    }
    const opened = Math.sign(bought) * (qty - closed);
    book.lots += opened;
    book.cost += opened * value;
    book.realized -= fee;
    books.set(symbol, book);
  }
  return new Map([...books].map(([symbol, book]) => [symbol, book.realized]));
}
