/**
 * What the exchange says, as values: prices, a book, trades, candles.
 * Pure: no socket, no clock, no document. The sequence rules are
 * those of docs/PROTOCOL.md; `take` answers one of
 *
 *   "taken"  the message was applied
 *   "old"    seen already: ignored
 *   "gap"    an earlier message is missing
 */

export const TRADES_KEPT = 500;
export const CANDLES_KEPT = 1_440; // a day of minutes

/** @typedef {keyof typeof INTERVALS} Interval */
/**
 * start_ts, open, high, low, close, volume
 * @typedef {[number, number, number, number, number, number]} Candle
 */
/** @typedef {"taken" | "old" | "gap"} Outcome */

export const INTERVALS = {
  "1s": 1_000_000,
  "1m": 60_000_000,
  "5m": 300_000_000,
  "1h": 3_600_000_000,
  "1d": 86_400_000_000,
}; // microseconds

/**
 * Return the money of one unit of cash, as a tick.
 * @param {Wire.Instrument} instrument
 */
export function unitOf({ tick_size, multiplier = 1, tick_value = 1 }) {
  const tick = new Tick(tick_size);
  if (multiplier === 1 && tick_value === 1) return tick;
  const whole = BigInt(tick_value);
  let { places } = tick;
  let units = tick.units * BigInt(multiplier);
  for (; units % whole; places += 1) units *= 10n;
  return Tick.of(units / whole, places);
}

/** Converts ticks to money and back, exactly, without floats. */
export class Tick {
  /** @param {string} size money per tick as a decimal text, such as "0.25" */
  constructor(size) {
    const [whole, part = ""] = size.split(".");
    this.size = size;
    this.places = part.length;
    this.units = BigInt(whole + part);
  }

  /** Return the tick of `units`, each a one at that decimal place. */
  static of(units, places) {
    const tick = new Tick("1");
    tick.units = units;
    tick.places = places;
    return tick;
  }

  /** @param {Tick} other */
  equals(other) {
    const isFiner = this.places > other.places;
    const [more, less] = isFiner ? [this, other] : [other, this];
    const scale = 10n ** BigInt(more.places - less.places);
    return less.units * scale === more.units;
  }

  /**
   * Return ticks as a decimal text, such as "-1234.50".
   * @param {number} ticks
   */
  plain(ticks) {
    const amount = BigInt(ticks) * this.units;
    const digits = String(amount < 0n ? -amount : amount);
    const padded = digits.padStart(this.places + 1, "0");
    const cut = padded.length - this.places;
    const sign = amount < 0n ? "-" : "";
    const part = this.places ? `.${padded.slice(cut)}` : "";
    return sign + padded.slice(0, cut) + part;
  }

  /**
   * Return ticks for people to read, such as "−1,234.50".
   * @param {number} ticks
   */
  show(ticks) {
    const [whole, part] = this.plain(ticks).split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",").replace("-", "−");
    return part === undefined ? grouped : `${grouped}.${part}`;
  }

  /**
   * Return the ticks of a decimal text; null if it is no whole number.
   * @param {string} text
   */
  parse(text) {
    const match = /^\s*([-−]?)(\d+)(?:\.(\d*))?\s*$/.exec(text);
    if (!match) return null;
    const [, sign, whole, part = ""] = match;
    const kept = part.slice(0, this.places).padEnd(this.places, "0");
    if (/[1-9]/.test(part.slice(this.places))) return null;
    const amount = BigInt(whole + kept);
    if (amount % this.units) return null;
    const ticks = Number(amount / this.units);
    if (!Number.isSafeInteger(ticks)) return null;
    return sign && ticks ? -ticks : ticks;
  }
}

/**
 * Return the tick of an instrument; 1 if the instrument is unknown.
 * @param {Wire.Instrument} [instrument]
 */
export function tickOf(instrument) {
  return new Tick(instrument?.tick_size ?? "1");
}

/**
 * Return news in one line.
 * @param {Wire.News} news
 */
export function describeNews({ symbol, headline, value }) {
  const number = value === undefined ? "" : ` (${value})`;
  return `${symbol ? `${symbol}: ` : ""}${headline}${number}`;
}

/** One side of a book: `sign` is -1 where the highest price is the best. */
class Side {
  /** @param {1 | -1} sign */
  constructor(sign) {
    this.sign = sign;
    /** @type {number[]} sign * price, the best one first */
    this.keys = [];
    /** @type {Map<number, number>} by price */
    this.qtys = new Map();
  }

  clear() {
    this.keys = [];
    this.qtys.clear();
  }

  /**
   * @param {number} price
   * @param {number} qty
   */
  set(price, qty) {
    const known = this.qtys.has(price);
    if (qty > 0) this.qtys.set(price, qty);
    else this.qtys.delete(price);
    if (known === qty > 0) return;
    const key = this.sign * price;
    let low = 0;
    let high = this.keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.keys[middle] < key) low = middle + 1;
      else high = middle;
    }
    if (qty > 0) this.keys.splice(low, 0, key);
    else this.keys.splice(low, 1);
  }

  /**
   * Return the levels from the best to a price, as [price, qty].
   * @param {number} price
   * @returns {Generator<[number, number]>}
   */
  *upTo(price) {
    for (const key of this.keys) {
      if (key > this.sign * price) return;
      const one = this.sign * key;
      yield [one, this.qtys.get(one) ?? 0];
    }
  }

  /**
   * Return the best levels, up to a number, as [price, qty].
   * @param {number} count
   * @returns {[number, number][]}
   */
  top(count) {
    return this.keys.slice(0, count).map((key) => {
      const price = this.sign * key;
      return [price, this.qtys.get(price) ?? 0];
    });
  }
}

/** The book of one symbol. */
export class Book {
  constructor() {
    this.bids = new Side(-1);
    this.asks = new Side(1);
    /** @type {number | null} seq of the last message taken */
    this.held = null;
  }

  /**
   * Take a `book`; `isAnswer`: it answers our subscribe.
   * @param {Wire.Book} message
   * @param {boolean} isAnswer
   * @returns {Outcome}
   */
  take(message, isAnswer) {
    const { seq, prev_seq: previous = 0, snapshot, bids, asks } = message;
    if (!(snapshot && isAnswer)) {
      if (this.held === null) return snapshot ? "old" : "gap";
      if (seq <= this.held) return "old";
      if (!snapshot && previous > this.held) return "gap";
    }
    if (snapshot) {
      this.bids.clear();
      this.asks.clear();
    }
    for (const [price, qty] of bids) this.bids.set(price, qty);
    for (const [price, qty] of asks) this.asks.set(price, qty);
    this.held = seq;
    return "taken";
  }
}

/** The last trades of one symbol, oldest first. */
export class Trades {
  constructor() {
    /** @type {Wire.Trade[]} */
    this.rows = [];
    /** @type {number | null} newest trade_id that is known */
    this.last = null;
  }

  /**
   * Take a `trade`; after a gap too, since it is the newest one.
   * @param {Wire.Trade} trade
   * @returns {Outcome}
   */
  take(trade) {
    if (this.last !== null && trade.trade_id <= this.last) return "old";
    const isNext = this.last === null || trade.trade_id === this.last + 1;
    this.rows.push(trade);
    if (this.rows.length > TRADES_KEPT) this.rows.shift();
    this.last = trade.trade_id;
    return isNext ? "taken" : "gap";
  }

  /**
   * Take the newest trades of the table; newer ones stay.
   * @param {Wire.Trade[]} rows
   */
  fill(rows) {
    const last = rows.at(-1)?.trade_id ?? 0;
    const newer = this.rows.filter((trade) => trade.trade_id > last);
    this.rows = [...rows, ...newer].slice(-TRADES_KEPT);
    this.last = Math.max(last, this.last ?? 0);
  }
}

/** The candles of one symbol. */
export class Candles {
  /** @param {Interval} interval */
  constructor(interval) {
    this.interval = interval;
    /** @type {Candle[]} */
    this.rows = [];
    this.covered = Infinity; // last trade_id in the rows
    this.isWhole = true; // the first row is the first of its round
  }

  /**
   * Take the table, made when `last` was the newest trade_id; `isWhole`: there
   * are no earlier rows.
   * @param {Candle[]} rows
   * @param {number} last
   * @param {boolean} isWhole
   */
  fill(rows, last, isWhole) {
    this.rows = rows.map((row) => [...row]);
    this.covered = last;
    this.isWhole = isWhole;
  }

  /** Take rows of the table that may be older than those here. */
  extend(rows) {
    const [first] = this.rows;
    const older = rows.filter(([start]) => start < first[0]);
    this.rows = [...older, ...this.rows].slice(-CANDLES_KEPT);
  }

  /** @param {Wire.Trade} trade */
  take({ trade_id: id, ts, price, qty }) {
    if (id <= this.covered) return;
    this.covered = id;
    const start = ts - (ts % INTERVALS[this.interval]);
    const row = this.rows.at(-1);
    if (row && row[0] === start) {
      row[2] = Math.max(row[2], price);
      row[3] = Math.min(row[3], price);
      row[4] = price;
      row[5] += qty;
      return;
    }
    this.rows.push([start, price, price, price, price, qty]);
    if (this.rows.length <= CANDLES_KEPT) return;
    this.rows.shift();
    this.isWhole = false;
  }
}
