/**
 * Which prices the ladder shows: one row for each, also where nobody bids or
 * offers. The rows stand still while the market moves, so that a click meets
 * the price that it was aimed at; they move if the best prices leave them, or
 * on demand. Pure: no document.
 */

export const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000];
const FEW = 5; // levels of each side that rows should reach, if many fit
const ROWS_FOR_ONE = 5; // rows for each of these levels
const EDGE = 1; // rows from the edge at which the best prices have left

/** @import { Book } from "./market.js" */
/** @typedef {"bids" | "asks"} BookSide */

export class Axis {
  constructor() {
    /** @type {(number | null)[]} prices, highest first; null where some are left out */
    this.rows = [];
    this.step = 1; // ticks in one row
    this.wanted = 0; // step chosen by hand; 0: by the book
    this.isMoved = false; // by hand
    this.isAway = false; // the best prices are not among the rows
    this.held = ""; // what the rows were made for
  }

  /** Rebuild the rows with the best prices in the middle. */
  centre() {
    this.isMoved = false;
    this.held = "";
  }

  choose(step) {
    this.wanted = step;
    this.centre();
  }

  /** Move the rows by hand, up if above 0. */
  move(by) {
    this.rows = this.rows.map(
      (price) => price === null ? null : price + by * this.step,
    );
    this.isMoved = true;
  }

  /**
   * Fit `count` rows to the book of a symbol; `isHeld`: do not move under a
   * pointer. `fallback` is the price in the middle of an empty book.
   * @param {string} symbol
   * @param {Book} book
   * @param {number} count
   * @param {number} fallback
   * @param {boolean} isHeld
   */
  fit(symbol, book, count, fallback, isHeld) {
    const few = Math.min(FEW, Math.max(2, Math.floor(count / ROWS_FOR_ONE)));
    const bids = book.bids.top(few).map(([price]) => price);
    const asks = book.asks.top(few).map(([price]) => price);
    const kind = `${symbol} ${count} ${this.wanted}`;
    const isEmpty = !bids.length && !asks.length;
    if (this.held === kind) {
      this.isAway = !isEmpty && !this.#sees(bids[0], asks[0]);
      if (!this.isAway || this.isMoved || isHeld) return;
    }
    this.isAway = this.isMoved = false;
    this.step = this.wanted || fitting(bids, asks, count);
    this.rows = this.#layOut(bids[0], asks[0], count, fallback);
    // A book that was empty is laid out again when its first order comes.
    this.held = isEmpty ? "" : kind;
  }

  /**
   * Return the row of a price; -1 if it has none.
   * @param {number} price
   * @param {BookSide} side
   */
  rowOf(price, side) {
    return this.rows.indexOf(this.floor(price, side));
  }

  /**
   * Return the price of the row that a level belongs to.
   * @param {number} price
   * @param {BookSide} side
   */
  floor(price, side) {
    const round = side === "bids" ? Math.floor : Math.ceil;
    return round(price / this.step) * this.step;
  }

  /** Whether the best prices are within the rows. */
  #sees(bid, ask) {
    const last = this.rows.length - 1 - EDGE;
    const within = (price, side) => {
      if (price === undefined) return true;
      const row = this.rowOf(price, side);
      return row >= EDGE && row <= last;
    };
    if (!within(bid, "bids") || !within(ask, "asks")) return false;
    const gap = this.rows.indexOf(null);
    if (gap < 0 || bid === undefined || ask === undefined) return true;
    // A gap that is no longer needed closes.
    return (ask - bid) / this.step > this.rows.length / 2;
  }

  #layOut(bid, ask, count, fallback) {
    const down = (top, rows) =>
      Array.from({ length: rows }, (_, n) => top - n * this.step);
    const best = bid === undefined ? undefined : this.floor(bid, "bids");
    const offer = ask === undefined ? undefined : this.floor(ask, "asks");
    const half = Math.floor(count / 2);
    if (best === undefined || offer === undefined) {
      const middle = this.floor(best ?? offer ?? fallback, "bids");
      return down(middle + half * this.step, count);
    }
    const between = (offer - best) / this.step;
    if (between <= half) {
      const middle = best + Math.round(between / 2) * this.step;
      return down(middle + half * this.step, count);
    }
    const above = half - 1; // of them: one row inside the spread
    const upper = down(offer + (above - 2) * this.step, above);
    const lower = down(best + this.step, count - above - 1);
    return [...upper, null, ...lower];
  }
}

/** Return the least step at which a few levels of each side fit. */
function fitting(bids, asks, count) {
  const half = Math.floor(count / 2) - 1;
  const reach = Math.max(
    0,
    ...[bids, asks].map((side) =>
      side.length ? Math.abs(side[0] - side.at(-1)) : 0,
    ),
  );
  return STEPS.find((step) => reach / step <= half) ?? STEPS[STEPS.length - 1];
}

/**
 * Return the lots of each row and all lots up to it, by price of the row:
 * { bids: Map, asks: Map } of [qty, sum].
 * @param {Book} book
 * @param {Axis} axis
 */
export function depth(book, axis) {
  const lowest = axis.rows.at(-1) ?? 0;
  return {
    bids: depthOf(book, axis, "bids", lowest),
    asks: depthOf(book, axis, "asks", axis.rows[0] ?? 0),
  };
}

/**
 * @param {Book} book
 * @param {Axis} axis
 * @param {BookSide} side
 * @param {number} far price of the last row
 */
function depthOf(book, axis, side, far) {
  /** @type {Map<number, [number, number]>} */
  const rows = new Map();
  let sum = 0;
  for (const [price, qty] of book[side].upTo(far)) {
    const row = axis.floor(price, side);
    sum += qty;
    rows.set(row, [(rows.get(row)?.[0] ?? 0) + qty, sum]);
  }
  return rows;
}
