/**
 * The last price of each instrument: the only source of it on the page. Tabs,
 * headline, title, chart and overview read it here, so that none of them can
 * show another price. Pure: no clock, no document.
 */

const BUCKET_US = 5_000_000; // one point of a spark line
const POINTS = 120; // of a spark line: 10 minutes

/** @import { Candle } from "./market.js" */
/**
 * @typedef {object} Price
 * @property {number} [last] in ticks
 * @property {number} [before] the last price that differed
 * @property {number} [open] first price of the day or of the round
 * @property {number} ts of the newest message
 * @property {[number, number][]} points bucket and price, oldest first
 */

/** @type {Readonly<Price>} */
const NOTHING = Object.freeze({
  ts: 0,
  points: [],
});

export class Prices {
  /** @type {Map<string, Price>} by symbol */
  #rows = new Map();

  clear() {
    this.#rows.clear();
  }

  /**
   * Return what is known of a symbol; do not change it.
   * @param {string | null} symbol
   * @returns {Readonly<Price>}
   */
  of(symbol) {
    return this.#rows.get(symbol ?? "") ?? NOTHING;
  }

  /**
   * Take a price as of a time; undefined: there is none.
   * @param {string} symbol
   * @param {number | undefined} price
   * @param {number} ts
   */
  take(symbol, price, ts) {
    const row = this.#row(symbol);
    if (ts < row.ts) return;
    row.ts = ts;
    if (price === undefined) {
      row.last = row.before = row.open = undefined;
      row.points = [];
      return;
    }
    if (price !== row.last) row.before = row.last;
    row.last = price;
    addPoint(row.points, ts, price);
  }

  /**
   * Take candles that were made before: of a day, and of seconds.
   * @param {string} symbol
   * @param {Candle[]} day
   * @param {Candle[]} seconds
   */
  seed(symbol, day, seconds) {
    const row = this.#row(symbol);
    row.open = day.at(-1)?.[1] ?? row.open;
    const [first] = row.points;
    /** @type {Price["points"]} */
    const points = [];
    for (const [ts, , , , close] of seconds) addPoint(points, ts, close);
    const older = points.filter(([bucket]) => !first || bucket < first[0]);
    row.points = [...older, ...row.points].slice(-POINTS);
  }

  /** @param {string} symbol */
  #row(symbol) {
    let row = this.#rows.get(symbol);
    if (!row) this.#rows.set(symbol, (row = { ...NOTHING, points: [] }));
    return row;
  }
}

/**
 * @param {Price["points"]} points
 * @param {number} ts
 * @param {number} price
 */
function addPoint(points, ts, price) {
  const bucket = Math.floor(ts / BUCKET_US);
  const newest = points.at(-1);
  if (newest?.[0] === bucket) newest[1] = price;
  else points.push([bucket, price]);
  if (points.length > POINTS) points.shift();
}
