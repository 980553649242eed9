/**
 * Lines across the chart: the last price, best bid and ask, and own orders,
 * which can be dragged to another price.
 */

import { LineStyle } from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs";
import { tickOf } from "./market.js";
import { showLots } from "./words.js";

const NEAR = { mouse: 5, pen: 10, touch: 16 }; // pixels from a line

/** @import { Chart } from "./chart.js" */
/** @import { Exchange } from "./exchange.js" */

export class Lines {
  /**
   * `move(order, price)` amends an order that was dragged.
   * @param {Exchange} exchange
   * @param {Chart} chart
   * @param {(order: Wire.Exec, price: number) => void} move
   */
  constructor(exchange, chart, move) {
    this.exchange = exchange;
    this.chart = chart;
    this.move = move;
    /** @type {Map<string | number, any>} by name: the line and what it shows */
    this.lines = new Map();
    /** @type {{ order: Wire.Exec, price: number } | null} */
    this.dragged = null;
    chart.onSeries = () => {
      this.#forget();
      this.draw();
    };
    const { box } = chart;
    box.addEventListener("pointerdown", (event) => this.#grab(event), true);
    box.addEventListener("pointermove", (event) => this.#drag(event), true);
    box.addEventListener("pointerup", () => this.#drop(true), true);
    box.addEventListener("pointercancel", () => this.#drop(false), true);
    // The chart would scroll by the same finger.
    box.addEventListener(
      "touchstart",
      (event) => this.dragged && event.stopPropagation(),
      true,
    );
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.#drop(false);
    });
  }

  draw() {
    const { symbol, account, book, prices } = this.exchange;
    const { buy, sell, accent } = this.chart.colours;
    const wanted = new Map();
    const [[bid] = []] = book.bids.top(1);
    const [[ask] = []] = book.asks.top(1);
    const quote = { lineStyle: LineStyle.Dotted, axisLabelVisible: false };
    if (bid !== undefined) {
      wanted.set("bid", { price: bid, color: buy, title: "bid", ...quote });
    }
    if (ask !== undefined) {
      wanted.set("ask", { price: ask, color: sell, title: "ask", ...quote });
    }
    for (const order of account?.orders.values() ?? []) {
      if (order.symbol !== symbol) continue;
      const price = this.#priceOf(order);
      if (price === undefined) continue;
      const isWaiting = order.order_status === "waiting";
      wanted.set(order.order_id, {
        price,
        color: order.side === "buy" ? buy : sell,
        title: `${order.side}${isWaiting ? " stop" : ""} ${showLots(order.leaves_qty)}`,
        lineStyle: isWaiting ? LineStyle.Dashed : LineStyle.Solid,
        axisLabelVisible: false,
      });
    }
    const { last } = prices.of(symbol);
    if (last !== undefined) {
      const looks = { lineStyle: LineStyle.Dashed, axisLabelVisible: true };
      wanted.set("last", { price: last, color: accent, title: "", ...looks });
    }
    this.#show(wanted);
  }

  /** Return the price on the axis's tag, in ticks; undefined if none. */
  get tag() {
    return this.lines.get("last")?.shown.price;
  }

  #show(wanted) {
    for (const [name, { line }] of this.lines) {
      if (wanted.has(name)) continue;
      this.chart.series.removePriceLine(line);
      this.lines.delete(name);
    }
    for (const [name, shown] of wanted) {
      const known = this.lines.get(name);
      const key = JSON.stringify([shown, this.chart.thin]);
      if (known?.key === key && known.unit === this.chart.unit) continue;
      const options = {
        lineWidth: this.chart.thin,
        ...shown,
        price: shown.price * this.chart.unit,
      };
      const line = known?.line ?? this.chart.series.createPriceLine(options);
      if (known) line.applyOptions(options);
      this.lines.set(name, { line, key, shown, unit: this.chart.unit });
    }
  }

  /** Forget lines of a series that is no longer drawn. */
  #forget() {
    for (const one of [this.chart.candles, this.chart.line]) {
      for (const line of one.priceLines()) one.removePriceLine(line);
    }
    this.lines.clear();
  }

  /** @param {Wire.Exec} order */
  #priceOf(order) {
    const { dragged } = this;
    if (dragged && dragged.order.order_id === order.order_id) return dragged.price;
    return order.order_status === "waiting" ? order.trigger_price : order.price;
  }

  // Dragging ----------------------------------------------------------------

  #y({ clientY }) {
    return clientY - this.chart.box.getBoundingClientRect().top;
  }

  /** Return the own order whose line is near a pointer. */
  #under(event) {
    const { trader, symbol } = this.exchange;
    const y = this.#y(event);
    const reach = NEAR[event.pointerType] ?? NEAR.mouse;
    return [...(trader?.orders.values() ?? [])].find((order) => {
      const price = this.#priceOf(order);
      if (order.symbol !== symbol || price === undefined) return false;
      const at = this.chart.series.priceToCoordinate(price * this.chart.unit);
      return at !== null && Math.abs(at - y) <= reach;
    });
  }

  #grab(event) {
    const order = this.#under(event);
    const price = order && this.#priceOf(order);
    if (!order || price === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.dragged = { order, price };
    this.chart.box.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    const { box, series, unit } = this.chart;
    if (!this.dragged) {
      box.classList.toggle("grip", this.#under(event) !== undefined);
      return;
    }
    event.stopPropagation();
    const money = series.coordinateToPrice(this.#y(event));
    if (money === null) return;
    const { instrument } = this.exchange;
    if (!instrument) return;
    const { min_price: low, max_price: high } = instrument;
    const ticks = Math.round(money / unit);
    this.dragged.price = Math.min(Math.max(ticks, low), high);
    this.draw();
  }

  #drop(isMeant) {
    const { dragged } = this;
    if (!dragged) return;
    this.dragged = null;
    const isMoved = dragged.price !== this.#priceOf(dragged.order);
    if (isMeant && isMoved) this.move(dragged.order, dragged.price);
    this.draw();
  }
}

/**
 * Describe a bar of the chart, for its legend.
 * @param {Exchange} exchange
 * @param {any} bar
 * @param {any} volume
 */
export function describeBar(exchange, bar, volume) {
  if (!bar) return "";
  const tick = tickOf(exchange.instrument);
  const unit = Number(tick.plain(1));
  const show = (money) => tick.show(Math.round(money / unit));
  if (bar.value !== undefined) return `Trade at ${show(bar.value)}`;
  const { open, high, low, close } = bar;
  const names = { O: open, H: high, L: low, C: close };
  const words = Object.entries(names).map(([n, money]) => `${n} ${show(money)}`);
  if (volume) words.push(`V ${showLots(volume.value)}`);
  return words.join("  ");
}
