/**
 * The ladder: a row for every price. Left of the price one buys, right of it
 * one sells. A click fills price and side into the ticket, a second one sends;
 * a click on own lots cancels them.
 */

import { Axis, depth, STEPS } from "./axis.js";
import { byId, make, put } from "./dom.js";
import { tickOf } from "./market.js";
import { showLots, showRoughly } from "./words.js";

const LEAST_ROWS = 9; // also on a phone
const MOST_ROWS = 61;
// Width of a digit of lots and of a sum, and around both, in text sizes.
const WIDTHS = { lots: 0.64, sum: 0.5, around: 0.6 };
/** @type {Side[]} */
const SIDES = ["buy", "sell"];
const COLUMNS = ["mine", "bid", "price", "ask", "mine"];

/** @import { Account, Side } from "./account.js" */
/** @import { Exchange } from "./exchange.js" */
/** @import { Book, Tick } from "./market.js" */

export class Ladder {
  /**
   * `desk` has fill(side, price), send() and cancelAt(side, price); it is
   * asked for isArmed(side, price): whether a second click sends.
   * @param {Exchange} exchange
   * @param {any} desk
   */
  constructor(exchange, desk) {
    this.exchange = exchange;
    this.desk = desk;
    this.axis = new Axis();
    /** @type {any[]} elements of each row, and its price */
    this.rows = [];
    /** @type {[number, Side] | null} chosen by keys */
    this.cursor = null;
    this.isHeld = false; // a pointer is over the rows
    this.box = byId("ladder-box");
    this.body = byId("ladder");
    this.step = byId("step");
    this.step.append(
      new Option("auto", "0"),
      ...STEPS.map((step) => new Option(`×${step}`, String(step))),
    );
    this.step.onchange = () => {
      this.axis.choose(Number(this.step.value));
      this.draw();
    };
    byId("centre-book").onclick = () => this.centre();
    this.body.onclick = (event) => this.#click(event);
    this.box.onpointerenter = ({ pointerType: type }) =>
      (this.isHeld = type === "mouse");
    this.box.onpointerleave = () => (this.isHeld = false);
    this.box.onkeydown = (event) => this.#key(event);
    this.box.onblur = () => this.#point(null);
    this.body.addEventListener("wheel", (event) => this.#wheel(event), {
      passive: false,
    });
    this.bids = /** @type {HTMLElement} */ (this.box.querySelector("th.bid"));
    this.room = 0; // width of a cell of lots, in text sizes
    const observer = new ResizeObserver(() => this.#resize());
    for (const part of [this.box, this.bids]) observer.observe(part);
    this.#resize();
  }

  centre() {
    this.axis.centre();
    this.draw();
  }

  draw() {
    const { book, instrument, account, symbol } = this.exchange;
    if (!instrument || symbol === null) return;
    const tick = tickOf(instrument);
    const { last } = this.exchange.prices.of(symbol);
    const { reference_price: reference, min_price, max_price } = instrument;
    const middle = last ?? (reference || Math.max(min_price, 0));
    const { axis, rows } = this;
    axis.fit(symbol, book, rows.length, middle, this.isHeld);
    byId("centre-book").classList.toggle("wanted", axis.isAway);
    const levels = depth(book, axis);
    const sums = [...levels.bids.values(), ...levels.asks.values()];
    const most = Math.max(1, ...sums.map(([qty]) => qty));
    const total = Math.max(1, ...sums.map(([, sum]) => sum));
    const own = this.#own(account, symbol);
    const scale = { most, total };
    const needed =
      WIDTHS.around +
      WIDTHS.lots * showLots(most).length +
      WIDTHS.sum * Math.max(0, ...sums.map(([, sum]) => showRoughly(sum).length));
    this.box.classList.toggle("large", needed > this.room);
    for (const [n, row] of rows.entries()) {
      const price = axis.rows[n] ?? NaN; // NaN: no price
      const isGap = axis.rows[n] === null;
      const isLegal = min_price <= price && price <= max_price;
      row.price = isLegal ? price : null;
      put(row.cells.price, isLegal ? tick.show(price) : isGap ? "⋮" : "");
      this.#drawSide(row, "bid", levels.bids.get(price), scale);
      this.#drawSide(row, "ask", levels.asks.get(price), scale);
      put(row.cells.buy, own.buy.has(price) ? showLots(own.buy.get(price)) : "");
      put(
        row.cells.sell,
        own.sell.has(price) ? showLots(own.sell.get(price)) : "",
      );
      this.#mark(row, price, last, own);
    }
    this.#drawDepth(book, tick);
  }

  /**
   * Return lots of own orders by the price of their row.
   * @param {Account | null} account
   * @param {string} symbol
   */
  #own(account, symbol) {
    /** @type {Record<Side, Map<number, number>>} */
    const sums = { buy: new Map(), sell: new Map() };
    if (!account) return sums;
    const resting = account.resting(symbol);
    for (const side of SIDES) {
      const name = side === "buy" ? "bids" : "asks";
      for (const [price, orders] of resting[side]) {
        const row = this.axis.floor(price, name);
        const lots = orders.reduce((sum, order) => sum + order.leaves_qty, 0);
        sums[side].set(row, (sums[side].get(row) ?? 0) + lots);
      }
    }
    return sums;
  }

  #drawSide(row, name, level, { most, total }) {
    const { bar, curve, qty, sum } = row[name];
    put(qty, level ? showLots(level[0]) : "");
    put(sum, level ? showRoughly(level[1]) : "");
    stretch(bar, level ? level[0] / most : 0);
    stretch(curve, level ? level[1] / total : 0);
  }

  /**
   * @param {any} row
   * @param {number} price
   * @param {number | undefined} last
   * @param {Record<Side, Map<number, number>>} own
   */
  #mark(row, price, last, own) {
    const { desk, cursor } = this;
    const names = ["row"];
    const isLast = last !== undefined && price === this.axis.floor(last, "bids");
    if (isLast) names.push("last");
    for (const side of SIDES) {
      if (desk.isArmed(side, price)) names.push(`armed-${side}`);
      if (own[side].has(price)) names.push(`own-${side}`);
      const [at, on] = cursor ?? [];
      if (at === price && on === side) names.push(`at-${side}`);
    }
    const text = names.join(" ");
    if (row.node.className !== text) row.node.className = text;
  }

  /**
   * Say what all lots of the book are, with the spread.
   * @param {Book} book
   * @param {Tick} tick
   */
  #drawDepth(book, tick) {
    const [[bid] = []] = book.bids.top(1);
    const [[ask] = []] = book.asks.top(1);
    const isEmpty = bid === undefined && ask === undefined;
    const isWhole = bid !== undefined && ask !== undefined;
    const words = isEmpty
      ? "Nobody bids or offers"
      : isWhole
        ? ask > bid
          ? `spread ${tick.show(ask - bid)}`
          : `crossed by ${tick.show(bid - ask)}: an auction trades it`
        : bid === undefined
          ? "Nobody bids"
          : "Nobody offers";
    const row = this.axis.step > 1 ? ` · ${this.axis.step} ticks in a row` : "";
    put(byId("depth"), words + row);
  }

  // Rows --------------------------------------------------------------------

  /** Have as many rows as fit. */
  #resize() {
    const style = getComputedStyle(this.box);
    const height = parseFloat(style.getPropertyValue("--row-px")) || 24;
    const head = this.box.querySelector("thead").offsetHeight || 24;
    const isFixed = style.getPropertyValue("--rows").trim();
    const free = Math.floor((this.box.clientHeight - head) / height);
    const count = isFixed ? Number(isFixed) : free;
    const fitting = Math.min(Math.max(count, LEAST_ROWS), MOST_ROWS);
    const room = this.bids.clientWidth / parseFloat(style.fontSize);
    if (fitting === this.rows.length && room === this.room) return;
    this.room = room;
    while (this.rows.length < fitting) this.rows.push(this.#add());
    for (const { node } of this.rows.splice(fitting)) node.remove();
    this.draw();
  }

  #add() {
    const node = make("tr", "row");
    const [buy, bid, price, ask, sell] = COLUMNS.map((name) =>
      make("td", name),
    );
    const side = (cell) => {
      const [curve, bar] = [make("span", "depth"), make("span", "bar")];
      const [qty, sum] = [make("span", "qty"), make("span", "upto")];
      cell.append(curve, bar, qty, sum);
      return { bar, curve, qty, sum };
    };
    const row = { node, price: null, bid: side(bid), ask: side(ask) };
    row.cells = { buy, price, sell };
    node.append(buy, bid, price, ask, sell);
    this.body.append(node);
    return row;
  }

  // Clicks and keys ---------------------------------------------------------

  #click({ target }) {
    const cell = target.closest("td");
    const row = this.rows.find(({ node }) => node === cell?.parentNode);
    if (!row || row.price === null || !this.exchange.trader) return;
    const side = [...row.node.cells].indexOf(cell) < 2 ? "buy" : "sell";
    const isPrice = cell === row.cells.price;
    if (cell.className === "mine" && cell.textContent) {
      this.#cancel(side, row.price);
    } else {
      this.#choose(isPrice ? null : side, row.price);
    }
  }

  /** Fill price and side; send if they are filled already. */
  #choose(side, price) {
    if (side && this.desk.isArmed(side, price)) this.desk.send();
    else this.desk.fill(side, price);
    this.draw();
  }

  #key(event) {
    const { key } = event;
    if (event.target !== this.box || event.ctrlKey || event.altKey) return;
    const [price, side] = this.cursor ?? this.#start();
    if (price === undefined) return;
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[key];
    if (by) this.#move(price, side, by);
    else if (key === "ArrowLeft") this.#point([price, "buy"]);
    else if (key === "ArrowRight") this.#point([price, "sell"]);
    else if (key === "Delete") this.#cancel(side, price);
    else if (key === "Enter" && !event.repeat) {
      if (this.exchange.trader && this.cursor) this.#choose(side, price);
    } else return;
    event.preventDefault();
  }

  #cancel(side, price) {
    if (this.exchange.trader) this.desk.cancelAt(side, price, this.axis);
  }

  #start() {
    const prices = this.axis.rows.filter((price) => price !== null);
    return [prices[prices.length >> 1], "buy"];
  }

  #move(price, side, by) {
    const target = price + by * this.axis.step;
    if (!this.cursor) return this.#point([price, side]);
    if (!this.axis.rows.includes(target)) this.axis.move(by);
    this.#point([target, side]);
  }

  /** Put the cursor of the keys on a price and side; null: nowhere. */
  #point(cursor) {
    this.cursor = cursor;
    if (cursor) {
      const [price, side] = cursor;
      const tick = tickOf(this.exchange.instrument);
      this.desk.say(`${side} at ${tick.show(price)}`);
    }
    this.draw();
  }

  #wheel(event) {
    const { scrollHeight, clientHeight } = document.documentElement;
    if (event.ctrlKey || scrollHeight > clientHeight) return;
    event.preventDefault();
    this.axis.move(event.deltaY < 0 ? 1 : -1);
    this.draw();
  }
}

function stretch(node, share) {
  const text = share.toFixed(3);
  if (node.share === text) return;
  node.share = text;
  node.style.transform = `scaleX(${text})`;
}
